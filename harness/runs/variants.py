"""The variants of all models and of training, collected from the configurations that define them."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_args, get_type_hints

from harness.models.registry import ModelEntry, models
from harness.training import TrainingConfig

ALL_MODELS = "all"


@dataclass(frozen=True)
class VariantRow:
    """A setting in which text and published code disagree; `model` is `all` for settings of training."""

    model: str
    setting: str
    values: tuple[Any, ...]
    """The published one first: it is the default."""
    text: str
    code: str
    where: str
    """Dotted name of what implements the difference."""


def variants() -> list[VariantRow]:
    """Every variant, by model; those of training last."""
    rows = [row for name, entry in sorted(models().items()) for row in model_variants(name, entry)]
    return [*rows, *_rows(ALL_MODELS, TrainingConfig, "")]


def model_variants(name: str, entry: ModelEntry) -> list[VariantRow]:
    """The variants of one model."""
    return list(_rows(name, entry.model.Config, ""))


def _rows(model: str, config: type[Any], prefix: str) -> Iterator[VariantRow]:
    hints = get_type_hints(config)
    for field in fields(config):
        if is_dataclass(hints[field.name]):
            yield from _rows(model, hints[field.name], f"{prefix}{field.name}.")
    for name, variant in getattr(config, "VARIANTS", {}).items():
        published = getattr(config(), name)
        values = (False, True) if hints[name] is bool else get_args(hints[name])
        ordered = (published, *(value for value in values if value != published))
        yield VariantRow(model, prefix + name, ordered, variant.text, variant.code, variant.where)
