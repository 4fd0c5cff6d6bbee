"""Training logs of other programs: what they say, and whether runs of ours have the same curve.

docs/verdicts.md states the grammar and the rule. Training with a log's settings is not done here.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from bm3.errors import ConfigError, DataError
from harness.common import nearest, read_text
from harness.models.registry import ModelEntry, find_model
from harness.paper.load import STRICT, Paper, Scalar, validated_file
from harness.paper.published import short_metric
from harness.paper.verdict import Range, Word, prediction_interval
from harness.runs.record import RunRecord
from harness.runs.settings import flatten
from harness.training.config import STOPPING_METRIC, TrainingConfig

NAMES = "logs.toml"
CONFIDENCE, SHARE, FEWEST = 0.95, 0.9, 3
"""Of the band of one epoch; of the epochs that must lie in it; of the runs that a band is made from."""
ROUNDING = 0.5e-4  # figures of a log have four decimals
PARTS = {"Training": "train", "Validation": "valid", "Testing": "test"}
METRICS_OF = ("valid", "test")
SHOWN = (1, 10, 50)
"""Epochs whose losses are shown; the last one compared is too."""

LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)
"""What a literal raises that is none, or is nested too deeply."""

_SETTING = re.compile(r"(\w+)=(.*)")
_COUNT = re.compile(r"The number of (users|items|inters): (\d+)")
_POINT = re.compile(r"=+(\d+)/(\d+): Parameters:(\[.*?\])=(\(.*?\))=+$")
_TRAINED = re.compile(r"epoch (\d+) training \[time: [\d.]+s, train loss: ([\d.]+|nan|inf)\]")
_FIGURES = re.compile(r"(\w+@\d+): ([\d.]+)")
_BEST = re.compile(r"Parameters: (\[.*?\])=(\(.*?\)),?$")


class LogWord(Word):
    """What becomes of a log."""

    SAME_CURVE = "same curve", "✓", "good", "losses, validation metrics, best epoch and end lie in the bands", True
    SAME_END = "same end", "≈", "near", "the best epoch's stopping metric lies in its bands, not all else does", True
    OTHER = "other", "✗", "bad", "the best epoch's stopping metric lies outside a band, on validation or test", False


@dataclass
class LoggedEpoch:
    """An epoch as logged; without metrics where the log ends before them."""

    loss: float
    """Sum over the batches."""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """Part (`valid`, `test`) → canonical metric → figure."""


@dataclass
class LoggedPoint:
    """One setting of a search."""

    settings: dict[str, Any]
    epochs: list[LoggedEpoch] = field(default_factory=list)
    parameters: int | None = None
    """How many were trained."""

    @property
    def best(self) -> int:
        """The epoch, from 1, that is best on validation; of equals the first."""
        return 1 + max(range(len(self.epochs)), key=lambda place: self.epochs[place].metrics["valid"][STOPPING_METRIC])

    def at_best(self, part: str, metric: str) -> float:
        return self.epochs[self.best - 1].metrics[part][metric]

    @property
    def name(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.settings.items())


@dataclass
class TrainingLog:
    """A log, read."""

    path: Path
    header: dict[str, str] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Part (`train`, `valid`, `test`; `all`) → `users`, `items` and `inters`."""
    points: list[LoggedPoint] = field(default_factory=list)
    called_best: dict[str, Any] | None = None
    """Settings of the point that the summary calls best, where there is one."""

    def chosen(self, number: int | None = None) -> LoggedPoint:
        """The point of this number, from 1, or the best on validation. Raises ConfigError where there is none."""
        if number is None:
            return max(self.points, key=lambda point: point.at_best("valid", STOPPING_METRIC))
        if not 1 <= number <= len(self.points):
            there = "; ".join(f"{place}: {point.name}" for place, point in enumerate(self.points, 1))
            raise ConfigError(f"{self.path}: no point {number}; it has {there}")
        return self.points[number - 1]


