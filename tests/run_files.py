"""The least that the files of a run hold, for tests that write them by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.paper.load import load_paper
from harness.paper.published import canonical_metric
from harness.runs.record import Failure, Result, RunRecord, check

METRICS = tuple(canonical_metric(name) for name in load_paper().metrics)
"""Those of the default paper."""

HAND_MADE = Path(__file__).parent / "report" / "golden" / "runs"
"""A store: two runs each of BM3 (on surrogate features), BPR and LightGCN on Baby, made by hand."""
STORE = Path(__file__).parent / "golden" / "store"
"""Grids of BPR and BM3, a second BM3 and LightGCN on mini, with epochs and hits."""
DATA = {"name": "mini", "users": 9, "items": 699, "interactions": {}, "modalities": {}, "surrogates": []}


def data_of(name: str, **given: Any) -> dict[str, Any]:
    """What a run says of a data set of this name; its counts are the published ones, where there are some."""
    known = load_paper().counts(name)
    counts = [int(known[one].value or 0) for one in ("users", "items", "interactions") if known]
    about = dict(zip(("users", "items", "interactions"), counts, strict=False))
    return {**DATA, **about, "name": name, "interactions": {"train": about.get("interactions", 0)}, **given}


DESCRIPTION: dict[str, Any] = {
    "model": "bpr",
    "config": {},
    "training": {"epochs": 1},
    "dataset": DATA,
    "dataset_hash": "abc",
    "seed": 1,
    "searched": [],
    "reads_features": False,
    "command": "bm3 train bpr mini",
    "environment": {},
}
READINGS = ("gpu_process_peak", "gpu_device_peak", "allocator_peak", "allocator_reserved_peak", "process_rss_peak")
RESULT: dict[str, Any] = {
    "finished": "2026-01-01T00:00:00+00:00",
    "best_epoch": 1,
    "epochs": 1,
    "valid": dict.fromkeys(METRICS, 0.5),
    "test": dict.fromkeys(METRICS, 0.5),
    "timing": dict.fromkeys(("median_s", "q1_s", "q3_s", "warmup_s", "evaluation_median_s", "note")),
    "memory": {name: {"bytes": None, "note": "not measured"} for name in READINGS},
}
EPOCH: dict[str, Any] = {
    "epoch": 1,
    "loss": 1.0,
    "parts": {},
    "seconds": 1.0,
    "evaluation_seconds": 1.0,
    "valid": dict.fromkeys(METRICS, 0.5),
    "improved": True,
}


def record(path: Path | str = "run", result: Mapping[str, Any] | None = None, **description: Any) -> RunRecord:
    """A run that was not stored: the least there is, and over that what is given; finished if a result is."""
    ended = None if result is None else check(_over(RESULT, result), Result)
    return check({**_over(DESCRIPTION, description), "path": Path(path), "result": ended}, RunRecord)


def altered(run: RunRecord, result: Mapping[str, Any] | None = None, **description: Any) -> RunRecord:
    """A run with other values here and there in its description and its result."""
    ended = run.result and check(_over(run.outcome.written(), result or {}), Result)
    about = {**_over(run.described(), description), "path": run.path, "failure": run.failure}
    return check({**about, "result": ended}, RunRecord)


def without_result(run: RunRecord, failure: Mapping[str, Any] | None = None) -> RunRecord:
    """The run before it ended, or as it failed."""
    return run.model_copy(update={"result": None, "failure": failure and check(failure, Failure)})


def _over(least: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    both = {**least, **given}
    for key in least.keys() & given.keys():
        if isinstance(least[key], Mapping) and isinstance(given[key], Mapping):
            both[key] = _over(least[key], given[key])
    return both
