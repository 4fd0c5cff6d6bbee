"""Feature tables: products with some rows, their gradients, tables that stay in their file, and reading ahead."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.models import features
from harness.models.features import FeatureTable

N_ITEMS, WIDTH = 50, 7
ITEMS = torch.arange(0, N_ITEMS, 3)


def table_of(*, trained: bool = False, precision: type = np.float32) -> FeatureTable:
    table = np.random.default_rng(3).normal(size=(N_ITEMS, WIDTH)).astype(precision)
    return FeatureTable("x", table, N_ITEMS, trained=trained)


def weight() -> Tensor:
    return torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1), requires_grad=True)


def on_disk(path: Path, precision: str) -> np.memmap:
    table = np.random.default_rng(3).normal(size=(N_ITEMS, WIDTH)).astype(precision)
    np.save(path, table)
    mapped: np.memmap = np.load(path, mmap_mode="r")
    return mapped


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


def test_row_gradients_are_those_of_the_rows_alone() -> None:
    dense, by_row = table_of(trained=True), table_of(trained=True)
    by_row.attach(lambda items: None)
    for table in (dense, by_row):
        (table.project(ITEMS, weight()) ** 2).sum().backward()
    gradient = by_row.table.grad
    assert gradient is not None
    assert gradient.is_sparse
    assert gradient._nnz() == len(ITEMS)
    torch.testing.assert_close(gradient.to_dense(), dense.table.grad)


def test_whoever_moves_rows_hears_of_every_read() -> None:
    table, heard = table_of(trained=True), list[Tensor | None]()
    table.attach(heard.append)
    table.project(ITEMS, weight())
    table.project(None, weight())
    table.state_dict()
    table.detach()
    table.project(ITEMS, weight())
    assert heard[0] is ITEMS
    assert heard[1:] == [None, None, None]


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("fetched", [ITEMS, ITEMS.flip(0), None], ids=["fetched", "others fetched", "not fetched"])
def test_a_table_in_its_file_gives_the_same_products(tmp_path: Path, precision: str, fetched: Tensor | None) -> None:
    mapped = on_disk(tmp_path / "x.npy", precision)
    away, near = (FeatureTable("x", data, N_ITEMS, trained=False) for data in (mapped, np.array(mapped)))
    assert away.off_device
    assert not near.off_device
    w, v = weight(), weight()
    if fetched is not None:
        away.fetch(fetched)
    product, expected = away.project(ITEMS, w), near.project(ITEMS, v)
    product.sum().backward()
    expected.sum().backward()
    assert torch.equal(product, expected)
    assert w.grad is not None
    assert v.grad is not None
    assert torch.equal(w.grad, v.grad)


def test_a_table_in_its_file_stays_there_when_the_model_changes_precision(tmp_path: Path) -> None:
    away = FeatureTable("x", on_disk(tmp_path / "x.npy", "float32"), N_ITEMS, trained=False)
    model = torch.nn.Sequential(away, torch.nn.Linear(2, 2)).double()
    assert away.table.dtype == torch.float32
    assert model[1].weight.dtype == torch.float64


def test_data_that_cannot_be_written_is_shared_and_other_data_copied() -> None:
    data = np.random.default_rng(0).normal(size=(N_ITEMS, WIDTH)).astype(np.float32)
    copied = FeatureTable("x", data, N_ITEMS, trained=False)
    fixed = data.copy()
    fixed.flags.writeable = False
    shared = FeatureTable("x", fixed, N_ITEMS, trained=False)
    trained = FeatureTable("x", fixed, N_ITEMS, trained=True)
    assert shared.table.data_ptr() == fixed.ctypes.data
    assert copied.table.data_ptr() != data.ctypes.data
    assert trained.table.data_ptr() != fixed.ctypes.data


def test_tables_can_be_copied_and_pickled() -> None:
    table = table_of(trained=True)
    for other in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        torch.testing.assert_close(other.project(ITEMS, weight()), table.project(ITEMS, weight()))
