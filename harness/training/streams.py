"""Named random streams. Everything random in a run draws from one of them and from nothing else."""

import zlib
from contextlib import AbstractContextManager

import numpy as np
import torch

from harness.models.contract import chance


class Streams:
    """Independent random generators derived from one seed by name and index.

    A stream depends only on (seed, name, index): adding a consumer changes no other one, and since epochs index
    their streams, epoch 7 draws the same numbers whether or not epochs 1 to 6 ran in this process.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def numpy(self, name: str, *index: int) -> np.random.Generator:
        """A numpy generator for the named stream."""
        return np.random.default_rng(self._sequence(name, index))

    def torch(self, name: str, *index: int, device: torch.device | None = None) -> torch.Generator:
        """A torch generator for the named stream, on `device` (the CPU if None)."""
        return torch.Generator(device or "cpu").manual_seed(self._state(name, index))

    def chance(self, name: str, *index: int) -> AbstractContextManager[None]:
        """Whoever draws from a global generator in the block draws from the named stream."""
        return chance(self._state(name, index))

    def _state(self, name: str, index: tuple[int, ...]) -> int:
        return int(self._sequence(name, index).generate_state(1, np.uint64)[0])

    def _sequence(self, name: str, index: tuple[int, ...]) -> np.random.SeedSequence:
        return np.random.SeedSequence(self.seed, spawn_key=(zlib.crc32(name.encode()), *index))
