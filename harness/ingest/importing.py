"""Bringing data sets of other layouts into the `.inter` layout: folders, archives, tables, RecBole's atomic files.

Reading tables is `tables`, unpacking is `archives`, and what must hold of the result `harness.data.dataset`.
"""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bm3 import BM3Error, ConfigError, DataError
from harness.data.dataset import PARTS, Dataset, Part, checked_dataset, checked_pairs
from harness.data.files import checked_file, listed, new_folder
from harness.data.layouts import (
    ARCHIVE,
    INTER_COLUMNS,
    MODALITY_NAMES,
    read_features,
    read_interactions,
    unread_files,
    visible,
)
from harness.data.split import Parts, SplitRule, split_rule, without_gaps
from harness.data.words import DEFAULT_SPLIT_SEED, SPLIT_RULES
from harness.ingest.archives import is_archive, unpack
from harness.ingest.exporting import (
    ITEMS,
    RECORD,
    USERS,
    called,
    checked_name,
    own_ids,
    read_ids,
    recorded_hash,
    write_dataset,
)
from harness.ingest.features import Fill, join_by_id
from harness.ingest.tables import INTER, Columns, InMemory, Table, first_names, is_table, k_core, part_of, read_tables


@dataclass(frozen=True)
class Imported:
    """A data set, the original ids behind its numbers where there are any, and what a reader should know."""

    dataset: Dataset
    users: list[str] | None
    items: list[str] | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Division:
    """Which interactions of a table count, and how those that come in no parts are divided."""

    rule: str | None = None
    """None: the first of SPLIT_RULES."""
    seed: int | None = None
    min_rating: float | None = None
    k_core: int | None = None


def import_dataset(
    source: Path | InMemory,
    name: str,
    root: Path,
    columns: Columns | None = None,
    division: Division | None = None,
    table: str | None = None,
    features: Mapping[str, tuple[Sequence[str], NDArray[Any]]] = MappingProxyType({}),
    *,
    fill: Fill | None = None,
    again: bool = False,
) -> Imported:
    """Read `source` and write it as the new folder `root`/`name`; nothing is written unless all of it can be read.

    `source` is a folder, an archive of one, a file, or a table in memory; `table` is the one that is meant of several.
    `features` are modalities to add, each the ids of its rows and the rows [n, d]; items without a row get what `fill`
    says. `again`: the folder may be there with the same content and ids, and then stays. Raises DataError for what
    cannot be read, ConfigError for options that do not fit it.
    """
    target = root / checked_name(name, "data set")
    if target.exists() and not again:  # known at the end too, but reading may take long
        raise DataError(f"{target}: exists already; remove it or choose another name")
    found = read_source(source, columns or Columns(), division or Division(), table)
    found = _with_features(found, features, fill)
    found = replace(found, dataset=replace(found.dataset, name=name))
    if again and target.is_dir():
        dataset, own = found.dataset, (found.users, found.items)
        same = recorded_hash(target) == dataset.content_hash
        if same and called(own_ids(f"{root}/{name}", None, dataset), dataset) == called(own, dataset):
            return found
        other = "ids of users or items" if same else "content"
        raise DataError(f"{target}: exists already, with other {other}; remove it or choose another name")
    if not len(found.dataset.part("valid")):
        note = "there is no validation part: training takes as many epochs as --epochs says, all of them"
        found = replace(found, notes=(*found.notes, note))
    with new_folder(target) as folder:
        write_dataset(found.dataset, folder, name, found.users, found.items)
    return found


def _with_features(
    found: Imported, features: Mapping[str, tuple[Sequence[str], NDArray[Any]]], fill: Fill | None
) -> Imported:
    """The data set with these too, in the order of its items. Raises DataError."""
    items = found.items or [*map(str, range(found.dataset.n_items))]
    tables, notes = dict[str, NDArray[Any]](), found.notes
    for modality, (ids, rows) in features.items():
        joined = join_by_id(rows, ids, items, f"features {modality!r}", fill=fill)
        meant = MODALITY_NAMES.get(modality, modality)
        if meant in tables:
            raise DataError(f"features {modality!r}: are given already under another name of {meant!r}: leave one out")
        tables[meant] = joined.table
        notes = (*notes, *(f"{modality}: {note}" for note in joined.notes(fill)))
    if not tables:
        return found
    parts = {part: found.dataset.part(part) for part in PARTS}
    rest, surrogates = found.dataset.features, found.dataset.surrogates - tables.keys()
    dataset = checked_dataset("", parts, {**rest, **tables}, surrogates=surrogates, where="features")
    return replace(found, dataset=dataset, notes=notes)


