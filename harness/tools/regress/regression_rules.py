"""Reads `expected/bm3/regression.toml`: what counts as a regression, what is measured for it, and how often."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from harness.paper.expected import STRICT, Seeds, Share, Tolerance, validated_toml

Count = Annotated[int, Field(ge=1, strict=True)]
Factor = Annotated[float, Field(gt=1, strict=True)]
Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, config=STRICT)
class TimeRule:
    """When a subject is slower."""

    factor: Factor
    """Medians and first quartiles must both differ by more than this."""
    level: Share
    """Of the one-sided test, after correction for the number of subjects."""
    max_spread: Annotated[float, Field(gt=0, strict=True)]
    """Interquartile range over median above which a measurement is unstable, unless the sides do not overlap."""
    min_repetitions: Count
    justification: Text


@dataclass(frozen=True, config=STRICT)
class MemoryRule:
    """When a subject needs more memory."""

    factor: Factor
    """Each peak now must be larger than each before by more than this."""
    least_bytes: Count
    """Changes of less than this are never counted."""
    justification: Text


@dataclass(frozen=True, config=STRICT)
class AccuracyRule:
    """When a subject is less accurate: the band of the verdict rule around the metric before."""

    relative: Share
    confidence: Share
    min_seeds: Seeds
    justification: Text
    models: dict[str, Share] = Field(default_factory=dict)
    """Bands of their own."""

    def of(self, model: str) -> Tolerance:
        """The tolerance of a model's metrics."""
        relative = self.models.get(model, self.relative)
        return Tolerance(relative=relative, confidence=self.confidence, min_seeds=self.min_seeds)


@dataclass(frozen=True, config=STRICT)
class WorkloadSize:
    """What is measured."""

    models: Annotated[tuple[Text, ...], Field(min_length=1)]
    seeds: Annotated[tuple[int, ...], Field(min_length=2)]
    training: dict[str, Any]
    """Settings of short trainings."""
    training_of: dict[str, dict[str, Any]]
    """What differs in it, by model."""
    steps: dict[str, dict[str, Count]]
    """Device → model → steps of a timed block."""
    justification: Text


@dataclass(frozen=True, config=STRICT)
class Preset:
    """How often everything is measured; see `harness.tools.regress.alternation.Repetitions`."""

    passes: Count
    rounds: Count
    memory: Count


@dataclass(frozen=True, config=STRICT)
class Presets:
    """Of a check, of a shorter one, and of the baseline that both are compared with."""

    quick: Preset
    default: Preset
    baseline: Preset


@dataclass(frozen=True, config=STRICT)
class Rules:
    """The file `regression.toml`."""

    time: TimeRule
    wall: TimeRule
    memory: MemoryRule
    accuracy: AccuracyRule
    workload: WorkloadSize
    presets: Presets


def load_rules(path: Path) -> Rules:
    """A file such as `expected/bm3/regression.toml`; raises DataError naming the file and the field."""
    return validated_toml(path, TypeAdapter(Rules))
