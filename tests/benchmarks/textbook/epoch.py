"""An epoch's batches and full ranking as toolboxes make them."""

import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bm3 import Batch
from harness.data.dataset import Dataset, Part
from textbook.shared import items_by_user

CUTOFFS = (5, 10, 20, 50)
MASKED = -1e10
BATCH_USERS = 4096


class Batches:
    """One permutation per epoch; a negative is drawn for one interaction after the other, until it is new to the user.

    Negatives are uniform over the items that occur in training.
    """

    def __init__(self, train: NDArray[np.integer], *, batch_size: int, uses_negatives: bool) -> None:
        self._train, self._batch_size = train.astype(np.int64), batch_size
        self._uses_negatives = uses_negatives
        self._history = items_by_user(train)
        self._items = np.unique(train[:, 1]).tolist()
        self._shuffle, self._draw = np.random.default_rng(0), random.Random(0)

    def epoch(self) -> Iterator[Batch]:
        """All batches, the last one shorter where the size does not divide."""
        pairs = self._train[self._shuffle.permutation(len(self._train))]
        for start in range(0, len(pairs), self._batch_size):
            users, items = torch.from_numpy(pairs[start : start + self._batch_size]).T.contiguous()
            negatives = [self._negative(user) for user in users.tolist()] if self._uses_negatives else None
            yield Batch(users, items, None if negatives is None else torch.tensor(negatives))

    def _negative(self, user: int) -> int:
        item = self._draw.choice(self._items)
        while item in self._history[user]:
            item = self._draw.choice(self._items)
        return item


class Evaluation:
    """Training items are masked by lists of indices; hits are looked up user by user."""

    def __init__(self, dataset: Dataset, batch_users: int = BATCH_USERS) -> None:
        self._history = items_by_user(dataset.train)
        self._relevant = {
            part: {user: np.array(list(items)) for user, items in items_by_user(dataset.part(part)).items()}
            for part in ("valid", "test")
        }
        self._batch_users = batch_users

    def __call__(self, user_vectors: Tensor, item_vectors: Tensor, part: Part) -> dict[str, float]:
        """Averages keyed like `recall@20`, for vectors [U, d] and [I, d] whose dot products are the scores."""
        users = sorted(user for user in self._relevant[part] if user in self._history)
        top = []
        for start in range(0, len(users), self._batch_users):
            batch = users[start : start + self._batch_users]
            scores = user_vectors[torch.tensor(batch)] @ item_vectors.T  # [n, I]
            rows, columns = self._masked(batch)
            scores[rows, columns] = MASKED
            top.append(torch.topk(scores, max(CUTOFFS), dim=1).indices)
        relevant = [self._relevant[part][user] for user in users]
        ranked = torch.cat(top).numpy()
        hits = np.stack([np.isin(items, own) for own, items in zip(relevant, ranked, strict=True)])  # [n, ranks]
        return _averages(hits, np.array([len(own) for own in relevant]), CUTOFFS)

    def _masked(self, users: list[int]) -> tuple[list[int], list[int]]:
        rows: list[int] = []
        columns: list[int] = []
        for row, user in enumerate(users):
            own = self._history[user]
            rows.extend([row] * len(own))
            columns.extend(own)
        return rows, columns


def _averages(hits: NDArray[np.bool_], n_relevant: NDArray[np.integer], cutoffs: Sequence[int]) -> dict[str, float]:
    """Of hits [n, ranks] and numbers of relevant items [n], all at least 1."""
    metrics = {}
    for k in cutoffs:
        hit, ranks, best = hits[:, :k].astype(float), np.arange(1, k + 1), np.minimum(n_relevant, k)
        found = hit.cumsum(axis=1)
        ideal = np.where(ranks <= best[:, None], 1 / np.log2(ranks + 1), 0).sum(axis=1)
        metrics[f"recall@{k}"] = (hit.sum(axis=1) / n_relevant).mean()
        metrics[f"ndcg@{k}"] = ((hit / np.log2(ranks + 1)).sum(axis=1) / ideal).mean()
        metrics[f"precision@{k}"] = (hit.sum(axis=1) / k).mean()
        metrics[f"map@{k}"] = ((hit * found / ranks).sum(axis=1) / best).mean()
    return {name: float(value) for name, value in metrics.items()}
