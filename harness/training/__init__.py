"""Deterministic training: named streams, batches, the epoch loop. Models and the run store are elsewhere."""

from typing import TYPE_CHECKING

from harness.lazy import lazy
from harness.training.config import EarlyStopping, EvaluationSettings, TrainingConfig

__all__ = [
    "Checkpoints",
    "EarlyStopping",
    "EpochRecord",
    "EvaluationSettings",
    "Fit",
    "Resume",
    "StoppingRule",
    "Streams",
    "TrainingConfig",
    "TrainingState",
    "build",
]

if TYPE_CHECKING:
    from harness.training.checkpoint import Checkpoints, TrainingState
    from harness.training.fit import EpochRecord, Fit, Resume, StoppingRule, build
    from harness.training.streams import Streams
else:
    __getattr__ = lazy(  # without the function `fit`, which has the name of its module
        __name__,
        {
            "checkpoint": ("Checkpoints", "TrainingState"),
            "fit": ("EpochRecord", "Fit", "Resume", "StoppingRule", "build"),
            "streams": ("Streams",),
        },
    )
