"""`bm3 replay`: a stored run again, to the bit, or by how much and why not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Command, Outcome, refused

from harness.measure.environment import environment
from harness.runs.difference import CAUSES, causes, difference
from harness.runs.record import RunRecord

SETTINGS = ("--set", "batch_size=256", "--set", "reg_weight=0.3", "--epochs", "2", "--threads", "1")


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def stored(command: Command) -> Path:
    """A run of BPR on mini, with settings that are not the defaults."""
    assert command("train", "bpr", "mini", "--seed", 7, *SETTINGS).code == 0
    (path,) = Path("runs/mini").iterdir()
    return path


def changed(path: Path, name: str, **values: Any) -> None:
    """Write values over those of a file of the run; dotted keys reach inside."""
    content = json.loads((path / name).read_text(encoding="utf-8"))
    for key, value in values.items():
        *parents, last = key.split("__")
        table = content
        for parent in parents:
            table = table[parent]
        table[last] = value
    (path / name).write_text(json.dumps(content), encoding="utf-8")


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_run_comes_out_the_same(command: Command, stored: Path) -> None:
    """With its own settings, seed and threads."""
    before = files(stored)
    torch.set_num_threads(2)
    outcome = command("replay", stored.name)
    assert outcome.code == 0, outcome
    assert "Nothing but times differs." in outcome.out
    assert "Parameters: the same bits." in outcome.out
    assert "likely causes" not in outcome.out
    assert files(stored) == before
    assert [path.name for path in Path("runs").iterdir()] == ["mini"]


def test_a_dry_run_says_what_would_be_repeated(command: Command, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.runs.trial.run_trial", None)
    outcome = command("replay", stored.name, "--dry-run")
    assert outcome.code == 0
    assert RunRecord.read(stored).command in outcome.out


def test_a_run_with_a_setting_that_is_gone_is_repeated_without_it(command: Command, stored: Path) -> None:
    changed(stored, "run.json", training__step="eager")
    assert "Nothing but times differs." in command("replay", stored).out


def test_other_bits_in_the_same_environment_are_an_error(command: Command, stored: Path) -> None:
    changed(stored, "result.json", state_hash="0" * 64)
    outcome = command("replay", stored)
    assert outcome.code == 1
    assert "Parameters: other bits." in outcome.out
    assert "none is recorded: the same code in the same environment" in outcome.out


def moved(command: Command, stored: Path, recall: float) -> Outcome:
    """The run as another machine would have recorded it, with another test R@20 by this factor."""
    test = json.loads((stored / "result.json").read_text(encoding="utf-8"))["test"]
    changed(stored, "result.json", state_hash="0" * 64, test=test | {"recall@20": test["recall@20"] * recall})
    (stored / "hits.npz").unlink()
    changed(stored, "run.json", environment__cpu="another one", environment__torch="1.0")
    return command("replay", stored)


def test_another_environment_may_differ_a_little_and_is_named(command: Command, stored: Path) -> None:
    outcome = moved(command, stored, 1.01)
    assert outcome.code == 0, outcome
    likely = outcome.out[outcome.out.index("likely causes") :].splitlines()[1:]
    assert likely[0].strip().startswith("another torch (torch: 1.0 -> ")
    assert "(cpu: another one -> " in likely[1]
    assert len(likely) == 2
    assert "test recall@20" in outcome.out
    assert "-0.99 %" in outcome.out


def test_another_environment_is_no_excuse_for_much(command: Command, stored: Path) -> None:
    assert moved(command, stored, 1.5).code == 1


def test_every_cause_is_something_that_runs_record(stored: Path) -> None:
    run = RunRecord.read(stored)
    recorded = {
        *environment(torch.device("cpu")),
        *run.described(),
        *(f"numerics of {of}" for of in run.numerics.model_dump()),
    }
    assert set(CAUSES) <= recorded
    assert causes(difference(run, run)) == []


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        ({"model": "nosuch"}, ["cannot be repeated by this version", "nosuch"]),
        ({"config__depth": 3}, ["cannot be repeated by this version", "depth"]),
        ({"dataset_hash": "f" * 64}, ["data set 'mini' is not the one of", "--data"]),
        ({"command": "bm3 train bpr nosuch"}, ["no data set 'nosuch'"]),
    ],
)
def test_what_cannot_be_repeated_is_one_line(
    command: Command, stored: Path, damage: dict[str, Any], parts: list[str]
) -> None:
    changed(stored, "run.json", **damage)
    line = refused(command("replay", stored))
    for part in parts:
        assert part in line


def test_only_finished_runs_can_be_compared(command: Command, stored: Path) -> None:
    (stored / "result.json").unlink()
    assert "is unfinished" in refused(command("replay", stored))
    assert "nosuch" in refused(command("replay", "nosuch"))


def test_a_replay_that_is_kept_can_be_resumed_and_is_not_the_run_itself(command: Command, stored: Path) -> None:
    assert "compared with itself" in refused(command("replay", stored, "--out", "runs"))
    assert command("replay", stored, "--out", "again").code == 0
    (kept,) = Path("again/mini").iterdir()
    assert kept.name == stored.name
    assert (kept / "result.json").is_file()
