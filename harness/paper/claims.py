"""What a paper claims in words, as data: each kind is a class with its fields and its check, against tables or rows."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass as validated

from bm3.errors import DataError
from harness.paper.costs import MEMORY, SAMPLING, TIME, Exponent, costs
from harness.paper.literature import ReportedValue, voices_of
from harness.paper.load import STRICT, MemoryRule, Paper, Tolerances, validated_file
from harness.paper.published import PublishedValue, Status, canonical_cell, canonical_metric, values_of_cell
from harness.paper.rows import Row, expected_best, representative
from harness.paper.significance import EVERY_SEED, Difference, over_seeds, relative_over_seeds
from harness.paper.verdict import Range, Word

Text = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Text, ...], Field(min_length=1)]
Figure = Annotated[float, Field(ge=0, strict=True)]
Decimals = Annotated[int, Field(ge=0, strict=True)]
LeftOut = dict[Text, Names]
"""Data set → models that the paper has no figure for."""


class ClaimOutcome(Word):
    """What became of a claim, or of one of its comparisons."""

    HOLDS = "holds", "✓", "good", "as claimed; of a claim: in all its comparisons", True
    FAILS = "fails", "✗", "bad", "shown to be otherwise; of a claim: in at least one comparison", False
    UNDECIDED = "undecided", "?", "doubt", "compatible with both; of a claim: also where a part was not measured", None
    NO_EVIDENCE = "no evidence", "○", "none", "not measured, too few seeds, or inputs that cannot be compared", None


class Comparison(NamedTuple):
    """One comparison of a claim."""

    what: str
    figure: str
    outcome: ClaimOutcome
    margin: float
    """By how much it holds, or lacks to hold: the order in which comparisons are quoted."""


@dataclass(frozen=True)
class Side:
    """One of the two figures of a comparison: printed, or over runs."""

    name: str
    """Printed name of the model, or label of the row."""
    value: float
    low: float
    high: float
    obstacles: tuple[str, ...] = ()
    """Why it is no evidence; empty strings mean nothing."""
    basis: str = ""
    """What both sides must share, in words."""
    data: tuple[str, str] = ("", "")
    """Name and content hash of the data set of runs."""
    seeds: Mapping[int, float] = field(default_factory=dict)
    runs: int = 0


Judge = Callable[[str, Side, Side], Comparison]
"""What is compared in words, and both sides."""


@dataclass
class Place:
    """Where figures come from: the tables of one place that print them, or else others (`Reported`) or our rows
    (`Measured`)."""

    values: Sequence[PublishedValue]
    """Those that are printed."""
    memory: MemoryRule | None
    """How memory is compared; None: not at all."""
    tolerances: Tolerances | None
    """None for printed tables, whose figures have no spread: the question is whether a claim follows from them, to the
    decimals that it is given in."""

    repeats = "seeds"
    """What a figure is the mean over."""

    def side(self, dataset: str, model: str, metric: str) -> Side | str:
        """A figure, or why there is none."""
        for cell in values_of_cell(self.values, dataset, model, metric):
            if cell.value is not None:
                obstacle = f"{cell.model} is disputed ({cell.note})" if cell.status is Status.DISPUTED else ""
                return Side(cell.model, cell.value, cell.value, cell.value, (obstacle,))
        return "not printed"

    def missing(self, what: str, reason: str) -> Comparison | None:
        """What stands for a comparison that cannot be made; None in a table, where it is not printed."""
        return None if self.tolerances is None else Comparison(what, reason, ClaimOutcome.NO_EVIDENCE, math.inf)

    def compare(
        self, dataset: str, metric: str, model: str, other: str, judge: Judge, obstacles: Iterable[str] = ()
    ) -> Comparison | None:
        """Two models, judged; no evidence, with the figures, where something stands against it."""
        first, second = self.side(dataset, model, metric), self.side(dataset, other, metric)
        what = f"{model} over {other}, {dataset} {metric}"
        if isinstance(first, str):
            return self.missing(what, first)
        if isinstance(second, str):
            return self.missing(what, second)
        what = f"{first.name} over {second.name}, {dataset} {metric}"
        if first.basis != second.basis:
            return self.missing(what, f"measured on {first.basis} and on {second.basis}")
        return _orientation(judge(what, first, second), *first.obstacles, *second.obstacles, *obstacles)


@dataclass
class Reported(Place):
    """What independent groups report: means over their figures, one voice each, compared within groups."""

    tolerances: Tolerances
    figures: Sequence[ReportedValue] = ()
    repeats = "groups"

    def side(self, dataset: str, model: str, metric: str) -> Side | str:
        if "@" not in metric:
            return "costs are of the settings and the hardware of each group"
        cell = canonical_cell(dataset, model, metric)
        voices = voices_of(figure for figure in self.figures if figure.cell == cell)
        if not voices:
            return f"no independent group reports {model}"
        groups = [*dict.fromkeys(figure.origin.group for figure in self.figures)]
        by_group = {groups.index(group): value for group, value in voices.items()}
        few = len(voices) < self.tolerances.min_seeds
        obstacle = f"{len(voices)} of at least {self.tolerances.min_seeds} independent groups report {model}" * few
        values = voices.values()
        return Side(model, fmean(values), min(values), max(values), (obstacle,), seeds=by_group, runs=len(voices))


@dataclass
class Measured(Place):
    """Our rows, of which the representative stands for its model.

    Rows with an obstacle are no evidence, nor is accuracy from fewer seeds than the tolerances ask for: figures are
    then shown for orientation.
    """

    tolerances: Tolerances
    rows: Sequence[Row] = ()
    differences: Mapping[tuple[str, str], Sequence[Difference]] = field(default_factory=dict)
    """Name and content hash of a data set → pairs of its rows compared over users."""
    exponents: Mapping[tuple[str, str], Exponent] = field(default_factory=dict)
    """(Model, size) → how the seconds of an epoch grow."""

    def row(self, dataset: str, model: str) -> Row | None:
        """The row that stands for the model."""
        return representative((row for row in self.rows if row.dataset.lower() == dataset.lower()), model)

    def side(self, dataset: str, model: str, metric: str) -> Side | str:
        row = self.row(dataset, model)
        if row is None:
            return f"{model} was not run"
        seeds: Mapping[int, float] = {}
        if metric in (TIME, MEMORY, SAMPLING):
            spans, basis, obstacles = costs(row, metric)
        else:
            seeds = row.by_seed(canonical_metric(metric))
            spans = [(value,) * 3 for value in seeds.values()]
            obstacles, basis = [row.obstacle], f"data {row.data[:10]}"
            if EVERY_SEED not in seeds and len(seeds) < self.tolerances.min_seeds:
                obstacles.append(f"{len(seeds)} of at least {self.tolerances.min_seeds} seeds were run")
        if not spans:
            return f"{row.label} has no {metric}"
        if not all(math.isfinite(value) for span in spans for value in span):
            return f"{row.label} has a {metric} that is not finite"
        lower, middle, upper = zip(*spans, strict=True)
        value = fmean(middle) if seeds else median(middle)
        data = row.dataset, row.data
        return Side(row.label, value, min(lower), max(upper), tuple(obstacles), basis, data, seeds, len(spans))

    def difference(self, metric: str, first: Side, second: Side) -> Difference | None:
        """The comparison of both over users, seen from the first; None where there is none."""
        for pair in self.differences.get(first.data, ()):
            if pair.metric == canonical_metric(metric) and {pair.first, pair.second} == {first.name, second.name}:
                return pair.seen_from(first.name)
        return None


@validated(frozen=True, kw_only=True, config=STRICT)
class _Claim:
    id: Text
    text: Text
    """In this project's words."""
    source: Text

    def comparisons(self, place: Place) -> Iterator[Comparison | None]:
        """In the claim's order; None for those that are not printed."""
        raise NotImplementedError


@validated(frozen=True, kw_only=True, config=STRICT)
class Ordering(_Claim):
    """`model` is better than each of `others` in each of `metrics`.

    Over runs it is decided where one row is better than the other by the rule of `significance.compare_all`.
    """

    kind: Literal["ordering"]
    model: Text
    others: Names
    datasets: Names
    metrics: Names
    left_out: LeftOut = Field(default_factory=dict)

    def comparisons(self, place: Place) -> Iterator[Comparison | None]:
        for dataset, metric in product(self.datasets, self.metrics):
            for other in _present(self.others, self.left_out, dataset):
                yield place.compare(dataset, metric, self.model, other, partial(_lead, place, metric))


@validated(frozen=True, kw_only=True, config=STRICT)
class Improvement(_Claim):
    """`model` is so many percent better in `metric` than the best of `others`.

    Over runs: the claimed ratio, ± the tolerance of the metric, against the t-interval of the ratio over seeds.
    """

    kind: Literal["improvement"]
    model: Text
    others: Names
    metric: Text
    percent: Annotated[dict[Text, Figure], Field(min_length=1)]
    """By data set."""
    decimals: Decimals
    left_out: LeftOut = Field(default_factory=dict)

    def comparisons(self, place: Place) -> Iterator[Comparison | None]:
        """The best baseline is known only when all of them were run, on inputs that can be compared."""
        for dataset, percent in self.percent.items():
            others = {
                other: place.side(dataset, other, self.metric)
                for other in _present(self.others, self.left_out, dataset)
            }
            values = {other: side.value for other, side in others.items() if isinstance(side, Side)}
            if not values:
                what = f"{self.model} over the best baseline, {dataset} {self.metric}"
                yield place.missing(what, "no baseline was run")
                continue
            obstacles: list[str] = []
            if place.tolerances is not None:  # of a table it is the best of those that are printed
                for side in others.values():
                    obstacles += side.obstacles if isinstance(side, Side) else [side]
            best = max(values, key=lambda other: values[other])
            yield place.compare(dataset, self.metric, self.model, best, partial(self._gain, place, percent), obstacles)

    def _gain(self, place: Place, percent: float, what: str, first: Side, second: Side) -> Comparison:
        tolerances = place.tolerances
        against = f"({first.value:.4f} against {second.value:.4f}), claimed {percent:+g} %"
        if tolerances is None:
            found = 100 * (_quotient(first.value, second.value) - 1)
            figure = f"{found:+z.{self.decimals}f} % {against}"
            return _ranged(what, figure, (found, found), percent, percent, self.decimals)
        tolerance = tolerances.of(self.metric)
        paired = relative_over_seeds(first.seeds, second.seeds, tolerance.confidence)
        if paired is None:
            return Comparison(what, f"no two shared {place.repeats} {against}", ClaimOutcome.NO_EVIDENCE, math.inf)
        found, (low, high), _ = paired
        edges = [100 * ((1 + percent / 100) * (1 + sign * tolerance.relative) - 1) for sign in (-1, 1)]
        figure = f"{found:+z.1f} % [{low:+z.1f}, {high:+z.1f}] over {paired.seeds} {place.repeats} {against}"
        return _ranged(what, figure, (low, high), edges[0], edges[1])


@validated(frozen=True, kw_only=True, config=STRICT)
class Ratio(_Claim):
    """A cost of each numerator, divided by that of the denominator, is between `low` and `high` as printed.

    Over runs: against the range between the typical epochs of both rows at their farthest apart, from the lowest lower
    to the highest upper quartile of their runs, on one host. Memory: as printed for a reference model, and what either
    needs beyond it; decided only where it comes out alike whatever part of the printed figure is CUDA context.
    """

    kind: Literal["ratio"]
    numerators: Names
    denominator: Text
    datasets: Names
    metrics: Annotated[tuple[Literal["Time (s/epoch)", "Memory (GB)"], ...], Field(min_length=1)]
    low: Figure = 0.0
    high: Figure = math.inf
    decimals: Decimals
    left_out: LeftOut = Field(default_factory=dict)

    def comparisons(self, place: Place) -> Iterator[Comparison | None]:
        for dataset, metric in product(self.datasets, self.metrics):
            judge = partial(self._beyond, place, dataset) if metric == MEMORY else self._quotient
            for numerator in _present(self.numerators, self.left_out, dataset):
                yield place.compare(dataset, metric, numerator, self.denominator, judge)

    def _beyond(self, place: Place, dataset: str, what: str, first: Side, second: Side) -> Comparison:
        rule = place.memory
        figure = f"{_quotient(first.value, second.value):.2f} ({first.value:.4g} against {second.value:.4g} GB)"
        base = place.side(dataset, rule.reference, MEMORY) if rule else "no model to compare memory with is named"
        cell = values_of_cell(place.values, dataset, rule.reference, MEMORY) if rule else ()
        printed = next((one.value for one in cell if one.value is not None), None)
        if rule is None or isinstance(base, str) or printed is None or base.basis != first.basis:
            reason = base if isinstance(base, str) else f"{base.name} is not printed, or was measured elsewhere"
            return Comparison(what, f"{figure}; {reason}", ClaimOutcome.NO_EVIDENCE, math.inf)
        found = []
        for context in rule.context:
            beyond = [(a.low - base.high, a.value - base.value, a.high - base.low) for a in (first, second)]
            (low, value, high), others = ([max(printed - context + end, 0) for end in ends] for ends in beyond)
            bounds = _quotient(low, others[2]), _quotient(high, others[0])
            said = f"{_quotient(value, others[1]):.2f} if {context:g} GB are context"
            found.append(_ranged(what, said, bounds, self.low, self.high, self.decimals))
        alike = len({one.outcome for one in found}) == 1
        figure += f"; with {printed:g} GB of {rule.reference} as printed and what they need beyond it "
        figure += ", ".join(one.figure for one in found) + self.claimed
        figure += "" if alike else ": it depends on how much of the printed figures is CUDA context"
        outcome = found[0].outcome if alike else ClaimOutcome.UNDECIDED
        return _orientation(Comparison(what, figure, outcome, min(one.margin for one in found)), *base.obstacles)

    @property
    def claimed(self) -> str:
        return f", claimed {self.low:g} to {self.high:g} ({self.decimals} decimals)"

    def _quotient(self, what: str, first: Side, second: Side) -> Comparison:
        value = _quotient(first.value, second.value)
        interval = _quotient(first.low, second.high), _quotient(first.high, second.low)
        spread = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if first.runs else ""
        runs = f" in {first.runs} and {second.runs} runs" if first.runs else ""
        figure = f"{value:.2f}{spread} ({first.value:.4g} against {second.value:.4g}{runs})"
        return _ranged(what, figure + self.claimed, interval, self.low, self.high, self.decimals)


