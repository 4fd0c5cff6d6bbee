"""The original files beside ratings, plain or packed, each read once: metadata for texts, and image features.

Ratings are tables like others: `harness.ingest.tables`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bm3 import DataError
from harness.data.files import RawFile
from harness.ingest.tables import BrokenRecordError, parse_record

MAX_TEXT = 100_000
"""Characters. Readers of CSV files refuse fields above 131,072, and no encoder reads that far."""
SHOWN_BROKEN = 5
ASIN_FIRST = re.compile(rb"""\s*\{\s*["']asin["']\s*:\s*["']([!#-&(-+\--\[\]-~]{1,64})["']""")
"""How lines of the original metadata begin."""
IMAGE_WIDTH, ASIN_BYTES = 4096, 10
IMAGE_BLOCK = 16 * 2**20


# --- texts ---


@dataclass
class Metadata:
    """Texts of items, and what was left out."""

    texts: list[str]
    """[I]; empty where an item has none."""
    lines: int = 0
    of_other_items: int = 0
    repeated: int = 0
    """Further lines of an item; the first counts."""
    cut: int = 0
    """Texts of which only the first MAX_TEXT characters are kept."""
    broken: int = 0
    """Lines that are no metadata of an item. Those that begin with the id of another item are not examined."""
    first_broken: list[dict[str, Any]] = field(default_factory=list)
    """Line and reason of the first few."""


def read_metadata(file: RawFile, items: Mapping[str, int]) -> Metadata:
    """Texts of `items`, which maps what the file calls an item to its row, from `meta_NAME.json.gz` or `.jsonl`.

    Broken lines are counted. Raises DataError when no line belongs to an item of the data set.
    """
    found = Metadata([""] * len(items))
    seen: set[int] = set()
    for number, line in file.lines():
        found.lines += 1
        # Parsing takes most of the time, and most items are not in the data set.
        begin = ASIN_FIRST.match(line)
        if begin and begin[1].decode() not in items:
            found.of_other_items += 1
            continue
        try:
            record = parse_record(line)
            name = record.get("parent_asin", record.get("asin"))  # the first in files of 2023
            if not isinstance(name, str):
                raise BrokenRecordError("no asin")
            item = items.get(name)
        except BrokenRecordError as error:
            found.broken += 1
            found.first_broken += [{"line": number, "reason": str(error)}][: SHOWN_BROKEN - len(found.first_broken)]
            continue
        if item is None:
            found.of_other_items += 1
        elif item in seen:
            found.repeated += 1
        else:
            text = item_text(record)
            found.texts[item] = text[:MAX_TEXT]
            found.cut += len(text) > MAX_TEXT
            seen.add(item)
    if not seen:
        first = "".join(f"; line {each['line']} is broken: {each['reason']}" for each in found.first_broken[:1])
        raise DataError(
            f"{file.path}: none of {found.lines} lines belongs to an item of the ratings; needed is the metadata of "
            f"the same category{first}"
        )
    return found


def item_text(record: Mapping[Any, Any]) -> str:
    """Title, brand (2023: store), category path and description, joined by spaces, line breaks replaced by spaces.

    What is missing is left out. Of several category paths the first one is taken. HTML entities stay as they are.
    """
    path = record.get("categories", record.get("category"))
    if isinstance(path, list) and path and isinstance(path[0], list):
        path = path[0]
    pieces = []
    for value in (record.get("title"), record.get("brand", record.get("store")), path, record.get("description")):
        pieces += [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
    text = " ".join(stripped for piece in pieces if (stripped := re.sub(r"[\r\n]+", " ", piece).strip()))
    return text.encode("utf-8", "replace").decode("utf-8")  # half of a surrogate pair could not be written


# --- images ---


@dataclass(frozen=True)
class Images:
    """What was read of image features."""

    records: int
    of_other_items: int
    repeated: int
    """Further records of an item; the first counts."""
    items_without_image: list[int]
    """Ascending; their rows are the mean of the others."""


def read_images(file: RawFile, items: Mapping[str, int], table: NDArray[np.float32]) -> Images:
    """Fill `table` [I, width] with the features of `items`, which maps what the file calls an item to its row.

    `image_features_NAME.b` has records of an item's id, 10 bytes, and its float32. Items without a record get the mean
    of the others. Raises DataError naming the byte at which the file is cut off or holds no record, for features that
    are not finite, and when no record belongs to an item of the data set.
    """
    layout = np.dtype([("asin", np.uint8, (ASIN_BYTES,)), ("features", "<f4", (table.shape[1],))])
    of_bytes = {name.encode(): item for name, item in items.items()}
    records = repeated = 0
    filled, total = np.zeros(len(table), bool), np.zeros(table.shape[1])  # float64
    while block := file.read(max(1, IMAGE_BLOCK // layout.itemsize) * layout.itemsize):
        whole, rest = divmod(len(block), layout.itemsize)

        def place(position: int, before: int = records) -> int:
            return (before + position) * layout.itemsize

        if rest:
            raise DataError(
                f"{file.path}: cut off: the record at byte {place(whole)} has {rest} of {layout.itemsize} bytes; "
                f"download it again"
            )
        rows = np.frombuffer(block, layout)
        bad = ((rows["asin"] < ord("!")) | (rows["asin"] > ord("~"))).any(axis=1)
        if bad.any():  # then records do not begin where they should
            raise DataError(
                f"{file.path}: no item id at byte {place(int(np.argmax(bad)))}, where a record of {layout.itemsize} "
                f"bytes should begin; needed is a file of image features as it was published; download it again"
            )
        wanted: list[tuple[int, int]] = []  # position in the block, item
        for position, asin in enumerate(rows["asin"]):
            item = of_bytes.get(asin.tobytes())
            if item is not None and filled[item]:
                repeated += 1
            elif item is not None:
                filled[item] = True
                wanted.append((position, item))
        if wanted:
            positions, targets = np.array(wanted).T
            features = rows["features"][positions]
            finite = np.isfinite(features).all(axis=1)
            if not finite.all():
                position = int(positions[~finite][0])
                raise DataError(
                    f"{file.path}: the record at byte {place(position)}, of item "
                    f"{rows['asin'][position].tobytes().decode()}, holds NaN or infinity; download the file again"
                )
            table[targets] = features
            total += features.sum(axis=0, dtype=np.float64)
        records += whole
    if not filled.any():
        raise DataError(
            f"{file.path}: none of {records} records belongs to an item of the ratings; needed are the image features "
            f"of the same category"
        )
    table[~filled] = total / filled.sum()
    return Images(records, records - int(filled.sum()) - repeated, repeated, np.flatnonzero(~filled).tolist())
