"""Which part of a GPU's memory is this process's, from what a driver lists. Asking the driver is in `nvml`.

Drivers differ: some list processes by the ids of the host, some by those that the asking process sees, some none, and
some list processes without figures. What is found by other means than a listed figure says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FIRST_NAMESPACE = "pid:[4026531836]"
"""What Linux calls the process ids of the host itself (PROC_PID_INIT_INO)."""
OUTER_ID = "listed under this process's id in an outer namespace"
APPEARED = (
    "of the one process that appeared on the device since the measured block began; the driver lists ids of another "
    "namespace (as in a container)"
)
RISE = "rise of the device's figure since the measured block began, less what other listed processes took meanwhile"
RISE_OF_ALL = "rise of the device's figure since the measured block began, which other processes may have part in"


@dataclass(frozen=True)
class GpuProcess:
    """A process on a GPU as the driver lists it."""

    pid: int
    bytes: int | None
    """None where the driver does not say."""


@dataclass(frozen=True)
class DeviceMemory:
    """A GPU's memory at one moment."""

    used: int | None
    """Bytes in use by anybody; None where the driver does not say."""
    processes: tuple[GpuProcess, ...] | None
    """None where the driver lists none."""

    def listed(self, pids: frozenset[int]) -> int | None:
        """Bytes of these processes; None where no figure above 0 is listed."""
        # One process can be listed once per GPU instance, and some drivers list it with nothing or 0 for "unknown":
        # a process with a CUDA context never holds 0 bytes.
        return sum(process.bytes or 0 for process in self.processes or () if process.pid in pids) or None

    @property
    def by_pid(self) -> dict[int, int]:
        """Bytes of each process that has a figure."""
        totals: dict[int, int] = {}
        for process in self.processes or ():
            if process.bytes:
                totals[process.pid] = totals.get(process.pid, 0) + process.bytes
        return totals


@dataclass(frozen=True)
class Own:
    """How this process may be listed."""

    pids: frozenset[int]
    comparable: bool
    """Whether ids that are not among `pids` are surely those of other processes."""


def own_process(status: Path = Path("/proc/self/status"), namespace: Path = Path("/proc/self/ns/pid")) -> Own:
    """This process, by its id in every namespace that it knows of; raises nothing."""
    try:
        outer = namespaced_pids(status.read_text(encoding="utf-8"))
        nested = namespace.readlink().name != FIRST_NAMESPACE
    except (OSError, ValueError):  # no Linux, or no /proc
        outer, nested = (), False
    # The ids of outer namespaces are known only where /proc is mounted from there; then all are known.
    return Own(frozenset({os.getpid(), *outer}), comparable=not nested or len(outer) > 1)


def namespaced_pids(status: str) -> tuple[int, ...]:
    """The ids of a process from its /proc/PID/status, the outermost namespace first; empty before Linux 4.1."""
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return tuple(int(text) for text in line.split()[1:])
    return ()


def attributed(before: DeviceMemory, now: DeviceMemory, own: Own) -> tuple[int, str] | None:
    """Bytes of this process and how they were found, where the driver gives no figure for its own id.

    `before` is from the beginning of the measured block. None where nothing can be said.
    """
    listed = now.listed(own.pids)
    if listed is not None:
        return listed, OUTER_ID
    if not own.comparable:
        appeared = now.by_pid.keys() - before.by_pid.keys()
        if len(appeared) == 1:
            return now.by_pid[appeared.pop()], APPEARED
    if now.used is None or before.used is None:
        return None
    rise = now.used - before.used
    # Where ids cannot be compared, one of those listed may be this process.
    known = own.comparable and all(_others_known(seen, own) for seen in (before, now))
    if known:
        rise -= sum(now.by_pid.values()) - sum(before.by_pid.values())
    return (rise, RISE if known else RISE_OF_ALL) if rise > 0 else None


def _others_known(seen: DeviceMemory, own: Own) -> bool:
    others = [process for process in seen.processes or () if process.pid not in own.pids]
    return seen.processes is not None and all(process.bytes for process in others)


def strangers(seen: DeviceMemory, own: Own) -> Iterator[GpuProcess]:
    """Listed processes that are surely not this one; nothing where ids cannot be compared and ours is not listed."""
    if own.comparable or seen.listed(own.pids) is not None:
        yield from (process for process in seen.processes or () if process.pid not in own.pids)
