"""Tables of interactions, one per row: CSV, TSV and parquet with named columns, and RecBole's atomic files.

They give text; numbering ids and dividing interactions is `importing`.
"""

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
from harness.data.files import check_claim, column_positions, read_columns, read_csv, reading

DELIMITERS = {".csv": ",", ".tsv": "\t"}
PARQUET = ".parquet"
TABLE_ENDINGS = (*DELIMITERS, PARQUET)
PART_NAMES: dict[str, Part] = {
    **{part: part for part in PARTS},
    **dict.fromkeys(("validation", "val", "dev"), PARTS[1]),
    **{str(label): part for label, part in enumerate(PARTS)},
}
NUMBER = re.compile(r"[+-]?(\d{1,18}(\.\d{0,18})?|\.\d{1,18})([eE][+-]?\d{1,2})?", re.ASCII)
BATCH = 65_536  # rows of parquet at a time
LONGEST_HEADER = 2**17  # bytes

Rows = Iterator[tuple[int, Sequence[str]]]
"""Where a row stands in its file, and its fields."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table say what; None where the table has none or the format knows."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    part: str | None = None

    @property
    def named(self) -> list[str]:
        return [column for column in (self.user, self.item, self.time, self.part) if column is not None]


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
    _check_distinct(path, columns)
    suffix = path.suffix.lower()
    if suffix == PARQUET:
        return _table(path, "row", _parquet_rows(path, columns.named), columns)
    return _table(path, "line", read_columns(path, columns.named, DELIMITERS[suffix]), columns)


def is_recbole(path: Path) -> bool:
    """Whether a file's first line is a header with types, as in `user_id:token`. Raises DataError if unreadable."""
    with reading(path), path.open("rb") as file:
        return b":" in file.readline(LONGEST_HEADER)


def read_recbole(path: Path, columns: Columns) -> Table:
    """The rows of a RecBole atomic file; columns are user_id, item_id and timestamp unless named otherwise.

    The format is that of the RecBole documentation, "Atomic files": tabs, a header of name:type, no quotes.
    """
    rows = read_csv(path, "\t", quoted=False)
    header = [field.partition(":")[0] for field in next(rows)[1]]
    time = columns.time or ("timestamp" if "timestamp" in header else None)
    found = Columns(columns.user or "user_id", columns.item or "item_id", time)
    _check_distinct(path, found)
    positions = column_positions(header, found.named, f"{path}, line 1")
    return _table(path, "line", ((line, [fields[at] for at in positions]) for line, fields in rows), found)


def _check_distinct(path: Path, columns: Columns) -> None:
    if len(set(columns.named)) < len(columns.named):
        raise ConfigError(f"{path}: one column is named for two things: {', '.join(columns.named)}")


def _table(path: Path, unit: str, rows: Rows, columns: Columns) -> Table:
    """Gather rows whose fields are user, item, and time and part if there are such columns."""
    table = Table(str(path), [], [], [] if columns.time else None, [] if columns.part else None)
    for number, (user, item, *rest) in rows:
        where = f"{path}, {unit} {number}"
        if not user or not item:
            raise DataError(f"{where}: no {'item' if user else 'user'}: fill it in or remove the row")
        table.users.append(user)
        table.items.append(item)
        if table.times is not None:
            time = float(rest[0]) if NUMBER.fullmatch(rest[0]) else math.nan
            if not math.isfinite(time):
                raise DataError(f"{where}: {columns.time} is {rest[0][:40]!r}, needed is a number")
            table.times.append(time)
        if table.parts is not None:
            if rest[-1] not in PART_NAMES:
                known = ", ".join(PART_NAMES)
                raise DataError(f"{where}: {columns.part} is {rest[-1][:40]!r}, needed is one of {known}")
            table.parts.append(PART_NAMES[rest[-1]])
    return table


def _parquet_rows(path: Path, wanted: Sequence[str]) -> Rows:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(
            f"{path}: reading parquet needs pyarrow: pip install 'bm3-harness[tables]', or convert the table to CSV"
        ) from None
    with reading(path), parquet.ParquetFile(path) as file:
        column_positions(file.schema_arrow.names, wanted, str(path))
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        claimed = max(sum(group.total_byte_size for group in groups), 8 * len(wanted) * file.metadata.num_rows)
        check_claim(claimed, path.stat().st_size, str(path))
        number = 0
        for batch in file.iter_batches(batch_size=BATCH, columns=list(wanted)):
            fields = [batch.column(batch.schema.get_field_index(column)).to_pylist() for column in wanted]
            for row in zip(*fields, strict=True):
                yield number, ["" if field is None else _text(field, f"{path}, row {number}") for field in row]
                number += 1


def _text(field: Any, where: str) -> str:
    if isinstance(field, bool | dict | list):
        raise DataError(f"{where}: {str(field)[:40]!r} is no id, number or name: choose another column")
    if isinstance(field, bytes):
        return field.decode("utf-8")
    if isinstance(field, datetime):  # only their order matters, so any zone will do
        return repr((field if field.tzinfo else field.replace(tzinfo=UTC)).timestamp())
    return str(int(field)) if isinstance(field, float) and field.is_integer() else str(field)
