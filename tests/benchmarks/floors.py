"""How far a training step of each model is from its floor at the size of Baby, the textbook's and ours.

    python tests/benchmarks/floors.py > FILE

Prints Markdown: per model the median time of a plain step, the least that this machine's copy bandwidth and matrix rate
allow for what the step must move and multiply (`Moved`, products), and the operations that take most.
"""

import sys
from typing import Any

import bench
import numpy as np
import torch
from processes import markdown
from sides import SIDES, SUBJECTS, steps_of
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.measure.timing import seconds_of
from harness.tools.profile import BlockProfile, copy_rate, profile_block

CPU = torch.device("cpu")
REPEATS = 5
NAMED = 3  # operations per step
MATRIX_SIZE = 2048  # of the product whose rate is measured
ROWS_ALONE = {"index", "index_select", "embedding", "_embedding_bag", "gather"}
"""Operations that read of their first tensor what they give, and no more."""


class Moved(TorchDispatchMode):
    """Counts the bytes of storages that were there before the block, each once read and once written.

    Of a gathered table the bytes that were given count. It is a lower bound for the same products on data that start in
    main memory, and no forecast: elementwise work and latency are free in it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: set[Any] = set()
        self._read: dict[Any, int] = {}
        self._written: dict[Any, int] = {}

    @property
    def bytes(self) -> int:
        return sum(self._read.values()) + sum(self._written.values())

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if any(one.alias_info is not None and not one.alias_info.is_write for one in function._schema.returns):
            return result  # a view, which reads nothing
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        gives = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        name = function._schema.name.removeprefix("aten::")
        for place, tensor in enumerate(given):
            rows = place == 0 and name in ROWS_ALONE
            self._note(self._read, tensor, sum(map(bytes_of, gives)) if rows else bytes_of(tensor))
        known = {StorageWeakRef(part.untyped_storage()) for tensor in given for part in _parts(tensor)}
        for tensor in gives:
            if not any(StorageWeakRef(part.untyped_storage()) in known for part in _parts(tensor)):
                self._made |= {StorageWeakRef(part.untyped_storage()) for part in _parts(tensor)}
        named = {**dict(zip((one.name for one in function._schema.arguments), args, strict=False)), **(kwargs or {})}
        for one in function._schema.arguments:
            if one.alias_info is not None and one.alias_info.is_write:
                for tensor in filter(torch.is_tensor, tree_leaves(named.get(one.name))):
                    self._note(self._written, tensor, bytes_of(tensor))
        return result

    def _note(self, moved: dict[Any, int], tensor: Tensor, n_bytes: int) -> None:
        key = StorageWeakRef(_parts(tensor)[0].untyped_storage())
        if key not in self._made:
            moved[key] = max(moved.get(key, 0), n_bytes)


def _parts(tensor: Tensor) -> list[Tensor]:
    """The dense tensors of which a sparse one consists."""
    if tensor.layout is torch.sparse_csr:
        return [tensor.values(), tensor.col_indices(), tensor.crow_indices()]
    return [tensor._values(), tensor._indices()] if tensor.layout is torch.sparse_coo else [tensor]


def bytes_of(tensor: Tensor) -> int:
    return sum(part.numel() * part.element_size() for part in _parts(tensor))


def main() -> None:
    data = bench.benchmark_data()
    batches = bench.random_batches(data, np.random.default_rng(1))
    square = torch.ones(MATRIX_SIZE, MATRIX_SIZE)
    rates, measured = [], []
    for name in SUBJECTS:
        for side in SIDES:
            print(f"{name}, {side}", file=sys.stderr)
            rates.append((copy_rate(CPU), *(seconds_of(lambda: square @ square, CPU) for _ in range(REPEATS))))
            steps = steps_of(name, side, data, batches)
            steps.first()
            before = 70 if name == "BM3 trained" and side == "ours" else 3
            found = profile_block(steps.plain, CPU, warm_up=before, repeats=REPEATS)
            with Moved() as moved:
                steps.plain()
            measured.append((name, side, found, moved.bytes))
            del steps
    # Of rates the fastest counts, as a floor must: they are measured all along, since other machines share the host.
    bandwidth = max(rate for rate, *_ in rates)
    matrix_rate = 2 * MATRIX_SIZE**3 / min(min(taken) for _, *taken in rates)
    rows = []
    for name, side, found, n_bytes in measured:
        floor = max(n_bytes / bandwidth, found.flops / matrix_rate)
        figures = (1e3 * found.seconds, 1e3 * floor, found.seconds / floor)
        sizes = f"{n_bytes / 1e6:,.0f}", f"{found.flops / 1e9:.2f}"
        rows.append((name, side, *(f"{figure:.1f}" for figure in figures), *sizes, _slowest(found)))
    headers = ("model", "side", "ms", "floor, ms", "times floor", "MB floor", "GFLOP", "slowest, ms")
    print(bench.described(data) + "\n")
    print(f"Copy bandwidth {bandwidth / 1e9:.0f} GB/s, matrix rate {matrix_rate / 1e9:.0f} GFLOP/s.\n")
    print(markdown(headers, rows, "llrrrrrl"))


def _slowest(found: BlockProfile) -> str:
    named = [(operation.seconds, operation.name) for operation in found.operations]
    outside = [(found.outside_seconds, "outside torch operations")]
    slowest = sorted(named + outside, reverse=True)[:NAMED]
    return ", ".join(f"{name} {1e3 * seconds:.1f}" for seconds, name in slowest)


if __name__ == "__main__":
    main()
