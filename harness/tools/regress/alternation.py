"""Measures one or more source trees by the same workload, each in processes of its own, one block at a time in turn.

What is measured is `workload`; what follows from the figures is `compare.regression`.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from bm3 import BM3Error
from harness.tools.regress import workload
from harness.tools.regress.measurement import Measurement, Result, Timing, Trace
from harness.tools.regress.workload import EVALUATION

Tell = Callable[[str], None]
DEADLINE_S = 900.0
"""Seconds in which a question must be answered, so that what waits for ever ends."""
PACKAGES = "packages"
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
        """Subjects that are trained whole, on the small data set."""
        return tuple(f"{self.small.name}/{model}" for model in self.models)

    @property
    def evaluation(self) -> str:
        """The subject that ranks fixed vectors, on the large data set."""
        return f"{self.large.name}/{EVALUATION}"

    @property
    def heavy(self) -> tuple[str, ...]:
        """Subjects on the large data set."""
        return (*(f"{self.large.name}/{model}" for model in self.models), self.evaluation)

    @property
    def timed(self) -> tuple[str, ...]:
        """All subjects, in the order of measuring."""
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
            _note_packages(workers, found)
            if only is None:
                _fixed_results(workers, found, plan, first=number == 0)
            _rounds(workers, found, timed, repetitions.rounds)
    for number in range(repetitions.memory if weighed else 0):
        tell(f"memory, {number + 1} of {repetitions.memory}")
        # These processes compute nothing themselves: see `workload._in_child`.
        with _workers(trees, plan, seams, steady=False) as workers:
            _memory(workers, found, weighed)
    return [each.measurement() for each in found]


def _note_packages(workers: Sequence["_Worker"], found: Sequence[_Found]) -> None:
    """What the trees compute with, where that is not the same: a difference may be these packages'."""
    names = dict.fromkeys(name for worker in workers for name in worker.versions)
    sides = {name: [worker.versions.get(name) or "none" for worker in workers] for name in names}
    differ = [f"{name} {' against '.join(versions)}" for name, versions in sides.items() if len(set(versions)) > 1]
    if differ:
        for kept in found:
            kept.notes[PACKAGES] = ", ".join(differ)


def _fixed_results(workers: Sequence["_Worker"], found: Sequence[_Found], plan: Plan, *, first: bool) -> None:
    """Conformance and accuracy: what is the same however often it is repeated, so later only to see whether it is."""
    for worker, kept in zip(workers, found, strict=True):
        if first:
            answer = worker.ask("conformance")
            if kept.takes(answer, "traces", "conformance"):
                kept.traces.update({name: Trace(**trace) for name, trace in answer["traces"].items()})
        for subject in (*plan.trained, plan.evaluation):
            for seed in plan.seeds if first else plan.seeds[:1]:
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
        yield [
            stack.enter_context(closing(_Worker(tree, plan, seam, steady)))
            for tree, seam in zip(trees, seams, strict=True)
        ]


class _Worker:
    """A process that measures one tree. Where it dies over a question, a new one takes the next.

    Raises MeasuringError when the workload does not even start.
    """

    def __init__(self, tree: Tree, plan: Plan, seam: Path | None, steady: bool) -> None:
        self._tree = tree
        # -P: the script's folder holds modules that are called like some of Python's own
        script = [str(tree.python), "-P", workload.__file__, json.dumps(asdict(plan), default=str)]
        self._command = script if seam is None else [*script, str(seam)]
        self._environment = _environment(tree, plan.threads, steady)
        self._complaints = TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 -- see close
        self._process: subprocess.Popen[str] | None = None
        self.versions: Mapping[str, str | None] = {}
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def ask(self, *question: object) -> Mapping[str, Any]:
        """The answer of a method of `Workload`; an error is one too, and so is the end of the process."""
        if self._process is None:
            self._start()
        return self._asked(question)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._end()
        self._complaints.close()

    def _start(self) -> None:
        self._complaints.seek(0)
        self._complaints.truncate()
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            encoding="utf-8",
        )
        answer = self._asked(("tree",))
        if "error" in answer:
            raise MeasuringError(f"{self._tree.name}: the workload does not run there ({answer['error']})")
        there = Path(answer["harness"]).parent
        if there != self._tree.folder.resolve():
            raise MeasuringError(f"{self._tree.name}: the packages in {there} would be measured instead")
        self.versions = answer["versions"]

    def _asked(self, question: Sequence[object]) -> Mapping[str, Any]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise AssertionError("started with pipes")
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(DEADLINE_S, give_up)
        timer.start()
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line.endswith("\n"):
            answer: Mapping[str, Any] = json.loads(line)
            return answer
        code = self._end()
        self._complaints.seek(0)
        last = (self._complaints.read().strip().splitlines() or ["no message"])[-1]
        how = f"gave no answer in {DEADLINE_S:g} s" if late.is_set() else f"ended by itself, exit code {code}"
        return {"error": f"the process {how}: {last[:300]}"}

    def _end(self) -> int | None:
        """The exit code of the process, which is not ended by this if it has ended."""
        process, self._process = self._process, None
        if process is None:
            return None
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.close()  # at the end of its questions it leaves by itself
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        return process.returncode


def _environment(tree: Tree, threads: int, steady: bool) -> dict[str, str]:
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
    memory = KEEP_MEMORY if steady else LIVE_MEMORY
    path = os.pathsep.join(filter(None, (str(tree.folder), os.environ.get("PYTHONPATH"))))
    return {**os.environ, **counts, **memory, "PYTHONPATH": path, "PYTHONHASHSEED": "0"}
