"""A whole check: what looks like a regression is measured again, and only what is there twice counts."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from regression_workload import HERE, tiny_material, tiny_rules

from harness.data import Dataset
from harness.tools.regress import guarding
from harness.tools.regress.alternation import MeasuringError, Plan, Repetitions, measure
from harness.tools.regress.guarding import Check, check, laid_out
from harness.tools.regress.measurement import Measurement, Timing
from harness.tools.regress.regression import MEMORY, TIME, Outcome, exit_code
from harness.tools.regress.regression_rules import Rules

SUBJECTS = ("small/bpr", "large/bpr")
OFTEN = Repetitions(passes=1, rounds=6, memory=1)
RULES = tiny_rules()


@pytest.fixture(scope="module")
def plan(clustered: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plan]:
    with laid_out(RULES.workload, tiny_material(clustered, tmp_path_factory.mktemp("plan")), "cpu", 1) as plan:
        yield plan


def usual(slower: float = 1.0) -> Measurement:
    """Subjects of one calibration each; the first one slower."""
    return Measurement(
        timings={
            subject: [
                Timing((slower if subject == SUBJECTS[0] else 1.0) * (1 + 0.001 * n), 1.0, 1.0, 1.0) for n in range(6)
            ]
            for subject in SUBJECTS
        },
        memory={},
        accuracy={},
        traces={},
        errors={},
        notes={},
    )


@pytest.fixture
def checked(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Check, list[Any]]]:
    """A check for which measuring gives these, one after another, and what of it was asked to be measured."""

    def run(*gives: Measurement | Exception) -> tuple[Check, list[Any]]:
        asked: list[Any] = []
        left = iter(gives)

        def measured(trees: Any, plan: Any, often: Any, *, only: Any, tell: Any, seam: Any) -> list[Measurement]:
            asked.append(only)
            given = next(left)
            if isinstance(given, Exception):
                raise given
            return [given]

        monkeypatch.setattr(guarding, "measure", measured)
        return check(HERE, plan, OFTEN, RULES, usual()), asked

    return run


def of(found: Check, subject: str) -> Any:
    (one,) = (one for one in found.comparisons if (one.subject, one.quantity) == (subject, TIME))
    return one


def test_what_held_is_measured_once(checked: Callable[..., tuple[Check, list[Any]]]) -> None:
    found, asked = checked(usual())
    assert asked == [None]
    assert exit_code(found.comparisons) == 0


def test_a_slowdown_that_is_there_again_is_one_and_only_it_was_measured_again(
    checked: Callable[..., tuple[Check, list[Any]]],
) -> None:
    found, asked = checked(usual(1.3), usual(1.25))
    assert asked == [None, {"time": [SUBJECTS[0]]}]
    assert of(found, SUBJECTS[0]).outcome is Outcome.REGRESSED
    assert "measured again: +25" in of(found, SUBJECTS[0]).reason
    assert of(found, SUBJECTS[1]).outcome is Outcome.HELD
    assert exit_code(found.comparisons) == 1


def test_a_slowdown_that_is_not_there_again_is_no_alarm(checked: Callable[..., tuple[Check, list[Any]]]) -> None:
    found, _ = checked(usual(1.3), usual())
    assert of(found, SUBJECTS[0]).outcome is Outcome.UNCONFIRMED
    assert exit_code(found.comparisons) == 0


def test_what_was_found_stands_where_it_cannot_be_measured_again(
    checked: Callable[..., tuple[Check, list[Any]]],
) -> None:
    found, asked = checked(usual(1.3), MeasuringError("no memory left"))
    assert len(asked) == 2
    assert of(found, SUBJECTS[0]).outcome is Outcome.REGRESSED


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux' figures of resident memory")
def test_planted_memory_is_found_and_named(plan: Plan, tmp_path: Path) -> None:
    seam = tmp_path / "seam.py"
    seam.write_text(
        "import numpy\n"
        "def plant(Workload):\n"
        "    fresh = Workload._fresh\n"
        "    def larger(self, subject, *, small=False):\n"
        "        fresh(self, subject, small=small)\n"
        "        if subject == 'large/bpr' and not small: self.kept = numpy.ones(2**26, dtype=numpy.uint8)\n"
        "    Workload._fresh = larger\n"
    )
    blind: Rules = replace(RULES, **{name: replace(getattr(RULES, name), factor=1000.0) for name in ("time", "wall")})
    before = measure([HERE], plan, OFTEN)[0]
    found = check(HERE, plan, OFTEN, blind, before, seam=seam)
    worse = [one for one in found.comparisons if one.outcome is Outcome.REGRESSED]
    assert [(one.subject, one.quantity) for one in worse] == [("large/bpr", MEMORY)]
    assert "measured again" in worse[0].reason
