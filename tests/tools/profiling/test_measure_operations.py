"""What operations move and multiply, and the least that a block of them has to move. Seconds are never compared."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor, nn

from bm3.graph import SparseProduct
from harness.models.products import Pattern
from harness.tools.profiling.operations import Floor, Operation, OperationCounter

CPU = torch.device("cpu")


class Counted(NamedTuple):
    calls: float
    bytes: float
    flops: float


def recorded(block: Callable[[], object]) -> OperationCounter:
    with OperationCounter(CPU) as counter:
        block()
    return counter


def counted(block: Callable[[], object]) -> dict[str, Counted]:
    """By operation, those that moved something."""
    operations = recorded(block).operations()
    return {o.name: Counted(o.calls, o.bytes, o.flops) for o in operations if o.bytes or o.flops}


def floor(block: Callable[[], object]) -> Floor:
    return recorded(block).floor()


# --- one operation ---


def test_a_matrix_product_moves_its_three_matrices_and_multiplies_and_adds_once_per_pair() -> None:
    x, y = torch.ones(6, 4), torch.ones(4, 5)
    assert counted(lambda: x @ y) == {"mm": (1, 4 * (6 * 4 + 4 * 5 + 6 * 5), 2 * 6 * 4 * 5)}


@pytest.mark.parametrize(
    ("block", "name", "flops"),
    [
        (lambda a, b, v: torch.addmm(torch.ones(5), a, b), "addmm", 2 * 6 * 4 * 5),
        (lambda a, b, v: torch.ones(6, 5).addmm_(a, b), "addmm_", 2 * 6 * 4 * 5),
        (lambda a, b, v: torch.bmm(a.expand(3, 6, 4), b.expand(3, 4, 5)), "bmm", 3 * 2 * 6 * 4 * 5),
        (lambda a, b, v: torch.mv(a, v), "mv", 2 * 6 * 4),
        (lambda a, b, v: torch.dot(v, v), "dot", 2 * 4),
        (lambda a, b, v: nn.functional.conv1d(a.view(1, 6, 4), torch.ones(7, 6, 1)), "convolution", 2 * 7 * 6 * 4),
    ],
    ids=["addmm", "addmm_", "bmm", "mv", "dot", "convolution"],
)
def test_every_dense_product_counts_its_operations(block: Callable[..., Tensor], name: str, flops: int) -> None:
    found = counted(lambda: block(torch.ones(6, 4), torch.ones(4, 5), torch.ones(4)))
    assert found[name].flops == flops
    assert sum(one.flops for one in found.values()) == flops


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_coo])
def test_a_sparse_product_counts_stored_entries_with_their_indices(layout: torch.layout) -> None:
    m = torch.diag(torch.arange(1.0, 5.0)).to_sparse(layout=layout)  # 4 entries
    x = torch.ones(4, 8)
    found = counted(lambda: m @ x)
    indices = 8 * (4 + 5 if layout == torch.sparse_csr else 2 * 4)
    (product,) = found.values()
    assert product.flops == 2 * 4 * 8
    assert product.bytes == indices + 4 * 4 + 2 * 4 * 4 * 8


def test_a_gather_moves_the_distinct_rows_and_not_the_table() -> None:
    table, ids = torch.ones(1000, 8), torch.tensor([3, 3, 5])
    rows = {
        "embedding": lambda: nn.functional.embedding(ids, table),
        "index_select": lambda: table.index_select(0, ids),
    }
    rows |= {"index": lambda: table[ids]}
    for name, block in rows.items():
        assert counted(block) == {name: (1, 3 * 8 + 2 * 32 + 3 * 32, 0)}
        assert floor(block) == Floor(read_bytes=3 * 8 + 2 * 32, written_bytes=0, flops=0)


def test_a_gather_along_other_dimensions_moves_what_it_names() -> None:
    table, ids = torch.ones(10, 20), torch.tensor([1, 4, 4])
    assert floor(lambda: table.index_select(1, ids)).read_bytes == 3 * 8 + 2 * 10 * 4
    assert floor(lambda: table[:, ids]).read_bytes == 3 * 8 + 2 * 10 * 4
    assert floor(lambda: table[ids, ids]).read_bytes == 3 * 8 + 2 * 4
    assert floor(lambda: table[torch.tensor([-1, 9])]).read_bytes == 2 * 8 + 20 * 4
    assert floor(lambda: table.gather(1, ids.expand(2, 3))).read_bytes == 3 * 8 + 2 * 2 * 4
    assert floor(lambda: table.take(torch.tensor([0, 199, 199]))).read_bytes == 3 * 8 + 2 * 4
    mask = torch.arange(10) < 3
    assert floor(lambda: table[mask]).read_bytes == 10 + 3 * 20 * 4


def test_an_embedding_bag_is_a_sparse_product_on_gathered_rows() -> None:
    table, columns, starts = torch.ones(50, 4), torch.tensor([7, 7, 9]), torch.tensor([0, 2, 3])
    weights = torch.ones(3)

    def bag(**options: Any) -> Callable[[], Tensor]:
        return lambda: nn.functional.embedding_bag(
            columns, table, starts, mode="sum", include_last_offset=True, **options
        )

    with torch.no_grad():
        assert floor(bag(per_sample_weights=weights)) == Floor(3 * 8 + 3 * 8 + 3 * 4 + 2 * 16, 0, 2 * 3 * 4)
        assert floor(bag()).flops == 3 * 4


@pytest.mark.filterwarnings("ignore:Sparse")
def test_products_of_custom_autograd_functions_are_seen_forwards_and_backwards() -> None:
    graph = SparseProduct(sparse.csr_array(np.eye(5)))
    x = torch.ones(5, 3, requires_grad=True)
    found = counted(lambda: graph(x).sum().backward())
    bags = [one for name, one in found.items() if name.startswith("_embedding_bag")]
    assert (sum(one.calls for one in bags), sum(one.flops for one in bags)) == (2, 2 * 2 * 5 * 3)

    pattern = Pattern([0, 2, 3], [0, 1, 1], 2)
    y = torch.ones(2, 7)
    assert counted(lambda: pattern.dots(y, y))["sparse_sampled_addmm"].flops == 2 * 3 * 7


def test_views_move_nothing() -> None:
    x = torch.ones(4, 6)
    views: list[Callable[[], object]] = [
        lambda: x.t()[1:],
        lambda: x.view(2, 12).unsqueeze(0).expand(3, 2, 12),
        lambda: x.split(2),
        lambda: x.detach(),
        lambda: torch.empty(1000).as_strided_((2,), (1,)),
        lambda: torch.empty_like(x),
    ]
    for view in views:
        assert counted(view) == {}
    assert counted(lambda: x.t().contiguous()) == {"clone": (1, 2 * 4 * 24, 0)}


def test_a_repeated_element_counts_once() -> None:
    x = torch.ones(10)
    assert counted(lambda: x * x) == {"mul": (1, 2 * 40, 0)}
    assert counted(lambda: x.expand(5, 10).sum())["sum"].bytes == 40 + 4


def test_writing_in_place_counts_reading_only_where_something_is_read() -> None:
    x, y = torch.ones(10), torch.ones(10)
    assert counted(lambda: x.add_(y)) == {"add_": (1, 3 * 40, 0)}
    assert counted(lambda: x.copy_(y)) == {"copy_": (1, 2 * 40, 0)}
    assert counted(lambda: x.zero_()) == {"zero_": (1, 40, 0)}
    assert counted(lambda: torch.add(y, y, out=x)) == {"add": (1, 2 * 40, 0)}
    assert counted(lambda: torch.zeros_like(x)) == {"zeros_like": (1, 40, 0)}
    assert counted(lambda: x.new_zeros(5)) == {"new_zeros": (1, 20, 0)}
    assert floor(lambda: x.add_(y)) == Floor(80, 40, 0)
    assert floor(lambda: x.copy_(y)) == Floor(40, 40, 0)


def test_writing_rows_counts_those_rows() -> None:
    table, ids, rows = torch.ones(1000, 8), torch.tensor([3, 5]), torch.ones(2, 8)
    given = 2 * 8 + 64  # ids and the rows that are put there

    def put(accumulate: bool) -> Callable[[], object]:
        return lambda: table.index_put_((ids,), rows, accumulate=accumulate)

    assert floor(put(False)) == Floor(given, 64, 0)
    assert floor(put(True)) == Floor(given + 64, 64, 0)
    assert floor(lambda: table.index_add_(0, ids, rows)) == Floor(given + 64, 64, 0)
    assert floor(lambda: table.scatter_(0, ids.view(2, 1), rows[:, :1])) == Floor(2 * 8 + 2 * 4, 2 * 4, 0)


def test_lists_of_tensors_are_counted() -> None:
    tensors = [torch.ones(3), torch.ones(5)]
    assert counted(lambda: torch._foreach_add_(tensors, 1.0)) == {"_foreach_add_": (1, 2 * 4 * 8, 0)}


def test_operations_that_consist_of_others_are_counted_in_parts_under_inference_too() -> None:
    x, weight = torch.ones(6, 4), torch.ones(5, 4)
    with torch.inference_mode():
        assert counted(lambda: nn.functional.linear(x, weight))["mm"].flops == 2 * 6 * 4 * 5


def test_seconds_are_those_of_the_calls_alone() -> None:
    now = iter(range(100, 200))
    x = torch.ones(3)
    with OperationCounter(CPU, clock=lambda: float(next(now))) as counter:
        x + x
        x + x
    assert counter.operations() == [Operation("add", 2, 2.0, 2 * 24, 0)]


def test_timing_alone_counts_calls_and_seconds_and_nothing_else() -> None:
    x = torch.ones(3, 3)
    with OperationCounter(CPU, seconds_only=True) as counter:
        x @ x
    (product,) = counter.operations()
    assert (product.name, product.calls, product.bytes, product.flops) == ("mm", 1, 0, 0)
    assert product.seconds > 0


# --- the floor ---


def test_what_a_block_makes_for_itself_is_no_part_of_its_floor() -> None:
    x = torch.ones(100)
    chain = recorded(lambda: ((x + 1) * 2).exp().sum())
    assert chain.floor() == Floor(read_bytes=400, written_bytes=0, flops=0)
    assert sum(operation.bytes for operation in chain.operations()) == 400 * 7 + 4


def test_memory_that_is_used_again_is_not_taken_for_what_was_there_before() -> None:
    def block() -> None:
        for _ in range(50):
            torch.ones(1000).add_(1)

    assert floor(block) == Floor(0, 0, 0)


def test_what_is_read_twice_has_to_come_in_once() -> None:
    x = torch.ones(100)
    assert floor(lambda: (x + 1, x.exp(), x.view(10, 10).t() * 2)).read_bytes == 400


def test_parts_of_one_storage_are_united() -> None:
    x = torch.ones(10, 10)
    assert floor(lambda: (x[:3] + 1, x[5:7] + 1)).read_bytes == 5 * 40
    assert floor(lambda: (x[:3] + 1, x[2:7] + 1)).read_bytes == 7 * 40
    first, second = torch.tensor([1, 2]), torch.tensor([2, 3])
    assert floor(lambda: (x[first], x[second])).read_bytes == 2 * 16 + 3 * 40
    assert floor(lambda: (x[first], x + 1)).read_bytes == 16 + 400


def test_fused_adam_has_to_move_parameter_and_moments_in_and_out_and_the_gradient_in() -> None:
    n = 1000
    w = nn.Parameter(torch.ones(n))
    optimiser = torch.optim.Adam([w], fused=True)
    w.grad = torch.ones(n)
    optimiser.step()  # the first step makes the moments
    assert floor(optimiser.step) == Floor(read_bytes=16 * n + 4, written_bytes=12 * n + 4, flops=0)
    assert counted(optimiser.step)["_fused_adam_"].bytes == 28 * n + 4


def test_a_gradient_made_in_the_step_is_free_so_that_a_step_of_adam_has_24_bytes_per_value() -> None:
    n = 1000
    w, c = nn.Parameter(torch.ones(n)), torch.ones(n)
    optimiser = torch.optim.Adam([w], fused=True)

    def step() -> None:
        optimiser.zero_grad()
        (w * c).sum().backward()
        optimiser.step()

    step()
    found = floor(step)
    assert found.bytes == 24 * n + 4 * n + 2 * 4  # and the factor in, and the step's number in and out
    assert found.written_bytes == 12 * n + 4
