"""What all benchmarks of a session share: the data, and the tables printed at the end."""

from collections.abc import Iterator

import bench
import pytest
from comparison import Comparison, Record, tables

from harness.data.dataset import Dataset


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return bench.benchmark_dataset()


@pytest.fixture(scope="session")
def record(dataset: Dataset) -> Iterator[Record]:
    """Takes a comparison into the tables and holds it to its floors."""
    finished: list[Comparison] = []

    def take(comparison: Comparison) -> None:
        finished.append(comparison)
        if bench.is_synthetic():
            comparison.check_floors()

    yield take
    print(f"\n{bench.described(dataset)}\n\n{tables(finished)}\n\n{bench.machine()}")
