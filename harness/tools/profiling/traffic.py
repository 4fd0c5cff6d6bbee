"""What one torch operation reads, writes and multiplies, from its arguments and results. Adding up is `operations`."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

ALLOCATING = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted")
METADATA = ("resize_", "set_", "detach_", "squeeze_", "unsqueeze_", "t_", "transpose_", "as_strided_")
OVERWRITING = (
    *("copy_", "fill_", "zero_", "normal_", "uniform_", "random_", "bernoulli_", "exponential_"),
    *("index_copy_", "index_fill_", "scatter_", "_foreach_zero_", "_foreach_copy_"),
)
"""Operations that write their first argument without reading it."""

TABLES = {
    **dict.fromkeys(("embedding", "_embedding_bag_per_sample_weights_backward"), "weight"),
    **dict.fromkeys(("_embedding_bag", "_embedding_bag_forward_only"), "weight"),
    **dict.fromkeys(("index_select", "index", "_unsafe_index", "gather", "take"), "self"),
    **dict.fromkeys(("index_put_", "_index_put_impl_", "index_add_", "index_copy_", "index_fill_"), "self"),
    **dict.fromkeys(("scatter_", "scatter_add_", "scatter_reduce_", "put_"), "self"),
}
"""Operations that touch a part of one argument alone, and that argument's name."""

PRODUCTS = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "_sparse_mm"), 0),
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "_addmm_activation", "_sparse_addmm", "sparse_sampled_addmm"), 1),
}
"""Matrix and sparse products, and where their left factor stands among the arguments; the right one follows."""


@dataclass(frozen=True)
class Access:
    """A dense tensor that an operation reads or writes; a sparse one is several, its indices and its values.

    `mask` says which units take part where not all do: those along the dimensions `dims`, flattened, boolean.
    """

    tensor: Tensor
    reads: bool
    writes: bool
    dims: tuple[int, ...] = ()
    mask: Tensor | None = None

    @cached_property
    def bytes(self) -> int:
        """Bytes touched, each once."""
        whole = stored_bytes(self.tensor)
        if self.mask is None or whole == 0:
            return whole
        return int(self.mask.sum()) * whole // self.mask.numel()

    @property
    def place(self) -> tuple[Any, ...]:
        """Equal for accesses to the same elements in the same order."""
        tensor = self.tensor
        return storage_key(tensor), tensor.storage_offset(), *tensor.shape, *tensor.stride(), self.dims


def accesses(operation: Any, arguments: Mapping[str, Any], result: Any) -> list[Access]:
    """What a call of the `OpOverload` `operation` touched, each place once; nothing where it gave a view or metadata.

    Views are found by what they are, not by name: results in the memory of an argument that is not written. Tensors
    that are created without a value are not written; a fused optimiser does not write gradients.
    """
    name = operation.overloadpacket.__name__
    own = {storage_key(part) for part in dense_parts(arguments.values())}
    given = list(dense_parts(result))
    fresh = [part for part in given if storage_key(part) not in own]
    written = _written(operation, name)
    if name in METADATA or name in ALLOCATING or (given and not fresh and not written):
        return []
    found = [Access(part, reads=False, writes=True) for part in fresh]
    unread = name.startswith("new_") or name.endswith("_like")  # these take shape and type alone
    for argument in operation._schema.arguments:
        value = arguments.get(argument.name)
        writes = argument.name in written
        overwrites = writes and (argument.kwarg_only or _overwrites(name, arguments))
        reads = not (unread or overwrites)
        if TABLES.get(name) == argument.name and isinstance(value, Tensor) and value.layout == torch.strided:
            indices = _indices(name, value, arguments)
            found.append(Access(value, reads, writes, tuple(indices), touched(value, indices)))
        elif reads or writes:
            found += [Access(part, reads, writes) for part in dense_parts(value)]
    return _each_once(found)


def flops(operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> int:
    """Floating-point operations of a matrix or sparse product, a multiplication and an addition per pair; else 0.

    An embedding bag of n indices into rows of width d: 2 n d, and n d where it has no weights.
    """
    packet = operation.overloadpacket
    name = packet.__name__.removesuffix("_")
    arguments = bound_arguments(operation, args, kwargs)
    values = list(arguments.values())
    if name in PRODUCTS:
        left, right = values[PRODUCTS[name] : PRODUCTS[name] + 2]
        if name == "sparse_sampled_addmm":
            return 2 * _entries(result) * int(left.shape[-1])
        if right.layout != torch.strided and left.layout == torch.strided:
            return 2 * int(left.shape[0]) * int(right._nnz())
        return 2 * _entries(left) * (int(right.shape[-1]) if right.ndim > 1 else 1)
    if name.startswith("_embedding_bag"):
        width = int(values[0].shape[-1])  # of the table, or of the gradient of its bags
        weighted = arguments.get("per_sample_weights") is not None or "per_sample" in name
        return (2 if weighted else 1) * int(arguments["indices"].numel()) * width
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=result))
    return 0


