"""Cells that are known to lie outside their band: what a suite says of them, and whether it still applies."""

from collections.abc import Iterable, Sequence
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.paper.published import canonical_metric, short_metric
from harness.paper.verdict import Verdict


class ExceptedCells(BaseModel):
    """Cells of a model whose mean may differ from the published value by `low` to `high`, as shares of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    dataset: Annotated[str, Field(min_length=1)]
    model: Annotated[str, Field(min_length=1)]
    metrics: Annotated[list[str], Field(min_length=1)]
    low: float
    high: float
    reason: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _ordered(self) -> "ExceptedCells":
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g}, above high, {self.high:g}")
        return self


class JudgedCell(NamedTuple):
    """A cell of a row that some exception may be about."""

    dataset: str
    model: str
    label: str
    metric: str
    """Canonical."""
    verdict: Verdict

    def named(self, *, with_dataset: bool = True) -> str:
        """As `buir R@20 on sports`."""
        return f"{self.label} {short_metric(self.metric)}" + (f" on {self.dataset}" if with_dataset else "")


class Applied(NamedTuple):
    """What exceptions come to."""

    excepted: frozenset[tuple[str, str, str]] = frozenset()
    """Data set, label and metric of cells that do not hold, and need not."""
    lines: tuple[str, ...] = ()
    """One for each of these."""
    broken: tuple[str, ...] = ()
    """One for each exception that does not apply any more."""


def apply(exceptions: Iterable[ExceptedCells], cells: Sequence[JudgedCell]) -> Applied:
    """Hold each exception against the cells that were judged; one whose model was not run on its data set is moot."""
    excepted: dict[tuple[str, str, str], None] = {}
    lines, broken = [], []
    for exception in exceptions:
        key = exception.dataset.lower(), exception.model.lower()
        rows = [cell for cell in cells if (cell.dataset.lower(), cell.model.lower()) == key]
        for metric in map(canonical_metric, exception.metrics):
            own = [cell for cell in rows if cell.metric == metric]
            if rows and not own:
                where = f"{exception.model} {short_metric(metric)} on {exception.dataset}"
                broken.append(f"exception without a cell: {where} is not in this report")
            for cell in own:
                held, change = cell.verdict.outcome.held, cell.verdict.difference
                percent = "not finite" if change is None else f"{100 * change:+z.1f} %"
                if held is None:
                    reason = cell.verdict.reason.rstrip(".")
                    lines.append(f"exception not tested: {cell.named()} is not judged ({reason})")
                elif not held and change is not None and exception.low <= change <= exception.high:
                    excepted[cell.dataset, cell.label, metric] = None
                    lines.append(f"excepted: {cell.named()}, {percent}: {exception.reason}")
                else:
                    allowed = f"excepted are {100 * exception.low:+g} % to {100 * exception.high:+g} %"
                    place = "inside its band" if held else allowed
                    broken.append(f"exception no longer applies: {cell.named()}, {percent}: {place}")
    return Applied(frozenset(excepted), tuple(lines), tuple(broken))
