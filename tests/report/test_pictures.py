"""Pictures: which there are for which data, that they say what the study says, and are fit for page and print."""

import itertools
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes

from harness.data import load_dataset
from harness.paper.expected import short_metric
from harness.paper.results import METRICS
from harness.paper.study import make_study
from harness.report.plots import draw
from harness.report.plots.style import INK, Picture, files, svg
from harness.runs.store import StoredRun, stored_runs
from harness.runs.trial import make_trial, resolve_device, run_trial

Change = Callable[[StoredRun, dict[str, Any], dict[str, Any]], None]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, mini = tmp_path_factory.mktemp("trained"), load_dataset("mini")
    trials = [("bpr", seed, {"reg_weight": weight}) for seed in (1, 2) for weight in (0.1, 1e-3)]
    for model, seed, settings in [*trials, ("bm3", 1, {})]:
        settings = {"epochs": 3, "batch_size": 512, **settings}
        run_trial(make_trial(model, mini, "mini", settings, seed, resolve_device("cpu")), folder)
    return folder


@pytest.fixture(scope="module")
def pictures(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Picture, ...]:
    """Of a study with everything: the runs count as runs on Baby, for which values are published."""
    folder = tmp_path_factory.mktemp("baby") / "runs"
    shutil.copytree(trained, folder)
    change(folder, on_baby)
    return draw(make_study(folder, "test"))


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def change(folder: Path, edit: Change) -> None:
    """Let `edit` change description and result of every run."""
    for stored in stored_runs(folder):
        run, result = stored.described(), stored.outcome.written()
        edit(stored, run, result)
        (stored.path / "run.json").write_text(json.dumps(run))
        (stored.path / "result.json").write_text(json.dumps(result))


def on_baby(stored: StoredRun, run: dict[str, Any], result: dict[str, Any]) -> None:
    run["dataset"] |= {"name": "baby"}


def without_memory(stored: StoredRun, run: dict[str, Any], result: dict[str, Any]) -> None:
    result["memory"] = {name: {"bytes": None, "note": "not measured"} for name in result["memory"]}


def without_time(stored: StoredRun, run: dict[str, Any], result: dict[str, Any]) -> None:
    result["timing"] |= {"median_s": None}


def drawn(folder: Path) -> Mapping[str, Picture]:
    return {picture.name: picture for picture in draw(make_study(folder, "test"))}


def labels(axes: Axes) -> list[str]:
    """Labels of those axes that have ticks to read."""
    return [
        axis.get_label_text() for axis in (axes.xaxis, axes.yaxis) if any(t.get_text() for t in axis.get_ticklabels())
    ]


def test_with_everything_there_is_every_picture_by_data_set_and_then_those_over_all(
    pictures: tuple[Picture, ...],
) -> None:
    expected = ["baby-difference", "baby-learning", "baby-cost", "baby-grid", "baby-users", "published-ours"]
    assert [picture.name for picture in pictures] == expected


@pytest.mark.parametrize(("lost", "picture"), [("epochs.jsonl", "mini-learning"), ("hits.npz", "mini-users")])
def test_without_a_file_of_the_runs_only_the_picture_that_needs_it_is_missing(
    store: Path, lost: str, picture: str
) -> None:
    for run in stored_runs(store):
        (run.path / lost).unlink()
    assert {"mini-learning", "mini-cost", "mini-grid", "mini-users"} - drawn(store).keys() == {picture}


def test_a_model_without_epochs_is_named_and_left_out_of_the_curves(store: Path) -> None:
    for run in stored_runs(store):
        if run.run["model"] == "bm3":
            (run.path / "epochs.jsonl").unlink()
    picture = drawn(store)["mini-learning"]
    assert "No epochs are stored for: bm3" in picture.caption
    assert len(picture.figure.axes) == 2


def test_an_empty_study_has_no_pictures(tmp_path: Path) -> None:
    assert draw(make_study(tmp_path, "test")) == ()


def test_every_axis_that_can_be_read_has_a_label_and_a_unit_where_there_is_one(pictures: tuple[Picture, ...]) -> None:
    found = [label for picture in pictures for axes in picture.figure.axes for label in labels(axes)]
    assert len(found) > 20
    assert all(found)
    assert {label for label in found if "(" not in label} == {"model", "test metric"}


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
    def diverge(stored: StoredRun, run: dict[str, Any], result: dict[str, Any]) -> None:
        on_baby(stored, run, result)
        result["test"] = dict.fromkeys(result["test"], float("nan"))

    change(store, diverge)
    pictures = drawn(store)
    texts = {text.get_text() for text in pictures["baby-difference"].figure.axes[0].texts}
    assert all(text.startswith("not finite\n") for text in texts)
    assert all(svg(picture) for picture in pictures.values())


def test_cost_shows_what_was_measured(store: Path) -> None:
    change(store, without_memory)
    picture = drawn(store)["mini-cost"]
    assert [axes.get_xlabel() for axes in picture.figure.axes] == ["time per epoch (s)"]
    assert "No kind of memory was measured" in picture.caption
    change(store, without_time)
    assert "mini-cost" not in drawn(store)