def read_source(source: Path | InMemory, columns: Columns, division: Division, table: str | None = None) -> Imported:
    """What `source` holds, whatever its layout; raises DataError or ConfigError."""
    if isinstance(source, InMemory):
        return _from_tables([source], None, columns, division)
    if source.is_dir():
        return _read_folder(source, columns, division, table)
    if not source.is_file():
        raise DataError(f"{source}: no such file or folder")
    if is_archive(source):
        with tempfile.TemporaryDirectory(prefix="bm3-import-") as temporary:
            try:
                return _read_folder(unpack(source, Path(temporary)), columns, division, table)
            except BM3Error as error:
                # The temporary folder means nothing to whoever reads the message.
                raise type(error)(str(error).replace(temporary, str(source))) from error
    if table is not None:
        raise ConfigError(f"{source}: one file: leave --table out")
    if source.suffix.lower() == ".npz" or _is_layout(source):
        return _from_layout(source, None, columns, division)
    if is_table(source):
        return _from_tables([source], None, columns, division)
    raise DataError(f"{source}: of no kind that is known by its ending; bm3 data import --help says what can be read")


def _is_layout(path: Path, columns: Sequence[str] = INTER_COLUMNS) -> bool:
    """Whether a file is of the .inter layout, with these columns."""
    return path.suffix.lower() == INTER and set(columns) <= set(first_names(path))


def _read_folder(folder: Path, columns: Columns, division: Division, table: str | None) -> Imported:
    archive = folder / ARCHIVE
    tables = [checked_file(path, folder) for path in visible(folder) if is_table(path)]
    if table is not None:
        tables = [path for path in tables if path.name == table] or [checked_file(folder / table, folder)]
    elif archive.exists() or [path.suffix.lower() for path in tables].count(INTER) == 1:
        tables = [path for path in tables if path.suffix.lower() == INTER]
    if table is None and (archive.exists() or (len(tables) == 1 and _is_layout(tables[0]))):
        if archive.exists() and tables:
            raise DataError(f"{folder}: interactions stand in {ARCHIVE} and in {tables[0].name}: keep one of the two")
        return _from_layout(tables[0] if tables else checked_file(archive, folder), folder, columns, division)
    parts = {part_of(path) for path in tables}
    if len(tables) == 1 or (len(parts) == len(tables) and parts in ({0, 1, 2}, {0, 2})):
        tables.sort(key=lambda path: part_of(path) or 0)
        return _from_tables(tables, folder, columns, division)
    if not tables:
        found = listed(path.name for path in visible(folder))
        raise DataError(
            f"{folder}: needed is a table, {ARCHIVE} or one NAME.inter, found {found}: give what has the interactions"
        )
    each = " and ".join(f"NAME.{part}{tables[0].suffix}" for part in PARTS)
    raise DataError(
        f"{folder}: {len(tables)} tables ({listed(path.name for path in tables)}): name the one with the interactions "
        f"with --table FILE, or have one for each part: {each}"
    )


def _from_layout(path: Path, folder: Path | None, columns: Columns, division: Division) -> Imported:
    """Parts of numbered users and items; those of `folder` have features and original ids."""
    if columns != Columns():
        raise ConfigError(
            f"{path}: columns have fixed names here: leave --user, --item, --time, --part and --rating out"
        )
    if division != Division():
        raise ConfigError(f"{path}: has parts of its own: leave --split, --split-seed, --k-core and --min-rating out")
    read = read_interactions(path)
    users, items, parts = without_gaps({part: checked_pairs(read[part], part, str(path)) for part in PARTS})
    found = _beside(folder, path, parts, users, items)
    recorded = None if folder is None else recorded_hash(folder)
    if folder is not None and recorded not in (None, found.dataset.content_hash):
        raise DataError(
            f"{folder / RECORD}: records the content hash {str(recorded)[:80]!r}, but the files have "
            f"{found.dataset.content_hash}: copy or export them again, or remove {RECORD} if they were meant to change"
        )
    if folder is None:
        others = [each.name for each in visible(path.parent) if each.suffix == ".npy" or each.name in (USERS, ITEMS)]
    else:
        others = unread_files(folder)
    why = "" if folder else " (give the folder, not one file of it)"
    notes = (*found.notes, *([f"not read{why}: {listed(others)}"] if others else []))
    return replace(found, users=found.users or _where_anew(users), items=found.items or _where_anew(items), notes=notes)


