"""An epoch's batches: shuffled interactions and sampled negatives, prepared as whole tensors."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from bm3 import Batch, DataError
from harness.measure.host import container_limits, usable_cores
from harness.training.streams import Streams

REJECTION_ROUNDS = 32  # after these, the few pairs left are drawn from their users' explicit candidates


class NegativeSampler:
    """Uniform negatives: items that occur in training and that the user has no training interaction with.

    Drawn by rejection, all pairs at once, so a draw is uniform over exactly the allowed items.
    """

    def __init__(self, train: NDArray[np.int32], n_items: int) -> None:
        """`train` is [E, 2]. Raises DataError when some user has interacted with every item of the training part."""
        self._candidates = np.unique(train[:, 1])
        self._n_items = n_items
        self._seen = np.unique(train[:, 0].astype(np.int64) * n_items + train[:, 1])
        # Most pairs drawn are unseen, which their remainder tells: a search among those seen takes ten times as long.
        self._marked = np.zeros(2 ** (8 * len(self._seen)).bit_length(), bool)
        self._marked[self._seen % len(self._marked)] = True
        seen_per_user = np.bincount(self._seen // n_items)
        if seen_per_user.max() >= len(self._candidates):
            what = f"user number {int(seen_per_user.argmax())} (from 0) has interacted with every training item"
            raise DataError(f"{what}, so no negative exists: remove that user or train a model without negatives")

    def draw(self, users: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
        """One negative item for each of `users` [n]: [n]."""
        negatives = np.empty(len(users), dtype=np.int64)
        open_rows = np.arange(len(users))
        for _ in range(REJECTION_ROUNDS):
            negatives[open_rows] = self._candidates[generator.integers(len(self._candidates), size=len(open_rows))]
            open_rows = open_rows[self._is_seen(users[open_rows], negatives[open_rows])]
            if len(open_rows) == 0:
                return negatives
        for row in open_rows:
            begin, end = np.searchsorted(self._seen, np.array([0, 1]) * self._n_items + users[row] * self._n_items)
            negatives[row] = generator.choice(np.setdiff1d(self._candidates, self._seen[begin:end] % self._n_items))
        return negatives

    def _is_seen(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        keys = users * self._n_items + items
        seen = self._marked[keys % len(self._marked)]
        position = np.minimum(np.searchsorted(self._seen, keys[seen]), len(self._seen) - 1)
        seen[seen] = self._seen[position] == keys[seen]
        return np.asarray(seen)


class EpochBatches:
    """The batches of any epoch of a run, made from the run's streams `shuffle` and `negatives`."""

    def __init__(
        self,
        train: NDArray[np.int32],
        n_items: int,
        *,
        batch_size: int,
        uses_negatives: bool,
        streams: Streams,
        device: torch.device,
    ) -> None:
        self._columns = np.ascontiguousarray(train.T, np.int64)
        self._sampler = NegativeSampler(train, n_items) if uses_negatives else None
        self._batch_size, self._streams, self._device = batch_size, streams, device
        self.sampling_seconds = 0.0
        """What drawing the negatives took of the epoch begun last, in whichever thread."""
        self._ahead: dict[int, Future[tuple[list[NDArray[np.int64]], float]]] = {}

    def __len__(self) -> int:
        return -(-len(self._columns[0]) // self._batch_size)

    def epoch(self, number: int, then: int | None = None) -> Iterator[Batch]:
        """Batches of epoch `number` (from 1), the last one shorter where the size does not divide.

        Epoch `then` is drawn in a thread while this one is used, if a core is free for that: to the same numbers, since
        each epoch has streams of its own.
        """
        ahead = self._ahead.pop(number, None)
        columns, self.sampling_seconds = self._drawn(number) if ahead is None else ahead.result()
        if then is not None and self._sampler is not None and _core_to_spare(self._device):
            thread = ThreadPoolExecutor(1)  # of its own, which ends with its task
            self._ahead = {then: thread.submit(self._drawn, then)}
            thread.shutdown(wait=False)
        tensors = [torch.from_numpy(column).to(self._device) for column in columns]
        for start in range(0, len(self._columns[0]), self._batch_size):
            yield Batch(*(tensor[start : start + self._batch_size] for tensor in tensors))

    def _drawn(self, number: int) -> tuple[list[NDArray[np.int64]], float]:
        """Users, items and perhaps negatives [E] of an epoch in their order, and the seconds that negatives took."""
        order = self._streams.numpy("shuffle", number).permutation(len(self._columns[0]))
        columns = [column[order] for column in self._columns]
        if self._sampler is None:
            return columns, 0.0
        started = time.perf_counter()
        columns.append(self._sampler.draw(columns[0], self._streams.numpy("negatives", number)))
        return columns, time.perf_counter() - started


def _core_to_spare(device: torch.device) -> bool:
    """Whether a thread beside those of torch takes no time from the training."""
    return usable_cores(container_limits()) > (torch.get_num_threads() if device.type == "cpu" else 1)
