"""Checks of whether a modality's rows are in the order of the items: items near in content should share users.

What is in the rows is checked in `verify_features`. Nothing here is certain: both checks are statistical.
"""

from itertools import pairwise

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from harness.data.dataset import PARTS, Dataset
from harness.ingest.verify import Finding, Severity
from harness.ingest.verify_features import blocks, mean_rows

NEIGHBOURS = 10
SAMPLE = 2000  # items; all their products of pairs take a second at 4096 columns
PERMUTATIONS = 999
SEED = 2023
LEVEL = 0.01
"""Share of random orders that do as well as the real one, above which the real one is taken to be no better."""
FEW_ITEMS = 50
FEW_SHARED = 5.0  # near pairs with a user in common that chance alone would give; below this nothing can be told

SHIFTS = (-3, -2, -1, 1, 2, 3)  # rows; a row that is missing or too many moves all that follow by one
SEGMENTS = 4  # ranges of items that are looked at alone: what moved may begin anywhere
FEW_PAIRS = 100
STANDARD_ERRORS = 6.0
"""By so many must rows fit better elsewhere. Pairs are counted from both ends, and SHIFTS x SEGMENTS are tried."""


def check_order(dataset: Dataset, modality: str) -> list[Finding]:
    """Do items near in features share users more often than under a random order of rows, and than if moved a little?

    Of each item of a sample the nearest ones in it (cosine of centred rows) are taken; the statistic is the mean
    cosine of their users, over all parts. Where it is no better than under random assignments of rows to items, or
    better some rows on, that is a problem. Features without any relation to behaviour look like a wrong order here:
    the table alone cannot tell the two apart.
    """
    check = f"row order {modality}"
    sample, pairs = near_pairs(dataset, modality)
    if len(sample) < FEW_ITEMS:
        text = f"{len(sample)} items with features of their own, fewer than {FEW_ITEMS}: too few to tell"
        return [Finding(check, Severity.NOTE, text)]
    users = _users_of_items(dataset)
    together = _cosines(users[sample])
    if len(pairs) * float((together > 0).mean()) < FEW_SHARED:
        return [Finding(check, Severity.NOTE, "items share too few users to tell whether near ones share more")]
    ours, by_chance = _beside_random_orders(together, pairs)
    p = (1 + int((by_chance >= ours).sum())) / (1 + PERMUTATIONS)
    text = (
        f"items near in content, {NEIGHBOURS} for each of {len(sample):,}, have {ours / by_chance.mean():.2f} times "
        f"the overlap of users that {PERMUTATIONS} random orders of the rows give (p = {p:.3f})"
    )
    if p > LEVEL:
        return [Finding(check, Severity.PROBLEM, f"{text}: are the rows in the order of the items?")]
    return [Finding(check, Severity.OK, text), *_moved_rows(users, sample[pairs], check)]


def near_pairs(dataset: Dataset, modality: str) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """A sample of items [S], and pairs of positions in it, [n, 2]: each item and one of its nearest in features.

    Items are drawn among those whose row is neither zero nor the mean: such rows are near to each other for no reason.
    """
    table = dataset.features[modality]
    total, squares = np.zeros(table.shape[1]), np.zeros(table.shape[1])
    for rows in blocks(table):
        total += rows.sum(axis=0)
        squares += np.square(rows).sum(axis=0)
    mean = total / len(table)
    zero = np.concatenate([(rows == 0).all(axis=1) for rows in blocks(table)])
    candidates = np.setdiff1d(np.flatnonzero(~zero), mean_rows(table, mean, squares / len(table)))
    sample = np.sort(np.random.default_rng(SEED).permutation(candidates)[:SAMPLE])
    if len(sample) < 2:
        return sample, np.empty((0, 2), np.int64)
    centred = np.asarray(table[sample], np.float64) - mean
    unit = (centred / np.linalg.norm(centred, axis=1, keepdims=True)).astype(np.float32)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    k = min(NEIGHBOURS, len(sample) - 1)
    nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
    return sample, np.stack([np.repeat(np.arange(len(sample)), k), nearest.ravel()], axis=1)


def _beside_random_orders(
    together: NDArray[np.float32], pairs: NDArray[np.integer]
) -> tuple[float, NDArray[np.float64]]:
    """The mean over pairs as they are, and over pairs of the same shape among randomly assigned items."""
    draw = np.random.default_rng(SEED)
    by_chance = np.empty(PERMUTATIONS)
    for k in range(PERMUTATIONS):
        order = draw.permutation(len(together))
        by_chance[k] = together[order[pairs[:, 0]], order[pairs[:, 1]]].mean()
    return float(together[pairs[:, 0], pairs[:, 1]].mean()), by_chance


def _moved_rows(users: scipy.sparse.csr_array, pairs: NDArray[np.integer], check: str) -> list[Finding]:
    """A problem for the range of items whose rows fit the items some places on far better, if there is one."""
    n_items = users.shape[0]
    bounds = np.linspace(0, n_items, SEGMENTS + 1).astype(int)
    margin = max(SHIFTS)
    best = (STANDARD_ERRORS, 0, 0, 0)
    for start, end in pairwise(bounds.tolist()):
        inside = ((pairs >= max(start, margin)) & (pairs < min(end, n_items - margin))).all(axis=1)
        here = pairs[inside]
        if len(here) < FEW_PAIRS:
            continue
        unmoved = _cosines_of_pairs(users, here)
        for shift in SHIFTS:
            gain = _cosines_of_pairs(users, here + shift) - unmoved
            error = max(float(gain.std()), 1e-12) / np.sqrt(len(gain))
            best = max(best, (float(gain.mean()) / error, start, end - 1, shift))
    if best[3] == 0:
        return []
    _, start, end, shift = best
    text = (
        f"rows {start:,} to {end:,} fit the items {abs(shift)} {'after' if shift > 0 else 'before'} theirs far better"
    )
    return [Finding(check, Severity.PROBLEM, f"{text}: is a row {'missing' if shift > 0 else 'too many'} before them?")]


def _users_of_items(dataset: Dataset) -> scipy.sparse.csr_array:
    """Who interacted with an item, in any part, [I, U], rows of length one."""
    together = np.concatenate([dataset.part(part) for part in PARTS])
    counts = np.bincount(together[:, 1], minlength=dataset.n_items)
    weights = (1 / np.sqrt(counts[together[:, 1]])).astype(np.float32)
    shape = (dataset.n_items, dataset.n_users)
    return scipy.sparse.csr_array((weights, (together[:, 1], together[:, 0])), shape=shape)


def _cosines(users: scipy.sparse.csr_array) -> NDArray[np.float32]:
    """Cosine of the users of every two rows, [S, S], zero on the diagonal, which is not used."""
    cosines: NDArray[np.float32] = (users @ users.T).toarray()
    np.fill_diagonal(cosines, 0)
    return cosines


def _cosines_of_pairs(users: scipy.sparse.csr_array, pairs: NDArray[np.integer]) -> NDArray[np.float64]:
    """Cosine of the users of each pair of items, [n]."""
    return np.asarray(users[pairs[:, 0]].multiply(users[pairs[:, 1]]).sum(axis=1), np.float64).ravel()
