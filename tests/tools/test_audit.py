"""Audits: every variant beside the published value with all else equal, the word for the difference, and the files."""

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_files
import torch
from command_line import Command

from bm3 import BM3Error, DataError
from harness.models.registry import trained_in_steps
from harness.paper.folders import DEFAULT, paper_folder
from harness.paper.load import Paper, load_paper
from harness.runs.record import RunRecord
from harness.runs.settings import ALL_MODELS, flatten, variants
from harness.runs.store import stored_runs
from harness.runs.trial import Trial, run_trial
from harness.studies.suite import load_suite
from harness.tools.audit import (
    COLUMNS,
    Audit,
    Change,
    Effect,
    audit_markdown,
    effect_lines,
    effects_csv,
    known_effects,
    paired_effect,
    plan_audit,
    write_audit,
)
from harness.training.config import TrainingConfig

CPU = torch.device("cpu")
PAPER = load_paper()
TOLERANCES = PAPER.tolerances
HEADER = ",".join(COLUMNS)
LINE = "mini,bpr,s,v,recall@20,0.5,0.6,20,10,30,3,higher,abc"


def settings_of(trial: Trial) -> dict[str, Any]:
    return flatten({**asdict(trial.config), **asdict(trial.training)})


def finished(trial: Trial, recall: float, ndcg: float, best_epoch: int = 7) -> RunRecord:
    """A run as if the trial had ended with these metrics."""
    run = {"model": trial.entry.name, "reads_features": True, "environment": {"torch": "made up"}}
    run |= {"config": asdict(trial.config), "training": asdict(trial.training)}
    test = {"recall@20": recall, "ndcg@20": ndcg}
    return run_files.record(trial.key, {"best_epoch": best_epoch, "test": test}, **run)


Metrics = Sequence[tuple[float, float]]


def audited(
    base: Metrics, variant: Metrics, *, fails: bool = False, best_epoch: int = 7, paper: Paper = PAPER
) -> Audit:
    """BPR on mini with made-up (R@20, N@20) per seed: `variant` without rounding, else those of `base`."""
    rows = plan_audit(PAPER, "mini", None, ["bpr"], tuple(range(1, len(base) + 1)), CPU)
    runs: dict[str, RunRecord | None] = {}
    for row in rows:
        differs = row.label == "bpr early_stopping.rounding=none"
        for trial, values in zip(row.wanted({}), variant if differs else base, strict=False):
            runs[trial.key] = finished(trial, *values, best_epoch if differs else 7)
        if differs and fails:
            runs |= dict.fromkeys((trial.key for trial in row.wanted({})[-1:]), None)
    return Audit(rows, runs, paper)


def differences(audit: Audit, second: str = "ndcg@20") -> tuple[Effect, Effect]:
    """Of R@20 and another metric without rounding."""
    recall, other = (effect for effect in audit.effects if effect.setting == "early_stopping.rounding")
    assert (recall.metric, other.metric) == ("recall@20", second)
    return recall, other


# --- the plan ---


def every_variant() -> set[tuple[str, str, str]]:
    """Model, setting and other value of all that can be asked."""
    return {
        (model, row.setting, str(value))
        for row in variants()
        for value in row.values[1:]
        for model in (trained_in_steps() if row.model == ALL_MODELS else [row.model])
    }


def test_every_other_value_is_compared_once_with_all_else_equal_and_with_the_same_seeds() -> None:
    comparisons = Audit(plan_audit(PAPER, "mini", None, [], (1, 2), CPU), {}, PAPER).comparisons
    found = Counter((c.base.outline.model, c.setting, str(c.value)) for c in comparisons)
    assert found == Counter(every_variant())
    assert len(found) > 2 * len(trained_in_steps())
    published = {(row.model, row.setting): row.values[0] for row in variants()}
    for c in comparisons:
        model = c.base.outline.model
        for base, trial in zip(c.base.wanted({}), c.other.wanted({}), strict=True):
            one, other = settings_of(base), settings_of(trial)
            assert {key for key in one if one[key] != other[key]} == {c.setting}
            assert (c.published, c.value) == (one[c.setting], other[c.setting])
            assert c.published == published.get((model, c.setting), published.get((ALL_MODELS, c.setting)))
            assert (base.seed, base.dataset, base.device) == (trial.seed, trial.dataset, trial.device)


def test_the_models_asked_for_are_planned_once_each_and_the_published_values_first() -> None:
    rows = plan_audit(PAPER, "mini", None, ["grcn", "GRCN", "bpr"], (1, 2), CPU)
    assert [row.outline.model for row in rows] == ["grcn"] * 5 + ["bpr"] * 3
    assert [row.label for row in rows if row.label == row.outline.model] == [rows[0].label, rows[5].label]
    assert len({trial.key for row in rows for trial in row.wanted({})}) == 2 * (1 + 4 + 1 + 2)


