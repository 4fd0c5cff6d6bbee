"""Reading data sets from disk: the `.inter` layout, the `interactions.npz` layout, and look-up by name.

Nothing is ever unpickled, and links lead nowhere else: see `files`. What a data set must satisfy once read is checked
in `dataset`.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bm3 import DataError
from harness.common import folder_name
from harness.data.dataset import PARTS, Dataset, Part, checked_dataset
from harness.data.files import checked_file, listed, read_archive, read_array, read_columns
from harness.data.synthetic import mini

DATA_VARIABLE = "BM3_DATA"
SYNTHETIC: Mapping[str, Callable[[], Dataset]] = {"mini": mini}
ARCHIVE = "interactions.npz"
COMPANION = re.compile(
    r"(users|items|texts)\.csv|(dataset|prepared|.*\.encoder)\.json|(readme|licen[cs]e)([._-]?(txt|md|rst|html|pdf))?",
    re.IGNORECASE,
)
"""What may stand beside: original ids, texts to encode, and records of how it was made."""
INTER_COLUMNS = ("userID", "itemID", "x_label")
WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")  # int() would also take 1_0, other scripts' digits and spaces
FEATURE_SUFFIXES = ("_feat", "_surrogate", "")
MODALITY_NAMES = {"image": "visual", "textual": "text"}  # two names in use for each; one name inside


def load_dataset(name: str, data: Path | None = None, *, mapped: bool | None = False) -> Dataset:
    """The data set called `name`, or the one in the folder `name`; feature tables stay in their files if `mapped`,
    those that can if it is None.

    A path with a separator is read as it is. A plain name is made if it is synthetic, else looked up as a folder in
    `data`, or if that is not given in $BM3_DATA, then in ./data, then in the working directory. Raises DataError with
    the nearest names when there is none.
    """
    if (folder := folder_of(name, data)) is not None:
        return read_folder(folder, mapped=mapped)
    if mapped:
        raise DataError(f"{name} is made in memory, its features cannot stay on disk: leave features_location out")
    return SYNTHETIC[name]()


def is_there(name: str, data: Path | None = None) -> bool:
    """Whether `load_dataset` finds a data set of this name; it may still be damaged."""
    try:
        return (folder := folder_of(name, data)) is None or folder.is_dir()
    except DataError:
        return False


def folder_of(name: str, data: Path | None) -> Path | None:
    """The folder of the data set called `name`, looked up as `load_dataset` does, None of one that is made in memory.

    Raises DataError.
    """
    if name in SYNTHETIC:
        return None
    if os.sep in name:
        return Path(name)
    roots = data_roots(data)
    for root in roots:
        if (root / name).is_dir():
            return root / name
    if data is None and Path(name).is_dir():
        return Path(name)
    there = (path for root in roots if root.is_dir() for path in sorted(root.iterdir()))
    known = [*SYNTHETIC, *(path.name for path in there if path.is_dir())]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
    raise DataError(
        f"no data set {name!r} in {', '.join(map(str, roots))}; nearest: {', '.join(dict.fromkeys(near))}. "
        f"Name its parent folder with --data DIR or ${DATA_VARIABLE}, or give a path"
    )


def data_roots(data: Path | None = None) -> list[Path]:
    """Folders in which data sets are looked up by name, first match wins. Raises DataError if `data` is no folder."""
    if data is not None:
        if not data.is_dir():
            raise DataError(f"{data}: no such folder (given with --data)")
        return [data]
    variable = os.environ.get(DATA_VARIABLE)
    return [*([Path(variable)] if variable else []), Path("data")]


def read_folder(folder: Path, *, mapped: bool | None = False) -> Dataset:
    """The data set in `folder`, in either layout, with feature tables in memory or memory-mapped.

    Raises DataError naming file and, in text files, line.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    interactions = find_interactions(folder)
    parts = read_interactions(interactions)
    features, surrogates, files = read_features(folder, mapped=mapped)
    name, where = folder_name(folder), str(interactions)
    return checked_dataset(name, parts, features, surrogates=surrogates, where=where, feature_files=files)


def read_features(
    folder: Path, *, mapped: bool | None = False
) -> tuple[dict[str, NDArray[Any]], frozenset[str], dict[str, Path]]:
    """Each modality's table in `folder`, which modalities are surrogates, and their files; raises DataError."""
    files = feature_files(folder)
    return (
        {modality: _read_table(path, mapped) for modality, (path, _) in files.items()},
        frozenset(modality for modality, (_, surrogate) in files.items() if surrogate),
        {modality: path for modality, (path, _) in files.items()},
    )


