"""Torch operations of a block of code: calls, seconds, bytes, products, and the least that the block has to move.

What a single operation touches is `traffic`; the rates of a machine are `roofline`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from harness.tools.profiling.traffic import (
    Access,
    accesses,
    bound_arguments,
    dense_parts,
    flops,
    storage_key,
    stored_bytes,
)


@dataclass(frozen=True)
class Operation:
    """All calls of one operation: how many, seconds, bytes read and written, floating-point operations of products."""

    name: str
    calls: float
    seconds: float
    bytes: float
    flops: float


@dataclass(frozen=True)
class Floor:
    """The least that a block must do: bytes read and written of what was there before it, FLOPs of its products.

    Read: every storage that existed before the block and that an operation read, once. Written: every such storage
    that an operation wrote, once more. Of both, only the parts that were touched: of a gathered table the distinct
    rows, of a view its elements. What the block itself allocated counts nothing, results included: a perfect kernel
    would keep it in cache. Data that enters torch within the block (from numpy, say) counts as having been there.

    It is a floor for the same products on data that start in main memory. It is no forecast: elementwise work, sums,
    sorting and top-k are free, so are latency and the launch of operations, and a block whose data fit into a cache
    can be faster. Other products that give the same result could be fewer.
    """

    read_bytes: float
    written_bytes: float
    flops: float

    @property
    def bytes(self) -> float:
        return self.read_bytes + self.written_bytes


class OperationCounter(TorchDispatchMode):
    """Context manager that records every torch operation called while it is active, on any device.

    Seen are forward and backward passes, optimisers, and what custom autograd functions call; not what a kernel does
    inside. Seconds are those of the call on `clock`; on CUDA the device is waited for before and after it, so
    operations that would overlap do not. Bytes are those of the tensors read and written, each element once per call:
    of gathered tables the distinct rows, of sparse tensors indices and values, nothing for views. Caches are not
    modelled. FLOPs are of matrix and sparse products alone.

    Recording slows a block down, the operations themselves too, since counting bytes takes the caches from them. With
    `seconds_only` nothing but calls and seconds is recorded, which disturbs far less. While any recording is on,
    torch's backward pass does without some in-place shortcuts.
    """

    def __init__(
        self, device: torch.device, *, seconds_only: bool = False, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device, self._seconds_only, self._clock = device, seconds_only, clock
        self._totals: dict[str, list[float]] = {}
        self._storages: dict[int, _Storage] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "profiler":  # marks in traces, which compute nothing
            return func(*args, **kwargs)
        with self:  # operations that only consist of others arrive whole under inference_mode, in parts elsewhere
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        synchronise(self._device)
        started = self._clock()
        result = func(*args, **kwargs)
        synchronise(self._device)
        seconds = self._clock() - started
        totals = self._totals.setdefault(_label(func), [0, 0.0, 0, 0])
        totals[0] += 1
        totals[1] += seconds
        if not self._seconds_only:
            totals[2] += self._moved(func, bound_arguments(func, args, kwargs), result)
            totals[3] += flops(func, args, kwargs, result)
        return result

    def operations(self) -> list[Operation]:
        """What was recorded, the slowest first."""
        found = [Operation(name, *totals) for name, totals in self._totals.items()]
        return sorted(found, key=lambda operation: -operation.seconds)

    def floor(self) -> Floor:
        """See `Floor`; the block is what has been recorded so far, and not by its seconds only."""
        return Floor(
            read_bytes=sum(storage.read.bytes() for storage in self._storages.values()),
            written_bytes=sum(storage.written.bytes() for storage in self._storages.values()),
            flops=sum(totals[3] for totals in self._totals.values()),
        )

    def _moved(self, func: Any, arguments: dict[str, Any], result: Any) -> int:
        """Bytes that a call moved; notes what it touched for the floor."""
        for part in dense_parts(arguments.values()):
            self._storage(part, created=False)
        for part in dense_parts(result):
            self._storage(part, created=True)
        moved = 0
        for access in accesses(func, arguments, result):
            storage = self._storages[storage_key(access.tensor)]
            moved += access.bytes * (access.reads + access.writes)
            if storage.created:
                continue
            if access.reads:
                storage.read.add(access)
            if access.writes:
                storage.written.add(access)
        return moved

    def _storage(self, tensor: Tensor, *, created: bool) -> None:
        if storage_key(tensor) not in self._storages:
            self._storages[storage_key(tensor)] = _Storage(tensor, created)


class _Storage:
    """Memory that tensors share. The weak reference keeps its key from being given to other memory, and no data."""

    def __init__(self, tensor: Tensor, created: bool) -> None:
        self.created = created
        self.read, self.written = _Touched(), _Touched()
        self._reference = StorageWeakRef(tensor.untyped_storage())


class _Touched:
    """Which bytes of a storage were touched, at least: the largest of what is known for certain.

    Intervals of contiguous tensors are united, and so are the rows of one gathered table.
    """

    def __init__(self) -> None:
        self._intervals: set[tuple[int, int]] = set()
        self._units: dict[tuple[Any, ...], Access] = {}
        self._largest = 0

    def add(self, access: Access) -> None:
        before = self._units.get(access.place)
        tensor = access.tensor
        if access.mask is not None:
            if before is not None and before.mask is not None:
                access = Access(tensor, access.reads, access.writes, access.dims, access.mask | before.mask)
            self._units[access.place] = access
        elif _dense(tensor):
            first = int(tensor.storage_offset()) * tensor.element_size()
            self._intervals.add((first, first + stored_bytes(tensor)))
        self._largest = max(self._largest, access.bytes)

    def bytes(self) -> int:
        united = reached = 0
        for first, last in sorted(self._intervals):
            united += max(0, last - max(first, reached))
            reached = max(reached, last)
        return max(self._largest, united)


def synchronise(device: torch.device) -> None:
    """Wait for what is queued on a CUDA device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _dense(tensor: Tensor) -> bool:
    """Whether the elements fill an interval of memory, in whatever order."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.numel() > 0 and (last + 1) * tensor.element_size() == stored_bytes(tensor)


def _label(func: Any) -> str:
    name: str = func.overloadpacket.__name__
    return name if func.namespace == "aten" else f"{func.namespace}.{name}"
