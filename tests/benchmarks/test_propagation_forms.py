"""All forms of propagation that the benchmark compares are the same product, in every order of the nodes."""

import numpy as np
import propagation_forms
import pytest
import torch
from propagation_forms import Form
from scipy import sparse

from bm3.graph import bipartite_adjacency, symmetric_normalised

N_USERS, N_ITEMS, WIDTH = 60, 40, 12
FORMS = ["torch COO", "torch CSR", "scipy CSR", "ours", "rows_summed, int32", "rows_summed, int64", "numba"]
ORDERS = ["as given", "shuffled", "descending degree", "reverse Cuthill–McKee"]


@pytest.fixture(scope="module")
def matrix() -> sparse.csr_array:
    """Popular items have many users; the first and the last node have none."""
    draw = np.random.default_rng(0)
    pairs = np.stack([draw.integers(1, N_USERS, 300), (draw.random(300) ** 2 * (N_ITEMS - 1)).astype(int)], axis=1)
    return symmetric_normalised(bipartite_adjacency(pairs, N_USERS, N_ITEMS))


def form_of(name: str, matrix: sparse.csr_array) -> Form:
    if name == propagation_forms.NUMBA:
        pytest.importorskip("numba")
        return propagation_forms.compiled(matrix)
    return propagation_forms.forms(matrix)[name]


def test_all_forms_are_tested(matrix: sparse.csr_array) -> None:
    assert [*propagation_forms.forms(matrix), propagation_forms.NUMBA] == FORMS
    assert list(propagation_forms.orders(matrix)) == ORDERS


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", FORMS)
def test_forms_give_the_same_product_and_gradient(name: str, order: str, matrix: sparse.csr_array) -> None:
    draw = np.random.default_rng(1)
    x, gradient = draw.standard_normal((2, N_USERS + N_ITEMS, WIDTH))
    nodes = propagation_forms.orders(matrix)[order]
    assert sorted(nodes) == list(range(N_USERS + N_ITEMS))
    form = form_of(name, propagation_forms.reordered(matrix, nodes))
    moved_x, moved_gradient = (torch.from_numpy(array[nodes]).float() for array in (x, gradient))
    product, for_x = form.both(moved_x, moved_gradient)
    for found, expected in ((product, matrix @ x), (for_x, matrix @ gradient), (form.forward(moved_x), matrix @ x)):
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found.numpy(), expected[nodes], rtol=1e-5, atol=1e-5)


def test_an_order_brings_neighbours_together(matrix: sparse.csr_array) -> None:
    """Cuthill–McKee narrows the band; by degree, the first rows are the longest."""
    orders = propagation_forms.orders(matrix)
    assert band(propagation_forms.reordered(matrix, orders["reverse Cuthill–McKee"])) < band(matrix)
    degrees = np.diff(propagation_forms.reordered(matrix, orders["descending degree"]).indptr)
    assert (np.diff(degrees) <= 0).all()


def band(matrix: sparse.csr_array) -> int:
    entries = matrix.tocoo()
    return int(np.abs(entries.row - entries.col).max())
