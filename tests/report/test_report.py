"""Reports: verdicts from stored runs alone, unfinished runs named, references round trip, both choices of a point."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import Command
from run_files import STORE, altered

from harness.data.layouts import load_dataset
from harness.paper.rows import Planned
from harness.paper.study import make_study
from harness.report.plots import draw
from harness.runs.record import RunRecord
from harness.runs.store import stored_runs
from harness.runs.trial import make_trial, resolve_device, run_trial


@pytest.fixture
def bpr() -> list[RunRecord]:
    """Two points of a grid, run with seed 1."""
    return [run for run in stored_runs(STORE) if (run.model, run.seed) == ("bpr", 1)]


def test_a_grid_that_has_no_axis_is_left_out_of_the_pictures(bpr: list[RunRecord]) -> None:
    """Points at a learning rate are no points of the model's grid, which the picture is of."""
    keys = ["/".join(run.path.parts[-2:]) for run in bpr]
    names = []
    for key in ("reg_weight", "early_stopping.patience"):
        points = tuple(({key: 10 * place + 1}, {1: one}) for place, one in enumerate(keys))
        study = make_study(STORE, "test", of=bpr, planned=[Planned(None, points)])
        names.append([picture.name for picture in draw(study)])
    assert ["mini-grid" in found for found in names] == [True, False]


def test_a_report_on_costs_needs_no_evidence_on_accuracy(bpr: list[RunRecord]) -> None:
    """One seed is no evidence for a cell of accuracy, and enough for time and memory."""
    runs, store = [altered(run, dataset={"name": "baby"}) for run in bpr], STORE
    assert make_study(store, "test", of=runs).code == 3
    study = make_study(store, "test", of=runs, of_costs=True)
    assert (study.code, study.headline[-1]) == (0, "Time and memory of 1 of 1 rows were measured.")
    assert make_study(store, "test", of=runs, of_costs=True, failed=["bm3 train"]).code == 1
    assert make_study(store, "test", of=[], of_costs=True).code == 3
    timing = {"median_s": None, "q1_s": None, "q3_s": None, "warmup_s": 1.0, "note": "", "evaluation_median_s": None}
    untimed = [altered(run, {"timing": timing}) for run in runs]
    assert make_study(store, "test", of=untimed, of_costs=True).code == 3


def test_an_unknown_format_is_refused(store: Path, command: Command) -> None:
    outcome = command("report", store, "--format", "md,nonsense")
    assert (outcome.code, (store / "report.md").exists()) == (2, False)
    assert "choose from md, html, tex, csv, json" in outcome.err


def test_a_report_that_cannot_be_written_is_one_line_and_damages_nothing(store: Path, command: Command) -> None:
    command("report", store)
    before = (store / "report.md").read_bytes()
    (store / "taken").write_text("")
    outcome = command("report", store, "--out", store / "taken")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "cannot be written" in outcome.err
    assert (store / "report.md").read_bytes() == before


def test_a_run_records_what_differs_from_the_defaults_and_an_earlier_one_says_it_in_its_command(store: Path) -> None:
    run = next(run for run in stored_runs(store) if run.model == "bpr")
    assert {*(run.changed or ())} - {"reg_weight"} == {"epochs", "batch_size", "learning_rate"}
    earlier = run.model_copy(update={"changed": None})
    assert earlier.changed_settings == run.changed_settings
    assert run.changed_settings["epochs"] == run.training.epochs
    named = altered(earlier, command="bm3 train bpr epochs --set batch_size=512")
    assert named.changed_settings == {"batch_size": run.settings["batch_size"]}


def test_a_catalogue_smaller_than_every_cut_off_is_reported_like_any_other(
    write_npz: Callable[..., Path], tmp_path: Path, command: Command
) -> None:
    """Twelve items and five users, fewer than any K."""
    generator = np.random.default_rng(0)
    pairs = np.array([(user, item) for user in range(5) for item in generator.permutation(12)])
    parts = {"train": pairs[np.arange(60) % 12 > 1], "valid": pairs[::12], "test": pairs[1::12]}
    data, out = write_npz(tmp_path / "twelve", parts), tmp_path / "runs"
    for model, seed in (("bpr", 1), ("bpr", 2), ("lightgcn", 1)):
        trial = make_trial(model, load_dataset(str(data)), str(data), {"epochs": 1}, seed, resolve_device("cpu"))
        run_trial(trial, out)
    assert "3 runs: 3 in order, 0 damaged" in command("runs", "verify", out).out
    study = make_study(out, "test")
    assert study.unread == ()
    assert {pair.users for pair in study.differences["twelve"]} == {5}
    assert "twelve-users" in {picture.name for picture in draw(study)}
    names = [str(run.path) for run in study.rows[0].runs]
    assert command("runs", "diff", *names).code == 3
    assert command("replay", names[0], "--threads", 1).code == 0
