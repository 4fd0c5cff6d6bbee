"""The original files, plain or gzip, each read once: ratings or reviews, metadata for texts, and image features.

Nothing that a file claims is believed: lines and what a compressed file expands to have bounds, and nothing is run.
"""

import ast
import gzip
import json
import re
import reprlib
import warnings
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bm3 import DataError
from harness.data.files import check_claim

BLOCK = 2**20
MAX_LINE = 16 * 2**20
"""Bytes. The longest lines of the original files have some hundred kilobytes."""
MAX_LITERAL = 2**20
"""Bytes. Parsing a literal takes some hundred times its size in memory."""
MAX_TEXT = 100_000
"""Characters. Readers of CSV files refuse fields above 131,072, and no encoder reads that far."""
SHOWN_BROKEN = 5
IDENTIFIER = re.compile(rb"[!#-+\--~]{1,64}")
"""What users and items are called in the original files: visible ASCII without commas and quotes."""
RATING_LINE = re.compile(
    rb"(%(id)s),(%(id)s),-?[0-9]{1,9}(?:\.[0-9]{0,9})?,([0-9]{1,12})(?:\.0*)?" % {b"id": IDENTIFIER.pattern}
)
ASIN_FIRST = re.compile(rb"""\s*\{\s*["']asin["']\s*:\s*["']([!#-&(-+\--\[\]-~]{1,64})["']""")
"""How lines of the original metadata begin."""
IMAGE_WIDTH, ASIN_BYTES = 4096, 10
IMAGE_BLOCK = 16 * 2**20

Report = Callable[[int, int], None]
"""Is told the position in a file and its size, both in bytes on disk."""


class BrokenRecordError(Exception):
    """A line that is no record; the message says why in a few words."""


