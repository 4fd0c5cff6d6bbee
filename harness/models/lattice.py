"""LATTICE: item-item graphs, given and learned, mined from the modalities' features.

Zhang et al., "Mining Latent Structures for Multimedia Recommendation", ACM MM 2021, arXiv 2104.09036. Graphs are
sparse throughout, the learned one and its gradient included; the published code holds them as dense I x I matrices.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from scipy import sparse
from torch import Tensor, nn

from bm3 import Batch, Data, Loss, Recommender
from bm3.data import Variant
from bm3.graph import bipartite_adjacency
from harness.common import check_config, require
from harness.models.base import batch_rows, each, linear, log_sigmoid_loss, modal_tensors, normalise, xavier_uniform
from harness.models.features import FeatureTable, modality_order
from harness.models.item_graph import nearest_items, normalised_entries
from harness.models.products import Pattern, SparseProduct, readout

Features = Literal["trained", "frozen"]


@dataclass(frozen=True, kw_only=True)
class LATTICEConfig:
    """Hyper-parameters and variants of LATTICE."""

    embedding_size: int = 64
    """d, width of the ID embeddings."""
    feat_embed_dim: int = 64
    """Width of the projected features that the learned graph is made of."""
    n_layers: int = 1
    """Rounds of propagation over the item graph."""
    n_ui_layers: int = 2
    """Rounds of propagation over the user-item graph."""
    knn_k: int = 10
    """k, neighbours of an item per modality, itself included."""
    lambda_coeff: float = 0.9
    """Weight of the original item graphs; the learned one has the rest."""
    reg_weight: float = 1e-3
    """λ, weight of the regulariser. The published grid is not known; searched here are 0, 1e-5, …, 1e-2."""
    features: Features = "trained"
    """`trained`: the raw feature tables are parameters, as in the published code. `frozen`: given."""
    train_batch_size: int = 2048
    """What the regulariser is divided by, also in a shorter last batch: the training's batch size unless it is set."""

    VARIANTS: ClassVar[Mapping[str, Variant]] = {
        "features": Variant(
            text="raw features are given (frozen)",
            code="raw feature tables are trained, one step per epoch, at four times their memory (trained)",
            where="harness.models.features.FeatureTable",
        ),
    }

    def __post_init__(self) -> None:
        check_config(self, embedding_size=1, feat_embed_dim=1, n_layers=0, n_ui_layers=0, knn_k=1)
        check_config(self, lambda_coeff=0, reg_weight=0, train_batch_size=1)
        require(self, "lambda_coeff", self.lambda_coeff <= 1, "between 0 and 1")


