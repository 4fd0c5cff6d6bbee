"""What of a store can go, and removing it: by default only what no one needs any more.

Nothing is removed that a process is writing to, that cannot be read as a run, or that lies behind a link.
"""

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from bm3 import DataError
from harness.common import HALF_WRITTEN, writing
from harness.runs.inspection import entry, key_below
from harness.runs.record import Numerics
from harness.runs.store import (
    CHECKPOINT,
    EPOCHS,
    FAILURE,
    LOCK,
    LOG,
    RESULT,
    RUN,
    SUPERSEDED,
    StoredRun,
    in_use,
    run_folders,
    run_lock,
)
from harness.runs.verification import NAME
from harness.studies.status import STATUS
from harness.studies.studies import studies, trials_under_way, vanished

PART, PROBE = ".part", ".probe"
REMOVED = ".removed"
"""Folder in `superseded` that a run is moved to before its files go, so that half a run is never one that counts."""
SECONDS_UNTOUCHED = 60  # before a file that is about to be renamed, or a folder about to be used, counts as left
HALF = re.compile(r"(?P<whole>.+?)(\.\d+-[0-9a-f]+)?\.part")
"""The name of a file that is being written: NAME.part, or NAME.PROCESS-HEX.part."""
MARK = re.compile(r"\.shared-[0-9a-f]+")
"""The file in a store by which the machines of a Ray cluster see that they share it."""
WITHOUT_A_RUN = {EPOCHS, FAILURE, CHECKPOINT, LOCK, LOG, PROBE}


@dataclass(frozen=True)
class Leftover:
    """A file or a folder that can go."""

    path: Path
    why: str
    size: int
    run: Path | None
    """The run folder that it is or lies in, whose lock must be free; None elsewhere."""


@dataclass(frozen=True)
class Wish:
    """What to remove beyond what no one needs."""

    superseded: bool = False
    """Runs that were run anew."""
    unfinished: bool = False
    """Runs without a result that nobody is running, failed ones included."""
    stale: bool = False
    """Finished runs of other numerics versions than today's, if their model is known."""


def leftovers(out: Path, wish: Wish, *, now: float | None = None) -> list[Leftover]:
    """What can go from the store `out`, by path. Raises DataError when `out` is a file or a run."""
    if (out / RUN).is_file() or (out / RESULT).is_file():
        raise DataError(f"{out}: is a run itself; name its store, {_store_of(out)}")
    moment = time.time() if now is None else now
    under_way = trials_under_way(out)
    found = [*_files_of_studies(out, moment), *_marks_of_studies(out, moment), *_removed_by_half(out)]

    def idle(path: Path) -> bool:
        return path.resolve() not in under_way and not in_use(path)

    for folder in filter(idle, _folders_without_run(out, moment)):
        found += [Leftover(folder, "a run that never began", _size(folder), folder)]
    for path in filter(idle, run_folders(out)):
        found += _of_run(path, key_below(out, path), wish, moment)
    if wish.superseded:
        for path in run_folders(out, superseded=True):
            found += [Leftover(path, "superseded", _size(path), path)] if REMOVED not in path.parts else []
    return sorted(found, key=lambda leftover: leftover.path)


def remove(out: Path, leftover: Leftover) -> bool:
    """Remove it from the store; False when a process has begun to use it. Raises WriteError.

    A folder is moved aside first: a removal that is killed leaves nothing that counts, and the next one goes on.
    """
    with writing(leftover.path, "see who may write there"):
        lock = None if leftover.run is None else run_lock(leftover.run)
        had_lock = leftover.run is None or (leftover.run / LOCK).exists()
        try:
            if lock is not None:
                lock.acquire(timeout=0)
        except Timeout:
            return False
        try:
            aside = _take(out, leftover.path)
            if not had_lock and leftover.run is not None:
                (leftover.run / LOCK).unlink(missing_ok=True)
        finally:
            if lock is not None:
                lock.release()
        if aside is not None:
            shutil.rmtree(aside)
            _prune(out, aside)
    _prune(out, leftover.path)
    return True


