"""Writing data sets: the `.inter` layout with feature files and a record of what was written. Reading is `layouts`."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from bm3 import DataError
from harness.data.dataset import PARTS, Dataset
from harness.data.files import checked_file, unreadable
from harness.data.folder import new_folder
from harness.data.layouts import INTER_COLUMNS, SYNTHETIC, modality_of

RECORD = "dataset.json"
FILE_NAMES = {"visual": "image"}  # other tools that read this layout look for image_feat.npy
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
    stem += "_surrogate" if surrogate else "_feat" if inter else ""
    if modality_of(stem) != (modality, surrogate):
        raise DataError(f"modality {modality!r}: would be read back as {modality_of(stem)[0]!r}; rename it")
    return f"{stem}.npy"


def export(dataset: Dataset, target: Path) -> Path:
    """Write `dataset` as the new folder `target`: NAME.inter, a feature file per modality, dataset.json.

    Reading the folder gives the same content hash. Raises DataError if the folder exists or cannot be written; then
    nothing is left of it.
    """
    with new_folder(target) as folder:
        try:
            write_dataset(dataset, folder, checked_file_stem(dataset.name))
        except OSError as error:
            raise DataError(f"{target}: cannot be written ({error.strerror}); choose another folder") from error
    return target


def checked_file_stem(name: str) -> str:
    """The name of the .inter file of a data set called `name`: synthetic data sets may be written too."""
    return name if name in SYNTHETIC else checked_name(name, "data set")


def write_dataset(dataset: Dataset, folder: Path, name: str) -> None:
    """Write the files of `dataset`, called `name`, into `folder`; raises DataError for names that no file can have."""
    files = {m: feature_file_name(m, m in dataset.surrogates) for m in dataset.features}
    with (folder / f"{name}.inter").open("w", encoding="utf-8", newline="") as file:
        file.write("\t".join(INTER_COLUMNS) + "\n")
        for label, part in enumerate(PARTS):
            file.writelines(f"{user}\t{item}\t{label}\n" for user, item in dataset.part(part).tolist())
    for modality, table in dataset.features.items():
        np.save(folder / files[modality], table, allow_pickle=False)
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
    write_text_at_once(folder / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def write_text_at_once(path: Path, text: str) -> None:
    """Write a text file that is never seen half-written."""
    made = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        made.write_text(text, encoding="utf-8")
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)


def recorded_hash(folder: Path) -> str | None:
    """The content hash in the folder's dataset.json; None without such a file. Raises DataError if it has none."""
    path = checked_file(folder / RECORD, folder)
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        found = record["content_hash"]
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(unreadable(path, error)) from error
    except (KeyError, TypeError):
        found = None
    if not isinstance(found, str):
        raise DataError(f"{path}: no content_hash: remove the file, or export the data set again")
    return found


def check_recorded_hash(dataset: Dataset, folder: Path) -> None:
    """Raise DataError if the folder's record names another content than was read."""
    recorded = recorded_hash(folder)
    if recorded is not None and recorded != dataset.content_hash:
        raise DataError(
            f"{folder / RECORD}: records the content hash {recorded[:80]!r}, but the files have "
            f"{dataset.content_hash}: copy or export them again, or remove {RECORD} if they were meant to change"
        )
