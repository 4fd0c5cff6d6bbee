"""The right GPU, and whose memory on it, with drivers that list processes well, badly, by other ids, or not at all."""

import os
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch
from recorded_nvml import READINGS, RecordedNvml

from harness.measure.gpu import (
    ALONE,
    APPEARED,
    HELD,
    MIG_INSTANCE,
    MIG_WHOLE,
    NO_PROCESS_FIGURES,
    OUTER_ID,
    RISE,
    RISE_OF_ALL,
    DeviceMemory,
    GpuProcess,
    GpuUnavailableError,
    NvmlGpu,
    attributed,
    driver_version,
    free_bytes,
    occupied,
    own_process,
    survey,
    visible_gpus,
)
from harness.measure.memory import MemorySampler, Reading

CUDA = torch.device("cuda", 0)
GB = 2**30
HOST = frozenset({os.getpid()})
CONTAINER: frozenset[int] = frozenset()


def sampled(nvml: RecordedNvml) -> Reading:
    """The process's peak in a block with a sample at each of the three moments of a recording."""
    with MemorySampler(CUDA, 600, open_gpu=lambda _: NvmlGpu("1", nvml)) as sampler:
        nvml.moment = 1
        sampler.sample()
        nvml.moment = 2
    assert nvml.open == 0
    return sampler.readings()["gpu_process_peak"]


