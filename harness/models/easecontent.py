"""EASE with content: EASE's weights, and beside them those of items that look and read alike.

Ours, without a source: it asks what item content is worth to a linear model. As EASE, it is refused where there is no
room for a number per pair of items.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.models.base import check_config
from harness.models.closed_form import ItemToItem, content
from harness.models.ease import EASEConfig, ease_weights


@dataclass(frozen=True, kw_only=True)
class EASEContentConfig(EASEConfig):
    """Settings of EASE with content."""

    content_weight: float = 0.03
    """w, weight of the content's neighbours beside EASE's weights; 0 is EASE."""
    others_weight: float = 0.3
    """f, weight of each other modality beside the text, or else beside the first one."""
    neighbours: int = 10
    """k, the most similar items by a modality, itself included."""

    GRID: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "reg_weight": (200.0, 400.0, 800.0),
        "content_weight": (0.01, 0.03, 0.1),
        "others_weight": (0.0, 0.3, 1.0),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_config(self, content_weight=0, others_weight=0, neighbours=2)

    @property
    def reads_features(self) -> bool:
        """Whether content has a weight."""
        return self.content_weight > 0


class EASEContent(ItemToItem):
    """B = EASE's + w (N_k(text) + f Σ N_k(others)), N_k the normalised graph of the k nearest items."""

    Config = EASEContentConfig
    reads_features = True

    def weights(self) -> Tensor:
        config = self.config
        graph = content(self.data, config.neighbours, config.others_weight) if config.reads_features else None
        B = ease_weights(self.R, config.reg_weight, self.degrees.device)
        if graph is not None:
            entries = graph.tocoo()
            row, column = (torch.from_numpy(ids).long().to(B.device) for ids in entries.coords)
            B[row, column] += config.content_weight * torch.from_numpy(entries.data).to(B)
        return B
