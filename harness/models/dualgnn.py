"""DualGNN: modality graphs over users and items, and a graph over users who share items.

Wang et al., "DualGNN: Dual Graph Neural Network for Multimedia Recommendation", IEEE Transactions on Multimedia 2021.
Two quirks of the code behind the published tables are options of `DualGNNConfig`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from bm3 import Batch, Data, Loss, Recommender
from bm3.data import Variant
from bm3.graph import bipartite_adjacency, symmetric_normalised
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
from harness.models.products import SparseProduct

USERS_AT_A_TIME = 2048  # of the user-user product A Aᵀ: bounds its memory
DROPPED_SHARE = 10  # as authored, one item in ten loses its edges in one of the modalities

Behaviour = Literal["as_published", "as_authored"]


@dataclass(frozen=True, kw_only=True)
class DualGNNConfig:
    """Hyper-parameters and variants of DualGNN."""

    latent_size: int = 64
    """Width of all representations; the hidden layer has four times as much."""
    n_neighbours: int = 40
    """k, users whose representations smooth a user's."""
    reg_weight: float = 1e-3
    """λ, weight of the regulariser. The published grid is not known; searched here are 1e-1, …, 1e-5."""
    modality_sum: Behaviour = "as_published"
    """`as_published`: summed in place, so user weights combine (r_v + r_t, r_t). `as_authored`: (r_v, r_t)."""
    edge_drop: Behaviour = "as_published"
    """`as_published`: the edges chosen to be dropped are kept. `as_authored`: a modality's graph lacks them."""
    scoring: Scoring = "last_batch"
    """`last_batch`: scores from the last training batch's forward pass, as published. `current`: from a new one."""

    VARIANTS: ClassVar[Mapping[str, Variant]] = {
        "modality_sum": Variant(
            text="user weights combine the modalities (r_v, r_t) (as_authored)",
            code="the sum over modalities is made in place, so they combine (r_v + r_t, r_t) (as_published)",
            where="harness.models.dualgnn.DualGNN",
        ),
        "edge_drop": Variant(
            text="a tenth of the items, in thirds, loses its edges in one modality each (as_authored)",
            code="the edges are chosen but propagation uses all of them (as_published)",
            where="harness.models.dualgnn.DualGNN.set_dropped_items",
        ),
        "scoring": SCORING,
    }

    def __post_init__(self) -> None:
        check_config(self, latent_size=1, n_neighbours=1, reg_weight=0)


