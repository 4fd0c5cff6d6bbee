"""Checkpoints: a training after an epoch, in one file, from which it goes on to the same bits as if never stopped.

The file is safetensors, so reading one runs no code. When a training is saved and what else is kept of it is decided
elsewhere.
"""

import os
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.common import HALF_WRITTEN, WriteError

FORMAT = "1"
SHARE = 1 / 100
"""What a checkpoint may cost of the time since the one before: the harness as a whole is to take less than 3 %."""
ASSUMED_RATE = 400e6
"""Bytes per second that are written, until one checkpoint has been timed."""
MODEL, OPTIMISER, BEST = "model/", "optimiser/", "best/"


@dataclass(frozen=True)
class TrainingState:
    """A training after `epoch`. Random streams are indexed by epoch, so there is nothing else to keep of them."""

    epoch: int
    model: Mapping[str, Tensor]
    """The model's state."""
    optimiser: Mapping[str, Tensor]
    """As `Adam.exact_state` gives it."""
    best: Mapping[str, Tensor]
    """The model's state in its best epoch so far; the same object as `model` if that is this one."""


class Checkpoints:
    """Keeps the latest state of one training in a file.

    Saving costs at most a `share` of the time: a checkpoint follows every epoch that is long beside the writing of one,
    and where epochs are short, or the state is large, every few of them.
    """

    def __init__(
        self, path: Path, share: float = SHARE, *, size: int = 0, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """`size`: bytes that a checkpoint will have, from which the cost of the first one is estimated."""
        self.path = path
        self._share, self._clock = share, clock
        self._saved, self._cost = clock(), size / ASSUMED_RATE

    @property
    def due(self) -> bool:
        """Whether enough time has passed to save again."""
        return self._clock() - self._saved >= self._cost / self._share

    def save(self, state: TrainingState) -> None:
        """Replace the file, all of it or nothing. Raises WriteError, and then keeps the one before.

        It is not flushed to the disk: a killed process leaves it whole, and a file that a power failure has damaged is
        not read, which costs time but nothing else.
        """
        started = self._clock()
        tensors = _named(MODEL, state.model) | _named(OPTIMISER, state.optimiser)
        if state.best is not state.model:
            tensors |= _named(BEST, state.best)
        about = {"format": FORMAT, "epoch": str(state.epoch), "crc32": str(_checksum(tensors))}
        write_tensors(self.path, tensors, about)
        self._saved = self._clock()
        self._cost = self._saved - started

    def load(self, device: torch.device) -> TrainingState | None:
        """The last state, the optimiser's on `device`, the rest in main memory; None without one that can be read.

        What a killed process left of a checkpoint that it was writing is removed.
        """
        for file in self.path.parent.glob(".tmp*"):
            if HALF_WRITTEN.fullmatch(file.name):
                file.unlink(missing_ok=True)
        try:
            with safe_open(self.path, framework="pt") as file:
                about = file.metadata() or {}
                if about.get("format") != FORMAT:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
                epoch = int(about["epoch"])
                if int(about["crc32"]) != _checksum(tensors):
                    return None
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        model = _under(MODEL, tensors)
        optimiser = {name: tensor.to(device) for name, tensor in _under(OPTIMISER, tensors).items()}
        return TrainingState(epoch, model, optimiser, _under(BEST, tensors) or model)

    def remove(self) -> None:
        """Forget what was saved."""
        self.path.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: dict[str, str], *, stays: bool = False) -> None:
    """Write a safetensors file, all of it or nothing; one that stays is flushed to the disk. Raises WriteError."""
    temporary = path.with_name(path.name + ".part")
    try:
        save_file(_apart(tensors), temporary, about)
        if stays:
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)  # which safetensors lets its owner alone read
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, ValueError, SafetensorError) as error:  # ValueError: it takes names in UTF-8 alone
        temporary.unlink(missing_ok=True)
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        mend = "make room and give the same command again, which goes on"
        raise WriteError(f"{path}: cannot be written ({reason}); {mend}") from error


def _named(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor.detach().contiguous() for name, tensor in state.items()}


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """Of all bytes, by name: the format itself notices no change within a tensor."""
    checksum = 0
    for _, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(tensor.cpu().flatten().view(torch.uint8).numpy().data, checksum)
    return checksum


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without shared memory, which the format does not know: a model may hold one under two names."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart
