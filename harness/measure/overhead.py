"""What measuring itself costs. Whether that is too much is judged by the reader, or by `tests/benchmarks`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from harness.measure.memory import INTERVAL_S as MEMORY_INTERVAL_S
from harness.measure.memory import MemorySampler
from harness.measure.power import INTERVAL_S as WATCH_INTERVAL_S
from harness.measure.power import DeviceWatch

NEVER_S = 3600.0  # an interval that does not end here, so that the sampler's own thread stays asleep


@dataclass(frozen=True)
class Overhead:
    """Of one sampler: seconds that a sample takes (median), and seconds from one to the next in a run."""

    name: str
    sample_s: float
    interval_s: float

    @property
    def share(self) -> float:
        """Of one core. A training with as many threads as cores waits for it, and one on a GPU where Python is late."""
        return self.sample_s / self.interval_s


def sampling_overhead(device: torch.device, samples: int = 50) -> list[Overhead]:
    """Of memory and of energy and clocks, as a run on `device` samples them.

    Raises ValueError for less than one sample. Resets torch's peak statistics for the device, as `MemorySampler` does.
    """
    if samples < 1:
        raise ValueError(f"samples must be 1 or more, not {samples}")
    with MemorySampler(device, NEVER_S) as memory:
        of_memory = _median_s(memory.sample, samples)
    with DeviceWatch(device, NEVER_S) as watch:
        of_watch = _median_s(watch.sample, samples)
    return [Overhead("memory", of_memory, MEMORY_INTERVAL_S), Overhead("energy and clocks", of_watch, WATCH_INTERVAL_S)]


def _median_s(sample: Callable[[], None], times: int) -> float:
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        sample()
        seconds.append(time.perf_counter() - started)
    return median(seconds)
