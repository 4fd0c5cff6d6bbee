"""The class of a machine: what must be the same for seconds, bytes and bits of two measurements to be comparable."""

import hashlib
import json
import platform
from collections.abc import Mapping

import torch

from harness.measure.environment import environment

ENVIRONMENT_KEYS = (
    "cpu",
    "logical_cores",
    "physical_cores",
    "device",
    "gpu",
    "gpu_memory_bytes",
    "cuda",
    "torch",
    "numpy",
    "scipy",
    "numba",
)

MachineClass = Mapping[str, object]


def machine_class(device: torch.device, threads: int) -> MachineClass:
    """That of this machine when it computes on `device` with so many CPU threads; no name of a host is in it."""
    here = environment(device)
    version = ".".join(platform.python_version_tuple()[:2])
    system = {"system": platform.system(), "architecture": platform.machine(), "python": version}
    return {**{key: here[key] for key in ENVIRONMENT_KEYS}, **system, "threads": threads}


def digest(kind: MachineClass) -> str:
    """Eight digits that stand for a class in names of files."""
    return hashlib.sha256(json.dumps(kind, sort_keys=True).encode()).hexdigest()[:8]


def differences(before: MachineClass, now: MachineClass) -> list[str]:
    """What differs, one text per property: `torch 2.6.0, here 2.7.1`."""
    return [
        f"{key} {before.get(key, 'unknown')}, here {now.get(key, 'unknown')}"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    ]


def described(kind: MachineClass) -> str:
    """One line for readers."""
    gpu = f", {kind['gpu']}" if kind.get("gpu") else ""
    cores = f"{kind['logical_cores']} cores, {kind['threads']} thread{'s' if kind['threads'] != 1 else ''}"
    return f"{kind['cpu']}, {cores}{gpu}; torch {kind['torch']}, Python {kind['python']}"
