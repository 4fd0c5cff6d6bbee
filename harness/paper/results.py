"""Rows of a report from stored runs: grouping, names, choice of point, verdicts. How they are printed is `markdown`."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.paper.expected import PublishedValue, Tolerances, expected_dir, load_grids, values_of_cell
from harness.paper.significance import UserValues
from harness.paper.verdict import Outcome, Verdict, judge
from harness.runs.record import METRICS as METRICS
from harness.runs.store import StoredRun
from harness.training.config import STOPPING_METRIC

NOT_RECORDED = "–"


@dataclass(frozen=True)
class AskedPoint:
    """A grid point of a suite's row."""

    settings: Mapping[str, Any]
    """Those in which the points of the row differ."""
    runs: Mapping[int, str]
    """Seed → folder of the run below the store, whether or not it is there; first the seed that points are chosen with.
    """


@dataclass(frozen=True)
class AskedRow:
    """A row of a suite: its runs make one row of a report."""

    label: str | None
    """The name that the suite gives it; None where it is to be named after its settings."""
    points: tuple[AskedPoint, ...]
    every_seed: bool = False
    """Whether every point is run with every seed, since it is the points that are asked for."""


@dataclass(frozen=True)
class GridPoint:
    """A grid point with the R@20 by which points are compared: means over seeds that all of them have."""

    settings: Mapping[str, Any]
    """In which points differ; in a store that no suite explains, all settings that the model's grid has."""
    valid: float
    test: float
    valid_by_seed: Mapping[int, float]
    """Validation R@20 with every seed that it has."""
    test_by_seed: Mapping[int, float]

    @property
    def name(self) -> str:
        """The settings as text."""
        return _named(self.settings)


@dataclass(frozen=True)
class Selection:
    """The grid points that are best by either part, with the seeds that both of them have."""

    on_validation: GridPoint
    """As the paper says: the row's point."""
    on_test: GridPoint
    """As the published code did."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those that both points have, sorted."""
        return tuple(sorted({*self.on_validation.test_by_seed} & {*self.on_test.test_by_seed}))

    def test(self, point: GridPoint) -> float:
        """Test R@20 of one of the two: mean over the seeds that both have; over its own where they share none."""
        values = [point.test_by_seed[seed] for seed in self.seeds] or list(point.test_by_seed.values())
        return sum(values) / len(values)

    @property
    def optimism(self) -> float | None:
        """What choosing on the test part adds to test R@20, as a share; None where that is nothing to divide by.

        With further seeds than those that points were chosen with it may be below 0.
        """
        base = self.test(self.on_validation)
        return self.test(self.on_test) / base - 1 if base else None


