"""What the doctor makes of facts about a machine, and what `bm3 doctor` prints of it."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command_line import Command, refused

from harness.data.dataset import Dataset
from harness.measure.gpu import GpuSurvey
from harness.measure.host import Limits
from harness.models.registry import trained_in_steps
from harness.paper.folders import DEFAULT, paper_folder
from harness.tools import doctor

Write = Callable[..., Path]
GB = 10**9
CUDA = [("GPU A", 11 * GB)]


GPU = GpuSurvey("GPU A", False, True, True)
PYTHON, FREE = (3, 11), 8 * GB


@pytest.mark.parametrize(
    ("finding", "severity", "part"),
    [
        (doctor.check_python_and_torch(PYTHON, "2.6.0", None, 0), "ok", "torch 2.6.0 for the CPU"),
        (doctor.check_python_and_torch((3, 10), "2.6.0", None, 0), "problem", "3.11"),
        (doctor.check_python_and_torch(PYTHON, "2.6.0", "12.4", 1), "ok", "CUDA 12.4"),
        (doctor.check_python_and_torch(PYTHON, "2.6.0", "12.4", 0), "note", "CUDA_VISIBLE_DEVICES"),
        (doctor.check_determinism({"a": "", "b": ""}, None), "ok", "each of 2 models agree to the bit"),
        (doctor.check_determinism({"a": ""}, ":4096:8"), "ok", "agree to the bit"),
        (doctor.check_determinism({"a": ""}, ":0:0"), "note", ":0:0; unset"),
        (
            doctor.check_determinism({"a": "", "b": "differ"}, None),
            "problem",
            "1 of 2 models is not repeatable: b: differ; same",
        ),
        (doctor.check_determinism({"a": "RuntimeError: cuBLAS"}, ":0:0"), "problem", "cuBLAS; unset"),
        (doctor.check_determinism({"a": "RuntimeError: no kernel"}, None), "problem", "a: RuntimeError: no kernel"),
        (doctor.check_cores(8, 8, Limits(), 8), "ok", "8 cores"),
        (doctor.check_cores(8, 2, Limits(cores=1.5), 8), "note", "container gives 1.5"),
        (doctor.check_cores(8, 2, Limits(), 8), "note", "--threads 2"),
        (doctor.check_memory(FREE, 16 * GB, Limits()), "ok", "8.0 GB of 16.0 GB"),
        (doctor.check_memory(doctor.NEEDED_MEMORY - 1, 16 * GB, Limits()), "problem", "free some"),
        (doctor.check_memory(FREE, 16 * GB, Limits(memory=doctor.NEEDED_MEMORY - 1)), "problem", "container"),
    ],
)
def test_what_facts_amount_to(finding: doctor.Finding, severity: str, part: str) -> None:
    assert finding.severity == severity
    assert part in f"{finding.found}; {finding.advice}"
    assert bool(finding.advice) is (severity != "ok")


@pytest.mark.parametrize(
    ("gpu", "severity", "part"),
    [
        (GPU, "ok", "GPU A, figures per process, energy counter"),
        (replace(GPU, process_figures=False), "note", "no figures per process"),
        (replace(GPU, counts_energy=False), "note", "no energy counter"),
        (replace(GPU, partitioned=True), "ok", "partitioned (MIG)"),
    ],
)
def test_nvml_says_what_each_gpu_offers(gpu: GpuSurvey, severity: str, part: str) -> None:
    device, finding = doctor.check_gpus(CUDA, [gpu], "550.1")
    assert device.found == "cuda:0, GPU A, 11.0 GB"
    assert finding.severity == severity
    assert "NVML, driver 550.1" in finding.found
    assert part in finding.found
    assert ("rise" in finding.advice) is ("no figures" in finding.found)


def test_a_missing_nvml_is_a_note_and_so_is_a_gpu_that_torch_cannot_use() -> None:
    (without,) = doctor.check_gpus([], "NVML not available: NVML Shared Library Not Found", None)
    assert (without.severity, without.advice) == ("note", "")
    _, beside = doctor.check_gpus(CUDA, "library missing", None)
    assert (beside.severity, "libnvidia-ml" in beside.advice) == ("note", True)
    unused, _ = doctor.check_gpus([], [GPU], "550.1")
    assert (unused.severity, "that torch does not use" in unused.found) == ("note", True)


def test_a_step_of_each_model_is_really_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    step, made = doctor._step, Counter[str]()

    def noted(name: str, dataset: Dataset, device: torch.device) -> Mapping[str, torch.Tensor]:
        made[name] += 1
        if name == "grcn":
            raise RuntimeError("no kernel\nhint")
        return {"weight": torch.tensor(made[name])} if name == "bpr" else step(name, dataset, device)

    monkeypatch.setattr(doctor, "_step", noted)
    found = doctor._unrepeatable(torch.device("cpu"))
    assert {name: what for name, what in found.items() if what} == {
        "bpr": "two equal steps differ",
        "grcn": "RuntimeError: no kernel",
    }
    assert made == {name: 1 if name == "grcn" else 2 for name in trained_in_steps()}


def test_a_store_is_tried_without_leaving_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = doctor.check_store(tmp_path / "runs" / "deep")
    assert (new.severity, "made on first use" in new.found, list(tmp_path.iterdir())) == ("ok", True, [])
    assert "made on first use" not in doctor.check_store(tmp_path).found
    (tmp_path / "file").write_text("")
    refusal = doctor.check_store(tmp_path / "file")
    assert (refusal.severity, "--out" in refusal.advice) == ("problem", True)
    monkeypatch.setattr("psutil.disk_usage", lambda path: SimpleNamespace(free=doctor.NEEDED_DISK - 1))
    assert doctor.check_store(tmp_path).severity == "problem"


def test_missing_traces_and_a_damaged_paper_are_problems(tmp_path: Path) -> None:
    whole, paper = doctor.check_paper(paper_folder(DEFAULT))
    assert paper is not None
    assert f"{len(paper.values)} figures to compare with, {len(list(paper.folder.glob('traces/*.npz')))}" in whole.found
    folder = tmp_path / "paper"
    shutil.copytree(paper_folder(DEFAULT), folder, ignore=shutil.ignore_patterns("traces"))
    assert doctor.check_paper(folder)[0].severity == "problem"
    (folder / "sources.toml").write_text("[")
    finding, none = doctor.check_paper(folder)
    assert (finding.severity, "sources.toml" in finding.found, none) == ("problem", True, None)


def test_data_sets_are_found_and_missing_ones_with_advice(
    write_npz: Write, write_inter: Write, small_parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_npz(tmp_path / "a" / "baby", small_parts)
    write_inter(tmp_path / "b" / "baby", small_parts)
    write_inter(tmp_path / "b" / "other", small_parts)
    (tmp_path / "b" / "notes").mkdir()
    synthetic, baby, other, missing = doctor.check_data(
        [tmp_path / "a", tmp_path / "b", tmp_path / "c"], ["Baby", "Sports"]
    )
    assert "mini" in synthetic.found
    assert [baby.found, other.found] == [f"baby: in {tmp_path / 'a' / 'baby'}", f"other: in {tmp_path / 'b' / 'other'}"]
    assert (missing.severity, missing.found.endswith(": Sports"), "BM3_DATA" in missing.advice) == ("note", True, True)

    def unreadable(path: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", unreadable)
    _, found = doctor.check_data([tmp_path], [])
    assert (found.severity, "Permission denied" in found.found) == ("note", True)


def test_one_screen_and_json_say_what_is_here_and_store_nothing(command: Command) -> None:
    code, out, err = command("doctor")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) <= 40
    topics = {"packages", "GPU", "determinism", "cores", "memory", "store", "paper", "data"}
    assert all(topic in out for topic in topics)
    assert out.splitlines()[-1] == "The main job can run: bm3 reproduce"
    content = json.loads(command("doctor", "--json").out)
    assert content["able"] is True
    assert {finding["topic"] for finding in content["findings"]} == topics
    assert list(Path().iterdir()) == []
    assert "nowhere: no such folder" in refused(command("doctor", "--data", "nowhere"))


@pytest.mark.parametrize("layout", [(), ("--json",)])
def test_a_problem_is_exit_code_1_and_advice_stands_beneath_it(
    command: Command, layout: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = [doctor.Finding("memory", "little", "problem", "free some"), doctor.Finding("data", "no", "note")]
    monkeypatch.setattr(doctor, "diagnose", lambda data, out, paper: findings)
    code, out, _ = command("doctor", *layout)
    assert code == 1
    if not layout:
        lines = out.splitlines()
        assert [line.split() for line in lines[:2]] == [["problem", "memory", "little"], ["→", "free", "some"]]
        assert lines[-1] == "1 problem in the way."


@pytest.mark.parametrize(
    ("built_for", "devices", "required", "code", "words"),
    [
        ("13.0", 1, "cuda", 0, "uses GPU A"),
        ("13.0", 1, "cuda=13.0", 0, "uses GPU A"),
        ("12.6", 1, "cuda=13.0", 1, "is built for 12.6"),
        ("13.0", 0, "cuda", 1, "finds no GPU that it can use"),
        (None, 0, "cuda", 1, "is built for the CPU"),
    ],
)
def test_what_is_required_of_a_runner_is_there_or_a_problem(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    built_for: str,
    devices: int,
    required: str,
    code: int,
    words: str,
) -> None:
    monkeypatch.setattr(doctor, "diagnose", lambda data, out, paper: [])
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(devices))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU A")
    outcome = command("doctor", "--require", required)
    assert (outcome.code, words in " ".join(outcome.out.split())) == (code, True)
    assert "known is cuda" in refused(command("doctor", "--require", "tpu"))
