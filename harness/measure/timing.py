"""Seconds per epoch and per evaluation, which epochs are warm-up, and their summary.

What an epoch consists of is decided by its caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TypedDict

import numpy as np
import torch
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


class TimingSummary(TypedDict):
    """Times in seconds. A figure is None exactly where `note` says why; `epochs` counts warm-up epochs too."""

    warmup_s: float | None
    median_s: float | None
    q1_s: float | None
    q3_s: float | None
    epochs: int
    evaluation_median_s: float | None
    note: str | None
    warm_up_epochs: int
    """How many are left out of median and quartiles."""
    warm_up_note: str | None
    """Where these are the first of each process by rule and not by a change, or where no steady level was found."""


class EpochClock:
    """Times the training part of each epoch (`start`, `stop`) and, apart from it, each `evaluation`.

    Work queued on a CUDA device is waited for before every reading of `clock`, which gives seconds. The first epoch
    is always a warm-up: it pays for compilation, caches and the first allocations. Which ones after it are too is found
    by `warm_up`.
    """

    def __init__(self, device: torch.device, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._device = device
        self._clock = clock
        self._started = 0.0
        self._begun_after = {0}
        self.epochs_s: list[float] = []
        self.evaluations_s: list[float] = []

    def resume(self, epochs_s: Sequence[float], evaluations_s: Sequence[float], begun_after: Iterable[int]) -> None:
        """Go on after what other processes timed, which began after so many epochs each: the first one after 0.

        The next epoch is a warm-up as well: a new process pays for it again.
        """
        self.epochs_s, self.evaluations_s = list(epochs_s), list(evaluations_s)
        self._begun_after = {*begun_after, len(self.epochs_s)}

    def start(self) -> None:
        """Begins an epoch."""
        self._started = self._now()

    def stop(self) -> float:
        """Ends the epoch and gives its seconds."""
        self.epochs_s.append(self._now() - self._started)
        return self.epochs_s[-1]

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Times one evaluation; one that raises is not counted."""
        started = self._now()
        yield
        self.evaluations_s.append(self._now() - started)

    def summary(self) -> TimingSummary:
        """First epoch, median and quartiles (linear) of all but warm-ups, median over evaluations; in seconds."""
        notes = []
        left_out, warm_up_note = warm_up(self.epochs_s, self._begun_after)
        steady = [seconds for place, seconds in enumerate(self.epochs_s) if place not in left_out]
        if not self.epochs_s:
            notes.append("no epoch was timed")
        elif not steady:
            notes.append(
                "only warm-up epochs were timed" if len(self.epochs_s) > 1 else "only the warm-up epoch was timed"
            )
        if not self.evaluations_s:
            notes.append("no evaluation was timed")
        return TimingSummary(
            warmup_s=self.epochs_s[0] if self.epochs_s else None,
            median_s=_quantile(steady, 0.5),
            q1_s=_quantile(steady, 0.25),
            q3_s=_quantile(steady, 0.75),
            epochs=len(self.epochs_s),
            evaluation_median_s=_quantile(self.evaluations_s, 0.5),
            note="; ".join(notes) or None,
            warm_up_epochs=len(left_out),
            warm_up_note=warm_up_note,
        )

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()


def _quantile(seconds: list[float], fraction: float) -> float | None:
    return float(np.quantile(seconds, fraction)) if seconds else None


def seconds_of(block: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, from an idle device until it is idle again."""
    clock = EpochClock(device)
    clock.start()
    block()
    return clock.stop()


def warm_up(seconds: Sequence[float], begun_after: Iterable[int] = (0,)) -> tuple[set[int], str | None]:
    """Warm-up epochs, from 0, of a training whose processes began after so many epochs each: the first after 0.

    Beside them a note where no change was looked for, or no steady level found.

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
    return found, "; ".join(notes) or None


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
