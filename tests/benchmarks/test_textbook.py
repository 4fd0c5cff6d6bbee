"""The baselines of the benchmark are no straw men: they compute what the project's own code computes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sides import EMBEDDING_SIZE, Vectors
from textbook import (
    Textbook,
    TextbookBatches,
    TextbookBM3,
    TextbookBPR,
    TextbookBUIR,
    TextbookDualGNN,
    TextbookEvaluation,
    TextbookGRCN,
    TextbookLATTICE,
    TextbookLightGCN,
    TextbookMMGCN,
    TextbookVBPR,
)
from torch import Tensor

from bm3 import Batch
from harness.data import PARTS, Dataset, Part
from harness.data.synthetic import mini
from harness.evaluation.ranking import Evaluation
from harness.models.dualgnn import co_occurring_users
from harness.models.registry import find_model

# Weights of the regularisers are such that a mistake in them shows.
CASES: list[tuple[type[Textbook], dict[str, Any]]] = [
    (TextbookBPR, {"reg_weight": 10.0}),
    (TextbookLightGCN, {"reg_weight": 10.0}),
    (TextbookLightGCN, {"reg_weight": 10.0, "n_layers": 3}),
    (TextbookBUIR, {}),
    (TextbookBUIR, {"n_layers": 1}),
    (TextbookBM3, {"dropout": 0, "n_layers": 1, "reg_weight": 10.0}),
    (TextbookBM3, {"dropout": 0, "n_layers": 2, "reg_weight": 10.0}),
    (TextbookVBPR, {"reg_weight": 10.0}),
    (TextbookMMGCN, {"reg_weight": 10.0}),
    (TextbookMMGCN, {"reg_weight": 10.0, "training": "as_authored"}),  # compares gradients that are not used, too
    (TextbookGRCN, {"reg_weight": 10.0}),
    (TextbookDualGNN, {"reg_weight": 1.0}),
    (TextbookLATTICE, {"reg_weight": 10.0}),
    (TextbookLATTICE, {"reg_weight": 10.0, "n_layers": 2, "n_ui_layers": 1}),
]
IDS = ["-".join([kind.__name__.removeprefix("Textbook"), *map(str, settings.values())]) for kind, settings in CASES]
CONTAINERS = ("branches.", "features.", "projections.")  # of textbook models; recorded traces do not name them
OF_ANY_MODALITIES = (TextbookVBPR, TextbookMMGCN, TextbookGRCN, TextbookDualGNN, TextbookLATTICE)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return mini()


@pytest.mark.parametrize(("kind", "settings"), CASES, ids=IDS)
def test_textbook_has_the_loss_and_gradients_of_our_model(
    kind: type[Textbook], settings: Mapping[str, Any], data: Dataset
) -> None:
    ours, textbook = alike(kind, settings, data)
    compared = check_agreement(ours, textbook, batch_of(data, 0))
    assert {id(parameter) for parameter in textbook.trained()} <= {id(parameter) for parameter in compared}


@pytest.mark.parametrize("modalities", [("visual",), ("text",), ("visual", "acoustic", "text")], ids="+".join)
@pytest.mark.parametrize("kind", OF_ANY_MODALITIES)
def test_they_agree_with_one_modality_and_with_three(
    kind: type[Textbook], modalities: tuple[str, ...], data: Dataset
) -> None:
    draw = np.random.default_rng(7)
    features = {name: draw.normal(size=(data.n_items, 9 + k)).astype("float32") for k, name in enumerate(modalities)}
    some = replace(data, features=features)
    ours, textbook = alike(kind, {"reg_weight": 1.0}, some)
    check_agreement(ours, textbook, batch_of(some, 0), moving_only=True)


def test_textbook_lattice_uses_the_detached_graph_until_the_next_epoch(data: Dataset) -> None:
    ours, textbook = alike(TextbookLATTICE, {"reg_weight": 10.0}, data)
    with_gradient = len(check_agreement(ours, textbook, batch_of(data, 0)))
    move_together(ours, textbook)  # the graph of the first batch must stay what it was
    assert len(check_agreement(ours, textbook, batch_of(data, 1))) == 2  # the ID tables
    ours.start_epoch(torch.Generator())
    textbook.start_epoch()
    assert len(check_agreement(ours, textbook, batch_of(data, 2))) == with_gradient > 2


@pytest.mark.parametrize(("kind", "settings"), CASES, ids=IDS)
def test_comparison_notices_every_parameter_and_the_regulariser(
    kind: type[Textbook], settings: Mapping[str, Any], data: Dataset
) -> None:
    ours, textbook = alike(kind, settings, data)
    noise = torch.Generator().manual_seed(2)
    trained = {id(parameter) for parameter in textbook.trained()}
    for name, parameter in named_parameters(textbook).items():
        if id(parameter) in trained:
            before = parameter.detach().clone()
            with torch.no_grad():
                parameter += (0.01 + 0.1 * before.abs().mean()) * torch.randn(before.shape, generator=noise)
            renew(ours, textbook)
            assert not agree(ours, textbook, batch_of(data, 0)), f"a change of {name} was not noticed"
            with torch.no_grad():
                parameter.copy_(before)
    expected = ours.loss(batch_of(data, 0))
    if not isinstance(textbook, TextbookBUIR):  # which has none
        assert expected.parts["regulariser"] > 1e-3 * expected.total


def test_buir_notices_the_targets_of_both_sides(data: Dataset) -> None:
    ours, textbook = alike(TextbookBUIR, {}, data)
    for table in textbook.target_encoder.parameters():
        before = table.clone()
        table += 0.1 * torch.randn(table.shape, generator=torch.Generator().manual_seed(4))
        assert not agree(ours, textbook, batch_of(data, 0))
        table.copy_(before)


@pytest.mark.parametrize("part", ["valid", "test"])
def test_textbook_evaluation_has_the_metrics_of_ours(part: Part, data: Dataset) -> None:
    vectors = informed_vectors(data)
    ours = Evaluation(data)(vectors, part, torch.device("cpu"))
    textbook = TextbookEvaluation(data, batch_users=256)(*vectors.embed(), part)
    assert 0.05 < ours["recall@5"] < ours["recall@50"] < 0.95
    assert textbook.keys() == ours.keys()
    assert textbook == pytest.approx(ours, rel=0, abs=1e-9)


def test_textbook_batches_hold_every_interaction_once_and_negatives_new_to_the_user(data: Dataset) -> None:
    batches = list(TextbookBatches(data.train, batch_size=256, uses_negatives=True).epoch())
    users, items, negatives = (torch.cat(column).numpy() for column in zip(*batches, strict=True))
    assert {len(batch.users) for batch in batches[:-1]} == {256}
    assert sorted(zip(users, items, strict=True)) == sorted(map(tuple, data.train))
    assert not set(zip(users, negatives, strict=True)) & set(map(tuple, data.train))
    assert len(np.unique(negatives)) > 0.9 * data.n_items
    without = TextbookBatches(data.train, batch_size=256, uses_negatives=False).epoch()
    assert all(batch.negatives is None for batch in without)


def alike(kind: type[Textbook], settings: Mapping[str, Any], data: Dataset) -> tuple[Any, Textbook]:
    """Our model and the textbook with the same parameters."""
    entry = find_model(kind.__name__.removeprefix("Textbook"))
    config = entry.model.Config(**settings)
    ours, textbook = entry.model(data, config, torch.Generator().manual_seed(0)), kind(data, config)
    if isinstance(textbook, TextbookDualGNN):
        drawn = np.random.default_rng(3).random((data.n_users, config.n_neighbours))
        graph = co_occurring_users(ours._adjacency, data.n_users, config.n_neighbours).padded(drawn)
        ours.set_user_graph(*graph)
        textbook.set_user_graph(*graph)
    with torch.no_grad():
        for theirs, parameter in pairs(ours, textbook).values():
            theirs.copy_(parameter)
    return ours, textbook


def named_parameters(textbook: Textbook) -> dict[str, torch.nn.Parameter]:
    """Parameters of the textbook under the names used in recorded traces."""
    return {
        name.split(".", 1)[1] if name.startswith(CONTAINERS) else name: parameter
        for name, parameter in textbook.named_parameters()
    }


def pairs(ours: Any, textbook: Textbook) -> dict[str, tuple[Tensor, Tensor]]:
    """Per name the textbook's parameter and ours; what one of the two lacks takes no part in the other's loss."""
    trace_tensors = find_model(type(ours).__name__).trace_tensors
    assert trace_tensors is not None
    tensors = trace_tensors(ours)
    return {name: (parameter, tensors[name]) for name, parameter in named_parameters(textbook).items()}


def dense(gradient: Tensor) -> Tensor:
    """A gradient whose rows may have been listed."""
    return gradient.to_dense() if gradient.is_sparse else gradient


def check_agreement(ours: Any, textbook: Textbook, batch: Batch, *, moving_only: bool = False) -> list[Tensor]:
    """Loss and gradients agree. Gives the textbook's parameters whose gradients were compared.

    With `moving_only`, a parameter may have zeros for a gradient: a weight over one modality is such.
    """
    ours.zero_grad()
    textbook.zero_grad()
    loss, expected = textbook.loss(batch), ours.loss(batch).total
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    compared = []
    for name, (theirs, parameter) in pairs(ours, textbook).items():
        if not parameter.requires_grad:
            continue
        assert (theirs.grad is None) == (parameter.grad is None), name
        if parameter.grad is not None:
            gradient = dense(parameter.grad)
            largest = gradient.abs().max().item()
            assert largest > 0 or moving_only, name
            torch.testing.assert_close(
                theirs.grad,
                gradient,
                rtol=1e-3,
                atol=1e-5 * largest,
                msg=lambda text, name=name: f"{name}: {text}",
            )
            compared.append(theirs)
    paired = {id(parameter) for _, parameter in pairs(ours, textbook).values()}
    assert all(parameter.grad is None for parameter in ours.parameters() if id(parameter) not in paired)
    return compared


def agree(ours: Any, textbook: Textbook, batch: Batch) -> bool:
    try:
        check_agreement(ours, textbook, batch)
    except AssertionError:
        return False
    return True


def move_together(ours: Any, textbook: Textbook) -> None:
    """Change all parameters, alike on both sides."""
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for theirs, parameter in pairs(ours, textbook).values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=noise)
            theirs.copy_(parameter)


def renew(ours: Any, textbook: Textbook) -> None:
    """Drop LATTICE's item graphs."""
    if isinstance(textbook, TextbookLATTICE):
        ours.start_epoch(torch.Generator())
        textbook.start_epoch()


def batch_of(data: Dataset, number: int) -> Batch:
    """A fifth of the training interactions with uniform negatives."""
    users, items = torch.from_numpy(data.train[number::5].astype("int64")).T
    return Batch(
        users, items, torch.randint(data.n_items, items.shape, generator=torch.Generator().manual_seed(number))
    )


def informed_vectors(data: Dataset) -> Vectors:
    """Users lie near the items of all their parts, so that there are hits at every rank."""
    draw = torch.Generator().manual_seed(0)
    items = torch.randn(data.n_items, EMBEDDING_SIZE, generator=draw)
    users = 4 * torch.randn(data.n_users, EMBEDDING_SIZE, generator=draw)
    for part in PARTS:
        of_user, of_item = torch.from_numpy(data.part(part).astype(np.int64)).T
        users.index_add_(0, of_user, items[of_item])
    return Vectors(users, items)
