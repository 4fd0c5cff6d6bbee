"""Finding models by name: every module of this package, and every entry point in the group `bm3.models`.

A model is any `bm3.Recommender` that is not abstract; no list of them is kept anywhere.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from inspect import isabstract
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

import harness.models
from bm3 import ConfigError
from harness.common import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from bm3 import Recommender

ENTRY_POINT_GROUP = "bm3.models"


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be named: its class, and what its module says of recorded traces, if anything."""

    name: str
    model: type[Recommender]
    trace_tensors: Callable[[Any], Mapping[str, Tensor]] | None = None
    """How traces name the tensors of a model."""
    trace_choices: Callable[[Any, Mapping[str, NDArray[Any]]], None] | None = None
    """Puts the fixed random choices that a trace records into a model."""
    trace_dropout: Callable[[Any, Mapping[str, Tensor]], None] | None = None
    """Lets those entries of a model's views survive that a trace records."""
    trace_settings: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    """The model's settings from those that a trace records under other names."""
    TRACES: Path | None = None
    """Folder of recorded traces that another package's model brings."""


@cache
def models() -> Mapping[str, ModelEntry]:
    """All models by lower-case class name; those of other packages by the lower-case name of their entry point."""
    found: dict[str, ModelEntry] = {}
    for info in pkgutil.iter_modules(harness.models.__path__):
        module = importlib.import_module(f"{harness.models.__name__}.{info.name}")
        for value in vars(module).values():
            if _is_model(value) and value.__module__ == module.__name__:
                found[value.__name__.lower()] = _entry(value.__name__.lower(), value, module)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        where = f"entry point {point.name!r} ({point.value})"
        try:
            model = point.load()
        except Exception as error:  # somebody else's module may raise anything
            what = f"cannot be loaded ({type(error).__name__}: {error})"
            raise ConfigError(f"{where} {what}: mend or remove it") from error
        if point.name.lower() in found:
            raise ConfigError(f"{where} takes the name of a model that is here already: rename it or remove it")
        if not _is_model(model):
            raise ConfigError(f"{where} is no model: needed is a subclass of bm3.Recommender")
        found[point.name.lower()] = _entry(point.name.lower(), model, importlib.import_module(point.module))
    return MappingProxyType(found)


def find_model(name: str) -> ModelEntry:
    """The model called `name`, whatever the case. Raises ConfigError with the nearest names when there is none."""
    return models()[nearest(name, sorted(models()), "no model")]


def trained_in_steps() -> list[str]:
    """Names of the models that have a loss, by name: all but those in closed form."""
    from harness.models.closed_form import ClosedForm

    return sorted(name for name, entry in models().items() if not issubclass(entry.model, ClosedForm))


def draws(name: str) -> bool:
    """Whether the seed takes part in the model: taken so unless its class says that it does not."""
    try:
        return bool(getattr(find_model(name).model, "draws", True))
    except ConfigError:  # a stored run may be of a model that is not here
        return True


def _is_model(value: object) -> bool:
    from bm3 import Recommender

    model = isinstance(value, type) and issubclass(value, Recommender) and value is not Recommender
    return model and not isabstract(value)


def _entry(name: str, model: type[Recommender], module: ModuleType) -> ModelEntry:
    offered = ("trace_tensors", "trace_choices", "trace_dropout", "trace_settings", "TRACES")
    return ModelEntry(name, model, **{one: getattr(module, one) for one in offered if hasattr(module, one)})
