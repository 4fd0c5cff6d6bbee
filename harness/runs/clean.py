"""What of a store can go, and removing it: by default only what no one needs any more.

Nothing is removed that a process is writing to, that cannot be read as a run, or that lies behind a link.
"""

import lzma
import os
import re
import shutil
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import Timeout

from bm3 import DataError
from harness.common import write_whole, writing
from harness.runs.record import (
    CARD,
    COMPRESSED,
    DAMAGED,
    EPOCHS,
    MODEL,
    RESULT,
    RUN,
    Numerics,
    RunRecord,
    epochs_files,
    read_epochs,
)
from harness.runs.store import CHECKPOINT, LOCK, SUPERSEDED, in_use, run_folders, run_lock, supersede

Also = Literal["superseded", "unfinished", "stale", "models"]
"""What goes when asked: whole runs, those run anew; those without a result that nobody runs, failed ones included;
finished ones of other numerics versions than today's; and of finished runs, the weights that were kept."""
OF_OLD = "of another numerics version than today's"
WHEN = re.compile(r"-\d{4}-\d\d-\d\dT\d{6}\+0000$")
"""Ends the name of a superseded run."""
HALF = "*.*-????????.part"
"""What a killed process leaves of an index, a study's status or a report: names that `whole_file` gives."""
HALF_A_FILE = "half a file"
WRITING_S = 60.0
"""Such a file that is younger may be being written: each is done in far less."""


@dataclass(frozen=True)
class Unneeded:
    """A file of a run, a whole run, a superseded one or the folder of all, or half a file beside runs."""

    path: Path
    why: str
    run: Path | None
    """The run folder that it is or lies in, whose lock must be free; None where it lies in none."""

    @property
    def size(self) -> int:
        """Bytes of the file, or of all files below the folder; a link counts itself."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(file.lstat().st_size for file in files if file.is_symlink() or file.is_file())


def unneeded(out: Path, also: Collection[Also] = ()) -> list[Unneeded]:
    """What can go from the store `out`, by path.

    Raises DataError when `out` is a file or a run.
    """
    if (out / RUN).is_file() or (out / RESULT).is_file():
        raise DataError(f"{out}: is a run itself; name the store that it lies in")
    found = [one for path in run_folders(out) if not in_use(path) for one in _of_run(path, also)]
    aside = out / SUPERSEDED
    if "superseded" in also and aside.is_dir() and not aside.is_symlink():
        runs = {file.parent for file in aside.rglob(RUN)}
        anew = {path: out / WHEN.sub("", str(path.relative_to(aside))) for path in runs}
        needed = {path for path, run in anew.items() if (path / RESULT).is_file() and not (run / RESULT).is_file()}
        found += [Unneeded(path, "superseded", None) for path in (runs - needed if needed else {aside})]
    return sorted([*found, *_beside_runs(out)], key=lambda one: one.path)


def _beside_runs(out: Path) -> Iterator[Unneeded]:
    """Half files in the store and in its folders of data sets and studies."""
    below = (one for one in out.glob("*") if one.name != SUPERSEDED and not one.is_symlink())
    for folder in (out, *(one for one in below if not any((one / name).exists() for name in (RUN, RESULT, LOCK)))):
        for file in folder.glob(HALF):
            with suppress(FileNotFoundError):  # it may become whole meanwhile
                about = file.lstat()
                if stat.S_ISREG(about.st_mode) and time.time() - about.st_mtime > WRITING_S:
                    yield Unneeded(file, HALF_A_FILE, None)


def remove(out: Path, one: Unneeded) -> bool:
    """Remove it from the store; False when a process has begun to use it, or has finished it. Raises WriteError.

    A run is superseded first: a removal that is killed leaves nothing that counts.
    """
    with writing(one.path, "see who may write there"):
        if one.run is None:
            (shutil.rmtree if one.path.is_dir() else os.remove)(one.path)
            return True
        lock, there, whole, aside = one.run / LOCK, (one.run / LOCK).exists(), one.path == one.run, None
        try:
            with run_lock(one.run).acquire(timeout=0):
                finished = whole and one.why != OF_OLD and (one.run / RESULT).is_file()  # since it was looked at
                if not whole:
                    one.path.unlink(missing_ok=True)
                elif not finished:
                    aside = supersede(out, one.path)
                if aside is None and not there:
                    lock.unlink(missing_ok=True)
        except Timeout:
            return False
        if aside is not None:
            (aside / RESULT).unlink(missing_ok=True)  # so that a removal that is killed leaves no result that is needed
            shutil.rmtree(aside)
            with suppress(OSError):  # not empty
                for parent in list(aside.relative_to(out).parents)[:-1]:
                    (out / parent).rmdir()
    return not finished


def compress(path: Path, *, dry_run: bool) -> int:
    """Make the epochs of a finished run smaller; 0 where nothing is to do, else the bytes that are free then.

    Raises WriteError.
    """
    best = next(iter(COMPRESSED))
    with writing(path, "see who may write there"):
        file = next((file for file in epochs_files(path) if file.suffix != best), None)
        if file is None or not (path / RESULT).is_file():
            return 0
        try:
            small = lzma.compress(read_epochs(file))
        except DAMAGED:  # stays as it is
            return 0
        if (saved := file.stat().st_size - len(small)) > 0 and not dry_run:
            write_whole(path / f"{EPOCHS}{best}", small)
            file.unlink()
        return max(0, saved)


def _of_run(path: Path, also: Collection[Also]) -> Iterator[Unneeded]:
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
        if file.suffix == ".part":
            yield Unneeded(file, HALF_A_FILE, path)
        elif run.finished and file.name in (CHECKPOINT, LOCK):
            yield Unneeded(file, f"{'checkpoint' if file.name == CHECKPOINT else 'lock'} of a finished run", path)
        elif "models" in also and file.name in (MODEL, CARD):
            yield Unneeded(file, f"{'weights' if file.name == MODEL else 'card'} of a kept model", path)


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
    return "" if same else OF_OLD
