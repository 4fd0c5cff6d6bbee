"""Exceptions that a suite makes: they excuse what lies in their range, and say so when they do not apply any more."""

import pytest

from harness.paper.exceptions import Applied, ExceptedCells, JudgedCell, apply
from harness.paper.load import Tolerance
from harness.paper.published import PublishedValue, Status
from harness.paper.verdict import judge

PUBLISHED = PublishedValue("Sports", "BUIR", "R@20", 0.5, "paper", Status.AS_PRINTED, "")
BUIR = ExceptedCells(dataset="sports", model="buir", metrics=["R@20"], low=0.1, high=0.16, reason="another ranking")


def cell(mean: float, seeds: int = 2) -> JudgedCell:
    verdict = judge([mean] * seeds, [PUBLISHED], Tolerance(0.03, 0.95, 2))
    return JudgedCell("sports", "buir", "buir", "recall@20", verdict)


def test_a_cell_in_the_range_is_excepted_and_named_with_the_reason() -> None:
    applied = apply([BUIR], [cell(0.57)])
    assert applied.excepted == {("sports", "buir", "recall@20")}
    assert applied.lines == ("excepted: buir R@20 on sports, +14.0 %: another ranking",)
    assert not applied.broken


@pytest.mark.parametrize(
    ("mean", "why"),
    [(0.6, "+20.0 %: excepted are +10 % to +16 %"), (0.4, "-20.0 %"), (0.5, "0.0 %: inside its band")],
)
def test_an_exception_that_does_not_apply_any_more_is_broken(mean: float, why: str) -> None:
    applied = apply([BUIR], [cell(mean)])
    (line,) = applied.broken
    assert line.startswith("exception no longer applies: buir R@20 on sports, ")
    assert why in line
    assert not applied.excepted


def test_a_metric_that_no_row_has_is_broken_and_a_model_that_was_not_run_or_not_judged_is_not() -> None:
    unknown = BUIR.model_copy(update={"metrics": ["R@7"]})
    assert "buir R@7 on sports is not in this report" in apply([unknown], [cell(0.57)]).broken[0]
    assert apply([unknown], [cell(0.57)._replace(model="bpr")]) == Applied()
    untested = apply([BUIR], [cell(0.57, seeds=1)])
    assert not untested.broken
    assert untested.lines[0].startswith("exception not tested: buir R@20 on sports is not judged")


def test_a_diverged_run_is_not_excepted() -> None:
    diverged = cell(float("nan"))
    assert "not finite" in apply([BUIR], [diverged]).broken[0]
