"""Names that moved to `harness.paper.rows`, until all that use them have moved too."""

from collections.abc import Iterable

from harness.paper.rows import Point as GridPoint
from harness.paper.rows import Row as ResultRow
from harness.runs.record import METRICS, RunRecord

__all__ = ["METRICS", "GridPoint", "ResultRow", "environments"]

NOT_RECORDED = "–"


def environments(runs: Iterable[RunRecord]) -> dict[str, list[str]]:
    """Every value that some run recorded of where it ran, by what it is."""
    seen: dict[str, list[str]] = {}
    for run in runs:
        for key, value in run.environment.items():
            text = NOT_RECORDED if value is None else str(value)
            if text not in seen.setdefault(key, []):
                seen[key].append(text)
    return seen