def _take(out: Path, path: Path) -> Path | None:
    """Unlink a file, or move a folder to where its files can go one by one: there."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return None
    if REMOVED in path.relative_to(out).parts:
        return path
    aside = _bin(out) / uuid.uuid4().hex
    path.rename(aside)
    return aside


def _of_run(path: Path, key: str, wish: Wish, now: float) -> Iterator[Leftover]:
    found = entry(path, key)
    if found.run is None:
        return
    why = _unwanted(found.run, wish)
    if why:
        yield Leftover(path, why, _size(path), path)
        return
    for file in sorted(path.iterdir()):
        if file.is_symlink() or not file.is_file():
            continue
        if file.suffix == PART or file.name == PROBE or HALF_WRITTEN.fullmatch(file.name):
            if _untouched(file, now):
                yield Leftover(file, "half a file", _size(file), path)
        elif found.run.finished and file.name in (CHECKPOINT, LOCK):
            what = "checkpoint" if file.name == CHECKPOINT else "lock"
            yield Leftover(file, f"{what} of a finished run", _size(file), path)


def _unwanted(run: StoredRun, wish: Wish) -> str:
    """Why the run as a whole can go; empty if it stays."""
    if not run.finished:
        return run.state if wish.unfinished else ""
    if not wish.stale:
        return ""
    from harness.models.registry import models  # torch, which looking at a store does not wait for
    from harness.training.config import NUMERICS_VERSION

    model = models().get(run.model)
    if model is None:
        return ""
    same = run.numerics == Numerics(model=model.numerics_version, training=NUMERICS_VERSION)
    return "" if same else "of another numerics version than today's"


def _folders_without_run(out: Path, now: float) -> Iterator[Path]:
    """Folders with the name of a run that have nothing of one but what comes before its description."""
    for root, folders, files in os.walk(out):
        folder = Path(root)
        folders[:] = [name for name in folders if name != SUPERSEDED]
        named = NAME.fullmatch(folder.name) is not None and folder != out
        bare = not folders and all(name in WITHOUT_A_RUN or _is_half_of(name, RUN, CHECKPOINT) for name in files)
        if named and bare and _untouched(folder, now):
            yield folder


def _files_of_studies(out: Path, now: float) -> Iterator[Leftover]:
    for root, folders, files in os.walk(out):
        folders[:] = [name for name in folders if name != SUPERSEDED]
        for path in (Path(root) / name for name in files if _is_half_of(name, STATUS)):
            if not path.is_symlink() and _untouched(path, now):
                yield Leftover(path, "half a file", _size(path), None)


def _marks_of_studies(out: Path, now: float) -> Iterator[Leftover]:
    """Those that killed studies left. A study that runs needs its own all along, and none says whose it is."""
    if any(status.state == "running" and not vanished(status) for status in studies(out).values()):
        return
    for path in out.glob(".shared-*"):
        if MARK.fullmatch(path.name) and path.is_file() and not path.is_symlink() and _untouched(path, now):
            yield Leftover(path, "mark of a study that was killed", _size(path), None)


def _removed_by_half(out: Path) -> Iterator[Leftover]:
    folder = out / SUPERSEDED / REMOVED
    if folder.is_dir() and not folder.is_symlink() and not folder.parent.is_symlink():
        for path in sorted(folder.iterdir()):
            yield Leftover(path, "removed by half", _size(path), None)


def _bin(out: Path) -> Path:
    folder = out / SUPERSEDED / REMOVED
    if folder.is_symlink() or folder.parent.is_symlink():
        raise DataError(f"{folder.parent}: is a link, which nothing is removed through; put a folder in its place")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _prune(out: Path, path: Path) -> None:
    """Remove the folders of superseded runs above a path, as far as they are empty."""
    for parent in path.parents:
        if parent == out or SUPERSEDED not in parent.relative_to(out).parts:
            return
        with suppress(OSError):  # not empty
            parent.rmdir()


def _store_of(run: Path) -> Path:
    """The folder above that of its data set; one that lies elsewhere is only known to lie in a folder."""
    path = run.resolve()
    in_data_set = entry(path, path.name).dataset == path.parent.name
    return path.parent.parent if in_data_set else path.parent


def _is_half_of(name: str, *files: str) -> bool:
    half = HALF.fullmatch(name)
    return half is not None and half["whole"] in files


def _untouched(path: Path, now: float) -> bool:
    try:
        return now - path.lstat().st_mtime > SECONDS_UNTOUCHED
    except OSError:  # renamed or removed meanwhile
        return False


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; a link counts itself."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum((Path(root) / name).lstat().st_size for root, _, files in os.walk(path) for name in files)
