"""The baselines of the benchmark are no straw men: they compute what the project's own code computes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sides import EMBEDDING_SIZE, Vectors
from textbook import MODELS, Batches, Textbook
from textbook import Evaluation as TextbookEvaluation
from torch import Tensor

from bm3 import Batch
from harness.data.dataset import PARTS, Dataset, Part
from harness.data.synthetic import mini
from harness.evaluation.ranking import Evaluation
from harness.models.dualgnn import co_occurring_users
from harness.models.registry import find_model

# Weights of the regularisers are such that a mistake in them shows.
CASES: list[tuple[str, dict[str, Any]]] = [
    ("BPR", {"reg_weight": 10.0}),
    ("LightGCN", {"reg_weight": 10.0}),
    ("LightGCN", {"reg_weight": 10.0, "n_layers": 3}),
    ("BUIR", {}),
    ("BUIR", {"n_layers": 1}),
    ("BM3", {"dropout": 0, "n_layers": 1, "reg_weight": 10.0}),
    ("BM3", {"dropout": 0, "n_layers": 2, "reg_weight": 10.0}),
    ("VBPR", {"reg_weight": 10.0}),
    ("MMGCN", {"reg_weight": 10.0}),
    ("MMGCN", {"reg_weight": 10.0, "training": "as_authored"}),  # compares gradients that are not used, too
    ("GRCN", {"reg_weight": 10.0}),
    ("DualGNN", {"reg_weight": 1.0}),
    ("LATTICE", {"reg_weight": 10.0}),
    ("LATTICE", {"reg_weight": 10.0, "n_layers": 2, "n_ui_layers": 1}),
]
IDS = ["-".join([name, *map(str, settings.values())]) for name, settings in CASES]
CONTAINERS = ("branches.", "features.", "projections.")  # of textbook models; recorded traces do not name them


@pytest.fixture(scope="module")
def data() -> Dataset:
    return mini()


@pytest.mark.parametrize(("name", "settings"), CASES, ids=IDS)
def test_textbook_has_the_loss_and_gradients_of_our_model(
    name: str, settings: Mapping[str, Any], data: Dataset
) -> None:
    ours, textbook = alike(name, settings, data)
    compared = check_agreement(ours, textbook, batch_of(data, 0))
    assert {id(parameter) for parameter in textbook.trained()} <= {id(parameter) for parameter in compared}
    found = ours.loss(batch_of(data, 0))
    assert name == "BUIR" or found.parts["regulariser"] > 1e-3 * found.total  # a mistake in it shows


@pytest.mark.parametrize("modalities", [("visual",), ("text",), ("visual", "acoustic", "text")], ids="+".join)
@pytest.mark.parametrize("name", ["VBPR", "MMGCN", "GRCN", "DualGNN", "LATTICE"])
def test_they_agree_with_one_modality_and_with_three(name: str, modalities: tuple[str, ...], data: Dataset) -> None:
    draw = np.random.default_rng(7)
    features = {one: draw.normal(size=(data.n_items, 9 + k)).astype("float32") for k, one in enumerate(modalities)}
    some = replace(data, features=features)
    ours, textbook = alike(name, {"reg_weight": 1.0}, some)
    check_agreement(ours, textbook, batch_of(some, 0), moving_only=True)


def test_textbook_lattice_uses_the_detached_graph_until_the_next_epoch(data: Dataset) -> None:
    ours, textbook = alike("LATTICE", {"reg_weight": 10.0}, data)
    with_gradient = len(check_agreement(ours, textbook, batch_of(data, 0)))
    move_together(ours, textbook)  # the graph of the first batch must stay what it was
    assert len(check_agreement(ours, textbook, batch_of(data, 1))) == 2  # the ID tables
    ours.start_epoch(torch.Generator())
    textbook.start_epoch()
    assert len(check_agreement(ours, textbook, batch_of(data, 2))) == with_gradient > 2


def test_buir_notices_the_targets_of_both_sides(data: Dataset) -> None:
    ours, textbook = alike("BUIR", {}, data)
    for table in textbook.target_encoder.parameters():
        before = table.clone()
        table += 0.1 * torch.randn(table.shape, generator=torch.Generator().manual_seed(4))
        with pytest.raises(AssertionError):
            check_agreement(ours, textbook, batch_of(data, 0))
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
    batches = list(Batches(data.train, batch_size=256, uses_negatives=True).epoch())
    users, items, negatives = (torch.cat(column).numpy() for column in zip(*batches, strict=True))
    assert {len(batch.users) for batch in batches[:-1]} == {256}
    assert sorted(zip(users, items, strict=True)) == sorted(map(tuple, data.train))
    assert not set(zip(users, negatives, strict=True)) & set(map(tuple, data.train))
    assert len(np.unique(negatives)) > 0.9 * data.n_items
    without = Batches(data.train, batch_size=256, uses_negatives=False).epoch()
    assert all(batch.negatives is None for batch in without)


def alike(name: str, settings: Mapping[str, Any], data: Dataset) -> tuple[Any, Textbook]:
    """Our model and the textbook with the same parameters."""
    model = find_model(name).model
    config = model.Config(**settings)
    ours, textbook = model(data, config, torch.Generator().manual_seed(0)), MODELS[name](data, config)
    if name == "DualGNN":
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


def move_together(ours: Any, textbook: Textbook) -> None:
    """Change all parameters, alike on both sides."""
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for theirs, parameter in pairs(ours, textbook).values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=noise)
            theirs.copy_(parameter)


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
