"""The two sides that the benchmark compares for each of five models, by name: the textbook and our model."""

from typing import Literal

import torch
from bench import Steps, our_steps, textbook_steps
from textbook import (
    Textbook,
    TextbookDualGNN,
    TextbookGRCN,
    TextbookLATTICE,
    TextbookMMGCN,
    TextbookVBPR,
)

from bm3 import Batch, TrainingData
from harness.models.registry import find_model

Side = Literal["textbook", "ours"]
SIDES: tuple[Side, ...] = ("textbook", "ours")
TEXTBOOKS: dict[str, type[Textbook]] = {
    "VBPR": TextbookVBPR,
    "MMGCN": TextbookMMGCN,
    "GRCN": TextbookGRCN,
    "DualGNN": TextbookDualGNN,
    "LATTICE": TextbookLATTICE,
}


def renews(name: str) -> bool:
    """Whether the first step of an epoch costs more than others."""
    return TEXTBOOKS[name].start_epoch is not Textbook.start_epoch


def steps_of(name: str, side: Side, data: TrainingData, batches: list[Batch]) -> Steps:
    """Steps of a new model with its published defaults."""
    if side == "textbook":
        torch.manual_seed(0)
        return textbook_steps(TEXTBOOKS[name](data), batches)
    model = find_model(name).model
    return our_steps(model(data, model.Config(), torch.Generator().manual_seed(0)), batches)
