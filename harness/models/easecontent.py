"""EASE with content: EASE's weights, and beside them those of items that look and read alike.

Ours, without a source: it asks what item content is worth to a linear model. As EASE, it is refused where there is no
room for a number per pair of items.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harness.models.closed_form import ContentConfig, Grid, ItemToItem, content
from harness.models.ease import EASEConfig, ease_weights


@dataclass(frozen=True, kw_only=True)
class EASEContentConfig(EASEConfig, ContentConfig):
    """Settings of EASE with content."""

    content_weight: float = 0.03
    """w, weight of the content's neighbours; 0 is EASE."""

    GRID: ClassVar[Grid] = {
        "reg_weight": (200.0, 400.0, 800.0),
        "content_weight": (0.01, 0.03, 0.1),
        "others_weight": (0.0, 0.3, 1.0),
    }

    def __post_init__(self) -> None:
        EASEConfig.__post_init__(self)
        ContentConfig.__post_init__(self)


class EASEContent(ItemToItem):
    """B = EASE's + w (N_k(text) + f Σ N_k(others)), N_k the normalised graph of the k nearest items."""

    Config = EASEContentConfig
    reads_features = True

    def weights(self) -> Tensor:
        graph = content(self.data, self.config)
        B = ease_weights(self.R, self.config.reg_weight, self.degrees.device)
        if graph is not None:
            entries = graph.tocoo()
            row, column = (torch.from_numpy(ids).long().to(B.device) for ids in entries.coords)
            B[row, column] += self.config.content_weight * torch.from_numpy(entries.data).to(B)
        return B
