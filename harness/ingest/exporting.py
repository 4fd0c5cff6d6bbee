"""Writing data sets: the `.inter` layout, feature files, a record of what was written, and original ids.

`items.csv` and `users.csv` beside the interactions have the columns index and id: the number inside, the id of origin.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bm3 import DataError
from harness.common import read_json, write_json
from harness.data.dataset import PARTS, Dataset
from harness.data.files import checked_file, new_folder, read_columns, reading
from harness.data.layouts import INTER_COLUMNS, SYNTHETIC, folder_of, modality_of

RECORD, ITEMS, USERS = "dataset.json", "items.csv", "users.csv"
FILE_NAMES = {"visual": "image"}  # other tools that read this layout look for image_feat.npy
Ids = tuple[list[str] | None, list[str] | None]
"""What a data set calls its users and its items, in the order of their numbers; None where it has numbers alone."""
PLAIN_NAME = re.compile(r"[^\W_][\w .+-]{0,99}")


def checked_name(name: str, kind: str) -> str:
    """`name`, if it can name a file everywhere and is not taken by a synthetic data set. Raises DataError."""
    if not PLAIN_NAME.fullmatch(name) or name != name.strip():
        raise DataError(
            f"{kind} {name[:80]!r}: needed is a plain name of up to 100 letters, digits, blanks and . + - _, "
            f"beginning with a letter or digit"
        )
    if kind == "data set" and name in SYNTHETIC:
        raise DataError(f"data set {name!r}: this name means the synthetic data set; choose another with --name")
    return name


def feature_file_name(modality: str, surrogate: bool, *, inter: bool = True) -> str:
    """The file that holds a modality's table, in the .inter layout or else beside interactions.npz.

    Raises DataError for a name that would be read back as that of another modality.
    """
    checked_name(modality, "modality")
    stem = FILE_NAMES.get(modality, modality) if inter else modality
    suffixes = ("_surrogate",) if surrogate else ("_feat",) if inter else ("", "_feat")
    for suffix in suffixes:
        if modality_of(stem + suffix) == (modality, surrogate):
            return f"{stem}{suffix}.npy"
    raise DataError(f"modality {modality!r}: would be read back as {modality_of(stem + suffix)[0]!r}; rename it")


def export(
    dataset: Dataset, target: Path, users: Sequence[str] | None = None, items: Sequence[str] | None = None
) -> None:
    """Write `dataset` as the new folder `target`: NAME.inter, a feature file per modality, dataset.json, original ids.

    Reading the folder gives the same content hash. Raises DataError if the folder exists or cannot be written; then
    nothing is left of it.
    """
    name = dataset.name if dataset.name in SYNTHETIC else checked_name(dataset.name, "data set")
    with new_folder(target) as folder:
        write_dataset(dataset, folder, name, users, items)


def write_dataset(
    dataset: Dataset, folder: Path, name: str, users: Sequence[str] | None, items: Sequence[str] | None
) -> None:
    """Write the files of `dataset`, called `name`, into `folder`; raises DataError for names that no file can have."""
    files = {modality: feature_file_name(modality, modality in dataset.surrogates) for modality in dataset.features}
    with (folder / f"{name}.inter").open("w", encoding="utf-8", newline="") as file:
        file.write("\t".join(INTER_COLUMNS) + "\n")
        for label, part in enumerate(PARTS):
            file.writelines(f"{user}\t{item}\t{label}\n" for user, item in dataset.part(part).tolist())
    for modality, table in dataset.features.items():
        np.save(folder / files[modality], table, allow_pickle=False)
    for file_name, ids in ((USERS, users), (ITEMS, items)):
        if ids is not None:
            write_ids(folder / file_name, ids)
    write_record(folder, dataset, name)


def write_record(folder: Path, dataset: Dataset, name: str) -> None:
    """Write dataset.json anew, at once: name and content hash for whoever reads, counts for people."""
    record: dict[str, Any] = {
        "format": 1,
        "name": name,
        "content_hash": dataset.content_hash,
        "users": dataset.n_users,
        "items": dataset.n_items,
        "interactions": {part: len(dataset.part(part)) for part in PARTS},
        "features": {modality: list(table.shape) for modality, table in dataset.features.items()},
        "surrogates": sorted(dataset.surrogates),
    }
    write_json(folder / RECORD, record)


def recorded_hash(folder: Path) -> str | None:
    """The content hash in the folder's dataset.json; None without such a file. Raises DataError if it has none."""
    path = checked_file(folder / RECORD, folder)
    if not path.is_file():
        return None
    with reading(path):
        record = read_json(path)
    found = record.get("content_hash") if isinstance(record, dict) else None
    if not isinstance(found, str):
        raise DataError(f"{path}: no content_hash: remove the file, or export the data set again")
    return found


def write_ids(path: Path, ids: Sequence[str]) -> None:
    """Write the ids in the order of their numbers."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("index", "id"), *enumerate(ids)])


def own_ids(name: str, data: Path | None, dataset: Dataset) -> Ids:
    """What `dataset`, loaded as `name`, calls its users and its items; None where it has numbers alone."""
    if (folder := folder_of(name, data)) is None:
        return None, None
    return read_ids(folder, USERS, dataset.n_users), read_ids(folder, ITEMS, dataset.n_items)


def called(own: Ids, dataset: Dataset) -> list[list[str]]:
    """What people call the users and the items of `dataset`: its `own_ids`, or its numbers where it has none."""
    return [ids or [*map(str, range(n))] for ids, n in zip(own, (dataset.n_users, dataset.n_items), strict=True)]


def read_ids(folder: Path, name: str, n: int | None = None) -> list[str] | None:
    """The original ids that `folder` has in the file `name`, for numbers 0 to n-1; None without such a file.

    Raises DataError, with the line, unless every number, of `n` if given, and every id stands there once.
    """
    path = checked_file(folder / name, folder)
    if not path.is_file():
        return None
    rows, ids = list(read_columns(path, ("index", "id"))), dict[int, str]()
    n = len(rows) if n is None else n
    for line, (index, each) in rows:
        number = int(index) if re.fullmatch("[0-9]{1,18}", index) else -1
        if not 0 <= number < n or number in ids:
            raise DataError(f"{path}, line {line}: index is {index[:40]!r}, needed is each of 0 to {n - 1} once")
        ids[number] = each
    if len(ids) != n:
        missing = next(number for number in range(n) if number not in ids)
        raise DataError(f"{path}: {len(ids)} of {n} numbers (first without an id: {missing}): list each of them once")
    if (repeats := n - len(set(ids.values()))) > 0:
        raise DataError(f"{path}: {repeats} ids stand twice: an id belongs to one number")
    return [ids[number] for number in range(n)]
