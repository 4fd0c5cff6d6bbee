"""Rows of a report from stored runs: grouping, choice of grid point, verdicts. How they are printed is `markdown`."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.compare.expected import REFERENCE, Kind, PublishedValue, Tolerances, values_of_cell
from harness.compare.significance import UserValues
from harness.compare.verdict import Outcome, Verdict, judge
from harness.experiments.settings import flatten
from harness.experiments.store import StoredRun
from harness.models.registry import models
from harness.training import TrainingConfig
from harness.training.config import STOPPING_METRIC

NOT_RECORDED = "–"
METRICS = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")


@dataclass(frozen=True)
class GridPoint:
    """A grid point with the R@20 by which points are compared: means over the seeds that every point has."""

    settings: Mapping[str, float]
    """The searched settings."""
    valid: float
    test: float
    test_by_seed: Mapping[int, float]
    """Test R@20 with every seed that it has."""

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
    runs: tuple[StoredRun, ...]
    grid: tuple[GridPoint, ...]
    """Grid points that were run, by settings."""
    selection: Selection

    @property
    def points(self) -> int:
        """How many grid points were run."""
        return len(self.grid)

    @property
    def search(self) -> str | None:
        """What was searched and found, in one sentence; None with one point."""
        if self.points == 1:
            return None
        text = f"{self.label}: {self.points} grid points searched; best on validation: {self.settings}"
        chosen = self.selection
        if chosen.on_test is not chosen.on_validation:
            text += f"; best on test: {chosen.on_test.name}"
            if chosen.optimism is not None:
                text += f", which would add {100 * chosen.optimism:.1f} % to test R@20"
        return f"{text}."

    @property
    def settings(self) -> str:
        """Searched settings of the chosen point."""
        return _searched(self.runs[0])

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
        """Seed → users and their test metric; None where a run stored none.

        Raises DataError when a file of a run is damaged.
        """
        stored = {seed: run.per_user(metric) for seed, run in zip(self.seeds, self.runs, strict=True)}
        found = {seed: values for seed, values in stored.items() if values is not None}
        return found if len(found) == len(stored) else None

    @property
    def surrogates(self) -> list[str]:
        """Modalities whose vectors stand in for the original ones, if the model reads features."""
        run = self.runs[0].run
        return list(run["dataset"]["surrogates"]) if run["reads_features"] else []


def result_rows(runs: Sequence[StoredRun]) -> list[ResultRow]:
    """Rows of all finished runs, by data set and model.

    Runs on the same data that differ only in the model's searched settings and the seed form a row. Its point is the
    best on validation R@20, compared on the seeds that every point has (on all seeds where there is no such one); of
    equals the one with most seeds, which is the one that a suite chose.
    """
    groups: dict[tuple[str, ...], list[StoredRun]] = defaultdict(list)
    for run in runs:
        if run.finished:
            surrogates = ",".join(run.run["dataset"]["surrogates"])
            names = run.run["dataset"]["name"], run.run["model"], _variant(run)
            groups[*names, run.run["dataset_hash"], surrogates].append(run)
    rows = [_row(key[0], key[1], key[2], group) for key, group in sorted(groups.items())]
    taken = Counter((row.dataset, row.label) for row in rows)
    return [
        replace(row, label=f"{row.label} data={row.data[:10]}") if taken[row.dataset, row.label] > 1 else row
        for row in rows
    ]


def verdicts(row: ResultRow, expected: Sequence[PublishedValue], tolerances: Tolerances) -> dict[str, Verdict]:
    """A verdict per metric: against the published value, or the stored reference where nothing is published."""
    judged = {}
    for metric in METRICS:
        cells = cell_sources(row, expected, metric)
        kind: Kind = cells[0].kind if cells else REFERENCE
        obstacle = _obstacle(row, kind, cells)
        verdict = judge(row.values(metric), cells, tolerances.of(kind, metric), not obstacle)
        if obstacle and verdict.outcome is Outcome.NO_EVIDENCE:
            few = verdict.seeds < tolerances.min_seeds
            verdict = replace(verdict, reason=f"{obstacle}; {verdict.reason}" if few else obstacle)
        judged[metric] = verdict
    return judged


def cell_sources(row: ResultRow, expected: Sequence[PublishedValue], metric: str) -> tuple[PublishedValue, ...]:
    """What a cell is compared with: the published values, or the stored reference where nothing is published."""
    published = values_of_cell(expected, row.dataset, row.model, metric)
    return published or values_of_cell(expected, row.dataset, row.label, metric, kind=REFERENCE)


def environments(runs: Iterable[StoredRun]) -> dict[str, list[str]]:
    """Every value that some run recorded of where it ran, by what it is."""
    seen: dict[str, list[str]] = {}
    for run in runs:
        for key, value in run.run["environment"].items():
            text = NOT_RECORDED if value is None else str(value)
            if text not in seen.setdefault(key, []):
                seen[key].append(text)
    return seen


def reference_note(run: StoredRun) -> str:
    """What a reference run must share with ours to be compared: data, and settings that differ from their defaults."""
    settings = json.dumps(changed_settings(run), sort_keys=True)
    digest = hashlib.sha256(settings.encode()).hexdigest()[:10]
    return f"data {run.run['dataset_hash'][:10]} settings {digest}"


def _obstacle(row: ResultRow, kind: Kind, cells: Sequence[PublishedValue]) -> str:
    if kind == REFERENCE:
        same = all(value.note == reference_note(row.runs[0]) for value in cells)
        return "" if same else "data or settings are not those of the reference runs"
    return incomparable(row)


def incomparable(row: ResultRow) -> str:
    """Why the row's accuracy cannot be compared with published figures; empty where it can."""
    if row.surrogates:
        return f"surrogate features ({', '.join(row.surrogates)}): an orientation, not a comparison"
    variant = _variant(row.runs[0])
    return f"settings are not the published ones ({variant})" if variant else ""


