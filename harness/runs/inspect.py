"""A run folder at a glance: its entry in lists, its name, how far it is. A damaged run is an entry too.

All that a store holds is `index`; how two runs differ, whether all is in order and what can go are `difference`,
`verify` and `clean`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bm3 import DataError
from harness.common import parse_json, read_file
from harness.runs.record import EPOCHS, RESULT, RUN, RunRecord
from harness.runs.store import LOG, in_use, run_folders
from harness.runs.words import EntryState
from harness.training.config import STOPPING_METRIC

NAME = re.compile(r"(?P<model>.+)-(?P<digest>[0-9a-f]{10})-seed(?P<seed>\d+)")
"""Of a run's folder."""
IMPROVED = b'"improved": true'  # as `RunWriter.epoch` writes it
MOST_NAMED = 6  # candidates in one line


@dataclass(frozen=True)
class Course:
    """The last epoch that was written, and the best one so far; 0 and None where there is none yet."""

    epoch: int = 0
    best_epoch: int = 0
    best: float | None = None
    """Validation metric of the best epoch, if it has that one."""


def course(run: Path, metric: str = STOPPING_METRIC) -> Course:
    """How far the training in a run's folder is, from the end of its epochs alone, so that it may be asked often.

    What cannot be read, such as a line that is being written, is passed over.
    """
    epoch = 0
    for line in _lines_backwards(run / EPOCHS):
        if epoch and IMPROVED not in line:
            continue
        try:
            record = parse_json(line.decode())
            epoch = epoch or int(record["epoch"])
            if record["improved"]:
                best = record["valid"].get(metric)
                return Course(epoch, int(record["epoch"]), None if best is None else float(best))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            continue
    return Course(epoch)


def last_log_line(run: Path) -> str | None:
    """The last line that says something in the log of a run's process; None without one."""
    lines = (line.decode(errors="replace").strip() for line in _lines_backwards(run / LOG))
    return next((line for line in lines if line), None)


@dataclass(frozen=True, slots=True)
class Entry:
    """A run folder as it was found, with what a list shows of it; a dash in place of a figure is None."""

    path: Path
    key: str
    """Its path below the folder that was looked in."""
    state: EntryState
    model: str
    dataset: str
    reason: str = ""
    """Why it is damaged or failed."""
    epoch: int = 0
    limit: int | None = None
    """None when it cannot be read."""
    best_epoch: int = 0
    valid: float | None = None
    """R@20 in the best epoch so far."""
    test: float | None = None
    """R@20."""
    seconds: float | None = None
    """Of all its epochs and their evaluations."""
    finished: str | None = None
    started: str | None = None  # from here on what lists do not show, and estimates and reports ask
    ended: str | None = None
    host: str = ""
    device: str = ""
    dataset_hash: str = ""
    features: str = ""
    """`trained` or `frozen`, which decides what a model costs that has the choice."""
    stopped: str | None = None
    memory: int | None = None
    """Bytes of the process, on CUDA of the process on the device."""

    def values(self) -> dict[str, Any]:
        """What a list shows, fit for JSON."""
        return {name: getattr(self, name) for name in FIELDS[: FIELDS.index("started")]} | {"path": str(self.path)}


FIELDS = [field.name for field in fields(Entry)]


def entry(path: Path, key: str) -> Entry:
    """The run folder at `path`, whatever state it is in."""
    copied: dict[str, Any] = {}
    try:
        run = RunRecord.read(path)
        copied = {name: getattr(run, name) for name in ("started", "ended", "host", "device", "dataset_hash")}
        copied["seconds"] = run.seconds
    except DataError as error:
        state: EntryState = "running" if in_use(path) else "damaged"
        return Entry(path, key, state, path.name.split("-")[0], path.parent.name, str(error), **copied)
    state, result = "running" if not run.finished and in_use(path) else run.state, run.result
    copied |= {"limit": run.training.epochs, "features": str(run.config.get("features", ""))}
    copied["reason"] = run.failure.message if run.failure else ""
    if result is None:
        far = course(path)
        copied |= {"epoch": far.epoch, "best_epoch": far.best_epoch, "valid": far.best}
    else:
        memory = result.memory.of("gpu_process_peak" if run.device == "cuda" else "process_rss_peak")
        copied |= {"limit": 1} if result.stopped == "closed form" else {}
        copied |= {"epoch": result.epochs, "best_epoch": result.best_epoch, "memory": memory.bytes}
        copied |= {"finished": result.finished, "stopped": result.stopped}
        copied |= {part: getattr(result, part).get(STOPPING_METRIC) for part in ("valid", "test")}
    return Entry(path, key, state, run.model, run.dataset.name, **copied)


def key_below(out: Path, path: Path) -> str:
    """A run's path below a folder; its name when it is that folder."""
    return path.name or str(path) if path == out else path.relative_to(out).as_posix()


def find(name: str, out: Path) -> RunRecord:
    """The run called `name`: the path of its folder, or, among those in `out`, its key or a part of it.

    Raises DataError when there is none, when there are several, and when it is damaged.
    """
    path = Path(name)
    if path.is_file():
        path = path.parent
    if (path / RUN).is_file() or (path / RESULT).is_file():
        return RunRecord.read(path)
    keys = {key_below(out, folder): folder for folder in run_folders(out)}
    for matches in (
        [key for key, path in keys.items() if name in (key, path.name)],
        [key for key in keys if name in key],
    ):
        if len(matches) == 1:
            return RunRecord.read(keys[matches[0]])
        if matches:
            more = f" and {len(matches) - MOST_NAMED} more" if len(matches) > MOST_NAMED else ""
            some = ", ".join(matches[:MOST_NAMED]) + more
            raise DataError(f"{name!r} fits {len(matches)} runs in {out}, name one of them: {some}")
    what = f"none of the {len(keys)} runs in {out} is called so" if keys else f"there are no runs in {out}"
    raise DataError(f"no run {name!r}: {what}; bm3 runs list shows what there is, and a path names one elsewhere")


def _lines_backwards(path: Path) -> Iterator[bytes]:
    """Lines of a file, the last one first; none of a file that cannot be read."""
    try:
        return reversed(read_file(path).split(b"\n"))
    except OSError:
        return iter(())
