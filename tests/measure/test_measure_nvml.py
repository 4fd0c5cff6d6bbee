"""The right GPU is found and memory goes to the right process, over a fake binding. Sampling is tested elsewhere."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest

from harness.measure.nvml import GpuUnavailableError, NvmlGpu, driver_version


class FakeNvml:
    """A binding to a machine with the given GPUs, each a name by UUID and by PCI bus id."""

    def __init__(self, uuids: dict[str, str] | None = None, pci: dict[str, str] | None = None, count: int = 2) -> None:
        self._uuids, self._pci, self._count = uuids or {}, pci or {}, count
        self.open = 0
        self.processes: list[SimpleNamespace] | type[Exception] = []
        self.used: int | type[Exception] = 0
        self.asked: object = None

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return _look_up(self._uuids, uuid)

    def nvmlDeviceGetHandleByPciBusId(self, pci_bus_id: str) -> str:  # noqa: N802
        return _look_up(self._pci, pci_bus_id)

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self._count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"index {index}"

    def nvmlDeviceGetMemoryInfo(self, handle: object) -> SimpleNamespace:  # noqa: N802
        self.asked = handle
        if isinstance(self.used, type):
            raise self.used
        return SimpleNamespace(used=self.used)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> list[SimpleNamespace]:  # noqa: N802
        self.asked = handle
        if isinstance(self.processes, type):
            raise self.processes
        return self.processes

    def nvmlDeviceIsMigDeviceHandle(self, handle: object) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetMigMode(self, handle: object) -> list[int]:  # noqa: N802
        raise pynvml.NVMLError_NotSupported

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "550.1"


def _look_up(table: dict[str, str], key: str) -> str:
    if key not in table:
        raise pynvml.NVMLError_NotFound
    return table[key]


def _process(pid: int, used: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=used)


def _handle(nvml: FakeNvml, uuid: str | None, pci_bus_id: str | None) -> object:
    NvmlGpu(uuid, pci_bus_id, nvml).device_bytes()
    return nvml.asked


@pytest.mark.parametrize("kind", ["GPU", "MIG"])
def test_the_uuid_decides_before_the_bus_id(kind: str) -> None:
    nvml = FakeNvml({"GPU-other": "other", f"{kind}-abc": "right"}, {"00000000:01:00.0": "bus"})
    assert _handle(nvml, "abc", "00000000:01:00.0") == "right"


def test_the_bus_id_decides_where_the_uuid_does_not() -> None:
    nvml = FakeNvml({"GPU-other": "other"}, {"00000000:01:00.0": "bus"})
    assert _handle(nvml, "abc", "00000000:01:00.0") == "bus"
    assert _handle(nvml, None, "00000000:01:00.0") == "bus"


def test_an_only_gpu_needs_no_match_but_one_of_several_does() -> None:
    assert _handle(FakeNvml(count=1), None, None) == "index 0"
    several = FakeNvml(count=2)
    with pytest.raises(GpuUnavailableError, match="matched"):
        NvmlGpu(None, None, several)
    assert several.open == 0


def test_the_bus_id_is_made_from_torchs_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(pci_domain_id=0, pci_bus_id=0xC1, pci_device_id=2)
    nvml = FakeNvml(pci={"00000000:c1:02.0": "bus"})
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties)
    monkeypatch.setattr(NvmlGpu.__init__, "__defaults__", (nvml,))
    NvmlGpu.of_torch_device("cuda:0").device_bytes()  # type: ignore[arg-type]
    assert nvml.asked == "bus"


def test_memory_is_attributed_by_process_id_over_all_its_entries() -> None:
    nvml = FakeNvml(count=1)
    gpu = NvmlGpu(None, None, nvml)
    nvml.processes = [_process(7, 100), _process(8, 5000), _process(7, 20)]
    assert gpu.process_bytes(7) == 120
    assert gpu.process_bytes(8) == 5000


@pytest.mark.parametrize(
    "processes",
    [
        [],
        [_process(8, 5000)],
        [_process(7, None)],
        [_process(7, 0)],
        pynvml.NVMLError_NotSupported,
        pynvml.NVMLError_NoPermission,
        pynvml.NVMLError_FunctionNotFound,
    ],
)
def test_no_figure_for_the_process_is_none_and_not_zero(processes: list[SimpleNamespace] | type[Exception]) -> None:
    nvml = FakeNvml(count=1)
    gpu = NvmlGpu(None, None, nvml)
    nvml.processes = processes
    assert gpu.process_bytes(7) is None


def test_a_true_failure_is_raised() -> None:
    nvml = FakeNvml(count=1)
    gpu = NvmlGpu(None, None, nvml)
    nvml.processes = nvml.used = pynvml.NVMLError_GpuIsLost
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        gpu.process_bytes(7)
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        gpu.device_bytes()


def test_device_memory_is_what_is_used_and_none_where_not_offered() -> None:
    nvml = FakeNvml(count=1)
    gpu = NvmlGpu(None, None, nvml)
    nvml.used = 123
    assert gpu.device_bytes() == 123
    nvml.used = pynvml.NVMLError_NotSupported
    assert gpu.device_bytes() is None


def test_nvml_is_given_back() -> None:
    nvml = FakeNvml(count=1)
    gpu = NvmlGpu(None, None, nvml)
    assert nvml.open == 1
    gpu.close()
    assert nvml.open == 0
    assert driver_version(nvml) == "550.1"
    assert nvml.open == 0
