"""An epoch holds every interaction once, with uniform negatives the user has not seen."""

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from bm3 import DataError
from harness.training import batches as batches_module
from harness.training.batches import EpochBatches, NegativeSampler
from harness.training.streams import Streams

TRAIN = np.array([(user, (user + step) % 20) for user in range(20) for step in range(4)], np.int32)


def sampled(seen: dict[int, set[int]], n_items: int, users: list[int], seed: int = 0) -> NDArray[np.int64]:
    train = np.array([(user, item) for user, items in seen.items() for item in sorted(items)], np.int32)
    return NegativeSampler(train, n_items).draw(np.array(users, np.int64), np.random.default_rng(seed))


def batches(
    train: NDArray[np.int32], n_items: int, size: int, *, negatives: bool = True, seed: int = 1
) -> EpochBatches:
    given: Any = {"batch_size": size, "streams": Streams(seed), "device": torch.device("cpu")}
    return EpochBatches(train, n_items, uses_negatives=negatives, **given)


@given(
    seen=st.dictionaries(st.integers(0, 6), st.sets(st.integers(0, 9), min_size=1, max_size=7), min_size=2),
    seed=st.integers(0, 2**32),
)
def test_negatives_are_unseen_items_of_the_training_part(seen: dict[int, set[int]], seed: int) -> None:
    in_training = set().union(*seen.values())
    seen = {user: items for user, items in seen.items() if items != in_training}
    if not seen or max(len(items) for items in seen.values()) >= len(set().union(*seen.values())):
        return
    in_training = set().union(*seen.values())
    users = [user for user in seen for _ in range(20)]
    for user, negative in zip(users, sampled(seen, 10, users, seed).tolist(), strict=True):
        assert negative in in_training - seen[user]


@pytest.mark.parametrize("n_items", [50, 3000])  # ids of pairs that share a remainder, and few that do
def test_who_has_seen_what_is_exact_for_every_pair(n_items: int) -> None:
    draw = np.random.default_rng(1)
    train = np.unique(np.stack([draw.integers(40, size=400), draw.integers(n_items, size=400)], axis=1), axis=0)
    users, items = (ids.ravel() for ids in np.meshgrid(np.arange(40), np.arange(n_items), indexing="ij"))
    seen = NegativeSampler(train.astype(np.int32), n_items)._is_seen(users, items)
    assert set(zip(users[seen].tolist(), items[seen].tolist(), strict=True)) == set(map(tuple, train.tolist()))


def test_items_outside_training_are_never_drawn() -> None:
    negatives = sampled({0: {0, 2}, 1: {2, 4, 6}}, n_items=50, users=[0] * 500 + [1] * 500)
    assert set(negatives[:500].tolist()) == {4, 6}
    assert set(negatives[500:].tolist()) == {0}


def test_negatives_are_uniform_over_the_allowed_items() -> None:
    """However many users have an item, or how many a user has."""
    seen = {0: set(range(0, 12)), 1: set(range(6, 20)), 2: {3}} | {user: {3, 13} for user in range(3, 200)}
    negatives = sampled(seen, 25, [0] * 20_000 + [1] * 20_000, seed=4)
    for user, drawn in ((0, negatives[:20_000]), (1, negatives[20_000:])):
        allowed = sorted(set(range(20)) - seen[user])
        counts = np.bincount(drawn, minlength=25)[allowed]
        assert counts.sum() == 20_000
        assert stats.chisquare(counts).pvalue > 1e-3


def test_a_user_with_all_items_but_one_gets_that_one() -> None:
    everything = set(range(3000))
    negatives = sampled({0: everything - {1234}, 1: everything - {77}}, 3000, [0, 1, 0, 1, 1])
    assert negatives.tolist() == [1234, 77, 1234, 77, 77]


def test_a_user_with_every_training_item_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"user number 1 \(from 0\) has interacted with every training item") as caught:
        sampled({0: {0, 1}, 1: {0, 1, 2}}, n_items=9, users=[0])
    assert "\n" not in str(caught.value)
    assert "remove that user" in str(caught.value)


def test_a_user_with_every_item_is_no_trouble_for_a_model_without_negatives() -> None:
    train = np.array([(0, 0), (0, 1), (1, 0)], np.int32)
    with pytest.raises(DataError):
        batches(train, 2, 2)
    (first, second) = batches(train, 2, 2, negatives=False).epoch(1)
    assert first.negatives is None
    assert second.negatives is None