@validated(frozen=True, kw_only=True, config=STRICT)
class Share(_Claim):
    """Drawing negatives takes more than `above` of an epoch's seconds: against the range over runs."""

    kind: Literal["share"]
    model: Text
    datasets: Names
    above: Annotated[float, Field(ge=0, lt=1, strict=True)]

    def comparisons(self, place: Place) -> Iterator[Comparison | None]:
        more = math.nextafter(self.above, 1)  # "more than" leaves the bound itself out
        for dataset in self.datasets:
            what, side = f"{self.model}, {dataset}", place.side(dataset, self.model, SAMPLING)
            if isinstance(side, str):
                yield place.missing(what, side)
                continue
            figure = f"{side.value:.1%} [{side.low:.1%}, {side.high:.1%}] over {side.runs} runs"
            figure += f", claimed over {self.above:.0%}"
            yield _orientation(_ranged(what, figure, (side.low, side.high), more, math.inf), *side.obstacles)


@validated(frozen=True, kw_only=True, config=STRICT)
class Growth(_Claim):
    """The seconds of an epoch grow at most with these powers of the sizes: against fitted exponents."""

    kind: Literal["growth"]
    exponents: Annotated[dict[Text, dict[Text, Figure]], Field(min_length=1)]
    """Model → size (`E`, `I`, `d_m`, `B`) → exponent."""

    def comparisons(self, place: Place) -> Iterator[Comparison | None]:
        known = place.exponents if isinstance(place, Measured) else {}
        fitted = {(model.lower(), size): exponent for (model, size), exponent in known.items()}
        for model, size, claimed in ((m, s, e) for m, sizes in self.exponents.items() for s, e in sizes.items()):
            what, found = f"{model}, power of {size}", fitted.get((model.lower(), size))
            if found is None:
                yield place.missing(what, "no fitted exponents are stored")
                continue
            figure = f"{found[0]:.2f} [{found[1]:.2f}, {found[2]:.2f}], claimed at most {claimed:g}"
            yield _ranged(what, figure, found[1:], -math.inf, claimed)


