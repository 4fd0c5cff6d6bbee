"""Features of a data set's items from their texts or images, by any encoder, with a record of which one it was.

The models are in `encoders`; joining vectors to items and writing them is `adding`.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bm3 import DataError
from harness.data.files import listed, unreadable
from harness.data.layouts import read_folder
from harness.ingest.adding import ENCODER_RECORD, Added, add_features, item_ids, join_by_id
from harness.ingest.encoders import Encoder
from harness.ingest.exporting import write_text_at_once

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
ID_COLUMN = "id"

Each = TypeVar("Each")


@dataclass(frozen=True)
class Encoded:
    """What was written, and what did not fit."""

    added: Added
    record: Path
    left_out: int
    filled: int


def read_texts(path: Path) -> dict[str, str]:
    """Text by item id from a CSV file with a column `id`: the other columns in their order, joined by spaces.

    As published: title, brand, category path and description, newlines removed. Raises DataError with the line.
    """
    texts: dict[str, str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            if header.count(ID_COLUMN) != 1 or len(header) < 2:
                raise DataError(
                    f"{path}, line 1: columns are {listed(header)}; needed is one called id, and the texts' columns"
                )
            position = header.index(ID_COLUMN)
            for row in rows:
                if not row:
                    continue
                where = f"{path}, line {rows.line_num}"
                if len(row) != len(header):
                    raise DataError(f"{where}: {len(row)} fields, and the header names {len(header)}")
                if row[position] in texts:
                    raise DataError(f"{where}: id {row[position][:40]!r} stands there already: keep one row per item")
                texts[row[position]] = " ".join(" ".join(row[:position] + row[position + 1 :]).split())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(unreadable(path, error)) from error
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
    contents: dict[str, Each],
    encoder: Encoder[Each],
    modality: str,
    where: str,
    *,
    batch_size: int = 64,
    replace: bool = False,
) -> Encoded:
    """Encode the contents (by item id) of the items of the data set in `folder`, and add the vectors to it.

    Items without content get the mean of the others, as published for those without an image. A JSON file beside the
    table records model and revision. Raises DataError.
    """
    items = item_ids(folder, read_folder(folder).n_items)
    known = set(items)
    wanted = {each: content for each, content in contents.items() if each in known}
    if not wanted:
        raise DataError(
            f"{where}: none of {len(contents):,} ids is one of an item, the first item being {items[0][:40]!r}: ids "
            f"are those of items.csv in the data set's folder, or item numbers where it has none"
        )
    table = encode_in_batches(list(wanted.values()), encoder, batch_size, f"{modality} by {encoder.name}")
    joined = join_by_id(table, list(wanted), items, where, fill=True)
    added = add_features(folder, joined.table, modality, where, replace=replace)
    record = added.file.with_name(f"{added.file.stem}{ENCODER_RECORD}")
    values = {
        "format": 1,
        "modality": modality,
        "model": encoder.name,
        "revision": encoder.revision,
        "library": encoder.library,
        "width": int(table.shape[1]),
        "items_filled_with_the_mean": joined.filled,
    }
    write_text_at_once(record, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    return Encoded(added, record, len(contents) - len(wanted), joined.filled)


def encode_in_batches(contents: list[Each], encoder: Encoder[Each], batch_size: int, title: str) -> NDArray[np.float32]:
    """The encoder's rows for all contents, [n, d], with a progress bar on a terminal. Raises DataError."""
    blocks: list[NDArray[Any]] = []
    with tqdm(total=len(contents), desc=title, unit="item", disable=None) as bar:
        for start in range(0, len(contents), batch_size):
            batch = contents[start : start + batch_size]
            rows = np.asarray(encoder.encode(batch))
            if rows.ndim != 2 or len(rows) != len(batch) or (blocks and rows.shape[1] != blocks[0].shape[1]):
                raise DataError(
                    f"{encoder.name}: gave shape {list(rows.shape)} for {len(batch)} items, needed is one row each, of "
                    f"one width: choose another --model"
                )
            blocks.append(rows.astype(np.float32))
            bar.update(len(batch))
    return np.concatenate(blocks)
