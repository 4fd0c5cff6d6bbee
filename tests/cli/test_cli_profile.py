"""The command `bm3 profile`: tables, the file of all figures, one line for bad input, and Ctrl-C."""

import json
from pathlib import Path

import pytest
import torch
from command_line import Command, refused

from harness.tools.profiling.roofline import MachineRates


@pytest.fixture(autouse=True)
def _rates_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring them would take seconds."""
    rates = MachineRates(bytes_per_second=1e9, flops_per_second=1e10, threads=2)
    monkeypatch.setattr("harness.tools.profiling.profile.measure_rates", lambda device: rates)


def test_the_command_shows_both_tables_and_writes_all_figures(command: Command) -> None:
    settings = ["--steps", 2, "--set", "batch_size=512", "--device", "cpu"]
    outcome = command("profile", "bpr", "mini", *settings, "--json", "bpr.json")
    assert outcome.code == 0
    assert outcome.out.startswith("bpr on mini, cpu\n")
    assert outcome.out.count("outside torch operations") == 2
    assert "evaluation" in outcome.err
    values = json.loads(Path("bpr.json").read_text(encoding="utf-8"))
    assert (values["model"], values["dataset"], values["steps"]) == ("bpr", "mini", 2)
    assert values["training"]["batch_size"] == 512
    assert values["step"]["floor"]["bytes"] > 0
    assert values["environment"]["torch"] == torch.__version__
    assert [path.name for path in Path.cwd().iterdir()] == ["bpr.json"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["profile", "bppr", "mini"], ["no model 'bppr'", "bpr"]),
        (["profile", "bpr", "minni"], ["no data set 'minni'", "nearest: mini"]),
        (["profile", "bpr", "mini", "--json", "nowhere/bpr.json"], ["nowhere/bpr.json", "cannot be written", "--json"]),
        (["profile", "bpr", "mini", "--json", "."], ["it is a folder", "--json"]),
        (["profile", "bpr", "mini", "--set", "n_layers=2"], ["bpr has no setting 'n_layers'"]),
        (["profile", "bpr", "mini", "--steps", "0"], ["--steps", "0"]),
    ],
    ids=lambda value: " ".join(value) if value[0] == "profile" else "",
)
def test_bad_input_ends_in_one_line_before_anything_is_measured(
    command: Command, arguments: list[str], parts: list[str]
) -> None:
    line = refused(command(*arguments))
    for part in parts:
        assert part in line
    assert list(Path.cwd().iterdir()) == []


def test_ctrl_c_ends_with_130_and_leaves_no_file(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(device: torch.device) -> MachineRates:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.tools.profiling.profile.measure_rates", interrupt)
    outcome = command("profile", "bpr", "mini", "--json", "bpr.json")
    assert outcome.code == 130
    assert outcome.err.splitlines()[-1] == "bm3: interrupted"
    assert list(Path.cwd().iterdir()) == []
