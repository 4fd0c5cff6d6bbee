"""What this process may use of its machine: cores and memory, less than there are where a container limits them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
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
    """The narrowest limits of the groups that this process is in, of either version of control groups.

    Raises nothing: what cannot be read sets no limit.
    """
    cores: list[float] = []
    memory: list[int] = []
    for folder in _groups(cgroups, membership):
        quota, period = _words(folder / "cpu.max", 2) or _quota(folder)
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:  # otherwise "max", -1 or nothing
            cores.append(int(quota) / int(period))
        for name in ("memory.max", "memory.limit_in_bytes"):
            memory += [int(word) for word in _words(folder / name, 1) if word.isdecimal()]
    # Version 1 says "no limit" by a figure near 2^63.
    real = [size for size in memory if size < 2**62]
    return Limits(min(cores, default=None), min(real, default=None))


def _groups(cgroups: Path, membership: Path) -> Iterator[Path]:
    """The folders of this process's groups and of those that these are in."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        # In a container the path may be that of the host, and the mount begins at the container's own group.
        names = [controllers, *controllers.split(",")] if controllers else [""]
        inside = PurePosixPath(path.lstrip("/"))
        for name in dict.fromkeys(names):
            for group in (inside, *inside.parents):
                yield cgroups / name / group


def _quota(folder: Path) -> tuple[str, str]:
    """As version 1 says it, in two files; empty words where it does not."""
    quota, period = (_words(folder / f"cpu.cfs_{name}_us", 1) or ("",) for name in ("quota", "period"))
    return quota[0], period[0]


def _words(file: Path, number: int) -> tuple[str, ...]:
    """The words of a file that has so many; none where it does not."""
    try:
        words = tuple(file.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return ()
    return words if len(words) == number else ()
