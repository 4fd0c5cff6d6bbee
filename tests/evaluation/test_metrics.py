"""Metrics agree with an independent library, and with their definitions written as loops over users and items."""

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import ir_measures
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import harness.evaluation.metrics as module
from bm3 import ConfigError, DataError
from harness.data.dataset import Dataset
from harness.evaluation.metrics import METRICS, Ranking, asked_metrics, known_metrics, metrics_of_hits
from harness.evaluation.ranking import Evaluator

CUTOFFS = (1, 5, 10, 20, 50)
N_ITEMS = 60


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "measure"), [("recall", ir_measures.R), ("ndcg", ir_measures.nDCG), ("precision", ir_measures.P)]
)
def test_they_agree_with_ir_measures(seed: int, name: str, measure: object) -> None:
    draw = np.random.default_rng(seed)
    rankings = np.stack([draw.permutation(N_ITEMS) for _ in range(40)])
    relevant = [set(draw.choice(N_ITEMS, draw.integers(1, N_ITEMS - 2), replace=False).tolist()) for _ in rankings]
    qrels = {str(user): {str(item): 1 for item in own} for user, own in enumerate(relevant)}
    run = {
        str(user): {str(item): float(N_ITEMS - rank) for rank, item in enumerate(row)}
        for user, row in enumerate(rankings.tolist())
    }
    hits = np.array([[item in own for item in row] for row, own in zip(rankings.tolist(), relevant, strict=True)])
    ranking = Ranking(np.arange(len(hits)), hits, np.array([*map(len, relevant)]))
    for k in CUTOFFS:
        theirs = {int(m.query_id): m.value for m in ir_measures.iter_calc([measure @ k], qrels, run)}  # type: ignore[operator]
        expected = [theirs[user] for user in range(len(rankings))]
        np.testing.assert_allclose(known_metrics()[name](ranking, k), expected, rtol=0, atol=1e-12)


# --- by brute force on a 20 x 15 matrix ---


def by_loops(dataset: Dataset, scores: NDArray[np.float32], k: int) -> dict[str, float]:
    """Every metric at K as its definition says it, from scores and parts alone, with sets and loops."""
    train, test = ({user: set() for user in range(20)} for _ in range(2))  # type: dict[int, set[int]]
    for part, pairs in ((train, dataset.train), (test, dataset.test)):
        for user, item in pairs.tolist():
            part[user].add(item)
    popular = [sum(item in own for own in train.values()) for item in range(15)]
    values: dict[str, list[float]] = {name: [] for name in known_metrics() if name != "coverage"}
    shown = set()
    for user in range(20):
        if not train[user] or not test[user]:
            continue
        left = [item for item in range(15) if item not in train[user]]
        top = sorted(left, key=lambda item: (-scores[user, item], item))[:k]
        ranks = [rank for rank, item in enumerate(top, start=1) if item in test[user]]
        best = min(k, len(test[user]))
        values["recall"].append(len(ranks) / len(test[user]))
        values["precision"].append(len(ranks) / k)
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, best + 1))
        values["ndcg"].append(sum(1 / math.log2(rank + 1) for rank in ranks) / ideal)
        values["map"].append(sum(found / rank for found, rank in enumerate(ranks, start=1)) / best)
        values["hit"].append(float(bool(ranks)))
        values["mrr"].append(1 / ranks[0] if ranks else 0.0)
        values["novelty"].append(sum(-math.log2(max(popular[item], 1) / 20) for item in top) / len(top))
        values["popularity"].append(sum(popular[item] for item in top) / len(top))
        shown |= set(top)
    return {**{name: sum(of) / len(of) for name, of in values.items()}, "coverage": len(shown) / 15}


