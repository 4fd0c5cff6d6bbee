"""The epoch loop: stopping, determinism, and the best epoch's parameters in the end."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from one_device import Watched, made_anew
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from bm3 import Batch, BM3Error, ConfigError, Loss, Recommender
from harness.data.dataset import Dataset
from harness.evaluation.ranking import Evaluation
from harness.models.features import FeatureTable, feature_tables
from harness.models.registry import find_model, trained_in_steps
from harness.runs.trial import make_trial
from harness.training.config import EarlyStopping, TrainingConfig
from harness.training.fit import EpochRecord, Fit, StoppingRule, _means, build, fit
from harness.training.steps import TrainingSteps
from harness.training.streams import Streams

CPU = torch.device("cpu")
MODELS = trained_in_steps()
State = dict[str, Tensor]


def trained(
    name: str,
    dataset: Dataset,
    *,
    seed: int = 3,
    on_epoch: Callable[[Any, EpochRecord], None] = lambda model, record: None,
    **settings: Any,
) -> tuple[Fit, State, list[EpochRecord]]:
    """Result, final parameters and epochs of a short training."""
    entry, streams = find_model(name), Streams(seed)
    config = TrainingConfig(**{"epochs": 4, "batch_size": 100, "learning_rate": 0.01} | settings)
    model = build(entry.model, dataset, entry.model.Config(), streams, CPU)
    records: list[EpochRecord] = []

    def observe(record: EpochRecord) -> None:
        records.append(record)
        on_epoch(model, record)

    outcome = fit(model, dataset, config, streams, CPU, observe)
    return outcome, copy.deepcopy(model.state_dict()), records


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def figures(records: list[EpochRecord]) -> list[tuple[Any, ...]]:
    """Everything of the epochs but times."""
    return [(record.epoch, record.loss, record.parts, record.valid, record.improved) for record in records]


def test_a_model_in_closed_form_has_one_epoch_which_is_the_best(clustered: Dataset) -> None:
    outcome, _, records = trained("mostpop", clustered)
    assert (outcome.best_epoch, outcome.epochs, outcome.stopped) == (1, 1, "closed form")
    assert [(record.epoch, record.improved, record.sampling_seconds) for record in records] == [(1, True, 0.0)]
    assert (outcome.valid, records[0].loss) == (records[0].valid, None)


# --- stopping ---


@pytest.mark.parametrize(
    ("settings", "values", "best", "stops"),
    [
        ({"rounding": 4}, (0.1, 0.10004, 0.1001, 0.1001), (1, 0, 1, 0), False),
        ({"rounding": "none"}, (0.1, 0.10004, 0.10004, 0.1000401), (1, 1, 0, 1), False),
        ({}, (0.0,), (1,), False),  # a first value of zero is a best one
        ({}, (0.5, *[0.4] * 20, 0.5), (1, *[0] * 21), True),  # equal is no improvement
        *(({"patience": n}, (0.5, *[0.4] * n, 0.5), (1, *[0] * (n + 1)), True) for n in (0, 1)),
        ({"patience": 0}, (-5.0, -3.0, float("nan")), (1, 1, 0), True),  # a metric may be negative
        ({"patience": 2}, (0.5, 0.4, 0.4, 0.6, 0.4, 0.4, 0.4), (1, 0, 0, 1, 0, 0, 0), True),  # which counts anew
    ],
)
def test_a_new_best_is_a_higher_value_as_rounded_and_training_stops_after_more_than_patience_without_one(
    settings: dict[str, Any], values: tuple[float, ...], best: tuple[int, ...], stops: bool
) -> None:
    rule, stopped = StoppingRule(EarlyStopping(**settings)), []
    for value, improves in zip(values, best, strict=True):
        assert rule.improves(value) == improves
        stopped.append(rule.stop)
    assert stopped == [False] * (len(values) - 1) + [stops]


@pytest.mark.parametrize(("metric", "short"), [("ndcg@10", "N@10"), ("mrr@7", "MRR@7")])
def test_another_metric_chooses_the_epoch_and_is_recorded(clustered: Dataset, metric: str, short: str) -> None:
    stopping = EarlyStopping(metric=short, rounding="none")
    outcome, _, records = trained("bpr", clustered, epochs=8, early_stopping=stopping)
    values = [record.valid[metric] for record in records]
    assert outcome.best_epoch == 1 + values.index(max(values))
    assert outcome.test[metric] > 0


def test_without_a_validation_part_all_epochs_are_trained_and_the_last_is_tested(clustered: Dataset) -> None:
    whole = replace(clustered, valid=clustered.valid[:0])
    outcome, _, records = trained("bpr", whole, epochs=30, early_stopping=EarlyStopping(patience=0))
    assert (outcome.epochs, outcome.best_epoch, outcome.stopped, outcome.valid) == (30, 30, "limit", {})
    assert all(record.improved and not record.valid and not record.evaluation_seconds for record in records)
    assert outcome.timing["evaluation_median_s"] is None
    short, _, _ = trained("bpr", whole, epochs=29)
    assert short.test != outcome.test


@pytest.mark.parametrize(("patience", "epochs"), [(0, 2), (3, 5)])
def test_a_model_that_never_changes_trains_for_patience_plus_two_epochs(
    clustered: Dataset, patience: int, epochs: int
) -> None:
    outcome, _, records = trained(
        "bpr", clustered, learning_rate=1e-12, epochs=30, early_stopping=EarlyStopping(patience=patience)
    )
    assert (outcome.stopped, outcome.epochs, outcome.best_epoch) == ("early", epochs, 1)
    assert [record.epoch for record in records] == list(range(1, epochs + 1))
    assert [record.improved for record in records] == [True] + [False] * (epochs - 1)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (EarlyStopping, {"patience": -1}),
        (EarlyStopping, {"rounding": 3}),
        *((EarlyStopping, {"metric": name}) for name in ("coverage@20", "recall", "recall@0", "nothing@20")),
        (TrainingConfig, {"epochs": 0}),
        (TrainingConfig, {"batch_size": 0}),
        *((TrainingConfig, {"learning_rate": rate}) for rate in (0.0, float("nan"), float("inf"))),
        (TrainingConfig, {"precision": "float16"}),
        (TrainingConfig, {"features_location": "moon"}),
    ],
    ids=str,
)
def test_impossible_settings_are_refused_by_name(kind: type[Any], settings: dict[str, Any]) -> None:
    ((field, value),) = settings.items()
    with pytest.raises(ConfigError, match=f"{field} is {value!r}, it must be "):
        kind(**settings)


def test_lists_that_end_before_the_metric_of_stopping_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 60, the cut-off of early stopping"):
        TrainingConfig(early_stopping=EarlyStopping(metric="recall@60"))


# --- determinism ---


@pytest.mark.parametrize("name", MODELS)
def test_evaluating_more_often_changes_nothing(clustered: Dataset, name: str) -> None:
    def evaluate_twice(model: Any, record: EpochRecord) -> None:
        for part in ("test", "valid"):
            Evaluation(clustered)(model, part, CPU)

    usual, parameters, epochs = trained(name, clustered)
    often, parameters_often, epochs_often = trained(name, clustered, on_epoch=evaluate_twice)
    assert same(parameters, parameters_often)
    assert figures(epochs) == figures(epochs_often)
    assert usual.test == often.test


@pytest.mark.parametrize("name", MODELS)
def test_training_longer_repeats_the_shorter_training(clustered: Dataset, name: str) -> None:
    (shorter, _, two), (longer, _, four) = (trained(name, clustered, epochs=n) for n in (2, 4))
    assert figures(two) == figures(four)[:2]
    assert [(one.stopped, one.epochs) for one in (shorter, longer)] == [("limit", 2), ("limit", 4)]


# --- the outcome ---


@pytest.mark.parametrize("name", MODELS)
def test_the_best_epochs_parameters_are_restored(clustered: Dataset, name: str) -> None:
    states: dict[int, State] = {}
    models = []

    def keep(model: Any, record: EpochRecord) -> None:
        states[record.epoch] = copy.deepcopy(model.state_dict())
        models.append(model)

    patience = EarlyStopping(patience=2)
    outcome, final, records = trained(
        name, clustered, on_epoch=keep, epochs=60, learning_rate=0.05, early_stopping=patience
    )
    assert outcome.stopped == "early"
    assert outcome.best_epoch == outcome.epochs - 3 == max(record.epoch for record in records if record.improved)
    assert same(final, states[outcome.best_epoch])
    assert not same(final, states[outcome.epochs])
    assert outcome.valid == records[outcome.best_epoch - 1].valid
    assert outcome.valid["recall@20"] == pytest.approx(max(r.valid["recall@20"] for r in records), abs=5e-5)
    assert outcome.test.items() >= Evaluation(clustered)(models[0], "test", CPU).items()
    assert outcome.valid == Evaluation(clustered)(models[0], "valid", CPU)
    for record in records:
        assert sum(record.parts.values()) == pytest.approx(record.loss, rel=1e-5)


@dataclass(frozen=True)
class StubConfig:
    """Nothing to set."""


class Diverging(Recommender):
    """A model whose loss is finite for one epoch and then is not."""

    Config = StubConfig

    def __init__(self, dataset: Dataset, config: StubConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.rand(dataset.n_users + dataset.n_items, 2, generator=generator))
        self.n_users, self.epochs, self.bad = dataset.n_users, 0, float("nan")
        self.drawn: list[Tensor] = []

    def start_epoch(self, generator: torch.Generator) -> None:
        self.epochs += 1
        self.drawn.append(torch.rand(4, generator=generator))

    def loss(self, batch: Batch) -> Loss:
        factor = 1.0 if self.epochs == 1 else self.bad
        return Loss(factor * self.vectors.square().sum(), {})

    def embed(self) -> tuple[Tensor, Tensor]:
        return self.vectors[: self.n_users], self.vectors[self.n_users :]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_diverging_loss_is_an_error_that_names_the_epoch_and_a_remedy(clustered: Dataset, bad: float) -> None:
    streams, records = Streams(0), list[EpochRecord]()
    model = build(Diverging, clustered, StubConfig(), streams, CPU)
    model.bad = bad
    with pytest.raises(BM3Error, match=r"in epoch 2.*learning_rate"):
        fit(model, clustered, TrainingConfig(epochs=5), streams, CPU, records.append)
    assert [record.epoch for record in records] == [1]


def test_means_are_of_all_steps_and_no_steps_tensors_are_kept_for_them() -> None:
    """Small ones that stay between the large ones of each step keep their memory from being used again."""
    made: list[StorageWeakRef] = []

    def steps() -> Iterator[Loss]:
        for value in (1.0, 2.0, 6.0):
            assert all(one.expired() for one in made)
            total, part = torch.tensor(value), torch.tensor(2 * value)
            made.extend(StorageWeakRef(one.untyped_storage()) for one in (total, part))
            yield Loss(total, {"part": part})
            del total, part

    assert _means(steps(), 5, 1) == (3.0, {"part": 6.0})


def test_every_epoch_gives_the_model_its_own_stream_of_the_run(clustered: Dataset) -> None:
    model = build(Diverging, clustered, StubConfig(), Streams(8), CPU)
    model.bad = 0.5
    fit(model, clustered, TrainingConfig(epochs=3), Streams(8), CPU)
    expected = [torch.rand(4, generator=Streams(8).torch("model", epoch)) for epoch in (1, 2, 3)]
    assert torch.equal(torch.stack(model.drawn), torch.stack(expected))


class Dropping(Diverging):
    """Draws from the global generators, as torch's own layers do: at the start, by dropout and by NumPy."""

    def __init__(self, dataset: Dataset, config: StubConfig, generator: torch.Generator) -> None:
        super().__init__(dataset, config, generator)
        self.layer, self.dropout, self.bad = nn.Linear(2, 2), nn.Dropout(0.5), 1.0

    def loss(self, batch: Batch) -> Loss:
        users, items = self.embed()
        wanted = float(np.random.rand())  # noqa: NPY002
        return Loss(((users[batch.users] * items[batch.items]).sum(dim=1) - wanted).square().mean(), {})

    def embed(self) -> tuple[Tensor, Tensor]:
        users, items = super().embed()
        return self.dropout(self.layer(users)), items


