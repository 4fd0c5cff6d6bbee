"""Peak memory of building and training one model, or of an evaluation, in the fresh process that this script is.

    python tests/benchmarks/peak_memory.py LATTICE ours

Prints JSON: bytes resident before the model was built, and at the peak. The time of steps is measured elsewhere.
"""

import json
import os
import subprocess
import sys
from typing import NamedTuple, cast

import numpy as np
import torch
from bench import benchmark_dataset, random_batches
from sides import EVALUATION, SUBJECTS, Side, evaluation_of, steps_of

from harness.data.dataset import Dataset
from harness.measure.memory import MemorySampler

STEPS = 25  # of an epoch's 58: most rows that an epoch touches are touched by then
STEPS_OF_SLOW_TEXTBOOK = 3


class Memory(NamedTuple):
    """Bytes of resident memory."""

    start: int
    """Before the model was built: Python, torch, the data."""
    peak: int

    @property
    def above_start(self) -> int:
        return self.peak - self.start


def in_fresh_process(name: str, side: Side) -> Memory:
    """Runs this script. Raises CalledProcessError when it fails."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, __file__, name, side]
    printed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    return Memory(**json.loads(printed))


def measured(name: str, side: Side) -> Memory:
    """Of an evaluation, or of training steps."""
    dataset = benchmark_dataset()
    with MemorySampler(torch.device("cpu")) as sampler:
        if name == EVALUATION:
            evaluation_of(side, dataset)()
        else:
            train(name, side, dataset)
    readings = sampler.readings()
    start, peak = (readings[f"process_rss_{key}"].bytes for key in ("start", "peak"))
    if start is None or peak is None:
        raise RuntimeError(f"memory was not measured: {readings}")
    return Memory(start, peak)


def train(name: str, side: Side, dataset: Dataset) -> None:
    """One step to warm up, the first of another epoch, plain ones, and what they put off."""
    steps = steps_of(name, side, dataset, random_batches(dataset, np.random.default_rng(1)))
    n_steps = STEPS_OF_SLOW_TEXTBOOK if side == "textbook" and SUBJECTS[name].slow else STEPS
    for step in (steps.first, steps.first, *[steps.plain] * (n_steps - 2), steps.state):
        step()


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1], cast(Side, sys.argv[2]))._asdict()))
