"""Which device is meant: by name, and what is said where a GPU is there that torch does not use."""

from unittest.mock import Mock

import pytest
import torch

from bm3 import ConfigError
from harness.measure.gpu import GpuSurvey, GpuUnavailableError
from harness.runs import trial as trial_module
from harness.runs.record import COST_KEYS, cost_key, gpu_text
from harness.runs.trial import resolve_device
from harness.tools.regress import baseline

CARD = GpuSurvey("a card", False, True, True)


@pytest.mark.parametrize(
    ("visible", "gpus", "told"),
    [
        (None, [CARD], True),
        ("0", [CARD], True),
        ("-1", [CARD], False),
        ("", [CARD], False),
        (None, [], False),
        (None, None, False),
    ],
)
def test_auto_says_so_where_nvml_sees_a_gpu_that_torch_does_not(
    visible: str | None,
    gpus: list[GpuSurvey] | None,
    told: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """None: NVML is not there. Of the CPU nothing is said."""
    trial_module.say_once.cache_clear()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    answer = {"side_effect": GpuUnavailableError} if gpus is None else {"return_value": gpus}
    monkeypatch.setattr(trial_module, "survey", Mock(**answer))
    monkeypatch.setattr(trial_module, "driver_version", lambda: "550.1")
    assert [resolve_device(name).type for name in ("auto", "auto", "cpu")] == ["cpu"] * 3
    lines = capsys.readouterr().err.splitlines()  # once, though a study asks several times
    assert [all(part in line for part in ("a card", "550.1", torch.__version__)) for line in lines] == [True] * told


@pytest.mark.parametrize("name", ["cuda:1", "tpu"])
def test_another_name_is_refused_and_a_number_with_the_remedy(name: str) -> None:
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES=1" if name == "cuda:1" else "not one of"):
        resolve_device(name)


@pytest.mark.parametrize("key", COST_KEYS)
def test_what_decides_costs_tells_machines_apart_where_costs_are_compared(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the key itself, and by the class of a baseline; threads are asked for there."""
    here = {**dict.fromkeys(baseline.CLASS_KEYS), **dict.fromkeys(COST_KEYS, "one")}
    there = {**here, key: "another"}
    assert cost_key(here) != cost_key(there)
    classes = []
    for environment in (here, there):
        monkeypatch.setattr(baseline, "environment", lambda device, found=environment: found)
        classes.append(baseline.machine_class(torch.device("cuda"), 1))
    assert (classes[0] != classes[1]) == (key != "torch_threads")
    assert "gpu_driver" not in baseline.machine_class(torch.device("cpu"), 1)


def test_a_gpu_is_described_by_what_was_recorded_of_it() -> None:
    known = {"gpu": "A", "gpu_driver": "550", "gpu_power_limit_w": 300.0, "gpu_clocks_mhz": None, "gpu_compute_mode": 0}
    assert gpu_text(known) == "A, driver 550, 300 W"
    assert gpu_text({"gpu": None}) == ""
