"""A whole epoch of ours ends where a whole epoch of the textbook ends, from the same parameters and choices.

Ours is trained as `harness.training.fit` does it; the textbook by torch's default Adam. Both do it in float32, except
where an epoch multiplies rounding: Adam moves an entry by the sign of its gradient however small that is, and behind a
LeakyReLU that is decided by rounding (two textbooks of MMGCN whose parameters differ by 6e-8 end 0.03 apart). Those
models are compared in float64, which leaves what is computed as it is.
"""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from alike import alike, dense, pairs
from bench import LEARNING_RATE
from textbook import (
    Textbook,
    TextbookBM3,
    TextbookBPR,
    TextbookBUIR,
    TextbookDualGNN,
    TextbookGRCN,
    TextbookLATTICE,
    TextbookLightGCN,
    TextbookMMGCN,
    TextbookVBPR,
)
from textbook.shared import degrees
from torch import Tensor

from harness.data import Dataset
from harness.data.synthetic import mini
from harness.training.accelerators import rows
from harness.training.batches import EpochBatches
from harness.training.optimiser import adam
from harness.training.streams import Streams

BATCH_SIZE = 256
CLOSE = 1e-4  # of the loss, or of the largest entry of a tensor
CLOSE_MOVEMENT = 1e-2  # of the largest change of a parameter, where parameters are large beside their changes
IN_FLOAT64 = (TextbookVBPR, TextbookMMGCN, TextbookGRCN, TextbookDualGNN)

CASES: list[tuple[type[Textbook], dict[str, Any]]] = [
    (TextbookBPR, {}),
    (TextbookLightGCN, {}),
    (TextbookBUIR, {}),
    (TextbookVBPR, {}),
    (TextbookMMGCN, {}),
    (TextbookGRCN, {}),
    (TextbookDualGNN, {}),
    (TextbookLATTICE, {}),
    (TextbookBM3, {"dropout": 0}),
]
IDS = [kind.__name__.removeprefix("Textbook") for kind, _ in CASES]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return mini()


@pytest.mark.parametrize(("kind", "settings"), CASES, ids=IDS)
def test_an_epoch_of_ours_is_an_epoch_of_the_textbook(
    kind: type[Textbook], settings: Mapping[str, Any], data: Dataset
) -> None:
    ours, textbook = alike(kind, settings, data)
    if kind in IN_FLOAT64:
        to_float64(ours, textbook)
    check_epoch(ours, textbook, data)