def test_mini_is_trained_as_its_suite_says_and_other_data_as_published(
    tmp_path: Path, write_npz: Callable[..., Path], small_parts: Any, small_features: Any
) -> None:
    suite = load_suite("mini").training
    assert suite["batch_size"] != TrainingConfig().batch_size
    (on_mini, *_) = plan_audit(PAPER, "mini", None, ["bpr"], (1,), CPU)
    assert {key: settings_of(on_mini.points[0])[key] for key in suite} == suite
    folder = write_npz(tmp_path / "shop", small_parts, small_features)
    (elsewhere, *_) = plan_audit(PAPER, str(folder), None, ["bpr"], (1,), CPU)
    assert elsewhere.points[0].training == TrainingConfig()


# --- the difference ---


def test_differences_are_paired_and_in_percent_of_the_published_mean() -> None:
    """R@20: +4, +6, +2 % of 0.5, so 4 ± 4.303 · 2/√3. N@20: +5, +6, +7 % of 0.2, so 6 ± 4.303 · 1/√3."""
    recall, ndcg = differences(
        audited([(0.4, 0.1), (0.5, 0.2), (0.6, 0.3)], [(0.42, 0.11), (0.53, 0.212), (0.61, 0.314)])
    )
    assert (recall.base, recall.variant, recall.difference_percent) == pytest.approx((0.5, 0.52, 4))
    assert (recall.low_percent, recall.high_percent) == pytest.approx((4 - 4.96828, 4 + 4.96828), abs=1e-4)
    assert (recall.seeds, recall.effect) == (3, Change.WITHIN_NOISE)
    assert (ndcg.base, ndcg.variant, ndcg.difference_percent) == pytest.approx((0.2, 0.212, 6))
    assert (ndcg.low_percent, ndcg.high_percent) == pytest.approx((6 - 2.48414, 6 + 2.48414), abs=1e-4)
    assert ndcg.effect is Change.HIGHER


def test_a_metric_that_follows_from_hits_needs_not_be_stored_and_one_without_is_no_evidence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paper, values = PAPER.model_copy(update={"metrics": ("R@20", "hit@20")}), [(0.4, 0.2), (0.5, 0.2)]
    recall, hit = differences(audited(values, values, paper=paper), "hit@20")
    assert (recall.seeds, hit.effect) == (2, Change.NO_EVIDENCE)
    hits = np.arange(4), np.array([1.0, 0.0, 0.0, 1.0])
    monkeypatch.setattr(RunRecord, "per_user", lambda run, metric: hits)
    _, hit = differences(audited(values, values, paper=paper), "hit@20")
    assert (hit.base, hit.seeds) == (0.5, 2)


def test_a_fall_is_lower_and_the_same_bits_are_none() -> None:
    values = [(0.4, 0.2), (0.5, 0.2)]
    recall, ndcg = differences(audited(values, [(0.3, 0.2), (0.401, 0.2)]))
    assert recall.effect is Change.LOWER
    assert ndcg.effect is Change.WITHIN_NOISE  # this metric alone is alike
    for difference in differences(audited(values, values)):
        assert (difference.difference_percent, difference.low_percent, difference.high_percent) == (0, 0, 0)
        assert difference.effect is Change.NONE
    assert differences(audited(values, values, best_epoch=8))[0].effect is Change.WITHIN_NOISE
    last_bit = [values[0], (0.5 + 2**-53, 0.2)]
    assert differences(audited(values, last_bit))[0].effect is not Change.NONE


def test_too_few_seeds_or_a_mean_of_nothing_are_no_evidence() -> None:
    """A seed that failed with one value counts for neither."""
    for one in differences(audited([(0.4, 0.2)], [(0.4, 0.2)])):
        assert (one.difference_percent, one.low_percent, one.effect) == (0, None, Change.NO_EVIDENCE)
    recall, _ = differences(audited([(0.4, 0.2), (0.5, 0.2), (0.9, 0.2)], [(0.42, 0.2), (0.53, 0.2)]))
    assert (recall.seeds, recall.base, recall.variant) == pytest.approx((2, 0.45, 0.475))
    nothing: list[dict[int, float]] = [{}, {1: 0.0, 2: 0.0}]
    for base in nothing:
        found = paired_effect(("mini", "bpr", "s", "v", "recall@20"), base, base, TOLERANCES, True, "abc")
        assert (found.difference_percent, found.effect) == (None, Change.NO_EVIDENCE)


def test_the_exit_code_tells_failures_from_no_evidence_and_failures_are_never_taken_as_known(tmp_path: Path) -> None:
    two = [(0.4, 0.2), (0.5, 0.2)]
    assert [audited(two, two).code, audited(two, two, fails=True).code, audited(two[:1], two[:1]).code] == [0, 1, 3]
    write_audit(audited([*two, (0.9, 0.2)], [*two, (0.9, 0.2)], fails=True), tmp_path / "out", tmp_path)
    assert {effect.setting for effect in known_effects(tmp_path)} == {"evaluation.mask_validation"}