def bound_arguments(operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, in the order of the schema, without those that were left to their defaults."""
    names = [argument.name for argument in operation._schema.arguments]
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    return {name: given[name] for name in names if name in given}


def dense_parts(value: Any) -> Iterator[Tensor]:
    """The tensors in a value, lists of tensors included; a sparse one as its indices and values."""
    if isinstance(value, Tensor):
        if value.layout in (torch.sparse_csr, torch.sparse_bsr):
            yield from (value.crow_indices(), value.col_indices(), value.values())
        elif value.layout in (torch.sparse_csc, torch.sparse_bsc):
            yield from (value.ccol_indices(), value.row_indices(), value.values())
        elif value.layout == torch.sparse_coo:
            yield from (value._indices(), value._values())
        elif value.layout == torch.strided:
            yield value
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for entry in value:
            yield from dense_parts(entry)


def storage_key(tensor: Tensor) -> int:
    """What tensors in the same memory share."""
    return int(tensor.untyped_storage()._cdata)


def stored_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor's elements, those that it repeats (stride 0) once."""
    sizes = (size if stride != 0 else min(size, 1) for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return math.prod(sizes, start=tensor.element_size())


def touched(table: Tensor, indices: Mapping[int, Tensor]) -> Tensor:
    """Which units along the indexed dimensions of `table` the indices name: boolean, flattened."""
    place: Any = torch.zeros((), dtype=torch.int64, device=table.device)
    units = 1
    for dim, index in indices.items():
        place = place * table.shape[dim] + index.to(table.device).long() % max(table.shape[dim], 1)
        units *= table.shape[dim]
    mask = torch.zeros(units, dtype=torch.bool, device=table.device)
    return mask.index_fill_(0, place.flatten(), True) if indices else ~mask


def _indices(name: str, table: Tensor, arguments: Mapping[str, Any]) -> dict[int, Tensor]:
    """Dimensions of the table and the indices into them, which broadcast against one another."""
    if "indices" in arguments and not isinstance(arguments["indices"], Tensor):
        return dict(_advanced(arguments["indices"]))
    index = arguments["index"] if "index" in arguments else arguments["indices"]
    if name in ("take", "put_"):
        return dict(enumerate(torch.unravel_index(index % max(table.numel(), 1), table.shape)))
    dim = arguments.get("dim", 0) % max(table.ndim, 1)
    if name.startswith(("gather", "scatter")):
        grid: list[Tensor] = [
            torch.arange(size, device=index.device).view(-1, *[1] * (index.ndim - d - 1))
            for d, size in enumerate(index.shape)
        ]
        return {d: index if d == dim else grid[d] for d in range(index.ndim)}
    return {dim: index} if table.ndim else {}


def _advanced(indices: Iterable[Tensor | None]) -> Iterator[tuple[int, Tensor]]:
    dim = 0
    for index in indices:
        if index is None:
            dim += 1
        elif index.dtype in (torch.bool, torch.uint8):
            for place in index.nonzero(as_tuple=True):
                yield dim, place
                dim += 1
        else:
            yield dim, index
            dim += 1


def _written(operation: Any, name: str) -> set[str]:
    written = {a.name for a in operation._schema.arguments if a.alias_info is not None and a.alias_info.is_write}
    return written - {"grads"} if name.startswith("_fused_") else written


def _overwrites(name: str, arguments: Mapping[str, Any]) -> bool:
    if name in ("index_put_", "_index_put_impl_", "put_"):
        return not arguments.get("accumulate", False)
    if name == "scatter_":
        return "reduce" not in arguments
    return name in OVERWRITING


def _entries(tensor: Tensor) -> int:
    return int(tensor.numel() if tensor.layout == torch.strided else tensor._nnz())


def _each_once(found: list[Access]) -> list[Access]:
    """Accesses to the same place as one: an operation may be given a tensor twice."""
    merged: dict[Any, Access] = {}
    for access in found:
        before = merged.get(access.place)
        if before is not None:
            access = Access(
                access.tensor,
                access.reads or before.reads,
                access.writes or before.writes,
                access.dims,
                access.mask if before.mask is None else before.mask,
            )
        merged[access.place] = access
    return list(merged.values())
