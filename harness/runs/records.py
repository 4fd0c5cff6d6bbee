"""What the files of a run must hold to be read by everything that reads runs. Files and folders are `store`.

A file may hold more, and may lack what has a default here, which came with a later version.
"""

import shlex
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator


def _time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def _reported(metrics: dict[str, float]) -> dict[str, float]:
    if missing := [name for name in METRICS if name not in metrics]:
        raise ValueError(f"lacks {', '.join(missing)}")
    return metrics


METRICS = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
"""Those that every run has and reports show."""


def _words(text: str) -> str:
    shlex.split(text)
    return text


Time = Annotated[str, AfterValidator(_time)]
Count = Annotated[int, Field(ge=0)]
Metrics = Annotated[dict[str, float], AfterValidator(_reported)]


class Record(BaseModel):
    """A JSON object with these fields, and perhaps others."""

    model_config = ConfigDict(strict=True)


class Evaluation(Record):
    top_k: Annotated[int, Field(ge=1)] = 1


class EarlyStopping(Record):
    patience: int = 0


class Training(Record):
    epochs: int
    evaluation: Evaluation = Evaluation()
    early_stopping: EarlyStopping = EarlyStopping()


class Data(Record):
    name: str
    users: Count
    items: Count
    interactions: dict[str, Count]
    modalities: dict[str, list[Any]]
    surrogates: list[str]


class Resumed(Record):
    after_epoch: int
    when: str
    changed: dict[str, Annotated[list[Any], Field(min_length=2, max_length=2)]]


class Run(Record):
    model: str
    config: dict[str, Any]
    training: Training
    dataset: Data
    dataset_hash: str
    seed: int
    searched: list[str]
    changed: list[str] = []
    reads_features: bool
    command: Annotated[str, AfterValidator(_words)]
    environment: dict[str, Any]
    resumed: list[Resumed] = []

    @model_validator(mode="after")
    def _has_what_was_searched(self) -> Self:
        if unknown := [key for key in self.searched if key not in self.config]:
            raise ValueError(f"searched settings {', '.join(unknown)} are not in its config")
        return self


class Timing(Record):
    median_s: float | None
    q1_s: float | None
    q3_s: float | None
    warmup_s: float | None
    evaluation_median_s: float | None
    note: str | None
    warm_up_epochs: int = 0
    warm_up_note: str | None = None


class Reading(Record):
    bytes: int | None
    note: str | None


class Memory(Record):
    gpu_process_peak: Reading
    gpu_device_peak: Reading
    allocator_peak: Reading
    allocator_reserved_peak: Reading
    process_rss_peak: Reading


class Energy(Record):
    joules: float | None
    per_epoch: float | None
    epochs: int
    note: str | None


class Result(Record):
    finished: Time
    best_epoch: int
    epochs: int
    valid: Metrics
    test: Metrics
    timing: Timing
    memory: Memory
    energy: dict[str, Energy] = {}
    device_notes: list[str] = []
    parameters: int = 0


class Failure(Record):
    kind: str
    message: str
    when: str


class Epoch(Record):
    epoch: int
    loss: float
    parts: dict[str, float]
    seconds: float
    evaluation_seconds: float
    sampling_seconds: float = 0.0
    valid: Metrics
    improved: bool


def check(content: Any, form: type[Record]) -> None:
    """Raises ValueError with what is missing, or what is the first that is not as it must be."""
    try:
        form.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        places = [".".join(map(str, one["loc"])) for one in problems]
        missing = [place for place, one in zip(places, problems, strict=True) if one["type"] == "missing"]
        first = ": ".join(filter(None, [places[0], problems[0]["msg"].removeprefix("Value error, ")]))
        raise ValueError(f"lacks {', '.join(missing)}" if missing else first) from None
