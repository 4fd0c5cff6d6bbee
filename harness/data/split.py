"""The split rule of the published experiment. Other rules are not here."""

import numpy as np
from numpy.typing import NDArray

from harness.data.dataset import Part

FEW_INTERACTIONS = 10  # below this many, a user's last two interactions go to validation and test, one each
HELD_OUT_SHARE = 0.2


def published_split(
    interactions: NDArray[np.integer], generator: np.random.Generator
) -> dict[Part, NDArray[np.integer]]:
    """Divide interactions [n, 2] (user, item) per user, items in random order, as the published experiment did.

    Fewer than 10 interactions: the last two go to validation and test. Otherwise h = ⌊0.2 n⌋ are held out, ⌊h/2⌋ to
    validation, the rest to test. Users with fewer than 3 interactions keep at least one in training.
    """
    shuffled = interactions[generator.permutation(len(interactions))]
    ordered = shuffled[np.argsort(shuffled[:, 0], kind="stable")]
    _, first, count = np.unique(ordered[:, 0], return_index=True, return_counts=True)
    held_out = np.where(count < FEW_INTERACTIONS, np.minimum(2, count - 1), (HELD_OUT_SHARE * count).astype(int))
    to_valid = held_out // 2
    rank_from_end = np.repeat(first + count, count) - np.arange(len(ordered))  # 1 for a user's last interaction
    n_held_out, n_test = np.repeat(held_out, count), np.repeat(held_out - to_valid, count)
    return {
        "train": ordered[rank_from_end > n_held_out],
        "valid": ordered[(rank_from_end <= n_held_out) & (rank_from_end > n_test)],
        "test": ordered[rank_from_end <= n_test],
    }
