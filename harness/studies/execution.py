"""Running the trials of a study through one function, whatever runs them. The ways of running one are `backends`.

The store is what counts: a trial is done when its result is there, whoever put it there. So a study can be stopped and
started again, and two studies can share a store at the same time.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from bm3 import DataError
from harness.runs.store import (
    OUT_OF_MEMORY,
    RESULT,
    RUN,
    FailureKind,
    StoredRun,
    in_use,
    supersede,
    write_failure,
)
from harness.runs.trial import Trial, folder_of
from harness.runs.words import Policy
from harness.studies.status import Running
from harness.training.config import STOPPING_METRIC

LOGGER = logging.getLogger("harness.study")
RETRIES = 1
SECONDS_BETWEEN_LOOKS = 0.5

Outcomes = Mapping[str, StoredRun | None]
"""By key of a trial that has ended: its finished run, or None where there is none."""
Wanted = Callable[[Outcomes], Sequence[Trial]]
"""The trials known to be needed once these have ended, in order, these included."""


@dataclass(frozen=True)
class Ending:
    """A trial that is no longer running. Whether it has a result stands in the store."""

    trial: Trial
    message: str
    """What is known of it, such as `exit code 1`; only of interest without a result."""
    vanished: bool = False
    """Its process or machine went without a word, so that another attempt may succeed."""
    misused: bool = False
    """Wrong settings, data or a full disk: not the run's own failure, which is not stored as one."""
    elsewhere: bool = False
    """It was not run, since another process runs it."""
    out_of_memory: bool = False
    """The system ended its process because memory ran out."""


class Backend(Protocol):
    """A way of running trials."""

    def full(self) -> bool:
        """Whether nothing can begin before something has ended."""
        ...

    def start(self, trial: Trial) -> str | None:
        """Begin to run it and say where; None while there is no room for this one."""
        ...

    def wait(self, seconds: float) -> list[Ending]:
        """What has ended since, as soon as something has, at the latest after so many seconds."""
        ...

    def stop(self) -> None:
        """Stop what is running, which can go on later."""
        ...


@dataclass(frozen=True)
class Progress:
    """How far a study is: the trials known so far by what became of them."""

    trials: tuple[Trial, ...]
    outcomes: Outcomes
    reused: frozenset[str]
    """Keys of trials that had a result already."""
    running: tuple[Running, ...]
    attempts: Mapping[str, int]


Observe = Callable[[Progress], None]


def execute(
    wanted: Wanted,
    store: Path,
    backend: Backend,
    *,
    policy: Policy = "missing",
    observe: Observe = lambda progress: None,
    retries: int = RETRIES,
    alone: bool = False,
    since: float | None = None,
) -> Outcomes:
    """Run all trials that are wanted, those of a selection as soon as it is made, and give what became of each.

    A trial whose process vanishes is tried `retries` times more, going on from its checkpoint. One that another process
    is running is left to it. Nothing that is stored and finished is run again, except with the policy `all`, which
    moves aside what is older than `since`, when this rerun began (in seconds since the epoch, by default now). With
    `alone` no two of the trials run at a time, in whichever process. Raises WriteError when the store cannot be
    written; on this, and on Ctrl-C, what runs is stopped.
    """
    execution = _Execution(wanted, store, backend, policy, retries, alone, since or time.time())
    try:
        while execution.advance():
            observe(execution.progress())
        observe(execution.progress())
    finally:
        backend.stop()
    return execution.outcomes


