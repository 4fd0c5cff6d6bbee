"""Ratings from the original files: `ratings_NAME.csv`, or reviews as JSON lines. Filtering them is in `core`."""

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bm3 import DataError
from harness.ingest.raw_file import RawFile
from harness.ingest.raw_record import IDENTIFIER, BrokenRecordError, identifier, parse_record, shown

RATING_LINE = re.compile(
    rb"(%(id)s),(%(id)s),-?[0-9]{1,9}(?:\.[0-9]{0,9})?,([0-9]{1,12})(?:\.0*)?" % {b"id": IDENTIFIER.pattern}
)
COLUMNS = "user,item,rating,timestamp"
NUMBER = re.compile(rb"-?[0-9]{1,9}(\.[0-9]{0,9})?")


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
    """All ratings in a file of either kind: reviews if its first line begins with a brace.

    Raises DataError naming the first line that is no rating, since a data set without it would be another one, and for
    a file without ratings.
    """
    users, items, times = array("i"), array("i"), array("q")
    user_numbers: dict[bytes, int] = {}
    item_numbers: dict[bytes, int] = {}
    for user, item, time in _ratings(file):
        users.append(user_numbers.setdefault(user, len(user_numbers)))
        items.append(item_numbers.setdefault(item, len(item_numbers)))
        times.append(time)
    if not users:
        raise DataError(f"{file.path}: no ratings; needed are lines {COLUMNS}, or reviews as JSON lines")
    return Ratings(
        np.frombuffer(users, np.int32),
        np.frombuffer(items, np.int32),
        np.frombuffer(times, np.int64),
        list(user_numbers),
        list(item_numbers),
    )


def _ratings(file: RawFile) -> Iterator[tuple[bytes, bytes, int]]:
    """User, item and time of every line."""
    reviews: bool | None = None
    for number, line in file.lines():
        if reviews is None:
            reviews = line.lstrip().startswith(b"{")
        if reviews:
            yield _review(line, f"{file.path}, line {number}")
        elif match := RATING_LINE.fullmatch(line):
            user, item, time = match.groups()
            yield user, item, int(time)
        else:
            raise DataError(f"{file.path}, line {number}: {_complaint(line, number)}")


def _review(line: bytes, where: str) -> tuple[bytes, bytes, int]:
    try:
        review = parse_record(line)
        user, item = identifier(review, "reviewerID"), identifier(review, "asin")
        for key in ("overall", "unixReviewTime"):
            if type(review.get(key)) not in (int, float):  # a bool is no number here
                raise BrokenRecordError(f"{key} is {shown(review.get(key))}, needed is a number")
        time = review["unixReviewTime"]
        if not (0 <= time < 10**12 and time == int(time)):
            raise BrokenRecordError(f"unixReviewTime is {shown(time)}, needed are whole seconds since 1970")
    except BrokenRecordError as error:
        raise DataError(f"{where}: no review ({error}); mend or remove the line, or download the file again") from None
    return user, item, int(time)


def _complaint(line: bytes, number: int) -> str:
    """What is wrong with a line that is no rating."""
    fields = line.split(b",")
    if len(fields) != 4:
        return f"{len(fields)} fields ({shown(line)}), needed are 4 with commas between: {COLUMNS}"
    for name, field in zip(COLUMNS.split(","), fields, strict=True):
        if name in ("user", "item") and not IDENTIFIER.fullmatch(field):
            return f"{name} is {shown(field)}, needed are 1 to 64 visible ASCII characters without quotes"
        if name == "rating" and not NUMBER.fullmatch(field):
            header = "; the original files have no header, remove it" if number == 1 else ""
            return f"rating is {shown(field)}, needed is a number{header}"
    return f"timestamp is {shown(fields[3])}, needed are whole seconds since 1970"
