"""Time and memory of a run as reports show them: which readings there are, and which of them counts."""

from typing import NamedTuple

from harness.paper.rows import GB
from harness.runs.record import RunRecord, gpu_text

PROCESS, RESERVED, ALLOCATED, CONTEXT, MAIN = "process", "reserved", "allocated", "context", "RAM"
"""The ways in which memory was read."""
UNMOVED = "not known: the counter did not move"
"""What runs note of such a counter: `harness.measure.energy`, which imports torch, writes it."""


class Reading(NamedTuple):
    """A figure of a run that may stand beside a published one."""

    value: float
    """Seconds, or GB of 2^30 bytes."""
    how: str = ""
    """How it was found, if it was not simply read."""


def epoch_seconds(run: RunRecord) -> dict[str, Reading]:
    """The median epoch; nothing where none was timed."""
    value = run.outcome.timing.median_s
    return {} if value is None else {"": Reading(value)}


def memory(run: RunRecord) -> dict[str, Reading]:
    """By way of reading, the one that counts first: all that was read on a GPU, and the context; main memory where
    nothing was."""
    found = run.outcome.memory
    kinds = {
        PROCESS: found.gpu_process_peak,
        RESERVED: found.allocator_reserved_peak,
        ALLOCATED: found.allocator_peak,
        MAIN: found.process_rss_peak,
    }
    read = {way: Reading(one.bytes / GB, one.how or "") for way, one in kinds.items() if one.bytes}
    if not read.keys() & {PROCESS, RESERVED}:
        return {MAIN: read[MAIN]} if MAIN in read else {}
    read.pop(MAIN, None)
    return read if found.context is None else {**read, CONTEXT: Reading(found.context / GB)}


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
