"""Original ids of users and items and their numbers: numbering by first appearance, and the tables that keep it.

`items.csv` and `users.csv` in a data set's folder have the columns index and id: the number inside, the id of origin.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bm3 import DataError
from harness.data.files import checked_file, listed, unreadable

COLUMNS = ("index", "id")
ITEMS, USERS = "items.csv", "users.csv"


def numbered(ids: Iterable[str]) -> tuple[NDArray[np.int64], list[str]]:
    """The numbers of `ids`, in order of first appearance, [n]; and the id behind each number."""
    number: dict[str, int] = {}
    numbers = np.fromiter((number.setdefault(each, len(number)) for each in ids), np.int64)
    return numbers, list(number)


def write_ids(path: Path, ids: Sequence[str]) -> None:
    """Write the ids in the order of their numbers."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        rows.writerows(enumerate(ids))


def read_ids(folder: Path, name: str, n: int) -> list[str] | None:
    """The original ids that `folder` has in the file `name`, for numbers 0 to n-1; None without such a file.

    Raises DataError, with the line, unless every number and every id stands there once.
    """
    path = checked_file(folder / name, folder)
    if not path.is_file():
        return None
    ids: dict[int, str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if not set(COLUMNS) <= set(header):
                raise DataError(f"{path}, line 1: columns are {listed(header)}; needed are index and id")
            index, column = (header.index(each) for each in COLUMNS)
            for row in rows:
                if not row:
                    continue
                where = f"{path}, line {rows.line_num}"
                if len(row) <= max(index, column):
                    raise DataError(f"{where}: {len(row)} fields, fewer than the header names")
                number = int(row[index]) if row[index].isascii() and row[index][:18].isdigit() else -1
                if not 0 <= number < n or number in ids:
                    raise DataError(f"{where}: index is {row[index][:40]!r}, needed is each of 0 to {n - 1} once")
                ids[number] = row[column]
    except (OSError, ValueError, csv.Error) as error:  # ValueError: not UTF-8, or a number too long to convert
        raise DataError(unreadable(path, error)) from error
    if len(ids) != n:
        missing = next(number for number in range(n) if number not in ids)
        raise DataError(f"{path}: {len(ids)} of {n} numbers (first without an id: {missing}): list each of them once")
    ordered = [ids[number] for number in range(n)]
    if len(set(ordered)) != n:
        raise DataError(f"{path}: {n - len(set(ordered))} ids stand twice: an id belongs to one number")
    return ordered
