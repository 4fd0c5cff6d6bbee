"""Finding models by name: every module of this package, and every entry point in the group `bm3.models`.

A model is any `torch.nn.Module` with a `Config` and a `loss`; no list of them is kept anywhere.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

import harness.models
from bm3 import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

ENTRY_POINT_GROUP = "bm3.models"


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be named: its class, and how traces name its tensors if its module says so."""

    name: str
    model: type[Any]
    trace_tensors: Callable[[Any], Mapping[str, Tensor]] | None
    trace_choices: Callable[[Any, Mapping[str, NDArray[Any]]], None] | None
    """Puts the fixed random choices that a trace records into a model."""
    trace_settings: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None
    """The model's settings from those that a trace records under other names."""
    traces: Path | None
    """Folder of recorded traces that another package's model brings."""

    @property
    def reads_features(self) -> bool:
        """Whether item features take part: a model that does not say so is taken to read them."""
        return bool(getattr(self.model, "reads_features", True))

    @property
    def numerics_version(self) -> int:
        """Which of its numbers the model computes (see `base.Recommender`)."""
        return int(getattr(self.model, "numerics_version", 1))


@cache
def models() -> Mapping[str, ModelEntry]:
    """All models by lower-case class name; those of other packages by the lower-case name of their entry point."""
    found: dict[str, ModelEntry] = {}
    for info in pkgutil.iter_modules(harness.models.__path__):
        module = importlib.import_module(f"{harness.models.__name__}.{info.name}")
        for value in vars(module).values():
            if _is_model(value):
                found[value.__name__.lower()] = _entry(value.__name__.lower(), value, module)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        where = f"entry point {point.name!r} ({point.value})"
        try:
            model = point.load()
        except Exception as error:  # somebody else's module may raise anything
            raise ConfigError(
                f"{where} cannot be loaded ({type(error).__name__}: {error}): mend or remove it"
            ) from error
        if point.name.lower() in found:
            raise ConfigError(f"{where} takes the name of a model that is here already: rename it or remove it")
        if not _is_model(model):
            raise ConfigError(f"{where} is no model: needed is an nn.Module with Config and loss")
        found[point.name.lower()] = _entry(point.name.lower(), model, importlib.import_module(point.module))
    return MappingProxyType(found)


def find_model(name: str) -> ModelEntry:
    """The model called `name`, whatever the case. Raises ConfigError with the nearest names when there is none."""
    known = models()
    if name.lower() in known:
        return known[name.lower()]
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4) or sorted(known)
    raise ConfigError(f"no model {name!r}; nearest: {', '.join(near)}")


def _is_model(value: object) -> bool:
    from torch import nn

    return (
        isinstance(value, type) and issubclass(value, nn.Module) and hasattr(value, "Config") and hasattr(value, "loss")
    )


def _entry(name: str, model: type[Any], module: ModuleType) -> ModelEntry:
    offered = ("trace_tensors", "trace_choices", "trace_settings", "TRACES")
    return ModelEntry(name, model, *(getattr(module, attribute, None) for attribute in offered))
