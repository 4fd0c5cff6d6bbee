"""Feature tables: products with some rows, their gradients, tables that stay in their file, and reading ahead."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from bm3 import DataError
from harness.models import features
from harness.models.features import FeatureTable

N_ITEMS, WIDTH = 50, 7
ITEMS = torch.arange(0, N_ITEMS, 3)


def table_of(*, trained: bool = False) -> FeatureTable:
    table = np.random.default_rng(3).normal(size=(N_ITEMS, WIDTH)).astype(np.float32)
    return FeatureTable("x", table, N_ITEMS, trained=trained)


def weight() -> Tensor:
    return torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1), requires_grad=True)


@pytest.mark.parametrize("block_bytes", [1, 100, 2**22])
@pytest.mark.parametrize("items", [ITEMS, torch.randint(N_ITEMS, (200,)), None], ids=["some", "repeated", "all"])
def test_project_and_its_gradients_are_those_of_the_gathered_table(
    items: Tensor | None, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BLOCK_BYTES", block_bytes)
    ours, theirs = table_of(trained=True), table_of(trained=True)
    w, v = weight(), weight()
    product = ours.project(items, w)
    expected = (theirs.table if items is None else theirs.table[items]) @ v.T
    torch.testing.assert_close(product, expected)
    (product**2).sum().backward()
    (expected**2).sum().backward()
    torch.testing.assert_close(w.grad, v.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.table.grad, theirs.table.grad, rtol=1e-4, atol=1e-4)


def test_attached_tables_have_gradients_of_rows_alone_and_tell_of_every_read() -> None:
    dense, by_row, heard = table_of(trained=True), table_of(trained=True), list[Tensor | None]()
    by_row.attach(heard.append)
    for table in (dense, by_row):
        (table.project(ITEMS, weight()) ** 2).sum().backward()
    gradient = by_row.table.grad
    assert gradient is not None
    assert gradient.is_sparse
    assert gradient._nnz() == len(ITEMS)
    torch.testing.assert_close(gradient.to_dense(), dense.table.grad)
    by_row.project(None, weight())
    by_row.state_dict()
    by_row.detach()
    by_row.project(ITEMS, weight())
    assert heard[0] is ITEMS
    assert heard[1:] == [None, None, None]


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("fetched", [ITEMS, ITEMS.flip(0), None], ids=["fetched", "others fetched", "not fetched"])
def test_a_table_in_its_file_gives_the_same_products(tmp_path: Path, precision: str, fetched: Tensor | None) -> None:
    np.save(tmp_path / "x.npy", table_of().table.numpy().astype(precision))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    away, near = (FeatureTable("x", data, N_ITEMS, trained=False) for data in (mapped, np.array(mapped)))
    model = torch.nn.Sequential(away, torch.nn.Linear(2, 2)).double()
    assert (away.off_device, near.off_device) == (True, False)
    assert (away.table.numpy().dtype, model[1].weight.dtype) == (precision, torch.float64)
    if fetched is not None:
        away.fetch(fetched, torch.device("cpu"))
    w, v = weight(), weight()
    product, expected = away.project(ITEMS, w), near.project(ITEMS, v)
    assert torch.equal(product, expected)
    gradients = [torch.autograd.grad(one.sum(), of)[0] for one, of in ((product, w), (expected, v))]
    assert torch.equal(*gradients)


def test_data_that_cannot_be_written_is_shared_and_other_data_copied() -> None:
    data = np.random.default_rng(0).normal(size=(N_ITEMS, WIDTH)).astype(np.float32)
    for writeable, trained, shared in ((True, False, False), (False, False, True), (False, True, False)):
        data.flags.writeable = writeable
        table = FeatureTable("x", data, N_ITEMS, trained=trained).table
        assert (table.data_ptr() == data.ctypes.data) == shared


def test_tables_can_be_copied_and_pickled() -> None:
    table = table_of(trained=True)
    for other in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        torch.testing.assert_close(other.project(ITEMS, weight()), table.project(ITEMS, weight()))


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (np.ones((4, 2)), r"\[4, 2\].*5 items"),
        (np.ones(5), r"\[5\]"),
        (np.ones((5, 0)), r"\[5, 0\]"),
        (np.ones((5, 2), dtype=int), "int64"),
        (np.ones((5, 2), dtype=object), "object"),
        (np.full((5, 2), np.nan), "NaN"),
        (np.full((5, 2), np.inf), "infinity"),
    ],
)
def test_unusable_features_are_an_error_that_names_the_modality(table: NDArray[Any], complaint: str) -> None:
    with pytest.raises(DataError, match=f"'odd name'.*{complaint}"):
        FeatureTable("odd name", table, 5, trained=True)