class DualGNN(Recommender):
    """Per modality r = x + Âx + Â²x for x = normalise([preference ; z]), z = W₂ LeakyReLU(W₁ e_m + b₁) + b₂.

    Items: Σ_m r_m. Users: h_u + Σ_k w_uk h_k over the users sharing most items, h_u the modalities weighted by
    `weight_u`, w the softmax of the numbers of shared items. L = −log₂ σ(s_ui − s_uj) and the regulariser.
    """

    Config = DualGNNConfig
    uses_negatives: ClassVar[bool] = True

    def __init__(self, data: Data, config: DualGNNConfig, generator: torch.Generator) -> None:
        """Raises DataError: no modality, no interactions, or features that are not one finite row per item."""
        super().__init__()
        self.config = config
        self.n_users, self.n_items = data.n_users, data.n_items
        self.modalities = modality_order(data)
        d, n_modalities = config.latent_size, len(self.modalities)
        # Two columns at least, as published; where there is one modality nothing is weighted.
        self.weight_u = _softmax_weights(data.n_users, max(2, n_modalities), generator)
        self.weight_i = _softmax_weights(data.n_items, max(2, n_modalities), generator)
        self.branches = nn.ModuleList(_Branch(data, modality, d, generator) for modality in self.modalities)
        # Parameters of the published code that take no part; what is below `unused` is not expected to have gradients.
        unused = {name: linear(d, d, generator, bias=False) for name in ("MLP_v", "MLP_t")}
        self.unused = nn.ModuleDict({**unused, "MLP_user": linear(3 * d, d, generator)})
        self._adjacency = bipartite_adjacency(data.train, data.n_users, data.n_items)
        # The random choices that scores depend on are part of the state.
        for name in ("user_graph_index", "user_graph_weight", "dropped"):
            self.register_buffer(name, None)
        permuted = torch.randperm(data.n_items, generator=generator).numpy()
        self.set_dropped_items(dropped_items(permuted, n_modalities))
        self._neighbours = co_occurring_users(self._adjacency, data.n_users, config.n_neighbours)
        self.start_epoch(generator)
        self.register_load_state_dict_post_hook(_use_restored_choices)  # type: ignore[no-untyped-call]
        self.last = LastForward(config.scoring, data.n_users, data.n_items, d)

    user_graph_index: Tensor
    user_graph_weight: Tensor
    dropped: Tensor

    def start_epoch(self, generator: torch.Generator) -> None:
        """Draw anew which of their own neighbours pad the rows of users that have fewer than k."""
        drawn = torch.rand(self._neighbours.users.shape, generator=generator, device=generator.device).cpu().numpy()
        self.set_user_graph(*self._neighbours.padded(drawn))

    def set_user_graph(self, users: NDArray[Any], weights: NDArray[Any]) -> None:
        """Smooth every user by the given `users` [U, k] with `weights` [U, k]."""
        self.user_graph_index = torch.as_tensor(users, device=self.weight_u.device)
        self.user_graph_weight = torch.as_tensor(weights, device=self.weight_u.device)
        n_users, k = users.shape
        starts = np.arange(n_users + 1) * k
        matrix = sparse.csr_array((weights.ravel(), users.ravel(), starts), shape=(n_users, n_users))
        self.smooth = SparseProduct(matrix).to(self.weight_u.device)

    def set_dropped_items(self, dropped: list[NDArray[Any]]) -> None:
        """Items whose edges are dropped, per modality. They are dropped where `edge_drop` is `as_authored`."""
        mask = np.zeros((len(dropped), self.n_items), dtype=bool)
        for m, items in enumerate(dropped):
            mask[m, items] = True
        self.dropped = torch.as_tensor(mask, device=self.weight_u.device)
        graphs = [self._adjacency] * len(dropped)
        if self.config.edge_drop == "as_authored":
            graphs = [_without(self._adjacency, self.n_users + items) for items in dropped]
        shared = {id(graph): SparseProduct(symmetric_normalised(graph, offset=0), symmetric=True) for graph in graphs}
        self.propagations = nn.ModuleList(shared[id(graph)] for graph in graphs)
        self.propagations.to(self.weight_u.device)

    def loss(self, batch: Batch) -> Loss:
        """Parts: `pairwise`, `regulariser`."""
        users, items = self._forward()
        self.last.store(users, items)
        pairwise = log_sigmoid_loss(*batch_rows(users, items, batch)) / np.log(2)
        squares = [mean_square(rows(branch.preference, batch.users)) for branch in each(self.branches, _Branch)]
        squares += [mean_square(self.weight_u), mean_square(self.weight_i)]
        regulariser = self.config.reg_weight * torch.stack(squares).sum()
        return Loss(pairwise + regulariser, {"pairwise": pairwise, "regulariser": regulariser})

    def embed(self) -> tuple[Tensor, Tensor]:
        """(users [U, d], items [I, d]); which forward pass they are from is `config.scoring`."""
        return self.last.vectors(self._forward)

    def _forward(self) -> tuple[Tensor, Tensor]:
        modal_users, modal_items = [], []
        for branch, propagate in zip(self.branches, self.propagations, strict=True):
            x = normalise(branch())
            x1 = propagate(x)
            users, items = (x + x1 + propagate(x1)).split([self.n_users, self.n_items])
            modal_users.append(users)
            modal_items.append(items)
        if self.config.modality_sum == "as_published":
            modal_users[0] = _sum(modal_users)
        h_users = modal_users[0]
        if len(modal_users) > 1:
            h_users = _sum([self.weight_u[:, m] * users for m, users in enumerate(modal_users)])  # [U, 1] x [U, d]
        return h_users + self.smooth(h_users), _sum(modal_items)


def _sum(tables: list[Tensor]) -> Tensor:
    """Sum of tables of one shape, without the copy that stacking them would be."""
    return reduce(torch.add, tables)


class _Branch(nn.Module):
    """[preference ; z] of one modality, [U+I, d]."""

    def __init__(self, data: Data, modality: str, d: int, generator: torch.Generator) -> None:
        super().__init__()
        self.features = frozen_features(data, modality)
        self.preference = xavier_normal(data.n_users, d, generator)
        self.MLP = linear(self.features.table.shape[1], 4 * d, generator)
        self.MLP_1 = linear(4 * d, d, generator)

    def forward(self) -> Tensor:
        z = self.MLP_1(functional.leaky_relu_(self.MLP(self.features.table)))
        return torch.cat([self.preference, z])


