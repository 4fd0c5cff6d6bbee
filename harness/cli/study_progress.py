"""Progress of a whole study: a live display on a terminal, plain lines elsewhere. What a study does is `Status`."""

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.cli.progress import SECONDS_BETWEEN_LINES
from harness.common import NOT_KNOWN, duration
from harness.runs.inspect import NAME, course
from harness.studies.status import Running, Status
from harness.training.config import STOPPING_NAME

REFRESHES_PER_SECOND = 2
MOST_TRIALS = 12
BAR = 12
SILENCE = 120  # seconds after which it is said that a status is old


def render(status: Status, store: Path, *, now: float | None = None) -> RenderableType:
    """The study, whose runs are in `store`, at the moment `now`: seconds since the epoch, by default the status's own.

    How far a trial is, is read from the end of its `epochs.jsonl`.
    """
    moment = status.now if now is None else max(now, status.now)
    parts: list[RenderableType] = [_overall(status, moment)]
    if status.running:
        parts.append(_trials(status, store, moment))
    if status.recent:
        parts.append(Group("", *(Text(text, style="dim") for text in status.recent)))
    return Group(*parts)


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
        self._live: Live | None = None
        self._last_line, self._last_words = float("-inf"), ""
        self._told: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        if self._console.file.isatty() and not self._console.is_dumb_terminal:
            self._live = Live(
                get_renderable=self._render,
                console=self._console,
                refresh_per_second=REFRESHES_PER_SECOND,
                # What goes to a file or a pipe must not end up on the terminal.
                redirect_stdout=sys.stdout.isatty(),
            )
            self._live.start()
        return self

    def __exit__(self, *ended: object) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._status is not None:
            self._print(self._status)

    def update(self, status: Status) -> None:
        """Show the study as it is now. On a terminal the next refresh does."""
        first, self._status = self._status is None, status
        if self._live is not None:
            return
        for text in new_lines(self._told, status.recent):
            print(text, file=self._console.file, flush=True)
        self._told = status.recent
        if first or status.state != "running" or self._clock() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._print(status)

    def _print(self, status: Status) -> None:
        """Print the line of the status if it is another than the last one."""
        words = line(status)
        if words != self._last_words:
            self._last_line, self._last_words = self._clock(), words
            print(words, file=self._console.file, flush=True)

    def _render(self) -> RenderableType:
        return "" if self._status is None else render(self._status, Path(self._status.store), now=self._clock())


def new_lines(before: Sequence[str], after: Sequence[str]) -> Sequence[str]:
    """The lines of `after` that follow those of `before`, where both are the last lines of one growing list."""
    for kept in range(min(len(before), len(after)), 0, -1):
        if tuple(before[-kept:]) == tuple(after[:kept]):
            return after[kept:]
    return after


def _overall(status: Status, now: float) -> RenderableType:
    ended = status.done + status.failed
    ongoing = status.state == "running"
    times = [f"{duration((now if ongoing else status.now) - status.started)} elapsed"]
    if ongoing and status.seconds_left is not None:
        times.append(f"about {duration(max(0.0, status.seconds_left - (now - status.now)))} left")
    if ongoing and now - status.now > SILENCE:
        times.append(f"as of {duration(now - status.now)} ago")
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    head = Text(status.suite, style="bold")
    if not ongoing:
        head.append(f" {status.state}")
    grid.add_row(head, _bar(ended, status.total), Text(f"{_counts(status)}; {', '.join(times)}"))
    return grid


def _trials(status: Status, store: Path, now: float) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    # Where all does not fit, names and places take several lines, and no figure is cut.
    for wraps in (True, False, False, False, False, True):
        grid.add_column(no_wrap=not wraps)
    names = short_names(status.running)
    for name, one in list(zip(names, status.running, strict=True))[:MOST_TRIALS]:
        so_far = course(store / one.key)
        best = NOT_KNOWN if so_far.best is None else f"{so_far.best:.4f}"
        attempt = f", attempt {one.attempt}" if one.attempt > 1 else ""
        grid.add_row(
            Padding(Text(name), (0, 0, 0, 2)),
            _bar(so_far.epoch, one.epochs),
            Text(f"epoch {so_far.epoch} of {one.epochs}"),
            Text(f"{STOPPING_NAME} {best}"),
            Text(duration(now - one.since)),
            Text(f"{one.place}{attempt}", style="dim"),
        )
    more = len(status.running) - MOST_TRIALS
    return Group(grid, Text(f"  and {more} more")) if more > 0 else grid


def _bar(done: int, total: int) -> RenderableType:
    return ProgressBar(total=max(total, 1), completed=done, width=BAR)


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
