"""Checkpoints: a training after an epoch, in one file, from which it goes on to the same bits as if never stopped.

The file is safetensors, so reading one runs no code. When a training is saved and what else is kept of it is decided
elsewhere.
"""

import json
import mmap
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bm3 import ConfigError
from harness.common import whole_file, writing
from harness.models.features import from_array

FORMAT = "1"
SHARE = 1 / 100
"""What a checkpoint may cost of the time since the one before: the harness as a whole is to take less than 3 %."""
ASSUMED_RATE = 400e6
"""Bytes per second that are written, until one checkpoint has been timed."""
MODEL, OPTIMISER, BEST = "model/", "optimiser/", "best/"
BLOCK_BYTES = 2**22  # of a tensor that are written at a time
TYPES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.bool: "BOOL"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8"},
}
"""What safetensors calls them."""


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


class KeptState(dict[str, Tensor]):
    """A state in a file without a name: beside the model, whose state of the best epoch it is, it takes no memory.

    Its tensors are those of the last `keep`, mapped: pages that are read are let go of by `drop`.
    """

    def __init__(self, folder: Path | None) -> None:
        """In `folder`, or where temporary files are. Raises WriteError."""
        super().__init__()
        self._where = folder
        with writing(folder or Path("temporary file")):
            self._file: Any = TemporaryFile(dir=folder)  # noqa: SIM115 - it goes with this object, however that ends

    def keep(self, state: Mapping[str, Tensor]) -> None:
        """Take a state in place of the one before, of the same names, types and shapes. Raises WriteError, and
        ConfigError where they are others."""
        ordered = _aligned(state)
        for name in (self.keys() | ordered.keys()) if self else ():
            before, now = ((t.dtype, t.shape) if (t := of.get(name)) is not None else None for of in (self, ordered))
            if before != now:
                raise ConfigError(f"the model's state {name!r} was {before} and is {now}: it must stay as it was built")
        with writing(self._where or Path("temporary file")):
            self._file.seek(0)
            for tensor in ordered.values():
                self._file.writelines(blocks_of(tensor))
            self._file.flush()
        if not self:
            self._pages, at = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ), 0
            content = np.frombuffer(self._pages, np.uint8)
            for name, tensor in ordered.items():
                self[name] = from_array(content[at : at + tensor.nbytes]).view(tensor.dtype).view(tensor.shape)
                at += tensor.nbytes

    def drop(self) -> None:
        """Keep none of the file's pages in memory."""
        if self and hasattr(mmap, "MADV_DONTNEED"):
            self._pages.madvise(mmap.MADV_DONTNEED)


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
        drop = state.best.drop if isinstance(state.best, KeptState) else _keep_all
        about = {"format": FORMAT, "epoch": str(state.epoch), "crc32": str(_checksum(tensors, drop))}
        write_tensors(self.path, tensors, about, drop=drop)
        self._saved = self._clock()
        self._cost = self._saved - started

    def load(self, device: torch.device) -> TrainingState | None:
        """The last state, the optimiser's on `device`, the rest in main memory; None without one that can be read.

        What a killed process left of a checkpoint that it was writing is removed.
        """
        for half in self.path.parent.glob(f"{self.path.name}*.part"):
            half.unlink()
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


def _keep_all() -> None:
    """Nothing of what was written lies in a mapped file."""


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    about: dict[str, str],
    *,
    stays: bool = False,
    drop: Callable[[], None] = _keep_all,
) -> None:
    """Write a safetensors file, all of it or nothing; one that stays is flushed to the disk. Raises WriteError.

    It is written block by block, with `drop` called after each: tensors in files are never in memory as a whole.
    """
    ordered, end = _aligned(tensors), 0
    header: dict[str, Any] = {"__metadata__": about}
    for name, tensor in ordered.items():
        of = {"dtype": TYPES[tensor.dtype], "shape": [*tensor.shape]}
        header[name] = {**of, "data_offsets": [end, end := end + tensor.nbytes]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with writing(path), whole_file(path, flushed=stays) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in ordered.values():
            for block in blocks_of(tensor):
                file.write(block)
                drop()


def _named(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def _aligned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The widest types first: one after another all begin at multiples of their width."""
    return dict(sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])))


def blocks_of(tensor: Tensor) -> Iterator[Any]:
    """The tensor's bytes, some at a time; none of an empty one, which need not have a stride to be read by bytes."""
    if not tensor.numel():
        return
    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    for start in range(0, len(flat), BLOCK_BYTES):
        yield flat[start : start + BLOCK_BYTES].data


def _checksum(tensors: Mapping[str, Tensor], drop: Callable[[], None] = _keep_all) -> int:
    """Of all bytes, by name: the format itself notices no change within a tensor."""
    checksum = 0
    for _, tensor in sorted(tensors.items()):
        for block in blocks_of(tensor):
            checksum = zlib.crc32(block, checksum)
            drop()
    return checksum


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
