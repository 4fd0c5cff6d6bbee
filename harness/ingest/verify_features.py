"""Checks of what is in one modality's table: numbers that are none, rows and columns that tell nothing.

Whether the rows are in the order of the items is `verify_order`.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.dataset import ROWS_AT_A_TIME, Dataset
from harness.ingest.verify import Finding, Severity


def check_features(dataset: Dataset, modality: str) -> list[Finding]:
    """Rows of no content: not finite, zero, equal to others, or filled with the mean of the others; flat columns."""
    table, check = dataset.features[modality], f"features {modality}"
    n, width = table.shape
    bad = zero = 0
    total, squares = np.zeros(width), np.zeros(width)
    lowest, highest = np.full(width, np.inf), np.full(width, -np.inf)
    seen: Counter[bytes] = Counter()
    for rows in blocks(table):
        finite = np.isfinite(rows).all(axis=1)
        bad += int((~finite).sum())
        zero += int((rows == 0).all(axis=1).sum())
        total += rows[finite].sum(axis=0)
        squares += np.square(rows[finite]).sum(axis=0)
        lowest = np.minimum(lowest, rows[finite].min(axis=0, initial=np.inf))
        highest = np.maximum(highest, rows[finite].max(axis=0, initial=-np.inf))
        seen.update(hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows)
    if bad:
        return [Finding(check, Severity.PROBLEM, f"{bad:,} of {n:,} rows contain NaN or infinity")]
    if len(seen) == 1:
        return [Finding(check, Severity.PROBLEM, "all rows are equal: they tell nothing about the items")]
    findings = []
    surrogate = ", surrogate vectors: figures made with them are not comparable with published ones"
    text = f"{n:,} x {width:,} {table.dtype.name}, all finite{surrogate if modality in dataset.surrogates else ''}"
    findings.append(Finding(check, Severity.NOTE if modality in dataset.surrogates else Severity.OK, text))
    if zero:
        severity = Severity.PROBLEM if 2 * zero > n else Severity.NOTE
        findings.append(Finding(check, severity, f"{zero:,} of {n:,} rows are zero"))
    filled = len(mean_rows(table, total / n, squares / n))
    if filled:
        text = f"{filled:,} of {n:,} rows are the mean of the others, as published for items without content"
        findings.append(Finding(check, Severity.NOTE, text))
    repeated = [count for count in seen.values() if count > 1]
    if repeated:
        text = f"{sum(repeated):,} of {n:,} rows equal another one exactly, in {len(repeated):,} groups"
        findings.append(Finding(check, Severity.NOTE, f"{text} (largest: {max(repeated):,})"))
    flat = int((lowest == highest).sum())
    if flat:
        findings.append(Finding(check, Severity.NOTE, f"{flat:,} of {width:,} columns are constant"))
    return findings


def mean_rows(table: NDArray[Any], mean: NDArray[np.float64], squares: NDArray[np.float64]) -> NDArray[np.integer]:
    """Items whose row is the mean, as far as its type can tell.

    If rows are the mean of the others, they are the mean of all rows too, so the one mean does for any number of them.
    """
    spread = float(np.sqrt(np.maximum(squares - np.square(mean), 0).sum()))  # root mean square distance to the mean
    rounding = float(np.finfo(table.dtype).eps) * float(np.linalg.norm(mean))
    limit = 1e-3 * spread + 2 * rounding
    near = [np.linalg.norm(rows - mean, axis=1) <= limit for rows in blocks(table)]
    return np.flatnonzero(np.concatenate(near))


def blocks(table: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    """The table some rows at a time, as float64: it may be larger than memory."""
    for start in range(0, len(table), ROWS_AT_A_TIME):
        yield np.asarray(table[start : start + ROWS_AT_A_TIME], np.float64)
