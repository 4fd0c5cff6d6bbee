"""The one place that asks NVIDIA's management library (NVML), and which part of a GPU's memory is this process's.

Drivers differ: some list processes by the ids of the host, some by those that the asking process sees, some none, and
some list processes without figures. What is found by other means than a listed figure says so.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import pynvml
import torch

Answer = TypeVar("Answer")

NO_CUDA = "no CUDA device in use"
MIG_INSTANCE = "the GPU is partitioned (MIG): memory and processes are of this process's instance, the rest is of all"
MIG_WHOLE = "the GPU is partitioned (MIG) and the instance is not known: all figures are of the whole GPU"
FIRST_NAMESPACE = "pid:[4026531836]"
"""What Linux calls the process ids of the host itself (PROC_PID_INIT_INO)."""
OUTER_ID = "listed under this process's id in an outer namespace"
NAMESPACE = "; the driver lists ids of another namespace (as in a container)"
APPEARED = f"of the one process that appeared on the device since the measured block began{NAMESPACE}"
ALONE = f"of the one process on the device{NAMESPACE}"
RISE = "rise of the device's figure since the measured block began, less what other listed processes took meanwhile"
RISE_OF_ALL = "rise of the device's figure since the measured block began, which other processes may have part in"
NO_PROCESS_FIGURES = "driver gives no per-process figures (as in MIG or some containers)"
HELD = f"{NO_PROCESS_FIGURES}, and a rise would lack the CUDA context, which was there before the measured block"
SETTINGS = ("gpu_power_limit_w", "gpu_clocks_mhz", "gpu_mig", "gpu_compute_mode")
"""What a GPU's speed depends on besides its name and driver: watts, MHz of processor and memory, partition, mode."""
VISIBLE = "CUDA_VISIBLE_DEVICES"


class GpuUnavailableError(RuntimeError):
    """NVML cannot be used, or does not know the GPU; the message is fit for a note beside a missing figure."""


@dataclass(frozen=True)
class GpuProcess:
    """A process on a GPU as the driver lists it."""

    pid: int
    bytes: int | None
    """None where the driver does not say."""


@dataclass(frozen=True)
class DeviceMemory:
    """A GPU's memory at one moment."""

    used: int | None
    """Bytes in use by anybody; None where the driver does not say."""
    processes: tuple[GpuProcess, ...] | None
    """None where the driver lists none."""

    @property
    def by_pid(self) -> Counter[int]:
        """Bytes of each process that has a figure."""
        totals: Counter[int] = Counter()
        # One process can be listed once per GPU instance, and some drivers list it with nothing or 0 for "unknown":
        # a process with a CUDA context never holds 0 bytes.
        for process in self.processes or ():
            totals[process.pid] += process.bytes or 0
        return +totals

    def listed(self, pids: frozenset[int]) -> int | None:
        """Bytes of these processes; None where no figure is listed."""
        return sum(self.by_pid[pid] for pid in pids) or None

    def others_known(self, own: frozenset[int]) -> bool:
        """Whether every other process is listed with its bytes."""
        return self.processes is not None and all(one.bytes for one in self.processes if one.pid not in own)


def own_process(
    status: Path = Path("/proc/self/status"), namespace: Path = Path("/proc/self/ns/pid")
) -> frozenset[int]:
    """The ids of this process, by which a driver may list it; none where they may be another process's there."""
    outer: list[int] = []
    nested = False
    with suppress(OSError, ValueError):  # no Linux, or no /proc
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("NSpid:"):  # of a Linux older than 4.1 nothing is known
                outer = [int(text) for text in line.split()[1:]]
        nested = namespace.readlink().name != FIRST_NAMESPACE
    # The ids of outer namespaces are known only where /proc is mounted from there; then all are known.
    return frozenset({os.getpid(), *outer}) if not nested or len(outer) > 1 else frozenset()


def attributed(
    before: DeviceMemory, now: DeviceMemory, own: frozenset[int], held: bool = False
) -> tuple[int, str] | None:
    """Bytes of this process and how they were found, where the driver gives no figure for its own id.

    `before` is from the beginning of the measured block, `held` whether this process had a CUDA context then, `own` as
    `own_process` gives it. None where nothing can be said.
    """
    if listed := now.listed(own):
        return listed, OUTER_ID
    possible = now.by_pid.keys() - (set() if held else before.by_pid.keys())
    if not own and len(possible) == 1:
        return now.by_pid[possible.pop()], ALONE if held else APPEARED
    if held or now.used is None or before.used is None:
        return None
    rise = now.used - before.used
    # Where ids cannot be compared, one of those listed may be this process.
    known = bool(own) and before.others_known(own) and now.others_known(own)
    if known:
        rise -= now.by_pid.total() - before.by_pid.total()
    return (rise, RISE if known else RISE_OF_ALL) if rise > 0 else None


