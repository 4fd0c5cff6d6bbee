"""`bm3 reference`: it asks before it overwrites, and leaves installed packages alone."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import Command, refused

import harness
from harness.paper.load import load_paper
from harness.paper.selfcheck import FEWEST_SEEDS, SUITE
from harness.studies.suite import load_suite


@pytest.fixture
def store(command: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty seeds of a run, copied from one, of a suite that has no other model."""
    suite = load_suite(SUITE).narrowed(["bpr"])
    monkeypatch.setattr("harness.studies.suite.load_suite", lambda name, paper, check: suite)
    command("train", "bpr", "mini", "--epochs", 1, "--seed", 0)
    (first,) = (path.parent for path in Path("runs").rglob("result.json"))
    for seed in range(1, FEWEST_SEEDS):
        copy = first.with_name(f"{first.name}{seed}")
        shutil.copytree(first, copy)
        about = json.loads((copy / "run.json").read_text(encoding="utf-8"))
        (copy / "run.json").write_text(json.dumps(about | {"seed": seed}), encoding="utf-8")
    return Path("runs")


def test_a_reference_is_overwritten_only_when_that_is_said(command: Command, store: Path) -> None:
    target = Path("mine.json")
    assert command("reference", store, "--out", target).code == 0
    written = json.loads(target.read_text(encoding="utf-8"))
    assert len(written["models"]["bpr"]["values"]) == FEWEST_SEEDS
    target.write_text("something else", encoding="utf-8")
    assert "--overwrite" in refused(command("reference", store, "--out", target))
    assert target.read_text(encoding="utf-8") == "something else"
    assert command("reference", store, "--out", target, "--overwrite").code == 0
    assert json.loads(target.read_text(encoding="utf-8")) == written


def test_a_reference_that_lacks_a_model_is_refused(
    command: Command, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = load_suite(SUITE).narrowed(["bpr", "buir"])
    monkeypatch.setattr("harness.studies.suite.load_suite", lambda name, paper, check: suite)
    assert "no run of buir has a result" in refused(command("reference", store, "--out", "mine.json"))


def test_nothing_is_written_into_an_installed_package(
    command: Command, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "__file__", str(load_paper().folder.parent / "__init__.py"))
    assert "installed package" in refused(command("reference", store, "--overwrite"))
