"""Ranking metrics from hits. Producing the ranking is `ranking`."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

METRICS = ("recall", "ndcg", "precision", "map")


def per_user_metrics(
    hits: NDArray[np.bool_], n_relevant: NDArray[np.integer], cutoffs: Sequence[int]
) -> dict[str, NDArray[np.float64]]:
    """Recall, NDCG, precision and MAP per user at each cut-off K, keyed like `recall@20`, each [n].

    `hits` [n, ranks]: whether the item at that rank is relevant; ranks past its width count as misses. `n_relevant`
    [n], each at least 1. recall@K = hits/|R|; precision@K = hits/K; NDCG with binary gain 1/log2(rank + 1) over the
    ideal of min(|R|, K) items; map@K = Σ precision at each hit / min(|R|, K).
    """
    ranks = np.arange(1, hits.shape[1] + 1)
    found = hits.cumsum(axis=1)  # [n, ranks]
    gain = (hits / np.log2(ranks + 1)).cumsum(axis=1)
    precision_at_hits = (hits * found / ranks).cumsum(axis=1)
    ideal = np.concatenate([[0.0], (1 / np.log2(np.arange(1, max(cutoffs) + 1) + 1)).cumsum()])
    result: dict[str, NDArray[np.float64]] = {}
    for k in cutoffs:
        last, best = min(k, hits.shape[1]) - 1, np.minimum(n_relevant, k)
        result[f"recall@{k}"] = found[:, last] / n_relevant
        result[f"ndcg@{k}"] = gain[:, last] / ideal[best]
        result[f"precision@{k}"] = found[:, last] / k
        result[f"map@{k}"] = precision_at_hits[:, last] / best
    return result


def averages(per_user: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Mean over users of each metric."""
    return {name: float(values.mean()) for name, values in per_user.items()}
