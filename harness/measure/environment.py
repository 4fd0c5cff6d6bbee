"""Where a run happened: versions, hardware, settings, source revision. Persons, hosts and folders stay out."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import closing
from importlib import metadata
from pathlib import Path

import psutil
import torch

import harness
from harness.measure.gpu import NO_CUDA, SETTINGS, NvmlGpu, driver_version
from harness.measure.host import system_text


def environment(device: torch.device) -> dict[str, object]:
    """What is needed to judge or repeat a run on `device`, fit for JSON; memory in bytes.

    A value is None where it could not be found out; for the GPU and the source revision, `gpu_note` and
    `source_note` then say why. Raises nothing of its own.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": str(torch.__version__),
        **{name.replace("-", "_"): _version(name) for name in ("numpy", "scipy", "numba", "bm3-harness")},
        "cpu": _cpu_model(),
        "logical_cores": psutil.cpu_count(),
        "physical_cores": psutil.cpu_count(logical=False),
        "memory_bytes": psutil.virtual_memory().total,
        "torch_threads": torch.get_num_threads(),
        "torch_interop_threads": torch.get_num_interop_threads(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cublas_workspace_config": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        "device": device.type,
        **_gpu(device),
        **source(Path(harness.__file__).parent),
    }


def source(folder: Path) -> dict[str, object]:
    """Git revision of the checkout that tracks `folder`, and whether it has changed or untracked files.

    `source_revision` and `source_dirty` are None where `source_note` says why.
    """
    try:
        # An installed package can lie inside the checkout of something else, whose revision would tell nothing.
        if git(folder, "ls-files", "--", "."):
            revision = git(folder, "rev-parse", "HEAD")
            changes = git(folder, "status", "--porcelain", "--untracked-files=normal")
            return {"source_revision": revision, "source_dirty": bool(changes), "source_note": None}
        note = "git does not track the package's folder"
    except FileNotFoundError:
        note = "git is not installed"
    except subprocess.TimeoutExpired:
        note = "git did not answer in time"
    except (OSError, subprocess.CalledProcessError):
        # What git prints is left out, since it names folders.
        note = "not a git checkout with a commit, or git refuses to read it"
    return {"source_revision": None, "source_dirty": None, "source_note": note}


def git(folder: Path, *arguments: str) -> str:
    # In a git hook these variables point at the repository of the hook, whatever folder is asked about.
    misleading = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}
    return subprocess.run(
        # Without the lock, trials that start together cannot disturb one another or a commit under way.
        ["git", "--no-optional-locks", "-C", str(folder), *arguments],
        env={name: value for name, value in os.environ.items() if name not in misleading},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout.strip()


def _gpu(device: torch.device) -> dict[str, object]:
    nothing = dict.fromkeys(("gpu", "gpu_memory_bytes", "gpu_driver", "cuda", *SETTINGS))
    if device.type != "cuda":
        return {**nothing, "gpu_note": NO_CUDA}
    try:
        properties = torch.cuda.get_device_properties(device)
    except Exception as error:
        return {**nothing, "gpu_note": f"torch cannot use CUDA: {error}"}
    found = {"gpu": properties.name, "gpu_memory_bytes": properties.total_memory, "cuda": torch.version.cuda}
    found["gpu_note"] = None
    try:
        found["gpu_driver"] = driver_version()
        with closing(NvmlGpu.of_torch_device(device)) as gpu:
            found |= gpu.settings()
    except Exception as error:
        found["gpu_note"] = str(error) or type(error).__name__
    return nothing | found


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str | None:
    for line in system_text(Path("/proc/cpuinfo")).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or None
