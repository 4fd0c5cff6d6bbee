"""Pieces that several models share. What a model is says `bm3.Recommender`; finding them by name is `registry`."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from bm3 import Batch
from bm3.data import Variant

PAIRWISE_OFFSET = 1e-10  # inside the logarithm of the published pairwise loss


def pairwise_loss(h_u: Tensor, h_i: Tensor, h_j: Tensor) -> Tensor:
    """−log(1e-10 + σ(s_ui − s_uj)), s = dot products of rows [B, d], mean (BPR, UAI 2009; published code's offset)."""
    return -torch.log(PAIRWISE_OFFSET + torch.sigmoid(_difference(h_u, h_i, h_j))).mean()


def log_sigmoid_loss(h_u: Tensor, h_i: Tensor, h_j: Tensor) -> Tensor:
    """−log σ(s_ui − s_uj), s = dot products of rows [B, d], mean over the batch, without an offset."""
    return -functional.logsigmoid(_difference(h_u, h_i, h_j)).mean()


def _difference(h_u: Tensor, h_i: Tensor, h_j: Tensor) -> Tensor:
    return (h_u * (h_i - h_j)).sum(dim=-1)  # s_ui − s_uj, [B]


def batch_norms(*rows: Tensor) -> Tensor:
    """Σ ‖rows‖F / B for tables of the batch's rows [B, d], norms not squared: the published code's regulariser."""
    norms: Tensor = _Norms.apply(*rows)  # type: ignore[no-untyped-call]
    return norms.sum() / len(rows[0])


class _Norms(torch.autograd.Function):
    """‖·‖F of tables of one shape: what torch gives, and its gradient without a copy of them together."""

    @staticmethod
    def forward(ctx: Any, *rows: Tensor) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(torch.stack(rows), dim=(1, 2))
        ctx.save_for_backward(norms, *rows)
        return norms

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        norms, *rows = ctx.saved_tensors
        return tuple((h / n.clamp_min(1e-30)).mul_(g) for h, n, g in zip(rows, norms, gradients[0], strict=True))


def rows(table: Tensor, ids: Tensor) -> Tensor:
    """Rows of `table` [n, d] by id [B], with repetition: [B, d]."""
    return functional.embedding(ids, table)


def rows_and_norm(table: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of `table` [n, d] by id [B] and the table's ‖·‖F: their gradient is made in one table, not in three."""
    found: tuple[Tensor, Tensor] = _RowsAndNorm.apply(table, ids)  # type: ignore[no-untyped-call]
    return found


class _RowsAndNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        norm = torch.linalg.vector_norm(table)
        ctx.save_for_backward(table, ids, norm)
        return rows(table, ids), norm

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        table, ids, norm = ctx.saved_tensors
        return (table * (gradients[1] / norm.clamp_min(1e-30))).index_add_(0, ids, gradients[0]), None


def negatives_of(batch: Batch) -> Tensor:
    """The batch's sampled negatives [B]. Raises ValueError when it has none: the caller forgot to draw them."""
    if batch.negatives is None:
        raise ValueError("this model is pairwise and the batch has no negatives")
    return batch.negatives


def batch_rows(users: Tensor, items: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the batch's users, items and negatives, [B, d] each, from users [U, d] and items [I, d]."""
    h_i, h_j = rows(items, torch.cat([batch.items, negatives_of(batch)])).chunk(2)
    return rows(users, batch.users), h_i, h_j


def xavier_normal(n_rows: int, d: int, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(n_rows, d), generator=generator))


def xavier_uniform(n_rows: int, d: int, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_rows, d), generator=generator))


def linear(d_in: int, d_out: int, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """x Wᵀ + b with torch's default initialisation, W [d_out, d_in] and b uniform in ±1/√d_in."""
    layer = nn.Linear(d_in, d_out, bias=bias, device="meta")  # skip_init would load sympy
    for name, unset in list(layer.named_parameters()):
        values = nn.init.uniform_(torch.empty(unset.shape), -(d_in**-0.5), d_in**-0.5, generator=generator)
        setattr(layer, name, nn.Parameter(values))
    return layer


def mean_square(*tables: Tensor) -> Tensor:
    """Mean of the squared entries of all tables together."""
    return torch.stack([table.square().sum() for table in tables]).sum() / sum(table.numel() for table in tables)


def normalise(x: Tensor) -> Tensor:
    """Rows of x [n, d] divided by their L2 norm, at least 1e-12."""
    return functional.normalize(x, dim=1)


def gcn_prefix(modality: str) -> str:
    """How recorded traces name a modality's branch: by its initial, `v_gcn`, `t_gcn`."""
    return f"{modality[0]}_gcn"


def modal_tensors(model: Any) -> dict[str, Tensor]:
    """Feature tables and projections under the names used in recorded traces: `image_*` for visual, else `NAME_*`."""
    tensors: dict[str, Tensor] = {}
    for modality, features, projection in zip(model.modalities, model.features, model.projections, strict=True):
        prefix = "image" if modality == "visual" else modality
        tensors[f"{prefix}_embedding.weight"] = features.table
        tensors |= {f"{prefix}_trs.{name}": tensor for name, tensor in projection.named_parameters()}
    return tensors


ModuleT = TypeVar("ModuleT", bound=nn.Module)


def each(modules: nn.ModuleList, kind: type[ModuleT]) -> tuple[ModuleT, ...]:
    """The modules of a list, whose type torch does not keep."""
    return cast(tuple[ModuleT, ...], tuple(modules))


Scoring = Literal["last_batch", "current"]


SCORING = Variant(
    text="scores come from the trained parameters (current)",
    code="scores come from the last training batch's forward pass, before the last step (last_batch)",
    where="harness.models.base.LastForward",
)


class LastForward(nn.Module):
    """User and item vectors of the last training batch's forward pass: from before the last optimiser step.

    MMGCN, GRCN and DualGNN were published with scores from these (`scoring = last_batch`), not from a forward pass of
    the trained parameters (`current`). They are part of the state, so that a restored model scores alike.
    """

    users: Tensor
    items: Tensor
    filled: Tensor

    def __init__(self, scoring: Scoring, n_users: int, n_items: int, width: int) -> None:
        super().__init__()
        self._kept = scoring == "last_batch"
        if self._kept:
            self.register_buffer("users", torch.zeros(n_users, width))
            self.register_buffer("items", torch.zeros(n_items, width))
            self.register_buffer("filled", torch.tensor(False))

    def store(self, users: Tensor, items: Tensor) -> None:
        """Take the vectors of a training batch's forward pass, if scores come from them."""
        if self._kept:
            self.users, self.items = users.detach(), items.detach()
            self.filled.fill_(True)

    def vectors(self, forward: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """What to score with: the stored vectors, or those of `forward` where none are to be or have been stored."""
        if self._kept and self.filled:
            return self.users, self.items
        return forward()


class Constant:
    """Keeps a value computed from a tensor that does not train until that tensor changes or moves."""

    def __init__(self) -> None:
        self._source: Tensor | None = None  # held, so that no other tensor can take its place in memory
        self._state: Any = None
        self._value: Tensor | None = None

    def __call__(self, compute: Callable[[Tensor], Tensor], source: Tensor) -> Tensor:
        state = source.data_ptr(), source.device, source._version
        if self._value is None or source is not self._source or state != self._state:
            with torch.inference_mode(False), torch.no_grad():  # inference tensors could not be used in training
                self._source, self._state, self._value = source, state, compute(source)
        return self._value
