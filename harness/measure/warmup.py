"""Which epochs are warm-up, found from their seconds alone. What is made of the others is in `timing`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

MIN_EPOCHS = 20
"""Of one process, below which half of them say too little about noise to look for a change."""
WIDTHS = (1, 3, 7)
"""Epochs whose median is compared with the steady level; odd, so that a single slow epoch moves no median but its own.
Narrow ones find a steep start, wide ones its shallow end."""
STANDARD_ERRORS = 5.0
MATERIAL = 0.01
"""Smallest difference that matters, as a share of the steady level."""
NORMAL_MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
NORMAL_MEDIAN = 1.2533  # standard error of its median over that of its mean


@dataclass(frozen=True)
class WarmUp:
    """The epochs to leave out, counted from 0, and what is to be said of how they were found."""

    epochs: frozenset[int]
    note: str | None = None
    """Where no change was looked for, or no steady level found."""


def warm_up(seconds: Sequence[float], begun_after: Iterable[int] = (0,)) -> WarmUp:
    """Warm-up epochs of a training whose processes began after so many epochs each: the first after 0.

    The first epoch of each process is always one. What follows is one as long as it differs from the steady level, the
    median of the later half of the process's epochs, by more than noise and by more than MATERIAL; slower or faster,
    since a cold GPU can be faster. Never more than half of a process's epochs, unless it has only one.
    """
    bounds = sorted({0, *(place for place in begun_after if place < len(seconds)), len(seconds)})
    found: set[int] = set()
    short = unsteady = 0
    for begin, end in pairwise(bounds):
        count, ends = 1, True
        if end - begin < MIN_EPOCHS:
            short += 1
        else:
            count, ends = _change(np.asarray(seconds[begin:end], dtype=float))
        unsteady += not ends
        found.update(range(begin, begin + count))
    of = "" if len(bounds) == 2 else f" in {{}} of {len(bounds) - 1} processes"
    notes = []
    if short:
        text = "the first one counts as warm-up, no change was looked for"
        notes.append(f"fewer than {MIN_EPOCHS} epochs{of.format(short)}: {text}")
    if unsteady:
        notes.append(f"no steady level{of.format(unsteady)}: seconds per epoch still change after half of the epochs")
    return WarmUp(frozenset(found), "; ".join(notes) or None)


def _change(seconds: NDArray[np.float64]) -> tuple[int, bool]:
    """How many epochs come before the steady level, from 1 to half of them, and whether it is reached by then."""
    half = len(seconds) // 2
    steady = seconds[half:]
    level = float(np.median(steady))
    noise = NORMAL_MAD * float(np.median(np.abs(steady - level)))
    for count in range(1, half + 1):
        if not any(_differs(seconds[count : count + width], level, noise, len(steady)) for width in WIDTHS):
            return count, True
    return half, False


def _differs(some: NDArray[np.float64], level: float, noise: float, of: int) -> bool:
    error = NORMAL_MEDIAN * noise * (1 / len(some) + 1 / of) ** 0.5
    return bool(abs(float(np.median(some)) - level) > max(STANDARD_ERRORS * error, MATERIAL * abs(level)))
