"""The split rules that go by time, for whatever interactions there are; the published rule is in test_split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bm3 import ConfigError
from harness.data import PARTS, random_user_split
from harness.data.split import (
    RULES,
    Parts,
    leave_one_out_split,
    split_rule,
    temporal_global_split,
    temporal_user_split,
)

seeds = st.integers(0, 2**32)


@st.composite
def timed(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Interactions of a few users in any order, at few or many different times."""
    counts = draw(st.lists(st.integers(1, 30), min_size=1, max_size=8))
    random = np.random.default_rng(draw(seeds))
    pairs = random.permutation([(user, item) for user, count in enumerate(counts) for item in range(count)])
    return pairs, random.integers(0, draw(st.sampled_from([1, 3, 10**9])), size=len(pairs))


def sorted_pairs(parts: Parts) -> list[tuple[int, int]]:
    return sorted(map(tuple, np.concatenate([parts[part] for part in PARTS]).tolist()))


def times_of(parts: Parts, pairs: NDArray[np.int64], times: NDArray[np.int64]) -> dict[str, list[tuple[int, int]]]:
    """(user, time) of every interaction, by part."""
    at = {tuple(pair): time for pair, time in zip(pairs.tolist(), times.tolist(), strict=True)}
    return {part: [(pair[0], at[tuple(pair)]) for pair in parts[part].tolist()] for part in PARTS}


def sizes_per_user(parts: Parts, n_users: int) -> list[list[int]]:
    return [np.bincount(parts[part][:, 0], minlength=n_users).tolist() for part in PARTS]


def assert_each_users_order_is_kept(parts: Parts, pairs: NDArray[np.int64], times: NDArray[np.int64]) -> None:
    found = times_of(parts, pairs, times)
    for earlier, later in (("train", "valid"), ("valid", "test"), ("train", "test")):
        for user in range(int(pairs[:, 0].max()) + 1):
            before = [time for owner, time in found[earlier] if owner == user]
            after = [time for owner, time in found[later] if owner == user]
            assert max(before, default=0) <= min(after, default=10**9)


@given(data=timed(), seed=seeds)
@pytest.mark.parametrize("name", ["random_user", "leave_one_out", "temporal_user"])
def test_rules_per_user_put_every_interaction_in_exactly_one_part(
    name: str, data: tuple[NDArray[np.int64], NDArray[np.int64]], seed: int
) -> None:
    pairs, times = data
    parts = split_rule(name).divide(pairs, times, np.random.default_rng(seed))
    assert sorted_pairs(parts) == sorted(map(tuple, pairs.tolist()))


@given(data=timed(), seed=seeds)
def test_by_time_per_user_counts_are_the_published_ones_and_the_order_of_time_is_kept(
    data: tuple[NDArray[np.int64], NDArray[np.int64]], seed: int
) -> None:
    pairs, times = data
    parts = temporal_user_split(pairs, times, np.random.default_rng(seed))
    n_users = int(pairs[:, 0].max()) + 1
    published = random_user_split(pairs, np.random.default_rng(0))
    assert sizes_per_user(parts, n_users) == sizes_per_user(published, n_users)
    assert_each_users_order_is_kept(parts, pairs, times)


@given(data=timed(), seed=seeds)
def test_leave_one_out_holds_out_the_latest_and_the_one_before(
    data: tuple[NDArray[np.int64], NDArray[np.int64]], seed: int
) -> None:
    pairs, times = data
    parts = leave_one_out_split(pairs, times, np.random.default_rng(seed))
    for user, count in enumerate(np.bincount(pairs[:, 0]).tolist()):
        expected = (count - 2, 1, 1) if count >= 3 else (1, 0, count - 1)
        assert tuple(int((parts[part][:, 0] == user).sum()) for part in PARTS) == expected
    assert_each_users_order_is_kept(parts, pairs, times)


@given(data=timed())
def test_a_point_in_time_divides_all_users_alike_and_never_equal_times(
    data: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    pairs, times = data
    parts = temporal_global_split(pairs, times)
    found = {part: [time for _, time in rows] for part, rows in times_of(parts, pairs, times).items()}
    assert max(found["train"], default=-1) < min(found["valid"] + found["test"], default=10**10)
    assert max(found["valid"], default=-1) < min(found["test"], default=10**10)
    trained = set(parts["train"][:, 0].tolist())
    held_out = {user for part in ("valid", "test") for user in parts[part][:, 0].tolist()}
    assert held_out <= trained
    left_out = set(map(tuple, pairs.tolist())) - set(sorted_pairs(parts))
    assert len(sorted_pairs(parts)) + len(left_out) == len(pairs)
    assert not {user for user, _ in left_out} & trained  # nobody who can be evaluated loses anything


def test_a_point_in_time_leaves_eighty_and_ninety_percent_behind() -> None:
    pairs = np.array([(position % 10, position) for position in range(1000)])
    times = np.random.default_rng(0).permutation(1000)
    parts = temporal_global_split(pairs, times)
    assert [len(parts[part]) for part in PARTS] == [800, 100, 100]
    assert sorted(times[parts["train"][:, 1]].tolist()) == list(range(800))
    assert sorted(times[parts["valid"][:, 1]].tolist()) == list(range(800, 900))


def test_times_equal_to_a_boundary_go_to_the_later_part() -> None:
    pairs = np.array([(0, item) for item in range(20)])
    times = np.array([1] * 15 + [2] * 2 + [3] * 3)  # positions 16 and 18 have the times 2 and 3
    parts = temporal_global_split(pairs, times)
    assert [len(parts[part]) for part in PARTS] == [15, 2, 3]


def test_without_interactions_there_is_nothing_to_divide() -> None:
    parts = temporal_global_split(np.empty((0, 2), np.int32), np.empty(0, np.int64))
    assert [len(parts[part]) for part in PARTS] == [0, 0, 0]


@pytest.mark.parametrize("rule", [leave_one_out_split, temporal_user_split])
def test_equal_times_favour_no_item_and_a_seed_repeats_its_choice(rule: object) -> None:
    assert callable(rule)
    pairs, times = np.array([(0, item) for item in range(5)]), np.zeros(5, np.int64)
    tests = [int(rule(pairs, times, np.random.default_rng(seed))["test"][0, 1]) for seed in range(500)]
    assert np.bincount(tests, minlength=5).min() > 60  # 100 expected of each; 60 is more than four deviations below
    again = [int(rule(pairs, times, np.random.default_rng(seed))["test"][0, 1]) for seed in range(500)]
    assert again == tests


def test_rules_are_found_by_name_and_near_names_are_shown() -> None:
    assert list(RULES) == ["random_user", "leave_one_out", "temporal_user", "temporal_global"]
    assert split_rule("temporal_user").divide is temporal_user_split
    assert [name for name, rule in RULES.items() if not rule.drawn] == ["temporal_global"]
    with pytest.raises(ConfigError, match="nearest: leave_one_out"):
        split_rule("leave-one-out")


def test_the_published_rule_by_name_is_the_published_rule() -> None:
    pairs = np.array([(user, item) for user in range(4) for item in range(20)])
    named = split_rule("random_user").divide(pairs, np.arange(80), np.random.default_rng(3))
    expected = random_user_split(pairs, np.random.default_rng(3))
    for part in PARTS:
        np.testing.assert_array_equal(named[part], expected[part])
