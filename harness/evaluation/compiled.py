"""Top-K as a loop over rows, compiled by numba."""

from typing import Any

import numpy as np
from numba import prange

from harness.evaluation.compiling import compile_loop

SORTED_BY_INSERTION = 512  # candidates; more of them, as where most scores are equal, are sorted by merging


@compile_loop
def top_k(scores: Any, k: int, lanes: int, values: Any, items: Any) -> None:
    """Fills values and items [n, k] for scores [n, I]: best first, ties by ascending id; NaN all over if one is.

    k is at most I. The columns are dealt to `lanes` > k lanes. The k-th largest of the lanes' maxima is at most the
    k-th largest score, so the best are among the few scores that reach it.
    """
    n_items = scores.shape[1]
    for r in prange(len(scores)):
        row = scores[r]
        undefined = 0
        for item in range(n_items):
            undefined += row[item] != row[item]
        if undefined:
            values[r], items[r] = np.nan, 0
            continue
        maxima = np.full(lanes, -np.inf, scores.dtype)
        for start in range(0, n_items, lanes):
            dealt = row[start : start + lanes]
            for lane in range(len(dealt)):
                maxima[lane] = dealt[lane] if dealt[lane] > maxima[lane] else maxima[lane]
        threshold = np.partition(maxima, lanes - k)[lanes - k]
        found = np.empty(n_items + 1, np.int32)
        n_found = 0
        for item in range(n_items):
            found[n_found] = item
            n_found += row[item] >= threshold
        best = found[:n_found]
        if n_found > SORTED_BY_INSERTION:
            best = best[np.argsort(-row[best], kind="mergesort")]
        else:
            for end in range(1, n_found):
                item, at = best[end], end
                while at > 0 and row[best[at - 1]] < row[item]:
                    best[at] = best[at - 1]
                    at -= 1
                best[at] = item
        for rank in range(k):
            items[r, rank], values[r, rank] = best[rank], row[best[rank]]
