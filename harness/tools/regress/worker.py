"""The fixed workload of `bm3 regress` in one source tree, as a process: questions in, a line of JSON out for each.

It is started as a script by `measure`, with the tree in PYTHONPATH, which may be an older one: so of this project it
imports nothing but what is measured. Clocks, peaks and calibration are its own, and the same for every tree.
"""

import ctypes
import gc
import hashlib
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import harness
from harness.data.dataset import Dataset
from harness.data.layouts import load_dataset
from harness.evaluation.ranking import Evaluation
from harness.models.registry import find_model
from harness.paper.conformance import conformance
from harness.training.config import TrainingConfig
from harness.training.fit import EpochRecord, build, fit
from harness.training.steps import TrainingSteps, make_deterministic
from harness.training.streams import Streams

EVALUATION, SECONDS = "evaluation", "seconds"
SEED = 1  # of what is timed
CALIBRATION_S, WARM_S = 0.05, 1.0
"""On a GPU: least seconds of what is compared with, and of work before it, by which its clocks have risen."""
CUTOFFS = (20, 50)


class Calibration:
    """A fixed amount of work of the kinds that models do: products over much data, and many small calls.

    The time of a block, as a share of this one's just before and after it, is steadier than the time itself: both are
    slowed alike by what else runs, by heat and by a change of clock. A busy neighbour empties caches, which slowed
    products alone by 6 %, small calls alone by 44 %, and steps of models by 1 to 14 %, so both are in it.
    """

    def __init__(self, device: torch.device) -> None:
        draw, n, n_entries = np.random.default_rng(0), 26_000, 120_000
        columns = torch.from_numpy(draw.integers(n, size=n_entries))
        starts = torch.from_numpy(np.linspace(0, n_entries, n + 1).astype(np.int64))
        self._sparse = torch.sparse_csr_tensor(starts, columns, torch.rand(n_entries), size=(n, n)).to(device)
        self._rows, self._matrix = (torch.rand(n, 64).to(device), torch.rand(320, 320).to(device))
        self._weights = torch.rand(16, 16).to(device).requires_grad_()
        self._inputs = torch.rand(64, 16).to(device)
        self._chosen = torch.from_numpy(draw.integers(64, size=64)).to(device)
        self._gathered = torch.from_numpy(draw.integers(n, size=20_000)).to(device)
        self._keys = draw.integers(10**6, size=30_000)
        self._on_cpu = device.type == "cpu"

    def __call__(self) -> None:
        rows = self._sparse @ self._rows
        for _ in range(4):
            rows = (rows * 0.5).tanh_()
            self._matrix @ self._matrix
        for _ in range(2):
            for _ in range(6):
                hidden = (self._inputs @ self._weights).relu()
                other = hidden.index_select(0, self._chosen)
                loss = -torch.nn.functional.logsigmoid((hidden * other).sum(1)).mean()
                torch.autograd.grad(loss, self._weights)
            self._rows[self._gathered].sum(0)
            if self._on_cpu:  # elsewhere the processor's own work says nothing of the device's
                np.isin(np.unique(self._keys), self._keys[:3000])
                sorted(str(number) for number in json.loads(json.dumps(list(range(1500)))))


