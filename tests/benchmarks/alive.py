"""What tensors hold at once at most while Python code runs: `python alive.py FILE CODE [ARGUMENT…]` writes the bytes to
FILE. Tensors in mapped files are left out.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Alive(TorchDispatchMode):
    """Looks at every operation at the storages of what it is given and gives."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._held: dict[Any, tuple[bool, int]] = {}  # storage → whether in a file, bytes in memory

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for one in tree_leaves((args, kwargs, result)):
            if isinstance(one, Tensor) and one.layout is torch.strided:
                storage = one.untyped_storage()
                key = StorageWeakRef(storage)
                mapped = self._held[key][0] if key in self._held else _in_a_file(storage)
                self._held[key] = mapped, 0 if mapped else storage.nbytes()
        self._held = {key: held for key, held in self._held.items() if not key.expired()}
        self.most = max(self.most, sum(n_bytes for _, n_bytes in self._held.values()))
        return result


def _in_a_file(storage: torch.UntypedStorage) -> bool:
    """Whether a large one is a mapped file, as the best epoch's state is."""
    if storage.nbytes() > 2**20:
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, _, _, _, inode, *_ = line.split()
            first, end = (int(bound, 16) for bound in span.split("-"))
            if first <= storage.data_ptr() < end:
                return inode != "0"
    return False


if __name__ == "__main__":
    told, code = Path(sys.argv.pop(1)), sys.argv.pop(1)
    with Alive() as alive:
        try:
            exec(code)
        finally:
            told.write_text(str(alive.most))
