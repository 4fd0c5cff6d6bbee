"""How tests of files look at what is refused and at what is read, and the tables that they write."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from bm3 import BM3Error, DataError
from harness.data.dataset import PARTS
from harness.ingest.importing import Division, Imported, import_dataset
from harness.ingest.tables import Columns

Parts = dict[str, NDArray[Any]]
Features = dict[str, NDArray[Any]]
Write = Callable[..., Path]
"""Of the fixtures with these names."""
NAMED = Columns(user="who", item="what")


def refusal(call: Callable[[], object], kind: type[BM3Error] = DataError) -> str:
    """The one line with which something is refused."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def import_refused(
    source: Path, out: Path, columns: Columns | None = None, division: Division | None = None, kind: Any = DataError
) -> str:
    """Why `source` cannot be imported into `out`; and nothing is left there."""
    message = refusal(lambda: import_dataset(source, "shop", out, columns, division), kind)
    assert not out.exists() or list(out.iterdir()) == []
    return message


def pairs_by_id(found: Imported) -> dict[str, set[tuple[str, str]]]:
    """The interactions of each part, in original ids."""
    users, items = found.users or [], found.items or []
    return {part: {(users[u], items[i]) for u, i in found.dataset.part(part).tolist()} for part in PARTS}


def write_table(path: Path, rows: Any, header: tuple[str, ...], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path
