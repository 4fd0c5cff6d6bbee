"""Tables of interactions, one a row, as people have them: text with separators, JSON lines, parquet, RecBole's files.

Reading one gives numbers and the ids behind them. Dividing interactions is `importing`.
"""

import ast
import importlib
import json
import math
import re
import warnings
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bm3 import ConfigError, DataError
from harness.data.dataset import PARTS
from harness.data.files import RawFile, Report, check_claim, column_positions, listed, read_csv, reading
from harness.data.split import Pairs, without_repeats

TEXT_ENDINGS = (".csv", ".tsv", ".txt", ".dat", ".data", ".jsonl", ".ndjson", ".json")
PARQUET, INTER = ".parquet", ".inter"
TABLE_NAME = re.compile(
    rf".*({'|'.join(map(re.escape, TEXT_ENDINGS))}|\{INTER})(\.gz|\.bz2|\.xz)?|.*\{PARQUET}", re.IGNORECASE | re.DOTALL
)
USUAL = {
    "user": ("user_id", "userid", "user", "reviewerid", "uid"),
    "item": ("item_id", "itemid", "item", "parent_asin", "asin", "movieid"),
    "time": ("timestamp", "time", "unixreviewtime"),
    "rating": ("rating", "overall", "stars"),
    "part": ("x_label",),
}
"""What columns are called, in lower case: those of MovieLens, of Amazon's files of 2014 to 2023, and of RecBole."""
PART_NAMES: dict[str, int] = {
    **{part: label for label, part in enumerate(PARTS)},
    **{str(label): label for label in range(len(PARTS))},
    **dict.fromkeys(("validation", "val", "dev"), 1),
}
PART_IN_NAME = re.compile(r"(?:^|.*[._-])(train|valid|validation|val|dev|test)\..*", re.IGNORECASE)
TYPED = re.compile(r"\w+:(token|float)(_seq)?")
"""A column in the header of RecBole's atomic files, as its documentation has them."""
NUMBER = re.compile(r"[+-]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,3})?", re.ASCII)
"""What programs write of a number, be it of double precision; never one of thousands of digits."""
PRODUCT, REVIEWER = re.compile(r"B[0-9A-Z]{9}|[0-9]{9}[0-9X]"), re.compile(r"A[0-9A-Z]{9,}")
"""Ids of items and of users at Amazon."""
NEEDED = {
    "time": "a number, or a date such as 2023-05-01 12:30:00, and in all rows the same of the two",
    "part": f"one of {', '.join(PART_NAMES)}",
    "rating": "a number",
}
ONE_COLUMN = " in one column; needed are commas, tabs, ;, | or :: between columns"
HALF = re.compile("[\ud800-\udfff\0\r]")
"""What JSON can escape and no file of ids can hold."""
MAX_ID = 10_000
LOOKED_AT = 1000  # ids, to tell users from items
BATCH = 65_536  # rows of parquet at a time
MAX_LITERAL = 2**20
"""Bytes. Parsing a literal takes some hundred times its size in memory."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table say what, by name, or by number from 1 where there is no header; None: not said."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    part: str | None = None
    rating: str | None = None

    @property
    def named(self) -> dict[str, str]:
        return {each.name: column for each in fields(self) if (column := getattr(self, each.name)) is not None}

    @property
    def positional(self) -> bool:
        """Whether all that are named are numbers, so that there is no header."""
        return all(column.isdecimal() for column in self.named.values())


@dataclass(frozen=True, eq=False)
class InMemory:
    """A table that is in no file, read once, where a path could stand."""

    name: str
    tables: Sequence[Mapping[str, Iterable[Any]]]
    """Columns by name; of each part, one of them saying which it is, where there are several."""

    def __str__(self) -> str:
        return self.name


AMAZON_2014 = Columns("1", "2", "4")
"""Of ratings_NAME.csv, which has no header."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Interactions in the order of their file; users and items are numbered in order of first appearance."""

    where: str
    users: NDArray[np.int32]  # [n]
    items: NDArray[np.int32]  # [n]
    times: NDArray[np.float64] | None  # [n], as the file has them, or in seconds since 1970 where it has dates
    labels: NDArray[np.float64] | None  # [n], positions in PARTS
    user_ids: list[str]  # [U], what the file calls each user
    item_ids: list[str]  # [I]
    dates: bool = False
    notes: tuple[str, ...] = ()
    all_item_ids: Sequence[str] = ()
    """Of all rows of the file, those with a low rating too."""

    def __len__(self) -> int:
        return len(self.users)

    @property
    def pairs(self) -> Pairs:
        """[n, 2]"""
        return np.stack([self.users, self.items], axis=1)

    def rows(self, kept: NDArray[np.integer]) -> "Table":
        """The rows at these positions alone, numbered anew."""
        users, user_ids = _renumbered(self.users[kept], self.user_ids)
        items, item_ids = _renumbered(self.items[kept], self.item_ids)
        return replace(
            self,
            users=users,
            items=items,
            times=None if self.times is None else self.times[kept],
            labels=None if self.labels is None else self.labels[kept],
            user_ids=user_ids,
            item_ids=item_ids,
        )


