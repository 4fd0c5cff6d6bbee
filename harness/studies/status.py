"""What a study is doing right now, as a value and as the file that other processes read; which studies there are."""

import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil

from bm3 import DataError
from harness.common import read_json, write_json, writing

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
    from pydantic import TypeAdapter

    path = folder / STATUS
    if not path.is_file():
        raise DataError(f"{folder}: no study has been run there; bm3 reproduce SUITE --out DIR runs one in DIR/SUITE")
    try:
        return TypeAdapter(Status).validate_python(read_json(path))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read ({reason}); the running study writes it anew") from error


def studies(folder: Path) -> dict[Path, Status]:
    """The study in `folder`, or else those one folder below, by folder. Unreadable ones are left out."""
    found = {}
    for status in [folder / STATUS] if (folder / STATUS).is_file() else sorted(folder.glob(f"*/{STATUS}")):
        with suppress(DataError):
            found[status.parent] = read_status(status.parent)
    return found


def vanished(status: Status) -> bool:
    """Whether the study's process is gone though its status says that it is running; False for other hosts."""
    if status.state != "running" or status.host != socket.gethostname():
        return False
    try:
        process = psutil.Process(status.process)
        # A process begun after the status was written only has the same number. A second for coarse clocks.
        return process.status() == psutil.STATUS_ZOMBIE or process.create_time() > status.now + 1
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
