"""Energy, clocks and other users of a device during a block, over counters in files and played-back answers of NVML."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from recorded_nvml import RecordedNvml

from harness.experiments.store import StoredRun
from harness.measure.attribution import Own
from harness.measure.energy import (
    FELL,
    NO_COUNTER,
    NO_RAPL,
    UNMOVED,
    UNREADABLE,
    Energy,
    EnergyCounter,
    EnergyUnavailableError,
    rapl_counters,
    together,
)
from harness.measure.nvml import NvmlGpu
from harness.measure.overhead import Overhead, sampling_overhead
from harness.measure.power import DeviceWatch
from harness.report.measured import joules_per_epoch

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
NEVER = 600
NOWHERE = Path("/nowhere")


def counter(figures: list[float | None], wraps_at: float | None = None) -> EnergyCounter:
    supply = iter(figures)
    return EnergyCounter(lambda: next(supply), wraps_at)


def watched(name: str, own: Own | None, monkeypatch: pytest.MonkeyPatch) -> DeviceWatch:
    """A block with one epoch at each of the three moments of a recording."""
    if own is not None:
        monkeypatch.setattr("harness.measure.power.own_process", lambda *_: own)
    nvml = RecordedNvml(name)
    with DeviceWatch(CUDA, NEVER, open_gpu=lambda _: NvmlGpu("1", None, nvml), powercap=NOWHERE) as watch:
        for moment in (0, 1, 2):
            nvml.moment = moment
            watch.epoch()
            watch.sample()
    assert nvml.open == 0
    return watch


@pytest.fixture
def zone(tmp_path: Path) -> Callable[..., Path]:
    """`zone("intel-rapl:0", "package-0", microjoules)` writes one of the folders that Linux has below powercap."""

    def write(folder: str, name: str, microjoules: int, wraps_at: int = 10**9) -> Path:
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        (path / "name").write_text(f"{name}\n")
        (path / "energy_uj").write_text(f"{microjoules}\n")
        (path / "max_energy_range_uj").write_text(f"{wraps_at}\n")
        return path

    return write


def test_energy_is_what_the_counter_rose_by_and_per_epoch_leaves_out_the_first() -> None:
    one = counter([100.0, 150.0, 160.0, 172.0, 186.0, 200.0])
    one.sample()
    for _ in range(4):
        one.mark()
    one.sample()
    assert one.energy() == Energy(joules=100.0, per_epoch=12.0, epochs=3)


def test_epochs_shorter_than_the_steps_of_a_counter_are_known_by_their_mean() -> None:
    epoch_s, step_s, watts = 0.03, 0.1, 300.0
    ends = [epoch_s * n for n in range(1, 102)]
    one = counter([0.0, *(watts * step_s * int(end / step_s) for end in ends)])
    one.sample()
    for _ in ends:
        one.mark()
    found = one.energy()
    assert found.joules == pytest.approx(900.0)
    assert (found.epochs, found.note) == (100, None)
    assert found.per_epoch == pytest.approx(9.0, rel=0.02)


def test_a_counter_that_does_not_move_is_not_zero_joules() -> None:
    still = counter([7.0] * 4)
    over_epochs = counter([7.0, 8.0, 8.0, 8.0, 9.0])
    for one in (still, over_epochs):
        one.sample()
        for _ in range(3):
            one.mark()
    over_epochs.sample()
    assert still.energy() == Energy(None, None, 0, UNMOVED)
    assert over_epochs.energy() == Energy(2.0, None, 0, UNMOVED)
    moved = Energy(10.0, 3.0, 2)
    assert together([moved, over_epochs.energy()]) == Energy(12.0, None, 0, UNMOVED)
    assert together([moved, still.energy()]) == Energy(None, None, 0, UNMOVED)


def test_a_counter_that_starts_again_goes_on_where_its_range_is_known() -> None:
    one = counter([90.0, 95.0, 5.0], wraps_at=100.0)
    for _ in range(3):
        one.sample()
    assert one.energy().joules == 15.0
    fallen = counter([90.0, 5.0, 50.0])
    for _ in range(3):
        fallen.sample()
    assert fallen.energy() == Energy(None, None, 0, FELL)


def test_a_counter_without_figures_or_that_fails_has_a_note_and_no_energy() -> None:
    absent = counter([None])
    absent.sample()
    assert absent.energy() == Energy(None, None, 0, NO_COUNTER)
    failing = counter([])
    failing.sample()
    assert "StopIteration" in str(failing.energy().note)
    assert together([Energy(1.0, None, 0), failing.energy()]) == failing.energy()


def test_joules_per_epoch_of_a_run_are_of_all_its_counters_or_unknown() -> None:
    cpu, absent = Energy(9.0, 4.0, 2), Energy(None, None, 0, NO_COUNTER)

    def of(gpu: Energy) -> float | None:
        energy = {"gpu": asdict(gpu), "cpu": asdict(cpu)}
        return joules_per_epoch(StoredRun(NOWHERE, {}, {"energy": energy}))

    assert of(Energy(7.0, 3.0, 2)) == 7.0
    assert of(absent) == 4.0
    assert of(Energy(7.0, None, 0, UNMOVED)) is None


def test_without_a_finished_second_epoch_there_is_no_energy_per_epoch() -> None:
    one = counter([0.0, 5.0])
    one.sample()
    one.mark()
    assert one.energy() == Energy(5.0, None, 0)


def test_packages_and_their_memory_are_added_up_and_parts_of_packages_are_not(zone: Callable[..., Path]) -> None:
    zone("intel-rapl:0", "package-0", 1_000_000)
    zone("intel-rapl:0:0", "core", 1_000_000)
    zone("intel-rapl:0:1", "dram", 1_000_000)
    zone("intel-rapl:1", "package-1", 1_000_000)
    zone("intel-rapl:2", "psys", 1_000_000)
    folder = zone("dtpm", "something else", 1_000_000).parent
    with DeviceWatch(CPU, NEVER, powercap=folder) as watch:
        watch.epoch()
        zone("intel-rapl:0", "package-0", 3_000_000)
        zone("intel-rapl:0:0", "core", 2_500_000)
        zone("intel-rapl:0:1", "dram", 1_500_000)
        zone("intel-rapl:1", "package-1", 5_000_000)
        zone("intel-rapl:2", "psys", 9_000_000)
        watch.epoch()
    assert watch.readings()["cpu"] == Energy(joules=6.5, per_epoch=6.5, epochs=1)


def test_a_processors_counter_wraps_at_the_range_in_its_folder(zone: Callable[..., Path]) -> None:
    folder = zone("intel-rapl:0", "package-0", 9_000_000, wraps_at=10_000_000).parent
    with DeviceWatch(CPU, NEVER, powercap=folder) as watch:
        zone("intel-rapl:0", "package-0", 1_000_000, wraps_at=10_000_000)
    assert watch.readings()["cpu"].joules == pytest.approx(2.0)


def test_a_machine_without_counters_or_with_closed_ones_says_which(
    zone: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EnergyUnavailableError) as absent:
        rapl_counters(tmp_path)
    assert str(absent.value) == NO_RAPL
    zone("intel-rapl:0", "package-0", 1)
    read_text = Path.read_text

    def refused(path: Path, **options: str) -> str:
        # Root, who may run the tests, can read a file of mode 0.
        if path.name == "energy_uj":
            raise PermissionError
        return read_text(path, **options)

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(EnergyUnavailableError) as closed:
        rapl_counters(tmp_path)
    assert str(closed.value) == UNREADABLE


def test_a_gpus_energy_is_in_joules_over_its_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = watched("alone", None, monkeypatch).readings()
    assert readings["gpu"] == Energy(joules=70.0, per_epoch=35.0, epochs=2)
    assert readings["cpu"].note == NO_RAPL


def test_a_gpu_without_a_counter_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched("older-driver", None, monkeypatch).readings()["gpu"] == Energy(None, None, 0, NO_COUNTER)


def test_clocks_and_what_held_them_down_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = watched("slowed-down", None, monkeypatch).notes()
    assert "compute clock 1200 to 1800 of at most 2100 MHz" in notes
    assert "memory clock 7000 MHz" in notes
    assert "clocks held down by power limit in 100 % of samples" in notes
    # Five samples: at enter, after each epoch, at exit; heat at the last two.
    assert "clocks held down by temperature (driver) in 40 % of samples" in notes
    assert not [note for note in watched("alone", None, monkeypatch).notes() if "held down" in note]


def test_other_processes_are_counted_with_what_they_held(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = watched("several-processes", None, monkeypatch).notes()
    assert "2 other processes on the GPU during the run, with 4.00 GB at most" in notes
    assert not [note for note in watched("alone", None, monkeypatch).notes() if "other process" in note]


def test_the_runs_own_children_are_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.measure.power._children", lambda: [40])
    notes = watched("several-processes", None, monkeypatch).notes()
    assert [note for note in notes if note.startswith("1 other process on the GPU")]


def test_processes_under_ids_of_another_namespace_are_not_called_others(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Own(frozenset({os.getpid()}), comparable=False)
    notes = watched("container-two-appear", own, monkeypatch).notes()
    assert [note for note in notes if note.startswith("3 processes listed") and "one may be this run" in note]
    assert not [note for note in notes if "other process" in note]


def test_a_partitioned_gpu_says_what_its_figures_are_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    notes = watched("mig-two-instances", None, monkeypatch).notes()
    assert [note for note in notes if "MIG" in note and "whole GPU" in note]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_the_real_binding_gives_the_reason_and_the_block_goes_on() -> None:
    with DeviceWatch(CUDA, open_gpu=lambda _: NvmlGpu("0", None)) as watch:
        watch.epoch()
    assert str(watch.readings()["gpu"].note).startswith("NVML")
    with DeviceWatch(CPU) as watch:
        pass
    assert watch.readings()["gpu"].note == "no CUDA device in use"


@pytest.mark.parametrize(("others", "noted"), [(1.5, True), (0.05, False)])
def test_work_of_other_processes_on_the_processor_is_noted_where_it_is_much(
    others: float, noted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([(100.0, 1000.0, 50.0), (110.0, 1000.0 + 8 + 10 * others, 58.0)])
    monkeypatch.setattr("harness.measure.power._cpu_seconds", lambda: next(moments))
    with DeviceWatch(CPU, NEVER, powercap=NOWHERE) as watch:
        pass
    found = [note for note in watch.notes() if note.startswith(f"other processes took {others:.1f} of")]
    assert bool(found) is noted


def test_the_processors_clock_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = iter([SimpleNamespace(current=2600.4), SimpleNamespace(current=1400.0)])
    monkeypatch.setattr("psutil.cpu_freq", lambda: next(clocks))
    with DeviceWatch(CPU, NEVER, powercap=NOWHERE) as watch:
        pass
    assert "processor clock 1400 to 2600 MHz" in watch.notes()


def test_readings_are_refused_before_the_end_and_a_watch_is_used_once() -> None:
    watch = DeviceWatch(CPU, NEVER)
    for read in (watch.readings, watch.notes):
        with pytest.raises(RuntimeError, match="ended"):
            read()
    with watch, pytest.raises(RuntimeError, match="ended"):
        watch.readings()
    with pytest.raises(RuntimeError, match="one block"), watch:
        pass
    with pytest.raises(ValueError, match="interval_s"):
        DeviceWatch(CPU, 0)


def test_an_error_in_the_block_passes_through_and_stops_the_thread() -> None:
    with pytest.raises(KeyError, match="mine"), DeviceWatch(CPU, 0.001):
        raise KeyError("mine")
    assert not [thread for thread in threading.enumerate() if thread.name == "device-watch"]


def test_the_overhead_is_the_seconds_of_a_sample_over_those_between_two() -> None:
    assert Overhead("memory", 0.001, 0.05).share == pytest.approx(0.02)
    found = sampling_overhead(CPU, samples=3)
    assert [one.name for one in found] == ["memory", "energy and clocks"]
    assert all(0 < one.sample_s < 1 and one.interval_s > 0 for one in found)
    with pytest.raises(ValueError, match="samples"):
        sampling_overhead(CPU, samples=0)
