"""What the doctor makes of facts about a machine: what it calls a problem, what a note, and what it advises."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from recorded_nvml import RecordedNvml

from bm3 import DataError
from harness.measure.gpu import survey
from harness.measure.host import Limits, container_limits, usable_cores
from harness.paper.folders import paper_folder
from harness.tools.doctor import doctor
from harness.tools.doctor.doctor import (
    CUBLAS,
    NEEDED_DISK,
    NEEDED_MEMORY,
    Finding,
    check_cores,
    check_data,
    check_determinism,
    check_devices,
    check_expected,
    check_extras,
    check_memory,
    check_nvml,
    check_out,
    check_python,
    check_torch,
    diagnose,
    main_job_can_run,
)
from harness.tools.doctor.extras import Extra, installed_extras

Write = Callable[..., Path]
GB = 10**9


def severities(findings: list[Finding]) -> list[str]:
    return [finding.severity for finding in findings]


def test_only_a_problem_is_in_the_way_of_the_main_job() -> None:
    assert main_job_can_run([Finding("a", "b"), Finding("a", "b", "note")])
    assert not main_job_can_run([Finding("a", "b"), Finding("a", "b", "problem", "c")])


def test_an_old_python_is_a_problem() -> None:
    assert check_python((3, 10), "3.10.4").severity == "problem"
    assert "3.11" in check_python((3, 10), "3.10.4").advice
    assert check_python((3, 11), "3.11.0") == Finding("Python", "3.11.0")


def test_torch_says_what_it_was_built_for_and_misses_the_gpu_of_a_cuda_build() -> None:
    assert check_torch("2.6.0", None, 0) == Finding("torch", "2.6.0, built for the CPU alone")
    assert check_torch("2.6.0", "12.4", 1).severity == "ok"
    missed = check_torch("2.6.0", "12.4", 0)
    assert (missed.severity, "CUDA 12.4" in missed.found, "CUDA_VISIBLE_DEVICES" in missed.advice) == (
        "note",
        True,
        True,
    )


def test_every_device_has_its_memory() -> None:
    assert [finding.found for finding in check_devices([("GPU A", 11 * GB), ("GPU B", 24 * GB)])] == [
        "cuda:0, GPU A, 11.0 GB",
        "cuda:1, GPU B, 24.0 GB",
    ]
    assert severities(list(check_devices([]))) == ["note"]


@pytest.mark.parametrize(
    ("name", "severity", "parts"),
    [
        ("alone", "ok", ["figures per process", "energy counter", "RTX 2080 Ti"]),
        ("no-figures-per-process", "note", ["no figures per process"]),
        ("listing-refused", "note", ["no figures per process"]),
        ("older-driver", "note", ["figures per process", "no energy counter"]),
        ("mig-instance", "ok", ["partitioned (MIG)"]),
    ],
)
def test_nvml_says_what_each_gpu_offers(name: str, severity: str, parts: list[str]) -> None:
    nvml = RecordedNvml(name)
    nvml.moment = 1
    (finding,) = check_nvml(survey(nvml), driver="550.1", cuda=1)
    assert finding.severity == severity
    assert all(part in finding.found for part in ["NVML, driver 550.1", *parts])
    assert ("rise" in finding.advice) is ("no figures" in finding.found)


def test_a_missing_nvml_is_a_note_whose_advice_is_for_machines_with_a_gpu() -> None:
    (without,) = check_nvml("NVML not available: NVML Shared Library Not Found", driver=None, cuda=0)
    assert (without.severity, without.advice) == ("note", "")
    (beside,) = check_nvml("library missing", driver=None, cuda=1)
    assert "NVML" in beside.found
    assert "libnvidia-ml" in beside.advice


def test_a_gpu_that_torch_cannot_use_is_told_with_the_build_that_could() -> None:
    findings = list(check_nvml(survey(RecordedNvml("alone")), driver="550.1", cuda=0))
    assert "that torch does not use" in findings[0].found
    assert "CUDA" in findings[0].advice


@pytest.mark.parametrize(
    ("same", "error", "cublas", "severity"),
    [
        (True, None, None, "ok"),
        (True, None, ":4096:8", "ok"),
        (True, None, ":0:0", "note"),
        (False, None, None, "problem"),
        (False, "RuntimeError: no deterministic implementation", None, "problem"),
    ],
)
def test_a_step_that_fails_or_differs_is_a_problem(
    same: bool, error: str | None, cublas: str | None, severity: str
) -> None:
    finding = check_determinism(same, error, cublas)
    assert finding.severity == severity
    assert (error or CUBLAS) in finding.found
    assert bool(finding.advice) is (severity != "ok")


def test_a_step_is_really_made_and_settings_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CUBLAS, raising=False)
    before = torch.are_deterministic_algorithms_enabled()
    assert doctor._deterministic_step(torch.device("cpu")) == (True, None)
    assert torch.are_deterministic_algorithms_enabled() is before
    assert CUBLAS not in os.environ

    drawn = iter((1.0, 2.0))
    monkeypatch.setattr(doctor, "_step", lambda device: {"weight": torch.tensor(next(drawn))})
    assert doctor._deterministic_step(torch.device("cpu")) == (False, None)

    def broken(device: torch.device) -> Mapping[str, torch.Tensor]:
        raise RuntimeError("no kernel\nand a long explanation")

    monkeypatch.setattr(doctor, "_step", broken)
    assert doctor._deterministic_step(torch.device("cpu")) == (False, "RuntimeError: no kernel")


def test_more_threads_than_usable_cores_are_noted_with_the_number_to_use() -> None:
    assert check_cores(8, 8, Limits(), 8).severity == "ok"
    limited = check_cores(8, 2, Limits(cores=1.5), 8)
    assert limited.severity == "note"
    assert "container gives 1.5" in limited.found
    assert "--threads 2" in limited.advice


def test_memory_is_what_is_free_and_what_a_container_allows() -> None:
    assert check_memory(8 * GB, 16 * GB, Limits()).severity == "ok"
    assert check_memory(NEEDED_MEMORY - 1, 16 * GB, Limits()).severity == "problem"
    tight = check_memory(8 * GB, 16 * GB, Limits(memory=NEEDED_MEMORY - 1))
    assert tight.severity == "problem"
    assert "container" in tight.found


def test_a_store_is_tried_without_leaving_anything(tmp_path: Path) -> None:
    (finding,) = check_out(tmp_path / "runs" / "deep")
    assert finding.severity == "ok"
    assert "made on first use" in finding.found
    assert list(tmp_path.iterdir()) == []
    assert "made on first use" not in next(check_out(tmp_path)).found


def test_a_store_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (finding,) = check_out(tmp_path / "file")
    assert finding.severity == "problem"
    assert "--out" in finding.advice


def test_a_full_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.disk_usage", lambda path: SimpleNamespace(free=NEEDED_DISK - 1))
    (finding,) = check_out(tmp_path)
    assert finding.severity == "problem"


def test_expected_figures_and_traces_are_counted() -> None:
    figures, traces = check_expected(paper_folder("bm3"))
    assert (figures.severity, traces.severity) == ("ok", "ok")
    assert f"{len(list((paper_folder('bm3') / 'traces').glob('*.npz')))} recorded" in traces.found


def test_missing_traces_and_a_damaged_expected_folder_are_problems(
    tmp_path: Path,
) -> None:
    assert severities(list(check_expected(tmp_path))) == ["problem"]
    for name in ("paper.toml", "published", "sources.toml", "tolerances.toml"):
        (tmp_path / name).symlink_to(paper_folder("bm3") / name)
    assert severities(list(check_expected(tmp_path))) == ["ok", "problem"]


def test_data_sets_are_found_with_their_contents_and_missing_ones_with_advice(
    write_npz: Write, write_inter: Write, small_parts: Any, small_features: Any, tmp_path: Path
) -> None:
    write_npz(tmp_path / "a" / "baby", small_parts, small_features)
    write_inter(tmp_path / "b" / "baby", small_parts)
    write_inter(tmp_path / "b" / "other", small_parts)
    (tmp_path / "b" / "notes").mkdir()
    synthetic, baby, other, missing = check_data([tmp_path / "a", tmp_path / "b", tmp_path / "c"], ["Baby", "Sports"])
    assert "mini" in synthetic.found
    assert baby.found == f"baby: 18 + 6 + 6 interactions; text 8 x 3, visual 8 x 4; in {tmp_path / 'a' / 'baby'}"
    assert "other: 18 + 6 + 6 interactions; no features" in other.found
    assert (missing.severity, missing.found.endswith(": Sports"), "BM3_DATA" in missing.advice) == ("note", True, True)


def test_a_large_file_of_interactions_is_named_and_not_read(
    write_inter: Write, small_parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_inter(tmp_path / "big", small_parts)
    monkeypatch.setattr(doctor, "READ_AT_ONCE", 10)
    _, found = check_data([tmp_path], [])
    assert "big.inter" in found.found
    assert "interactions;" not in found.found


def test_a_folder_of_data_that_cannot_be_read_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refused)
    _, found = check_data([tmp_path], [])
    assert (found.severity, "Permission denied" in found.found) == ("note", True)


def test_a_damaged_data_set_is_a_note_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    np.save(tmp_path / "bad" / "visual.npy", np.zeros((2, 2)))
    (tmp_path / "bad" / "interactions.npz").write_bytes(b"no archive")
    _, found = check_data([tmp_path], [])
    assert found.severity == "note"
    assert "interactions.npz" in found.found


def test_extras_are_those_of_the_metadata_with_what_is_missing() -> None:
    versions = {"numba": "0.61.0", "pytest": "7.9"}

    def version_of(package: str) -> str:
        if package not in versions:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    requirements = [
        "torch>=2.6",
        "numba>=0.60; extra == 'fast'",
        "pytest>=8; extra == 'test'",
        "bm3-harness[fast]; extra == 'test'",
        'pyarrow (>=15) ; (python_version >= "3.11") and extra == "novel"',
    ]
    fast, test, novel = installed_extras(["fast", "test", "novel"], requirements, version_of)
    assert fast == Extra("fast", {"numba": "0.61.0"}, ())
    assert test.missing == ("pytest (7.9 is older than needed)",)
    assert (novel.installed, novel.missing, novel.gives) == (False, ("pyarrow",), "pyarrow")
    there, *lacking = check_extras([fast, test, novel])
    assert "fast (compiled loops" in there.found
    assert [finding.advice for finding in lacking] == [
        "pip install 'bm3-harness[test]'",
        "pip install 'bm3-harness[novel]'",
    ]


def test_the_extras_of_this_installation_are_found() -> None:
    names = metadata.metadata("bm3-harness").get_all("Provides-Extra")
    assert names
    assert [extra.name for extra in installed_extras()] == names
    assert severities(list(check_extras([]))) == ["note"]


@pytest.mark.parametrize(
    ("membership", "files", "limits"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000", "a/memory.max": "2000"}, Limits(1.5, 2000)),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "200000 100000"}, Limits(2.0, None)),
        ("0::/a\n", {"a/cpu.max": "max 100000", "a/memory.max": "max"}, Limits(None, None)),
        ("0::/of/the/host\n", {"cpu.max": "50000 100000"}, Limits(0.5, None)),
        (
            "4:cpu,cpuacct:/a\n3:memory:/a\n",
            {
                "cpu/a/cpu.cfs_quota_us": "300000",
                "cpu/a/cpu.cfs_period_us": "100000",
                "memory/a/memory.limit_in_bytes": "5000",
                "memory/memory.limit_in_bytes": "9223372036854771712",
            },
            Limits(3.0, 5000),
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, Limits(None, None)),
        ("nonsense\n", {}, Limits(None, None)),
    ],
)
def test_the_narrowest_limit_of_a_container_counts(
    membership: str, files: dict[str, str], limits: Limits, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(content + "\n")
    (tmp_path / "membership").write_text(membership)
    assert container_limits(tmp_path / "groups", tmp_path / "membership") == limits
    assert container_limits(tmp_path / "groups", tmp_path / "nowhere") == Limits()


def test_usable_cores_are_those_allowed_and_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 2, 4, 6}, raising=False)
    assert usable_cores(Limits()) == 4
    assert usable_cores(Limits(cores=2.5)) == 3
    assert usable_cores(Limits(cores=0.2)) == 1
    assert usable_cores(Limits(cores=64)) == 4


def test_a_diagnosis_has_every_topic_and_a_wrong_data_folder_is_refused(tmp_path: Path) -> None:
    topics = [finding.topic for finding in diagnose(tmp_path, tmp_path / "runs", paper_folder("bm3"))]
    wanted = "Python torch device NVML determinism cores memory store expected traces data extras"
    assert " ".join(dict.fromkeys(topics)) == wanted
    with pytest.raises(DataError, match="nowhere"):
        diagnose(tmp_path / "nowhere", tmp_path, paper_folder("bm3"))
