"""What the textbooks share: the models' base class, edges, adjacency, losses.

Message passing is written per edge, with a copy of the source's row for each, as graph libraries do it.
"""

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bm3 import Batch, Data
from harness.models.features import modality_order
from harness.models.registry import find_model


class Textbook(nn.Module):
    """Built from data and the configuration of the project's own model, of which it has the variants as published.

    It is called like that model. Parameters have the names used in recorded traces, below the name of a container where
    there is one.
    """

    def __init__(self, data: Data, config: Any = None) -> None:
        super().__init__()
        self.config = config or find_model(type(self).__name__).model.Config()
        self.n_users, self.n_items = self.sizes = data.n_users, data.n_items
        self.n_nodes = data.n_users + data.n_items
        self.modalities = modality_order(data)

    def loss(self, batch: Batch) -> Tensor:
        """The published objective on a batch, scalar."""
        raise NotImplementedError

    def start_epoch(self) -> None:
        """What the model renews once per epoch: nothing, unless it says otherwise."""

    def after_step(self) -> None:
        """What follows a step of the optimiser: nothing, unless the model says otherwise."""

    def trained(self) -> list[nn.Parameter]:
        """The parameters that the optimiser is given."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


def items_by_user(pairs: NDArray[np.integer]) -> dict[int, set[int]]:
    """The items of every user in interactions [n, 2]."""
    items: defaultdict[int, set[int]] = defaultdict(set)
    for user, item in pairs.tolist():
        items[user].add(item)
    return items


def directed_edges(data: Data) -> tuple[Tensor, Tensor]:
    """Source and target [2E] of every interaction in both directions; items are numbered after the users."""
    users, items = torch.from_numpy(data.train.astype(np.int64)).T
    nodes = items + data.n_users
    return torch.cat([users, nodes]), torch.cat([nodes, users])


def degrees(target: Tensor, n_nodes: int) -> Tensor:
    """Edges that enter each node, as float: [n]."""
    return torch.bincount(target, minlength=n_nodes).float()


def sum_over_edges(messages: Tensor, target: Tensor, n_nodes: int) -> Tensor:
    """Σ of the messages [E, …] that enter each node: [n, …]."""
    return messages.new_zeros(n_nodes, *messages.shape[1:]).index_add(0, target, messages)


def sparse_matrix(rows: Tensor, columns: Tensor, values: Tensor, n: int) -> Tensor:
    """[n, n], COO and coalesced, the kinder of its two states."""
    indices = torch.stack([rows, columns])
    return torch.sparse_coo_tensor(indices, values.float(), (n, n), check_invariants=True).coalesce()


def symmetric_adjacency(data: Data, offset: float) -> Tensor:
    """D^{-1/2} A D^{-1/2} [n, n], with `offset` added to the degrees."""
    source, target = directed_edges(data)
    n_nodes = data.n_users + data.n_items
    scale = (degrees(target, n_nodes).double() + offset) ** -0.5
    return sparse_matrix(target, source, scale[target] * scale[source], n_nodes)


def mean_of_layers(adjacency: Tensor, x: Tensor, n_layers: int) -> Tensor:
    """Mean of x and its propagations over 1, 2, …, `n_layers` rounds, [n, d]."""
    layers = [x]
    for _ in range(n_layers):
        layers.append(torch.sparse.mm(adjacency, layers[-1]))
    return torch.stack(layers, dim=1).mean(dim=1)


def table_of(data: Data, modality: str) -> Tensor:
    """A modality's features [I, d_m] as float32, without a copy where they are that."""
    table: NDArray[Any] = data.features[modality]
    return torch.as_tensor(table, dtype=torch.float32)


def xavier_normal(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(*shape)))


def xavier_uniform(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(*shape)))


def scores(users: Tensor, items: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Scores of the batch's interactions and of their negatives: [B] each."""
    h_u = users[batch.users]
    return (h_u * items[batch.items]).sum(dim=1), (h_u * items[batch.negatives]).sum(dim=1)


def offset_pairwise_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """−log(1e-10 + σ(s_ui − s_uj)), mean over the batch of scores [B]."""
    return -torch.log(1e-10 + torch.sigmoid(positive - negative)).mean()


def norms_per_interaction(*rows: Tensor) -> Tensor:
    """Σ ‖rows‖F / B for tables [B, d]."""
    return sum(torch.norm(h) for h in rows) / len(rows[0])


def pairwise_loss(users: Tensor, items: Tensor, batch: Batch) -> Tensor:
    """−log σ(s_ui − s_uj), mean over the batch."""
    positive, negative = scores(users, items, batch)
    return -functional.logsigmoid(positive - negative).mean()
