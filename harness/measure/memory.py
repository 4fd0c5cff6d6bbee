"""Peak memory of a block of code: process, torch's CUDA allocator, GPU. How NVML is asked is in `gpu`."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
import torch

from harness.measure.gpu import (
    HELD,
    NO_CUDA,
    NO_PROCESS_FIGURES,
    DeviceMemory,
    NvmlGpu,
    attributed,
    has_context,
    own_process,
)
from harness.measure.host import system_text

INTERVAL_S = 1.0
"""Seconds between samples: torch gives no memory back by itself, so what an epoch took is still there when it ends."""
NO_DEVICE_FIGURES = "driver gives no memory figure for this device"
ALLOCATOR_KEYS = ("allocator_peak", "allocator_reserved_peak")
GPU_KEYS = ("gpu_process_peak", "gpu_device_peak")


@dataclass(frozen=True)
class Reading:
    """A figure in bytes, or why there is none."""

    bytes: int | None
    """0 only where 0 was measured."""
    note: str | None = None
    """Why nothing was measured."""
    how: str | None = None
    """How the figure was found, where it was not simply read."""


class MemorySampler:
    """Context manager that samples memory in a daemon thread every `interval_s` seconds, at enter, at exit, and when
    `sample` is called, as at the end of an epoch.

    The process figures include everything that the process held before the block; `process_rss_start` says how much.
    Where the driver lists no figure for this process, its GPU peak is found otherwise, and the reading's `how` says so.
    A failed measurement ends in a note and never stops the block. Torch's peak statistics begin anew, so blocks on one
    device must not overlap. GPU peaks shorter than the interval can be missed.
    """

    def __init__(
        self,
        device: torch.device,
        interval_s: float = INTERVAL_S,
        *,
        open_gpu: Callable[[torch.device], Any] = NvmlGpu.of_torch_device,
    ) -> None:
        self._device, self._interval_s, self._open_gpu = device, interval_s, open_gpu
        self._gpu: NvmlGpu | None = None
        self._sampled: dict[str, _Peak] = {}
        self._read_at_exit: dict[str, _Peak] = {}
        self._readings: dict[str, Reading] = {}
        self._spent_s, self._began, self._lasted_s = 0.0, 0.0, 0.0
        self._sampling, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        self._sampled["process_rss_peak"] = _Peak(_process_rss_reader())
        if self._device.type == "cuda":
            held = has_context(self._device)
            self._start_allocator()
            self._start_gpu(held)
        else:
            self._readings |= dict.fromkeys(ALLOCATOR_KEYS + GPU_KEYS, Reading(None, NO_CUDA))
        self.sample()
        self._readings["process_rss_start"] = self._sampled["process_rss_peak"].reading()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for key, peak in (self._sampled | self._read_at_exit).items():
            peak.sample()
            self._readings[key] = peak.reading()
        self._lasted_s = time.perf_counter() - self._began
        if self._gpu is not None:
            self._gpu.close()

    def readings(self) -> dict[str, Reading]:
        """After the block: process_rss_start, process_rss_peak, allocator_peak, allocator_reserved_peak,
        gpu_process_peak, gpu_device_peak.
        """
        return dict(self._readings)

    def notes(self) -> list[str]:
        """What sampling a GPU took of the block, as processor time: a sentence; nothing where no GPU was asked."""
        if self._gpu is None or not self._lasted_s:
            return []
        return [f"sampling memory took {100 * self._spent_s / self._lasted_s:.2g} % of the time"]

    def sample(self) -> None:
        """Take one more sample, now."""
        with self._sampling:
            began = time.thread_time()
            for peak in self._sampled.values():
                peak.sample()
            self._spent_s += time.thread_time() - began

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.sample()

    def _start_allocator(self) -> None:
        device = self._device
        try:
            torch.cuda.init()
            torch.cuda.reset_peak_memory_stats(device)
        except Exception as error:
            self._readings |= dict.fromkeys(ALLOCATOR_KEYS, Reading(None, f"torch cannot use CUDA: {error}"))
            return
        # The allocator keeps its own peaks, so asking once is exact, and asking often would be slow.
        self._read_at_exit["allocator_peak"] = _Peak(lambda: torch.cuda.max_memory_allocated(device))
        self._read_at_exit["allocator_reserved_peak"] = _Peak(lambda: torch.cuda.max_memory_reserved(device))

    def _start_gpu(self, held: bool) -> None:
        try:
            gpu = self._gpu = self._open_gpu(self._device)
        except Exception as error:
            self._readings |= dict.fromkeys(GPU_KEYS, Reading(None, str(error) or type(error).__name__))
            return
        self._sampled["gpu_process_peak"] = _GpuProcessPeak(gpu, held)
        self._sampled["gpu_device_peak"] = _Peak(gpu.device_bytes, NO_DEVICE_FIGURES)


class _Peak:
    """Largest of the figures that `read` gives, None meaning that there is none; its failure ends in the note."""

    def __init__(self, read: Callable[[], int | None], absent: str = "the system gives no figure") -> None:
        self._read, self._absent = read, absent
        self._largest: int | None = None
        self._failure: str | None = None

    def sample(self) -> None:
        if self._failure is not None:
            return
        try:
            value = self._read()
        except Exception as error:
            self._failure = f"sampling failed: {type(error).__name__}: {error}"
            return
        if value is not None:
            self._largest = max(value, self._largest or 0)

    def reading(self) -> Reading:
        # A peak over the samples before a failure could be far too low, so it does not count.
        if self._failure is not None:
            return Reading(None, self._failure)
        return Reading(None, self._absent) if self._largest is None else Reading(self._largest)


class _GpuProcessPeak(_Peak):
    """This process's bytes on a GPU as listed; where none ever were, the largest that `attributed` finds.

    `held`: whether it had a CUDA context before.
    """

    def __init__(self, gpu: NvmlGpu, held: bool) -> None:
        super().__init__(self._listed_bytes, HELD if held else NO_PROCESS_FIGURES)
        self._gpu, self._own, self._held = gpu, own_process(), held
        self._before: DeviceMemory | None = None
        self._found: tuple[int, str] | None = None

    def _listed_bytes(self) -> int | None:
        processes = self._gpu.processes()
        listed = DeviceMemory(None, processes).listed(self._own & {os.getpid()})
        if listed is None and self._largest is None:  # a process that was listed has no bytes once it is not
            now = DeviceMemory(self._gpu.device_bytes(), processes)
            self._before = self._before or now
            found = attributed(self._before, now, self._own, self._held)
            self._found = max(filter(None, (self._found, found)), default=None)
        return listed

    def reading(self) -> Reading:
        # Only a silent driver is made up for: after a failure a peak could be far too low.
        silent = self._largest is None and self._failure is None
        return Reading(self._found[0], how=self._found[1]) if silent and self._found else super().reading()


def _process_rss_reader() -> Callable[[], int]:
    process = psutil.Process()
    before = _lifetime_rss_peak()

    def read() -> int:
        # The system's own record is for the whole life of the process. Once it rises it belongs to this block, and
        # then it also knows what fell between two samples or while one operation held Python's lock.
        record = _lifetime_rss_peak()
        return max(int(process.memory_info().rss), record if record > before else 0)

    return read


def _lifetime_rss_peak() -> int:
    if sys.platform == "win32":
        return 0
    # Linux's VmHWM belongs to this program alone; ru_maxrss starts at the peak of the program that started it.
    for line in system_text(Path("/proc/self/status")).splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource

    record = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return record if sys.platform == "darwin" else record * 1024


def hold_files_of(pid: int) -> None:
    """Take in what the process `pid`, of which this one is a fresh fork, holds of mapped files, as libraries.

    Linux counts it among a process's memory, and a fork begins without. Where the system does not say, nothing happens.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError), Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as held:
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
            addresses, rights, _, _, inode, *_ = line.split()
            if rights.startswith("r") and rights.endswith("p") and inode != "0":
                begin, end = (int(address, 16) for address in addresses.split("-"))
                held.seek(begin // page * 8)
                present = np.frombuffer(held.read((end - begin) // page * 8), np.uint64) >> np.uint64(63)
                content = np.ctypeslib.as_array((ctypes.c_uint8 * (end - begin)).from_address(begin))
                content[np.flatnonzero(present) * page].max(initial=0)  # reading a byte takes its page in
