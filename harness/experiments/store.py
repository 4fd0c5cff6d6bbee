"""Run directories: `run.json` (what was asked), `epochs.jsonl` (progress), `hits.npz` (which ranks of each test user's
list are hits) and `result.json` (written last).

A directory without `result.json` is an unfinished run: its `checkpoint.safetensors` says where to go on, and
`failure.json`, if it is there, why it ended. A finished run is never written to again. Whoever writes to a directory
holds its lock, which the system releases when the process ends, however it ends.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal, Self
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from bm3 import BM3Error, DataError
from harness.ending import IN_USE
from harness.evaluation import Ranking
from harness.evaluation.metrics import per_user_metrics
from harness.experiments.words import State
from harness.files import write_json, write_whole, writing

RUN_KEYS = ("model", "config", "training", "dataset", "dataset_hash", "seed", "searched", "command", "environment")
RESULT_KEYS = ("finished", "best_epoch", "epochs", "valid", "test", "timing", "memory")
FAILURE_KEYS = ("kind", "message", "when")
OUT_OF_MEMORY: Final = "out of memory"
RUN, EPOCHS, HITS, RESULT = "run.json", "epochs.jsonl", "hits.npz", "result.json"
FAILURE, CHECKPOINT, LOCK, LOG = "failure.json", "checkpoint.safetensors", ".lock", "log.txt"
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
        """Records of the epochs, in order; a last line cut off by a crash is left out."""
        records: list[dict[str, Any]] = []
        file = self.path / EPOCHS
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                break
            if not isinstance(record, dict):
                raise DataError(
                    f"{file}: line {len(records) + 1} is no record of an epoch; remove the folder to run again"
                )
            records.append(record)
        return records

    def per_user(self, metric: str) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
        """Users [n] and their test metric [n], such as `recall@20`; None where the run did not store its hits.

        Raises DataError when the file cannot be read, its lists end before the cut-off, or it is not of this result.
        """
        file = self.path / HITS
        if not file.is_file():
            return None
        try:
            with np.load(file, allow_pickle=False) as stored:
                users, n_relevant, length = stored["users"], stored["n_relevant"], int(stored["length"])
                hits = np.unpackbits(stored["hits"], axis=1, count=length).astype(bool)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise DataError(f"{file}: cannot be read ({error}); remove the folder to run that trial again") from error
        cutoff = int(metric.partition("@")[2])
        if cutoff > length:
            raise DataError(f"{file}: its lists end at rank {length}, before {metric}")
        if not len(users) == len(np.unique(users)) == len(n_relevant) == len(hits) or not (n_relevant > 0).all():
            raise DataError(f"{file}: its users do not fit its lists; remove the folder to run that trial again")
        values = per_user_metrics(hits[:, :cutoff], n_relevant, [cutoff])[metric]
        stored_mean = (self.result or {}).get("test", {}).get(metric)
        if stored_mean is not None and abs(values.mean() - stored_mean) > 1e-6:
            raise DataError(f"{file}: is not of {self.path / RESULT}, whose {metric} is another; run that trial again")
        return users, values

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises DataError when the files are missing, not JSON, or lack what every run has."""
        run = _read_json(path / RUN, RUN_KEYS)
        if (path / RESULT).is_file():
            return cls(path, run, _read_json(path / RESULT, RESULT_KEYS))
        failed = (path / FAILURE).is_file()
        return cls(path, run, None, _read_json(path / FAILURE, FAILURE_KEYS) if failed else None)


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

    def hits(self, ranking: Ranking) -> None:
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


def find_run(out: Path, key: str) -> StoredRun | None:
    """The finished run `key` of the store `out`, if there is one."""
    return StoredRun.read(out / key) if (out / key / RESULT).is_file() else None


def stored_runs(out: Path) -> Iterator[StoredRun]:
    """Every run below `out` that counts, finished or not, by path. Raises DataError when `out` is no folder."""
    if not out.is_dir():
        raise DataError(f"{out}: no such folder; runs are written there by bm3 train --out or bm3 reproduce --out")
    for description in sorted(out.rglob(RUN)):
        if SUPERSEDED not in description.relative_to(out).parts:
            yield StoredRun.read(description.parent)


def readable_runs(out: Path) -> Iterator[StoredRun]:
    """As `stored_runs`, without those that cannot be read; nothing where there is no folder."""
    for description in sorted(out.rglob(RUN)):
        with suppress(DataError):
            if SUPERSEDED not in description.relative_to(out).parts:
                yield StoredRun.read(description.parent)


def _read_json(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove the folder to run that trial again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no JSON object; remove the folder to run that trial again")
    missing = [key for key in keys if key not in content]
    if missing:
        raise DataError(f"{path}: lacks {', '.join(missing)}; remove the folder to run that trial again")
    return content
