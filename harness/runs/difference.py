"""How two runs differ in what was asked, where they ran and what came out, and why they may."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final, Literal

from harness.runs.record import Record, RunRecord, flatten

OF_TIME = {"seconds", "evaluation_seconds", "sampling_seconds"}  # fields of an epoch that differ in every run
RESULTS = ("best_epoch", "epochs", "stopped")
ASKED = ("model", "dataset_hash", "seed", "device", "compiled", "features_location")

NOT_RECORDED: Final = "not recorded"
NUMERICS = "numerics of"  # versions: of what code computes, and not of what was asked
CAUSES: Mapping[str, str] = {
    "numerics of model": "the model computes other numbers by now",
    "numerics of training": "training or evaluation computes other numbers by now",
    "device": "another kind of device sums in another order",
    "compiled": "compiled loops round otherwise than torch's (numba is or is not installed)",
    "gpu": "another GPU, which may draw large dropout masks otherwise",
    "cuda": "another CUDA",
    "gpu_driver": "another GPU driver",
    "torch": "another torch",
    "numpy": "another numpy",
    "scipy": "another scipy",
    "numba": "another numba",
    "cpu": "another processor, for which libraries choose other instructions",
    "source_revision": "another revision of the source, which may round otherwise",
    "torch_threads": "sums are shared out among another number of threads",
    "platform": "another operating system or C library",
    "deterministic_algorithms": "deterministic algorithms were off in one of the two",
}
"""What may change the bits of a run, the likeliest first, by what a run records."""


@dataclass(frozen=True)
class Change:
    """A value that differs; `NOT_RECORDED` where a run does not have it."""

    what: str
    first: Any
    second: Any

    @property
    def relative(self) -> float | None:
        """The second over the first, minus one; None where they are no numbers or the first is 0."""
        numbers = isinstance(self.first, int | float) and isinstance(self.second, int | float)
        return self.second / self.first - 1 if numbers and self.first else None


@dataclass(frozen=True)
class Difference:
    """All that differs between two runs but times and memory."""

    asked: tuple[Change, ...]
    """Settings, data, seed, device, code."""
    environment: tuple[Change, ...]
    results: tuple[Change, ...]
    """Of the results and all their metrics; empty also when a run has none."""
    first_epoch: int | None
    """The first epoch whose record differs in anything but time, if both runs have records."""
    unfinished: tuple[RunRecord, ...]
    """Of the two, those without a result."""
    same_parameters: bool | None
    """Whether the trained models have the same bits; None where a run did not record it."""

    @property
    def verdict(self) -> Literal["same", "other", "unknown"]:
        """Whether the results are the same bits."""
        if self.unfinished:
            return "unknown"
        other = self.results or self.first_epoch is not None or self.same_parameters is False
        return "other" if other else "same"

    @property
    def exit_code(self) -> int:
        """0 for the same bits, 1 for others where the same was asked, 3 where it was not or a run has no result."""
        if self.verdict == "other":
            return 1 if all(change.what.startswith(NUMERICS) for change in self.asked) else 3
        return 0 if self.verdict == "same" else 3


def difference(first: RunRecord, second: RunRecord) -> Difference:
    """How the second run differs from the first. Raises DataError when a file of theirs is damaged."""
    pair = first, second
    versions = [{f"{NUMERICS} {of}": version for of, version in run.numerics.model_dump().items()} for run in pair]
    settings = [one for one in _changes(run.settings for run in pair) if not _is_default(one, first, second)]
    unfinished = tuple(run for run in pair if not run.finished)
    hashes = [run.result and run.result.state_hash for run in pair]
    return Difference(
        asked=(*_changes(_recorded(run, ASKED) for run in pair), *_changes(versions), *settings),
        environment=tuple(_changes(run.environment for run in pair)),
        results=() if unfinished else tuple(_changes(_results(run) for run in pair)),
        first_epoch=_first_epoch(first, second),
        unfinished=unfinished,
        same_parameters=None if None in hashes else hashes[0] == hashes[1],
    )


def _is_default(change: Change, first: RunRecord, second: RunRecord) -> bool:
    """Whether one run is older than a setting, so had its default, and the other one has the default too."""
    newer = first if change.second is NOT_RECORDED else second if change.first is NOT_RECORDED else None
    if newer is None or change.what in newer.changed_settings:
        return False
    return first.model == second.model or change.what in flatten(newer.training.written())


def _changes(pair: Iterable[Mapping[str, Any]]) -> list[Change]:
    first, second = pair
    found = [Change(key, first.get(key, NOT_RECORDED), second.get(key, NOT_RECORDED)) for key in {**first, **second}]
    return [change for change in found if change.first != change.second]


def _recorded(record: Record, names: Iterable[str]) -> dict[str, Any]:
    """Those fields of a record, as far as its file has them."""
    written = record.model_dump(include={*names}, exclude_unset=True)
    return {name: written.get(name, NOT_RECORDED) for name in names}


def _results(run: RunRecord) -> dict[str, Any]:
    if run.result is None:
        return {}
    parts = {"valid": run.result.valid, "test": run.result.test}
    metrics = {f"{part} {metric}": value for part, values in parts.items() for metric, value in values.items()}
    return _recorded(run.result, RESULTS) | metrics


def _first_epoch(first: RunRecord, second: RunRecord) -> int | None:
    records = first.epochs(), second.epochs()
    if not all(records):
        return None
    for number, (one, other) in enumerate(zip_longest(*records), start=1):
        if one is None or other is None:
            return number if first.finished and second.finished else None
        if one.model_dump(exclude=OF_TIME) != other.model_dump(exclude=OF_TIME):
            return number
    return None


def causes(found: Difference) -> list[str]:
    """Why the two runs may have come out differently, the likeliest first."""
    changed = {one.what: f"({one.what}: {one.first} -> {one.second})" for one in (*found.asked, *found.environment)}
    return [f"{why} {changed[name]}" for name, why in CAUSES.items() if name in changed]
