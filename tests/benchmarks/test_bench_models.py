"""What an epoch of every model, and an evaluation, cost at the size of Baby, against their textbook versions.

    pytest tests/benchmarks --benchmark-only -s

prints the tables of docs/performance.md. Up to 6 GB of memory and some fifteen minutes on two cores. Seconds depend on
the machine; ratios within one run are asserted. BM3_BENCH_ROUNDS=N sets the rounds, and with BM3_BENCH_DATA=DIR the
data set in DIR takes the place of the random one, and nothing is asserted.
"""

import bench
import numpy as np
import pytest
from comparison import Comparison, Record, Seconds
from peak_memory import in_fresh_process
from pytest_benchmark.fixture import BenchmarkFixture
from sides import EVALUATION, SIDES, SUBJECTS, batches_of, evaluation_of, steps_of

from harness.data.dataset import Dataset

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
    record(Comparison(name, seconds, memory))


def test_evaluation_at_baby_size(dataset: Dataset, record: Record, benchmark: BenchmarkFixture) -> None:
    """Both sides rank all items for all users, from the same vectors."""
    memory = {side: in_fresh_process(EVALUATION, side) for side in SIDES}
    both = {side: evaluation_of(side, dataset) for side in SIDES}
    rounds = bench.rounds(ROUNDS_OF_SLOW)
    bench.medians(both, WARM_UP_OF_SLOW)
    seconds = {side: Seconds(median) for side, median in bench.medians(both, rounds).items()}
    benchmark.pedantic(both["ours"], rounds=rounds)
    record(Comparison(EVALUATION, seconds, memory))
