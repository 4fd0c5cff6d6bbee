"""Energy that a GPU took during a block, by its own counter. How NVML is asked is in `gpu`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:  # reports read what is said here, and do not wait for torch
    import torch

NO_COUNTER = "the GPU has no energy counter, or its driver does not give it"
FELL = "the energy counter fell, as when a driver is loaded anew"
UNMOVED = "not known: the counter did not move"


@dataclass(frozen=True)
class Energy:
    """What a counter says about a block: all that the device took, for whomever, in one process."""

    joules: float | None
    per_epoch: float | None
    """Joules, mean over the epochs after the first: training and evaluation. None without a second epoch, too."""
    epochs: int
    """How many `per_epoch` is the mean of."""
    note: str | None = None
    """Why `joules`, or `per_epoch` alone, is None."""


class EnergyMeter:
    """Context manager that reads the counter at enter, at every `epoch` and at exit.

    Nothing here fails the block: what cannot be read ends in a note.
    """

    def __init__(self, device: torch.device, *, open_gpu: Callable[[torch.device], Any] | None = None) -> None:
        self._device, self._open_gpu = device, open_gpu
        self._gpu: Any = None  # an NvmlGpu
        self._joules: list[float] = []  # at enter, after each epoch, at exit
        self._problem: str | None = None

    def __enter__(self) -> Self:
        from harness.measure.gpu import NO_CUDA, NvmlGpu

        try:
            if self._device.type == "cuda":
                self._gpu = (self._open_gpu or NvmlGpu.of_torch_device)(self._device)
            else:
                self._problem = NO_CUDA
        except Exception as error:
            self._problem = str(error) or type(error).__name__
        self.epoch()
        return self

    def __exit__(self, *_: object) -> None:
        self.epoch()
        if self._gpu is not None:
            self._gpu.close()

    def epoch(self) -> None:
        """An epoch has ended, its evaluation included."""
        if self._problem is not None:
            return
        try:
            now = self._gpu.joules()
        except Exception as error:
            self._problem = f"reading failed: {type(error).__name__}: {error}"
            return
        if now is None or (self._joules and now < self._joules[-1]):
            self._problem = NO_COUNTER if now is None else FELL
        else:
            self._joules.append(now)

    def energy(self) -> Energy:
        """Of the block, which has ended."""
        if self._problem is not None:
            return Energy(None, None, 0, self._problem)
        start, *marks, end = self._joules
        if end == start:
            return Energy(None, None, 0, UNMOVED)
        # The first epoch is a warm-up, and what came before it is no epoch. Counters move every 100 ms or so, and most
        # short epochs see no step: only all of them together say what one takes.
        epochs = len(marks) - 1
        if epochs < 1:
            return Energy(end - start, None, 0)
        rise = marks[-1] - marks[0]
        return Energy(end - start, rise / epochs, epochs) if rise else Energy(end - start, None, 0, UNMOVED)

    def notes(self) -> list[str]:
        """What is to be said of all figures of the GPU, a sentence each: that it is partitioned."""
        return [] if self._gpu is None or self._gpu.note is None else [self._gpu.note]