class _Execution:
    """The state of `execute`."""

    def __init__(
        self,
        wanted: Wanted,
        store: Path,
        backend: Backend,
        policy: Policy,
        retries: int,
        alone: bool,
        since: float,
    ) -> None:
        self._wanted, self._store, self._backend = wanted, store, backend
        self._policy, self._retries, self._alone, self._since = policy, retries, alone, since
        self._trials: Sequence[Trial] = ()
        self.outcomes: dict[str, StoredRun | None] = {}
        self._reused: set[str] = set()
        self._running: dict[str, Running] = {}
        self._elsewhere: dict[str, Running] = {}
        self._attempts: dict[str, int] = {}

    def advance(self) -> bool:
        """Settle what the store has, start what there is room for, and wait a little; False when all has ended."""
        self._trials = self._wanted(self.outcomes)
        while self._settle():
            self._trials = self._wanted(self.outcomes)  # an outcome may decide what else is needed
        todo = [trial for trial in self._trials if trial.key not in self.outcomes]
        if not todo:
            return False
        mine = [trial for trial in todo if trial.key not in self._running and not self._runs_elsewhere(trial)]
        for trial in mine:
            if self._backend.full() or (self._alone and (self._running or self._elsewhere)):
                break
            self._begin(trial)
        for ending in self._backend.wait(SECONDS_BETWEEN_LOOKS):
            self._end(ending)
        return True

    def progress(self) -> Progress:
        running = (*self._running.values(), *self._elsewhere.values())
        return Progress(tuple(self._trials), dict(self.outcomes), frozenset(self._reused), running, self._attempts)

    def _settle(self) -> bool:
        """Note which trials need not be run; whether there were any."""
        before = len(self.outcomes)
        for trial in self._trials:
            if trial.key not in self.outcomes and trial.key not in self._running:
                try:
                    self._settle_stored(trial, self._read(trial))
                except DataError as error:
                    self._settle_damaged(trial, error)
                if trial.key in self.outcomes:
                    self._elsewhere.pop(trial.key, None)
        return len(self.outcomes) > before

    def _read(self, trial: Trial) -> StoredRun | None:
        path = folder_of(trial, self._store)
        return StoredRun.read(path) if (path / RUN).is_file() else None

    def _settle_damaged(self, trial: Trial, error: DataError) -> None:
        """A result that cannot be read is not lost by itself: it is moved aside where reruns are asked for."""
        path = self._store / trial.key
        if in_use(path) or not ((path / RESULT).is_file() or self._policy == "none"):
            return  # it is being written, or was never finished and can be begun anew
        if self._policy in ("failed", "all"):
            LOGGER.warning("set aside: %s: %s", supersede(self._store, self._store / trial.key), error)
            return
        LOGGER.error("failed: %s: %s", trial.key, error)
        self.outcomes[trial.key] = None

    def _settle_stored(self, trial: Trial, run: StoredRun | None) -> None:
        mine = trial.key in self._attempts
        if run is not None and run.finished:
            if self._policy == "all" and not mine and _ended_before(run, self._since):
                LOGGER.info("set aside: %s", supersede(self._store, run.path))
                return
            self.outcomes[trial.key] = run
            if not mine and trial.key not in self._elsewhere:
                self._reused.add(trial.key)
        elif run is not None and run.failure is not None and self._policy in ("missing", "none"):
            LOGGER.warning("failed earlier: %s: %s", trial.key, run.failure["message"])
            self.outcomes[trial.key] = None
        elif self._policy == "none":
            self.outcomes[trial.key] = None

    def _runs_elsewhere(self, trial: Trial) -> bool:
        """Whether another process runs the trial."""
        if not in_use(self._store / trial.key):
            self._elsewhere.pop(trial.key, None)
            return False
        if trial.key not in self._elsewhere:
            LOGGER.info("another process runs: %s", trial.key)
            self._elsewhere[trial.key] = _running(trial, "another process", 1)
        return True

    def _begin(self, trial: Trial) -> None:
        """Start the trial if there is room for it."""
        place = self._backend.start(trial)
        if place is not None:
            attempt = self._attempts[trial.key] = self._attempts.get(trial.key, 0) + 1
            self._running[trial.key] = _running(trial, place, attempt)
            LOGGER.info("started: %s (%s%s)", trial.command, place, f", attempt {attempt}" if attempt > 1 else "")

    def _end(self, ending: Ending) -> None:
        key, path = ending.trial.key, self._store / ending.trial.key
        seconds = time.time() - self._running.pop(key).since
        if ending.elsewhere:  # begun at nearly the same moment
            self._attempts.pop(key)
            LOGGER.info("left to another process: %s", key)
            return
        try:
            run = self._read(ending.trial)
        except DataError as error:
            LOGGER.error("failed: %s: %s", key, error)
            self.outcomes[key] = None
            return
        if run is not None and run.finished:
            self.outcomes[key] = run
            value = metric_of(run, "test", STOPPING_METRIC)
            LOGGER.info("finished: %s: test R@20 %.4f, %.0f s", key, value, seconds)
            return
        if run is not None and run.failure is not None:
            message = str(run.failure["message"])
        elif ending.vanished and not ending.out_of_memory and self._attempts[key] <= self._retries:
            LOGGER.warning("vanished: %s: %s; trying again", key, ending.message)
            return
        else:
            message = ending.message
            if run is not None and not ending.misused:
                kind: FailureKind = "killed" if ending.vanished else "error"
                write_failure(path, OUT_OF_MEMORY if ending.out_of_memory else kind, message)
        LOGGER.error("failed: %s: %s", key, message)
        self.outcomes[key] = None


def metric_of(run: StoredRun, part: str, metric: str) -> float:
    """A metric of a finished run. Raises ValueError when it is unfinished."""
    if run.result is None:
        raise ValueError(f"{run.path} is unfinished")
    return float(run.result[part][metric])


def _running(trial: Trial, place: str, attempt: int) -> Running:
    return Running(trial.key, trial.command, time.time(), attempt, trial.training.epochs, place)


def _ended_before(run: StoredRun, started: float) -> bool:
    return run.result is not None and datetime.fromisoformat(run.result["finished"]).timestamp() < int(started)
