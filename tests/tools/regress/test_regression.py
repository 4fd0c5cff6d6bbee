"""What counts as a regression, on made-up measurements. The numbers of the rules are those that ship."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bm3 import DataError
from harness.paper.expected import expected_dir
from harness.tools.regress.measurement import MEASUREMENT, Measurement, Result, Timing, Trace, as_json
from harness.tools.regress.regression import (
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
from harness.tools.regress.regression_rules import Rules, load_rules

RULES_FILE = expected_dir() / "regression.toml"
SUBJECTS = [f"{data}/{model}" for data, model in itertools.product(("mini", "large"), "abcdefghi")]


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules(RULES_FILE)


def measurement(
    timings: Mapping[str, Sequence[Timing]] | None = None,
    memory: Mapping[str, Sequence[int]] | None = None,
    accuracy: Mapping[str, Sequence[Sequence[Result]]] | None = None,
    traces: Mapping[str, Trace] | None = None,
    errors: Mapping[str, str] | None = None,
) -> Measurement:
    return Measurement(timings or {}, memory or {}, accuracy or {}, traces or {}, errors or {}, {})


def timed(
    seed: int,
    *,
    n: int = 8,
    cpu: float = 1.0,
    wall: float = 1.0,
    noise: float = 0.05,
    subjects: Sequence[str] = SUBJECTS,
    only: str | None = None,
) -> Measurement:
    """Subjects of one calibration each with noise; `cpu` and `wall` slow all of them down, or `only` one."""
    draw = np.random.default_rng(seed)

    def times(subject: str) -> list[Timing]:
        slowed = [factor if only in (None, subject) else 1.0 for factor in (cpu, wall)]
        return [Timing(slowed[0] * c, slowed[1] * w, 1.0, 1.0) for c, w in np.exp(noise * draw.standard_normal((n, 2)))]

    return measurement({subject: times(subject) for subject in subjects})


def outcomes(comparisons: Sequence[Comparison], quantity: str) -> dict[str, Outcome]:
    return {one.subject: one.outcome for one in comparisons if one.quantity == quantity}


def one_outcome(before: Measurement, now: Measurement, rules: Rules, quantity: str) -> Outcome:
    (found,) = set(outcomes(compare(before, now, rules), quantity).values())
    return found


def test_noise_alone_is_no_slowdown(rules: Rules) -> None:
    codes = [exit_code(compare(timed(seed), timed(1000 + seed), rules)) for seed in range(30)]
    assert codes == [0] * 30


def test_a_slowdown_of_a_fifth_is_found_in_at_least_nine_of_ten_runs(rules: Rules) -> None:
    codes = [exit_code(compare(timed(seed), timed(1000 + seed, cpu=1.2), rules)) for seed in range(30)]
    assert codes.count(1) >= 27


def test_a_slowdown_of_one_subject_names_that_subject_alone(rules: Rules) -> None:
    found = outcomes(compare(timed(1), timed(2, cpu=1.3, only="mini/c", noise=0.02), rules), TIME)
    assert [subject for subject, outcome in found.items() if outcome is Outcome.REGRESSED] == ["mini/c"]


def test_a_significant_but_small_slowdown_does_not_count(rules: Rules) -> None:
    found = compare(timed(1, n=20, noise=0.01), timed(2, n=20, noise=0.01, cpu=1.06), rules)
    assert set(outcomes(found, TIME).values()) == {Outcome.HELD}
    assert all(one.adjusted is not None and one.adjusted < 0.05 for one in found if one.quantity == TIME)


def test_a_large_difference_without_significance_does_not_count(rules: Rules) -> None:
    before = timed(1, n=6, noise=0, subjects=["mini/a"])
    shares = [0.9, 0.9, 1.2, 1.2, 1.2, 1.2]
    now = measurement({"mini/a": [Timing(share, 1.0, 1.0, 1.0) for share in shares]})
    lenient = replace(rules, time=replace(rules.time, max_spread=1.0))
    assert one_outcome(before, now, lenient, TIME) is Outcome.HELD


def test_a_slowdown_of_the_slower_repetitions_alone_does_not_count(rules: Rules) -> None:
    """That is what neighbours do."""
    shares = [1.01, 1.02, 1.03, 1.04, 1.25, 1.26, 1.27, 1.28, 1.29]
    before = measurement({"mini/a": [Timing(1 + i / 1000, 1.0, 1.0, 1.0) for i in range(9)]})
    now = measurement({"mini/a": [Timing(share, 1.0, 1.0, 1.0) for share in shares]})
    (found,) = (one for one in compare(before, now, rules) if one.quantity == TIME)
    assert found.outcome is Outcome.HELD
    assert found.adjusted is not None
    assert found.adjusted < rules.time.level


def test_the_correction_grows_with_the_number_of_subjects(rules: Rules) -> None:
    few = compare(timed(1, subjects=SUBJECTS[:1]), timed(2, cpu=1.1, subjects=SUBJECTS[:1]), rules)
    many = compare(timed(1), timed(2, cpu=1.1), rules)
    p_few, p_many = (next(o.adjusted for o in found if o.quantity == TIME) for found in (few, many))
    assert p_few is not None
    assert p_many is not None
    assert p_many > p_few


def test_a_speed_up_is_told_and_passes(rules: Rules) -> None:
    found = compare(timed(1), timed(2, cpu=0.7), rules)
    assert set(outcomes(found, TIME).values()) == {Outcome.IMPROVED}
    assert exit_code(found) == 0


def test_time_is_in_units_of_the_calibration_so_a_slower_machine_changes_nothing(rules: Rules) -> None:
    before = timed(1, noise=0.01)
    slower = {
        subject: [Timing(2 * t.cpu, 2 * t.wall, 2 * t.calibration_cpu, 2 * t.calibration_wall) for t in times]
        for subject, times in timed(2, noise=0.01).timings.items()
    }
    assert one_outcome(before, measurement(slower), rules, TIME) is Outcome.HELD


def test_waiting_shows_in_wall_time_alone_and_only_a_lot_of_it_counts(rules: Rules) -> None:
    before = timed(1)
    assert one_outcome(before, timed(2, wall=1.3), rules, WALL) is Outcome.HELD
    found = compare(before, timed(2, wall=2.0), rules)
    assert set(outcomes(found, WALL).values()) == {Outcome.REGRESSED}
    assert set(outcomes(found, TIME).values()) == {Outcome.HELD}


def test_on_a_gpu_time_is_wall_time(rules: Rules) -> None:
    found = compare(timed(1), timed(2, wall=1.3, noise=0.02), rules, "cuda")
    assert {one.quantity for one in found} == {TIME}
    assert set(outcomes(found, TIME).values()) == {Outcome.REGRESSED}


def test_what_spreads_too_much_is_unstable_and_no_alarm(rules: Rules) -> None:
    before, now = (timed(seed, noise=0.5, subjects=["mini/a"], wall=1) for seed in (1, 2))
    found = compare(before, now, rules)
    assert outcomes(found, TIME) == {"mini/a": Outcome.UNSTABLE}
    assert Outcome.REGRESSED not in {one.outcome for one in found}


def test_no_spread_excuses_repetitions_that_all_lie_beyond_those_before(rules: Rules) -> None:
    before, now = timed(1, noise=0.3), timed(2, noise=0.3, cpu=10)
    assert one_outcome(before, now, rules, TIME) is Outcome.REGRESSED


def test_too_few_repetitions_are_not_compared(rules: Rules) -> None:
    found = compare(timed(1), timed(2, n=5, cpu=3), rules)
    assert set(outcomes(found, TIME).values()) == {Outcome.NOT_COMPARED}
    assert exit_code(found) == 3


def weighed(*peaks: int) -> Measurement:
    return measurement(memory={"large/a": peaks})


@pytest.mark.parametrize(
    ("now", "outcome"),
    [
        ((100_000_000,), Outcome.HELD),
        ((104_000_000,), Outcome.HELD),
        ((110_000_000,), Outcome.REGRESSED),
        ((111_000_000, 109_000_000), Outcome.REGRESSED),
        ((80_000_000,), Outcome.IMPROVED),
        ((101_000_000, 130_000_000), Outcome.UNSTABLE),
    ],
)
def test_a_growth_of_a_tenth_counts_and_one_of_a_few_percent_does_not(
    now: tuple[int, ...], outcome: Outcome, rules: Rules
) -> None:
    assert one_outcome(weighed(100_000_000, 100_100_000), weighed(*now), rules, MEMORY) is outcome


def test_a_growth_of_a_few_bytes_never_counts(rules: Rules) -> None:
    assert one_outcome(weighed(1000), weighed(3000), rules, MEMORY) is Outcome.HELD


def accurate(*values: float, bits: str = "same", model: str = "a", again: Sequence[str] = ()) -> Measurement:
    results = [
        [Result({"recall@20": value}, each) for each in (bits + str(seed), *again)] for seed, value in enumerate(values)
    ]
    return measurement(accuracy={f"mini/{model}": results})


def accuracy_outcome(before: Measurement, now: Measurement, rules: Rules) -> Outcome:
    return one_outcome(before, now, rules, "recall@20")


def test_the_same_bits_hold_however_much_the_seeds_differ(rules: Rules) -> None:
    assert accuracy_outcome(accurate(0.1, 0.9), accurate(0.1, 0.9), rules) is Outcome.HELD


def test_a_loss_of_one_percent_is_found(rules: Rules) -> None:
    assert accuracy_outcome(accurate(0.3, 0.5), accurate(0.297, 0.495), rules) is Outcome.REGRESSED
    assert accuracy_outcome(accurate(0.3, 0.5), accurate(0.297, 0.495, bits="other"), rules) is Outcome.REGRESSED


def test_other_bits_within_the_band_are_named_and_pass(rules: Rules) -> None:
    found = compare(accurate(0.3, 0.5), accurate(0.3001, 0.4999, bits="other"), rules)
    assert outcomes(found, "recall@20") == {"mini/a": Outcome.CHANGED}
    assert "other bits" in found[0].reason
    assert exit_code(found) == 0


def test_a_gain_is_told_and_passes(rules: Rules) -> None:
    assert accuracy_outcome(accurate(0.3, 0.5), accurate(0.31, 0.52, bits="other"), rules) is Outcome.IMPROVED


def test_a_model_that_amplifies_rounding_has_a_band_of_its_own(rules: Rules) -> None:
    before, now = (accurate(value, value, bits=str(value), model="mmgcn") for value in (0.30, 0.28))
    assert accuracy_outcome(before, now, rules) is Outcome.CHANGED


def test_a_seed_that_gives_other_bits_when_repeated_is_a_regression(rules: Rules) -> None:
    now = accurate(0.3, 0.5, again=["same0"])
    found = compare(accurate(0.3, 0.5), now, rules)
    assert outcomes(found, "same bits twice") == {"mini/a": Outcome.REGRESSED}
    assert exit_code(found) == 1


def traced(status: str, note: str = "") -> Measurement:
    return measurement(traces={"bm3": Trace(status, 0.5, note)})


def test_a_trace_that_passed_and_fails_now_is_a_regression(rules: Rules) -> None:
    assert one_outcome(traced("passed"), traced("failed", "loss"), rules, "conformance") is Outcome.REGRESSED
    assert one_outcome(traced("passed"), measurement(), rules, "conformance") is Outcome.REGRESSED
    assert one_outcome(traced("passed"), traced("passed"), rules, "conformance") is Outcome.HELD
    assert one_outcome(traced("failed"), traced("failed"), rules, "conformance") is Outcome.NOT_COMPARED


def test_what_fails_now_and_did_not_before_is_a_regression(rules: Rules) -> None:
    before = timed(1, subjects=["mini/a"])
    now = measurement(errors={"mini/a: time": "RuntimeError: broken"})
    found = compare(before, now, rules)
    assert outcomes(found, TIME) == {"mini/a": Outcome.REGRESSED}
    assert "broken" in found[0].reason
    assert to_repeat(found) == {}  # there is nothing to measure again


@pytest.mark.parametrize("quantity", [TIME, MEMORY, "accuracy"])
def test_what_fails_now_in_some_repetitions_is_a_regression_whatever_the_others_say(
    quantity: str, rules: Rules
) -> None:
    subject = "mini/bm3"
    before = replace(
        timed(1, subjects=[subject]),
        memory={subject: [10**8] * 3},
        accuracy=accurate(0.3, 0.5, model="bm3").accuracy,
    )
    now = replace(before, errors={f"{subject}: {quantity}": "RuntimeError: only with seed 2"})
    assert exit_code(compare(before, before, rules)) == 0
    assert exit_code(compare(now, now, rules)) == 0  # as before
    found = compare(before, now, rules)
    assert {one.quantity for one in found if one.outcome is Outcome.REGRESSED} - {WALL} == {quantity}
    assert exit_code(found) == 1


def test_a_regression_whose_repetition_is_unstable_is_unstable(rules: Rules) -> None:
    before, slow, wild = timed(1), timed(2, cpu=1.4), timed(3, noise=0.6)
    found = confirmed(compare(before, slow, rules), compare(before, wild, rules))
    times = [one for one in found if one.quantity == TIME]
    assert Outcome.UNSTABLE in {one.outcome for one in times}
    assert all("when measured again" in one.reason for one in times if one.outcome is Outcome.UNSTABLE)


def test_what_only_one_side_knows_is_not_compared(rules: Rules) -> None:
    found = compare(timed(1, subjects=["mini/a"]), timed(2, subjects=["mini/b"]), rules)
    assert {one.outcome for one in found} == {Outcome.NOT_COMPARED}
    assert exit_code(found) == 3


def test_nothing_measured_is_no_pass(rules: Rules) -> None:
    assert exit_code(compare(measurement(), measurement(), rules)) == 3


def test_a_slowdown_counts_only_if_it_is_there_when_measured_again(rules: Rules) -> None:
    before, slow, usual = timed(1), timed(2, cpu=1.4), timed(3)
    first = compare(before, slow, rules)
    assert set(to_repeat(first)) == {"time"}
    assert exit_code(confirmed(first, compare(before, slow, rules))) == 1
    relieved = confirmed(first, compare(before, usual, rules))
    assert set(outcomes(relieved, TIME).values()) == {Outcome.UNCONFIRMED}
    assert exit_code(relieved) == 0


def test_measuring_again_forgives_nothing_that_is_not_measured_again(rules: Rules) -> None:
    first = compare(accurate(0.3, 0.5), accurate(0.2, 0.4), rules)
    assert exit_code(confirmed(first, compare(measurement(), measurement(), rules))) == 1


def test_a_measurement_survives_json() -> None:
    one = replace(timed(1), memory={"large/a": [1]}, traces={"bm3": Trace("failed", float("inf"), "")})
    assert as_json(MEASUREMENT.validate_python(as_json(one))) == as_json(one)


def test_the_shipped_rules_leave_room_for_what_must_be_found(rules: Rules) -> None:
    assert rules.time.factor < 1.2
    assert rules.memory.factor < 1.1
    assert rules.accuracy.relative < 0.01
    assert set(rules.workload.models) == set(rules.workload.steps["cpu"]) == set(rules.workload.steps["cuda"])


def test_every_preset_repeats_often_enough_for_a_slowdown_to_be_significant(rules: Rules) -> None:
    for preset in vars(rules.presets).values():
        n = preset.passes * preset.rounds
        before, now = (timed(seed, n=n, noise=0.02, cpu=cpu) for seed, cpu in ((1, 1.0), (2, 1.2)))
        assert one_outcome(before, now, rules, TIME) is Outcome.REGRESSED


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
    text = RULES_FILE.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "rules.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(DataError, match=field) as refusal:
        load_rules(path)
    assert str(path) in str(refusal.value)
