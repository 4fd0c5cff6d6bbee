"""Seeded synthetic data sets with a known structure. They are made in memory and never stored."""

import numpy as np
from numpy.typing import NDArray

from harness.data.dataset import Dataset, checked_dataset
from harness.data.split import random_user_split

MINI_SEED = 2023


def mini(seed: int = MINI_SEED) -> Dataset:
    """A data set on which content helps: 700 users, about 700 items, power-law activity and popularity.

    Users and items belong to planted taste clusters, and a user draws most items from the own cluster. Two
    modalities carry an item's cluster: `visual` (32-d) and `text` (16-d, noisier). Clusters are many and interactions
    few, so a model that reads the features can win over one that does not.
    """
    n_users, n_items, n_clusters = 700, 700, 60
    draw = np.random.default_rng(seed)
    item_cluster, user_cluster = draw.integers(n_clusters, size=n_items), draw.integers(n_clusters, size=n_users)
    popularity = (1 + draw.permutation(n_items)) ** -0.5
    activity = np.clip(np.rint(5 * (1 + draw.pareto(2.6, size=n_users))), 5, 60).astype(int)
    liked = np.where(item_cluster[None, :] == user_cluster[:, None], 100.0, 0.5)  # [users, items]
    weight = liked * popularity
    # The largest of log-weight plus Gumbel noise are a weighted draw without replacement.
    order = np.argsort(-(np.log(weight) + draw.gumbel(size=weight.shape)), axis=1, kind="stable")
    pairs = np.concatenate([np.stack([np.full(n, u), order[u, :n]], axis=1) for u, n in enumerate(activity)])
    kept, item_ids = np.unique(pairs[:, 1], return_inverse=True)  # items nobody drew have no id
    pairs = np.stack([pairs[:, 0], item_ids], axis=1)
    features = {
        "visual": _cluster_features(draw, item_cluster[kept], n_clusters, width=32, noise=0.4),
        "text": _cluster_features(draw, item_cluster[kept], n_clusters, width=16, noise=0.56),
    }
    return checked_dataset("mini", random_user_split(pairs, draw), features, where="synthetic data set mini")


def of_size(n_users: int, n_items: int, n: int, seed: int = MINI_SEED) -> Dataset:
    """So many users, items and interactions, for time and memory: there is nothing to learn in it.

    Activity and popularity are power laws; each user has at least five interactions. Features, `visual` (256-d) and
    `text` (64-d), are noise.
    """
    draw = np.random.default_rng(seed)
    activity = (20 + draw.permutation(n_users)) ** -0.9
    users = np.repeat(np.arange(n_users), 5 + draw.multinomial(n - 5 * n_users, activity / activity.sum()))
    popularity = (10 + draw.permutation(n_items)) ** -0.7
    popularity /= popularity.sum()
    items = draw.choice(n_items, n, p=popularity)
    once = draw.choice(n, n_items, replace=False)
    items[once] = draw.permutation(n_items)  # so that every item takes part
    free = np.ones(n, dtype=bool)
    free[once] = False
    while (repeated := _repeated(users * n_items + items, free)).any():
        items[repeated] = draw.choice(n_items, repeated.sum(), p=popularity)
    pairs = np.stack([users, items], axis=1)
    features = {m: draw.standard_normal((n_items, d), dtype=np.float32) for m, d in (("visual", 256), ("text", 64))}
    return checked_dataset("synthetic", random_user_split(pairs, draw), features, where="synthetic data set")


def _repeated(keys: NDArray[np.integer], free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which keys [n] stand somewhere else too; of each key one is let be, and that is one that is not free."""
    order = np.lexsort((free, keys))
    repeated = np.zeros(len(keys), dtype=bool)
    repeated[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    return repeated


def _cluster_features(
    draw: np.random.Generator, cluster: NDArray[np.integer], n_clusters: int, *, width: int, noise: float
) -> NDArray[np.float32]:
    centres = draw.normal(size=(n_clusters, width))
    features: NDArray[np.float64] = centres[cluster] + noise * draw.normal(size=(len(cluster), width))
    return features.astype(np.float32)
