"""What became slower, larger or less accurate between two measurements of the same workload. Numbers in, verdicts out.

The numbers of the rules are `expected/bm3/regression.toml`, read by `regression_rules`; measuring is `harness.measure`.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from scipy import stats

from harness.paper.expected import PublishedValue, Status
from harness.paper.significance import holm
from harness.paper.verdict import Outcome as Accuracy
from harness.paper.verdict import judge
from harness.tools.regress.measurement import Measurement, Result, Timing
from harness.tools.regress.regression_rules import AccuracyRule, MemoryRule, Rules, TimeRule

TIME, WALL, MEMORY, CONFORMANCE, DETERMINISM = "time", "wall time", "memory", "conformance", "same bits twice"


class Outcome(StrEnum):
    """What a comparison says."""

    HELD = "held"
    """No change, or one that is smaller than what counts."""
    REGRESSED = "regressed"
    IMPROVED = "improved"
    CHANGED = "changed"
    """Other bits than before, and metrics within the band."""
    UNCONFIRMED = "not confirmed"
    """It looked like a regression and did not when it was measured again."""
    UNSTABLE = "unstable"
    """The repetitions differ too much among themselves for a judgement."""
    NOT_COMPARED = "not compared"
    """One of the two sides has no figure."""


JUDGED = frozenset({Outcome.HELD, Outcome.REGRESSED, Outcome.IMPROVED, Outcome.CHANGED, Outcome.UNCONFIRMED})


@dataclass(frozen=True)
class Comparison:
    """One quantity of one subject, before and now."""

    subject: str
    quantity: str
    outcome: Outcome
    before: float | None
    """Median; seconds in units of the calibration's, bytes, or the metric's mean over seeds."""
    now: float | None
    adjusted: float | None
    """One-sided p-value of the change in its direction, after Holm over everything of this quantity."""
    spread: float | None
    """Of the repetitions, as a share of their median; of the side where it is larger."""
    reason: str

    @property
    def change(self) -> float | None:
        """now / before - 1; None where one is missing or before is 0."""
        return self.now / self.before - 1 if self.before and self.now is not None else None


def compare(before: Measurement, now: Measurement, rules: Rules, device: str = "cpu") -> tuple[Comparison, ...]:
    """Every quantity of every subject that either side knows, in the order of measuring.

    Time is the CPU's where the CPU computes, with wall time beside it for what waits; else it is wall time.
    """
    times = (
        (
            *_times(before, now, TIME, lambda timing: timing.cpu_share, rules.time),
            *_times(before, now, WALL, lambda timing: timing.wall_share, rules.wall),
        )
        if device == "cpu"
        else tuple(_times(before, now, TIME, lambda timing: timing.wall_share, rules.time))
    )
    return (
        *_conformance(before, now),
        *_determinism(now),
        *_accuracies(before, now, rules.accuracy),
        *times,
        *_memories(before, now, rules.memory),
    )


def to_repeat(comparisons: Iterable[Comparison]) -> dict[str, list[str]]:
    """Subjects whose `time` or `memory` must be measured again before their regression is believed."""
    found: dict[str, list[str]] = {}
    for one in comparisons:
        kind = {TIME: "time", WALL: "time", MEMORY: "memory"}.get(one.quantity)
        measured = one.before is not None and one.now is not None
        if one.outcome is Outcome.REGRESSED and kind and measured and one.subject not in found.setdefault(kind, []):
            found[kind].append(one.subject)
    return found


def confirmed(first: Iterable[Comparison], again: Iterable[Comparison]) -> tuple[Comparison, ...]:
    """The first comparisons, a regression among them only if it is one again where it was measured again."""
    repeated = {(one.subject, one.quantity): one for one in again if one.now is not None}

    def judged(one: Comparison) -> Comparison:
        second = repeated.get((one.subject, one.quantity))
        if one.outcome is not Outcome.REGRESSED or second is None:
            return one
        if second.outcome is Outcome.REGRESSED:
            return replace(one, reason=f"{one.reason}; measured again: {percent(second.change)}")
        reason = f"{percent(one.change)} at first, {percent(second.change)} when measured again"
        if second.outcome is Outcome.UNSTABLE:
            return replace(one, outcome=Outcome.UNSTABLE, reason=f"{reason}, where {second.reason}")
        return replace(one, outcome=Outcome.UNCONFIRMED, reason=reason)

    return tuple(judged(one) for one in first)


def exit_code(comparisons: Iterable[Comparison]) -> int:
    """1 if anything regressed, else 0 if anything was judged, else 3: nothing compared is never a pass."""
    outcomes = {one.outcome for one in comparisons}
    if Outcome.REGRESSED in outcomes:
        return 1
    return 0 if outcomes & JUDGED else 3


def percent(change: float | None) -> str:
    """`+3.1 %`, with a true minus."""
    return "no figure" if change is None else f"{100 * change:+z.1f} %".replace("-", "−")


def _times(
    before: Measurement, now: Measurement, quantity: str, value: Callable[[Timing], float], rule: TimeRule
) -> Iterator[Comparison]:
    both = {}
    for subject in dict.fromkeys([*before.timings, *now.timings]):
        then, today = ([value(timing) for timing in side.timings.get(subject, ())] for side in (before, now))
        if min(len(then), len(today)) >= rule.min_repetitions and not _newly_fails(before, now, subject, "time"):
            both[subject] = then, today
        else:
            yield _not_measured(before, now, subject, quantity, _median(then), _median(today))
    slower = holm([_p_value(today, then) for then, today in both.values()])
    faster = holm([_p_value(then, today) for then, today in both.values()])
    for (subject, (then, today)), p_slower, p_faster in zip(both.items(), slower, faster, strict=True):
        yield _time(subject, quantity, then, today, p_slower, p_faster, rule)


def _time(
    subject: str,
    quantity: str,
    before: Sequence[float],
    now: Sequence[float],
    p_slower: float,
    p_faster: float,
    rule: TimeRule,
) -> Comparison:
    ratio, change = _ratio(before, now), percent(statistics.median(now) / statistics.median(before) - 1)
    spread = max(_spread(before), _spread(now))
    adjusted = p_slower if ratio >= 1 else p_faster
    apart = min(now) > rule.factor * max(before) or max(now) * rule.factor < min(before)
    if spread > rule.max_spread and not apart:
        outcome, reason = Outcome.UNSTABLE, f"repetitions spread by {100 * spread:.0f} %"
    elif ratio > rule.factor and p_slower < rule.level:
        outcome, reason = Outcome.REGRESSED, f"{change}, more than {100 * (rule.factor - 1):g} % slower"
    elif ratio < 1 / rule.factor and p_faster < rule.level:
        outcome, reason = Outcome.IMPROVED, change
    elif adjusted < rule.level:
        outcome, reason = Outcome.HELD, f"{change} is significant, and too small to count"
    else:
        outcome, reason = Outcome.HELD, f"{change} is not significant"
    return Comparison(
        subject, quantity, outcome, statistics.median(before), statistics.median(now), adjusted, spread, reason
    )


def _ratio(before: Sequence[float], now: Sequence[float]) -> float:
    """Now over before, of the medians or of the first quartiles, whichever is nearer to 1.

    Neighbours slow some repetitions. A change of the code slows all of them, the fast ones too.
    """
    ratios = [new / old for old, new in zip(_quartiles(before)[:2], _quartiles(now)[:2], strict=True)]
    return 1.0 if min(ratios) < 1 < max(ratios) else min(ratios, key=lambda ratio: abs(ratio - 1))


def _p_value(larger: Sequence[float], smaller: Sequence[float]) -> float:
    """Of the one-sided test of Mann and Whitney, exact where no values are equal."""
    if set(larger) == set(smaller) and len(set(larger)) == 1:
        return 1.0
    return float(stats.mannwhitneyu(larger, smaller, alternative="greater").pvalue)


def _spread(values: Sequence[float]) -> float:
    """Interquartile range as a share of the median."""
    q1, q2, q3 = _quartiles(values)
    return (q3 - q1) / q2 if q2 else 0.0


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    q1, q2, q3 = (float(quantile) for quantile in np.quantile(values, (0.25, 0.5, 0.75)))
    return q1, q2, q3


def _memories(before: Measurement, now: Measurement, rule: MemoryRule) -> Iterator[Comparison]:
    for subject in dict.fromkeys([*before.memory, *now.memory]):
        then, today = (side.memory.get(subject, ()) for side in (before, now))
        if then and today and not _newly_fails(before, now, subject, MEMORY):
            yield _memory(subject, then, today, rule)
        else:
            yield _not_measured(before, now, subject, MEMORY, _median(then), _median(today))


def _memory(subject: str, before: Sequence[int], now: Sequence[int], rule: MemoryRule) -> Comparison:
    old, new = statistics.median(before), statistics.median(now)
    spread = max((max(side) - min(side)) / max(statistics.median(side), 1) for side in (before, now))
    counts = abs(new - old) >= rule.least_bytes
    text = percent(new / old - 1) if old else f"{new - old:+.0f} bytes"
    if counts and min(now) > rule.factor * max(before):
        outcome, reason = Outcome.REGRESSED, f"{text}, more than {100 * (rule.factor - 1):g} % larger"
    elif counts and max(now) * rule.factor < min(before):
        outcome, reason = Outcome.IMPROVED, text
    elif counts and spread > rule.factor - 1:
        outcome, reason = Outcome.UNSTABLE, f"peaks of different processes spread by {100 * spread:.0f} %"
    else:
        outcome, reason = Outcome.HELD, f"{text} is too small to count" if new != old else "the same bytes"
    return Comparison(subject, MEMORY, outcome, old, new, None, spread, reason)


def _accuracies(before: Measurement, now: Measurement, rule: AccuracyRule) -> Iterator[Comparison]:
    for subject in dict.fromkeys([*before.accuracy, *now.accuracy]):
        then, today = ([results[0] for results in side.accuracy.get(subject, ())] for side in (before, now))
        if not then or not today or _newly_fails(before, now, subject, "accuracy"):
            yield _not_measured(before, now, subject, "accuracy", None, None)
            continue
        for metric in dict.fromkeys(name for result in (*then, *today) for name in result.metrics):
            yield _accuracy(subject, metric, then, today, rule)


def _accuracy(
    subject: str, metric: str, before: Sequence[Result], now: Sequence[Result], rule: AccuracyRule
) -> Comparison:
    """By the one rule for accuracy cells, with the metric's mean before as the reference."""
    if not all(metric in result.metrics for result in (*before, *now)):
        return Comparison(subject, metric, Outcome.NOT_COMPARED, None, None, None, None, "one side lacks this metric")
    then, today = ([result.metrics[metric] for result in side] for side in (before, now))
    dataset, _, model = subject.partition("/")
    mean = math.fsum(then) / len(then)
    reference = PublishedValue(dataset, model, metric, mean, "baseline", Status.AS_PRINTED, "")
    tolerance = rule.of(model)
    verdict = judge(today, [reference], tolerance)
    same_bits = [result.bits for result in before] == [result.bits for result in now]
    band = f"the band of {100 * tolerance.relative:g} %"
    if verdict.outcome is Accuracy.NO_EVIDENCE:
        outcome, reason = Outcome.NOT_COMPARED, verdict.reason
    elif verdict.outcome is Accuracy.DIVERGED:
        outcome, reason = Outcome.REGRESSED, verdict.reason
    elif verdict.outcome is Accuracy.BELOW:
        outcome, reason = Outcome.REGRESSED, f"{percent(verdict.difference)} is below {band}"
    elif verdict.outcome is Accuracy.ABOVE:
        outcome, reason = Outcome.IMPROVED, f"{percent(verdict.difference)} is above {band}"
    elif not same_bits:
        outcome, reason = Outcome.CHANGED, f"other bits; {percent(verdict.difference)} is within {band}"
    elif then == today:
        outcome, reason = Outcome.HELD, "the same bits"
    else:
        outcome, reason = Outcome.CHANGED, f"same bits, other metrics; {percent(verdict.difference)} is within {band}"
    if verdict.outcome in (Accuracy.ABOVE, Accuracy.BELOW):
        reason += "; the same bits, so metrics are taken otherwise" if same_bits else "; other bits than before"
    return Comparison(subject, metric, outcome, mean, verdict.mean, None, None, reason)


