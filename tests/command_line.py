"""What a command of `bm3` leaves behind when a test runs it, by the fixture `command`."""

from collections.abc import Callable
from typing import NamedTuple


class Outcome(NamedTuple):
    """What a command left on its streams, and its exit code."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]
"""`command("train", …)` gives the outcome of `bm3 train …`."""


def refused(outcome: Outcome) -> str:
    """The one line of a command that ended because of its input."""
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("bm3: ")
    return lines[0]
