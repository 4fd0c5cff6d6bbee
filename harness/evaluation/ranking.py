"""Full ranking over all items, in blocks of users. Metrics from the ranking are `metrics`."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bm3 import BM3Error, Recommender
from harness.common import DivergedError
from harness.data.dataset import Dataset, Part
from harness.evaluation.metrics import Ranking, known_metrics
from harness.evaluation.words import METRICS

CUTOFFS = (5, 10, 20, 50)
BLOCK_SCORES = {"cpu": 2**21, "cuda": 2**26}  # scores held at a time; 8 MiB stay in a CPU's cache up to the top K
TIED = 4  # times k candidates of the top K mean that many of them tie
BLOCK_PAIRS = 2**12  # held-out interactions looked up at a time

Scorer = Callable[[Tensor], Tensor]
"""Users [n], int64 -> scores of all items [n, I], which the caller may write into and has until the next call."""


NOT_FINITE = "the model's scores are not finite (NaN or infinity): training diverged, or a setting is too large"


class Evaluator:
    """Ranks all items for the users of one part, training items masked.

    Evaluated are users with an interaction in the part and one in training. `mask_validation` masks a user's
    validation items too (the published figures do not).
    """

    def __init__(self, dataset: Dataset, part: Part, *, mask_validation: bool = False) -> None:
        self._n_users, self._n_items = dataset.n_users, dataset.n_items
        self._popularity = np.bincount(dataset.train[:, 1], minlength=dataset.n_items)
        users = np.intersect1d(dataset.part(part)[:, 0], dataset.train[:, 0]).astype(np.int64)
        relevant = dataset.part(part)[np.isin(dataset.part(part)[:, 0], users)].astype(np.int64)
        self.users = users
        self.n_relevant = np.bincount(relevant[:, 0], minlength=dataset.n_users)[users]
        self._relevant = np.searchsorted(users, relevant[:, 0]), relevant[:, 1]  # position in `users`, item
        masked = np.concatenate([dataset.train, dataset.valid]) if mask_validation else dataset.train
        masked = masked[np.argsort(masked[:, 0], kind="stable")]
        self._masked_items = torch.from_numpy(masked[:, 1].astype(np.int64))
        self._masked_first = np.searchsorted(masked[:, 0], np.arange(dataset.n_users + 1))

    def rank(self, score: Scorer, k: int, *, device: torch.device, block: int | None = None) -> Ranking:
        """The top `k` of each evaluated user; equal scores are ordered by item id, on every device alike.

        `block` users are scored at a time, by default as many as make the device's BLOCK_SCORES. Raises BM3Error when
        scores are not finite, and where there is no user.
        """
        if not len(self.users):
            raise BM3Error("there is nobody to rank items for: no user of this part has an interaction in training")
        k = min(k, self._n_items)
        block = block or self.block(device)
        items = np.empty((len(self.users), k), np.int32)
        for start in range(0, len(items), block):
            items[start : start + block] = self.top(score, self.users[start : start + block], k, device)[0]
        if (items[:, 0] < 0).any():  # who is evaluated has an item left, so −∞ is a score
            raise DivergedError(NOT_FINITE)
        return self.ranking_of(items)

    def ranking_of(self, items: NDArray[np.integer]) -> Ranking:
        """That of given lists [n, K] of the evaluated users, −1 where one has ended; nothing is masked."""
        hits = np.zeros(items.shape, dtype=np.bool_)
        rows, relevant = self._relevant
        for start in range(0, len(rows), BLOCK_PAIRS):
            some = slice(start, start + BLOCK_PAIRS)
            pair, rank = (items[rows[some]] == relevant[some, None]).nonzero()
            hits[rows[some][pair], rank] = True
        return Ranking(self.users, hits, self.n_relevant, items, self._popularity, self._n_users)

    def block(self, device: torch.device) -> int:
        """How many users are scored at a time."""
        return max(1, BLOCK_SCORES.get(device.type, 2**26) // self._n_items)

    def top(
        self, score: Scorer, users: NDArray[np.int64], k: int, device: torch.device
    ) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        """The lists [n, k] of a block of users, −1 where one has ended, and their scores. Raises BM3Error as `rank`."""
        scores = score(torch.from_numpy(users).to(device))  # [n, I]
        first, last = self._masked_first[users], self._masked_first[users + 1]
        row = np.repeat(np.arange(len(users)), last - first)
        within = np.arange(len(row)) - np.repeat(np.cumsum(last - first) - (last - first), last - first)
        item = self._masked_items[torch.from_numpy(np.repeat(first, last - first) + within)]
        scores[torch.from_numpy(row).to(device), item.to(device)] = -torch.inf
        values, items = top_k(scores, k)
        if not (values[:, 0] < torch.inf).all():  # NaN and infinity sort first; a user may have no item left
            raise DivergedError(NOT_FINITE)
        items[values == -torch.inf] = -1
        return items.cpu().numpy(), values.cpu().numpy()


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and items [n, min(k, I)] of the k ≥ 1 best of scores [n, I], best first, ties by ascending item id.

    Scores are floating-point numbers. Where a row has NaN, its first value is NaN.
    """
    if _in_lanes(scores):
        return _top_k_of_lanes(scores.detach(), k)
    values, items = torch.topk(scores, min(k + 1, scores.shape[1]), dim=1)
    # One item past the end shows whether a tie crosses the cut; rows with any tie are few and sorted in full.
    tied = (values[:, 1:] == values[:, :-1]).any(dim=1).nonzero().squeeze(1)
    if len(tied):
        ordered = scores[tied].sort(dim=1, descending=True, stable=True)
        width = values.shape[1]
        values[tied], items[tied] = ordered.values[:, :width], ordered.indices[:, :width]
    return values[:, :k], items[:, :k]


