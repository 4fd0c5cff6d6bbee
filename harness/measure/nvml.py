"""The one place that talks to NVIDIA's management library (NVML) about a GPU.

Sampling over time is in `memory` and `power`; what a list of processes says about this one is in `attribution`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import pynvml
import torch

from harness.measure.attribution import DeviceMemory, GpuProcess

Answer = TypeVar("Answer")

SLOWDOWNS: Mapping[int, str] = MappingProxyType(
    {
        pynvml.nvmlClocksEventReasonApplicationsClocksSetting: "clocks set by an administrator",
        pynvml.nvmlClocksEventReasonSwPowerCap: "power limit",
        pynvml.nvmlClocksEventReasonHwSlowdown: "hardware slowdown",
        pynvml.nvmlClocksEventReasonSyncBoost: "clocks tied to another GPU's",
        pynvml.nvmlClocksEventReasonSwThermalSlowdown: "temperature (driver)",
        pynvml.nvmlClocksEventReasonHwThermalSlowdown: "temperature (hardware)",
        pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power brake",
    }
)
"""Bits of NVML's clocks event reasons that slow a GPU down; being idle, or driving a display, is none."""
MIG_INSTANCE = "the GPU is partitioned (MIG): memory and processes are of this process's instance, the rest is of all"
MIG_WHOLE = "the GPU is partitioned (MIG) and the instance is not known: all figures are of the whole GPU"


class GpuUnavailableError(RuntimeError):
    """NVML cannot be used, or does not know the GPU; the message is fit for a note beside a missing figure."""


def driver_version(nvml: Any = pynvml) -> str:
    """Version of the NVIDIA driver. Raises GpuUnavailableError where NVML is missing or gives none."""
    _initialise(nvml)
    try:
        return str(nvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError as error:
        raise GpuUnavailableError(f"NVML gives no driver version: {error}") from error
    finally:
        _shut_down(nvml)


@dataclass(frozen=True)
class Clocks:
    """A GPU's clocks at one moment, in MHz; None where the driver does not say."""

    compute: int | None
    compute_limit: int | None
    memory: int | None


@dataclass(frozen=True)
class GpuSurvey:
    """What NVML offers on one GPU."""

    name: str
    bytes: int | None
    partitioned: bool
    lists_processes: bool
    gives_process_bytes: bool | None
    """None where no process runs there that would show it."""
    counts_energy: bool


def survey(nvml: Any = pynvml) -> list[GpuSurvey]:
    """Every GPU that NVML knows, whether or not torch can use it. Raises GpuUnavailableError."""
    _initialise(nvml)
    try:
        return [_surveyed(nvml, nvml.nvmlDeviceGetHandleByIndex(place)) for place in range(nvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        raise GpuUnavailableError(f"NVML lists no GPU: {error}") from error
    finally:
        _shut_down(nvml)


class NvmlGpu:
    """One GPU as NVML sees it, found by UUID, else by PCI bus id, else because it is the only one.

    Of a partitioned GPU it is the instance that can be told to be this process's; `note` says whether it is. `uuid` is
    as torch prints it, without NVML's prefix. Raises GpuUnavailableError where NVML is missing or no GPU matches.
    `nvml` is the binding to use.
    """

    def __init__(self, uuid: str | None, pci_bus_id: str | None, nvml: Any = pynvml) -> None:
        self._nvml = nvml
        _initialise(nvml)
        try:
            self._handle = _find(nvml, uuid, pci_bus_id)
            self._handle, self._whole, self.note = _narrowed(nvml, self._handle)
        except BaseException:
            _shut_down(nvml)
            raise

    @classmethod
    def of_torch_device(cls, device: torch.device) -> NvmlGpu:
        """The GPU that `device` is. Raises what torch raises where CUDA is missing, and GpuUnavailableError."""
        properties: Any = torch.cuda.get_device_properties(device)
        uuid = getattr(properties, "uuid", None)
        # Older torch versions lack some of these attributes.
        pci_bus_id = None
        if hasattr(properties, "pci_bus_id"):
            pci = properties.pci_domain_id, properties.pci_bus_id, properties.pci_device_id
            pci_bus_id = "{:08x}:{:02x}:{:02x}.0".format(*pci)
        return cls(None if uuid is None else str(uuid), pci_bus_id)

    def device_bytes(self) -> int | None:
        """Bytes in use on the whole device, by anybody and with the driver's reserve; None where not offered."""
        found = _offered(lambda: self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)
        return None if found is None else int(found)

    def processes(self) -> tuple[GpuProcess, ...] | None:
        """Processes that compute on the device, by anybody; None where the driver does not list them.

        Raises pynvml.NVMLError on a failure that is not merely a missing feature or permission.
        """
        found = _offered(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle))
        return None if found is None else tuple(GpuProcess(process.pid, process.usedGpuMemory) for process in found)

    def process_bytes(self, pid: int) -> int | None:
        """Bytes that process `pid` holds on the device; None where the driver does not say. Raises as `processes`."""
        return DeviceMemory(None, self.processes()).listed(frozenset({pid}))

    def memory(self) -> DeviceMemory:
        """What is in use, and by whom. Raises as `processes`."""
        return DeviceMemory(self.device_bytes(), self.processes())

    def joules(self) -> float | None:
        """Energy that the GPU took since its driver was loaded; None where not offered (before Volta)."""
        millijoules = _offered(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._whole))
        return None if millijoules is None else millijoules / 1000

    def clocks(self) -> Clocks:
        """Of the GPU, at this moment."""
        nvml, whole = self._nvml, self._whole
        return Clocks(
            compute=_offered(lambda: nvml.nvmlDeviceGetClockInfo(whole, pynvml.NVML_CLOCK_SM)),
            compute_limit=_offered(lambda: nvml.nvmlDeviceGetMaxClockInfo(whole, pynvml.NVML_CLOCK_SM)),
            memory=_offered(lambda: nvml.nvmlDeviceGetClockInfo(whole, pynvml.NVML_CLOCK_MEM)),
        )

    def slowdowns(self) -> frozenset[str] | None:
        """Why the GPU's clocks are below what it could do at this moment; None where not offered."""
        bits = _offered(lambda: self._nvml.nvmlDeviceGetCurrentClocksEventReasons(self._whole))
        if bits is None:  # drivers before 535 know it by its older name
            bits = _offered(lambda: self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._whole))
        return None if bits is None else frozenset(name for bit, name in SLOWDOWNS.items() if bits & bit)

    def close(self) -> None:
        """Gives NVML back; the object is of no use afterwards."""
        _shut_down(self._nvml)


