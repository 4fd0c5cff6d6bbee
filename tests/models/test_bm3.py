"""BM3 of the harness: the one to read, faster, and with parts of it switched off."""

import copy
import itertools
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import bm3
from bm3 import Batch, ConfigError, Data, DataError
from harness.models.bm3 import BM3, BM3Config, trace_dropout
from harness.training.optimiser import adam

TRAIN = np.array([(0, 0), (0, 1), (1, 1), (2, 2), (2, 3)])
BATCH = Batch(torch.tensor([0, 2, 0, 2]), torch.tensor([1, 2, 1, 1]))
TERMS = {"reconstruction": "reconstruction", "alignment": "alignment", "masking": "masked"}
SUBSETS = [terms for n in (1, 2, 3) for terms in itertools.combinations(TERMS, n)]


def features(*names: str) -> dict[str, NDArray[Any]]:
    return {name: np.random.default_rng(m).normal(size=(5, 3 + m)) for m, name in enumerate(names)}


def built(tables: Mapping[str, NDArray[Any]], **settings: Any) -> BM3:
    return BM3(Data(3, 5, TRAIN, tables), BM3Config(embedding_size=4, **settings), torch.Generator().manual_seed(0))


def switched(terms: tuple[str, ...], **settings: Any) -> BM3:
    """BM3 with two modalities and these terms alone."""
    return built(features("a", "b"), **{term: term in terms for term in TERMS}, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": objective, "features": kind, "n_layers": n_layers, "dropout": dropout}
        for objective, kind in itertools.product(("published", "paper"), ("trained", "frozen"))
        for n_layers, dropout in ((1, 0.5), (2, 0.0))
    ],
    ids=str,
)
def test_both_are_equal_after_steps_when_dropout_is_given(settings: dict[str, Any]) -> None:
    """In double precision, since a sum over rows that repeat is not in the same order."""
    draw = np.random.default_rng(1)
    train = np.array([(u, i) for u in range(30) for i in range(20) if draw.random() < 0.3])
    tables = {"visual": draw.normal(size=(20, 7)), "text": draw.normal(size=(20, 5))}
    data, config = Data(30, 20, train, tables), BM3Config(embedding_size=6, **settings)
    plain = {key: value for key, value in asdict(config).items() if hasattr(bm3.BM3Config, key)}
    reading = bm3.BM3(data, bm3.BM3Config(**plain), torch.Generator().manual_seed(0)).double()
    fast = BM3(data, config, torch.Generator().manual_seed(0)).double()
    assert all(torch.equal(a, b) for a, b in zip(reading.parameters(), fast.parameters(), strict=True))
    initial = copy.deepcopy(fast.state_dict())
    optimisers = [adam(model, 0.01) for model in (reading, fast)]
    for _ in range(8):
        users, items = torch.from_numpy(train[draw.integers(len(train), size=40)]).T
        keep = {"user": 30, "item": 20, "visual": 20, "text": 20}
        masks = {view: torch.from_numpy(draw.random((n, 6)) >= config.dropout) for view, n in keep.items()}
        for model, optimiser in zip((reading, fast), optimisers, strict=True):
            trace_dropout(model, masks)
            optimiser.zero_grad()
            model.loss(Batch(users, items)).total.backward()
            optimiser.step()
    state = fast.state_dict()
    for name, tensor in reading.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-7, atol=1e-9)
        assert not torch.allclose(tensor, initial[name], atol=1e-4)
    with torch.no_grad():
        for ours, theirs in zip(fast.embed(), reading.embed(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("objective", ["published", "paper"])
@pytest.mark.parametrize("terms", SUBSETS)
def test_the_loss_is_the_sum_of_the_terms_that_are_on(terms: tuple[str, ...], objective: str) -> None:
    whole = switched(tuple(TERMS), objective=objective, dropout=0.0).loss(BATCH)
    loss = switched(terms, objective=objective, dropout=0.0).loss(BATCH)
    assert list(loss.parts) == [*(TERMS[term] for term in terms), "regulariser"]
    if terms != ("reconstruction",):  # without modalities their tables are not drawn, and all else is as it was
        assert loss.parts == {name: whole.parts[name] for name in loss.parts}
    torch.testing.assert_close(loss.total, torch.stack([*loss.parts.values()]).sum())


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
    model, drawn = switched(terms), list[str]()
    survivors = model.survivors
    monkeypatch.setattr(model, "survivors", lambda view, rows: drawn.append(view) or survivors(view, rows))
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
    terms_off = built(features("a"), alignment=False, masking=False)
    models = [built(features("a"), modalities="none"), built({}, modalities="none"), terms_off]
    for model in models:
        names = {"user_embedding", "item_embedding", "predictor.weight", "predictor.bias"}
        assert {name for name, _ in model.named_parameters()} == names
        assert not model.config.reads_features
    losses = [model.loss(BATCH) for model in models]
    assert all(list(loss.parts) == ["reconstruction", "regulariser"] for loss in losses)
    assert losses[0].total == losses[1].total == losses[2].total


@pytest.mark.parametrize(
    ("tables", "modalities", "message"),
    [
        *(
            ("ab", named, r"no '(visul|all)?' in the data set, which has 'a', 'b'")
            for named in ("visul", "a+visul", "", "a+", "all+a")
        ),
        ("", "all", r"at least one modality.*modalities=none"),
    ],
)
def test_a_modality_that_is_not_there_is_an_error_that_names_those_that_are(
    tables: str, modalities: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        built(features(*tables), modalities=modalities)


@pytest.mark.parametrize("rest", [{"alignment": False, "masking": False}, {"modalities": "none"}])
def test_an_objective_of_nothing_but_the_regulariser_is_an_error(rest: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="regulariser is the only term left"):
        BM3Config(reconstruction=False, **rest)
