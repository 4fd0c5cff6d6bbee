"""The one place that talks to NVIDIA's management library (NVML) about a GPU. Sampling over time is in memory.py."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pynvml
import torch


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


class NvmlGpu:
    """One GPU as NVML sees it, found by UUID, else by PCI bus id, else because it is the only one.

    `uuid` is as torch prints it, without NVML's prefix. Raises GpuUnavailableError where NVML is missing or no GPU
    matches. `nvml` is the binding to use.
    """

    def __init__(self, uuid: str | None, pci_bus_id: str | None, nvml: Any = pynvml) -> None:
        self._nvml = nvml
        _initialise(nvml)
        try:
            self._handle = _find(nvml, uuid, pci_bus_id)
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
        with suppress(pynvml.NVMLError_NotSupported):
            return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)
        return None

    def process_bytes(self, pid: int) -> int | None:
        """Bytes that process `pid` holds on the device; None where the driver does not say.

        Raises pynvml.NVMLError on a failure that is not merely a missing feature or permission.
        """
        try:
            processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except (
            pynvml.NVMLError_NotSupported,
            pynvml.NVMLError_NoPermission,
            pynvml.NVMLError_FunctionNotFound,
        ):
            return None
        # One process can be listed once per GPU instance, and some drivers list it with nothing or 0 for "unknown":
        # a process with a CUDA context never holds 0 bytes.
        return sum(process.usedGpuMemory or 0 for process in processes if process.pid == pid) or None

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
