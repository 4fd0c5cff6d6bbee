"""Pictures: which there are for which data, that they say what the study says, and are fit for page and print."""

import itertools
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from run_files import METRICS, STORE

from harness.paper.published import short_metric
from harness.paper.study import make_study
from harness.report.plots import draw
from harness.report.plots.style import FORMATS, Picture, written
from harness.runs.record import RunRecord
from harness.runs.store import stored_runs

Change = Callable[[RunRecord, dict[str, Any], dict[str, Any]], None]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Picture, ...]:
    """Of a study with everything: the runs count as runs on Baby, for which values are published."""
    folder = Path(shutil.copytree(STORE, tmp_path_factory.mktemp("baby") / "runs"))
    change(folder, on_baby)
    return draw(make_study(folder, "test"))


def change(folder: Path, edit: Change) -> None:
    """Let `edit` change description and result of every finished run."""
    for stored in stored_runs(folder):
        if stored.finished:
            run, result = stored.described(), stored.outcome.written()
            edit(stored, run, result)
            (stored.path / "run.json").write_text(json.dumps(run))
            (stored.path / "result.json").write_text(json.dumps(result))


def on_baby(stored: RunRecord, run: dict[str, Any], result: dict[str, Any]) -> None:
    run["dataset"] |= {"name": "baby"}


def drawn(folder: Path) -> Mapping[str, Picture]:
    return {picture.name: picture for picture in draw(make_study(folder, "test"))}


def labels(axes: Axes) -> list[str]:
    """Labels of those axes that have ticks to read."""
    found = (axes.xaxis, axes.yaxis)
    return [axis.get_label_text() for axis in found if any(tick.get_text() for tick in axis.get_ticklabels())]


def test_with_everything_there_is_every_picture_and_every_axis_has_a_label_and_unit(
    pictures: tuple[Picture, ...],
) -> None:
    kinds = ("difference", "learning", "cost", "grid", "budget", "users")
    expected = [*(f"baby-{kind}" for kind in kinds), "published-ours"]
    assert [picture.name for picture in pictures] == expected
    found = [label for picture in pictures for axes in picture.figure.axes for label in labels(axes)]
    assert len(found) > 15
    assert all(found)
    assert {label for label in found if "(" not in label} == {"model"}


@pytest.mark.parametrize(("lost", "picture"), [("epochs.jsonl", "mini-learning"), ("hits.npz", "mini-users")])
def test_without_a_file_of_the_runs_only_the_picture_that_needs_it_is_missing(
    store: Path, lost: str, picture: str
) -> None:
    for run in stored_runs(store):
        (run.path / lost).unlink(missing_ok=True)
    assert {"mini-learning", "mini-cost", "mini-grid", "mini-users"} - drawn(store).keys() == {picture}


@pytest.mark.parametrize("kept", [0, 1])  # one epoch, as a closed form has, is no curve
def test_a_model_without_epochs_is_named_and_left_out_of_the_curves(store: Path, kept: int) -> None:
    for run in stored_runs(store):
        if run.model == "bm3":
            epochs = run.path / "epochs.jsonl"
            epochs.write_text("".join(epochs.read_text().splitlines(keepends=True)[:kept]))
    picture = drawn(store)["mini-learning"]
    assert "No curve, for want of epochs: bm3" in picture.caption
    assert len(picture.figure.axes) == 2 * 2


def test_each_model_has_the_names_of_its_own_loss_parts_beside_its_curves(store: Path) -> None:
    losses = {axes.get_title().split()[0]: axes.get_legend() for axes in drawn(store)["mini-learning"].figure.axes[::2]}
    named = {title: [text.get_text() for text in legend.get_texts()] for title, legend in losses.items() if legend}
    parts = {run.model: sorted(run.epochs()[0].parts) for run in stored_runs(store) if run.finished}
    assert {model: sorted(names) for model, names in named.items()} == {model: parts[model] for model in losses}
    assert len({*map(tuple, parts.values())}) > 1


def test_an_empty_study_has_no_pictures(tmp_path: Path) -> None:
    assert draw(make_study(tmp_path, "test")) == ()


def test_the_heat_map_shows_difference_and_outcome_of_every_verdict(store: Path) -> None:
    change(store, on_baby)
    study = make_study(store, "test")
    axes = drawn(store)["baby-difference"].figure.axes[0]
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    rows = [row.label for row in study.rows]
    assert [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()] == rows
    assert [label.get_text() for label in axes.get_xticklabels()] == [short_metric(metric) for metric in METRICS]
    for (i, row), (j, metric) in itertools.product(enumerate(study.rows), enumerate(METRICS)):
        verdict = row.verdicts[metric]
        number, outcome = shown[j, i].split("\n")
        assert verdict.difference is not None
        assert float(number.removesuffix(" %").replace("−", "-")) == pytest.approx(100 * verdict.difference, abs=0.05)
        assert outcome == verdict.outcome


