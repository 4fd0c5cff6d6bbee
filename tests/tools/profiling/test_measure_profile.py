"""The profile of a block and of every model, the rates of a machine, and the text. Seconds are never compared."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data import Dataset, load_dataset
from harness.models.registry import find_model
from harness.tools.profiling.operations import Floor, Operation
from harness.tools.profiling.profile import BlockProfile, ModelProfile, TrainingSteps, profile, profile_block
from harness.tools.profiling.report import block_text, block_values, check_writable, profile_text, profile_values
from harness.tools.profiling.roofline import MachineRates, measure_rates
from harness.training import Streams, TrainingConfig, build
from harness.training.fit import fit

CPU = torch.device("cpu")
RATES = MachineRates(bytes_per_second=1e9, flops_per_second=1e10, threads=2)
MODELS = ("bpr", "lightgcn", "buir", "vbpr", "mmgcn", "grcn", "dualgnn", "lattice", "bm3")


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
