"""One-line checks for configuration dataclasses. Checks of types are made where settings are read."""

import math

from bm3 import ConfigError


def require(config: object, field: str, holds: bool, needed: str) -> None:
    """Raise ConfigError naming the field unless `holds` and, if the value is a float, it is finite."""
    value = getattr(config, field)
    if not holds or (isinstance(value, float) and not math.isfinite(value)):
        raise ConfigError(f"{type(config).__name__}: {field} is {value!r}, it must be {needed}")