def _renumbered(old: NDArray[np.int32], ids: list[str]) -> tuple[NDArray[np.int32], list[str]]:
    """Numbers in order of first appearance in `old`, and the ids in the new order."""
    present, first, inverse = np.unique(old, return_index=True, return_inverse=True)
    order = np.argsort(first)
    new = np.empty(len(present), np.int32)
    new[order] = np.arange(len(present), dtype=np.int32)
    return new[inverse], [ids[number] for number in present[order].tolist()]


def k_core(table: Table, k: int, *, earliest: bool = False) -> tuple[Table, dict[str, int]]:
    """The largest set of interactions in which every user and every item has at least `k`, and what was counted.

    Of several rows of one pair the first in the file counts, or the `earliest` if there are times. Users and items with
    too few are removed together, then all are counted again. Raises DataError when nothing is left.
    """
    order = np.argsort(table.times, kind="stable") if earliest and table.times is not None else None
    kept = without_repeats(table.pairs, order)
    duplicates, rounds = len(table) - len(kept), 0
    while len(kept):
        users, items = table.users[kept], table.items[kept]
        enough = (np.bincount(users)[users] >= k) & (np.bincount(items)[items] >= k)
        if enough.all():
            break
        kept, rounds = kept[enough], rounds + 1
    if len(kept) == 0:
        raise DataError(
            f"{table.where}: no users and items with at least {k} interactions among themselves are left of "
            f"{len(table)} rows; choose a lower --k-core"
        )
    core = table.rows(kept)
    counts = {
        "ratings": len(table),
        "duplicates": duplicates,
        "core_rounds": rounds,
        "core_users": len(core.user_ids),
        "core_items": len(core.item_ids),
        "core_interactions": len(core),
    }
    return core, counts


# --- reading ---


def is_table(path: Path) -> bool:
    """Whether the name of `path` is that of a table that can be read."""
    return TABLE_NAME.fullmatch(path.name) is not None


def part_of(path: Path) -> int | None:
    """The position in PARTS of the part that a file is named for, as in NAME.train.csv."""
    match = PART_IN_NAME.fullmatch(path.name)
    return PART_NAMES[match[1].lower()] if match else None


def first_names(path: Path) -> list[str]:
    """The names of a table's columns, or the fields of its first line where it has no header. Raises DataError."""
    return _open(path)[0]


