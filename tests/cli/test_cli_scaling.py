"""The command `bm3 scaling`: report, points and pictures; what is asked for; what is evidence; bad input; Ctrl-C."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import Command, refused

from harness.tools.scaling import measure as scaling
from harness.tools.scaling.fit import stored_exponents
from harness.tools.scaling.measure import Plan, Point, Tell
from harness.tools.scaling.parts import subjects_of

FULL = ("scaling", "--device", "cpu", "--to", "out")
QUICK = ("scaling", "--quick", "--device", "cpu")
STORED = Path("out/scaling.json")
ENVIRONMENT = "harness.measure.environment.environment"


def measuring(monkeypatch: pytest.MonkeyPatch, power: float, *, stop_after: int = 10**9) -> list[Plan]:
    """All times grow with this power of each size, without being measured; gives the plans asked for."""
    plans: list[Plan] = []

    def measure(names: Sequence[str], plan: Plan, device: torch.device, tell: Tell) -> Iterator[Point]:
        plans.append(plan)
        subjects = [subject for name in names for subject in subjects_of(name)]
        series = [(subject, factor) for subject in subjects for factor in plan.factors_of(subject)]
        for n, (subject, factor, sizes) in enumerate((s, f, sizes) for s, f in series for sizes in plan.grown(f)):
            if n == stop_after:
                raise KeyboardInterrupt
            seconds = dict.fromkeys(
                ("call",) if subject.part else ("step", "epoch"), (float(sizes.of(factor)) ** power,) * plan.repetitions
            )
            yield Point(subject.model, subject.part, factor, sizes, seconds, () if subject.part else (1000,) * 5)

    monkeypatch.setattr(scaling, "measure", measure)
    return plans


def exponents(size: str = "E") -> dict[str, float]:
    """Model → its exponent in this size that reports on the runs in the folder take."""
    found = stored_exponents(Path("out"))
    return {model: round(exponent, 1) for (model, factor), (exponent, *_) in found.items() if factor == size}


def test_a_quick_run_measures_and_writes_everything(command: Command) -> None:
    outcome = command(*QUICK, "bpr", "--vary", "E", "--to", "out", "--json", "points.json")
    assert outcome.code == 3, outcome  # nothing is published about BPR
    assert "Nothing could be judged" in outcome.out
    assert "bpr: E" in outcome.err
    names = {str(path.relative_to("out")) for path in Path("out").rglob("*") if path.is_file()}
    assert names == {f"scaling-quick.{kind}" for kind in ("md", "json")} | {
        f"pictures/scaling-quick-bpr.{kind}" for kind in ("png", "pdf")
    }
    content = json.loads(Path("points.json").read_text(encoding="utf-8"))
    assert content == json.loads(Path("out/scaling-quick.json").read_text(encoding="utf-8"))
    assert (content["quick"], content["complete"]) == (True, [])
    assert [point["size"] for point in content["points"]] == [2048, 4096, 8192, 16384]
    for point in content["points"]:
        assert {name: len(values) for name, values in point["seconds"].items()} == {"step": 5, "epoch": 5}
        assert len(point["bytes"]) == 5
    origin = content["models"]["bpr"]
    assert origin["environment"]["torch"] == torch.__version__
    report = Path("out/scaling-quick.md").read_text(encoding="utf-8")
    assert "| model, epoch" in report
    assert origin["command"] in report
    assert "(pictures/scaling-quick-bpr.png)" in report


@pytest.mark.parametrize(
    ("power", "code", "answer"), [(0.9, 0, "Nothing that could be judged"), (2.0, 1, "- Above: bm3")]
)
def test_the_exit_code_is_the_verdict(
    command: Command, monkeypatch: pytest.MonkeyPatch, power: float, code: int, answer: str
) -> None:
    measuring(monkeypatch, power)
    outcome = command(*FULL, "bm3")
    assert outcome.code == code
    assert answer in outcome.out
    assert "Incomplete" not in outcome.out
    assert exponents() == {"bm3": power}


def test_another_model_joins_those_that_are_there_and_the_same_one_replaces_itself(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring(monkeypatch, 1.0)
    command(*FULL, "bpr", "bm3")
    measuring(monkeypatch, 2.0)
    outcome = command(*FULL, "bpr")
    assert exponents() == {"bm3": 1.0, "bpr": 2.0}
    assert "kept" not in outcome.out
    content = json.loads(STORED.read_text(encoding="utf-8"))
    assert content["complete"] == ["bm3", "bpr"]
    assert (len(content["points"]), content["quick"]) == (5 * (6 + 5 + 4 + 2 + 4), False)  # with BM3's parts
    commands = [content["models"][name]["command"] for name in ("bm3", "bpr")]
    report = Path("out/scaling.md").read_text(encoding="utf-8")
    assert "bm3 scaling bpr bm3" in commands[0]
    assert "bm3 scaling bpr --vary" in commands[1]
    for part in (*commands, "## bm3", "## bpr"):
        assert part in report


@pytest.mark.parametrize("arguments", [["--quick"], ["--vary", "E,I"]], ids=" ".join)
def test_what_is_quick_or_incomplete_is_no_evidence_and_leaves_what_is_there(
    command: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    measuring(monkeypatch, 2.0)
    outcome = command(*FULL, "bm3", *arguments)
    assert "Incomplete, and no evidence in reports on runs: bm3" in outcome.out
    assert exponents() == {}
    measuring(monkeypatch, 1.0)
    command(*FULL, "bm3")
    paths = [STORED, Path("out/scaling.md"), *Path("out/pictures").glob("scaling-bm3.*")]
    before = {path: path.read_bytes() for path in paths}
    assert len(before) == 4
    assert command(*FULL, "bm3", *arguments).code == 0
    assert {path: path.read_bytes() for path in before} == before
    assert exponents() == {"bm3": 1.0}


def test_a_point_without_figures_makes_its_model_incomplete(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, 1.0)
    measured: Callable[..., Iterator[Point]] = vars(scaling)["measure"]

    def short_of_memory(names: Sequence[str], plan: Plan, device: torch.device, tell: Tell) -> Iterator[Point]:
        *points, last = measured(names, plan, device, tell)
        yield from [*points, replace(last, seconds={}, note="too little memory")]

    monkeypatch.setattr(scaling, "measure", short_of_memory)
    command(*FULL, "bpr", "vbpr")
    assert exponents() == {"bpr": 1.0}
    assert json.loads(Path("out/scaling-partial.json").read_text(encoding="utf-8"))["models"].keys() == {"vbpr"}


@pytest.mark.parametrize("change", ["settings", "machine", "damage", "only quick, by hand"])
def test_what_cannot_be_in_one_file_is_kept_under_another_name(
    command: Command, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    measuring(monkeypatch, 1.0)
    command(*FULL, "bm3", "bpr")
    if change == "machine":
        monkeypatch.setattr(ENVIRONMENT, lambda device: {"cpu": "another"})
    elif change == "damage":
        STORED.write_text("{", encoding="utf-8")
    elif change == "only quick, by hand":
        command(*QUICK, "bm3", "--to", "out")
        Path("out/scaling-quick.json").replace(STORED)
        assert exponents() == {}
    before = STORED.read_bytes()
    outcome = command(*FULL, "bpr", *(["--repetitions", "6"] if change == "settings" else []))
    assert outcome.code == 3
    (kept,) = (path for path in STORED.parent.glob("scaling-*.json") if path.read_bytes() == before)
    assert f"kept: {kept}, which scaling.json was before" in outcome.out
    assert exponents() == {"bpr": 1.0}


def test_another_revision_of_the_source_joins_and_is_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, 1.0)
    for revision, model in (("1234567", "bm3"), ("89abcde", "bpr")):
        monkeypatch.setattr(ENVIRONMENT, lambda device, revision=revision: {"cpu": "c", "source_revision": revision})
        command(*FULL, model)
    assert exponents() == {"bm3": 1.0, "bpr": 1.0}
    assert "1234567, 89abcde" in Path("out/scaling.md").read_text(encoding="utf-8")


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
        (["--repetitions", "0"], ["--repetitions", "fewer than 5"]),
        (["--repetitions", "4"], ["--repetitions", "4 is fewer than 5"]),
        (["--json", "scaling.json"], ["--json", "scaling.json", "choose another"]),
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
    measuring(monkeypatch, 1.0)
    command(*FULL, "bm3")
    measuring(monkeypatch, 2.0, stop_after=5 * 4 + 5)  # all of BPR, and one size of BM3
    outcome = command(*FULL, "bpr", "bm3")
    assert outcome.code == 130
    assert outcome.err.splitlines()[-1].startswith("bm3: interrupted: the report has what was measured")
    assert exponents() == {"bm3": 1.0, "bpr": 2.0}
    points = json.loads(Path("out/scaling-partial.json").read_text(encoding="utf-8"))["points"]
    assert {(point["model"], point["factor"]) for point in points} == {("bm3", "E")}


def test_ctrl_c_before_the_first_point_leaves_no_report(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, 1.0, stop_after=0)
    outcome = command(*QUICK, "bm3", "--to", "out")
    assert outcome.code == 130
    assert list(Path("out").iterdir()) == []