# --- the report ---


def test_the_report_has_a_row_per_difference_and_names_what_failed() -> None:
    audit = audited([(0.4, 0.2), (0.5, 0.2), (0.9, 0.2)], [(0.3, 0.2), (0.401, 0.2), (0.9, 0.2)], fails=True)
    text = audit_markdown(audit)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    (row,) = (row for row in rows if "-22.11" in row)
    assert row[2:8] == ["4 → none", "R@20", "2", "0.4500", "0.3505", "-22.11"]
    assert row[-1] == "lower"
    assert "Seeds: 1, 2, 3" in text
    assert audit.dataset.content_hash[:10] in text
    assert "- Without a result: `bm3 train bpr mini" in text
    assert "made up" in text.split("## Environment")[1]


def effect(percent: float, change: Change, model: str = "bpr", **fields: str) -> Effect:
    place = {"dataset": "mini", "setting": "early_stopping.rounding", "value": "none", "metric": "recall@20", **fields}
    figures = {"base": 0.5, "variant": 0.5 + percent / 200, "difference_percent": percent}
    ends = {"low_percent": percent - 1, "high_percent": percent + 1}
    return Effect(model=model, **place, **figures, **ends, seeds=3, effect=change, code="abc")


def test_a_variant_has_a_line_per_data_set_of_its_model_or_of_all_models() -> None:
    (row,) = [row for row in variants() if row.setting == "early_stopping.rounding"]
    effects = [
        effect(-2, Change.LOWER),
        effect(0.04, Change.WITHIN_NOISE, "buir"),
        effect(-3, Change.LOWER, "buir", dataset="baby"),
        effect(5, Change.HIGHER, setting="evaluation.mask_validation", value="True"),
    ]
    assert effect_lines(row, effects) == [
        "mini, none: R@20 -2.0 to +0.0 % (lower with 1, within noise with 1)",
        "baby, none: R@20 -3.0 % (lower)",
    ]
    assert effect_lines(row, effects, "bpr") == ["mini, none: R@20 -2.0 % (lower)"]
    assert effect_lines(row, effects, "mmgcn") == []
    rows = {row.model: row for row in variants() if row.setting == "scoring"}  # two models have one of this name
    effects = [effect(-2, Change.LOWER, "grcn", setting="scoring", value="current")]
    assert effect_lines(rows["grcn"], effects) == ["mini, current: R@20 -2.0 % (lower)"]
    assert effect_lines(rows["mmgcn"], effects) == []


# --- effects as data ---


def test_effects_come_back_from_their_file_and_those_of_other_models_stay(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    kept = [effect(1, Change.WITHIN_NOISE, "vbpr"), effect(1, Change.WITHIN_NOISE, "bpr", value="gone")]
    (tmp_path / "audit" / "mini.csv").write_text(effects_csv(kept))
    audit = audited([(0.4, 0.2), (0.5, 0.2)], [(0.3, 0.2), (0.401234567, 0.2)])
    assert write_audit(audit, tmp_path / "out", tmp_path)[-1] == tmp_path / "audit" / "mini.csv"
    *read, other = known_effects(tmp_path)
    assert other.model == "vbpr"
    for one, measured in zip(read, audit.effects, strict=True):
        assert (one.key, one.code, one.effect) == (measured.key, measured.code, measured.effect)
        for name in ("base", "variant", "difference_percent", "low_percent", "high_percent"):
            assert getattr(one, name) == pytest.approx(getattr(measured, name), rel=1e-5)


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ([], "mini.csv:1: empty"),
        ([HEADER.replace("code", "source")], "mini.csv:1: columns are"),
        ([HEADER, LINE + ",more"], "mini.csv:2: 14 fields"),
        ([HEADER, LINE.replace("mini", "baby")], "mini.csv:2: data set 'baby' does not belong in mini.csv"),
        ([HEADER, LINE.replace("bpr", "")], "mini.csv:2: model"),
        ([HEADER, LINE.replace("recall@20", "R20")], "mini.csv:2: metric"),
        ([HEADER, LINE.replace(",20,", ",nan,")], "mini.csv:2: difference_percent"),
        ([HEADER, LINE.replace(",20,", ",1e999,")], "mini.csv:2: difference_percent"),
        ([HEADER, LINE.replace(",3,", ",-1,")], "mini.csv:2: seeds"),
        ([HEADER, LINE.replace("higher", "better")], "mini.csv:2: effect"),
        ([HEADER, LINE.replace("0.5,", "-0.5,")], "mini.csv:2: base"),
        ([HEADER, LINE, LINE], "mini.csv:3: this effect is there"),
    ],
)
def test_a_file_of_effects_that_does_not_fit_is_refused_with_its_line(
    tmp_path: Path, lines: list[str], named: str
) -> None:
    (tmp_path / "audit").mkdir()
    file = tmp_path / "audit" / "mini.csv"
    file.write_text(f"{HEADER}\n{LINE}\n", encoding="utf-8")
    assert effects_csv(known_effects(tmp_path)) == f"{HEADER}\n{LINE}\n"
    file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        known_effects(tmp_path)
    assert named in str(caught.value)


