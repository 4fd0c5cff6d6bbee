"""Settings by name: `key=value` texts and suite tables into checked configurations, and what can be set, as listed."""

import ast
import difflib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bm3 import ConfigError
from harness.models.registry import find_model, models
from harness.runs.record import flatten as flatten
from harness.training.config import TrainingConfig

Values = Mapping[str, Any]
Scalar = bool | int | float | str

LARGEST = 2**31 - 1
"""Above it a number counts nothing that fits into memory or time."""
BATCH_SIZE_FIELD = "train_batch_size"
"""A model's field of this name is the training's batch size unless it is set."""
GONE: Mapping[str, str] = {"step": "every training step is eager"}
"""Settings of earlier versions, and what holds now. Runs that recorded one can be read and repeated."""
ALL_MODELS = "all"
KINDS = {int: "whole number", float: "number", str: "text"}


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """`["n_layers=2"]` as a mapping. Raises ConfigError for a text without `=`, and for a key with two values."""
    values: dict[str, str] = {}
    for text in assignments:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"setting {text!r} is not of the form key=value")
        if values.setdefault(key.strip(), value.strip()) != value.strip():
            both = f"{values[key.strip()]} and as {value.strip()}"
            raise ConfigError(f"setting {key.strip()!r} is given twice, as {both}: keep one")
    return values


def configure(model: type[Any], values: Values) -> tuple[Any, TrainingConfig]:
    """The model's configuration and the training configuration with `values` over their defaults.

    Keys are the model's fields, and those of TrainingConfig with nested ones dotted (`early_stopping.patience`).
    Texts are converted to the field's type. Raises ConfigError: unknown key (with the nearest ones), wrong type, or
    an impossible value.
    """
    model_keys = {field.name for field in fields(model.Config)}
    training_keys = set(flatten(asdict(TrainingConfig())))
    for key in values:
        if key in GONE and key not in model_keys:
            raise ConfigError(f"setting {key!r} is there no more: {GONE[key]}; leave it out")
        if key not in model_keys | training_keys:
            known = sorted(model_keys | training_keys)
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.5) or known
            raise ConfigError(f"{model.__name__.lower()} has no setting {key!r}; nearest: {', '.join(near)}")
    model_values = {key: value for key, value in values.items() if key in model_keys}
    training_values = {key: value for key, value in values.items() if key not in model_keys}
    training = _validated(TrainingConfig, training_values)
    if BATCH_SIZE_FIELD in model_keys:
        model_values.setdefault(BATCH_SIZE_FIELD, training.batch_size)
    return _validated(model.Config, model_values), training


def search_grid(model: str, grids: Mapping[str, Mapping[str, Sequence[Scalar]]]) -> Mapping[str, Sequence[Scalar]]:
    """The values that a search of the model tries: those of a paper's `grids`, else its own `Config.GRID`.

    Empty where there are none. Raises ConfigError for an unknown model.
    """
    if (published := grids.get(model.lower())) is not None:
        return published
    return getattr(find_model(model).model.Config, "GRID", {})  # loads torch, which published grids do not wait for


def changed_from_defaults(config: Any) -> dict[str, Any]:
    """The flattened fields of a configuration that differ from its class's defaults."""
    defaults = flatten(asdict(type(config)()))
    return {key: value for key, value in flatten(asdict(config)).items() if value != defaults[key]}


def _validated(config: type[Any], values: Values) -> Any:
    from pydantic import TypeAdapter, ValidationError

    nested: dict[str, Any] = {}
    for key, value in values.items():
        *parents, name = key.split(".")
        table = nested
        for parent in parents:
            table = table.setdefault(parent, {})
        number = isinstance(value, str) and value.isdecimal() and _is_choice(config, key.split("."))
        table[name] = int(value) if number else value
    try:
        made = TypeAdapter(config).validate_python(nested)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"setting {key}={first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}") from error
    for key, value in flatten(asdict(made)).items():
        if isinstance(value, int) and value > LARGEST:
            raise ConfigError(f"setting {key}={value}: at most {LARGEST:,}")
    return made


def _is_choice(config: Any, path: list[str]) -> bool:
    """Whether the field at `path` lists its values (Literal), which pydantic compares without converting text."""
    kind = next(field.type for field in fields(config) if field.name == path[0])
    return _is_choice(kind, path[1:]) if is_dataclass(kind) else "Literal" in str(kind)


# --- what can be set ---


@dataclass(frozen=True)
class Setting:
    """Something that `--set` changes."""

    name: str
    default: Any
    values: str
    """Those it can have, or their kind."""
    grid: tuple[Any, ...]
    """Those that are searched; none: it is not."""
    meaning: str
    """As its class says it; empty where it does not."""


def settings(
    config: type[Any], prefix: str = "", grid: Mapping[str, Sequence[Any]] = MappingProxyType({})
) -> Iterator[Setting]:
    """Every setting of a configuration, those of nested ones dotted; `grid` has the values that are searched."""
    hints, said, defaults = get_type_hints(config), meanings(config), config()
    for field in fields(config):
        if is_dataclass(hints[field.name]):
            yield from settings(hints[field.name], f"{prefix}{field.name}.")
            continue
        default, searched = getattr(defaults, field.name), tuple(grid.get(field.name, ()))
        yield Setting(prefix + field.name, default, _values(hints[field.name]), searched, said.get(field.name, ""))


def meanings(config: type[Any]) -> dict[str, str]:
    """The text beneath each field of a class, as far as its source is there."""
    found = {}
    for base in reversed(config.__mro__):
        try:
            (class_,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError):
            continue
        for above, below in pairwise(class_.body if isinstance(class_, ast.ClassDef) else ()):
            match above, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found


def about(model: type[Any]) -> tuple[str, str]:
    """What the first paragraph of a model's module, or else class, says, and the source named beneath, if one is."""
    title, _, rest = inspect.cleandoc(sys.modules[model.__module__].__doc__ or model.__doc__ or "").partition("\n\n")
    source = re.match(r".*?(19|20)\d\d.*?\.(?=\s|$)", rest, re.DOTALL)
    return " ".join(title.split()), " ".join(source[0].split()) if source else ""


def _values(kind: Any) -> str:
    if kind is bool:
        return "False | True"
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    return KINDS.get(kind, str(getattr(kind, "__name__", kind)))


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
    rows = [row for name, entry in sorted(models().items()) for row in variants_of(name, entry.model.Config)]
    return [*rows, *variants_of(ALL_MODELS, TrainingConfig)]


def variants_of(model: str, config: type[Any], prefix: str = "") -> Iterator[VariantRow]:
    """Those of a configuration, those of nested ones dotted."""
    hints = get_type_hints(config)
    for field in fields(config):
        if is_dataclass(hints[field.name]):
            yield from variants_of(model, hints[field.name], f"{prefix}{field.name}.")
    for name, variant in getattr(config, "VARIANTS", {}).items():
        published = getattr(config(), name)
        values = (False, True) if hints[name] is bool else get_args(hints[name])
        ordered = (published, *(value for value in values if value != published))
        yield VariantRow(model, prefix + name, ordered, variant.text, variant.code, variant.where)
