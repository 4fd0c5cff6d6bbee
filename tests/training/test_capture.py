"""Recorded training steps: same numbers as eager ones, and eager where nothing can be recorded.

CUDA graphs need a GPU. On the CPU a `Tape` stands in, which records the operations of the very same steps.
"""

import copy
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import bm3.features
import bm3.model
from bm3 import Batch, ConfigError, Loss
from harness.data import Dataset
from harness.models.registry import find_model, models
from harness.training import EpochRecord, Streams, TrainingConfig, build, capture, rows
from harness.training.capture import WARM_UP_STEPS, CapturedSteps, CudaGraphs, captured_steps, recorder_for
from harness.training.fit import fit
from harness.training.optimiser import adam

CPU = torch.device("cpu")
MODELS = sorted(models())
EPOCHS, BATCH_SIZE, FULL_BATCHES = 3, 60, 6  # six interactions of the clustered data set are left for a last batch
State = dict[str, Tensor]


class _Operations(TorchDispatchMode):
    """Operations on tensors within the block, those of gradients too; and what it takes to undo them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []  # function, arguments, keywords, what it returned
        self.overwritten: list[tuple[Tensor, Tensor]] = []  # and what was there before
        self.new: list[Tensor] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if reads_values(function, args, kwargs):
            raise RuntimeError(f"{function} reads values while a step is recorded\nand more advice")
        given = dict(zip((argument.name for argument in function._schema.arguments), args, strict=False)) | kwargs
        for argument in function._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in tensors(given.get(argument.name)):
                    self.overwritten.append((tensor, tensor.clone()))
        returned = function(*args, **kwargs)
        if all(result.alias_info is None for result in function._schema.returns):
            old = {tensor.untyped_storage().data_ptr() for tensor in tensors((args, kwargs)) if dense(tensor)}
            results = [tensor for tensor in tensors(returned) if dense(tensor)]
            self.new += [tensor for tensor in results if tensor.untyped_storage().data_ptr() not in old]
        self.calls.append((function, args, kwargs, returned))
        return returned

    @torch.no_grad()
    def undo(self) -> None:
        """As if nothing had been done: what was there is as before, and what was not is filled with NaN."""
        for tensor in self.new:
            if tensor.is_floating_point():
                tensor.fill_(float("nan"))
        for tensor, before in reversed(self.overwritten):
            tensor.copy_(before)

    @torch.no_grad()
    def repeat(self) -> None:
        """Do the same on the same memory."""
        for function, args, kwargs, returned in self.calls:
            if any(
                result.alias_info is not None and not result.alias_info.is_write for result in function._schema.returns
            ):
                continue  # a view, which is there
            mine = {id(tensor) for tensor in tensors((args, kwargs))}
            for old, new in zip(tensors(returned), tensors(function(*args, **kwargs)), strict=True):
                if id(old) not in mine:
                    old.copy_(new)


def reads_values(function: Any, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation returns a number, or tensors of a shape that depends on values."""
    if function is torch.ops.aten.index.Tensor:  # for a mask alone
        return any(index.dtype == torch.bool for index in tensors(args[1]))
    if function is torch.ops.aten.repeat_interleave.Tensor and kwargs.get("output_size") is not None:
        return False
    return bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(function.tags))


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def dense(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided


class Tape:
    """A recorder as CUDA graphs are one: Python runs once, without effect; what is repeated are operations on memory.

    One that `fails` breaks off after the last operation, the worst moment.
    """

    def __init__(self, *, fails: bool = False) -> None:
        self.fails, self.recorded, self.repeated, self.within = fails, 0, 0, False

    @contextmanager
    def stream(self) -> Iterator[None]:
        self.within = True
        yield
        self.within = False

    def record(self, work: Callable[[], Loss], generator: torch.Generator | None) -> Callable[[], Loss]:
        assert self.within
        self.recorded += 1
        drawn = None if generator is None else generator.get_state()
        operations = _Operations()
        try:
            with operations:
                loss = work()
            if self.fails:
                raise RuntimeError("operation not permitted when stream is capturing\nand more advice")
        finally:
            operations.undo()
            if generator is not None and drawn is not None:
                generator.set_state(drawn)

        def repeat() -> Loss:
            assert self.within
            self.repeated += 1
            operations.repeat()
            return loss

        return repeat


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tape], Tape]:
    """`use(tape)` lets the CPU record with it, and steps have the form that they have on a GPU."""

    def use(tape: Tape) -> Tape:
        monkeypatch.setattr(capture, "recorder_for", lambda device: tape)
        return tape

    for module in (bm3.features, bm3.model):
        monkeypatch.setattr(module, "merges", lambda ids: False)
    return use


