"""BM3 as a class: what it accepts and refuses, what it trains, and what it leaves alone."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bm3 import BM3, Batch, BM3Config, BM3Error, ConfigError, Data, DataError
from bm3 import features as feature_module
from bm3 import model as model_module

TRAIN = np.array([(0, 0), (0, 1), (1, 1), (2, 2), (2, 3)])
BATCH = Batch(torch.tensor([0, 2]), torch.tensor([1, 2]))


def features(*names: str, n_items: int = 5) -> dict[str, NDArray[Any]]:
    return {name: np.random.default_rng(m).normal(size=(n_items, 3 + m)) for m, name in enumerate(names)}


def built(tables: dict[str, NDArray[Any]], seed: int = 0, **settings: Any) -> BM3:
    config = BM3Config(**{"embedding_size": 4, **settings})
    return BM3(Data(3, 5, TRAIN, tables), config, torch.Generator().manual_seed(seed))


# Modalities --------------------------------------------------------------------------------------------------------


def test_no_modality_is_an_error_that_says_what_is_needed() -> None:
    with pytest.raises(DataError, match="BM3 needs at least one modality"):
        built({})


@pytest.mark.parametrize("kind", ["trained", "frozen"])
@pytest.mark.parametrize(
    "names",
    [("v1.5 audio",), ("keys",), ("items",), ("visual",), ("v1.5 audio", "keys", "items"), ("",), ("user embedding",)],
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


def test_every_modality_takes_part_in_the_loss() -> None:
    tables = features("a", "b", "c")
    losses = set()
    for changed in (None, *tables):
        other = {name: table + (name == changed) * np.arange(len(table))[:, None] for name, table in tables.items()}
        losses.add(float(built(other, dropout=0.0).loss(BATCH).total.detach()))
    assert len(losses) == 4


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
        built({"fine": np.ones((5, 2)), "odd name": table})


# Configuration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("embedding_size", 0),
        ("embedding_size", -3),
        ("n_layers", -1),
        ("dropout", -0.1),
        ("dropout", 1.0),
        ("dropout", math.nan),
        ("reg_weight", -1e-9),
        ("reg_weight", math.inf),
        ("reg_weight", math.nan),
        ("cl_weight", -1.0),
        ("cl_weight", math.inf),
        ("cl_weight", math.nan),
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


# Switches ------------------------------------------------------------------------------------------------------------

TERMS = ("reconstruction", "alignment", "masking")
PARTS = {"reconstruction": "reconstruction", "alignment": "alignment", "masking": "masked"}
SUBSETS = [terms for n in (1, 2, 3) for terms in itertools.combinations(TERMS, n)]


def switched(terms: tuple[str, ...], **settings: Any) -> BM3:
    """BM3 with two modalities and these terms alone."""
    return built(features("a", "b"), **{term: term in terms for term in TERMS}, **settings)


def by_hand(model: BM3, batch: Batch, *, published: bool) -> dict[str, float]:
    """Every term of the objective without dropout, with n modalities, from the tables alone."""
    h_users, h_items = model.encode()
    h_u, h_i = h_users[batch.users], h_items[batch.items]
    h_modal = [model.project(m, batch.items) for m in range(len(model.modalities))]

    def cos(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x * y).sum(1) / x.norm(dim=1) / y.norm(dim=1)

    def online(h: torch.Tensor) -> torch.Tensor:
        return h @ model.predictor.weight.T + model.predictor.bias

    offset, weight = (1, model.config.cl_weight) if published else (0, 1)
    terms = {
        "reconstruction": 2 * offset - cos(online(h_u), h_i) - cos(online(h_i), h_u),
        "alignment": sum((weight * (offset - cos(online(h), h_i)) for h in h_modal), torch.zeros(1)),
        "masked": sum((weight * (offset - cos(online(h), h)) for h in h_modal), torch.zeros(1)),
    }
    norms = (h_users.norm() + h_items.norm()) / 5 if published else (h_u**2).sum(1).mean() + (h_i**2).sum(1).mean()
    means = {name: float(term.detach().mean()) for name, term in terms.items()}
    return {**means, "regulariser": model.config.reg_weight * float(norms.detach())}


@pytest.mark.parametrize("objective", ["published", "paper"])
@pytest.mark.parametrize("terms", SUBSETS)
def test_the_loss_is_the_sum_of_the_terms_that_are_on(terms: tuple[str, ...], objective: str) -> None:
    model = switched(terms, objective=objective, dropout=0.0, cl_weight=1.5)
    loss = model.loss(REPEATED)
    expected = by_hand(model, REPEATED, published=objective == "published")
    assert list(loss.parts) == [*(PARTS[term] for term in terms), "regulariser"]
    for name, part in loss.parts.items():
        assert float(part.detach()) == pytest.approx(expected[name], rel=1e-5)
    assert float(loss.total.detach()) == pytest.approx(sum(expected[name] for name in loss.parts), rel=1e-5)


@pytest.mark.parametrize("kind", ["trained", "frozen"])
@pytest.mark.parametrize("terms", SUBSETS)
def test_only_the_terms_that_are_on_teach(terms: tuple[str, ...], kind: str) -> None:
    """Targets are given, so L_rec alone teaches the ID tables, and modalities are taught by the others alone."""
    model = switched(terms, features=kind, reg_weight=0.0)
    model.loss(BATCH).total.backward()
    taught = {name for name, p in model.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}
    expected = {"predictor.weight", "predictor.bias"}
    if "reconstruction" in terms:
        expected |= {"user_embedding", "item_embedding"}
    if set(terms) - {"reconstruction"}:
        expected |= {name for name, _ in model.named_parameters() if name.startswith(("features.", "projections."))}
    assert taught == expected


@pytest.mark.parametrize("terms", SUBSETS)
def test_views_that_no_term_reads_are_not_drawn(terms: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    model, drawn = switched(terms), []
    target = model._target

    def noted(view: str, *arguments: Any) -> torch.Tensor:
        drawn.append(view)
        return target(view, *arguments)

    monkeypatch.setattr(model, "_target", noted)
    model.loss(BATCH)
    expected = ["user"] if "reconstruction" in terms else []
    expected += ["item"] if {"reconstruction", "alignment"} & {*terms} else []
    expected += ["a", "b"] if "masking" in terms else []
    assert drawn == expected


@pytest.mark.parametrize(("modalities", "chosen"), [("a", "a"), ("c+a", "ac"), ("b+a+c", "abc"), ("all", "abc")])
def test_the_modalities_named_take_part_and_the_others_might_as_well_not_be_there(modalities: str, chosen: str) -> None:
    tables = features("a", "b", "c")
    model, alone = built(tables, modalities=modalities), built({name: tables[name] for name in chosen})
    assert model.modalities == alone.modalities == tuple(chosen)
    assert [p.shape for p in model.parameters()] == [p.shape for p in alone.parameters()]
    assert torch.equal(model.loss(BATCH).total, alone.loss(BATCH).total)


def test_without_modalities_no_features_are_needed_and_reconstruction_is_left() -> None:
    without, bare = built(features("a"), modalities="none"), built({}, modalities="none")
    terms_off = built(features("a"), alignment=False, masking=False)
    names = {"user_embedding", "item_embedding", "predictor.weight", "predictor.bias"}
    losses = []
    for model in (without, bare, terms_off):
        assert {name for name, _ in model.named_parameters()} == names
        assert not model.config.reads_features
        loss = model.loss(BATCH)
        assert list(loss.parts) == ["reconstruction", "regulariser"]
        losses.append(loss.total)
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize("modalities", ["visul", "a+visul", "", "a+", "all+a"])
def test_a_modality_that_is_not_there_is_an_error_that_names_those_that_are(modalities: str) -> None:
    with pytest.raises(DataError, match=r"no '(visul|all)?' in the data set, which has 'a', 'b'"):
        built(features("a", "b"), modalities=modalities)


@pytest.mark.parametrize(
    "settings",
    [
        {"reconstruction": False, "alignment": False, "masking": False},
        {"reconstruction": False, "modalities": "none"},
    ],
)
def test_an_objective_of_nothing_but_the_regulariser_is_an_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="regulariser is the only term left"):
        BM3Config(**settings)


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


@pytest.mark.parametrize("kind", ["trained", "frozen"])
def test_a_state_dict_brings_a_trained_model_back(kind: str) -> None:
    tables = features("v1.5 audio", "keys")
    model, other = (built(tables, seed, features=kind, dropout=0.0) for seed in (0, 1))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    model.loss(BATCH).total.backward()
    optimiser.step()
    assert not torch.equal(model.embed()[0], other.embed()[0])
    other.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()})
    assert model.loss(BATCH).total == other.loss(BATCH).total
    for ours, theirs in zip(model.embed(), other.embed(), strict=True):
        assert torch.equal(ours, theirs)


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


# Where repeated ids are not merged, as on CUDA -----------------------------------------------------------------------


@pytest.fixture
def unmerged(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (feature_module, model_module):
        monkeypatch.setattr(module, "merges", lambda ids: False)


REPEATED = Batch(torch.tensor([0, 2, 0, 2]), torch.tensor([1, 2, 1, 1]))


@pytest.mark.parametrize("objective", ["published", "paper"])
def test_loss_and_gradients_do_not_depend_on_merging(objective: str, request: pytest.FixtureRequest) -> None:
    results = []
    for fixture in (None, "unmerged"):
        if fixture:
            request.getfixturevalue(fixture)
        model = built(features("a", "b"), objective=objective, dropout=0.0)
        loss = model.loss(REPEATED).total
        loss.backward()
        results.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    for merged, not_merged in zip(*results, strict=True):
        torch.testing.assert_close(merged, not_merged)


@pytest.mark.usefixtures("unmerged")
@pytest.mark.parametrize("view", ["user", "item", "a"])
def test_a_repeated_row_loses_the_same_entries_everywhere(view: str) -> None:
    model, rows = built(features("a"), dropout=0.5), torch.tensor([1, 2, 1, 1])
    target = model._target(view, torch.ones(4, 4), rows, None)
    assert torch.equal(target[0], target[2])
    assert torch.equal(target[0], target[3])
    assert set(target.unique().tolist()) == {0.0, 2.0}
