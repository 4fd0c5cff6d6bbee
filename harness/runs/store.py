"""Run directories: `run.json` (what was asked), `epochs.jsonl` (progress), `hits.npz` (which ranks of each test user's
list are hits) and `result.json` (written last).

A directory without `result.json` is an unfinished run: its `checkpoint.safetensors` says where to go on, and
`failure.json`, if it is there, why it ended. A finished run is never written to again. Whoever writes to a directory
holds its lock, which the system releases when the process ends, however it ends.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from bm3 import BM3Error, DataError
from harness.common import sha256_of, write_json, write_whole, writing
from harness.ending import IN_USE
from harness.runs.record import (
    CARD,
    COMPRESSED,
    EPOCHS,
    FAILURE,
    HITS,
    MODEL,
    RESULT,
    RUN,
    FailureKind,
    RunRecord,
    read_epochs,
)

if TYPE_CHECKING:
    from harness.evaluation.metrics import Ranking

CHECKPOINT, LOCK, LOG = "checkpoint.safetensors", ".lock", "log.txt"
KEPT = (RUN, EPOCHS, HITS, MODEL, CARD)
"""Files of a finished run beside its result; the last two where they were asked for."""
SUPERSEDED = "superseded"
"""Folder of a store for runs that were run anew; no run in it counts."""


class InUseError(BM3Error):
    """Another process runs the trial."""

    exit_code = IN_USE


class RunWriter:
    """Writes one run directory, which must exist and be locked by its user. Raises WriteError when it cannot.

    Raises ValueError for a finished run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if (path / RESULT).exists():
            raise ValueError(f"{path} holds a finished run")

    def begin(self, description: Mapping[str, Any]) -> None:
        """Store what is about to be run and forget an unfinished earlier attempt."""
        with writing(self.path):
            (self.path / CHECKPOINT).unlink(missing_ok=True)
        self.resume(description, ())

    def resume(self, description: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> None:
        """Store what is going on, after these epochs: later ones will be made again."""
        with writing(self.path):
            (self.path / FAILURE).unlink(missing_ok=True)
            write_json(self.path / RUN, description)
            write_whole(self.path / EPOCHS, "".join(json.dumps(record) + "\n" for record in records).encode())

    def epoch(self, record: Mapping[str, Any]) -> None:
        with writing(self.path), (self.path / EPOCHS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def hits(self, ranking: "Ranking") -> None:
        """Store which ranks are hits: a bit per rank, from which every metric of every user follows.

        Of ascending users it has the gaps between them, a quarter of the bytes.
        """
        gaps, packed = np.diff(ranking.users, prepend=0), np.packbits(ranking.hits, axis=1)
        length, stored = ranking.hits.shape[1], BytesIO()
        np.savez_compressed(stored, gaps=gaps, n_relevant=ranking.n_relevant, length=length, hits=packed)
        with writing(self.path):
            write_whole(self.path / HITS, stored.getvalue())

    def finish(self, result: Mapping[str, Any]) -> None:
        """Store the result with digests; nothing is written after it, so that no checkpoint and no lock are needed."""
        with writing(self.path):
            write_json(self.path / RESULT, {**result, "digests": digests(self.path, result)})
            for name in (CHECKPOINT, LOCK):
                (self.path / name).unlink(missing_ok=True)


def kept_files(path: Path) -> Iterator[Path]:
    """The files of a finished run that stay beside its result, as far as they are there, compressed or not."""
    for name in KEPT:
        yield from (file for end in ("", *COMPRESSED) if (file := path / f"{name}{end}").is_file())


def digests(path: Path, result: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of each file of a run that stays, and of what its result says beside the digests. Raises OSError.

    Of compressed epochs it is that of what was compressed.
    """
    found: dict[str, str] = {}
    for file in kept_files(path):
        if file.suffix in COMPRESSED:
            found.setdefault(file.stem, hashlib.sha256(read_epochs(file)).hexdigest())
        else:
            found[file.name] = sha256_of(file)
    said = json.dumps({key: value for key, value in result.items() if key != "digests"}, sort_keys=True)
    return {**found, RESULT: hashlib.sha256(said.encode()).hexdigest()}


def write_failure(path: Path, kind: FailureKind, message: str) -> None:
    """Store why the unfinished run at `path` ended. Raises WriteError."""
    with writing(path):
        write_json(path / FAILURE, {"kind": kind, "message": message, "when": now()})


def run_lock(path: Path) -> FileLock:
    """The lock of a run directory, which must exist."""
    return FileLock(path / LOCK)


@contextmanager
def locked(path: Path, *, wait: bool = True, tell: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock of a run directory, which is made if need be; the system frees it with the process.

    While another process holds it, `tell` is called once and it is waited for, or InUseError raised. Raises WriteError.
    """
    lock = run_lock(path)
    with writing(path, "name another folder with --out"):
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise InUseError(f"{path}: another process runs this trial") from None
            tell()
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def in_use(path: Path) -> bool:
    """Whether some process is writing to the run directory right now."""
    lock = path / LOCK
    if not lock.exists():
        return False
    try:
        with run_lock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # not ours to write; to look at the lock, reading suffices
        with suppress(ImportError, OSError), lock.open("rb") as file:
            from fcntl import LOCK_EX, LOCK_NB, flock

            try:
                flock(file, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                return True
        return False


def supersede(out: Path, path: Path) -> Path:
    """Move a run aside, to the folder `superseded` of its store, so that its trial can be run anew; where it is now."""
    target = out / SUPERSEDED / f"{path.relative_to(out)}-{now().replace(':', '')}"
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    return target


def now() -> str:
    """The time, as it is stored."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def identity_digest(identity: Mapping[str, Any]) -> str:
    """The hash of an identity in a run's key."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]


def run_folders(out: Path) -> Iterator[Path]:
    """As `walk`: the folders alone."""
    return (Path(folder) for folder, _ in walk(out))


def walk(out: Path) -> Iterator[tuple[str, Mapping[str, "os.DirEntry[str]"]]]:
    """Folders with a run that counts, damaged ones included, by path, and what lies in them by name.

    Links to folders are not followed, except `out` itself; what cannot be opened is passed over. Raises DataError when
    `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; name a folder of runs")
    folders = [str(out)]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as there:
                files = {one.name: one for one in there}
        except OSError:
            continue
        if any(name in files and not files[name].is_dir() for name in (RUN, RESULT)):
            yield folder, files
            continue
        inner = (one.path for name, one in files.items() if name != SUPERSEDED and one.is_dir(follow_symlinks=False))
        folders += sorted(inner, reverse=True)


def stored_runs(out: Path, unread: list[str] | None = None) -> Iterator[RunRecord]:
    """Every run below `out` that counts and can be read, finished or not, by path.

    Why the others cannot be read is added to `unread`, a line each, which begins with the path. Raises DataError when
    `out` is no folder.
    """
    if not out.is_dir():
        raise DataError(f"{out}: no such folder; runs are written there by bm3 train --out or bm3 reproduce --out")
    for path in run_folders(out):
        try:
            yield RunRecord.read(path)
        except DataError as error:
            if unread is not None and not in_use(path):
                unread.append(str(error))