def trained(
    name: str,
    dataset: Dataset,
    step: str,
    *,
    device: torch.device = CPU,
    model: type[Any] | None = None,
    config: Mapping[str, Any] | None = None,
    **settings: Any,
) -> tuple[State, list[tuple[Any, ...]], list[str]]:
    """Final state, figures of the epochs and warnings of a short training."""
    model, streams, records = model or find_model(name).model, Streams(3), list[EpochRecord]()
    training = TrainingConfig(
        **{"epochs": EPOCHS, "batch_size": BATCH_SIZE, "learning_rate": 0.01, "step": step} | settings
    )
    built = build(model, dataset, model.Config(**config or {}), streams, device, training.features_location)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcome = fit(built, dataset, training, streams, device, records.append)
    figures = [(record.epoch, record.loss, record.parts, record.valid) for record in records]
    return copy.deepcopy(built.state_dict()), [*figures, (outcome.test,)], [str(warning.message) for warning in caught]


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- the same numbers ---


@pytest.mark.parametrize("batch_size", [BATCH_SIZE, 61], ids=["a short last batch", "full batches alone"])
@pytest.mark.parametrize("name", MODELS)
def test_recorded_steps_train_as_eager_ones_do(
    clustered: Dataset, name: str, batch_size: int, use: Callable[[Tape], Tape]
) -> None:
    state, figures, _ = trained(name, clustered, "eager", batch_size=batch_size)
    tape = use(Tape())
    recorded_state, recorded_figures, told = trained(name, clustered, "captured", batch_size=batch_size)
    assert recorded_figures == figures
    assert same(recorded_state, state)
    assert told == []
    assert tape.recorded == EPOCHS
    assert tape.repeated == EPOCHS * (FULL_BATCHES - WARM_UP_STEPS)


class Steps:
    """A step whose loss names its batch, and what it was given."""

    def __init__(self) -> None:
        self.given: list[Batch] = []

    def __call__(self, batch: Batch) -> Loss:
        self.given.append(batch)
        negatives = torch.zeros(()) if batch.negatives is None else batch.negatives.sum()
        total = (batch.users.sum() + 10 * batch.items.sum() + 100 * negatives).float()
        return Loss(total.requires_grad_(), {"half": total / 2})


def batches(*sizes: int, negatives: bool = True) -> list[Batch]:
    draw = torch.Generator().manual_seed(1)
    columns = 3 if negatives else 2
    return [Batch(*torch.randint(9, (columns, size), generator=draw)) for size in sizes]


@pytest.mark.parametrize("negatives", [True, False])
def test_each_loss_is_that_of_its_own_batch_and_stays_so(negatives: bool) -> None:
    todo = batches(5, 5, 5, 5, 5, 2, negatives=negatives)
    before = copy.deepcopy(todo)
    losses = CapturedSteps("Model", Steps(), Tape()).losses(todo, None)
    expected = [Steps()(batch) for batch in before]
    assert [loss.total.item() for loss in losses] == [loss.total.item() for loss in expected]
    assert [loss.parts["half"].item() for loss in losses] == [loss.parts["half"].item() for loss in expected]
    assert not any(loss.total.requires_grad or loss.parts["half"].requires_grad for loss in losses)


def test_a_recorded_step_reads_memory_of_its_own() -> None:
    steps, todo = Steps(), batches(5, 5, 5, 5, 5, 2)
    before = copy.deepcopy(todo)
    CapturedSteps("Model", steps, Tape()).losses(todo, None)
    given = {ids.data_ptr() for batch in todo for ids in batch if ids is not None}
    recorded = steps.given[WARM_UP_STEPS]
    assert not {ids.data_ptr() for ids in recorded if ids is not None} & given
    assert all(torch.equal(ids, old) for pair in zip(todo, before, strict=True) for ids, old in zip(*pair, strict=True))


@pytest.mark.parametrize(
    ("sizes", "in_python", "repeated"),
    [
        ((5, 5, 5, 5, 2), [5, 5, 5, 2], 2),  # the third is recorded and then done as the fourth is, without Python
        ((5, 5, 2), [5, 5, 2], 0),
        ((5, 5), [5, 5], 0),
        ((2,), [2], 0),
        ((), [], 0),
    ],
)
def test_first_and_shorter_batches_are_eager(sizes: tuple[int, ...], in_python: list[int], repeated: int) -> None:
    steps, tape = Steps(), Tape()
    assert len(CapturedSteps("Model", steps, tape).losses(batches(*sizes), None)) == len(sizes)
    assert [len(batch.users) for batch in steps.given] == in_python
    assert (tape.recorded, tape.repeated) == (bool(repeated), repeated)


# --- where nothing is recorded ---


