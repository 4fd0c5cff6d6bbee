"""Measures source trees by the same workload, each in processes of its own, which take turns.

What is measured is `worker`; what follows from the figures is `judge`.
"""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from bm3 import ConfigError
from harness.measure.environment import git
from harness.tools.regress import worker
from harness.tools.regress.baseline import Measurement, NothingToCompareError, Result
from harness.tools.regress.rules import Repetitions

Tell = Callable[[str], None]
Question = Sequence[Any]
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
    """All that two measurements must share to be of the same work, fit for JSON: see `check.plan_of`."""
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


@dataclass(frozen=True)
class Tree:
    """A source tree that can be measured with the packages that are installed here."""

    name: str
    folder: Path


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
    turns += [
        (f"memory, {number + 1} of {often.memory}", peaks, LIVE_MEMORY)
        for number in range(often.memory if peaks else 0)
    ]
    for number, (stage, questions, allocator) in enumerate(turns):
        tell(stage)
        sides = list(zip(trees, found, strict=True))
        for tree, kept in sides if number % 2 == 0 else sides[::-1]:
            for question, answer in zip(questions, _answers(tree, plan, questions, allocator), strict=True):
                _keep(kept, plan.work["seeds"], answer, *question)
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
            raise NothingToCompareError(
                f"--against {name}: {commit[:12]} is from before files moved into harness/tools, and comparisons "
                f"do not reach behind that"
            )
        yield Tree(name, folder)
