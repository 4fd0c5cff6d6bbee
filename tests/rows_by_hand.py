"""Runs and rows written by hand, in memory: what matters to a test is an argument, the rest is as of any run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from run_files import DESCRIPTION, EPOCH, METRICS, READINGS, RESULT, data_of

from harness.paper.load import Paper, load_paper
from harness.paper.rows import Point, Row, choose, judged
from harness.paper.significance import Difference, SeedDifference, UserValues
from harness.runs.record import Epoch, Failure, Result, RunRecord, check

STORE = Path("/store")
PAPER = load_paper()


class HandRun(RunRecord):
    """A run whose values per user and whose epochs are given."""

    users: dict[str, Any] = Field(default_factory=dict)
    shares: tuple[float, ...] = ()

    def per_user(self, metric: str) -> UserValues | None:
        return self.users.get(metric)

    def epochs(self) -> list[Epoch]:
        shares = (0.0, *self.shares)
        return [check({**EPOCH, "seconds": 2.0, "sampling_seconds": 2.0 * share}, Epoch) for share in shares]


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
    counts: Mapping[str, int] | None = None,
    data: str = "0123456789abcdef",
    failure: str | None = None,
    seconds: tuple[float, float, float] | None = None,
    memory: Mapping[str, int] | None = None,
    host: str = "a GPU",
    stopped: str | None = None,
    finished: str = "2026-01-01T00:00:00+00:00",
    **given: Any,
) -> HandRun:
    """A finished run, or one that failed, with these values of all metrics; `grid` are the searched settings."""
    grid, changed = grid or {}, changed or {}
    folder = STORE / dataset / "-".join(map(str, [model, *grid.items(), *changed.items(), *surrogates, data[:4], seed]))
    about = {
        "path": folder,
        "model": model,
        "config": grid,
        "training": {"epochs": 1000, **changed},
        "changed": [*changed, *grid],
        "searched": [*grid],
        "seed": seed,
        "dataset": data_of(dataset, surrogates=list(surrogates), **counts or {}),
        "dataset_hash": data,
        "reads_features": True,
        "command": f"bm3 train {model} {dataset}",
        "environment": {"gpu": host, "torch": "2"},
    }
    result = {
        **RESULT,
        "finished": finished,
        "stopped": stopped,
        "valid": dict.fromkeys(METRICS, valid),
        "test": dict.fromkeys(METRICS, test),
        "timing": {**RESULT["timing"], **dict(zip(("q1_s", "median_s", "q3_s"), seconds or (), strict=False))},
        "memory": {name: {"bytes": (memory or {}).get(name), "note": None} for name in READINGS},
    }
    ended = {
        "result": None if failure else check(result, Result),
        "failure": check({"kind": failure, "message": "", "when": "2026-01-01T00:00:00+00:00"}, Failure)
        if failure
        else None,
    }
    return check({**DESCRIPTION, **about, **ended, **given}, HandRun)


def row_of(*runs: RunRecord, paper: Paper = PAPER, **fields: Any) -> Row:
    """A row of one point with these runs, judged by the paper."""
    point = Point({}, {one.seed: one for one in runs}, "recall@20")
    selection = choose([point])
    assert selection is not None
    first = runs[0]
    row = Row(first.dataset.name, first.model, first.model, selection, tuple(runs))
    return replace(judged(row, paper), **fields)


def difference(
    first: str = "bm3", second: str = "lightgcn", mean: float = 0.004, adjusted: float = 0.001
) -> Difference:
    """Two rows on R@20, of which the first leads by so much over users, and as much over seeds."""
    interval, sure = (mean - 0.001, mean + 0.001), adjusted < 0.05 and mean != 0
    seeds, better = SeedDifference(mean, interval, 2), first if mean > 0 else second
    judged = (better, "") if sure else (None, "not over users")
    return Difference("recall@20", first, second, mean, interval, adjusted, adjusted, 0.08, 2, 19445, seeds, *judged)


def reaching(share: float, n: int = 400) -> UserValues:
    """Users of whom this share has 1, the others 0."""
    return np.arange(n), (np.arange(n) < round(n * share)).astype(float)