def test_a_run_that_diverged_is_in_words_in_the_heat_map_and_breaks_no_picture(store: Path) -> None:
    def diverge(stored: RunRecord, run: dict[str, Any], result: dict[str, Any]) -> None:
        on_baby(stored, run, result)
        result["test"] = dict.fromkeys(result["test"], float("nan"))

    change(store, diverge)
    pictures = drawn(store)
    texts = {text.get_text() for text in pictures["baby-difference"].figure.axes[0].texts}
    assert all(text.startswith("not finite\n") for text in texts)
    assert all(written(picture, "svg") for picture in pictures.values())


def test_cost_shows_what_was_measured(store: Path) -> None:
    def without_memory(stored: RunRecord, run: dict[str, Any], result: dict[str, Any]) -> None:
        result["memory"] = {name: {"bytes": None, "note": "not measured"} for name in result["memory"]}

    change(store, without_memory)
    picture = drawn(store)["mini-cost"]
    assert [axes.get_xlabel() for axes in picture.figure.axes] == ["time per epoch (s)"]
    assert "No kind of memory was measured" in picture.caption
    change(store, lambda stored, run, result: result["timing"].update(median_s=None))
    assert "mini-cost" not in drawn(store)


def test_cost_names_every_model_and_leaves_markers_of_surrogate_features_open(store: Path) -> None:
    change(store, lambda stored, run, result: run["dataset"].update(surrogates=["text"]))  # only BM3 reads features
    figure = drawn(store)["mini-cost"].figure
    for axes in figure.axes:
        markers = {str(line.get_label()).split()[0]: line.get_markerfacecolor() for line in axes.lines}
        assert {model: face == "none" for model, face in markers.items()} == {
            "bm3": True,
            "bpr": False,
            "lightgcn": False,
        }
    (legend,) = figure.legends
    assert [text.get_text().split()[0] for text in legend.get_texts()] == ["bm3", "bm3", "bpr", "lightgcn"]


def test_grid_points_lie_at_their_settings_with_a_line_per_value_of_the_others(store: Path) -> None:
    rows = {row.label.split()[0]: row for row in make_study(store, "test").rows if len(row.grid) > 1}
    bm3, bpr = drawn(store)["mini-grid"].figure.axes
    valid, test, ring = bpr.lines
    assert bpr.get_xlabel() == "reg_weight (of bpr)"
    weights = [float(label.get_text()) for label in bpr.get_xticklabels()]
    grid = sorted(rows["bpr"].grid, key=lambda point: float(point.settings["reg_weight"]))
    for line, part in ((valid, "valid"), (test, "test")):
        shown = [(weights.index(one.settings["reg_weight"]), one.mean(part)) for one in grid]
        assert np.array_equal(line.get_xydata(), shown)
    chosen = rows["bpr"].selection.on_validation
    assert np.array_equal(ring.get_xydata(), [(weights.index(chosen.settings["reg_weight"]), chosen.mean("valid"))])
    legend = bm3.get_legend()
    assert legend is not None
    assert bm3.get_xlabel() == "dropout (of bm3)"
    assert [text.get_text() for text in legend.get_texts()] == ["reg_weight = 0.01", "reg_weight = 0.1"]


def test_users_who_gain_lose_and_are_equal_are_those_of_runs_with_the_same_seed(store: Path) -> None:
    for run in stored_runs(store):
        if run.model == "lightgcn" and run.seed != 2:
            shutil.rmtree(run.path)
    rows = {row.model: row for row in make_study(store, "test").rows}
    (theirs,) = rows["lightgcn"].runs
    (ours,) = [run for run in make_study(store, "test").rows[1].runs if run.seed == 2]
    gains = [run.per_user("recall@20") for run in (ours, theirs)]
    assert gains[0] is not None
    assert gains[1] is not None
    win, lose = int((gains[0][1] > gains[1][1]).sum()), int((gains[0][1] < gains[1][1]).sum())
    caption = drawn(store)["mini-users"].caption
    assert f"Of {len(gains[0][0])} test users, {win} gain" in caption
    axes = drawn(store)["mini-users"].figure.axes[0]
    assert re.search(rf"^bm3 .*over \w+ .*: {win} gain, \d+ lose$", axes.get_title().replace("\n", " "))
    assert f"{lose} lose and {len(gains[0][0]) - win - lose} are equal" in caption
    assert "over 1 pair of runs" in caption


def test_the_same_runs_give_the_same_files_whatever_the_users_settings(pictures: tuple[Picture, ...]) -> None:
    starts = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    made = [written(picture, form) for picture in pictures for form in FORMATS]
    assert all(content.startswith(starts[form]) for content, form in zip(made, itertools.cycle(FORMATS)))
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        assert [written(picture, form) for picture in pictures for form in FORMATS] == made
    assert dict(matplotlib.rcParams) == before


def test_a_data_set_may_have_any_name(store: Path) -> None:
    change(store, lambda stored, run, result: run["dataset"].update(name="$\\a$ <b>/ü"))
    pictures = drawn(store)
    named = [picture for picture in pictures.values() if picture.title.endswith("$\\a$ <b>/ü")]
    assert len(named) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in pictures)
    assert all(b"&lt;b&gt;/" in written(picture, "svg") for picture in named)