def test_cost_names_every_model_and_leaves_markers_of_surrogate_features_open(store: Path) -> None:
    change(store, lambda stored, run, result: run["dataset"].update(surrogates=["text"]))  # only BM3 reads features
    figure = drawn(store)["mini-cost"].figure
    for axes in figure.axes:
        markers = {str(line.get_label()).split()[0]: line.get_markerfacecolor() for line in axes.lines}
        assert {model: face == "none" for model, face in markers.items()} == {"bm3": True, "bpr": False}
    (legend,) = figure.legends
    assert [text.get_text().split()[0] for text in legend.get_texts()] == ["bm3", "bpr"]


def test_grid_points_lie_at_their_settings_and_the_chosen_one_is_ringed(store: Path) -> None:
    study = make_study(store, "test")
    (row,) = [row for row in study.rows if row.result.model == "bpr"]
    (axes,) = drawn(store)["mini-grid"].figure.axes
    valid, test, ring = axes.lines
    assert axes.get_xscale() == "log"
    assert np.array_equal(valid.get_xdata(), [1e-3, 0.1])
    assert np.array_equal(test.get_xydata(), [(point.settings["reg_weight"], point.test) for point in row.result.grid])
    assert np.array_equal(ring.get_xdata(), [row.result.runs[0].run["config"]["reg_weight"]])


def test_a_grid_of_three_settings_has_layers_on_the_axis_and_a_line_for_each_of_the_others(store: Path) -> None:
    (bm3,) = [run for run in stored_runs(store) if run.run["model"] == "bm3"]
    for layers, dropout, weight in itertools.product((1, 2), (0.3, 0.5), (0.1, 0.01)):
        copy = shutil.copytree(bm3.path, store / f"bm3-{layers}-{dropout}-{weight}")
        config = {**bm3.config, "n_layers": layers, "dropout": dropout, "reg_weight": weight}
        (copy / "run.json").write_text(json.dumps({**bm3.described(), "config": config}))
    (axes,) = [axes for axes in drawn(store)["mini-grid"].figure.axes if axes.get_xlabel() == "n_layers (of bm3)"]
    legend = axes.get_legend()
    assert legend is not None
    wanted = [f"dropout = {dropout}, reg_weight = {weight}" for dropout in (0.3, 0.5) for weight in (0.01, 0.1)]
    assert [text.get_text() for text in legend.get_texts()] == wanted


def test_users_who_gain_lose_and_are_equal_are_those_of_runs_with_the_same_seed(store: Path) -> None:
    rows = {row.result.model: row.result.runs for row in make_study(store, "test").rows}
    assert [[run.run["seed"] for run in rows[model]] for model in ("bm3", "bpr")] == [[1], [1, 2]]
    ours, theirs = (rows[model][0].per_user("recall@20") for model in ("bm3", "bpr"))
    assert ours is not None
    assert theirs is not None
    assert np.array_equal(ours[0], theirs[0])
    win, lose = int((ours[1] > theirs[1]).sum()), int((ours[1] < theirs[1]).sum())
    caption = drawn(store)["mini-users"].caption
    assert f"Of {len(ours[0])} test users, {win} gain" in caption
    assert f"{lose} lose and {len(ours[0]) - win - lose} are equal" in caption
    assert "over 1 pair of runs" in caption


def test_an_svg_needs_nothing_else_and_takes_its_ink_from_the_page(pictures: tuple[Picture, ...]) -> None:
    for picture in pictures:
        text = svg(picture)
        root = ElementTree.fromstring(text)
        assert text.startswith("<svg ")
        assert root[0].text == picture.title
        assert root.get("role") == "img"
        assert {"width", "height"}.isdisjoint(root.keys())
        assert INK not in text
        assert "currentColor" in text
        assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]
        assert "<style" not in text  # which would hold for the whole page
        assert any(element.tag.endswith("text") for element in root.iter())


def test_ids_are_unique_on_a_page_with_all_pictures_and_every_reference_has_its_target(
    pictures: tuple[Picture, ...],
) -> None:
    page = "".join(svg(picture) for picture in pictures)
    ids = re.findall(r'\bid="([^"]*)"', page)
    references = re.findall(r'href="([^"]*)"|url\(([^)]*)\)', page)
    assert len(ids) == len(set(ids))
    assert references
    assert {first or second for first, second in references} <= {f"#{name}" for name in ids}


def test_the_same_runs_give_the_same_png_pdf_and_svg_whatever_the_users_settings(store: Path) -> None:
    study = make_study(store, "test")
    pictures = draw(study)
    made = files(pictures)
    assert set(made) == {f"pictures/{picture.name}.{end}" for picture in pictures for end in ("png", "pdf")}
    starts = {"png": b"\x89PNG", "pdf": b"%PDF"}
    assert all(content.startswith(starts[name[-3:]]) for name, content in made.items())
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        assert files(draw(make_study(store, "test"))) == made
        assert [svg(picture) for picture in draw(study)] == [svg(picture) for picture in pictures]
    assert dict(matplotlib.rcParams) == before


def test_a_data_set_may_have_any_name(store: Path) -> None:
    change(store, lambda stored, run, result: run["dataset"].update(name="$\\a$ <b>/ü"))
    pictures = drawn(store)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in pictures)
    for picture in pictures.values():
        assert ElementTree.fromstring(svg(picture))[0].text == picture.title
        assert picture.title.endswith("$\\a$ <b>/ü")
