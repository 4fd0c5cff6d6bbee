"""The command `bm3 scaling`: report, points and pictures; what is asked for; bad input; Ctrl-C."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import Command, refused

from harness import cli_scaling
from harness.compare.scaling import stored_exponents
from harness.measure.scaling import Plan, Point, Tell

QUICK = ("scaling", "--quick", "--device", "cpu")


def measuring(monkeypatch: pytest.MonkeyPatch, power: float, *, stop_after: int = 10**9) -> list[Plan]:
    """Epochs and steps of BM3 grow with this power of each size, without being measured; gives the plans asked for."""
    plans: list[Plan] = []

    def measure(names: Sequence[str], plan: Plan, device: torch.device, tell: Tell) -> Iterator[Point]:
        plans.append(plan)
        for n, (factor, sizes) in enumerate((f, sizes) for f in plan.factors for sizes in plan.grown(f)):
            if n == stop_after:
                raise KeyboardInterrupt
            seconds = (float(sizes.of(factor)) ** power,) * plan.repetitions
            yield Point("bm3", "", factor, sizes, {"step": seconds, "epoch": seconds}, (1000,) * 5)

    monkeypatch.setattr(cli_scaling, "measure", measure)
    return plans


def test_a_quick_run_measures_and_writes_everything(command: Command) -> None:
    outcome = command(*QUICK, "bpr", "--vary", "E", "--to", "out", "--json", "points.json")
    assert outcome.code == 3, outcome  # nothing is published about BPR
    assert "Nothing could be judged" in outcome.out
    assert "bpr: E" in outcome.err
    names = {str(path.relative_to("out")) for path in Path("out").rglob("*") if path.is_file()}
    assert names == {"scaling.md", "scaling.json", "pictures/scaling-bpr.png", "pictures/scaling-bpr.pdf"}
    content = json.loads(Path("points.json").read_text(encoding="utf-8"))
    assert content == json.loads(Path("out/scaling.json").read_text(encoding="utf-8"))
    assert [point["size"] for point in content["points"]] == [2048, 4096, 8192, 16384]
    for point in content["points"]:
        assert {name: len(values) for name, values in point["seconds"].items()} == {"step": 5, "epoch": 5}
        assert len(point["bytes"]) == 5
    assert content["environment"]["torch"] == torch.__version__
    report = Path("out/scaling.md").read_text(encoding="utf-8")
    assert "| model, epoch" in report
    assert content["command"] in report


@pytest.mark.parametrize(
    ("power", "code", "answer"), [(0.9, 0, "Nothing that could be judged"), (2.0, 1, "- Above: bm3")]
)
def test_the_exit_code_is_the_verdict(
    command: Command, monkeypatch: pytest.MonkeyPatch, power: float, code: int, answer: str
) -> None:
    measuring(monkeypatch, power)
    outcome = command(*QUICK, "bm3", "--to", "out")
    assert outcome.code == code
    assert answer in outcome.out
    exponent, *_ = stored_exponents(Path("out"))["bm3", "E"]
    assert exponent == pytest.approx(power, abs=0.02)


def test_what_is_asked_for_is_what_is_measured(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    (plans, plain) = measuring(monkeypatch, 1.0), Plan()
    command("scaling", "bm3", "--vary", "B,d_m", "--sizes", "8,1,2,4", "--repetitions", 6, "--device", "cpu")
    assert plans == [replace(plain, factors=("B", "d_m"), multipliers=(1, 2, 4, 8), repetitions=6)]


def test_a_dry_run_lists_and_measures_nothing(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = measuring(monkeypatch, 1.0)
    outcome = command(*QUICK, "bpr", "bm3", "--vary", "E,d_m", "--dry-run")
    assert (outcome.code, plans) == (0, [])
    rows = {cells[0]: cells[1] for cells in (line.split() for line in outcome.out.splitlines()) if cells}
    assert (rows["bpr"], rows["bm3"], rows["all"]) == ("4", "16", "20")
    assert "E 2,048, 4,096, 8,192, 16,384" in outcome.out
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["bm4"], ["no model 'bm4'", "bm3"]),
        (["--vary", "E,K"], ["--vary", "'K'", "d_m"]),
        (["--vary", ","], ["--vary", "names nothing"]),
        (["--sizes", "1,2,x,8"], ["--sizes", "'x'"]),
        (["--sizes", "0,1,2,4"], ["--sizes", "'0'"]),
        (["--sizes", "1,2,4,4"], ["--sizes", "fewer than 4"]),
        (["--sizes", "1,2,4,1000"], ["--sizes", "times 1000"]),
        (["--repetitions", "0"], ["--repetitions"]),
        (["--json", "nowhere/points.json"], ["nowhere/points.json", "--json"]),
        (["--to", "/dev/null/out"], ["/dev/null/out", "--to"]),
    ],
    ids=lambda value: " ".join(value) if value[0][0] in "-b" else "",
)
def test_bad_input_ends_in_one_line_before_anything_is_measured(
    command: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str], parts: list[str]
) -> None:
    plans = measuring(monkeypatch, 1.0)
    line = refused(command(*QUICK, *arguments))
    for part in parts:
        assert part in line
    assert plans == []


def test_ctrl_c_leaves_a_report_on_what_was_measured(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, 1.0, stop_after=4)
    outcome = command(*QUICK, "bm3", "--to", "out")
    assert outcome.code == 130
    assert outcome.err.splitlines()[-1].startswith("bm3: interrupted: the report has what was measured")
    points = json.loads(Path("out/scaling.json").read_text(encoding="utf-8"))["points"]
    assert {point["factor"] for point in points} == {"E"}


def test_ctrl_c_before_the_first_point_leaves_no_report(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, 1.0, stop_after=0)
    outcome = command(*QUICK, "bm3", "--to", "out")
    assert outcome.code == 130
    assert list(Path("out").iterdir()) == []
