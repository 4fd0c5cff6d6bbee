"""Progress within a large file, or among many items: a bar on a terminal, else plain lines; on standard error."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from harness.common import duration, size

SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal


@contextmanager
def reading_progress(name: str, *, items: bool = False) -> Iterator[Callable[[int, int | None], None]]:
    """A function to be told the position in the file `name`, and its size where that is known; in bytes, or in items.

    Positions may begin late and go back.
    """
    shown = "{:,} items".format if items else size
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        done = MofNCompleteColumn() if items else DownloadColumn()
        title = TextColumn("{task.description}", markup=False)
        with Progress(
            title, BarColumn(), done, TimeRemainingColumn(), console=Console(stderr=True), transient=True
        ) as bar:
            task = bar.add_task(name, total=None)
            yield lambda position, total: bar.update(task, completed=position, total=total)
        return
    began: tuple[float, int] | None = None
    last_line, last = time.monotonic(), 0

    def advance(position: int, total: int | None) -> None:
        nonlocal began, last_line, last
        now = time.monotonic()
        if began is None or position < last:
            began = now, position
        last = position
        if now - last_line < SECONDS_BETWEEN_LINES:
            return
        last_line = now
        come, seconds = position - began[1], now - began[0]
        left = None if total is None or come <= 0 else seconds / come * (total - position)
        of = "" if total is None else f" of {shown(total)}"
        print(f"{name}: {shown(position)}{of}, about {duration(left)} left", file=sys.stderr, flush=True)

    yield advance


items_progress = partial(reading_progress, items=True)
