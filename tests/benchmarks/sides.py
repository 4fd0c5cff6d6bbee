"""The two sides that the benchmark compares for every subject, by name: the textbook and ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from bench import BATCH_SIZE, Step, Steps, our_steps, textbook_steps
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

from bm3 import Batch, Data, Recommender
from harness.data import Dataset
from harness.evaluation.ranking import Evaluation
from harness.models.registry import find_model
from harness.training.batches import EpochBatches
from harness.training.streams import Streams

Side = Literal["textbook", "ours"]
SIDES: tuple[Side, ...] = ("textbook", "ours")
EVALUATION = "evaluation"
EMBEDDING_SIZE = 64  # of the vectors that are evaluated


@dataclass(frozen=True)
class Subject:
    """A model that is trained by both sides."""

    textbook: type[Textbook]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of our model; the textbook has the published defaults."""
    slow: bool = False
    """Whether the textbook takes too long for many steps."""

    @property
    def model(self) -> Any:
        """Our model's class."""
        return find_model(self.textbook.__name__.removeprefix("Textbook")).model

    @property
    def renews(self) -> bool:
        """Whether the first step of an epoch costs more than others."""
        return self.textbook.start_epoch is not Textbook.start_epoch


SUBJECTS = {
    "BPR": Subject(TextbookBPR),
    "LightGCN": Subject(TextbookLightGCN),
    "BUIR": Subject(TextbookBUIR),
    "VBPR": Subject(TextbookVBPR),
    "MMGCN": Subject(TextbookMMGCN, slow=True),
    "GRCN": Subject(TextbookGRCN, slow=True),
    "DualGNN": Subject(TextbookDualGNN, slow=True),
    "LATTICE": Subject(TextbookLATTICE, slow=True),
    "BM3 trained": Subject(TextbookBM3, {"features": "trained"}),
    "BM3 frozen": Subject(TextbookBM3, {"features": "frozen"}),
}


def steps_of(name: str, side: Side, data: Data, batches: list[Batch]) -> Steps:
    """Steps of a new model with its published defaults."""
    subject = SUBJECTS[name]
    if side == "textbook":
        torch.manual_seed(0)
        return textbook_steps(subject.textbook(data), batches)
    config = subject.model.Config(**subject.settings)
    return our_steps(subject.model(data, config, torch.Generator().manual_seed(0)), batches)


def batches_of(name: str, side: Side, data: Data) -> Step:
    """Makes all batches of one epoch, with negatives where the model needs them, and drops them."""
    uses_negatives = SUBJECTS[name].model.uses_negatives
    if side == "textbook":
        textbook = TextbookBatches(data.train, batch_size=BATCH_SIZE, uses_negatives=uses_negatives)
        return lambda: list(textbook.epoch())
    ours = EpochBatches(
        data.train,
        data.n_items,
        batch_size=BATCH_SIZE,
        uses_negatives=uses_negatives,
        streams=Streams(0),
        device=torch.device("cpu"),
    )
    return lambda: list(ours.epoch(1))


def evaluation_of(side: Side, dataset: Dataset) -> Step:
    """Validation and test of the same random vectors on both sides."""
    draw = torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, EMBEDDING_SIZE, generator=draw) for n in (dataset.n_users, dataset.n_items))
    if side == "textbook":
        textbook = TextbookEvaluation(dataset)
        return lambda: [textbook(users, items, part) for part in ("valid", "test")]
    ours, vectors = Evaluation(dataset), Vectors(users, items)
    return lambda: [ours(vectors, part, torch.device("cpu")) for part in ("valid", "test")]


class Vectors(Recommender):
    """As much of a model as an evaluation reads."""

    def __init__(self, users: Tensor, items: Tensor) -> None:
        super().__init__()
        self.users, self.items = users, items

    def embed(self) -> tuple[Tensor, Tensor]:
        return self.users, self.items
