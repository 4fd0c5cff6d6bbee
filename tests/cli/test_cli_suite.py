"""`bm3 suite`: what is listed, what is counted as done, failed and left, and what works without the data."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Command, cells
from run_files import DESCRIPTION

from harness.runs.record import RunRecord
from harness.runs.store import write_failure
from harness.runs.trial import Trial, resolve_device, run_trial
from harness.studies.suite import Row, load_suite, plan

SEARCH = """title = "a search"
datasets = ["mini"]
seeds = [1, 2, 3]
training = { epochs = 2, batch_size = 512 }
[[experiments]]
model = "bpr"
grid = { reg_weight = [1.0, 0.1] }
[[experiments]]
model = "lightgcn"
"""


@pytest.fixture
def search(tmp_path: Path) -> Path:
    path = tmp_path / "search.toml"
    path.write_text(SEARCH, encoding="utf-8")
    return path


def rows_of(path: Path) -> list[Row]:
    return plan(load_suite(str(path)), None, resolve_device("cpu"))


def fail(trial: Trial, out: Path) -> None:
    """Leave what a trial leaves that ended without a result."""
    folder = out / trial.key
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({**DESCRIPTION, **trial.identity}))
    write_failure(folder, "error", "made up")
    assert RunRecord.read(folder).state == "failed"


def test_what_is_done_and_what_failed_is_counted_and_the_choice_made(command: Command, search: Path) -> None:
    (bpr, lightgcn), out = rows_of(search), Path("store")
    runs = {point.key: run_trial(point, out) for point in bpr.points}
    fail(lightgcn.points[0], out)
    chosen = bpr.chosen(runs)
    outcome = command("suite", "show", search, "--dry-run", "--device", "cpu", "--out", out)
    more = 2 * len(chosen)
    assert cells(outcome.out, "bpr")[:7] == ["bpr", "mini", "2", "3", str(2 + more), "2", "0"]
    assert cells(outcome.out, "bpr")[-1] == "2 past runs"
    assert cells(outcome.out, "lightgcn")[:7] == ["lightgcn", "mini", "1", "3", "3", "0", "1"]
    assert f"{5 + more} trials: 2 done, 1 failed" in outcome.out
    commands = [line for line in outcome.out.splitlines() if line.startswith("bm3 train ")]
    assert commands == [trial.command for trial in [*bpr.wanted(runs)[2:], *lightgcn.wanted({})[1:]]]
    assert "more trials follow" not in outcome.out
    assert "failed earlier, so not run again: 1; bm3 reproduce with --rerun failed tries again" in outcome.out


@pytest.mark.parametrize(("alone", "done"), [("", "1"), ("alone = true\n", "0")])
def test_for_costs_a_run_of_another_machine_is_not_done(command: Command, search: Path, alone: str, done: str) -> None:
    search.write_text(alone + search.read_text())
    run = run_trial(rows_of(search)[0].points[0], Path("store"))
    description = json.loads((run.path / "run.json").read_text())
    description["environment"]["cpu"] = "another"
    (run.path / "run.json").write_text(json.dumps(description))
    shown = command("suite", "show", search, "--device", "cpu", "--out", "store").out
    assert cells(shown, "bpr")[5] == done


def test_data_sets_can_be_named_and_each_is_looked_for(
    command: Command, tmp_path: Path, write_npz: Any, small_parts: Any, small_features: Any
) -> None:
    write_npz(tmp_path / "data" / "shop", small_parts, small_features)
    arguments = ["--dataset", "shop", "--dataset", "baby", "--data", tmp_path / "data", "--device", "cpu"]
    outcome = command("suite", "show", "baby", *arguments)
    assert outcome.code == 0
    lines = [line.split() for line in outcome.out.splitlines() if line.startswith("buir ")]
    assert [line[1] for line in lines] == ["shop", "baby"]
    assert "for its size" in outcome.out
    assert outcome.out.count("no data set 'baby'") == 1