def read_tables(
    paths: Sequence[Path | InMemory],
    columns: Columns,
    *,
    find: Collection[str] = ("user", "item"),
    usual: Columns | None = None,
    min_rating: float | None = None,
    report: Report = lambda position, size: None,
) -> Table:
    """The rows of a table, or of one for each part, which is in its name, as a Table.

    Columns that are not named are found by their usual names, if `find` has them, or else are `usual`, by number. Rows
    with a lower rating than `min_rating` are left out. Raises DataError with the row, ConfigError for a missing option.
    """
    user_ids: dict[str, int] = {}
    item_ids: dict[str, int] = {}
    users, items, values = array("i"), array("i"), {kind: array("d") for kind in ("time", "part", "rating")}
    parsers: dict[str, Callable[[str], float | None]] = {"part": _label, "rating": number_in}
    found, guessed = columns, False
    for path in paths:
        names, unit, read = _open(path, report)
        label = part_of(path) if isinstance(path, Path) and len(paths) > 1 else None
        if path is paths[0]:
            found, guessed = _found(names, columns, find, usual, str(path))
        others = [kind for kind in found.named if kind in values]
        for number, (user, item, *rest) in read(list(found.named.values()), found.positional):
            if not user or not item:
                missing = "item" if user else "user"
                raise DataError(f"{path}, {unit} {number}: no {missing}: fill it in or remove the row")
            users.append(user_ids.setdefault(user, len(user_ids)))
            items.append(item_ids.setdefault(item, len(item_ids)))
            for kind, text in zip(others, rest, strict=True):
                if kind not in parsers:  # one form of times for all rows, or their order would mean nothing
                    parsers[kind] = number_in if NUMBER.fullmatch(text) else _date
                value = parsers[kind](text)
                if value is None:
                    what = f"{path}, {unit} {number}: {getattr(found, kind)} is {text[:40]!r}"
                    raise DataError(f"{what}, needed is {NEEDED[kind]}")
                values[kind].append(value)
            if label is not None:
                values["part"].append(label)
    times, labels, ratings = (np.frombuffer(read, np.float64) if read else None for read in values.values())
    table = Table(
        where=str(paths[0] if len(paths) == 1 else Path(str(paths[0])).parent),
        users=np.frombuffer(users, np.int32),
        items=np.frombuffer(items, np.int32),
        times=times,
        labels=labels,
        user_ids=list(user_ids),
        item_ids=list(item_ids),
        dates=parsers.get("time") is _date,
        all_item_ids=list(item_ids),
    )
    for each in (*user_ids, *item_ids):
        as_text(each, table.where)
    if not users:
        raise DataError(f"{table.where}: no interactions; needed is one a row")
    notes = []
    if found != columns:
        of_2023 = " (Amazon's of 2023)" if found.item == "parent_asin" else ""
        notes.append(f"columns{of_2023}: {', '.join(f'{kind} from {column}' for kind, column in found.named.items())}")
    if swapped := _swapped(table, found):
        if guessed:
            raise DataError(
                f"{table.where}: {swapped}: name the columns, as with --user {found.item} --item {found.user}"
            )
        notes.append(f"{swapped}; if they are, give --user {found.item} --item {found.user}")
    if ratings is not None and min_rating is not None:
        kept = np.flatnonzero(ratings >= min_rating)
        if len(kept) == 0:
            raise DataError(f"{table.where}: no row has a rating of {min_rating:g}; the highest is {ratings.max():g}")
        notes.append(f"{len(table) - len(kept):,} rows with a lower rating than {min_rating:g} are left out")
        table = table.rows(kept)
    return replace(table, notes=tuple(notes))


