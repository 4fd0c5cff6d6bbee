"""Run directories: `run.json` (what was asked), `epochs.jsonl` (progress), `result.json` (written last).

A directory without `result.json` is an unfinished run. A finished run is never written to again.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bm3 import DataError

RUN, EPOCHS, RESULT = "run.json", "epochs.jsonl", "result.json"


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
        records = []
        file = self.path / EPOCHS
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return records

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises DataError when the files are missing or not JSON."""
        result = path / RESULT
        return cls(path, _read_json(path / RUN), _read_json(result) if result.is_file() else None)


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
    """Write all of it or nothing: to a file beside it first, flushed to disk, then renamed."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove the folder to run that trial again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no JSON object; remove the folder to run that trial again")
    return content
