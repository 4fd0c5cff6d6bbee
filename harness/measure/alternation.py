"""Measures one or more source trees by the same workload, each in processes of its own, one block at a time in turn.

What is measured is `workload`; what follows from the figures is `compare.regression`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from bm3 import BM3Error
from harness.measure import workload
from harness.measure.measurement import Measurement, Result, Timing, Trace
from harness.measure.workload import EVALUATION

Tell = Callable[[str], None]
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**33), "MALLOC_TOP_PAD_": str(2**26)}
"""For glibc: freed memory stays with the process. Whether a block got its tensors anew from the system made LightGCN's
step take 14 or 30 ms, at random."""
LIVE_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**16), "MALLOC_ARENA_MAX": "1"}
"""For glibc: freed tensors go back to the system at once, so that the peak is of what is in use. Else holes between
them move peaks by 12 % from process to process."""


class MeasuringError(BM3Error):
    """A tree cannot be measured at all."""


@dataclass(frozen=True)
class Plan:
    """The fixed workload: what is trained, how long, on what. The same plan is comparable with itself alone."""

    models: tuple[str, ...]
    small: Path
    """Folder of the data set of short trainings."""
    large: Path
    """Folder of the data set of steps, memory and evaluation."""
    traces: Path
    training: Mapping[str, Any]
    """Settings of short trainings."""
    training_of: Mapping[str, Mapping[str, Any]]
    """What differs in it, by model."""
    steps: Mapping[str, int]
    """Steps of a block on the large data set, by model; the first one begins an epoch."""
    seeds: tuple[int, ...]
    """Of trainings whose accuracy is compared."""
    device: str
    threads: int

    @property
    def trained(self) -> tuple[str, ...]:
        return tuple(f"{self.small.name}/{model}" for model in self.models)

    @property
    def evaluation(self) -> str:
        return f"{self.large.name}/{EVALUATION}"

    @property
    def heavy(self) -> tuple[str, ...]:
        """Subjects on the large data set."""
        return (*(f"{self.large.name}/{model}" for model in self.models), self.evaluation)

    @property
    def timed(self) -> tuple[str, ...]:
        return (*self.trained, *self.heavy)


@dataclass(frozen=True)
class Repetitions:
    """How often everything is measured."""

    passes: int
    """Processes one after another: what a process happens to get, addresses for one, is the same for all its rounds."""
    rounds: int
    """Blocks of each subject per pass."""
    memory: int
    """Peaks of each subject, each from processes of its own: copies of one process peak alike."""


@dataclass(frozen=True)
class Tree:
    """A source tree that can be measured, and the Python that has its dependencies."""

    name: str
    folder: Path
    python: Path = field(default_factory=lambda: Path(sys.executable))


@dataclass
class _Found:
    """What has been measured of one tree so far."""

    timings: dict[str, list[Timing]] = field(default_factory=dict)
    memory: dict[str, list[int]] = field(default_factory=dict)
    accuracy: dict[str, dict[int, list[Result]]] = field(default_factory=dict)
    traces: dict[str, Trace] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def measurement(self) -> Measurement:
        return Measurement(
            timings=self.timings,
            memory=self.memory,
            accuracy={subject: list(seeds.values()) for subject, seeds in self.accuracy.items()},
            traces=self.traces,
            errors=self.errors,
            notes=self.notes,
        )

    def takes(self, answer: Mapping[str, Any], subject: str, quantity: str) -> bool:
        """Whether the answer is a figure; if not, it is kept as an error or as a note."""
        if "error" in answer:
            self.errors[f"{subject}: {quantity}"] = str(answer["error"])
        elif "note" in answer:
            self.notes[quantity] = str(answer["note"])
        return "error" not in answer and "note" not in answer


def measure(
    trees: Sequence[Tree],
    plan: Plan,
    repetitions: Repetitions,
    *,
    only: Mapping[str, Sequence[str]] | None = None,
    tell: Tell = lambda stage: None,
    seam: Path | None = None,
) -> list[Measurement]:
    """The measurement of each tree, blocks of the trees alternating.

    `only` names the subjects of `time` and `memory` to measure, and leaves all else out. `seam` goes to the process of
    the first tree (see `workload.main`). Raises MeasuringError when the workload does not run in a tree at all.
    """
    found = [_Found() for _ in trees]
    seams = [seam, *[None] * (len(trees) - 1)]
    timed = plan.timed if only is None else only.get("time", ())
    weighed = plan.heavy if only is None else only.get("memory", ())
    for number in range(repetitions.passes if timed or only is None else 0):
        tell(f"pass {number + 1} of {repetitions.passes}: trainings and steps")
        with _workers(trees, plan, seams, steady=True) as workers:
            if only is None:
                _fixed_results(workers, found, plan, with_traces=number == 0)
            _rounds(workers, found, timed, repetitions.rounds)
    for number in range(repetitions.memory if weighed else 0):
        tell(f"memory, {number + 1} of {repetitions.memory}")
        with _workers(
            trees, plan, seams, steady=False
        ) as workers:  # which have computed nothing: see `workload._in_child`
            _memory(workers, found, weighed)
    return [each.measurement() for each in found]


def _fixed_results(workers: Sequence["_Worker"], found: Sequence[_Found], plan: Plan, *, with_traces: bool) -> None:
    """Conformance and accuracy: what must be the same however often it is repeated."""
    for worker, kept in zip(workers, found, strict=True):
        if with_traces:
            answer = worker.ask("conformance")
            if kept.takes(answer, "traces", "conformance"):
                kept.traces.update({name: Trace(**trace) for name, trace in answer["traces"].items()})
        for subject in (*plan.trained, plan.evaluation):
            for seed in plan.seeds:
                answer = worker.ask("accuracy", subject, seed)
                if kept.takes(answer, subject, "accuracy"):
                    kept.accuracy.setdefault(subject, {}).setdefault(seed, []).append(Result(**answer))


def _rounds(workers: Sequence["_Worker"], found: Sequence[_Found], subjects: Sequence[str], rounds: int) -> None:
    for number in range(rounds):
        for subject in subjects:
            # Whoever comes second finds caches as the first left them, so they take turns.
            order = list(zip(workers, found, strict=True))
            for worker, kept in order if number % 2 == 0 else reversed(order):
                answer = worker.ask("time", subject)
                if kept.takes(answer, subject, "time"):
                    kept.timings.setdefault(subject, []).append(Timing(**answer))


def _memory(workers: Sequence["_Worker"], found: Sequence[_Found], subjects: Sequence[str]) -> None:
    for subject in subjects:
        for worker, kept in zip(workers, found, strict=True):
            answer = worker.ask("memory", subject)
            if kept.takes(answer, subject, "memory"):
                kept.memory.setdefault(subject, []).append(answer["bytes"])


@contextmanager
def _workers(
    trees: Sequence[Tree], plan: Plan, seams: Sequence[Path | None], *, steady: bool
) -> Iterator[list["_Worker"]]:
    with ExitStack() as stack:
        yield [stack.enter_context(_worker(tree, plan, seam, steady)) for tree, seam in zip(trees, seams, strict=True)]


@contextmanager
def _worker(tree: Tree, plan: Plan, seam: Path | None, steady: bool) -> Iterator["_Worker"]:
    with TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        process = subprocess.Popen(
            # -P: the script's folder holds modules that are called like some of Python's own
            [tree.python, "-P", workload.__file__, _plan_text(plan), *([] if seam is None else [str(seam)])],
            env=_environment(tree, plan.threads, steady),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            encoding="utf-8",
        )
        try:
            worker = _Worker(tree, process, complaints)
            there = Path(worker.ask("tree")["harness"]).parent
            if there != tree.folder.resolve():
                raise MeasuringError(f"{tree.name}: the packages in {there} would be measured instead")
            yield worker
        finally:
            process.kill()
            process.communicate()


class _Worker:
    """A process that measures one tree."""

    def __init__(self, tree: Tree, process: "subprocess.Popen[str]", complaints: Any) -> None:
        self._tree, self._process, self._complaints = tree, process, complaints

    def ask(self, *question: object) -> Mapping[str, Any]:
        """The answer of a method of `Workload`."""
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("started with pipes")
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            self._complaints.seek(0)
            last = (self._complaints.read().strip().splitlines() or [f"exit code {self._process.returncode}"])[-1]
            raise MeasuringError(f"{self._tree.name}: the workload does not run there ({last[:300]})")
        answer: Mapping[str, Any] = json.loads(line)
        return answer


def _plan_text(plan: Plan) -> str:
    return json.dumps(
        {
            "small": str(plan.small),
            "large": str(plan.large),
            "traces": str(plan.traces),
            "training": plan.training,
            "training_of": plan.training_of,
            "steps": plan.steps,
            "device": plan.device,
            "threads": plan.threads,
        }
    )


def _environment(tree: Tree, threads: int, steady: bool) -> dict[str, str]:
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
    memory = KEEP_MEMORY if steady else LIVE_MEMORY
    path = os.pathsep.join(filter(None, (str(tree.folder), os.environ.get("PYTHONPATH"))))
    return {**os.environ, **counts, **memory, "PYTHONPATH": path, "PYTHONHASHSEED": "0"}
