"""Whether a stored run is what it says: files fit their digests, each other and its name. Nothing is repaired here."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from bm3 import DataError
from harness.runs.inspect import NAME
from harness.runs.record import EPOCHS, HITS, MODEL, RESULT, RUN, RunRecord
from harness.runs.store import CHECKPOINT, digests, identity_digest, in_use

IDENTITY = ("model", "config", "training", "dataset_hash", "seed", "device", "compiled", "numerics", "code")
"""Fields of `Trial.identity`; a run of an earlier version has those there were then, such as the hash `code`."""


class Note(str):
    """Something to know that is no damage."""


@dataclass(frozen=True)
class Verified:
    """What was found out about a run: it is damaged where there are problems; notes are no damage."""

    run: RunRecord | None
    """None when it cannot be read."""
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def verify(path: Path) -> Verified:
    """Check everything about the run in a folder that its own files can tell."""
    try:
        run = RunRecord.read(path)
    except DataError as error:
        # Its process may only just have begun to write.
        return Verified(None, () if in_use(path) else (str(error),), ())
    told: list[str] = []
    for check in (_name, _epochs, _result, _hits, _model) if run.finished else (_name, _unfinished):
        try:
            told += check(run)
        except DataError as error:
            told.append(str(error))
    if run.finished and all(isinstance(one, Note) for one in told):
        told += _digests(run)
    notes = tuple(one for one in told if isinstance(one, Note))
    return Verified(run, tuple(one for one in told if not isinstance(one, Note)), notes)


def _name(run: RunRecord) -> Iterator[str]:
    if NAME.fullmatch(run.path.name) is None:
        yield Note(f"the folder's name has no hash to compare with {RUN}")
        return
    digest = identity_digest({key: value for key, value in run.described().items() if key in IDENTITY})
    expected = f"{run.model}-{digest}-seed{run.seed}"
    if run.path.name != expected:
        yield f"{run.path / RUN}: is not of this folder: what it asks for is called {expected}"
    elif run.path.resolve().parent.name != run.dataset.name:
        yield Note(f"lies in no folder called {run.dataset.name}, so that no command finds it as finished")


def _epochs(run: RunRecord) -> Iterator[str]:
    path, result = run.epochs_file, run.outcome
    if path is None:
        yield _missing(run, EPOCHS)
        return
    records = run.epochs()
    if (wrong := _order(run)) or len(records) != result.epochs:
        yield f"{path}: {wrong or f'has {len(records)} epochs'}, {RESULT} counts {result.epochs}"
    elif 1 <= result.best_epoch <= len(records):  # `_result` says where it is not
        improved = [record.epoch for record in records if record.improved]
        if improved[-1:] != [result.best_epoch]:
            yield f"{path}: its last new best is epoch {improved[-1] if improved else 0}, not {result.best_epoch}"
        elif records[result.best_epoch - 1].valid != result.valid:
            yield f"{path}: epoch {result.best_epoch} has another validation than {RESULT}"


def _result(run: RunRecord) -> Iterator[str]:
    path, result, limit = run.path / RESULT, run.outcome, run.training.epochs
    best, epochs = result.best_epoch, result.epochs
    if not 1 <= best <= epochs <= limit:
        yield f"{path}: best epoch {best} of {epochs} of at most {limit} cannot be"


def _hits(run: RunRecord) -> Iterator[str]:
    if not (run.path / HITS).is_file():
        yield _missing(run, HITS)
    for metric in run.outcome.test:
        run.per_user(metric)  # raises when its mean is not the result's


def _model(run: RunRecord) -> Iterator[str]:
    if (run.path / MODEL).is_file():
        from harness.runs.weights import read_weights  # torch, which runs without weights do not wait for

        read_weights(run)
    yield from ()


def _digests(run: RunRecord) -> Iterator[str]:
    """What nothing else tells: files that were changed, or put there, after the run had finished."""
    stored = run.outcome.digests
    if not stored:
        yield Note("has no digests, which came with a later version, so that a change which fits is not seen")
        return
    found = digests(run.path, json.loads((run.path / RESULT).read_bytes()))
    for name in {**stored, **found}:
        if name not in found:
            yield Note(f"{name} was removed")  # weights, as by gc: the rest would be a problem by now
        elif found[name] != stored.get(name):
            yield f"{run.path / name}: is not as the run left it: its SHA-256 is another than in {RESULT}"


def _unfinished(run: RunRecord) -> Iterator[str]:
    if wrong := _order(run):
        yield f"{run.path / EPOCHS}: {wrong}"
    if (run.path / CHECKPOINT).is_file():
        try:
            with safe_open(run.path / CHECKPOINT, framework="numpy"):  # compares the header with the file's length
                pass
        except (OSError, SafetensorError) as error:
            yield Note(f"{CHECKPOINT} cannot be read ({error}), so that the training begins anew")


def _missing(run: RunRecord, name: str) -> str:
    """Versions that did not record whether numba took part did not keep epochs and hits of every run either."""
    earlier = Note(f"{name} was not kept by the earlier version that made it")
    return earlier if run.compiled is None else f"{run.path / name}: is missing"


def _order(run: RunRecord) -> str:
    """What is wrong with the order of the epochs; empty where nothing is."""
    wrong = [(place, record.epoch) for place, record in enumerate(run.epochs(), start=1) if record.epoch != place]
    return f"epoch {wrong[0][1]} stands where epoch {wrong[0][0]} should" if wrong else ""
