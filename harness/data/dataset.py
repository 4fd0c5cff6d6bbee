"""The Dataset value and the checks every data set passes, whatever file it came from.

Reading files is `layouts`, making data is `synthetic`, dividing interactions is `split`.
"""

import hashlib
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bm3 import Data, DataError

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")

MAX_UNSEEN_SHARE = 0.01
"""Held-out users without a training interaction are left out of evaluation (as published). Above this share of
a part's users the split itself is taken to be wrong; the real TikTok split has 0.2 %."""

ROWS_AT_A_TIME = 256  # features are checked and hashed in blocks: a table may be larger than memory


@dataclass(frozen=True, kw_only=True)
class Dataset(Data):
    """Implicit-feedback interactions in three parts, and item features.

    `train`, `valid`, `test` are int32 [n, 2], (user, item), sorted; `features` maps a modality's name to its
    floating-point [I, d_m] table, row = item id. `surrogates` names the modalities whose vectors stand in for the
    original ones: figures made with them are not comparable with published ones. `valid` may be empty: training then
    takes a number of epochs that is asked for. Made by `checked_dataset`.
    """

    name: str
    valid: NDArray[np.int32]
    test: NDArray[np.int32]
    surrogates: frozenset[str] = field(default_factory=frozenset)

    def part(self, part: Part) -> NDArray[np.int32]:
        """Interactions of one part, [n, 2]."""
        return {"train": self.train, "valid": self.valid, "test": self.test}[part]

    @property
    def n_interactions(self) -> int:
        return sum(len(self.part(part)) for part in PARTS)

    @property
    def sparsity(self) -> float:
        """Share of user-item pairs without an interaction, in percent (as in the paper's Table 2)."""
        return 100 * (1 - self.n_interactions / (self.n_users * self.n_items))

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over sizes, parts and features: equal exactly when models see equal data. The name is not in it."""
        digest = hashlib.sha256(f"{self.n_users} {self.n_items}".encode())
        for part in PARTS:
            digest.update(part.encode())
            digest.update(self.part(part).tobytes())
        for modality, table in sorted(self.features.items()):
            digest.update(f"{modality} {table.dtype.str} {table.shape}".encode())
            for _, rows in in_blocks(table):
                digest.update(np.ascontiguousarray(rows).data)
        return digest.hexdigest()

    def unseen_users(self, part: Part) -> NDArray[np.int32]:
        """Users with interactions in `part` and none in training."""
        return np.setdiff1d(self.part(part)[:, 0], self.train[:, 0])


def checked_dataset(
    name: str,
    parts: Mapping[Part, NDArray[Any]],
    features: Mapping[str, NDArray[Any]],
    *,
    surrogates: frozenset[str] = frozenset(),
    where: str,
    feature_files: Mapping[str, Path] = MappingProxyType({}),
    ids: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Dataset:
    """A Dataset from raw arrays, or a DataError that begins with `where` (a file or folder) and says what to mend.

    Features that are as needed are not copied: write to them no more. Those of the data set cannot be written.
    Where `feature_files` has a modality, errors in its features begin with that file instead. `ids` are what the
    source calls each `user` and `item`, for errors.

    Refused: an empty part for training or test, ids that are negative, not whole or beyond int32, gaps in ids, an
    interaction standing in two parts or twice, more than MAX_UNSEEN_SHARE of held-out users without training, features
    that are not one floating-point row per item, finite as float32.
    """
    pairs = {part: checked_pairs(parts[part], part, where) for part in PARTS}
    together = np.concatenate([pairs[part] for part in PARTS])
    n_users, n_items = (_checked_ids(together[:, column], kind, where) for column, kind in ((0, "user"), (1, "item")))
    _check_repeats(together, n_items, where, ids)
    checked = {
        modality: _checked_features(table, modality, n_items, str(feature_files.get(modality, where)))
        for modality, table in features.items()
    }
    features = dict(sorted(checked.items()))
    dataset = Dataset(n_users, n_items, features=features, name=name, surrogates=surrogates, **pairs)
    for part in ("valid", "test"):
        unseen, evaluated = dataset.unseen_users(part), len(np.unique(dataset.part(part)[:, 0]))
        if len(unseen) > MAX_UNSEEN_SHARE * evaluated:
            raise DataError(
                f"{where}: {len(unseen)} of {evaluated} users in {part} have no training interaction (first: "
                f"{_called('user', unseen[0], ids)}): move one interaction of each into training, or remove these users"
            )
    return dataset


def checked_pairs(array: NDArray[Any], part: Part, where: str) -> NDArray[np.int32]:
    """Pairs of ids [n, 2], sorted, if they may be a part. Raises DataError."""
    if array.ndim != 2 or array.shape[1] != 2:
        raise DataError(f"{where}: part {part} has shape {list(array.shape)}, needed are pairs (user, item), [n, 2]")
    if len(array) == 0 and part != "valid":
        raise DataError(f"{where}: part {part} is empty, but training and test each need an interaction")
    if len(array) == 0:
        return np.empty((0, 2), np.int32)
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{where}: ids in part {part} are {array.dtype}, needed are whole numbers from 0")
    if array.min() < 0:
        row = int(np.flatnonzero((array < 0).any(axis=1))[0])
        raise DataError(f"{where}: part {part}, interaction {row} has a negative id: number users and items from 0")
    if array.max() > np.iinfo(np.int32).max - 1:
        raise DataError(f"{where}: part {part} has the id {array.max()}: number users and items from 0 without gaps")
    order = np.lexsort((array[:, 1], array[:, 0]))
    return np.ascontiguousarray(array[order], dtype=np.int32)


def _checked_ids(ids: NDArray[np.int32], kind: str, where: str) -> int:
    present = np.unique(ids)
    expected = np.arange(len(present))
    if not np.array_equal(present, expected):
        missing = int(expected[present != expected][0])
        raise DataError(
            f"{where}: {kind} ids have gaps ({len(present)} {kind}s, largest id {present[-1]}, {missing} is missing): "
            f"number {kind}s from 0 to {len(present) - 1} and order feature rows alike; bm3 data import closes gaps"
        )
    return len(present)


def _called(kind: str, number: int, ids: Mapping[str, Sequence[str]]) -> str:
    return f"{kind} {ids[kind][number][:40]!r}" if kind in ids else f"{kind} {number}"


def _check_repeats(together: NDArray[np.int32], n_items: int, where: str, ids: Mapping[str, Sequence[str]]) -> None:
    keys, counts = np.unique(together[:, 0].astype(np.int64) * n_items + together[:, 1], return_counts=True)
    if (counts > 1).any():
        user, item = divmod(int(keys[counts > 1][0]), n_items)
        raise DataError(
            f"{where}: {int((counts > 1).sum())} interactions stand more than once (first: "
            f"{_called('user', user, ids)}, {_called('item', item, ids)}): keep each pair once, in one part"
        )


def _checked_features(table: NDArray[Any], modality: str, n_items: int, where: str) -> NDArray[Any]:
    what = f"{where}: features of {modality!r}"
    if table.ndim != 2 or table.shape[1] == 0:
        raise DataError(f"{what} have shape {list(table.shape)}, needed is one row of numbers per item, [items, width]")
    if len(table) != n_items:
        raise DataError(
            f"{what} have {len(table)} rows for {n_items} items: row i must belong to item i; "
            f"bm3 data import leaves out items without interactions, add-features --ids joins rows by id"
        )
    if not np.issubdtype(table.dtype, np.floating):
        raise DataError(f"{what} are {table.dtype}, needed are floating-point numbers: convert with .astype('float32')")
    # Doubles carry no information that a float32 model uses, and twice the memory; rows are read one by one.
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused below
        wanted = np.dtype(np.float32) if table.dtype.itemsize > 4 else table.dtype.newbyteorder("=")
        if isinstance(table, np.memmap) and not table.flags.writeable and table.dtype == wanted:
            stored: NDArray[Any] = table  # stays in its file
        else:
            stored = np.ascontiguousarray(table, dtype=wanted).view()
            stored.flags.writeable = False  # so that models need no copy
    for start, rows in in_blocks(stored):
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            row = start + int(np.flatnonzero(bad)[0])
            raise DataError(
                f"{what} contain NaN or infinity (first in row {row}) as {stored.dtype}: replace them, e.g. by the "
                f"mean row"
            )
    return stored


def in_blocks(table: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Some rows of a table at a time, with the number of the first; nothing of one in a file stays in memory."""
    file: Any = table.base
    for start in range(0, len(table), ROWS_AT_A_TIME):
        yield start, table[start : start + ROWS_AT_A_TIME]
        if isinstance(file, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            file.madvise(mmap.MADV_DONTNEED)


def in_memory(table: NDArray[Any]) -> NDArray[Any]:
    """The table, read into memory if it lies in a file; it cannot be written."""
    if not isinstance(table, np.memmap):
        return table
    read = np.empty(table.shape, table.dtype)
    for start, rows in in_blocks(table):
        read[start : start + len(rows)] = rows
    read.flags.writeable = False  # so that models need no copy
    return read
