"""What an epoch of every model costs at the size of Baby, against an epoch of its textbook version.

    pytest tests/benchmarks/test_bench_models.py --benchmark-only -s

Up to 6 GB of memory and some fifteen minutes on two cores. Seconds depend on the machine; ratios within one run are
asserted. BM3_BENCH_ROUNDS=N sets the rounds, BM3_BENCH_REPORT=FILE writes the tables to FILE as Markdown, and with
BM3_BENCH_DATA=DIR the data set in DIR takes the place of the random one, and nothing is asserted.
"""

import bench
import numpy as np
import pytest
from comparison import Comparison, Record, Seconds
from peak_memory import in_fresh_process
from pytest_benchmark.fixture import BenchmarkFixture
from sides import SIDES, SUBJECTS, batches_of, steps_of

from harness.data import Dataset

# An optimiser may have less to do for rows that no batch has touched yet, so half an epoch goes before.
WARM_UP, ROUNDS = 25, 30
WARM_UP_OF_SLOW, ROUNDS_OF_SLOW = 1, 5


@pytest.mark.parametrize("name", SUBJECTS)
def test_epoch_at_baby_size(name: str, dataset: Dataset, record: Record, benchmark: BenchmarkFixture) -> None:
    slow, renews = SUBJECTS[name].slow, SUBJECTS[name].renews
    warm_up, rounds = (WARM_UP_OF_SLOW, ROUNDS_OF_SLOW) if slow else (WARM_UP, ROUNDS)
    rounds = bench.rounds(rounds)
    memory = {side: in_fresh_process(name, side) for side in SIDES}
    batches = bench.random_batches(dataset, np.random.default_rng(1))
    both = {side: steps_of(name, side, dataset, batches) for side in SIDES}
    making = {side: batches_of(name, side, dataset) for side in SIDES}
    for steps in both.values():
        for step in (steps.first, *[steps.plain] * (warm_up - 1)):
            step()

    plain = bench.medians({side: both[side].plain for side in SIDES}, rounds)
    first = bench.medians({side: both[side].first for side in SIDES}, rounds) if renews else dict.fromkeys(SIDES, 0.0)
    state = bench.medians({side: both[side].state for side in SIDES}, 1)  # once: only then it has much to do
    made = bench.medians(making, bench.rounds(ROUNDS_OF_SLOW))
    benchmark.pedantic(both["ours"].plain, rounds=rounds)

    n_steps = bench.steps_per_epoch(dataset)
    seconds = {side: Seconds(plain[side], first[side], made[side], state[side], n_steps) for side in SIDES}
    result = Comparison(name, seconds, memory)
    benchmark.extra_info.update(result.extra_info)
    record(result)
