"""Reports: verdicts from stored runs alone, unfinished runs named, references round trip, both choices of a point."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Command
from run_files import altered, record, without_result

from harness.data import load_dataset
from harness.paper.results import AskedPoint, AskedRow, incomparable, label_of, result_rows, starved_labels
from harness.paper.study import headline, make_study
from harness.report.markdown import markdown
from harness.report.plots import draw
from harness.runs.store import StoredRun, stored_runs, write_failure
from harness.runs.trial import make_trial, resolve_device, run_trial
from harness.training import TrainingConfig


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, mini = tmp_path_factory.mktemp("trained"), load_dataset("mini")
    for seed in (1, 2):
        for weight in (0.1, 1e-3):
            settings = {"epochs": 2, "batch_size": 512, "reg_weight": weight}
            run_trial(make_trial("bpr", mini, "mini", settings, seed, resolve_device("cpu")), folder)
    return folder


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def test_grid_points_and_seeds_become_one_row_chosen_on_validation(store: Path) -> None:
    (row,) = result_rows(list(stored_runs(store)))
    assert (row.points, len(row.runs)) == (2, 2)

    def validation(run: StoredRun) -> float:
        return float((run.result or {})["valid"]["recall@20"])

    groups = {
        weight: [run for run in stored_runs(store) if run.run["config"]["reg_weight"] == weight]
        for weight in (0.1, 1e-3)
    }
    best = max(groups, key=lambda weight: sum(map(validation, groups[weight])))
    assert {run.run["config"]["reg_weight"] for run in row.runs} == {best}


def searched(path: Path, weight: float, seed: int, valid: float, test: float) -> StoredRun:
    """A finished run of BPR with these R@20."""
    run = {
        "model": "bpr",
        "config": {"reg_weight": weight},
        "dataset": {"name": "mini", "surrogates": []},
        "dataset_hash": "abc",
        "seed": seed,
        "searched": ["reg_weight"],
        "reads_features": False,
        "command": f"bm3 train bpr mini --seed {seed}",
        "environment": {},
    }
    metrics = dict.fromkeys(("recall@10", "ndcg@10", "ndcg@20"), 0.1)
    result = {"valid": metrics | {"recall@20": valid}}
    return record(path, result | {"test": metrics | {"recall@20": test}}, **run)


def test_points_are_chosen_by_either_part_and_compared_on_all_seeds_that_both_have(tmp_path: Path) -> None:
    """λ 1 is best on validation with seed 1, λ 0.1 on test; λ 0.01 has no second seed, and λ 1 alone has a third."""
    runs = [
        searched(tmp_path, 1.0, 1, 0.50, 0.40),
        searched(tmp_path, 0.1, 1, 0.30, 0.48),
        searched(tmp_path, 0.01, 1, 0.20, 0.20),
        searched(tmp_path, 1.0, 2, 0.50, 0.40),
        searched(tmp_path, 0.1, 2, 0.90, 0.36),
        searched(tmp_path, 1.0, 3, 0.50, 0.90),
    ]
    (row,) = result_rows(runs)
    chosen = row.selection
    assert (chosen.on_validation.settings, chosen.on_test.settings) == ({"reg_weight": 1.0}, {"reg_weight": 0.1})
    assert chosen.seeds == (1, 2)
    assert (chosen.test(chosen.on_validation), chosen.test(chosen.on_test)) == pytest.approx((0.40, 0.42))
    assert chosen.optimism == pytest.approx(0.05)
    assert row.seeds == (1, 2, 3)
    assert row.search == (
        "bpr: 3 grid points searched; best on validation: reg_weight=1; best on test: reg_weight=0.1, "
        "which would add 5.0 % to test R@20."
    )


def test_of_points_that_are_equally_good_the_one_with_more_seeds_is_the_one_that_was_chosen(tmp_path: Path) -> None:
    runs = [searched(tmp_path, weight, 1, 0.5, 0.4) for weight in (1.0, 0.1, 0.01)]
    (row,) = result_rows([*runs, searched(tmp_path, 0.1, 2, 0.5, 0.4)])
    assert row.settings == row.selection.on_test.name == "reg_weight=0.1"


def hand_made(folder: Path, settings: dict[str, Any], seed: int, valid: float, test: float) -> StoredRun:
    """As `searched`, with any settings of model and training; its folder says them."""
    run = searched(folder / "mini" / f"{settings}-{seed}", 0.1, seed, valid, test)
    config = {key: value for key, value in settings.items() if key == "reg_weight"}
    training = {key: value for key, value in settings.items() if key != "reg_weight"}
    changed = [key for key, value in settings.items() if value != asdict(TrainingConfig()).get(key)]
    return altered(run, config=config, training=training, changed=changed)


def asked(*points: dict[str, Any], every_seed: bool = False) -> AskedRow:
    """A row of these points with the seeds 1 and 2, of runs as `hand_made` leaves them."""
    keys = [{seed: f"mini/{point}-{seed}" for seed in (1, 2)} for point in points]
    return AskedRow(None, tuple(map(AskedPoint, points, keys)), every_seed)


def test_a_row_that_is_asked_for_is_chosen_with_the_first_seed_whatever_others_there_are(tmp_path: Path) -> None:
    """Over both seeds λ 0.1 would be best on validation, and λ 1 on test."""
    points = {"reg_weight": 1.0}, {"reg_weight": 0.1}
    runs = [
        hand_made(tmp_path, points[0], 1, 0.5, 0.4),
        hand_made(tmp_path, points[1], 1, 0.4, 0.5),
        hand_made(tmp_path, points[0], 2, 0.1, 0.9),
        hand_made(tmp_path, points[1], 2, 0.9, 0.1),
    ]
    (row,) = result_rows(runs, [asked(*points)])
    assert (row.selection.on_validation.settings, row.selection.on_test.settings) == points
    assert row.selection.seeds == row.seeds == (1, 2)
    assert row.selection.optimism == pytest.approx(0.3 / 0.65 - 1)
    (unexplained,) = result_rows(runs)
    assert unexplained.selection.on_validation.settings == points[1]


def test_where_every_point_is_run_with_every_seed_all_of_them_count(tmp_path: Path) -> None:
    points = {"reg_weight": 1.0}, {"reg_weight": 0.1}
    runs = [
        hand_made(tmp_path, points[0], 1, 0.5, 0.4),
        hand_made(tmp_path, points[1], 1, 0.4, 0.5),
        hand_made(tmp_path, points[0], 2, 0.1, 0.9),
        hand_made(tmp_path, points[1], 2, 0.9, 0.1),
    ]
    rows = [asked(*points, every_seed=True)]
    (row,) = result_rows(runs, rows)
    assert row.selection.on_validation.settings == points[1]
    assert (row.every_seed, row.seeds) == (True, (1, 2))
    assert [(point.valid, point.test) for point in row.grid] == [
        pytest.approx((0.30, 0.65)),
        pytest.approx((0.65, 0.30)),
    ]
    assert not result_rows(runs, [asked(*points)])[0].every_seed


def test_what_is_not_published_is_no_evidence_when_it_was_searched_even_if_the_default_was_chosen(
    tmp_path: Path,
) -> None:
    points, figures = ({"learning_rate": 0.001}, {"learning_rate": 0.01}), ((0.5, 0.4), (0.4, 0.5))
    runs = [hand_made(tmp_path, point, 1, *pair) for point, pair in zip(points, figures, strict=True)]
    (row,) = result_rows(runs, [asked(*points)])
    assert (row.points, row.label, row.selection.on_validation.settings) == (2, "bpr", points[0])
    assert "settings are not the published ones (learning_rate searched)" in incomparable(row)
    (alone,) = result_rows(runs[:1], [AskedRow(None, (AskedPoint({}, asked(points[0]).points[0].runs),))])
    assert not incomparable(alone)


def test_a_grid_beyond_the_published_one_is_no_evidence_and_a_part_of_it_is(tmp_path: Path) -> None:
    runs = [hand_made(tmp_path, {"reg_weight": weight}, 1, 0.5, 0.4) for weight in (1.0, 0.1, 0.77)]
    points = [{"reg_weight": run.run["config"]["reg_weight"]} for run in runs]
    (part,), (beyond,) = result_rows(runs, [asked(*points[:2])]), result_rows(runs, [asked(*points)])
    assert not incomparable(part)
    assert "(reg_weight searched beyond the published grid)" in incomparable(beyond)


def test_rows_are_called_as_the_suite_says_and_looked_up_by_their_settings(tmp_path: Path) -> None:
    run = hand_made(tmp_path, {"epochs": 7}, 1, 0.5, 0.4)
    point = AskedPoint({}, {1: f"mini/{run.path.name}"})
    (named,) = result_rows([run], [AskedRow("the short one", (point,))])
    (unnamed,) = result_rows([run], [AskedRow(None, (point,))])
    assert (named.label, unnamed.label) == ("the short one", "bpr epochs=7")
    assert named.by_settings == unnamed.by_settings == label_of(run)
    assert ("epochs=7" in named.settings, "epochs=7" in unnamed.settings) == (True, False)


def test_rows_of_one_name_are_told_apart_by_what_they_set(tmp_path: Path) -> None:
    runs = [hand_made(tmp_path, {"reg_weight": weight}, 1, 0.5, 0.4) for weight in (1.0, 0.1)]
    points = [AskedPoint({}, {1: f"mini/{run.path.name}"}) for run in runs]
    rows = result_rows(runs, [AskedRow(None, (point,)) for point in points])
    assert [(row.label, row.points) for row in rows] == [("bpr reg_weight=1", 1), ("bpr reg_weight=0.1", 1)]
    twice = result_rows(runs, [AskedRow("mine", (points[0],)), AskedRow("mine", (points[0],))])
    assert [row.label for row in twice] == ["mine", "mine (2)"]


def test_a_point_without_a_result_is_left_out_and_a_row_without_one_is_none(tmp_path: Path) -> None:
    points = {"reg_weight": 1.0}, {"reg_weight": 0.1}
    done = hand_made(tmp_path, points[0], 1, 0.5, 0.4)
    failed = without_result(hand_made(tmp_path, points[1], 1, 0.9, 0.9))
    (row,) = result_rows([done, failed], [asked(*points)])
    assert (row.points, row.selection.on_test.name) == (1, "reg_weight=1")
    assert result_rows([failed], [asked(*points)]) == []


def test_a_row_without_a_result_for_want_of_memory_keeps_its_name(tmp_path: Path) -> None:
    starved = {"kind": "out of memory", "message": "", "when": "2026-01-01"}
    runs = [hand_made(tmp_path, {"reg_weight": weight}, 1, 0.5, 0.4) for weight in (1.0, 0.1)]
    runs[1] = without_result(runs[1], starved)
    points = [AskedPoint({}, {1: f"mini/{run.path.name}"}) for run in runs]
    for names, dash in (((None, None), "bpr reg_weight=0.1"), (("one", "two"), "two")):
        rows = [AskedRow(name, (point,)) for name, point in zip(names, points, strict=True)]
        assert starved_labels(result_rows(runs, rows), runs, rows) == {"mini": (dash,)}
    both = [asked({"reg_weight": 1.0}, {"reg_weight": 0.1})]
    assert starved_labels(result_rows(runs, both), runs, both) == {}  # another point has a result


def test_no_name_decides_which_of_two_rows_stands_for_its_model_in_the_claims(store: Path) -> None:
    """The runs count as runs of LightGCN on Baby, of which alone the paper claims something."""
    for run in stored_runs(store):
        other = altered(run, model="lightgcn", dataset={"name": "baby"})
        (run.path / "run.json").write_text(json.dumps(other.described()))
    found: dict[float, dict[int, str]] = {0.1: {}, 1e-3: {}}
    for run in stored_runs(store):
        found[run.run["config"]["reg_weight"]][run.run["seed"]] = "/".join(run.path.parts[-2:])
    names = "short", "a longer name"
    rows = [AskedRow(name, (AskedPoint({}, runs),)) for name, runs in zip(names, found.values(), strict=True)]
    study = make_study(store, "test", asked_for=rows)
    assert [row.label for row in study.rows] == [*names]
    evidence = [result.evidence for result in study.claims if result.where == "ours"]
    assert any("short, a-longer-name are equally near to the published settings" in text for text in evidence)


def test_a_grid_that_has_no_axis_is_left_out_of_the_pictures(store: Path) -> None:
    """Points at a learning rate are no points of the model's grid, which the picture is of."""
    runs = [run for run in stored_runs(store) if run.run["seed"] == 1]
    keys = ["/".join(run.path.parts[-2:]) for run in runs]
    names = []
    for key in ("reg_weight", "early_stopping.patience"):
        points = tuple(AskedPoint({key: 10 * place + 1}, {1: one}) for place, one in enumerate(keys))
        study = make_study(store, "test", of=runs, asked_for=[AskedRow(None, points)])
        names.append([picture.name for picture in draw(study)])
    assert ["mini-grid" in found for found in names] == [True, False]


