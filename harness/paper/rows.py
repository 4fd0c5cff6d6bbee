"""Rows: the runs of one model on one data set that one verdict is about. Which grid point a row is of (`choose`) and
which row stands for a model (`representative`) is decided here and nowhere else, by settings and never by names.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from bm3.errors import DataError
from harness.paper.load import Paper
from harness.paper.published import PublishedValue, canonical_metric, short_metric
from harness.paper.significance import EVERY_SEED, UserValues
from harness.paper.verdict import Outcome, Verdict, judge
from harness.runs.record import RunRecord

Runs = Mapping[int, RunRecord]
"""Seed → run."""


@dataclass(frozen=True)
class Point:
    """A grid point with its finished runs."""

    settings: Mapping[str, Any]
    """Those in which points of a row differ; where no plan says which, all that the model's grid has."""
    runs: Runs
    metric: str
    """By which points are compared."""
    compared: frozenset[int] = frozenset()
    """The seeds by which it is compared; empty: all that it has."""

    @property
    def name(self) -> str:
        """The settings as text."""
        return named(self.settings)

    def by_seed(self, part: str) -> dict[int, float]:
        """Seed → the metric on the part `valid` or `test`."""
        return {seed: _metric(run, part, self.metric) for seed, run in self.runs.items()}

    def mean(self, part: str) -> float:
        """Over the seeds by which points are compared."""
        values = self.by_seed(part)
        return fmean(values[seed] for seed in self.compared or values)


@dataclass(frozen=True)
class Selection:
    """The grid points that are best by either part."""

    points: tuple[Point, ...]
    """All that took part."""
    on_validation: Point
    """As papers say: the row's point."""
    on_test: Point
    """As published codes did."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those that both points have, sorted."""
        return tuple(sorted(self.on_validation.runs.keys() & self.on_test.runs.keys()))

    def test(self, point: Point) -> float:
        """The metric on the test part of one of the two: mean over the seeds that both have, else over its own."""
        return fmean(point.by_seed("test")[seed] for seed in self.seeds or point.runs)

    @property
    def optimism(self) -> float | None:
        """What choosing on the test part adds to the metric, as a share; None where that is nothing to divide by.

        With further seeds than those that points were chosen with it may be below 0.
        """
        base = self.test(self.on_validation)
        return self.test(self.on_test) / base - 1 if base else None


def expected_best(points: Sequence[Point]) -> list[float]:
    """What a search of n points reaches on the test part, for n = 1 to all N: [N] expected values.

    The n are drawn without replacement and the best of them on validation is taken, so the i-th of N, the worst first,
    is taken with probability C(i−1, n−1) / C(N, n) (after Dodge et al., EMNLP 2019, who draw with replacement).
    Of equals the earlier is the better, and a value that is not finite is the worst, as in `choose`.
    """
    best_first = sorted(points, key=lambda point: finite(point.mean("valid")), reverse=True)
    test = [point.mean("test") for point in reversed(best_first)]
    total = len(test)
    return [
        math.fsum(math.comb(i, n - 1) * test[i] for i in range(n - 1, total)) / math.comb(total, n)
        for n in range(1, total + 1)
    ]


def choose(points: Sequence[Point], seeds: Collection[int] | None = None) -> Selection | None:
    """The best of the points by the mean of their metric on the validation part, and on the test part.

    `seeds` are those that points are compared with: one without a finished run of each takes no part. Without them they
    are all that every point has; where that is none, each point counts with its own. Of equals the earlier is chosen,
    and a value that is not finite is below all others. None where no point takes part.
    """
    there = [point for point in points if point.runs]
    if seeds is None:
        compared = frozenset.intersection(*(frozenset(point.runs) for point in there)) if there else frozenset[int]()
    else:
        compared = frozenset(seeds)
        there = [point for point in there if compared <= point.runs.keys()]
    if not there:
        return None
    there = [replace(point, compared=compared) for point in there]
    best = (max(there, key=lambda point: finite(point.mean(part))) for part in ("valid", "test"))
    return Selection(tuple(there), *best)


