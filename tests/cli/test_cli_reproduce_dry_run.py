"""`bm3 reproduce --dry-run`: what it lists for each policy is what a study would run, and nothing is written."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from command_line import Command

from harness.runs.record import RunRecord
from harness.runs.store import write_failure
from harness.runs.trial import Trial, resolve_device, run_trial
from harness.runs.words import Policy
from harness.studies.execute import Ending, execute
from harness.studies.suite import Row, load_suite, plan, wanted

SUITE = """title = "a small study"
datasets = ["mini"]
seeds = [1, 2]
training = { epochs = 1, batch_size = 512 }
[[experiments]]
model = "bpr"
grid = { reg_weight = [0.1, 1.0] }
[[experiments]]
model = "lightgcn"
"""
FOLLOW = "1 to 2 more trials follow from the selection, once the points above are done"
STORE = Path("runs")


@pytest.fixture
def rows(command: Command) -> list[Row]:
    """Those of the suite, whose file is in the working folder."""
    Path("small.toml").write_text(SUITE, encoding="utf-8")
    return plan(load_suite("small.toml"), None, resolve_device("cpu"))


def dry_run(command: Command, policy: str) -> list[str]:
    before = {path: path.stat().st_mtime_ns for path in STORE.rglob("*")}
    outcome = command("reproduce", "small.toml", "--dry-run", "--device", "cpu", "--rerun", policy)
    assert (outcome.code, outcome.err) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in STORE.rglob("*")} == before
    return outcome.out.splitlines()


def commands(*trials: Trial) -> list[str]:
    return [trial.command for trial in trials]


def fail(trial: Trial) -> None:
    """Leave what a trial leaves that ended without a result."""
    path = run_trial(trial, STORE).path
    (path / "result.json").unlink()
    write_failure(path, "error", "made up")


def ran(rows: list[Row]) -> Mapping[str, RunRecord | None]:
    return {point.key: run_trial(point, STORE) for row in rows[:1] for point in row.points}


def test_finished_trials_are_left_out_and_the_repeats_of_chosen_points_listed(
    command: Command, rows: list[Row]
) -> None:
    runs = ran(rows)
    left = commands(*rows[0].wanted(runs)[2:], *rows[1].points, *rows[1].wanted({})[1:])
    assert len(left) == len(rows[0].chosen(runs)) + 2
    assert dry_run(command, "missing") == dry_run(command, "failed") == left
    assert dry_run(command, "all") == [*commands(*wanted(rows, {})), FOLLOW]
    assert dry_run(command, "none") == []


def test_failed_trials_are_listed_where_they_are_tried_again(command: Command, rows: list[Row]) -> None:
    first, second = rows[0].points
    run = run_trial(first, STORE)
    fail(second)
    chosen = rows[0].wanted({first.key: run, second.key: None})[2:]
    others = commands(*rows[1].wanted({}))
    assert dry_run(command, "missing") == [
        *commands(*chosen),
        *others,
        "failed earlier, so not run again: 1; bm3 reproduce with --rerun failed tries again",
    ]
    assert dry_run(command, "failed") == [*commands(second), *others, FOLLOW]
    assert dry_run(command, "none") == []


@pytest.mark.parametrize("name", ["result.json", "run.json"])
@pytest.mark.parametrize("state", ["finished", "damaged", "damaged unfinished", "failed", "interrupted"])
@pytest.mark.parametrize("policy", ["missing", "failed", "none"])
def test_it_lists_what_a_study_begins_with(
    command: Command, rows: list[Row], name: str, state: str, policy: Policy
) -> None:
    trial = rows[1].points[0]
    path = run_trial(trial, STORE).path
    if state == "failed":
        write_failure(path, "error", "made up")
    if state in ("damaged unfinished", "failed", "interrupted"):
        (path / "result.json").unlink()
    if state.startswith("damaged"):
        (path / name).write_text("{" if name == "result.json" else json.dumps({}))
    listed = [line for line in dry_run(command, policy) if line.startswith("bm3 train")]
    begun = Recorder()
    execute(lambda outcomes: wanted(rows, outcomes), STORE, begun, policy=policy)
    assert listed == commands(*begun.trials)


class Recorder:
    """A back end that notes what it is asked to run, and ends it without a result."""

    def __init__(self) -> None:
        self.trials: list[Trial] = []
        self._ended: list[Ending] = []

    def full(self) -> bool:
        return False

    def start(self, trial: Trial) -> str:
        self.trials.append(trial)
        self._ended.append(Ending(trial, "not run", misused=True))
        return "nowhere"

    def wait(self, seconds: float) -> list[Ending]:
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        pass
