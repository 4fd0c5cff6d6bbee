"""Sparse products: the values of the dense ones, and the gradients of finite differences."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from one_device import Watched, made_anew
from scipy import sparse
from torch.nn import functional

from bm3.graph import mean_readout
from harness.models import products
from harness.models.products import Pattern, SparseProduct, longest_bag, pieces, readout, readout_rows


def random_matrix(seed: int, n: int, m: int) -> sparse.csr_array:
    """About a third full; some rows and columns empty."""
    draw = np.random.default_rng(seed)
    dense = draw.normal(size=(n, m)) * (draw.random((n, m)) < 0.3)
    dense[draw.integers(n)] = 0
    dense[:, draw.integers(m)] = 0
    return sparse.csr_array(dense)


sizes = st.integers(1, 9)


@given(seed=st.integers(0, 99), n=sizes, m=sizes, d=sizes)
def test_values_are_those_of_the_dense_matrix(seed: int, n: int, m: int, d: int) -> None:
    matrix = random_matrix(seed, n, m)
    pattern, values = Pattern(matrix.indptr, matrix.indices, m), torch.tensor(matrix.data, dtype=torch.float32)
    dense = torch.tensor(matrix.toarray(), dtype=torch.float32)
    x, y = torch.randn(m, d), torch.randn(n, d)
    row, column = (torch.from_numpy(ids.astype(np.int64)) for ids in matrix.nonzero())
    close = torch.testing.assert_close
    close(pattern.product(values, x), dense @ x, rtol=1e-4, atol=1e-5)
    close(pattern.transposed_product(values, y), dense.T @ y, rtol=1e-4, atol=1e-5)
    close(SparseProduct(matrix)(x), dense @ x, rtol=1e-4, atol=1e-5)
    close(pattern.row_sums(values), dense.sum(1), rtol=1e-4, atol=1e-5)
    close(pattern.column_sums(values), dense.sum(0), rtol=1e-4, atol=1e-5)
    close(pattern.dots(y, x), (y @ x.T)[row, column], rtol=1e-4, atol=1e-5)
    close(pattern.at_rows(y[:, 0]), y[row, 0], rtol=0, atol=0)
    close(pattern.at_columns(x[:, 0]), x[column, 0], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["product", "transposed_product", "dots", "row_sums", "column_sums"])
def test_gradients(name: str) -> None:
    matrix = random_matrix(5, 6, 7)
    pattern = Pattern(matrix.indptr, matrix.indices, 7).double()
    values = torch.randn(matrix.nnz, dtype=torch.float64, requires_grad=True)
    by_column = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    by_row = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    arguments = {"product": (values, by_column), "transposed_product": (values, by_row), "dots": (by_row, by_column)}
    assert torch.autograd.gradcheck(getattr(pattern, name), arguments.get(name, (values,)))


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("n_layers", [0, 1, 2, 5])
def test_a_readout_is_the_mean_of_the_layers_to_the_bit(n_layers: int, by_row: bool) -> None:
    """The gradient too, whose sums have an order. There and back take a table per layer and three more (one
    is the rows'): each is a hole in memory afterwards, which the next one may not fit.
    """
    product, generator = SparseProduct(random_matrix(3, 40, 40)), torch.Generator().manual_seed(1)
    table, nodes = torch.randn(40, 8, generator=generator), torch.randint(40, (100,), generator=generator)
    weights = torch.randn(100, 8, generator=generator)

    def rows_of(form: str, h0: torch.Tensor) -> list[torch.Tensor]:
        if form == "rows":
            return [*readout_rows(product, h0, n_layers, nodes)]
        mean = readout(product, h0, n_layers) if form == "readout" else mean_readout(product, h0, n_layers)
        return [functional.embedding(nodes, one) for one in ((h0, mean) if by_row else (mean,))]

    found = []
    for form in ("layers", "rows" if by_row else "readout"):
        leaf, tables = table.clone().requires_grad_(), list[Any]()

        def see(_: Any, given: Any, made: Any, tables: list[Any] = tables) -> None:
            tables += [None for one in made_anew(given, made) if one.shape == (40, 8)]

        with Watched(see):
            rows = rows_of(form, leaf)
            torch.stack([(one * weights * k).sum() for k, one in enumerate(rows, 1)]).sum().backward()
        found.append([*rows, leaf.grad])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    assert len(tables) == 2 * n_layers + 3


def test_a_fixed_matrix_may_repeat_an_entry() -> None:
    matrix = sparse.csr_array((np.array([1.0, 2.0, 4.0]), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 2))
    expected = torch.tensor([[0.0, 3.0], [4.0, 0.0]])
    torch.testing.assert_close(SparseProduct(matrix)(torch.eye(2)), expected)


# What a GPU does, which walks a row entry by entry ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_entries", "longest"),
    [(0, 64), (237_102, 64), (262_144, 64), (3_000_000, 732)],
    ids=["none", "Baby", "", "large"],
)
def test_the_longest_bag_follows_from_the_graph_alone(n_entries: int, longest: int) -> None:
    assert longest_bag(n_entries) == longest


def test_rows_are_cut_every_so_many_entries() -> None:
    starts = torch.tensor([0, 0, 3, 10, 14])
    found, of_rows = pieces(starts, 3)
    assert found.tolist() == [0, 0, 3, 6, 9, 10, 13, 14]
    assert of_rows.tolist() == [0, 1, 2, 5, 7]


@given(seed=st.integers(0, 99), n=sizes, m=sizes, longest=st.integers(1, 4))
def test_pieces_hold_every_entry_once_and_in_order(seed: int, n: int, m: int, longest: int) -> None:
    starts = torch.from_numpy(random_matrix(seed, n, m).indptr).long()
    found, of_rows = pieces(starts, longest)
    assert torch.equal(found[of_rows], starts)
    assert (found.diff() <= longest).all()
    assert (found.diff() >= 0).all()


def test_pieces_of_long_rows_add_up_and_short_rows_are_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(2)
    matrix = sparse.csr_array(
        draw.normal(size=(5, 300)) * (np.array([1, 0, 0.1, 0.5, 0.01])[:, None] > draw.random(300))
    )
    x = torch.randn(300, 4)
    whole = SparseProduct(matrix)
    expected = whole(x)
    monkeypatch.setattr(products, "walks_bags", lambda x: True)
    assert whole.rows.piece_starts is not None and whole.t_rows.piece_starts is None  # noqa: PT018
    torch.testing.assert_close(whole(x), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(whole(x), whole(x))
    assert int(whole.rows.piece_starts.diff().max()) == products.SHORT_BAG


@pytest.mark.gpu
def test_a_gpu_multiplies_alike_and_twice_the_same() -> None:
    matrix = sparse.random_array((500, 400), density=0.5, rng=np.random.default_rng(0))
    product, x = SparseProduct(sparse.csr_array(matrix)), torch.randn(400, 64)
    expected, moved = product(x), product.cuda()
    assert torch.equal(moved(x.cuda()), moved(x.cuda()))
    torch.testing.assert_close(moved(x.cuda()).cpu(), expected, rtol=1e-4, atol=1e-5)
