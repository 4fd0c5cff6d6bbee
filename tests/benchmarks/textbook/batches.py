"""An epoch's batches as toolboxes make them: the baseline of the benchmark, used for nothing else."""

import random
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from bm3 import Batch
from textbook.shared import items_by_user


class TextbookBatches:
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
