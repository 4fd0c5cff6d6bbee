"""From the original Amazon files to a data set on disk: k-core, new numbers, a split, and the folder written.

Parsing each kind of file is `raw`, rules that divide are in `harness.data.split`.
"""

import csv
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bm3 import ConfigError, DataError
from harness.common import sha256_of, write_json
from harness.data.dataset import PARTS, checked_dataset
from harness.data.files import RawFile, Report, new_folder
from harness.data.layouts import find_interactions, read_interactions
from harness.data.split import OLD_NAMES, Pairs, Parts, split_rule
from harness.data.words import DEFAULT_SPLIT_SEED, SPLIT_RULES
from harness.ingest.amazon.raw import ASIN_BYTES, IMAGE_WIDTH, read_images, read_metadata
from harness.ingest.exporting import ITEMS, USERS, checked_name, write_ids
from harness.ingest.importing import divide
from harness.ingest.tables import AMAZON_2014, Columns, k_core, read_tables

RECORD, TEXTS, IMAGES = "prepared.json", "texts.csv", "visual.npy"

Watch = Callable[[str], AbstractContextManager[Report]]
"""From a file's name to a context manager whose value is told how far it has been read."""


@dataclass(frozen=True)
class Plan:
    """What to read, how to divide it, and where to write. `check` before anything is read."""

    name: str
    ratings: Path
    metadata: Path | None
    """None: no texts."""
    images: Path | None
    """None: no visual features."""
    core: int
    """Interactions that every user and every item must have."""
    split: str
    """A rule's name, or the path of a given split."""
    split_seed: int | None
    """None: DEFAULT_SPLIT_SEED."""
    out: Path
    columns: Columns | None = None
    """Of users and items in the ratings, where they are not the usual ones."""

    @property
    def target(self) -> Path:
        return self.out / self.name

    @property
    def given_split(self) -> Path | None:
        """The file of the split if it is given: itself, or the one in a folder. Raises DataError when there is none."""
        path = Path(self.split)
        if self.split in (*SPLIT_RULES, *OLD_NAMES) or not (os.sep in self.split or path.exists()):
            return None
        if path.is_dir():
            return find_interactions(path)
        if path.suffix not in (".npz", ".inter") or not path.is_file():
            raise DataError(f"{path}: no split; needed is a folder, or an existing file that ends in .npz or .inter")
        return path

    @property
    def drawn(self) -> bool:
        """Whether the seed makes a difference. Raises ConfigError or DataError where there is no such split."""
        return self.given_split is None and split_rule(self.split).drawn

    @property
    def inputs(self) -> dict[str, Path]:
        """The files to read, by what they hold."""
        files = {"ratings": self.ratings, "metadata": self.metadata, "images": self.images, "split": self.given_split}
        return {kind: path for kind, path in files.items() if path is not None}

    def check(self) -> None:
        """Raises ConfigError or DataError if it cannot be carried out, as far as is known before reading."""
        checked_name(self.name, "data set")
        if not self.drawn and self.split_seed is not None:
            raise ConfigError(f"split {self.split}: nothing is drawn; leave --split-seed out")
        if self.target.exists():
            raise DataError(f"{self.target}: exists already; remove it or choose another name")
        for path in self.inputs.values():
            with RawFile(path) as file:  # said now and not after long reading
                record = ASIN_BYTES + 4 * IMAGE_WIDTH
                if path == self.images and not file.compressed and file.size % record:
                    raise DataError(
                        f"{path}: {file.size} bytes are no multiple of {record}: cut off in the record at byte "
                        f"{file.size // record * record}, or no file of image features; download it again"
                    )


