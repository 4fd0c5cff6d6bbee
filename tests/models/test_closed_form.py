"""Models in closed form: each against a second, plain form on a small matrix, and what all of them must do."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bm3 import ConfigError, Data, DataError
from harness.data.dataset import Dataset
from harness.data.layouts import load_dataset
from harness.models import closed_form
from harness.models.registry import draws, find_model, models, trained_in_steps
from harness.runs.difference import difference
from harness.runs.record import RunRecord
from harness.runs.trial import OutOfMemoryError, make_trial, run_trial, trial_of
from harness.runs.verify import verify
from harness.runs.weights import state_hash
from harness.studies.suite import load_suite
from harness.training.config import TrainingConfig
from harness.training.fit import build
from harness.training.steps import TrainingSteps
from harness.training.streams import Streams

CPU = torch.device("cpu")
CLOSED = sorted({*models()} - {*trained_in_steps()})
Array = NDArray[Any]
N_USERS, N_ITEMS = 20, 15


@pytest.fixture(scope="module")
def small() -> Data:
    """User 19 and item 14 have no interaction; two interactions stand there twice; items 2 and 5 show nothing."""
    draw = np.random.default_rng(6)
    pairs = [(u, i) for u in range(N_USERS - 1) for i in range(N_ITEMS - 1) if draw.random() < 0.3]
    features = {
        "visual": draw.normal(size=(N_ITEMS, 5)),
        "text": draw.normal(size=(N_ITEMS, 4)),
        "audio": draw.normal(size=(N_ITEMS, 3)),
    }
    features["visual"][[2, 5]] = 0
    return Data(N_USERS, N_ITEMS, np.array([*pairs, *pairs[:2]]), features)


def matrix(data: Data) -> Array:
    R = np.zeros((N_USERS, N_ITEMS))
    for u, i in data.train:
        R[u, i] = 1
    return R


def graph(features: Array, k: int) -> Array:
    """N_k, item by item."""
    M = np.zeros((N_ITEMS, N_ITEMS))
    for i in range(N_ITEMS):
        cosine = [x @ features[i] / max(np.linalg.norm(x) * np.linalg.norm(features[i]), 1e-9) for x in features]
        for j in sorted(range(N_ITEMS), key=lambda j: -cosine[j])[:k]:
            M[i, j] = i != j and features[i].any() and features[j].any()
    rows, columns = M.sum(axis=1), M.sum(axis=0)
    return np.array(
        [[M[i, j] / np.sqrt(rows[i] * columns[j]) if M[i, j] else 0 for j in range(N_ITEMS)] for i in range(N_ITEMS)]
    )


def content(data: Data, k: int, others: float) -> Array:
    return graph(data.features["text"], k) + others * sum(graph(data.features[m], k) for m in ("visual", "audio"))


def mostpop(data: Data) -> Array:
    return np.tile([sum(matrix(data)[:, i]) for i in range(N_ITEMS)], (N_USERS, 1))


def itemknn(data: Data, neighbours: int, shrink: float) -> Array:
    R, S = matrix(data), np.zeros((N_USERS, N_ITEMS))
    norm = R.sum(axis=0)
    for i in range(N_ITEMS):
        like = {j: R[:, i] @ R[:, j] / max(np.sqrt(norm[i] * norm[j]) + shrink, 1e-9) for j in range(N_ITEMS) if j != i}
        for j in sorted(like, key=lambda j: (-like[j], j))[:neighbours]:
            S[:, i] += R[:, j] * like[j]
    return S


def rp3beta(data: Data, neighbours: int, alpha: float, beta: float) -> Array:
    R = matrix(data)
    of_user, of_item = np.maximum(R.sum(axis=1), 1), np.maximum(R.sum(axis=0), 1)
    B = ((R / of_item).T @ (R / of_user[:, None])) ** alpha / of_item**beta
    np.fill_diagonal(B, 0)
    for row in B:
        row[sorted(range(N_ITEMS), key=lambda j: (-row[j], j))[neighbours:]] = 0
    return R @ B


def ease(data: Data, reg_weight: float, added: Array | float = 0.0) -> Array:
    """Column by column as the ridge regression of an item on all others."""
    R, B = matrix(data), np.zeros((N_ITEMS, N_ITEMS))
    for i in range(N_ITEMS):
        others = [j for j in range(N_ITEMS) if j != i]
        X = R[:, others]
        B[others, i] = np.linalg.solve(X.T @ X + reg_weight * np.eye(N_ITEMS - 1), X.T @ R[:, i])
    return R @ (B + added)


def easecontent(data: Data, reg_weight: float, content_weight: float, others_weight: float, neighbours: int) -> Array:
    return ease(data, reg_weight, content_weight * content(data, neighbours, others_weight))


def graphfilter(
    data: Data, asymmetry: float, exponent: float, second: float, content_weight: float, neighbours: int
) -> Array:
    R = matrix(data)
    of_user, of_item = np.maximum(R.sum(axis=1), 1), np.maximum(R.sum(axis=0), 1)
    scaled = R * of_user[:, None] ** -asymmetry * of_item ** (asymmetry - 1)
    G = (scaled.T @ scaled) ** exponent + content_weight * content(data, neighbours, 0.3)
    return R @ (G + second * G @ G)


def ials(data: Data, embedding_size: int, iterations: int, **weights_of: float) -> Array:
    """From the initial items: every user and item with all pairs written out, weights on a diagonal."""
    drawn, (a, reg_weight, exponent) = built("ials", data, embedding_size=embedding_size), weights_of.values()
    R, W, H = matrix(data), drawn.users.double().numpy().copy(), drawn.items.double().numpy().copy()
    for _ in range(iterations):
        for mine, other, seen in ((W, H, R), (H, W, R.T)):
            for row in range(len(mine)):
                weights = np.diag(a + seen[row])
                reg = reg_weight * (seen[row].sum() + a * len(other)) ** exponent * np.eye(embedding_size)
                mine[row] = np.linalg.solve(other.T @ weights @ other + reg, other.T @ seen[row])
    return W @ H.T


EASE_CONTENT = {"reg_weight": 2.0, "neighbours": 4}
PLAIN: dict[str, tuple[Callable[..., Array], list[dict[str, Any]]]] = {
    "mostpop": (mostpop, [{}]),
    "itemknn": (itemknn, [{"neighbours": k, "shrink": s} for k, s in ((3, 0.0), (4, 2.0), (40, 10.0))]),
    "rp3beta": (
        rp3beta,
        [{"neighbours": k, "alpha": a, "beta": b} for k, a, b in ((5, 0.7, 0.3), (40, 1, 0))],
    ),
    "ease": (ease, [{"reg_weight": reg} for reg in (0.5, 20.0)]),
    "easecontent": (
        easecontent,
        [{**EASE_CONTENT, "content_weight": w, "others_weight": f} for w, f in ((0.3, 0.5), (0.3, 0.0), (0.0, 0.5))],
    ),
    "graphfilter": (
        graphfilter,
        [
            {"asymmetry": a, "exponent": s, "second": b, "content_weight": w, "neighbours": 4}
            for a, s, b, w in ((0.5, 1.0, 0.0, 0.2), (0.3, 0.7, -0.5, 0.2), (0.8, 1.0, 0.3, 0.0))
        ],
    ),
    "ials": (
        ials,
        [
            {"embedding_size": 3, "iterations": 2, "unobserved_weight": a, "reg_weight": reg, "frequency_exponent": q}
            for a, reg, q in ((0.1, 0.05, 1.0), (0.5, 0.3, 0.5))
        ],
    ),
}


def built(name: str, data: Any, seed: int = 3, **settings: Any) -> Any:
    entry = find_model(name)
    return build(entry.model, data, replace(entry.model.Config(), **settings), Streams(seed), CPU)


@pytest.mark.parametrize(("name", "settings"), [(name, settings) for name in CLOSED for settings in PLAIN[name][1]])
def test_scores_are_those_of_a_plain_form(
    name: str, settings: dict[str, Any], small: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.models.ials.BLOCK", 7)
    model, some = built(name, small, **settings), torch.tensor([3, 19, 0, 3])
    model.fit()
    expected = PLAIN[name][0](small, **settings)[some.numpy()]
    np.testing.assert_allclose(model.score(some).numpy(), expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", CLOSED)
def test_another_seed_gives_other_bits_where_the_model_says_that_it_draws(name: str, small: Data) -> None:
    either = [built(name, small, seed) for seed in (1, 2)]
    for model in either:
        model.fit()
    hashes = {state_hash(model.state_dict()) for model in either}
    assert len(hashes) == 1 + draws(name)


@pytest.mark.parametrize("name", CLOSED)
def test_a_run_is_one_epoch_stored_sound_found_again_and_elsewhere_the_same_bits(
    name: str, clustered: Dataset, tmp_path: Any
) -> None:
    trial = make_trial(name, clustered, "clustered", {}, 1, CPU)
    run, other = (run_trial(trial, tmp_path / folder) for folder in ("one", "other"))
    (epoch,), result = run.epochs(), run.outcome
    assert (epoch.epoch, epoch.loss, epoch.valid, epoch.seconds) == (1, None, result.valid, result.timing.warmup_s)
    assert (result.epochs, result.best_epoch, result.stopped, result.parameters) == (1, 1, "closed form", 0)
    assert result.valid["recall@20"] > 0.4  # by chance it is a half of that
    assert (result.state_hash, result.test) == (other.outcome.state_hash, other.outcome.test)
    assert result.state_hash != state_hash({}), "nothing was kept"
    assert verify(run.path).problems == ()
    assert run_trial(trial, tmp_path / "one").outcome.finished == result.finished
    assert (trial.epochs, run.searched) == (1, sorted(getattr(trial.entry.model.Config, "GRID", {})))


@pytest.mark.parametrize("name", CLOSED)
def test_a_run_where_nobody_has_two_training_items_is_kept(name: str, clustered: Dataset, tmp_path: Any) -> None:
    _, first = np.unique(clustered.train[:, 0], return_index=True)
    trial = make_trial(name, replace(clustered, train=clustered.train[first]), "clustered", {}, 1, CPU)
    run = run_trial(replace(trial, keep=(None, None)), tmp_path)
    assert (run.state, verify(run.path).problems) == ("finished", ())


@pytest.mark.parametrize("name", ["ease", "ials"])
def test_a_run_that_was_cut_off_begins_anew_and_is_replayed_to_the_same_bits(name: str, tmp_path: Any) -> None:
    def cut_off(record: Any) -> None:
        raise KeyboardInterrupt

    trial = make_trial(name, load_dataset("mini"), "mini", {"iterations": 2} if name == "ials" else {}, 1, CPU)
    with pytest.raises(KeyboardInterrupt):
        run_trial(trial, tmp_path / "first", cut_off)
    assert RunRecord.read(tmp_path / "first" / trial.key).state == "unfinished"
    run = run_trial(trial, tmp_path / "first")
    assert len(run.epochs()) == 1
    again = run_trial(trial_of(run, None), tmp_path / "second")
    assert difference(run, again).verdict == "same"


@pytest.mark.parametrize("name", ["ease", "easecontent"])
def test_dense_weights_lie_by_rows_of_which_scores_take_sums(name: str, small: Data) -> None:
    model = built(name, small)
    model.fit()
    assert model.B.is_contiguous()


@pytest.mark.parametrize("name", ["ease", "easecontent"])
def test_a_catalogue_for_which_there_is_no_room_is_refused_in_one_line(
    name: str, clustered: Dataset, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = type("Memory", (), {"available": 10_000, "total": 10_000})
    monkeypatch.setattr(closed_form.psutil, "virtual_memory", lambda: memory)
    trial = make_trial(name, clustered, "clustered", {}, 1, CPU)
    with pytest.raises(
        OutOfMemoryError, match=r"20 bytes for each pair of 40 items are 0.0 GB, 0.0 GB are free"
    ) as told:
        run_trial(trial, tmp_path)
    assert "\n" not in str(told.value)
    assert RunRecord.read(tmp_path / trial.key).out_of_memory


@pytest.mark.parametrize("name", CLOSED)
def test_there_are_no_steps_to_look_at(name: str, clustered: Dataset) -> None:
    with pytest.raises(ConfigError, match=f"{name} is fitted at once and has no training steps"):
        TrainingSteps(built(name, clustered), clustered, TrainingConfig(), Streams(3), CPU)


@pytest.mark.parametrize("name", ["easecontent", "graphfilter"])
def test_content_is_asked_for_where_it_has_a_weight(name: str, small: Data) -> None:
    bare = Data(N_USERS, N_ITEMS, small.train)
    built(name, bare, content_weight=0.0).fit()
    with pytest.raises(DataError, match="no item features"):
        built(name, bare, content_weight=0.1).fit()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("itemknn", {"neighbours": 0}),
        ("rp3beta", {"beta": -1.0}),
        ("ease", {"reg_weight": 0.0}),
        ("easecontent", {"neighbours": 1}),
        ("graphfilter", {"asymmetry": 1.5}),
        ("graphfilter", {"second": float("nan")}),
        ("ials", {"iterations": 0}),
    ],
)
def test_impossible_settings_are_refused(name: str, settings: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        find_model(name).model.Config(**settings)


def test_the_suite_of_opponents_searches_each_models_own_grid() -> None:
    suite = load_suite("opponents")
    assert sorted(experiment.model for experiment in suite.experiments) == CLOSED
    for experiment in suite.experiments:
        own = getattr(find_model(experiment.model).model.Config, "GRID", {})
        assert {key: tuple(values) for key, values in experiment.grid.items()} == own
