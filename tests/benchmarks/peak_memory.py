"""Peak memory of building one model and training it for three steps, in the fresh process that this script is.

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
from bench import benchmark_data, random_batches
from sides import Side, steps_of

from harness.measure import MemorySampler


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
    """One step to warm up, the first of another epoch, a plain one."""
    data = benchmark_data()
    batches = random_batches(data, np.random.default_rng(1))
    with MemorySampler(torch.device("cpu")) as sampler:
        steps = steps_of(name, side, data, batches)
        for step in (steps.first, steps.first, steps.plain):
            step()
    readings = sampler.readings()
    start, peak = (readings[f"process_rss_{key}"].bytes for key in ("start", "peak"))
    if start is None or peak is None:
        raise RuntimeError(f"memory was not measured: {readings}")
    return Memory(start, peak)


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1], cast(Side, sys.argv[2]))._asdict()))
