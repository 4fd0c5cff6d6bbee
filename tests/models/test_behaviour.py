"""What every model that trains in steps must do, the published variant and every other one: found, not listed.

Models in closed form are in `test_closed_form`.
"""

import gc
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from bm3 import Batch, Data
from harness.data.dataset import Dataset, checked_dataset
from harness.evaluation.ranking import Evaluator, model_scorer
from harness.models.registry import ModelEntry, models, trained_in_steps
from harness.runs.settings import variants_of
from harness.training.batches import EpochBatches
from harness.training.config import TrainingConfig
from harness.training.fit import EpochRecord, fit
from harness.training.optimiser import adam
from harness.training.streams import Streams

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """A model with its default settings but one."""

    entry: ModelEntry
    settings: Mapping[str, Any]

    def config(self, **changes: Any) -> Any:
        known = {field.name for field in fields(self.entry.model.Config)}
        kept = {name: value for name, value in changes.items() if name in known}
        return replace(self.entry.model.Config(), **self.settings, **kept)

    def build(self, data: Any, seed: int = 0, **changes: Any) -> Any:
        return self.entry.model(data, self.config(**changes), torch.Generator().manual_seed(seed))


def cases() -> list[Any]:
    found = []
    for name in trained_in_steps():
        entry = models()[name]
        found.append(pytest.param(Case(entry, {}), id=name))
        changed = [(row.setting, value) for row in variants_of(name, entry.model.Config) for value in row.values[1:]]
        found += [pytest.param(Case(entry, {key: value}), id=f"{name}-{key}-{value}") for key, value in changed]
    return found


every_model = pytest.mark.parametrize("case", cases())


def test_all_nine_models_are_found() -> None:
    nine = {"bm3", "bpr", "lightgcn", "buir", "vbpr", "mmgcn", "grcn", "dualgnn", "lattice"}
    assert nine <= {*trained_in_steps()}


@pytest.fixture(scope="module")
def checkerboard() -> Dataset:
    """Users like the items of their own parity, all of them; two of the ten are held out."""
    parts: dict[str, list[tuple[int, int]]] = {"train": [], "valid": [], "test": []}
    for user in range(40):
        own = [item for item in range(20) if item % 2 == user % 2]
        held_out = user // 2 % 10, (user // 2 + 3) % 10
        for rank, item in enumerate(own):
            part = "valid" if rank == held_out[0] else "test" if rank == held_out[1] else "train"
            parts[part].append((user, item))
    draw = np.random.default_rng(3)
    widths = {"visual": 8, "text": 6}
    features = {m: np.eye(2, d)[np.arange(20) % 2] + 0.1 * draw.normal(size=(20, d)) for m, d in widths.items()}
    arrays: Any = {part: np.array(pairs) for part, pairs in parts.items()}
    return checked_dataset("checkerboard", arrays, features, where="test data set")


@every_model
def test_learns_the_checkerboard(case: Case, checkerboard: Dataset) -> None:
    """Behind a user's training items come exactly the two held-out ones of the same parity."""
    model = case.build(checkerboard, embedding_size=16, feat_embed_dim=16, n_layers=2, reg_weight=1e-4, dropout=0.3)
    optimiser = adam(model, 0.01)
    losses = [run_epoch(model, checkerboard, epoch, optimiser) for epoch in range(1, 61)]
    with torch.no_grad():
        top = Evaluator(checkerboard, "test").rank(model_scorer(model), 2, device=CPU)
    assert (top.items % 2 == top.users[:, None] % 2).all()
    assert losses[-1] < losses[0]


@every_model
def test_same_seed_same_bits_and_another_seed_others(case: Case, checkerboard: Dataset) -> None:
    states, outcomes = [], []
    for seed in (1, 1, 2):
        model, streams, records = case.build(checkerboard, seed), Streams(seed), list[EpochRecord]()
        outcome = fit(model, checkerboard, TrainingConfig(epochs=2, batch_size=128), streams, CPU, records.append)
        states.append(model.state_dict())
        outcomes.append((outcome.test, [(record.loss, record.parts, record.valid) for record in records]))
        torch.rand(17)  # global generators play no part
        np.random.random(5)  # noqa: NPY002
    first, again, other = states
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert outcomes[0] == outcomes[1] != outcomes[2]


@every_model
def test_a_restored_state_scores_alike(case: Case, checkerboard: Dataset, tmp_path: Any) -> None:
    model = case.build(checkerboard, seed=1)
    run_epoch(model, checkerboard, epoch=1)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    restored = case.build(checkerboard, seed=2)
    assert not torch.equal(all_scores(model), all_scores(restored))
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.testing.assert_close(all_scores(restored), all_scores(model), rtol=0, atol=0)


@every_model
def test_isolated_users_and_cold_items_give_finite_numbers(case: Case) -> None:
    """Users 0 and 29 and items 0 and 19 have no training interaction."""
    draw = np.random.default_rng(8)
    train = np.array([(u, i) for u in range(1, 29) for i in range(1, 19) if draw.random() < 0.3])
    features = {"visual": draw.normal(size=(20, 8)), "text": draw.normal(size=(20, 6))}
    data = Data(30, 20, train, features)
    model = case.build(data)
    run_epoch(model, data, epoch=1)
    run_epoch(model, data, epoch=2)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    scores = all_scores(model)
    assert scores.shape == (30, 20)
    assert torch.isfinite(scores).all()
    scored_first = case.build(data)
    with torch.inference_mode():
        scored_first.embed()
    run_epoch(scored_first, data, epoch=1)


