"""Reads `regression.toml`: what counts as a regression, what is measured for it, and how often."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from harness.paper.load import STRICT, Share, validated_file

Count = Annotated[int, Field(ge=1, strict=True)]
Factor = Annotated[float, Field(gt=1, strict=True)]


@dataclass(frozen=True, config=STRICT)
class TimeRule:
    """When a subject is slower."""

    factor: Factor
    """Medians and first quartiles must both differ by more than this."""
    level: Share
    """Of the one-sided test, after correction for the number of subjects."""
    max_spread: Annotated[float, Field(gt=0, strict=True)]
    """Interquartile range over median above which nothing is judged, unless the sides do not overlap."""
    min_repetitions: Count


@dataclass(frozen=True, config=STRICT)
class MemoryRule:
    """When a subject needs more memory."""

    factor: Factor
    """Each peak now must be larger than each before by more than this."""
    least_bytes: Count
    """Changes of less than this are never counted."""


@dataclass(frozen=True, config=STRICT)
class AccuracyRule:
    """When a subject is less accurate: its mean over seeds lies below the band around the mean before."""

    relative: Share
    """Half-width of the band as a share of the mean before."""
    models: dict[str, Share] = Field(default_factory=dict)
    """Bands of their own."""


@dataclass(frozen=True, config=STRICT)
class Workload:
    """What is measured."""

    models: Annotated[tuple[str, ...], Field(min_length=1)]
    seeds: Annotated[tuple[int, ...], Field(min_length=2)]
    training: dict[str, Any]
    """Settings of short trainings."""
    training_of: dict[str, dict[str, Any]]
    """What differs in it, by model."""
    steps: dict[str, dict[str, Count]]
    """Device → model → steps of a timed block; the first one begins an epoch."""


@dataclass(frozen=True, config=STRICT)
class Repetitions:
    """How often everything is measured."""

    passes: Count
    """Processes one after another: what a process happens to get, addresses for one, is the same for all its rounds."""
    rounds: Count
    """Blocks of each subject per pass."""
    memory: Count
    """Peaks of each subject, each from a process of its own."""


@dataclass(frozen=True, config=STRICT)
class Rules:
    """The whole file."""

    time: TimeRule
    wall: TimeRule
    memory: MemoryRule
    accuracy: AccuracyRule
    workload: Workload
    presets: dict[str, Repetitions]
    """Of a `quick` check, of the `default` one, and of the `baseline` that both are compared with."""


def load_rules(path: Path) -> Rules:
    """Raises DataError naming the file and the field."""
    return validated_file(path, TypeAdapter(Rules))
