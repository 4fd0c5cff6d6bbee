"""Memory against what is published: what a model needs beyond a reference model, by the rule for all cells. A constant,
such as the CUDA context, is in every reading and in every printed figure, and bends every ratio; no difference has it.
"""

from collections.abc import Sequence
from dataclasses import replace

from harness.paper.claims import MEMORY, costs
from harness.paper.load import MemoryRule, Paper, Tolerance
from harness.paper.published import PublishedValue, Status, values_of_cell
from harness.paper.rows import GB, Row, representative, representatives
from harness.paper.verdict import Outcome, Verdict, judge
from harness.runs.record import GPU_KINDS, memory_kind


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
