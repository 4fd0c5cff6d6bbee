"""The self-check: its interval, what counts, what is inconsistent, and the reference that comes with the harness."""

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from run_files import record
from scipy import stats

from bm3 import DataError
from harness.models.registry import find_model
from harness.paper.load import load_paper
from harness.paper.selfcheck import (
    ModelReference,
    Outcome,
    Reference,
    check,
    exit_code,
    headline,
    load_reference,
    reference_from,
    write_reference,
)
from harness.runs.record import RunRecord
from harness.runs.settings import changed_from_defaults
from harness.studies.suite import load_suite, plan
from harness.training.config import TrainingConfig

ERROR = 0.01
STORED = load_paper().folder / "reference" / "selfcheck.json"
KNOWN = {seed: 0.4 + 0.001 * (seed % 7) for seed in range(101, 131)}


def run_of(seed: int, value: float, *, model: str = "bpr", epochs: int = 8, data: str = "a" * 64) -> RunRecord:
    return record(
        f"runs/mini/{model}-seed{seed}",
        {"test": {"recall@20": value}},
        model=model,
        config=asdict(find_model(model).model.Config()),
        training=asdict(TrainingConfig(epochs=epochs)),
        changed=["epochs"],
        dataset={"name": "mini", "surrogates": []},
        dataset_hash=data,
        seed=seed,
        searched=[],
        environment={"cpu": "any", "torch_threads": 1, "gpu": None},
    )


@pytest.fixture
def reference() -> Reference:
    models = {"bpr": ModelReference({"epochs": 8}, KNOWN), "bm3": ModelReference({"epochs": 8}, KNOWN)}
    return Reference("mini", "a" * 64, "recall@20", "bm3 reproduce", {"cpu": "any"}, models)


def test_the_interval_is_that_of_a_mean_of_further_seeds() -> None:
    values = list(KNOWN.values())
    low, high = ModelReference({}, KNOWN).interval(3, 0.01)
    half = stats.t.ppf(0.995, len(values) - 1) * np.std(values, ddof=1) * math.sqrt(1 / 3 + 1 / len(values))
    assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), rel=1e-12)


def test_unchanged_models_are_inconsistent_as_rarely_as_is_said() -> None:
    draw, alarms, rounds, models = np.random.default_rng(3), 0, 4000, 9
    for _ in range(rounds):
        known = draw.normal(size=(models, 40))
        new = draw.normal(size=(models, 3)).mean(axis=1)
        intervals = [ModelReference({}, dict(enumerate(row))).interval(3, ERROR / models) for row in known]
        alarms += any(not low <= mean <= high for (low, high), mean in zip(intervals, new, strict=True))
    assert 0.5 * ERROR < alarms / rounds < 1.5 * ERROR


def test_runs_that_learned_the_same_are_consistent_others_are_not(reference: Reference) -> None:
    good = [run_of(seed, 0.403) for seed in (1, 2, 3)]
    (found,) = check(good, reference, ERROR)
    assert (found.model, found.outcome, found.mean) == ("bpr", Outcome.CONSISTENT, pytest.approx(0.403))
    for wrong in (0.38, 0.42, math.nan):
        (found,) = check([*good[:2], run_of(3, wrong)], reference, ERROR)
        assert found.outcome is Outcome.INCONSISTENT, wrong


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (run_of(101, 0.403), "seeds"),
        (run_of(1, 0.403, epochs=9), "settings"),
        (run_of(1, 0.403, data="b" * 64), "data"),
    ],
)
def test_what_cannot_be_compared_is_not_called_consistent(reference: Reference, run: RunRecord, why: str) -> None:
    (found,) = check([run], reference, ERROR)
    assert found.outcome is None
    assert why in found.reason


def test_what_was_asked_for_and_has_no_result_is_no_pass(reference: Reference) -> None:
    runs = [run_of(seed, 0.403) for seed in (1, 2, 3)]
    assert exit_code(check(runs, reference, ERROR, ["bpr"])) == 0
    found = check(runs, reference, ERROR, ["bpr", "bm3", "grcn"])
    assert [(one.model, one.outcome) for one in found[1:]] == [("bm3", None), ("grcn", None)]
    assert exit_code(found) == 3
    assert "1 of 3 models consistent, 2 not compared (bm3, grcn)" in headline(found)
    assert exit_code(check([], reference, ERROR)) == 3


def test_a_reference_is_written_from_runs_and_read_again(tmp_path: Path) -> None:
    found = reference_from(run_of(seed, value) for seed, value in KNOWN.items())
    write_reference(found, tmp_path / "selfcheck.json")
    assert load_reference(tmp_path / "selfcheck.json") == found
    assert found.models["bpr"] == ModelReference({"epochs": 8}, KNOWN)
    assert found.command == "bm3 reproduce selfcheck --seeds 101-130 --threads 1 --out DIR"
    assert (found.dataset, found.environment["cpu"]) == ("mini", "any")


@pytest.mark.parametrize(
    ("runs", "why"),
    [
        ([run_of(seed, 0.4) for seed in range(19)], "19 seeds"),
        ([run_of(seed, 0.4, epochs=8 + seed % 2) for seed in range(20)], "different settings"),
        ([run_of(seed, 0.4, data=f"{seed % 2}" * 64) for seed in range(20)], "one data set"),
        ([run_of(seed, math.nan if seed == 3 else 0.4) for seed in range(20)], "finite"),
        ([], "one data set"),
    ],
)
def test_what_is_no_reference_is_refused(runs: list[RunRecord], why: str) -> None:
    with pytest.raises(DataError, match=why):
        reference_from(runs)


def test_the_stored_reference_is_of_the_suite_with_other_seeds() -> None:
    reference, rows = load_reference(STORED), plan(load_suite("selfcheck"), None, torch.device("cpu"))
    assert {row.label for row in rows} == {*reference.models}
    for row in rows:
        (trial,) = row.points
        known = reference.models[row.label]
        changed = changed_from_defaults(trial.config) | changed_from_defaults(trial.training)
        assert changed == known.settings, row.label
        assert trial.dataset.content_hash == reference.dataset_hash
        assert not set(row.seeds) & set(known.values)
