"""BM3: bootstrapped multimodal recommendation without negative samples.

Zhou et al., "Bootstrap Latent Representations for Multi-modal Recommendation", WWW 2023, arXiv 2207.05969,
doi 10.1145/3543507.3583251. Where text and published code differ, both are options. Terms of the loss are in `losses`.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bm3.base import Batch, Loss, Recommender
from bm3.data import Data, Variant
from bm3.errors import ConfigError, DataError
from bm3.graph import Propagation, bipartite_adjacency, mean_readout, symmetric_normalised
from bm3.losses import alignment_loss, masked_loss, published_regulariser, reconstruction_loss, squared_norm


@dataclass(frozen=True, kw_only=True)
class BM3Config:
    """Hyper-parameters and variants of BM3. Raises ConfigError for impossible values."""

    embedding_size: int = 64
    """d, width of the ID embeddings and of the projected modalities."""
    n_layers: int = 1
    """L, propagation rounds. Published grid: 1, 2."""
    dropout: float = 0.5
    """p, probability that an entry of a target view is dropped. Published grid: 0.3, 0.5."""
    reg_weight: float = 0.1
    """λ, weight of the regulariser. Published grid: 0.1, 0.01."""
    cl_weight: float = 2.0
    """Weight of L_align and L_mask in the published objective; the paper's has none."""
    objective: Literal["published", "paper"] = "published"
    """`published`: terms 1 − cos, `cl_weight`, unsquared norms of all users and items over I. `paper`: as printed."""
    features: Literal["trained", "frozen"] = "trained"
    """`trained`: the raw feature tables are parameters, as in the published code. `frozen`: given, as in the text."""

    VARIANTS: ClassVar[dict[str, Variant]] = {
        "objective": Variant(
            text="L_rec + L_align + L_mask + λ(‖h_u‖² + ‖h_i‖²), terms −cos (paper)",
            code="terms 1 − cos, L_align and L_mask times 2, λ(‖H_u‖F + ‖H_i‖F)/I over all nodes (published)",
            where="bm3.model.BM3.loss",
        ),
        "features": Variant(
            text="raw features are given (frozen)",
            code="raw feature tables are trained, at four times their memory (trained)",
            where="bm3.model.FeatureTable",
        ),
    }

    def __post_init__(self) -> None:
        for field, possible, needed in (
            ("embedding_size", isinstance(self.embedding_size, int) and self.embedding_size >= 1, "at least 1, whole"),
            ("n_layers", isinstance(self.n_layers, int) and self.n_layers >= 0, "at least 0, whole"),
            ("dropout", 0 <= self.dropout < 1, "at least 0 and below 1"),
            ("reg_weight", 0 <= self.reg_weight < float("inf"), "finite and not negative"),
            ("cl_weight", 0 <= self.cl_weight < float("inf"), "finite and not negative"),
            ("objective", self.objective in ("published", "paper"), "published or paper"),
            ("features", self.features in ("trained", "frozen"), "trained or frozen"),
        ):
            if not possible:
                raise ConfigError(f"BM3: {field} is {getattr(self, field)!r}, it must be {needed}")


class FeatureTable(nn.Module):
    """e_m [I, d_m]: parameters where they are trained, else as given. Raises DataError for what is no finite table."""

    table: Tensor

    def __init__(self, name: str, table: np.ndarray[Any, Any], n_items: int, *, trained: bool) -> None:
        super().__init__()
        if table.ndim != 2 or len(table) != n_items or not table.size or not np.isfinite(table).all():
            raise DataError(f"features of {name!r} {list(table.shape)}: needed are finite rows of {n_items} items")
        if trained:
            self.table = nn.Parameter(torch.tensor(table, dtype=torch.float32))
        else:
            self.register_buffer("table", torch.tensor(table), persistent=False)

    def project(self, items: Tensor, weight: Tensor) -> Tensor:
        """Rows e_m of the items [n] times Wᵀ."""
        return self.table[items].to(weight.dtype) @ weight.T  # [n, d] for weight [d, d_m]


