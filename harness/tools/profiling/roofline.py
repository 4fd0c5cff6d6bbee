"""How fast this machine moves bytes and multiplies matrices, measured, and the shortest time that follows from it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from harness.tools.profiling.operations import synchronise

COPY_BYTES = 2**28  # of the tensor that is copied: far more than caches hold
MATRIX_SIZE = {"cpu": 2048, "cuda": 4096}
REPEATS = 5  # after one that is not counted


@dataclass(frozen=True)
class MachineRates:
    """Bytes per second of a large copy, read and written ones both counted; FLOPs per second of float32 products."""

    bytes_per_second: float
    flops_per_second: float
    threads: int
    """Of torch on the CPU while the rates were measured."""

    def shortest_seconds(self, bytes: float, flops: float) -> float:
        """Seconds that no work on so many bytes and FLOPs can fall below: max(bytes / rate, FLOPs / rate)."""
        return max(bytes / self.bytes_per_second, flops / self.flops_per_second)


def measure_rates(
    device: torch.device, *, copy_bytes: int = COPY_BYTES, matrix_size: int | None = None, repeats: int = REPEATS
) -> MachineRates:
    """Medians over `repeats`, with torch's present number of threads; takes seconds and twice `copy_bytes` of memory.

    Copied is a float32 tensor into another one, multiplied are two square float32 matrices, at torch's present
    precision of such products. On the CPU a copy can write around the caches, which ordinary operations seldom do.
    """
    size = matrix_size or MATRIX_SIZE.get(device.type, 2048)
    return MachineRates(
        bytes_per_second=2 * (copy_bytes // 4 * 4) / _copying(copy_bytes // 4, device, repeats),
        flops_per_second=2 * size**3 / _multiplying(size, device, repeats),
        threads=torch.get_num_threads(),
    )


def seconds_of(block: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, from an idle device until it is idle again."""
    synchronise(device)
    started = time.perf_counter()
    block()
    synchronise(device)
    return time.perf_counter() - started


def _copying(n: int, device: torch.device, repeats: int) -> float:
    source, target = torch.ones(n, device=device), torch.ones(n, device=device)
    return _median_seconds(lambda: target.copy_(source), device, repeats)


def _multiplying(n: int, device: torch.device, repeats: int) -> float:
    left, right, product = (torch.ones(n, n, device=device) for _ in range(3))
    return _median_seconds(lambda: torch.mm(left, right, out=product), device, repeats)


def _median_seconds(block: Callable[[], object], device: torch.device, repeats: int) -> float:
    block()
    return float(np.median([seconds_of(block, device) for _ in range(repeats)]))
