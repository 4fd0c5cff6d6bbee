"""Ranking metrics, each one function of a ranking and a cut-off K, and their look-up by name.

A metric gives a value per user, float64 [n], or one number for all lists together. Its docstring is its formula, then
where it is from. L is a user's list of K items, R the items relevant to the user; ranks past the width of a ranking
count as misses. Another package adds a metric by an entry point in the group `bm3.metrics`. Producing a ranking is
`ranking`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.metadata import entry_points
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bm3 import ConfigError, DataError
from harness.common import nearest
from harness.evaluation.words import ALL, METRICS, canonical_metric

ENTRY_POINT_GROUP = "bm3.metrics"
Values = NDArray[np.float64]
USERS_AT_A_TIME = 1024  # whose lists become values at once


class ItemsNotStoredError(DataError):
    """A metric needs the items of a ranking of which only the hits were stored."""


@dataclass(frozen=True)
class Ranking:
    """The top items of each evaluated user, best first, and what else metrics are made from."""

    users: NDArray[np.int64]
    """[n]."""
    hits: NDArray[np.bool_]
    """Whether the item at each rank is relevant to the user, [n, ranks]."""
    n_relevant: NDArray[np.int64]
    """How many items are, at least 1, [n]."""
    items: NDArray[np.integer] | None = None
    """[n, ranks], -1 where no item is left; None of a stored run."""
    popularity: NDArray[np.int64] | None = None
    """How many users have each item in training, [I]."""
    n_users: int = 0
    """Of the data set."""

    def metrics(self, cutoffs: Sequence[int], names: Iterable[str] = METRICS) -> dict[str, float]:
        """Averages over users, keyed like `recall@20`."""
        known = known_metrics()
        return {f"{name}@{k}": float(np.mean(known[name](self, k))) for k in cutoffs for name in names}

    def listed(self, k: int) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
        """The first K items [n, ≤ K], -1 where none is left, and the popularity of all items. Raises DataError."""
        if self.items is None or self.popularity is None:
            raise ItemsNotStoredError("the metric needs the items of each list, of which a run stores the hits alone")
        return self.items[:, :k], self.popularity

    @cached_property
    def places(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Of each hit the user's place in `users` and the rank from 0, user by user: there are few."""
        user, rank = self.hits.nonzero()
        return user, rank

    def summed(self, k: int, weights: Values | None = None) -> Values:
        """Σ over the hits of each user within the first K ranks of a weight of the hit, 1 if not given: [n]."""
        user, rank = self.places
        sums: NDArray[Any] = np.bincount(user[rank < k], None if weights is None else weights[rank < k], len(self.hits))
        return sums


Metric = Callable[[Ranking, int], Any]
"""Ranking and K → float64 [n], or a number."""


def recall(ranking: Ranking, k: int) -> Values:
    """|L ∩ R| / |R|. Zhou et al., WWW 2023, and the field's usual one."""
    return ranking.summed(k) / ranking.n_relevant


def ndcg(ranking: Ranking, k: int) -> Values:
    """Σ hit / log2(rank + 1), over the same of min(|R|, K) hits at the top. Järvelin and Kekäläinen, TOIS 2002."""
    gain = 1 / np.log2(np.arange(1, max(ranking.n_relevant.max(initial=0), ranking.hits.shape[1]) + 1) + 1)
    ideal: Values = np.concatenate([[0.0], gain.cumsum()])
    return ranking.summed(k, gain[ranking.places[1]]) / ideal[np.minimum(ranking.n_relevant, k)]


def precision(ranking: Ranking, k: int) -> Values:
    """|L ∩ R| / K. Herlocker et al., TOIS 2004."""
    return ranking.summed(k) / k


def average_precision(ranking: Ranking, k: int) -> Values:
    """Σ precision at each hit / min(|R|, K). Baeza-Yates and Ribeiro-Neto, Modern Information Retrieval, 1999."""
    user, rank = ranking.places
    so_far = np.arange(len(user)) - np.searchsorted(user, user) + 1
    return ranking.summed(k, so_far / (rank + 1)) / np.minimum(ranking.n_relevant, k)


