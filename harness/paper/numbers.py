"""How every format prints a figure."""

import math
from collections.abc import Sequence

NONE = "–"
MIB = 2**20


def number(value: float | None, form: str = ".4f", otherwise: str = NONE) -> str:
    """The figure in this format, `otherwise` where there is none; what rounds to nothing has no sign."""
    if value is None:
        return otherwise
    if not math.isfinite(value):
        return "not finite"
    text = format(value, form)
    return text if text.strip("+-0.") else text.lstrip("+-")


def spread(values: Sequence[float]) -> str:
    """From the lowest to the highest of several runs; one has none."""
    return number(max(values) - min(values) if len(values) > 1 else None)