class BM3(Recommender):
    """The BM3 recommender, of any number of modalities with any names."""

    Config = BM3Config
    propagation: ClassVar[Any] = Propagation
    feature_table: ClassVar[Any] = FeatureTable
    readout: ClassVar[Any] = staticmethod(mean_readout)

    def __init__(self, data: Data, config: BM3Config, generator: torch.Generator) -> None:
        """`generator` draws parameters and, until `start_epoch`, views. Raises DataError for data that cannot serve."""
        super().__init__()
        self.config, self.n_users, self.n_items, self._generator = config, data.n_users, data.n_items, generator
        self.modalities, d = tuple(data.features), config.embedding_size
        graph = bipartite_adjacency(data.train, data.n_users, data.n_items)
        self.propagate = self.propagation(symmetric_normalised(graph))
        self.user_embedding = nn.Parameter(nn.init.xavier_uniform_(torch.empty(data.n_users, d), generator=generator))
        self.item_embedding = nn.Parameter(nn.init.xavier_uniform_(torch.empty(data.n_items, d), generator=generator))
        self.predictor = _linear(d, d, generator)
        # Lists, not dictionaries keyed by modality: torch forbids some names as keys, a data set does not.
        trained, tables = config.features == "trained", data.features.items()
        self.features: Any = nn.ModuleList(self.feature_table(*one, data.n_items, trained=trained) for one in tables)
        self.projections: Any = nn.ModuleList(_linear(table.shape[1], d, generator) for _, table in tables)

    def start_epoch(self, generator: torch.Generator) -> None:
        self._generator = generator  # which draws the dropout views from now on

    def encode(self) -> tuple[Tensor, Tensor]:
        """H_u and H_i: mean readout over the graph, and a residual for the items."""
        h0 = torch.cat([self.user_embedding, self.item_embedding])  # [U+I, d]
        h_users, h_items = self.readout(self.propagate, h0, self.config.n_layers).split([self.n_users, self.n_items])
        return h_users, h_items + self.item_embedding  # [U, d], [I, d]

    def project(self, m: int, items: Tensor) -> Tensor:
        """h_m = e_m W_m + b_m of the items [n] alone, [n, d]."""
        return torch.add(self.features[m].project(items, self.projections[m].weight), self.projections[m].bias)

    def drawn(self, n: int) -> Tensor:
        """Which entries of n rows survive dropout."""
        chances = torch.rand(n, self.config.embedding_size, generator=self._generator, device=self._generator.device)
        return chances >= self.config.dropout  # [n, d]

    def survivors(self, view: str, rows: Tensor) -> Tensor:
        """Which entries of these rows [n] of `user`, `item` or a modality survive; alike where rows repeat."""
        return self.drawn(self.n_users if view == "user" else self.n_items).to(rows.device)[rows]  # [n, d]

    def _target(self, view: str, h: Tensor, rows: Tensor) -> Tensor:
        """sg ĥ = dropout_p(h), survivors scaled by 1/(1−p), where h [n, d] is of these rows [n]."""
        p, h = self.config.dropout, h.detach()
        return h * self.survivors(view, rows) / (1 - p) if p > 0 else h  # [n, d]

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """L_rec and, with modalities, L_align and L_mask as printed, means over the batch; regulariser without λ."""
        (users, items, _), (h_users, h_items) = batch, self.encode()  # [U, d], [I, d]
        h_u, h_i = functional.embedding(users, h_users), functional.embedding(items, h_items)  # [B, d] each
        h_modal = [self.project(m, items) for m in range(len(self.modalities))]  # M x [B, d]
        target_u, target_i = self._target("user", h_u, users), self._target("item", h_i, items)
        target_modal = [self._target(name, h, items) for name, h in zip(self.modalities, h_modal, strict=True)]
        online_u, online_i, *online_modal = (self.predictor(h) for h in (h_u, h_i, *h_modal))  # [B, d] each
        terms = {"reconstruction": reconstruction_loss(online_u, online_i, target_u, target_i).mean()}
        if h_modal:
            terms["alignment"] = alignment_loss(online_modal, target_i).mean()
            terms["masked"] = masked_loss(online_modal, target_modal).mean()
        if self.config.objective == "paper":
            terms["regulariser"] = (squared_norm(h_u) + squared_norm(h_i)).mean()
        else:
            terms["regulariser"] = published_regulariser(h_users, h_items)
        return terms

    def loss(self, batch: Batch) -> Loss:
        """Parts: the `terms` as they are weighted."""
        config, parts = self.config, self.terms(batch)
        for name, term in parts.items():
            if name == "regulariser":
                parts[name] = config.reg_weight * term
            elif config.objective == "published":  # 1 − cos in place of −cos, and weights
                parts[name] = 2 + term if name == "reconstruction" else config.cl_weight * (len(self.modalities) + term)
        return Loss(reduce(torch.add, parts.values()), parts)

    def embed(self) -> tuple[Tensor, Tensor]:
        """h̃_u and h̃_i, predictor applied, nothing dropped; the score is their dot product."""
        users, items = self.encode()
        return self.predictor(users), self.predictor(items)  # [U, d], [I, d]


def _linear(d_in: int, d_out: int, generator: torch.Generator) -> nn.Linear:
    """Linear map with Xavier-normal weight [d_out, d_in] and torch's default bias, uniform in ±1/√d_in."""
    layer = nn.Linear(d_in, d_out, device="meta")  # draws from no generator; both parameters follow
    layer.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(d_out, d_in), generator=generator))
    layer.bias = nn.Parameter(nn.init.uniform_(torch.empty(d_out), -(d_in**-0.5), d_in**-0.5, generator=generator))
    return layer