def _determinism(now: Measurement) -> Iterator[Comparison]:
    """Whether a seed gave the same bits each time, for subjects that were trained more than once."""
    for subject, seeds in now.accuracy.items():
        if max((len(results) for results in seeds), default=0) > 1:
            same = all(len({result.bits for result in results}) == 1 for results in seeds)
            outcome, reason = (
                (Outcome.HELD, "the same each time")
                if same
                else (Outcome.REGRESSED, "a seed gave different bits when it was repeated")
            )
            yield Comparison(subject, DETERMINISM, outcome, None, None, None, None, reason)


def _conformance(before: Measurement, now: Measurement) -> Iterator[Comparison]:
    for name in dict.fromkeys([*before.traces, *now.traces]):
        then, today = before.traces.get(name), now.traces.get(name)
        old, new = (trace.largest if trace and math.isfinite(trace.largest) else None for trace in (then, today))
        if today is None:
            failure = now.errors.get("traces: conformance", "the trace is no longer replayed")
            outcome, reason = Outcome.REGRESSED, failure
        elif then is None:
            outcome, reason = Outcome.NOT_COMPARED, f"{today.status}; new since the baseline {today.note}".strip()
        elif today.status == then.status:
            held = today.status == "passed"
            outcome = Outcome.HELD if held else Outcome.NOT_COMPARED
            reason = "passed" if held else f"{today.status}, as before: {today.note}"
        elif today.status == "passed":
            outcome, reason = Outcome.IMPROVED, f"passed; before: {then.status}"
        else:
            outcome, reason = Outcome.REGRESSED, f"{today.status}: {today.note}"
        yield Comparison(f"trace {name}", CONFORMANCE, outcome, old, new, None, None, reason)


def _not_measured(
    before: Measurement, now: Measurement, subject: str, quantity: str, then: float | None, today: float | None
) -> Comparison:
    """A subject of which a side has no figures, or too few: a regression where it fails now and did not before."""
    kind = "time" if quantity in (TIME, WALL) else quantity
    key = f"{subject}: {kind}"
    had = then is not None or (quantity == "accuracy" and subject in before.accuracy)
    if had and _newly_fails(before, now, subject, kind):
        return Comparison(subject, quantity, Outcome.REGRESSED, then, None, None, None, f"fails: {now.errors[key]}")
    notes = [side.errors.get(key) or side.notes.get(quantity) for side in (before, now)]
    reason = next((note for note in notes if note), "one of the two sides has no figures, or too few")
    return Comparison(subject, quantity, Outcome.NOT_COMPARED, then, today, None, None, reason)


def _newly_fails(before: Measurement, now: Measurement, subject: str, kind: str) -> bool:
    """Also where only some repetitions or seeds fail, and the others have figures."""
    key = f"{subject}: {kind}"
    return key in now.errors and key not in before.errors


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
