"""Seconds per epoch of each model on a GPU, on paper: an estimate, from the operations of a step at the size of Baby.

    python tests/benchmarks/on_a_card.py [--bandwidth GB/s] [--rate TFLOP/s] [--launch µs] [MODEL …] > FILE

A step is made on the CPU as it would be on a GPU: ids not merged, tables moved whole, long rows cut. Each operation
takes the longest of three: its launch, its bytes (tensors read and written; of gathered tables the rows) at the
bandwidth, its products at the rate. Views are free, negatives are drawn meanwhile. Nothing was measured on a GPU.
"""

import argparse
from typing import Any
from unittest import mock

import bench
import numpy as np
import torch
from floors import ROWS_ALONE, bytes_of
from processes import markdown
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.models import bm3, features, products
from harness.models.registry import find_model, trained_in_steps
from harness.paper.load import load_paper
from harness.training.accelerators import lazy_adam

PRODUCTS = {"mm", "addmm", "addmm_"}


class Estimated(TorchDispatchMode):
    """Counts operations, bytes and floating-point operations, and adds up the seconds that they would take."""

    def __init__(self, bandwidth: float, rate: float, launch: float) -> None:
        super().__init__()
        self._bandwidth, self._rate, self._launch = bandwidth, rate, launch
        self.operations = self.bytes = self.flops = 0
        self.seconds = 0.0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        aliases = [given.alias_info for given in function._schema.returns]
        if function.namespace == "profiler" or any(alias and not alias.is_write for alias in aliases):
            return result
        name = function._schema.name.removeprefix("aten::")
        given, made = _tensors((args, kwargs)), _tensors(result)
        moved = sum(map(bytes_of, made))
        if name.startswith("_embedding_bag"):
            moved += given[1].numel() * made[0].shape[1] * made[0].element_size()
        elif name in ROWS_ALONE:
            moved += bytes_of(made[0])
        else:
            moved += sum(map(bytes_of, given))
        flops = 2 * given[-2].shape[0] * given[-2].shape[1] * given[-1].shape[1] if name in PRODUCTS else 0
        self.operations, self.bytes, self.flops = self.operations + 1, self.bytes + moved, self.flops + flops
        self.seconds += max(self._launch, moved / self._bandwidth, flops / self._rate)
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.layout is torch.strided]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bandwidth", type=float, default=900.0, help="GB/s")
    parser.add_argument("--rate", type=float, default=14.0, help="TFLOP/s of float32 products")
    parser.add_argument("--launch", type=float, default=8.0, help="µs per operation")
    parser.add_argument("models", nargs="*", default=trained_in_steps())
    card = parser.parse_args()
    data = bench.benchmark_data()
    batches = bench.random_batches(data, np.random.default_rng(1))
    published = {
        value.model.lower(): value.value
        for value in load_paper().values
        if value.metric == "Time (s/epoch)" and value.dataset == "Baby"
    }
    rows = []
    for name in card.models:
        model = find_model(name).model
        steps = bench.our_steps(model(data, model.Config(), torch.Generator().manual_seed(0)), batches)
        steps.first()
        with Estimated(card.bandwidth * 1e9, card.rate * 1e12, card.launch * 1e-6) as step:
            steps.plain()
        n_steps = -(-len(data.train) // bench.BATCH_SIZE)
        figures = f"{1e3 * step.seconds:.2f}", f"{n_steps * step.seconds:.2f}", published.get(name.lower(), "")
        rows.append((name, step.operations, f"{step.bytes / 1e6:,.0f}", f"{step.flops / 1e9:.1f}", *figures))
    print(
        f"A card of {card.bandwidth:g} GB/s, {card.rate:g} TFLOP/s in float32 and {card.launch:g} µs per operation.\n"
    )
    headers = ("model", "operations", "MB moved", "GFLOP", "ms per step", "s per epoch, estimated", "published")
    print(markdown(headers, rows))


if __name__ == "__main__":
    with (
        mock.patch.object(features, "keeps_repeated", return_value=True),
        mock.patch.object(features, "BLOCK_BYTES", 2**62),
        mock.patch.object(bm3, "keeps_repeated", return_value=True),
        mock.patch.object(products, "walks_bags", return_value=True),
        mock.patch.object(lazy_adam, "tables_moved_by_row", return_value=[]),
    ):
        main()
