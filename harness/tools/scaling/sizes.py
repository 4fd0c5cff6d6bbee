"""The sizes that grow in measurements of how costs grow. What is measured at them is `measure`."""

from dataclasses import dataclass, replace

FIELDS = {"E": "interactions", "I": "items", "d_m": "width", "d": "embedding", "B": "batch", "L": "layers"}
"""The papers' symbol of each size that grows → its field in `Sizes`."""


@dataclass(frozen=True)
class Sizes:
    """What data and training are made of: powers of two by default, so that batches are full and stay so."""

    users: int = 2048
    items: int = 1024
    interactions: int = 32_768
    width: int = 128
    """d_m of the visual features; the text features have a quarter."""
    embedding: int = 32
    batch: int = 256
    layers: int = 1

    def of(self, factor: str) -> int:
        """The size with this symbol."""
        return int(getattr(self, FIELDS[factor]))

    def grown(self, factor: str, by: int) -> "Sizes":
        """One size times `by`, all others as they are."""
        return replace(self, **{FIELDS[factor]: by * self.of(factor)})
