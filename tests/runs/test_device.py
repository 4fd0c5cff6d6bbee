"""Which device is meant: by name, and what is said where a GPU is there that torch does not use."""

from typing import Any

import pytest
import torch

from bm3 import ConfigError
from harness.measure.gpu import GpuSurvey, GpuUnavailableError
from harness.runs import trial as trial_module
from harness.runs.trial import resolve_device

CARD = GpuSurvey("a card", 1, False, True, None, True)


@pytest.mark.parametrize(
    ("visible", "gpus", "told"),
    [(None, [CARD], True), ("0", [CARD], True), ("-1", [CARD], False), ("", [CARD], False), (None, [], False)],
)
def test_auto_says_so_where_nvml_sees_a_gpu_that_torch_does_not(
    visible: str | None, gpus: list[GpuSurvey], told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(trial_module, "survey", lambda: gpus)
    monkeypatch.setattr(trial_module, "driver_version", lambda: "550.1")
    assert resolve_device("auto", lines.append).type == "cpu"
    assert [all(part in line for part in ("a card", "550.1", torch.__version__)) for line in lines] == [True] * told


def test_without_nvml_and_for_the_cpu_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Any:
        raise GpuUnavailableError("NVML not available")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(trial_module, "survey", absent)
    assert resolve_device("auto", pytest.fail).type == "cpu"
    assert resolve_device("cpu", pytest.fail).type == "cpu"


@pytest.mark.parametrize("name", ["cuda:1", "tpu"])
def test_another_name_is_refused_and_a_number_with_the_remedy(name: str) -> None:
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES=1" if name == "cuda:1" else "not one of"):
        resolve_device(name)
