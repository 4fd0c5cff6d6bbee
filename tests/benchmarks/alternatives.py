"""Forms that were tried beside the ones kept: top K, rows per block of a projection, Adam on trained tables.

    python tests/benchmarks/alternatives.py > FILE

Prints Markdown; all forms of a table alternate within this process, medians of its rounds.
"""

from collections.abc import Callable
from functools import partial

import bench
import numpy as np
import torch
from sides import steps_of
from tabulate import tabulate
from torch import Tensor

from bm3 import features
from harness.evaluation import ranking
from harness.training.accelerators import rows

USERS, ITEMS, WIDTH, K = 297, 7_050, 64, 50
ROUNDS, SETTLED = 25, 120  # steps before a step by row is as in the middle of a training


def top_k_forms() -> dict[str, bench.Step]:
    scores = torch.randn(USERS, ITEMS, generator=torch.Generator().manual_seed(0))
    forms: dict[str, bench.Step] = {
        "compiled loop (kept)": partial(ranking.top_k, scores, K),
        "torch.topk": partial(torch.topk, scores, K + 1),
    }
    for size in (8, 16, 32):
        forms[f"torch.topk of the best groups of {size}"] = partial(grouped_top_k, scores, K + 1, size)
    return forms


def grouped_top_k(scores: Tensor, k: int, size: int) -> Tensor:
    """The k best of scores [n, I] [n, k]: they are in the k groups of `size` columns with the largest maxima."""
    n_groups = scores.shape[1] // size
    best = scores[:, : n_groups * size].unflatten(1, (n_groups, size)).amax(dim=2).topk(k).indices
    columns = (best[:, :, None] * size + torch.arange(size)).flatten(1)
    rest = torch.arange(n_groups * size, scores.shape[1]).expand(len(scores), -1)
    return scores.gather(1, torch.cat([columns, rest], dim=1)).topk(k).values


def with_value(module: object, name: str, value: int, step: bench.Step) -> bench.Step:
    """The step while a constant of a module has another value."""

    def changed() -> None:
        kept = getattr(module, name)
        setattr(module, name, value)
        step()
        setattr(module, name, kept)

    return changed


def main() -> None:
    data = bench.benchmark_data()
    batches = bench.random_batches(data, np.random.default_rng(1))
    print(bench.described(data) + "\n")
    report("top K of a block", f"ms per {USERS} users, K = {K}", top_k_forms())

    for name in ("VBPR", "BM3 frozen"):
        step = steps_of(name, "ours", data, batches).plain
        forms = {
            f"{size} MiB" + (" (kept)" if size * 2**20 == features.BLOCK_BYTES else ""): with_value(
                features, "BLOCK_BYTES", size * 2**20, step
            )
            for size in (1, 2, 4, 8, 16, 1024)
        }
        report(f"{name}, rows gathered at a time", "ms per step", forms)

    by_row = steps_of("BM3 trained", "ours", data, batches).plain
    rows.SMALLEST = 2**62
    dense = steps_of("BM3 trained", "ours", data, batches).plain
    for _ in range(SETTLED):
        by_row()
    forms = {"by row, compiled (kept)": by_row, "dense fused Adam": dense}
    report("BM3 trained, Adam on the tables", "ms per step", forms)


def report(what: str, unit: str, forms: dict[str, Callable[[], object]]) -> None:
    for form in forms.values():
        form()
    medians = bench.medians(forms, ROUNDS)
    table = [(name, f"{1e3 * seconds:.2f}") for name, seconds in medians.items()]
    print(tabulate(table, (what, unit), tablefmt="github", disable_numparse=True, colalign=("left", "right")) + "\n")


if __name__ == "__main__":
    main()
