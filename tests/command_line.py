"""What a command of `bm3` leaves behind when a test runs it, by the fixture `command`; how long to wait for one."""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import click

GIVE_UP_AFTER = 600
"""Seconds until a process counts as hung, on however busy a machine: nothing is asserted about its speed."""


class Outcome(NamedTuple):
    """What a command left on its streams, and its exit code."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]
"""`command("train", …)` gives the outcome of `bm3 train …`."""


def leaves(group: click.Group, *above: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its words."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, *above, name)
        else:
            yield (*above, name), command


def cells(out: str, first: str) -> list[str]:
    """The cells of the row of a printed table that begins so."""
    (line,) = [line for line in out.splitlines() if line.split("  ")[0] == first]
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def wait_until(condition: Callable[[], object]) -> None:
    """Look again and again."""
    deadline = time.monotonic() + GIVE_UP_AFTER
    while not condition():
        assert time.monotonic() < deadline, f"waited {GIVE_UP_AFTER} s in vain"
        time.sleep(0.005)


def refused(outcome: Outcome) -> str:
    """The one line of a command that ended because of its input."""
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("bm3: ")
    return lines[0]