@pytest.mark.parametrize("name", MODELS)
def test_a_recording_that_breaks_off_leaves_nothing_behind_and_is_told_once(
    clustered: Dataset, name: str, use: Callable[[Tape], Tape]
) -> None:
    state, figures, _ = trained(name, clustered, "eager")
    tape = use(Tape(fails=True))
    eager_state, eager_figures, told = trained(name, clustered, "captured")
    assert eager_figures == figures
    assert same(eager_state, state)
    reason = "operation not permitted when stream is capturing"
    assert told == [f"the training step of {find_model(name).model.__name__} is not captured but eager: {reason}"]
    assert (tape.recorded, tape.repeated) == (1, 0)


class Reading(find_model("bm3").model):  # type: ignore[misc]
    """A model whose steps read a value, which makes a GPU wait and cannot be recorded; before, they have drawn some."""

    def loss(self, batch: Batch) -> Loss:
        loss: Loss = super().loss(batch)
        return Loss(loss.total * (1 + loss.total.item()), loss.parts)


def test_a_model_that_reads_values_in_its_step_is_eager(clustered: Dataset, use: Callable[[Tape], Tape]) -> None:
    state, figures, _ = trained("", clustered, "eager", model=Reading)
    use(Tape())
    eager_state, eager_figures, told = trained("", clustered, "captured", model=Reading)
    assert eager_figures == figures
    assert same(eager_state, state)
    (warning,) = told
    assert "Reading" in warning
    assert "_local_scalar_dense" in warning


def test_what_ended_a_broken_recording_is_told_not_that_it_was_broken() -> None:
    class AsTorchDoes(Tape):
        def record(self, work: Callable[[], Loss], generator: torch.Generator | None) -> Callable[[], Loss]:
            try:
                raise RuntimeError("a value was read")
            finally:
                raise RuntimeError("capture invalidated")

    with pytest.warns(UserWarning, match="eager: a value was read$"):
        CapturedSteps("Model", Steps(), AsTorchDoes()).losses(batches(5, 5, 5), None)


def test_a_bug_in_a_step_is_no_reason_to_be_eager() -> None:
    class Buggy(Tape):
        def record(self, work: Callable[[], Loss], generator: torch.Generator | None) -> Callable[[], Loss]:
            raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        CapturedSteps("Model", Steps(), Buggy()).losses(batches(5, 5, 5), None)


@pytest.mark.parametrize("name", ["bpr", "bm3"])
def test_on_a_cpu_the_setting_has_no_effect(clustered: Dataset, name: str) -> None:
    assert recorder_for(CPU) is None
    state, figures, _ = trained(name, clustered, "eager")
    other_state, other_figures, told = trained(name, clustered, "captured")
    assert other_figures == figures
    assert same(other_state, state)
    assert told == []


@pytest.mark.parametrize(("name", "config"), [("bm3", {"features": "frozen"}), ("vbpr", {})])
def test_features_off_the_device_are_read_by_eager_steps(
    clustered: Dataset, name: str, config: Mapping[str, Any], use: Callable[[Tape], Tape], tmp_path: Any
) -> None:
    mapped = {}
    for modality, table in clustered.features.items():
        np.save(tmp_path / f"{modality}.npy", table)
        mapped[modality] = np.load(tmp_path / f"{modality}.npy", mmap_mode="r")
    tape, on_disk = use(Tape()), replace(clustered, features=mapped)
    state, figures, _ = trained(name, on_disk, "eager", config=config, features_location="disk")
    other_state, other_figures, told = trained(name, on_disk, "captured", config=config, features_location="disk")
    assert other_figures == figures
    assert same(other_state, state)
    assert tape.recorded == 0
    (warning,) = told
    assert find_model(name).model.__name__ in warning
    assert "outside the device" in warning


