"""Bringing data sets of other layouts into the `.inter` layout: folders, archives, tables, RecBole's atomic files.

Reading one table is `tables`, unpacking is `unpacking`, and what must hold of the result `dataset`.
"""

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bm3 import BM3Error, ConfigError, DataError
from harness.data.dataset import PARTS, Dataset, Part, checked_dataset
from harness.data.files import checked_file
from harness.data.folder import new_folder
from harness.data.layouts import read_folder, read_interactions
from harness.data.split import split_rule
from harness.data.words import SPLIT_RULES
from harness.ingest.exporting import check_recorded_hash, checked_name, write_dataset
from harness.ingest.numbering import ITEMS, USERS, numbered, read_ids, write_ids
from harness.ingest.tables import (
    RECBOLE_ENDINGS,
    TABLE_ENDINGS,
    Columns,
    Table,
    is_recbole,
    read_recbole,
    read_table,
)
from harness.ingest.unpacking import is_archive, unpack


@dataclass(frozen=True)
class Imported:
    """A data set, the original ids behind its numbers where there are any, and what a reader should know."""

    dataset: Dataset
    users: list[str] | None
    items: list[str] | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Division:
    """How interactions that come in no parts are divided; no rule named: the first of SPLIT_RULES."""

    rule: str | None = None
    seed: int | None = None


def import_dataset(
    source: Path, name: str, root: Path, columns: Columns | None = None, division: Division | None = None
) -> Imported:
    """Read `source` and write it as the new folder `root`/`name`; nothing is written unless all of it can be read.

    `source` is a folder, an archive of one, or a file. Raises DataError for what cannot be read, ConfigError for
    options that do not fit it.
    """
    target = root / checked_name(name, "data set")
    if target.exists():  # known at the end too, but reading may take long
        raise DataError(f"{target}: exists already; remove it or choose another name")
    found = read_source(source, columns or Columns(), division or Division())
    found = replace(found, dataset=replace(found.dataset, name=name))
    with new_folder(target) as folder:
        try:
            write_dataset(found.dataset, folder, name)
            for file, ids in ((USERS, found.users), (ITEMS, found.items)):
                if ids is not None:
                    write_ids(folder / file, ids)
        except OSError as error:
            raise DataError(f"{target}: cannot be written ({error.strerror}); choose another folder") from error
    return found


def read_source(source: Path, columns: Columns, division: Division) -> Imported:
    """What `source` holds, whatever its layout; raises DataError or ConfigError."""
    if source.is_dir():
        return _read_folder(source, columns, division)
    if not source.is_file():
        raise DataError(f"{source}: no such file or folder")
    if is_archive(source):
        with tempfile.TemporaryDirectory(prefix="bm3-import-") as temporary:
            try:
                return _read_folder(unpack(source, Path(temporary)), columns, division)
            except BM3Error as error:
                # The temporary folder means nothing to whoever reads the message.
                raise type(error)(str(error).replace(temporary, str(source))) from error
    suffix = source.suffix.lower()
    if suffix in TABLE_ENDINGS:
        return _from_tables([read_table(source, columns)], division)
    if suffix == ".inter" and is_recbole(source):
        return _from_recbole([source], columns, division)
    if suffix in (".inter", ".npz"):
        _refuse_options(source, columns, division)
        parts = read_interactions(source)
        return Imported(checked_dataset(source.stem, parts, {}, where=str(source)), None, None)
    raise DataError(
        f"{source}: of no kind that is known by its ending: a folder, .inter, .npz, {', '.join(TABLE_ENDINGS)}, "
        f".zip or .tar (also .gz, .bz2, .xz)"
    )


def _read_folder(folder: Path, columns: Columns, division: Division) -> Imported:
    tables = [checked_file(path, folder) for path in sorted(folder.glob("*.inter"))]
    if any(is_recbole(path) for path in tables if path.is_file()):
        return _from_recbole(tables, columns, division)
    others = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in TABLE_ENDINGS]
    others = [checked_file(path, folder) for path in others if path.name not in (ITEMS, USERS)]
    if not tables and not (folder / "interactions.npz").exists() and len(others) == 1:
        return _from_tables([read_table(others[0], columns)], division)
    _refuse_options(folder, columns, division)
    dataset = read_folder(folder)
    check_recorded_hash(dataset, folder)
    users, items = read_ids(folder, USERS, dataset.n_users), read_ids(folder, ITEMS, dataset.n_items)
    return Imported(dataset, users, items)


def _refuse_options(source: Path, columns: Columns, division: Division) -> None:
    """Options that would change nothing are mistakes: this source has parts and columns of its own."""
    if columns != Columns():
        raise ConfigError(f"{source}: columns have fixed names here: leave --user, --item, --time and --part out")
    if division != Division():
        raise ConfigError(f"{source}: has parts of its own: leave --split and --split-seed out")


