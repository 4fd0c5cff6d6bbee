"""From all ratings to those of a data set: one per user and item, k-core, new numbers. Parsing is in `raw_ratings`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bm3 import DataError
from harness.ingest.raw_ratings import Ratings


@dataclass(frozen=True)
class Core:
    """What is left of ratings, in the order of their file."""

    ratings: Ratings
    """Users and items numbered in order of first appearance among what is left; nobody else has an id."""
    read: int
    """Ratings in the file."""
    duplicates: int
    """Ratings left out because their user had rated that item further up."""
    rounds: int
    """How often users or items had to be removed until none had too few interactions."""


def k_core(ratings: Ratings, k: int, where: str) -> Core:
    """The largest set of ratings in which every user and every item has at least `k`.

    Of several ratings of one item by one user the first in the file counts. Users and items with too few are removed
    together, then all are counted again. Raises DataError, beginning with `where`, when nothing is left.
    """
    kept = first_of_each_pair(ratings)
    duplicates, rounds = len(ratings) - len(kept), 0
    while len(kept):
        users, items = ratings.users[kept], ratings.items[kept]
        enough = (np.bincount(users)[users] >= k) & (np.bincount(items)[items] >= k)
        if enough.all():
            break
        kept, rounds = kept[enough], rounds + 1
    if len(kept) == 0:
        raise DataError(
            f"{where}: no users and items with at least {k} interactions among themselves are left of {len(ratings)} "
            f"ratings; choose a lower --core"
        )
    return Core(_numbered(ratings, kept), len(ratings), duplicates, rounds)


def first_of_each_pair(ratings: Ratings) -> NDArray[np.integer]:
    """Positions, ascending, of the ratings whose user has not rated that item before."""
    pairs = ratings.users.astype(np.int64) * len(ratings.item_ids) + ratings.items
    _, first = np.unique(pairs, return_index=True)
    return np.sort(first)


def _numbered(ratings: Ratings, kept: NDArray[np.integer]) -> Ratings:
    users, user_ids = _renumbered(ratings.users[kept], ratings.user_ids)
    items, item_ids = _renumbered(ratings.items[kept], ratings.item_ids)
    return Ratings(users, items, ratings.times[kept], user_ids, item_ids)


def _renumbered(old: NDArray[np.int32], ids: list[bytes]) -> tuple[NDArray[np.int32], list[bytes]]:
    """Numbers in order of first appearance in `old`, and the ids in the new order."""
    present, first, inverse = np.unique(old, return_index=True, return_inverse=True)
    order = np.argsort(first)
    new = np.empty(len(present), np.int32)
    new[order] = np.arange(len(present), dtype=np.int32)
    return new[inverse], [ids[number] for number in present[order].tolist()]
