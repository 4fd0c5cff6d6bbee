"""MMGCN: one graph network per modality over the user-item graph, averaged.

Wei et al., "MMGCN: Multi-modal Graph Convolution Network for Personalized Recommendation of Micro-video", ACM MM 2019.
In the code behind the published tables the ID table and the preferences are never handed to the optimiser.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, Literal

import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from bm3 import Batch, Data, Loss, Recommender
from bm3.data import Variant
from bm3.graph import bipartite_adjacency
from harness.common import check_config
from harness.models.base import (
    SCORING,
    Constant,
    LastForward,
    Scoring,
    batch_rows,
    each,
    gcn_prefix,
    linear,
    log_sigmoid_loss,
    mean_square,
    normalise,
    xavier_normal,
)
from harness.models.features import frozen_features, modality_order
from harness.models.products import SparseProduct

LAYERS = 3
VISUAL_WIDTH = 256  # visual features pass a linear map to this width first

Training = Literal["as_published", "as_authored"]
Nodes = tuple[Tensor, Tensor]  # users [U, w], items [I, w]


@dataclass(frozen=True, kw_only=True)
class MMGCNConfig:
    """Hyper-parameters and variants of MMGCN."""

    embedding_size: int = 64
    """d, width of the ID table and of every layer's output."""
    reg_weight: float = 1e-2
    """λ, weight of the regulariser. The published grid is not known; searched here are 1e-1, …, 1e-5 and 0."""
    training: Training = "as_published"
    """`as_published`: ID table and preferences stay at their initial values. `as_authored`: they train."""
    scoring: Scoring = "last_batch"
    """`last_batch`: scores from the last training batch's forward pass, as published. `current`: from a new one."""

    VARIANTS: ClassVar[Mapping[str, Variant]] = {
        "training": Variant(
            text="ID table and preferences are learned (as_authored)",
            code="they are never handed to the optimiser and stay as initialised (as_published)",
            where="harness.models.mmgcn.MMGCN",
        ),
        "scoring": SCORING,
    }

    def __post_init__(self) -> None:
        check_config(self, embedding_size=1, reg_weight=0)


class MMGCN(Recommender):
    """Mean over modalities of x³, where per modality x⁰ = normalise([preference ; feature]) and, for k = 1, 2, 3,

    h = LeakyReLU(mean_{j∈N(i)} x_j W_k),  x̂ = LeakyReLU(x V_k + c_k) + id,  xᵏ = LeakyReLU([h ; x̂] G_k + g_k).
    L = −log σ(s_ui − s_uj) + λ (mean squares of the batch's IDs and of the whole visual preference).
    """

    Config = MMGCNConfig
    uses_negatives: ClassVar[bool] = True

    def __init__(self, data: Data, config: MMGCNConfig, generator: torch.Generator) -> None:
        """Raises DataError: no modality, no interactions, or features that are not one finite row per item."""
        super().__init__()
        self.config = config
        self.n_users, self.n_items = data.n_users, data.n_items
        self.modalities = modality_order(data)
        trains = config.training == "as_authored"
        n_nodes = data.n_users + data.n_items
        self.id_embedding = xavier_normal(n_nodes, config.embedding_size, generator).requires_grad_(trains)
        neighbours = _MeanOfNeighbours(bipartite_adjacency(data.train, data.n_users, data.n_items), data.n_users)
        self.branches = nn.ModuleList(
            _Branch(data, modality, neighbours, config.embedding_size, generator, trains)
            for modality in self.modalities
        )
        self.last = LastForward(config.scoring, data.n_users, data.n_items, config.embedding_size)

    def loss(self, batch: Batch) -> Loss:
        """Parts: `pairwise`, `regulariser`."""
        users, items = self._forward()
        self.last.store(users, items)
        pairwise = log_sigmoid_loss(*batch_rows(users, items, batch))
        id_u, id_i, id_j = batch_rows(*self._ids, batch)  # [B, d] each
        squares = [
            mean_square(id_u),
            mean_square(id_i, id_j),
            *(one.kept("square", mean_square, one.preference) for one in each(self.branches, _Branch) if one.visual),
        ]
        regulariser = self.config.reg_weight * torch.stack(squares).sum()
        return Loss(pairwise + regulariser, {"pairwise": pairwise, "regulariser": regulariser})

    def embed(self) -> Nodes:
        """(users [U, d], items [I, d]); which forward pass they are from is `config.scoring`."""
        return self.last.vectors(self._forward)

    @property
    def _ids(self) -> Nodes:
        users, items = self.id_embedding.split([self.n_users, self.n_items])
        return users, items

    def _forward(self) -> Nodes:
        outputs = [branch(self._ids) for branch in self.branches]
        users, items = (reduce(torch.add, side) / len(outputs) for side in zip(*outputs, strict=True))
        return users, items


