"""LATTICE on as many users, items and interactions as Amazon Electronics has, in the fresh process that this script is.

    python tests/benchmarks/lattice_at_electronics_size.py

Prints JSON: seconds to build the model (the original item graph included), of a step that builds the learned graph and
of one that does not, and bytes of resident memory before and at the peak. Interactions and the one modality are random.
"""

import json
import time

import numpy as np
import torch

from bm3 import Batch, Data
from harness.measure import MemorySampler
from harness.models.lattice import LATTICE, LATTICEConfig
from harness.training.optimiser import adam

N_USERS, N_ITEMS, N_INTERACTIONS, WIDTH, BATCH_SIZE = 192_403, 63_001, 1_689_188, 384, 2048


def main() -> None:
    draw = np.random.default_rng(0)
    train = np.stack([draw.integers(N_USERS, size=N_INTERACTIONS), draw.integers(N_ITEMS, size=N_INTERACTIONS)], axis=1)
    data = Data(N_USERS, N_ITEMS, train, {"text": draw.standard_normal((N_ITEMS, WIDTH), dtype=np.float32)})
    seconds = {}
    with MemorySampler(torch.device("cpu")) as memory:
        started = time.perf_counter()
        model = LATTICE(data, LATTICEConfig(), torch.Generator().manual_seed(0))
        optimiser = adam(model, 1e-3)
        seconds["build"] = time.perf_counter() - started
        for name, start in (("first step of an epoch", 0), ("another step", BATCH_SIZE)):
            started = time.perf_counter()
            users, items = torch.from_numpy(train[start : start + BATCH_SIZE]).T
            optimiser.zero_grad()
            model.loss(Batch(users, items, items.flip(0))).total.backward()
            optimiser.step()
            seconds[name] = time.perf_counter() - started
    readings = {name: reading.bytes for name, reading in memory.readings().items() if name.startswith("process")}
    print(json.dumps({"seconds": seconds, "bytes": readings}))


if __name__ == "__main__":
    main()