def has_context(device: torch.device) -> bool:
    """Whether this process has, or may have, a CUDA context on the device; asking makes none."""
    if not torch.cuda.is_initialized():
        return False
    ask = getattr(torch._C, "_cuda_hasPrimaryContext", None)
    return ask is None or bool(ask(torch.cuda.current_device() if device.index is None else device.index))


def visible_gpus() -> list[str]:
    """Names by which CUDA_VISIBLE_DEVICES knows the GPUs that this process sees; as CUDA reads it, -1 ends the list."""
    named = os.environ.get(VISIBLE)
    if named is None:
        return [str(number) for number in range(torch.cuda.device_count())]
    names = (name.strip() for name in named.split(","))
    return list(takewhile(lambda name: name and not name.startswith("-"), names))


def free_bytes(name: str, nvml: Any = pynvml) -> int | None:
    """Bytes that are free on the GPU called `name` in CUDA_VISIBLE_DEVICES; None where NVML does not say.

    No CUDA context is made. Where GPUs are unlike, CUDA may count them otherwise than NVML: the least free counts.
    """
    return min(_answers(name, lambda gpu: int(nvml.nvmlDeviceGetMemoryInfo(gpu).free), nvml), default=None)


def occupied(name: str, nvml: Any = pynvml) -> bool:
    """Whether NVML lists a process, of whomever, that computes on the GPU called so."""
    return any(_answers(name, lambda gpu: _offered(lambda: nvml.nvmlDeviceGetComputeRunningProcesses(gpu)), nvml))


def _answers(name: str, ask: Callable[[Any], Answer], nvml: Any) -> list[Answer]:
    """Of the GPU called `name`, or of all that may be meant; none where NVML knows none."""
    with suppress(GpuUnavailableError), _asked(nvml, "NVML knows no such GPU"):
        if not name.isdecimal():
            return [ask(nvml.nvmlDeviceGetHandleByUUID(name))]
        found = [nvml.nvmlDeviceGetHandleByIndex(place) for place in range(nvml.nvmlDeviceGetCount())]
        alike = len({nvml.nvmlDeviceGetName(gpu) for gpu in found}) == 1
        if alike or os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
            found = found[int(name) :][:1]
        return [ask(gpu) for gpu in found]
    return []


class NvmlGpu:
    """One GPU as NVML sees it, found by UUID, else because it is the only one.

    Of a partitioned GPU it is the instance that can be told to be this process's; `note` says whether it is. `uuid` is
    as torch prints it, without NVML's prefix. Raises GpuUnavailableError where NVML is missing or no GPU matches.
    `nvml` is the binding to use.
    """

    def __init__(self, uuid: str, nvml: Any = pynvml) -> None:
        self._nvml = nvml
        _initialise(nvml)
        try:
            self._handle, self._whole, self.note = _narrowed(nvml, _find(nvml, uuid))
        except BaseException:
            self.close()
            raise

    @classmethod
    def of_torch_device(cls, device: torch.device) -> NvmlGpu:
        """The GPU that `device` is. Raises what torch raises where CUDA is missing, and GpuUnavailableError."""
        return cls(str(torch.cuda.get_device_properties(device).uuid))

    def device_bytes(self) -> int | None:
        """Bytes in use on the whole device, by anybody and with the driver's reserve; None where not offered."""
        found = _offered(lambda: self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)
        return None if found is None else int(found)

    def processes(self) -> tuple[GpuProcess, ...] | None:
        """Processes that compute on the device, by anybody; None where they are not listed. Raises pynvml.NVMLError."""
        found = _offered(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle))
        return None if found is None else tuple(GpuProcess(process.pid, process.usedGpuMemory) for process in found)

    def settings(self) -> dict[str, Any]:
        """By SETTINGS; None where not offered."""
        nvml, kinds = self._nvml, (pynvml.NVML_CLOCK_GRAPHICS, pynvml.NVML_CLOCK_MEM)
        power = _offered(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(self._whole))
        clocks = _offered(lambda: [nvml.nvmlDeviceGetApplicationsClock(self._whole, kind) for kind in kinds])
        mig = _offered(lambda: nvml.nvmlDeviceGetMigMode(self._whole)[0] == pynvml.NVML_DEVICE_MIG_ENABLE)
        mode = _offered(lambda: nvml.nvmlDeviceGetComputeMode(self._whole))
        instance = _offered(lambda: str(nvml.nvmlDeviceGetName(self._handle))) if mig else None
        return dict(zip(SETTINGS, (None if power is None else power / 1000, clocks, instance, mode), strict=True))

    def clocks_held(self) -> bool:
        """Whether somebody has set clocks that the GPU keeps to (nvidia-smi -lgc or -ac)."""
        reasons = _offered(lambda: self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._whole))
        return bool((reasons or 0) & pynvml.nvmlClocksThrottleReasonApplicationsClocksSetting)

    def joules(self) -> float | None:
        """Energy that the GPU took since its driver was loaded; None where not offered (before Volta)."""
        millijoules = _offered(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._whole))
        return None if millijoules is None else millijoules / 1000

    def close(self) -> None:
        """Gives NVML back, which counts initialisations; the object is of no use afterwards."""
        with suppress(pynvml.NVMLError):
            self._nvml.nvmlShutdown()


