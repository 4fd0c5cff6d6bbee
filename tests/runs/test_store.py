"""What a stored run keeps of its ranking, and what reading it back refuses."""

from pathlib import Path

import numpy as np
import pytest
import run_files
import torch

from bm3 import DataError
from harness.data.dataset import Dataset
from harness.evaluation.metrics import Ranking
from harness.evaluation.ranking import Evaluator
from harness.runs.record import HITS, RunRecord
from harness.runs.store import RunWriter


def ranking(dataset: Dataset, k: int) -> Ranking:
    scores = torch.rand(dataset.n_users, dataset.n_items, generator=torch.Generator().manual_seed(5))
    return Evaluator(dataset, "test").rank(lambda users: scores[users].clone(), k, device=torch.device("cpu"))


def stored(path: Path, ranked: Ranking, *, top_k: int = 20, n_items: int = 40) -> RunRecord:
    """A run that asked for lists of `top_k` among so many items and stored these."""
    writer = RunWriter(path)
    data = {**run_files.DATA, "items": n_items}
    writer.begin({**run_files.DESCRIPTION, "dataset": data, "training": {"epochs": 1, "evaluation": {"top_k": top_k}}})
    writer.hits(ranked)
    writer.finish({**run_files.RESULT, "test": ranked.metrics([5, 10, 20])})
    return RunRecord.read(path)


@pytest.mark.parametrize(("k", "earlier"), [(8, False), (20, False), (23, False), (20, True)])
def test_every_metric_of_every_user_comes_back(tmp_path: Path, clustered: Dataset, k: int, earlier: bool) -> None:
    """Also from a file of earlier versions, which has users themselves and not the gaps between them."""
    ranked = ranking(clustered, k)
    run = stored(tmp_path, ranked, top_k=k)
    if earlier:
        with np.load(tmp_path / HITS) as new:
            kept = {name: new[name] for name in ("n_relevant", "length", "hits")}
        np.savez(tmp_path / HITS, allow_pickle=False, users=ranked.users, **kept)
    for metric in ("recall@5", f"ndcg@{k}", "map@8", "precision@8"):
        found = run.per_user(metric)
        assert found is not None
        users, values = found
        np.testing.assert_array_equal(users, ranked.users)
        assert values.mean() == pytest.approx(ranked.metrics([int(metric.partition("@")[2])])[metric], rel=1e-12)
        assert len(np.unique(values)) > 1


def test_metrics_per_user_are_known_as_far_as_hits_were_stored(tmp_path: Path, clustered: Dataset) -> None:
    run = stored(tmp_path, ranking(clustered, 20))
    assert (run.per_user("recall@30"), run.value("recall@30")) == (None, None)
    (tmp_path / HITS).unlink()
    assert run.per_user("recall@20") is None


@pytest.mark.parametrize("metric", ["recall@20", "recall@10"])
def test_lists_that_end_before_what_is_asked_for_are_refused(tmp_path: Path, clustered: Dataset, metric: str) -> None:
    run = stored(tmp_path, ranking(clustered, 19))
    with pytest.raises(DataError, match=r"hits\.npz: its lists end at rank 19, before rank 20"):
        run.per_user(metric)


@pytest.mark.parametrize("top_k", [41, 50, 100_000])
def test_ranks_past_the_last_item_are_misses(tmp_path: Path, clustered: Dataset, top_k: int) -> None:
    ranked = ranking(clustered, top_k)
    run = stored(tmp_path, ranked, top_k=top_k)
    for metric in ("recall@20", f"recall@{top_k}", f"ndcg@{top_k}", f"precision@{top_k}", f"map@{top_k}"):
        found = run.per_user(metric)
        assert found is not None
        assert found[1].mean() == pytest.approx(ranked.metrics([20, top_k])[metric], rel=1e-12)