def test_rows_that_move_when_they_are_read_do_so_in_eager_steps(
    clustered: Dataset, use: Callable[[Tape], Tape], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba", reason="tables move by row where numba is installed")
    monkeypatch.setattr(rows, "SMALLEST", 0)
    tape = use(Tape())
    state, figures, _ = trained("bm3", clustered, "eager")
    other_state, other_figures, told = trained("bm3", clustered, "captured")
    assert other_figures == figures
    assert same(other_state, state)
    assert tape.recorded == 0
    assert len(told) == 1


def test_steps_are_eager_unless_asked_for(clustered: Dataset, use: Callable[[Tape], Tape]) -> None:
    tape = use(Tape())
    assert captured_steps(torch.nn.Module(), Steps(), CPU) is not None
    trained("bpr", clustered, TrainingConfig().step)
    assert tape.recorded == 0


def test_an_unknown_kind_of_step_is_refused() -> None:
    with pytest.raises(ConfigError, match="step is 'compiled', it must be eager or captured"):
        TrainingConfig(step="compiled")  # type: ignore[arg-type]


# --- CUDA graphs ---


class Cuda:
    """Says what is asked of torch.cuda, of a graph and of a generator, and does none of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.device = torch.device("cuda")
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: self._named("side"))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self._named("outside"))
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: self._block(f"on {stream.name}"))
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self._named("graph"))
        monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: self._block(f"capture on {stream.name}"))
        self.generator: Any = self._named("generator")

    def _named(self, name: str) -> Any:
        cuda = self

        class Named:
            device = cuda.device

            def __init__(self) -> None:
                self.name = name

            def __getattr__(self, method: str) -> Any:
                def ask(*others: Any) -> Any:
                    cuda.asked.append(" ".join([name, method, *(other.name for other in others)]))
                    return cuda._named("copy")

                return ask

        return Named()

    @contextmanager
    def _block(self, name: str) -> Iterator[None]:
        self.asked.append(name)
        try:
            yield
        finally:
            self.asked.append(f"end of {name}")


def test_a_captured_step_draws_from_the_registered_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, loss = Cuda(monkeypatch), Loss(torch.zeros(()), {})
    graphs = CudaGraphs(cuda.device)
    with graphs.stream():
        replay = graphs.record(lambda: cuda.asked.append("work") or loss, cuda.generator)
        assert replay() is replay() is loss
    assert cuda.asked == [
        "side wait_stream outside",
        "on side",
        "generator clone_state",
        "graph register_generator_state generator",
        "capture on side",
        "work",
        "end of capture on side",
        "graph replay",
        "graph replay",
        "end of on side",
        "outside wait_stream side",
    ]


def test_a_capture_that_fails_gives_the_generator_back_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch)
    graphs = CudaGraphs(cuda.device)

    def work() -> Loss:
        raise RuntimeError("a value was read")

    with pytest.raises(RuntimeError, match="a value was read"), graphs.stream():
        graphs.record(work, cuda.generator)
    assert cuda.asked[-4:] == [
        "end of capture on side",
        "generator graphsafe_set_state copy",
        "end of on side",
        "outside wait_stream side",
    ]


@pytest.mark.parametrize("method", ["clone_state", "graphsafe_set_state"])
def test_generators_of_torch_have_the_methods_asked_for(method: str) -> None:
    assert callable(getattr(torch.Generator, method))


def test_adam_is_capturable_on_a_gpu_alone(clustered: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    module = sys.modules["harness.training.fit"]
    monkeypatch.setattr(module, "adam", lambda *args, **kwargs: made.append(kwargs) or adam(*args, **kwargs))
    trained("bpr", clustered, "captured", epochs=1)
    assert made == [{"capturable": False}]
    groups = adam(torch.nn.Linear(2, 2), 1e-3, capturable=True).param_groups
    assert [group["capturable"] for group in groups] == [True]


# --- on a GPU ---


def alike(one: State, other: State) -> bool:
    """Equal to float32's rounding and what a few steps of Adam make of it."""
    return one.keys() == other.keys() and all(
        torch.allclose(one[name].double(), other[name].double(), rtol=1e-3, atol=1e-4) for name in one
    )


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_on_a_gpu_captured_steps_train_as_eager_ones_do(clustered: Dataset, name: str) -> None:
    cuda = torch.device("cuda")
    state, figures, _ = trained(name, clustered, "eager", device=cuda)
    captured_state, captured_figures, _ = trained(name, clustered, "captured", device=cuda)
    for (_, loss, parts, _), (_, captured_loss, captured_parts, _) in zip(
        figures[:-1], captured_figures[:-1], strict=True
    ):
        assert captured_loss == pytest.approx(loss, rel=1e-4)
        assert captured_parts == pytest.approx(parts, rel=1e-3, abs=1e-5)
    assert alike(captured_state, state)


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_on_a_gpu_every_model_is_captured(clustered: Dataset, name: str) -> None:
    _, _, told = trained(name, clustered, "captured", device=torch.device("cuda"))
    assert told == []


@pytest.mark.gpu
def test_on_a_gpu_a_model_that_draws_goes_on_after_a_recording_that_broke_off(clustered: Dataset) -> None:
    cuda = torch.device("cuda")
    state, figures, _ = trained("", clustered, "eager", device=cuda, model=Reading)
    eager_state, eager_figures, told = trained("", clustered, "captured", device=cuda, model=Reading)
    assert eager_figures[:-1] == [(epoch, pytest.approx(loss, rel=1e-4), *rest) for epoch, loss, *rest in figures[:-1]]
    assert alike(eager_state, state)
    assert len(told) == 1
