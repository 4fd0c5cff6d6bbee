"""Run directories: `run.json` (what was asked), `epochs.jsonl` (progress), `hits.npz` (which ranks of each test user's
list are hits) and `result.json` (written last).

A directory without `result.json` is an unfinished run: its `checkpoint.safetensors` says where to go on, and
`failure.json`, if it is there, why it ended. A finished run is never written to again. Whoever writes to a directory
holds its lock, which the system releases when the process ends, however it ends.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from bm3 import BM3Error, DataError
from harness.common import write_json, write_whole, writing
from harness.ending import IN_USE
from harness.evaluation.metrics import per_user_metrics
from harness.runs.records import Epoch, Failure, Record, Result, Run, check
from harness.runs.words import State

if TYPE_CHECKING:
    from harness.evaluation import Ranking

OUT_OF_MEMORY: Final = "out of memory"
RUN, EPOCHS, HITS, RESULT = "run.json", "epochs.jsonl", "hits.npz", "result.json"
FAILURE, CHECKPOINT, LOCK, LOG = "failure.json", "checkpoint.safetensors", ".lock", "log.txt"
DAMAGE = (OSError, ValueError, TypeError, KeyError, EOFError, NotImplementedError, BadZipFile, zlib.error)
"""What reading a damaged archive raises."""
SUPERSEDED = "superseded"
"""Folder of a store for runs that were run anew; no run in it counts."""


class InUseError(BM3Error):
    """Another process runs the trial."""

    exit_code = IN_USE


FailureKind = Literal["out of memory", "error", "killed"]


@dataclass(frozen=True)
class StoredRun:
    """A run as read from its directory; `result` is None when it is unfinished. Contents as `run_trial` wrote them."""

    path: Path
    run: Mapping[str, Any]
    result: Mapping[str, Any] | None
    failure: Mapping[str, Any] | None = None
    """`kind`, `message` and `when` of what ended it; None when it is finished or was merely interrupted."""
    without: frozenset[str] = frozenset()
    """Names of files that are there, cannot be read, and are taken as not there."""

    @property
    def finished(self) -> bool:
        return self.result is not None

    @property
    def state(self) -> State:
        return "finished" if self.finished else "unfinished" if self.failure is None else "failed"

    @property
    def out_of_memory(self) -> bool:
        return self.failure is not None and self.failure["kind"] == OUT_OF_MEMORY

    def epochs(self) -> list[dict[str, Any]]:
        """Records of the epochs, in order; a last line that was cut off is left out. Raises DataError."""
        file = self.path / EPOCHS
        if EPOCHS in self.without or not file.is_file():
            return []
        try:
            lines = file.read_bytes().split(b"\n")
        except OSError as error:
            raise _unreadable(file, error) from error
        records: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                check(record, Epoch)
            except ValueError as error:
                if number == len(lines):
                    break
                raise DataError(
                    f"{file}: line {number} is no record of an epoch ({error}); remove the folder to run again"
                ) from error
            records.append(record)
        return records

    def per_user(self, metric: str) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
        """Users [n] and their test metric [n], such as `recall@20`; None where the run did not store its hits.

        Ranks past the last item are misses. Raises DataError when the file cannot be read, its lists end before the
        cut-off though there are more items, or it is not of this result.
        """
        file = self.path / HITS
        if HITS in self.without or not file.is_file():
            return None
        if metric in self._per_user:
            return self._per_user[metric]
        users, n_relevant, packed, length = self._hits
        cutoff, n_items = int(metric.partition("@")[2]), self.run["dataset"]["items"]
        asked = self.run["training"].get("evaluation", {}).get("top_k", length)
        if length < (wanted := min(max(cutoff, asked), n_items)):
            raise DataError(
                f"{file}: its lists end at rank {length}, before rank {wanted}; remove the folder to run it again"
            )
        hits = np.unpackbits(packed, axis=1, count=length).astype(bool)
        values = per_user_metrics(hits[:, :cutoff], n_relevant, [cutoff])[metric]
        stored_mean = (self.result or {}).get("test", {}).get(metric)
        if stored_mean is not None and abs(values.mean() - stored_mean) > 1e-6:
            raise DataError(f"{file}: is not of {self.path / RESULT}, whose {metric} is another; run that trial again")
        self._per_user[metric] = users, values
        return users, values

    @cached_property
    def _per_user(self) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """What `per_user` has found already, since a report asks several times."""
        return {}

    @cached_property
    def _hits(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8], int]:
        """Users [n], their numbers of relevant items [n], their hits [n, ⌈length / 8⌉] as bits, and the length."""
        file = self.path / HITS
        try:
            with np.load(file, allow_pickle=False) as stored:
                users, n_relevant, packed = stored["users"], stored["n_relevant"], stored["hits"]
                length = int(stored["length"])
        except DAMAGE as error:
            raise _unreadable(file, error) from error
        whole = [array.ndim == 1 and np.issubdtype(array.dtype, np.integer) for array in (users, n_relevant)]
        fits = all(whole) and packed.dtype == np.uint8 and packed.shape == (len(users), -(-length // 8))
        if not fits or not len(users) == len(np.unique(users)) == len(n_relevant) or not (n_relevant > 0).all():
            raise DataError(f"{file}: its users do not fit its lists; remove the folder to run that trial again")
        return users, n_relevant, packed, length

    def readable(self, metrics: Sequence[str]) -> tuple[Self, list[str]]:
        """The run without those of its files of epochs and hits that cannot be read, and why they cannot, a line each.

        After that, `epochs` and `per_user` of these metrics raise nothing.
        """
        unread: dict[str, str] = {}
        try:
            found = len(self.epochs())
            if self.result is not None and (self.path / EPOCHS).is_file() and found != self.result["epochs"]:
                raise DataError(f"{self.path / EPOCHS}: has {found} epochs, {RESULT} counts {self.result['epochs']}")
        except DataError as error:
            unread[EPOCHS] = f"{error}; the run counts without it"
        try:
            for metric in metrics:
                self.per_user(metric)
        except DataError as error:
            unread[HITS] = f"{error}; the run counts without it"
        return (replace(self, without=frozenset(unread)) if unread else self), list(unread.values())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises DataError when the files are missing, not JSON, or not what every run has."""
        run = _read_json(path / RUN, Run)
        if (path / RESULT).is_file():
            return cls(path, run, _read_json(path / RESULT, Result))
        failed = (path / FAILURE).is_file()
        return cls(path, run, None, _read_json(path / FAILURE, Failure) if failed else None)


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
            (self.path / FAILURE).unlink(missing_ok=True)
            (self.path / CHECKPOINT).unlink(missing_ok=True)
            write_json(self.path / RUN, description)
            write_whole(self.path / EPOCHS, b"")

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
        """Store which ranks are hits: a bit per rank, from which every metric of every user follows."""
        stored = BytesIO()
        np.savez_compressed(
            stored,
            users=ranking.users,
            n_relevant=ranking.n_relevant,
            length=ranking.hits.shape[1],
            hits=np.packbits(ranking.hits, axis=1),
        )
        with writing(self.path):
            write_whole(self.path / HITS, stored.getvalue())

    def finish(self, result: Mapping[str, Any]) -> None:
        """Store the result, after which nothing is written any more, so that no checkpoint and no lock are needed."""
        with writing(self.path):
            write_json(self.path / RESULT, result)
            for name in (CHECKPOINT, LOCK):
                (self.path / name).unlink(missing_ok=True)


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
        return _locked_by_another(lock)