def test_a_report_on_costs_needs_no_evidence_on_accuracy(store: Path) -> None:
    """One seed is no evidence for a cell of accuracy, and enough for time and memory."""
    runs = [run for run in stored_runs(store) if run.run["seed"] == 1]
    runs = [altered(run, dataset={"name": "baby"}) for run in runs]
    assert make_study(store, "test", of=runs).code == 3
    study = make_study(store, "test", of=runs, of_costs=True)
    assert (study.code, headline(study)[-1]) == (0, "Time and memory of 1 of 1 rows were measured.")
    assert make_study(store, "test", of=runs, of_costs=True, failed=["bm3 train"]).code == 1
    assert make_study(store, "test", of=[], of_costs=True).code == 3
    timing = {"median_s": None, "q1_s": None, "q3_s": None, "warmup_s": 1.0, "note": "", "evaluation_median_s": None}
    untimed = [altered(run, {"timing": timing}) for run in runs]
    assert make_study(store, "test", of=untimed, of_costs=True).code == 3


def test_a_failed_run_is_named_once_with_what_it_failed_of(store: Path) -> None:
    first = next(iter(stored_runs(store)))
    (first.path / "result.json").unlink()
    write_failure(first.path, "error", "the loss is nan")
    lines = [line for line in markdown(make_study(store, "test")).splitlines() if first.run["command"] in line]
    assert lines == [f"- Failed: `{first.run['command']}`: the loss is nan"]