def _from_recbole(files: list[Path], columns: Columns, division: Division) -> Imported:
    if columns.part is not None:
        raise ConfigError(f"{files[0]}: RecBole keeps parts in files of their own: leave --part out")
    by_part = {part: path for part, ending in RECBOLE_ENDINGS.items() for path in files if path.name.endswith(ending)}
    if by_part and (set(by_part) != set(PARTS) or len(files) != len(PARTS)):
        raise DataError(
            f"{files[0].parent}: found {', '.join(path.name for path in files)[:200]}; needed is one NAME.inter, or "
            f"NAME.train.inter, NAME.valid.inter and NAME.test.inter"
        )
    if not by_part and len(files) != 1:
        raise DataError(f"{files[0].parent}: {len(files)} .inter files: name the one that is meant")
    notes = []
    if any(files[0].parent.glob("*.npy")):
        notes.append("features beside RecBole files are left out, since their order is unknown: bm3 data add-features")
    if not by_part:
        found = _from_tables([read_recbole(files[0], columns)], division)
    else:
        tables = []
        for part in PARTS:
            table = read_recbole(by_part[part], columns)
            tables.append(replace(table, parts=[part] * len(table.users), times=None))
        found = _from_tables(tables, division)
    return replace(found, notes=(*found.notes, *notes))


def _from_tables(tables: list[Table], division: Division) -> Imported:
    """Number ids by first appearance and divide interactions, unless the tables say which part each belongs to."""
    where = tables[0].where
    user_numbers, users = numbered(user for table in tables for user in table.users)
    item_numbers, items = numbered(item for table in tables for item in table.items)
    pairs = np.stack([user_numbers, item_numbers], axis=1)
    notes = [f"ids are numbered by first appearance; the original ones are in {USERS} and {ITEMS}"]
    parts: Mapping[Part, NDArray[Any]]
    if tables[0].parts is not None:
        if division != Division():
            raise ConfigError(f"{where}: interactions come in parts: leave --split and --split-seed out")
        labels = np.array([label for table in tables for label in table.parts or ()])
        parts = {part: pairs[labels == part] for part in PARTS}
    else:
        times = tables[0].times
        moments = None if times is None else np.array(times, np.float64)
        pairs, moments, repeats = _without_repeats(pairs, len(items), moments)
        if repeats:
            kept = "the first in the file" if moments is None else "the earliest"
            notes.append(f"{repeats:,} interactions repeat a pair of user and item; of each pair {kept} was kept")
        parts = divide(pairs, moments, division, where)
        parts, users, items, gone = _without_gaps(parts, users, items)
        if gone:
            notes.append(gone)
    dataset = checked_dataset(Path(where).stem, parts, {}, where=where)
    return Imported(dataset, users, items, tuple(notes))


def divide(
    pairs: NDArray[np.int64], times: NDArray[np.float64] | None, division: Division, where: str
) -> Mapping[Part, NDArray[Any]]:
    """The interactions [n, 2] in parts, by the rule of `harness.data.split` that is named; raises ConfigError."""
    rule = split_rule(division.rule or SPLIT_RULES[0])
    if times is None and rule.by_time:
        raise ConfigError(f"{where}: the rule {rule.name} goes by time: name the column with --time")
    moments: NDArray[Any] = np.zeros(len(pairs)) if times is None else times
    return rule.divide(pairs, moments, np.random.default_rng(division.seed or 0))


def _without_repeats(
    pairs: NDArray[np.int64], n_items: int, times: NDArray[np.float64] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None, int]:
    """Each pair once, in the order of the file; of repeated ones the earliest, or the first where no time is known."""
    keys = pairs[:, 0] * n_items + pairs[:, 1]
    order = np.arange(len(keys)) if times is None else np.argsort(times, kind="stable")
    _, first = np.unique(keys[order], return_index=True)
    kept = np.sort(order[first])
    return pairs[kept], None if times is None else times[kept], len(keys) - len(kept)


def _without_gaps(
    parts: Mapping[Part, NDArray[Any]], users: list[str], items: list[str]
) -> tuple[Mapping[Part, NDArray[Any]], list[str], list[str], str]:
    """Number anew where a rule left interactions out, in the order of before; and a line that says what is gone."""
    together = np.concatenate([parts[part] for part in PARTS])
    kept_users, kept_items = np.unique(together[:, 0]), np.unique(together[:, 1])
    gone = Counter(users=len(users) - len(kept_users), items=len(items) - len(kept_items))
    if not gone.total():
        return parts, users, items, ""
    compact = {
        part: np.stack([np.searchsorted(kept_users, pairs[:, 0]), np.searchsorted(kept_items, pairs[:, 1])], axis=1)
        for part, pairs in parts.items()
    }
    text = f"{gone['users']:,} users and {gone['items']:,} items are in no part by this rule, and left out"
    return compact, [users[u] for u in kept_users], [items[i] for i in kept_items], text
