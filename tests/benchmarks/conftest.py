"""What all benchmarks of a session share: the data, the report, and the one table printed at the end."""

from collections.abc import Iterator

import bench
import pytest
from comparison import Comparison, Record, memory_section, overview, time_section

from harness.data import Dataset


@pytest.fixture(scope="session")
def report() -> bench.Report:
    return bench.Report()


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return bench.benchmark_dataset()


@pytest.fixture(scope="session")
def record(dataset: Dataset, report: bench.Report) -> Iterator[Record]:
    """Takes a comparison into the report and holds it to its floors."""
    finished: list[Comparison] = []

    def take(comparison: Comparison) -> None:
        finished.append(comparison)
        report.put("time", time_section(bench.described(dataset), finished))
        report.put("memory", memory_section(finished))
        if bench.is_synthetic():
            comparison.check_floors()

    yield take
    print("\n" + overview(finished))