def _where_anew(numbers: Sequence[int]) -> list[str] | None:
    """The numbers in the file, as ids by which rows are joined later, unless they are the new ones too."""
    return None if [*numbers] == [*range(len(numbers))] else [*map(str, numbers)]


def _beside(
    folder: Path | None,
    path: Path,
    parts: Parts,
    users: Sequence[int],
    items: Sequence[int],
    numbered: Collection[int] | None = None,
) -> Imported:
    """The data set of `parts`, whose users and items have these numbers in the files of `folder`.

    `numbered` are all item numbers in the file, by default `items`: the rows of features are from 1 on where these
    numbers are, and else from 0 on.
    """
    features, surrogates, files = read_features(folder) if folder is not None else ({}, frozenset[str](), {})
    highest, lowest = max(numbered or items), min(numbered or items)
    notes, own = list[str](), {}
    if len(users) <= max(users) or len(items) <= max(items):
        notes.append("some numbers have no interactions; users and items are numbered anew without them")
    for modality, table in features.items():
        if table.ndim == 0:
            continue
        first = int(lowest > 0 and len(table) == highest)
        if len(table) + first <= highest:
            raise DataError(
                f"{files[modality]}: has {len(table):,} rows, and items have numbers to {highest:,}: give a row to "
                f"each number from 0 on, or move the file away and join its rows with bm3 data add-features --ids"
            )
        if lowest > 0 and not first:
            taken = f"items are numbered from {lowest} on, and {files[modality]} has {len(table):,} rows"
            if numbered is not None:
                mend = "move it away and join its rows with bm3 data add-features --ids"
                raise DataError(f"{taken}: whether the first is of item 0 or 1 is not known: {mend}")
            notes.append(f"{taken}, of which the first is taken to be of item 0")
        if len(table) > len(items):
            gone = len(table) - len(items)
            notes.append(f"items with {modality} features but no interactions, left out: {gone:,}")
        if first:
            notes.append(f"items are numbered from 1 on, and so are the rows of their {modality} features")
        rows = np.array(items) - first
        if not np.array_equal(rows, np.arange(len(table))):
            features[modality] = table[rows]
    for kind, name, numbers in (("user", USERS, users), ("item", ITEMS, items)):
        ids = None if folder is None else read_ids(folder, name)
        if ids is not None and len(ids) <= max(numbers):
            raise DataError(f"{path.parent / name}: has {len(ids)} ids, and numbers go to {max(numbers)}: list all")
        if ids is not None:
            own[kind] = [ids[number] for number in numbers]
    dataset = checked_dataset(
        path.stem, parts, features, surrogates=surrogates, where=str(path), feature_files=files, ids=own
    )
    return Imported(dataset, own.get("user"), own.get("item"), tuple(notes))


