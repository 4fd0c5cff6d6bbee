"""What a training step of BM3 costs at the size of Baby, against the textbook step of the same model.

    pytest tests/benchmarks/test_bench_bm3.py --benchmark-only -s

About 2 GB of memory and half a minute on two cores. Seconds depend on the machine; the ratio within one run is
asserted. With BM3_BENCH_REPORT=FILE the table is also written to FILE as Markdown. With BM3_BENCH_DATA=DIR the data
set in DIR takes the place of the random one, and nothing is asserted.
"""

import statistics
from collections.abc import Mapping

import bench
import numpy as np
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tabulate import tabulate
from textbook import TextbookBM3

from bm3 import BM3, BM3Config

WARM_UP, ROUNDS = 3, 30
MIN_RATIO = 5.0  # frozen BM3 takes at most a fifth of the textbook's time


def test_step_of_bm3_at_baby_size(benchmark: BenchmarkFixture, report: bench.Report) -> None:
    data = bench.benchmark_data()
    batches = bench.random_batches(data, np.random.default_rng(1))
    steps = {"textbook": bench.textbook_steps(TextbookBM3(data), batches).plain}
    for features in ("trained", "frozen"):
        model = BM3(data, BM3Config(features=features), torch.Generator().manual_seed(0))
        steps[f"BM3 {features}"] = bench.our_steps(model, batches).plain
    bench.alternating(steps, WARM_UP)
    seconds = bench.alternating(steps, ROUNDS)
    benchmark.pedantic(steps["BM3 frozen"], rounds=ROUNDS)

    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratios = {name: medians["textbook"] / median for name, median in medians.items()}
    benchmark.extra_info["textbook_over_frozen"] = ratios["BM3 frozen"]
    benchmark.extra_info["textbook_over_trained"] = ratios["BM3 trained"]
    n_steps = bench.steps_per_epoch(data)
    print("\n" + table(seconds, ratios, n_steps, "simple"))
    report.put("bm3", section(bench.described(data), table(seconds, ratios, n_steps, "github")))
    if bench.is_synthetic():
        assert ratios["BM3 frozen"] >= MIN_RATIO


def table(seconds: Mapping[str, list[float]], ratios: Mapping[str, float], n_steps: int, tablefmt: str) -> str:
    rows = []
    for name, times in seconds.items():
        q1, median, q3 = statistics.quantiles(times, n=4)
        rows.append(
            (
                name,
                f"{1e3 * median:.1f}",
                f"{1e3 * q1:.1f}–{1e3 * q3:.1f}",
                f"{median * n_steps:.2f}",
                f"{ratios[name]:.1f}",
            )
        )
    headers = ("step", "ms per step (median)", "quartiles", f"s per epoch ({n_steps} steps)", "textbook / this")
    return tabulate(rows, headers, tablefmt=tablefmt, disable_numparse=True, colalign=("left", *["right"] * 4))


def section(data: str, table: str) -> str:
    return f"""# Training step of BM3 against the textbook step

{data}, {ROUNDS} alternating steps each in one process.
The textbook step projects all items, multiplies by a COO adjacency, trains the features and uses torch's default Adam.

{table}
"""
