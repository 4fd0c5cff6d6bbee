"""Adding a modality to a data set on disk: rows joined to items by order or by original id, or made by an encoder.

Tables are written at once or not at all. The models that make vectors are `encoders`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from bm3 import DataError
from harness.common import check_writable, whole_file, write_json, writing
from harness.data.dataset import PARTS, Dataset, checked_dataset
from harness.data.files import column_positions, open_text, read_columns, read_csv
from harness.data.layouts import MODALITY_NAMES, feature_files, find_interactions, read_folder
from harness.ingest.encoders import Encoder
from harness.ingest.exporting import ITEMS, RECORD, feature_file_name, read_ids, write_record
from harness.ingest.tables import USUAL

ENCODER_RECORD = ".encoder.json"
"""Follows the name of a feature file; says which model made it."""
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
ID_COLUMN = "id"
TABLE = re.compile(r"\.[ct]sv(\.gz|\.bz2|\.xz)?$", re.IGNORECASE)
Fill = Literal["mean", "zero"]

Content = TypeVar("Content")
Progress = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""From a title to a context manager whose value is told how many of how many items are done."""


@dataclass(frozen=True)
class Joined:
    """Rows in the order of the items, and what did not fit."""

    table: NDArray[np.float32]
    """[I, d]"""
    left_out: int
    """Rows whose id is no item of the data set."""
    filled: int
    """Items without a row of their own."""

    def notes(self, fill: Fill | None) -> list[str]:
        """What did not fit, a sentence each."""
        left_out = [f"rows of other items, left out: {self.left_out:,}"] if self.left_out else []
        with_what = "the mean" if fill == "mean" else "zeros"
        return left_out + ([f"items without a row, filled with {with_what}: {self.filled:,}"] if self.filled else [])


@dataclass(frozen=True)
class Encoded:
    """What was written, and what did not fit."""

    file: Path
    record: Path
    dataset: Dataset
    """What the folder holds now."""
    left_out: int
    filled: int


def item_ids(folder: Path, n_items: int) -> list[str]:
    """The id of origin of each item by the folder's items.csv, or its number where there is none."""
    return read_ids(folder, ITEMS, n_items) or [str(item) for item in range(n_items)]


def read_row_ids(path: Path, column: str | None = None, kind: Literal["user", "item"] = "item") -> list[str]:
    """The ids of a table's rows in their order: a column of a CSV or TSV file, or one a line. Raises DataError.

    The column is `column`, or called as ids of that kind usually are; a single one needs no header.
    """
    if column is None and not TABLE.search(path.name):
        with open_text(path) as text:
            ids = [line.strip() for line in text.read().rstrip().splitlines()]
        return ids[1:] if ids and ids[0].lower() in (ID_COLUMN, *USUAL[kind]) else ids
    header = next(read_csv(path))[1]
    wanted = column or id_column(header, kind)
    if column is None and len(header) == 1 and wanted not in header:
        return [fields[0] for _, fields in read_csv(path)]
    return [fields[0] for _, fields in read_columns(path, (wanted,), mend="; name another with --id-column")]


def id_column(header: Sequence[str], kind: str = "item") -> str:
    """The column of a header that is called as ids of that kind usually are, or else ID_COLUMN."""
    known = {name.lower(): name for name in reversed(header)}
    return next((known[name] for name in (ID_COLUMN, *USUAL[kind]) if name in known), ID_COLUMN)


def join_by_id(
    table: NDArray[Any], row_ids: Sequence[str], items: Sequence[str], where: str, *, fill: Fill | None = None
) -> Joined:
    """Rows of `table` [n, d], whose ids are `row_ids` [n], in the order of `items` [I].

    Items without a row are an error, or get zeros or the mean of the others, by `fill`; the mean, as those without an
    image did in the published features. Raises DataError, also for ids that stand twice, or with the row and its id.
    """
    if table.ndim != 2 or len(row_ids) != len(table):
        raise DataError(f"{where}: {len(row_ids)} ids for features of shape {list(table.shape)}: needed is one per row")
    if not np.issubdtype(table.dtype, np.floating):
        raise DataError(f"{where}: {table.dtype}, needed are floating-point numbers: convert with .astype('float32')")
    row_of = {each: row for row, each in enumerate(row_ids)}
    if len(row_of) < len(row_ids):
        twice = next(each for row, each in enumerate(row_ids) if row_of[each] != row)
        raise DataError(f"{where}: id {twice[:40]!r} stands more than once: keep one row for each item")
    found = np.array([row_of.get(item, -1) for item in items])
    missing = np.flatnonzero(found < 0)
    if len(missing) == len(items):
        raise DataError(_no_item(len(row_ids), items, where))
    if len(missing) and fill is None:
        raise DataError(
            f"{where}: {len(missing):,} of {len(items):,} items have no row (first: {items[missing[0]][:40]!r}): add "
            f"rows for them, or give them all the mean of the others with --fill mean, or zeros with --fill zero"
        )
    joined = _as_float32(table[found])
    bad = np.flatnonzero((found >= 0) & ~np.isfinite(joined).all(axis=1))
    if len(bad):
        row = found[bad[0]]
        more = f", and {len(bad) - 1:,} others" if len(bad) > 1 else ""
        raise DataError(
            f"{where}: row {row} (id {row_ids[row][:40]!r}){more}: NaN or infinity as float32: replace it, or take "
            f"such rows out and give --fill mean"
        )
    if len(missing):
        joined[missing] = joined[found >= 0].mean(axis=0, dtype=np.float64) if fill == "mean" else 0
    return Joined(joined, len(row_ids) - (len(items) - len(missing)), len(missing))


