"""Where a block's time goes, of every model's step, and the command `bm3 profile`."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Command

from harness.data.dataset import Dataset
from harness.data.layouts import load_dataset
from harness.models.registry import find_model, trained_in_steps
from harness.tools import profile as profiling
from harness.tools.profile import BlockProfile, Operation, block_text, copy_rate, profile, profile_block
from harness.training.config import TrainingConfig
from harness.training.fit import build, fit
from harness.training.steps import TrainingSteps
from harness.training.streams import Streams

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "COPY_BYTES", 2**20)
    monkeypatch.setattr(profiling, "copy_rate", lambda device: copy_rate(device, 2**20))


@pytest.mark.parametrize("layout", ["sparse_coo", "sparse_csr"])
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_of_a_sparse_factor_the_entries_count_that_it_has(layout: str) -> None:
    eye, dense = torch.eye(50).to_sparse(layout=getattr(torch, layout)), torch.ones(50, 3)
    assert profile_block(lambda: eye @ dense, CPU, warm_up=0, repeats=1).flops == 2 * 50 * 3
    dense.requires_grad_()
    there_and_back = profile_block(lambda: torch.sparse.mm(eye, dense).sum().backward(), CPU, warm_up=0, repeats=1)
    assert there_and_back.flops == 2 * 2 * 50 * 3


def test_a_product_that_adds_to_what_is_there_counts_as_one_that_does_not() -> None:
    square, total = torch.ones(50, 50), torch.zeros(50, 50)
    assert profile_block(lambda: total.addmm_(square, square), CPU, warm_up=0, repeats=1).flops == 2 * 50**3


def test_a_blocks_operations_are_found_with_their_calls_products_and_most_of_its_time() -> None:
    matrix, order = torch.rand(300, 300), list[str]()

    def block() -> None:
        order.append("block")
        for _ in range(3):
            matrix @ matrix

    found = profile_block(block, CPU, warm_up=2, repeats=4, before=lambda: order.append("before"))
    (product,) = (operation for operation in found.operations if operation.name == "mm")
    assert product == found.operations[0]
    assert product.calls == 3
    assert 0 < product.seconds <= found.operation_seconds
    assert found.flops == 3 * 2 * 300**3
    assert order == ["before", "block"] * (2 + 4 + 4 + 1)


def test_time_that_is_not_in_operations_is_outside_of_them_and_never_negative() -> None:
    found = profile_block(lambda: time.sleep(0.02), CPU, warm_up=0, repeats=2)
    assert found.outside_seconds > 0.9 * found.seconds > 0.015
    assert BlockProfile(1.0, (Operation("mm", 1, 2.0),), 0).outside_seconds == 0


def test_the_table_names_the_slowest_operations_and_sums_the_rest() -> None:
    operations = tuple(Operation(f"op{n}", 2, 0.02 - n / 1000) for n in range(14))
    lines = block_text("step", BlockProfile(0.4, operations, 10**6)).splitlines()
    assert lines[0].startswith("step: 400.000 ms measured, 189.000 ms in operations; dense products 1.00 MFLOP")
    assert [line.split()[0] for line in lines[4:6]] == ["op0", "op1"]
    assert lines[-2].split() == ["2", "others", "4", "15.000", "3.8%"]
    assert lines[-1].split()[-2:] == ["211.000", "52.7%"]


@pytest.mark.parametrize("name", trained_in_steps())
def test_every_model_has_a_profile_with_products_or_gathers_in_it(name: str) -> None:
    model = find_model(name).model
    found = profile(model, load_dataset("mini"), model.Config(), TrainingConfig(), Streams(0), CPU, steps=1)
    assert found.step.seconds > 0
    assert found.steps_per_epoch >= 1
    names = {operation.name for operation in found.step.operations}
    assert names & {"mm", "index_select", "embedding", "index", "_sparse_mm", "bmm"}
    assert any(operation.name in ("mm", "addmm", "bmm", "matmul") for operation in found.evaluation.operations)
    json.dumps(profiling.profile_values(found))


@pytest.mark.parametrize("name", ["bm3", "bpr"])
def test_the_profiled_steps_are_those_of_training(clustered: Dataset, name: str) -> None:
    model, training = find_model(name).model, TrainingConfig(epochs=1, batch_size=10**6)

    def built() -> Any:
        return build(model, clustered, model.Config(), Streams(4), CPU)

    stepped, fitted = built(), built()
    TrainingSteps(stepped, clustered, training, Streams(4), CPU).first_step(1)
    fit(fitted, clustered, training, Streams(4), CPU)
    expected = fitted.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in stepped.state_dict().items())


SHORT = ("profile", "bpr", "mini", "--steps", 2, "--set", "batch_size=512", "--device", "cpu")


def test_the_command_shows_both_tables_and_writes_or_prints_all_figures(command: Command) -> None:
    outcome = command(*SHORT, "--out", "bpr.json")
    assert outcome.code == 0
    assert outcome.out.startswith("bpr on mini, cpu\n")
    assert outcome.out.count("outside torch operations") == 2
    assert "evaluation" in outcome.err
    values = json.loads(Path("bpr.json").read_text(encoding="utf-8"))
    assert (values["model"], values["dataset"], values["steps"]) == ("bpr", "mini", 2)
    assert values["training"]["batch_size"] == 512
    assert values["environment"]["torch"] == torch.__version__
    printed = command(*SHORT, "--json")
    assert json.loads(printed.out).keys() == values.keys()
    assert [path.name for path in Path.cwd().iterdir()] == ["bpr.json"]
