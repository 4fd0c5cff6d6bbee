"""The right GPU, and whose memory on it, with drivers that list processes well, badly, by other ids, or not at all."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch
from recorded_nvml import READINGS, RecordedNvml

from harness.measure import MemorySampler, Reading
from harness.measure.gpu import (
    APPEARED,
    MIG_INSTANCE,
    MIG_WHOLE,
    OUTER_ID,
    RISE,
    RISE_OF_ALL,
    DeviceMemory,
    GpuProcess,
    GpuUnavailableError,
    NvmlGpu,
    Own,
    attributed,
    driver_version,
    own_process,
    survey,
)
from harness.measure.memory import NO_PROCESS_FIGURES

CUDA = torch.device("cuda", 0)
GB = 2**30
HOST = Own(frozenset({os.getpid()}), comparable=True)
CONTAINER = Own(frozenset({os.getpid()}), comparable=False)


def sampled(name: str, own: Own, monkeypatch: pytest.MonkeyPatch) -> dict[str, Reading]:
    """Readings of a block with a sample at each of the three moments of a recording."""
    monkeypatch.setattr("harness.measure.memory.own_process", lambda: own)
    nvml = RecordedNvml(name)
    with MemorySampler(CUDA, 600, open_gpu=lambda _: NvmlGpu("1", None, nvml)) as sampler:
        nvml.moment = 1
        sampler.sample()
        nvml.moment = 2
    assert nvml.open == 0
    return sampler.readings()


@pytest.mark.parametrize(
    ("name", "own", "gigabytes", "how"),
    [
        ("alone", HOST, 1.5, None),
        ("several-processes", HOST, 2, None),
        ("no-figures-per-process", HOST, 2.5, RISE),
        ("listing-refused", HOST, 2.5, RISE_OF_ALL),
        ("driver-reports-zero", HOST, 3, RISE),
        ("container-one-appears", CONTAINER, 1.5, APPEARED),
        ("container-two-appear", CONTAINER, 4, RISE_OF_ALL),
        ("older-driver", HOST, 1, None),
    ],
)
def test_the_process_peak_is_the_listed_one_or_says_how_it_was_found(
    name: str, own: Own, gigabytes: float, how: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sampled(name, own, monkeypatch)["gpu_process_peak"] == Reading(int(gigabytes * GB), how=how)


def test_ids_that_do_not_match_are_those_of_others_where_ids_can_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    # On the host itself, a process that appears beside this one, which is not listed, takes all of the rise but half.
    assert sampled("container-one-appears", HOST, monkeypatch)["gpu_process_peak"] == Reading(GB, how=RISE)


def test_an_id_in_an_outer_namespace_finds_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Own(frozenset({os.getpid(), 90002}), comparable=True)
    reading = sampled("container-two-appear", own, monkeypatch)["gpu_process_peak"]
    assert reading == Reading(GB, how=OUTER_ID)


def test_nothing_is_made_up_where_the_device_did_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = sampled("unchanged", HOST, monkeypatch)["gpu_process_peak"]
    assert reading == Reading(None, NO_PROCESS_FIGURES)


def test_a_failure_is_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost(RecordedNvml):
        def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> object:  # noqa: N802
            if self.moment == 2:
                raise pynvml.NVMLError_GpuIsLost
            raise pynvml.NVMLError_NoPermission

    nvml = Lost("listing-refused")
    with MemorySampler(CUDA, 600, open_gpu=lambda _: NvmlGpu("1", None, nvml)) as sampler:
        nvml.moment = 1
        sampler.sample()
        nvml.moment = 2
    reading = sampler.readings()["gpu_process_peak"]
    assert reading.bytes is None
    assert "GPU is lost" in str(reading.note)


def test_without_any_figure_of_the_device_nothing_can_be_said() -> None:
    assert attributed(DeviceMemory(None, None), DeviceMemory(5, None), HOST) is None
    assert attributed(DeviceMemory(5, None), DeviceMemory(None, None), HOST) is None
    assert attributed(DeviceMemory(5, None), DeviceMemory(4, None), HOST) is None
    unknown = (GpuProcess(40, None),)  # whose growth is not taken off
    assert attributed(DeviceMemory(10, unknown), DeviceMemory(15, unknown), HOST) == (5, RISE_OF_ALL)


@pytest.mark.parametrize(
    ("name", "uuid", "visible", "note", "used"),
    [
        ("mig-instance", "5", "", MIG_INSTANCE, GB),
        ("mig-one-instance", "1", "", MIG_INSTANCE, GB),
        ("mig-two-instances", "1", "MIG-5", MIG_INSTANCE, GB),
        ("mig-two-instances", "1", "MIG-5,MIG-6", MIG_WHOLE, 21 * GB),
        ("mig-two-instances", "1", "0", MIG_WHOLE, 21 * GB),
        ("alone", "1", "", None, 2 * GB),
    ],
)
def test_of_a_partitioned_gpu_the_instance_is_measured_where_it_is_known(
    name: str, uuid: str, visible: str, note: str | None, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml = RecordedNvml(name)
    gpu = NvmlGpu(uuid, None, nvml)
    nvml.moment = 1
    assert (gpu.note, gpu.device_bytes()) == (note, used)
    assert DeviceMemory(None, gpu.processes()).listed(HOST.pids) is not None
    assert gpu.joules() == 5030.0  # which only the whole GPU counts


def test_a_survey_says_what_each_gpu_offers() -> None:
    def surveyed(name: str, moment: int = 1) -> tuple[bool, bool, bool | None, bool]:
        nvml = RecordedNvml(name)
        nvml.moment = moment
        (gpu,) = survey(nvml)
        assert nvml.open == 0
        return gpu.partitioned, gpu.lists_processes, gpu.gives_process_bytes, gpu.counts_energy

    assert surveyed("alone") == (False, True, True, True)
    assert surveyed("alone", moment=0) == (False, True, None, True)
    assert surveyed("no-figures-per-process") == (False, True, False, True)
    assert surveyed("listing-refused") == (False, False, None, True)
    assert surveyed("mig-instance") == (True, True, True, True)
    assert surveyed("older-driver") == (False, True, True, False)


@pytest.mark.parametrize(
    ("nspid", "namespace", "comparable"),
    [("7", "pid:[4026531836]", True), ("7", "pid:[4026532500]", False), ("4711 23 7", "pid:[4026532500]", True)],
)
def test_ids_can_be_compared_on_the_host_and_where_the_outer_ones_are_known(
    nspid: str, namespace: str, comparable: bool, tmp_path: Path
) -> None:
    (tmp_path / "status").write_text(f"NSpid:\t{nspid}\n")
    (tmp_path / "pid").symlink_to(namespace)
    own = own_process(tmp_path / "status", tmp_path / "pid")
    assert own.comparable is comparable
    assert own.pids == {os.getpid(), *map(int, nspid.split())}


def test_without_proc_the_only_id_is_taken() -> None:
    assert own_process(Path("/nowhere"), Path("/nowhere")) == Own(frozenset({os.getpid()}), comparable=True)


@pytest.mark.parametrize("name", sorted(path.stem for path in READINGS.glob("*.json")))
def test_every_recording_asks_only_for_functions_and_errors_that_the_binding_has(name: str) -> None:
    for function, answers in RecordedNvml(name)._answers.items():
        assert hasattr(pynvml, function)
        errors = [
            one["error"] for moments in answers.values() for one in moments if isinstance(one, dict) and "error" in one
        ]
        assert all(issubclass(getattr(pynvml, error), pynvml.NVMLError) for error in errors)


# --- finding the GPU ---


class Machine:
    """A binding to a machine with the given GPUs, each a name by UUID or PCI bus id; `asked` is what was used last."""

    def __init__(self, handles: dict[str, str], count: int = 2) -> None:
        self._handles, self._count = handles, count
        self.open, self.asked = 0, ""

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def _look_up(self, key: str) -> str:
        if key not in self._handles:
            raise pynvml.NVMLError_NotFound
        return self._handles[key]

    nvmlDeviceGetHandleByUUID = nvmlDeviceGetHandleByPciBusId = _look_up  # noqa: N815

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self._count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"index {index}"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        self.asked = handle
        return SimpleNamespace(used=1)

    def nvmlDeviceIsMigDeviceHandle(self, handle: str) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetMigMode(self, handle: str) -> Any:  # noqa: N802
        raise pynvml.NVMLError_NotSupported

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "550.1"


BUS = "00000000:c1:02.0"


@pytest.mark.parametrize(
    ("handles", "count", "uuid", "bus", "found"),
    [
        ({"GPU-other": "other", "GPU-abc": "right", BUS: "bus"}, 2, "abc", BUS, "right"),
        ({"GPU-other": "other", "MIG-abc": "right", BUS: "bus"}, 2, "abc", BUS, "right"),
        ({"GPU-other": "other", BUS: "bus"}, 2, "abc", BUS, "bus"),
        ({"GPU-other": "other", BUS: "bus"}, 2, None, BUS, "bus"),
        ({}, 1, None, None, "index 0"),
    ],
)
def test_the_uuid_decides_before_the_bus_id_and_an_only_gpu_needs_neither(
    handles: dict[str, str], count: int, uuid: str | None, bus: str | None, found: str
) -> None:
    machine = Machine(handles, count)
    gpu = NvmlGpu(uuid, bus, machine)
    gpu.device_bytes()
    assert (machine.asked, machine.open) == (found, 1)
    gpu.close()
    assert machine.open == 0


def test_one_of_several_gpus_must_match_and_nvml_is_given_back() -> None:
    machine = Machine({}, 2)
    with pytest.raises(GpuUnavailableError, match="matched"):
        NvmlGpu(None, None, machine)
    assert (driver_version(machine), machine.open) == ("550.1", 0)


def test_the_bus_id_is_made_from_torchs_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(pci_domain_id=0, pci_bus_id=0xC1, pci_device_id=2)
    machine = Machine({BUS: "bus"})
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties)
    monkeypatch.setattr(NvmlGpu.__init__, "__defaults__", (machine,))
    NvmlGpu.of_torch_device(CUDA).device_bytes()
    assert machine.asked == "bus"


@pytest.mark.parametrize(
    ("processes", "found"),
    [
        ([(7, 100), (8, 5000), (7, 20)], 120),
        ([], None),
        ([(8, 5000)], None),
        ([(7, None)], None),
        ([(7, 0)], None),
        (None, None),
    ],
)
def test_bytes_of_a_process_are_those_of_all_its_entries_and_none_is_not_zero(
    processes: list[tuple[int, int | None]] | None, found: int | None
) -> None:
    listed = None if processes is None else tuple(GpuProcess(*process) for process in processes)
    assert DeviceMemory(None, listed).listed(frozenset({7})) == found


@pytest.mark.parametrize("error", ["NotSupported", "NoPermission", "FunctionNotFound", "GpuIsLost"])
def test_what_is_not_offered_is_none_and_a_true_failure_is_raised(error: str) -> None:
    nvml = RecordedNvml("alone")
    gpu = NvmlGpu("1", None, nvml)
    for function in ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetComputeRunningProcesses"):
        nvml._answers[function] = {"*": [{"error": f"NVMLError_{error}"}]}
    for ask in (gpu.device_bytes, gpu.processes):
        if error == "GpuIsLost":
            with pytest.raises(pynvml.NVMLError_GpuIsLost):
                ask()
        else:
            assert ask() is None
