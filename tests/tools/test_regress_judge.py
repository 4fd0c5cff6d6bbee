"""What counts as a regression, on made-up measurements. The numbers of the rules are those that ship."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from bm3 import DataError
from harness.paper.folders import DEFAULT, paper_folder
from harness.tools.regress.baseline import Measurement, Result
from harness.tools.regress.judge import (
    CONFORMANCE,
    DETERMINISM,
    MEMORY,
    TIME,
    WALL,
    Comparison,
    Outcome,
    compare,
    confirmed,
    exit_code,
    to_repeat,
)
from harness.tools.regress.rules import Rules, load_rules
from harness.tools.regress.text import junit, markdown

HELD, REGRESSED, UNMEASURED = Outcome.HELD, Outcome.REGRESSED, Outcome.UNMEASURED
SUBJECTS = [f"{data}/{model}" for data, model in itertools.product(("mini", "large"), "abcdefghi")]


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules(paper_folder(DEFAULT) / "regression.toml")


def timed(
    seed: int,
    *,
    n: int = 8,
    cpu: float = 1.0,
    wall: float = 1.0,
    noise: float = 0.05,
    subjects: Sequence[str] = SUBJECTS,
) -> Measurement:
    """Subjects of one calibration each with noise; `cpu` and `wall` slow all of them down."""
    draw = np.random.default_rng(seed)
    noises = {subject: np.exp(noise * draw.standard_normal((n, 2))) for subject in subjects}
    return Measurement(time={subject: [(cpu * c, wall * w) for c, w in of] for subject, of in noises.items()})


def shares(*values: float) -> Measurement:
    return Measurement(time={"mini/a": [(value, 1.0) for value in values]})


def weighed(*peaks: int) -> Measurement:
    return Measurement(memory={"large/a": list(peaks)})


def accurate(
    *values: float, bits: str = "same", model: str = "a", again: Sequence[str] = (), metric: str = "recall@20"
) -> Measurement:
    results = [[Result({metric: value}, each) for each in (f"{bits}{n}", *again)] for n, value in enumerate(values)]
    return Measurement(accuracy={f"mini/{model}": results})


def outcomes(comparisons: Sequence[Comparison], quantity: str) -> dict[str, Outcome]:
    return {one.subject: one.outcome for one in comparisons if one.quantity == quantity}


def said(before: Measurement, now: Measurement, rules: Rules, quantity: str) -> tuple[Outcome, str]:
    """Of the only subject, or of all alike."""
    found = [one for one in compare(before, now, rules) if one.quantity == quantity]
    assert len({one.outcome for one in found}) == 1
    return found[0].outcome, found[0].reason


def test_noise_alone_is_no_slowdown_and_one_of_a_fifth_is_found_in_nine_of_ten_runs(rules: Rules) -> None:
    same, slow = (
        [exit_code(compare(timed(seed), timed(1000 + seed, cpu=cpu), rules)) for seed in range(30)]
        for cpu in (1.0, 1.2)
    )
    assert same == [0] * 30
    assert slow.count(1) >= 27


STEADY = shares(*(1 + i / 1000 for i in range(9)))
OLD_BYTES = weighed(100_000_000, 100_100_000)
OLD_ACCURACY = accurate(0.3, 0.5)
PASSED, FAILED = (Measurement(traces={"bm3": status}) for status in ("passed", "failed: loss"))


@pytest.mark.parametrize(
    ("quantity", "before", "now", "outcome", "reason"),
    [
        (TIME, timed(1, n=20, noise=0.01), timed(2, n=20, noise=0.01, cpu=1.06), HELD, "too small to count"),
        (TIME, shares(*[1.0] * 6), shares(0.9, 1.0, 1.2, 1.2, 1.2, 1.2), HELD, "not significant"),
        # The slower repetitions alone: that is what neighbours do.
        (TIME, STEADY, shares(1.01, 1.02, 1.03, 1.04, 1.25, 1.26, 1.27, 1.28, 1.29), HELD, "too small"),
        (TIME, timed(1), timed(2, cpu=0.7), HELD, "better: "),
        (TIME, *(timed(seed, noise=0.5, subjects=["mini/a"]) for seed in (1, 2)), UNMEASURED, "spread"),
        # No spread excuses repetitions that all lie beyond those before.
        (TIME, timed(1, noise=0.3), timed(2, noise=0.3, cpu=10), REGRESSED, "slower"),
        (TIME, timed(1), timed(2, n=5, cpu=3), UNMEASURED, "too few"),
        (TIME, shares(*[1.0] * 6), shares(*[1.0] * 6), HELD, "not significant"),
        # Waiting shows in wall time alone, and only a lot of it counts.
        (WALL, timed(1), timed(2, wall=1.3), HELD, ""),
        (WALL, timed(1), timed(2, wall=2.0), REGRESSED, "slower"),
        (TIME, timed(1), timed(2, wall=2.0), HELD, ""),
        # A growth of a tenth counts, one of a few percent or bytes does not.
        (MEMORY, OLD_BYTES, weighed(100_000_000), HELD, "too small"),
        (MEMORY, OLD_BYTES, weighed(104_000_000), HELD, "too small"),
        (MEMORY, OLD_BYTES, weighed(110_000_000), REGRESSED, "larger"),
        (MEMORY, OLD_BYTES, weighed(111_000_000, 109_000_000), REGRESSED, "larger"),
        (MEMORY, OLD_BYTES, weighed(80_000_000), HELD, "better: "),
        (MEMORY, OLD_BYTES, weighed(101_000_000, 130_000_000), UNMEASURED, "spread"),
        (MEMORY, weighed(1000), weighed(3000), HELD, "too small"),
        # A loss of one percent counts, other bits within the band do not.
        ("recall@20", accurate(0.1, 0.9), accurate(0.1, 0.9), HELD, "the same bits"),
        ("recall@20", OLD_ACCURACY, accurate(0.297, 0.495), REGRESSED, "the same bits"),
        ("recall@20", OLD_ACCURACY, accurate(0.297, 0.495, bits="other"), REGRESSED, "other bits"),
        ("recall@20", OLD_ACCURACY, accurate(0.3001, 0.4999, bits="other"), HELD, "other bits"),
        ("recall@20", OLD_ACCURACY, accurate(0.31, 0.52, bits="other"), HELD, "better: "),
        ("recall@20", OLD_ACCURACY, accurate(0.3, float("nan")), REGRESSED, "below"),
        ("recall@20", *(accurate(v, v, model="mmgcn", bits=str(v)) for v in (0.3, 0.28)), HELD, "band of 15 %"),
        ("recall@20", *(accurate(0.3, metric=m) for m in ("recall@20", "ndcg@20")), UNMEASURED, "lacks"),
        (DETERMINISM, OLD_ACCURACY, accurate(0.3, 0.5, again=["same0"]), REGRESSED, "different bits"),
        # A trace that passed and fails now.
        (CONFORMANCE, PASSED, FAILED, REGRESSED, "failed: loss"),
        (CONFORMANCE, PASSED, Measurement(), REGRESSED, "no longer replayed"),
        (CONFORMANCE, PASSED, PASSED, HELD, ""),
        (CONFORMANCE, FAILED, PASSED, HELD, ""),
        (CONFORMANCE, FAILED, FAILED, UNMEASURED, ""),
        (CONFORMANCE, Measurement(), FAILED, UNMEASURED, ""),
    ],
)
def test_what_is_said_of_each_quantity_and_why(
    quantity: str, before: Measurement, now: Measurement, outcome: Outcome, reason: str, rules: Rules
) -> None:
    found = said(before, now, rules, quantity)
    assert found[0] is outcome
    assert reason in found[1]
    assert outcome is not REGRESSED or exit_code(compare(before, now, rules)) == 1


def test_the_correction_grows_with_the_number_of_subjects(rules: Rules) -> None:
    """A slowdown that is significant alone is not among many."""
    lenient = replace(rules, time=replace(rules.time, factor=1.001))
    before, now = shares(*(1 + i / 100 for i in range(6))), shares(*(1.025 + i / 100 for i in range(6)))
    assert said(before, now, lenient, TIME)[0] is REGRESSED
    others = {name: [(1 + i / 100, 1.0) for i in range(6)] for name in SUBJECTS[1:]}
    before, now = (Measurement(time={**side.time, **others}) for side in (before, now))
    assert outcomes(compare(before, now, lenient), TIME)["mini/a"] is HELD


def test_on_a_gpu_time_is_wall_time(rules: Rules) -> None:
    found = compare(timed(1), timed(2, wall=1.3, noise=0.02), rules, "cuda")
    assert {(one.quantity, one.outcome) for one in found} == {(TIME, REGRESSED)}


@pytest.mark.parametrize("quantity", [TIME, MEMORY, "accuracy"])
@pytest.mark.parametrize("wholly", [True, False])
def test_what_fails_now_wholly_or_in_part_is_a_regression_if_it_did_not_before(
    quantity: str, wholly: bool, rules: Rules
) -> None:
    subject = "mini/bm3"
    before = replace(
        timed(1, subjects=[subject]), memory={subject: [10**8] * 3}, accuracy=accurate(0.3, 0.5, model="bm3").accuracy
    )
    errors = {f"{subject}: {quantity}": "RuntimeError: only with seed 2"}
    now = replace(before, errors=errors, **({quantity: {}} if wholly else {}))
    assert exit_code(compare(before, before, rules)) == 0
    assert exit_code(compare(now, now, rules)) == 0  # as before
    found = compare(before, now, rules)
    regressed = [one for one in found if one.outcome is REGRESSED]
    assert {one.quantity for one in regressed} - {WALL} == {quantity}
    assert "only with seed 2" in regressed[0].reason
    assert to_repeat(found) == {}  # there is nothing to measure again


def test_what_only_one_side_knows_or_nobody_measured_is_no_pass(rules: Rules) -> None:
    found = compare(timed(1, subjects=["mini/a"]), timed(2, subjects=["mini/b"]), rules)
    assert {one.outcome for one in found} == {UNMEASURED}
    assert exit_code(found) == 3
    assert exit_code(compare(Measurement(), Measurement(), rules)) == 3


def test_what_was_not_measured_again_is_not_forgiven(rules: Rules) -> None:
    worse = compare(accurate(0.3, 0.5), accurate(0.2, 0.4), rules)
    assert exit_code(confirmed(worse, ())) == 1


def test_the_shipped_rules_leave_room_for_what_must_be_found(rules: Rules) -> None:
    assert rules.time.factor < 1.2
    assert rules.memory.factor < 1.1
    assert rules.accuracy.relative < 0.01
    assert set(rules.workload.models) == set(rules.workload.steps["cpu"]) == set(rules.workload.steps["cuda"])
    for often in rules.presets.values():  # repetitions are enough for a slowdown to be significant
        before, now = (
            timed(seed, n=often.passes * often.rounds, noise=0.02, cpu=cpu) for seed, cpu in ((1, 1), (2, 1.2))
        )
        assert said(before, now, rules, TIME)[0] is REGRESSED


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("factor = 1.05", "factor = 0.9", "memory.factor"),
        ("level = 0.05 ", "level = 0 ", "time.level"),
        ("rounds = 2\nmemory = 1", "rounds = 0\nmemory = 1", "presets.quick.rounds"),
        ("[accuracy.models]", "[accuracy.modelz]", "accuracy.modelz"),
    ],
)
def test_a_rule_without_sense_is_refused_by_file_and_field(old: str, new: str, field: str, tmp_path: Path) -> None:
    text = (paper_folder(DEFAULT) / "regression.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "rules.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(DataError, match=field) as refusal:
        load_rules(path)
    assert str(path) in str(refusal.value)


SLOWER = Comparison("mini/bm3", TIME, REGRESSED, "fails: \x1b[31m\x00 at <here> | there", 2.0, 3.0)
ALL_KINDS = (
    Comparison("trace <bm3> & co", CONFORMANCE, HELD, "passed"),
    Comparison("mini/bpr", TIME, UNMEASURED, "repetitions spread by 60 %", 1.0, 1.1),
    SLOWER,
    Comparison("large/bm3", MEMORY, HELD, "better: −1.0 MiB", 4.0 * 2**20, 3.0 * 2**20),
)


def test_the_report_names_what_regressed_first_and_every_comparison_with_both_figures() -> None:
    summary, _, rest = markdown(ALL_KINDS, {"Compared with": "baseline.json"}).partition("\n## ")
    assert "1 of 4 comparisons regressed." in summary
    assert "Compared with: baseline.json" in summary
    rows = [line for line in summary.splitlines() if line.startswith("| ")][1:]  # without the head
    assert ["regressed" in row for row in rows] == [True, False, False]
    assert "better" in rows[2]
    cells = [[cell.strip() for cell in line.split("|")] for line in rest.splitlines() if "large/bm3" in line]
    assert cells[0][3:6] == ["4.0 MiB", "3.0 MiB", "−25.0 %"]
    assert all(one.subject in rest for one in ALL_KINDS)
    assert "Nothing regressed in 2 comparisons." in markdown((ALL_KINDS[0], ALL_KINDS[3]), {})
    assert "Nothing could be compared." in markdown(ALL_KINDS[1:2], {})


def test_junit_has_one_case_per_comparison_and_stays_xml_whatever_a_message_holds() -> None:
    root = ElementTree.fromstring(junit(ALL_KINDS, "2026-01-02T03:04:05+00:00"))
    for suite in root:
        cases = suite.findall("testcase")
        assert suite.attrib["tests"] == str(len(cases))
        assert suite.attrib["failures"] == str(len(suite.findall("testcase/failure")))
        assert suite.attrib["skipped"] == str(len(suite.findall("testcase/skipped")))
        assert suite.attrib["timestamp"] == "2026-01-02T03:04:05"
    assert {case.attrib["name"] for case in root.iter("testcase")} == {one.subject for one in ALL_KINDS}
    (failure,) = root.iter("failure")
    assert failure.attrib["message"] == "regressed: fails: [31m at <here> | there"
    (skipped,) = root.iter("skipped")
    assert "spread" in skipped.attrib["message"]
