"""Where a block of work, a training step or an evaluation for one, spends time, and how far that is from its floor.

What is recorded of an operation is `operations`, the machine's rates are `roofline`; texts are `report.profile`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import cycle, pairwise
from typing import Any

import numpy as np
import torch

from bm3 import Batch
from harness.data import Dataset
from harness.evaluation import Evaluation
from harness.tools.profiling.operations import Floor, Operation, OperationCounter
from harness.tools.profiling.roofline import MachineRates, measure_rates, seconds_of
from harness.training import Streams, TrainingConfig, build
from harness.training.batches import EpochBatches
from harness.training.fit import make_deterministic, matmul_precision, reads_ahead, start_epoch, train_step
from harness.training.optimiser import adam

WARM_UP_STEPS = 3
EVALUATIONS = 3

Block = Callable[[], object]


@dataclass(frozen=True)
class BlockProfile:
    """One block of work; figures are per call. Operations, slowest first: median seconds, the rest means over calls."""

    seconds: float
    """Undisturbed wall time, nothing being recorded: median over the calls."""
    timed_seconds: float
    """The same while operations are timed, which takes time of its own: never a measure of the block."""
    operations: tuple[Operation, ...]
    floor: Floor

    @property
    def operation_seconds(self) -> float:
        """Seconds within torch operations, as timed; each call has some microseconds of its own for being timed."""
        return sum(operation.seconds for operation in self.operations)

    @property
    def outside_seconds(self) -> float:
        """Undisturbed seconds less those within operations: Python, numpy, autograd's bookkeeping. At least that.

        Operations take a little longer while they are timed, so this errs to the low side, and is 0 where the
        difference would be negative: then it was too small to be seen.
        """
        return max(0.0, self.seconds - self.operation_seconds)

    @property
    def bytes(self) -> float:
        """Bytes that the operations read and wrote, each operation for itself."""
        return sum(operation.bytes for operation in self.operations)

    def floor_seconds(self, rates: MachineRates) -> float:
        """What the floor takes at the machine's rates (see `Floor` for what it is not)."""
        return rates.shortest_seconds(self.floor.bytes, self.floor.flops)


@dataclass(frozen=True)
class ModelProfile:
    """A model's training step and evaluation on one machine."""

    step: BlockProfile
    """A step on a full batch that is not an epoch's first."""
    first_step_seconds: float
    """An epoch's first step with all that an epoch begins with: shuffling, sampling, `start_epoch`. Measured once."""
    steps_per_epoch: int
    evaluation: BlockProfile
    """Ranking the validation part after a training step, metrics included."""
    rates: MachineRates


