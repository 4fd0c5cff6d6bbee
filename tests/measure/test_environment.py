"""The record of where a run happened is complete, private and right about its source. Git runs in temporary folders."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy
import psutil
import pytest
import torch

from harness.measure.environment import environment, source

CPU = torch.device("cpu")


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A repository with one commit that holds package/code.py, whatever git is told elsewhere."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    person = {f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "GIT_CEILING_DIRECTORIES": str(tmp_path)}
    for name, value in {**person, **alone}.items():
        monkeypatch.setenv(name, value)
    root = tmp_path / "checkout"
    (root / "package").mkdir(parents=True)
    (root / "package" / "code.py").write_text("x = 1\n")
    (root / ".gitignore").write_text("environment/\n")
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "first"]):
        _git(root, *arguments)
    return root


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_clean_checkout_gives_its_revision_also_in_another_ones_hook(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"source_revision": _git(checkout, "rev-parse", "HEAD"), "source_dirty": False, "source_note": None}
    other = checkout.parent / "other"
    other.mkdir()
    _git(other, "init", "--quiet")
    assert source(checkout / "package") == found
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    assert source(checkout / "package") == found


@pytest.mark.parametrize("changed", ["package/code.py", "package/untracked.py", "elsewhere.py"])
def test_a_changed_or_new_file_makes_it_dirty(checkout: Path, changed: str) -> None:
    (checkout / changed).write_text("x = 2\n")
    found = source(checkout / "package")
    assert (found["source_revision"], found["source_dirty"]) == (_git(checkout, "rev-parse", "HEAD"), True)


@pytest.mark.parametrize(
    ("folder", "path", "note"),
    [
        ("checkout/environment/package", None, "does not track"),  # installed inside a foreign checkout
        (".", None, "not a git checkout"),
        ("checkout/package", "", "git is not installed"),
    ],
)
def test_without_a_revision_a_note_says_why(
    checkout: Path, folder: str, path: str | None, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = checkout.parent / folder
    asked.mkdir(parents=True, exist_ok=True)
    if path is not None:
        monkeypatch.setenv("PATH", path)
    found = source(asked)
    assert found["source_revision"] is found["source_dirty"] is None
    assert note in str(found["source_note"])
    assert str(checkout.parent) not in str(found)


def test_the_record_survives_json_and_agrees_with_the_machine() -> None:
    record = environment(CPU)
    assert json.loads(json.dumps(record)) == record
    cores, memory = psutil.cpu_count(), psutil.virtual_memory().total
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
    machine = {"logical_cores": cores, "memory_bytes": memory, "device": "cpu"}
    assert {**record, **versions, **machine, "gpu": None, "gpu_note": "no CUDA device in use"} == record
    assert record["cpu"]
    assert record["scipy"]
    assert (record["source_revision"] is None) == (record["source_note"] is not None)


def test_settings_are_those_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", not torch.backends.cudnn.benchmark)
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        torch.set_num_threads(threads + 1)
        torch.use_deterministic_algorithms(not deterministic)
        record = environment(CPU)
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
    assert record["cublas_workspace_config"] == ":4096:8"
    assert record["cudnn_benchmark"] is torch.backends.cudnn.benchmark
    assert record["torch_threads"] == threads + 1
    assert record["deterministic_algorithms"] is not deterministic


def test_a_gpu_is_named_even_where_nvml_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="Some GPU", total_memory=11 * 2**30)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties)
    record = environment(torch.device("cuda", 0))
    assert (record["gpu"], record["gpu_memory_bytes"]) == ("Some GPU", 11 * 2**30)
    assert (record["gpu_driver"] is None) == (record["gpu_note"] is not None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_cuda_device_that_torch_cannot_use_is_noted() -> None:
    record = environment(torch.device("cuda", 0))
    assert record["gpu"] is None
    assert str(record["gpu_note"]).startswith("torch cannot use CUDA: ")


def test_no_host_no_person_and_no_folder_is_named() -> None:
    text = json.dumps(environment(CPU))
    secrets = {platform.node(), psutil.Process().username(), str(Path.home()), str(Path.cwd())}
    assert not [secret for secret in secrets if len(secret) > 3 and secret in text]
    assert not [value for value in environment(CPU).values() if str(value).startswith(("/", "\\", "C:"))]
