"""Progress of reading a large file, by bytes: a bar on a terminal, plain lines elsewhere. Both go to standard error."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal


@contextmanager
def reading_progress(name: str, size: int) -> Iterator[Callable[[int], None]]:
    """A function to be told how many more of `size` bytes of the file `name` have been read."""
    if sys.stderr.isatty():
        with tqdm(total=size, desc=name, unit="B", unit_scale=True, dynamic_ncols=True, leave=False) as bar:

            def show(n: int) -> None:
                bar.update(n)

            yield show
        return
    started = last_line = time.monotonic()
    done = 0

    def advance(n: int) -> None:
        nonlocal done, last_line
        done += n
        now = time.monotonic()
        if now - last_line >= SECONDS_BETWEEN_LINES and done:
            last_line = now
            left = (now - started) / done * (size - done)
            line = f"{name}: {done / 1e6:,.0f} of {size / 1e6:,.0f} MB read, about {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)

    yield advance
