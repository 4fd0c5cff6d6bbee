"""Rules that divide interactions into training, validation and test, and their look-up by name.

`random_user` is the rule of the BM3 experiments and of others; the rest are the usual alternatives.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bm3 import ConfigError
from harness.common import nearest
from harness.data.dataset import Part
from harness.data.words import NO_VALIDATION, SPLIT_RULES

FEW_INTERACTIONS = 10  # below this many, a user's last two interactions go to validation and test, one each
HELD_OUT_SHARE = 0.2

Pairs = NDArray[np.integer]
Parts = dict[Part, Pairs]
Divide = Callable[[Pairs, NDArray[np.integer], np.random.Generator], Parts]


def random_user_split(interactions: Pairs, generator: np.random.Generator, *, validation: bool = True) -> Parts:
    """Divide interactions [n, 2] (user, item) per user, items in random order.

    Fewer than 10 interactions: the last two go to validation and test. Otherwise h = ⌊0.2 n⌋ are held out, ⌊h/2⌋ to
    validation, the rest to test. Users with fewer than 3 interactions keep at least one in training. Without
    `validation` all that is held out goes to test.
    """
    shuffled = interactions[generator.permutation(len(interactions))]
    return _hold_out_last(shuffled, _held_out_counts, validation)


def leave_out_split(
    interactions: Pairs, times: NDArray[np.integer], generator: np.random.Generator, k: int, *, validation: bool
) -> Parts:
    """Divide interactions [n, 2] made at `times` [n]: each user's latest `k` to test, the `k` before to validation.

    With one as in He et al., Neural collaborative filtering, WWW 2017, and a validation part. A user's first
    interaction always goes to training; fewer than 2 k others are shared out evenly, an odd one to test. Interactions
    of a user at equal times stand in random order: by position or by id, the same items would always be held out.
    """
    held_out, ordered = 2 * k if validation else k, _by_time(interactions, times, generator)
    return _hold_out_last(ordered, lambda count: np.minimum(held_out, count - 1), validation)


def temporal_user_split(
    interactions: Pairs, times: NDArray[np.integer], generator: np.random.Generator, *, validation: bool
) -> Parts:
    """Divide interactions [n, 2] made at `times` [n] per user by time: the latest to test, those before to validation.

    Each user's parts are as large as in `random_user_split`, few interactions included. A user's interactions at equal
    times stand in random order.
    """
    return _hold_out_last(_by_time(interactions, times, generator), _held_out_counts, validation)


def temporal_global_split(interactions: Pairs, times: NDArray[np.integer], *, validation: bool = True) -> Parts:
    """Divide interactions [n, 2] made at `times` [n] at two points in time: 80 % before the first, 10 % in between.

    Of n times in order, those at positions ⌊0.8 n⌋ and ⌊0.9 n⌋ begin validation and test. Equal times are never
    divided: all of them go to the later part, so with many ties parts can be smaller, or empty. Users without an
    interaction in training cannot be evaluated; their interactions are in no part, and their ids become free. However
    few interactions a user has, their times alone decide. Nothing is random. Without `validation` test begins where it
    would.
    """
    if len(times) == 0:
        return {"train": interactions, "valid": interactions, "test": interactions}
    ordered = np.sort(times)
    # In whole numbers: 0.8 * n can be just below the integer that it means.
    valid_from = ordered[len(times) * 8 // 10]
    test_from = ordered[len(times) * 9 // 10] if validation else valid_from
    in_train = times < valid_from
    known = np.isin(interactions[:, 0], interactions[in_train, 0])
    return {
        "train": interactions[in_train],
        "valid": interactions[known & (times >= valid_from) & (times < test_from)],
        "test": interactions[known & (times >= test_from)],
    }


@dataclass(frozen=True)
class SplitRule:
    """A rule as the command line knows it."""

    name: str
    divide: Divide
    """From interactions [n, 2], times [n] and a generator to parts."""
    drawn: bool
    """Whether the generator matters, if only for the order of equal times."""
    by_time: bool
    validation: bool
    """Whether it makes a validation part."""


OLD_NAMES = {"published": "random_user"}


def split_rule(name: str) -> SplitRule:
    """The rule of that name, or of one it had; `leave_3_out` and `RULE:no_validation` are such names.

    Raises ConfigError with the nearest.
    """
    kind, colon, parts = name.partition(":")
    number = re.fullmatch("leave_([1-9][0-9]{0,5})_out", kind)
    kind = "leave_one_out" if number else OLD_NAMES.get(kind, kind)
    if colon and parts != NO_VALIDATION:
        raise ConfigError(f"split {name!r}: after the colon can stand {NO_VALIDATION}, for no validation part")
    kind = nearest(kind, SPLIT_RULES, "no split rule, and no path of an existing split,")
    k, how = int(number[1]) if number else 1, {"validation": not colon}
    divide: dict[str, Divide] = {
        "random_user": lambda pairs, _, drawn: random_user_split(pairs, drawn, **how),
        "leave_one_out": lambda pairs, times, drawn: leave_out_split(pairs, times, drawn, k, **how),
        "temporal_user": lambda pairs, times, drawn: temporal_user_split(pairs, times, drawn, **how),
        "temporal_global": lambda pairs, times, _: temporal_global_split(pairs, times, **how),
    }
    own, drawn, by_time = number[0] if number else kind, kind != "temporal_global", kind != "random_user"
    return SplitRule(own + colon + parts, divide[kind], drawn, by_time, validation=not colon)


def without_repeats(pairs: Pairs, order: NDArray[np.integer] | None = None) -> NDArray[np.integer]:
    """Positions, ascending, of `pairs` [n, 2] that keep each pair once: the first in `order` [n], or as they stand."""
    keys = pairs[:, 0].astype(np.int64) * (int(pairs[:, 1].max(initial=0)) + 1) + pairs[:, 1]
    order = np.arange(len(keys)) if order is None else order
    _, first = np.unique(keys[order], return_index=True)
    return np.sort(order[first])


def without_gaps(parts: Mapping[Part, Pairs]) -> tuple[list[int], list[int], Parts]:
    """Users and items, ascending, that are in a part, and the parts with these numbered from 0 in the same order."""
    together = np.concatenate(list(parts.values()))
    users, items = np.unique(together[:, 0]), np.unique(together[:, 1])
    closed: Parts = {
        part: np.stack([np.searchsorted(users, pairs[:, 0]), np.searchsorted(items, pairs[:, 1])], axis=1)
        for part, pairs in parts.items()
    }
    return users.tolist(), items.tolist(), closed


def _by_time(interactions: Pairs, times: NDArray[np.integer], generator: np.random.Generator) -> Pairs:
    """Interactions from the earliest to the latest, equal times in random order."""
    return interactions[np.lexsort((generator.permutation(len(times)), times))]


def _held_out_counts(count: NDArray[np.integer]) -> NDArray[np.integer]:
    """How many interactions of users with `count` of them [U] are held out."""
    return np.where(count < FEW_INTERACTIONS, np.minimum(2, count - 1), (HELD_OUT_SHARE * count).astype(int))


def _hold_out_last(
    ordered: Pairs, held_out_of: Callable[[NDArray[np.integer]], NDArray[np.integer]], validation: bool
) -> Parts:
    """Hold out each user's last interactions in the order given; half, rounded down, or none go to validation."""
    ordered = ordered[np.argsort(ordered[:, 0], kind="stable")]
    _, first, count = np.unique(ordered[:, 0], return_index=True, return_counts=True)
    held_out = held_out_of(count)
    to_valid = held_out // 2 if validation else np.zeros_like(held_out)
    rank_from_end = np.repeat(first + count, count) - np.arange(len(ordered))  # 1 for a user's last interaction
    n_held_out, n_test = np.repeat(held_out, count), np.repeat(held_out - to_valid, count)
    return {
        "train": ordered[rank_from_end > n_held_out],
        "valid": ordered[(rank_from_end <= n_held_out) & (rank_from_end > n_test)],
        "test": ordered[rank_from_end <= n_test],
    }
