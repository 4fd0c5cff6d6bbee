"""What this process may use of its machine: cores and memory, less than there are where a container limits them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Limits:
    """What control groups, as of a container or a batch system, leave to a process; None where they set no limit."""

    cores: float | None = None
    """As time per time: 1.5 is one and a half cores, of whichever there are."""
    memory: int | None = None
    """Bytes."""


def usable_cores(limits: Limits) -> int:
    """Cores that this process may run on at a time, at least one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
    return max(1, min(allowed, allowed if limits.cores is None else math.ceil(limits.cores)))


def container_limits(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> Limits:
    """The narrowest limits of the control groups (version 2) that this process is in.

    Raises nothing: what cannot be read sets no limit.
    """
    cores: list[float] = []
    memory: list[int] = []
    lines = system_text(membership).splitlines()
    own = [PurePosixPath(line.removeprefix("0::/")) for line in lines if line.startswith("0::/")]
    # In a container the path may be that of the host, and the mount begins at the container's own group.
    for folder in (cgroups / group for inside in own for group in (inside, *inside.parents)):
        quota, period = (*system_text(folder / "cpu.max").split(), "", "")[:2]
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:  # otherwise "max" or nothing
            cores.append(int(quota) / int(period))
        memory += [int(word) for word in system_text(folder / "memory.max").split() if word.isdecimal()]
    return Limits(min(cores, default=None), min(memory, default=None))


def system_text(file: Path) -> str:
    """What a file of the system says, such as one in /proc; nothing where it is not there or cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
