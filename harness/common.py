"""What every room may use. It imports none of them."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any

from bm3.errors import ConfigError


def nearest(name: str, known: Sequence[str], problem: str) -> str:
    """The known name that is `name` in any case. Raises ConfigError, which begins with `problem`, with the nearest."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    near = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.4)
    raise ConfigError(f"{problem} {name!r}; nearest: {', '.join([by_lower[n] for n in near] or known)}")


def exit_status(held: Iterable[bool | None]) -> int:
    """The exit code that goes with outcomes: 1 if one did not hold, else 0 if one held, else 3.

    None is an outcome without anything to judge by, which changes nothing: nothing measured is never a pass.
    """
    found = set(held)
    return 1 if False in found else 0 if True in found else 3


def lazily(package: str, *modules: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose `__all__` is found in these of its modules, light ones first.

    What is named is loaded when it is first asked for, so that importing the package costs nothing.
    """

    def get(name: str) -> Any:
        if name in import_module(package).__all__:
            for module in modules:
                found = vars(import_module(f"{package}.{module}"))
                if name in found:
                    return found[name]
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
