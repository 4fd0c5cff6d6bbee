"""Joules of a block and of its epochs, over counters that are set by hand and played-back answers of NVML."""

from collections.abc import Sequence
from dataclasses import asdict

import pytest
import torch
from recorded_nvml import RecordedNvml
from run_files import record

from harness.measure.energy import FELL, NO_COUNTER, UNMOVED, Energy, EnergyMeter
from harness.measure.gpu import MIG_WHOLE, NvmlGpu
from harness.paper.costs import joules_per_epoch

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class Counter:
    """A GPU whose counter shows these figures one after another, and then fails."""

    note = None

    def __init__(self, figures: Sequence[float | None]) -> None:
        self._figures, self.closed = iter(figures), False

    def joules(self) -> float | None:
        return next(self._figures)

    def close(self) -> None:
        self.closed = True


def measured(*figures: float | None) -> Energy:
    """Energy of a block whose counter shows the first figure at its begin, the last at its end, others after epochs."""
    gpu = Counter(figures)
    with EnergyMeter(CUDA, open_gpu=lambda _: gpu) as meter:
        for _ in figures[1:-1]:
            meter.epoch()
    assert gpu.closed
    return meter.energy()


@pytest.mark.parametrize(
    ("figures", "found"),
    [
        ((100.0, 150.0, 160.0, 172.0, 186.0, 200.0), Energy(joules=100.0, per_epoch=12.0, epochs=3)),
        ((0.0, 5.0, 6.0), Energy(6.0, None, 0)),
        ((0.0, 6.0), Energy(6.0, None, 0)),
        ((7.0, 7.0, 7.0, 7.0), Energy(None, None, 0, UNMOVED)),
        ((7.0, 8.0, 8.0, 8.0, 9.0), Energy(2.0, None, 0, UNMOVED)),
        ((90.0, 5.0, 50.0), Energy(None, None, 0, FELL)),
        ((None, None), Energy(None, None, 0, NO_COUNTER)),
    ],
)
def test_energy_is_what_the_counter_rose_by_and_per_epoch_leaves_out_the_first(
    figures: Sequence[float | None], found: Energy
) -> None:
    assert measured(*figures) == found


def test_epochs_shorter_than_the_steps_of_a_counter_are_known_by_their_mean() -> None:
    epoch_s, step_s, watts = 0.03, 0.1, 300.0
    found = measured(0.0, *(watts * step_s * int(epoch_s * n / step_s) for n in range(1, 102)), 909.0)
    assert (found.joules, found.epochs, found.note) == (909.0, 100, None)
    assert found.per_epoch == pytest.approx(9.0, rel=0.02)


def test_a_counter_that_fails_ends_in_a_note_and_the_block_goes_on() -> None:
    with EnergyMeter(CUDA, open_gpu=lambda _: Counter([5.0])) as meter:
        meter.epoch()
    assert "StopIteration" in str(meter.energy().note)
    with pytest.raises(KeyError, match="mine"), EnergyMeter(CPU):
        raise KeyError("mine")


@pytest.mark.parametrize(
    ("name", "found", "notes"),
    [
        ("alone", Energy(joules=70.0, per_epoch=35.0, epochs=2), []),
        ("older-driver", Energy(None, None, 0, NO_COUNTER), []),
        ("mig-two-instances", Energy(joules=70.0, per_epoch=35.0, epochs=2), [MIG_WHOLE]),
    ],
)
def test_a_gpus_energy_is_in_joules(
    name: str, found: Energy, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvml = RecordedNvml(name)
    with EnergyMeter(CUDA, open_gpu=lambda _: NvmlGpu("1", nvml)) as meter:
        for nvml.moment in (0, 1, 2):
            meter.epoch()
    assert (meter.energy(), meter.notes(), nvml.open) == (found, notes, 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_the_reason_is_noted() -> None:
    for device, reason in ((CUDA, "NVML"), (CPU, "no CUDA device in use")):
        with EnergyMeter(device, open_gpu=lambda _: NvmlGpu("0")) as meter:
            meter.epoch()
        assert str(meter.energy().note).startswith(reason)


def test_joules_per_epoch_of_a_run_are_of_all_its_counters_or_unknown() -> None:
    """Runs of earlier versions have the processor's too."""

    def of(gpu: Energy) -> float | None:
        energy = {"gpu": asdict(gpu), "cpu": asdict(Energy(9.0, 4.0, 2))}
        return joules_per_epoch(record(result={"energy": energy}))

    assert of(Energy(7.0, 3.0, 2)) == 7.0
    assert of(Energy(None, None, 0, NO_COUNTER)) == 4.0
    assert of(Energy(7.0, None, 0, UNMOVED)) is None
