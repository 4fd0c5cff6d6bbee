"""Where a block of work, a training step or an evaluation for one, spends time, by torch operation.

Operations are timed by `torch.profiler` and products counted by `torch.utils.flop_counter`; one measured rate, that of
a large copy, says what this machine can move at best.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile
from torch.utils.flop_counter import FlopCounterMode

from harness.data.dataset import Dataset
from harness.evaluation.ranking import Evaluation
from harness.measure.timing import seconds_of
from harness.report.tables import table, text
from harness.training.config import TrainingConfig
from harness.training.fit import build
from harness.training.steps import TrainingSteps, make_deterministic
from harness.training.streams import Streams

WARM_UP_STEPS = 3
EVALUATIONS = 3
COPY_BYTES = 2**28  # of the tensor that is copied: far more than caches hold
COPIES = 5  # after one that is not counted
ROWS = 12  # operations shown by name
ATEN = "aten::"

Block = Callable[[], object]


@dataclass(frozen=True)
class Operation:
    """All calls of one torch operation in a call of the block, means over calls; what it calls counts for itself."""

    name: str
    calls: float
    seconds: float
    """On the device where there is one, else on the CPU, while it was recorded, which takes time of its own."""


@dataclass(frozen=True)
class BlockProfile:
    """One block of work; figures are per call."""

    seconds: float
    """Undisturbed wall time, nothing being recorded: median over the calls."""
    operations: tuple[Operation, ...]
    """Slowest first."""
    flops: int
    """Floating-point operations of dense products; sparse ones and elementwise work count nothing."""

    @property
    def operation_seconds(self) -> float:
        """Seconds within torch operations, as recorded."""
        return sum(operation.seconds for operation in self.operations)

    @property
    def outside_seconds(self) -> float:
        """Undisturbed seconds less those within operations: Python, numpy, autograd's bookkeeping; at least that.

        Operations take a little longer while they are recorded, so this errs to the low side, and is 0 at least.
        """
        return max(0.0, self.seconds - self.operation_seconds)


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
    copy_bytes_per_second: float
    """Of a large copy, read and written bytes both counted: no work in main memory moves more."""
    threads: int
    """Of torch on the CPU."""


def _product_flops(*tensors: Tensor, **_: Any) -> int:
    """Of a matrix product of the last two, [n, k] and [k, m]: torch counts a sparse one as if it were full."""
    left, right = tensors[-2:]
    entries = left.numel() if left.layout is torch.strided else left._nnz()
    return 2 * entries * right.shape[1]


def profile_block(
    block: Block, device: torch.device, *, warm_up: int, repeats: int, before: Block = lambda: None
) -> BlockProfile:
    """Call `block` `warm_up` times, `repeats` times undisturbed, as often recorded, and once with products counted.

    `before` is called before each call and takes no part in the figures.
    """

    def seconds() -> float:
        before()
        return seconds_of(block, device)

    undisturbed = [seconds() for _ in range(warm_up + repeats)][warm_up:]
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    found: dict[str, list[float]] = {}  # name → calls, microseconds
    for _ in range(repeats):
        before()
        with torch_profile(activities=activities, acc_events=True) as recorded:
            seconds_of(block, device)
        for event in recorded.key_averages():
            spent = event.self_device_time_total if cuda else event.self_cpu_time_total
            if event.key.startswith(ATEN) and spent:
                of = found.setdefault(event.key.removeprefix(ATEN), [0.0, 0.0])
                of[0], of[1] = of[0] + event.count, of[1] + spent
    before()
    aten, counter = torch.ops.aten, FlopCounterMode(display=False)
    counter.flop_registry |= dict.fromkeys((aten.mm, aten.addmm, aten.addmm_, aten._sparse_addmm), _product_flops)
    with counter:
        block()
    operations = [Operation(name, calls / repeats, 1e-6 * us / repeats) for name, (calls, us) in found.items()]
    slowest_first = tuple(sorted(operations, key=lambda operation: -operation.seconds))
    return BlockProfile(float(np.median(undisturbed)), slowest_first, int(counter.get_total_flops()))


def copy_rate(device: torch.device, n_bytes: int = COPY_BYTES) -> float:
    """Bytes per second of copying a float32 tensor, read and written ones both counted.

    On the CPU a copy can write around the caches, which ordinary operations seldom do.
    """
    source, target = (torch.ones(n_bytes // 4, device=device) for _ in range(2))
    taken = [seconds_of(lambda: target.copy_(source), device) for _ in range(1 + COPIES)]
    return 2 * n_bytes / float(np.median(taken[1:]))


def profile(
    model: type[Any],
    dataset: Dataset,
    config: Any,
    training: TrainingConfig,
    streams: Streams,
    device: torch.device,
    *,
    steps: int = 10,
    tell: Callable[[str], None] = lambda stage: None,
) -> ModelProfile:
    """Build and train the model as `harness.training.fit` does, for a few steps, and measure.

    The steps go over the full batches of one epoch, again and again where there are few; the first ones, the epoch's
    first among them, are warm-up. `tell` is called with what comes next. Raises BM3Error when scores are not finite.
    """
    make_deterministic()
    tell("rate of a large copy")
    rate = copy_rate(device)
    tell("building the model")
    built = build(model, dataset, config, streams, device, training)
    work = TrainingSteps(built, dataset, training, streams, device)
    tell(f"{steps} training steps, then as many recorded")
    work.start_epoch(1)
    step = profile_block(work.step, device, warm_up=WARM_UP_STEPS, repeats=steps)
    first = seconds_of(lambda: work.first_step(2), device)
    tell("evaluation")
    evaluation = Evaluation(dataset, **asdict(training.evaluation))

    def evaluate() -> object:
        return evaluation(built, "valid" if evaluation.validates else "test", device)

    # A step comes before each: models keep what has not changed since, and in training everything has.
    evaluated = profile_block(evaluate, device, warm_up=1, repeats=EVALUATIONS, before=work.step)
    return ModelProfile(step, first, len(work.batches), evaluated, rate, torch.get_num_threads())


def profile_text(profile: ModelProfile) -> str:
    """The copy rate and, for step and evaluation, a table of operations."""
    threads = f"{profile.threads} CPU thread{'s' if profile.threads > 1 else ''}"
    first = (
        f"an epoch's first step: {_ms(profile.first_step_seconds)} ms with shuffling, sampling and the model's "
        f"start_epoch; {profile.steps_per_epoch} steps per epoch"
    )
    return "\n".join(
        [
            f"a large copy moves {profile.copy_bytes_per_second / 1e9:.1f} GB/s; {threads}\n",
            f"{block_text('training step', profile.step)}{first}\n",
            block_text("evaluation (validation part)", profile.evaluation),
        ]
    ).rstrip()


def block_text(title: str, block: BlockProfile) -> str:
    """One block: its slowest operations, the rest summed, and the time outside of them.

    Shares are of the operations' time and the time outside together.
    """
    lines = [(each.name, f"{each.calls:.3g}", each.seconds) for each in block.operations[:ROWS]]
    if rest := block.operations[ROWS:]:
        lines.append((f"{len(rest)} others", f"{sum(e.calls for e in rest):.3g}", sum(e.seconds for e in rest)))
    lines.append(("outside torch operations", "", block.outside_seconds))
    whole = block.operation_seconds + block.outside_seconds
    rows = [[name, calls, _ms(s), f"{s / whole:.1%}" if whole else ""] for name, calls, s in lines]
    products = f"dense products {block.flops / 1e6:.2f} MFLOP, {block.flops / block.seconds / 1e9:.2f} GFLOP/s"
    head = f"{title}: {_ms(block.seconds)} ms measured, {_ms(block.operation_seconds)} ms in operations; {products}"
    return text(table(head, ["operation", "calls", "ms", "share"], rows, "lrrr"))


def profile_values(profile: ModelProfile) -> dict[str, Any]:
    """Everything in a profile, fit for JSON; seconds, bytes, FLOPs."""
    values = asdict(profile)
    for name in ("step", "evaluation"):
        values[name]["outside_seconds"] = getattr(profile, name).outside_seconds
    return values


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3f}"
