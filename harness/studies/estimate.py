"""What a trial will take, from runs that were made before: seconds and bytes. Nothing is measured here.

Runs of one's own store come first, then the figures in `reference/cost.csv`, which `cost_rows` makes from stored runs.
"""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

from bm3 import DataError
from harness.paper.expected import read_rows
from harness.runs.store import StoredRun
from harness.runs.trial import Trial

COST_FILE = "reference/cost.csv"


@dataclass(frozen=True)
class Estimate:
    """What a trial will take."""

    seconds: float
    """Of training and evaluation together."""
    memory_bytes: int | None
    """Of the process, on CUDA of the process on the device; None where nothing on the same data is known."""
    basis: str
    """Where the figures come from."""


@dataclass(frozen=True)
class Cost:
    """A line of `cost.csv`: what a model took on a data set; figures are medians over the runs of one folder."""

    dataset: str
    model: str
    features: str
    """`trained` or `frozen`; empty for a model without that choice."""
    interactions: int
    """Of training."""
    seconds_per_epoch: float
    """Of training alone."""
    evaluation_seconds: float
    epochs: float | None
    """Until early stopping; None where no run came that far."""
    memory_bytes: int | None
    device: str
    threads: int
    source: str
    """Folder of the runs."""


COLUMNS = tuple(field.name for field in fields(Cost))


class Estimates:
    """Estimates for trials from past runs and shipped figures."""

    def __init__(self, runs: Iterable[StoredRun], costs: Sequence[Cost] = ()) -> None:
        self._runs: dict[tuple[str, ...], list[StoredRun]] = defaultdict(list)
        self._costs = costs
        self._known: dict[tuple[tuple[str, ...], int], Estimate | None] = {}
        for run in runs:
            if run.finished:
                about = run.run
                key = about["model"], _features(about["config"]), about.get("device", "cpu"), about["dataset_hash"]
                self._runs[key].append(run)

    def of(self, trial: Trial) -> Estimate | None:
        """None where nothing of the model on such a device is known."""
        identity = trial.identity
        key = identity["model"], _features(identity["config"]), identity["device"], identity["dataset_hash"]
        limit = trial.training.epochs
        if (key, limit) not in self._known:
            interactions = len(trial.dataset.train)
            self._known[key, limit] = self._from_runs(key, limit) or self._from_costs(key, limit, interactions)
        return self._known[key, limit]

    def _from_runs(self, key: tuple[str, ...], limit: int) -> Estimate | None:
        seconds, memory = [], []
        for run in self._runs.get(key, []):
            with suppress(DataError):  # a damaged run only tells nothing
                took, needed = _seconds(run, limit), _memory(run)
                seconds += [] if took is None else [took]
                memory += [] if needed is None else [needed]
        if not seconds:
            return None
        basis = f"{len(seconds)} past run{'s' if len(seconds) > 1 else ''}"
        return Estimate(median(seconds), max(memory, default=None), basis)

    def _from_costs(self, key: tuple[str, ...], limit: int, interactions: int) -> Estimate | None:
        """The figures of the data set nearest in size, in proportion to training interactions.

        That is too little for a model that goes over the whole graph in every step: larger data have more steps and a
        larger graph.
        """
        costs = [cost for cost in self._costs if (cost.model, cost.features, cost.device) == key[:3]]
        if not costs:
            return None
        costs = sorted(costs, key=lambda cost: (abs(math.log(interactions / cost.interactions)), -cost.threads))
        near, scale = costs[0], interactions / costs[0].interactions
        epochs = next((cost.epochs for cost in costs if cost.epochs is not None), limit)
        seconds = min(epochs, limit) * (near.seconds_per_epoch + near.evaluation_seconds) * scale
        if scale == 1:
            return Estimate(seconds, near.memory_bytes, f"shipped figures for {near.dataset}")
        return Estimate(seconds, None, f"shipped figures for {near.dataset}, times {scale:.2g} for its size")


def load_costs(path: Path) -> list[Cost]:
    """A file like `cost.csv`. Raises DataError naming file and line."""
    costs = []
    for where, row in read_rows(path, COLUMNS):
        values = dict(zip(COLUMNS, row, strict=True))
        try:
            costs.append(
                Cost(
                    dataset=values["dataset"],
                    model=values["model"],
                    features=values["features"],
                    interactions=int(_above_0(values["interactions"])),
                    seconds_per_epoch=_above_0(values["seconds_per_epoch"]),
                    evaluation_seconds=_above_0(values["evaluation_seconds"]),
                    epochs=_above_0(values["epochs"]) if values["epochs"] else None,
                    memory_bytes=int(_above_0(values["memory_bytes"])) if values["memory_bytes"] else None,
                    device=values["device"],
                    threads=int(_above_0(values["threads"])),
                    source=values["source"],
                )
            )
        except ValueError as error:
            raise DataError(f"{where}: {error}; needed are finite numbers above 0") from error
    return costs


def cost_rows(runs: Iterable[StoredRun]) -> list[Cost]:
    """The lines of `cost.csv` that follow from stored runs, by data set, model and folder."""
    groups: dict[tuple[Any, ...], list[StoredRun]] = defaultdict(list)
    for run in runs:
        if run.result is not None and run.result["timing"]["median_s"] is not None:
            about, dataset = run.run, run.run["dataset"]
            key = dataset["name"], about["model"], _features(about["config"]), dataset["interactions"]["train"]
            where = about["device"], about["environment"]["torch_threads"], run.path.parent.as_posix()
            groups[*key, *where].append(run)
    costs = []
    for (dataset, model, features, interactions, device, threads, source), group in sorted(groups.items()):
        results = [run.result for run in group if run.result is not None]
        stopped = [result["epochs"] for result in results if result.get("stopped") == "early"]
        memory = [value for run in group if (value := _memory(run)) is not None]
        costs.append(
            Cost(
                dataset=dataset,
                model=model,
                features=features,
                interactions=interactions,
                seconds_per_epoch=round(median(result["timing"]["median_s"] for result in results), 4),
                evaluation_seconds=round(median(result["timing"]["evaluation_median_s"] for result in results), 4),
                epochs=median(stopped) if stopped else None,
                memory_bytes=int(median(memory)) if memory else None,
                device=device,
                threads=threads,
                source=source,
            )
        )
    return costs


def costs_csv(costs: Iterable[Cost]) -> str:
    """The text of `cost.csv`."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *map(astuple, costs)])
    return text.getvalue()


def _seconds(run: StoredRun, limit: int) -> float | None:
    """What the run's first `limit` epochs took; None where it cannot tell, since its own limit ended it before that."""
    epochs = run.epochs()
    if not epochs or (len(epochs) < limit and (run.result or {}).get("stopped") != "early"):
        return None
    return sum(float(epoch["seconds"]) + float(epoch["evaluation_seconds"]) for epoch in epochs[:limit])


def _memory(run: StoredRun) -> int | None:
    reading = "gpu_process_peak" if run.run.get("device") == "cuda" else "process_rss_peak"
    found = (run.result or {})["memory"][reading]["bytes"]
    return None if found is None else int(found)


def _features(config: Mapping[str, Any]) -> str:
    """Training the raw feature tables or not decides what a model costs."""
    return str(config.get("features", ""))


def _above_0(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError(f"{text} is not above 0")
    return value
