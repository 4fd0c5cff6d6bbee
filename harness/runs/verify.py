"""Whether a stored run is what it says: name, epochs, result and hits fit together. Nothing is repaired here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from bm3 import DataError
from harness.runs.inspect import NAME, Entry, entry
from harness.runs.record import EPOCHS, HITS, RESULT, RUN, RunRecord
from harness.runs.store import CHECKPOINT, identity_digest
from harness.training.config import EarlyStopping

IDENTITY = ("model", "config", "training", "dataset_hash", "seed", "device", "compiled", "numerics", "code")
"""Fields of `Trial.identity`; a run of an earlier version has those there were then, such as the hash `code`."""


@dataclass(frozen=True)
class Verified:
    """What was found out about a run: it is damaged where there are problems; notes are no damage."""

    entry: Entry
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def verify(path: Path, key: str) -> Verified:
    """Check everything about the run in a folder that its own files can tell."""
    found = entry(path, key)
    if found.run is None:
        # Its process may only just have begun to write.
        return Verified(found, () if found.state == "running" else (found.reason,), ())
    problems: list[str] = []
    notes: list[str] = []
    checks = [_check_name, _check_epochs, _check_result, _check_hits] if found.run.finished else [_check_unfinished]
    for check in checks:
        try:
            check(found.run, problems.append, notes.append)
        except DataError as error:
            problems.append(str(error))
    return Verified(found, tuple(problems), tuple(notes))


Tell = Callable[[str], None]


def _check_name(run: RunRecord, problem: Tell, note: Tell) -> None:
    named = NAME.fullmatch(run.path.name)
    if named is None:
        note(f"the folder's name has no hash to compare with {RUN}")
        return
    digest = identity_digest({key: value for key, value in run.described().items() if key in IDENTITY})
    expected = f"{run.model}-{digest}-seed{run.seed}"
    if run.path.name != expected:
        problem(f"{run.path / RUN}: is not of this folder: what it asks for is called {expected}")
    elif run.path.resolve().parent.name != run.dataset.name:
        note(f"lies in no folder called {run.dataset.name}, so that no command finds it as finished")


def _check_epochs(run: RunRecord, problem: Tell, note: Tell) -> None:
    path = run.path / EPOCHS
    if not path.is_file():
        _missing(run, EPOCHS, problem, note)
        return
    result, records = run.outcome, run.epochs()
    numbers = [record.epoch for record in records]
    if numbers != list(range(1, result.epochs + 1)):
        problem(f"{path}: {_sequence(numbers)}, {RESULT} counts {result.epochs}")
        return
    if not 1 <= result.best_epoch <= len(records):
        return  # `_check_result` says so
    best = records[result.best_epoch - 1]
    improved = [record.epoch for record in records if record.improved]
    if not improved or improved[-1] != result.best_epoch:
        problem(f"{path}: its last new best is epoch {improved[-1] if improved else 0}, not {result.best_epoch}")
    elif best.valid != result.valid:
        problem(f"{path}: epoch {best.epoch} has another validation than {RESULT}")


def _check_result(run: RunRecord, problem: Tell, note: Tell) -> None:
    result = run.outcome
    path, epochs, limit = run.path / RESULT, result.epochs, run.training.epochs
    if not 1 <= result.best_epoch <= epochs <= limit:
        problem(f"{path}: best epoch {result.best_epoch} of {epochs} of at most {limit} cannot be")
        return
    recorded = run.training.early_stopping.patience
    patience = EarlyStopping().patience if recorded is None else recorded
    # Training ends with the epoch in which patience is lost, which may be the last one allowed.
    ended = "early" if epochs - result.best_epoch > patience else "limit" if epochs == limit else "neither"
    if result.stopped != ended:
        said = {"early": "that is early stopping", "limit": "that is the limit", "neither": "there was no reason to"}
        problem(
            f"{path}: says that training stopped by {result.stopped!r} after epoch {epochs}; {said[ended]} "
            f"(best epoch {result.best_epoch}, patience {patience}, limit {limit})"
        )


def _check_hits(run: RunRecord, problem: Tell, note: Tell) -> None:
    if not (run.path / HITS).is_file():
        _missing(run, HITS, problem, note)
        return
    for metric in run.outcome.test:
        run.per_user(metric)  # raises when its mean is not the result's


def _check_unfinished(run: RunRecord, problem: Tell, note: Tell) -> None:
    _check_name(run, problem, note)
    numbers = [record.epoch for record in run.epochs()]
    if numbers != list(range(1, len(numbers) + 1)):
        problem(f"{run.path / EPOCHS}: {_sequence(numbers)}")
    checkpoint = run.path / CHECKPOINT
    if not checkpoint.is_file():
        return
    try:
        with safe_open(checkpoint, framework="numpy"):  # compares the header with the file's length
            pass
    except (OSError, SafetensorError) as error:
        note(f"{CHECKPOINT} cannot be read ({error}), so that the training begins anew")


def _missing(run: RunRecord, name: str, problem: Tell, note: Tell) -> None:
    if run.compiled is not None:  # versions that did not record it did not keep epochs and hits of every run
        problem(f"{run.path / name}: is missing")
    else:
        note(f"{name} was not kept by the earlier version that made it")


def _sequence(numbers: list[int]) -> str:
    """What is wrong with the order of epochs, or how many there are."""
    for place, number in enumerate(numbers, start=1):
        if number != place:
            return f"epoch {number} stands where epoch {place} should"
    return f"has {len(numbers)} epochs"
