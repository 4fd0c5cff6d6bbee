"""The two sides that the benchmark compares for every subject, by name: the textbook and ours."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import textbook
import torch
from bench import BATCH_SIZE, Step, Steps, our_steps, textbook_steps
from torch import Tensor

from bm3 import Batch, Data, Recommender
from harness.data.dataset import Dataset
from harness.evaluation.ranking import Evaluation
from harness.models.registry import find_model
from harness.training.batches import EpochBatches
from harness.training.streams import Streams

Side = Literal["textbook", "ours"]
SIDES: tuple[Side, ...] = ("textbook", "ours")
EVALUATION = "evaluation"
EMBEDDING_SIZE = 64  # of the vectors that are evaluated


class Subject(NamedTuple):
    """A model that is trained by both sides."""

    name: str
    settings: Mapping[str, Any] = {}
    """Of our model; the textbook has the published defaults."""
    slow: bool = False
    """Whether the textbook takes too long for many steps."""

    @property
    def model(self) -> Any:
        """Our model's class."""
        return find_model(self.name).model

    @property
    def baseline(self) -> type[textbook.Textbook]:
        return textbook.MODELS[self.name]

    @property
    def renews(self) -> bool:
        """Whether the first step of an epoch costs more than others."""
        return self.baseline.start_epoch is not textbook.Textbook.start_epoch


SUBJECTS = {
    **{name: Subject(name) for name in ("BPR", "LightGCN", "BUIR", "VBPR")},
    **{name: Subject(name, slow=True) for name in ("MMGCN", "GRCN", "DualGNN", "LATTICE")},
    **{f"BM3 {kind}": Subject("BM3", {"features": kind}) for kind in ("trained", "frozen")},
}


def steps_of(name: str, side: Side, data: Data, batches: list[Batch]) -> Steps:
    """Steps of a new model with its published defaults."""
    subject = SUBJECTS[name]
    if side == "textbook":
        torch.manual_seed(0)
        return textbook_steps(subject.baseline(data), batches)
    config = subject.model.Config(**subject.settings)
    return our_steps(subject.model(data, config, torch.Generator().manual_seed(0)), batches)


def batches_of(name: str, side: Side, data: Data) -> Step:
    """Makes all batches of one epoch, with negatives where the model needs them, and drops them."""
    uses_negatives = SUBJECTS[name].model.uses_negatives
    if side == "textbook":
        theirs = textbook.Batches(data.train, batch_size=BATCH_SIZE, uses_negatives=uses_negatives)
        return lambda: list(theirs.epoch())
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
        theirs = textbook.Evaluation(dataset)
        return lambda: [theirs(users, items, part) for part in ("valid", "test")]
    ours, vectors = Evaluation(dataset), Vectors(users, items)
    return lambda: [ours(vectors, part, torch.device("cpu")) for part in ("valid", "test")]


class Vectors(Recommender):
    """As much of a model as an evaluation reads."""

    def __init__(self, users: Tensor, items: Tensor) -> None:
        super().__init__()
        self.users, self.items = users, items

    def embed(self) -> tuple[Tensor, Tensor]:
        return self.users, self.items
