"""Adding a modality to a data set on disk: rows joined to items by order or by original id, written at once.

Making vectors from texts and images is `encoders`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bm3 import DataError
from harness.data.dataset import PARTS, Dataset, checked_dataset
from harness.data.files import read_array, unreadable
from harness.data.layouts import feature_files, find_interactions, read_folder
from harness.ingest.exporting import RECORD, feature_file_name, write_record
from harness.ingest.numbering import ITEMS, read_ids

ENCODER_RECORD = ".encoder.json"
"""Follows the name of a feature file; says which model made it."""


@dataclass(frozen=True)
class Joined:
    """Rows in the order of the items, and what did not fit."""

    table: NDArray[np.float32]
    """[I, d]"""
    left_out: int
    """Rows whose id is no item of the data set."""
    filled: int
    """Items without a row of their own, which got the mean of the others."""


@dataclass(frozen=True)
class Added:
    """A feature file that was written, and the data set that the folder holds now."""

    file: Path
    dataset: Dataset


def item_ids(folder: Path, n_items: int) -> list[str]:
    """The id of origin of each item by the folder's items.csv, or its number where there is none."""
    return read_ids(folder, ITEMS, n_items) or [str(item) for item in range(n_items)]


def read_features(path: Path) -> NDArray[Any]:
    """The array in an .npy file that is to be added; raises DataError."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    return read_array(path)


def read_row_ids(path: Path) -> list[str]:
    """One id per line, for the rows of a table in their order; raises DataError."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(unreadable(path, error)) from error


def join_by_id(
    table: NDArray[Any], row_ids: Sequence[str], items: Sequence[str], where: str, *, fill: bool = False
) -> Joined:
    """Rows of `table` [n, d], whose ids are `row_ids` [n], in the order of `items` [I].

    Items without a row are an error, or get the mean of the others if `fill`, as those without an image did in the
    published features. Raises DataError, also for ids that stand twice and for numbers that are not finite.
    """
    if table.ndim != 2 or len(row_ids) != len(table):
        raise DataError(f"{where}: {len(row_ids)} ids for features of shape {list(table.shape)}: needed is one per row")
    row_of = {each: row for row, each in enumerate(row_ids)}
    if len(row_of) < len(row_ids):
        twice = next(each for row, each in enumerate(row_ids) if row_of[each] != row)
        raise DataError(f"{where}: id {twice[:40]!r} stands more than once: keep one row for each item")
    found = np.array([row_of.get(item, -1) for item in items])
    missing = np.flatnonzero(found < 0)
    if len(missing) == len(items):
        raise DataError(
            f"{where}: no id is one of an item, the first item being {items[0][:40]!r}: ids are those of {ITEMS} in "
            f"the data set's folder, or item numbers where it has none"
        )
    if len(missing) and not fill:
        raise DataError(
            f"{where}: {len(missing):,} of {len(items):,} items have no row (first: {items[missing[0]][:40]!r}): add "
            f"rows for them, such as the mean of the others"
        )
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused
        joined = np.asarray(table[found], dtype=np.float32)
    if len(missing):
        joined[missing] = joined[found >= 0].mean(axis=0, dtype=np.float64)
    return Joined(joined, len(row_ids) - (len(items) - len(missing)), len(missing))


def add_features(
    folder: Path, table: NDArray[Any], modality: str, where: str, *, surrogate: bool = False, replace: bool = False
) -> Added:
    """Write `table` [I, d], in the order of the items, as float32 into the data set in `folder`, as its layout has it.

    The file appears whole or not at all, and dataset.json, if there is one, is made anew. Raises DataError for a table
    that does not fit, beginning with `where`, and if the modality is there already and not to be replaced.
    """
    dataset = read_folder(folder)
    inter = find_interactions(folder).suffix != ".npz"
    target = folder / feature_file_name(modality, surrogate, inter=inter)
    present = feature_files(folder).get(modality, (target, False))[0]
    if present.exists() and not replace:
        raise DataError(f"{present}: {modality} features are there already: give --replace, or another --modality")
    if np.issubdtype(table.dtype, np.floating):
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused below
            table = np.asarray(table, dtype=np.float32)
    parts = {part: dataset.part(part) for part in PARTS}
    checked = checked_dataset(dataset.name, parts, {modality: table}, where=where).features[modality]
    try:
        _write_at_once(checked, target, present)
        written = read_folder(folder)
        if (folder / RECORD).is_file():
            write_record(folder, written, written.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); copy the data set elsewhere") from error
    return Added(target, written)


def _write_at_once(table: NDArray[Any], target: Path, present: Path) -> None:
    """Put the table in the place of `present`; at no moment are there two files or half of one, nor is one lost."""
    made = target.with_name(f".{target.name}.{os.getpid()}")
    aside = present.with_name(f".{present.name}.replaced")
    try:
        with made.open("wb") as file:
            np.save(file, table, allow_pickle=False)
        if present != target:
            present.rename(aside)
        made.replace(target)
        aside.unlink(missing_ok=True)
        for old in {present, target}:  # what it says is no longer so
            old.with_name(f"{old.stem}{ENCODER_RECORD}").unlink(missing_ok=True)
    finally:
        made.unlink(missing_ok=True)
        if aside.exists():
            aside.rename(present)
