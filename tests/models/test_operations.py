"""What a training step dispatches: on a GPU each operation is a launch, which at these sizes takes most of the time."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from one_device import META, OneDevice, Watched
from torch import Tensor

from bm3 import Batch
from harness.data.dataset import Dataset
from harness.models import bm3 as fast
from harness.models import features
from harness.models.registry import find_model, trained_in_steps
from harness.tools import doctor
from harness.training.accelerators import prefetch
from harness.training.config import TrainingConfig
from harness.training.fit import build
from harness.training.steps import TrainingSteps
from harness.training.streams import Streams

CPU = torch.device("cpu")
FEWEST = {"bm3": 230, "bpr": 45, "lightgcn": 60}


def counted(by_name: Counter[str]) -> Watched:
    """Counts operations by name, but for views and the profiler's marks, which compute nothing."""

    def see(function: Any, *_: Any) -> None:
        aliases = [given.alias_info for given in function._schema.returns]
        if not any(alias is not None and not alias.is_write for alias in aliases):
            by_name[function._schema.name.removeprefix("aten::")] += function.namespace != "profiler"

    return Watched(see)


def called(names: set[str]) -> Watched:
    """Names of operations, each with the kind of number of its last tensor."""

    def see(function: Any, given: Sequence[Tensor], _: Any) -> None:
        kinds = [str(one.dtype).removeprefix("torch.") for one in given]
        names.add(" ".join([function._schema.name.removeprefix("aten::"), *kinds[-1:]]))

    return Watched(see)


def step_of(name: str, dataset: Dataset, **settings: Any) -> tuple[Counter[str], float]:
    """The operations of a model's second step, and its loss."""
    model, streams = find_model(name).model, Streams(0)
    built = build(model, dataset, model.Config(**settings), streams, CPU)
    training = TrainingSteps(built, dataset, TrainingConfig(batch_size=64), streams, CPU)
    training.first_step(1)
    with counted(found := Counter[str]()):
        loss = training.step()
    return found, float(loss.total.detach())


@pytest.fixture
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (features, fast, prefetch):
        monkeypatch.setattr(module, "keeps_repeated", lambda device: True)


@pytest.mark.parametrize("name", FEWEST)
def test_a_step_has_few_operations(name: str, clustered: Dataset) -> None:
    found, _ = step_of(name, clustered)
    print(name, found.total(), found.most_common())
    assert FEWEST[name] / 2 < found.total() <= FEWEST[name]


@pytest.mark.parametrize("kind", ["trained", "frozen"])
@pytest.mark.usefixtures("as_on_cuda")
def test_where_ids_are_not_merged_nothing_is_gathered_for_it(kind: str, clustered: Dataset) -> None:
    found, _ = step_of("bm3", clustered, features=kind)
    assert found.total() <= 152
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


@pytest.mark.parametrize("name", ["bm3", "vbpr"])
@pytest.mark.usefixtures("as_on_cuda")
def test_rows_kept_off_the_device_are_copied_there_once_a_step_and_nothing_waits(
    name: str, clustered: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One copy of each modality's rows serves both directions; beside it lie the ids that it is checked by."""
    pinned, empty = list[bool](), torch.empty

    def recording(*size: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        pinned.append(pin_memory)
        return empty(*size, **options)

    monkeypatch.setattr(torch, "empty", recording)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model = find_model(name).model
    settings = {"features": "frozen", "dropout": 0.0} if name == "bm3" else {}
    built = model(clustered, model.Config(**settings), torch.Generator().manual_seed(0))
    for table in features.feature_tables(built):
        table.off_device = True
    built.to(META)
    pinned.clear()
    batch = Batch(*torch.randint(40, (3 if model.uses_negatives else 2, 16)))
    prefetch.fetch(built, batch, META)
    there = Batch(*(ids.to(META) for ids in batch if ids is not None))
    with OneDevice() as seen:
        built.loss(there).total.backward()
    assert seen.copies == [("cpu", "meta")] * 4
    assert seen.waits == []
    assert pinned.count(True) == 2


def test_a_training_on_the_cpu_takes_no_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    table = features.FeatureTable("x", np.ones((5, 2), np.float32), 5, trained=False)
    table.off_device = True
    table.fetch(torch.tensor([0, 1]), torch.device("cpu"))  # pinning would raise where there is no CUDA
    rows, _ = table._fetched(torch.tensor([0, 1]), torch.device("cpu"))
    assert (rows.tolist(), rows.is_pinned()) == ([[1, 1], [1, 1]], False)


@pytest.mark.usefixtures("as_on_cuda")
def test_rows_of_other_items_than_were_fetched_are_not_numbers() -> None:
    table = features.FeatureTable("x", np.ones((5, 2), np.float32), 5, trained=False)
    table.off_device = True
    table.fetch(torch.tensor([0, 1]), torch.device("cpu"))
    product = table.project(torch.tensor([0, 2]), torch.ones(3, 2))
    assert product.isnan().any(dim=1).tolist() == [False, True]


NOT_REPEATABLE = re.compile(
    "kthvalue|histc|put_$|median|nll_loss|_ctc_loss|grid_sampler|upsample|.*pool[123]d.*backward|max_unpool"
    "|reflection_pad|replication_pad|scatter_reduce|cumsum.*float|bincount.*float|_embedding_bag.*backward"
)
"""Operations that torch 2.6, by its documentation of `use_deterministic_algorithms`, cannot repeat on CUDA."""


@pytest.mark.parametrize("name", trained_in_steps())
@pytest.mark.usefixtures("as_on_cuda")
def test_whatever_a_model_calls_can_be_repeated_on_cuda_in_the_oldest_torch(name: str, clustered: Dataset) -> None:
    with called(names := set()):
        step_of(name, clustered)
    assert len(names) > 20
    assert [one for one in names if NOT_REPEATABLE.match(one)] == []


def test_what_cannot_be_repeated_would_be_found() -> None:
    with called(names := set()):
        torch.rand(3).cumsum(0)
        torch.arange(3).cumsum(0)
    assert [one for one in names if NOT_REPEATABLE.match(one)] == ["cumsum float32"]


@pytest.mark.gpu
@pytest.mark.parametrize("name", trained_in_steps())
def test_a_step_on_a_gpu_is_twice_the_same_to_the_bit(name: str, clustered: Dataset) -> None:
    cuda = torch.device("cuda")
    first, second = (doctor._step(name, clustered, cuda) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
