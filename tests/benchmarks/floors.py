"""How far a training step of each model is from its floor at the size of Baby, the textbook's and ours.

    python tests/benchmarks/floors.py > FILE

Prints Markdown: per model the median time of a plain step, the least that this machine's copy bandwidth and matrix rate
allow for what the step must move and multiply (`harness.tools.profiling.operations.Floor`), and the
operations that take most.
"""

import sys
from functools import partial

import bench
import numpy as np
import torch
from sides import SIDES, SUBJECTS, steps_of
from tabulate import tabulate

from harness.tools.profiling.profile import BlockProfile, profile_block
from harness.tools.profiling.roofline import measure_rates

CPU = torch.device("cpu")
REPEATS = 5
NAMED = 3  # operations per step


def main() -> None:
    data = bench.benchmark_data()
    batches = bench.random_batches(data, np.random.default_rng(1))
    rates = measure_rates(CPU)
    rows = []
    for name in SUBJECTS:
        for side in SIDES:
            print(f"{name}, {side}", file=sys.stderr)
            steps = steps_of(name, side, data, batches)
            steps.first()
            warm_up = partial(steps.plain)
            found = profile_block(
                warm_up, CPU, warm_up=70 if name == "BM3 trained" and side == "ours" else 3, repeats=REPEATS
            )
            floor = found.floor_seconds(rates)
            rows.append(
                (
                    name,
                    side,
                    f"{1e3 * found.seconds:.1f}",
                    f"{1e3 * floor:.1f}",
                    f"{found.seconds / floor:.1f}",
                    f"{found.bytes / 1e6:,.0f}",
                    f"{found.floor.bytes / 1e6:,.0f}",
                    f"{found.floor.flops / 1e9:.2f}",
                    _slowest(found),
                )
            )
            del steps
    headers = ("model", "side", "ms", "floor, ms", "times floor", "MB moved", "MB floor", "GFLOP", "slowest, ms")
    print(bench.described(data) + "\n")
    print(
        f"Copy bandwidth {rates.bytes_per_second / 1e9:.0f} GB/s, "
        f"matrix rate {rates.flops_per_second / 1e9:.0f} GFLOP/s.\n"
    )
    print(
        tabulate(
            rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", "left", *["right"] * 6, "left")
        )
    )


def _slowest(found: BlockProfile) -> str:
    named = [
        (operation.seconds, operation.name.removeprefix("aten::").removeprefix("aten."))
        for operation in found.operations
    ]
    outside = [(found.outside_seconds, "outside torch operations")]
    slowest = sorted(named + outside, reverse=True)[:NAMED]
    return ", ".join(f"{name} {1e3 * seconds:.1f}" for seconds, name in slowest)


if __name__ == "__main__":
    main()