@dataclass(frozen=True)
class GpuSurvey:
    """What NVML offers on one GPU."""

    name: str
    partitioned: bool
    process_figures: bool
    """Whether processes are listed, with bytes where one is."""
    counts_energy: bool


def survey(nvml: Any = pynvml) -> list[GpuSurvey]:
    """Every GPU that NVML knows, whether or not torch can use it. Raises GpuUnavailableError."""
    with _asked(nvml, "NVML lists no GPU"):
        return [_surveyed(nvml, nvml.nvmlDeviceGetHandleByIndex(place)) for place in range(nvml.nvmlDeviceGetCount())]


def driver_version(nvml: Any = pynvml) -> str:
    """Version of the NVIDIA driver. Raises GpuUnavailableError where NVML is missing or gives none."""
    with _asked(nvml, "NVML gives no driver version"):
        return str(nvml.nvmlSystemGetDriverVersion())


@contextmanager
def _asked(nvml: Any, problem: str) -> Iterator[None]:
    _initialise(nvml)
    try:
        yield
    except pynvml.NVMLError as error:
        raise GpuUnavailableError(f"{problem}: {error}") from error
    finally:
        with suppress(pynvml.NVMLError):
            nvml.nvmlShutdown()


def _initialise(nvml: Any) -> None:
    try:
        nvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise GpuUnavailableError(f"NVML not available: {error}") from error


def _surveyed(nvml: Any, handle: Any) -> GpuSurvey:
    processes = _offered(lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle))
    mode = _offered(lambda: nvml.nvmlDeviceGetMigMode(handle))
    return GpuSurvey(
        name=str(_offered(lambda: nvml.nvmlDeviceGetName(handle)) or "a GPU without a name"),
        partitioned=mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE,
        process_figures=processes is not None and (not processes or any(one.usedGpuMemory for one in processes)),
        counts_energy=_offered(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) is not None,
    )


def _offered(ask: Callable[[], Answer]) -> Answer | None:
    """The answer, None where the driver does not offer it to us. Raises pynvml.NVMLError on a true failure."""
    of_old_drivers = pynvml.NVMLError_FunctionNotFound, pynvml.NVMLLibraryMismatchError
    with suppress(pynvml.NVMLError_NotSupported, pynvml.NVMLError_NoPermission, *of_old_drivers):
        return ask()
    return None


def _narrowed(nvml: Any, found: Any) -> tuple[Any, Any, str | None]:
    """The instance of a partitioned GPU, the GPU as a whole, and what is to be said of it; else twice the same."""
    with suppress(pynvml.NVMLError):
        if nvml.nvmlDeviceIsMigDeviceHandle(found):
            return found, nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(found), MIG_INSTANCE
    mode = pynvml.NVML_DEVICE_MIG_DISABLE
    with suppress(pynvml.NVMLError):  # older GPUs and drivers know no partitions
        mode, _ = nvml.nvmlDeviceGetMigMode(found)
    if mode != pynvml.NVML_DEVICE_MIG_ENABLE:
        return found, found, None
    # A process can use one instance, by default the first one that it may see.
    visible = [name for name in os.environ.get(VISIBLE, "").split(",") if name.startswith("MIG-")]
    if len(visible) == 1:
        with suppress(pynvml.NVMLError):
            return nvml.nvmlDeviceGetHandleByUUID(visible[0]), found, MIG_INSTANCE
    instances = []
    with suppress(pynvml.NVMLError):
        for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(found)):
            with suppress(pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument):
                instances.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(found, index))
    return (instances[0], found, MIG_INSTANCE) if len(instances) == 1 else (found, found, MIG_WHOLE)


def _find(nvml: Any, uuid: str) -> Any:
    for kind in ("GPU", "MIG"):
        with suppress(pynvml.NVMLError):
            return nvml.nvmlDeviceGetHandleByUUID(f"{kind}-{uuid}")
    # Torch's index is no help among several: CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER change it, but not NVML's.
    try:
        if nvml.nvmlDeviceGetCount() == 1:
            return nvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError as error:
        raise GpuUnavailableError(f"NVML lists no GPU: {error}") from error
    raise GpuUnavailableError("NVML knows no GPU that can be matched to the torch device")
