"""What training steps of VBPR, MMGCN, GRCN, DualGNN and LATTICE cost at the size of Baby, against textbook steps.

    pytest tests/benchmarks/test_bench_models.py --benchmark-only -s

Up to 6 GB of memory and some ten minutes on two cores. Seconds depend on the machine; ratios within one run are
asserted. BM3_BENCH_ROUNDS=N sets the rounds, BM3_BENCH_REPORT=FILE writes the tables to FILE as Markdown, and with
BM3_BENCH_DATA=DIR the data set in DIR takes the place of the random one, and nothing is asserted.
"""

import os
import statistics
from dataclasses import dataclass

import bench
import numpy as np
import pytest
from peak_memory import Memory, in_fresh_process
from pytest_benchmark.fixture import BenchmarkFixture
from sides import SIDES, TEXTBOOKS, Side, renews, steps_of
from tabulate import tabulate

from bm3 import TrainingData

WARM_UP, ROUNDS = 1, int(os.environ.get(bench.ROUNDS_VARIABLE, "5"))
# Below what was measured on two cores (docs/results), so that noise passes and a lost shortcut does not.
MIN_RATIO = {"VBPR": 1.5, "MMGCN": 3.0, "GRCN": 4.0, "DualGNN": 2.5, "LATTICE": 10.0}  # of the time of an epoch
MIN_MEMORY_RATIO = {"LATTICE": 2.5}  # of the peak


@dataclass(frozen=True)
class Comparison:
    """Median seconds and bytes of the textbook and of our model."""

    name: str
    plain: dict[Side, float]
    first: dict[Side, float]
    """The first step of an epoch; as `plain` for a model that renews nothing then."""
    n_steps: int
    memory: dict[Side, Memory]

    @property
    def epoch(self) -> dict[Side, float]:
        """Seconds per epoch: its first step and the plain ones."""
        return {side: self.first[side] + (self.n_steps - 1) * self.plain[side] for side in SIDES}

    @property
    def time_ratio(self) -> float:
        return self.epoch["textbook"] / self.epoch["ours"]

    @property
    def memory_ratio(self) -> float:
        return self.memory["textbook"].peak / self.memory["ours"].peak

    @property
    def above_start_ratio(self) -> float:
        return self.memory["textbook"].above_start / self.memory["ours"].above_start


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return bench.benchmark_data()


@pytest.fixture(scope="module")
def finished() -> list[Comparison]:
    """The comparisons so far."""
    return []


@pytest.mark.parametrize("name", TEXTBOOKS)
def test_steps_at_baby_size(
    name: str, data: TrainingData, finished: list[Comparison], report: bench.Report, benchmark: BenchmarkFixture
) -> None:
    memory = {side: in_fresh_process(name, side) for side in SIDES}
    batches = bench.random_batches(data, np.random.default_rng(1))
    both = {side: steps_of(name, side, data, batches) for side in SIDES}
    steps = {f"{side} plain": of_side.plain for side, of_side in both.items()}
    if renews(name):
        steps |= {f"{side} first": of_side.first for side, of_side in both.items()}
    bench.alternating({f"{side} first": of_side.first for side, of_side in both.items()}, WARM_UP)
    medians = {key: statistics.median(times) for key, times in bench.alternating(steps, ROUNDS).items()}
    benchmark.pedantic(both["ours"].plain, rounds=ROUNDS)

    plain = {side: medians[f"{side} plain"] for side in SIDES}
    first = {side: medians.get(f"{side} first", plain[side]) for side in SIDES}
    result = Comparison(name, plain, first, bench.steps_per_epoch(data), memory)
    finished.append(result)
    benchmark.extra_info.update(
        textbook_over_ours=result.time_ratio,
        memory_textbook_over_ours=result.memory_ratio,
        memory_above_start_textbook_over_ours=result.above_start_ratio,
    )
    print("\n" + time_table([result], "simple") + "\n\n" + memory_table([result], "simple"))
    report.put("models", section(bench.described(data), finished))
    if bench.is_synthetic():
        assert result.time_ratio >= MIN_RATIO[name]
        assert result.memory_ratio >= MIN_MEMORY_RATIO.get(name, 0)


def time_table(comparisons: list[Comparison], tablefmt: str) -> str:
    rows = [
        (
            c.name,
            *(f"{1e3 * c.plain[side]:.1f}" for side in SIDES),
            *(f"{1e3 * c.first[side]:.1f}" if renews(c.name) else "" for side in SIDES),
            *(f"{c.epoch[side]:.2f}" for side in SIDES),
            f"{c.time_ratio:.1f}",
        )
        for c in comparisons
    ]
    headers = (
        "model",
        "textbook, ms per step",
        "ours, ms per step",
        "textbook, first step",
        "ours, first step",
        "textbook, s per epoch",
        "ours, s per epoch",
        "textbook / ours",
    )
    return _tabulated(rows, headers, tablefmt)


def memory_table(comparisons: list[Comparison], tablefmt: str) -> str:
    rows = [
        (
            c.name,
            *(f"{c.memory[side].peak / 1e9:.2f}" for side in SIDES),
            f"{c.memory_ratio:.1f}",
            *(f"{c.memory[side].above_start / 1e9:.2f}" for side in SIDES),
            f"{c.above_start_ratio:.1f}",
        )
        for c in comparisons
    ]
    headers = (
        "model",
        "textbook, peak GB",
        "ours, peak GB",
        "textbook / ours",
        "textbook, GB above start",
        "ours, GB above start",
        "textbook / ours",
    )
    return _tabulated(rows, headers, tablefmt)


def section(data: str, comparisons: list[Comparison]) -> str:
    return f"""# Training steps of five models against textbook steps

{data}, {ROUNDS} alternating steps each in one process; medians.
Textbook steps project all items, copy a row for every directed edge, hold item graphs as dense matrices and use torch's
default Adam. An epoch is its first step, where that renews something (LATTICE's item graph, DualGNN's sampled user
graph), and {comparisons[0].n_steps - 1} plain ones.

{time_table(comparisons, "github")}

Peak resident memory of building the model and three steps, each in a process of its own; start is before the model was
built, with Python, torch and the data loaded.

{memory_table(comparisons, "github")}
"""


def _tabulated(rows: list[tuple[str, ...]], headers: tuple[str, ...], tablefmt: str) -> str:
    right = ["right"] * (len(headers) - 1)
    return tabulate(rows, headers, tablefmt=tablefmt, disable_numparse=True, colalign=("left", *right))
