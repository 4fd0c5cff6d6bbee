"""What operations are dispatched; and a stand-in for a GPU: torch's `meta` device, with CUDA's rule that an operation's
tensors share a device.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
COPIES = ("aten::_to_copy", "aten::copy_")


class Watched(TorchDispatchMode):
    """Calls `see` after every operation, with it, the tensors it was given, and those it gave."""

    def __init__(self, see: Callable[[Any, Sequence[Tensor], Sequence[Tensor]], object]) -> None:
        super().__init__()
        self._see = see

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        self._see(function, *([one for one in tree_leaves(of) if isinstance(one, Tensor)] for of in (args, found)))
        return found


def made_anew(given: Sequence[Tensor], made: Sequence[Tensor]) -> list[Tensor]:
    """Of what an operation gave, the tensors that lie in no memory that it was given."""
    before = {one.data_ptr() for one in given}
    return [one for one in made if one.data_ptr() not in before]


class OneDevice(TorchDispatchMode):
    """Raises RuntimeError for an operation whose tensors lie on two devices, but for copies and single numbers.

    `copies` has the devices, from and to, of what was copied from one to another; `waits`, of what was waited for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[tuple[str, str]] = []
        self.waits: list[tuple[str, str]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        devices = {tensor.device.type for tensor in given if tensor.ndim}
        name, result = function._schema.name, function(*args, **(kwargs or {}))
        if name not in COPIES and len(devices) > 1:
            raise RuntimeError(f"{name} is given tensors on {' and '.join(sorted(devices))}")
        if name == "aten::_to_copy" and result.device != args[0].device:
            way = args[0].device.type, result.device.type
            self.copies.append(way)
            self.waits += [] if (kwargs or {}).get("non_blocking") else [way]
        return result