def _found(
    names: Sequence[str], columns: Columns, find: Collection[str], usual: Columns | None, where: str
) -> tuple[Columns, bool]:
    """Which columns are meant, and whether those of users and items were guessed from where they stand."""
    if not names:
        raise DataError(f"{where}: empty; needed is one interaction a row")
    if len(set(columns.named.values())) < len(columns.named):
        named = ", ".join(columns.named.values())
        raise ConfigError(f"{where}: one column is named for two things: {named}")
    found, guessed = dict(columns.named), False
    if not found or not columns.positional:
        by_lower = {name.lower(): name for name in reversed(names)}
        seen = {kind: next((by_lower[name] for name in USUAL[kind] if name in by_lower), None) for kind in find}
        found = {kind: name for kind, name in seen.items() if name is not None} | found
    if usual is not None and Columns(**found).positional:
        guessed = not found
        found = {kind: name for kind, name in (usual.named | found).items() if int(name) <= len(names)}
    for kind in ("user", "item", "rating"):
        if kind in find and kind not in found:
            raise ConfigError(
                f"{where}: which column holds the {kind}s? name it with --{kind} COLUMN, or its number where there is "
                f"no header; the first line has {listed(names)}{ONE_COLUMN if len(names) == 1 else ''}"
            )
    if Columns(**found).positional:
        for kind in ("user", "item"):
            name = dict(enumerate(names, 1)).get(int(found[kind]), "")
            if name.lower() in USUAL[kind]:
                raise ConfigError(
                    f"{where}: has a header, {listed(names)}: name columns by it, as with --{kind} {name}"
                )
    return Columns(**found), guessed


def _swapped(table: Table, columns: Columns) -> str | None:
    """Why users and items look like each other's, if they do."""
    if (columns.user or "").lower() in USUAL["item"] or (columns.item or "").lower() in USUAL["user"]:
        return f"users are read from the column {columns.user!r} and items from {columns.item!r}, which look swapped"
    for ids, form in ((table.user_ids, PRODUCT), (table.item_ids, REVIEWER)):
        looked_at = ids[:LOOKED_AT]
        if sum(form.fullmatch(each) is not None for each in looked_at) < 0.9 * len(looked_at):
            return None
    return (
        f"users and items look swapped: users have ids of products (ASIN), as {table.user_ids[0]}, and items those of "
        f"reviewers, as {table.item_ids[0]}"
    )


def _label(text: str) -> int | None:
    return PART_NAMES.get(text.lower())


def number_in(text: str) -> float | None:
    """The finite number that the text is, if it is one."""
    return float(text) if NUMBER.fullmatch(text) and math.isfinite(float(text)) else None


def _date(text: str) -> float | None:
    """Seconds since 1970 of an ISO 8601 date or time; without a zone, in UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


# --- what a file holds ---


Rows = Iterator[tuple[int, Sequence[str]]]
Source = tuple[list[str], str, Callable[[list[str], bool], Rows]]
"""Names of columns, what a row is called, and what reads some columns of each row, with its number in the file.