def _in_lanes(scores: Tensor) -> bool:
    """Whether the top K is found in what NumPy knows."""
    return scores.device.type == "cpu" and scores.dtype in (torch.float32, torch.float64)


def _top_k_of_lanes(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The same, by sorting little: the columns are dealt to more than k lanes, and no score among the k best is below
    the k-th largest of the lanes' maxima.
    """
    n, n_items = scores.shape
    lanes = max(256, 4 * k)
    whole = n_items // lanes * lanes
    if not whole:
        values, items = scores.sort(dim=1, descending=True, stable=True)
        return values[:, :k], items[:, :k]
    maxima = scores[:, :whole].unflatten(1, (-1, lanes)).amax(dim=1)
    maxima[:, : n_items - whole] = torch.maximum(maxima[:, : n_items - whole], scores[:, whole:])
    table, threshold = scores.numpy(), np.partition(maxima.numpy(), lanes - k)[:, lanes - k, None]
    among = ~(table < threshold)  # NaN too, which sorts first
    if np.count_nonzero(among) > TIED * n * k:
        equal = table == threshold
        among &= ~equal | (equal.cumsum(axis=1, dtype=np.int32) <= k)
    row, item = np.divmod(np.flatnonzero(among), n_items)
    found = np.bincount(row, minlength=n)
    at = row, np.arange(len(row)) - np.repeat(found.cumsum() - found, found)
    candidates, ids = scores.new_full((n, int(found.max())), -torch.inf), np.zeros((n, found.max()), np.int64)
    candidates.numpy()[at], ids[at] = table[row, item], item
    values, order = candidates.sort(dim=1, descending=True, stable=True)
    return values[:, :k], torch.from_numpy(ids).gather(1, order[:, :k])


def model_scorer(model: Recommender) -> Scorer:
    """Scores of a model: its own `score(users)` if it has one, else dot products of what `embed()` gives now."""
    if type(model).score is not Recommender.score:
        return lambda users: model.score(users).clone()
    user_vectors, item_vectors = (vectors.detach() for vectors in model.embed())
    if not (torch.isfinite(user_vectors).all() and torch.isfinite(item_vectors).all()):
        raise DivergedError("the model's vectors are not finite (NaN or infinity): training diverged")
    scores = user_vectors.new_empty(0)

    def score(users: Tensor) -> Tensor:
        nonlocal scores
        if len(scores) < len(users):  # one block of memory for all blocks of users
            scores = user_vectors.new_empty(len(users), len(item_vectors))
        return torch.mm(user_vectors[users], item_vectors.T, out=scores[: len(users)])

    return score


class Evaluation:
    """Validation and test metrics of a model on one data set, and nothing that changes its state."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        mask_validation: bool = False,
        top_k: int = max(CUTOFFS),
        block_users: int = 0,
        also: str | None = None,
    ) -> None:
        self._dataset, self._mask_validation = dataset, mask_validation
        self._top_k, self._block_users = top_k, block_users
        self._evaluators: dict[Part, Evaluator] = {}
        self.validates = len(dataset.valid) > 0
        name, _, cutoff = (also or f"{METRICS[0]}@{top_k}").partition("@")
        self._names = dict.fromkeys([*METRICS, name])
        self.cutoffs = tuple(sorted({k for k in CUTOFFS if k <= top_k} | {top_k, int(cutoff)}))
        """Where metrics are taken: `top_k`, and below it the usual cut-offs and that of the metric `also` asked for."""

    @property
    def names(self) -> list[str]:
        """Of the test part's metrics."""
        return [f"{name}@{k}" for k in self.cutoffs for name in known_metrics()]

    def __call__(self, model: Recommender, part: Part, device: torch.device) -> dict[str, float]:
        """Averages keyed like `recall@20`."""
        return self.ranking(model, part, device).metrics(self.cutoffs, self._names)

    @torch.no_grad()
    def ranking(self, model: Recommender, part: Part, device: torch.device) -> Ranking:
        """The top `top_k` items of each evaluated user. The model is in evaluation mode then, and afterwards."""
        if part not in self._evaluators:
            mask = self._mask_validation and part == "test"
            self._evaluators[part] = Evaluator(self._dataset, part, mask_validation=mask)
        score, block = model_scorer(model.eval()), self._block_users or None
        return self._evaluators[part].rank(score, self._top_k, device=device, block=block)