def test_a_failed_trial_or_trace_is_never_a_pass(store: Path) -> None:
    assert make_study(store, "test", failed=["bm3 train bpr mini"]).code == 1


def test_a_finished_run_is_returned_and_not_repeated(store: Path) -> None:
    run = next(iter(stored_runs(store)))
    before = (run.path / "result.json").stat().st_mtime_ns
    config, training = run.run["config"], run.run["training"]
    settings = {"epochs": training["epochs"], "batch_size": training["batch_size"], "reg_weight": config["reg_weight"]}
    trial = make_trial("bpr", load_dataset("mini"), "mini", settings, run.run["seed"], resolve_device("cpu"))
    assert run_trial(trial, store).path == run.path
    assert (run.path / "result.json").stat().st_mtime_ns == before


def test_the_best_row_is_compared_with_the_second_over_users(store: Path) -> None:
    mini = load_dataset("mini")
    settings = {"epochs": 2, "batch_size": 512}
    for seed in (1, 3):
        run_trial(make_trial("lightgcn", mini, "mini", settings, seed, resolve_device("cpu")), store)
    study = make_study(store, "test")
    best, second = study.best_two("mini", "recall@20")
    (pair,) = [pair for pair in study.differences["mini"] if pair.metric == "recall@20"]
    assert (pair.runs, pair.users) == (1, len(best.result.runs[0].per_user("recall@20")[0]))  # type: ignore[index]
    ours, theirs = (next(run for run in row.result.runs if run.run["seed"] == 1) for row in (best, second))
    difference = ours.result["test"]["recall@20"] - theirs.result["test"]["recall@20"]  # type: ignore[index]
    assert pair.seen_from(best.label).mean == pytest.approx(difference)


