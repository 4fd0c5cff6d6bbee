"""Time and memory of a run as reports show them: which readings there are, and which of them counts."""

from dataclasses import dataclass

from harness.paper.rows import GB
from harness.runs.record import RunRecord, gpu_text

PROCESS, RESERVED, ALLOCATED, CONTEXT = "process", "reserved", "allocated", "context"
WAYS = {"gpu_process_peak": PROCESS, "allocator_reserved_peak": RESERVED, "process_rss_peak": "RAM"}
"""The readings that may stand beside published memory → how ours was read."""


UNMOVED = "not known: the counter did not move"
"""What runs note of such a counter: `harness.measure.energy`, which imports torch, writes it."""


@dataclass(frozen=True)
class Reading:
    """A figure of a run that may stand beside a published one."""

    value: float
    """Seconds, or GB of 2^30 bytes."""
    way: str = ""
    """How it was read, where that is not what was published."""
    how: str = ""
    """How it was found, if it was not simply read."""


def epoch_seconds(run: RunRecord) -> dict[str, Reading]:
    """The median epoch; nothing where none was timed."""
    value = run.outcome.timing.median_s
    return {} if value is None else {"": Reading(value)}


def peak_memory(run: RunRecord) -> Reading | None:
    """The reading that counts; None where there is none."""
    kind = run.outcome.memory.kind
    found = run.outcome.memory.of(kind) if kind else None
    return Reading(found.bytes / GB, WAYS[str(kind)], found.how or "") if found and found.bytes else None


def all_memory(run: RunRecord) -> dict[str, Reading]:
    """By way of reading: all that was read on a GPU and the context; main memory where nothing was."""
    memory, counts = run.outcome.memory, peak_memory(run)
    if counts is None or counts.way not in (PROCESS, RESERVED):
        return {counts.way: counts} if counts else {}
    kinds = {
        PROCESS: memory.gpu_process_peak,
        RESERVED: memory.allocator_reserved_peak,
        ALLOCATED: memory.allocator_peak,
    }
    found = {way: Reading(one.bytes / GB, way, one.how or "") for way, one in kinds.items() if one.bytes}
    return found | ({} if memory.context is None else {CONTEXT: Reading(memory.context / GB, CONTEXT)})


def device(run: RunRecord) -> str:
    """What a run was measured on, for readers who compare costs."""
    where = run.environment
    if where.get("device") == "cuda":
        return f"cuda, {gpu_text(where) or 'a GPU without a name'}"
    cpu, cores = where.get("cpu") or "a processor without a name", where.get("logical_cores")
    return f"{where.get('device')}, {cpu}, {cores} cores, torch threads: {where.get('torch_threads')}"


def joules_per_epoch(run: RunRecord) -> float | None:
    """What GPU and processor took together, or the one of them that has a counter; None without any, or if one did not
    move, whose share is not known."""
    found = run.outcome.energy.values()
    known = [energy.per_epoch for energy in found if energy.per_epoch is not None]
    return sum(known) if known and all(energy.note != UNMOVED for energy in found) else None
