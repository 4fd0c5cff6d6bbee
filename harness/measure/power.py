"""What a device did during a block of code: energy, clocks, slowdowns, and who else used it.

How counters are read is in `energy`, how NVML is asked in `nvml`. Memory has a sampler of its own, in `memory`.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import psutil
import torch

from harness.measure.attribution import DeviceMemory, own_process, strangers
from harness.measure.energy import POWERCAP, Energy, EnergyCounter, EnergyUnavailableError, rapl_counters, together
from harness.measure.memory import NO_CUDA
from harness.measure.nvml import Clocks, NvmlGpu

GB = 2**30
"""Bytes."""
INTERVAL_S = 1.0
"""Seconds between readings: counters of processors wrap after a minute or more at full load."""
OTHERS_CORES = 0.1
"""Cores; what others took below that is not worth a note."""
THROTTLES = Path("/sys/devices/system/cpu")


class Watched(Protocol):
    """What the watch asks of a GPU; NvmlGpu is the real one."""

    note: str | None

    def joules(self) -> float | None: ...
    def clocks(self) -> Clocks: ...
    def slowdowns(self) -> frozenset[str] | None: ...
    def memory(self) -> DeviceMemory: ...
    def close(self) -> None: ...


class DeviceWatch:
    """Context manager that reads energy counters and clocks in a daemon thread every `interval_s` seconds.

    `epoch` is to be called at the end of each. Nothing here fails the block: what cannot be read ends in a note.
    Raises ValueError on an interval that is not positive, RuntimeError when entered twice.
    """

    def __init__(
        self,
        device: torch.device,
        interval_s: float = INTERVAL_S,
        *,
        open_gpu: Callable[[torch.device], Watched] = NvmlGpu.of_torch_device,
        powercap: Path = POWERCAP,
    ) -> None:
        if not interval_s > 0:
            raise ValueError(f"interval_s must be positive, not {interval_s}")
        self._device = device
        self._interval_s = interval_s
        self._open_gpu = open_gpu
        self._powercap = powercap
        self._counters: dict[str, list[EnergyCounter]] = {"gpu": [], "cpu": []}
        self._energy: dict[str, Energy] = {}
        self._watches: list[_GpuWatch | _CpuWatch] = []
        self._notes: list[str] | None = None
        # Epochs are marked by the training's thread.
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="device-watch", daemon=True)

    def __enter__(self) -> Self:
        if self._watches:
            raise RuntimeError("a DeviceWatch watches one block; make a new one for the next")
        self._watches.append(_CpuWatch())
        try:
            self._counters["cpu"] = rapl_counters(self._powercap)
        except EnergyUnavailableError as error:
            self._energy["cpu"] = Energy(None, None, 0, str(error))
        if self._device.type == "cuda":
            self._open()
        else:
            self._energy["gpu"] = Energy(None, None, 0, NO_CUDA)
        self.sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.sample()
        for name, counters in self._counters.items():
            if counters:
                self._energy[name] = together([counter.energy() for counter in counters])
        self._notes = [note for watch in self._watches for note in watch.notes()]
        for watch in self._watches:
            watch.close()

    def epoch(self) -> None:
        """An epoch has ended, its evaluation included."""
        with self._lock:
            for counter in (*self._counters["gpu"], *self._counters["cpu"]):
                counter.mark()

    def readings(self) -> dict[str, Energy]:
        """Energy of the block: gpu, cpu. Raises RuntimeError before the block has ended."""
        self._ended()
        return dict(self._energy)

    def notes(self) -> list[str]:
        """Clocks, slowdowns and other processes, a sentence each. Raises RuntimeError before the block has ended."""
        return self._ended()

    def _ended(self) -> list[str]:
        if self._notes is None:
            raise RuntimeError("readings are there only after the watch's block has ended")
        return list(self._notes)

    def _open(self) -> None:
        try:
            gpu = self._open_gpu(self._device)
        except Exception as error:
            self._energy["gpu"] = Energy(None, None, 0, str(error) or type(error).__name__)
            return
        self._watches.append(_GpuWatch(gpu))
        self._counters["gpu"] = [EnergyCounter(gpu.joules)]

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.sample()

    def sample(self) -> None:
        """Read everything once more, now."""
        with self._lock:
            for counter in (*self._counters["gpu"], *self._counters["cpu"]):
                counter.sample()
            for watch in self._watches:
                watch.sample()


class _GpuWatch:
    """Clocks, slowdowns and other processes of a GPU, over samples."""

    def __init__(self, gpu: Watched) -> None:
        self._gpu = gpu
        self._own = own_process()
        self._clocks: list[Clocks] = []
        self._slow: Counter[str] = Counter()
        self._reasons_known = 0
        self._others: dict[int, int] = {}
        self._unclear = 0
        self._failure: str | None = None

    def sample(self) -> None:
        if self._failure is not None:
            return
        try:
            self._clocks.append(self._gpu.clocks())
            slowdowns, seen = self._gpu.slowdowns(), self._gpu.memory()
        except Exception as error:
            self._failure = f"watching the GPU failed: {type(error).__name__}: {error}"
            return
        if slowdowns is not None:
            self._reasons_known += 1
            self._slow.update(slowdowns)
        # Children are of the run. One that is listed and has ended since was seen a moment earlier.
        self._own = replace(self._own, pids=self._own.pids.union(*map(_pids, _children())))
        for process in strangers(seen, self._own):
            self._others[process.pid] = max(self._others.get(process.pid, 0), process.bytes or 0)
        if not self._own.comparable and seen.listed(self._own.pids) is None:
            self._unclear = max(self._unclear, len(seen.processes or ()))

    def notes(self) -> Iterator[str]:
        yield from filter(None, (self._gpu.note, self._failure))
        yield from self._of_clocks()
        if self._reasons_known:
            for reason, samples in self._slow.most_common():
                yield f"clocks held down by {reason} in {100 * samples / self._reasons_known:.0f} % of samples"
        elif self._failure is None:
            yield "the driver does not say what holds the clocks down"
        if self._others:
            held = sum(self._others.values())
            size = f", with {held / GB:.2f} GB at most" if held else ", with unknown memory"
            yield f"{_counted(len(self._others), 'other process', 'other processes')} on the GPU during the run{size}"
        if self._unclear:
            yield (
                f"{_counted(self._unclear, 'process', 'processes')} listed on the GPU under ids of another namespace "
                "(as in a container): one may be this run, the others are not"
            )

    def close(self) -> None:
        self._gpu.close()

    def _of_clocks(self) -> Iterator[str]:
        compute = [clocks.compute for clocks in self._clocks if clocks.compute is not None]
        memory = [clocks.memory for clocks in self._clocks if clocks.memory is not None]
        limits = [clocks.compute_limit for clocks in self._clocks if clocks.compute_limit is not None]
        if compute:
            limit = f" of at most {max(limits)}" if limits else ""
            yield f"compute clock {_range(compute)}{limit} MHz"
        if memory:
            yield f"memory clock {_range(memory)} MHz"


class _CpuWatch:
    """What other processes took of the processor, and whether heat slowed it down."""

    def __init__(self) -> None:
        self._clocks: list[int] = []
        self._before = _cpu_seconds()
        self._throttled = _throttle_events()

    def sample(self) -> None:
        try:
            clock = psutil.cpu_freq()
        except Exception:  # some systems have no such file, others one that cannot be parsed
            return
        if clock is not None and clock.current > 0:
            self._clocks.append(round(clock.current))

    def notes(self) -> Iterator[str]:
        before, after = self._before, _cpu_seconds()
        if before is not None and after is not None:
            (wall, busy, own), (wall_after, busy_after, own_after) = before, after
            passed = max(wall_after - wall, 1e-9)
            cores = (busy_after - busy - (own_after - own)) / passed
            # Both are counted in steps of 10 ms, so a short block says nothing.
            if passed >= 1 and cores >= OTHERS_CORES:
                yield f"other processes took {cores:.1f} of {os.cpu_count()} cores on average"
        if self._clocks:
            yield f"processor clock {_range(self._clocks)} MHz"
        throttled = _throttle_events()
        if self._throttled is not None and throttled is not None and throttled > self._throttled:
            yield f"the processor was slowed down by heat {throttled - self._throttled} times"

    def close(self) -> None:
        pass


def _children() -> list[int]:
    try:
        return [child.pid for child in psutil.Process().children(recursive=True)]
    except psutil.Error:
        return []


def _pids(pid: int) -> frozenset[int]:
    return own_process(Path(f"/proc/{pid}/status")).pids | {pid}


def _cpu_seconds() -> tuple[float, float, float] | None:
    """Seconds on the clock, of work of the whole machine, and of work of this process and of its ended children."""
    try:
        times, own = psutil.cpu_times(), os.times()
    except Exception:
        return None
    # Guests' seconds are part of the users', and waiting for a disk is no work.
    busy = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
    return time.monotonic(), busy, own.user + own.system + own.children_user + own.children_system


def _throttle_events() -> int | None:
    counts = []
    for file in THROTTLES.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"):
        try:
            counts.append(int(file.read_text(encoding="ascii")))
        except (OSError, ValueError):
            return None
    return sum(counts) if counts else None


def _range(figures: list[int]) -> str:
    low, high = min(figures), max(figures)
    return f"{low}" if low == high else f"{low} to {high}"


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
