"""Whose memory it is, with drivers that list processes well, badly, under other ids, or not at all (`readings`)."""

import os
from pathlib import Path

import pynvml
import pytest
import torch
from recorded_nvml import READINGS, RecordedNvml

from harness.measure import MemorySampler, Reading
from harness.measure.attribution import (
    APPEARED,
    OUTER_ID,
    RISE,
    RISE_OF_ALL,
    DeviceMemory,
    GpuProcess,
    Own,
    attributed,
    namespaced_pids,
    own_process,
    strangers,
)
from harness.measure.memory import NO_PROCESS_FIGURES
from harness.measure.nvml import MIG_INSTANCE, MIG_WHOLE, GpuUnavailableError, NvmlGpu, survey

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
    reading = sampled("slowed-down", HOST, monkeypatch)["gpu_process_peak"]
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


def test_growth_of_others_without_figures_is_not_taken_off() -> None:
    before = DeviceMemory(10, (GpuProcess(40, None),))
    assert attributed(before, DeviceMemory(15, (GpuProcess(40, None),)), HOST) == (5, RISE_OF_ALL)


@pytest.mark.parametrize(
    ("own", "listed", "found"),
    [
        (HOST, [40, os.getpid()], [40]),
        (HOST, [40], [40]),
        (CONTAINER, [40], []),
        (CONTAINER, [40, os.getpid()], [40]),
    ],
)
def test_only_what_is_surely_another_process_is_called_one(own: Own, listed: list[int], found: list[int]) -> None:
    seen = DeviceMemory(10, tuple(GpuProcess(pid, 1) for pid in listed))
    assert [process.pid for process in strangers(seen, own)] == found


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
    assert gpu.process_bytes(os.getpid()) is not None
    assert gpu.joules() == 5030.0  # which only the whole GPU counts
    assert gpu.clocks().compute_limit is not None


def test_an_older_driver_gives_none_and_slowdowns_by_their_older_name() -> None:
    nvml = RecordedNvml("older-driver")
    gpu = NvmlGpu("1", None, nvml)
    assert (gpu.joules(), gpu.note, gpu.slowdowns()) == (None, None, frozenset())
    nvml.moment = 1
    assert gpu.slowdowns() == {"temperature (hardware)"}


def test_an_idle_gpu_is_not_called_slowed_down() -> None:
    nvml = RecordedNvml("slowed-down")
    nvml.moment = 1  # bits: idle and power limit
    assert NvmlGpu("1", None, nvml).slowdowns() == {"power limit"}


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


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_the_real_binding_has_nothing_to_survey() -> None:
    with pytest.raises(GpuUnavailableError, match="NVML"):
        survey()


@pytest.mark.parametrize(
    ("status", "pids"),
    [
        ("Name:\tpython\nNSpid:\t4711\t23\t7\n", (4711, 23, 7)),
        ("Pid:\t7\nNSpid:\t7\n", (7,)),
        ("Pid:\t7\n", ()),
    ],
)
def test_ids_come_from_the_outermost_namespace_inwards(status: str, pids: tuple[int, ...]) -> None:
    assert namespaced_pids(status) == pids


@pytest.mark.parametrize(
    ("nspid", "namespace", "comparable"),
    [("7", "pid:[4026531836]", True), ("7", "pid:[4026532500]", False), ("4711 7", "pid:[4026532500]", True)],
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
