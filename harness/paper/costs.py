"""What runs cost: time, memory and energy as reports show them, as claims compare them, and against what is published.

Memory is judged as what a model needs beyond a reference model: a constant, such as the CUDA context, is in every
reading and in every printed figure, and bends every ratio; no difference has it.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import NamedTuple

from harness.measure.energy import UNMOVED
from harness.paper.load import MemoryRule, Paper, Tolerance
from harness.paper.published import PublishedValue, Status, values_of_cell
from harness.paper.rows import Row, representative, representatives
from harness.paper.verdict import Outcome, Verdict, judge
from harness.runs.record import GPU_KINDS, RunRecord, gpu_text, memory_kind

TIME, MEMORY, SAMPLING = "Time (s/epoch)", "Memory (GB)", "share of sampling"
GB = 2**30
"""Bytes."""
WITHOUT_COST = "epochs", "learning_rate", "early_stopping", "evaluation"
"""Settings, or how their names begin, that do not change what an epoch costs."""
SHARED, SHARED_NOTE = "§", "beside another run on the same machine: not to be compared"
PROCESS, RESERVED, ALLOCATED, CONTEXT, MAIN = "process", "reserved", "allocated", "context", "RAM"
"""The ways in which memory was read."""
Span = tuple[float, float, float]
Exponent = tuple[float, float, float]
"""A fitted exponent, and the lower and upper end of its interval."""


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


def memory_readings(run: RunRecord) -> dict[str, Reading]:
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


def measured_on(run: RunRecord) -> str:
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


def costs(row: Row, metric: str) -> tuple[list[Span], str, list[str]]:
    """A cost of each run that has it: lower quartile, median and upper quartile, in seconds, GB or shares of an epoch
    (without the first). Then what was read and where, in words, which must be the same for two to be compared; and why
    it is no evidence."""
    environments = [run.environment for run in row.runs]
    devices = (gpu_text(e) or f"{e.get('cpu')}, {e.get('torch_threads')} threads" for e in environments)
    hosts = {f"{device}, torch {e.get('torch')}" for device, e in zip(devices, environments, strict=True)}
    basis, obstacles = f"{'; '.join(sorted(hosts))}, data {row.data[:10]}", []
    if row.other_data:
        obstacles.append(f"other data of that name ({row.other_data})")
    if row.surrogates:
        obstacles.append(f"surrogate features ({', '.join(row.surrogates)}), of other widths")
    elif other := [one for one in row.departures if re.split("[.= ]", one)[0] not in WITHOUT_COST]:
        obstacles.append(f"settings are not the published ones ({', '.join(other)})")
    if metric == MEMORY:
        found = [run.outcome.memory for run in row.runs]
        kind = memory_kind(found)
        peaks = [] if kind is None else [(memory.of(kind).bytes or 0) / GB for memory in found]
        if kind not in GPU_KINDS:
            obstacles.append("main memory, and no GPU's")
        if blocks := sorted({run.training.evaluation.block_users for run in row.runs} - {0}):
            basis += f", evaluated in blocks of {blocks} users"
        return [(peak,) * 3 for peak in peaks], f"{(kind or 'memory').replace('_', ' ')}, {basis}", obstacles
    if any(run.path in row.shared for run in row.runs):
        obstacles.append(f"timed {SHARED_NOTE}")
    if metric == TIME:
        timings = ((t.q1_s, t.median_s, t.q3_s) for t in (run.outcome.timing for run in row.runs))
        return (
            [(q1, q2, q3) for q1, q2, q3 in timings if q1 is not None and q2 is not None and q3 is not None],
            basis,
            obstacles,
        )
    shares = ([e.sampling_seconds / e.seconds for e in run.epochs()[1:] if e.sampling_seconds] for run in row.runs)
    return [(median(of_run),) * 3 for of_run in shares if of_run], basis, obstacles


def printed_beyond(values: Sequence[PublishedValue], value: PublishedValue, rule: MemoryRule) -> PublishedValue:
    """A printed figure less that of the reference model in the same source; without one where that is not printed."""
    cell = values_of_cell(values, value.dataset, rule.reference, MEMORY)
    base = next((one for one in cell if one.source == value.source), None)
    if base is None or base.value is None or value.value is None:
        return replace(value, value=None)
    status = Status.DISPUTED if Status.DISPUTED in (base.status, value.status) else value.status
    # 6 decimals: what only the rounding of binary fractions makes is no digit.
    return replace(value, value=round(value.value - base.value, 6), status=status)


def memory_verdicts(rows: Sequence[Row], paper: Paper) -> dict[str, Verdict]:
    """Model, in lower case → the verdict on its row among rows of one data set; the reference model has none.

    Values are in GB, one per seed that both models ran with. Empty where the paper compares no memory.
    """
    rule = paper.tolerances.memory
    if rule is None:
        return {}
    base, found = representative(rows, rule.reference), {}
    for row in representatives(rows):
        if row is not base:
            printed = [printed_beyond(paper.values, one, rule) for one in paper.cell(row.dataset, row.model, MEMORY)]
            found[row.model.lower()] = _verdict(row, base, printed, paper, rule)
    return found


def _verdict(row: Row, base: Row | None, printed: Sequence[PublishedValue], paper: Paper, rule: MemoryRule) -> Verdict:
    tolerance = Tolerance(rule.relative, paper.tolerances.confidence, paper.tolerances.min_seeds, rule.absolute)
    values: list[float] = []
    if base is None:
        obstacle = f"{rule.reference} was not run"
    else:
        sides = [costs(one, MEMORY) for one in (row, base)]
        reasons = dict.fromkeys(reason for _, _, obstacles in sides for reason in obstacles if reason)
        obstacle = "; ".join(reasons) or ("" if sides[0][1] == sides[1][1] else "read otherwise, or on other machines")
        kind = memory_kind([run.outcome.memory for run in (*row.runs, *base.runs)], GPU_KINDS)
        own, others = (
            {run.seed: run.outcome.memory.of(kind).bytes or 0 for run in one.runs} if kind else {}
            for one in (row, base)
        )
        values = [(own[seed] - others[seed]) / GB for seed in sorted(own.keys() & others.keys())]
    verdict = judge(values, printed, tolerance, not obstacle)
    return replace(verdict, reason=obstacle) if obstacle and verdict.outcome is Outcome.NO_EVIDENCE else verdict
