"""Deterministic training: named streams, batches, the epoch loop. Models and the run store are elsewhere."""

from harness.training.config import EarlyStopping, EvaluationSettings, TrainingConfig
from harness.training.fit import EpochRecord, Fit, StoppingRule, build, fit
from harness.training.streams import Streams

__all__ = [
    "EarlyStopping",
    "EpochRecord",
    "EvaluationSettings",
    "Fit",
    "StoppingRule",
    "Streams",
    "TrainingConfig",
    "build",
    "fit",
]
