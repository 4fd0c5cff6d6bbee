"""Texts of items from the original metadata, `meta_NAME.json.gz`: one Python literal, or JSON, per line.

Turning texts into vectors is elsewhere.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bm3 import DataError
from harness.ingest.raw_file import RawFile
from harness.ingest.raw_record import BrokenRecordError, identifier, parse_record

SHOWN_BROKEN = 5
MAX_TEXT = 100_000
"""Characters. Readers of CSV files refuse fields above 131,072, and no encoder reads that far."""
ASIN_FIRST = re.compile(rb"""\s*\{\s*["']asin["']\s*:\s*["']([!#-&(-+\--\[\]-~]{1,64})["']""")
"""How lines of the original files begin."""
LINE_BREAKS = re.compile(r"[\r\n]+")


@dataclass
class Metadata:
    """What was read."""

    texts: list[str]
    """[I]; empty where an item has none."""
    lines: int = 0
    other_items: int = 0
    """Lines of items that are not in the data set."""
    repeated: int = 0
    """Further lines of an item; the first counts."""
    cut: int = 0
    """Texts of which only the first MAX_TEXT characters are kept."""
    broken: int = 0
    """Lines that are no metadata of an item. Those that begin with the id of another item are not examined."""
    first_broken: list[tuple[int, str]] = field(default_factory=list)
    """Line number and reason of the first few."""

    @property
    def without_text(self) -> list[int]:
        """Items, ascending."""
        return [item for item, text in enumerate(self.texts) if not text]


def read_metadata(file: RawFile, items: Mapping[bytes, int]) -> Metadata:
    """Texts of `items`, which maps what the file calls an item to its row.

    Broken lines are counted. Raises DataError when no line belongs to an item of the data set.
    """
    found = Metadata([""] * len(items))
    seen: set[int] = set()
    for number, line in file.lines():
        found.lines += 1
        # Parsing takes most of the time, and most items are not in the data set.
        begin = ASIN_FIRST.match(line)
        if begin and begin[1] not in items:
            found.other_items += 1
            continue
        try:
            record = parse_record(line)
            item = items.get(identifier(record, "asin"))
            if item is None:
                found.other_items += 1
            elif item in seen:
                found.repeated += 1
            else:
                text = item_text(record)
                found.texts[item] = text[:MAX_TEXT]
                found.cut += len(text) > MAX_TEXT
                seen.add(item)
        except BrokenRecordError as error:
            found.broken += 1
            if len(found.first_broken) < SHOWN_BROKEN:
                found.first_broken.append((number, str(error)))
    if not seen:
        first = "".join(f"; line {number} is broken: {reason}" for number, reason in found.first_broken[:1])
        raise DataError(
            f"{file.path}: none of {found.lines} lines belongs to an item of the ratings; needed is the metadata of "
            f"the same category{first}"
        )
    return found


def item_text(record: Mapping[Any, Any]) -> str:
    """Title, brand, category path and description, joined by spaces, line breaks replaced by spaces.

    What is missing is left out. Of several category paths the first one is taken. HTML entities stay as they are.
    """
    pieces = [*_strings(record.get("title")), *_strings(record.get("brand"))]
    pieces += _category_path(record.get("categories", record.get("category")))
    pieces += _strings(record.get("description"))
    text = " ".join(stripped for piece in pieces if (stripped := LINE_BREAKS.sub(" ", piece).strip()))
    return text.encode("utf-8", "replace").decode("utf-8")  # half of a surrogate pair could not be written


def _strings(value: object) -> list[str]:
    """A text, or a list of them as newer files have; anything else is missing."""
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]


def _category_path(value: object) -> list[str]:
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = value[0]
    return _strings(value)