@dataclass(frozen=True)
class Planned:
    """A row that is asked for."""

    label: str | None
    """The name that its suite gives it; None where it is to be named after its settings."""
    points: tuple[tuple[Mapping[str, Any], Mapping[int, str]], ...]
    """Of each grid point the settings in which points differ, and seed → folder of the run below the store, whether or
    not it is there; first the seed that points are chosen with."""
    every_seed: bool = False
    """Whether every point is run with every seed, since it is the points that are asked for."""
    undeclared: tuple[int, ...] = ()
    """Seeds that its suite does not name: who adds seeds until a verdict pleases is not believed."""


@dataclass(frozen=True)
class Row:
    """A model, with its settings, on a data set: what was searched, the point that was chosen, and its verdicts."""

    dataset: str
    model: str
    label: str
    """What it is called: as its suite says, else the model with what it departs in. Nothing is decided by it."""
    selection: Selection
    runs: tuple[RunRecord, ...]
    """Of the chosen point, by seed."""
    departures: tuple[str, ...] = ()
    """In what it is not as published, in words; a default where nothing is published."""
    named: bool = False
    """Whether the label is the suite's, which need not say what is set."""
    every_seed: bool = False
    """As in `Planned`, like `undeclared`."""
    undeclared: tuple[int, ...] = ()
    other_data: str = ""
    """As `Paper.other_data` says."""
    part: str = "test"
    """The part that figures are of."""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    """By canonical metric, in the order of the paper's metrics."""
    sources: Mapping[str, tuple[PublishedValue, ...]] = field(default_factory=dict)
    """By canonical metric: every figure published for the cell, whether or not it was compared with."""
    brief: bool = False
    """Whether it is of the self-check, which trains too briefly for models to be compared with each other."""
    shared: frozenset[Path] = frozenset()
    """Those of its runs beside which another one ran on the same machine."""

    @property
    def grid(self) -> tuple[Point, ...]:
        """Grid points that have a result."""
        return self.selection.points

    @property
    def settings(self) -> str:
        """Searched settings of the chosen point, and all that differ from their defaults where the label is a name."""
        searched = {**_searched(self.runs[0]), **self.selection.on_validation.settings}
        return named({**self.runs[0].changed_settings, **searched} if self.named else searched)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the runs, in their order."""
        return tuple(run.seed for run in self.runs)

    @cached_property
    def repeated(self) -> Runs:
        """Its runs; of one that draws nothing, be it in the model or in the vectors read, the first for every seed."""
        drawn = self.runs[0].settings.get("vectors.content") in ("permuted", "noise")
        if not drawn and all(run.outcome.stopped == "closed form" for run in self.runs):
            from harness.models.registry import draws  # needs torch, without which other reports do

            if not draws(self.model):
                return {EVERY_SEED: self.runs[0]}
        return {run.seed: run for run in self.runs}

    def by_seed(self, metric: str) -> dict[int, float]:
        """Seed → the metric, as `repeated`."""
        return {seed: _metric(run, self.part, metric) for seed, run in self.repeated.items()}

    def values(self, metric: str) -> list[float]:
        """One per run."""
        return [_metric(run, self.part, metric) for run in self.runs]

    def mean(self, metric: str) -> float:
        """Over seeds."""
        return fmean(self.values(metric))

    def per_user(self, metric: str) -> Mapping[int, UserValues] | None:
        """Seed → users and their metric, of the runs that stored it; None where none did, as on the validation part.

        Raises DataError when a file of a run is damaged.
        """
        if self.part != "test":
            return None
        stored = {seed: run.per_user(metric) for seed, run in self.repeated.items()}
        return {seed: values for seed, values in stored.items() if values is not None} or None

    @property
    def data(self) -> str:
        """Content hash of the data set."""
        return self.runs[0].dataset_hash

    @property
    def surrogates(self) -> list[str]:
        """Modalities whose vectors stand in for the original ones, if the model reads features."""
        return self.runs[0].dataset.surrogates if self.runs[0].reads_features else []

    @property
    def obstacle(self) -> str:
        """Why its accuracy cannot be compared with published figures; empty where it can."""
        if self.undeclared:
            return f"the suite does not declare seed {', '.join(map(str, self.undeclared))}"
        if self.other_data:
            return f"other data of that name: {self.other_data}"
        if self.surrogates:
            return f"surrogate features: {', '.join(self.surrogates)}"
        if self.part != "test":
            return "the paper's test part is the one by which training stops here"
        return f"settings are not the published ones ({', '.join(self.departures)})" if self.departures else ""

    @property
    def stopping(self) -> str:
        """The validation metric by which epochs and its point were chosen, as printed."""
        return short_metric(self.selection.on_validation.metric)

    @property
    def published(self) -> bool:
        """Whether some source is about one of its cells."""
        return any(self.sources.values())

    @property
    def judged(self) -> list[Verdict]:
        """Verdicts that rest on evidence."""
        return [verdict for verdict in self.verdicts.values() if verdict.outcome.held is not None]


def representative(rows: Iterable[Row], model: str) -> Row | None:
    """The row that stands for a model among rows of one data set: that with the published settings, or the defaults.

    One on the paper's own data comes first, then that with the fewest departures; of equals one that was trained on the
    original features, then by the newest numerics, then the one with the most seeds, then the first. What rows are
    called and what they reach decides nothing.
    """

    def order(row: Row) -> tuple[Any, ...]:
        newest = row.runs[0].numerics
        numerics = -newest.model, -newest.training
        return bool(row.other_data), len(row.departures), bool(row.surrogates), numerics, -len(row.runs)

    return min((row for row in rows if row.model.lower() == model.lower()), key=order, default=None)


def representatives(rows: Sequence[Row]) -> list[Row]:
    """The row of each model among rows of one data set, in the order of the rows."""
    standing = {row.model.lower(): representative(rows, row.model) for row in rows}
    return [row for row in rows if row is standing[row.model.lower()]]


def ranked(rows: Iterable[Row], metric: str) -> list[Row]:
    """Rows by their means, the highest first, equal ones in their order; without brief ones and those not finite."""
    comparable = [row for row in rows if not row.brief and math.isfinite(row.mean(metric))]
    return sorted(comparable, key=lambda row: -row.mean(metric))


def rows_of(
    runs: Iterable[RunRecord], paper: Paper, planned: Sequence[Planned] | None = None
) -> tuple[list[Row], dict[str, tuple[str, ...]]]:
    """Rows by data set and model, not yet judged; and by data set what those are called that have no result for want of
    memory.

    Planned rows are chosen from as their suite chooses: with the first seed, or with all that points share where every
    point has every seed. Else runs on the same data that differ only in the model's searched settings and the seed form
    a row: points are compared on the seeds that all have, and come with most seeds first, since the one that a suite
    chose has more, then by settings.
    """
    known = [_searched_as_in(paper, run) for run in runs]
    groups = _stored_groups(known, paper) if planned is None else _planned_groups(known, paper, planned)
    rows: list[Row] = []
    starved: dict[str, dict[str, None]] = defaultdict(dict)
    for group in _told_apart(groups):
        if (row := group.row(paper)) is not None:
            rows.append(row)
        elif any(run.out_of_memory for run in group.runs):
            starved[group.dataset][group.label] = None
    return rows, {dataset: tuple(labels) for dataset, labels in starved.items()}


def judged(row: Row, paper: Paper) -> Row:
    """The row with a verdict per metric of the paper. Raises DataError where a run lacks one."""
    sources = {metric: paper.cell(row.dataset, row.model, metric) for metric in paper.judged_by}
    verdicts = {}
    for metric, cell in sources.items():
        if lacking := [run.path for run in row.runs if run.value(metric) is None]:
            raise DataError(f"{lacking[0]}: has no {metric}, by which the paper {paper.name} judges")
        tolerance = paper.tolerances.of(metric)
        verdict = judge([*row.by_seed(metric).values()], cell, tolerance, not row.obstacle)
        if row.obstacle and verdict.outcome is Outcome.NO_EVIDENCE:
            few = verdict.seeds < tolerance.min_seeds
            verdict = replace(verdict, reason=f"{row.obstacle}; {verdict.reason}" if few else row.obstacle)
        verdicts[metric] = verdict
    return replace(row, verdicts=verdicts, sources=sources)


def named(settings: Mapping[str, Any]) -> str:
    """Settings as text."""
    return " ".join(f"{key}={_text(value)}" for key, value in settings.items())


def finite(value: float) -> float:
    """The value, below all others where it is not finite."""
    return value if math.isfinite(value) else -math.inf


@dataclass(frozen=True)
class _Group:
    """Runs that make a row, in whatever state; at least one."""

    label: str
    points: tuple[tuple[Mapping[str, Any], Runs], ...]
    compared: frozenset[int] | None = None
    """As in `choose`."""
    named: bool = False
    every_seed: bool = False
    undeclared: tuple[int, ...] = ()

    @property
    def runs(self) -> list[RunRecord]:
        return [run for _, runs in self.points for run in runs.values()]

    @property
    def dataset(self) -> str:
        return self.runs[0].dataset.name

    @property
    def apart(self) -> dict[str, Any]:
        """What may tell it from a row of the same name: all settings that its points share, its data, and versions."""
        run, differing = self.runs[0], {key for points, _ in self.points for key in points if len(self.points) > 1}
        shared = {key: value for key, value in sorted(run.settings.items()) if key not in differing}
        surrogates = "+".join(run.dataset.surrogates * run.reads_features) or "none"
        versions = "/".join(str(version) for version in run.numerics.model_dump().values())
        return {"data": run.dataset_hash[:10], **shared, "surrogates": surrogates, "numerics": versions}

    def row(self, paper: Paper) -> Row | None:
        """None where no point has a result that it can be compared by."""
        finished = [(point, {s: run for s, run in sorted(runs.items()) if run.finished}) for point, runs in self.points]
        metric = self.runs[0].stopping
        selection = choose([Point(point, runs, metric) for point, runs in finished], self.compared)
        if selection is None:
            return None
        runs = tuple(selection.on_validation.runs.values())
        first = runs[0]
        data = first.dataset
        return Row(
            dataset=self.dataset,
            model=first.model,
            label=self.label,
            selection=selection,
            runs=runs,
            departures=(*_departures(first, paper).values(), *_searched_beyond(selection, paper, len(self.points) > 1)),
            named=self.named,
            every_seed=self.every_seed,
            undeclared=self.undeclared,
            other_data=paper.other_data(data.name, data.users, data.items, sum(data.interactions.values())),
            part=paper.test_part(self.dataset),
        )


def _planned_groups(runs: Iterable[RunRecord], paper: Paper, planned: Sequence[Planned]) -> list[_Group]:
    stored = {"/".join(run.path.parts[-2:]): run for run in runs}
    groups = []
    for row in planned:
        points = tuple(
            (point, {seed: stored[key] for seed, key in keys.items() if key in stored}) for point, keys in row.points
        )
        there = [run for _, found in points for run in found.values()]
        if there:
            label = row.label or label_of(there[0], paper, row.points[0][0])
            alone = row.every_seed or len(points) == 1
            first = None if alone else frozenset([next(iter(row.points[0][1]))])
            groups.append(_Group(label, points, first, row.label is not None, row.every_seed, row.undeclared))
    return sorted(groups, key=lambda group: (group.dataset, group.runs[0].model))


def _stored_groups(runs: Iterable[RunRecord], paper: Paper) -> list[_Group]:
    alike: dict[tuple[str, ...], list[RunRecord]] = defaultdict(list)
    for run in runs:
        if run.finished or run.out_of_memory:
            what = run.dataset.name, run.model, label_of(run, paper), run.dataset_hash
            alike[*what, ",".join(run.dataset.surrogates), str(run.numerics)].append(run)
    groups = []
    parts = [(key[2], part) for key, found in sorted(alike.items()) for part in _by_unsearched(found)]
    for label, part in parts:
        points: dict[str, tuple[dict[str, Any], dict[int, RunRecord]]] = {}
        # The latest run of a seed counts, once.
        for run in sorted(part, key=lambda run: run.outcome.finished if run.finished else ""):
            searched = _searched(run)
            _, seeds = points.setdefault(json.dumps(searched, sort_keys=True), (searched, {}))
            if run.finished or run.seed not in seeds:
                seeds[run.seed] = run
        groups.append(_Group(label, tuple(sorted(points.values(), key=_most_seeds_first))))
    return groups


def _most_seeds_first(point: tuple[Mapping[str, Any], Runs]) -> tuple[Any, ...]:
    """Then by settings: numbers, then texts."""
    settings, runs = point
    kinds = [(isinstance(v, str), float(v) if isinstance(v, int | float) else 0.0, str(v)) for v in settings.values()]
    return -sum(run.finished for run in runs.values()), kinds


def _by_unsearched(runs: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Runs apart where a setting that is not searched differs between them, such as a default that was changed.

    One that a run is older than tells it from no other.
    """
    found = [{key: str(v) for key, v in run.settings.items() if key not in run.searched} for run in runs]
    values: dict[str, set[str]] = defaultdict(set)
    for key, value in (pair for of_run in found for pair in of_run.items()):
        values[key].add(value)
    parts: dict[str, list[RunRecord]] = defaultdict(list)
    for run, of_run in zip(runs, found, strict=True):
        parts[" ".join(f"{key}={of_run[key]}" for key in sorted(of_run) if len(values[key]) > 1)].append(run)
    return [part for _, part in sorted(parts.items())]


