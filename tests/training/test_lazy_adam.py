"""Tables that move by row are what dense Adam makes of them, whenever somebody looks."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bm3 import Batch
from harness.data.dataset import Dataset
from harness.models.bm3 import BM3, BM3Config
from harness.models.features import FeatureTable, feature_tables
from harness.training.accelerators import lazy_adam
from harness.training.accelerators.lazy_adam import LazyAdam, LazyRows, MissedSteps
from harness.training.config import TrainingConfig
from harness.training.fit import EpochRecord, build, fit
from harness.training.optimiser import Adam, adam
from harness.training.steps import train_step
from harness.training.streams import Streams

pytest.importorskip("numba", reason="tables move by row where numba is installed")

N_ITEMS, WIDTH, STEPS = 120, 5, 700


def gradients(steps: int, scale: float) -> list[tuple[Tensor, Tensor]]:
    """Rows and their gradients in each step; the last rows come up seldom, so that they miss a few hundred steps."""
    draw, weight = np.random.default_rng(4), (1 + np.arange(N_ITEMS)) ** -1.5
    chosen = [np.unique(draw.choice(N_ITEMS, 6, p=weight / weight.sum())) for _ in range(steps)]
    return [(torch.from_numpy(ids), torch.from_numpy(scale * draw.normal(size=(len(ids), WIDTH)))) for ids in chosen]


def tables(precision: torch.dtype) -> tuple[FeatureTable, LazyRows, torch.nn.Parameter]:
    """A table that moves by row, and one of the same numbers."""
    start = np.random.default_rng(1).normal(size=(N_ITEMS, WIDTH))
    table = FeatureTable("x", start, N_ITEMS, trained=True).to(precision)
    return table, LazyRows(table), torch.nn.Parameter(table.table.detach().clone())


def dense_step(dense: torch.nn.Parameter, optimiser: torch.optim.Optimizer, ids: Tensor, values: Tensor) -> None:
    dense.grad = torch.zeros_like(dense).index_add_(0, ids, values.to(dense))
    optimiser.step()


def sparse(ids: Tensor, values: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(ids[None], values, (N_ITEMS, WIDTH), check_invariants=True)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-7], ids="gradients of {}".format)
@pytest.mark.parametrize(
    "rate", [lambda step: 1e-3, lambda step: 1e-3 * 0.96 ** (step / 50)], ids=["constant", "falling"]
)
def test_in_double_precision_rows_are_those_of_dense_adam_to_1e_6(rate: Callable[[int], float], scale: float) -> None:
    table, rows, dense = tables(torch.float64)
    optimiser = torch.optim.Adam([dense], lr=1e-3)
    largest = 0.0
    for step, (ids, values) in enumerate(gradients(STEPS, scale)):
        optimiser.param_groups[0]["lr"] = rate(step)
        rows.catch_up(ids)
        largest = max(largest, (table.table[ids] - dense[ids]).abs().max().item())
        dense_step(dense, optimiser, ids, values)
        rows.step(sparse(ids, values), rate(step))
    rows.catch_up(None)
    assert max(largest, (table.table - dense).abs().max().item()) < 1e-6
    assert (dense - dense.detach()[0]).abs().max() > 0


def test_in_single_precision_rows_are_no_farther_from_the_truth_than_dense_adam() -> None:
    table, rows, dense = tables(torch.float32)
    exact = torch.nn.Parameter(dense.detach().double())
    optimisers = [torch.optim.Adam([parameter], lr=1e-3) for parameter in (dense, exact)]
    for ids, values in gradients(STEPS, 0.1):
        rows.catch_up(ids)
        for parameter, optimiser in zip((dense, exact), optimisers, strict=True):
            dense_step(parameter, optimiser, ids, values)
        rows.step(sparse(ids, values.float()), 1e-3)
    rows.catch_up(None)
    assert (table.table - exact).abs().max() <= (dense - exact).abs().max() + 1e-6


def test_a_row_that_is_read_often_and_without_a_step_stays_the_same() -> None:
    once, others = tables(torch.float64), tables(torch.float64)
    for ids, values in gradients(90, 1.0):
        for _, rows, _ in (once, others):
            rows.catch_up(ids)
            rows.step(sparse(ids, values), 1e-3)
        others[1].catch_up(None)
        others[1].catch_up(None)
    once[1].catch_up(None)
    torch.testing.assert_close(once[0].table, others[0].table, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", ["dense gradients", "repeated rows", "rows read twice", "rates of zero"])
def test_whatever_is_read_and_taken_rows_are_those_of_dense_adam(kind: str) -> None:
    table, rows, dense = tables(torch.float64)
    optimiser = torch.optim.Adam([dense], lr=1e-3)
    for step, (ids, values) in enumerate(gradients(60, 1.0)):
        rate = 0.0 if kind == "rates of zero" and 5 <= step < 30 else 1e-3
        gradient = sparse(ids, values)
        if kind == "dense gradients" and step % 3 == 0:
            gradient = gradient.to_dense()
        elif kind == "repeated rows":
            gradient = sparse(ids.repeat(2), (values / 2).repeat(2, 1))
        rows.catch_up(ids.repeat(3) if kind == "rows read twice" else ids)
        optimiser.param_groups[0]["lr"] = rate
        dense_step(dense, optimiser, ids, values)
        rows.step(gradient, rate)
        if step == 29:
            rows.catch_up(torch.arange(N_ITEMS).repeat(2))
    rows.catch_up(None)
    torch.testing.assert_close(table.table, dense, rtol=0, atol=1e-6)


def test_missed_steps_are_expanded_only_where_the_error_is_small() -> None:
    missed = MissedSteps()
    for _ in range(3000):
        missed.add(1e-3)
    last = np.array([5, 1000, 2990])
    _, error = missed.expansion(last)
    assert error[0] > lazy_adam.TOLERANCE > error[2]
    assert np.isfinite(error).all()


def trained_by_row(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> tuple[BM3, Adam]:
    monkeypatch.setattr(lazy_adam, "SMALLEST", 0)
    model = BM3(dataset, BM3Config(dropout=0), torch.Generator().manual_seed(0))
    return model, adam(model, 1e-3)


def train(model: BM3, optimiser: Any, dataset: Dataset, n_steps: int) -> list[float]:
    """Some steps, and their losses."""
    rows = torch.from_numpy(dataset.train.astype(np.int64))
    batches = (Batch(*rows[step * 7 : step * 7 + 15].T) for step in range(n_steps))
    return [train_step(model, optimiser, batch).total.item() for batch in batches]


def test_a_copied_model_goes_its_own_way(clustered: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimiser = trained_by_row(clustered, monkeypatch)
    train(model, optimiser, clustered, 20)
    copied = copy.deepcopy(model)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), copied.state_dict().values(), strict=True)
    )
    before = copy.deepcopy(copied.state_dict())
    train(model, optimiser, clustered, 20)
    model.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in copied.state_dict().items())


def test_a_second_optimiser_takes_over_from_the_first(clustered: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    model, first = trained_by_row(clustered, monkeypatch)
    train(model, first, clustered, 20)
    other = BM3(clustered, BM3Config(dropout=0), torch.Generator().manual_seed(1))
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    for trained in (model, other):
        train(trained, adam(trained, 1e-3), clustered, 20)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name], rtol=0, atol=1e-6)


def test_what_is_loaded_is_not_moved_by_steps_missed_before(
    clustered: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimiser = trained_by_row(clustered, monkeypatch)
    start = copy.deepcopy(model.state_dict())
    train(model, optimiser, clustered, 20)
    model.load_state_dict(start)
    assert all(torch.equal(tensor, start[name]) for name, tensor in model.state_dict().items())


def test_after_release_any_optimiser_takes_the_table(clustered: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimiser = trained_by_row(clustered, monkeypatch)
    train(model, optimiser, clustered, 5)
    optimiser.release()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, torch.optim.Adam(model.parameters()), clustered, 1)
    for table in feature_tables(model):
        assert table.table.grad is not None
        assert not table.table.grad.is_sparse
    assert all(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_fit_by_row_and_densely_end_alike(clustered: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = []
    for smallest in (0, 10**9):
        monkeypatch.setattr(lazy_adam, "SMALLEST", smallest)
        streams = Streams(1)
        model = build(BM3, clustered, BM3Config(), streams, torch.device("cpu"))
        assert isinstance(adam(model, 1e-3), LazyAdam) == (smallest == 0)
        records: list[EpochRecord] = []
        fit(model, clustered, TrainingConfig(epochs=6, batch_size=60), streams, torch.device("cpu"), records.append)
        outcomes.append(([record.loss for record in records], model.state_dict()))
    assert outcomes[0][0] == pytest.approx(outcomes[1][0], rel=1e-5)
    for name, tensor in outcomes[0][1].items():
        torch.testing.assert_close(tensor, outcomes[1][1][name], rtol=0, atol=1e-4)
