"""Training logs of other programs: reading them, what their settings are here, and the word on a curve.

The logs are written here, in the grammar that docs/verdicts.md states.
"""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import Command, refused
from run_files import record

from bm3.errors import ConfigError, DataError
from harness.data.dataset import PARTS
from harness.data.layouts import load_dataset
from harness.paper.load import load_paper
from harness.paper.logs import LoggedEpoch, LoggedPoint, LogWord, about_parameters, compare, meant, read_log, word_of
from harness.runs.store import stored_runs

PAPER = load_paper()
HEADER = {"dataset": "mini", "model": "MFBPR", "epochs": "3", "stopping_step": "20", "train_batch_size": "512"}
MINI = {"users": 200, "items": 100, "inters": 9}
CURVE = [(2.0, 0.1, 0.2), (1.5, 0.3, 0.25), (1.0, 0.3, 0.3)]
METRICS = ["recall@10", "recall@20", "ndcg@10", "ndcg@20"]
Curve = Sequence[tuple[float, float, float]]


def figures(value: float) -> str:
    return "    ".join(f"{metric}: {value:.4f}" for metric in METRICS)


def block(counts: dict[str, int]) -> list[str]:
    return [f"The number of {name}: {count}" for name, count in counts.items()]


def written(
    path: Path,
    *points: tuple[dict[str, Any], Curve],
    header: dict[str, str] | None = None,
    counts: dict[str, dict[str, int]] | None = None,
    end: Sequence[str] = (),
) -> Path:
    """A log: header, counts, and of each point its loss sum, validation and test figure by epoch."""
    now = "Thu 20 Jul 2023 04:23:15 INFO "
    counts = counts or dict.fromkeys(("Training", "Validation", "Testing"), MINI)
    lines = [now, *(f"{key}={value}" for key, value in {**HEADER, **(header or {})}.items()), "", f"{now}mini"]
    for title, of_part in counts.items():
        lines += [f"{now}", f"===={title}====", "mini", *block(of_part)]
    for number, (settings, curve) in enumerate(points, 1):
        names, values = [*settings], tuple(settings.values())
        lines += [
            f"{now}========={number}/{len(points)}: Parameters:{names}={values}=======",
            "Trainable parameters: 7",
        ]
        for epoch, (loss, valid, test) in enumerate(curve):
            lines += [f"{now}epoch {epoch} training [time: 0.70s, train loss: {loss:.4f}]"]
            lines += [f"{now}epoch {epoch} evaluating [time: 5.30s, valid_score: {valid:.6f}]"]
            lines += [f"{now}valid result: ", figures(valid), f"{now}test result: ", figures(test)]
    path.write_text("\n".join([*lines, *end, ""]), encoding="utf-8")
    return path


def test_a_log_is_read_whole(tmp_path: Path) -> None:
    better = [(2.0, 0.1, 0.2), (1.5, 0.4, 0.2)]
    best = ["█ BEST █", "Thu 20 Jul 2023 05:00:16 INFO \tParameters: ['reg_weight', 'seed']=(0.1, 999),"]
    stopped = ["Thu INFO epoch 2 training [time: 0.1s, train loss: nan]", "Thu INFO Loss is nan at epoch: 2"]
    points = [({"reg_weight": 0.1, "seed": 999}, CURVE), ({"reg_weight": 1e-05, "seed": 999}, better)]
    log = read_log(written(tmp_path / "a.log", *points, end=[*stopped, *best]))
    assert (log.header["dataset"], log.counts["valid"]) == ("mini", MINI)
    assert [(len(point.epochs), point.best, point.parameters) for point in log.points] == [(3, 2, 7), (2, 2, 7)]
    assert log.points[0].epochs[1].metrics["test"] == dict.fromkeys(METRICS, 0.25)
    assert log.chosen() is log.points[1]
    assert log.called_best == log.points[0].settings


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("epoch 1 training", "epoch 2 training", "epoch 2 does not follow"),
        ("(0.1, 999)", "(0.1, )", "settings cannot be read"),
        ("(0.1, 999)", "(x, 999)", "settings cannot be read"),
        ("epoch ", "step ", "lacks an epoch"),
        ("model=", "modell=", "lacks model"),
        ("====Testing====", "====Test====", "lacks the counts of test"),
    ],
)
def test_what_is_no_such_log_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = written(tmp_path / "a.log", ({"reg_weight": 0.1, "seed": 999}, CURVE))
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=told) as raised:
        read_log(path)
    assert str(raised.value).startswith(str(path))


