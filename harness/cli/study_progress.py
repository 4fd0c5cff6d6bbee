"""Progress of a whole study: bars on a terminal, plain lines elsewhere. What a study does is `Status`."""

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from harness.cli.progress import SECONDS_BETWEEN_LINES
from harness.common import NOT_KNOWN, duration
from harness.evaluation.words import short_metric
from harness.runs.inspect import NAME, course
from harness.studies.status import Running, Status
from harness.training.config import STOPPING_METRIC

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
    names = short_names(status.running)
    for name, one in list(zip(names, status.running, strict=True))[:MOST_TRIALS]:
        so_far = course(store / one.key)
        best = NOT_KNOWN if so_far.best is None else f"{so_far.best:.4f}"
        place = one.place + f", attempt {one.attempt}" * (one.attempt > 1)
        figures = f"epoch {so_far.epoch} of {one.epochs}  {METRIC} {best}  {duration(now - one.since)}  {place}"
        on.add_task(f"  {name}", total=one.epochs, completed=so_far.epoch, figures=figures)
    if (more := len(names) - MOST_TRIALS) > 0:
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


def short_names(running: Sequence[Running]) -> list[str]:
    """`bm3 on mini seed 2` for each; what `--set` changes follows where two would have the same name."""
    names = [_short_name(one.key) for one in running]
    words = [shlex.split(one.command) for one in running]
    settings = [" ".join(value for option, value in pairwise(of) if option == "--set") for of in words]
    return [
        f"{name} {of}".rstrip() if names.count(name) > 1 else name for name, of in zip(names, settings, strict=True)
    ]


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
            if self._bars is not None:
                self._bars.console.print(text, markup=False, highlight=False)
            else:
                print(text, file=self._console.file, flush=True)
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


def _short_name(key: str) -> str:
    dataset, _, folder = key.rpartition("/")
    named = NAME.fullmatch(folder)
    if named is None or not dataset:
        return key
    return f"{named['model']} on {dataset.rpartition('/')[2]} seed {named['seed']}"