def _told_apart(groups: Sequence[_Group]) -> Iterator[_Group]:
    """The groups, each label once on a data set: what equal ones differ in is added, and at last a number.

    Where runs on a data set's name are of several contents, each label names its own.
    """
    alike: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    contents: dict[str, set[str]] = defaultdict(set)
    for group in groups:
        alike[group.dataset, group.label].append(group.apart)
        contents[group.dataset].add(group.apart["data"])
    taken: Counter[tuple[str, str]] = Counter()
    for group in groups:
        others = alike[group.dataset, group.label]
        own = {key: v for key, v in group.apart.items() if any(other.get(key, v) != v for other in others)}
        own |= {"data": group.apart["data"]} if len(contents[group.dataset]) > 1 else {}
        label = " ".join(filter(None, [group.label, named(own)]))
        taken[group.dataset, label] += 1
        times = taken[group.dataset, label]
        yield replace(group, label=f"{label} ({times})" if times > 1 else label)


def label_of(run: RunRecord, paper: Paper, searched: Collection[str] = ()) -> str:
    """What a row of such runs is called: the model, with what it departs in and what is not `searched` there."""
    departures = _departures(run, paper)
    return " ".join([run.model, *(text for key, text in sorted(departures.items()) if key not in searched)])


def _departures(run: RunRecord, paper: Paper) -> dict[str, str]:
    """Settings, but for those of the model's grid, that are neither as the paper states them nor, where it says
    nothing, their defaults: key → `key=value`."""
    stated = paper.own_settings(run.model, run.dataset.name)
    departing = {
        key: value
        for key, value in run.settings.items()
        if key not in run.searched and (value != stated[key] if key in stated else key in run.changed_settings)
    }
    return {key: f"{key}={value}" for key, value in sorted(departing.items())}


