"""What operations move and multiply, the floor of a block, its text, and `bm3 profile`. Seconds are never compared."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor, nn

from bm3.graph import SparseProduct
from harness import cli
from harness.data import Dataset, load_dataset
from harness.measure.operations import Floor, Operation, OperationCounter
from harness.measure.profile import BlockProfile, ModelProfile, TrainingSteps, profile, profile_block
from harness.measure.roofline import MachineRates, measure_rates
from harness.models.products import Pattern
from harness.models.registry import find_model
from harness.report.profile import block_text, block_values, check_writable, profile_text, profile_values
from harness.training import Streams, TrainingConfig, build, fit

CPU = torch.device("cpu")
RATES = MachineRates(bytes_per_second=1e9, flops_per_second=1e10, threads=2)
MODELS = ("bpr", "lightgcn", "buir", "vbpr", "mmgcn", "grcn", "dualgnn", "lattice", "bm3")


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


# --- a block ---


def test_a_block_is_called_undisturbed_timed_and_counted_and_what_comes_before_takes_no_part() -> None:
    x, seen = torch.ones(4, 4), []

    def before() -> None:
        seen.append("before")
        x.exp()

    def block() -> None:
        seen.append("block")
        x @ x

    found = profile_block(block, CPU, warm_up=2, repeats=3, before=before)
    assert seen == ["before", "block"] * (2 + 3 * 3)
    assert [(o.name, o.calls, o.bytes, o.flops) for o in found.operations] == [("mm", 1, 2 * 64, 2 * 64)]
    assert found.floor == Floor(64, 0, 128)
    assert found.bytes == 128


def test_figures_of_calls_that_differ_are_per_call() -> None:
    x, calls = torch.ones(100), []

    def block() -> None:
        calls.append(1)
        if len(calls) % 2:
            x.add_(1)

    found = profile_block(block, CPU, warm_up=0, repeats=2)
    assert [(o.name, o.calls, o.bytes) for o in found.operations] == [("add_", 0.5, 400)]
    assert found.floor == Floor(200, 200, 0)


def test_a_block_without_repeats_is_refused() -> None:
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        profile_block(lambda: None, CPU, repeats=0)


def test_time_that_is_not_in_operations_is_outside_of_them() -> None:
    found = profile_block(lambda: (time.sleep(0.05), torch.ones(1)), CPU, warm_up=0, repeats=1)
    assert found.outside_seconds > 0.04
    assert 0 < found.operation_seconds < found.timed_seconds


def _made_up(operations: int = 3, seconds: float = 1.0) -> BlockProfile:
    """Operations of 0.1 s each that move 1 MB each, the first two with 2 and 40 MFLOP."""
    flops = [2e6, 40e6]
    made = [Operation(f"op{k}", 2, 0.1, 1e6, flops[k] if k < 2 else 0) for k in range(operations)]
    return BlockProfile(seconds, 2.0, tuple(made), Floor(2e6, 0.5e6, 42e6))


def test_the_outside_is_never_negative() -> None:
    assert _made_up(3).outside_seconds == pytest.approx(0.7)
    assert _made_up(3, seconds=0.2).outside_seconds == 0


def test_the_floor_takes_as_long_as_the_slower_of_moving_and_multiplying() -> None:
    assert RATES.shortest_seconds(1e9, 1e9) == 1
    assert RATES.shortest_seconds(1e8, 2e10) == 2
    assert _made_up().floor_seconds(RATES) == pytest.approx(0.0042)
    assert _made_up().floor_seconds(MachineRates(1e6, 1e10, 1)) == pytest.approx(2.5)


def test_rates_are_measured_and_leave_the_number_of_threads_alone() -> None:
    threads = torch.get_num_threads()
    rates = measure_rates(CPU, copy_bytes=2**20, matrix_size=64, repeats=3)
    assert 0 < rates.bytes_per_second < float("inf")
    assert 0 < rates.flops_per_second < float("inf")
    assert rates.threads == threads == torch.get_num_threads()


# --- texts ---


def test_the_table_names_the_slowest_operations_and_sums_the_rest() -> None:
    lines = block_text("a step", _made_up(5), RATES, rows=2).splitlines()
    assert lines[0] == "a step: 1000.000 ms measured, 4.200 ms floor, 238.1 times the floor"
    assert "must move 2.50 MB (2.00 read, 0.50 written), products 42.00 MFLOP" in lines[1]
    assert "operations moved 5.00 MB" in lines[1]
    rows = [line.split("  ") for line in lines[-4:]]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["op0", "2", "100.000", "10.0%", "1.00", "2.00", "1.000"],
        ["op1", "2", "100.000", "10.0%", "1.00", "40.00", "4.000"],
        ["3 others", "6", "300.000", "30.0%", "3.00", "3.000"],
        ["outside torch operations", "500.000", "50.0%"],
    ]


def test_a_block_that_does_nothing_has_a_text_too() -> None:
    nothing = BlockProfile(0.0, 0.0, (), Floor(0, 0, 0))
    assert "no floor" in block_text("nothing", nothing, RATES)
    assert block_values(nothing, RATES)["times_floor"] is None


def test_the_text_of_a_model_has_both_blocks_and_the_rates() -> None:
    text = profile_text(ModelProfile(_made_up(), 3.0, 58, _made_up(), RATES))
    assert "copy 1.0 GB/s, float32 products 10.0 GFLOP/s, 2 CPU threads" in text
    assert text.count("outside torch operations") == 2
    assert "first step: 3000.000 ms" in text
    assert "58 steps per epoch" in text


def test_json_values_hold_what_follows_from_the_figures() -> None:
    values = json.loads(json.dumps(profile_values(ModelProfile(_made_up(), 3.0, 58, _made_up(), RATES))))
    assert values["rates"]["bytes_per_second"] == 1e9
    step = values["step"]
    assert step["floor"]["bytes"] == 2.5e6
    assert step["times_floor"] == pytest.approx(1 / 0.0042)
    assert step["operations"][1] == {
        "name": "op1",
        "calls": 2,
        "seconds": 0.1,
        "bytes": 1e6,
        "flops": 40e6,
        "seconds_at_rates": pytest.approx(0.004),
    }


def test_looking_whether_a_file_can_be_written_changes_nothing(tmp_path: Path) -> None:
    there = tmp_path / "there.json"
    there.write_text("precious", encoding="utf-8")
    check_writable(there)
    check_writable(tmp_path / "new.json")
    assert [path.name for path in tmp_path.iterdir()] == ["there.json"]
    assert there.read_text(encoding="utf-8") == "precious"


# --- models ---


@pytest.fixture(scope="module")
def mini() -> Dataset:
    return load_dataset("mini", None)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_profile_whose_floor_is_below_what_its_operations_move(mini: Dataset, name: str) -> None:
    model, stages = find_model(name).model, []
    found = profile(
        model, mini, model.Config(), TrainingConfig(), Streams(1), CPU, steps=1, rates=RATES, tell=stages.append
    )
    width = 64  # every model's vectors have at least as many entries
    for block in (found.step, found.evaluation):
        assert 4 * mini.n_users * width <= block.floor.bytes <= block.bytes
        assert block.seconds > 0
    assert found.step.floor.written_bytes > 0
    assert (found.step.floor.flops > 0) == (name != "bpr")
    assert "mm" in {operation.name for operation in found.evaluation.operations}
    scores = 2 * len(np.unique(mini.valid[:, 0])) * mini.n_items * width
    assert found.evaluation.floor.flops >= scores
    assert found.steps_per_epoch == 3
    assert len(stages) == 3


def test_the_figures_that_are_counted_are_the_same_every_time(mini: Dataset) -> None:
    model = find_model("bm3").model

    def figures() -> tuple[Floor, dict[str, tuple[float, float]]]:
        found = profile(model, mini, model.Config(), TrainingConfig(), Streams(3), CPU, steps=2, rates=RATES)
        return found.step.floor, {o.name: (o.bytes, o.flops) for o in found.step.operations}

    assert figures() == figures()


@pytest.mark.parametrize("name", MODELS)
def test_the_profiled_steps_are_those_of_training(clustered: Dataset, name: str) -> None:
    model = find_model(name).model
    training = TrainingConfig(epochs=1, batch_size=len(clustered.train))  # one batch, so that it is a full one
    trained, stepped = (build(model, clustered, model.Config(), Streams(4), CPU) for _ in range(2))
    fit(trained, clustered, training, Streams(4), CPU)
    TrainingSteps(stepped, clustered, training, Streams(4), CPU).first_step(1)
    for (key, one), other in zip(trained.state_dict().items(), stepped.state_dict().values(), strict=True):
        assert torch.equal(one, other), key


# --- the command ---


class Outcome(NamedTuple):
    """What a command left on its streams, and its exit code."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """`command("bpr", "mini", …)` runs `bm3 profile` in this process, in an empty folder, with rates that are given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BM3_DATA", raising=False)
    monkeypatch.setattr("harness.measure.profile.measure_rates", lambda device: RATES)

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["bm3", "profile", *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            cli.main()
        code = ending.value.code
        return Outcome(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


def test_the_command_shows_both_tables_and_writes_all_figures(command: Command) -> None:
    outcome = command("bpr", "mini", "--steps", 2, "--set", "batch_size=512", "--device", "cpu", "--json", "bpr.json")
    assert outcome.code == 0
    assert outcome.out.startswith("bpr on mini, cpu\n")
    assert outcome.out.count("outside torch operations") == 2
    assert "evaluation" in outcome.err
    values = json.loads(Path("bpr.json").read_text(encoding="utf-8"))
    assert (values["model"], values["dataset"], values["steps"]) == ("bpr", "mini", 2)
    assert values["training"]["batch_size"] == 512
    assert values["step"]["floor"]["bytes"] > 0
    assert values["environment"]["torch"] == torch.__version__
    assert [path.name for path in Path.cwd().iterdir()] == ["bpr.json"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["bppr", "mini"], ["no model 'bppr'", "bpr"]),
        (["bpr", "minni"], ["no data set 'minni'", "nearest: mini"]),
        (["bpr", "mini", "--json", "nowhere/bpr.json"], ["nowhere/bpr.json", "cannot be written", "--json"]),
        (["bpr", "mini", "--json", "."], ["it is a folder", "--json"]),
        (["bpr", "mini", "--set", "n_layers=2"], ["bpr has no setting 'n_layers'"]),
        (["bpr", "mini", "--steps", "0"], ["--steps", "0"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("bp") else "",
)
def test_bad_input_ends_in_one_line_before_anything_is_measured(
    command: Command, arguments: list[str], parts: list[str]
) -> None:
    outcome = command(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.err.splitlines()
    assert line.startswith("bm3: ")
    for part in parts:
        assert part in line
    assert list(Path.cwd().iterdir()) == []


def test_ctrl_c_ends_with_130_and_leaves_no_file(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(device: torch.device) -> MachineRates:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.measure.profile.measure_rates", interrupt)
    outcome = command("bpr", "mini", "--json", "bpr.json")
    assert outcome.code == 130
    assert outcome.err.splitlines()[-1] == "bm3: interrupted"
    assert list(Path.cwd().iterdir()) == []
