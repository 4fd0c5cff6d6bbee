"""How commands say several things: a line each, or as a table."""

from collections.abc import Iterable, Sequence
from functools import partial

import click

to_stderr = partial(click.echo, err=True)


def say(lines: Iterable[object], head: str = "", *, err: bool = False) -> None:
    """A line of each, on standard output or error, that begins with `head`."""
    for line in lines:
        click.echo(f"{head}{line}", err=err)


def say_unread(lines: Iterable[str]) -> None:
    """Which stored runs a command leaves out, and why."""
    say(lines, "cannot be read, left out: ", err=True)


def say_table(
    head: Sequence[str], rows: Iterable[Sequence[object]], widths: Sequence[int | None] | None = None
) -> None:
    """Cells as they are; those of a column wider than its width have several lines."""
    from tabulate import tabulate

    click.echo(tabulate(rows, head, disable_numparse=True, maxcolwidths=widths))
