"""What a stored run keeps of its ranking, and what reading it back refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import run_files
import torch

from bm3 import DataError
from harness.data import Dataset
from harness.evaluation import Evaluator, Ranking
from harness.runs.store import HITS, RESULT, RunWriter, StoredRun


def ranking(dataset: Dataset, k: int) -> Ranking:
    scores = torch.rand(dataset.n_users, dataset.n_items, generator=torch.Generator().manual_seed(5))
    return Evaluator(dataset, "test").rank(lambda users: scores[users].clone(), k, device=torch.device("cpu"))


def stored(path: Path, ranked: Ranking, *, top_k: int = 20, n_items: int = 40) -> StoredRun:
    """A run that asked for lists of `top_k` among so many items and stored these."""
    writer = RunWriter(path)
    data = {**run_files.DATA, "items": n_items}
    writer.begin({**run_files.DESCRIPTION, "dataset": data, "training": {"epochs": 1, "evaluation": {"top_k": top_k}}})
    writer.hits(ranked)
    writer.finish({**run_files.RESULT, "test": ranked.metrics([5, 10, 20])})
    return StoredRun.read(path)


@pytest.mark.parametrize("k", [8, 20, 23])
def test_every_metric_of_every_user_comes_back(tmp_path: Path, clustered: Dataset, k: int) -> None:
    ranked = ranking(clustered, k)
    run = stored(tmp_path, ranked, top_k=k)
    for metric in ("recall@5", f"ndcg@{k}", "map@8", "precision@8"):
        found = run.per_user(metric)
        assert found is not None
        users, values = found
        np.testing.assert_array_equal(users, ranked.users)
        assert values.mean() == pytest.approx(ranked.metrics([int(metric.partition("@")[2])])[metric], rel=1e-12)
        assert len(np.unique(values)) > 1


def test_a_run_without_hits_has_no_metrics_per_user(tmp_path: Path, clustered: Dataset) -> None:
    run = stored(tmp_path, ranking(clustered, 20))
    (tmp_path / HITS).unlink()
    assert run.per_user("recall@20") is None


def test_lists_that_end_before_what_was_asked_for_are_refused(tmp_path: Path, clustered: Dataset) -> None:
    run = stored(tmp_path, ranking(clustered, 19))
    for metric in ("recall@10", "recall@20"):
        with pytest.raises(DataError, match=r"hits\.npz: its lists end at rank 19"):
            run.per_user(metric)


def test_a_cut_off_that_was_not_asked_for_is_refused(tmp_path: Path, clustered: Dataset) -> None:
    run = stored(tmp_path, ranking(clustered, 20))
    with pytest.raises(DataError, match=r"hits\.npz: its lists end at rank 20, before rank 30"):
        run.per_user("recall@30")


@pytest.mark.parametrize("top_k", [41, 50, 100_000])
def test_ranks_past_the_last_item_are_misses(tmp_path: Path, clustered: Dataset, top_k: int) -> None:
    ranked = ranking(clustered, top_k)
    run = stored(tmp_path, ranked, top_k=top_k)
    for metric in ("recall@20", f"recall@{top_k}", f"ndcg@{top_k}", f"precision@{top_k}", f"map@{top_k}"):
        found = run.per_user(metric)
        assert found is not None
        assert found[1].mean() == pytest.approx(ranked.metrics([20, top_k])[metric], rel=1e-12)


@pytest.mark.parametrize("damage", [b"", b"no archive", b"PK\x03\x04cut off"])
def test_damaged_hits_are_named(tmp_path: Path, clustered: Dataset, damage: bytes) -> None:
    run = stored(tmp_path, ranking(clustered, 20))
    (tmp_path / HITS).write_bytes(damage)
    with pytest.raises(DataError, match=r"hits\.npz: cannot be read"):
        run.per_user("recall@20")


def test_hits_of_another_run_are_refused(tmp_path: Path, clustered: Dataset) -> None:
    run = stored(tmp_path, ranking(clustered, 20))
    mended = {**run.outcome.written(), "test": {**run.outcome.test, "recall@5": 0.0}}
    (tmp_path / RESULT).write_text(json.dumps(mended))
    with pytest.raises(DataError, match=r"hits\.npz: is not of .*result\.json, whose recall@5 is another"):
        StoredRun.read(tmp_path).per_user("recall@5")


@pytest.mark.parametrize("name", ["users", "n_relevant"])
def test_hits_whose_users_do_not_fit_are_refused(tmp_path: Path, clustered: Dataset, name: str) -> None:
    run = stored(tmp_path, ranking(clustered, 20))
    with np.load(tmp_path / HITS) as archive:
        arrays = dict(archive)
    arrays[name] = np.zeros_like(arrays[name])  # one user over and over, or users without a relevant item
    np.savez(tmp_path / HITS, **arrays)
    with pytest.raises(DataError, match="its users do not fit its lists"):
        run.per_user("recall@20")


@pytest.mark.parametrize("name", ["run.json", "result.json"])
def test_a_file_that_lacks_what_every_run_has_is_named(tmp_path: Path, clustered: Dataset, name: str) -> None:
    stored(tmp_path, ranking(clustered, 20))
    (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match=rf"{name}: lacks .*; remove the folder"):
        StoredRun.read(tmp_path)


def test_an_epoch_that_is_no_record_is_named(tmp_path: Path, clustered: Dataset) -> None:
    run = stored(tmp_path, ranking(clustered, 20))
    (tmp_path / "epochs.jsonl").write_text(json.dumps(run_files.EPOCH) + "\n[2]\n")
    with pytest.raises(DataError, match="line 2 is no record of an epoch"):
        run.epochs()
