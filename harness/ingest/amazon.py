"""From the original Amazon 2014 files to data sets on disk: what `bm3 data prepare` does.

Parsing each kind of file is in `raw_*`, filtering in `core`, dividing in `split`; this module joins and writes.
"""

import csv
import errno
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import harness
from bm3 import DataError
from harness.data.dataset import PARTS, Dataset, checked_dataset
from harness.data.folder import new_folder
from harness.data.split import Parts, split_rule
from harness.ingest.core import Core, k_core
from harness.ingest.numbering import ITEMS, USERS, write_ids
from harness.ingest.prepare_plan import Plan, checked
from harness.ingest.raw_file import Advance, RawFile
from harness.ingest.raw_images import IMAGE_WIDTH, read_images
from harness.ingest.raw_metadata import read_metadata
from harness.ingest.raw_ratings import Ratings, read_ratings
from harness.ingest.split_file import read_split
from harness.measure.environment import source

RECORD = "prepared.json"
TEXTS, IMAGES = "texts.csv", "visual.npy"
SHARED = (USERS, ITEMS, TEXTS, IMAGES)  # the same whatever the seed of the split

Watch = Callable[[str, int], AbstractContextManager[Advance]]
"""From a file's name and its bytes on disk to a context manager whose value is told about every part that is read."""
Inputs = dict[str, dict[str, Any]]
"""What the record says of each file that was read."""


@dataclass(frozen=True)
class Prepared:
    """A data set that has been written."""

    folder: Path
    record: Mapping[str, Any]
    """What `prepared.json` in the folder says."""


@dataclass(frozen=True)
class Divided:
    """Interactions in parts, and what the files call users and items."""

    user_ids: Sequence[bytes]
    """[U]"""
    item_ids: Sequence[bytes]
    """[I]"""
    datasets: Mapping[int, Dataset]
    """By the seed of the split, without features."""


