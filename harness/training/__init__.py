"""Deterministic training: named streams, batches, the epoch loop. Models and the run store are elsewhere."""

from harness.training.checkpoint import Checkpoints, TrainingState
from harness.training.config import EarlyStopping, EvaluationSettings, TrainingConfig
from harness.training.fit import EpochRecord, Fit, Resume, StoppingRule, build, fit
from harness.training.streams import Streams

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
    "fit",
]
