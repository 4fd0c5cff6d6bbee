"""The self-check: do the models still learn here what they learned when the reference was made?

It shows that this program does on this machine what it did elsewhere. It belongs to the harness and to no paper: it is
no evidence on any published figure, and has words of its own.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass as validated
from scipy.special import stdtrit

from bm3.errors import DataError
from harness.common import number, write_json, writing
from harness.paper.load import STRICT, validated_file
from harness.paper.verdict import Word
from harness.runs.record import RunRecord
from harness.training.config import STOPPING_METRIC

SUITE, FILE = "selfcheck", "reference/selfcheck.json"
METRIC = STOPPING_METRIC
FEWEST_SEEDS = 20
"""Of each model in a reference."""


class Outcome(Word):
    """What became of one model."""

    CONSISTENT = "consistent", "✓", "good", "the mean over the seeds run here lies in the prediction interval", True
    INCONSISTENT = "inconsistent", "✗", "bad", "it lies elsewhere, or a run gave a value that is not finite", False


@validated(frozen=True, config=STRICT)
class ModelReference:
    """What a model learned."""

    settings: dict[str, Any]
    """Those that differ from their defaults."""
    values: Annotated[dict[int, float], Field(min_length=FEWEST_SEEDS)]
    """Seed → test metric."""

    def interval(self, n: int, error: float) -> tuple[float, float]:
        """Prediction interval of the mean over `n` further seeds: m ± t_{N−1} s √(1/n + 1/N), at 1 − error."""
        known = list(self.values.values())
        quantile = float(stdtrit(len(known) - 1, 1 - error / 2))
        half = quantile * stdev(known) * math.sqrt(1 / n + 1 / len(known))
        return fmean(known) - half, fmean(known) + half


@validated(frozen=True, config=STRICT)
class Reference:
    """The file `reference/selfcheck.json` of a paper."""

    dataset: str
    dataset_hash: str
    metric: str
    command: str
    """What made the runs."""
    environment: dict[str, str]
    """Where they were made: every value that some run recorded, by what it is."""
    models: Annotated[dict[str, ModelReference], Field(min_length=1)]


@dataclass(frozen=True)
class Checked:
    """A model against the reference."""

    model: str
    outcome: Outcome | None
    """None where there is nothing to compare."""
    values: Mapping[int, float]
    """Seed → test metric of the runs that count."""
    interval: tuple[float, float] | None
    """In which their mean is expected."""
    reference: float | None
    """Mean of the reference."""
    reason: str
    """Why nothing was compared; empty where something was."""

    @property
    def mean(self) -> float | None:
        return fmean(self.values.values()) if self.values else None


def load_reference(path: Path) -> Reference:
    """Raises DataError naming the file and the field."""
    return validated_file(path, TypeAdapter(Reference))


def write_reference(reference: Reference, path: Path) -> None:
    """Raises WriteError."""
    with writing(path):
        write_json(path, asdict(reference))


def check(
    runs: Iterable[RunRecord], reference: Reference, error: float, asked: Sequence[str] = ()
) -> tuple[Checked, ...]:
    """Each model that was asked for or run, in the order of the reference; `error` is that of all models together.

    A run counts if it is on the same data with the same settings and a seed that the reference does not have: the same
    seed would only show that a machine repeats itself.
    """
    by_model = _finished_by_model(runs)
    models = [model for model in reference.models if model in by_model or model in asked]
    models += [model for model in asked if model not in reference.models]
    return tuple(_checked(model, by_model.get(model, []), reference, error) for model in models)


def _finished_by_model(runs: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    found: dict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        if run.finished:
            found[run.model].append(run)
    return dict(found)


def _checked(model: str, runs: Sequence[RunRecord], reference: Reference, error: float) -> Checked:
    if (known := reference.models.get(model)) is None:
        return Checked(model, None, {}, None, None, "the reference does not have it")
    alike = [run for run in runs if of_self_check(run, reference)]
    values = {int(run.seed): run.outcome.test[reference.metric] for run in alike if run.seed not in known.values}
    mean_known = fmean(known.values.values())
    if not values:
        reason = "its seeds are those of the reference" if alike else "data or settings are not those of the reference"
        reason = reason if runs else "no run has a result"
        return Checked(model, None, values, None, mean_known, reason)
    low, high = known.interval(len(values), error / len(reference.models))
    inside = low <= fmean(values.values()) <= high  # False for NaN
    return Checked(model, Outcome.CONSISTENT if inside else Outcome.INCONSISTENT, values, (low, high), mean_known, "")


def reference_from(runs: Iterable[RunRecord], asked: Sequence[str] = ()) -> Reference:
    """Finished runs as a reference: one data set, one setting and at least 20 seeds of each model, those asked for too.

    Raises DataError where they are not that.
    """
    by_model = _finished_by_model(runs)
    names = {(run.dataset.name, run.dataset_hash) for found in by_model.values() for run in found}
    if len(names) != 1:
        raise DataError(f"a reference is of one data set, the runs are of {len(names)}")
    ((dataset, dataset_hash),) = names
    if missing := [model for model in asked if model not in by_model]:
        raise DataError(f"no run of {', '.join(missing)} has a result; a reference has all models of the suite {SUITE}")
    models = {}
    seen: dict[str, dict[str, None]] = defaultdict(dict)
    for model, found in by_model.items():
        settings = found[0].changed_settings
        values = {int(run.seed): run.outcome.test[METRIC] for run in found}
        if any(run.changed_settings != settings for run in found):
            raise DataError(f"{model}: its runs have different settings; a reference is of one")
        if len(values) < FEWEST_SEEDS or not all(math.isfinite(value) for value in values.values()):
            raise DataError(f"{model}: {len(values)} seeds; a reference needs at least {FEWEST_SEEDS}, all finite")
        models[model] = ModelReference(settings, dict(sorted(values.items())))
        for key, value in (pair for run in found for pair in run.environment.items() if pair[1] is not None):
            seen[key][str(value)] = None
    seeds = sorted({seed for known in models.values() for seed in known.values})
    span = f"{seeds[0]}-{seeds[-1]}" if len(seeds) == seeds[-1] - seeds[0] + 1 else ",".join(map(str, seeds))
    command = f"bm3 reproduce {SUITE} --seeds {span} --threads {'/'.join(seen['torch_threads'])} --out DIR"
    return Reference(dataset, dataset_hash, METRIC, command, {key: ", ".join(seen[key]) for key in seen}, models)


def of_self_check(run: RunRecord, reference: Reference) -> bool:
    """Whether the run is of the data and the settings of the self-check, which trains too briefly for comparisons."""
    known = reference.models.get(run.model)
    settings = json.loads(json.dumps(run.changed_settings))  # where a tuple is a list, as in the reference
    return known is not None and (run.dataset_hash, settings) == (reference.dataset_hash, known.settings)


def headline(checked: Sequence[Checked]) -> str:
    """What the self-check found, in two sentences, the second on what it does not show."""
    if not checked:
        return "Self-check: no model was run."
    named = {word: [one.model for one in checked if one.outcome is word] for word in Outcome}
    text = f"Self-check: {len(named[Outcome.CONSISTENT])} of {len(checked)} models consistent"
    if wrong := named[Outcome.INCONSISTENT]:
        text += f", {len(wrong)} inconsistent ({', '.join(wrong)})"
    if without := [one.model for one in checked if one.outcome is None]:
        text += f", {len(without)} not compared ({', '.join(without)})"
    return f"{text}. It shows whether models learn here what they learned before, and nothing about published figures."


def exit_code(checked: Sequence[Checked]) -> int:
    """1 if a model is inconsistent, else 3 if one could not be compared or none was run, else 0."""
    if any(one.outcome is Outcome.INCONSISTENT for one in checked):
        return 1
    return 3 if not checked or any(one.outcome is None for one in checked) else 0


NOTE = (
    "Test R@20, mean over seeds. It is expected in the prediction interval that the reference gives for the "
    "mean of as many new seeds; tolerances.toml says how often an unchanged model may leave it."
)
HEAD = ("model", "seeds", "mean", "reference", "expected between", "result")


def table(checked: Sequence[Checked]) -> list[tuple[str, ...]]:
    """Under HEAD, a line per model: its test metric here and in the reference."""
    return [
        (
            one.model,
            ", ".join(map(str, one.values)) or "–",
            number(one.mean),
            number(one.reference),
            "–" if one.interval is None else " and ".join(map(number, one.interval)),
            one.reason if one.outcome is None else f"{one.outcome.mark} {one.outcome}",
        )
        for one in checked
    ]