class Worker:
    """What can be asked for: each public method is one kind of question, and gives an answer fit for JSON."""

    def __init__(self, plan: Mapping[str, Any], folder: Path) -> None:
        self._plan, self._folder, self._device = (plan, folder, torch.device(plan["device"]))
        torch.set_num_threads(plan["threads"])
        make_deterministic()
        self._small, self._large = (load_dataset(str(folder / plan[key])) for key in ("small", "large"))
        self._calibrate: Calibration | None = None
        self._calls = 0
        self._blocks: dict[str, Callable[[], object]] = {}

    def traces(self, name: str) -> dict[str, str]:
        """`passed`, or what is wrong, of each recorded trace in the folder `name`, on the device that is measured."""
        found: dict[str, str] = {}
        for check in conformance(self._folder / name, self._device):
            if found.setdefault(check.trace, "passed") == "passed" and check.status.value != "passed":
                found[check.trace] = f"{check.status.value}: {check.quantity} {check.note}".strip()
        return found

    def accuracy(self, name: str, seed: int) -> dict[str, Any]:
        """Metrics of one short training on the small data set, as users run it, and a hash of its parameters.

        Metrics are means of the validation part after the last epoch and of the test part after the best one.
        """
        settings = self._plan["training"] | self._plan["training_of"].get(name, {})
        streams, records = Streams(seed), list[EpochRecord]()
        model = self._built(self._small, name, streams)
        outcome = fit(model, self._small, TrainingConfig(**settings), streams, self._device, records.append)
        digest = hashlib.sha256()
        for key, tensor in sorted(model.state_dict().items()):
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        names = [f"{metric}@{cutoff}" for cutoff in CUTOFFS for metric in ("recall", "ndcg")]
        metrics = {name: (records[-1].valid[name] + outcome.test[name]) / 2 for name in names}
        return {"metrics": metrics, "bits": digest.hexdigest()[:16]}

    def time(self, name: str) -> tuple[float, float]:
        """CPU and wall time of a block on the large data set, as shares of the calibration's just before and after.

        CPU time is of all threads of this process. Where clocks are locked, they are seconds.
        """
        if self._calibrate is None:
            self._calibrate = Calibration(self._device)
            self._calls = self._calls_needed(self._calibrate)
        if name not in self._blocks:
            self._blocks[name] = self._block(self._large, name)
            self._blocks[name]()
            self._calibrate()
        gc.collect()  # so that no block pays for another's litter
        if self._plan.get("unit") == SECONDS:
            return self._clocked(self._blocks[name])
        blocks = self._calibrated, self._blocks[name], self._calibrated
        before, block, after = (self._clocked(each) for each in blocks)
        cpu, wall = (2 * self._calls * taken / (a + b) for taken, a, b in zip(block, before, after, strict=True))
        return cpu, wall

    def _calibrated(self) -> None:
        for _ in range(self._calls):
            self._calibrate()  # type: ignore[misc]

    def _calls_needed(self, calibrate: Callable[[], None]) -> int:
        """How often in a row it is called: on a GPU, once its clocks have risen, long enough to be compared with."""
        spent = self._clocked(calibrate)[1]
        if self._device.type == "cpu":
            return 1
        while spent < WARM_S:
            spent += self._clocked(calibrate)[1]
        return max(1, math.ceil(CALIBRATION_S / max(self._clocked(calibrate)[1], 1e-6)))

    def memory(self, name: str) -> int:
        """Peak bytes above the start of building the model and taking some steps, or of an evaluation.

        On CUDA the bytes of torch's allocator; else resident ones, of a copy of this process, which ends with it.
        Before the copy no thread may have been started.
        """
        if self._device.type == "cuda":
            # What is allocated once per process, and what earlier questions left, is no one's growth.
            self._block(self._small, name)()
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
            start = torch.cuda.memory_allocated(self._device)
            self._block(self._large, name)()
            return torch.cuda.max_memory_allocated(self._device) - start
        if not os.access("/proc/self/clear_refs", os.W_OK):
            raise OSError("this system tells no peak of resident memory")
        fork = multiprocessing.get_context("fork")
        receiver, sender = fork.Pipe(duplex=False)
        child = fork.Process(target=lambda: sender.send(self._resident_growth(name)), daemon=True)
        child.start()
        sender.close()
        try:
            return int(receiver.recv())
        except EOFError:
            child.join()
            raise RuntimeError(f"the process that measured memory ended by {child.exitcode}") from None

    def _resident_growth(self, name: str) -> int:
        # A small round first: libraries that are read in and compiled loops take memory, and are no one's growth.
        self._block(self._small, name)()
        gc.collect()
        if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)  # what was freed, so that the block cannot use it
        start = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        self._block(self._large, name)()
        return _status("VmHWM") - start

    def _block(self, dataset: Dataset, name: str) -> Callable[[], object]:
        """The beginning of an epoch and some of its steps, or an evaluation."""
        streams = Streams(SEED)
        if name == EVALUATION:
            model, evaluation = (self._built(dataset, self._plan["models"][0], streams), Evaluation(dataset))
            return lambda: evaluation(model, "valid", self._device)
        training = TrainingSteps(self._built(dataset, name, streams), dataset, TrainingConfig(), streams, self._device)

        def block() -> None:
            training.first_step(1)
            for _ in range(self._plan["steps"][name] - 1):
                training.step()

        return block

    def _built(self, dataset: Dataset, name: str, streams: Streams) -> Any:
        model = find_model(name).model
        return build(model, dataset, model.Config(), streams, self._device)

    def _clocked(self, block: Callable[[], object]) -> tuple[float, float]:
        """CPU and wall seconds."""
        wait: Callable[[], None] = torch.cuda.synchronize if self._device.type == "cuda" else lambda: None
        wait()
        cpu, wall = time.process_time(), time.perf_counter()
        block()
        wait()
        return time.process_time() - cpu, time.perf_counter() - wall


def _status(key: str) -> int:
    """Bytes that Linux tells of this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def main() -> None:
    """Answer the questions `[KIND, SUBJECT, …]` of standard input; the first line says where the packages are."""
    # What is printed anywhere must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    asked = json.load(sys.stdin)
    worker = Worker(asked["plan"], Path(asked["folder"]).resolve())
    answers.write(json.dumps({"answer": str(Path(harness.__file__).resolve().parent.parent)}) + "\n")
    for kind, subject, *arguments in asked["questions"]:
        try:
            answer = {"answer": getattr(worker, kind)(subject.rpartition("/")[2], *arguments)}
        except Exception as error:  # one subject that fails must not hide the others
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
