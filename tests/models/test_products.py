"""Sparse products: the values of the dense ones, and the gradients of finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from harness.models.products import Pattern, SparseProduct


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


def test_a_fixed_matrix_may_repeat_an_entry() -> None:
    matrix = sparse.csr_array((np.array([1.0, 2.0, 4.0]), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 2))
    expected = torch.tensor([[0.0, 3.0], [4.0, 0.0]])
    torch.testing.assert_close(SparseProduct(matrix)(torch.eye(2)), expected)