Where the columns are numbers from 1, the first line is a row too.
"""


def _open(path: Path | InMemory, report: Report = lambda position, size: None) -> Source:
    if isinstance(path, InMemory):
        return _in_memory(path)
    if path.suffix.lower() == PARQUET:
        return _parquet(path)
    with RawFile(path) as file:
        begin = next(file.lines(), (0, b""))[1]
    is_json = begin.lstrip().startswith(b"{") or (begin and re.search(r"\.(json|jsonl|ndjson)\b", path.name.lower()))
    return _json_lines(path, report) if is_json else _separated(path, report)


def _separated(path: Path, report: Report) -> Source:
    inter = INTER in path.name.lower()
    rows = read_csv(path, "\t" if inter else None, quoted=not inter, report=report)
    line, header = next(rows)
    names = [name.partition(":")[0] for name in header] if all(map(TYPED.fullmatch, header)) else header

    def read(wanted: list[str], positional: bool) -> Rows:
        known = [str(number + 1) for number in range(len(header))] if positional else names
        pick = itemgetter(*column_positions(known, wanted, f"{path}, line {line}"))
        if positional:
            yield line, pick(header)
        for number, each in rows:
            yield number, pick(each)

    return names, "line", read


def _json_lines(path: Path, report: Report) -> Source:
    def records(report: Report = lambda position, size: None) -> Iterator[tuple[int, dict[Any, Any]]]:
        with RawFile(path, report) as file:
            for number, line in file.lines():
                try:
                    yield number, parse_record(line)
                except BrokenRecordError as error:
                    raise DataError(f"{path}, line {number}: {error}; needed is one object a line") from None

    def read(wanted: list[str], positional: bool) -> Rows:
        for number, record in records(report):
            where = f"{path}, line {number}"
            for name in wanted:
                if name not in record:
                    raise DataError(f"{where}: no {name} among {listed(map(str, record))}: mend or remove the line")
            yield number, [as_text(record[name], where) for name in wanted]

    return [str(name) for name in next(records())[1]], "line", read


def _in_memory(source: InMemory) -> Source:
    def read(wanted: list[str], positional: bool) -> Rows:
        for table in source.tables:
            column_positions([*table], wanted, source.name)
            for number, row in enumerate(zip(*(table[name] for name in wanted), strict=False)):
                yield number, [as_text(field, f"{source}, row {number}") for field in row]

    return [name for table in source.tables[:1] for name in table], "row", read


def _parquet(path: Path) -> Source:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(
            f"{path}: reading parquet needs pyarrow: pip install 'bm3-harness[tables]', or convert the table to CSV"
        ) from None

    def read(wanted: list[str], positional: bool) -> Rows:
        with reading(path), parquet.ParquetFile(path) as file:
            column_positions(file.schema_arrow.names, wanted, str(path))
            groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
            claimed = max(sum(group.total_byte_size for group in groups), 8 * len(wanted) * file.metadata.num_rows)
            check_claim(claimed, path.stat().st_size, str(path))
            number = 0
            for batch in file.iter_batches(batch_size=BATCH, columns=wanted):
                columns = [batch.column(batch.schema.get_field_index(column)).to_pylist() for column in wanted]
                for row in zip(*columns, strict=True):
                    yield number, [as_text(field, f"{path}, row {number}") for field in row]
                    number += 1

    with reading(path), parquet.ParquetFile(path) as file:
        return list(file.schema_arrow.names), "row", read


def as_text(field: Any, where: str) -> str:
    """An id, a number or a name as text, a whole number without a point, none for a missing one. Raises DataError."""
    if type(field).__name__ in ("NAType", "NaTType", "MaskedConstant"):  # of pandas and NumPy
        field = None
    if isinstance(field, np.generic):
        field = field.item()
    if isinstance(field, bool | dict | list) or (isinstance(field, float) and not math.isfinite(field)):
        raise DataError(f"{where}: {str(field)[:40]!r} is no id, number or name: mend it, or choose another column")
    if isinstance(field, bytes):
        field = field.decode("utf-8", "surrogateescape")
    if isinstance(field, date):  # a datetime is one too
        return field.isoformat()
    whole = isinstance(field, float) and field.is_integer() and abs(field) < 2**63
    text = "" if field is None else str(int(field) if whole else field).strip()
    if HALF.search(text) or len(text) > MAX_ID:
        what = "half of a character (a lone surrogate), NUL, a carriage return, or more than"
        raise DataError(f"{where}: {text[:40]!r} has {what} {MAX_ID:,} characters: mend it")
    return text


class BrokenRecordError(Exception):
    """A line that is no record; the message says why in a few words."""


def parse_record(line: bytes) -> dict[Any, Any]:
    """The dictionary on a line: JSON, or the Python literal of Amazon's files of 2014. Raises BrokenRecordError."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # ValueError: not JSON, not UTF-8, a number of too many digits
        if len(line) > MAX_LITERAL:
            raise BrokenRecordError(f"no JSON, and longer than the {MAX_LITERAL} bytes of a literal") from None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # texts contain backslashes that Python would warn of
                record = ast.literal_eval(line.decode("utf-8"))
        # Nesting can exceed what the parser takes (MemoryError) or what may recurse (RecursionError).
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise BrokenRecordError("neither JSON nor a Python literal") from error
    if not isinstance(record, dict):
        raise BrokenRecordError(f"a {type(record).__name__}, not a dictionary")
    return record