def _initialise(nvml: Any) -> None:
    try:
        nvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise GpuUnavailableError(f"NVML not available: {error}") from error


def _shut_down(nvml: Any) -> None:
    # NVML counts initialisations, and a failing goodbye takes no figure away.
    with suppress(pynvml.NVMLError):
        nvml.nvmlShutdown()


def _surveyed(nvml: Any, handle: Any) -> GpuSurvey:
    memory = _offered(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    processes = _offered(lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle))
    mode = _offered(lambda: nvml.nvmlDeviceGetMigMode(handle))
    return GpuSurvey(
        name=str(_offered(lambda: nvml.nvmlDeviceGetName(handle)) or "a GPU without a name"),
        bytes=None if memory is None else int(memory.total),
        partitioned=mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE,
        lists_processes=processes is not None,
        gives_process_bytes=any(process.usedGpuMemory for process in processes) if processes else None,
        counts_energy=_offered(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) is not None,
    )


def _offered(ask: Callable[[], Answer]) -> Answer | None:
    """The answer, None where the driver does not offer it to us. Raises pynvml.NVMLError on a true failure."""
    with suppress(
        pynvml.NVMLError_NotSupported,
        pynvml.NVMLError_NoPermission,
        pynvml.NVMLError_FunctionNotFound,
    ):
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
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.startswith("MIG-")]
    if len(visible) == 1:
        with suppress(pynvml.NVMLError):
            return nvml.nvmlDeviceGetHandleByUUID(visible[0]), found, MIG_INSTANCE
    instances = []
    with suppress(pynvml.NVMLError):
        for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(found)):
            with suppress(pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument):
                instances.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(found, index))
    if len(instances) == 1:
        return instances[0], found, MIG_INSTANCE
    return found, found, MIG_WHOLE


def _find(nvml: Any, uuid: str | None, pci_bus_id: str | None) -> Any:
    if uuid is not None:
        for kind in ("GPU", "MIG"):
            with suppress(pynvml.NVMLError):
                return nvml.nvmlDeviceGetHandleByUUID(f"{kind}-{uuid}")
    if pci_bus_id is not None:
        with suppress(pynvml.NVMLError):
            return nvml.nvmlDeviceGetHandleByPciBusId(pci_bus_id)
    # Torch's index is no help among several: CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER change it, but not NVML's.
    try:
        if nvml.nvmlDeviceGetCount() == 1:
            return nvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError as error:
        raise GpuUnavailableError(f"NVML lists no GPU: {error}") from error
    raise GpuUnavailableError("NVML knows no GPU that can be matched to the torch device")
