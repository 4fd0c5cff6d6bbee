"""Suites: rows and trials that follow from a file, which are needed next, and what is refused with its line."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import refusal
from run_files import record

from bm3 import ConfigError, DataError
from harness.models.registry import find_model
from harness.paper.load import load_paper
from harness.runs.record import RunRecord
from harness.runs.settings import configure
from harness.runs.trial import Trial
from harness.studies.suite import Experiment, Row, Suite, load_suite, outline, plan, wanted

CPU = torch.device("cpu")
NINE = ["bm3", "bpr", "buir", "dualgnn", "grcn", "lattice", "lightgcn", "mmgcn", "vbpr"]
PAPER = load_paper()
GRIDS = PAPER.grids
GRID = {"model": "bpr", "grid": {"reg_weight": [1.0, 0.1, 0.01]}}


def suite(*experiments: dict[str, Any], seeds: list[int] | None = None, **keys: Any) -> Suite:
    return Suite(
        title="x",
        datasets=["mini"],
        seeds=seeds or [7, 8, 9],
        experiments=[Experiment(**experiment) for experiment in experiments],
        **keys,
    )


def rows_of(*experiments: dict[str, Any], **keys: Any) -> list[Row]:
    return plan(suite(*experiments, **keys), None, CPU)


def ended(valid: float, test: float) -> RunRecord:
    return record(result={"valid": {"recall@20": valid}, "test": {"recall@20": test}})


def short(trials: list[Trial]) -> list[tuple[float, int]]:
    """λ and seed of trials of BPR."""
    return [(trial.config.reg_weight, trial.seed) for trial in trials]


# --- what follows from a file ---


def test_every_combination_of_a_grid_is_a_point_of_one_row() -> None:
    grid = {"n_layers": [1, 2], "embedding_size": [4, 8]}
    (row,) = rows_of({"model": "lightgcn", "set": {"reg_weight": 0.5}, "grid": grid})
    found = [(p.config.n_layers, p.config.embedding_size, p.config.reg_weight) for p in row.points]
    assert found == [(1, 4, 0.5), (1, 8, 0.5), (2, 4, 0.5), (2, 8, 0.5)]
    assert {point.seed for point in row.points} == {7}


def test_what_a_row_sets_or_varies_comes_before_what_the_suite_sets() -> None:
    changed = {"model": "bpr", "set": {"batch_size": 64}, "vary": {"learning_rate": [0.1]}}
    (row,) = rows_of(changed, training={"batch_size": 32, "learning_rate": 0.2, "epochs": 3})
    training = row.points[0].training
    assert (training.batch_size, training.learning_rate, training.epochs) == (64, 0.1, 3)


def test_every_combination_of_what_is_varied_is_a_row_of_its_own() -> None:
    varied = {"features": ["trained", "frozen"], "n_layers": [1, 2]}
    rows = rows_of({"model": "bm3", "vary": varied, "grid": {"dropout": [0.3, 0.5]}})
    configs = [row.points[0].config for row in rows]
    assert [(config.features, config.n_layers) for config in configs] == [*itertools.product(*varied.values())]
    assert [row.label for row in rows] == [f"bm3 features={one.features} n_layers={one.n_layers}" for one in configs]
    assert all(len(row.points) == 2 for row in rows)


def test_variants_are_other_values_than_the_rows_own_and_not_of_what_is_varied_anyway() -> None:
    frozen = rows_of({"model": "bm3", "set": {"features": "frozen"}, "variants": "each"})
    assert "bm3 features=trained" in [row.label for row in frozen]
    assert "bm3 features=frozen" not in [row.label for row in frozen]
    both = rows_of({"model": "bm3", "vary": {"features": ["trained", "frozen"]}, "variants": "each"})
    assert len(both) == 2 * (len(frozen) - 1)
    assert len({(row.points[0].config, row.points[0].training) for row in both}) == len(both)


def test_a_suite_stops_by_the_metric_of_its_paper() -> None:
    paper = load_paper()
    suite = load_suite("mini", paper)
    by_another = outline(suite, paper=paper.model_copy(update={"stopping": "N@10"}))
    assert {point["early_stopping.metric"] for row in by_another for point in row.points} == {"ndcg@10"}
    assert not any("early_stopping.metric" in point for row in outline(suite, paper=paper) for point in row.points)


def test_settings_with_dots_may_be_written_as_toml_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        'title = "x"\ndatasets = ["mini"]\nseeds = [1]\ntraining.early_stopping.patience = 3\n'
        '[[experiments]]\nmodel = "bpr"\nset = { "evaluation.top_k" = 30 }\n'
    )
    (row,) = plan(load_suite(str(path)), None, CPU)
    assert row.points[0].training.early_stopping.patience == 3
    assert row.points[0].training.evaluation.top_k == 30


def test_other_data_sets_take_the_place_of_the_suites(
    tmp_path: Path, write_npz: Callable[..., Path], small_parts: Any, small_features: Any
) -> None:
    write_npz(tmp_path / "shop", small_parts, small_features)
    rows = plan(suite({"model": "bpr"}, {"model": "buir"}), tmp_path, CPU, ["shop", "mini"])
    found = [(row.dataset.name, row.label) for row in rows]
    assert found == [*itertools.product(("shop", "mini"), ("bpr", "buir"))]
    assert rows[0].points[0].dataset is rows[1].points[0].dataset
    with pytest.raises(DataError, match="no data set 'shopp'"):
        plan(suite({"model": "bpr"}), tmp_path, CPU, ["shopp"])


@pytest.mark.parametrize(("keys", "trials"), [({}, 3 + 4), ({"repeat": "all"}, 9), ({"seeds": [1]}, 3)])
def test_the_outline_counts_what_the_plan_will_need_at_most(keys: dict[str, Any], trials: int) -> None:
    found = suite(GRID, **keys)
    (line,) = outline(found)
    (row,) = plan(found, None, CPU)
    assert line.trials == len(row.wanted({})) + row.to_come({}) == trials
    assert (line.label, line.dataset, len(line.points)) == ("bpr", "mini", 3)


# --- which are needed next ---


def outcomes(row: Row, *values: tuple[float, float] | None) -> dict[str, RunRecord | None]:
    pairs = zip(row.points, values, strict=False)
    return {point.key: None if value is None else ended(*value) for point, value in pairs}


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ([], []),
        ([(0.5, 0.5), (0.9, 0.9)], []),  # one has not ended yet
        ([(0.5, 0.5), (0.9, 0.9), (0.1, 0.1)], [0.1]),
        ([(0.5, 0.6), (0.9, 0.1), (0.1, 0.2)], [0.1, 1.0]),
        ([(0.5, 0.5), (0.5, 0.5), (0.5, 0.5)], [1.0]),  # the first of equals
        ([(0.5, 0.5), None, (0.9, 0.1)], [0.01, 1.0]),  # one failed
        ([(math.nan, math.nan), (0.5, 0.4), (0.1, 0.1)], [0.1]),
        ([None, None, None], []),
    ],
)
def test_the_best_on_validation_and_the_best_on_test_run_with_the_other_seeds_once_all_points_have_ended(
    values: list[tuple[float, float] | None], chosen: list[float]
) -> None:
    (row,) = rows_of(GRID)
    needed = row.wanted(outcomes(row, *values))
    assert short(needed[:3]) == [(1.0, 7), (0.1, 7), (0.01, 7)]
    assert short(needed[3:]) == [(weight, seed) for weight in chosen for seed in (8, 9)]
    assert row.to_come(outcomes(row, *values)) == (0 if len(values) == 3 else 4)


def test_a_trial_of_two_rows_is_needed_once() -> None:
    rows = rows_of(GRID, {"model": "bpr", "label": "other", "set": {"reg_weight": 0.1}})
    trials = wanted(rows, {})
    assert len({trial.key for trial in trials}) == len(trials) == 3 + 2


def test_rows_come_one_after_another_or_repetition_by_repetition() -> None:
    rows = rows_of({"model": "bpr"}, {"model": "buir"}, seeds=[9, 1])
    assert [(t.entry.name, t.seed) for t in wanted(rows, {})] == [("bpr", 9), ("bpr", 1), ("buir", 9), ("buir", 1)]
    interleaved = wanted(rows, {}, "interleaved")
    assert [(t.entry.name, t.seed) for t in interleaved] == [("bpr", 9), ("buir", 9), ("bpr", 1), ("buir", 1)]


def test_a_suite_may_except_cells(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(HEAD + BPR + EXCEPTION)
    (exception,) = load_suite(str(path)).exceptions
    assert (exception.model, exception.metrics, exception.low, exception.high) == ("bpr", ["R@10"], 0.1, 0.2)


# --- what is refused ---

HEAD = 'title = "x"\ndatasets = ["mini"]\nseeds = [1]\n'
BPR = '[[experiments]]\nmodel = "bpr"\n'
EXCEPTION = '[[exceptions]]\ndataset = "mini"\nmodel = "bpr"\nmetrics = ["R@10"]\nlow = 0.1\nhigh = 0.2\nreason = "x"\n'


def test_a_suite_is_not_called_as_the_folder_of_superseded_runs(tmp_path: Path) -> None:
    path = tmp_path / "superseded.toml"
    path.write_text(HEAD + BPR)
    with pytest.raises(ConfigError, match="give the file another name"):
        load_suite(str(path))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("seeds = [", "Invalid value"),
        ('title = "x"\n', "datasets: is missing: add it"),
        ('title = "x"\ndataset = ["mini"]\nseeds = [1]\n' + BPR, "the file: no key 'dataset'; nearest: datasets"),
        (f'{HEAD}alone = 1\n[[experiments]]\nmodle = "bpr"\n', "experiments.0: no key 'modle'; nearest: model"),
        (f"{HEAD}experiments = [5]\n", "experiments.0: Input should be a valid dictionary"),
        (f'{HEAD}[experiments]\nmodel = "bpr"\n', "experiments: Input should be a valid list"),
        (f"{HEAD}{BPR}set = 5\n", "experiments.0.set: Input should be a valid dictionary"),
        (f"{HEAD}{BPR}[[experiments]]\nlabel = 'y'\n", "experiments.1.model: is missing: add it"),
        (f"{HEAD}experiments = []\n", "experiments: List should have at least 1 item"),
        ('title = "x"\ndatasets = ["mini"]\nseeds = [1, -2]\n' + BPR, "seeds.1: Input should be greater"),
        ('title = "x"\ndatasets = ["mini"]\nseeds = [1, 2, 1]\n' + BPR, "seeds: 1 stands there twice"),
        (f'{HEAD}order = "columns"\n{BPR}', "order: Input should be 'rows' or 'interleaved', not 'columns'"),
        (f'{HEAD}{BPR}grid = "publish"\n', "experiments.0.grid: Input should be a valid dictionary"),
        (f"{HEAD}{BPR}grid = {{ reg_weight = [] }}\n", "experiments.0.grid.reg_weight: List should have"),
        (f"{HEAD}{BPR}[experiments.vary]\nreg_weight = [\n1,\n1.0]\n", "experiments.0.vary.reg_weight: 1.0 stands"),
        (f"{HEAD}{BPR}set = {{ reg_weight = 1979-05-27 }}\n", "experiments.0.set.reg_weight: needed is a"),
        (f'{HEAD}\n[[experiments]]\nmodel = "bmr"\n', "experiments.0 (bmr): no model 'bmr'; nearest: "),
        (f"{HEAD}{BPR}[experiments.set]\nreg_weigth = 1\n", "experiments.0 (bpr): bpr has no setting"),
        (f"{HEAD}{BPR}grid = {{ reg_weight = [1,\n -1] }}\n", "experiments.0 (bpr): BPRConfig: reg_weight is -1.0"),
        (f"{HEAD}[training]\nearly_stopping.patience = -1\n{BPR}", "experiments.0 (bpr): EarlyStopping: patience is"),
        (f"{HEAD}{BPR}set = {{ reg_weight = 1 }}\nvary = {{ reg_weight = [1] }}\n", "experiments.0 (bpr): reg_weight"),
        (f"{HEAD}{BPR}{BPR}set = {{ reg_weight = 0.01 }}\n", "experiments.1 (bpr): row 'bpr' is there already"),
        (HEAD + BPR + EXCEPTION.replace("low", "lower"), "exceptions.0: no key 'lower'; nearest: low"),
        (HEAD + BPR + EXCEPTION.replace("0.2", "0.05"), "exceptions.0: Value error, low is 0.1, above high, 0.05"),
        (HEAD + BPR + EXCEPTION.replace("mini", "baby"), "exceptions.0.dataset: the suite has no 'baby'; nearest"),
        (HEAD + BPR + EXCEPTION.replace('"bpr"', '"bm3"'), "exceptions.0.model: the suite has no 'bm3'; nearest: bpr"),
        (HEAD + BPR + EXCEPTION.replace("R@10", "R"), "exceptions.0.metrics: the suite has no 'R'; nearest: "),
    ],
)  # fmt: skip
def test_a_bad_suite_file_is_one_line_with_file_and_key(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(text, encoding="utf-8")
    assert refusal(lambda: load_suite(str(path)), ConfigError).startswith(f"{path}: {named}")


@pytest.mark.parametrize("settings", [{"set": {"modalities": "visual+foo"}}, {"vary": {"modalities": ["text", "foo"]}}])
def test_modalities_that_the_data_set_lacks_are_refused_before_anything_runs(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^bm3.* on mini: modalities is '.*foo': no 'foo' in the data set; it has"):
        rows_of({"model": "bm3", **settings})
    unread = {"modalities": "foo", "alignment": False, "masking": False}  # which no term reads
    assert rows_of(*({"model": "bm3", "label": m, "set": {"modalities": m}} for m in ("text+visual", "none")))
    assert rows_of({"model": "bm3", "set": unread})


def test_a_model_of_another_package_is_searched_by_its_own_grid_if_it_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, silent = tmp_path / "s.toml", load_paper().model_copy(update={"grids": {}})
    path.write_text(f'{HEAD}{BPR}grid = "published"\n')
    assert len(outline(load_suite(str(path)))[0].points) == 7
    with pytest.raises(ConfigError, match=r"s\.toml: experiments\.0: .*no grid was published for bpr"):
        load_suite(str(path), silent)
    monkeypatch.setattr(find_model("bpr").model.Config, "GRID", {"reg_weight": (1.0, 0.1)}, raising=False)
    assert [point["reg_weight"] for point in outline(load_suite(str(path), silent))[0].points] == [1.0, 0.1]


def test_every_grid_is_of_settings_that_its_model_has_and_accepts() -> None:
    assert sorted(GRIDS) == NINE
    for model, grid in GRIDS.items():
        for point in itertools.product(*grid.values()):
            configure(find_model(model).model, dict(zip(grid, point, strict=True)))


def test_an_experiment_may_have_seeds_and_data_sets_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    text = BPR + 'datasets = ["mini"]\nseeds = [5, 6]\n' + BPR + 'datasets = ["other"]\n'
    path.write_text(HEAD.replace('["mini"]', '["mini", "other"]') + text)
    found = load_suite(str(path))
    own, theirs = outline(found)
    assert (own.dataset, own.seeds, own.undeclared) == ("mini", (5, 6), ())
    assert (theirs.dataset, theirs.seeds, theirs.undeclared) == ("other", (1,), ())
    assert [(row.seeds, row.undeclared) for row in outline(found, ["mini"], seeds=[6, 7])] == [((6, 7), (7,))]
    path.write_text(path.read_text().replace('datasets = ["mini"]', 'datasets = ["minni"]'))
    with pytest.raises(ConfigError, match=r"experiments.0 \(bpr\): datasets: the suite has no 'minni'; nearest: mini"):
        load_suite(str(path))


# --- the suites that are shipped ---


@pytest.mark.parametrize("name", load_paper().suites)
def test_shipped_suites_load_and_become_trials_on_any_data(name: str) -> None:
    found = load_suite(name)
    rows = plan(found, None, CPU, ["mini"])
    assert [(row.label, len(row.points)) for row in rows] == [
        (line.label, len(line.points)) for line in outline(found, ["mini"])
    ]
    assert {line.dataset for line in outline(found)} == {*found.datasets}
    assert len({trial.key for row in rows for trial in row.points}) == sum(len(row.points) for row in rows)
