"""A study from its beginning to its end: running its trials while its log, its status and its display are kept.

Which trials there are is decided by the caller, how they run by the backend.
"""

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from harness.common import WriteError, regular, writing
from harness.runs.record import FAILURE
from harness.runs.trial import Trial
from harness.studies.execute import LOGGER, Backend, Progress, Study, Wanted, execute
from harness.studies.status import Status, write_status
from harness.studies.suite import Outcomes

LOG_FILE = "study.log"
RECENT = 8  # lines of the log that the display shows
SECONDS_BETWEEN_WRITES = 1.0


def conduct(
    study: Study,
    wanted: Wanted,
    backend: Backend,
    show: Callable[[Status], None] = lambda status: None,
) -> Outcomes:
    """Run the study. Its status is written to its folder and shown, what happens is logged.

    Raises WriteError when the folder or the store cannot be written.
    """
    make_folder(study.folder)
    reporter = _Reporter(study, show)
    with _logging(study.folder / LOG_FILE, reporter.recent):
        LOGGER.info("begins: %s (process %d on %s)", study.name, os.getpid(), socket.gethostname())
        try:
            outcomes = execute(study, wanted, backend, reporter.observe)
        except KeyboardInterrupt:
            LOGGER.warning("interrupted: what runs goes on with the same command")
            reporter.end("interrupted")
            raise
        except BaseException as error:
            LOGGER.error("ended by an error: %s", error)
            reporter.end("interrupted")
            raise
        done = sum(run is not None for run in outcomes.values())
        LOGGER.info("ends: %d of %d trials have a result", done, len(outcomes))
        reporter.end("finished")
    return outcomes


def make_folder(folder: Path) -> None:
    """Raises WriteError."""
    with writing(folder, "name another folder with --out"):
        folder.mkdir(parents=True, exist_ok=True)


@dataclass
class _Reporter:
    """Turns progress into a status, which is written and shown."""

    study: Study
    show: Callable[[Status], None]
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=RECENT))
    _started: float = field(default_factory=time.time)
    _last: Status | None = None
    _written: float = 0.0
    _ended: int = -1

    def observe(self, progress: Progress) -> None:
        changed = len(progress.outcomes) != self._ended
        self._ended = len(progress.outcomes)
        status = self._status(progress)
        now = time.monotonic()
        if changed or self._last is None or now - self._written >= SECONDS_BETWEEN_WRITES:
            self._written = now
            self._write(status)
        self._last = status
        self.show(status)

    def end(self, state: str) -> None:
        if self._last is not None:
            over = replace(self._last, state=state, running=(), now=time.time(), recent=tuple(self.recent))  # type: ignore[arg-type]
            self._write(over)
            self.show(over)

    def _write(self, status: Status) -> None:
        with suppress(WriteError):  # a status that cannot be written is no reason to stop
            write_status(self.study.folder, status)

    def _status(self, progress: Progress) -> Status:
        ended, running = progress.outcomes, {one.key for one in progress.running}
        waiting = [trial for trial in progress.trials if trial.key not in ended and trial.key not in running]
        done = sum(run is not None for run in ended.values())
        failed = self._failed([key for key, run in ended.items() if run is None])
        return Status(
            suite=self.study.name,
            state="running",
            store=str(self.study.store.resolve()),
            started=self._started,
            now=time.time(),
            total=len(progress.trials),
            done=done,
            reused=len(progress.reused),
            failed=failed,
            waiting=len(waiting) + len(ended) - done - failed,
            running=progress.running,
            seconds_left=self._seconds_left(progress, waiting),
            recent=tuple(self.recent),
            process=os.getpid(),
            host=socket.gethostname(),
        )

    def _failed(self, without_result: list[str]) -> int:
        """How many of them failed; where nothing is run, others were not begun or not finished."""
        if self.study.policy != "none":
            return len(without_result)
        return sum((self.study.store / key / FAILURE).is_file() for key in without_result)

    def _seconds_left(self, progress: Progress, waiting: list[Trial]) -> float | None:
        """Of what waits and runs; a trial of which nothing is known counts as the median of the others."""
        ran = {one.key: time.time() - one.since for one in progress.running}
        asked = [*waiting, *(trial for trial in progress.trials if trial.key in ran)]
        expected = [(self.study.estimates.seconds(trial), ran.get(trial.key, 0.0)) for trial in asked]
        known = [max(0.0, seconds - since) for seconds, since in expected if seconds is not None]
        if not known:
            return None if asked else 0.0
        return (sum(known) + median(known) * (len(asked) - len(known))) / self.study.side_by_side


class _Recent(logging.Handler):
    """Keeps the last lines, except on what is started."""

    def __init__(self, lines: deque[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        if not record.getMessage().startswith("started: "):
            self._lines.append(record.getMessage())


@contextmanager
def _logging(path: Path, recent: deque[str]) -> Iterator[None]:
    """The study's log goes to the file, appended, and its last lines to `recent`."""
    with writing(path):
        to_file = logging.FileHandler(regular(path), encoding="utf-8", errors="backslashreplace")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    handlers = [to_file, _Recent(recent)]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    for handler in handlers:
        LOGGER.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            LOGGER.removeHandler(handler)
            handler.close()
