"""What a model in closed form is, and what several of them share: scores by item-item weights, graphs of items.

Such a model has `fit` instead of a loss: it is computed at once. The models are one file each beside this one.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional

from bm3 import Data, DataError, Recommender
from harness.common import check_config
from harness.models.base import normalise
from harness.models.item_graph import nearest_items

Grid = Mapping[str, tuple[Any, ...]]
"""Values of settings that a search tries where a suite names none."""


@dataclass(frozen=True, kw_only=True)
class ContentConfig:
    """Settings of the graph of like items that some of these models add to their weights."""

    content_weight: float = 0.1
    """w, weight of the content's neighbours; 0 leaves content out."""
    others_weight: float = 0.3
    """f, weight of each other modality beside the text, or else beside the first one."""
    neighbours: int = 10
    """k, the most similar items by a modality, itself included."""

    def __post_init__(self) -> None:
        check_config(self, content_weight=0, others_weight=0, neighbours=2)

    @property
    def reads_features(self) -> bool:
        """Whether content has a weight."""
        return self.content_weight > 0


class ClosedForm(Recommender, ABC):
    """A recommender without a loss. A run of one has one epoch, which is `fit`, and is evaluated once."""

    draws: ClassVar[bool] = True
    """Whether the seed takes part; where it does not, runs under several seeds are one run."""

    @abstractmethod
    def fit(self) -> None:
        """Compute what scores depend on, as buffers. Raises MemoryError where there is no room for it."""

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        """As torch's; what `fit` has yet to make is made of the state."""
        for name in state_dict.keys() - self.state_dict().keys():
            if "." not in name:
                self.register_buffer(name, state_dict[name])
        return super().load_state_dict(state_dict, *args, **options)


class ItemToItem(ClosedForm):
    """S = R B: what an item scores for a user is the sum of its weights B [I, I] from the user's training items."""

    draws = False
    reads_features: ClassVar[bool] = False
    degrees: Tensor

    def __init__(self, data: Data, config: Any, generator: torch.Generator) -> None:
        super().__init__()
        self.config, self.data = config, data
        self.R = interactions(data)  # [U, I]
        self.register_buffer("degrees", torch.from_numpy(self.R.sum(axis=0)))  # d_i [I]

    @abstractmethod
    def weights(self) -> csr_array | Tensor:
        """B: sparse, or dense float32 on the model's device."""

    def fit(self) -> None:
        """Keep B: a dense one as it is, a sparse one as its entries, in main memory."""
        B = self.weights()
        if isinstance(B, Tensor):
            self.register_buffer("B", B.contiguous())  # by rows, of which `score` takes sums
            return
        for name, part in {"values": B.data.astype(np.float32), "columns": B.indices, "starts": B.indptr}.items():
            self.register_buffer(name, torch.from_numpy(part))

    @property
    def sparse_weights(self) -> csr_array:
        """A sparse B, as it was kept."""
        state = self.state_dict()
        parts = tuple(state[name].cpu().numpy() for name in ("values", "columns", "starts"))
        return csr_array(parts, shape=(self.data.n_items, self.data.n_items))

    def score(self, users: Tensor) -> Tensor:
        """R_u B of these users [n]: [n, I]."""
        rows = self.R[users.cpu().numpy()]
        if (B := self.state_dict().get("B")) is None:
            return torch.from_numpy((rows @ self.sparse_weights).toarray()).to(users.device)
        items, first = (torch.from_numpy(ids.astype(np.int64)).to(B.device) for ids in (rows.indices, rows.indptr[:-1]))
        return functional.embedding_bag(items, B, first, mode="sum")


def interactions(data: Data) -> csr_array:
    """R [U, I]: 1 where a user has a training interaction with an item."""
    users, items = np.asarray(data.train, dtype=np.int64).T
    R = csr_array((np.ones(len(users), np.float32), (users, items)), shape=(data.n_users, data.n_items))
    R.sum_duplicates()
    R.data[:] = 1
    return R


def power(x: NDArray[Any], exponent: float) -> NDArray[np.float64]:
    """x ^ exponent [n], and 0 where x is not positive, as of items without an interaction."""
    x = np.asarray(x, dtype=np.float64)
    return np.where(x > 0, np.where(x > 0, x, 1) ** exponent, 0)


def scaled(rows: NDArray[Any], M: Any, columns: NDArray[Any]) -> csr_array:
    """diag(rows) M diag(columns), sparse."""
    return csr_array(sparse.diags_array(rows) @ M @ sparse.diags_array(columns))


def without_diagonal(M: Any) -> csr_array:
    """M [n, n] with 0 on its diagonal, where a sparse matrix has no entry then."""
    entries = M.tocoo()
    (row, column), other = entries.coords, entries.coords[0] != entries.coords[1]
    return csr_array((entries.data[other], (row[other], column[other])), shape=M.shape)


def largest(M: csr_array, k: int) -> csr_array:
    """The k largest entries of each row, of equal ones those of the first columns."""
    row = np.repeat(np.arange(M.shape[0]), np.diff(M.indptr))
    order = np.lexsort((M.indices, -M.data, row))  # by row, then the largest first
    kept = order[np.arange(len(order)) - M.indptr[row[order]] < k]
    return csr_array((M.data[kept], (row[kept], M.indices[kept])), shape=M.shape)


def neighbours(features: NDArray[Any], k: int) -> csr_array:
    """N_k = D^-½ M D^-½ [I, I], where M has 1 from each item to the k of highest cosine similarity but itself;
    an item whose vector is 0 is like none.

    D are the sums of M's rows on the left, of its columns on the right.
    """
    unit = normalise(torch.from_numpy(np.array(features, dtype=np.float32)))
    near = nearest_items(unit, k).numpy()  # [I, k], itself usually among them
    row, directed = np.repeat(np.arange(len(near)), near.shape[1]), unit.any(dim=1).numpy()
    ones = (directed[row] & directed[near.ravel()]).astype(np.float64)
    M = without_diagonal(csr_array((ones, (row, near.ravel())), shape=(len(near), len(near))))
    M.eliminate_zeros()
    return scaled(power(M.sum(axis=1), -0.5), M, power(M.sum(axis=0), -0.5))


def content(data: Data, config: ContentConfig) -> csr_array | None:
    """N_k(text) + f Σ N_k(others), with the first modality where there is no text; None where its weight is 0.

    Raises DataError where the data set has no modality.
    """
    if not config.reads_features:
        return None
    if not data.features:
        raise DataError("this model's content_weight is above 0 and the data set has no item features")
    first, *others = sorted(data.features, key=lambda name: (not name.startswith("text"), name))
    graph = neighbours(data.features[first], config.neighbours)
    for name in others if config.others_weight else ():
        graph += config.others_weight * neighbours(data.features[name], config.neighbours)
    return graph


def check_room(n_items: int, n_bytes: int, device: torch.device) -> None:
    """Raises MemoryError unless there is room for so many bytes per pair of items."""
    needed, free = n_items**2 * n_bytes, psutil.virtual_memory().available
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what torch holds from before counts as taken
        free = torch.cuda.mem_get_info(device)[0]
    if needed > free:
        pairs = f"{n_bytes} bytes for each pair of {n_items:,} items"
        raise MemoryError(f"{pairs} are {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