@given(n=st.integers(1, 60), size=st.integers(1, 70), epoch=st.integers(1, 5))
def test_every_interaction_comes_once_per_epoch_and_only_the_last_batch_is_short(n: int, size: int, epoch: int) -> None:
    train = np.array([(i % 7, i) for i in range(n)] + [(7, n)], np.int32)
    prepared = batches(train, n + 1, size)
    parts = list(prepared.epoch(epoch))
    assert len(parts) == len(prepared) == -(-len(train) // size)
    assert [len(batch.users) for batch in parts[:-1]] == [size] * (len(parts) - 1)
    assert len(parts[-1].users) == len(train) - size * (len(parts) - 1)
    pairs = [pair for batch in parts for pair in zip(batch.users.tolist(), batch.items.tolist(), strict=True)]
    assert sorted(pairs) == sorted(map(tuple, train.tolist()))
    assert all(batch.negatives is not None and len(batch.negatives) == len(batch.users) for batch in parts)


def epoch_tensor(prepared: EpochBatches, number: int) -> torch.Tensor:
    return torch.cat([torch.stack([part for part in batch if part is not None]) for batch in prepared.epoch(number)], 1)


def test_epochs_differ_in_order_and_negatives_and_each_can_be_made_alone() -> None:
    run = batches(TRAIN, 20, 16)
    first, second, third = (epoch_tensor(run, number) for number in (1, 2, 3))
    assert not torch.equal(first[:2], second[:2])
    by_pair = [{tuple(column[:2]): column[2] for column in epoch.T.tolist()} for epoch in (first, second)]
    assert by_pair[0].keys() == by_pair[1].keys()
    assert by_pair[0] != by_pair[1]
    assert torch.equal(epoch_tensor(batches(TRAIN, 20, 16), 3), third)
    assert not torch.equal(epoch_tensor(batches(TRAIN, 20, 16, seed=2), 3), third)


def test_the_order_does_not_depend_on_whether_negatives_are_drawn() -> None:
    with_negatives, without = (epoch_tensor(batches(TRAIN, 20, 16, negatives=both), 2) for both in (True, False))
    assert torch.equal(with_negatives[:2], without)


@pytest.mark.parametrize("negatives", [True, False])
def test_drawing_negatives_is_timed_apart(negatives: bool) -> None:
    train = np.array([(user, item) for user in range(50) for item in range(user % 7, 40, 3)], np.int32)
    epoch, began = batches(train, 40, 16, negatives=negatives), time.perf_counter()
    list(epoch.epoch(1))
    assert epoch.sampling_seconds < time.perf_counter() - began
    assert (epoch.sampling_seconds > 0) == negatives


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (8, 1)])
def test_the_next_epoch_is_drawn_beside_this_one_where_a_core_is_free(
    cores: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "usable_cores", lambda limits: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    plain, ahead = batches(TRAIN, 20, 16), batches(TRAIN, 20, 16)
    expected = [epoch_tensor(plain, number) for number in (1, 2, 3)]
    drew, draw = list[int](), NegativeSampler.draw

    def drawn(*arguments: Any) -> NDArray[np.int64]:
        drew.append(threading.get_ident())
        return draw(*arguments)

    monkeypatch.setattr(NegativeSampler, "draw", drawn)
    for number, then in ((1, 2), (2, 3), (3, None)):
        found = torch.cat([torch.stack([*batch]) for batch in ahead.epoch(number, then)], dim=1)
        assert torch.equal(found, expected[number - 1])
        assert ahead.sampling_seconds > 0
    assert batches_module._core_to_spare(torch.device("cuda")) == (cores > 1)
    here = threading.get_ident()
    assert [one == here for one in drew] == [True, cores <= threads, cores <= threads]
    list(ahead.epoch(1, 2))
    for number in (3, 2):  # another one is asked for first
        assert torch.equal(epoch_tensor(ahead, number), expected[number - 1])


def test_nobody_waits_for_the_next_epoch_while_this_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "usable_cores", lambda limits: 99)
    some = batches(np.array([(user, user) for user in range(20)], np.int32), 20, 16)
    draw, used, waited = NegativeSampler.draw, threading.Event(), list[bool]()

    def drawn(*arguments: Any) -> NDArray[np.int64]:
        waited.append(threading.current_thread() is threading.main_thread() or used.wait(10))
        return draw(*arguments)

    monkeypatch.setattr(NegativeSampler, "draw", drawn)
    for _ in some.epoch(1, 2):
        used.set()
    list(some.epoch(2))
    assert waited == [True, True]