@validated(frozen=True, kw_only=True, config=STRICT)
class Budget(_Claim):
    """`model` is better than each of `others` by the metric that points are chosen by, when both try equally many.

    Over runs: what a search of n points is expected to reach, for every n that both grids allow; decided where it is
    better, or worse, by the margin for each n. A model of which one point was run is no evidence.
    """

    kind: Literal["budget"]
    model: Text
    others: Names
    datasets: Names
    left_out: LeftOut = Field(default_factory=dict)

    def comparisons(self, place: Place) -> Iterator[Comparison | None]:
        if isinstance(place, Measured):  # a table prints chosen points alone
            for dataset in self.datasets:
                for other in _present(self.others, self.left_out, dataset):
                    yield self._compared(place, dataset, other)

    def _compared(self, place: Measured, dataset: str, other: str) -> Comparison | None:
        what = f"{self.model} over {other}, {dataset}, with as many trials"
        rows = [place.row(dataset, model) for model in (self.model, other)]
        first, second = rows
        if first is None or second is None:
            return place.missing(what, f"{self.model if first is None else other} was not run")
        if first.data != second.data:
            return place.missing(what, "measured on other data")
        few = [row.label for row in (first, second) if len(row.grid) < 2]
        if few:
            return place.missing(what, f"one point of {', '.join(few)} was run")
        reached = list(zip(*(expected_best(row.grid) for row in (first, second)), strict=False))
        leads = [_quotient(a, b) - 1 for a, b in reached]
        figure = ", ".join(f"{n} trials {100 * lead:+.1f} %" for n, lead in enumerate(leads, 1) if n & (n - 1) == 0)
        figure += f", {len(leads)} trials {100 * leads[-1]:+.1f} %" if len(leads) & (len(leads) - 1) else ""
        margin = place.tolerances.margin
        side = 1 if min(leads) > margin else -1 if max(leads) < -margin else 0
        return _orientation(Comparison(what, figure, _sign_outcome(side), leads[-1]), first.obstacle, second.obstacle)


Claim = Annotated[Ordering | Improvement | Ratio | Share | Growth | Budget, Field(discriminator="kind")]


@validated(frozen=True, config=STRICT)
class ClaimsFile:
    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]


@dataclass(frozen=True)
class ClaimResult:
    """What one place says about one claim."""

    claim: Claim
    where: str
    """`ours`: runs; `independents`: groups that ran the models again; else what the sources of published tables have
    before their first hyphen."""
    outcome: ClaimOutcome
    evidence: str
    """One sentence with the numbers."""
    details: tuple[tuple[str, str, ClaimOutcome], ...]
    """Each comparison: what, figure, outcome."""


def load_claims(path: Path) -> tuple[Claim, ...]:
    """A file `claims.toml`; raises DataError naming the file and the field."""
    claims = validated_file(path, TypeAdapter(ClaimsFile)).claims
    for name, count in Counter(claim.id for claim in claims).items():
        if count > 1:
            raise DataError(f"{path}: {count} claims have the id '{name}'; give each its own")
    return claims


def claims_of_published(
    claims: Sequence[Claim], expected: Iterable[PublishedValue], memory: MemoryRule | None = None
) -> tuple[ClaimResult, ...]:
    """Each claim against each place that prints something it is about.

    Sources that share what stands before the first hyphen are one place: `paper-table3` and `paper-table4` are `paper`.
    A place that does not print all comparisons of a claim leaves it undecided, unless one fails.
    """
    places: dict[str, list[PublishedValue]] = defaultdict(list)
    for value in expected:
        places[value.source.partition("-")[0]].append(value)
    found = [
        (claim, where, [*claim.comparisons(Place(values, memory, None))])
        for claim in claims
        for where, values in places.items()
    ]
    return tuple(_result(claim, where, cells) for claim, where, cells in found if any(cells))


def claims_of_paper(paper: Paper) -> tuple[ClaimResult, ...]:
    """Each claim of a paper against the tables that print it, and against what independent groups report, if any do."""
    reported = Reported(paper.values, None, paper.tolerances, paper.literature)
    others = [one for one in claims_of_rows(paper.claims, reported) if one.details and paper.literature]
    return *claims_of_published(paper.claims, paper.values, paper.tolerances.memory), *others


def claims_of_rows(claims: Sequence[Claim], place: Reported | Measured) -> tuple[ClaimResult, ...]:
    """Each claim against what independent groups report, or against our runs."""
    where = "ours" if isinstance(place, Measured) else "independents"
    return tuple(_result(claim, where, [*claim.comparisons(place)]) for claim in claims)


def claims_about(results: Sequence[ClaimResult], model: str) -> tuple[ClaimResult, ...]:
    """Of the claims that name the model, as printed, in some comparison: what every place says."""
    told = {one.claim.id for one in results if any(model in what for what, *_ in one.details)}
    return tuple(one for one in results if one.claim.id in told)


