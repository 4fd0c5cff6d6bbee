"""What a training step dispatches: on a GPU each operation is a launch, which at these sizes takes most of the time."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.data import Dataset
from harness.models import bm3 as fast
from harness.models import features
from harness.models.registry import find_model
from harness.training import Streams, TrainingConfig, build
from harness.training.steps import TrainingSteps

CPU = torch.device("cpu")
FEWEST = {"bm3": 230, "bpr": 45, "lightgcn": 60}


class Counted(TorchDispatchMode):
    """Counts operations by name, but for views and the profiler's marks, which compute nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name = Counter[str]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aliases = [given.alias_info for given in function._schema.returns]
        if not any(alias is not None and not alias.is_write for alias in aliases):
            self.by_name[function._schema.name.removeprefix("aten::")] += function.namespace != "profiler"
        return function(*args, **(kwargs or {}))


def step_of(name: str, dataset: Dataset, **settings: Any) -> tuple[Counter[str], float]:
    """The operations of a model's second step, and its loss."""
    model, streams = find_model(name).model, Streams(0)
    built = build(model, dataset, model.Config(**settings), streams, CPU)
    training = TrainingSteps(built, dataset, TrainingConfig(batch_size=64), streams, CPU)
    training.first_step(1)
    with Counted() as counted:
        loss = training.step()
    return counted.by_name, float(loss.total.detach())


@pytest.fixture
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (features, fast):
        monkeypatch.setattr(module, "keeps_repeated", lambda ids: True)


@pytest.mark.parametrize("name", FEWEST)
def test_a_step_has_few_operations(name: str, clustered: Dataset) -> None:
    found, _ = step_of(name, clustered)
    print(name, found.total(), found.most_common())
    assert FEWEST[name] / 2 < found.total() <= FEWEST[name]


@pytest.mark.parametrize("kind", ["trained", "frozen"])
@pytest.mark.usefixtures("as_on_cuda")
def test_where_ids_are_not_merged_nothing_is_gathered_for_it(kind: str, clustered: Dataset) -> None:
    found, _ = step_of("bm3", clustered, features=kind)
    assert found.total() <= 150
    assert not found.keys() & {"arange", "_unique2", "embedding_dense_backward", "bincount"}
    assert found["embedding"] == 4  # rows of users and items, and of their targets


@pytest.mark.parametrize("name", ["bm3", "vbpr"])
def test_merging_changes_no_number(name: str, clustered: Dataset, request: pytest.FixtureRequest) -> None:
    settings = {"dropout": 0.0} if name == "bm3" else {}
    _, merged = step_of(name, clustered, **settings)
    request.getfixturevalue("as_on_cuda")
    found, kept = step_of(name, clustered, **settings)
    assert kept == pytest.approx(merged, rel=1e-5)
    assert "_unique2" not in found


def test_lattice_makes_its_graphs_where_its_tensors_are(clustered: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of them passes through main memory: where they are in it already, nobody asks to take them there."""
    model, streams = find_model("lattice").model, Streams(0)
    built = build(model, clustered, model.Config(), streams, CPU)
    training = TrainingSteps(built, clustered, TrainingConfig(batch_size=64), streams, CPU)
    monkeypatch.setattr(torch.Tensor, "cpu", None)
    training.first_step(1)
    training.step()
    assert torch.isfinite(built.embed()[1]).all()
