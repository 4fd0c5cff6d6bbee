"""The split rules, the published one and those that go by time, for whatever interactions there are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bm3 import ConfigError
from harness.data.dataset import PARTS
from harness.data.split import Parts, random_user_split, split_rule, temporal_global_split
from harness.data.words import SPLIT_RULES

seeds = st.integers(0, 2**32)
Timed = tuple[NDArray[np.int64], NDArray[np.int64]]


@st.composite
def timed(draw: st.DrawFn) -> Timed:
    """Interactions of a few users in any order, at few or many different times."""
    counts = draw(st.lists(st.integers(1, 45), min_size=1, max_size=8))
    random = np.random.default_rng(draw(seeds))
    pairs = random.permutation([(user, item) for user, count in enumerate(counts) for item in range(count)])
    return pairs, random.integers(0, draw(st.sampled_from([1, 3, 10**9])), size=len(pairs))


def published_sizes(n: int) -> tuple[int, int, int]:
    """(train, valid, test) of a user with n interactions, in exact integers."""
    if n < 10:
        return leave_one_out_sizes(n)
    held_out = n // 5
    return n - held_out, held_out // 2, held_out - held_out // 2


def leave_one_out_sizes(n: int) -> tuple[int, int, int]:
    return (n - 2, 1, 1) if n >= 3 else (1, 0, n - 1)


def leave_three_out_sizes(n: int) -> tuple[int, int, int]:
    return (n - 6, 3, 3) if n >= 7 else (1, (n - 1) // 2, n - 1 - (n - 1) // 2)


def all_to_test(n: int) -> tuple[int, int, int]:
    train, valid, test = published_sizes(n)
    return train, 0, valid + test


def sorted_pairs(parts: Parts) -> list[tuple[int, int]]:
    return sorted(map(tuple, np.concatenate([parts[part] for part in PARTS]).tolist()))


def times_of(parts: Parts, pairs: NDArray[np.int64], times: NDArray[np.int64]) -> dict[str, list[tuple[int, int]]]:
    """(user, time) of every interaction, by part."""
    at = {tuple(pair): time for pair, time in zip(pairs.tolist(), times.tolist(), strict=True)}
    return {part: [(pair[0], at[tuple(pair)]) for pair in parts[part].tolist()] for part in PARTS}


@given(data=timed(), seed=seeds)
@pytest.mark.parametrize(
    ("name", "sizes_of"),
    [
        ("random_user", published_sizes),
        ("temporal_user", published_sizes),
        ("leave_one_out", leave_one_out_sizes),
        ("leave_3_out", leave_three_out_sizes),
        ("leave_3_out:no_validation", lambda n: (max(n - 3, 1), 0, min(3, n - 1))),
        ("random_user:no_validation", all_to_test),
        ("temporal_user:no_validation", all_to_test),
    ],
)
def test_rules_per_user_divide_all_of_it_in_their_sizes_and_by_time_if_they_go_by_it(
    name: str, sizes_of: object, data: Timed, seed: int
) -> None:
    assert callable(sizes_of)
    pairs, times = data
    parts = split_rule(name).divide(pairs, times, np.random.default_rng(seed))
    assert sorted_pairs(parts) == sorted(map(tuple, pairs.tolist()))
    counts = np.bincount(pairs[:, 0]).tolist()
    sizes = [np.bincount(parts[part][:, 0], minlength=len(counts)).tolist() for part in PARTS]
    assert list(zip(*sizes, strict=True)) == [sizes_of(count) for count in counts]
    found = times_of(parts, pairs, times) if not name.startswith("random_user") else {part: [] for part in PARTS}
    for earlier, later in (("train", "valid"), ("valid", "test"), ("train", "test")):
        for user in range(len(counts)):
            before = [time for owner, time in found[earlier] if owner == user]
            after = [time for owner, time in found[later] if owner == user]
            assert max(before, default=0) <= min(after, default=10**9)


@pytest.mark.parametrize("count", [*range(1, 61), 100, 115, 995, 1005])
def test_the_published_rule_holds_for_every_number_of_interactions(count: int) -> None:
    parts = random_user_split(np.array([(0, item) for item in range(count)]), np.random.default_rng(0))
    assert tuple(len(parts[part]) for part in PARTS) == published_sizes(count)


@pytest.mark.parametrize("name", ["random_user", "leave_one_out", "temporal_user"])
def test_chance_favours_no_item_where_times_are_equal_and_a_seed_repeats_its_choice(name: str) -> None:
    pairs, times = np.array([(0, item) for item in range(5)]), np.zeros(5, np.int64)
    once, again = (
        [int(split_rule(name).divide(pairs, times, np.random.default_rng(seed))["test"][0, 1]) for seed in range(500)]
        for _ in range(2)
    )
    assert np.bincount(once, minlength=5).min() > 60  # 100 expected of each; 60 is more than four deviations below
    assert once == again


@given(data=timed())
def test_a_point_in_time_divides_all_users_alike_and_never_equal_times(data: Timed) -> None:
    pairs, times = data
    parts = temporal_global_split(pairs, times)
    found = {part: [time for _, time in rows] for part, rows in times_of(parts, pairs, times).items()}
    assert max(found["train"], default=-1) < min(found["valid"] + found["test"], default=10**10)
    assert max(found["valid"], default=-1) < min(found["test"], default=10**10)
    trained = set(parts["train"][:, 0].tolist())
    assert {user for part in ("valid", "test") for user in parts[part][:, 0].tolist()} <= trained
    left_out = set(map(tuple, pairs.tolist())) - set(sorted_pairs(parts))
    assert len(sorted_pairs(parts)) + len(left_out) == len(pairs)
    assert not {user for user, _ in left_out} & trained  # nobody who can be evaluated loses anything


def test_a_point_in_time_leaves_eighty_and_ninety_percent_behind() -> None:
    pairs = np.array([(position % 10, position) for position in range(1000)])
    times = np.random.default_rng(0).permutation(1000)
    parts = temporal_global_split(pairs, times)
    for part, bounds in (("train", (0, 800)), ("valid", (800, 900)), ("test", (900, 1000))):
        assert sorted(times[parts[part][:, 1]].tolist()) == list(range(*bounds))
    without = split_rule("temporal_global:no_validation").divide(pairs, times, np.random.default_rng(0))
    assert [len(without[part]) for part in PARTS] == [800, 0, 200]


@pytest.mark.parametrize(
    ("times", "sizes"),
    [([1] * 15 + [2] * 2 + [3] * 3, [15, 2, 3]), ([], [0, 0, 0])],  # positions 16 and 18 have the times 2 and 3
)
def test_times_equal_to_a_boundary_go_to_the_later_part(times: list[int], sizes: list[int]) -> None:
    pairs = np.array([(0, item) for item in range(len(times))], np.int64).reshape(-1, 2)
    parts = temporal_global_split(pairs, np.array(times, np.int64))
    assert [len(parts[part]) for part in PARTS] == sizes


def test_rules_are_found_by_name_and_near_names_are_shown() -> None:
    assert [name for name in SPLIT_RULES if not split_rule(name).drawn] == ["temporal_global"]
    with pytest.raises(ConfigError, match="nearest: leave_one_out"):
        split_rule("leave-one-out")
    with pytest.raises(ConfigError, match="after the colon can stand no_validation"):
        split_rule("random_user:train")
