"""Tables of interactions, one per row: CSV, TSV and parquet with named columns, and RecBole's atomic files.

They give text; numbering ids and dividing interactions is `importing`.
"""

import csv
import importlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bm3 import ConfigError, DataError
from harness.data.dataset import PARTS, Part
from harness.data.files import check_claim, listed, unreadable

DELIMITERS = {".csv": ",", ".tsv": "\t"}
PARQUET = ".parquet"
TABLE_ENDINGS = (*DELIMITERS, PARQUET)
PART_NAMES: dict[str, Part] = {
    **{part: part for part in PARTS},
    **dict.fromkeys(("validation", "val", "dev"), PARTS[1]),
    **{str(label): part for label, part in enumerate(PARTS)},
}
RECBOLE_COLUMNS = {"user": "user_id", "item": "item_id", "time": "timestamp"}
RECBOLE_TYPES = ("token", "token_seq", "float", "float_seq")
RECBOLE_ENDINGS: dict[Part, str] = {part: f".{part}.inter" for part in PARTS}
NUMBER = re.compile(r"[+-]?(\d{1,18}(\.\d{0,18})?|\.\d{1,18})([eE][+-]?\d{1,2})?", re.ASCII)
BATCH = 65_536  # rows of parquet at a time
INSTALL_TABLES = "pip install 'bm3-harness[tables]'"


@dataclass(frozen=True)
class Columns:
    """Which columns of a table say what; None where the table has none or the format knows."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    part: str | None = None


@dataclass
class Table:
    """Interactions as they stand in a file: the ids of row r are users[r] and items[r]."""

    where: str
    users: list[str]
    items: list[str]
    times: list[float] | None
    parts: list[Part] | None


def read_table(path: Path, columns: Columns) -> Table:
    """The rows of a CSV, TSV or parquet file. Raises DataError with the line, ConfigError for a missing option."""
    for option, column in (("--user", columns.user), ("--item", columns.item)):
        if column is None:
            raise ConfigError(f"{path}: which column holds the {option[2:]}s? name it with {option} COLUMN")
    wanted = [column for column in (columns.user, columns.item, columns.time, columns.part) if column is not None]
    if len(set(wanted)) < len(wanted):
        raise ConfigError(f"{path}: one column is named for two things: {', '.join(wanted)}")
    if path.suffix.lower() == PARQUET:
        return _table(path, "row", _parquet_rows(path, wanted), columns)
    rows = _csv_rows(path, DELIMITERS[path.suffix.lower()], wanted, quoting=csv.QUOTE_MINIMAL)
    return _table(path, "line", rows, columns)


def is_recbole(path: Path) -> bool:
    """Whether a file's first line is a header with types, as in `user_id:token`. Raises DataError if unreadable."""
    try:
        with path.open("rb") as file:
            return b":" in file.readline(csv.field_size_limit())
    except OSError as error:
        raise DataError(unreadable(path, error)) from error


def read_recbole(path: Path, columns: Columns) -> Table:
    """The rows of a RecBole atomic file; columns are user_id, item_id and timestamp unless named otherwise.

    The format is that of the RecBole documentation, "Atomic files": tabs, a header of name:type, no quotes.
    """
    header = next(_lines(path, "\t", csv.QUOTE_NONE), (1, []))[1]
    types: dict[str, str] = {}
    for field in header:
        name, colon, kind = field.rpartition(":")
        if not colon or kind not in RECBOLE_TYPES:
            raise DataError(
                f"{path}, line 1: {field[:40]!r} is no name:type, with a type of {', '.join(RECBOLE_TYPES)}"
            )
        types[name] = kind
    time = columns.time or (RECBOLE_COLUMNS["time"] if RECBOLE_COLUMNS["time"] in types else None)
    found = Columns(columns.user or RECBOLE_COLUMNS["user"], columns.item or RECBOLE_COLUMNS["item"], time)
    typed = []
    for column, kind in ((found.user, "token"), (found.item, "token"), (found.time, "float")):
        if column is None:
            continue
        if column not in types:
            raise DataError(f"{path}, line 1: no column {column!r} among {listed(header)}")
        if types[column] != kind:
            raise DataError(f"{path}, line 1: column {column!r} is {types[column]}, needed is {kind}")
        typed.append(f"{column}:{kind}")
    if len(set(typed)) < len(typed):
        raise ConfigError(f"{path}: one column is named for two things: {', '.join(typed)}")
    return _table(path, "line", _csv_rows(path, "\t", typed, quoting=csv.QUOTE_NONE), found)


