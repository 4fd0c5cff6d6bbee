"""A measurement of one source tree, and the file that keeps it as the baseline of a machine class."""

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, Field, NonNegativeFloat, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from bm3 import BM3Error, DataError
from harness.common import read_json, write_json, writing
from harness.measure.environment import environment
from harness.paper.load import field_fault
from harness.runs.record import GPU_KEYS

FORMAT = 2
FINITE = ConfigDict(extra="forbid", allow_inf_nan=False)
CLASS_KEYS = (
    *("cpu", "logical_cores", "physical_cores", "device", "gpu", "gpu_memory_bytes"),
    *("cuda", "torch", "numpy", "scipy", "numba"),
)
MachineClass = Mapping[str, object]


class NothingToCompareError(BM3Error):
    """There is no measurement that the present one could be compared with, or none can be made."""

    exit_code = 3


@dataclass(frozen=True)
class Result:
    """Accuracy of one training."""

    metrics: dict[str, float]
    bits: str
    """Hash of the parameters, or of the ranking, that the metrics come from."""


@dataclass(frozen=True, config=FINITE)
class Measurement:
    """Everything by subject, such as `mini/bm3`, in the order of measuring."""

    time: dict[str, list[tuple[NonNegativeFloat, NonNegativeFloat]]] = Field(default_factory=dict)
    """CPU and wall time of each repetition, in units of the calibration's (see `worker.Calibration`)."""
    memory: dict[str, list[int]] = Field(default_factory=dict)
    """Peak bytes above the start, one figure per process."""
    accuracy: dict[str, list[list[Result]]] = Field(default_factory=dict)
    """Per seed all results, which should be the same."""
    traces: dict[str, str] = Field(default_factory=dict)
    """`passed`, or what is wrong, of each recorded trace."""
    errors: dict[str, str] = Field(default_factory=dict)
    """By `subject: quantity`, why there is no figure though there should be."""


@dataclass(frozen=True)
class Baseline:
    """A measurement, and what it was made with."""

    machine: dict[str, Any]
    workload: dict[str, Any]
    """What was measured; see `measure.plan_of`."""
    source: dict[str, Any]
    """Revision, whether it was dirty, and when."""
    measurement: Measurement

    def check(self, machine: MachineClass, workload: Mapping[str, Any], path: Path) -> None:
        """Raises NothingToCompareError, which says what differs, unless both are the baseline's own."""
        for what, then, now in (("machine class", self.machine, machine), ("workload", self.workload, workload)):
            if keys := [key for key in {**then, **now} if then.get(key) != now.get(key)]:
                differ = "; ".join(f"{key}: {then.get(key, 'unknown')}, here {now.get(key, 'unknown')}" for key in keys)
                mend = "name another baseline, or make one with --update-baseline"
                raise NothingToCompareError(f"{path}: of another {what} ({differ}); {mend}")


BASELINE = TypeAdapter(Baseline)


def read_baseline(path: Path) -> Baseline:
    """Raises NothingToCompareError when there is no such file, DataError when it is none of ours."""
    if not path.exists():
        raise NothingToCompareError(f"{path}: no such baseline; make one on this machine with --update-baseline")
    anew = "make a new one with --update-baseline"
    try:
        content = read_json(path)
        if content.pop("format") != FORMAT:
            raise DataError(f"{path}: a baseline of another format; {anew}")
        return BASELINE.validate_python(content)
    except ValidationError as error:
        raise DataError(f"{path}: {field_fault(error.errors()[0])}; {anew}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a baseline ({type(error).__name__}: {str(error)[:100]}); {anew}") from error


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write the file, all of it or nothing. Raises WriteError."""
    with writing(path, "name another file with --baseline"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"format": FORMAT, **BASELINE.dump_python(baseline, mode="json")})


def machine_class(device: torch.device, threads: int) -> MachineClass:
    """What must be the same for times, bytes and bits to be comparable; no name of a host is in it."""
    here = environment(device)
    version = ".".join(platform.python_version_tuple()[:2])
    system = {"system": platform.system(), "architecture": platform.machine(), "python": version}
    keys = (*CLASS_KEYS, *GPU_KEYS) if device.type == "cuda" else CLASS_KEYS
    return {**{key: here[key] for key in keys}, **system, "threads": threads}


def digest(machine: MachineClass) -> str:
    """Eight digits that stand for a class in names of files."""
    return hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:8]
