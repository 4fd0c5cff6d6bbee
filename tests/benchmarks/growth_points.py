"""The points at which growth is measured, their sizes and the figures of each. Nothing is measured or shown here."""

from collections.abc import Iterable
from typing import NamedTuple


class Sizes(NamedTuple):
    """What data and training are made of. The defaults are the base: powers of two, so that batches are full."""

    users: int = 4096
    items: int = 2048
    interactions: int = 65_536
    width: int = 256
    """d_m of the visual features; the text features have a quarter."""
    batch: int = 512


AXES = {"E": "interactions", "I": "items", "d_m": "width", "B": "batch"}


class Figures(NamedTuple):
    """What is measured at one point."""

    step_s: float
    """Median seconds of a plain step."""
    first_s: float
    """Median seconds of an epoch's first step, with what the model renews then."""
    batches_s: float
    """Median seconds to prepare all batches of an epoch."""
    state_s: float
    """Seconds to read the model's state after many steps: what they put off until it is asked for is done then."""
    n_steps: int
    """Steps of an epoch."""
    memory_bytes: int
    """Resident memory at the peak above that before data and model."""
    model_bytes: int
    """The same above that when the data are there, before the model."""

    @property
    def epoch_s(self) -> float:
        return self.batches_s + self.first_s + (self.n_steps - 1) * self.step_s + self.state_s


class Point(NamedTuple):
    """One model with the size of one axis multiplied. All axes share the point of factor 1, whose axis is empty."""

    model: str
    axis: str = ""
    factor: int = 1

    @property
    def key(self) -> str:
        return f"{self.model} {self.axis} x{self.factor}" if self.axis else f"{self.model} base"

    def sizes(self, base: Sizes) -> Sizes:
        if not self.axis:
            return base
        return base._replace(**{AXES[self.axis]: getattr(base, AXES[self.axis]) * self.factor})


def points_of(names: Iterable[str], doublings: int) -> list[Point]:
    """Model by model, the smallest points first."""
    factors = [2**n for n in range(1, doublings + 1)]
    return [
        point for name in names for point in (Point(name), *(Point(name, axis, by) for by in factors for axis in AXES))
    ]
