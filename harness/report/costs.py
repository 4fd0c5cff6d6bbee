"""Time and memory of a run as reports show them: which readings there are, and which of them counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.paper.measured import GB
from harness.runs.store import StoredRun

TIMES = {
    "Time (s/epoch)": "median_s",
    "Time, lower quartile (s/epoch)": "q1_s",
    "Time, upper quartile (s/epoch)": "q3_s",
    "Time, first epoch (s)": "warmup_s",
    "Time, evaluation (s)": "evaluation_median_s",
}
"""Name → key in a run's result."""
MEMORY = {
    "Memory (GB)": "gpu_process_peak",
    "Memory, GPU device (GB)": "gpu_device_peak",
    "Memory, allocator (GB)": "allocator_peak",
    "Memory, allocator reserved (GB)": "allocator_reserved_peak",
    "Memory, process (GB)": "process_rss_peak",
}
"""Name → key in a run's result; a GB is 2^30 bytes."""
COUNTING = {"gpu_process_peak": "", "allocator_reserved_peak": "torch", "process_rss_peak": "RAM"}
"""The readings that stand beside published memory, the nearest first → how ours was read."""


@dataclass(frozen=True)
class Reading:
    """A figure of a run that may stand beside a published one."""

    value: float
    """Seconds, or GB of 2^30 bytes."""
    way: str = ""
    """How it was read, where that is not what was published."""
    how: str = ""
    """How it was found, if it was not simply read."""


def timing(run: StoredRun) -> Mapping[str, Any]:
    return dict((run.result or {})["timing"])


def memory(run: StoredRun, key: str) -> Mapping[str, Any]:
    return dict((run.result or {})["memory"][key])


def epoch_seconds(run: StoredRun) -> Reading | None:
    """The median epoch; None where none was timed."""
    value = timing(run)["median_s"]
    return None if value is None else Reading(float(value))


def peak_memory(run: StoredRun) -> Reading | None:
    """The first reading of COUNTING that there is."""
    for key, way in COUNTING.items():
        found = memory(run, key)
        if found["bytes"] is not None:
            return Reading(found["bytes"] / GB, way, str(found.get("how") or ""))
    return None


def device(run: StoredRun) -> str:
    """What a run was measured on, for readers who compare costs."""
    where = run.run["environment"]
    if where.get("device") == "cuda":
        return f"cuda, {where.get('gpu') or 'a GPU without a name'}"
    cpu, cores = where.get("cpu") or "a processor without a name", where.get("logical_cores")
    return f"{where.get('device')}, {cpu}, {cores} cores, torch threads: {where.get('torch_threads')}"