def profile_block(
    block: Block, device: torch.device, *, warm_up: int = 3, repeats: int = 10, before: Block | None = None
) -> BlockProfile:
    """Call `block` `warm_up` times, then `repeats` times undisturbed, timing its operations, and counting bytes.

    `block` may be anything, a step of somebody else's model for one. `before`, where given, is called before each call
    and takes no part in the figures. Raises ValueError unless `repeats` is positive.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, not {repeats}")

    def seconds(counter: OperationCounter | None = None) -> float:
        if before is not None:
            before()
        with counter or nullcontext():
            return seconds_of(block, device)

    for _ in range(warm_up):
        seconds()
    undisturbed = [seconds() for _ in range(repeats)]
    timed_seconds, timed, counted, floors = [], [], [], []
    for _ in range(repeats):
        timer = OperationCounter(device, seconds_only=True)
        timed_seconds.append(seconds(timer))
        timed.append(timer.operations())
    for _ in range(repeats):
        counter = OperationCounter(device)
        seconds(counter)
        counted.append(counter.operations())
        floors.append(counter.floor())
    return BlockProfile(
        seconds=float(np.median(undisturbed)),
        timed_seconds=float(np.median(timed_seconds)),
        operations=_per_call(timed, counted),
        floor=_mean_floor(floors),
    )


def profile(
    model: type[Any],
    dataset: Dataset,
    config: Any,
    training: TrainingConfig,
    streams: Streams,
    device: torch.device,
    *,
    steps: int = 10,
    rates: MachineRates | None = None,
    tell: Callable[[str], None] = lambda stage: None,
) -> ModelProfile:
    """Build and train the model as `harness.training.fit` does, for a few steps, and measure.

    The steps go over the full batches of one epoch, again and again where there are few; the first ones, the epoch's
    first among them, are warm-up. `rates` are measured unless given. `tell` is called with what comes next. Raises
    BM3Error when scores are not finite.
    """
    make_deterministic()
    if rates is None:
        tell("rates of this machine")
        with matmul_precision(training.precision):
            rates = measure_rates(device)
    tell("building the model")
    work = TrainingSteps(
        build(model, dataset, config, streams, device, training.features_location), dataset, training, streams, device
    )
    tell(f"{steps} training steps, then as many with operations timed, and with bytes counted")
    work.start_epoch(1)
    step = profile_block(work.step, device, warm_up=WARM_UP_STEPS, repeats=steps)
    first = seconds_of(lambda: work.first_step(2), device)
    tell("evaluation")
    evaluation = Evaluation(dataset, **asdict(training.evaluation))

    def evaluate() -> object:
        return evaluation(work.model, "valid", device)

    return ModelProfile(
        step=step,
        first_step_seconds=first,
        steps_per_epoch=len(work.batches),
        # A step comes before each: models keep what has not changed since, and in training everything has.
        evaluation=profile_block(evaluate, device, warm_up=1, repeats=EVALUATIONS, before=work.step),
        rates=rates,
    )


class TrainingSteps:
    """A model's steps as `fit` makes them, one at a time, over the full batches of an epoch in turn."""

    def __init__(
        self, model: Any, dataset: Dataset, training: TrainingConfig, streams: Streams, device: torch.device
    ) -> None:
        self.model, self._training, self._streams, self._device = model, training, streams, device
        self.batches = EpochBatches(
            dataset.train,
            dataset.n_items,
            batch_size=training.batch_size,
            uses_negatives=model.uses_negatives,
            streams=streams,
            device=device,
        )
        self._optimiser = adam(model, training.learning_rate)
        self._ahead = reads_ahead(model)
        self._next: Iterator[tuple[Batch, Batch]] = iter(())

    def start_epoch(self, epoch: int) -> None:
        """All that comes before an epoch's first step (epochs count from 1)."""
        start_epoch(self.model, self._optimiser, self._training, self._streams, self._device, epoch)
        batches = list(self.batches.epoch(epoch))
        # The last batch may be shorter, and would be no measure of a step.
        self._next = pairwise(cycle([batch for batch in batches if len(batch.users) == len(batches[0].users)]))

    def first_step(self, epoch: int) -> None:
        """The beginning of an epoch and its first step."""
        self.start_epoch(epoch)
        self.step()

    def step(self) -> None:
        """The next step of the epoch that was started."""
        batch, following = next(self._next)
        with matmul_precision(self._training.precision):
            train_step(self.model, self._optimiser, batch, following if self._ahead else None)


def _per_call(timed: Sequence[list[Operation]], counted: Sequence[list[Operation]]) -> tuple[Operation, ...]:
    """Operations of several calls as those of one: median seconds of `timed`, means of all else in `counted`."""
    by_name, counts_by_name = ([{o.name: o for o in call} for call in calls] for calls in (timed, counted))
    found = []
    for name in dict.fromkeys(name for call in (*by_name, *counts_by_name) for name in call):
        nothing = Operation(name, 0, 0, 0, 0)  # in a call that had no such operation
        counts = [call.get(name, nothing) for call in counts_by_name]
        found.append(
            Operation(
                name,
                calls=_mean(o.calls for o in counts),
                seconds=float(np.median([call.get(name, nothing).seconds for call in by_name])),
                bytes=_mean(o.bytes for o in counts),
                flops=_mean(o.flops for o in counts),
            )
        )
    return tuple(sorted(found, key=lambda operation: -operation.seconds))


def _mean_floor(floors: Sequence[Floor]) -> Floor:
    return Floor(
        read_bytes=_mean(floor.read_bytes for floor in floors),
        written_bytes=_mean(floor.written_bytes for floor in floors),
        flops=_mean(floor.flops for floor in floors),
    )


def _mean(amounts: Iterable[float]) -> float:
    return float(np.mean(list(amounts)))
