"""Seconds and bytes at points that differ in one size alone. What is measured there is `parts`; exponents are fitted to
the points, and judged, in `compare.scaling`.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from bm3 import BM3Error, ConfigError
from harness.data import Dataset
from harness.evaluation.compiling import use_threads
from harness.measure.memory import MemorySampler
from harness.measure.sizes import FIELDS, Sizes
from harness.tools.scaling.parts import Subject, Work, power_law_dataset, subjects_of, training_only

WARM_UP = Sizes(users=64, items=32, interactions=256, width=64, embedding=8, batch=64)
SEED = 2023
SAMPLING_S = 0.005  # between two looks at the memory of a process
PROCESS_S = 0.6  # roughly what a process takes to start and to warm up


@dataclass(frozen=True)
class Plan:
    """How growth is measured. Raises ConfigError for sizes that no data can have."""

    base: Sizes = field(default_factory=Sizes)
    multipliers: tuple[int, ...] = (1, 2, 4, 8, 16)
    """What the size that grows is multiplied by."""
    factors: tuple[str, ...] = tuple(FIELDS)
    """The sizes that grow, one at a time."""
    repetitions: int = 9
    memory_repetitions: int = 5
    """Processes per point; 0 measures no memory."""
    settle_s: float = 0.7
    """Of warming up, at each point."""

    def __post_init__(self) -> None:
        largest = max(self.multipliers)
        for factor in self.factors:
            sizes = self.base.grown(factor, largest)
            pairs = sizes.users * sizes.items
            if 2 * sizes.interactions > pairs:
                raise ConfigError(
                    f"{factor} times {largest} is {sizes.of(factor):,}: more than half of the {pairs:,} pairs of users "
                    f"and items; leave the largest --sizes out"
                )
            if sizes.batch > sizes.interactions:
                raise ConfigError(
                    f"{factor} times {largest} is {sizes.of(factor):,}: a batch larger than the "
                    f"{sizes.interactions:,} interactions; leave the largest --sizes out"
                )

    def factors_of(self, subject: Subject) -> tuple[str, ...]:
        """Those that grow and that the subject has."""
        return tuple(factor for factor in self.factors if factor in subject.factors)

    def grown(self, factor: str) -> list[Sizes]:
        """The sizes of all points of one factor, in ascending order."""
        return [self.base.grown(factor, by) for by in self.multipliers]

    @property
    def quick(self) -> bool:
        """Whether it measures at the sizes of `QUICK`."""
        return self.base == QUICK.base


QUICK = Plan(
    base=Sizes(users=512, items=128, interactions=2048, width=16, embedding=8, batch=64),
    multipliers=(1, 2, 4, 8),
    repetitions=5,
    settle_s=0.1,
)
"""A preset of seconds per model: it shows that the command works, and is too small for most exponents."""


@dataclass(frozen=True)
class Point:
    """What was measured of one subject at one size."""

    model: str
    part: str
    """Empty for the whole model."""
    factor: str
    """The size that grows."""
    sizes: Sizes
    seconds: Mapping[str, tuple[float, ...]]
    """Quantity (`step`, `epoch` of a model, `call` of a part) → one per repetition; empty where there is a note."""
    bytes: tuple[int, ...] = ()
    """Peak memory, data included, of as many processes, above what each held before; empty where not measured."""
    note: str = ""
    """Why something is missing."""

    @property
    def size(self) -> int:
        """That of the factor."""
        return self.sizes.of(self.factor)

    @property
    def quantities(self) -> tuple[str, ...]:
        """What is measured of such a subject."""
        return ("call",) if self.part else ("step", "epoch", "memory")

    def values(self, quantity: str) -> tuple[float, ...]:
        """Repetitions of a quantity: seconds, or bytes for `memory`; empty where it was not measured."""
        return self.bytes if quantity == "memory" else self.seconds.get(quantity, ())


def complete_models(plan: Plan, points: Sequence[Point]) -> set[str]:
    """The models that `points`, measured by `plan`, say all about: every size that the model or a part of it has has
    grown, and nothing is missing at any point. None are where the plan is a quick one.
    """
    known = {(point.model, point.part, point.factor, point.sizes) for point in points if not point.note}

    def complete(model: str) -> bool:
        return all(
            (model, subject.part, factor, sizes) in known
            for subject in subjects_of(model)
            for factor in subject.factors
            for sizes in plan.grown(factor)
        )

    return set() if plan.quick else {model for model in {point.model for point in points} if complete(model)}


Tell = Callable[[str], None]


def measure(models: Sequence[str], plan: Plan, device: torch.device, tell: Tell = lambda text: None) -> Iterator[Point]:
    """The points of each model and its parts, factor by factor. `tell` is called with what comes next.

    Times of all sizes of a factor are taken in turn, in a new order in every repetition, so that what slows the machine
    for a while slows all of them. Peak memory on the CPU is that of a process of its own. Raises ConfigError for a
    model that does not exist, and what a model raises; a lack of memory ends in the note of the point.
    """
    subjects = [subject for model in models for subject in subjects_of(model)]
    with TemporaryDirectory() as folder, _Processes() as processes:
        for subject in subjects:
            for factor in plan.factors_of(subject):
                tell(f"{subject.name}: {factor}")
                sizes = plan.grown(factor)
                stored = [_stored(Path(folder), each) for each in sizes]
                points = _timed(subject, factor, sizes, stored, plan, device)
                if not subject.part and plan.memory_repetitions:
                    points = [
                        _with_memory(point, path, plan.memory_repetitions, device, processes)
                        for point, path in zip(points, stored, strict=True)
                    ]
                yield from points


def expected_seconds(models: Sequence[str], plan: Plan, device: torch.device) -> dict[str, tuple[int, float]]:
    """Model → points and roughly the seconds they take: a repetition at the base, and costs taken to grow linearly."""
    found = {}
    for model in models:
        points, seconds = 0, 0.0
        for subject in subjects_of(model):
            factors = plan.factors_of(subject)
            if not factors:
                continue
            dataset = power_law_dataset(plan.base, np.random.default_rng(SEED))
            work = subject.prepare(dataset, plan.base, device)
            work.settle(0.0)
            started = time.perf_counter()
            work.repeat()
            once, n = time.perf_counter() - started, len(plan.multipliers)
            # Building a point and its first steps take about as long as two repetitions.
            per_factor = plan.settle_s * n + sum(plan.multipliers) * once * (2 + plan.repetitions)
            if not subject.part:
                per_factor += plan.memory_repetitions * (PROCESS_S * n + 2 * sum(plan.multipliers) * once)
            points += len(factors) * n
            seconds += len(factors) * per_factor
        found[model] = points, seconds
    return found


def _timed(
    subject: Subject, factor: str, sizes: Sequence[Sizes], stored: Sequence[Path], plan: Plan, device: torch.device
) -> list[Point]:
    works: dict[int, Work] = {}
    notes = {}
    for place, (each, path) in enumerate(zip(sizes, stored, strict=True)):
        try:
            works[place] = subject.prepare(_loaded(path, each), each, device)
            works[place].settle(plan.settle_s)
        except (MemoryError, torch.OutOfMemoryError) as error:
            works.pop(place, None)
            notes[place] = f"too little memory: {error}"
    draw = np.random.default_rng(SEED)
    for _ in range(plan.repetitions):
        for place in draw.permutation(list(works)):
            works[int(place)].repeat()
    seconds = {place: {name: tuple(of) for name, of in work.seconds().items()} for place, work in works.items()}
    return [
        Point(subject.model, subject.part, factor, each, seconds.get(place, {}), note=notes.get(place, ""))
        for place, each in enumerate(sizes)
    ]


def _with_memory(point: Point, path: Path, repetitions: int, device: torch.device, processes: "_Processes") -> Point:
    """The point with its peak memory. The allocator of a CUDA device keeps peaks by itself: no process is needed."""
    ask = partial(peak_bytes, point.model, path, point.sizes, device.type, torch.get_num_threads())
    try:
        found = tuple(ask() if device.type == "cuda" else processes.run(ask) for _ in range(repetitions))
    except (MemoryError, torch.OutOfMemoryError) as error:
        return replace(point, note=f"{point.note}; memory: too little of it: {error}".removeprefix("; "))
    except _EndedError as error:
        return replace(point, note=f"{point.note}; memory: {error}".removeprefix("; "))
    return replace(point, bytes=found)


def peak_bytes(model: str, path: Path, sizes: Sizes, device_type: str, threads: int) -> int:
    """Peak of loading the data, building the model and a few steps of two epochs, above what was held before.

    A tiny model of the kind goes before, so that what a process loads once and keeps counts nowhere. On the CPU it
    must be the first that a process does. Raises BM3Error where the system gives no figure.
    """
    device = torch.device(device_type)
    if device.type == "cpu":
        use_threads(threads)
    (subject,) = (subject for subject in subjects_of(model) if not subject.part)

    def train(dataset: Dataset, sizes: Sizes) -> None:
        work = subject.prepare(dataset, sizes, device)
        work.settle(0.0)
        work.repeat()
        work.seconds()

    train(power_law_dataset(WARM_UP, np.random.default_rng(SEED)), WARM_UP)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    with MemorySampler(device, SAMPLING_S) as sampler:
        train(_loaded(path, sizes), sizes)
    readings = sampler.readings()
    start, peak = readings["process_rss_start"], readings["process_rss_peak"]
    if device.type == "cuda":
        peak = readings["allocator_peak"]
    if peak.bytes is None or start.bytes is None:
        raise BM3Error(f"peak memory was not measured: {peak.note or start.note}")
    return peak.bytes - (before if device.type == "cuda" else start.bytes)


def _stored(folder: Path, sizes: Sizes) -> Path:
    """Data of these sizes as files, which a process loads without a peak of its own."""
    data = (sizes.users, sizes.items, sizes.interactions, sizes.width)
    path = folder / "-".join(map(str, data))
    if not path.is_dir():
        path.mkdir()
        dataset = power_law_dataset(sizes, np.random.default_rng(SEED))
        np.save(path / "train.npy", dataset.train)
        for name, table in dataset.features.items():
            np.save(path / f"{name}.npy", table)
    return path


def _loaded(path: Path, sizes: Sizes) -> Dataset:
    arrays: dict[str, Any] = {file.stem: np.load(file) for file in sorted(path.glob("*.npy"))}
    return training_only(sizes, arrays.pop("train"), arrays)


class _EndedError(Exception):
    """A process ended without a figure, and how."""


class _Processes:
    """Context manager that calls functions in a fresh process each.

    Processes are copies of one that has loaded this module and nothing has run in, where the system can copy.
    """

    def __init__(self) -> None:
        kind = "spawn" if sys.platform == "win32" else "forkserver"
        self._context = multiprocessing.get_context(kind)
        if kind == "forkserver":
            # Each process would load anew, for seconds: this module, what torch loads when deterministic algorithms
            # are switched on, and what compiled loops need. One that is not there is left out.
            self._context.set_forkserver_preload([__name__, "torch._inductor", "numba"])

    def __enter__(self) -> "_Processes":
        return self

    def __exit__(self, *ending: object) -> None:
        pass

    def run(self, function: Callable[[], int]) -> int:
        """Raises what the function raises, and _EndedError when its process is killed."""
        with ProcessPoolExecutor(1, mp_context=self._context) as pool:
            try:
                return pool.submit(function).result()
            except BrokenProcessPool as error:
                raise _EndedError("its process was ended, as when memory runs out") from error
