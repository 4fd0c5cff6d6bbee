"""What of a store can go, and removing it: by default only what no one needs any more.

Nothing is removed that a process is writing to, that cannot be read as a run, or that lies behind a link.
"""

import os
import re
import shutil
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import Timeout

from bm3 import DataError
from harness.common import HALF_WRITTEN, writing
from harness.runs.inspect import NAME, entry
from harness.runs.record import EPOCHS, FAILURE, RESULT, RUN, Numerics, RunRecord
from harness.runs.store import CHECKPOINT, LOCK, LOG, SUPERSEDED, in_use, run_folders, run_lock

Also = Literal["superseded", "unfinished", "stale"]
"""Whole runs that go when asked: those run anew; those without a result that nobody runs, failed ones included; and
finished ones of other numerics versions than today's."""
REMOVED = ".removed"
"""Folder in `superseded` that a run is moved to before its files go, so that half a run is never one that counts."""
SECONDS_UNTOUCHED = 60  # before a file that is about to be renamed, or a folder about to be used, counts as left
HALF = re.compile(r"(?P<whole>.+?)(\.\d+-[0-9a-f]+)?\.part")
"""The name of a file that is being written: NAME.part, or NAME.PROCESS-HEX.part."""
STUDY = "status.json"
"""What a study keeps in its own folder."""
BEFORE_A_RUN = {EPOCHS, FAILURE, CHECKPOINT, LOCK, LOG}


@dataclass(frozen=True)
class Unneeded:
    """A file or a folder that can go."""

    path: Path
    why: str
    run: Path | None
    """The run folder that it is or lies in, whose lock must be free; None elsewhere."""

    @property
    def size(self) -> int:
        """Bytes of the file, or of all files below the folder; a link counts itself."""
        if not _is_folder(self.path):
            return self.path.lstat().st_size
        return sum((Path(root) / name).lstat().st_size for root, _, files in os.walk(self.path) for name in files)


def unneeded(
    out: Path, also: Collection[Also] = (), under_way: Collection[Path] = (), *, now: float | None = None
) -> list[Unneeded]:
    """What can go from the store `out`, by path; runs `under_way`, resolved, stay.

    Raises DataError when `out` is a file or a run.
    """
    if (out / RUN).is_file() or (out / RESULT).is_file():
        raise DataError(f"{out}: is a run itself; name its store, {_store_of(out)}")
    latest = (time.time() if now is None else now) - SECONDS_UNTOUCHED
    halves = [] if _leads_elsewhere(out) else sorted((out / SUPERSEDED / REMOVED).glob("*"))
    found = [Unneeded(path, "removed by half", None) for path in halves]

    def idle(path: Path) -> bool:
        return path.resolve() not in under_way and not in_use(path)

    for root, folders, files in os.walk(out):
        folder = Path(root)
        folders[:] = [name for name in folders if name != SUPERSEDED]
        halves = [folder / name for name in files if _half_of(name) == STUDY]
        found += [Unneeded(path, "half a file", None) for path in halves if _is_left(path, latest)]
        bare = all(name in BEFORE_A_RUN or _half_of(name) in (RUN, CHECKPOINT) for name in files) and not folders
        if folder != out and bare and NAME.fullmatch(folder.name) and _is_left(folder, latest) and idle(folder):
            found.append(Unneeded(folder, "a run that never began", folder))
    for path in filter(idle, run_folders(out)):
        found += _of_run(path, also, latest)
    if "superseded" in also:
        runs = (path for path in run_folders(out, superseded=True) if REMOVED not in path.parts)
        found += [Unneeded(path, "superseded", path) for path in runs]
    return sorted(found, key=lambda one: one.path)


def remove(out: Path, one: Unneeded) -> bool:
    """Remove it from the store; False when a process has begun to use it. Raises WriteError.

    A folder is moved aside first: a removal that is killed leaves nothing that counts, and the next one goes on.
    """
    with writing(one.path, "see who may write there"):
        with ExitStack() as held:
            if one.run is not None:
                lock, there = one.run / LOCK, (one.run / LOCK).exists()
                try:
                    held.enter_context(run_lock(one.run).acquire(timeout=0))
                except Timeout:
                    return False
            aside = _take(out, one.path)
            if one.run is not None and not there:
                lock.unlink(missing_ok=True)
        if aside is not None:
            shutil.rmtree(aside)
        for path in filter(None, (aside, one.path)):
            for parent in path.parents:
                if parent == out or SUPERSEDED not in parent.relative_to(out).parts:
                    break
                with suppress(OSError):  # not empty
                    parent.rmdir()
    return True


def _take(out: Path, path: Path) -> Path | None:
    """Unlink a file, or move a folder to where its files can go one by one: there."""
    if not _is_folder(path):
        path.unlink(missing_ok=True)
        return None
    if REMOVED in path.relative_to(out).parts:
        return path
    if _leads_elsewhere(out):
        raise DataError(f"{out / SUPERSEDED}: is a link, which nothing is removed through; put a folder in its place")
    aside = out / SUPERSEDED / REMOVED / uuid.uuid4().hex
    aside.parent.mkdir(parents=True, exist_ok=True)
    path.rename(aside)
    return aside


def _of_run(path: Path, also: Collection[Also], latest: float) -> Iterator[Unneeded]:
    try:
        run = RunRecord.read(path)
    except DataError:
        return
    if why := _unwanted(run, also):
        yield Unneeded(path, why, path)
        return
    for file in sorted(path.iterdir()):
        if file.is_symlink() or not file.is_file():
            continue
        if file.suffix == ".part" or HALF_WRITTEN.fullmatch(file.name):
            if _is_left(file, latest):
                yield Unneeded(file, "half a file", path)
        elif run.finished and file.name in (CHECKPOINT, LOCK):
            yield Unneeded(file, f"{'checkpoint' if file.name == CHECKPOINT else 'lock'} of a finished run", path)


def _unwanted(run: RunRecord, also: Collection[Also]) -> str:
    """Why the run as a whole can go; empty if it stays."""
    if not run.finished:
        return run.state if "unfinished" in also else ""
    if "stale" not in also:
        return ""
    from harness.models.registry import models  # torch, which looking at a store does not wait for
    from harness.training.config import NUMERICS_VERSION

    model = models().get(run.model)
    same = model is None or run.numerics == Numerics(model=model.model.numerics_version, training=NUMERICS_VERSION)
    return "" if same else "of another numerics version than today's"


def _store_of(run: Path) -> Path:
    """The folder above that of its data set; one that lies elsewhere is only known to lie in a folder."""
    path = run.resolve()
    return path.parent.parent if entry(path, path.name).dataset == path.parent.name else path.parent


def _leads_elsewhere(out: Path) -> bool:
    return (out / SUPERSEDED).is_symlink() or (out / SUPERSEDED / REMOVED).is_symlink()


def _half_of(name: str) -> str | None:
    """The file that one with this name is half of."""
    half = HALF.fullmatch(name)
    return half and half["whole"]


def _is_left(path: Path, latest: float) -> bool:
    """Whether it is no link and was not touched after `latest`."""
    with suppress(OSError):  # renamed or removed meanwhile
        return not path.is_symlink() and path.lstat().st_mtime < latest
    return False


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
