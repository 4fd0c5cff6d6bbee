"""What a study is doing right now, as a value and as the file that other processes read. Showing it is `progress`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from bm3 import DataError
from harness.common import write_json, writing

STATUS = "status.json"


@dataclass(frozen=True)
class Running:
    """A trial that is being trained."""

    key: str
    """Directory of its run below the store."""
    command: str
    since: float
    """When it was started, in seconds since the epoch (of time)."""
    attempt: int
    """1, or more after its process or machine vanished."""
    epochs: int
    """Its limit of epochs; how far it is stands in the run's `epochs.jsonl`."""
    place: str
    """Where it runs: `this process`, `process 4711`, `GPU 1, process 4711`, `Ray`, or `another process`."""


@dataclass(frozen=True)
class Status:
    """A study at one moment. All counts are of trials."""

    suite: str
    state: Literal["running", "finished", "interrupted"]
    store: str
    """The folder of runs, as an absolute path."""
    started: float
    """Seconds since the epoch (of time), as `now`."""
    now: float
    total: int
    """Known so far: a selection among grid points may add some."""
    done: int
    """Finished, those of earlier studies included."""
    reused: int
    """Of `done`: stored before this study began."""
    failed: int
    """Ended without a result, out of memory included."""
    waiting: int
    """Not begun."""
    running: tuple[Running, ...]
    seconds_left: float | None
    """Estimated; None where there is nothing to estimate from."""
    recent: tuple[str, ...]
    """The last lines of the study's log: what was finished with which result and verdict, what failed and why."""
    process: int
    host: str


def write_status(folder: Path, status: Status) -> None:
    """Replace the status file in a study's folder. Raises WriteError."""
    with writing(folder / STATUS):
        write_json(folder / STATUS, asdict(status))


def read_status(folder: Path) -> Status:
    """The status of the study in `folder`. Raises DataError when there is none or it cannot be read."""
    path = folder / STATUS
    if not path.is_file():
        raise DataError(f"{folder}: no study has been run there; bm3 reproduce SUITE --out DIR runs one in DIR/SUITE")
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name: content[field.name] for field in fields(Status)}
        return Status(**{**known, "running": tuple(Running(**one) for one in known["running"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error!r}); the running study writes it anew") from error
