"""Training steps that are recorded once per epoch, as a CUDA graph, and replayed for the epoch's other full batches.

What a step does is `fit`. Recording follows "CUDA Graphs" in torch's notes on CUDA semantics; anything that cannot be
recorded runs eagerly.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch

from bm3 import Batch, Loss
from bm3.features import FeatureTable

# Eager steps of an epoch before one is recorded: the first may build what lasts for the epoch (LATTICE's item graph),
# the second is of the kind that is recorded, so that whatever such a step allocates or loads once is there.
WARM_UP_STEPS = 2


class Recorder(Protocol):
    """Records work on tensors, to repeat it without Python; `CudaGraphs` is the real one."""

    def stream(self) -> AbstractContextManager[None]:
        """Where work is done, recorded or not."""

    def record(self, work: Callable[[], Loss], generator: torch.Generator | None) -> Callable[[], Loss]:
        """Record `work`, which draws from `generator`, without doing it; each call of the result does it.

        The result returns the same scalar tensors every time. Raises RuntimeError if `work` cannot be recorded; then
        only gradients, and attributes that `work` has set, differ from before.
        """


class CudaGraphs:
    """Work on a stream of its own, recorded as CUDA graphs."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Everything within comes after what was queued before, and before what is queued next."""
        outside = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(outside)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            outside.wait_stream(self._stream)

    def record(self, work: Callable[[], Loss], generator: torch.Generator | None) -> Callable[[], Loss]:
        """See `Recorder`; to be called within `stream`."""
        graph = torch.cuda.CUDAGraph()
        before = None if generator is None else generator.clone_state()
        if generator is not None:
            graph.register_generator_state(generator)  # so that every replay draws anew
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                loss = work()
        except RuntimeError:
            if generator is not None and before is not None:
                # A recording that breaks off leaves its generators in recording mode, where they refuse to draw.
                generator.graphsafe_set_state(before)
            raise

        def replay() -> Loss:
            graph.replay()
            return loss

        return replay


def recorder_for(device: torch.device) -> Recorder | None:
    """What records on the device; None where nothing does."""
    return CudaGraphs(device) if device.type == "cuda" else None


def captured_steps(model: Any, step: Callable[[Batch], Loss], device: torch.device) -> "CapturedSteps | None":
    """The model's steps, `step(batch)` each, as recorded ones; None where all are to be eager.

    Says why in a warning, unless it is that nothing records on the device.
    """
    recorder = recorder_for(device)
    if recorder is None:
        return None
    name = type(model).__name__
    tables = [module for module in model.modules() if isinstance(module, FeatureTable)]
    if any(table.off_device or table.row_gradients for table in tables):
        _warn(name, "rows of its features are read or moved outside the device")
        return None
    return CapturedSteps(name, step, recorder)


class CapturedSteps:
    """Steps of one training. A step must do the same work for every full batch of an epoch but the first ones."""

    def __init__(self, name: str, step: Callable[[Batch], Loss], recorder: Recorder) -> None:
        self._name, self._step, self._recorder, self._fails = name, step, recorder, False

    def losses(self, batches: Iterable[Batch], generator: torch.Generator | None) -> list[Loss]:
        """Make the steps of an epoch whose random numbers are drawn from `generator`; their losses, without gradients.

        Each epoch is recorded anew: models make choices and graphs at its start, and its learning rate is a constant
        of the recording. Where recording fails, steps are eager from then on, with one warning.
        """
        losses: list[Loss] = []
        replay, size = None, 0
        with self._recorder.stream():
            for number, batch in enumerate(batches):
                size = size or len(batch.users)
                full = len(batch.users) == size
                if number == WARM_UP_STEPS and full and not self._fails:
                    replay = self._recorded(batch, generator)
                losses.append(replay(batch) if replay and full else _detached(self._step(batch)))
        return losses

    def _recorded(self, batch: Batch, generator: torch.Generator | None) -> Callable[[Batch], Loss] | None:
        """The step, recorded on a copy of the batch, its static input; None if that fails."""
        users, items, negatives = batch
        inputs = Batch(users.clone(), items.clone(), None if negatives is None else negatives.clone())
        try:
            step = self._recorder.record(lambda: _detached(self._step(inputs)), generator)
        except RuntimeError as error:
            # Nothing to undo: no kernel ran, and the eager step of this batch replaces gradients and attributes.
            self._fails, cause = True, error.__context__  # ending a recording that broke off is an error of its own
            _warn(self._name, str(cause if isinstance(cause, RuntimeError) else error))
            return None

        def replay(batch: Batch) -> Loss:
            for static, ids in zip(inputs, batch, strict=True):
                if static is not None and ids is not None:
                    static.copy_(ids)
            total, parts = step()
            return Loss(total.clone(), {name: part.clone() for name, part in parts.items()})

        return replay


def _detached(loss: Loss) -> Loss:
    return Loss(loss.total.detach(), {name: part.detach() for name, part in loss.parts.items()})


def _warn(model: str, reason: str) -> None:
    reason = reason.strip().split("\n", 1)[0]  # CUDA's errors go on with advice
    warnings.warn(f"the training step of {model} is not captured but eager: {reason}", stacklevel=2)