def read_log(path: Path) -> TrainingLog:
    """A log. Raises DataError naming the file, and the line where one is wrong."""
    log = TrainingLog(path)
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a training log ({error})") from error
    part, metrics, summary = "all", "", False
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            line = line.partition(" INFO ")[2].strip() or line.strip()
            if found := _POINT.search(line):
                log.points.append(LoggedPoint(_settings(found[3], found[4])))
            elif found := _TRAINED.match(line):
                if not log.points or int(found[1]) != len(log.points[-1].epochs):
                    raise DataError(f"{path}:{number}: epoch {found[1]} does not follow the line before it, from 0 on")
                log.points[-1].epochs.append(LoggedEpoch(float(found[2])))
            elif line in ("valid result:", "test result:"):
                metrics = line.partition(" ")[0]
            elif metrics and log.points and log.points[-1].epochs:
                log.points[-1].epochs[-1].metrics[metrics] = {k: float(v) for k, v in _FIGURES.findall(line)}
                metrics = ""
            elif line.startswith("Trainable parameters: ") and log.points:
                log.points[-1].parameters = int(line.rpartition(" ")[2])
            elif line.strip("=") in PARTS:
                part = PARTS[line.strip("=")]
            elif found := _COUNT.match(line):
                log.counts.setdefault(part, {})[found[1]] = int(found[2])
            elif " BEST " in line and "Current" not in line:
                summary = True
            elif summary and (found := _BEST.match(line)):
                log.called_best = _settings(found[1], found[2])
            elif not log.points and not log.counts and (found := _SETTING.fullmatch(line)):
                log.header[found[1]] = found[2]
    except ValueError as error:  # 1.2.3, a number of thousands of digits, settings that are none
        raise DataError(f"{path}:{number}: {error}") from error
    for point in log.points:  # an epoch whose loss is not a number ends without metrics
        point.epochs = [epoch for epoch in point.epochs if STOPPING_METRIC in epoch.metrics.get("valid", {})]
    log.points = [point for point in log.points if point.epochs]
    every = [epoch.metrics.get(part, {}).keys() for one in log.points for epoch in one.epochs for part in METRICS_OF]
    if every and any(names != every[0] for names in every):
        raise DataError(f"{path}: an epoch lacks metrics that others have, of {' or '.join(METRICS_OF)}")
    lacking = [what for what in ("dataset", "model") if what not in log.header] + ["an epoch"] * (not log.points)
    lacking += [f"the counts of {part}" for part in PARTS.values() if "inters" not in log.counts.get(part, {})]
    if lacking:
        raise DataError(
            f"{path}: no training log in the form that docs/verdicts.md states; it lacks {', '.join(lacking)}"
        )
    return log


def _settings(names: str, values: str) -> dict[str, Any]:
    try:
        return dict(zip(ast.literal_eval(names), ast.literal_eval(values), strict=True))
    except LITERAL as error:
        raise ValueError(f"settings cannot be read: {names}={values}") from error


class _LoggedModel(BaseModel):
    model_config = STRICT
    name: str
    settings: dict[str, str] = {}
    fixed: dict[str, str] = {}
    set: dict[str, Scalar] = {}
    note: str = ""
    vectors: str = ""


class LogNames(BaseModel):
    """The file `logs.toml`."""

    model_config = STRICT
    settings: dict[str, str]
    fixed: dict[str, str]
    models: dict[str, _LoggedModel]


@dataclass(frozen=True)
class Meant:
    """What a log's point is here."""

    entry: ModelEntry
    settings: dict[str, Any]
    """Of the model and of training, by their names here."""
    notes: list[str]


def meant(log: TrainingLog, point: LoggedPoint, paper: Paper) -> Meant:
    """The model and the settings here. Raises ConfigError for what has no name here, or another value than here."""
    names = validated_file(paper.file(NAMES), TypeAdapter(LogNames))
    known = names.models[nearest(log.header["model"], [*names.models], f"{log.path}: {NAMES} has no model")]
    entry = find_model(known.name)
    for key, value in (names.fixed | known.fixed).items():
        if log.header.get(key, value) != value:
            raise ConfigError(f"{log.path}: {key} is {log.header[key]}; training here has {value} and no other")
    of_model = {one.name for one in fields(entry.model.Config)}
    ours = {*of_model, *flatten(asdict(TrainingConfig()))}
    translated = names.settings | known.settings
    if nameless := [key for key in point.settings if key != "seed" and translated.get(key) not in ours]:
        raise ConfigError(f"{log.path}: {nameless[0]}, which it varies, has no name here: add it to {NAMES}")
    stated = {key: _value(text) for key, text in log.header.items()} | point.settings
    settings = {translated[key]: value for key, value in stated.items() if translated.get(key) in ours} | known.set
    notes = [f"{key} is {value} here: {known.note}" for key, value in known.set.items()]
    defaults = [f"{key}={getattr(entry.model.Config(), key)}" for key in sorted(of_model - settings.keys())]
    notes += [f"not in the log, so as by default here: {' '.join(defaults)}"] if defaults else []
    if log.called_best not in (None, point.settings):
        notes.append(f"the log's summary calls another point best: {log.called_best}")
    if entry.model.reads_features:
        notes.append(
            "the log does not say which vectors it read: the word is about the curve, and says nothing for the vectors"
        )
        notes += [known.vectors] if known.vectors else []
    return Meant(entry, settings, notes)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except LITERAL:
        return text