def test_every_variant_of_the_models_here_has_a_measured_effect_on_mini() -> None:
    known = [effect for effect in known_effects(PAPER.folder) if effect.dataset == "mini"]
    wanted = every_variant()
    assert {(effect.model, effect.setting, effect.value) for effect in known} == wanted
    assert len(known) == 2 * len(wanted)
    assert all(effect.seeds >= TOLERANCES.min_seeds for effect in known)


def test_effects_on_baby_are_those_of_the_stored_runs() -> None:
    folders = [Path(__file__).parents[2] / "docs/results/runs" / name / "baby" for name in ("knockout", "variants")]
    runs = {run.path.name: run for folder in folders for run in stored_runs(folder)}.values()
    known = [effect for effect in known_effects(PAPER.folder) if effect.dataset == "baby"]
    assert known
    for effect in known:
        own = [run for run in runs if run.model == effect.model]
        base, other = (
            {run.seed: run.outcome.test[effect.metric] for run in own if run.changed_settings == changed}
            for changed in ({}, {effect.setting: effect.value})
        )
        found = paired_effect(effect.key, base, other, TOLERANCES, same=False, code=effect.code)
        assert effects_csv([found]) == effects_csv([effect])


# --- the command ---


@pytest.fixture
def audit(command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`audit(…)` is `bm3 audit …` of BPR with two seeds, trained for real, for a few epochs."""
    suite = load_suite("mini")
    short = suite.model_copy(update={"training": {**suite.training, "epochs": 5}})
    monkeypatch.setattr("harness.tools.audit.load_suite", lambda name, paper: short)
    how = ("--model", "bpr", "--seeds", "1-2", "--device", "cpu", "--in-process", "--as-reference")
    return lambda *arguments: command("audit", "mini", *how, *arguments)


def test_an_audit_of_bpr_on_mini(audit: Command, tmp_path: Path) -> None:
    """Masked validation items are rivals less of test items: R@20 rises."""
    expected = Path(shutil.copytree(paper_folder(DEFAULT), tmp_path / "expected"))
    outcome = audit("--paper", expected)
    assert outcome.code == 0
    folder = Path("runs/audit-mini")
    assert "6 of 6 trials have a result" in (folder / "study.log").read_text(encoding="utf-8")
    assert len([run for run in stored_runs(Path("runs")) if run.finished]) == 6
    written = {effect.key: effect for effect in known_effects(expected) if effect.model == "bpr"}
    assert (folder / "audit.csv").read_text(encoding="utf-8") == effects_csv(written.values())
    masked = written["mini", "bpr", "evaluation.mask_validation", "True", "recall@20"]
    assert (masked.difference_percent or 0) > 0
    assert masked.effect is not Change.NONE
    summary = outcome.out[outcome.out.index("# What the variants change") :].split("\n\nwritten: ")[0]
    assert (folder / "report.md").read_text(encoding="utf-8").startswith(summary)


def test_a_trial_that_fails_is_named_and_the_others_go_on(
    audit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of its effect stays; the effects of the others take the place of those that were."""

    def run(trial: Trial, store: Path, **how: Any) -> RunRecord:
        if trial.training.evaluation.mask_validation and trial.seed == 2:
            raise BM3Error("loss is nan")
        return run_trial(trial, store, **how)

    monkeypatch.setattr("harness.studies.local.run_trial", run)
    expected = Path(shutil.copytree(paper_folder(DEFAULT), tmp_path / "expected"))
    before = {effect.key: effect for effect in known_effects(expected)}
    outcome = audit("--paper", expected)
    assert outcome.code == 1
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("- Without a result: ")]
    assert "mask_validation=True" in line
    assert "--seed 2" in line
    log = Path("runs/audit-mini/study.log").read_text(encoding="utf-8")
    assert (log.count(" started: "), log.count(" failed: "), log.count(" finished: ")) == (6, 1, 5)
    after = {effect.key: effect for effect in known_effects(expected)}
    changed = {(key[1], key[2]) for key in before if after[key] != before[key]}
    assert (after.keys(), changed) == (before.keys(), {("bpr", "early_stopping.rounding")})
    assert "not taken as reference: 2 effects that not every seed" in outcome.err
