"""Studies that most tests of reports are about."""

import shutil
from pathlib import Path

import pytest
from run_files import HAND_MADE, STORE

from harness.paper.study import Study, make_study


@pytest.fixture(scope="session")
def study() -> Study:
    return make_study(HAND_MADE, "a report on hand-made records")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORE, tmp_path / "runs"))