def check_counts(log: TrainingLog, users: int, items: int, parts: Mapping[str, int]) -> None:
    """Raises DataError where the log's data are not these: users, items, interactions by part."""
    theirs = {part: log.counts[part]["inters"] for part in PARTS.values()}
    whole = log.counts.get("all", {})
    if theirs["valid"] == parts["test"] != parts["valid"] and theirs["test"] == parts["valid"]:
        raise DataError(f"{log.path}: its validation part is the test part here, and the other way round")
    told = {"users": (whole.get("users", users), users), "items": (whole.get("items", items), items)}
    told |= {f"interactions of {part}": (theirs[part], parts[part]) for part in theirs}
    for what, (there, here) in told.items():
        if there != here:
            raise DataError(f"{log.path}: {there:,} {what}, here {here:,}: not the same data, or another split")


@dataclass(frozen=True)
class Compared:
    """One quantity of a log against ours: a figure, or all epochs of a curve."""

    quantity: str
    log: float | None
    ours: float | None
    band: Range | None
    inside: int
    """How many of `epochs` lie in their band."""
    epochs: int
    first_outside: int | None = None
    shown: bool = False
    """Whether it is there to be read and decides nothing."""

    @property
    def held(self) -> bool:
        return self.inside >= SHARE * self.epochs


def compare(point: LoggedPoint, runs: Sequence[RunRecord], batches: int, metrics: Sequence[str]) -> list[Compared]:
    """The curve, then the end, of a point against finished runs. `batches` per epoch; `metrics` canonical."""
    metrics = [
        metric for metric in metrics if metric in point.epochs[0].metrics["valid"].keys() & runs[0].outcome.valid.keys()
    ]
    ours = [run.epochs() for run in runs]
    length = min(len(point.epochs), *map(len, ours))
    losses = [[(epochs[t].loss or 0.0) * batches for epochs in ours] for t in range(length)]
    found = [_curve("loss sum", [epoch.loss for epoch in point.epochs[:length]], losses)]
    for metric in metrics:
        theirs = [epoch.metrics["valid"][metric] for epoch in point.epochs[:length]]
        found.append(
            _curve(f"valid {short_metric(metric)}", theirs, [[e[t].valid[metric] for e in ours] for t in range(length)])
        )
    for epoch in dict.fromkeys(min(epoch, length) for epoch in (*SHOWN, length)):
        of_epoch = _figure(f"loss sum, epoch {epoch}", point.epochs[epoch - 1].loss, losses[epoch - 1], shown=True)
        found.append(of_epoch)
    found.append(_figure("best epoch", point.best, [run.outcome.best_epoch for run in runs]))
    for part in METRICS_OF:
        for metric in metrics:
            values = [getattr(run.outcome, part)[metric] for run in runs]
            found.append(_figure(f"best epoch's {part} {short_metric(metric)}", point.at_best(part, metric), values))
    return found


def about_parameters(point: LoggedPoint, run: RunRecord) -> str:
    """How many parameters were trained, there and here: a width that means something else shows in it."""
    here, there = run.outcome.parameters, point.parameters
    if there is None or here is None:
        return "trained parameters: not known"
    if there == here:
        return f"trained parameters: {here:,}, as in the log"
    why = "surrogates have other widths" if run.dataset.surrogates else "a setting means something else there"
    return f"trained parameters: {there:,} in the log, {here:,} here: {why}"


def word_of(found: Sequence[Compared], runs: int) -> LogWord | None:
    """What becomes of the log; None with fewer runs than a band is made from."""
    if runs < FEWEST:
        return None
    end = [
        one
        for one in found
        if one.quantity.startswith("best epoch's ") and one.quantity.endswith(short_metric(STOPPING_METRIC))
    ]
    if not all(one.held for one in end):
        return LogWord.OTHER
    return LogWord.SAME_CURVE if all(one.held for one in found if not one.shown) else LogWord.SAME_END


def _figure(quantity: str, log: float, values: Sequence[float], *, shown: bool = False) -> Compared:
    """Its band is where one more run is expected, widened by the rounding of what is logged."""
    expected = prediction_interval(values, CONFIDENCE)
    band = None if expected is None else (expected[0] - ROUNDING, expected[1] + ROUNDING)
    inside = band is not None and band[0] <= log <= band[1]
    return Compared(quantity, log, sum(values) / len(values), band, int(inside), 1, shown=shown)


def _curve(quantity: str, log: Sequence[float], values: Sequence[Sequence[float]]) -> Compared:
    of_epochs = [_figure(quantity, theirs, ours).inside for theirs, ours in zip(log, values, strict=True)]
    outside = next((place for place, inside in enumerate(of_epochs, 1) if not inside), None)
    return Compared(quantity, None, None, None, sum(of_epochs), len(of_epochs), outside)
