"""Metrics agree with an independent library, and MAP with its definition written as a loop."""

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.evaluation import per_user_metrics
from harness.evaluation.metrics import averages

CUTOFFS = (1, 5, 10, 20, 50)
N_ITEMS = 60


def random_rankings(seed: int, n_users: int = 40) -> tuple[NDArray[np.int64], list[set[int]]]:
    """A complete ranking of the items per user, and the user's relevant items (from one to nearly all)."""
    draw = np.random.default_rng(seed)
    rankings = np.stack([draw.permutation(N_ITEMS) for _ in range(n_users)])
    relevant = [set(draw.choice(N_ITEMS, size=draw.integers(1, N_ITEMS - 2), replace=False).tolist()) for _ in rankings]
    return rankings, relevant


def ours(
    rankings: NDArray[np.int64], relevant: list[set[int]], cutoffs: tuple[int, ...] = CUTOFFS
) -> dict[str, NDArray[np.float64]]:
    hits = np.array([[item in own for item in row] for row, own in zip(rankings.tolist(), relevant, strict=True)])
    return per_user_metrics(hits, np.array([len(own) for own in relevant]), cutoffs)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "measure"), [("recall", ir_measures.R), ("ndcg", ir_measures.nDCG), ("precision", ir_measures.P)]
)
def test_they_agree_with_ir_measures(seed: int, name: str, measure: object) -> None:
    rankings, relevant = random_rankings(seed)
    qrels = {str(user): {str(item): 1 for item in own} for user, own in enumerate(relevant)}
    run = {
        str(user): {str(item): float(N_ITEMS - rank) for rank, item in enumerate(row)}
        for user, row in enumerate(rankings.tolist())
    }
    mine = ours(rankings, relevant)
    for k in CUTOFFS:
        theirs = {int(m.query_id): m.value for m in ir_measures.iter_calc([measure @ k], qrels, run)}  # type: ignore[operator]
        expected = [theirs[user] for user in range(len(rankings))]
        np.testing.assert_allclose(mine[f"{name}@{k}"], expected, rtol=0, atol=1e-12)
        assert averages(mine)[f"{name}@{k}"] == pytest.approx(np.mean(expected), abs=1e-12)


@given(seed=st.integers(0, 2**32), k=st.integers(1, N_ITEMS))
def test_map_is_the_sum_of_precisions_at_hits_over_the_hits_there_could_be(seed: int, k: int) -> None:
    rankings, relevant = random_rankings(seed, n_users=5)
    expected = []
    for row, own in zip(rankings.tolist(), relevant, strict=True):
        found, total = 0, 0.0
        for rank, item in enumerate(row[:k], start=1):
            if item in own:
                found += 1
                total += found / rank
        expected.append(total / min(len(own), k))
    np.testing.assert_allclose(ours(rankings, relevant, (k,))[f"map@{k}"], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["recall", "ndcg", "map"])
def test_a_perfect_ranking_scores_one_and_a_useless_one_zero(name: str) -> None:
    relevant = [{0, 1, 2}]
    best, worst = np.arange(N_ITEMS)[None], np.arange(N_ITEMS)[None, ::-1]
    assert ours(best, relevant, (3, 20))[f"{name}@20"][0] == pytest.approx(1)
    assert ours(best, relevant, (3, 20))[f"{name}@3"][0] == pytest.approx(1)
    assert ours(worst, relevant, (3, 20))[f"{name}@20"][0] == 0


def test_ranks_beyond_the_items_count_as_misses() -> None:
    short = per_user_metrics(np.array([[True, False, True]]), np.array([2]), (3, 10))
    assert short["recall@10"][0] == 1
    assert short["precision@10"][0] == pytest.approx(0.2)
    assert short["ndcg@10"][0] == pytest.approx((1 + 0.5) / (1 + 1 / np.log2(3)))
    assert short["map@10"][0] == pytest.approx((1 + 2 / 3) / 2)
