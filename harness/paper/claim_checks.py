"""The paper's claims checked against published tables and against runs.

How models are compared with each other is in `significance`, how a cell is judged in `verdict`; the claims themselves
are `claims`. Where rows come from is not known here.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from statistics import fmean, median
from types import MappingProxyType
from typing import NamedTuple

from harness.paper.claims import (
    Claim,
    ClaimOutcome,
    ClaimResult,
    Growth,
    Improvement,
    Ordering,
    Ratio,
    Share,
)
from harness.paper.expected import PublishedValue, Status, Tolerances, canonical_metric, values_of_cell
from harness.paper.significance import Difference, UserValues, compare_all, over_seeds
from harness.paper.verdict import Range

TIME, MEMORY, SAMPLING = "Time (s/epoch)", "Memory (GB)", "share of sampling"

Exponent = tuple[float, float, float]
"""A fitted exponent, and the lower and upper end of its interval."""


@dataclass(frozen=True, kw_only=True)
class MeasuredRow:
    """A model, with its settings, on a data set, over the seeds it was run with."""

    dataset: str
    model: str
    label: str
    """The model and, separated by spaces, its settings that differ from the published ones."""
    data: str
    """Content hash of the data set: only rows with the same one are compared."""
    values: Mapping[str, Mapping[int, float]]
    """Test metric, such as `recall@20` → seed → value."""
    per_user: Mapping[str, Mapping[int, UserValues]] | None
    """Test metric → seed → users and their values; None where a run stored none."""
    seconds: Mapping[int, tuple[float, float, float]]
    """Seed → quartiles of the seconds of its epochs: lower, median, upper."""
    time_obstacle: str
    """Why its seconds cannot be compared with those of other rows; empty where they can."""
    memory: Mapping[int, float]
    """Seed → peak, GB as in `metrics` of the claims; empty where it was not measured."""
    memory_kind: str
    """What `memory` is, such as `process RSS`: only rows with the same kind are compared."""
    sampling_share: Mapping[int, float]
    """Seed → seconds of drawing negatives per second of an epoch; empty where it is not known."""
    host: str
    """Device and machine in words: time and memory are only compared between rows with the same one."""
    obstacle: str
    """Why accuracy cannot be compared with published figures, such as surrogate features; empty where it can."""
    cost_obstacle: str
    """The same for time and memory."""


def claims_of_published(claims: Sequence[Claim], expected: Iterable[PublishedValue]) -> tuple[ClaimResult, ...]:
    """Each claim against each place that prints something it is about.

    Sources that share what stands before the first hyphen are one place: `paper-table3` and `paper-table4` are `paper`.
    Printed figures have no spread, so the question is whether the claim follows from them, to the decimals it is given
    in. A place that does not print all comparisons of a claim leaves it undecided, unless one fails.
    """
    places: dict[str, list[PublishedValue]] = defaultdict(list)
    for value in expected:
        places[value.source.partition("-")[0]].append(value)
    results = []
    for claim in claims:
        for where, values in places.items():
            cells = list(_Place(partial(_printed, values)).cells(claim))
            if any(cells):
                results.append(_result(claim, where, cells))
    return tuple(results)


def differences_of(rows: Sequence[MeasuredRow], confidence: float) -> dict[str, tuple[Difference, ...]]:
    """Content hash of a data set → every pair of its rows with per-user metrics; each data set is a family for Holm.

    Raises ValueError as `compare_all` does.
    """
    families: dict[str, dict[str, dict[str, Mapping[int, UserValues]]]] = {}
    for row in rows:
        for metric, values in (row.per_user or {}).items():
            families.setdefault(row.data, {}).setdefault(metric, {})[row.label] = values
    return {data: compare_all(per_user, confidence=confidence) for data, per_user in families.items()}


def claims_of_runs(
    claims: Sequence[Claim],
    rows: Sequence[MeasuredRow],
    tolerances: Tolerances,
    differences: Mapping[str, Sequence[Difference]],
    exponents: Mapping[tuple[str, str], Exponent] | None = None,
) -> tuple[ClaimResult, ...]:
    """Each claim against our runs.

    The row with the fewest settings in its label stands for a model. `differences` are those of `differences_of` at the
    tolerances' confidence; `exponents` has (model, size) → how the seconds of an epoch grow. Rows with an obstacle are
    no evidence, nor is accuracy from fewer seeds than the tolerances ask for: figures are then shown for orientation.

    - Ordering: decided where one row is significantly better over users (`Difference.winner`) and no seed that both
      rows ran with says the opposite.
    - Improvement: the claimed ratio, ± the tolerance of the metric, against the t-interval of the ratio over seeds.
    - Ratio: the claimed range against the range between the typical epochs of both rows at their farthest apart, from
      the lowest lower to the highest upper quartile of their runs (memory: of their peaks), on one host.
    - Share: the claimed bound against the range over runs.
    - Growth: the claimed exponent against the interval handed in.
    """
    fitted = {(model.lower(), size): exponent for (model, size), exponent in (exponents or {}).items()}
    place = _Place(partial(_measured, rows, tolerances.min_seeds), tolerances, differences, fitted)
    return tuple(_result(claim, "ours", list(place.cells(claim))) for claim in claims)


class _Cell(NamedTuple):
    """One comparison of a claim."""

    what: str
    figure: str
    outcome: ClaimOutcome
    margin: float
    """By how much it holds, or lacks to hold: the order in which comparisons are quoted."""


class _Side(NamedTuple):
    """One of the two figures of a comparison: printed, or over runs."""

    row: str
    """Printed name of the model, or label of the row."""
    value: float
    low: float
    high: float
    obstacles: Sequence[str]
    """Why it is no evidence; empty strings mean nothing."""
    basis: str = ""
    """What both sides must share, in words."""
    data: str = ""
    seeds: Mapping[int, float] = MappingProxyType({})
    runs: int = 0


@dataclass(frozen=True)
class _Place:
    """Where figures come from, and how they are compared there."""

    side: Callable[[str, str, str], _Side | str]
    """(data set, model, metric) → figure, or why there is none."""
    tolerances: Tolerances | None = None
    """None for printed tables, whose figures have no spread."""
    differences: Mapping[str, Sequence[Difference]] = field(default_factory=dict)
    exponents: Mapping[tuple[str, str], Exponent] = field(default_factory=dict)

    def cells(self, claim: Claim) -> Iterator[_Cell | None]:
        """The comparisons of a claim, in its order; None for those that are not printed."""
        match claim:
            case Ordering():
                for dataset, metric in product(claim.datasets, claim.metrics):
                    for other in _present(claim.others, claim.left_out, dataset):
                        yield self._compared(dataset, metric, claim.model, other, partial(self._lead, metric))
            case Improvement():
                for dataset in claim.percent:
                    yield self._over_the_best(dataset, claim)
            case Ratio():
                for dataset, metric in product(claim.datasets, claim.metrics):
                    for numerator in _present(claim.numerators, claim.left_out, dataset):
                        yield self._compared(dataset, metric, numerator, claim.denominator, partial(_ratio, claim))
            case Share():
                for dataset in claim.datasets:
                    yield self._share(dataset, claim)
            case Growth():
                for model, exponents in claim.exponents.items():
                    for size, claimed in exponents.items():
                        yield self._growth(model, size, claimed)

    def _compared(
        self,
        dataset: str,
        metric: str,
        model: str,
        other: str,
        judge: Callable[[str, _Side, _Side], _Cell],
        obstacles: Sequence[str] = (),
    ) -> _Cell | None:
        first, second = self.side(dataset, model, metric), self.side(dataset, other, metric)
        what = f"{model} over {other}, {dataset} {metric}"
        if isinstance(first, str):
            return self._missing(what, first)
        if isinstance(second, str):
            return self._missing(what, second)
        what = f"{first.row} over {second.row}, {dataset} {metric}"
        if first.basis != second.basis:
            return self._missing(what, f"measured on {first.basis} and on {second.basis}")
        return _orientation(judge(what, first, second), *first.obstacles, *second.obstacles, *obstacles)

    def _over_the_best(self, dataset: str, claim: Improvement) -> _Cell | None:
        """The best baseline is known only when all of them were run, on inputs that can be compared."""
        others = {
            other: self.side(dataset, other, claim.metric) for other in _present(claim.others, claim.left_out, dataset)
        }
        values = {other: side.value for other, side in others.items() if not isinstance(side, str)}
        if not values:
            what = f"{claim.model} over the best baseline, {dataset} {claim.metric}"
            return self._missing(what, "no baseline was run")
        obstacles: list[str] = []
        if self.tolerances is not None:  # of a table it is the best of those that are printed
            for side in others.values():
                obstacles += [side] if isinstance(side, str) else side.obstacles
        best = max(values, key=lambda other: values[other])
        judge = partial(self._gain, claim, claim.percent[dataset])
        return self._compared(dataset, claim.metric, claim.model, best, judge, obstacles)

    def _lead(self, metric: str, what: str, first: _Side, second: _Side) -> _Cell:
        """Is `first` better? Over runs: significantly over users, and over the seeds that both were run with."""
        figure = f"{first.value:.4f} against {second.value:.4f}"
        margin = _quotient(first.value, second.value) - 1
        if self.tolerances is None:
            return _Cell(what, figure, _sign_outcome(first.value - second.value), margin)
        confidence = self.tolerances.confidence
        over_users = _difference(self.differences.get(first.data, ()), metric, first.row, second.row)
        paired = over_seeds(first.seeds, second.seeds, confidence)
        side = 0
        if over_users is None:
            figure += "; no per-user metrics are stored"
        else:
            figure += (
                f"; over users {_text(over_users.mean, over_users.interval)}, adjusted p {over_users.adjusted:.2g}"
            )
            winner = over_users.winner(1 - confidence)
            side = 0 if winner is None else 1 if winner == first.row else -1
        if paired is None:
            figure += "; no two shared seeds"
        else:
            figure += f"; over {len(paired.differences)} seeds {_text(paired.mean, paired.interval)}"
        if paired is None or min(side * end for end in paired.interval) <= 0:
            side = 0
        return _Cell(what, figure, _sign_outcome(side), margin)

    def _gain(self, claim: Improvement, percent: float, what: str, first: _Side, second: _Side) -> _Cell:
        """Is `first` better by this much? Over runs: to within the tolerance of the metric, on the ratio over seeds."""
        against = f"({first.value:.4f} against {second.value:.4f}), claimed {percent:+g} %"
        if self.tolerances is None:
            found = 100 * (_quotient(first.value, second.value) - 1)
            figure = f"{found:+z.{claim.decimals}f} % {against}"
            return _ranged(what, figure, (found, found), percent, percent, claim.decimals)
        tolerance = self.tolerances.of(claim.metric)
        paired = over_seeds(_logarithms(first.seeds), _logarithms(second.seeds), tolerance.confidence)
        if paired is None:
            return _unmeasured(what, f"no two shared seeds {against}")
        found, *ends = (100 * math.expm1(value) for value in (paired.mean, *paired.interval))
        edges = [100 * ((1 + percent / 100) * (1 + sign * tolerance.relative) - 1) for sign in (-1, 1)]
        figure = f"{found:+z.1f} % [{ends[0]:+z.1f}, {ends[1]:+z.1f}] over {len(paired.differences)} seeds {against}"
        return _ranged(what, figure, (ends[0], ends[1]), edges[0], edges[1])

    def _share(self, dataset: str, claim: Share) -> _Cell | None:
        what, side = f"{claim.model}, {dataset}", self.side(dataset, claim.model, SAMPLING)
        if isinstance(side, str):
            return self._missing(what, side)
        figure = (
            f"{side.value:.1%} [{side.low:.1%}, {side.high:.1%}] over {side.runs} runs, claimed over {claim.above:.0%}"
        )
        more = math.nextafter(claim.above, 1)  # "more than" leaves the bound itself out
        return _orientation(_ranged(what, figure, (side.low, side.high), more, math.inf), *side.obstacles)

    def _growth(self, model: str, size: str, claimed: float) -> _Cell | None:
        what, fitted = f"{model}, power of {size}", self.exponents.get((model.lower(), size))
        if fitted is None:
            return self._missing(what, "no fitted exponents are stored")
        exponent, low, high = fitted
        figure = f"{exponent:.2f} [{low:.2f}, {high:.2f}], claimed at most {claimed:g}"
        return _ranged(what, figure, (low, high), -math.inf, claimed)

    def _missing(self, what: str, reason: str) -> _Cell | None:
        return None if self.tolerances is None else _unmeasured(what, reason)


def _printed(values: Sequence[PublishedValue], dataset: str, model: str, metric: str) -> _Side | str:
    for cell in values_of_cell(values, dataset, model, metric):
        if cell.value is not None:
            obstacle = f"{cell.model} is disputed ({cell.note})" if cell.status is Status.DISPUTED else ""
            return _Side(cell.model, cell.value, cell.value, cell.value, [obstacle])
    return "not printed"


def _measured(rows: Sequence[MeasuredRow], min_seeds: int, dataset: str, model: str, metric: str) -> _Side | str:
    """The row with the fewest settings in its label stands for a model."""
    name = (dataset.lower(), model.lower())
    candidates = [row for row in rows if (row.dataset.lower(), row.model.lower()) == name]
    fewest = min((len(row.label.split()) for row in candidates), default=0)
    candidates = [row for row in candidates if len(row.label.split()) == fewest]
    if len(candidates) != 1:
        labels = ", ".join(row.label for row in candidates)
        return f"{labels} are equally near to the published settings" if candidates else f"{model} was not run"
    (row,) = candidates
    obstacles, basis = [row.cost_obstacle], f"{row.host}, data {row.data[:10]}"
    seeds: Mapping[int, float] = {}
    if metric == TIME:
        quartiles = list(row.seconds.values())
        obstacles.append(row.time_obstacle)
    elif metric == MEMORY:
        quartiles = [(peak,) * 3 for peak in row.memory.values()]
        basis = f"{row.memory_kind}, {basis}"
    elif metric == SAMPLING:
        quartiles = [(share,) * 3 for share in row.sampling_share.values()]
        obstacles.append(row.time_obstacle)
    else:
        seeds = row.values.get(canonical_metric(metric), {})
        quartiles = [(value,) * 3 for value in seeds.values()]
        obstacles, basis = [row.obstacle], f"data {row.data[:10]}"
        if len(seeds) < min_seeds:
            obstacles.append(f"{len(seeds)} of at least {min_seeds} seeds were run")
    if not quartiles:
        return f"{row.label} has no {metric}"
    if not all(math.isfinite(value) for run in quartiles for value in run):
        return f"{row.label} has a {metric} that is not finite"
    lower, middle, upper = zip(*quartiles, strict=True)
    value = fmean(middle) if seeds else median(middle)
    return _Side(row.label, value, min(lower), max(upper), obstacles, basis, row.data, seeds, len(quartiles))


def _ratio(claim: Ratio, what: str, first: _Side, second: _Side) -> _Cell:
    """Is the ratio in the claimed range? Over runs: of the typical epochs of both, at their farthest apart."""
    value = _quotient(first.value, second.value)
    interval = _quotient(first.low, second.high), _quotient(first.high, second.low)
    high = math.inf if claim.high is None else claim.high
    spread = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if first.runs else ""
    runs = f" in {first.runs} and {second.runs} runs" if first.runs else ""
    figure = f"{value:.2f}{spread} ({first.value:.4g} against {second.value:.4g}{runs})"
    figure += f", claimed {claim.low:g} to {high:g} ({claim.decimals} decimals)"
    return _ranged(what, figure, interval, claim.low, high, claim.decimals)


def _ranged(what: str, figure: str, interval: Range, low: float, high: float, decimals: int | None = None) -> _Cell:
    """Whether an interval is inside a range, outside, or neither; to the claim's decimals, if it has some."""
    start, end = interval
    if decimals is not None:
        # What may be printed as the bounds counts, and its own rounding must not decide for a quotient on the edge.
        half = 0.5 * 10**-decimals * (1 + 1e-9)
        low, high = low - half, high + half
    if low <= start and end <= high:
        outcome = ClaimOutcome.HOLDS
    else:
        outcome = ClaimOutcome.FAILS if end < low or start > high else ClaimOutcome.UNDECIDED
    return _Cell(what, figure, outcome, min(start - low, high - end))


