"""The cosine loss over all lengths, shapes and degenerate rows."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import directions, pairs_of_tables, scales, seeds, tables
from torch import Tensor

from bm3.losses import cosine_loss


@given(pairs_of_tables())
def test_never_leaves_its_bounds_not_even_by_rounding(pair: tuple[Tensor, Tensor]) -> None:
    loss = cosine_loss(*pair)
    assert loss.shape == (len(pair[0]),)
    assert (loss >= -1).all()
    assert (loss <= 1).all()


@given(tables(), scales, st.sampled_from([1.0, -1.0]))
def test_never_leaves_its_bounds_where_rows_are_parallel(x: Tensor, scale: float, sign: float) -> None:
    loss = cosine_loss(x, sign * scale * x)
    assert (loss.abs() <= 1).all()


def test_never_leaves_its_bounds_where_rounding_does() -> None:
    """Of these rows a fifth have a cosine with themselves above 1 in float32 before it is clamped."""
    x = torch.randn(5000, 7, generator=torch.Generator().manual_seed(1))
    assert cosine_loss(x, x).min() == -1
    assert cosine_loss(x, -x).max() == 1


@given(tables(zero_rows=False), seeds)
def test_is_minus_one_where_rows_are_aligned(x: Tensor, seed: int) -> None:
    exponents = torch.empty(len(x), 1).uniform_(-6, 6, generator=torch.Generator().manual_seed(seed))
    y = x / x.norm(dim=1, keepdim=True) * 10**exponents
    assert (cosine_loss(x, y) + 1).abs().max() <= 1e-6
    assert (cosine_loss(x, -y) - 1).abs().max() <= 1e-6


@given(st.integers(2, 16), st.floats(0.05, 3.14), scales, scales, seeds)
def test_is_clearly_above_minus_one_where_rows_are_not_aligned(
    d: int, angle: float, a: float, b: float, seed: int
) -> None:
    x, other = directions(2, d, seed)
    normal = other - (other @ x) * x
    turned = torch.cos(torch.tensor(angle)) * x + torch.sin(torch.tensor(angle)) * normal / normal.norm()
    loss = cosine_loss((a * x).float()[None], (b * turned).float()[None])
    assert loss > -1 + 1e-3
    assert abs(float(loss) + float(torch.cos(torch.tensor(angle)))) < 1e-5


@given(pairs_of_tables())
def test_a_zero_row_gives_zero_and_finite_gradients(pair: tuple[Tensor, Tensor]) -> None:
    x, y = (table.clone() for table in pair)
    x[0] = 0
    y[-1] = 0
    x.requires_grad_()
    y.requires_grad_()
    loss = cosine_loss(x, y)
    loss.sum().backward()
    assert loss[0] == 0
    assert loss[-1] == 0
    assert x.grad.isfinite().all()
    assert y.grad.isfinite().all()