class _MeanOfNeighbours(nn.Module):
    """mean_{j∈N(i)} x_j W. The dense product runs on the items, of which there are usually fewer than users."""

    def __init__(self, adjacency: sparse.csr_array, n_users: int) -> None:
        super().__init__()
        degree = adjacency.sum(axis=1)
        mean = sparse.diags_array(1 / degree.clip(1)) @ adjacency
        self.of_users = SparseProduct(sparse.csr_array(mean[:n_users, n_users:]))  # [U, I]
        self.of_items = SparseProduct(sparse.csr_array(mean[n_users:, :n_users]))  # [I, U]

    def forward(self, nodes: Nodes, weight: Tensor, users_averaged: Tensor | None = None) -> Nodes:
        """For [U, w], [I, w] and weight [w, v]: [U, v], [I, v]. `users_averaged` [I, w] where it is known already."""
        users, items = nodes
        averaged = self.of_items(users) if users_averaged is None else users_averaged
        return self.of_users(items @ weight), averaged @ weight


class _Layer(nn.Module):
    """One layer, of input width w and output width d."""

    def __init__(self, width: int, d: int, generator: torch.Generator, *, first: bool) -> None:
        super().__init__()
        self.W = xavier_normal(width, width, generator)
        self.V = linear(width, d, generator)
        self.G = linear(width + d, d, generator)
        for layer in (self.V, *([self.G] if first else [])):
            nn.init.xavier_normal_(layer.weight, generator=generator)

    def output(self, averaged: Tensor, x: Tensor, ids: Tensor) -> Tensor:
        """x [n, w] and neighbours' means times W [n, w] -> [n, d]."""
        h = functional.leaky_relu_(averaged)
        x_hat = functional.leaky_relu_(self.V(x)) + ids
        # [h ; x̂] G without writing [h ; x̂] down.
        G_h, G_x = self.G.weight.split([h.shape[1], x_hat.shape[1]], dim=1)
        return functional.leaky_relu_(torch.addmm(functional.linear(x_hat, G_x, self.G.bias), h, G_h.T))


class _Branch(nn.Module):
    """The graph network of one modality."""

    def __init__(
        self, data: Data, modality: str, neighbours: _MeanOfNeighbours, d: int, generator: torch.Generator, trains: bool
    ) -> None:
        super().__init__()
        self.features = frozen_features(data, modality)
        width = data.features[modality].shape[1]
        self.visual = modality == "visual"
        self.MLP = linear(width, VISUAL_WIDTH, generator) if self.visual else None
        if self.MLP is not None:
            width = VISUAL_WIDTH
        self.preference = xavier_normal(data.n_users, width, generator).requires_grad_(trains)
        self.neighbours = neighbours
        self.layers = nn.ModuleList(_Layer(width if k == 0 else d, d, generator, first=k == 0) for k in range(LAYERS))
        self._constants = {name: Constant() for name in ("users", "averaged", "items", "square")}

    def forward(self, ids: Nodes) -> Nodes:
        """xᴸ [U, d], [I, d] for the ID table's rows."""
        x, averaged = self._input()
        for layer in each(self.layers, _Layer):
            mean_users, mean_items = self.neighbours(x, layer.W, averaged)
            x = layer.output(mean_users, x[0], ids[0]), layer.output(mean_items, x[1], ids[1])
            averaged = None
        return x

    def _input(self) -> tuple[Nodes, Tensor | None]:
        """x⁰ and the means of its users over each item's neighbours [I, w]."""
        users = self.kept("users", normalise, self.preference)
        averaged = self.kept("averaged", lambda table: self.neighbours.of_items(normalise(table)), self.preference)
        if self.MLP is None:
            return (users, self.kept("items", normalise, self.features.table)), averaged
        return (users, normalise(self.MLP(self.features.table))), averaged

    def kept(self, name: str, compute: Any, source: Tensor) -> Tensor:
        """compute(source), once for all where the source, a parameter or buffer, does not train."""
        value: Tensor = compute(source) if source.requires_grad else self._constants[name](compute, source)
        return value


def trace_tensors(model: MMGCN) -> dict[str, Tensor]:
    """The model's tensors under the names used in recorded traces."""
    tensors: dict[str, Tensor] = {"id_embedding": model.id_embedding}
    for modality, branch in zip(model.modalities, each(model.branches, _Branch), strict=True):
        prefix = gcn_prefix(modality)
        tensors[f"{prefix}.preference"] = branch.preference
        linears = {} if branch.MLP is None else {"MLP": branch.MLP}
        for k, layer in enumerate(each(branch.layers, _Layer), start=1):
            tensors[f"{prefix}.conv_embed_{k}.weight"] = layer.W
            linears |= {f"linear_layer{k}": layer.V, f"g_layer{k}": layer.G}
        for name, module in linears.items():
            tensors |= {f"{prefix}.{name}.{key}": value for key, value in module.named_parameters()}
    return tensors
