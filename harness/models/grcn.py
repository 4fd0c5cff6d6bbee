"""GRCN: ID embeddings propagated over a user-item graph whose edges are weighted by content.

Wei et al., "Graph-Refined Convolutional Network for Multimedia Recommendation with Implicit Feedback", ACM MM 2020,
arXiv 2111.02036. In the code behind the published tables the routing's messages flow the wrong way, so that
preferences are merely normalised.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bm3 import Batch, Data, Loss, Recommender
from bm3.data import Variant
from bm3.graph import bipartite_adjacency
from harness.common import check_config
from harness.models.base import (
    SCORING,
    LastForward,
    Scoring,
    batch_rows,
    each,
    gcn_prefix,
    linear,
    log_sigmoid_loss,
    mean_square,
    normalise,
    rows,
    xavier_normal,
)
from harness.models.features import frozen_features, modality_order
from harness.models.products import Pattern

SMALLEST_SUM = 1e-30  # below every sum of exponentials; makes the softmax over no edges zero

Routing = Literal["as_published", "as_authored"]


@dataclass(frozen=True, kw_only=True)
class GRCNConfig:
    """Hyper-parameters and variants of GRCN."""

    embedding_size: int = 64
    """Width of the ID embeddings."""
    latent_embedding: int = 64
    """Width of a modality's content vectors."""
    n_layers: int = 3
    """Routing iterations; they have an effect with `routing = as_authored` alone."""
    reg_weight: float = 1e-3
    """λ, weight of the regulariser. The published grid is not known; searched here are 1e-1, …, 1e-5."""
    routing: Routing = "as_published"
    """`as_published`: messages run from users to items, so preferences are only normalised. `as_authored`: to users."""
    scoring: Scoring = "last_batch"
    """`last_batch`: scores from the last training batch's forward pass, as published. `current`: from a new one."""

    VARIANTS: ClassVar[Mapping[str, Variant]] = {
        "routing": Variant(
            text="preferences are refined by messages from the user's items, n_layers times (as_authored)",
            code="the messages run from users to items, so preferences are only normalised (as_published)",
            where="harness.models.grcn._Branch.forward",
        ),
        "scoring": SCORING,
    }

    def __post_init__(self) -> None:
        check_config(self, embedding_size=1, latent_embedding=1, n_layers=0, reg_weight=0)


class _Content(NamedTuple):
    """A modality's content representation, and attention of the edges that enter users and that enter items."""

    users: Tensor  # [U, c]
    items: Tensor  # [I, c]
    into_users: Tensor  # [E]
    into_items: Tensor  # [E]


