"""BM3 as a class: what it accepts and refuses, what it trains, and what it leaves alone."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from one_device import META, OneDevice

from bm3 import BM3, Batch, BM3Config, BM3Error, ConfigError, Data, DataError

TRAIN = np.array([(0, 0), (0, 1), (1, 1), (2, 2), (2, 3)])
BATCH = Batch(torch.tensor([0, 2]), torch.tensor([1, 2]))


def features(*names: str, n_items: int = 5) -> dict[str, NDArray[Any]]:
    return {name: np.random.default_rng(m).normal(size=(n_items, 3 + m)) for m, name in enumerate(names)}


def built(tables: dict[str, NDArray[Any]], seed: int = 0, **settings: Any) -> BM3:
    config = BM3Config(**{"embedding_size": 4, **settings})
    return BM3(Data(3, 5, TRAIN, tables), config, torch.Generator().manual_seed(seed))


# Modalities --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["trained", "frozen"])
@pytest.mark.parametrize(
    "names",
    [("v1.5 audio",), ("visual",), ("v1.5 audio", "keys", "items"), ("",), ("user embedding",), ()],
)
def test_any_number_of_modalities_with_any_names_train(names: tuple[str, ...], kind: str) -> None:
    model = built(features(*names), features=kind)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    loss = model.loss(BATCH)
    loss.total.backward()
    optimiser.step()
    assert model.modalities == names
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert model.embed()[0].shape == (3, 4)
    assert model.embed()[1].shape == (5, 4)


@pytest.mark.parametrize("kind", ["trained", "frozen"])
def test_a_model_that_was_moved_draws_where_its_generator_is_and_trains_where_it_is(kind: str) -> None:
    model = built(features("a", "b"), features=kind)
    model.propagate = torch.nn.Identity()  # which has no sparse product on this stand-in for a GPU
    model.to(META)
    with OneDevice() as seen:
        loss = model.loss(Batch(BATCH.users.to(META), BATCH.items.to(META)))
        loss.total.backward()
    assert {p.grad.device for p in model.parameters() if p.grad is not None} == {META}
    assert seen.copies.count(("cpu", "meta")) == 2 + 4  # the batch, and the survivors of four views


@pytest.mark.gpu
def test_a_model_that_was_moved_to_a_gpu_trains_there() -> None:
    model = built(features("a", "b")).cuda()
    loss = model.loss(Batch(BATCH.users.cuda(), BATCH.items.cuda()))
    loss.total.backward()
    assert all(p.grad is not None and p.grad.is_cuda for p in model.parameters())


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (np.ones((4, 2)), r"\[4, 2\].*5 items"),
        (np.ones(5), r"\[5\]"),
        (np.ones((5, 0)), r"\[5, 0\]"),
        (np.full((5, 2), np.nan), "finite"),
        (np.full((5, 2), np.inf), "finite"),
    ],
)
def test_unusable_features_are_an_error_that_names_the_modality(table: NDArray[Any], complaint: str) -> None:
    with pytest.raises(DataError, match=f"'odd name'.*{complaint}"):
        built({"fine": np.ones((5, 2)), "odd name": table})


# Configuration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("embedding_size", value) for value in (0, -3)),
        ("n_layers", -1),
        *(("dropout", value) for value in (-0.1, 1.0, math.nan)),
        *((field, value) for field in ("reg_weight", "cl_weight") for value in (-1e-9, math.inf, math.nan)),
        ("objective", "as printed"),
        ("features", "melted"),
    ],
)
def test_an_impossible_setting_is_an_error_that_names_field_and_value(field: str, value: object) -> None:
    with pytest.raises(ConfigError) as error:
        BM3Config(**{field: value})
    assert isinstance(error.value, BM3Error)
    assert field in str(error.value)
    assert repr(value) in str(error.value)
    assert "\n" not in str(error.value)


# Features ----------------------------------------------------------------------------------------------------------


def test_frozen_features_are_no_parameters_and_trained_ones_are() -> None:
    frozen, trained = (built(features("a", "b"), features=kind) for kind in ("frozen", "trained"))
    names = {name for name, _ in frozen.named_parameters()}
    assert {name for name, _ in trained.named_parameters()} - names == {"features.0.table", "features.1.table"}
    assert sum(p.numel() for p in trained.parameters()) - sum(p.numel() for p in frozen.parameters()) == 5 * (3 + 4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["trained", "frozen"])
def test_training_never_writes_into_the_callers_array(kind: str, dtype: type) -> None:
    table = features("a")["a"].astype(dtype)
    before = table.copy()
    model = built({"a": table}, features=kind)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        model.loss(BATCH).total.backward()
        optimiser.step()
    np.testing.assert_array_equal(table, before)
    moved = not np.array_equal(model.features[0].table.detach().numpy(), before)
    assert moved == (kind == "trained")


@pytest.mark.parametrize("kind", ["trained", "frozen"])
def test_writing_into_the_callers_array_later_does_not_change_the_model(kind: str) -> None:
    table = features("a")["a"].astype(np.float32)
    model = built({"a": table}, features=kind, dropout=0.0)
    before = model.loss(BATCH).total
    table[:] = 9
    assert model.loss(BATCH).total == before


def test_layout_and_write_protection_of_the_array_do_not_matter() -> None:
    table = features("a")["a"].astype(np.float32)
    columns = np.asfortranarray(table)
    columns.flags.writeable = False
    losses = [built({"a": t}, dropout=0.0).loss(BATCH).total for t in (table, columns, table[::-1][::-1])]
    assert losses[0] == losses[1] == losses[2]


def test_feature_rows_of_items_outside_the_batch_get_exactly_no_gradient() -> None:
    model = built(features("a", "b"), features="trained")
    model.loss(BATCH).total.backward()
    for table in model.features:
        moved = table.table.grad.any(dim=1)
        assert moved.tolist() == [False, True, True, False, False]


# Parameters and state ----------------------------------------------------------------------------------------------


def test_the_seed_decides_the_parameters() -> None:
    one, same, other = (dict(built(features("a"), seed=seed).named_parameters()) for seed in (0, 0, 1))
    for name in one:
        assert torch.equal(one[name], same[name])
        assert torch.equal(one[name], other[name]) == name.startswith("features")


def test_initial_values_follow_the_stated_distributions() -> None:
    n_users, n_items, d, width = 400, 300, 50, 120
    data = Data(n_users, n_items, TRAIN, {"a": np.ones((n_items, width))})
    model = BM3(data, BM3Config(embedding_size=d), torch.Generator().manual_seed(0))
    for table in (model.user_embedding, model.item_embedding):
        bound = math.sqrt(6 / (len(table) + d))
        assert table.abs().max() <= bound
        assert float(table.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    for layer, fan_in in ((model.predictor, d), (model.projections[0], width)):
        assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / (fan_in + d)), rel=0.05)
        assert layer.weight.abs().max() > 2.5 * layer.weight.std()  # normal, not uniform
        assert layer.bias.abs().max() <= fan_in**-0.5
        assert layer.bias.abs().max() > 0.8 * fan_in**-0.5


def test_the_state_holds_the_parameters_and_no_copy_of_graph_or_given_features() -> None:
    for kind in ("frozen", "trained"):
        model = built(features("a"), features=kind)
        assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_scores_apply_the_predictor_on_both_sides_and_drop_nothing() -> None:
    model = built(features("a"), dropout=0.9)
    users, items = model.embed()
    h_users, h_items = model.encode()
    W, b = model.predictor.weight, model.predictor.bias
    torch.testing.assert_close(users, h_users @ W.T + b)
    torch.testing.assert_close(items, h_items @ W.T + b)
    assert torch.equal(users, model.embed()[0])
