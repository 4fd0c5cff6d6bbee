"""Rows of a report as what claims and significance are judged by (`harness.paper.claim_checks.MeasuredRow`)."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from harness.measure.energy import UNMOVED
from harness.paper.claim_checks import MeasuredRow
from harness.paper.results import METRICS, ResultRow, incomparable
from harness.runs.store import StoredRun

MEMORY_KINDS = ("gpu_process_peak", "allocator_reserved_peak", "process_rss_peak")
"""Readings by preference: what the published figures look like first."""
GB = 2**30
"""Bytes."""
COST_SETTINGS = frozenset({"batch_size", "precision", "features_location", "step"})
"""Settings of training that change what an epoch costs."""


HOST = ("platform", "cpu", "logical_cores", "memory_bytes")
"""What runs recorded of their machine that two of the same one share."""
SHARED = "§"
SHARED_NOTE = "beside another run on the same machine: not to be compared"


def shared_machine(runs: Sequence[StoredRun]) -> frozenset[Path]:
    """Paths of the runs beside which another of these ran on the same machine at the same time.

    Times are stored in whole seconds: a run that began in the second in which another ended came after it.
    """
    by_host: dict[tuple[Any, ...], list[tuple[datetime, datetime, Path]]] = {}
    for run in runs:
        end = run.outcome.finished if run.finished else run.failure.when if run.failure else None
        if end and run.started:
            span = (datetime.fromisoformat(run.started), datetime.fromisoformat(end), run.path)
            by_host.setdefault(tuple(run.environment.get(key) for key in HOST), []).append(span)
    found: set[Path] = set()
    for spans in by_host.values():
        last: tuple[datetime, datetime, Path] | None = None
        for span in sorted(spans):
            if last is not None and span[0] < last[1]:
                found |= {span[2], last[2]}
            last = span if last is None or span[1] > last[1] else last
    return frozenset(found)


def measured_row(row: ResultRow, shared: frozenset[Path] = frozenset()) -> MeasuredRow:
    """`shared` are the runs whose seconds tell as much about their neighbours.

    Raises DataError when a file of a run is damaged.
    """
    first = row.runs[0]
    per_user = {metric: found for metric in METRICS if (found := row.per_user(metric)) is not None}
    kind = next((kind for kind in MEMORY_KINDS if all(_peak(run, kind) for run in row.runs)), None)
    surrogates = f"surrogate features ({', '.join(row.surrogates)}), of other widths" if row.surrogates else ""
    changed = sorted(COST_SETTINGS & first.changed_settings.keys())
    return MeasuredRow(
        dataset=row.dataset,
        model=row.model,
        label=row.label,
        data=row.data,
        values={metric: dict(zip(row.seeds, row.values(metric), strict=True)) for metric in METRICS},
        per_user=per_user or None,
        seconds={seed: times for seed, run in zip(row.seeds, row.runs, strict=True) if (times := _quartiles(run))},
        time_obstacle=f"timed {SHARED_NOTE}" if any(run.path in shared for run in row.runs) else "",
        memory={} if kind is None else {s: _peak(run, kind) / GB for s, run in zip(row.seeds, row.runs, strict=True)},
        memory_kind=(kind or "memory").replace("_", " "),
        sampling_share={
            seed: share for seed, run in zip(row.seeds, row.runs, strict=True) if (share := sampling_share(run))
        },
        host="; ".join(sorted({_host(run.run["environment"]) for run in row.runs})),
        obstacle=incomparable(row),
        cost_obstacle=surrogates or (f"{', '.join(changed)} changed" if changed else ""),
    )


def sampling_share(run: StoredRun) -> float | None:
    """Seconds of drawing negatives per second of an epoch, median without the first epoch; None where none are drawn
    or the run did not time it."""
    timed = [epoch for epoch in run.epochs()[1:] if epoch.get("sampling_seconds")]
    return median(epoch["sampling_seconds"] / epoch["seconds"] for epoch in timed) if timed else None


def joules_per_epoch(run: StoredRun) -> float | None:
    """What GPU and processor took together, or the one of them that has a counter; None without any, or if one did not
    move, whose share is not known."""
    found = (run.result or {}).get("energy", {}).values()
    known = [energy["per_epoch"] for energy in found if energy["per_epoch"] is not None]
    return sum(known) if known and all(energy["note"] != UNMOVED for energy in found) else None


def device_notes(run: StoredRun) -> list[str]:
    """Clocks, slowdowns and other processes while it ran, a sentence each; runs of earlier versions have none."""
    return list((run.result or {}).get("device_notes", []))


def _peak(run: StoredRun, kind: str) -> int:
    return int(((run.result or {})["memory"].get(kind) or {}).get("bytes") or 0)


def _quartiles(run: StoredRun) -> tuple[float, float, float] | None:
    timing = (run.result or {})["timing"]
    found = [timing[key] for key in ("q1_s", "median_s", "q3_s")]
    return None if None in found else (found[0], found[1], found[2])


def _host(environment: Mapping[str, Any]) -> str:
    device = environment.get("gpu") or f"{environment.get('cpu')}, {environment.get('torch_threads')} threads"
    return f"{device}, torch {environment.get('torch')}"
