"""Every cell of a study as flat records, for other programs: accuracy, and time and memory. CSV and strict JSON.

Figures are not rounded here; an empty field, null in JSON, is a figure that there is not.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from harness.paper.expected import PublishedValue, short_metric, values_of_cell
from harness.paper.measured import GB
from harness.paper.study import Study, StudyRow, headline
from harness.paper.verdict import Range

TIMES = {
    "Time (s/epoch)": "median_s",
    "Time, lower quartile (s/epoch)": "q1_s",
    "Time, upper quartile (s/epoch)": "q3_s",
    "Time, first epoch (s)": "warmup_s",
    "Time, evaluation (s)": "evaluation_median_s",
}
MEMORY = {
    "Memory (GB)": "gpu_process_peak",
    "Memory, GPU device (GB)": "gpu_device_peak",
    "Memory, allocator (GB)": "allocator_peak",
    "Memory, allocator reserved (GB)": "allocator_reserved_peak",
    "Memory, process (GB)": "process_rss_peak",
}
NOT_JUDGED = "shown for orientation: time and memory are not judged against other hardware"

Record = dict[str, Any]


def cells(study: Study) -> list[Record]:
    """A record per row and metric, with the same keys each; lists hold one value per seed, in the order of `runs`.

    Of accuracy, `mean` and its interval are over seeds, and the outcome is the verdict's. Of time and memory, `mean` is
    that of the runs which measured it, the report's table shows the first of `values`, and nothing is judged; `shared`
    says of each run whether another one ran beside it on the same machine, which its times then show too. A GB is
    2^30 bytes, and `Memory (GB)` is the peak of the process on the GPU.
    """
    return [record for row in study.rows for record in (*_accuracy(study, row), *_efficiency(study, row))]


def cells_csv(study: Study) -> str:
    """The records as CSV with a header; values of a list have `; ` between them."""
    text = io.StringIO()
    records = cells(study)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(records[0] if records else ["dataset", "model", "label", "metric"])
    for record in records:
        writer.writerow(
            "; ".join("" if v is None else str(v) for v in value) if isinstance(value, list) else value
            for value in map(_finite, record.values())
        )
    return text.getvalue()


def cells_json(study: Study) -> str:
    """The records as JSON, with the question, the answer, the rule they were judged by, differences and claims."""
    content = {
        "format": 1,
        "asked": study.asked,
        "answer": " ".join(headline(study)),
        "code": study.code,
        "conformance": dict(study.conformance),
        "self_check": None if study.selfcheck is None else [asdict(one) for one in study.selfcheck],
        "unread": study.unread,
        "cells": cells(study),
        "differences": [
            {"dataset": dataset, **asdict(difference)}
            for dataset, found in study.differences.items()
            for difference in found
        ],
        "claims": [asdict(result) for result in study.claims],
        "tolerances": study.tolerances.model_dump(),
        "sources": {key: source.model_dump() for key, source in study.sources.items()},
    }
    return json.dumps(_finite(content), indent=1, allow_nan=False) + "\n"


def _accuracy(study: Study, row: StudyRow) -> Iterator[Record]:
    for metric, verdict in row.verdicts.items():
        source = verdict.published or next(iter(row.sources[metric]), None)
        yield _record(
            study,
            row,
            short_metric(metric),
            row.result.values(metric),
            source,
            mean=verdict.mean,
            interval=verdict.interval,
            difference_percent=None if verdict.difference is None else 100 * verdict.difference,
            band=verdict.band,
            outcome=verdict.outcome.value,
            reason=verdict.reason,
        )


def _efficiency(study: Study, row: StudyRow) -> Iterator[Record]:
    results = [run.result or {} for run in row.result.runs]
    for metric, key in TIMES.items():
        yield _measured(study, row, metric, [(result["timing"][key], result["timing"]["note"]) for result in results])
    for metric, key in MEMORY.items():
        readings = [(result["memory"][key]["bytes"], result["memory"][key]["note"]) for result in results]
        yield _measured(study, row, metric, [(None if size is None else size / GB, note) for size, note in readings])


def _measured(study: Study, row: StudyRow, metric: str, figures: Sequence[tuple[float | None, str | None]]) -> Record:
    """A record from figures with the note that says why one is missing."""
    found = [value for value, _ in figures if value is not None]
    mean = math.fsum(found) / len(found) if found else None
    reason = NOT_JUDGED if found else "; ".join(dict.fromkeys(str(note) for _, note in figures))
    published = values_of_cell(study.expected, row.dataset, row.result.model, metric)
    return _record(
        study, row, metric, [value for value, _ in figures], next(iter(published), None), mean=mean, reason=reason
    )


def _record(
    study: Study,
    row: StudyRow,
    metric: str,
    values: Sequence[float | None],
    source: PublishedValue | None,
    *,
    mean: float | None,
    interval: Range | None = None,
    difference_percent: float | None = None,
    band: Range | None = None,
    outcome: str | None = None,
    reason: str,
) -> Record:
    runs = row.result.runs
    low, high = interval or (None, None)
    band_low, band_high = band or (None, None)
    return {
        "dataset": row.dataset,
        "model": row.result.model,
        "label": row.label,
        "metric": metric,
        "mean": mean,
        "low": low,
        "high": high,
        "seeds": len(runs),
        "values": list(values),
        "published": source.value if source else None,
        "source": source.source if source else None,
        "status": source.status.value if source else None,
        "difference_percent": difference_percent,
        "band_low": band_low,
        "band_high": band_high,
        "outcome": outcome,
        "reason": reason,
        "surrogates": row.result.surrogates,
        "settings": row.result.settings,
        "seed_of_run": [run.run["seed"] for run in runs],
        "runs": [run.path.relative_to(study.folder).as_posix() for run in runs],
        "shared": [run.path in study.shared for run in runs],
        "commands": study.commands(row),
    }


def _finite(value: Any) -> Any:
    """The value with null for what JSON cannot say: NaN and infinity."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