def test_settings_have_their_names_here_and_what_is_not_said_is_named(tmp_path: Path) -> None:
    header = {"model": "LightGCN", "n_ui_layers": "[1, 2, 3]", "learning_rate": "0.01", "embedding_size": "32"}
    log = read_log(written(tmp_path / "a.log", ({"n_ui_layers": 3, "seed": 999}, CURVE), header=header))
    found = meant(log, log.points[0], PAPER)
    assert found.entry.name == "lightgcn"
    assert found.settings == {
        "n_layers": 3,
        "learning_rate": 0.01,
        "embedding_size": 32,
        "epochs": 3,
        "batch_size": 512,
        "early_stopping.patience": 20,
    }
    assert "reg_weight" in found.notes[0]


def test_a_curve_is_no_support_for_vectors(tmp_path: Path) -> None:
    settings = {"n_layers": 2, "reg_weight": 0.01, "dropout": 0.3, "seed": 999}
    log = read_log(written(tmp_path / "a.log", (settings, CURVE), header={"model": "BM3"}))
    notes = " ".join(meant(log, log.points[0], PAPER).notes)
    assert "says nothing for the vectors" in notes
    assert "cannot tell vectors from noise" in notes


@pytest.mark.parametrize(
    ("settings", "header", "told"),
    [
        ({"reg_weight": 0.1}, {"model": "MFBPPR"}, "has no model 'MFBPPR'; nearest: MFBPR"),
        ({"gamma": 0.1}, {}, "gamma, which it varies, has no name here"),
        ({"n_layers": 2}, {}, "n_layers, which it varies, has no name here"),
        ({"reg_weight": 0.1}, {"weight_decay": "0.1"}, "weight_decay is 0.1; training here has 0.0"),
    ],
)
def test_what_cannot_be_trained_here_is_refused(
    tmp_path: Path, settings: dict[str, Any], header: dict[str, str], told: str
) -> None:
    log = read_log(written(tmp_path / "a.log", ({**settings, "seed": 999}, CURVE), header=header))
    with pytest.raises(ConfigError, match=told):
        meant(log, log.points[0], PAPER)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the runs of `of_mini`."""
    return tmp_path_factory.mktemp("logs")


def of_mini(path: Path, curve: Curve = CURVE, **header: str) -> Path:
    dataset = load_dataset("mini")
    whole = {"users": dataset.n_users, "items": dataset.n_items}
    titles = dict(zip(("Training", "Validation", "Testing"), PARTS, strict=True))
    counts = {title: {**whole, "inters": len(dataset.part(part))} for title, part in titles.items()}
    return written(path, ({"reg_weight": 0.1, "seed": 999}, curve), counts=counts, header=header)


def test_what_a_log_did_is_trained_once_per_seed(command: Command, trained: Path, tmp_path: Path) -> None:
    path = of_mini(tmp_path / "a.log")
    done = command("conformance", "--log", path, "--out", trained, "--json")
    found = json.loads(done.out)
    assert (done.code, found["word"]) == (1, LogWord.OTHER)
    assert found["settings"]["embedding_size"] == 128
    runs = [*stored_runs(trained, [])]
    assert sorted(run.seed for run in runs) == [1, 2, 3]
    assert {run.settings["reg_weight"] for run in runs} == {0.1}
    table = command("conformance", "--log", path, "--out", trained).out
    for text in ("a.log, reg_weight=0.1 seed=999: other", "loss sum, epoch 3", "7 in the log", "bm3 train bpr mini"):
        assert text in table
    paper = Path(shutil.copytree(PAPER.folder, tmp_path / "paper", ignore=shutil.ignore_patterns("traces")))
    own = (paper / "paper.toml").read_text()
    (paper / "paper.toml").write_text(re.sub(r"(?m)^metrics = .*", 'metrics = ["R@10"]', own))
    by_another = command("conformance", "--log", path, "--out", trained, "--paper", paper)
    assert (by_another.code, "best epoch's test R@20" in by_another.out) == (1, True)  # by which epochs are chosen
    few = command("conformance", "--log", path, "--out", trained, "--seeds", "1,2")
    assert (few.code, "2 of at least 3 seeds" in few.out) == (3, True)


def as_logged(curve: Callable[[int], float], metric: Callable[[str, float], float], runs: Sequence[Any]) -> LoggedPoint:
    """The means over runs as a log would have them, changed."""
    epochs = []
    for place, of_runs in enumerate(zip(*(run.epochs() for run in runs), strict=True)):
        loss = sum(epoch.loss for epoch in of_runs) / len(runs) * curve(place)
        valid = {m: metric("valid", sum(e.valid[m] for e in of_runs) / len(runs)) for m in (*METRICS, "recall@20")}
        test = {m: metric("test", sum(run.outcome.test[m] for run in runs) / len(runs)) for m in METRICS}
        epochs.append(LoggedEpoch(loss, {"valid": valid, "test": test}))
    return LoggedPoint({}, epochs)


@pytest.mark.parametrize(
    ("curve", "metric", "word"),
    [
        (lambda place: 1, lambda part, value: value, LogWord.SAME_CURVE),
        (lambda place: 1.5, lambda part, value: value, LogWord.SAME_END),
        (lambda place: 1, lambda part, value: value + 0.3, LogWord.OTHER),
        (lambda place: 1, lambda part, value: value + 0.3 * (part == "test"), LogWord.OTHER),
    ],
)
def test_the_word_is_by_curve_and_end(
    command: Command, trained: Path, tmp_path: Path, curve: Any, metric: Any, word: LogWord
) -> None:
    command("conformance", "--log", of_mini(tmp_path / "a.log"), "--out", trained)
    runs = [*stored_runs(trained, [])]
    assert word_of(compare(as_logged(curve, metric, runs), runs, 1, METRICS), len(runs)) is word
    assert word_of(compare(as_logged(curve, metric, runs), runs[:2], 1, METRICS), 2) is None


@pytest.mark.parametrize(
    ("there", "here", "told"),
    [(7, 7, "7, as in the log"), (7, 8, "7 in the log, 8 here"), (7, None, "not known"), (None, None, "not known")],
)
def test_trained_parameters_are_compared_as_far_as_both_are_known(
    there: int | None, here: int | None, told: str
) -> None:
    assert told in about_parameters(LoggedPoint({}, parameters=there), record(result={"parameters": here}))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--log", "nowhere.log"), "nowhere.log: cannot be read"),
        (("--log", "a.log", "--point", 2), "no point 2; it has 1: reg_weight=0.1 seed=999"),
        (("--log", "other.log"), "not the same data, or another split"),
        (("--log", "a.log", "--seeds", "x"), "'x' is no seed"),
        (("--log", "a.log", "traces"), "ask one"),
        (("--point", 1), "are for --log FILE"),
    ],
)
def test_bad_input_is_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    of_mini(tmp_path / "a.log")
    written(tmp_path / "other.log", ({"reg_weight": 0.1, "seed": 999}, CURVE))
    assert told in refused(command("conformance", *arguments))
    assert not (tmp_path / "runs").exists()