def _no_item(n: int, items: Sequence[str], where: str) -> str:
    return (
        f"{where}: none of {n:,} ids is one of an item, the first item being {items[0][:40]!r}: ids are those of "
        f"{ITEMS} in the data set's folder, or item numbers where it has none"
    )


def _as_float32(table: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused where a data set is checked
        return np.asarray(table, dtype=np.float32)


def add_features(
    folder: Path, table: NDArray[Any], modality: str, where: str, *, surrogate: bool = False, replace: bool = False
) -> tuple[Path, Dataset]:
    """Write `table` [I, d], in the order of the items, as float32 into the data set in `folder`, as its layout has it.

    Gives the file, which appears whole or not at all, and the data set that the folder holds now; dataset.json, if
    there is one, is made anew. Raises DataError for a table that does not fit, beginning with `where`, and if the
    modality is there already and not to be replaced. `image` and `textual` mean `visual` and `text`.
    """
    dataset, modality = read_folder(folder), MODALITY_NAMES.get(modality, modality)
    target, present = _files_of(folder, modality, surrogate, replace)
    parts = {part: dataset.part(part) for part in PARTS}
    wanted = _as_float32(table) if np.issubdtype(table.dtype, np.floating) else table
    checked = checked_dataset(dataset.name, parts, {modality: wanted}, where=where).features[modality]
    with writing(folder, "copy the data set elsewhere"):
        with whole_file(target) as file:
            np.save(file, checked, allow_pickle=False)
            for old in {present, target}:  # what it says is no longer so
                old.with_name(f"{old.stem}{ENCODER_RECORD}").unlink(missing_ok=True)
        if present != target:
            present.unlink()
        written = read_folder(folder)
        if (folder / RECORD).is_file():
            write_record(folder, written, written.name)
    return target, written


def _files_of(folder: Path, modality: str, surrogate: bool, replace: bool) -> tuple[Path, Path]:
    """The file of a modality to be written, and the one that is there or the same. Raises DataError."""
    target = folder / feature_file_name(modality, surrogate, inter=find_interactions(folder).suffix != ".npz")
    present = feature_files(folder).get(modality, (target, False))[0]
    if present.exists() and not replace:
        raise DataError(f"{present}: {modality} features are there already: give --replace, or another --modality")
    check_writable(target, "copy the data set elsewhere")
    return target, present


# --- from texts and images ---


def read_texts(path: Path) -> dict[str, str]:
    """Text by item id from a CSV file with a column `id`, `item_id` or the like: the other columns, joined by spaces.

    As published: title, brand, category path and description, newlines removed. Raises DataError with the line.
    """
    rows = read_csv(path)
    header = next(rows)[1]
    (position,) = column_positions(header, (id_column(header),), f"{path}, line 1")
    if len(header) < 2:
        raise DataError(f"{path}, line 1: needed are columns of texts besides {ID_COLUMN}")
    texts: dict[str, str] = {}
    for line, fields in rows:
        each = fields.pop(position)
        if each in texts:
            raise DataError(f"{path}, line {line}: id {each[:40]!r} stands there already: keep one row per item")
        texts[each] = " ".join(" ".join(fields).split())
    return texts


def find_images(folder: Path) -> dict[str, Path]:
    """Image file by item id, which is the file's name without its ending. Raises DataError."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_ENDINGS and path.is_file():
            if path.stem in images:
                raise DataError(f"{path}: {images[path.stem].name} is an image of the same item: keep one of the two")
            images[path.stem] = path
    return images


def encode_features(
    folder: Path,
    contents: Mapping[str, Content],
    encoder: Encoder[Content],
    modality: str,
    where: str,
    *,
    batch_size: int = 64,
    replace: bool = False,
    progress: Progress = lambda title: nullcontext(lambda done, total: None),
) -> Encoded:
    """Encode the contents (by item id) of the items of the data set in `folder`, and add the vectors to it.

    Items without content get the mean of the others, as published for those without an image. A JSON file beside the
    table records model and revision. Raises DataError.
    """
    items = item_ids(folder, read_folder(folder).n_items)
    known = set(items)
    wanted = {each: content for each, content in contents.items() if each in known}
    if not wanted:
        raise DataError(_no_item(len(contents), items, where))
    _files_of(folder, MODALITY_NAMES.get(modality, modality), False, replace)  # before hours of work
    with progress(f"{modality} by {encoder.name}") as report:
        table = encode_in_batches(list(wanted.values()), encoder, batch_size, report)
    joined = join_by_id(table, list(wanted), items, where, fill="mean")
    file, dataset = add_features(folder, joined.table, modality, where, replace=replace)
    record = file.with_name(f"{file.stem}{ENCODER_RECORD}")
    values = {
        "format": 1,
        "modality": modality,
        "model": encoder.name,
        "revision": encoder.revision,
        "library": encoder.library,
        "width": int(table.shape[1]),
        "items_filled_with_the_mean": joined.filled,
    }
    write_json(record, values)
    return Encoded(file, record, dataset, len(contents) - len(wanted), joined.filled)


def encode_in_batches(
    contents: list[Content], encoder: Encoder[Content], batch_size: int, report: Callable[[int, int], None]
) -> NDArray[np.float32]:
    """The encoder's rows for all contents, [n, d]. Raises DataError."""
    blocks: list[NDArray[np.float32]] = []
    for start in range(0, len(contents), batch_size):
        batch = contents[start : start + batch_size]
        rows = np.asarray(encoder.encode(batch))
        if rows.ndim != 2 or len(rows) != len(batch) or (blocks and rows.shape[1] != blocks[0].shape[1]):
            raise DataError(
                f"{encoder.name}: gave shape {list(rows.shape)} for {len(batch)} items, needed is one row each, of "
                f"one width: choose another --model"
            )
        blocks.append(_as_float32(rows))
        report(start + len(batch), len(contents))
    return np.concatenate(blocks)