def test_every_format_is_written_where_it_is_asked_for(store: Path, tmp_path: Path, command: Command) -> None:
    before = sorted(store.rglob("*"))
    outcome = command("report", store, "--format", "md, html,tex,csv,json", "--out", tmp_path / "there")
    assert outcome.code == 0
    written = {path.relative_to(tmp_path / "there").as_posix() for path in (tmp_path / "there").rglob("*.*")}
    assert written >= {
        "report.md",
        "report.html",
        "report.tex",
        "cells.csv",
        "cells.json",
        "pictures/mini-learning.png",
    }
    assert all(str(tmp_path / "there" / name) in outcome.out for name in written)
    assert sorted(store.rglob("*")) == before


@pytest.mark.parametrize("formats", ["md,nonsense", ""])
def test_an_unknown_format_is_refused_and_none_means_markdown(store: Path, command: Command, formats: str) -> None:
    outcome = command("report", store, "--format", formats)
    assert (outcome.code, (store / "report.md").exists()) == ((2, False) if formats else (0, True))
    assert "choose from md, html, tex, csv, json" in outcome.err if formats else not outcome.err


def test_a_report_that_cannot_be_written_is_one_line_and_damages_nothing(store: Path, command: Command) -> None:
    command("report", store)
    before = (store / "report.md").read_bytes()
    (store / "taken").write_text("")
    outcome = command("report", store, "--out", store / "taken")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "cannot be written" in outcome.err
    assert (store / "report.md").read_bytes() == before