class RawFile:
    """One file, read from its beginning to its end. Raises DataError where it cannot be read or is damaged."""

    def __init__(self, path: Path, report: Report = lambda position, size: None) -> None:
        if not path.is_file():  # opening a pipe would wait for ever
            raise DataError(f"{path}: {'not a file' if path.exists() else 'no such file'}; check the path")
        try:
            self._disk = path.open("rb")
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
        self.path, self.size, self._report, self._expanded = path, path.stat().st_size, report, 0
        self.compressed = self._disk.read(2) == b"\x1f\x8b"
        self._disk.seek(0)
        self._content: Any = gzip.GzipFile(fileobj=self._disk) if self.compressed else self._disk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._content.close()
        self._disk.close()

    def read(self, n: int) -> bytes:
        """The next `n` bytes of the content, fewer only at its end."""
        try:
            block: bytes = self._content.read(n)
        except (OSError, EOFError, zlib.error) as error:  # gzip: BadGzipFile is an OSError, EOFError means cut off
            at = f"after {self._disk.tell()} of {self.size} bytes"
            reason = (isinstance(error, OSError) and error.strerror) or error
            raise DataError(f"{self.path}: damaged or cut off {at} ({reason}); download it again") from error
        self._expanded += len(block)
        if self.compressed:
            check_claim(self._expanded, self.size, str(self.path))
        self._report(self._disk.tell(), self.size)
        return block

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Number, from 1, and content of every line, without its end; empty ones and a byte order mark are left out."""
        number, rest, block = 0, b"", b"\n"
        while block:
            block = self.read(BLOCK)
            *complete, rest = (rest + (block or b"\n")).split(b"\n")  # the last line may have no end
            for line in complete:
                number += 1
                line = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).rstrip(b"\r")
                if line.strip():
                    yield number, line
            if len(rest) > MAX_LINE:
                raise DataError(
                    f"{self.path}, line {number + 1}: longer than {MAX_LINE} bytes; is it the file that was meant?"
                )


# --- records ---


def parse_record(line: bytes) -> dict[Any, Any]:
    """The dictionary on a line: JSON, or the Python literal of the original metadata. Raises BrokenRecordError."""
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


def identifier(record: dict[Any, Any], key: str) -> bytes:
    """The user or item named under `key`. Raises BrokenRecordError."""
    value = record.get(key)
    if value is None:
        raise BrokenRecordError(f"no {key}")
    encoded = value.encode() if isinstance(value, str) and value.isascii() else b""
    if not IDENTIFIER.fullmatch(encoded):
        raise BrokenRecordError(f'{key} is {shown(value)}, needed are 1 to 64 visible ASCII characters without , and "')
    return encoded


def shown(value: object) -> str:
    """A value as errors show it: in quotes, escaped, and short."""
    return reprlib.repr(value)[:60]


# --- ratings ---


@dataclass(frozen=True)
class Ratings:
    """Ratings in the order of their file; each is one positive interaction, whatever its value.

    Users and items are numbered in order of first appearance.
    """

    users: NDArray[np.int32]
    """[n]"""
    items: NDArray[np.int32]
    """[n]"""
    times: NDArray[np.int64]
    """[n], in seconds since 1970 (the original files have whole days)."""
    user_ids: list[bytes]
    """[U], what the file calls each user."""
    item_ids: list[bytes]
    """[I]"""

    def __len__(self) -> int:
        return len(self.users)


def read_ratings(file: RawFile) -> Ratings:
    """All ratings of `ratings_NAME.csv`, or of reviews as JSON lines, if its first line begins with a brace.

    Raises DataError naming the first line that is no rating, since a data set without it would be another one.
    """
    users, items, times = array("i"), array("i"), array("q")
    user_numbers: dict[bytes, int] = {}
    item_numbers: dict[bytes, int] = {}
    read: Callable[[bytes], tuple[bytes, bytes, int]] | None = None
    for number, line in file.lines():
        read = read or (_review if line.lstrip().startswith(b"{") else _rating)
        try:
            user, item, time = read(line)
        except BrokenRecordError as error:
            header = "; the original files have no header, remove it" if number == 1 and read is _rating else ""
            raise DataError(f"{file.path}, line {number}: {error}{header}; or download the file again") from None
        users.append(user_numbers.setdefault(user, len(user_numbers)))
        items.append(item_numbers.setdefault(item, len(item_numbers)))
        times.append(time)
    if not users:
        raise DataError(f"{file.path}: no ratings; needed are lines user,item,rating,timestamp, or reviews as JSON")
    numbers = np.frombuffer(users, np.int32), np.frombuffer(items, np.int32), np.frombuffer(times, np.int64)
    return Ratings(*numbers, list(user_numbers), list(item_numbers))


def _rating(line: bytes) -> tuple[bytes, bytes, int]:
    match = RATING_LINE.fullmatch(line)
    if match is None:
        needed = "user,item,rating,timestamp: ids of visible ASCII without quotes, a number, whole seconds since 1970"
        raise BrokenRecordError(f"{shown(line)}, needed is {needed}")
    return match[1], match[2], int(match[3])


def _review(line: bytes) -> tuple[bytes, bytes, int]:
    review = parse_record(line)
    user, item = identifier(review, "reviewerID"), identifier(review, "asin")
    for key in ("overall", "unixReviewTime"):
        if type(review.get(key)) not in (int, float):  # a bool is no number here
            raise BrokenRecordError(f"{key} is {shown(review.get(key))}, needed is a number")
    time = review["unixReviewTime"]
    if not (0 <= time < 10**12 and time == int(time)):
        raise BrokenRecordError(f"unixReviewTime is {shown(time)}, needed are whole seconds since 1970")
    return user, item, int(time)


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


def read_metadata(file: RawFile, items: Mapping[bytes, int]) -> Metadata:
    """Texts of `items`, which maps what the file calls an item to its row, from `meta_NAME.json.gz`.

    Broken lines are counted. Raises DataError when no line belongs to an item of the data set.
    """
    found = Metadata([""] * len(items))
    seen: set[int] = set()
    for number, line in file.lines():
        found.lines += 1
        # Parsing takes most of the time, and most items are not in the data set.
        begin = ASIN_FIRST.match(line)
        if begin and begin[1] not in items:
            found.of_other_items += 1
            continue
        try:
            record = parse_record(line)
            item = items.get(identifier(record, "asin"))
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
    """Title, brand, category path and description, joined by spaces, line breaks replaced by spaces.

    What is missing is left out. Of several category paths the first one is taken. HTML entities stay as they are.
    """
    path = record.get("categories", record.get("category"))
    if isinstance(path, list) and path and isinstance(path[0], list):
        path = path[0]
    pieces = []
    for value in (record.get("title"), record.get("brand"), path, record.get("description")):
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


def read_images(file: RawFile, items: Mapping[bytes, int], table: NDArray[np.float32]) -> Images:
    """Fill `table` [I, width] with the features of `items`, which maps what the file calls an item to its row.

    `image_features_NAME.b` has records of an item's id, 10 bytes, and its float32. Items without a record get the mean
    of the others. Raises DataError naming the byte at which the file is cut off or holds no record, for features that
    are not finite, and when no record belongs to an item of the data set.
    """
    layout = np.dtype([("asin", np.uint8, (ASIN_BYTES,)), ("features", "<f4", (table.shape[1],))])
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
            item = items.get(asin.tobytes())
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
