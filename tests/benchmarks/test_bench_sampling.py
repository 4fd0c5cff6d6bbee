"""What sampling costs a training: seconds of one sample, and a step loop with the samplers beside it and without.

    pytest tests/benchmarks/test_bench_sampling.py --benchmark-only -s

Half a minute on two cores; BM3_BENCH_ROUNDS and BM3_BENCH_REPORT are as in `test_bench_models`.
"""

import statistics
import time
from contextlib import ExitStack

import bench
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tabulate import tabulate

from harness.measure import MemorySampler
from harness.measure.overhead import Overhead, sampling_overhead
from harness.measure.power import DeviceWatch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ROUNDS = 15
BLOCK_S = 0.5
MAX_SHARE = 0.02  # of one core, for both samplers together; measured without a GPU: below 0.001
MAX_SLOWDOWN = 1.1  # of the median block; measured: 0.98, within what rounds differ by


def test_samplers_take_little_of_a_core(benchmark: BenchmarkFixture, report: bench.Report) -> None:
    found = sampling_overhead(DEVICE, samples=200)
    steps = _steps_of(BLOCK_S)
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(bench.rounds(ROUNDS)):
        for name, times in seconds.items():  # by turns, so load on the machine meets both
            times.append(_block_s(steps, sampled=name == "with"))
    benchmark.pedantic(_block_s, (steps, True), rounds=1)
    slowdown = statistics.median(seconds["with"]) / statistics.median(seconds["without"])
    benchmark.extra_info.update(slowdown=slowdown, **{overhead.name: overhead.share for overhead in found})
    print("\n" + _table(found, slowdown, "simple"))
    report.put("sampling", f"# What sampling costs\n\n{_table(found, slowdown, 'github')}\n")
    assert sum(overhead.share for overhead in found) <= MAX_SHARE
    assert slowdown <= MAX_SLOWDOWN


def _block_s(steps: int, sampled: bool) -> float:
    """Seconds of that many matrix products, which is what the samplers' threads compete with."""
    x = torch.ones(256, 256, device=DEVICE)
    with ExitStack() as stack:
        if sampled:
            stack.enter_context(MemorySampler(DEVICE))
            stack.enter_context(DeviceWatch(DEVICE))
        started = time.perf_counter()
        for _ in range(steps):
            x = x @ x / 256
        if DEVICE.type == "cuda":
            torch.cuda.synchronize(DEVICE)
        return time.perf_counter() - started


def _steps_of(seconds: float) -> int:
    _block_s(50, sampled=False)
    return max(int(100 * seconds / _block_s(100, sampled=False)), 1)


def _table(found: list[Overhead], slowdown: float, form: str) -> str:
    rows = [[one.name, f"{1e3 * one.sample_s:.3f}", f"{one.interval_s:g}", f"{100 * one.share:.2f}"] for one in found]
    rows.append(["a loop with both / without", "", "", f"{slowdown:.3f}"])
    head = ["sampler", "ms per sample", "every s", "% of one core"]
    return tabulate(rows, head, tablefmt=form, disable_numparse=True, colalign=("left", "right", "right", "right"))
