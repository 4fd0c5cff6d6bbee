"""What sampling memory costs a training: seconds of one sample, and a step loop with the sampler beside it and without.

    pytest tests/benchmarks/test_bench_sampling.py --benchmark-only -s

Half a minute on two cores; BM3_BENCH_ROUNDS is as in `test_bench_models`.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import bench
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from harness.measure.memory import INTERVAL_S, MemorySampler

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ROUNDS = 15
BLOCK_S = 0.5
NEVER_S = 3600.0
MAX_SHARE = 0.02  # of one core; measured without a GPU: below 0.001
MAX_SLOWDOWN = 1.1  # of the median block; measured: 0.98, within what rounds differ by


def test_the_sampler_takes_little_of_a_core(benchmark: BenchmarkFixture) -> None:
    with MemorySampler(DEVICE, NEVER_S) as memory:
        share = statistics.median(_seconds(memory.sample) for _ in range(200)) / INTERVAL_S
    steps = max(int(BLOCK_S / _block_s(100, sampled=False) * 100), 1)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(bench.rounds(ROUNDS)):
        for sampled, times in seconds.items():  # by turns, so load on the machine meets both
            times.append(_block_s(steps, sampled))
    benchmark.pedantic(_block_s, (steps, True), rounds=1)
    slowdown = statistics.median(seconds[True]) / statistics.median(seconds[False])
    benchmark.extra_info.update(slowdown=slowdown, share=share)
    print(f"\n{100 * share:.2f} % of one core; a loop takes {slowdown:.3f} times as long")
    assert share <= MAX_SHARE
    assert slowdown <= MAX_SLOWDOWN


def _seconds(sample: Callable[[], None]) -> float:
    started = time.perf_counter()
    sample()
    return time.perf_counter() - started


def _block_s(steps: int, sampled: bool) -> float:
    """Seconds of that many matrix products, which is what the sampler's thread competes with."""
    x = torch.ones(256, 256, device=DEVICE)
    with MemorySampler(DEVICE) if sampled else nullcontext():
        started = time.perf_counter()
        for _ in range(steps):
            x = x @ x / 256
        if DEVICE.type == "cuda":
            torch.cuda.synchronize(DEVICE)
        return time.perf_counter() - started
