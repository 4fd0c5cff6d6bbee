"""Settings by name: `key=value` texts and suite tables into checked configuration dataclasses."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from bm3 import ConfigError
from harness.runs.record import flatten as flatten
from harness.training import TrainingConfig

Values = Mapping[str, Any]
Scalar = bool | int | float | str

BATCH_SIZE_FIELD = "train_batch_size"
"""A model's field of this name is the training's batch size unless it is set."""


GONE: Mapping[str, str] = {"step": "every training step is eager"}
"""Settings of earlier versions, and what holds now. Runs that recorded one can be read and repeated."""


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """`["n_layers=2"]` as a mapping. Raises ConfigError for a text without `=`."""
    values: dict[str, str] = {}
    for text in assignments:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"setting {text!r} is not of the form key=value")
        values[key.strip()] = value.strip()
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
    from harness.models.registry import find_model  # torch, which published grids do not wait for

    return getattr(find_model(model).model.Config, "GRID", {})


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
        table[name] = _number(value) if _wants_choice(config, key.split(".")) else value
    try:
        return TypeAdapter(config).validate_python(nested)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"setting {key}={first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}") from error


def _wants_choice(config: Any, path: list[str]) -> bool:
    """Whether the field at `path` lists its values (Literal), which pydantic compares without converting text."""
    field = next(field for field in fields(config) if field.name == path[0])
    if is_dataclass(field.type):
        return _wants_choice(field.type, path[1:])
    return "Literal" in str(field.type)


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value
