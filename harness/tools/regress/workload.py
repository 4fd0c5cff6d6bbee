"""The fixed workload of `bm3 regress` in one source tree, as a process that measures what it is asked to, line by line.

It is started as a script by `alternation`, with the tree in PYTHONPATH, which may be an older one: so of this project
it imports nothing but what is measured. Clocks, peaks and calibration are its own, and the same for every tree.
"""

import ctypes
import gc
import hashlib
import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

import harness
from harness.data import Dataset, load_dataset
from harness.evaluation import Evaluation
from harness.models.registry import find_model
from harness.paper.conformance import conformance
from harness.tools.profiling.profile import TrainingSteps
from harness.training import EpochRecord, Fit, Streams, TrainingConfig, build
from harness.training.fit import fit, make_deterministic

EVALUATION = "evaluation"
SEED = 1  # of what is timed
CUTOFFS = (20, 50)
FRESH_SECONDS = 0.5  # the calibration after one block is the one before the next, if that follows at once
EMBEDDING_SIZE = 64  # of the vectors that are evaluated

Answer = Mapping[str, Any]


class Calibration:
    """A fixed amount of work of the kinds that models do: products over much data, and many small calls.

    The time of a block, as a share of this one's just before and after it, is steadier than the time itself: both are
    slowed alike by what else runs, by heat and by a change of clock. A busy neighbour empties caches, which costs small
    calls most: in the same minutes trainings on a small data set took 13 to 38 % more CPU time, steps on a large one
    1 to 14 %, products alone 6 %, small calls alone 44 %. So there are more small calls in what blocks on a small data
    set are measured by.
    """

    def __init__(self, device: torch.device) -> None:
        draw = np.random.default_rng(0)
        n, n_entries, size = 26_000, 120_000, 320
        columns = torch.from_numpy(draw.integers(n, size=n_entries))
        starts = torch.from_numpy(np.linspace(0, n_entries, n + 1).astype(np.int64))
        self._sparse = torch.sparse_csr_tensor(starts, columns, torch.rand(n_entries), size=(n, n)).to(device)
        self._rows = torch.rand(n, EMBEDDING_SIZE).to(device)
        self._matrix = torch.rand(size, size).to(device)
        self._weights = torch.rand(16, 16).to(device).requires_grad_()
        self._inputs = torch.rand(64, 16).to(device)
        self._chosen = torch.from_numpy(draw.integers(64, size=64)).to(device)
        self._gathered = torch.from_numpy(draw.integers(n, size=20_000)).to(device)
        self._keys = draw.integers(10**6, size=30_000)
        self._on_cpu = device.type == "cpu"

    def __call__(self, small: bool) -> None:
        """The work that goes with blocks on a small data set, or on a large one."""
        rows = self._sparse @ self._rows
        for _ in range(4):
            rows = (rows * 0.5).tanh_()
            self._matrix @ self._matrix
        for _ in range(5 if small else 2):
            self._small_steps()
            self._rows[self._gathered].sum(0)
            if self._on_cpu:  # elsewhere the processor's own work says nothing of the device's
                np.isin(np.unique(self._keys), self._keys[:3000])
                sorted(str(number) for number in json.loads(json.dumps(list(range(1500)))))

    def _small_steps(self) -> None:
        for _ in range(6):
            hidden = (self._inputs @ self._weights).relu()
            other = hidden.index_select(0, self._chosen)
            loss = -torch.nn.functional.logsigmoid((hidden * other).sum(1)).mean()
            torch.autograd.grad(loss, self._weights)


