"""The published split rule, for whatever interactions there are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.data import PARTS, random_user_split

counts_per_user = st.lists(st.integers(1, 45), min_size=1, max_size=12)


def interactions(counts: list[int], shuffle_seed: int = 0) -> NDArray[np.int64]:
    pairs = np.array([(user, item) for user, count in enumerate(counts) for item in range(count)])
    return np.random.default_rng(shuffle_seed).permutation(pairs)


def sizes_by_rule(n: int) -> tuple[int, int, int]:
    """(train, valid, test) of a user with n interactions, in exact integers."""
    if n < 10:
        return (n - 2, 1, 1) if n >= 3 else (1, 0, n - 1)
    held_out = n // 5
    return n - held_out, held_out // 2, held_out - held_out // 2


@given(counts=counts_per_user, seed=st.integers(0, 2**32))
def test_the_parts_partition_the_interactions(counts: list[int], seed: int) -> None:
    pairs = interactions(counts)
    parts = random_user_split(pairs, np.random.default_rng(seed))
    together = np.concatenate([parts[part] for part in PARTS])
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, pairs.tolist()))


@given(counts=counts_per_user, seed=st.integers(0, 2**32))
def test_every_users_part_sizes_follow_the_rule_exactly(counts: list[int], seed: int) -> None:
    parts = random_user_split(interactions(counts), np.random.default_rng(seed))
    sizes = [np.bincount(parts[part][:, 0], minlength=len(counts)) for part in PARTS]
    assert list(zip(*(size.tolist() for size in sizes), strict=True)) == [sizes_by_rule(count) for count in counts]


@pytest.mark.parametrize("count", [*range(1, 61), 100, 115, 995, 1005])
def test_the_rule_holds_for_every_number_of_interactions(count: int) -> None:
    parts = random_user_split(interactions([count]), np.random.default_rng(0))
    assert tuple(len(parts[part]) for part in PARTS) == sizes_by_rule(count)


def test_the_same_seed_splits_alike_and_another_one_differently() -> None:
    pairs = interactions([30] * 8)
    once, again, other = (random_user_split(pairs, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for part in PARTS:
        np.testing.assert_array_equal(once[part], again[part])
    assert {tuple(pair) for pair in once["test"].tolist()} != {tuple(pair) for pair in other["test"].tolist()}


def test_which_item_is_held_out_is_left_to_chance() -> None:
    tests = np.concatenate(
        [random_user_split(interactions([5]), np.random.default_rng(seed))["test"][:, 1] for seed in range(500)]
    )
    counts = np.bincount(tests, minlength=5)
    assert counts.min() > 60  # 100 expected of each item; 60 is more than four standard deviations below
