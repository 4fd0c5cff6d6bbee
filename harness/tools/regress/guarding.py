"""One check for regressions: the workload is laid out, measured, compared, and what looks slower or larger is measured
again. How each of these is done is in `measure` and `compare`; the command is `cli_regress`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from harness.data import PARTS, Dataset
from harness.data.synthetic import baby_sized, mini
from harness.tools.regress.alternation import MeasuringError, Plan, Repetitions, Tree, measure
from harness.tools.regress.measurement import Measurement
from harness.tools.regress.regression import Comparison, compare, confirmed, to_repeat
from harness.tools.regress.regression_rules import Rules, WorkloadSize

Tell = Callable[[str], None]
WORKLOAD_FORMAT = 1
"""Counts on when `harness.tools.regress.workload` measures something else under the same names."""


@dataclass(frozen=True)
class Material:
    """What the workload computes on."""

    small: Dataset
    large: Dataset
    traces: Path

    @classmethod
    def made(cls, traces: Path) -> "Material":
        """`mini`, the set of Baby's size, and a folder of recorded traces."""
        return cls(mini(), baby_sized(), traces)


@dataclass(frozen=True)
class Check:
    """A finished check: what was measured now, and what follows."""

    now: Measurement
    before: Measurement
    comparisons: tuple[Comparison, ...]


def workload_identity(size: WorkloadSize, material: Material, device: str) -> dict[str, Any]:
    """All that two measurements must share to be of the same work, fit for JSON; how often it is repeated is not."""
    return {
        "format": WORKLOAD_FORMAT,
        "models": list(size.models),
        "seeds": list(size.seeds),
        "training": size.training,
        "training_of": size.training_of,
        "steps": size.steps[device],
        "datasets": {each.name: each.content_hash for each in (material.small, material.large)},
    }


@contextmanager
def laid_out(size: WorkloadSize, material: Material, device: str, threads: int) -> Iterator[Plan]:
    """The plan, with its data sets in a temporary folder: every tree reads the same files, however it makes its own."""
    with TemporaryDirectory(prefix="bm3-regress-") as temporary:
        folders = {each.name: Path(temporary) / each.name for each in (material.small, material.large)}
        for each in (material.small, material.large):
            folders[each.name].mkdir()
            np.savez(
                folders[each.name] / "interactions.npz", allow_pickle=False, **{part: each.part(part) for part in PARTS}
            )
            for modality, table in each.features.items():
                np.save(folders[each.name] / f"{modality}.npy", table, allow_pickle=False)
        yield Plan(
            models=size.models,
            small=folders[material.small.name],
            large=folders[material.large.name],
            traces=material.traces,
            training=size.training,
            training_of=size.training_of,
            steps=size.steps[device],
            seeds=size.seeds,
            device=device,
            threads=threads,
        )


def check(
    here: Tree,
    plan: Plan,
    repetitions: Repetitions,
    rules: Rules,
    before: Measurement | Tree,
    *,
    tell: Tell = lambda stage: None,
    seam: Path | None = None,
) -> Check:
    """Measure the tree `here` and compare it with a measurement, or with another tree that is measured in turn with it.

    What is slower or larger is measured once more, on both sides where both are trees. Raises MeasuringError when the
    workload does not run at all; what of it fails is in the comparisons. `seam`: see `workload.main`.
    """

    def measured(
        often: Repetitions, only: Mapping[str, Sequence[str]] | None = None
    ) -> tuple[Measurement, Measurement]:
        """Before and now."""
        if isinstance(before, Measurement):
            return before, measure([here], plan, often, only=only, tell=tell, seam=seam)[0]
        now, other = measure([here, before], plan, often, only=only, tell=tell, seam=seam)
        return other, now

    then, now = measured(repetitions)
    comparisons = compare(then, now, rules, plan.device)
    if again := to_repeat(comparisons):
        tell("measured again: " + ", ".join(f"{name} ({kind})" for kind, names in again.items() for name in names))
        # Processes differ from one another more than rounds of one do, so a repetition is of two at least.
        once_more = replace(repetitions, passes=max(2, repetitions.passes), memory=max(2, repetitions.memory))
        try:
            comparisons = confirmed(comparisons, compare(*measured(once_more, again), rules, plan.device))
        except MeasuringError as error:  # what was found stands
            tell(f"could not be measured again: {error}")
    return Check(now, then, comparisons)
