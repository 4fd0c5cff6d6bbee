"""Run directories: `run.json` (what was asked), `epochs.jsonl` (progress), `hits.npz` (which ranks of each test user's
list are hits) and `result.json` (written last).

A directory without `result.json` is an unfinished run. A finished run is never written to again.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from bm3 import DataError
from harness.evaluation import Ranking
from harness.evaluation.metrics import per_user_metrics

RUN_KEYS = ("model", "config", "training", "dataset", "dataset_hash", "seed", "searched", "command", "environment")
RESULT_KEYS = ("finished", "best_epoch", "epochs", "valid", "test", "timing", "memory")
RUN, EPOCHS, HITS, RESULT = "run.json", "epochs.jsonl", "hits.npz", "result.json"


@dataclass(frozen=True)
class StoredRun:
    """A run as read from its directory; `result` is None when it is unfinished. Contents as `run_trial` wrote them."""

    path: Path
    run: Mapping[str, Any]
    result: Mapping[str, Any] | None

    @property
    def finished(self) -> bool:
        return self.result is not None

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
        result = path / RESULT
        return cls(
            path, _read_json(path / RUN, RUN_KEYS), _read_json(result, RESULT_KEYS) if result.is_file() else None
        )


class RunWriter:
    """Writes one run directory. Raises DataError when it cannot be written, and ValueError if it is finished."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if (path / RESULT).exists():
            raise ValueError(f"{path} holds a finished run")
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / ".probe"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror}); name another folder with --out") from error

    def begin(self, description: Mapping[str, Any]) -> None:
        """Store what is about to be run and forget the epochs of an unfinished earlier attempt."""
        write_json(self.path / RUN, description)
        (self.path / EPOCHS).write_text("", encoding="utf-8")

    def epoch(self, record: Mapping[str, Any]) -> None:
        with (self.path / EPOCHS).open("a", encoding="utf-8") as file:
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
        write_whole(self.path / HITS, stored.getvalue())

    def finish(self, result: Mapping[str, Any]) -> None:
        write_json(self.path / RESULT, result)


def find_run(out: Path, key: str) -> StoredRun | None:
    """The finished run `key` of the store `out`, if there is one."""
    return StoredRun.read(out / key) if (out / key / RESULT).is_file() else None


def stored_runs(out: Path) -> Iterator[StoredRun]:
    """Every run below `out`, finished or not, in order of path. Raises DataError when `out` is no folder."""
    if not out.is_dir():
        raise DataError(f"{out}: no such folder; runs are written there by bm3 train --out or bm3 reproduce --out")
    for description in sorted(out.rglob(RUN)):
        yield StoredRun.read(description.parent)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, all of it or nothing."""
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write all of it or nothing: to a file beside it first, flushed to disk, then renamed."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


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