def _from_tables(
    paths: Sequence[Path | InMemory], folder: Path | None, columns: Columns, division: Division
) -> Imported:
    """Choose and divide interactions, unless the tables say which part each belongs to."""
    where, rule = str(paths[0]), split_rule(division.rule or SPLIT_RULES[0])
    if columns.part is not None and len(paths) > 1:
        raise ConfigError(f"{where}: parts are in files of their own: leave --part out")
    if columns.rating is not None and division.min_rating is None:
        raise ConfigError(f"{where}: ratings decide nothing without --min-rating: give it, or leave --rating out")
    wanted = {
        "rating": division.min_rating is not None,
        "part": len(paths) == 1 and division.rule is None and division.seed is None,
        "time": rule.by_time,
    }
    find = ["user", "item", *(kind for kind, is_wanted in wanted.items() if is_wanted)]
    table = read_tables(paths, columns, find=find, min_rating=division.min_rating)
    notes = list(table.notes)
    beside = [] if folder is None else visible(folder)
    if others := [path.name for path in beside if path not in paths and path.suffix != ".npy"]:
        notes.append(f"not read: {listed(others)}")
    parts: Parts
    anew = division.rule is not None and columns.part is None
    if table.labels is not None and not anew:
        if division != Division():
            raise ConfigError(
                f"{where}: interactions come in parts: leave --split, --split-seed, --k-core and --min-rating out"
            )
        kept = table.rows(np.flatnonzero(np.isin(table.users, table.users[table.labels == 0])))
        parts = {part: kept.pairs[kept.labels == label] for label, part in enumerate(PARTS)}
        users, items = kept.user_ids, kept.item_ids
        for label, part in enumerate(PARTS):
            if len(parts[part]) == 0 and (of_new := int((table.labels == label).sum())):
                why = f"all its {of_new:,} interactions are of new users, without training; divide anew with --split"
                raise DataError(f"{table.where}: part {part} is empty: {why}")
        if new := len(table.user_ids) - len(users):
            rest = len(table) - len(kept)
            notes.append(f"{new:,} users have no interaction in training, so their {rest:,} interactions are left out")
    else:
        core, counts = k_core(table, division.k_core or 1, earliest=True)
        if counts["duplicates"]:
            first = "the first in the file" if table.times is None else "the earliest"
            notes.append(f"{counts['duplicates']:,} interactions repeat a pair of user and item; {first} was kept")
        parts, users, items = divide(core, rule.name, division.seed)
        for before, after, why in (
            (table, (core.user_ids, core.item_ids), f"have too few interactions for the {division.k_core}-core"),
            (core, (users, items), "are in no part by this rule"),
        ):
            gone = len(before.user_ids) - len(after[0]), len(before.item_ids) - len(after[1])
            if any(gone):
                notes.append(f"{gone[0]:,} users and {gone[1]:,} items {why}, and left out")
    table_file, numbers = paths[0], all(each.isdecimal() and str(int(each)) == each for each in (*users, *items))
    if numbers and folder is not None and isinstance(table_file, Path) and _is_layout(table_file, INTER_COLUMNS[:2]):
        numbered = {int(item) for item in table.all_item_ids if item.isdecimal()}
        found = _beside(folder, table_file, parts, [*map(int, users)], [*map(int, items)], numbered)
        return replace(found, users=found.users or users, items=found.items or items, notes=(*notes, *found.notes))
    dataset = checked_dataset("", parts, {}, where=table.where, ids={"user": users, "item": items})
    notes.append(f"ids are numbered by first appearance; the original ones are in {USERS} and {ITEMS}")
    if folder is not None and visible(folder, "*.npy"):
        notes.append("features beside tables are left out, since their order is unknown: bm3 data add-features")
    return Imported(dataset, users, items, tuple(notes))


def divide(table: Table, name: str, seed: int | None) -> tuple[Parts, list[str], list[str]]:
    """Parts by the rule of that name, without gaps, and the ids of the users and items in them.

    Raises ConfigError for a rule by time where there are no times, DataError with the cause for a part without any.
    """
    rule = split_rule(name)
    if not rule.drawn and seed is not None:
        raise ConfigError(f"split {rule.name}: nothing is drawn; leave --split-seed out")
    if table.times is None and rule.by_time:
        raise ConfigError(f"{table.where}: the rule {rule.name} goes by time: name the column with --time")
    times: NDArray[Any] = np.zeros(len(table)) if table.times is None else table.times
    divided = rule.divide(table.pairs, times, np.random.default_rng(DEFAULT_SPLIT_SEED if seed is None else seed))
    for part in PARTS:
        if len(divided[part]) == 0 and (rule.validation or part != "valid"):
            raise DataError(
                f"{table.where}: part {part} is empty by the rule {rule.name}: {_why_empty(table, rule, part)}"
            )
    users, items, parts = without_gaps(divided)
    return parts, [table.user_ids[user] for user in users], [table.item_ids[item] for item in items]


def _why_empty(table: Table, rule: SplitRule, part: Part) -> str:
    """Why a rule leaves a part empty, for a message."""
    times, n = table.times, len(table)
    if times is None or not rule.name.startswith("temporal_global"):
        return f"no user has more than {np.bincount(table.users).max()} interactions"
    ordered = np.sort(times)
    begins = {
        "train": ordered[0],
        "valid": ordered[n * 8 // 10],
        "test": ordered[n * (9 if rule.validation else 8) // 10],
    }
    begin = begins[part]
    shown = datetime.fromtimestamp(begin, UTC).isoformat(" ") if table.dates else f"{begin:.15g}"
    inside = (times >= begin) & (times < begins["test"] if part == "valid" else True)
    if part == "train" or not inside.any():
        equal = int((times == begin).sum())
        return f"{equal:,} of {n:,} interactions have the same time, {shown}, and equal times are not divided"
    return f"all {inside.sum():,} interactions of it, from {shown} on, are of new users, without training"
