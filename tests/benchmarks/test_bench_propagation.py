"""What one propagation over the graph costs at the size of Baby: other forms of the product and orders of the nodes.

    pytest tests/benchmarks/test_bench_propagation.py --benchmark-only -s

Less than a minute on two cores, and best on a machine that does nothing else: a form with two threads waits for the
slower one. BM3_BENCH_ROUNDS, BM3_BENCH_REPORT and BM3_BENCH_DATA are as in `test_bench_models`.
"""

import importlib.util
import statistics
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import bench
import numpy as np
import pytest
import torch
from propagation_forms import NUMBA, OURS, TORCH_FORMS, Form, compiled, forms, orders, ours, reordered
from pytest_benchmark.fixture import BenchmarkFixture
from scipy import sparse
from tabulate import tabulate

from bm3.graph import bipartite_adjacency, symmetric_normalised
from harness.training.fit import make_deterministic

WIDTH = 64
WARM_UP, ROUNDS = 3, 50
MIN_RATIO = 0.8  # of the time of the faster torch form to ours; measured are 2 and more
AS_GIVEN = "as given"
NO_NUMBA = "skipped: numba is not installed"


class Row(NamedTuple):
    """Of the table: a form on one order of the nodes."""

    form: str
    order: str


class Seconds(NamedTuple):
    """Of each round."""

    forward: list[float]
    both: list[float]


@pytest.fixture(scope="module")
def matrix() -> sparse.csr_array:
    data = bench.benchmark_data()
    return symmetric_normalised(bipartite_adjacency(data.train, data.n_users, data.n_items))


def test_propagation_at_baby_size(matrix: sparse.csr_array, benchmark: BenchmarkFixture, report: bench.Report) -> None:
    make_deterministic()
    compared = all_rows(matrix)
    x, gradient = torch.randn(2, matrix.shape[0], WIDTH, generator=torch.Generator().manual_seed(0))
    forward = {row: partial(form.forward, x) for row, form in compared.items()}
    both = {row: partial(form.both, x, gradient) for row, form in compared.items()}
    seconds = measured(forward, both)
    benchmark.pedantic(forward[Row(OURS, AS_GIVEN)], rounds=bench.rounds(ROUNDS))

    ratios = {
        name: min(median(seconds[Row(form, AS_GIVEN)], name) for form in TORCH_FORMS)
        / median(seconds[Row(OURS, AS_GIVEN)], name)
        for name in Seconds._fields
    }
    benchmark.extra_info.update({f"torch_over_ours_{name}": ratio for name, ratio in ratios.items()})
    print("\n" + table(seconds, "simple"))
    report.put("propagation", section(matrix, seconds))
    if bench.is_synthetic():
        assert min(ratios.values()) >= MIN_RATIO, ratios


def all_rows(matrix: sparse.csr_array) -> dict[Row, Form]:
    """Every form on the nodes as given, then ours and numba's on the other orders."""
    found = {Row(name, AS_GIVEN): form for name, form in forms(matrix).items()}
    makers = {OURS: ours}
    if importlib.util.find_spec("numba"):
        makers[NUMBA] = compiled
        found[Row(NUMBA, AS_GIVEN)] = compiled(matrix)
    for order, nodes in orders(matrix).items():
        if order != AS_GIVEN:
            moved = reordered(matrix, nodes)
            found |= {Row(name, order): make(moved) for name, make in makers.items()}
    return found


def measured(forward: Mapping[Row, bench.Step], both: Mapping[Row, bench.Step]) -> dict[Row, Seconds]:
    """All rows alternate, forward alone first.

    Every round has an order of its own: what ran before leaves caches and threads in a state that is worth a third.
    """
    draw = np.random.default_rng(0)
    seconds = {row: Seconds([], []) for row in forward}
    for name, steps in (("forward", forward), ("both", both)):
        for number in range(WARM_UP + bench.rounds(ROUNDS)):
            order = draw.permutation(len(steps))
            times = bench.alternating({str(n): list(steps.values())[n] for n in order}, 1)
            for n, row in enumerate(steps):
                if number >= WARM_UP:
                    getattr(seconds[row], name).extend(times[str(n)])
    return seconds


def median(seconds: Seconds, name: str) -> float:
    return statistics.median(getattr(seconds, name))


def table(seconds: Mapping[Row, Seconds], tablefmt: str) -> str:
    base = seconds[Row(OURS, AS_GIVEN)]
    rows = []
    for row, of_row in seconds.items():
        cells = []
        for name in Seconds._fields:
            cells.append(f"{1e3 * median(of_row, name):.2f} ({1e3 * min(getattr(of_row, name)):.2f})")
            cells.append(f"{median(of_row, name) / median(base, name):.2f}")
        rows.append((*row, *cells))
    if not any(row.form == NUMBA for row in seconds):
        rows.append((NUMBA, NO_NUMBA, *[""] * 4))
    headers = ("form", "nodes", "forward, ms", "this / ours", "forward and backward, ms", "this / ours")
    return tabulate(rows, headers, tablefmt=tablefmt, disable_numparse=True, colalign=("left", "left", *["right"] * 4))


def section(matrix: sparse.csr_array, seconds: Mapping[Row, Seconds]) -> str:
    made = "random, ids by descending popularity" if bench.is_synthetic() else "a real data set"
    return f"""# One propagation over the user-item graph

The normalised adjacency ({made}): {matrix.shape[0]:,} nodes, {matrix.nnz:,} entries, float32, times {WIDTH} values per
node; {torch.get_num_threads()} torch threads, {bench.rounds(ROUNDS)} rounds in one process, each in a new order.
Medians, in brackets the fastest round. Indices are int32 but for COO's and where int64 is said. The gradient of the
product of scipy, numba and rows_summed is another product with the same matrix, without autograd. Scipy has one thread,
numba as many as torch. Reordering the nodes is not part of the time.

{table(seconds, "github")}
"""
