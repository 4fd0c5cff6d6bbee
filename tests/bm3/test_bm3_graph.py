"""The graph against dense matrices: adjacency, normalisation, propagation forwards and backwards."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import sparse

from bm3 import DataError
from bm3.graph import Propagation, bipartite_adjacency, mean_readout, symmetric_normalised

U, I = 4, 5  # noqa: E741
PAIRS = np.array([(0, 0), (0, 1), (1, 1), (2, 3), (2, 0), (2, 1), (1, 1)])  # user 3, items 2 and 4 isolated; one repeat


def dense_adjacency() -> NDArray[np.float64]:
    A = np.zeros((U + I, U + I))
    for user, item in PAIRS:
        A[user, U + item] = A[U + item, user] = 1
    return A


def normalised(offset: float) -> NDArray[np.float64]:
    degree = dense_adjacency().sum(axis=1) + offset
    scale = np.array([0 if value == 0 else value**-0.5 for value in degree])
    return np.diag(scale) @ dense_adjacency() @ np.diag(scale)


def propagation() -> Propagation:
    return Propagation(symmetric_normalised(bipartite_adjacency(PAIRS, U, I)))


def random_rows(d: int = 3) -> torch.Tensor:
    return torch.randn(U + I, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16])
def test_the_adjacency_has_both_directions_counts_a_repeat_once_and_takes_any_integers(dtype: type) -> None:
    np.testing.assert_array_equal(bipartite_adjacency(PAIRS.astype(dtype), U, I).toarray(), dense_adjacency())


@pytest.mark.parametrize("offset", [None, 0.0, 0.5])
def test_normalised_values_are_those_of_the_formula_whose_usual_offset_is_1e_7(offset: float | None) -> None:
    given = () if offset is None else (offset,)
    ours = symmetric_normalised(bipartite_adjacency(PAIRS, U, I), *given).toarray()
    np.testing.assert_allclose(ours, normalised(1e-7 if offset is None else offset), rtol=1e-14, atol=0)


def test_the_product_is_the_dense_one_and_isolated_nodes_receive_zero() -> None:
    x = random_rows()
    product = propagation()(x)
    torch.testing.assert_close(product, torch.from_numpy(normalised(1e-7)) @ x, rtol=1e-6, atol=1e-7)
    assert not product[[3, U + 2, U + 4]].any()


def test_the_products_gradient_is_that_of_the_dense_one() -> None:
    x, weight = random_rows().requires_grad_(), random_rows() ** 2
    (propagation()(x) * weight).sum().backward()
    torch.testing.assert_close(x.grad, torch.from_numpy(normalised(1e-7)).T @ weight, rtol=1e-6, atol=1e-7)


def test_the_product_takes_rows_that_are_not_contiguous() -> None:
    wide = random_rows(6)
    torch.testing.assert_close(propagation()(wide[:, ::2]), propagation()(wide[:, ::2].clone()), rtol=0, atol=0)


def test_the_product_keeps_single_precision() -> None:
    assert propagation()(random_rows().float()).dtype == torch.float32


def test_a_matrix_without_entries_gives_zero() -> None:
    assert not Propagation(sparse.csr_array((3, 3)))(torch.ones(3, 2)).any()


@pytest.mark.parametrize("n_layers", [0, 1, 2, 4])
def test_the_mean_readout_averages_the_powers_of_the_graph(n_layers: int) -> None:
    x, dense = random_rows(), torch.from_numpy(normalised(1e-7))
    powers = [torch.linalg.matrix_power(dense, power) for power in range(n_layers + 1)]
    expected = sum(power @ x for power in powers) / (n_layers + 1)
    torch.testing.assert_close(mean_readout(propagation(), x, n_layers), expected, rtol=1e-6, atol=1e-7)


def test_the_mean_readout_is_differentiable_through_every_layer() -> None:
    product = propagation()
    assert torch.autograd.gradcheck(lambda x: mean_readout(product, x, 3), (random_rows().requires_grad_(),))


def test_the_mean_readout_leaves_its_input_as_it_was() -> None:
    x = random_rows()
    mean_readout(propagation(), x, 2)
    assert torch.equal(x, random_rows())


@pytest.mark.parametrize(
    "pairs", [[], np.empty((0, 2), dtype=int), np.zeros((2, 3), dtype=int), np.zeros(4, dtype=int)]
)
def test_a_graph_without_edges_is_an_error(pairs: object) -> None:
    with pytest.raises(DataError, match="no edges"):
        bipartite_adjacency(pairs, U, I)


@pytest.mark.parametrize("pair", [(U, 0), (0, I), (-1, 0), (0, -1)])
def test_an_id_out_of_range_is_an_error_that_says_the_range(pair: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=f"{U} users and {I} items"):
        bipartite_adjacency(np.array([(0, 0), pair]), U, I)
