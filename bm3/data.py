"""What a recommender is built from, and where a paper and its code disagree: values without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray


@dataclass(frozen=True)
class Data:
    """What a recommender is built from, and as much as one needs; a data set may have more."""

    n_users: int
    n_items: int
    train: NDArray[Any]  # [E, 2] integer: user and item of each training interaction
    features: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # per modality [I, d_m] floating: row = item id


class Variant(NamedTuple):
    """A field where a paper's text and the code behind its figures, the default, disagree; `where` is a dotted name."""

    text: str
    code: str
    where: str
