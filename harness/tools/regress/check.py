"""One check for regressions: the inputs are laid out, measured, compared, and what looks worse is measured again."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from bm3 import DataError
from harness.data import PARTS, Dataset
from harness.data.synthetic import mini, of_size
from harness.paper.load import Paper
from harness.tools.regress.baseline import Measurement, NothingToCompareError
from harness.tools.regress.judge import Comparison, Outcome, compare, confirmed, to_repeat
from harness.tools.regress.measure import Plan, Tell, Tree, measure
from harness.tools.regress.rules import Repetitions, Rules, Workload

WORKLOAD_FORMAT = 2
"""Counts on when `worker` measures something else under the same names."""


def inputs(paper: Paper) -> tuple[Dataset, Dataset, Path]:
    """What the workload computes on: `mini`, one as large as the paper's first data set, and the paper's traces."""
    counts = paper.counts(paper.datasets[0])
    missing = [name for name in ("users", "items", "interactions") if name not in counts]
    if missing:
        raise DataError(
            f"{paper.folder}: no number of {missing[0]} of {paper.datasets[0]}, whose size the workload has"
        )
    users, items, interactions = (int(counts[name].value or 0) for name in ("users", "items", "interactions"))
    return mini(), of_size(users, items, interactions), paper.file("traces")


def plan_of(
    workload: Workload, small: Dataset, large: Dataset, traces: Path, folder: Path, device: str, threads: int
) -> Plan:
    """The plan, with its inputs in `folder`: every tree reads the same files, however it makes its own data sets."""
    for dataset in (small, large):
        (folder / dataset.name).mkdir()
        parts = {part: dataset.part(part) for part in PARTS}
        np.savez(folder / dataset.name / "interactions.npz", allow_pickle=False, **parts)
        for modality, table in dataset.features.items():
            np.save(folder / dataset.name / f"{modality}.npy", table, allow_pickle=False)
    shutil.copytree(traces, folder / "traces")
    work = {
        "format": WORKLOAD_FORMAT,
        **json.loads(json.dumps(asdict(workload))),
        "steps": workload.steps[device],
        "small": small.name,
        "large": large.name,
        "hashes": [small.content_hash, large.content_hash],
        "device": device,
        "threads": threads,
    }
    return Plan(work, folder)


def check(
    here: Tree,
    plan: Plan,
    often: Repetitions,
    rules: Rules,
    before: Measurement | Tree,
    *,
    tell: Tell = lambda stage: None,
) -> tuple[Comparison, ...]:
    """Measure the tree `here` and compare it with a measurement, or with another tree that is measured in turn with it.

    What is slower or larger is measured once more, on both sides where both are trees. Raises NothingToCompareError
    when the workload does not run at all; what of it fails is in the comparisons.
    """

    def compared(often: Repetitions, only: Mapping[str, Sequence[str]] | None = None) -> tuple[Comparison, ...]:
        trees = [here, before] if isinstance(before, Tree) else [here]
        now, *there = measure(trees, plan, often, only=only, tell=tell)
        return compare(there[0] if isinstance(before, Tree) else before, now, rules, str(plan.work["device"]))

    comparisons = compared(often)
    if again := to_repeat(comparisons):
        tell("measured again: " + ", ".join(f"{name} ({kind})" for kind, names in again.items() for name in names))
        # Processes differ from one another more than rounds of one do, so a repetition is of two at least.
        once_more = replace(often, passes=max(2, often.passes), memory=max(2, often.memory))
        try:
            comparisons = confirmed(comparisons, compared(once_more, again))
        except NothingToCompareError as error:  # what was found stands
            tell(f"could not be measured again: {error}")
    return comparisons


def faults(measured: Measurement, rules: Rules, device: str) -> tuple[list[str], list[str]]:
    """What fails, so that it must not become what later checks are compared with; and what cannot be judged by it."""
    traces = {name: "passed" if status.startswith("failed") else status for name, status in measured.traces.items()}
    itself = compare(replace(measured, errors={}, traces=traces), measured, rules, device)
    failed, unstable = (
        [f"{one.subject} {one.quantity} ({one.reason})" for one in itself if one.outcome is outcome]
        for outcome in (Outcome.REGRESSED, Outcome.UNMEASURED)
    )
    return failed, unstable
