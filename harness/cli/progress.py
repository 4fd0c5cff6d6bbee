"""How far something is, on standard error: a bar on a terminal, plain lines elsewhere; and a study as it goes on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from harness.common import NOT_KNOWN, duration, size
from harness.evaluation.words import short_metric
from harness.runs.inspect import course
from harness.studies.status import Status
from harness.training.config import STOPPING_METRIC

if TYPE_CHECKING:
    from harness.training.fit import EpochRecord

SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal


def say(line: str, bars: Progress | None, file: IO[str]) -> None:
    """A line of its own, above the bars, or without any in a file."""
    if bars is not None:
        bars.console.print(line, markup=False, highlight=False)
    else:
        print(line, file=file, flush=True)


class Meter:
    """Context manager that shows how much of a total is done, in `unit`; bytes (`B`) as sizes."""

    def __init__(self, title: str, total: int | None = None, unit: str = "B", *, stays: bool = False) -> None:
        """`stays`: whether a bar is still there in the end."""
        self._title, self.total, self._unit, self._stays = title, total, unit, stays
        self._bar: Any = None
        self._began: tuple[float, int] | None = None
        self._last_line, self._last = time.monotonic(), 0

    def __enter__(self) -> Self:
        notebook = "ipykernel" in sys.modules and find_spec("ipywidgets") is not None  # which shows bars there
        if notebook or sys.stderr.isatty():
            done = DownloadColumn() if self._unit == "B" else MofNCompleteColumn()
            figures = TextColumn("{task.fields[figures]}", markup=False)
            left = TimeRemainingColumn(compact=True)
            columns = (TextColumn("{task.description}", markup=False), BarColumn(20), done, left, figures)
            console = Console(stderr=not notebook, force_jupyter=notebook or None, width=160 if notebook else None)
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
        say(line, self._bar, sys.stderr)

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


@contextmanager
def reading_runs(number: int) -> Iterator[Callable[[int], None]]:
    """A function to be told how many runs of a store have been read."""
    with Meter("stored runs", number, "read") as meter:
        meter.say(f"reading {number:,} runs that the store's index does not have yet")
        yield meter.to


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


METRIC = short_metric(STOPPING_METRIC)
MOST_TRIALS = 12
SILENCE = 120  # seconds after which it is said that a status is old


def bars(console: Console) -> Progress:
    """Without any bars yet, for `show`."""
    columns = [TextColumn(f"{{task.{text}}}", markup=False) for text in ("description", "fields[figures]")]
    # What goes to a file or a pipe must not end up on the terminal.
    onto = sys.stdout.isatty()
    return Progress(columns[0], BarColumn(12), columns[1], console=console, auto_refresh=False, redirect_stdout=onto)


def show(on: Progress, status: Status, now: float | None = None) -> None:
    """A bar for the study and one for each of its trials that run, in place of those before.

    `now` is in seconds since the epoch, by default the status's own. How far a trial is, is read from the end of its
    `epochs.jsonl`.
    """
    now, ongoing, store = max(now or 0.0, status.now), status.state == "running", Path(status.store)
    on.disable = True  # or every bar would be drawn as it comes
    for task in on.task_ids:
        on.remove_task(task)
    times = [f"{duration((now if ongoing else status.now) - status.started)} elapsed"]
    if ongoing and status.seconds_left is not None:
        times.append(f"about {duration(max(0.0, status.seconds_left - (now - status.now)))} left")
    if ongoing and now - status.now > SILENCE:
        times.append(f"as of {duration(now - status.now)} ago")
    name, figures = status.suite + f" {status.state}" * (not ongoing), f"{_counts(status)}; {', '.join(times)}"
    on.add_task(name, total=max(status.total, 1), completed=status.done + status.failed, figures=figures)
    for one in status.running[:MOST_TRIALS]:
        so_far = course(store / one.key)
        best = NOT_KNOWN if so_far.best is None else f"{so_far.best:.4f}"
        place = one.place + f", attempt {one.attempt}" * (one.attempt > 1)
        figures = f"epoch {so_far.epoch} of {one.epochs}  {METRIC} {best}  {duration(now - one.since)}  {place}"
        on.add_task(f"  {one.key}", total=one.epochs, completed=so_far.epoch, figures=figures)
    if (more := len(status.running) - MOST_TRIALS) > 0:
        on.add_task(f"  and {more} more", total=None, figures="")
    on.disable = False
    on.refresh()


def line(status: Status) -> str:
    """The study in one line."""
    words = [_counts(status), *([f"{len(status.running)} running"] if status.running else [])]
    if status.state != "running":
        words.append(f"{status.state} after {duration(status.now - status.started)}")
    elif status.seconds_left is not None:
        words.append(f"about {duration(status.seconds_left)} left")
    return ", ".join(words)


class StudyProgress:
    """Context manager that shows a study on standard error; `update` is called whenever its status may be another."""

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._status: Status | None = None
        self._bars: Progress | None = None
        self._last_line, self._last_words = float("-inf"), ""

    def __enter__(self) -> Self:
        if self._console.file.isatty() and not self._console.is_dumb_terminal:
            self._bars = bars(self._console)
            self._bars.start()
        return self

    def __exit__(self, *ended: object) -> None:
        if self._bars is not None:
            self._bars.stop()
        elif self._status is not None:
            self._print(self._status)

    def update(self, status: Status) -> None:
        """Show the study as it is now, and the new lines of its log."""
        before, self._status = self._status, status
        for text in new_lines(before.recent if before else (), status.recent):
            say(text, self._bars, self._console.file)
        if self._bars is not None:
            show(self._bars, status, self._clock())
        elif not before or status.state != "running" or self._clock() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._print(status)

    def _print(self, status: Status) -> None:
        """Print the line of the status if it is another than the last one."""
        words = line(status)
        if words != self._last_words:
            self._last_line, self._last_words = self._clock(), words
            print(words, file=self._console.file, flush=True)


def new_lines(before: Sequence[str], after: Sequence[str]) -> Sequence[str]:
    """The lines of `after` that follow those of `before`, where both are the last lines of one growing list."""
    for kept in range(min(len(before), len(after)), 0, -1):
        if tuple(before[-kept:]) == tuple(after[:kept]):
            return after[kept:]
    return after


def _counts(status: Status) -> str:
    text = f"{status.done} of {status.total} done"
    text += f" ({status.reused} stored before)" if status.reused else ""
    text += f", {status.failed} failed" if status.failed else ""
    return text + (f", {status.waiting} not run" if status.waiting and status.state == "finished" else "")