def test_runs_on_other_data_or_on_surrogates_are_rows_of_their_own(store: Path) -> None:
    runs = [run for run in stored_runs(store) if run.run["config"]["reg_weight"] == 0.1]
    for run, change in zip(runs, ({"dataset_hash": "another"}, {}), strict=True):
        (run.path / "run.json").write_text(json.dumps({**run.described(), **change}))
    rows = result_rows(list(stored_runs(store)))
    assert len({row.label for row in rows}) == len(rows) == 2
    assert {row.data for row in rows} == {"another", runs[1].run["dataset_hash"]}
    assert all(len({run.run["dataset_hash"] for run in row.runs}) == 1 for row in rows)


def test_runs_whose_settings_differ_only_by_a_default_that_changed_are_rows_of_their_own(tmp_path: Path) -> None:
    def run(seed: int, **config: Any) -> StoredRun:
        one = searched(tmp_path / str(seed), 0.1, seed, 0.5, 0.4)
        return altered(one, config=config, changed=[])

    alike = result_rows([run(1, dropout=0.3), run(2, dropout=0.3), run(3, dropout=0.3)])
    assert [(row.label, row.seeds) for row in alike] == [("bpr", (1, 2, 3))]
    apart = result_rows([run(1, dropout=0.3), run(2, dropout=0.5), run(3, dropout=0.3)])
    assert [(row.label, row.seeds) for row in apart] == [("bpr dropout=0.3", (1, 3)), ("bpr dropout=0.5", (2,))]


def test_a_run_records_what_differs_from_the_defaults_and_an_earlier_one_says_it_in_its_command(store: Path) -> None:
    run = next(iter(stored_runs(store)))
    assert {*run.run["changed"]} - {"reg_weight"} == {"epochs", "batch_size"}
    earlier = run.model_copy(update={"changed": None})
    assert earlier.changed_settings == run.changed_settings
    assert run.changed_settings["epochs"] == run.run["training"]["epochs"]
    named = altered(earlier, command="bm3 train bpr epochs --set batch_size=512")
    assert named.changed_settings == {"batch_size": run.run["training"]["batch_size"]}


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
    names = [str(run.path) for run in study.rows[0].result.runs]
    assert command("runs", "diff", *names).code == 1
    assert command("replay", names[0], "--threads", 1).code == 0
