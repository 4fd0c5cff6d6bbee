"""Runs and rows written by hand, in memory: what matters to a test is an argument, the rest is as of any run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from run_files import DATA, DESCRIPTION, READINGS, RESULT

from harness.paper.load import Paper, load_paper
from harness.paper.rows import Point, Row, choose, judged
from harness.paper.significance import UserValues
from harness.runs.records import METRICS
from harness.runs.store import StoredRun
from harness.training.config import STOPPING_METRIC

STORE = Path("/store")
PAPER = load_paper()


@dataclass(frozen=True)
class HandRun(StoredRun):
    """A run whose values per user and whose epochs are given."""

    users: Mapping[str, UserValues] = field(default_factory=dict)
    shares: Sequence[float] = ()

    def per_user(self, metric: str) -> UserValues | None:
        return self.users.get(metric)

    def epochs(self) -> list[dict[str, Any]]:
        return [{"seconds": 1.0, "sampling_seconds": share} for share in (0.0, *self.shares)]


def run(
    model: str = "bpr",
    seed: int = 1,
    *,
    dataset: str = "mini",
    test: float = 0.5,
    valid: float = 0.5,
    grid: Mapping[str, Any] | None = None,
    changed: Mapping[str, Any] | None = None,
    surrogates: Sequence[str] = (),
    data: str = "0123456789abcdef",
    failure: str | None = None,
    seconds: tuple[float, float, float] | None = None,
    memory: Mapping[str, int] | None = None,
    **given: Any,
) -> HandRun:
    """A finished run, or one that failed, with these values of all metrics; `grid` are the searched settings."""
    grid, changed = grid or {}, changed or {}
    folder = STORE / dataset / "-".join(map(str, [model, *grid.items(), *changed.items(), *surrogates, data[:4], seed]))
    about = {
        "model": model,
        "config": dict(grid),
        "training": dict(changed),
        "changed": [*changed, *grid],
        "searched": [*grid],
        "seed": seed,
        "dataset": {**DATA, "name": dataset, "surrogates": list(surrogates)},
        "dataset_hash": data,
        "reads_features": True,
        "command": f"bm3 train {folder.name}",
        "environment": {"cpu": "a core", "torch_threads": 1, "torch": "2"},
    }
    q1, median, q3 = seconds or (None, None, None)
    result = {
        **RESULT,
        "valid": dict.fromkeys(METRICS, valid),
        "test": dict.fromkeys(METRICS, test),
        "timing": {**RESULT["timing"], "q1_s": q1, "median_s": median, "q3_s": q3},
        "memory": {name: {"bytes": (memory or {}).get(name), "note": None} for name in READINGS},
    }
    ended = failure and {"kind": failure, "message": "", "when": "2026-01-01T00:00:00+00:00"}
    return HandRun(folder, {**DESCRIPTION, **about}, None if failure else result, ended or None, **given)


def row_of(*runs: StoredRun, paper: Paper = PAPER, **fields: Any) -> Row:
    """A row of one point with these runs, judged by the paper."""
    point = Point({}, {one.run["seed"]: one for one in runs}, STOPPING_METRIC)
    selection = choose([point])
    assert selection is not None
    first = runs[0].run
    row = Row(first["dataset"]["name"], first["model"], first["model"], selection, tuple(runs))
    return replace(judged(row, paper), **fields)


def reaching(share: float, n: int = 400) -> UserValues:
    """Users of whom this share has 1, the others 0."""
    return np.arange(n), (np.arange(n) < round(n * share)).astype(float)
