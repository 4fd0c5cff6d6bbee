"""What a store holds, one entry per run folder: a damaged run is an entry too, and hides no other.

How two of them differ, whether all is in order and what can go are `difference`, `verification` and `leftovers`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bm3 import DataError
from harness.runs.course import course
from harness.runs.store import RESULT, RUN, StoredRun, in_use, run_folders
from harness.runs.words import EntryState
from harness.training.config import STOPPING_METRIC

MOST_NAMED = 6  # candidates in one line


@dataclass(frozen=True)
class Entry:
    """A run folder as it was found, with what a list shows of it; a dash in place of a figure is None."""

    path: Path
    key: str
    """Its path below the folder that was looked in."""
    state: EntryState
    model: str
    dataset: str
    run: StoredRun | None = None
    """None when it cannot be read."""
    reason: str = ""
    """Why it is damaged or failed."""
    epoch: int = 0
    limit: int | None = None
    best_epoch: int = 0
    valid: float | None = None
    """R@20 in the best epoch so far."""
    test: float | None = None
    """R@20."""
    seconds: float | None = None
    """Of all its epochs and their evaluations."""
    finished: str | None = None

    def values(self) -> dict[str, Any]:
        """Everything but the run itself, fit for JSON."""
        shown = {name: value for name, value in vars(self).items() if name != "run"}
        return {**shown, "path": str(self.path)}


def entries(out: Path) -> Iterator[Entry]:
    """Every run below `out` that counts, by path."""
    for path in run_folders(out):
        yield entry(path, key_below(out, path))


def entry(path: Path, key: str) -> Entry:
    """The run folder at `path`, whatever state it is in."""
    try:
        return _entry(StoredRun.read(path), key)
    except DataError as error:
        reason = str(error)
    state: EntryState = "running" if in_use(path) else "damaged"
    return Entry(path, key, state, path.name.split("-")[0], path.parent.name, reason=reason)


def key_below(out: Path, path: Path) -> str:
    """A run's path below a folder; its name when it is that folder."""
    return path.name or str(path) if path == out else path.relative_to(out).as_posix()


def find(name: str, out: Path) -> StoredRun:
    """The run called `name`: the path of its folder, or, among those in `out`, its key or the start or a part of it.

    Raises DataError when there is none, when there are several, and when it is damaged.
    """
    path = Path(name)
    if path.is_file():
        path = path.parent
    if (path / RUN).is_file() or (path / RESULT).is_file():
        return StoredRun.read(path)
    keys = {key_below(out, folder): folder for folder in run_folders(out)}
    for matches in (
        [key for key in keys if key == name],
        [key for key in keys if keys[key].name == name],
        [key for key in keys if key.startswith(name) or keys[key].name.startswith(name)],
        [key for key in keys if name in key],
    ):
        if len(matches) == 1:
            return StoredRun.read(keys[matches[0]])
        if matches:
            raise DataError(f"{name!r} fits {len(matches)} runs in {out}, name one of them: {_some(matches)}")
    what = f"none of the {len(keys)} runs in {out} is called so" if keys else f"there are no runs in {out}"
    raise DataError(f"no run {name!r}: {what}; bm3 runs list shows what there is, --out names another folder")


def settings(run: StoredRun) -> dict[str, Any]:
    """All settings that a run recorded, with dotted keys."""
    return run.settings


def changed_settings(run: StoredRun) -> dict[str, Any]:
    """The settings that differed from their defaults when the run was made."""
    return run.changed_settings


def _entry(run: StoredRun, key: str) -> Entry:
    state: EntryState = "running" if not run.finished and in_use(run.path) else run.state
    known: dict[str, Any] = {
        "path": run.path,
        "key": key,
        "state": state,
        "model": run.model,
        "dataset": run.dataset.name,
        "run": run,
        "reason": "" if run.failure is None else run.failure.message,
        "limit": run.training.epochs,
        "seconds": run.seconds,
    }
    if run.result is None:
        so_far = course(run.path)
        return Entry(**known, epoch=so_far.epoch, best_epoch=so_far.best_epoch, valid=so_far.best)
    return Entry(
        **known,
        epoch=run.result.epochs,
        best_epoch=run.result.best_epoch,
        valid=run.result.valid[STOPPING_METRIC],
        test=run.result.test[STOPPING_METRIC],
        finished=run.result.finished,
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown} and {len(names) - MOST_NAMED} more"