class CoOccurrence(NamedTuple):
    """Per user the k others that share most items, most first, ties by ascending id; rows end in padding."""

    users: NDArray[np.int64]  # [U, k]
    counts: NDArray[np.float64]  # [U, k], items shared
    found: NDArray[np.int64]  # [U], how many of the k there are

    def padded(self, drawn: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Users and softmax weights [U, k], missing slots repeating the user's own neighbours.

        `drawn` [U, k], uniform in [0, 1), says which. Weights of a user without neighbours are 0.
        """
        slot = np.arange(self.users.shape[1])
        found = self.found[:, None]
        pick = np.where(slot < found, slot, (drawn * found).astype(np.int64))
        counts = np.take_along_axis(self.counts, pick, axis=1)
        weights = np.exp(counts - counts.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        return np.take_along_axis(self.users, pick, axis=1), np.where(found > 0, weights, 0.0)


def co_occurring_users(adjacency: sparse.csr_array, n_users: int, k: int) -> CoOccurrence:
    """The user-user graph from the sparse product A Aᵀ of the bipartite `adjacency`, in blocks of users."""
    interactions = sparse.csr_array(adjacency[:n_users, n_users:])
    transposed = sparse.csr_array(interactions.T)
    users, counts = np.zeros((n_users, k), dtype=np.int64), np.zeros((n_users, k))
    found = np.zeros(n_users, dtype=np.int64)
    for first in range(0, n_users, USERS_AT_A_TIME):
        shared = (interactions[first : first + USERS_AT_A_TIME] @ transposed).tocoo()
        row, other, count = shared.row, shared.col, shared.data
        row, other, count = (array[row + first != other] for array in (row, other, count))
        order = np.lexsort((other, -count, row))
        row, other, count = row[order], other[order], count[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        row, other, count, rank = (array[rank < k] for array in (row, other, count, rank))
        users[first + row, rank], counts[first + row, rank] = other, count
        found += np.bincount(first + row, minlength=n_users)
    return CoOccurrence(users, counts, found)


def dropped_items(permuted: NDArray[Any], n_modalities: int) -> list[NDArray[Any]]:
    """A tenth of the `permuted` items in thirds: the first for the first modality, the last for the last."""
    n, n_parts = len(permuted) // DROPPED_SHARE, max(3, n_modalities)
    parts = [permuted[part * n // n_parts : (part + 1) * n // n_parts] for part in range(n_parts)]
    return [*parts[: n_modalities - 1], parts[-1] if n_modalities > 1 else parts[0]]


def _without(adjacency: sparse.csr_array, nodes: NDArray[Any]) -> sparse.csr_array:
    kept = np.ones(adjacency.shape[0])
    kept[nodes] = 0
    left = sparse.csr_array(sparse.diags_array(kept) @ adjacency @ sparse.diags_array(kept))
    left.eliminate_zeros()
    return left


def _softmax_weights(n: int, n_modalities: int, generator: torch.Generator) -> nn.Parameter:
    """[n, M, 1]: Xavier normal, then a softmax over the modalities."""
    drawn = nn.init.xavier_normal_(torch.empty(n, n_modalities, 1), generator=generator)
    return nn.Parameter(drawn.softmax(dim=1))


def _use_restored_choices(model: DualGNN, incompatible_keys: object) -> None:
    model.set_user_graph(model.user_graph_index.cpu().numpy(), model.user_graph_weight.cpu().numpy())
    model.set_dropped_items([np.flatnonzero(mask) for mask in model.dropped.cpu().numpy()])


def trace_tensors(model: DualGNN) -> dict[str, Tensor]:
    """The model's tensors under the names used in recorded traces; preferences have two there."""
    tensors: dict[str, Tensor] = {"weight_u": model.weight_u, "weight_i": model.weight_i}
    tensors |= model.unused.named_parameters()
    for modality, branch in zip(model.modalities, each(model.branches, _Branch), strict=True):
        tensors |= {f"{gcn_prefix(modality)}.{name}": tensor for name, tensor in branch.named_parameters()}
        tensors[f"{modality[0]}_preference"] = branch.preference
    return tensors


def trace_choices(model: DualGNN, choices: Mapping[str, NDArray[Any]]) -> None:
    """Put a trace's fixed random choices, `user_graph_*` and `dropped_*_items`, into the model."""
    model.set_user_graph(choices["user_graph_index"], choices["user_graph_weight"])
    none = np.empty(0, dtype=np.int64)
    model.set_dropped_items([choices.get(f"dropped_{modality}_items", none) for modality in model.modalities])
