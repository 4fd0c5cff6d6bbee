"""Hypothesis profiles, what the markers need, the command line, and small data sets on disk and in memory."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Command, Outcome
from hypothesis import settings
from numpy.typing import NDArray

from harness.cli import main as cli
from harness.data.dataset import PARTS, Dataset, checked_dataset
from harness.data.split import random_user_split

settings.register_profile("default", deadline=None, max_examples=50, derandomize=True)
settings.register_profile("thorough", deadline=None, max_examples=500)
settings.load_profile("default")

Parts = Mapping[str, NDArray[Any]]
Features = Mapping[str, NDArray[Any]]
Write = Callable[..., Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    """For a machine that is to have everything: `pytest -m gpu --no-skip`."""
    parser.addoption("--no-skip", action="store_true", help="a test that is skipped fails")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With --no-skip, a test that is skipped, for whatever reason, fails."""
    report: pytest.TestReport = yield
    if report.skipped and item.config.getoption("--no-skip"):
        report.outcome, report.longrepr = "failed", f"--no-skip: {item.name} was skipped: {report.longrepr}"
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests whose marker names something this machine lacks, and say what is missing."""
    if item.get_closest_marker("real_data") and not (Path(os.environ.get("BM3_DATA", "")) / "baby").is_dir():
        pytest.skip("needs the real data: set BM3_DATA to the folder that holds baby, sports and tiktok")
    if item.get_closest_marker("documentation") and "documentation" not in item.config.option.markexpr:
        pytest.skip("runs in nox -s docs")
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and torch finds none")


@pytest.fixture(autouse=True)
def _torch_as_before() -> Iterator[None]:
    """Training switches torch to deterministic algorithms; the next test must not depend on that."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """`command("train", …)` runs the command in this process, in an empty working folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("BM3_DATA", raising=False)

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["bm3", *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            cli.main()
        code = ending.value.code
        return Outcome(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


@pytest.fixture
def write_npz() -> Write:
    """`write_npz(folder, parts, features)` writes a data set as interactions.npz and NAME.npy; returns the folder."""

    def write(folder: Path, parts: Parts, features: Features | None = None) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "interactions.npz", allow_pickle=True, **parts)
        return _write_features(folder, features or {}, "{}.npy")

    return write


@pytest.fixture
def write_inter() -> Write:
    """`write_inter(folder, parts, features, columns=…)` writes NAME.inter and NAME_feat.npy; returns the folder.

    Columns that are not userID, itemID or x_label are filled with numbers of no meaning.
    """

    def write(
        folder: Path,
        parts: Parts,
        features: Features | None = None,
        columns: tuple[str, ...] = ("userID", "itemID", "rating", "timestamp", "x_label"),
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["\t".join(columns)]
        for label, part in enumerate(PARTS):
            for user, item in parts[part].tolist():
                row = {"userID": user, "itemID": item, "x_label": label}
                lines.append("\t".join(str(row.get(column, 4.5)) for column in columns))
        (folder / f"{folder.name}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return _write_features(folder, features or {}, "{}_feat.npy")

    return write


def _write_features(folder: Path, features: Features, pattern: str) -> Path:
    for name, table in features.items():
        np.save(folder / pattern.format(name), table, allow_pickle=True)
    return folder


@pytest.fixture
def small_parts() -> dict[str, NDArray[np.int64]]:
    """Six users and eight items; user u leaves items of 0…5 to training, one each to the other parts."""
    return {
        "train": np.array([(u, (u + step) % 8) for u in range(6) for step in (0, 1, 3)]),
        "valid": np.array([(u, (u + 5) % 8) for u in range(6)]),
        "test": np.array([(u, (u + 6) % 8) for u in range(6)]),
    }


@pytest.fixture
def shop(tmp_path: Path, write_npz: Write, small_parts: Parts) -> Path:
    """The folder of a data set with these parts, and without features."""
    return write_npz(tmp_path / "shop", small_parts)


@pytest.fixture
def small_features() -> dict[str, NDArray[np.float32]]:
    """Two modalities for the items of `small_parts`."""
    draw = np.random.default_rng(5)
    return {
        "visual": draw.normal(size=(8, 4)).astype(np.float32),
        "text": draw.normal(size=(8, 3)).astype(np.float32),
    }


@pytest.fixture(scope="session")
def clustered() -> Dataset:
    """Sixty users and forty items in four taste clusters that the features show: small, and something to learn."""
    draw = np.random.default_rng(11)
    pairs = np.array(
        [
            (user, item)
            for user in range(60)
            for item in draw.permutation(40)[: 40 if user % 20 == 0 else 24]
            if item % 4 == user % 4 or draw.random() < 0.1
        ]
    )
    features = {
        "visual": np.eye(4, 6)[np.arange(40) % 4] + 0.3 * draw.normal(size=(40, 6)),
        "text": np.eye(4, 5)[np.arange(40) % 4] + 0.5 * draw.normal(size=(40, 5)),
    }
    return checked_dataset("clustered", random_user_split(pairs, draw), features, where="test data set")
