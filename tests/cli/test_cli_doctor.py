"""`bm3 doctor`: one screen, JSON with the same findings, and an exit code that says whether the main job can run."""

import json
from pathlib import Path

import pytest
from command_line import Command, refused

from harness.tools.doctor import doctor
from harness.tools.doctor.doctor import Finding


def test_one_screen_says_what_is_here_and_stores_nothing(command: Command) -> None:
    code, out, err = command("doctor")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) <= 40
    assert max(map(len, out.splitlines())) <= 120
    for topic in ("Python", "torch", "NVML", "determinism", "cores", "memory", "store", "traces", "data", "extras"):
        assert topic in out
    assert out.splitlines()[-1] == "The main job can run: bm3 reproduce"
    assert list(Path().iterdir()) == []


def test_json_has_the_same_findings(command: Command) -> None:
    code, out, _ = command("doctor", "--json")
    content = json.loads(out)
    assert (code, content["able"]) == (0, True)
    assert {"topic", "found", "severity", "advice"} == set(content["findings"][0])
    assert any(finding["topic"] == "NVML" and "NVML" in finding["found"] for finding in content["findings"])


@pytest.mark.parametrize("layout", [(), ("--json",)])
def test_a_problem_is_exit_code_1(command: Command, tmp_path: Path, layout: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("")
    code, out, _ = command("doctor", "--out", tmp_path / "file", *layout)
    assert code == 1
    assert "cannot be written" in out
    assert "The main job can run" not in out


def test_advice_stands_beneath_its_finding_and_problems_are_counted(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = [
        Finding("memory", "little", "problem", "free some"),
        Finding("data", "no " * 60, "note"),
        Finding("data", "other"),
    ]
    monkeypatch.setattr(doctor, "diagnose", lambda data, out: findings)
    code, out, _ = command("doctor")
    lines = out.splitlines()
    assert code == 1
    assert lines[0].split() == ["problem", "memory", "little"]
    assert lines[1].strip() == "→ free some"
    assert lines[2].startswith("note     data ")
    assert lines[3].startswith(" " * 22 + "no ")
    assert [line for line in lines if line.startswith("ok")] == ["ok                    other"]
    assert lines[-1] == "1 problem in the way of the main job."


def test_a_data_folder_that_is_not_there_is_refused(command: Command) -> None:
    assert "nowhere: no such folder" in refused(command("doctor", "--data", "nowhere"))