def _sign_outcome(difference: float) -> ClaimOutcome:
    if difference == 0:
        return ClaimOutcome.UNDECIDED
    return ClaimOutcome.HOLDS if difference > 0 else ClaimOutcome.FAILS


def _unmeasured(what: str, reason: str) -> _Cell:
    return _Cell(what, reason, ClaimOutcome.NO_EVIDENCE, math.inf)


def _orientation(cell: _Cell, *obstacles: str) -> _Cell:
    """The cell; no evidence, with its figure, if there is an obstacle."""
    reasons = "; ".join(dict.fromkeys(filter(None, obstacles)))
    if not reasons:
        return cell
    return cell._replace(figure=f"{cell.figure}, for orientation only: {reasons}", outcome=ClaimOutcome.NO_EVIDENCE)


def _result(claim: Claim, where: str, found: Sequence[_Cell | None]) -> ClaimResult:
    """One failure is enough for a claim to fail; it takes all comparisons, printed ones and others, for it to hold."""
    cells = [cell for cell in found if cell is not None]
    counts = Counter(cell.outcome for cell in cells)
    outcomes = {cell.outcome if cell else ClaimOutcome.NO_EVIDENCE for cell in found}
    if ClaimOutcome.FAILS in outcomes:
        outcome = ClaimOutcome.FAILS
    else:
        outcome = outcomes.pop() if len(outcomes) == 1 else ClaimOutcome.UNDECIDED
    decisive = sorted([cell for cell in cells if cell.outcome is outcome] or cells, key=lambda cell: cell.margin)
    shown = decisive if len(decisive) <= 4 else decisive[:1]
    summary = ", ".join(f"{each} {counts[each]}" for each in ClaimOutcome if counts[each])
    unprinted = f", not printed {len(found) - len(cells)}" if len(cells) < len(found) else ""
    figures = "; ".join(f"{cell.what}: {cell.figure}" for cell in shown)
    chosen = "" if shown == decisive else "the nearest: " if outcome is ClaimOutcome.HOLDS else "such as "
    evidence = f"{len(found)} comparison{'s' * (len(found) > 1)} ({summary}{unprinted}): {chosen}{figures}"
    return ClaimResult(claim, where, outcome, evidence, tuple(cell[:3] for cell in cells))


def _present(models: Sequence[str], left_out: Mapping[str, Sequence[str]], dataset: str) -> list[str]:
    return [model for model in models if model not in left_out.get(dataset, ())]


def _difference(found: Iterable[Difference], metric: str, first: str, second: str) -> Difference | None:
    for difference in found:
        if difference.metric == canonical_metric(metric) and {difference.first, difference.second} == {first, second}:
            return difference.seen_from(first)
    return None


def _text(mean: float, interval: Range) -> str:
    return f"{mean:+z.4f} [{interval[0]:+z.4f}, {interval[1]:+z.4f}]"


def _quotient(a: float, b: float) -> float:
    return a / b if b else math.inf


def _logarithms(seeds: Mapping[int, float]) -> dict[int, float]:
    return {seed: math.log(value) if value > 0 else -math.inf for seed, value in seeds.items()}