def _present(models: Sequence[str], left_out: Mapping[str, Sequence[str]], dataset: str) -> list[str]:
    absent = {model.lower() for name in left_out if name.lower() == dataset.lower() for model in left_out[name]}
    return [model for model in models if model.lower() not in absent]


def _lead(place: Place, metric: str, what: str, first: Side, second: Side) -> Comparison:
    """Is `first` better? Over runs: by the rule for two models."""
    figure = f"{first.value:.4f} against {second.value:.4f}"
    margin = _quotient(first.value, second.value) - 1
    if place.tolerances is None:
        return Comparison(what, figure, _sign_outcome(first.value - second.value), margin)
    if not isinstance(place, Measured):
        paired, side = over_seeds(first.seeds, second.seeds, place.tolerances.confidence), 0
        if paired is not None:
            figure += f"; over {paired.seeds} {place.repeats} {_text(paired.mean, paired.interval)}"
            low, high = paired.interval
            side = (low > 0) - (high < 0)
        return Comparison(what, figure, _sign_outcome(side), margin)
    found, side = place.difference(metric, first, second), 0
    if found is None:
        figure += "; no per-user metrics are stored"
    else:
        figure += f"; over users {_text(found.mean, found.interval)}, adjusted p {found.adjusted:.2g}"
        seeds = found.over_seeds
        figure += f"; over {seeds.seeds} seeds {_text(seeds.mean, seeds.interval)}" if seeds else ""
        figure += "" if found.draws else "; neither draws anything"
        figure += f"; {found.why}" if found.why else ""
        side = 0 if found.better is None else 1 if found.better == first.name else -1
    return Comparison(what, figure, _sign_outcome(side), margin)


def _ranged(
    what: str, figure: str, interval: Range, low: float, high: float, decimals: int | None = None
) -> Comparison:
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
    return Comparison(what, figure, outcome, min(start - low, high - end))


def _sign_outcome(difference: float) -> ClaimOutcome:
    if difference == 0:
        return ClaimOutcome.UNDECIDED
    return ClaimOutcome.HOLDS if difference > 0 else ClaimOutcome.FAILS


def _orientation(found: Comparison, *obstacles: str) -> Comparison:
    """The comparison; no evidence, with its figure, if there is an obstacle."""
    reasons = "; ".join(dict.fromkeys(filter(None, obstacles)))
    if not reasons:
        return found
    return found._replace(figure=f"{found.figure}, for orientation only: {reasons}", outcome=ClaimOutcome.NO_EVIDENCE)


def _result(claim: Claim, where: str, found: Sequence[Comparison | None]) -> ClaimResult:
    """One failure is enough for a claim to fail; it takes all comparisons, printed ones and others, for it to hold."""
    made = [one for one in found if one is not None]
    counts = Counter(one.outcome for one in made)
    outcomes = {one.outcome if one else ClaimOutcome.NO_EVIDENCE for one in found}
    if ClaimOutcome.FAILS in outcomes:
        outcome = ClaimOutcome.FAILS
    else:
        outcome = outcomes.pop() if len(outcomes) == 1 else ClaimOutcome.UNDECIDED
    decisive = sorted([one for one in made if one.outcome is outcome] or made, key=lambda one: one.margin)
    shown = decisive if len(decisive) <= 4 else decisive[:1]
    summary = ", ".join(f"{each} {counts[each]}" for each in ClaimOutcome if counts[each])
    unprinted = f", not printed {len(found) - len(made)}" if len(made) < len(found) else ""
    figures = "; ".join(f"{one.what}: {one.figure}" for one in shown)
    chosen = "" if shown == decisive else "the nearest: " if outcome is ClaimOutcome.HOLDS else "such as "
    evidence = f"{len(found)} comparison{'s' * (len(found) > 1)} ({summary}{unprinted}): {chosen}{figures}"
    return ClaimResult(claim, where, outcome, evidence, tuple(one[:3] for one in made))


def _text(mean: float, interval: Range) -> str:
    return f"{mean:+z.4f} [{interval[0]:+z.4f}, {interval[1]:+z.4f}]"


def _quotient(a: float, b: float) -> float:
    return a / b if b else math.inf
