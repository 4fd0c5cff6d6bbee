"""Checks for regressions: source trees are measured by the same workload, in processes of their own that take turns.

What is measured is `worker`; what follows from the figures is `judge`. What looks worse is measured again.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, NamedTuple

import numpy as np
import torch

from bm3 import ConfigError, DataError
from harness.data.dataset import PARTS, Dataset
from harness.data.synthetic import mini, of_size
from harness.measure.environment import git
from harness.measure.gpu import GpuUnavailableError, NvmlGpu
from harness.paper.load import Paper
from harness.tools.regress import worker
from harness.tools.regress.baseline import Measurement, NothingToCompareError, Result
from harness.tools.regress.judge import Comparison, Outcome, compare, confirmed, to_repeat
from harness.tools.regress.rules import Repetitions, Rules, Workload

Tell = Callable[[str], None]
Question = Sequence[Any]
WORKLOAD_FORMAT = 2
"""Counts on when `worker` measures something else under the same names."""
PER_QUESTION_S = 60.0
"""Seconds per question, and for five more, in which a process must end, so that what waits for ever does."""
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**33), "MALLOC_TOP_PAD_": str(2**26)}
"""For glibc: freed memory stays with the process. Whether a block got its tensors anew from the system made LightGCN's
step take 14 or 30 ms, at random."""
LIVE_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**16), "MALLOC_ARENA_MAX": "1"}
"""For glibc: freed tensors go back to the system at once, so that the peak is of what is in use. Else holes between
them move peaks by 12 % from process to process."""


@dataclass(frozen=True)
class Plan:
    """The fixed workload, and the folder with what it computes on."""

    work: Mapping[str, Any]
    """All that two measurements must share to be of the same work, fit for JSON: see `plan_of`."""
    folder: Path
    """Has the data sets by name, and `traces`."""

    @property
    def trained(self) -> list[str]:
        """Subjects that are trained whole, on the small data set."""
        return [f"{self.work['small']}/{model}" for model in self.work["models"]]

    @property
    def heavy(self) -> list[str]:
        """Subjects on the large data set: steps of every model, and a ranking."""
        return [f"{self.work['large']}/{name}" for name in (*self.work["models"], worker.EVALUATION)]


def inputs(paper: Paper) -> tuple[Dataset, Dataset, Path]:
    """What the workload computes on: `mini`, one as large as the paper's first data set, and the paper's traces."""
    counts = paper.counts(paper.datasets[0])
    missing = [name for name in ("users", "items", "interactions") if name not in counts]
    if missing:
        what = f"no number of {missing[0]} of {paper.datasets[0]}, whose size the workload has"
        raise DataError(f"{paper.folder}: {what}")
    users, items, interactions = (int(counts[name].value or 0) for name in ("users", "items", "interactions"))
    return mini(), of_size(users, items, interactions), paper.file("traces")


def plan_of(
    workload: Workload, small: Dataset, large: Dataset, traces: Path, folder: Path, device: torch.device, threads: int
) -> Plan:
    """The plan, its inputs in `folder`, which every tree reads. Times are shares, or seconds where clocks are held."""
    for dataset in (small, large):
        (folder / dataset.name).mkdir()
        parts = {part: dataset.part(part) for part in PARTS}
        np.savez(folder / dataset.name / "interactions.npz", allow_pickle=False, **parts)
        for modality, table in dataset.features.items():
            np.save(folder / dataset.name / f"{modality}.npy", table, allow_pickle=False)
    shutil.copytree(traces, folder / "traces")
    work = {"format": WORKLOAD_FORMAT, **json.loads(json.dumps(asdict(workload))), "steps": workload.steps[device.type]}
    work |= {"small": small.name, "large": large.name, "hashes": [small.content_hash, large.content_hash]}
    work |= {"unit": worker.SECONDS} if clocks_held(device) else {}
    return Plan({**work, "device": device.type, "threads": threads}, folder)


def clocks_held(device: torch.device) -> bool:
    """Whether a GPU keeps to clocks that somebody has set, so that its times need no calibration."""
    if device.type == "cuda":
        with suppress(GpuUnavailableError), closing(NvmlGpu.of_torch_device(device)) as gpu:
            return gpu.clocks_held()
    return False


class Tree(NamedTuple):
    """A source tree that can be measured with the packages that are installed here."""

    name: str
    folder: Path


def check(
    here: Tree,
    plan: Plan,
    often: Repetitions,
    rules: Rules,
    before: Measurement | Tree,
    *,
    tell: Tell = lambda stage: None,
) -> tuple[Comparison, ...]:
    """Measure the tree `here` and compare it with a measurement, or with another tree that is measured in turn with it.

    What is slower or larger is measured once more, on both sides where both are trees. Raises NothingToCompareError
    when the workload does not run at all; what of it fails is in the comparisons.
    """

    def compared(often: Repetitions, only: Mapping[str, Sequence[str]] | None = None) -> tuple[Comparison, ...]:
        trees = [here, before] if isinstance(before, Tree) else [here]
        now, *there = measure(trees, plan, often, only=only, tell=tell)
        return compare(there[0] if isinstance(before, Tree) else before, now, rules, str(plan.work["device"]))

    comparisons = compared(often)
    if again := to_repeat(comparisons):
        tell("measured again: " + ", ".join(f"{name} ({kind})" for kind, names in again.items() for name in names))
        # Processes differ from one another more than rounds of one do, so a repetition is of two at least.
        once_more = replace(often, passes=max(2, often.passes), memory=max(2, often.memory))
        try:
            comparisons = confirmed(comparisons, compared(once_more, again))
        except NothingToCompareError as error:  # what was found stands
            tell(f"could not be measured again: {error}")
    return comparisons


def faults(measured: Measurement, rules: Rules, device: str) -> tuple[list[str], list[str]]:
    """What fails, so that it must not become what later checks are compared with; and what cannot be judged by it."""
    traces = {name: "passed" if status.startswith("failed") else status for name, status in measured.traces.items()}
    itself = compare(replace(measured, errors={}, traces=traces), measured, rules, device)
    said = [(one.outcome, f"{one.subject} {one.quantity} ({one.reason})") for one in itself]
    failed = [text for outcome, text in said if outcome is Outcome.REGRESSED]
    return failed, [text for outcome, text in said if outcome is Outcome.UNMEASURED]


def measure(
    trees: Sequence[Tree],
    plan: Plan,
    often: Repetitions,
    *,
    only: Mapping[str, Sequence[str]] | None = None,
    tell: Tell = lambda stage: None,
) -> list[Measurement]:
    """The measurement of each tree. Processes of the trees alternate, and who begins does too.

    `only` names the subjects of `time` and `memory` to measure, and leaves all else out. Raises NothingToCompareError
    when the workload does not run in a tree at all.
    """
    found = [Measurement() for _ in trees]
    timed = plan.heavy if only is None else only.get("time", ())
    weighed = plan.heavy if only is None else only.get("memory", ())
    turns: list[tuple[str, list[Question], Mapping[str, str]]] = []
    for number in range(often.passes if timed else 0):
        questions: list[Question] = [("traces", "traces")] if only is None and number == 0 else []
        # Accuracy is the same however often it is repeated, so later only to see whether it is.
        seeds = () if only is not None else plan.work["seeds"] if number == 0 else plan.work["seeds"][:1]
        questions += [("accuracy", subject, seed) for subject in plan.trained for seed in seeds]
        questions += [("time", subject) for _ in range(often.rounds) for subject in timed]
        turns.append((f"pass {number + 1} of {often.passes}: trainings, steps", questions, KEEP_MEMORY))
    peaks: list[Question] = [("memory", subject) for subject in weighed]
    # These processes compute nothing themselves: see `Worker.memory`.
    times = often.memory if peaks else 0
    turns += [(f"memory, {number + 1} of {times}", peaks, LIVE_MEMORY) for number in range(times)]
    sides = list(zip(trees, found, strict=True))
    for stage, questions, allocator in turns:
        tell(stage)
        for tree, kept in sides:
            for question, answer in zip(questions, _answers(tree, plan, questions, allocator), strict=True):
                _keep(kept, plan.work["seeds"], answer, *question)
        sides.reverse()  # who begins alternates
    return found


def _keep(
    kept: Measurement, seeds: Sequence[int], answer: Mapping[str, Any], kind: str, subject: str, seed: int = 0
) -> None:
    """Add what a process answered to what is known of its tree."""
    if "error" in answer:
        kept.errors[f"{subject}: {kind}"] = str(answer["error"])
    elif kind == "traces":
        kept.traces.update(answer["answer"])
    elif kind == "accuracy":
        kept.accuracy.setdefault(subject, [[] for _ in seeds])[seeds.index(seed)].append(Result(**answer["answer"]))
    else:
        figure = tuple(answer["answer"]) if kind == "time" else answer["answer"]
        getattr(kept, kind).setdefault(subject, []).append(figure)


def _answers(
    tree: Tree, plan: Plan, questions: Sequence[Question], allocator: Mapping[str, str]
) -> list[Mapping[str, Any]]:
    """One per question. Where the process dies over one, or is late, that is its answer, and another goes on."""
    found: list[Mapping[str, Any]] = []
    while len(found) < len(questions):
        lines, how = _process(tree, plan, questions[len(found) :], allocator)
        if not lines:
            raise NothingToCompareError(f"{tree.name}: the workload does not run there ({how})")
        if lines[0]["answer"] != str(tree.folder.resolve()):
            raise NothingToCompareError(f"{tree.name}: packages in {lines[0]['answer']} would be measured instead")
        found += lines[1:]
        if len(found) < len(questions):
            found.append({"error": f"the process {how}"})
    return found


def _process(
    tree: Tree, plan: Plan, questions: Sequence[Question], allocator: Mapping[str, str]
) -> tuple[list[Mapping[str, Any]], str]:
    """The lines that a process wrote, and how it ended."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(plan.work["threads"]))
    path = os.pathsep.join(filter(None, (str(tree.folder), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, **threads, **allocator, "PYTHONPATH": path, "PYTHONHASHSEED": "0"}
    asked = json.dumps({"plan": plan.work, "folder": str(plan.folder), "questions": questions}).encode()
    # -P: the script's folder holds modules that are called like some of Python's own
    deadline = PER_QUESTION_S * (5 + len(questions))
    command = [sys.executable, "-P", worker.__file__]
    with TemporaryFile() as out, TemporaryFile() as err:
        try:
            done = subprocess.run(command, input=asked, stdout=out, stderr=err, env=environment, timeout=deadline)
            how = f"ended by itself, exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            how = f"gave no answer in {deadline:g} s"
        out.seek(0)
        err.seek(0)
        written, complaints = (file.read().decode(errors="replace") for file in (out, err))
    last = (complaints.strip().splitlines() or ["no message"])[-1]
    return [json.loads(line) for line in written.split("\n")[:-1]], f"{how}: {last[:300]}"  # what is cut off has no end


def revision_of(checkout: Path, name: str) -> str:
    """The commit that `name` stands for. Raises ConfigError when there is none, or no git checkout."""
    try:
        top = Path(git(checkout, "rev-parse", "--show-toplevel"))
        if top.resolve() != checkout.resolve():  # installed somewhere below the checkout of something else
            raise ConfigError(f"--against: {checkout} is no git checkout; install the project from one with pip -e")
        return git(checkout, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except FileNotFoundError as error:
        raise ConfigError("--against: needs git, which is not installed") from error
    except subprocess.CalledProcessError as error:
        where = checkout.name or "this folder"
        raise ConfigError(f"--against {name}: no such revision in {where}, or it is no git checkout") from error


@contextmanager
def tree_of(checkout: Path, name: str) -> Iterator[Tree]:
    """The files of a revision in a temporary folder, as `git archive` gives them.

    A worktree would be listed in the repository and left there when this process is killed. Raises ConfigError for an
    unknown revision, NothingToCompareError for one whose files lie elsewhere.
    """
    commit = revision_of(checkout, name)
    with TemporaryDirectory(prefix="bm3-against-") as temporary:
        folder = Path(temporary) / "tree"
        git(checkout, "archive", "--format=zip", f"--output={folder}.zip", commit)
        with zipfile.ZipFile(f"{folder}.zip") as archive:
            archive.extractall(folder)
        if not (folder / "harness" / "tools").is_dir():
            what = f"{commit[:12]} is from before files moved into harness/tools"
            raise NothingToCompareError(f"--against {name}: {what}, and comparisons do not reach behind that")
        yield Tree(name, folder)
