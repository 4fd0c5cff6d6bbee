"""What no recorded trace shows: the authors' variants, a second epoch, a short batch, scores from the last batch."""

import dataclasses
import pydoc
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from bm3 import Batch, Data
from harness.models.buir import BUIR, BUIRConfig
from harness.models.dualgnn import DualGNN, DualGNNConfig
from harness.models.grcn import GRCN, GRCNConfig
from harness.models.lattice import LATTICE, LATTICEConfig
from harness.models.mmgcn import MMGCN, MMGCNConfig
from harness.models.registry import find_model
from harness.runs.settings import configure
from harness.runs.variants import variants
from harness.training.optimiser import adam

N_USERS, N_ITEMS = 12, 30


@pytest.fixture
def data() -> Data:
    draw = np.random.default_rng(4)
    train = np.array([(u, i) for u in range(N_USERS) for i in range(N_ITEMS) if draw.random() < 0.25])
    features = {"visual": draw.normal(size=(N_ITEMS, 6)), "text": draw.normal(size=(N_ITEMS, 5))}
    return Data(N_USERS, N_ITEMS, train, features)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(data: Data, start: int = 0, size: int = 20) -> Batch:
    users, items = torch.from_numpy(data.train[start : start + size]).T
    return Batch(users, items, items.flip(0))


