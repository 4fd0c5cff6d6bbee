"""Full ranking: who is evaluated, what is masked, and how ties are broken."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor

from bm3 import BM3Error, Recommender
from harness.data.dataset import Dataset
from harness.evaluation import ranking
from harness.evaluation.metrics import Ranking
from harness.evaluation.ranking import Evaluation, Evaluator, model_scorer, top_k

CPU = torch.device("cpu")


class Table(Recommender):
    """A model that is a table of scores [U, I]."""

    def __init__(self, scores: NDArray[Any]) -> None:
        super().__init__()
        self.table = torch.from_numpy(np.array(scores, np.float32))

    def score(self, users: Tensor) -> Tensor:
        return self.table[users]


class Factors(Recommender):
    """A model that is two tables of vectors."""

    def __init__(self, users: Tensor, items: Tensor) -> None:
        super().__init__()
        self.users, self.items = users, items

    def embed(self) -> tuple[Tensor, Tensor]:
        return self.users, self.items


def ranked(dataset: Dataset, scores: NDArray[Any], k: int, *, block: int = 1024, **options: bool) -> Ranking:
    return Evaluator(dataset, "test", **options).rank(model_scorer(Table(scores)), k, device=CPU, block=block)


def random_scores(dataset: Dataset, seed: int = 0, levels: int | None = None) -> NDArray[np.float32]:
    draw, shape = np.random.default_rng(seed), (dataset.n_users, dataset.n_items)
    scores = draw.normal(size=shape) if levels is None else draw.integers(levels, size=shape)
    return scores.astype(np.float32)


def items_of(pairs: NDArray[np.int32], user: int) -> set[int]:
    return set(pairs[pairs[:, 0] == user, 1].tolist())


def dataset_of(train: list[tuple[int, int]], valid: list[tuple[int, int]], test: list[tuple[int, int]]) -> Dataset:
    """Unchecked, so that parts may be as odd as the test needs."""
    parts = [np.array(sorted(pairs), np.int32) for pairs in (train, valid, test)]
    together = np.concatenate(parts)
    n_users, n_items = (int(ids.max()) + 1 for ids in together.T)
    return Dataset(n_users, n_items, parts[0], name="made", valid=parts[1], test=parts[2])


# --- masking ---


@pytest.mark.parametrize("levels", [None, 3])
def test_the_ranking_is_the_best_items_outside_training(clustered: Dataset, levels: int | None) -> None:
    scores = random_scores(clustered, levels=levels)
    ranking = ranked(clustered, scores, 8)
    for user, items, hits in zip(ranking.users.tolist(), ranking.items.tolist(), ranking.hits.tolist(), strict=True):
        seen = items_of(clustered.train, user)
        by_score = [item for item in np.argsort(-scores[user], kind="stable").tolist() if item not in seen]
        assert items == by_score[:8]
        assert hits == [item in items_of(clustered.test, user) for item in items]


def test_validation_items_stay_in_the_test_ranking_unless_masking_them_is_asked_for(clustered: Dataset) -> None:
    scores = random_scores(clustered)
    scores[tuple(clustered.valid.T)] += 1000
    kept, masked = ranked(clustered, scores, 8), ranked(clustered, scores, 8, mask_validation=True)
    for row, user in enumerate(kept.users.tolist()):
        validation = items_of(clustered.valid, user)
        assert set(kept.items[row, : min(8, len(validation))].tolist()) <= validation
        assert not validation & set(masked.items[row].tolist())
    model = Table(scores)
    plain, hidden = (Evaluation(clustered, mask_validation=mask)(model, "test", CPU) for mask in (False, True))
    assert hidden["recall@5"] > plain["recall@5"]


def test_validation_is_evaluated_alike_whether_or_not_it_is_masked_for_the_test(clustered: Dataset) -> None:
    model = Table(random_scores(clustered))
    plain, hidden = (Evaluation(clustered, mask_validation=mask)(model, "valid", CPU) for mask in (False, True))
    assert plain == hidden
    assert plain["recall@20"] > 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("block_users", [1, 7, 59, 10_000])
def test_the_block_of_users_changes_nothing_but_the_memory(
    clustered: Dataset, block_users: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, sizes, top = torch.from_numpy(random_scores(clustered, levels=4)).float(), list[int](), Evaluator.top

    def noted(self: Evaluator, score: Any, users: NDArray[np.int64], *rest: Any) -> Any:
        sizes.append(len(users))
        return top(self, score, users, *rest)

    for model in (Table(scores.numpy()), Factors(scores, torch.eye(clustered.n_items))):
        whole = Evaluation(clustered).ranking(model, "test", CPU)
        monkeypatch.setattr(Evaluator, "top", noted)
        parts = Evaluation(clustered, block_users=block_users).ranking(model, "test", CPU)
        monkeypatch.undo()
        np.testing.assert_array_equal(parts.items, whole.items)
        np.testing.assert_array_equal(parts.hits, whole.hits)
        assert max(sizes) == min(block_users, len(whole.users))


@pytest.mark.parametrize(("top_k", "cutoffs"), [(20, [5, 10, 20]), (23, [5, 10, 20, 23]), (60, [5, 10, 20, 50, 60])])
def test_metrics_are_at_the_usual_cut_offs_and_at_the_lists_length(
    clustered: Dataset, top_k: int, cutoffs: list[int]
) -> None:
    evaluation, model = Evaluation(clustered, top_k=top_k), Table(random_scores(clustered))
    found, usual = evaluation(model, "test", CPU), Evaluation(clustered)(model, "test", CPU)
    assert [key for key in found if key.startswith("recall")] == [f"recall@{k}" for k in cutoffs]
    assert {key: found[key] for key in usual if key in found} == {key: usual[key] for key in usual if key in found}


def test_masking_leaves_the_models_own_table_alone(clustered: Dataset) -> None:
    model = Table(random_scores(clustered))
    before = model.table.clone()
    Evaluation(clustered)(model, "test", CPU)
    assert torch.equal(model.table, before)


# --- who is evaluated ---


def test_where_nobody_is_left_there_is_no_ranking() -> None:
    with pytest.raises(BM3Error, match="nobody to rank items for"):
        ranked(dataset_of([(0, 0)], [(0, 1)], [(1, 0)]), np.zeros((2, 2)), 1)


def test_users_without_training_or_without_held_out_items_are_left_out() -> None:
    dataset = dataset_of(
        train=[(0, 0), (1, 1), (3, 2), (4, 3)],
        valid=[(0, 1), (1, 2), (4, 0)],
        test=[(0, 2), (2, 1), (3, 0), (3, 1)],  # user 2 has no training; users 1 and 4 nothing here
    )
    ranking = ranked(dataset, np.zeros((5, 4)), 4)
    np.testing.assert_array_equal(ranking.users, [0, 3])
    np.testing.assert_array_equal(ranking.n_relevant, [1, 2])
    np.testing.assert_array_equal(Evaluator(dataset, "valid").users, [0, 1, 4])
    # User 0 ranks 1, 2, 3: a hit at rank 2. User 3 ranks 0, 1, 3: hits at ranks 1 and 2. Nobody else counts.
    assert ranking.metrics((1, 2)) == pytest.approx(
        {
            "recall@1": 0.25,
            "recall@2": 1.0,
            "precision@1": 0.5,
            "precision@2": 0.75,
            "ndcg@1": 0.5,
            "ndcg@2": (1 / np.log2(3) + 1) / 2,
            "map@1": 0.5,
            "map@2": 0.75,
        }
    )


# --- blocks and sizes ---


def test_more_ranks_than_items_find_everything_and_masked_items_are_no_hits(clustered: Dataset) -> None:
    ranking = ranked(clustered, random_scores(clustered), clustered.n_items + 60)
    assert ranking.items.shape == (len(ranking.users), clustered.n_items)
    np.testing.assert_array_equal(ranking.hits.sum(axis=1), ranking.n_relevant)
    metrics = ranking.metrics((clustered.n_items, clustered.n_items + 60))
    assert metrics[f"recall@{clustered.n_items + 60}"] == 1


def test_a_masked_item_is_no_hit_even_when_ranks_reach_it() -> None:
    dataset = dataset_of(train=[(0, 0), (0, 1)], valid=[(0, 2)], test=[(0, 1), (0, 3)])  # item 1: seen and held out
    ranking = ranked(dataset, np.zeros((1, 4)), 4)
    np.testing.assert_array_equal(ranking.hits, [[False, True, False, False]])
    np.testing.assert_array_equal(ranking.items, [[2, 3, -1, -1]])


def test_a_user_to_whom_nothing_is_left_has_an_empty_list() -> None:
    dataset = dataset_of(train=[(0, 0), (0, 1), (0, 2), (1, 0)], valid=[(1, 2)], test=[(1, 1)])
    items, _ = Evaluator(dataset, "test").top(model_scorer(Table(np.ones((2, 3)))), np.arange(2), 2, CPU)
    np.testing.assert_array_equal(items, [[-1, -1], [1, 2]])


# --- models ---


@pytest.mark.parametrize(
    ("bad", "everywhere"), [(np.nan, True), (np.nan, False), (np.inf, True), (np.inf, False), (-np.inf, True)]
)
def test_scores_that_are_not_finite_are_an_error(clustered: Dataset, bad: float, everywhere: bool) -> None:
    scores = random_scores(clustered)
    user, item = clustered.test[3]
    scores[user, item] = bad
    if everywhere:
        scores[:] = bad
    with pytest.raises(BM3Error, match="not finite"):
        Evaluation(clustered)(Table(scores), "test", CPU)


def test_vectors_that_are_not_finite_are_an_error(clustered: Dataset) -> None:
    users, items = torch.ones(clustered.n_users, 2), torch.ones(clustered.n_items, 2)
    items[5, 1] = torch.nan
    with pytest.raises(BM3Error, match="vectors are not finite"):
        Evaluation(clustered)(Factors(users, items), "test", CPU)


def test_a_model_may_give_scores_or_vectors(clustered: Dataset) -> None:
    generator = torch.Generator().manual_seed(3)
    users = torch.randint(-4, 5, (clustered.n_users, 3), generator=generator).float()  # exact in any order of summing
    items = torch.randint(-4, 5, (clustered.n_items, 3), generator=generator).float()
    for part in ("valid", "test"):
        by_vectors = Evaluation(clustered)(Factors(users, items), part, CPU)
        by_scores = Evaluation(clustered)(Table((users @ items.T).numpy()), part, CPU)
        assert by_vectors == by_scores
        assert len(by_vectors) == 16


@pytest.mark.gpu
def test_ties_are_broken_alike_on_a_gpu(clustered: Dataset) -> None:
    scores = random_scores(clustered, levels=3)
    on_cpu = ranked(clustered, scores, 20)
    table = torch.from_numpy(scores).cuda()
    on_gpu = Evaluator(clustered, "test").rank(lambda users: table[users], 20, device=torch.device("cuda"))
    np.testing.assert_array_equal(on_gpu.items, on_cpu.items)


# --- the two ways to find the top K ---


def assert_sorted_top(scores: Tensor, k: int) -> None:
    """Of a stable sort, on a CPU and by what GPUs use."""
    whole = scores.sort(dim=1, descending=True, stable=True)
    expected = whole.values[:, :k], whole.indices[:, :k]
    with pytest.MonkeyPatch.context() as patch:
        found = [top_k(scores, k)]
        patch.setattr(ranking, "_in_lanes", lambda scores: False)
        found.append(top_k(scores, k))
    for one in found:
        for of, wanted in zip(one, expected, strict=True):
            np.testing.assert_array_equal(of.numpy(), wanted.numpy())


@given(
    scores=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=300),
        elements=st.floats(-4, 4, width=16) | st.sampled_from([-np.inf, 0.0]),
    ),
    k=st.integers(1, 60),
)
def test_both_find_the_same_top_k(scores: NDArray[np.float32], k: int) -> None:
    assert_sorted_top(torch.from_numpy(scores), k)


@pytest.mark.parametrize("k", [1, 50, 300])
@pytest.mark.parametrize("levels", [0, 1, 2, 40, 1000])
@pytest.mark.parametrize("n_items", [255, 256, 257, 1500, 3000])
def test_ties_are_broken_by_item_id(n_items: int, levels: int, k: int) -> None:
    """Scores of some levels, 0 for all different ones; whole rows tie, some below the K-th place, some across it."""
    scores = torch.randn(7, n_items, generator=torch.Generator().manual_seed(n_items + levels), dtype=torch.float64)
    scores = (scores * levels / 4).round() if levels else scores
    scores[3, 5:] = -torch.inf
    scores[4, 5:] = 0.0
    assert_sorted_top(scores, k)


def test_ties_are_not_sorted_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows whose scores are nearly all equal: no more candidates than twice K are sorted."""
    scores, sorted_, sort = torch.zeros(9, 5000), [], Tensor.sort
    scores[:, ::100] = 1.0
    monkeypatch.setattr(Tensor, "sort", lambda x, **how: (sorted_.append(x.shape[1]), sort(x, **how))[1])
    _, items = top_k(scores, 60)
    assert items[8].tolist() == [*range(0, 5000, 100), *range(1, 11)]
    assert max(sorted_) <= 120


def test_scores_of_few_bits_are_ranked_too() -> None:
    values, items = top_k(torch.tensor([[1, 3, 3, 2]], dtype=torch.bfloat16), 2)
    assert (values.tolist(), items.tolist()) == ([[3, 3]], [[1, 2]])


@pytest.mark.parametrize("n_items", [200, 2000])
@pytest.mark.parametrize("in_lanes", [True, False])
def test_nan_comes_first_in_both(n_items: int, in_lanes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "_in_lanes", lambda scores: in_lanes)
    scores = torch.randn(4, n_items)
    scores[1, 7] = torch.nan
    scores[3] = torch.nan
    values, _ = top_k(scores, 20)
    assert values[:, 0].isnan().tolist() == [False, True, False, True]
