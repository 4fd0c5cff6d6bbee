"""Estimates: from runs on the same data first, then from shipped figures in proportion, never from anything else."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import run_files
import torch

from bm3 import DataError
from harness.data.layouts import load_dataset
from harness.models.registry import models, trained_in_steps
from harness.paper.load import load_paper
from harness.runs.inspect import entry
from harness.runs.record import EPOCHS, RESULT, RUN
from harness.runs.store import stored_runs
from harness.runs.trial import Trial, make_trial
from harness.studies.estimate import COST_FILE, Cost, Estimates, load_costs

MINI = load_dataset("mini")
LINE = f"shop,bpr,,{2 * len(MINI.train)},3.0,1.0,50,1000000000,cpu,2,runs/shop"
COST = Cost.model_validate(dict(zip(Cost.model_fields, LINE.split(","), strict=True)))


def trial(model: str = "bpr", **settings: Any) -> Trial:
    return make_trial(model, MINI, "mini", settings, 1, torch.device("cpu"))


def past(
    folder: Path,
    seconds: list[tuple[float, float]],
    like: Trial | None = None,
    *,
    stopped: str = "early",
    memory: int | None = 100,
    device: str = "cpu",
    **changes: Any,
) -> Path:
    """The folder of a finished run like the trial, with these seconds per epoch and evaluation."""
    folder.mkdir(parents=True)
    epochs = [{**run_files.EPOCH, "seconds": epoch, "evaluation_seconds": evaluation} for epoch, evaluation in seconds]
    (folder / EPOCHS).write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
    identity = (like or trial()).identity
    dataset = {"name": "mini", "interactions": {"train": len(MINI.train)}}
    run = {**identity, "device": device, "dataset": dataset, "environment": {"torch_threads": 2}, **changes}
    timing = {"median_s": seconds[0][0], "evaluation_median_s": seconds[0][1]}
    readings = {"process_rss_peak": {"bytes": memory}, "gpu_process_peak": {"bytes": memory and 7 * memory}}
    result = {"epochs": len(seconds), "stopped": stopped, "timing": timing, "memory": readings}
    made = run_files.record(folder, result, **run)
    (folder / RUN).write_text(json.dumps(made.described()))
    (folder / RESULT).write_text(json.dumps(made.outcome.written()))
    return folder


def estimates(*runs: Path, costs: Sequence[Cost] = ()) -> Estimates:
    return Estimates([entry(run, run.name) for run in runs], costs)


def test_runs_on_the_same_data_give_the_median_of_their_seconds_and_the_most_memory(tmp_path: Path) -> None:
    runs = [
        past(tmp_path / "a", [(1, 0.5), (2, 0.5)], memory=100),
        past(tmp_path / "b", [(1, 1)] * 5, memory=300),
        past(tmp_path / "c", [(50, 50)], memory=200),
    ]
    assert estimates(*runs, costs=[COST]).of(trial()) == (10, 300, "3 past runs")


@pytest.mark.parametrize("change", [{"dataset_hash": "another"}, {"model": "buir"}, {"device": "cuda"}])
def test_runs_on_other_data_of_another_model_or_on_another_device_say_nothing(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    assert estimates(past(tmp_path / "a", [(1, 1)])).of(trial()) is not None
    assert estimates(past(tmp_path / "b", [(1, 1)], **change)).of(trial()) is None


def test_unfinished_runs_say_nothing(tmp_path: Path) -> None:
    run = past(tmp_path / "a", [(1, 1)])
    (run / RESULT).unlink()
    assert estimates(run).of(trial()) is None


@pytest.mark.parametrize(
    "content", [b"[1]\n", b"\xff\n", b'{"loss": 1}\n', b'{"seconds": "x", "evaluation_seconds": 1}\n']
)
def test_a_run_with_damaged_epochs_says_nothing_and_hides_no_other(tmp_path: Path, content: bytes) -> None:
    damaged, whole = past(tmp_path / "a", [(9, 9)], memory=900), past(tmp_path / "b", [(1, 1)])
    (damaged / EPOCHS).write_bytes(content)
    assert estimates(damaged).of(trial()) is None
    assert estimates(damaged, whole).of(trial()) == estimates(whole).of(trial())


def test_trained_and_frozen_features_cost_differently(tmp_path: Path) -> None:
    trained, frozen = trial("bm3"), trial("bm3", features="frozen")
    known = estimates(past(tmp_path / "a", [(1, 1)], trained), past(tmp_path / "b", [(5, 1)], frozen))
    assert [known.seconds(one) for one in (trained, frozen)] == [2, 6]


def test_a_limit_of_epochs_cuts_an_estimate_and_a_run_cut_by_a_lower_limit_says_nothing(tmp_path: Path) -> None:
    long, cut = past(tmp_path / "a", [(1, 1)] * 9), past(tmp_path / "b", [(7, 1)] * 4, stopped="limit")
    assert [estimates(*runs).seconds(trial()) for runs in ([long, cut], [cut])] == [18, None]
    assert [estimates(long).seconds(trial(epochs=3)), estimates(cut).seconds(trial(epochs=4))] == [6, 32]


def test_on_cuda_memory_is_that_on_the_device(tmp_path: Path) -> None:
    on_cuda = replace(trial(), device=torch.device("cuda"))
    assert estimates(past(tmp_path / "a", [(1, 1)], device="cuda")).memory(on_cuda) == 700


def test_shipped_figures_are_taken_in_proportion_to_interactions_and_say_so() -> None:
    known, basis = Estimates([], [COST]), "shipped figures for shop, times 0.5 for its size"
    assert known.of(trial()) == (pytest.approx(50 * (3 + 1) / 2), None, basis)
    assert (known.of(trial("buir")), known.seconds(trial(epochs=10))) == (None, pytest.approx(20))


def test_the_data_set_nearest_in_size_counts_and_of_its_figures_those_with_more_threads() -> None:
    same = COST.model_copy(update={"dataset": "mini", "interactions": len(MINI.train), "threads": 1})
    fast = same.model_copy(update={"seconds_per_epoch": 0.5, "epochs": None, "threads": 2, "memory_bytes": 5})
    estimate = Estimates([], [COST, same, fast]).of(trial())
    assert estimate == (pytest.approx(50 * (0.5 + 1)), 5, "shipped figures for mini")


# --- the shipped figures ---


def costs_file(folder: Path, *lines: str) -> Path:
    (folder / COST_FILE).parent.mkdir()
    (folder / COST_FILE).write_text("\n".join([",".join(Cost.model_fields), *lines]) + "\n", encoding="utf-8")
    return folder / COST_FILE


def test_a_line_is_a_cost_and_what_is_empty_is_not_known(tmp_path: Path) -> None:
    found = load_costs(costs_file(tmp_path, LINE, LINE.replace(",50,1000000000,", ",,,")))
    assert found == [COST, COST.model_copy(update={"epochs": None, "memory_bytes": None})]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seconds_per_epoch", "0"),
        ("interactions", "-5"),
        ("evaluation_seconds", "nan"),
        ("threads", ""),
        ("epochs", "x"),
    ],
)
def test_a_figure_that_is_none_is_refused_with_its_line(tmp_path: Path, field: str, value: str) -> None:
    cells = LINE.split(",")
    cells[list(Cost.model_fields).index(field)] = value
    with pytest.raises(DataError, match=rf"cost\.csv:3: {field}: .*found '{value}'"):
        load_costs(costs_file(tmp_path, LINE, ",".join(cells)))


def test_the_shipped_figures_are_medians_over_the_stored_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    for cost in load_costs(load_paper().file(COST_FILE)):
        runs = [run for run in stored_runs(Path(cost.source)) if run.result and run.model == cost.model]
        runs = [run for run in runs if run.config.get("features", "") == cost.features]
        runs = [run for run in runs if run.environment["torch_threads"] == cost.threads]
        if cost.dataset != "mini":  # whose suite has a batch size of its own
            runs = [run for run in runs if "batch_size" not in (run.changed or ())]
        seconds = [run.result.timing.median_s for run in runs if run.result and run.dataset.name == cost.dataset]
        assert cost.seconds_per_epoch == pytest.approx(median(filter(None, seconds)), abs=1e-4), cost


def test_shipped_figures_know_every_model_and_are_no_expected_results() -> None:
    costs = load_costs(load_paper().file(COST_FILE))
    here = {name for name in trained_in_steps() if models()[name].model.__module__.startswith(("harness.", "bm3."))}
    assert {cost.model for cost in costs if cost.dataset == "baby"} == here
    assert "cost" not in {value.source for value in load_paper().values}