@dataclass(frozen=True)
class ResultRow:
    """A model (with its variant settings) on a data set: the runs of the chosen grid point, and what was searched."""

    dataset: str
    model: str
    label: str
    """What it is called: as its suite says, else the model with its variant settings."""
    by_settings: str
    """The model with its variant settings, whatever its suite calls it."""
    runs: tuple[StoredRun, ...]
    grid: tuple[GridPoint, ...]
    """Grid points that have a result, by settings or in the suite's order."""
    selection: Selection
    named: bool = False
    """Whether the label is the suite's, which need not say what is set."""
    every_seed: bool = False
    """As in `AskedRow`."""

    @property
    def points(self) -> int:
        """How many grid points were run."""
        return len(self.grid)

    @property
    def search(self) -> str | None:
        """What was searched and found, in one sentence; None with one point."""
        if self.points == 1:
            return None
        chosen = self.selection
        text = f"{self.label}: {self.points} grid points searched; best on validation: {chosen.on_validation.name}"
        if chosen.on_test is not chosen.on_validation:
            text += f"; best on test: {chosen.on_test.name}"
            if chosen.optimism is not None:
                text += f", which would add {100 * chosen.optimism:.1f} % to test R@20"
        return f"{text}."

    @property
    def settings(self) -> str:
        """Searched settings of the chosen point, and all that differ from their defaults where the label is a name."""
        searched = {**_searched_settings(self.runs[0]), **self.selection.on_validation.settings}
        return _named({**self.runs[0].changed_settings, **searched} if self.named else searched)

    def values(self, metric: str) -> list[float]:
        """The test metric, one value per seed."""
        return [float(_result(run)["test"][metric]) for run in self.runs]

    @property
    def data(self) -> str:
        """Content hash of the data set."""
        return str(self.runs[0].run["dataset_hash"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the runs, in their order."""
        return tuple(int(run.run["seed"]) for run in self.runs)

    def per_user(self, metric: str) -> Mapping[int, UserValues] | None:
        """Seed → users and their test metric, of the runs that stored it; None where none did.

        Raises DataError when a file of a run is damaged.
        """
        stored = {seed: run.per_user(metric) for seed, run in zip(self.seeds, self.runs, strict=True)}
        return {seed: values for seed, values in stored.items() if values is not None} or None

    @property
    def surrogates(self) -> list[str]:
        """Modalities whose vectors stand in for the original ones, if the model reads features."""
        run = self.runs[0].run
        return list(run["dataset"]["surrogates"]) if run["reads_features"] else []


def result_rows(runs: Sequence[StoredRun], asked: Sequence[AskedRow] | None = None) -> list[ResultRow]:
    """Rows of all finished runs, by data set and model: those that are asked for, else those that runs form.

    A row that is asked for is chosen from as its suite chooses: with the first seed, the earlier of equals. Where every
    point has every seed, all of them count.

    Else runs on the same data that differ only in the model's searched settings and the seed form a row. Its point is
    the best on validation R@20, compared on the seeds that every point has (on all seeds where there is no such one);
    of equals the one with most seeds, which is the one that a suite chose.
    """
    if asked is not None:
        return [row for group in _groups(runs, asked) if (row := _asked_row(group)) is not None]
    groups: dict[tuple[str, ...], list[StoredRun]] = defaultdict(list)
    for run in runs:
        if run.finished:
            surrogates = ",".join(run.run["dataset"]["surrogates"])
            names = run.run["dataset"]["name"], run.run["model"], _variant(run)
            groups[*names, run.run["dataset_hash"], surrogates].append(run)
    rows = [row for _, group in sorted(groups.items(), key=lambda pair: pair[0]) for row in _stored_rows(group)]
    taken = Counter((row.dataset, row.label) for row in rows)
    labels = (f"{row.label} data={row.data[:10]}" if taken[row.dataset, row.label] > 1 else row.label for row in rows)
    return [replace(row, label=label, by_settings=label) for row, label in zip(rows, labels, strict=True)]


def starved_labels(
    rows: Sequence[ResultRow], runs: Sequence[StoredRun], asked: Sequence[AskedRow] | None = None
) -> dict[str, tuple[str, ...]]:
    """By data set, what rows are called of which runs had too little memory and none has a result."""
    if asked is None:
        pairs = [(run.run["dataset"]["name"], label_of(run)) for run in runs if run.out_of_memory]
    else:
        pairs = [(g.dataset, g.label) for g in _groups(runs, asked) if any(run.out_of_memory for run in g.runs)]
    with_result = {(row.dataset, row.label) for row in rows}
    found: dict[str, dict[str, None]] = {}
    for dataset, label in pairs:
        if (dataset, label) not in with_result:
            found.setdefault(dataset, {})[label] = None
    return {dataset: tuple(labels) for dataset, labels in found.items()}


def verdicts(row: ResultRow, expected: Sequence[PublishedValue], tolerances: Tolerances) -> dict[str, Verdict]:
    """A verdict per metric, against what is published."""
    judged, obstacle = {}, incomparable(row)
    for metric in METRICS:
        cells = cell_sources(row, expected, metric)
        verdict = judge(row.values(metric), cells, tolerances.of(metric), not obstacle)
        if obstacle and verdict.outcome is Outcome.NO_EVIDENCE:
            few = verdict.seeds < tolerances.min_seeds
            verdict = replace(verdict, reason=f"{obstacle}; {verdict.reason}" if few else obstacle)
        judged[metric] = verdict
    return judged


def cell_sources(row: ResultRow, expected: Sequence[PublishedValue], metric: str) -> tuple[PublishedValue, ...]:
    """What a cell is compared with."""
    return values_of_cell(expected, row.dataset, row.model, metric)


def environments(runs: Iterable[StoredRun]) -> dict[str, list[str]]:
    """Every value that some run recorded of where it ran, by what it is."""
    seen: dict[str, list[str]] = {}
    for run in runs:
        for key, value in run.run["environment"].items():
            text = NOT_RECORDED if value is None else str(value)
            if text not in seen.setdefault(key, []):
                seen[key].append(text)
    return seen


def incomparable(row: ResultRow) -> str:
    """Why the row's accuracy cannot be compared with published figures; empty where it can."""
    if row.surrogates:
        return f"surrogate features: {', '.join(row.surrogates)}"
    variant = ", ".join(filter(None, [_variant(row.runs[0]), *_searched_beyond(row)]))
    return f"settings are not the published ones ({variant})" if variant else ""


def _searched_beyond(row: ResultRow) -> Iterator[str]:
    """What was searched that was not searched for what is published: even a published value, chosen from more, is
    another figure."""
    published = load_grids(expected_dir()).get(row.model, {})
    for key in row.selection.on_validation.settings:
        values = {point.settings[key] for point in row.grid}
        if key not in row.runs[0].run["searched"]:
            yield f"{key} searched"
        elif len(values) > 1 and key in published and not values <= set(published[key]):
            yield f"{key} searched beyond the published grid"


@dataclass(frozen=True)
class _Group:
    """A row that is asked for with those of its runs that are there, in whatever state; at least one."""

    asked: AskedRow
    points: tuple[Mapping[int, StoredRun], ...]
    """Seed → run, for each point that is asked for."""
    label: str

    @property
    def runs(self) -> list[StoredRun]:
        return [run for point in self.points for run in point.values()]

    @property
    def dataset(self) -> str:
        return str(self.runs[0].run["dataset"]["name"])

    @property
    def apart(self) -> dict[str, Any]:
        """What tells it from a row of the same name: its data, and what its points share of the model's searched
        settings."""
        searched = _searched_settings(self.runs[0])
        shared = {key: value for key, value in searched.items() if key not in self.asked.points[0].settings}
        return {"data": self.runs[0].run["dataset_hash"][:10], **shared}


def _groups(runs: Sequence[StoredRun], asked: Sequence[AskedRow]) -> list[_Group]:
    """By data set and model, as asked; each label is there once on a data set."""
    stored = {"/".join(run.path.parts[-2:]): run for run in runs}
    groups = []
    for row in asked:
        points = tuple({seed: stored[key] for seed, key in point.runs.items() if key in stored} for point in row.points)
        there = [run for point in points for run in point.values()]
        if there:
            label = row.label or f"{there[0].run['model']} {_variant(there[0], row.points[0].settings)}".strip()
            groups.append(_Group(row, points, label))
    groups.sort(key=lambda group: (group.dataset, group.runs[0].run["model"]))
    alike: dict[tuple[str, str], list[_Group]] = defaultdict(list)
    for group in groups:
        alike[group.dataset, group.label].append(group)
    seen: Counter[tuple[str, str]] = Counter()
    told_apart = []
    for group in groups:
        others = [other.apart for other in alike[group.dataset, group.label]]
        own = {k: v for k, v in group.apart.items() if any(other.get(k, v) != v for other in others)}
        label = " ".join(filter(None, [group.label, _named(own)]))
        seen[group.dataset, label] += 1
        times = seen[group.dataset, label]
        told_apart.append(replace(group, label=f"{label} ({times})" if times > 1 else label))
    return told_apart


def _asked_row(group: _Group) -> ResultRow | None:
    """None where no point has a result that it can be compared by."""
    finished = [{seed: run for seed, run in point.items() if run.finished} for point in group.points]
    points = [(asked.settings, runs) for asked, runs in zip(group.asked.points, finished, strict=True) if runs]
    if group.asked.every_seed or len(group.points) == 1:
        seeds = _shared(runs for _, runs in points)
    else:
        first = next(iter(group.asked.points[0].runs))
        seeds, points = {first}, [(settings, runs) for settings, runs in points if first in runs]
    if not points:
        return None
    row = _row(points, seeds)
    named, every = group.asked.label is not None, group.asked.every_seed
    return replace(row, label=group.label, by_settings=label_of(row.runs[0]), named=named, every_seed=every)


def _stored_rows(group: Sequence[StoredRun]) -> list[ResultRow]:
    """One row, or several that name what they were run with where a default was changed between the runs."""
    found = [{key: v for key, v in run.settings.items() if key not in run.run["searched"]} for run in group]
    values: dict[str, set[str]] = defaultdict(set)
    for key, value in (pair for of_run in found for pair in of_run.items()):
        values[key].add(str(value))
    parts: dict[str, list[StoredRun]] = defaultdict(list)
    for run, of_run in zip(group, found, strict=True):
        parts[" ".join(f"{key}={of_run[key]}" for key in sorted(of_run) if len(values[key]) > 1)].append(run)
    rows = [(apart, _stored_row(part)) for apart, part in sorted(parts.items())]
    return [replace(row, label=f"{row.label} {apart}".strip()) for apart, row in rows]


def _stored_row(group: Sequence[StoredRun]) -> ResultRow:
    points: dict[str, dict[int, StoredRun]] = defaultdict(dict)
    for run in sorted(group, key=lambda run: str(_result(run)["finished"])):
        # The latest run of a seed counts, once.
        points[_named(_searched_settings(run))][int(run.run["seed"])] = run
    found = sorted(points.values(), key=lambda runs: -len(runs))
    row = _row([(_searched_settings(next(iter(runs.values()))), runs) for runs in found], _shared(found))
    return replace(row, grid=tuple(sorted(row.grid, key=lambda point: tuple(point.settings.values()))))


def _shared(points: Iterable[Mapping[int, StoredRun]]) -> set[int]:
    """The seeds that every point has."""
    found = [set(runs) for runs in points]
    return set.intersection(*found) if found else set()


def _row(points: Sequence[tuple[Mapping[str, Any], Mapping[int, StoredRun]]], seeds: set[int]) -> ResultRow:
    """A row from settings and finished runs by seed of each point; the best by these seeds, the earlier of equals."""
    grid = [_grid_point(settings, runs, seeds) for settings, runs in points]
    best, best_on_test = (
        max(range(len(grid)), key=lambda place: _comparable(getattr(grid[place], part))) for part in ("valid", "test")
    )
    runs = tuple(run for _, run in sorted(points[best][1].items()))
    label = label_of(runs[0])
    return ResultRow(
        dataset=runs[0].run["dataset"]["name"],
        model=runs[0].run["model"],
        label=label,
        by_settings=label,
        runs=runs,
        grid=tuple(grid),
        selection=Selection(grid[best], grid[best_on_test]),
    )


def _grid_point(settings: Mapping[str, Any], runs: Mapping[int, StoredRun], seeds: set[int]) -> GridPoint:
    """With the means over these of its seeds, over all where it has none of them."""
    valid, test = (
        {seed: float(_result(run)[part][STOPPING_METRIC]) for seed, run in runs.items()} for part in ("valid", "test")
    )
    compared = seeds & set(runs) or set(runs)

    def mean(values: Mapping[int, float]) -> float:
        return sum(values[seed] for seed in compared) / len(compared)

    return GridPoint(settings, mean(valid), mean(test), valid_by_seed=valid, test_by_seed=test)


def _comparable(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _variant(run: StoredRun, searched: Iterable[str] = ()) -> str:
    """Settings that differ from their defaults and are searched neither here nor by what was published, `key=value`
    each."""
    apart = {*run.run["searched"], *searched}
    changed = {key: value for key, value in run.changed_settings.items() if key not in apart}
    return " ".join(f"{key}={value}" for key, value in sorted(changed.items()))


def label_of(run: StoredRun) -> str:
    """What a row of such runs is called: the model, with settings that are not searched and not their defaults."""
    return f"{run.run['model']} {_variant(run)}".strip()


def _named(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={_text(value)}" for key, value in settings.items())


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _searched_settings(run: StoredRun) -> dict[str, Any]:
    return {key: run.config[key] for key in run.searched}


def _result(run: StoredRun) -> Any:
    return run.outcome
