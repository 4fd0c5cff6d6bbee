"""The epoch loop: train, validate, stop early, restore the best epoch, test. Checkpoints are all that it writes.

Where results go is `runs`; what they are compared with is `paper`.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from bm3 import BM3Error, Loss, Recommender
from harness.common import DivergedError
from harness.data.dataset import Dataset, in_memory
from harness.evaluation.metrics import Ranking, known_metrics
from harness.evaluation.ranking import Evaluation
from harness.measure.timing import EpochClock, TimingSummary
from harness.models.closed_form import ClosedForm
from harness.models.features import feature_tables
from harness.training.checkpoint import Checkpoints, KeptState, TrainingState
from harness.training.config import EarlyStopping, TrainingConfig
from harness.training.steps import TrainingSteps, make_deterministic
from harness.training.streams import Streams
from harness.training.vectors import vectors_read

_TOTAL = ""  # beside the names of a loss's parts


@dataclass(frozen=True)
class EpochRecord:
    """One finished epoch. `loss` and `parts` are means over its batches, before each step; times in seconds.

    A model in closed form has one epoch, its `fit`, and no loss.
    """

    epoch: int
    loss: float | None
    parts: Mapping[str, float]
    seconds: float
    evaluation_seconds: float
    valid: Mapping[str, float]
    improved: bool
    sampling_seconds: float
    """What drawing its negatives took: of `seconds`, or beside the epoch before; 0 where none are drawn."""


@dataclass(frozen=True)
class Fit:
    """A finished training: `valid` and `test` are the metrics of `best_epoch`, whose parameters the model now has."""

    best_epoch: int
    epochs: int
    stopped: Literal["early", "limit", "closed form"]
    valid: Mapping[str, float]
    test: Mapping[str, float]
    test_ranking: Ranking
    """What `test` is made of."""
    timing: TimingSummary


@dataclass(frozen=True)
class Resume:
    """What an interrupted training left, to go on from."""

    state: TrainingState
    records: Sequence[EpochRecord]
    """Of all its epochs, in order."""
    begun_after: Sequence[int]
    """Epochs after which a process began, 0 for the first: the epoch that follows was a warm-up."""


class StoppingRule:
    """Keeps the best validation value and says when to stop (see `EarlyStopping`)."""

    def __init__(self, settings: EarlyStopping) -> None:
        self._settings = settings
        self._best = -math.inf
        self._without_best = 0

    def improves(self, value: float) -> bool:
        """Take note of the next validation; True when it is a new best."""
        if self._settings.rounding != "none":
            value = round(value, self._settings.rounding)
        if value > self._best:
            self._best, self._without_best = value, 0
            return True
        self._without_best += 1
        return False

    @property
    def stop(self) -> bool:
        return self._without_best > self._settings.patience


def build(
    model: type[Recommender],
    dataset: Dataset,
    config: Any,
    streams: Streams,
    device: torch.device,
    training: TrainingConfig | None = None,
) -> Recommender:
    """The model on `device`, initialised on the CPU from the stream `initialisation`, so alike for every device.

    It reads item vectors as `training` says. Given ones stay in main memory or in their file if its `features_location`
    says so and the model reads only rows. Raises DataError where the data set lacks a modality.
    """
    training = training or TrainingConfig()
    features = vectors_read(dataset.features, training.vectors, streams)
    if model.reads_features and training.features_location != "disk":
        features = {name: in_memory(table) for name, table in features.items()}
    with streams.chance("initialisation"):
        built = model(replace(dataset, features=features), config, streams.torch("initialisation"))
    if device.type != "cpu":
        for table in feature_tables(built):
            off_device = training.features_location != "device" and table.by_row
            table.off_device = off_device and not table.table.requires_grad
    return built.to(device)


def fit(
    model: Recommender,
    dataset: Dataset,
    training: TrainingConfig,
    streams: Streams,
    device: torch.device,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    *,
    checkpoints: Checkpoints | None = None,
    resume: Resume | None = None,
) -> Fit:
    """Train `model` in place as the published experiment did (full ranking after every epoch) and evaluate it.

    Without a validation part every epoch is the best so far, so that the last of all that were asked for is tested.
    `on_epoch` is called after every epoch, and the training's state then given to `checkpoints`. Bit-identical for
    equal arguments on one machine, also when it goes on from `resume`, which equal arguments left behind. Raises
    BM3Error when the loss is not finite, WriteError when a checkpoint cannot be written. A model in closed form is
    fitted instead, once, and keeps no checkpoint.
    """
    make_deterministic()
    metric = training.early_stopping.metric
    evaluate, clock = evaluation_of(dataset, training), EpochClock(device)
    if isinstance(model, ClosedForm):
        return _fit_at_once(model, evaluate, clock, device, on_epoch)
    steps, rule = TrainingSteps(model, dataset, training, streams, device), StoppingRule(training.early_stopping)
    best: EpochRecord | None = None
    best_state = KeptState(None if checkpoints is None else checkpoints.path.parent)
    epoch = 0
    if resume is not None:
        epoch = resume.state.epoch
        model.load_state_dict(resume.state.model)
        steps.optimiser.load_exact_state(resume.state.optimiser)
        clock.resume(
            [record.seconds for record in resume.records],
            [record.evaluation_seconds for record in resume.records if record.valid],
            resume.begun_after,
        )
        for record in resume.records:
            if not record.valid or rule.improves(record.valid[metric]):
                best = record
        best_state.keep(resume.state.best)
    try:
        while epoch < training.epochs and not rule.stop:
            epoch += 1
            clock.start()
            with streams.chance("model", epoch):
                steps.prepare(epoch)
                loss, parts = _means(steps.epoch(epoch), len(steps.batches), epoch)
            steps.optimiser.catch_up()
            seconds = clock.stop()
            valid, evaluation_s = _validation(model, evaluate, clock, device)
            improved = not valid or rule.improves(valid[metric])
            sampling_s = steps.batches.sampling_seconds
            record = EpochRecord(epoch, loss, parts, seconds, evaluation_s, valid, improved, sampling_s)
            if improved:
                best = record
                best_state.keep(model.state_dict())
            on_epoch(record)
            if checkpoints is not None and checkpoints.due and best is not None:
                state = model.state_dict()
                best_or_same = state if improved else best_state
                checkpoints.save(TrainingState(epoch, state, steps.optimiser.exact_state(), best_or_same))
    finally:
        steps.optimiser.release()
    if best is None:
        raise BM3Error(f"no epoch has a usable validation {metric}")
    model.load_state_dict(best_state)
    best_state.drop()
    ranking = evaluate.ranking(model, "test", device)
    test = ranking.metrics(evaluate.cutoffs, known_metrics())
    return Fit(best.epoch, epoch, "early" if rule.stop else "limit", best.valid, test, ranking, clock.summary())


def evaluation_of(dataset: Dataset, training: TrainingConfig) -> Evaluation:
    """As the settings say."""
    return Evaluation(dataset, **asdict(training.evaluation), also=training.early_stopping.metric)


def _validation(
    model: Recommender, evaluate: Evaluation, clock: EpochClock, device: torch.device
) -> tuple[dict[str, float], float]:
    """Its metrics and seconds; none where there is no validation part."""
    if not evaluate.validates:
        return {}, 0.0
    with clock.evaluation():
        valid = evaluate(model, "valid", device)
    return valid, clock.evaluations_s[-1]


def _fit_at_once(
    model: ClosedForm,
    evaluate: Evaluation,
    clock: EpochClock,
    device: torch.device,
    on_epoch: Callable[[EpochRecord], None],
) -> Fit:
    with torch.no_grad():
        clock.start()
        model.fit()
        seconds = clock.stop()
    valid, evaluation_s = _validation(model, evaluate, clock, device)
    on_epoch(EpochRecord(1, None, {}, seconds, evaluation_s, valid, improved=True, sampling_seconds=0.0))
    ranking = evaluate.ranking(model, "test", device)
    test = ranking.metrics(evaluate.cutoffs, known_metrics())
    timing: TimingSummary = {**clock.summary(), "note": "fitted at once, in its first epoch"}
    return Fit(1, 1, "closed form", valid, test, ranking, timing)


def _means(steps: Iterable[Loss], n: int, epoch: int) -> tuple[float, dict[str, float]]:
    """Means of the losses of at most `n` steps and of their parts. Raises BM3Error when the first is not finite.

    Each value goes into a place made for it, and is read when the epoch ends: reading one would make the device wait in
    every step. Kept as they come, such scalars would lie between the large tensors of each step, whose memory could not
    be used again: gigabytes in an epoch.
    """
    values: dict[str, Tensor] = {}
    counts = Counter[str]()
    for loss in steps:
        for name, value in {_TOTAL: loss.total, **loss.parts}.items():
            if name not in values:
                values[name] = value.new_empty(n)
            values[name][counts[name]].copy_(value.detach())
            counts[name] += 1
        del loss, value  # before the next step is made
    means = {name: float(found[: counts[name]].mean()) for name, found in values.items()}
    mean = means.pop(_TOTAL)
    if not math.isfinite(mean):
        raise DivergedError(f"the loss is {mean} in epoch {epoch}: training diverged, try a smaller learning_rate")
    return mean, means