def _searched_as_in(paper: Paper, run: RunRecord) -> RunRecord:
    """The run with the settings that are searched where the paper has a grid of the model, else with its own.

    None are where there is no validation part by which to choose.
    """
    grid = paper.grids.get(run.model) if run.validated else {}
    if grid is None:
        return run
    return run.model_copy(update={"searched": sorted(grid.keys() & run.settings.keys())})


def _searched_beyond(selection: Selection, paper: Paper, several: bool) -> Iterator[str]:
    """What was searched that was not searched for what is published: even a published value, chosen from more, is
    another figure. A point alone, not one of `several` of a search, is held against what the paper states, and what it
    says nothing of against its grid.
    """
    run = next(iter(selection.on_validation.runs.values()))
    grid, stated = paper.grids.get(run.model, {}), paper.own_settings(run.model, run.dataset.name)
    for key in dict.fromkeys([*selection.on_validation.settings, *run.searched]):
        values = {point.settings.get(key, _searched(run).get(key)) for point in selection.points}
        known = {*grid.get(key, values)}
        if key in stated:
            known = {stated[key]} | (known if several else set())
        elif len(values) == 1 and key not in run.changed_settings:
            known |= values
        if key not in run.searched:
            yield f"{key} searched"
        elif not values <= known:
            yield f"{key} searched beyond the published grid" if len(values) > 1 else f"{key}={values.pop()}"


def _text(value: Any) -> str:
    """A number in few digits, unless they are another number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return short if float(short := f"{value:g}") == value else str(value)


def _searched(run: RunRecord) -> dict[str, Any]:
    return {key: run.config.get(key, run.settings.get(key)) for key in run.searched}


def _metric(run: RunRecord, part: str, metric: str) -> float:
    name = canonical_metric(metric)
    value = run.value(name) if part == "test" else run.outcome.valid.get(name)
    return math.nan if value is None else value
