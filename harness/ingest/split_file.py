"""A split taken from files, for interactions that are known already. Rules are in `split`, layouts in `layouts`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bm3 import DataError
from harness.data.dataset import PARTS
from harness.data.layouts import find_interactions, read_interactions
from harness.data.split import Pairs, Parts


def split_file(path: Path) -> Path:
    """The file with the split that `path` means: itself, or in a folder `interactions.npz` or the one `NAME.inter`.

    Raises DataError.
    """
    if path.is_dir():
        return find_interactions(path)
    if path.suffix not in (".npz", ".inter") or not path.is_file():
        raise DataError(f"{path}: no split; needed is a folder, or an existing file that ends in .npz or .inter")
    return path


def read_split(path: Path, interactions: Pairs) -> Parts:
    """The split in a file, int32, checked to divide exactly these interactions [n, 2] (user, item).

    Raises DataError where users or items are others, or numbered in another order.
    """
    stored = read_interactions(path)
    n_users, n_items = (int(n) + 1 for n in interactions.max(axis=0))
    parts: Parts = {}
    for part in PARTS:
        pairs = stored[part]
        if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer):
            raise DataError(
                f"{path}: part {part} is {pairs.dtype} {list(pairs.shape)}, needed are integer pairs [n, 2]"
            )
        outside = (pairs < 0) | (pairs >= (n_users, n_items))
        if outside.any():
            user, item = pairs[outside.any(axis=1)][0].tolist()
            raise DataError(
                f"{path}: part {part} has user {user} and item {item}, but the ratings {n_users} users and {n_items} "
                f"items; needed is a split of the same ratings with the same --core"
            )
        parts[part] = pairs.astype(np.int32)
    _check_same(np.concatenate([parts[part] for part in PARTS]), interactions, n_items, path)
    return parts


def _check_same(divided: Pairs, interactions: Pairs, n_items: int, path: Path) -> None:
    there, counts = np.unique(_keys(divided, n_items), return_counts=True)
    here = _keys(interactions, n_items)
    repeated = there[counts > 1]
    for keys, what in (
        (repeated, "stand in it more than once"),
        (np.setdiff1d(there, here), "are not in the ratings"),
        (np.setdiff1d(here, there), "of the ratings are not in it"),
    ):
        if len(keys):
            user, item = divmod(int(keys[0]), n_items)
            raise DataError(
                f"{path}: {len(keys)} interactions {what} (first: user {user}, item {item}); needed is a split of the "
                f"same ratings, users and items numbered in order of first appearance"
            )


def _keys(pairs: Pairs, n_items: int) -> NDArray[np.int64]:
    return pairs[:, 0].astype(np.int64) * n_items + pairs[:, 1]