def find_interactions(folder: Path) -> Path:
    """The one file with interactions in `folder`, in either layout; raises DataError."""
    archive, tables = folder / ARCHIVE, visible(folder, "*.inter")
    if archive.is_file() and tables:
        raise DataError(f"{folder}: interactions stand in {archive.name} and in {tables[0].name}: keep one of the two")
    if archive.is_file():
        return checked_file(archive, folder)
    if len(tables) == 1:
        return checked_file(tables[0], folder)
    found = f"{len(tables)} .inter files" if tables else listed(path.name for path in visible(folder))
    raise DataError(
        f"{folder}: needed is {ARCHIVE} or one NAME.inter, found {found}; bring other files in with bm3 data import"
    )


def visible(folder: Path, pattern: str = "*") -> list[Path]:
    """What matches `pattern` in `folder`, in order, but no companions, hidden files and what a Mac adds to archives."""
    # Not by `glob`, for which a folder that may not be read is empty.
    found = (path for path in folder.iterdir() if path.match(pattern) and not COMPANION.fullmatch(path.name))
    return sorted(path for path in found if not path.name.startswith((".", "__MACOSX")))


def unread_files(folder: Path) -> list[str]:
    """What is in the folder of a data set and belongs to none, such as features of another ending. Raises DataError."""
    read = {find_interactions(folder), *(path for path, _ in feature_files(folder).values())}
    names = [f"{path.name}/" if path.is_dir() else path.name for path in visible(folder) if path not in read]
    if folder / ARCHIVE in read:
        with np.load(folder / ARCHIVE) as arrays:
            names += [f"{name} in {ARCHIVE}" for name in arrays.files if name not in PARTS]
    return names


def read_interactions(path: Path) -> dict[Part, NDArray[Any]]:
    """The parts in an .npz archive, or else in a table with tabs and a header that has INTER_COLUMNS and maybe others.

    They are not checked further. Raises DataError.
    """
    if path.suffix.lower() == ".npz":
        arrays = read_archive(path, PARTS)
        for part in PARTS:
            if part not in arrays:
                raise DataError(f"{path}: no array {part!r}; needed are train, valid and test, integer [n, 2]")
        return {part: arrays[part] for part in PARTS}
    rows = read_columns(path, INTER_COLUMNS, "\t", mend="; bm3 data import reads others, and divides what has no parts")
    found = [_inter_row(fields, f"{path}, line {line}") for line, fields in rows]
    table = np.array(found, dtype=np.int64).reshape(-1, 3)
    return {part: table[table[:, 2] == label, :2] for label, part in enumerate(PARTS)}


def _inter_row(fields: list[str], where: str) -> list[int]:
    for column, field in zip(INTER_COLUMNS, fields, strict=True):
        if not WHOLE_NUMBER.fullmatch(field):
            raise DataError(f"{where}: {column} is {field[:40]!r}, needed is a whole number")
    user, item, label = row = [int(field) for field in fields]
    if not 0 <= label < len(PARTS):
        raise DataError(f"{where}: x_label is {label}, needed is 0 (train), 1 (valid) or 2 (test)")
    if not (0 <= user < 2**31 and 0 <= item < 2**31):
        raise DataError(f"{where}: ids are {user} and {item}, needed are whole numbers from 0 that fit 31 bits")
    return row


def feature_files(folder: Path) -> dict[str, tuple[Path, bool]]:
    """Each modality's file in `folder`, and whether its vectors are surrogates. Raises DataError for a second file."""
    found: dict[str, tuple[Path, bool]] = {}
    for path in visible(folder, "*.npy"):
        modality, surrogate = modality_of(path.stem)
        if modality in found:
            other = found[modality][0].name
            raise DataError(f"{path}: {modality} features stand in {other} too: keep one of the two files")
        found[modality] = checked_file(path, folder), surrogate
    return found


def modality_of(stem: str) -> tuple[str, bool]:
    """The modality that a feature file is named for, and whether it is marked as holding surrogate vectors."""
    suffix = next(suffix for suffix in FEATURE_SUFFIXES if stem.endswith(suffix))
    stem = stem.removesuffix(suffix)
    return MODALITY_NAMES.get(stem, stem), suffix == "_surrogate"


def _read_table(path: Path, mapped: bool | None) -> NDArray[Any]:
    table = read_array(path, mapped=mapped is not False)
    stays = table.dtype in (np.dtype(np.float32), np.dtype(np.float16)) and table.flags.c_contiguous
    if mapped is None and not stays:
        return read_array(path)
    if mapped and not stays:
        raise DataError(
            f"{path}: {table.dtype}{'' if table.flags.c_contiguous else ' in Fortran order'} cannot stay on disk "
            f"(features_location=disk), needed is float32 or float16 row by row: "
            f"np.save(F, np.ascontiguousarray(np.load(F), 'float32')), or leave features_location out"
        )
    return table