@pytest.mark.parametrize("by_row", [False, True], ids=["dense", "by row"])
def test_an_epoch_of_bm3_with_dropout_is_one_of_the_textbook_with_the_same_masks(
    by_row: bool, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_row:
        pytest.importorskip("numba", reason="tables move by row where numba is installed")
        monkeypatch.setattr(rows, "SMALLEST", 0)
    ours, textbook = alike(TextbookBM3, {"dropout": 0.3}, data)
    masks = Masks(ours, data)
    textbook.target = masks.applied
    check_epoch(ours, textbook, data, masks)


class Masks:
    """Which entries of BM3's targets survive a step, for both sides."""

    def __init__(self, ours: Any, data: Dataset) -> None:
        self._dropout, d = ours.config.dropout, ours.config.embedding_size
        self._shapes = {"user": (data.n_users, d)} | dict.fromkeys(["item", *data.features], (data.n_items, d))
        self._draw = torch.Generator().manual_seed(5)
        self.keep: dict[str, Tensor] = {}

    def renew(self) -> None:
        """Others for the next step."""
        drawn = {view: torch.rand(shape, generator=self._draw) for view, shape in self._shapes.items()}
        self.keep = {view: chance >= self._dropout for view, chance in drawn.items()}

    def applied(self, view: str, h: Tensor) -> Tensor:
        """In the place of the textbook's dropout."""
        return h.detach() * self.keep[view] / (1 - self._dropout)


def check_epoch(ours: Any, textbook: Textbook, data: Dataset, masks: Masks | None = None) -> None:
    """Losses of every step, gradients of the last step and all parameters at the end agree."""
    before = {name: parameter.detach().clone() for name, (_, parameter) in pairs(ours, textbook).items()}
    optimiser, of_textbook = adam(ours, LEARNING_RATE), torch.optim.Adam(textbook.trained(), lr=LEARNING_RATE)
    start_epoch(ours, textbook)
    batches = list(batches_of(ours, data).epoch(1))
    assert len(batches) > 10
    for batch in batches:
        if masks is not None:
            masks.renew()
        optimiser.zero_grad()
        textbook.zero_grad()
        loss = (ours.loss(batch) if masks is None else ours.loss(batch, masks.keep)).total
        expected = textbook.loss(batch)
        loss.backward()
        expected.backward()
        assert loss.item() == pytest.approx(expected.item(), rel=CLOSE)
        if batch is batches[-1]:
            check_gradients(ours, textbook)
        optimiser.step()
        of_textbook.step()
        if hasattr(ours, "after_step"):
            ours.after_step()
        textbook.after_step()
    ours.state_dict()  # what the optimiser put off is done when the state is read
    for name, (theirs, parameter) in pairs(ours, textbook).items():
        end, expected_end = parameter.detach(), theirs.detach()
        assert_close(name, end, expected_end)
        if moves(theirs, textbook):
            assert_close(f"change of {name}", end - before[name], expected_end - before[name], CLOSE_MOVEMENT)
        else:
            assert torch.equal(expected_end, before[name]), name


def to_float64(ours: Any, textbook: Textbook) -> None:
    """Both sides in float64. The graph's values stay rounded to float32 as ours holds them."""
    ours.double()
    textbook.double()
    for part in textbook.modules():
        if hasattr(part, "features") and isinstance(part.features, Tensor):
            part.features = part.features.double()
        if hasattr(part, "degree"):
            part.degree = 1 / (1 / part.degree.double()).float().double()
        if hasattr(part, "norm"):
            degree = degrees(part.target, textbook.n_nodes).double()
            part.norm = ((degree[part.source] * degree[part.target]) ** -0.5)[:, None].float().double()


def start_epoch(ours: Any, textbook: Textbook) -> None:
    """Begin an epoch on both sides, with the same draws."""
    if hasattr(ours, "start_epoch"):
        ours.start_epoch(torch.Generator().manual_seed(6))
    textbook.start_epoch()
    if isinstance(textbook, TextbookDualGNN):
        textbook.set_user_graph(ours.user_graph_index.numpy(), ours.user_graph_weight.numpy())
        textbook.user_weight = textbook.user_weight.to(textbook.weight_u)


def batches_of(ours: Any, data: Dataset) -> EpochBatches:
    return EpochBatches(
        data.train,
        data.n_items,
        batch_size=BATCH_SIZE,
        uses_negatives=ours.uses_negatives,
        streams=Streams(0),
        device=torch.device("cpu"),
    )


def check_gradients(ours: Any, textbook: Textbook) -> None:
    """Before the step, which may use gradients up."""
    compared = 0
    for name, (theirs, parameter) in pairs(ours, textbook).items():
        if parameter.requires_grad:
            assert (theirs.grad is None) == (parameter.grad is None), name
            if theirs.grad is not None:
                assert_close(f"gradient of {name}", dense(parameter.grad), theirs.grad)
                compared += 1
    assert compared


def moves(theirs: Tensor, textbook: Textbook) -> bool:
    """Whether training changes a parameter of the textbook: all that it trains, and BUIR's targets."""
    return isinstance(textbook, TextbookBUIR) or any(theirs is parameter for parameter in textbook.trained())


def assert_close(name: str, actual: Tensor, expected: Tensor, close: float = CLOSE) -> None:
    """No entry is further off than `close` times the largest entry of the expected tensor, which is not 0."""
    largest = expected.abs().max().item()
    assert largest > 0, name
    error = (actual - expected).abs().max().item() / largest
    assert error <= close, f"{name} is off by {error:.1e} of its largest entry"