class LATTICE(Recommender):
    """Users: mean readout over D^{-1}(A + I). Items: the same plus normalise(h), h = S · item IDs.

    S = 0.9 Σ_m w_m S_m + 0.1 learned, w = softmax(`modal_weight`): S_m from the raw features, fixed; learned from
    projected features, rebuilt in the first batch of each epoch, where alone it has a gradient, and for scoring.
    L = −log σ(s_ui − s_uj) + λ/2 (Σ‖h_u‖² + Σ‖h_i‖² + Σ‖h_j‖²) / batch size.
    """

    Config = LATTICEConfig
    uses_negatives: ClassVar[bool] = True

    def __init__(self, data: Data, config: LATTICEConfig, generator: torch.Generator) -> None:
        """Raises DataError: no modality, no interactions, or features that are not one finite row per item."""
        super().__init__()
        self.config = config
        self.n_users, self.n_items = data.n_users, data.n_items
        self.modalities = modality_order(data)
        self.user_embedding = xavier_uniform(data.n_users, config.embedding_size, generator)
        self.item_embedding = xavier_uniform(data.n_items, config.embedding_size, generator)
        self.features = nn.ModuleList(
            FeatureTable(name, data.features[name], data.n_items, trained=config.features == "trained")
            for name in self.modalities
        )
        self.projections = nn.ModuleList(
            linear(data.features[name].shape[1], config.feat_embed_dim, generator) for name in self.modalities
        )
        # Two weights at least, as published, also where there is one modality; then the second has no effect.
        self.modal_weight = nn.Parameter(torch.full((max(2, len(self.modalities)),), 0.5))
        self.propagate = SparseProduct(_with_self_loops(bipartite_adjacency(data.train, data.n_users, data.n_items)))
        self._originals = nn.ModuleList(
            _OriginalGraph(features.table, config.knn_k) for features in each(self.features, FeatureTable)
        )
        self._learned: tuple[Any, list[Tensor]] | None = None
        self._epoch_graph: tuple[Pattern, Tensor] | None = None
        self.register_load_state_dict_post_hook(LATTICE._forget)  # type: ignore[no-untyped-call]

    def _forget(self, incompatible_keys: object = None) -> None:
        """Graphs are derived from parameters: other ones were loaded, or they are about to move to another device."""
        self._learned = self._epoch_graph = None

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._forget()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def start_epoch(self, generator: torch.Generator) -> None:
        """The next batch rebuilds the item graph. Nothing is drawn."""
        self._epoch_graph = None

    def after_step(self) -> None:
        """The neighbours of the projected features are to be found again: fused Adam moves tensors without a sign."""
        self._learned = None

    def learning_rate_factor(self, epoch: int) -> float:
        """0.96 per 50 epochs, exponential, from epoch 1."""
        return float(0.96 ** ((epoch - 1) / 50))

    def loss(self, batch: Batch) -> Loss:
        """Parts: `pairwise`, `regulariser`."""
        graph = self._epoch_graph
        if graph is None:
            graph = self._item_graph()
            self._epoch_graph = graph[0], graph[1].detach()
            self._learned = None  # the step that follows moves what it was found with
        h_u, h_i, h_j = batch_rows(*self._forward(*graph), batch)  # [B, d] each
        pairwise = log_sigmoid_loss(h_u, h_i, h_j)
        squares = torch.stack([h.square().sum() for h in (h_u, h_i, h_j)]).sum()
        regulariser = self.config.reg_weight * squares / 2 / self.config.train_batch_size
        return Loss(pairwise + regulariser, {"pairwise": pairwise, "regulariser": regulariser})

    def embed(self) -> tuple[Tensor, Tensor]:
        """(users [U, d], items [I, d]), the item graph rebuilt from the present parameters."""
        return self._forward(*self._item_graph())

    def _forward(self, pattern: Pattern, values: Tensor) -> tuple[Tensor, Tensor]:
        h: Tensor = self.item_embedding
        for _ in range(self.config.n_layers):
            h = pattern.product(values, h)
        h0 = torch.cat([self.user_embedding, self.item_embedding])
        users, items = readout(self.propagate, h0, self.config.n_ui_layers).split([self.n_users, self.n_items])
        return users, items + normalise(h)

    def _item_graph(self) -> tuple[Pattern, Tensor]:
        """S as a pattern of at most 2Mk entries per row and their values [E], differentiable."""
        weights = self.modal_weight[: len(self.modalities)].softmax(dim=0)
        unit = [
            normalise(projection(features.table.float()))
            for projection, features in zip(self.projections, each(self.features, FeatureTable), strict=True)
        ]
        neighbours = self._nearest(unit)  # M x [I, k]
        similarities = [
            weight * _pattern(near, self.n_items).dots(x, x).view_as(near)
            for weight, x, near in zip(weights, unit, neighbours, strict=True)
        ]
        combined = torch.cat(similarities, dim=1)  # [I, Mk]
        learned_columns = torch.cat(neighbours, dim=1)
        learned = normalised_entries(combined, learned_columns)
        share = self.config.lambda_coeff
        originals = each(self._originals, _OriginalGraph)
        weighted = [share * weight * graph.values for weight, graph in zip(weights, originals, strict=True)]
        columns = torch.cat([*(graph.columns for graph in originals), learned_columns], dim=1)  # [I, 2Mk]
        values = torch.cat([*weighted, (1 - share) * learned], dim=1)
        return _merged(columns, values)

    def _nearest(self, unit: list[Tensor]) -> list[Tensor]:
        """Neighbours under the projected features.

        These train in an epoch's first batch alone: what scoring finds, the next epoch's first batch has already.
        """
        sources = [*self.projections.parameters(), *(features.table for features in each(self.features, FeatureTable))]
        state = [(source.data_ptr(), source._version) for source in sources]
        if self._learned is None or self._learned[0] != state:
            with torch.inference_mode(False):  # what scoring finds is used in training
                self._learned = state, [nearest_items(x, self.config.knn_k) for x in unit]
        return self._learned[1]


class _OriginalGraph(nn.Module):
    """D^{-1/2} S D^{-1/2} of a modality's raw features: columns and values, [I, k] each."""

    columns: Tensor
    values: Tensor

    def __init__(self, table: Tensor, k: int) -> None:
        super().__init__()
        unit = normalise(table.detach().float())
        columns = nearest_items(unit, k)
        similarity = _pattern(columns, len(unit)).dots(unit, unit).view_as(columns)
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("values", normalised_entries(similarity, columns), persistent=False)


def _pattern(columns: Tensor, n_columns: int) -> Pattern:
    """The pattern whose every row has the given columns [n, k]."""
    n, k = columns.shape
    return Pattern(torch.arange(n + 1, device=columns.device) * k, columns.flatten(), n_columns)


def _merged(columns: Tensor, values: Tensor) -> tuple[Pattern, Tensor]:
    """Rows of columns and values, [I, K] each, as a square pattern whose values are the sums of equal entries [E]."""
    n, k = columns.shape
    row = torch.arange(n, device=columns.device).repeat_interleave(k)
    keys, entry = torch.unique(row * n + columns.flatten(), return_inverse=True)
    starts = torch.searchsorted(keys, torch.arange(n + 1, device=keys.device) * n)
    return Pattern(starts, keys % n, n), values.new_zeros(len(keys)).index_add(0, entry, values.flatten())


def _with_self_loops(adjacency: sparse.csr_array) -> sparse.csr_array:
    """D^{-1} (A + I)."""
    looped = adjacency + sparse.eye_array(adjacency.shape[0])
    return sparse.csr_array(sparse.diags_array(1 / looped.sum(axis=1)) @ looped)


def trace_tensors(model: LATTICE) -> dict[str, Tensor]:
    """The model's tensors under the names used in recorded traces."""
    return modal_tensors(model) | {
        "modal_weight": model.modal_weight,
        "user_embedding.weight": model.user_embedding,
        "item_id_embedding.weight": model.item_embedding,
    }


def trace_settings(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that traces name otherwise: one entry of `weight_size` per round over the user-item graph."""
    return {"n_ui_layers": len(recorded["weight_size"])} if "weight_size" in recorded else {}
