"""How far one thing is, on standard error: a bar on a terminal, plain lines elsewhere. A study's: `study_progress`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from harness.common import duration, size
from harness.ending import keeping
from harness.evaluation.words import short_metric
from harness.training.config import STOPPING_METRIC

if TYPE_CHECKING:
    from harness.runs.record import RunRecord
    from harness.runs.trial import Trial
    from harness.training import EpochRecord

SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal


def in_notebook() -> bool:
    """Whether this is a notebook's kernel that can show a bar, which takes ipywidgets."""
    return "ipykernel" in sys.modules and find_spec("ipywidgets") is not None


class Meter:
    """Context manager that shows how much of a total is done, in `unit`; bytes (`B`) as sizes."""

    def __init__(self, title: str, total: int | None = None, unit: str = "B", *, stays: bool = False) -> None:
        """`stays`: whether a bar is still there in the end."""
        self._title, self.total, self._unit, self._stays = title, total, unit, stays
        self._bar: Any = None
        self._began: tuple[float, int] | None = None
        self._last_line, self._last = time.monotonic(), 0

    def __enter__(self) -> Self:
        notebook = in_notebook()
        if notebook or sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn
            from rich.progress import TimeRemainingColumn as Left

            done = DownloadColumn() if self._unit == "B" else MofNCompleteColumn()
            figures = TextColumn("{task.fields[figures]}", markup=False)
            columns = (TextColumn("{task.description}", markup=False), BarColumn(20), done, Left(compact=True), figures)
            console = Console(stderr=not notebook, force_jupyter=notebook or None)
            # What goes to a file or a pipe must not end up on the terminal.
            onto = not notebook and sys.stdout.isatty()
            self._bar = Progress(*columns, console=console, transient=not self._stays, redirect_stdout=onto)
            self._bar.add_task(self._title, total=self.total, figures="")
            self._bar.start()
        return self

    def __exit__(self, *ended: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def to(self, done: int, figures: str = "", *, at_once: bool = False) -> None:
        """So much is done. Without a terminal a line follows where one is due, or `at_once`.

        What was done at first says nothing of speed; it may go back, as where a transfer begins anew.
        """
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=self.total, figures=figures)
            return
        now = time.monotonic()
        if self._began is None or done < self._last:
            self._began = now, done
        self._last = done
        if at_once or now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self.say(f"{self._title}: {self._amount(done)}{figures and ' '}{figures}{self._left(now, done)}")

    def say(self, line: str) -> None:
        """A line of its own, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def _amount(self, done: int) -> str:
        if self._unit != "B":
            return f"{self._unit} {done}" + ("" if self.total is None else f"/{self.total}")
        return size(done) + ("" if self.total is None else f" of {size(self.total)}")

    def _left(self, now: float, done: int) -> str:
        """At the mean speed so far."""
        if self._began is None or self.total is None or done <= self._began[1]:
            return ""
        return f", about {duration((now - self._began[0]) / (done - self._began[1]) * (self.total - done))} left"


@contextmanager
def reading_progress(name: str, unit: str = "B") -> Iterator[Callable[[int, int | None], None]]:
    """A function to be told the position in the file `name`, and its size if that is known; in bytes, or in items."""
    with Meter(name, unit=unit) as meter:

        def at(position: int, total: int | None) -> None:
            meter.total = total
            meter.to(position)

        yield at


items_progress = partial(reading_progress, unit="item")


class TrainingProgress(Meter):
    """Whose `epoch` is called after every epoch."""

    def __init__(self, title: str, epochs: int, metric: str = STOPPING_METRIC) -> None:
        super().__init__(title, epochs, "epoch", stays=True)
        self._metric = metric
        self._first, self._best = True, (0, 0.0)

    def earlier(self, records: Sequence[EpochRecord]) -> None:
        """Take note of the epochs before a training that goes on."""
        for record in records:
            self._note(record)

    def epoch(self, record: EpochRecord) -> None:
        """Show the epoch: its validation and the best so far, loss and its parts, and the time left at most."""
        self._note(record)
        if self._first:
            self.to(record.epoch - 1)
        figures, best = [], f"best {self._best[1]:.4f} in {self._best[0]}"
        if record.valid:
            figures += [f"{short_metric(self._metric)} {record.valid[self._metric]:.4f}", best]
        if record.loss is not None:  # last, since a narrow terminal cuts it
            parts = ", ".join(f"{name} {value:.4g}" for name, value in record.parts.items())
            figures.append(f"loss {record.loss:.4g} ({parts})")
        self.to(record.epoch, ", ".join(figures), at_once=self._first or record.epoch == self.total)
        self._first = False

    def _note(self, record: EpochRecord) -> None:
        if record.improved and record.valid:
            self._best = record.epoch, record.valid[self._metric]


def trained(trial: Trial, out: Path, *, left: str = "", **options: Any) -> RunRecord:
    """`run_trial` with these options, its progress shown; an interruption is Interrupted, with what is `left` then."""
    from harness.runs.trial import run_trial

    left = left or f"{out / trial.key} is left unfinished; the same command goes on with it"
    title = f"{trial.entry.name} on {trial.dataset.name}, seed {trial.seed}"
    with keeping(lambda: left), TrainingProgress(title, trial.epochs, trial.training.early_stopping.metric) as bar:
        return run_trial(trial, out, bar.epoch, earlier=bar.earlier, tell=bar.say, **options)
