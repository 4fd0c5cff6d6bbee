"""Bringing data sets of other layouts into the `.inter` layout: folders, archives, tables, RecBole's atomic files.

Reading one table is `tables`, unpacking is `archives`, and what must hold of the result `harness.data.dataset`.
"""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bm3 import BM3Error, ConfigError, DataError
from harness.data.dataset import PARTS, Dataset, checked_dataset
from harness.data.files import checked_file, new_folder
from harness.data.layouts import read_folder, read_interactions
from harness.data.split import Parts, split_rule, without_gaps, without_repeats
from harness.data.words import SPLIT_RULES
from harness.ingest.archives import is_archive, unpack
from harness.ingest.exporting import (
    ITEMS,
    RECORD,
    USERS,
    checked_name,
    read_ids,
    recorded_hash,
    write_dataset,
    write_ids,
)
from harness.ingest.tables import TABLE_ENDINGS, Columns, Table, is_recbole, read_recbole, read_table


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
        write_dataset(found.dataset, folder, name)
        for file, ids in ((USERS, found.users), (ITEMS, found.items)):
            if ids is not None:
                write_ids(folder / file, ids)
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
        return Imported(checked_dataset(source.stem, read_interactions(source), {}, where=str(source)), None, None)
    raise DataError(
        f"{source}: of no kind that is known by its ending: a folder, .inter, .npz, {', '.join(TABLE_ENDINGS)}, "
        f".zip or .tar (also .gz, .bz2, .xz)"
    )


def _read_folder(folder: Path, columns: Columns, division: Division) -> Imported:
    files = [checked_file(path, folder) for path in sorted(folder.glob("*.inter"))]
    if any(is_recbole(path) for path in files if path.is_file()):
        return _from_recbole(files, columns, division)
    tables = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in TABLE_ENDINGS]
    tables = [checked_file(path, folder) for path in tables if path.name not in (ITEMS, USERS)]
    if not files and not (folder / "interactions.npz").exists() and len(tables) == 1:
        return _from_tables([read_table(tables[0], columns)], division)
    _refuse_options(folder, columns, division)
    dataset, recorded = read_folder(folder), recorded_hash(folder)
    if recorded not in (None, dataset.content_hash):
        raise DataError(
            f"{folder / RECORD}: records the content hash {str(recorded)[:80]!r}, but the files have "
            f"{dataset.content_hash}: copy or export them again, or remove {RECORD} if they were meant to change"
        )
    return Imported(dataset, read_ids(folder, USERS, dataset.n_users), read_ids(folder, ITEMS, dataset.n_items))


def _refuse_options(source: Path, columns: Columns, division: Division) -> None:
    """Options that would change nothing are mistakes: this source has parts and columns of its own."""
    if columns != Columns():
        raise ConfigError(f"{source}: columns have fixed names here: leave --user, --item, --time and --part out")
    if division != Division():
        raise ConfigError(f"{source}: has parts of its own: leave --split and --split-seed out")


def _from_recbole(files: list[Path], columns: Columns, division: Division) -> Imported:
    if columns.part is not None:
        raise ConfigError(f"{files[0]}: RecBole keeps parts in files of their own: leave --part out")
    by_part = {part: path for part in PARTS for path in files if path.name.endswith(f".{part}.inter")}
    if (by_part or len(files) != 1) and (len(by_part) != len(PARTS) or len(files) != len(PARTS)):
        raise DataError(
            f"{files[0].parent}: found {', '.join(path.name for path in files)[:200]}; needed is one NAME.inter, or "
            f"NAME.train.inter, NAME.valid.inter and NAME.test.inter"
        )
    if by_part:
        tables = [read_recbole(path, columns) for path in by_part.values()]
        for part, table in zip(by_part, tables, strict=True):
            table.times, table.parts = None, [part] * len(table.users)
    else:
        tables = [read_recbole(files[0], columns)]
    found = _from_tables(tables, division)
    if any(files[0].parent.glob("*.npy")):
        note = "features beside RecBole files are left out, since their order is unknown: bm3 data add-features"
        return replace(found, notes=(*found.notes, note))
    return found


def _from_tables(tables: list[Table], division: Division) -> Imported:
    """Number ids by first appearance and divide interactions, unless the tables say which part each belongs to."""
    where = tables[0].where
    user_numbers, users = _numbered(user for table in tables for user in table.users)
    item_numbers, items = _numbered(item for table in tables for item in table.items)
    pairs = np.stack([user_numbers, item_numbers], axis=1)
    notes = [f"ids are numbered by first appearance; the original ones are in {USERS} and {ITEMS}"]
    parts: Parts
    if tables[0].parts is not None:
        if division != Division():
            raise ConfigError(f"{where}: interactions come in parts: leave --split and --split-seed out")
        labels = np.array([label for table in tables for label in table.parts or ()])
        parts = {part: pairs[labels == part] for part in PARTS}
    else:
        times = None if tables[0].times is None else np.array(tables[0].times, np.float64)
        kept = without_repeats(pairs, None if times is None else np.argsort(times, kind="stable"))
        if len(kept) < len(pairs):
            first = "the first in the file" if times is None else "the earliest"
            notes.append(f"{len(pairs) - len(kept):,} interactions repeat a pair of user and item; {first} was kept")
        rule = split_rule(division.rule or SPLIT_RULES[0])
        if times is None and rule.by_time:
            raise ConfigError(f"{where}: the rule {rule.name} goes by time: name the column with --time")
        moments: NDArray[Any] = np.zeros(len(pairs)) if times is None else times
        divided = rule.divide(pairs[kept], moments[kept], np.random.default_rng(division.seed or 0))
        kept_users, kept_items, parts = without_gaps(rule.checked(divided, where))
        gone = len(users) - len(kept_users), len(items) - len(kept_items)
        if any(gone):
            notes.append(f"{gone[0]:,} users and {gone[1]:,} items are in no part by this rule, and left out")
        users, items = [users[user] for user in kept_users], [items[item] for item in kept_items]
    dataset = checked_dataset(Path(where).stem, parts, {}, where=where)
    if not len(dataset.valid):
        notes.append("there is no validation part: training takes as many epochs as --epochs says, all of them")
    return Imported(dataset, users, items, tuple(notes))


def _numbered(ids: Iterable[str]) -> tuple[NDArray[np.int64], list[str]]:
    """The numbers of `ids`, in order of first appearance, [n]; and the id behind each number."""
    number: dict[str, int] = {}
    numbers = np.fromiter((number.setdefault(each, len(number)) for each in ids), np.int64)
    return numbers, list(number)
