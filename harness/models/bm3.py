"""BM3: bootstrapped multimodal recommendation without negative samples.

Zhou et al., "Bootstrap Latent Representations for Multi-modal Recommendation", WWW 2023, arXiv 2207.05969,
doi 10.1145/3543507.3583251. Its equations are in the package `bm3`; here it is faster, and parts can be switched off.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial, reduce
from types import MappingProxyType
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

import bm3
from bm3 import Batch, ConfigError, Data, DataError, Loss
from harness.models.features import FeatureTable, distinct
from harness.models.products import SparseProduct


@dataclass(frozen=True, kw_only=True)
class BM3Config(bm3.BM3Config):
    """Hyper-parameters and variants of BM3, and what takes part. Raises ConfigError for impossible values."""

    reconstruction: bool = True
    """Whether L_rec is a term of the objective: with one of the three off, one sees what it is good for."""
    alignment: bool = True
    """Whether L_align is."""
    masking: bool = True
    """Whether L_mask is."""
    modalities: str = "all"
    """Those that take part: `all`, `none`, or names with + between, such as `visual+text`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.reconstruction or self.reads_features):
            raise ConfigError(
                "BM3: the regulariser is the only term left; switch on reconstruction, or alignment or masking with at "
                "least one modality"
            )

    @property
    def reads_features(self) -> bool:
        """Whether a term is left that reads item features."""
        return (self.alignment or self.masking) and self.modalities != "none"

    def chosen(self, there: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Features of the modalities that take part, in the order of the data set's, `there`. Raises DataError."""
        if not self.reads_features:
            return {}
        wanted = self.modalities.split("+") if self.modalities != "all" else [*there]
        if not wanted:
            raise DataError(
                "BM3 needs at least one modality of item features and the data set has none; --set modalities=none "
                "does without"
            )
        for name in wanted:
            if name not in there:
                has = f"no {name!r} in the data set, which has {', '.join(map(repr, there)) or 'none at all'}"
                raise DataError(f"BM3: modalities is {self.modalities!r}: {has}")
        return {name: table for name, table in there.items() if name in wanted}


class BM3(bm3.BM3):
    """The reference implementation with other forms of the same products: what repeats in a batch is read once."""

    Config = BM3Config
    config: BM3Config
    _of_batch: Mapping[int, tuple[Tensor, Tensor]] = MappingProxyType({})  # by identity, within `loss`
    propagation = staticmethod(partial(SparseProduct, symmetric=True))
    feature_table = staticmethod(partial(FeatureTable, by_row=True))

    def __init__(self, data: Data, config: BM3Config, generator: torch.Generator) -> None:
        """Raises DataError too for a modality that is not there."""
        data = Data(data.n_users, data.n_items, data.train, config.chosen(data.features))
        super().__init__(data, config, generator)

    def project(self, m: int, items: Tensor) -> Tensor:
        """Of each distinct item once."""
        some, place = self._distinct(items)
        return functional.embedding(place, super().project(m, some))

    def survivors(self, view: str, rows: Tensor) -> Tensor:
        """Drawn for the rows asked for alone; on CUDA, where distinct ones are not counted, for the whole table."""
        if rows.is_cuda:
            return super().survivors(view, rows)
        some, place = self._distinct(rows)
        return self.drawn(len(some))[place]

    def _distinct(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        return self._of_batch.get(id(ids)) or distinct(ids)

    def _target(self, view: str, h: Tensor, rows: Tensor) -> Tensor:
        """Drawn for a view alone that a term reads."""
        on = self.config
        reads_ids = on.reconstruction or (view == "item" and on.alignment and len(self.modalities) > 0)
        read = reads_ids if view in ("user", "item") else on.masking
        return super()._target(view, h, rows) if read else h.detach()

    def loss(self, batch: Batch) -> Loss:
        """With those terms alone that are switched on."""
        config = self.config
        on = {"reconstruction": config.reconstruction, "alignment": config.alignment, "masked": config.masking}
        self._of_batch = {id(ids): distinct(ids) for ids in (batch.users, batch.items)}
        parts = {name: part for name, part in super().loss(batch).parts.items() if on.get(name, True)}
        self._of_batch = {}
        return Loss(reduce(torch.add, parts.values()), parts)


def trace_tensors(model: BM3) -> dict[str, Tensor]:
    """The model's tensors under the names used in recorded traces: `image_*` for visual, else `<modality>_*`."""
    tensors: dict[str, Tensor] = {
        "user_embedding.weight": model.user_embedding,
        "item_id_embedding.weight": model.item_embedding,
        "predictor.weight": model.predictor.weight,
        "predictor.bias": model.predictor.bias,
    }
    for modality, features, projection in zip(model.modalities, model.features, model.projections, strict=True):
        prefix = "image" if modality == "visual" else modality
        tensors[f"{prefix}_embedding.weight"] = _tensor(features, "table")
        tensors[f"{prefix}_trs.weight"] = _tensor(projection, "weight")
        tensors[f"{prefix}_trs.bias"] = _tensor(projection, "bias")
    return tensors


def _tensor(module: nn.Module, name: str) -> Tensor:
    tensor: Tensor = getattr(module, name)
    return tensor


def trace_dropout(model: bm3.BM3, keep: Mapping[str, Tensor]) -> None:
    """Let the recorded entries survive from now on: boolean, `user` [U, d], `item` [I, d], one [I, d] per modality."""
    model.survivors = lambda view, rows: keep[view][rows]  # type: ignore[method-assign]