def step(model: Any, batch: Batch, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    model.loss(batch).total.backward()
    optimiser.step()


@pytest.mark.parametrize("row", variants(), ids=lambda row: f"{row.model}-{row.setting}")
def test_every_variant_can_be_set_and_the_published_value_is_the_default(row: Any) -> None:
    name = "bpr" if row.model == "all" else row.model
    model = find_model(name).model
    default = configure(model, {})
    assert len(row.values) >= 2
    assert pydoc.locate(row.where) is not None
    assert configure(model, {row.setting: str(row.values[0])}) == default
    for value in row.values[1:]:
        assert configure(model, {row.setting: str(value)}) != default


def test_grcn_as_authored_routes_items_to_users(data: Data) -> None:
    """Against the dense formula p ← normalise(p + softmax(p fᵀ over the user's items) f), three times."""
    model = GRCN(data, GRCNConfig(routing="as_authored", scoring="current"), generator())
    branch = model.branches[0]
    liked = torch.zeros(N_USERS, N_ITEMS, dtype=torch.bool)
    liked[tuple(torch.from_numpy(data.train).T)] = True

    def attention(p: torch.Tensor, f: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (p @ f.T).masked_fill(~mask, -torch.inf).softmax(dim=1).nan_to_num()

    with torch.no_grad():
        f = normalize(torch.nn.functional.leaky_relu(branch.MLP(branch.features.table)))
        p = normalize(branch.preference)
        for _ in range(3):
            p = normalize(p + attention(p, f, liked) @ f)
        content = branch()
        torch.testing.assert_close(content.users, p + attention(p, f, liked) @ f)
        torch.testing.assert_close(content.items, f + attention(f, p, liked.T) @ p)
        published = GRCN(data, GRCNConfig(scoring="current"), generator())
        assert not torch.allclose(published.branches[0]().users, content.users, atol=1e-3)


def test_dualgnn_as_authored_propagates_without_the_dropped_edges(data: Data) -> None:
    model = DualGNN(data, DualGNNConfig(edge_drop="as_authored", latent_size=4), generator())
    assert model.dropped.sum(dim=1).tolist() == [1, 1]
    for propagate, dropped in zip(model.propagations, model.dropped, strict=True):
        adjacency = torch.zeros(N_USERS, N_ITEMS)
        adjacency[tuple(torch.from_numpy(data.train).T)] = 1
        assert adjacency[:, dropped].sum() > 0
        adjacency[:, dropped] = 0
        scale = [degree.clamp(min=1) ** -0.5 for degree in (adjacency.sum(1), adjacency.sum(0))]
        normalised = scale[0][:, None] * adjacency * scale[1]
        x = torch.randn(N_USERS + N_ITEMS, 3)
        expected = torch.cat([normalised @ x[N_USERS:], normalised.T @ x[:N_USERS]])
        torch.testing.assert_close(propagate(x), expected)


def test_dualgnn_as_authored_weights_the_modalities_themselves(data: Data) -> None:
    """With all weight on the second modality both variants agree; on the first, only the published one has the sum."""
    models = [
        DualGNN(data, DualGNNConfig(modality_sum=s, scoring="current"), generator())
        for s in ("as_published", "as_authored")
    ]
    with torch.no_grad():
        for weights, agree in (((0.0, 1.0), True), ((1.0, 0.0), False)):
            for model in models:
                model.weight_u[:] = torch.tensor(weights)[None, :, None]
            published, authored = (model.embed()[0] for model in models)
            assert torch.allclose(published, authored) == agree


def test_lattice_has_a_graph_gradient_in_the_first_batch_of_each_epoch_alone(data: Data) -> None:
    model = LATTICE(data, LATTICEConfig(), generator())
    optimiser = adam(model, 0.05)
    for epoch in (1, 2):
        model.start_epoch(generator(epoch))
        table = model.features[0].table.clone()
        step(model, batch_of(data), optimiser)
        assert model.projections[0].weight.grad is not None
        trained = model.features[0].table.clone()
        assert not torch.equal(trained, table)
        step(model, batch_of(data, 20), optimiser)
        assert model.projections[0].weight.grad is None
        assert torch.equal(model.features[0].table, trained)


def assert_as_restored(model: LATTICE, data: Data) -> None:
    """Scores are those of a copy made of the parameters alone, which has no graph from before."""
    copy = LATTICE(data, LATTICEConfig(), generator(9))
    copy.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model.embed()[1], copy.embed()[1])


@pytest.mark.parametrize("scored", [False, True], ids=["not scored", "scored between gradient and step"])
def test_lattice_scores_with_the_present_item_graph(data: Data, scored: bool) -> None:
    model = LATTICE(data, LATTICEConfig(), generator())
    optimiser = adam(model, 0.5)  # large, so that neighbours change
    for epoch in (1, 2):  # the second begins without a scoring before it
        model.start_epoch(generator(epoch))
        for start in (0, 20):
            optimiser.zero_grad()
            model.loss(batch_of(data, start)).total.backward()
            if scored:
                with torch.no_grad():
                    model.embed()
            optimiser.step()
            model.after_step()
    assert_as_restored(model, data)


def test_lattice_begins_an_epoch_with_the_present_item_graph_and_restored_with_what_was_restored(data: Data) -> None:
    one, other = (LATTICE(data, LATTICEConfig(), generator(seed)) for seed in (0, 1))
    optimiser = adam(one, 0.5)
    for start in (0, 20):
        step(one, batch_of(data, start), optimiser)
    one.start_epoch(generator())
    other.loss(batch_of(data))
    other.load_state_dict(one.state_dict())
    assert one.loss(batch_of(data)).total.item() == pytest.approx(other.loss(batch_of(data)).total.item())


def test_lattice_takes_batch_size_from_the_training_and_lowers_its_rate_by_four_percent_in_fifty_epochs() -> None:
    assert configure(LATTICE, {"batch_size": "64"})[0].train_batch_size == 64
    assert configure(LATTICE, {"batch_size": "64", "train_batch_size": "32"})[0].train_batch_size == 32
    factors = [LATTICE.learning_rate_factor(None, epoch) for epoch in (1, 51, 101)]  # type: ignore[arg-type]
    assert factors == pytest.approx([1, 0.96, 0.9216])


def test_mmgcn_notices_when_a_tensor_that_does_not_train_is_replaced(data: Data) -> None:
    """What is computed from untrained tensors is kept, but not across a restored state."""
    one, other = (MMGCN(data, MMGCNConfig(scoring="current"), generator(seed)) for seed in (0, 1))
    with torch.no_grad():
        one.embed()
        one.load_state_dict(other.state_dict())
        torch.testing.assert_close(one.embed()[0], other.embed()[0])


@pytest.mark.parametrize("kind", [MMGCN, GRCN, DualGNN])
def test_scores_come_from_before_the_last_step_or_from_after_it(data: Data, kind: Any) -> None:
    published, current = (kind(data, kind.Config(scoring=s), generator()) for s in ("last_batch", "current"))
    with torch.no_grad():
        before = current.embed()[0].clone()
    for model in (published, current):
        step(model, batch_of(data), adam(model, 0.01))
    with torch.no_grad():
        torch.testing.assert_close(published.embed()[0], before)
        assert not torch.allclose(current.embed()[0], before, atol=1e-4)


@pytest.mark.parametrize("kind", [GRCN, DualGNN, LATTICE])
def test_an_isolated_user_has_its_own_vector_alone(data: Data, kind: Any) -> None:
    """No other user's or item's parameters reach it."""
    model = kind(dataclasses.replace(data, train=data.train[data.train[:, 0] != 5]), kind.Config(), generator())
    reached = torch.autograd.grad(model.embed()[0][5].sum(), list(model.parameters()), allow_unused=True)
    for parameter, gradient in zip(model.parameters(), reached, strict=True):
        if gradient is not None and parameter.shape[0] in (N_USERS, N_USERS + N_ITEMS):
            assert gradient.flatten(1).abs().sum(dim=1).nonzero().flatten().tolist() in ([5], [])


@pytest.mark.parametrize("kind", [GRCN, LATTICE, MMGCN, DualGNN, BUIR])
def test_repeated_interactions_are_one_edge(data: Data, kind: Any) -> None:
    twice = dataclasses.replace(data, train=np.concatenate([data.train, data.train[:30]]))
    once, repeated = (kind(d, kind.Config(), generator()) for d in (data, twice))
    with torch.no_grad():
        torch.testing.assert_close(once.embed()[0], repeated.embed()[0])


def test_buir_decay_reaches_the_predictors_bias(data: Data) -> None:
    model = BUIR(data, BUIRConfig(weight_decay=0.01), generator())
    (group,) = adam(model, 1e-3).param_groups
    assert (group["weight_decay"], len(group["params"])) == (0.01, 4)
    assert any(parameter is model.predictor.bias for parameter in group["params"])
