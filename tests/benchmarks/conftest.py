"""The report that all benchmarks of a session share."""

import pytest
from bench import Report


@pytest.fixture(scope="session")
def report() -> Report:
    return Report()