class GRCN(Recommender):
    """[id ; content per modality], where id = x + x¹ + x² and x^{k+1}_i = Σ_{j→i} w_ji xᵏ_j.

    w_ji = ReLU(max_m α^m_ji · conf[j, m]), α^m_ji = softmax_j(x_j · x_i) over the edges that enter i, x = [p ; f] the
    content vectors of modality m. Its representation is x_i + Σ_j α_ji x_j. Routing, as authored: p ← normalise(p +
    Σ_{i∈N(u)} α_ui f_i). L = −log σ(s_ui − s_uj) + λ (mean squares of the batch's IDs and preferences and of the whole
    visual preference).
    """

    Config = GRCNConfig
    uses_negatives: ClassVar[bool] = True

    def __init__(self, data: Data, config: GRCNConfig, generator: torch.Generator) -> None:
        """Raises DataError: no modality, no interactions, or features that are not one finite row per item."""
        super().__init__()
        self.config = config
        self.n_users, self.n_items = data.n_users, data.n_items
        self.modalities = modality_order(data)
        n_nodes = data.n_users + data.n_items
        edges = bipartite_adjacency(data.train, data.n_users, data.n_items)[: data.n_users, data.n_users :]
        self.edges = Pattern(edges.indptr, edges.indices, data.n_items)  # users by items
        self.id_embedding = xavier_normal(n_nodes, config.embedding_size, generator)
        self.confidence = xavier_normal(n_nodes, len(self.modalities), generator)  # column: modality
        self.branches = nn.ModuleList(
            _Branch(data, modality, self.edges, config, generator) for modality in self.modalities
        )
        width = config.embedding_size + len(self.modalities) * config.latent_embedding
        self.last = LastForward(config.scoring, data.n_users, data.n_items, width)

    def loss(self, batch: Batch) -> Loss:
        """Parts: `pairwise`, `regulariser`."""
        users, items = self._forward()
        self.last.store(users, items)
        pairwise = log_sigmoid_loss(*batch_rows(users, items, batch))
        id_users, id_items = self.id_embedding.split([self.n_users, self.n_items])
        id_u, id_i, id_j = batch_rows(id_users, id_items, batch)  # [B, d] each
        preferences = [branch.preference for branch in each(self.branches, _Branch)]
        squares = [
            mean_square(id_u),
            mean_square(id_i, id_j),
            *(mean_square(table) for table, name in zip(preferences, self.modalities, strict=True) if name == "visual"),
            *(mean_square(rows(table, batch.users)) for table in preferences),
        ]
        regulariser = self.config.reg_weight * torch.stack(squares).sum()
        return Loss(pairwise + regulariser, {"pairwise": pairwise, "regulariser": regulariser})

    def embed(self) -> tuple[Tensor, Tensor]:
        """(users [U, d], items [I, d]); which forward pass they are from is `config.scoring`."""
        return self.last.vectors(self._forward)

    def _forward(self) -> tuple[Tensor, Tensor]:
        contents = [branch() for branch in self.branches]
        conf_users, conf_items = self.confidence.split([self.n_users, self.n_items])
        into_users = self._edge_weights([c.into_users for c in contents], self.edges.at_columns, conf_items)
        into_items = self._edge_weights([c.into_items for c in contents], self.edges.at_rows, conf_users)
        users, items = normalise(self.id_embedding).split([self.n_users, self.n_items])
        id_users, id_items = users, items
        for _ in range(2):
            users, items = self.edges.product(into_users, items), self.edges.transposed_product(into_items, users)
            id_users, id_items = id_users + users, id_items + items
        return (
            torch.cat([id_users, *(content.users for content in contents)], dim=1),
            torch.cat([id_items, *(content.items for content in contents)], dim=1),
        )

    def _edge_weights(
        self, attention: list[Tensor], at_source: Callable[[Tensor], Tensor], confidence: Tensor
    ) -> Tensor:
        """w = ReLU(max_m α^m · conf[source, m]), [E], for confidence [n, M] of the edges' sources."""
        weighted = [alpha * at_source(confidence[:, m].contiguous()) for m, alpha in enumerate(attention)]
        return torch.stack(weighted).amax(dim=0).relu()


class _Branch(nn.Module):
    """Content of one modality: f = normalise(LeakyReLU(e_m Wᵀ + b)), p = normalise(preference)."""

    def __init__(
        self, data: Data, modality: str, edges: Pattern, config: GRCNConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.config, self.edges = config, edges
        self.features = frozen_features(data, modality)
        self.preference = xavier_normal(data.n_users, config.latent_embedding, generator)
        self.MLP = linear(self.features.table.shape[1], config.latent_embedding, generator)
        nn.init.xavier_normal_(self.MLP.weight, generator=generator)

    def forward(self) -> _Content:
        items = normalise(functional.leaky_relu_(self.MLP(self.features.table)))  # f [I, c]
        users = normalise(self.preference)  # p [U, c]
        if self.config.routing == "as_authored":
            for _ in range(self.config.n_layers):
                similar, sums = self._attention(users, items)
                users = normalise(users + self.edges.product(similar, items) / sums[:, None])
        # The two directions of an edge share their dot product, not their softmax: that is over the edges that enter.
        similar, user_sums = self._attention(users, items)
        item_sums = self.edges.column_sums(similar).clamp_min(SMALLEST_SUM)
        return _Content(
            users=users + self.edges.product(similar, items) / user_sums[:, None],
            items=items + self.edges.transposed_product(similar, users) / item_sums[:, None],
            into_users=similar / self.edges.at_rows(user_sums),
            into_items=similar / self.edges.at_columns(item_sums),
        )

    def _attention(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """exp(p_u · f_i) of every edge [E], and its sums over each user's items [U]. Rows are unit: no overflow."""
        similar = self.edges.dots(users, items).exp()
        return similar, self.edges.row_sums(similar).clamp_min(SMALLEST_SUM)


def trace_tensors(model: GRCN) -> dict[str, Tensor]:
    """The model's tensors under the names used in recorded traces."""
    tensors: dict[str, Tensor] = {"model_specific_conf": model.confidence, "id_gcn.id_embedding": model.id_embedding}
    for modality, branch in zip(model.modalities, model.branches, strict=True):
        for name, tensor in branch.named_parameters():
            tensors[f"{gcn_prefix(modality)}.{name}"] = tensor
    return tensors