class Workload:
    """What can be asked for: each public method is one kind of question, and gives an answer fit for JSON."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._plan = plan
        self._device = torch.device(plan["device"])
        torch.set_num_threads(plan["threads"])
        make_deterministic()
        self._small, self._large = (load_dataset(str(Path(plan[key]).resolve())) for key in ("small", "large"))
        self._calibrate: Calibration | None = None
        self._calibrated: dict[bool, tuple[float, tuple[float, float]]] = {}
        self._vectors: dict[tuple[str, int], _Vectors] = {}
        self._blocks: dict[str, Callable[[], object]] = {}
        self._warm: set[str] = set()

    def tree(self) -> Answer:
        """Where the measured packages are, and of which versions those that they compute with."""
        return {
            "harness": str(Path(harness.__file__).resolve().parent),
            "versions": {name: _version(name) for name in ("torch", "numpy", "scipy", "numba")},
        }

    def conformance(self) -> Answer:
        """The result of each recorded trace, and its largest difference as a share of the tolerance."""
        found: dict[str, dict[str, Any]] = {}
        for check in conformance(Path(self._plan["traces"])):
            trace = found.setdefault(check.trace, {"status": check.status.value, "largest": 0.0, "note": ""})
            if check.status.value != "passed" and trace["status"] == "passed":
                trace.update(status=check.status.value, note=f"{check.quantity} {check.note}".strip())
            if check.difference is not None and check.tolerance:
                trace["largest"] = max(trace["largest"], check.difference / check.tolerance)
        return {"traces": found}

    def accuracy(self, subject: str, seed: int) -> Answer:
        """Metrics of one short training, or of ranking fixed vectors, and a hash of what they come from.

        Metrics are means of the validation part after the last epoch and of the test part after the best one.
        """
        dataset, _, model = self._parts(subject)
        if model == EVALUATION:
            rank = Evaluation(dataset).ranking
            rankings = [rank(self._evaluated(dataset, seed), part, self._device) for part in ("valid", "test")]
            bits = hashlib.sha256(b"".join(ranking.items.tobytes() for ranking in rankings)).hexdigest()
            parts = [ranking.metrics(CUTOFFS) for ranking in rankings]
        else:
            outcome, last, trained = self._train(subject, seed)
            self._warm.add(subject)
            bits, parts = _state_bits(trained), [dict(last.valid), dict(outcome.test)]
        names = [f"{metric}@{cutoff}" for cutoff in CUTOFFS for metric in ("recall", "ndcg")]
        return {"metrics": {name: float(np.mean([part[name] for part in parts])) for name in names}, "bits": bits[:16]}

    def time(self, subject: str) -> Answer:
        """CPU and wall seconds of the subject's block, and those of the calibration, mean of before and after.

        CPU seconds are of all threads of this process. Before the first, a model is built and warmed up.
        """
        if subject not in self._blocks:
            self._blocks[subject] = self._block(subject)
            if subject not in self._warm:
                self._blocks[subject]()
        gc.collect()  # so that no block pays for another's litter
        _, small, _ = self._parts(subject)
        before = self._calibration(small, FRESH_SECONDS)
        cpu, wall = self._clocked(self._blocks[subject])
        after = self._calibration(small, 0)
        calibration_cpu, calibration_wall = ((a + b) / 2 for a, b in zip(before, after, strict=True))
        return {
            "cpu": cpu,
            "wall": wall,
            "calibration_cpu": calibration_cpu,
            "calibration_wall": calibration_wall,
        }

    def memory(self, subject: str) -> Answer:
        """Peak bytes above the start of building the model and taking some steps, or of an evaluation.

        On CUDA the bytes of torch's allocator; else resident ones, of a child process, which inherits nothing used.
        Answers with a note where the system has no such figures.
        """
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
            start = torch.cuda.memory_allocated(self._device)
            self._fresh(subject)
            return {"bytes": torch.cuda.max_memory_allocated(self._device) - start}
        if not (hasattr(os, "fork") and os.access("/proc/self/clear_refs", os.W_OK)):
            return {"note": "this system tells no peak of resident memory"}
        return _in_child(lambda: self._resident_growth(subject))

    def _resident_growth(self, subject: str) -> Answer:
        # A small round first: libraries that are read in and compiled loops take memory, and are no one's growth.
        self._fresh(subject, small=True)
        self._evaluated(self._parts(subject)[0], SEED)
        gc.collect()
        if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)  # what was freed, so that the block cannot use it
        start = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        self._fresh(subject)
        return {"bytes": _status("VmHWM") - start}

    def _fresh(self, subject: str, *, small: bool = False) -> None:
        """The subject's work from nothing: a new model and its first steps, or one evaluation."""
        dataset, _, model = self._parts(subject)
        if small:
            dataset = self._small
        (self._evaluation(dataset) if model == EVALUATION else self._steps(dataset, model))()

    def _block(self, subject: str) -> Callable[[], object]:
        dataset, of_small, model = self._parts(subject)
        if model == EVALUATION:
            return self._evaluation(dataset)
        if of_small:
            return lambda: self._train(subject, SEED)
        return self._steps(dataset, model)

    def _parts(self, subject: str) -> tuple[Dataset, bool, str]:
        name, _, model = subject.partition("/")
        of_small = name == self._small.name
        return (self._small if of_small else self._large), of_small, model

    def _train(self, subject: str, seed: int) -> tuple[Fit, EpochRecord, Any]:
        """A short training as users run it: its outcome, the record of its last epoch, and the model."""
        dataset, _, name = self._parts(subject)
        settings = self._plan["training"] | self._plan["training_of"].get(name, {})
        model, streams, records = find_model(name).model, Streams(seed), list[EpochRecord]()
        built = build(model, dataset, model.Config(), streams, self._device)
        outcome = fit(built, dataset, TrainingConfig(**settings), streams, self._device, records.append)
        return outcome, records[-1], built

    def _steps(self, dataset: Dataset, name: str) -> Callable[[], object]:
        """The beginning of an epoch and some of its steps."""
        model, streams, count = find_model(name).model, Streams(SEED), self._plan["steps"][name]
        built = build(model, dataset, model.Config(), streams, self._device)
        steps = TrainingSteps(built, dataset, TrainingConfig(), streams, self._device)

        def block() -> None:
            steps.first_step(1)
            for _ in range(count - 1):
                steps.step()

        return block

    def _evaluation(self, dataset: Dataset) -> Callable[[], object]:
        """Ranks the validation part by vectors that are the same every time."""
        vectors, evaluation = self._evaluated(dataset, SEED), Evaluation(dataset)
        return lambda: evaluation(vectors, "valid", self._device)

    def _evaluated(self, dataset: Dataset, seed: int) -> "_Vectors":
        key = dataset.name, seed
        if key not in self._vectors:
            self._vectors[key] = _Vectors(dataset, self._device, seed)
        return self._vectors[key]

    def _calibration(self, small: bool, max_age: float) -> tuple[float, float]:
        """The calibration's CPU and wall seconds, measured now unless the last time is no longer ago than `max_age`."""
        calibrate = self._calibrate = self._calibrate or Calibration(self._device)
        if small not in self._calibrated:
            calibrate(small)  # the first time pays for what later ones find done
        measured, seconds = self._calibrated.get(small, (-math.inf, (0.0, 0.0)))
        if time.monotonic() - measured > max_age:
            seconds = self._clocked(lambda: calibrate(small))
            self._calibrated[small] = time.monotonic(), seconds
        return seconds

    def _clocked(self, block: Callable[[], object]) -> tuple[float, float]:
        self._wait()
        cpu, wall = time.process_time(), time.perf_counter()
        block()
        self._wait()
        return time.process_time() - cpu, time.perf_counter() - wall

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class _Vectors:
    """As much of a model as an evaluation reads; a user's own items are nearer: hits are neither rare nor sure."""

    def __init__(self, dataset: Dataset, device: torch.device, seed: int) -> None:
        draw = np.random.default_rng(seed)
        items = draw.standard_normal((dataset.n_items, EMBEDDING_SIZE))
        users = 0.5 * draw.standard_normal((dataset.n_users, EMBEDDING_SIZE))
        for part in (dataset.train, dataset.valid, dataset.test):
            np.add.at(users, part[:, 0], 0.2 * items[part[:, 1]])
        self._tables = [torch.from_numpy(table.astype(np.float32)).to(device) for table in (users, items)]

    def embed(self) -> tuple[torch.Tensor, torch.Tensor]:
        users, items = self._tables
        return users, items


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _state_bits(model: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _status(key: str) -> int:
    """Bytes that Linux tells of this process."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")


def _in_child(question: Callable[[], Answer]) -> Answer:
    """The answer of a copy of this process, which ends with it. Before the copy no thread may have been started."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(write, "w", encoding="utf-8") as pipe:
                pipe.write(json.dumps(_answer(question)))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    found: Answer = json.loads(text) if text else {"error": "the process that was to measure memory was killed"}
    return found


def _answer(question: Callable[[], Answer]) -> Answer:
    """What a question gives; what it raises is an answer too, since one subject that fails must not hide the others."""
    try:
        return question()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def serve(workload: Workload, questions: TextIO, answers: TextIO) -> None:
    """Answer each line `["NAME", ARGUMENT, …]` by one line, until there are no more."""
    for line in questions:
        name, *arguments = json.loads(line)
        answers.write(json.dumps(_answer(partial(getattr(workload, name), *arguments))) + "\n")
        answers.flush()


def main(plan: str, seam: str | None = None) -> None:
    """`plan` is JSON. `seam` is the path of a Python file whose `plant(Workload)` may change what is measured.

    The seam is how tests plant regressions; no option of `bm3` leads to it.
    """
    # What is printed anywhere must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if seam is not None:
        found = importlib.util.spec_from_file_location("seam", seam)
        if found is None or found.loader is None:
            raise FileNotFoundError(seam)
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        module.plant(Workload)
    serve(Workload(json.loads(plan)), sys.stdin, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
