"""Names of a package that are loaded when they are first asked for, so that importing it costs nothing."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazily(package: str, *modules: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose `__all__` is found in these of its modules, light ones first."""

    def get(name: str) -> Any:
        if name in import_module(package).__all__:
            for module in modules:
                found = vars(import_module(f"{package}.{module}"))
                if name in found:
                    return found[name]
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
