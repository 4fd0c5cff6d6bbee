"""What every room may use. It imports none of them."""

import difflib
from collections.abc import Iterable, Sequence

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
