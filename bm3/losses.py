"""The four terms of BM3's objective, one function per equation of the paper (WWW 2023).

Arguments are rows of views that the model has already made; every function returns the term of each row, [n], and
the model takes the mean over the batch.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional


def cosine_loss(x: Tensor, y: Tensor) -> Tensor:
    """C(x, y) = −cos(x, y) per row of x, y [n, d]: [n]; a zero row gives 0. The clamp undoes rounding beyond ±1."""
    return -functional.cosine_similarity(x, y, dim=-1).clamp(-1.0, 1.0)


def reconstruction_loss(online_u: Tensor, online_i: Tensor, target_u: Tensor, target_i: Tensor) -> Tensor:
    """L_rec = C(h̃_u, sg ĥ_i) + C(h̃_i, sg ĥ_u) per interaction (u, i), all [B, d]: [B]."""
    return cosine_loss(online_u, target_i.detach()) + cosine_loss(online_i, target_u.detach())


def alignment_loss(online_modal: Iterable[Tensor], target_i: Tensor) -> Tensor:
    """L_align = Σ_m C(h̃_m^i, sg ĥ_i): each modality of an item towards its ID, [n, d] each: [n]."""
    return torch.stack([cosine_loss(online, target_i.detach()) for online in online_modal]).sum(dim=0)


def masked_loss(online_modal: Iterable[Tensor], target_modal: Iterable[Tensor]) -> Tensor:
    """L_mask = Σ_m C(h̃_m^i, sg ĥ_m^i): each modality towards its own dropped view, [n, d] each: [n]."""
    pairs = zip(online_modal, target_modal, strict=True)
    return torch.stack([cosine_loss(online, target.detach()) for online, target in pairs]).sum(dim=0)


def squared_norm(h: Tensor) -> Tensor:
    """‖h‖² per row of h [n, d]: [n]; the paper's regulariser is λ(‖h_u‖² + ‖h_i‖²)."""
    return h.square().sum(dim=-1)


def published_regulariser(h_users: Tensor, h_items: Tensor) -> Tensor:
    """(‖H_u‖F + ‖H_i‖F) / I over all U users and I items, norms not squared: what the published code adds, scalar."""
    norms: Tensor = torch.linalg.norm(h_users) + torch.linalg.norm(h_items)
    return norms / len(h_items)