def _locked_by_another(lock: Path) -> bool:
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock

        with lock.open("rb") as file:
            flock(file, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
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


def numerics_of(run: Mapping[str, Any]) -> Mapping[str, int]:
    """Versions of the numbers of a run's model and training; runs of format 1, which did not record them, have 1."""
    versions: Mapping[str, int] = run.get("numerics", {"model": 1, "training": 1})
    return versions


def run_folders(out: Path, *, superseded: bool = False) -> Iterator[Path]:
    """Folders with a run, damaged ones included, by path; those that count, or else the superseded ones.

    Links to folders are not followed, except `out` itself. Raises DataError when `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; name a folder of runs")
    for root, folders, files in os.walk(out):
        folder = Path(root)
        aside = SUPERSEDED in folder.relative_to(out).parts
        folders[:] = sorted(name for name in folders if superseded or name != SUPERSEDED)
        if RUN in files or RESULT in files:
            folders.clear()
            if aside == superseded:
                yield folder


def stored_runs(out: Path, unread: list[str] | None = None) -> Iterator[StoredRun]:
    """Every run below `out` that counts and can be read, finished or not, by path.

    Why the others cannot be read is added to `unread`, a line each, which begins with the path. Raises DataError when
    `out` is no folder.
    """
    if not out.is_dir():
        raise DataError(f"{out}: no such folder; runs are written there by bm3 train --out or bm3 reproduce --out")
    for path in run_folders(out):
        try:
            yield StoredRun.read(path)
        except DataError as error:
            if unread is not None and not in_use(path):
                unread.append(str(error))


def readable_runs(out: Path, unread: list[str] | None = None) -> Iterator[StoredRun]:
    """As `stored_runs`; nothing where there is no folder."""
    return stored_runs(out, unread) if out.is_dir() else iter(())


def _read_json(path: Path, form: type[Record]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no JSON object; remove the folder to run that trial again")
    try:
        check(content, form)
    except ValueError as error:
        raise DataError(f"{path}: {error}; remove the folder to run that trial again") from error
    return content


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read ({error}); remove the folder to run that trial again")
