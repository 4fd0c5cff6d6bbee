"""Studies by their status files: which there are in a folder, and whether one that says so is still running."""

import socket
from pathlib import Path

import psutil

from bm3 import DataError
from harness.studies.status import STATUS, Status, read_status


def studies(folder: Path) -> dict[Path, Status]:
    """The study in `folder`, or else those one folder below, by folder. Unreadable ones are left out."""
    found = {}
    for status in [folder / STATUS] if (folder / STATUS).is_file() else sorted(folder.glob(f"*/{STATUS}")):
        try:
            found[status.parent] = read_status(status.parent)
        except DataError:
            continue
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


def trials_under_way(folder: Path) -> frozenset[Path]:
    """Run folders, resolved, of the trials that running studies in `folder`, or one folder above or below, run now."""
    found = {**studies(folder.resolve().parent), **studies(folder)}
    return frozenset(
        (Path(status.store) / trial.key).resolve()
        for status in found.values()
        if status.state == "running" and not vanished(status)
        for trial in status.running
    )