def read_split(path: Path, interactions: Pairs) -> Parts:
    """The split in a file, checked to divide exactly these interactions [n, 2] (user, item).

    Raises DataError where users or items are others, or numbered in another order.
    """
    stored = checked_dataset(path.stem, read_interactions(path), {}, where=str(path))
    parts: Parts = {part: stored.part(part) for part in PARTS}
    together = np.concatenate(list(parts.values()))
    there, here = ({*map(tuple, pairs.tolist())} for pairs in (together, interactions))
    for odd, what in ((there - here, "are not in the ratings"), (here - there, "of the ratings are not in it")):
        if odd:
            user, item = min(odd)
            raise DataError(
                f"{path}: {len(odd)} interactions {what} (first: user {user}, item {item}); needed is a split of the "
                f"same ratings with the same --k-core, users and items numbered in order of first appearance"
            )
    return parts


def prepare(
    plan: Plan, versions: Mapping[str, object], watch: Watch = lambda name: nullcontext(lambda position, size: None)
) -> dict[str, Any]:
    """Write the data set of a plan; gives what its prepared.json says. It appears whole, or not when something fails.

    `versions` of what makes it go into the record. Raises ConfigError, or DataError with file and line or byte.
    """
    plan.check()
    inputs = {
        kind: {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for kind, path in plan.inputs.items()
    }
    with watch(plan.ratings.name) as report:
        find = ("user", "item", "time")
        table = read_tables([plan.ratings], plan.columns or Columns(), find=find, usual=AMAZON_2014, report=report)
    core, counts = k_core(table, plan.core)
    if plan.given_split is not None:
        parts, user_ids, item_ids = read_split(plan.given_split, core.pairs), core.user_ids, core.item_ids
    else:
        parts, user_ids, item_ids = divide(core, plan.split, plan.split_seed)
    dataset = checked_dataset(plan.name, parts, {}, where=str(plan.target))
    counts |= {"users": dataset.n_users, "items": dataset.n_items, "interactions": dataset.n_interactions}
    counts |= {part: len(dataset.part(part)) for part in PARTS}
    with new_folder(plan.target) as folder:
        write_ids(folder / USERS, user_ids)
        write_ids(folder / ITEMS, item_ids)
        features = _write_features(folder, item_ids, plan, watch)
        record = {
            "format": 1,
            "name": plan.name,
            "inputs": inputs,
            "options": {
                "core": plan.core,
                "split": split_rule(plan.split).name if plan.given_split is None else plan.given_split.name,
                "split_seed": (plan.split_seed or DEFAULT_SPLIT_SEED) if plan.drawn else None,
            },
            "counts": counts,
            "notes": list(table.notes),
            **features,
            "versions": {
                "bm3_harness": metadata.version("bm3-harness"),
                "python": platform.python_version(),
                "numpy": np.__version__,
                **versions,
            },
        }
        arrays: Any = {part: dataset.part(part) for part in PARTS}
        np.savez_compressed(folder / "interactions.npz", **arrays)
        write_json(folder / RECORD, record)
    return record


def _write_features(folder: Path, item_ids: Sequence[str], plan: Plan, watch: Watch) -> dict[str, Any]:
    """Texts and image features where the plan has them, and what the record says of them."""
    items = {name: item for item, name in enumerate(item_ids)}
    record: dict[str, Any] = {}
    if plan.metadata is not None:
        with watch(plan.metadata.name) as report, RawFile(plan.metadata, report) as file:
            found = read_metadata(file, items)
        with (folder / TEXTS).open("w", newline="", encoding="utf-8") as texts:  # with the ids that encoding joins by
            rows = csv.writer(texts, lineterminator="\n")
            rows.writerows([("id", "text"), *zip(item_ids, found.texts, strict=True)])
        without = [item for item, text in enumerate(found.texts) if not text]
        record["metadata"] = asdict(found) | {"items_without_text": without}
        del record["metadata"]["texts"]
    if plan.images is not None:
        table = np.empty((len(items), IMAGE_WIDTH), np.float32)
        with watch(plan.images.name) as report, RawFile(plan.images, report) as file:
            images = read_images(file, items, table)
        np.save(folder / IMAGES, table)
        record["images"] = asdict(images)
    return record
