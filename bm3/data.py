"""What a recommender is built from and trained on: interactions, features, batches, losses.

Plain values without behaviour. Files, splits and checks of content belong to whoever brings the data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray
from torch import Tensor


class TrainingData(Protocol):
    """Anything with these four members can train BM3; `Data` is the smallest such thing."""

    @property
    def n_users(self) -> int: ...
    @property
    def n_items(self) -> int: ...
    @property
    def train(self) -> NDArray[Any]:
        """[E, 2] integer: user and item of each training interaction."""

    @property
    def features(self) -> Mapping[str, NDArray[Any]]:
        """Per modality name, [I, d_m] floating point: row = item id."""


@dataclass(frozen=True)
class Data:
    """Training data held in memory (see `TrainingData` for the shapes)."""

    n_users: int
    n_items: int
    train: NDArray[Any]
    features: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class Batch(NamedTuple):
    """B training interactions: ids [B] each, int64; `negatives` only for models that ask for them."""

    users: Tensor
    items: Tensor
    negatives: Tensor | None = None


class Loss(NamedTuple):
    """`total` is the scalar to differentiate; `parts` are its named terms as they enter it, for reading only."""

    total: Tensor
    parts: Mapping[str, Tensor]
