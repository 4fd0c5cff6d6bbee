"""What validation and test of one model cost at the size of Baby, against the way of toolboxes.

    pytest tests/benchmarks/test_bench_evaluation.py --benchmark-only -s

Both rank all items for all users, from the same vectors. See `test_bench_models` for what can be set.
"""

import bench
from comparison import Comparison, Record, Seconds
from peak_memory import in_fresh_process
from pytest_benchmark.fixture import BenchmarkFixture
from sides import EVALUATION, SIDES, evaluation_of

from harness.data import Dataset

WARM_UP, ROUNDS = 1, 5


def test_evaluation_at_baby_size(dataset: Dataset, record: Record, benchmark: BenchmarkFixture) -> None:
    memory = {side: in_fresh_process(EVALUATION, side) for side in SIDES}
    both = {side: evaluation_of(side, dataset) for side in SIDES}
    rounds = bench.rounds(ROUNDS)
    bench.medians(both, WARM_UP)
    seconds = {side: Seconds(median) for side, median in bench.medians(both, rounds).items()}
    benchmark.pedantic(both["ours"], rounds=rounds)

    result = Comparison(EVALUATION, seconds, memory)
    benchmark.extra_info.update(result.extra_info)
    record(result)