def _table(path: Path, unit: str, rows: Iterator[tuple[int, Sequence[str]]], columns: Columns) -> Table:
    """Gather rows whose fields are user, item, and time and part if there are such columns."""
    table = Table(str(path), [], [], [] if columns.time else None, [] if columns.part else None)
    for number, fields in rows:
        rest = iter(fields)
        user, item = next(rest), next(rest)
        if not user or not item:
            raise DataError(f"{path}, {unit} {number}: no {'item' if user else 'user'}: fill it in or remove the row")
        table.users.append(user)
        table.items.append(item)
        if table.times is not None:
            text = next(rest)
            time = float(text) if NUMBER.fullmatch(text) else math.nan
            if not math.isfinite(time):
                raise DataError(f"{path}, {unit} {number}: {columns.time} is {text[:40]!r}, needed is a number")
            table.times.append(time)
        if table.parts is not None:
            text = next(rest)
            if text not in PART_NAMES:
                known = ", ".join(PART_NAMES)
                raise DataError(f"{path}, {unit} {number}: {columns.part} is {text[:40]!r}, needed is one of {known}")
            table.parts.append(PART_NAMES[text])
    return table


def _csv_rows(path: Path, delimiter: str, wanted: Sequence[str], quoting: int) -> Iterator[tuple[int, Sequence[str]]]:
    lines = _lines(path, delimiter, quoting)
    header = next(lines, (1, []))[1]
    for column in wanted:
        if header.count(column) != 1:
            there = "two columns" if column in header else "no column"
            raise DataError(f"{path}, line 1: {there} {column!r} among {listed(header)}")
    positions = [header.index(column) for column in wanted]
    for number, fields in lines:
        if len(fields) != len(header):
            raise DataError(f"{path}, line {number}: {len(fields)} fields, and the header names {len(header)}")
        yield number, [fields[position] for position in positions]


def _lines(path: Path, delimiter: str, quoting: int) -> Iterator[tuple[int, list[str]]]:
    """Each line that is not blank, with its number in the file."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
            for fields in lines:
                if fields:
                    yield lines.line_num, fields
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(unreadable(path, error)) from error


def _parquet_rows(path: Path, wanted: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    parquet = _pyarrow_parquet(path)
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            for column in wanted:
                if names.count(column) != 1:
                    there = "two columns" if column in names else "no column"
                    raise DataError(f"{path}: {there} {column!r} among {listed(names)}")
            groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
            claimed = max(sum(group.total_byte_size for group in groups), 8 * len(wanted) * file.metadata.num_rows)
            check_claim(claimed, path.stat().st_size, str(path))
            number = 0
            for batch in file.iter_batches(batch_size=BATCH, columns=list(wanted)):
                fields = [batch.column(batch.schema.get_field_index(column)).to_pylist() for column in wanted]
                for row in zip(*fields, strict=True):
                    yield number, ["" if field is None else _text(field, path, number) for field in row]
                    number += 1
    except DataError:
        raise
    except Exception as error:  # damaged bytes raise nearly anything that pyarrow knows
        raise DataError(unreadable(path, error)) from error


def _text(field: Any, path: Path, number: int) -> str:
    if isinstance(field, bool | dict | list):
        raise DataError(f"{path}, row {number}: {str(field)[:40]!r} is no id, number or name: choose another column")
    if isinstance(field, bytes):
        return field.decode("utf-8")
    if isinstance(field, datetime):  # only their order matters, so any zone will do
        return repr((field if field.tzinfo else field.replace(tzinfo=UTC)).timestamp())
    return str(int(field)) if isinstance(field, float) and field.is_integer() else str(field)


def _pyarrow_parquet(path: Path) -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(
            f"{path}: reading parquet needs pyarrow: {INSTALL_TABLES}, or convert the table to CSV"
        ) from None
