"""BM3: bootstrapped multimodal recommendation without negative samples.

Zhou et al., "Bootstrap Latent Representations for Multi-modal Recommendation", WWW 2023, arXiv 2207.05969,
doi 10.1145/3543507.3583251. Its equations are in the package `bm3`; here it is faster, and parts can be switched off.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

import bm3
from bm3 import Batch, ConfigError, Data, DataError
from bm3.losses import squared_norm
from harness.models.base import modal_tensors, rows, rows_and_norm
from harness.models.features import FeatureTable, at, distinct, keeps_repeated
from harness.models.products import SparseProduct, readout

SMALLEST = 1e-8  # length of a vector whose cosine is taken, as torch's `cosine_similarity` has it


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
            others = "switch on reconstruction, or alignment or masking with at least one modality"
            raise ConfigError(f"BM3: the regulariser is the only term left; {others}")

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
            what = "BM3 needs at least one modality of item features and the data set has none"
            raise DataError(f"{what}; --set modalities=none does without")
        for name in wanted:
            if name not in there:
                has = f"no {name!r} in the data set, which has {', '.join(map(repr, there)) or 'none at all'}"
                raise DataError(f"BM3: modalities is {self.modalities!r}: {has}")
        return {name: table for name, table in there.items() if name in wanted}


class BM3(bm3.BM3):
    """The reference implementation with other forms of the same products: what repeats in a batch is read once."""

    Config = BM3Config
    config: BM3Config
    propagation = staticmethod(partial(SparseProduct, symmetric=True))
    feature_table = staticmethod(partial(FeatureTable, by_row=True))
    readout = staticmethod(readout)

    def __init__(self, data: Data, config: BM3Config, generator: torch.Generator) -> None:
        """Raises DataError too for a modality that is not there."""
        data = Data(data.n_users, data.n_items, data.train, config.chosen(data.features))
        super().__init__(data, config, generator)

    def survivors(self, view: str, rows: Tensor) -> Tensor:
        """Drawn for the rows asked for alone where they are distinct, else for the whole table."""
        return super().survivors(view, rows) if keeps_repeated(rows.device) else self.drawn(len(rows))

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """Those that are on: what repeats in a batch is computed once, and all rows are predicted at once."""
        on, B, M = self.config, len(batch.users), len(self.modalities)
        h_users, h_items = self.encode()  # [U, d], [I, d]
        (h_u, norm_users), (h_i, norm_items) = rows_and_norm(h_users, batch.users), rows_and_norm(h_items, batch.items)
        (users, of_user), (items, of_item) = distinct(batch.users), distinct(batch.items)
        h_modal = [self.project(m, items) for m in range(M)]  # M x [n, d]
        online = self.predictor(torch.cat([h_u, h_i, *h_modal] if on.reconstruction else h_modal))
        scale = 1 / torch.linalg.vector_norm(online, dim=1).clamp_min(SMALLEST)
        n_modal = M * len(items)
        ids, modal = online.split([len(online) - n_modal, n_modal])
        of_ids, of_modal = scale.split([len(ids), n_modal])
        share = 1 / B if of_item is None else torch.bincount(of_item).to(online) / B  # of the batch, [n]
        of_modal = of_modal.view(M, len(items)) * share
        terms = {}
        if on.reconstruction:
            target_u = self._direction("user", rows(h_users.detach(), users), users)  # [n_u, d]
        if on.reconstruction or (on.alignment and M > 0):
            target_i = self._direction("item", rows(h_items.detach(), items), items)  # [n, d]
        if on.reconstruction:
            targets = torch.cat([at(target_i, of_item), at(target_u, of_user)])
            terms["reconstruction"] = ((ids * targets).sum(dim=1) * of_ids).sum() / -B
        if on.alignment and M > 0:
            dots = (modal.view(M, *target_i.shape) * target_i).sum(dim=2)  # [M, n]
            terms["alignment"] = -(dots * of_modal).sum()
        if on.masking and M > 0:
            pairs = zip(self.modalities, h_modal, strict=True)
            targets = torch.cat([self._direction(name, h, items) for name, h in pairs])
            terms["masked"] = -((modal * targets).sum(dim=1) * of_modal.flatten()).sum()
        if on.objective == "paper":
            terms["regulariser"] = (squared_norm(h_u) + squared_norm(h_i)).mean()
        else:
            terms["regulariser"] = (norm_users + norm_items) / self.n_items
        return terms

    def _direction(self, view: str, h: Tensor, rows: Tensor) -> Tensor:
        """sg ĥ / ‖ĥ‖ of a view of h [n, d], of these rows [n]."""
        return functional.normalize(self._target(view, h, rows), eps=SMALLEST)


def trace_tensors(model: BM3) -> dict[str, Tensor]:
    """The model's tensors under the names used in recorded traces."""
    return modal_tensors(model) | {
        "user_embedding.weight": model.user_embedding,
        "item_id_embedding.weight": model.item_embedding,
        "predictor.weight": model.predictor.weight,
        "predictor.bias": model.predictor.bias,
    }


def trace_dropout(model: bm3.BM3, keep: Mapping[str, Tensor]) -> None:
    """Let the recorded entries survive from now on: boolean, `user` [U, d], `item` [I, d], one [I, d] per modality."""
    model.survivors = lambda view, rows: keep[view][rows]  # type: ignore[method-assign]