@pytest.mark.parametrize(
    ("name", "own", "found"),
    [
        ("alone", HOST, Reading(3 * GB // 2)),
        ("several-processes", HOST, Reading(2 * GB)),
        ("no-figures-per-process", HOST, Reading(5 * GB // 2, how=RISE)),
        ("listing-refused", HOST, Reading(5 * GB // 2, how=RISE_OF_ALL)),
        ("driver-reports-zero", HOST, Reading(3 * GB, how=RISE)),
        ("container-one-appears", CONTAINER, Reading(3 * GB // 2, how=APPEARED)),
        # On the host itself one that appears beside this process, which is not listed, takes all of the rise but half.
        ("container-one-appears", HOST, Reading(GB, how=RISE)),
        ("container-two-appear", CONTAINER, Reading(4 * GB, how=RISE_OF_ALL)),
        ("container-two-appear", HOST | {90002}, Reading(GB, how=OUTER_ID)),
        ("older-driver", HOST, Reading(GB)),
        ("unchanged", HOST, Reading(None, NO_PROCESS_FIGURES)),
    ],
)
def test_the_process_peak_is_the_listed_one_or_says_how_it_was_found(
    name: str, own: frozenset[int], found: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.measure.memory.own_process", lambda: own)
    assert sampled(RecordedNvml(name)) == found


@pytest.mark.parametrize(
    ("before", "now", "held", "found"),
    [
        ({40: 5, 7: 3}, {40: 5, 7: 3}, False, None),  # the other one has our id; we took nothing
        ({40: 5, 7: 3}, {40: 5, 7: 3, 41: 2}, False, (2, APPEARED)),
        ({41: 3}, {41: 4}, True, (4, ALONE)),  # whole, with the context that was there
        ({7: 3}, {7: 4}, False, (1, RISE_OF_ALL)),  # there before we had a context, so it is not this process
        (
            {41: 3, 40: 5},
            {41: 4, 40: 5},
            True,
            None,
        ),  # which of them is ours is not known, and a rise lacks the context
    ],
)
def test_in_a_container_an_id_like_ours_is_not_taken_for_ours(
    before: dict[int, int], now: dict[int, int], held: bool, found: tuple[int, str] | None
) -> None:
    first, then = (
        DeviceMemory(sum(of.values()), tuple(GpuProcess(*one) for one in of.items())) for of in (before, now)
    )
    assert attributed(first, then, frozenset(), held) == found


def test_a_context_from_before_the_block_is_said_and_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.measure.memory.own_process", lambda: CONTAINER)
    monkeypatch.setattr("harness.measure.memory.has_context", lambda device: True)
    assert sampled(RecordedNvml("listing-refused")) == Reading(None, HELD)


def test_a_failure_is_not_made_up_for() -> None:
    nvml = RecordedNvml("listing-refused")
    errors = [{"error": f"NVMLError_{error}"} for error in ("NoPermission", "NoPermission", "GpuIsLost")]
    nvml._answers["nvmlDeviceGetComputeRunningProcesses"] = {"*": errors}
    reading = sampled(nvml)
    assert reading.bytes is None
    assert "GPU is lost" in str(reading.note)


def test_without_any_figure_of_the_device_nothing_can_be_said() -> None:
    for before, now in ((None, 5), (5, None), (5, 4)):
        assert attributed(DeviceMemory(before, None), DeviceMemory(now, None), HOST) is None
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
    gpu = NvmlGpu(uuid, nvml)
    nvml.moment = 1
    assert (gpu.note, gpu.device_bytes()) == (note, used)
    assert DeviceMemory(None, gpu.processes()).listed(HOST) is not None
    assert gpu.joules() == 5030.0  # which only the whole GPU counts


@pytest.mark.parametrize(
    ("name", "moment", "offered"),
    [
        ("alone", 1, (False, True, True)),
        ("alone", 0, (False, True, True)),
        ("no-figures-per-process", 1, (False, False, True)),
        ("listing-refused", 1, (False, False, True)),
        ("mig-instance", 1, (True, True, True)),
        ("older-driver", 1, (False, True, False)),
    ],
)
def test_a_survey_says_what_each_gpu_offers(name: str, moment: int, offered: tuple[bool, ...]) -> None:
    nvml = RecordedNvml(name)
    nvml.moment = moment
    (gpu,) = survey(nvml)
    assert (gpu.partitioned, gpu.process_figures, gpu.counts_energy) == offered
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("nspid", "namespace", "comparable"),
    [("7", "pid:[4026531836]", True), ("7", "pid:[4026532500]", False), ("4711 23 7", "pid:[4026532500]", True)],
)
def test_ids_can_be_compared_on_the_host_and_where_the_outer_ones_are_known(
    nspid: str, namespace: str, comparable: bool, tmp_path: Path
) -> None:
    (tmp_path / "status").write_text(f"NSpid:\t{nspid}\n")
    (tmp_path / "pid").symlink_to(namespace)
    ids = {os.getpid(), *map(int, nspid.split())}
    assert own_process(tmp_path / "status", tmp_path / "pid") == (ids if comparable else set())


def test_without_proc_the_only_id_is_taken() -> None:
    assert own_process(Path("/nowhere"), Path("/nowhere")) == {os.getpid()}


@pytest.mark.parametrize("name", sorted(path.stem for path in READINGS.glob("*.json")))
def test_every_recording_asks_only_for_functions_and_errors_that_the_binding_has(name: str) -> None:
    for function, answers in RecordedNvml(name)._answers.items():
        assert hasattr(pynvml, function)
        for answer in (one for moments in answers.values() for one in moments):
            if isinstance(answer, dict) and "error" in answer:
                assert issubclass(getattr(pynvml, answer["error"]), pynvml.NVMLError)


# --- finding the GPU ---


class Machine:
    """A binding to a machine with the given GPUs, each a name by UUID; `asked` is what was used last."""

    def __init__(self, handles: dict[str, str], count: int = 2) -> None:
        self.open, self.asked = 0, ""
        self.nvmlDeviceGetHandleByUUID = partial(_look_up, handles)
        self.nvmlDeviceGetCount = lambda: count
        self.nvmlDeviceGetHandleByIndex = "index {}".format
        self.nvmlDeviceIsMigDeviceHandle = lambda handle: 0
        self.nvmlDeviceGetMigMode = partial(_look_up, {})
        self.nvmlSystemGetDriverVersion = lambda: "550.1"

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        self.asked = handle
        return SimpleNamespace(used=1)


def _look_up(handles: dict[str, str], key: str) -> str:
    if key not in handles:
        raise pynvml.NVMLError_NotFound
    return handles[key]


@pytest.mark.parametrize(
    ("handles", "count", "found"),
    [
        ({"GPU-other": "other", "GPU-abc": "right"}, 2, "right"),
        ({"GPU-other": "other", "MIG-abc": "right"}, 2, "right"),
        ({}, 1, "index 0"),
    ],
)
def test_the_uuid_decides_and_an_only_gpu_does_not_need_it(handles: dict[str, str], count: int, found: str) -> None:
    machine = Machine(handles, count)
    gpu = NvmlGpu("abc", machine)
    gpu.device_bytes()
    assert (machine.asked, machine.open) == (found, 1)
    gpu.close()
    assert machine.open == 0


def test_one_of_several_gpus_must_match_and_nvml_is_given_back() -> None:
    machine = Machine({}, 2)
    with pytest.raises(GpuUnavailableError, match="matched"):
        NvmlGpu("abc", machine)
    assert (driver_version(machine), machine.open) == ("550.1", 0)


@pytest.mark.parametrize(
    ("processes", "found"),
    [
        ([(7, 100), (8, 5000), (7, 20)], 120),
        *((none, None) for none in ([], [(8, 5000)], [(7, None)], [(7, 0)], None)),
    ],
)
def test_bytes_of_a_process_are_those_of_all_its_entries_and_none_is_not_zero(
    processes: list[tuple[int, int | None]] | None, found: int | None
) -> None:
    listed = None if processes is None else tuple(GpuProcess(*process) for process in processes)
    assert DeviceMemory(None, listed).listed(frozenset({7})) == found


OFFERED = ["Error_NotSupported", "Error_NoPermission", "Error_FunctionNotFound", "LibraryMismatchError"]


@pytest.mark.parametrize("error", [*OFFERED, "Error_GpuIsLost"])
def test_what_is_not_offered_is_none_and_a_true_failure_is_raised(error: str) -> None:
    nvml = RecordedNvml("alone")
    gpu = NvmlGpu("1", nvml)
    for function in ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetComputeRunningProcesses"):
        nvml._answers[function] = {"*": [{"error": f"NVML{error}"}]}
    lost = pytest.raises(pynvml.NVMLError_GpuIsLost) if error not in OFFERED else nullcontext()
    for ask in (gpu.device_bytes, gpu.processes):
        with lost:
            assert ask() is None


# --- which GPUs there are, and what is free there ---


@pytest.mark.parametrize(
    ("named", "found"),
    [("0,-1,1", ["0"]), ("-1", []), ("", []), ("3, GPU-a", ["3", "GPU-a"]), ("1,,2", ["1"]), (None, ["0", "1"])],
)
def test_the_list_of_visible_gpus_ends_where_cuda_ends_it(
    named: str | None, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert visible_gpus() == found


@pytest.mark.parametrize(
    ("name", "order", "names", "free"),
    [
        ("1", "", "AA", 20),
        ("1", "", "AB", 10),  # CUDA's own order puts the fastest first
        ("1", "PCI_BUS_ID", "AB", 20),
        ("GPU-b", "", "AB", 20),
        ("GPU-c", "", "AB", None),
        ("5", "", "AA", None),
    ],
)
def test_what_is_free_is_asked_of_the_gpu_that_is_meant(
    name: str, order: str, names: str, free: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    machine: Any = Machine({"GPU-b": "index 1"})
    machine.nvmlDeviceGetName = lambda handle: names[int(handle[-1])]
    machine.nvmlDeviceGetMemoryInfo = lambda handle: SimpleNamespace(free=[10, 20][int(handle[-1])])
    machine.nvmlDeviceGetComputeRunningProcesses = lambda handle: [1] * int(handle[-1])
    assert (free_bytes(name, machine), machine.open) == (free, 0)
    assert occupied(name, machine) == (free is not None)


def test_without_nvml_nothing_is_known_to_be_free() -> None:
    assert not occupied("0", SimpleNamespace(nvmlInit=lambda: _look_up({}, "")))
    assert free_bytes("0", SimpleNamespace(nvmlInit=lambda: _look_up({}, ""))) is None


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("alone", {"gpu_power_limit_w": 250.0, "gpu_clocks_mhz": [1350, 7000], "gpu_mig": None, "gpu_compute_mode": 0}),
        (
            "mig-instance",
            {"gpu_power_limit_w": None, "gpu_clocks_mhz": None, "gpu_mig": "A MIG 1g", "gpu_compute_mode": 3},
        ),
    ],
)
def test_what_a_gpus_speed_depends_on_is_asked_of_nvml(name: str, settings: dict[str, Any]) -> None:
    nvml = RecordedNvml(name)
    if name == "alone":
        nvml._answers |= {
            "nvmlDeviceGetEnforcedPowerLimit": {"*": [250000]},
            "nvmlDeviceGetApplicationsClock": {f"gpu0,{pynvml.NVML_CLOCK_MEM}": [7000], "*": [1350]},
        }
    nvml._answers["nvmlDeviceGetComputeMode"] = {"*": [settings["gpu_compute_mode"]]}
    nvml._answers["nvmlDeviceGetName"] = {"*": ["A MIG 1g"]}
    assert NvmlGpu("5" if name == "mig-instance" else "1", nvml).settings() == settings


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_gpu_is_found_and_tells_what_costs_depend_on_and_what_is_free() -> None:
    """Free memory is asked in a process of its own, which must have no CUDA context afterwards."""
    gpu = NvmlGpu.of_torch_device(CUDA)
    settings = gpu.settings()
    gpu.close()
    assert settings["gpu_power_limit_w"] is None or settings["gpu_power_limit_w"] > 0
    asked = (
        "from harness.measure.gpu import *; print(free_bytes(visible_gpus()[0]), has_context(torch.device('cuda', 0)))"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, check=True, text=True)
    free, context = done.stdout.split()
    total = torch.cuda.get_device_properties(CUDA).total_memory  # of which CUDA keeps a part, that NVML counts as free
    assert (0 < int(free) <= 1.1 * total, context) == (True, "False")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_real_gpu_a_block_shows_in_every_figure_and_a_context_beside_what_torch_reserved() -> None:
    with MemorySampler(CUDA) as sampler:
        block = torch.ones(2**28, dtype=torch.uint8, device=CUDA)
        torch.cuda.synchronize(CUDA)
        sampler.sample()
        del block
    readings = {name: reading.bytes for name, reading in sampler.readings().items()}
    for key in ("allocator_peak", "allocator_reserved_peak", "gpu_device_peak"):
        assert (readings[key] or 0) >= 2**28
    process, reserved = readings["gpu_process_peak"], readings["allocator_reserved_peak"]
    assert process is None or 0 < process - (reserved or 0) < 2 * GB
    (note,) = sampler.notes()
    assert note.startswith("sampling memory took")
