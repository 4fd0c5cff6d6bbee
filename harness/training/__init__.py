"""Deterministic training: named streams, batches, the epoch loop. Models and the run store are elsewhere."""

from typing import TYPE_CHECKING

from harness.common import lazily

if TYPE_CHECKING:
    from harness.training.checkpoint import Checkpoints, TrainingState
    from harness.training.config import EarlyStopping, EvaluationSettings, TrainingConfig
    from harness.training.fit import EpochRecord, Fit, Resume, StoppingRule, build
    from harness.training.streams import Streams
else:
    __getattr__ = lazily(__name__, "config", "streams", "checkpoint", "fit")

# The function `fit` is not lifted up here, since the module of the same name would hide it.
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
