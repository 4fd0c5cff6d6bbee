"""This project's own stored results as expected values: written from finished runs, never typed."""

import csv
import io
from pathlib import Path

from bm3 import DataError
from harness.compare.expected import COLUMNS, REFERENCE
from harness.experiments.store import stored_runs
from harness.report.results import METRICS, reference_note, result_rows


def write_references(folder: Path, expected: Path, unread: list[str] | None = None) -> list[Path]:
    """Write `expected/reference/<data set>.csv` (means over seeds) from the runs in `folder`; returns the files.

    Runs that cannot be read are left out, and why is added to `unread`.
    Raises DataError when there is no finished run.
    """
    rows = result_rows(list(stored_runs(folder, unread)))
    if not rows:
        raise DataError(f"{folder}: holds no finished run to take as reference")
    paths = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            if row.dataset == dataset:
                note = reference_note(row.runs[0])
                for metric in METRICS:
                    mean = sum(row.values(metric)) / len(row.runs)
                    writer.writerow([dataset, row.label, metric, f"{mean:.6f}", REFERENCE, "as printed", note])
        path = expected / "reference" / f"{dataset}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.getvalue(), encoding="utf-8")
        paths.append(path)
    return paths