def test_a_model_that_draws_from_global_generators_repeats_and_is_evaluated_without_dropout(
    clustered: Dataset, tmp_path: Path
) -> None:
    def ran(epochs: int, **options: Any) -> tuple[Any, Fit]:
        np.random.seed(None)  # noqa: NPY002 - what ran before decides nothing
        torch.seed()
        drawn = torch.get_rng_state()
        streams = Streams(1)
        model = build(Dropping, clustered, StubConfig(), streams, CPU)
        outcome = fit(model, clustered, TrainingConfig(epochs=epochs), streams, CPU, **options)
        assert torch.equal(torch.get_rng_state(), drawn)
        return model, outcome

    (model, outcome), (again, same_outcome) = ran(3), ran(3)
    assert same(model.state_dict(), again.state_dict())
    assert (outcome.valid, outcome.test) == (same_outcome.valid, same_outcome.test)
    evaluate = Evaluation(clustered)
    assert evaluate(model, "test", CPU) == evaluate(model, "test", CPU)
    assert not model.training


# --- what the best epoch and the clock cost ---

SHAPE = (7, 11)
"""Of a state that no other tensor of a training is as large as."""


class WithState(Diverging):
    """Better in every epoch, as far as its state says; choosing at its start takes a while."""

    def __init__(self, dataset: Dataset, config: StubConfig, generator: torch.Generator) -> None:
        super().__init__(dataset, config, generator)
        self.register_buffer("kept", torch.zeros(SHAPE))
        self.bad, self.slept = 1.0, list[float]()

    def start_epoch(self, generator: torch.Generator) -> None:
        super().start_epoch(generator)
        self.kept += 1
        began = time.perf_counter()
        time.sleep(0.02)
        self.slept.append(time.perf_counter() - began)


