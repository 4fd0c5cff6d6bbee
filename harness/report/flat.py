"""Figures for other programs: a table as CSV, and every cell of a study as flat records, as CSV and as strict JSON.

Figures of records are not rounded; an empty field, null in JSON, is a figure that there is not.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from harness.paper.costs import GB
from harness.paper.published import PublishedValue, short_metric
from harness.paper.rows import Row
from harness.paper.study import Study
from harness.report.tables import Table

TIMES = {
    "Time (s/epoch)": "median_s",
    "Time, lower quartile (s/epoch)": "q1_s",
    "Time, upper quartile (s/epoch)": "q3_s",
    "Time, first epoch (s)": "warmup_s",
    "Time, evaluation (s)": "evaluation_median_s",
}
"""Name → key in a run's result."""
MEMORY = {
    "Memory (GB)": "gpu_process_peak",
    "Memory, GPU device (GB)": "gpu_device_peak",
    "Memory, allocator (GB)": "allocator_peak",
    "Memory, allocator reserved (GB)": "allocator_reserved_peak",
    "Memory, process (GB)": "process_rss_peak",
}
"""Name → key in a run's result; a GB is 2^30 bytes."""
NOT_JUDGED = "shown for orientation: time and memory are not judged against other hardware"

Record = dict[str, Any]


def table_csv(table: Table) -> str:
    """A table for a spreadsheet: texts without marks; what is noted on a row's cells is in the column `notes`."""
    noted = ("; ".join(f"{h}: {c.note}" for h, c in zip(table.head, row, strict=True) if c.note) for row in table.rows)
    rows = ([*(cell.text for cell in row), notes] for row, notes in zip(table.rows, noted, strict=True))
    return csv_text([*table.head, "notes"], rows)


def csv_text(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """Rows under a head."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()


def cells(study: Study) -> list[Record]:
    """A record per row and metric, with the same keys each; lists hold one value per seed, in the order of `runs`.

    Of accuracy, `mean` and its interval are over seeds, and the outcome is the verdict's. Of time and memory, `mean` is
    that of the runs which measured it, the report's table shows the first of `values`, and nothing is judged; `shared`
    says of each run whether another one ran beside it on the same machine, which its times then show too. A GB is
    2^30 bytes, and `Memory (GB)` is the peak of the process on the GPU.
    """
    return [record for row in study.rows for record in (*_accuracy(study, row), *_costs(study, row))]


def cells_csv(study: Study) -> str:
    """The records as CSV with a header; values of a list have `; ` between them."""
    records = cells(study)
    lines = [[_joined(_finite(value)) for value in record.values()] for record in records]
    return csv_text(records[0] if records else ["dataset", "model", "label", "metric"], lines)


def cells_json(study: Study) -> str:
    """The records as JSON, with the question, the answer, the rule they were judged by, differences and claims."""
    content = {
        "format": 1,
        "asked": study.asked,
        "answer": " ".join(study.headline),
        "code": study.code,
        "conformance": dict(study.conformance),
        **({"conformance_device": study.conformance_device} if study.conformance else {}),
        "self_check": None if study.selfcheck is None else [asdict(one) for one in study.selfcheck],
        "unread": study.unread,
        "cells": cells(study),
        "differences": [{"dataset": d, **asdict(pair)} for d, found in study.differences.items() for pair in found],
        "claims": [asdict(result) for result in study.claims],
        "tolerances": study.paper.tolerances.model_dump(),
        "sources": {key: source.model_dump() for key, source in study.paper.sources.items()},
    }
    return json.dumps(_finite(content), indent=1, allow_nan=False) + "\n"


def _accuracy(study: Study, row: Row) -> Iterator[Record]:
    for metric, verdict in row.verdicts.items():
        source = verdict.published or next(iter(row.sources[metric]), None)
        low, high = verdict.interval or (None, None)
        band_low, band_high = verdict.band or (None, None)
        yield _record(study, row, short_metric(metric), row.values(metric), source, verdict.reason) | {
            "mean": verdict.mean,
            "low": low,
            "high": high,
            "difference_percent": None if verdict.difference is None else 100 * verdict.difference,
            "band_low": band_low,
            "band_high": band_high,
            "outcome": verdict.outcome.value,
        }


def _costs(study: Study, row: Row) -> Iterator[Record]:
    """Time and memory, with the note that says why a figure is missing."""
    readings: dict[str, list[tuple[float | None, str | None]]] = {}
    for metric, key in TIMES.items():
        timings = [run.outcome.timing for run in row.runs]
        readings[metric] = [(getattr(timing, key), timing.note) for timing in timings]
    for metric, key in MEMORY.items():
        found = [run.outcome.memory.of(key) for run in row.runs]
        readings[metric] = [(None if one.bytes is None else one.bytes / GB, one.note) for one in found]
    for metric, figures in readings.items():
        values = [value for value, _ in figures]
        known = [value for value in values if value is not None]
        reason = NOT_JUDGED if known else "; ".join(dict.fromkeys(str(note) for _, note in figures))
        published = next(iter(study.paper.cell(row.dataset, row.model, metric)), None)
        mean = math.fsum(known) / len(known) if known else None
        yield _record(study, row, metric, values, published, reason) | {"mean": mean}


def _record(
    study: Study,
    row: Row,
    metric: str,
    values: Sequence[float | None],
    source: PublishedValue | None,
    reason: str,
) -> Record:
    """A record before it is judged: its keys in their order, the figures that were published, and the runs."""
    runs = row.runs
    return {
        "dataset": row.dataset,
        "model": row.model,
        "label": row.label,
        "metric": metric,
        **dict.fromkeys(("mean", "low", "high")),
        "seeds": len(runs),
        "values": list(values),
        "published": source.value if source else None,
        "source": source.source if source else None,
        "status": source.status.value if source else None,
        **dict.fromkeys(("difference_percent", "band_low", "band_high", "outcome")),
        "reason": reason,
        "surrogates": row.surrogates,
        "settings": row.settings,
        "seed_of_run": [run.seed for run in runs],
        "runs": [run.path.relative_to(study.folder).as_posix() for run in runs],
        "shared": [run.path in row.shared for run in runs],
        "commands": study.commands(row),
    }


def _joined(value: Any) -> Any:
    return "; ".join("" if v is None else str(v) for v in value) if isinstance(value, list) else value


def _finite(value: Any) -> Any:
    """The value with null for what JSON cannot say: NaN and infinity."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
