"""Does somebody else's model keep the contract (`bm3.Recommender`)? Said in one line, before it trains.

The models that come with the harness have tests instead.
"""

import random
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bm3 import Batch, BM3Error, ConfigError, Data, DataError, Loss, Recommender
from harness.models.closed_form import ClosedForm
from harness.models.registry import ModelEntry, models

HOOKS = ("start_epoch", "after_step", "parameter_groups", "learning_rate_factor")
BATCH = 8  # interactions in the batch that is tried


def check_class(entry: ModelEntry) -> None:
    """What can be said of the class alone. Raises ConfigError."""
    model, version, config = entry.model, entry.model.numerics_version, getattr(entry.model, "Config", None)
    frozen = isinstance(config, type) and is_dataclass(config) and config.__dataclass_params__.frozen  # type: ignore[attr-defined]
    bare = [f.name for f in fields(config) if f.default is f.default_factory is MISSING] if frozen else []  # type: ignore[arg-type]
    no_scores = model.embed is Recommender.embed and model.score is Recommender.score
    faults = {
        f"Config is {_described(config)}, it must be a frozen dataclass": not frozen,
        f"Config.{'/'.join(bare)} has no default, every field must have one": bool(bare),
        f"uses_negatives is {model.uses_negatives!r}, it must be True or False": type(model.uses_negatives) is not bool,
        f"numerics_version is {version!r}, it must be a whole number from 1": type(version) is not int or version < 1,
        "it has neither embed() nor score(users), one of them must give the scores": no_scores,
        **{f"{name} must be a method": not callable(getattr(model, name)) for name in HOOKS},
    }
    for fault in (fault for fault, found in faults.items() if found):
        raise ConfigError(f"model {entry.name!r} ({model.__module__}.{model.__name__}): {fault}")


def check_model(entry: ModelEntry, data: Data, config: Any) -> None:
    """Build a foreign model and try a batch and scores, on the CPU, apart from what is trained. Raises BM3Error."""
    if entry.model.__module__.partition(".")[0] in ("bm3", "harness"):
        return
    trial = _Trial(entry)
    with chance(0):
        generator = torch.Generator().manual_seed(0)
        try:
            model = trial.call(f"{entry.model.__name__}(data, config, generator)", entry.model, data, config, generator)
        except ConfigError as error:
            if data.features or not entry.model.reads_features:
                raise
            reason = "it is taken to need item features (reads_features), and there are none"
            raise DataError(f"{error}; {reason}") from error
        if isinstance(model, ClosedForm):
            trial.call("fit()", model.fit)
            _check_scores(trial, model, data)
            return
        if not any(parameter.requires_grad for parameter in model.parameters()):
            trial.refuse("parameters()", "none that trains", "at least one that requires a gradient")
        trial.call("start_epoch", model.start_epoch, generator)
        groups = trial.call("parameter_groups", model.parameter_groups)
        if not (isinstance(groups, list) and groups and all(isinstance(g, dict) and "params" in g for g in groups)):
            needed = "a list of dictionaries, each with `params` and perhaps `weight_decay`"
            trial.refuse("parameter_groups()", groups, needed)
        factor = trial.call("learning_rate_factor", model.learning_rate_factor, 1)
        if not (isinstance(factor, int | float) and 0 <= factor < float("inf")):
            trial.refuse("learning_rate_factor(epoch)", _described(factor), "a finite number, at least 0")
        users, items = (torch.from_numpy(data.train[:BATCH, column].astype(np.int64)) for column in (0, 1))
        batch = Batch(users, items, (items + 1) % data.n_items if model.uses_negatives else None)
        loss = trial.call("loss(batch)", model.loss, batch)
        _check_loss(trial, loss)
        trial.call("loss(batch).total.backward()", loss.total.backward)
        trial.call("after_step()", model.after_step)
        _check_scores(trial, model, data)


def without_features(error: DataError, dataset: str) -> DataError:
    """The error of a model that needs item features where the data set has none, with what can be done."""
    others = ", ".join(name for name, entry in models().items() if not entry.model.reads_features)
    return DataError(
        f"{error}; add some with `bm3 data add-features {dataset} FILE.npy --modality visual` or `bm3 data encode "
        f"{dataset}`, or train what needs none: {others}"
    )


class _Trial:
    """Calls what somebody else wrote, and says of whom it is."""

    def __init__(self, entry: ModelEntry) -> None:
        self._where = f"model {entry.name!r}"

    def call(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (BM3Error, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # foreign code may raise anything
            last = traceback.extract_tb(error.__traceback__)[-1]
            # Where the call itself does not fit, no line of the model was reached.
            where = "" if last.filename == __file__ else f" ({last.filename}, line {last.lineno})"
            raise ConfigError(f"{self._where}: {what} raised {type(error).__name__}: {error}{where}") from error

    def refuse(self, what: str, got: object, needed: str) -> None:
        described = got if isinstance(got, str) else _described(got)
        raise ConfigError(f"{self._where}: {what} returned {described}, needed is {needed}")


def _check_loss(trial: _Trial, loss: Any) -> None:
    if not isinstance(loss, Loss):
        trial.refuse("loss(batch)", loss, "bm3.Loss(total, parts)")
    total = loss.total
    if _shape(total) != () or not total.requires_grad or not torch.isfinite(total):
        trial.refuse("loss(batch)", total, "a total that is one finite number with a gradient")
    if not isinstance(loss.parts, Mapping) or not all(_shape(part) == () for part in loss.parts.values()):
        trial.refuse("loss(batch)", f"parts {loss.parts!r:.80}", "a mapping of names to tensors of one number")


@torch.no_grad()
def _check_scores(trial: _Trial, model: Recommender, data: Data) -> None:
    model.eval()
    if type(model).score is Recommender.score:
        _check_vectors(trial, trial.call("embed()", model.embed), data)
        return
    users = torch.from_numpy(data.train[:BATCH, 0].astype(np.int64))
    scores = trial.call("score(users)", model.score, users)
    if _shape(scores) != (len(users), data.n_items) or not scores.is_floating_point():
        needed = f"a floating-point tensor {[len(users), data.n_items]}: users by items"
        trial.refuse("score(users)", scores, needed)


def _check_vectors(trial: _Trial, vectors: Any, data: Data) -> None:
    shapes = [_shape(table) or () for table in vectors] if isinstance(vectors, tuple | list) else []
    widths = {shape[1:] for shape in shapes if len(shape) == 2}
    sized = [shape[:1] for shape in shapes] == [(data.n_users,), (data.n_items,)] and len(widths) == 1
    if not sized or not all(table.is_floating_point() for table in vectors):
        needed = f"two floating-point tensors of one width: users [{data.n_users}, d], items [{data.n_items}, d]"
        trial.refuse("embed()", vectors, needed)


def _shape(value: object) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        shown = f"tensor {list(value.shape)}" if value.ndim else f"tensor {value.item():g}"
        return shown if value.requires_grad or not torch.is_grad_enabled() else f"{shown} without a gradient"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} ({', '.join(map(_described, value))})"
    return f"{type(value).__name__} {value!r:.60}"


@contextmanager
def chance(seed: int) -> Iterator[None]:
    """The global generators of torch, NumPy and Python, from which a foreign model may draw, begin at `seed` within and
    are afterwards as before."""
    numpy, python = np.random.get_state(), random.getstate()  # noqa: NPY002 - foreign code may use it
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=gpus):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            random.seed(seed)
            yield
    finally:
        np.random.set_state(numpy)  # noqa: NPY002
        random.setstate(python)
