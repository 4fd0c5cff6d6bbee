"""What became slower, larger or less accurate between two measurements of the same workload. Numbers in, words out.

The numbers of the rules are data, read by `rules`; measuring is `measure`.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from harness.common import exit_status
from harness.paper.significance import holm
from harness.paper.verdict import Word
from harness.tools.regress.baseline import Measurement, Result
from harness.tools.regress.rules import AccuracyRule, MemoryRule, Rules, TimeRule

TIME, WALL, MEMORY, CONFORMANCE, DETERMINISM = ("time", "wall time", "memory", "conformance", "same bits twice")


class Outcome(Word):
    """What a comparison says."""

    HELD = ("held", "✓", "good", "no change, a change that is too small to count, or one for the better", True)
    REGRESSED = ("regressed", "✗", "bad", "slower, larger, less accurate or failing, and so again when repeated", False)
    UNMEASURED = ("unmeasured", "○", "none", "a side has no figure, or repetitions differ too much to judge", None)


@dataclass(frozen=True)
class Comparison:
    """One quantity of one subject, before and now."""

    subject: str
    quantity: str
    outcome: Outcome
    reason: str
    before: float | None = None
    """Median; time in units of the calibration's, bytes, or the metric's mean over seeds."""
    now: float | None = None

    @property
    def change(self) -> float | None:
        """now / before - 1; None where one is missing or before is 0."""
        return self.now / self.before - 1 if self.before and self.now is not None else None


def compare(before: Measurement, now: Measurement, rules: Rules, device: str = "cpu") -> tuple[Comparison, ...]:
    """Every quantity of every subject that either side knows, in the order of measuring.

    Time is the CPU's where the CPU computes, with wall time beside it for what waits; else it is wall time.
    """
    on_cpu = device == "cpu"
    return (
        *_conformance(before, now),
        *_determinism(now),
        *_accuracies(before, now, rules.accuracy),
        *_times(before, now, TIME, 0 if on_cpu else 1, rules.time),
        *(_times(before, now, WALL, 1, rules.wall) if on_cpu else ()),
        *_memories(before, now, rules.memory),
    )


def to_repeat(comparisons: Iterable[Comparison]) -> dict[str, list[str]]:
    """Subjects whose `time` or `memory` must be measured again before their regression is believed."""
    found: dict[str, dict[str, None]] = {}
    for one in comparisons:
        kind = {TIME: "time", WALL: "time", MEMORY: "memory"}.get(one.quantity)
        if one.outcome is Outcome.REGRESSED and kind and one.now is not None:
            found.setdefault(kind, {})[one.subject] = None
    return {kind: [*subjects] for kind, subjects in found.items()}


def confirmed(first: Iterable[Comparison], again: Iterable[Comparison]) -> tuple[Comparison, ...]:
    """The first comparisons, a regression among them only if it is one again where it was measured again."""
    repeated = {(one.subject, one.quantity): one for one in again if one.now is not None}

    def judged(one: Comparison) -> Comparison:
        second = repeated.get((one.subject, one.quantity))
        if one.outcome is not Outcome.REGRESSED or second is None:
            return one
        return replace(one, outcome=second.outcome, reason=f"{one.reason}; measured again: {second.reason}")

    return tuple(judged(one) for one in first)


def exit_code(comparisons: Iterable[Comparison]) -> int:
    """1 if anything regressed, else 0 if anything held, else 3: nothing compared is never a pass."""
    return exit_status(one.outcome.held for one in comparisons)


def percent(change: float | None) -> str:
    """`+3.1 %`, with a true minus."""
    return "no figure" if change is None else f"{100 * change:+z.1f} %".replace("-", "−")


def _sides(
    before: Measurement, now: Measurement, kind: str, quantity: str, least: int = 1
) -> Iterator[tuple[str, list[Any], list[Any], Comparison | None]]:
    """Each subject with its figures, and what is said if a side has fewer than `least`, or fails now but not before."""
    old, new = getattr(before, kind), getattr(now, kind)
    failing = [key.removesuffix(f": {kind}") for key in now.errors if key.endswith(f": {kind}")]
    for subject in dict.fromkeys([*old, *new, *failing]):
        then, today, key = (old.get(subject, []), new.get(subject, []), f"{subject}: {kind}")
        said = None
        if key in now.errors and key not in before.errors:
            said = Comparison(subject, quantity, Outcome.REGRESSED, f"fails: {now.errors[key]}")
        elif min(len(then), len(today)) < least:
            reason = before.errors.get(key) or now.errors.get(key) or "one of the two sides has no figures, or too few"
            said = Comparison(subject, quantity, Outcome.UNMEASURED, reason)
        yield subject, then, today, said


def _times(before: Measurement, now: Measurement, quantity: str, clock: int, rule: TimeRule) -> Iterator[Comparison]:
    both: dict[str, tuple[list[float], list[float]]] = {}
    for subject, then, today, said in _sides(before, now, "time", quantity, rule.min_repetitions):
        if said:
            yield said
        else:
            both[subject] = ([shares[clock] for shares in then], [shares[clock] for shares in today])
    slower = holm([_p_value(today, then) for then, today in both.values()])
    faster = holm([_p_value(then, today) for then, today in both.values()])
    for (subject, (then, today)), p_slower, p_faster in zip(both.items(), slower, faster, strict=True):
        old, new = statistics.median(then), statistics.median(today)
        yield Comparison(subject, quantity, *_time(then, today, p_slower, p_faster, rule), old, new)


def _time(
    before: Sequence[float], now: Sequence[float], p_slower: float, p_faster: float, rule: TimeRule
) -> tuple[Outcome, str]:
    """p-values are one-sided, after Holm over all subjects."""
    ratio, change = (_ratio(before, now), percent(statistics.median(now) / statistics.median(before) - 1))
    spread = max(_spread(before), _spread(now))
    overlap = min(now) <= rule.factor * max(before) and max(now) * rule.factor >= min(before)
    if spread > rule.max_spread and overlap:
        return (Outcome.UNMEASURED, f"{change}, and repetitions spread by {100 * spread:.0f} %")
    if ratio > rule.factor and p_slower < rule.level:
        return (Outcome.REGRESSED, f"{change}, more than {100 * (rule.factor - 1):g} % slower (p = {p_slower:.2g})")
    if ratio < 1 / rule.factor and p_faster < rule.level:
        return Outcome.HELD, f"better: {change} (p = {p_faster:.2g})"
    adjusted = p_slower if ratio >= 1 else p_faster
    small = "significant, and too small to count" if adjusted < rule.level else "not significant"
    return Outcome.HELD, f"{change} is {small} (p = {adjusted:.2g})"


def _ratio(before: Sequence[float], now: Sequence[float]) -> float:
    """Now over before, of the medians or of the first quartiles, whichever is nearer to 1.

    Neighbours slow some repetitions. A change of the code slows all of them, the fast ones too.
    """
    ratios = [float(ratio) for ratio in np.quantile(now, (0.25, 0.5)) / np.quantile(before, (0.25, 0.5))]
    return 1.0 if min(ratios) < 1 < max(ratios) else min(ratios, key=lambda ratio: abs(ratio - 1))


def _p_value(larger: Sequence[float], smaller: Sequence[float]) -> float:
    """Of the one-sided test of Mann and Whitney, exact where no values are equal."""
    if len({*larger, *smaller}) == 1:
        return 1.0
    return float(stats.mannwhitneyu(larger, smaller, alternative="greater").pvalue)


def _spread(values: Sequence[float]) -> float:
    """Interquartile range as a share of the median."""
    q1, q2, q3 = np.quantile(values, (0.25, 0.5, 0.75))
    return float((q3 - q1) / q2) if q2 else 0.0


def _memories(before: Measurement, now: Measurement, rule: MemoryRule) -> Iterator[Comparison]:
    for subject, then, today, said in _sides(before, now, "memory", MEMORY):
        if said:
            yield said
        else:
            old, new = statistics.median(then), statistics.median(today)
            yield Comparison(subject, MEMORY, *_memory(then, today, new - old, rule), old, new)


def _memory(before: Sequence[int], now: Sequence[int], grown: float, rule: MemoryRule) -> tuple[Outcome, str]:
    """`grown`: bytes between the medians."""
    spread = max((max(side) - min(side)) / max(min(side), 1) for side in (before, now))
    text = f"{grown / 2**20:+.1f} MiB".replace("-", "−")
    if abs(grown) < rule.least_bytes:
        return (Outcome.HELD, f"{text} is too small to count" if grown else "the same bytes")
    if min(now) > rule.factor * max(before):
        return (Outcome.REGRESSED, f"{text}, more than {100 * (rule.factor - 1):g} % larger")
    if max(now) * rule.factor < min(before):
        return Outcome.HELD, f"better: {text}"
    if spread > rule.factor - 1:
        return (Outcome.UNMEASURED, f"peaks of different processes spread by {100 * spread:.0f} %")
    return Outcome.HELD, f"{text} is too small to count"


def _accuracies(before: Measurement, now: Measurement, rule: AccuracyRule) -> Iterator[Comparison]:
    for subject, then, today, said in _sides(before, now, "accuracy", "accuracy"):
        seeds = [(old[0], new[0]) for old, new in zip(then, today, strict=False) if old and new]
        if said or not seeds:
            yield said or Comparison(subject, "accuracy", Outcome.UNMEASURED, "no seed has figures on both sides")
            continue
        relative = rule.models.get(subject.partition("/")[2], rule.relative)
        for metric in dict.fromkeys(name for pair in seeds for result in pair for name in result.metrics):
            yield _accuracy(subject, metric, seeds, relative)


def _accuracy(subject: str, metric: str, seeds: Sequence[tuple[Result, Result]], relative: float) -> Comparison:
    """By the means over seeds and a band around the one before; the bits tell where a difference is from."""
    values = [[result.metrics.get(metric) for result in pair] for pair in seeds]
    if any(value is None for pair in values for value in pair):
        return Comparison(subject, metric, Outcome.UNMEASURED, "one side lacks this metric")
    old, new = (math.fsum(side) / len(seeds) for side in zip(*values, strict=True))
    change, band = (percent(new / old - 1 if old else None), f"the band of {100 * relative:g} %")
    bits = "the same bits" if all(then.bits == today.bits for then, today in seeds) else "other bits"
    outcome, low, high = Outcome.HELD, old * (1 - relative), old * (1 + relative)
    if new == old:
        reason = bits
    elif low <= new <= high or math.isclose(new, low):
        reason = f"{bits}; {change} is within {band}"
    elif new > old:
        reason = f"better: {change} is above {band}; {bits}"
    else:  # so is what is not finite
        outcome, reason = Outcome.REGRESSED, f"{change} is below {band}; {bits}"
    return Comparison(subject, metric, outcome, reason, old, new)


def _determinism(now: Measurement) -> Iterator[Comparison]:
    """Whether a seed gave the same bits each time, for subjects that were trained more than once."""
    for subject, seeds in now.accuracy.items():
        if any(len(results) > 1 for results in seeds):
            same = all(len({result.bits for result in results}) <= 1 for results in seeds)
            reason = "the same each time" if same else "a seed gave different bits when it was repeated"
            yield Comparison(subject, DETERMINISM, Outcome.HELD if same else Outcome.REGRESSED, reason)


def _conformance(before: Measurement, now: Measurement) -> Iterator[Comparison]:
    for name in dict.fromkeys([*before.traces, *now.traces]):
        then = before.traces.get(name, "")
        today = now.traces.get(name) or now.errors.get("traces: traces", "the trace is no longer replayed")
        if today == "passed":
            outcome = Outcome.HELD
        elif name in now.traces and then.partition(":")[0] in ("", today.partition(":")[0]):
            outcome = Outcome.UNMEASURED  # new, or as before
        else:
            outcome = Outcome.REGRESSED
        yield Comparison(f"trace {name}", CONFORMANCE, outcome, today)