def prepare(plan: Plan, watch: Watch = lambda name, size: nullcontext(lambda n: None)) -> list[Prepared]:
    """Write the data sets of a plan. They appear when everything has succeeded, and none when something fails.

    Raises ConfigError, or DataError with file and line or byte.
    """
    checked(plan)
    inputs: Inputs = {}
    with _opened("ratings", plan, watch, inputs) as file:
        core = k_core(read_ratings(file), plan.core, str(plan.ratings))
    divided = _divide(plan, core.ratings, inputs)
    try:
        with ExitStack() as folders:
            if not plan.out.exists():
                folders.callback(_remove_empty, plan.out)
            made = {seed: folders.enter_context(new_folder(plan.target(seed))) for seed in plan.seeds}
            first = made[plan.seeds[0]]
            write_ids(first / USERS, [user.decode() for user in divided.user_ids])
            write_ids(first / ITEMS, [item.decode() for item in divided.item_ids])
            features = _write_features(first, divided.item_ids, plan, watch, inputs)
            prepared, versions = [], _versions()
            for seed, folder in made.items():
                dataset = divided.datasets[seed]
                record = {
                    "format": 1,
                    "name": plan.target(seed).name,
                    "inputs": inputs,
                    "options": _options(plan, seed),
                    "counts": _counts(core, dataset),
                    **features,
                    "versions": versions,
                }
                _share(first, folder)
                np.savez_compressed(
                    folder / "interactions.npz", train=dataset.train, valid=dataset.valid, test=dataset.test
                )
                (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
                prepared.append(Prepared(plan.target(seed), record))
    except OSError as error:
        raise DataError(
            f"{plan.out}: cannot be written ({error.strerror or error}); make room, or choose another folder with --out"
        ) from error
    return prepared


@contextmanager
def _opened(kind: str, plan: Plan, watch: Watch, inputs: Inputs) -> Iterator[RawFile]:
    """A file of the plan, entered in `inputs` once it has been read."""
    path = plan.inputs[kind]
    with ExitStack() as stack:
        advance = stack.enter_context(watch(path.name, path.stat().st_size))
        file = stack.enter_context(RawFile(path, advance))
        yield file
        if file.position != file.size:
            raise DataError(f"{path}: {file.position} bytes read of {file.size}; leave the file alone while it is read")
        inputs[kind] = {"file": path.name, "bytes": file.size, "sha256": file.sha256}


def _divide(plan: Plan, ratings: Ratings, inputs: Inputs) -> Divided:
    """Raises DataError where parts make no data set, before anything else is read."""
    pairs = np.stack([ratings.users, ratings.items], axis=1)
    user_ids, item_ids = ratings.user_ids, ratings.item_ids
    given = plan.given_split
    if given is not None:
        with given.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        inputs["split"] = {"file": given.name, "bytes": given.stat().st_size, "sha256": digest}
        divided = {plan.seeds[0]: read_split(given, pairs)}
    else:
        rule = split_rule(plan.split)
        divided = {seed: rule.divide(pairs, ratings.times, np.random.default_rng(seed)) for seed in plan.seeds}
        if not rule.drawn:  # such a rule can leave users out, and then items; there is one seed
            users, items, closed = _without_gaps(divided[plan.seeds[0]])
            divided = {plan.seeds[0]: closed}
            user_ids, item_ids = [user_ids[user] for user in users], [item_ids[item] for item in items]
    datasets = {
        seed: checked_dataset(plan.target(seed).name, parts, {}, where=str(plan.target(seed)))
        for seed, parts in divided.items()
    }
    return Divided(user_ids, item_ids, datasets)


def _without_gaps(parts: Parts) -> tuple[list[int], list[int], Parts]:
    """Users and items, ascending, that are in a part, and the parts with these numbered from 0 in the same order."""
    together = np.concatenate([parts[part] for part in PARTS])
    users, items = np.unique(together[:, 0]), np.unique(together[:, 1])
    closed: Parts = {
        part: np.stack([np.searchsorted(users, pairs[:, 0]), np.searchsorted(items, pairs[:, 1])], axis=1)
        for part, pairs in parts.items()
    }
    return users.tolist(), items.tolist(), closed


def _write_features(
    folder: Path, item_ids: Sequence[bytes], plan: Plan, watch: Watch, inputs: Inputs
) -> dict[str, Any]:
    """Texts and image features where the plan has them, and what the record says of them."""
    items = {name: item for item, name in enumerate(item_ids)}
    record: dict[str, Any] = {}
    if plan.metadata is not None:
        with _opened("metadata", plan, watch, inputs) as file:
            texts = read_metadata(file, items)
        _write_texts(folder / TEXTS, item_ids, texts.texts)
        record["metadata"] = {
            "lines": texts.lines,
            "of_other_items": texts.other_items,
            "repeated": texts.repeated,
            "cut": texts.cut,
            "broken": texts.broken,
            "first_broken": [{"line": line, "reason": reason} for line, reason in texts.first_broken],
            "without_text": len(texts.without_text),
            "items_without_text": texts.without_text,
        }
    if plan.images is not None:
        table = _reserved(folder / IMAGES, (len(items), IMAGE_WIDTH))
        with _opened("images", plan, watch, inputs) as file:
            images = read_images(file, items, table)
        table.flush()
        record["images"] = {
            "records": images.records,
            "of_other_items": images.other_items,
            "repeated": images.repeated,
            "without_image": len(images.without_image),
            "items_without_image": images.without_image,
        }
    return record


def _reserved(path: Path, shape: tuple[int, int]) -> np.memmap[Any, np.dtype[np.float32]]:
    """A new float32 array in a file, whose place on disk is taken: a full disk would kill a process that writes it."""
    table: np.memmap[Any, np.dtype[np.float32]] = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.float32, shape=shape
    )
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise
    return table


def _share(first: Path, folder: Path) -> None:
    """Give a folder the files that all have, without taking their place on disk again where that is possible."""
    for name in SHARED:
        if folder != first and (first / name).exists():
            try:
                os.link(first / name, folder / name)
            except OSError:  # the file system has no hard links
                shutil.copyfile(first / name, folder / name)


def _write_texts(path: Path, ids: Sequence[bytes], texts: Sequence[str]) -> None:
    """In the order of the items, with the ids that `bm3 data encode` joins by."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("id", "text"))
        rows.writerows((name.decode(), text) for name, text in zip(ids, texts, strict=True))


def _remove_empty(folder: Path) -> None:
    """A folder that was made for data sets is left only with data sets in it."""
    with suppress(OSError):
        folder.rmdir()


def _counts(core: Core, dataset: Dataset) -> dict[str, int]:
    return {
        "ratings": core.read,
        "duplicates": core.duplicates,
        "core_rounds": core.rounds,
        "core_users": len(core.ratings.user_ids),
        "core_items": len(core.ratings.item_ids),
        "core_interactions": len(core.ratings),
        "users": dataset.n_users,
        "items": dataset.n_items,
        "interactions": dataset.n_interactions,
        **{part: len(dataset.part(part)) for part in PARTS},
    }


def _options(plan: Plan, seed: int) -> dict[str, Any]:
    given = plan.given_split
    return {
        "core": plan.core,
        "split": plan.split if given is None else given.name,
        "split_seed": seed if plan.drawn else None,
    }


def _versions() -> dict[str, Any]:
    return {
        "bm3_harness": metadata.version("bm3-harness"),
        "python": platform.python_version(),
        "numpy": np.__version__,
        **source(Path(harness.__file__).parent),
    }