@every_model
@pytest.mark.parametrize("modalities", [("visual",), ("text",), ("visual", "acoustic", "text")])
def test_any_number_of_modalities(case: Case, checkerboard: Dataset, modalities: tuple[str, ...]) -> None:
    draw = np.random.default_rng(9)
    features = {name: draw.normal(size=(20, 5 + k)).astype(np.float32) for k, name in enumerate(modalities)}
    data = Data(40, 20, checkerboard.train, features)
    model = case.build(data)
    run_epoch(model, data, epoch=1)
    assert torch.isfinite(all_scores(model)).all()


@every_model
def test_gradient_reaches_what_trains_and_nothing_else(case: Case, checkerboard: Dataset) -> None:
    """Parameters below a submodule `unused` are those the published model has and never uses."""
    model = case.build(checkerboard)
    model.loss(first_batch(model, checkerboard)).total.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not name.startswith("unused."):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name


@every_model
def test_numbers_of_users_and_items_do_not_matter(case: Case) -> None:
    """All 41 users share an item, so each has exactly the 40 neighbours that DualGNN looks for, without padding."""
    n_users, n_items = 41, 33
    draw = np.random.default_rng(4)
    pairs = [(u, i) for u in range(n_users) for i in range(n_items) if i == 0 or draw.random() < 0.2]
    train = np.array(pairs)
    features = {"visual": draw.normal(size=(n_items, 7)), "text": draw.normal(size=(n_items, 6))}
    users, items = draw.permutation(n_users), draw.permutation(n_items)  # new number of each old one
    renamed_train = np.stack([users[train[:, 0]], items[train[:, 1]]], axis=1)
    renamed_features = {name: table[np.argsort(items)] for name, table in features.items()}
    if "edge_drop" in case.settings:
        pytest.skip("which items lose their edges is drawn by number")
    data = Data(n_users, n_items, train, features)
    model = case.build(data, dropout=0.0)
    renamed = case.build(Data(n_users, n_items, renamed_train, renamed_features), seed=1, dropout=0.0)
    state = {name: renumbered(tensor, users, items) for name, tensor in model.state_dict().items()}
    renamed.load_state_dict(state)
    for one in (model, renamed):
        one.start_epoch(Streams(7).torch("model", 1))  # what an epoch draws may name users by number

    batch = first_batch(model, data)
    user_of, item_of = torch.from_numpy(users), torch.from_numpy(items)
    negatives = None if batch.negatives is None else item_of[batch.negatives]
    same_batch = Batch(user_of[batch.users], item_of[batch.items], negatives)
    assert renamed.loss(same_batch).total.item() == pytest.approx(model.loss(batch).total.item(), rel=1e-5)
    scores = all_scores(renamed)[user_of][:, item_of]
    torch.testing.assert_close(scores, all_scores(model), rtol=1e-4, atol=1e-5)


@every_model
def test_memory_does_not_grow_from_epoch_to_epoch(
    case: Case, checkerboard: Dataset, request: pytest.FixtureRequest
) -> None:
    """Neither tensors that Python can see nor tensors kept for a backward pass are left behind by an epoch."""
    model = case.build(checkerboard)
    optimiser = adam(model, 1e-3)
    kept: list[weakref.ref[Any]] = []

    class Kept:
        """Holds a tensor that autograd saved."""

        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor
            kept.append(weakref.ref(self))

    left = []
    gc.freeze()  # what was there before is not looked at
    request.addfinalizer(gc.unfreeze)
    for epoch in range(1, 5):
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda holder: holder.tensor):
            run_epoch(model, checkerboard, epoch=epoch, optimiser=optimiser)
        all_scores(model)
        gc.collect()
        visible = sum(tensor.numel() for tensor in gc.get_objects() if type(tensor) in (Tensor, torch.nn.Parameter))
        left.append((visible, sum(reference() is not None for reference in kept)))
    assert kept, "nothing was saved for a backward pass"
    assert left[-1] == left[-2]


def run_epoch(model: Any, data: Any, epoch: int, optimiser: torch.optim.Optimizer | None = None) -> float:
    """An epoch as `fit` does it, without evaluation; its mean loss."""
    losses, optimiser = [], optimiser or adam(model, 1e-3)
    model.start_epoch(Streams(7).torch("model", epoch))
    for batch in batches(model, data).epoch(epoch):
        optimiser.zero_grad()
        loss = model.loss(batch).total
        loss.backward()
        losses.append(loss.item())
        optimiser.step()
        model.after_step()
    return sum(losses) / len(losses)


def batches(model: Any, data: Any) -> EpochBatches:
    settings: Any = {"batch_size": 100, "uses_negatives": model.uses_negatives, "streams": Streams(7), "device": CPU}
    return EpochBatches(data.train.astype(np.int32), data.n_items, **settings)


def first_batch(model: Any, data: Any) -> Batch:
    return next(iter(batches(model, data).epoch(1)))


def all_scores(model: Any) -> Tensor:
    with torch.no_grad():
        return model_scorer(model)(torch.arange(len(model.embed()[0])))


def renumbered(tensor: Tensor, users: NDArray[Any], items: NDArray[Any]) -> Tensor:
    """Rows that belong to users, items, or both one after the other, put where their new numbers are."""
    orders = {len(users): users, len(items): items, len(users) + len(items): np.append(users, len(users) + items)}
    if tensor.dim() == 0 or len(tensor) not in orders:
        return tensor
    moved = torch.empty_like(tensor)
    moved[torch.from_numpy(orders[len(tensor)])] = tensor
    return moved