def hit_rate(ranking: Ranking, k: int) -> Values:
    """1 where |L ∩ R| > 0, else 0. Deshpande and Karypis, TOIS 2004."""
    return (ranking.summed(k) > 0).astype(np.float64)


def reciprocal_rank(ranking: Ranking, k: int) -> Values:
    """1 / rank of the first hit in L, 0 without one. Voorhees, TREC-8 question answering track, 1999."""
    first: NDArray[np.int64] = ranking.hits.argmax(axis=1) + 1
    return np.where(ranking.summed(k) > 0, 1 / first, 0.0)


def coverage(ranking: Ranking, k: int) -> float:
    """Share of all items that are in some user's L. Ge, Delgado-Battenfeld and Jannach, RecSys 2010."""
    items, popularity = ranking.listed(k)
    return len(np.unique(items[items >= 0])) / len(popularity)


def novelty(ranking: Ranking, k: int) -> Values:
    """Mean over L of log2(users / users who have the item in training, at least 1). Zhou et al., PNAS 2010."""
    return _mean_listed(ranking, k, lambda popularity: np.log2(ranking.n_users / np.maximum(popularity, 1)))


def popularity(ranking: Ranking, k: int) -> Values:
    """Mean over L of the users who have the item in training (popularity bias). Yin et al., PVLDB 2012."""
    return _mean_listed(ranking, k, lambda popularity: popularity)


def _mean_listed(ranking: Ranking, k: int, of: Callable[[NDArray[np.int64]], NDArray[Any]]) -> Values:
    """Mean of a value of items over each list, 0 of an empty one."""
    items, popularity = ranking.listed(k)
    values, mean = of(popularity), np.empty(len(items))
    for start in range(0, len(items), USERS_AT_A_TIME):
        some = slice(start, start + USERS_AT_A_TIME)
        there = items[some] >= 0
        mean[some] = np.where(there, values[items[some]], 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return mean


OWN: Mapping[str, Metric] = {
    **dict(zip(METRICS, (recall, ndcg, precision, average_precision), strict=True)),
    **{"hit": hit_rate, "mrr": reciprocal_rank, "coverage": coverage, "novelty": novelty, "popularity": popularity},
}


@cache
def known_metrics() -> Mapping[str, Metric]:
    """All metrics by name: those here, then those of other packages, which are tried out first. Raises ConfigError."""
    found = dict(OWN)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        where = f"metric {point.name!r} ({point.value})"
        if point.name in found or not point.name.isalpha() or not point.name.islower():
            raise ConfigError(f"{where}: needed is a name of its own, in lower-case letters: rename it or remove it")
        try:
            found[point.name] = point.load()
            shape = np.shape(found[point.name](_example(), 2))
        except Exception as error:  # somebody else's module may raise anything
            raise ConfigError(f"{where} fails ({type(error).__name__}: {error}): mend or remove it") from error
        if shape not in ((), (2,)):
            raise ConfigError(f"{where} gives an array {list(shape)} for 2 users: needed is a number, or one per user")
    return found


@cache
def metrics_of_hits() -> tuple[str, ...]:
    """Names of those that need no more than hits, which can end a training and are known of a stored run's users."""
    hits, found = replace(_example(), items=None), []
    for name, metric in known_metrics().items():
        with suppress(ItemsNotStoredError):
            found += [name] if np.ndim(metric(hits, 2)) else []
    return tuple(found)


def _example() -> Ranking:
    """Two users, three ranks, four items."""
    items = np.array([[0, 1, 2], [3, 1, -1]])
    return Ranking(np.arange(2), items == 1, np.array([1, 2]), items, np.array([2, 1, 0, 1]), n_users=3)


def asked_metrics(asked: str, there: Iterable[str]) -> list[str]:
    """Those of the metrics `there` (`mrr@10`) that a list with commas names, with a cut-off or without one, or `all`.

    They are in the order of the list. Raises ConfigError for a name that is none of theirs.
    """
    there = list(there)
    known = [*dict.fromkeys(name.partition("@")[0] for name in there), *there, ALL]
    names = [nearest(canonical_metric(name.strip()), known, "no metric here") for name in asked.split(",")]
    return list(dict.fromkeys(one for name in names for one in there if name in (one, one.partition("@")[0], ALL)))