def _row(dataset: str, model: str, variant: str, runs: list[StoredRun]) -> ResultRow:
    points: dict[str, dict[int, StoredRun]] = defaultdict(dict)
    for run in sorted(runs, key=lambda run: str(_result(run)["finished"])):
        points[_searched(run)][int(run.run["seed"])] = run  # the latest run of a seed counts, once
    shared = set.intersection(*(set(seeds) for seeds in points.values()))

    def mean(point: str, part: str) -> float:
        chosen = [run for seed, run in points[point].items() if not shared or seed in shared]
        return sum(float(_result(run)[part][STOPPING_METRIC]) for run in chosen) / len(chosen)

    grid = {
        point: GridPoint(
            settings=_searched_settings(next(iter(seeds.values()))),
            valid=mean(point, "valid"),
            test=mean(point, "test"),
            test_by_seed={seed: float(_result(run)["test"][STOPPING_METRIC]) for seed, run in seeds.items()},
        )
        for point, seeds in points.items()
    }
    best = max(points, key=lambda point: (grid[point].valid, len(points[point])))
    best_on_test = max(points, key=lambda point: (grid[point].test, len(points[point])))
    return ResultRow(
        dataset=dataset,
        model=model,
        label=f"{model} {variant}".strip(),
        runs=tuple(run for _, run in sorted(points[best].items())),
        grid=tuple(sorted(grid.values(), key=lambda point: tuple(point.settings.values()))),
        selection=Selection(grid[best], grid[best_on_test]),
    )


def _variant(run: StoredRun) -> str:
    """Settings that are not searched and differ from their defaults, `key=value` each."""
    changed = {key: value for key, value in changed_settings(run).items() if key not in run.run["searched"]}
    return " ".join(f"{key}={value}" for key, value in sorted(changed.items()))


def label_of(run: StoredRun) -> str:
    """What a row of such runs is called: the model, with settings that are not searched and not their defaults."""
    return f"{run.run['model']} {_variant(run)}".strip()


def changed_settings(run: StoredRun) -> dict[str, Any]:
    """Settings that differ from their defaults. A run older than a setting had its default."""
    # A model that is no longer installed has no known defaults; then every setting counts.
    entry = models().get(run.run["model"])
    defaults = flatten({**(asdict(entry.model.Config()) if entry else {}), **asdict(TrainingConfig())})
    stored = flatten({**run.run["config"], **run.run["training"]})
    return {key: value for key, value in stored.items() if defaults.get(key) != value}


def _searched(run: StoredRun) -> str:
    return _named(_searched_settings(run))


def _named(settings: Mapping[str, float]) -> str:
    return " ".join(f"{key}={value:g}" for key, value in settings.items())


def _searched_settings(run: StoredRun) -> dict[str, float]:
    return {key: run.run["config"][key] for key in run.run["searched"]}


def _result(run: StoredRun) -> Mapping[str, Any]:
    if run.result is None:
        raise ValueError(f"{run.path} is unfinished")
    return run.result