@pytest.mark.parametrize("k", [1, 3, 7, 15, 40])
@pytest.mark.parametrize("seed", range(4))
def test_every_metric_is_its_definition(seed: int, k: int) -> None:
    draw = np.random.default_rng(seed)
    pairs = draw.permutation([(user, item) for user in range(20) for item in range(15)])[: 300 - 70 * seed]
    part = draw.choice(3, size=len(pairs), p=[0.7, 0.1, 0.2])
    train, valid, test = (pairs[part == place].astype(np.int32) for place in range(3))
    dataset = Dataset(20, 15, train, name="made", valid=valid, test=test)
    scores = draw.integers(6, size=(20, 15)).astype(np.float32)  # with ties
    evaluator = Evaluator(dataset, "test")
    ranks = k + seed  # lists may go on after K
    ranking = evaluator.rank(lambda users: torch.from_numpy(scores)[users], ranks, device=torch.device("cpu"))
    found, expected = ranking.metrics([k], known_metrics()), by_loops(dataset, scores, k)
    assert found == pytest.approx({f"{name}@{k}": value for name, value in expected.items()}, rel=1e-12)


@pytest.mark.filterwarnings("error")
def test_an_empty_list_has_nothing_of_anything() -> None:
    empty = Ranking(np.arange(1), np.zeros((1, 2), bool), np.ones(1, int), np.full((1, 2), -1), np.arange(3), 3)
    assert set(empty.metrics([1, 2], known_metrics()).values()) == {0.0}


def test_what_needs_items_says_so_of_hits_alone() -> None:
    assert metrics_of_hits() == (*METRICS, "hit", "mrr")
    with pytest.raises(DataError, match="needs the items"):
        Ranking(np.arange(1), np.ones((1, 2), bool), np.array([1])).metrics([2], ["novelty"])


# --- of other packages ---


def first_hit(ranking: Ranking, k: int) -> NDArray[np.float64]:
    """1 where the first item is a hit."""
    return ranking.hits[:, 0].astype(np.float64)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Any], None]]:
    """Installs a metric under a name, for the length of a test."""

    def install(name: str, metric: Any) -> None:
        point = SimpleNamespace(name=name, value="package:metric", load=lambda: metric)
        monkeypatch.setattr(module, "entry_points", lambda group: [point] if group == "bm3.metrics" else [])
        module.known_metrics.cache_clear()
        module.metrics_of_hits.cache_clear()

    yield install
    module.known_metrics.cache_clear()
    module.metrics_of_hits.cache_clear()


def test_a_metric_of_another_package_is_one_like_the_others(installed: Callable[[str, Any], None]) -> None:
    installed("first", first_hit)
    assert Ranking(np.arange(2), np.eye(2, dtype=bool), np.ones(2, int)).metrics([1], ["first"]) == {"first@1": 0.5}
    assert metrics_of_hits()[-1] == "first"


@pytest.mark.parametrize(
    ("name", "metric", "says"),
    [
        ("recall", first_hit, "name of its own"),
        ("first@1", first_hit, "name of its own"),
        ("first", lambda ranking, k: ranking.nothing, "fails .AttributeError"),
        ("first", lambda ranking, k: ranking.hits, "gives an array"),
    ],
)
def test_one_that_cannot_serve_is_refused_in_one_line(
    name: str, metric: Any, says: str, installed: Callable[[str, Any], None]
) -> None:
    installed(name, metric)
    with pytest.raises(ConfigError, match=f"metric '{name}' .package:metric.*{says}"):
        known_metrics()


# --- asked for by name ---


@pytest.mark.parametrize(
    ("asked", "found"),
    [("mrr", ["mrr@5", "mrr@10"]), ("MRR@5, N@10", ["mrr@5", "ndcg@10"]), ("all", ["ndcg@10", "mrr@5", "mrr@10"])],
)
def test_a_list_of_names_finds_them_with_or_without_cutoff(asked: str, found: list[str]) -> None:
    assert asked_metrics(asked, ["ndcg@10", "mrr@5", "mrr@10"]) == found


def test_a_name_that_is_none_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no metric here 'mrr@20'; nearest: mrr@10"):
        asked_metrics("mrr@20", ["ndcg@10", "mrr@10"])
