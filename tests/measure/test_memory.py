"""Peaks are found, and a missing figure says why. Fake readings stand in for a GPU here; the binding itself is real."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import chain, repeat

import pynvml
import pytest
import torch
from command_line import wait_until

from harness.measure.gpu import GpuProcess, NvmlGpu
from harness.measure.memory import INTERVAL_S, MemorySampler, Reading

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
MEGABYTE = 10**6


@pytest.fixture(autouse=True)
def _on_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tests run may be a container, in which ids of processes say nothing."""
    monkeypatch.setattr("harness.measure.memory.own_process", lambda: frozenset({os.getpid()}))


class FakeGpu:
    """Gives the listed figures one after another, then the last one for ever."""

    def __init__(self, process: list[int | None], device: list[int | None]) -> None:
        self._process, self._device = _endless(process), _endless(device)
        self.asked = 0
        self.closed = False

    def processes(self) -> tuple[GpuProcess, ...] | None:
        self.asked += 1
        figure = next(self._process)
        return None if figure is None else (GpuProcess(os.getpid(), figure),)

    def device_bytes(self) -> int | None:
        return next(self._device)

    def close(self) -> None:
        self.closed = True


def _endless(figures: list[int | None]) -> Iterator[int | None]:
    return chain(figures, repeat(figures[-1]))


def _sampler_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "memory-sampler"]


@pytest.mark.parametrize(
    ("interval_s", "hold_s"),
    [
        pytest.param(0.01, 0.3, id="sampled"),
        pytest.param(
            600,
            0,
            id="between two samples",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows offers no record to this code"),
        ),
    ],
)
def test_memory_freed_before_exit_shows_in_the_process_peak(interval_s: float, hold_s: float) -> None:
    # A process of its own, since earlier tests may have left this one with a higher record or with free pages to reuse.
    script = f"""
import time, numpy, torch
from harness.measure.memory import MemorySampler
with MemorySampler(torch.device("cpu"), {interval_s}) as sampler:
    block = numpy.ones({200 * MEGABYTE}, dtype=numpy.uint8)
    time.sleep({hold_s})
    del block
readings = sampler.readings()
print(readings["process_rss_peak"].bytes - readings["process_rss_start"].bytes)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert 190 * MEGABYTE < int(done.stdout) < 260 * MEGABYTE


def test_an_old_record_of_the_process_is_not_taken_for_a_peak_of_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.measure.memory._lifetime_rss_peak", lambda: 10**15)
    with MemorySampler(CPU) as sampler:
        pass
    assert MEGABYTE < (sampler.readings()["process_rss_peak"].bytes or 0) < 10**15


def test_the_thread_samples_again_and_again_during_the_block() -> None:
    gpu = FakeGpu([1, 2, 3, 900, 5], [10, 20, 2000, 30])
    with MemorySampler(CUDA, 0.001, open_gpu=lambda _: gpu) as sampler:
        wait_until(lambda: gpu.asked >= 5)
    readings = sampler.readings()
    assert (readings["gpu_process_peak"], readings["gpu_device_peak"]) == (Reading(900), Reading(2000))


def test_the_device_peak_is_the_largest_sample_and_the_last_is_taken_at_exit() -> None:
    # With an interval that never elapses there are exactly two samples: at enter and at exit.
    gpu = FakeGpu([None, 70], [500, 500, 400])  # asked once more where no process is listed
    with MemorySampler(CUDA, 600, open_gpu=lambda _: gpu) as sampler:
        pass
    readings = sampler.readings()
    assert (readings["gpu_device_peak"], readings["gpu_process_peak"]) == (Reading(500), Reading(70))
    assert gpu.closed


def test_the_samplers_own_share_is_told_and_once_a_second_is_seldom_enough() -> None:
    class BusyGpu(FakeGpu):
        def device_bytes(self) -> int | None:
            began = time.thread_time()
            while time.thread_time() - began < 0.01:
                pass
            return super().device_bytes()

    assert INTERVAL_S >= 1
    began = time.perf_counter()
    with MemorySampler(CUDA, open_gpu=lambda _: BusyGpu([1], [1])) as sampler:
        for _epoch in range(3):
            sampler.sample()
    lasted = time.perf_counter() - began
    (note,) = sampler.notes()
    took, share = note.split(" % ")[0].split()[:2], float(note.split(" % ")[0].split()[-1]) / 100
    assert (took, 0.03 / lasted <= 1.1 * share <= 1.2) == (["sampling", "memory"], True)
    with MemorySampler(CPU) as sampler:
        pass
    assert sampler.notes() == []


def test_a_failing_sample_ends_in_its_note_and_leaves_the_rest_alone() -> None:
    class LostGpu(FakeGpu):
        def processes(self) -> tuple[GpuProcess, ...] | None:
            found = super().processes()
            if self.asked == 2:
                raise pynvml.NVMLError_GpuIsLost
            return found

    gpu = LostGpu([1, 2, 3], [500])
    with MemorySampler(CUDA, 0.001, open_gpu=lambda _: gpu) as sampler:
        wait_until(lambda: gpu.asked == 2)
        time.sleep(0.05)
        assert len(_sampler_threads()) == 1
    readings = sampler.readings()
    assert gpu.asked == 2
    assert readings["gpu_process_peak"].bytes is None
    assert "GPU is lost" in str(readings["gpu_process_peak"].note)
    assert readings["gpu_device_peak"] == Reading(500)
    assert readings["process_rss_peak"].bytes


def test_an_error_in_the_block_passes_through_and_stops_the_thread() -> None:
    gpu = FakeGpu([1], [1])
    sampler = MemorySampler(CUDA, 0.001, open_gpu=lambda _: gpu)
    with pytest.raises(KeyError, match="mine"), sampler:
        raise KeyError("mine")
    assert _sampler_threads() == []
    assert gpu.closed
    assert sampler.readings()["gpu_device_peak"] == Reading(1)


def test_a_run_on_the_cpu_says_so_for_every_gpu_figure() -> None:
    with MemorySampler(CPU) as sampler:
        pass
    readings = sampler.readings()
    start, peak = readings.pop("process_rss_start").bytes, readings.pop("process_rss_peak").bytes
    assert MEGABYTE < (start or 0) <= (peak or 0)
    figures = ("allocator_peak", "allocator_reserved_peak", "gpu_process_peak", "gpu_device_peak")
    assert readings == dict.fromkeys(figures, Reading(None, "no CUDA device in use"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_the_real_binding_gives_the_reason() -> None:
    with MemorySampler(CUDA, open_gpu=lambda _: NvmlGpu("0")) as sampler:
        pass
    readings = sampler.readings()
    for key in ("gpu_process_peak", "gpu_device_peak"):
        assert readings[key].bytes is None
        assert (readings[key].note or "").startswith("NVML")
    assert (readings["allocator_peak"].note or "").startswith("torch cannot use CUDA: ")


def test_allocator_peaks_come_from_torch_after_a_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = {"allocated": 999, "reserved": 999}
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda device: peaks.update(allocated=0, reserved=0, on=device.index)
    )
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peaks["allocated"])
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: peaks["reserved"])
    with MemorySampler(torch.device("cuda", 3), open_gpu=lambda _: FakeGpu([1], [1])) as sampler:
        peaks.update(allocated=40, reserved=64)
    assert sampler.readings()["allocator_peak"] == Reading(40)
    assert sampler.readings()["allocator_reserved_peak"] == Reading(64)
    assert peaks["on"] == 3