def test_the_best_state_has_no_copy_in_memory(clustered: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, of five best epochs: it lies in a file."""
    monkeypatch.setattr(StoppingRule, "improves", lambda rule, value: True)
    model, copies = build(WithState, clustered, StubConfig(), Streams(0), CPU), list[str]()

    def see(function: Any, given: Sequence[Tensor], made: Sequence[Tensor]) -> None:
        new = [] if function._schema.is_mutable else made_anew(given, made)
        copies.extend(str(function) for one in new if one.shape == SHAPE)

    with Watched(see):
        outcome = fit(model, clustered, TrainingConfig(epochs=5), Streams(0), CPU)
    assert copies == []
    assert (outcome.best_epoch, model.kept.unique().tolist()) == (5, [5.0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_better_epoch_takes_no_more_of_the_device(clustered: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    device, peaks, entry = torch.device("cuda"), list[int](), find_model("bpr")
    for better in ([True, False, False, False], [True] * 4):
        monkeypatch.setattr(StoppingRule, "improves", lambda rule, value, left=better: left.pop(0))
        model = build(entry.model, clustered, entry.model.Config(), Streams(0), device)
        torch.cuda.reset_peak_memory_stats(device)
        fit(model, clustered, TrainingConfig(epochs=4), Streams(0), device)
        peaks.append(torch.cuda.max_memory_allocated(device))
        del model
    assert peaks[0] == peaks[1]


def test_an_epochs_seconds_hold_what_its_model_does_at_its_start(clustered: Dataset) -> None:
    model, records = build(WithState, clustered, StubConfig(), Streams(0), CPU), list[EpochRecord]()
    fit(model, clustered, TrainingConfig(epochs=3), Streams(0), CPU, records.append)
    assert all(record.seconds >= slept for record, slept in zip(records, model.slept, strict=True))


def test_parameters_that_require_no_gradient_stay(clustered: Dataset) -> None:
    streams = Streams(0)
    entry = find_model("bpr")
    model = build(entry.model, clustered, entry.model.Config(), streams, CPU)
    model.item_embedding.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fit(model, clustered, TrainingConfig(epochs=1), streams, CPU)
    assert torch.equal(model.item_embedding, before["item_embedding"])
    assert not torch.equal(model.user_embedding, before["user_embedding"])


# --- where features lie, and precision ---


@pytest.mark.parametrize(
    ("location", "features", "away"),
    [("device", "frozen", False), ("memory", "frozen", True), ("memory", "trained", False)],
)
def test_tables_stay_off_the_device_where_that_is_asked_for_and_they_are_not_trained(
    location: str, features: str, away: bool, clustered: Dataset
) -> None:
    """The device `meta` stands for any that is not the CPU; nothing is computed there."""
    entry, training = find_model("bm3"), TrainingConfig(features_location=location)
    config = entry.model.Config(features=features)
    built = build(entry.model, clustered, config, Streams(1), torch.device("meta"), training)
    tables = feature_tables(built)
    assert [table.off_device for table in tables] == [away] * 2
    assert {table.table.device.type for table in tables} == {"cpu" if away else "meta"}


@pytest.mark.parametrize("name", ["bm3", "vbpr"])
def test_features_that_are_read_ahead_from_their_file_train_alike(
    name: str, clustered: Dataset, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = find_model(name)
    config = entry.model.Config(**({"features": "frozen"} if name == "bm3" else {}))
    mapped = {}
    for modality, table in clustered.features.items():
        np.save(tmp_path / f"{modality}.npy", table)
        mapped[modality] = np.load(tmp_path / f"{modality}.npy", mmap_mode="r")
    losses: list[list[float]] = []
    fetch, read = FeatureTable.fetch, FeatureTable._fetched
    for dataset, location in ((clustered, "device"), (replace(clustered, features=mapped), "disk")):
        training, streams = TrainingConfig(epochs=3, batch_size=100, features_location=location), Streams(2)
        model = build(entry.model, dataset, config, streams, CPU, training)
        fetched, found = list[Tensor](), list[bool]()

        def fetching(table: FeatureTable, items: Tensor, device: torch.device, fetched: list[Tensor] = fetched) -> None:
            fetched.append(items)
            fetch(table, items, device)

        def reading(table: FeatureTable, items: Tensor | None, device: Any, found: list[bool] = found) -> Any:
            rows, left = read(table, items, device)
            found.append(left is None and items is not None)
            return rows, left

        monkeypatch.setattr(FeatureTable, "fetch", fetching)
        monkeypatch.setattr(FeatureTable, "_fetched", reading)
        losses.append([])
        fit(model, dataset, training, streams, CPU, lambda record, losses=losses: losses[-1].append(record.loss))
        monkeypatch.undo()
        assert bool(fetched) == (location == "disk")
        assert sum(found) == len(fetched)  # all that was read ahead is used
    assert losses[0] == losses[1]


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_precision_holds_in_training_alone(precision: str, clustered: Dataset) -> None:
    seen = []

    class Observing(find_model("bpr").model):  # type: ignore[misc]
        def loss(self, batch: Batch) -> Loss:
            seen.append(torch.get_float32_matmul_precision())
            return super().loss(batch)

    training = TrainingConfig(epochs=1, precision=precision)
    model = build(Observing, clustered, Observing.Config(), Streams(1), CPU)
    fit(model, clustered, training, Streams(1), CPU)
    assert set(seen) == {{"float32": "highest", "tf32": "high", "bf16": "medium"}[precision]}
    assert torch.get_float32_matmul_precision() == "highest"


def test_evaluation_is_in_whole_float32_where_a_container_asks_for_less(clustered: Dataset) -> None:
    torch.set_float32_matmul_precision("high")  # as TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 does
    streams = Streams(1)
    model = build(find_model("bpr").model, clustered, find_model("bpr").model.Config(), streams, CPU)
    fit(model, clustered, TrainingConfig(epochs=1), streams, CPU)
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(
    ("precision", "kind", "capability", "refusal"),
    [
        ("bf16", "cuda", (9, 0), "'bf16'.*with TF32.*precision=tf32"),
        ("tf32", "cuda", (7, 5), "'tf32'.*this GPU does not have.*float32"),
        ("tf32", "cuda", (8, 0), None),
        ("float32", "cuda", (7, 5), None),
        ("bf16", "cpu", (0, 0), None),
        ("tf32", "cpu", (0, 0), None),
    ],
)
def test_a_precision_that_the_device_would_silently_replace_is_refused(
    precision: Any, kind: str, capability: Any, refusal: str | None, clustered: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    model, training = find_model("bpr").model, TrainingConfig(precision=precision)
    made = partial(TrainingSteps, model(clustered, model.Config(), torch.Generator()), clustered, training, Streams(1))
    if refusal is None:
        made(torch.device(kind))
    else:
        with pytest.raises(ConfigError, match=refusal):
            made(torch.device(kind))


def test_a_trial_of_a_refused_precision_is_none(clustered: Dataset) -> None:
    with pytest.raises(ConfigError, match="precision=tf32"):
        make_trial("bpr", clustered, "clustered", {"precision": "bf16"}, 1, torch.device("cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted({*MODELS} - {"lattice"}))  # whose rebuilt graphs were not read for waits
def test_steps_never_make_a_gpu_wait(name: str, clustered: Dataset) -> None:
    entry, cuda, streams = find_model(name), torch.device("cuda"), Streams(1)
    model = build(entry.model, clustered, entry.model.Config(), streams, cuda)
    steps = TrainingSteps(model, clustered, TrainingConfig(batch_size=100), streams, cuda)
    steps.first_step(1)  # loads what is loaded once
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(len(steps.batches)):
            steps.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
