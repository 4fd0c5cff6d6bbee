"""What a trial will take, from runs that were made before: seconds and bytes. Nothing is measured here.

Runs of one's own store come first, then the paper's `reference/cost.csv`.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bm3 import DataError
from harness.paper.load import Paper
from harness.paper.published import read_rows
from harness.runs.index import Watch, entries
from harness.runs.inspect import Entry
from harness.runs.record import RunRecord
from harness.runs.trial import Trial

COST_FILE = "reference/cost.csv"
Above0 = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Empty = BeforeValidator(lambda text: text or None)


class Estimate(NamedTuple):
    """What a trial will take."""

    seconds: float
    """Of training and evaluation together."""
    memory_bytes: int | None
    """Of the process, on CUDA of the process on the device; None where nothing on the same data is known."""
    basis: str
    """Where the figures come from."""


class Cost(BaseModel):
    """A line of `cost.csv`: what a model took on a data set; figures are medians over the runs of one folder."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    model: str
    features: str
    """`trained` or `frozen`; empty for a model without that choice."""
    interactions: Annotated[int, Field(gt=0)]
    """Of training."""
    seconds_per_epoch: Above0
    """Of training alone."""
    evaluation_seconds: Above0
    epochs: Annotated[Above0 | None, Empty]
    """Until early stopping; None where no run came that far."""
    memory_bytes: Annotated[Annotated[int, Field(gt=0)] | None, Empty]
    device: str
    threads: Annotated[int, Field(gt=0)]
    source: str
    """Folder of the runs."""


class Estimates:
    """Estimates for trials from past runs and shipped figures."""

    def __init__(self, runs: Iterable[Entry], costs: Sequence[Cost] = ()) -> None:
        self._runs: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
        self._costs = costs
        self._known: dict[tuple[tuple[str, ...], int], Estimate | None] = {}
        for run in runs:
            if run.finished:
                self._runs[run.model, run.features, run.device, run.dataset_hash].append(run)

    def of(self, trial: Trial) -> Estimate | None:
        """None where nothing of the model on such a device is known."""
        identity = trial.identity
        features = str(identity["config"].get("features", ""))
        key = identity["model"], features, identity["device"], identity["dataset_hash"]
        limit = trial.epochs
        if (key, limit) not in self._known:
            interactions = len(trial.dataset.train)
            self._known[key, limit] = self._from_runs(key, limit) or self._from_costs(key, limit, interactions)
        return self._known[key, limit]

    def seconds(self, trial: Trial) -> float | None:
        """Of the estimate, where there is one."""
        estimate = self.of(trial)
        return None if estimate is None else estimate.seconds

    def memory(self, trial: Trial) -> int | None:
        """Bytes of the estimate, where there is one that knows them."""
        estimate = self.of(trial)
        return None if estimate is None else estimate.memory_bytes

    def _from_runs(self, key: tuple[str, ...], limit: int) -> Estimate | None:
        seconds, memory = [], []
        for run in self._runs.get(key, []):
            with suppress(DataError):  # a damaged run only tells nothing
                took = _seconds(run, limit)
                seconds += [] if took is None else [took]
                memory += [] if run.memory is None else [run.memory]
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


def estimates_of(store: Path, paper: Paper, unread: list[str], watch: Watch) -> Estimates:
    """From the runs in the store and the paper's figures; why others cannot be read is added to `unread`."""
    runs = entries(store, watch)
    unread += [run.reason for run in runs if run.state == "damaged"]
    return Estimates(runs, load_costs(paper.file(COST_FILE)))


def load_costs(path: Path) -> list[Cost]:
    """A file like `cost.csv`. Raises DataError naming file and line."""
    costs, columns = [], tuple(Cost.model_fields)
    for where, row in read_rows(path, columns):
        try:
            costs.append(Cost.model_validate(dict(zip(columns, row, strict=True))))
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(f"{where}: {first['loc'][0]}: {first['msg'].lower()}, found {first['input']!r}") from error
    return costs


def _seconds(run: Entry, limit: int) -> float | None:
    """What the run's first `limit` epochs took; None where it cannot tell, since its own limit ended it before that."""
    if run.seconds is None or (run.epoch < limit and run.stopped != "early"):
        return None
    if run.epoch <= limit:
        return run.seconds
    return sum(epoch.seconds + epoch.evaluation_seconds for epoch in RunRecord.read(run.path).epochs()[:limit])
