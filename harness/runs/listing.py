"""Models and settings as they are listed: from the classes that define them, and from what is written there."""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

KINDS = {int: "whole number", float: "number", str: "text"}


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
        default, meaning = getattr(defaults, field.name), said.get(field.name, "")
        yield Setting(
            prefix + field.name, default, _values(hints[field.name]), tuple(grid.get(field.name, ())), meaning
        )


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
