"""Settings of training that are the same for every model. Hyper-parameters of models are with the models."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from bm3.data import Variant
from harness.common import check_config, require
from harness.evaluation.words import canonical_metric

NUMERICS_VERSION = 1
"""Raised whenever the same model, settings and seed come out with other numbers, by more than rounding, for a reason
that is no single model's: random streams, batches and negatives, Adam, stopping, ranking, metrics, or pieces that
models share. Part of every run's identity: runs of a former version no longer stand for their trial. A change of one
model alone raises its class's `numerics_version`."""
STOPPING_METRIC = "recall@20"
"""Unless another one is set; also what lists of runs show."""
MATMUL_PRECISION = {"float32": "highest", "tf32": "high", "bf16": "medium"}  # what torch calls them


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """When training ends before the last epoch."""

    patience: int = 20
    """Stop after more than this many validations in a row without a new best."""
    metric: str = STOPPING_METRIC
    """Validation metric that ends training, chooses the epoch and compares grid points, such as R@20 or ndcg@10."""
    rounding: Literal[4, "none"] = 4
    """Decimals the metric is rounded to before it is compared; the published code rounds to 4."""

    VARIANTS: ClassVar[Mapping[str, Variant]] = {
        "rounding": Variant(
            text="a better validation metric is a new best (none)",
            code="it is rounded to four decimals first; what rounds to the best value so far is no new best (4)",
            where="harness.training.fit.StoppingRule",
        ),
    }

    def __post_init__(self) -> None:
        from harness.evaluation.metrics import metrics_of_hits

        check_config(self, patience=0)
        object.__setattr__(self, "metric", canonical_metric(self.metric))
        name, _, cutoff = self.metric.partition("@")
        stops = name in metrics_of_hits() and re.fullmatch("[1-9][0-9]{0,5}", cutoff)
        require(self, "metric", bool(stops), f"{', '.join(metrics_of_hits())} at a cut-off, such as ndcg@10")


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How users are ranked for, and what is hidden from the ranking."""

    mask_validation: bool = False
    """Mask validation items when ranking for the test part; the published code masks training items only."""
    top_k: int = 50
    """Length of the lists: metrics are at 5, 10, 20 and 50 as far as that goes, and at this cut-off."""
    block_users: int = 0
    """Users scored at a time, which bounds the memory; 0: as many as suit the device."""

    VARIANTS: ClassVar[Mapping[str, Variant]] = {
        "mask_validation": Variant(
            text="items a user is known to have are not ranked (True)",
            code="only training items are masked, also at test time (False)",
            where="harness.evaluation.ranking.Evaluator",
        ),
    }

    def __post_init__(self) -> None:
        check_config(self, top_k=1, block_users=0)


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """What models read as item vectors: those given, or controls that show whether their content matters."""

    content: Literal["given", "permuted", "noise", "ones"] = "given"
    """`permuted` among items, all modalities alike; Gaussian `noise`, or `ones`, of the same norms."""
    modality: str = "all"
    """The only one that is read, such as `visual`."""
    norm: float = 0.0
    """Euclidean norm of every vector; 0: as given."""

    def __post_init__(self) -> None:
        check_config(self, norm=0)
        require(self, "modality", bool(self.modality), "all or the name of a modality")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The published training procedure, and what may differ from it."""

    epochs: int = 1000
    """Upper limit of epochs."""
    batch_size: int = 2048
    """Interactions per step; the last batch of an epoch is shorter."""
    learning_rate: float = 1e-3
    """Of Adam, with β = (0.9, 0.999) and ε = 1e-8."""
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)
    """Metric, patience and rounding."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """Lists and masking."""
    features_location: Literal["device", "memory", "disk"] = "device"
    """Where given features lie: on the device of the model; in main memory, or in their file, of which a batch's rows
    alone are read, ahead of need (BM3 with frozen features and VBPR; the other models read all rows in every step)."""
    vectors: Vectors = field(default_factory=Vectors)
    """Content, modality and norm."""
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """Of the factors of matrix products in training; sums and all else are float32. `bf16` is for CPUs: torch would
    compute with TF32 in its place on a GPU, and that is refused. `tf32` changes nothing on most CPUs."""

    def __post_init__(self) -> None:
        cutoff = int(self.early_stopping.metric.partition("@")[2])
        lists = self.evaluation
        require(lists, "top_k", lists.top_k >= cutoff, f"at least {cutoff}, the cut-off of early stopping")
        check_config(self, epochs=1, batch_size=1)
        require(self, "learning_rate", self.learning_rate > 0, "above 0")

    def check_device(self, kind: str) -> None:
        """Raises ConfigError where torch would silently compute in another precision on `cpu` or `cuda`."""
        instead = "another on a GPU, where torch computes with TF32 in its place: precision=tf32 or precision=float32"
        require(self, "precision", kind != "cuda" or self.precision != "bf16", instead)
