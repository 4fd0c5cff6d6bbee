"""The study that most tests of reports are about."""

from pathlib import Path

import pytest

from harness.paper.study import Study, make_study


@pytest.fixture(scope="session")
def study() -> Study:
    """Two runs each of BM3 (on surrogate features), BPR and LightGCN on Baby, as made by hand."""
    return make_study(Path(__file__).parent / "golden" / "runs", "a report on hand-made records")
