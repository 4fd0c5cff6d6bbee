"""Replaying recorded numeric traces: is a model here the model that was published?

A trace (`*.npz`, plain arrays) holds initial parameters, batches, losses, first gradients, parameters after the last
step, scores, and rankings. Sizes, modalities and hyper-parameters are read from the trace, none is assumed.

Adam divides a gradient by its own magnitude, so where one is nothing but rounding, a parameter moves by up to the
learning rate in either direction. What a parameter may differ by therefore follows from what its gradient may:
`rounded_updates` has the formula.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bm3 import Batch, BM3Error, Data, DataError
from harness.common import parse_json
from harness.data.dataset import PARTS, Dataset, checked_pairs
from harness.data.files import read_archive, reading
from harness.evaluation.metrics import Ranking
from harness.evaluation.ranking import Evaluator, model_scorer
from harness.models.registry import ModelEntry, models
from harness.paper.load import Paper
from harness.training.optimiser import BETAS, EPSILON, adam
from harness.training.steps import make_deterministic, train_step

Arrays = Mapping[str, NDArray[Any]]
Row = tuple[str, float, float, str]
"""Quantity, difference, tolerance, note."""

CPU = torch.device("cpu")
LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = PARAMETER_TOLERANCE = 1e-4
CHANGE_TOLERANCE = 1e-2  # of tensors that move without being trained (BUIR's target)
SCORE_TOLERANCE = 1e-5
METRIC_TOLERANCE = 1e-12  # exact but for the order in which doubles are added


class Status(StrEnum):
    """Outcome of one comparison, or of a trace that cannot be replayed."""

    PASSED = "passed"
    FAILED = "failed"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True)
class Check:
    """One row: the largest difference in a quantity of a trace, against its tolerance.

    Differences of losses and scores, gradients and parameters are relative to the recorded array's largest magnitude;
    those of parameters are what rounding of gradients does not explain.
    """

    trace: str
    quantity: str
    status: Status
    difference: float | None = None
    tolerance: float | None = None
    note: str = ""


def conformance(path: Path, device: torch.device = CPU) -> list[Check]:
    """Replay a trace, or all in a folder in order of name, on `device`.

    Raises DataError when there is none or one is unreadable.
    """
    paths = [path] if path.is_file() else sorted(path.glob("*.npz"))
    if not paths or any(one.suffix != ".npz" for one in paths):
        what = "holds no trace" if path.exists() else "no such file or folder"
        raise DataError(f"{path}: {what}; needed is a trace (*.npz) or a folder that holds some")
    return [check for path in paths for check in replay(path, device)]


def known_traces(paper: Paper, device: torch.device = CPU) -> list[Check]:
    """Replay the traces that come with the paper, then those that models of other packages bring, on `device`."""
    checks = conformance(paper.file("traces"), device)
    for name, entry in models().items():
        try:
            checks += [] if entry.TRACES is None else conformance(entry.TRACES, device)
        except DataError as error:
            checks.append(Check(name, "all", Status.FAILED, note=str(error)))
    return checks


def trace_statuses(checks: list[Check]) -> dict[str, Status]:
    """One status per trace: failed if any of its checks failed."""
    failed = {check.trace: check.status for check in checks if check.status is Status.FAILED}
    return {check.trace: check.status for check in checks} | failed


def replay(path: Path, device: torch.device = CPU) -> list[Check]:
    """All checks of one trace, replayed with its masks on `device`; a single unsupported one when its model or what it
    records is not known here.

    Raises DataError when the file is not a readable trace.
    """
    arrays, meta = read_trace(path)
    entry = models().get(str(meta["model"]).lower())
    if entry is None:
        return [Check(path.stem, "all", Status.UNSUPPORTED, note=f"no model {meta['model']} here")]
    try:
        config = _config(entry, meta)
        if getattr(config, "dropout", 0) > 0 and not any("/keep_" in name for name in arrays):
            return [Check(path.stem, "all", Status.UNSUPPORTED, note="dropout without recorded masks")]
        return [
            Check(path.stem, name, Status.PASSED if difference <= allowed else Status.FAILED, difference, allowed, note)
            for name, difference, allowed, note in _Replay(entry, config, arrays, meta, device).checks()
        ]
    except BM3Error as error:
        return [Check(path.stem, "all", Status.FAILED, note=str(error))]
    except Exception as error:  # shapes, ids and numbers that do not fit each other raise nearly anything
        note = f"not a complete trace ({type(error).__name__}: {error})"
        return [Check(path.stem, "all", Status.FAILED, note=note)]


def read_trace(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays of a trace, and what it says of itself. Raises DataError."""
    with reading(path):
        arrays = read_archive(path)
        meta = parse_json(str(arrays.pop("meta")))
        needed = {"model", "n_users", "n_items", "learning_rate", "steps"} - meta.keys()
    if needed:
        raise DataError(f"{path}: its meta lacks {', '.join(sorted(needed))}")
    return arrays, meta


def _config(entry: ModelEntry, meta: Mapping[str, Any]) -> Any:
    """The model's configuration from the trace's settings; what the model has no field for is left to the checks."""
    recorded = {"features": meta.get("features"), **meta.get("config", {}), **meta.get("hyper", {})}
    if entry.trace_settings is not None:
        recorded |= entry.trace_settings(recorded)
    known = {field.name for field in fields(entry.model.Config)}
    return entry.model.Config(**{name: v for name, v in recorded.items() if name in known and v is not None})


def _group(arrays: Arrays, *prefixes: str) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(prefix): array
        for prefix in prefixes
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


class _Replay:
    """One trace replayed step by step, keeping what is compared."""

    def __init__(
        self, entry: ModelEntry, config: Any, arrays: Arrays, meta: Mapping[str, Any], device: torch.device
    ) -> None:
        make_deterministic()
        self._entry, self._arrays, self._meta, self._device = entry, arrays, meta, device
        features, parts = _group(arrays, "features/"), _group(arrays, "interactions/")
        users, items = int(meta["n_users"]), int(meta["n_items"])
        pairs = {part: checked_pairs(parts[part], part, "its interactions") for part in PARTS}
        if any(len(found) and (found.max(axis=0) >= (users, items)).any() for found in pairs.values()):
            raise DataError(f"its interactions have other ids than those of {users} users and {items} items")
        data = Data(users, items, parts["train"], features)
        self._model = entry.model(data, config, torch.Generator().manual_seed(0)).to(device)
        self._tensors: dict[str, Tensor] = dict(
            self._model.state_dict(keep_vars=True) if entry.trace_tensors is None else entry.trace_tensors(self._model)
        )
        choices = _group(arrays, "aux/")
        if choices and entry.trace_choices is not None:
            entry.trace_choices(self._model, choices)
        self._dataset = Dataset(users, items, features=features, name="trace", surrogates=frozenset(), **pairs)

    def checks(self) -> Iterator[Row]:
        """Every quantity that the trace records."""
        tensors, arrays = self._tensors, self._arrays
        initial, recorded_final = _group(arrays, "init/", "init_untrained/"), _group(arrays, "final/")
        loaded = {id(tensor) for name, tensor in tensors.items() if name in initial}
        missing = sorted(
            (initial.keys() - tensors.keys()) | {n for n, tensor in tensors.items() if id(tensor) not in loaded}
        )
        trained = {name for name, tensor in tensors.items() if tensor.requires_grad and name in initial}
        wrong = sorted(set(self._meta.get("trainable", trained)) ^ trained)
        yield "trained tensors", float(len(missing) + len(wrong)), 0.0, " ".join([*missing, *wrong])
        if missing:
            return
        self._load(initial)
        losses, gradients, rounded = self._train()
        yield "loss", _relative(np.array(losses), arrays["loss"]), LOSS_TOLERANCE, ""
        yield "gradients", *_worst(gradients, _group(arrays, "grad0/"), GRADIENT_TOLERANCE)
        final = {name: _array(tensor) for name, tensor in tensors.items()}
        yield "parameters", *_worst(final, recorded_final, PARAMETER_TOLERANCE, rounded)
        moved = {
            name: array - initial[name]
            for name, array in recorded_final.items()
            if name in initial and name not in trained and (array != initial[name]).any()
        }
        if moved:  # without an optimiser, and too little for the check above to see
            changes = {name: final[name] - initial[name] for name in moved}
            yield "followers' changes", *_worst(changes, moved, CHANGE_TOLERANCE)
        with torch.no_grad():
            score = model_scorer(self._model)
            scores = score(torch.arange(self._dataset.n_users, device=self._device))
            yield "scores", _relative(_array(scores), arrays["scores"]), SCORE_TOLERANCE, ""
            for part, held_out in (("valid", self._dataset.valid), ("test", self._dataset.test)):
                if f"topk/{part}" in arrays:
                    length = arrays[f"topk/{part}"].shape[1]
                    evaluator = Evaluator(self._dataset, "valid" if part == "valid" else "test")
                    ranking = evaluator.rank(score, length, device=self._device)
                    yield from self._ranking_checks(part, ranking, held_out.astype(np.int64))

    def _load(self, values: Arrays) -> None:
        with torch.no_grad():
            for name, value in values.items():
                tensor = self._tensors[name]
                if tuple(tensor.shape) != value.shape:
                    raise DataError(f"{name} has shape {list(tensor.shape)}, recorded is {list(value.shape)}")
                tensor.copy_(torch.from_numpy(value))

    def _train(self) -> tuple[list[float], dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """Losses, first gradients, and by how much each parameter may differ because its gradients are rounded."""
        rate = float(self._meta["learning_rate"])
        optimiser = adam(self._model, rate)
        decay = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
        trained = {name: tensor for name, tensor in self._tensors.items() if tensor.requires_grad}
        losses: list[float] = []
        gradients: dict[str, list[NDArray[Any]]] = {name: [] for name in trained}
        decays: dict[str, list[NDArray[Any]]] = {name: [] for name in trained}
        for step in range(int(self._meta["steps"])):
            for name, tensor in trained.items():
                decays[name].append(decay.get(id(tensor), 0.0) * _array(tensor))
            batch = self._batch(_group(self._arrays, f"batch{step}/"))
            losses.append(float(train_step(self._model, optimiser, batch).total.detach()))
            for name, tensor in trained.items():
                gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
                gradients[name].append(_array(gradient).copy())
        rounded = {name: rate * rounded_updates(np.stack(gradients[name]), np.stack(decays[name])) for name in trained}
        return losses, {name: of_steps[0] for name, of_steps in gradients.items()}, rounded

    def _batch(self, recorded: Arrays) -> Batch:
        """The batch of a step, whose recorded dropout the model has from now on."""
        columns = [recorded[name].astype(np.int64) for name in ("users", "items", "negatives") if name in recorded]
        keep = {}
        for name in (name for name in recorded if f"{name}_shape" in recorded):
            rows, width = recorded[f"{name}_shape"]
            mask = np.unpackbits(recorded[name], axis=1)[:rows, :width].astype(bool)
            keep[name.removeprefix("keep_")] = torch.from_numpy(mask).to(self._device)
        if keep and self._entry.trace_dropout is not None:
            self._entry.trace_dropout(self._model, keep)
        return Batch(*(torch.from_numpy(column).to(self._device) for column in columns))

    def _ranking_checks(self, part: str, ranking: Ranking, held_out: NDArray[np.int64]) -> Iterator[Row]:
        """The ranking against the recorded one, then the metrics of the ranking.

        Neighbours whose recorded scores are closer than the score tolerance may swap; swapped ones are put in the
        recorded order before metrics are taken, which are compared exactly.
        """
        recorded, scores, to_key = self._arrays[f"topk/{part}"], self._arrays["scores"], [self._dataset.n_items, 1]
        title = f"top {recorded.shape[1]} {part}"
        if not np.array_equal(ranking.users, self._arrays[f"topk/{part}_users"]):
            yield title, 1.0, 0.0, "other users are evaluated"
            return
        items, _ = ranking.listed(recorded.shape[1])
        ours, theirs = (np.take_along_axis(scores[ranking.users], ids, axis=1) for ids in (items, recorded))
        gap = np.abs(ours - theirs) / max(np.abs(scores).max(), 1e-30)
        # Where a user has fewer items left than ranks, masked ones fill the end in no order.
        first_key = ranking.users[:, None] * self._dataset.n_items
        masked = np.isin(first_key + recorded, self._dataset.train.astype(np.int64) @ to_key)
        misplaced = (items != recorded) & ~(gap <= SCORE_TOLERANCE) & ~masked
        yield title, float(misplaced.sum()), 0.0, "items out of place"
        hits = np.isin(first_key + (items if misplaced.any() else recorded), held_out @ to_key)
        if figures := _group(self._arrays, f"metric/{part}_"):
            cutoffs = sorted({int(name.split("@")[1]) for name in figures})
            found = replace(ranking, hits=hits).metrics(cutoffs)
            difference = float(np.max([abs(found[name] - float(value)) for name, value in figures.items()]))
            yield f"metrics {part}", difference, METRIC_TOLERANCE, ""


def rounded_updates(gradients: NDArray[Any], decay: NDArray[Any]) -> NDArray[np.float64]:
    """What rounding of gradients may change in Adam's updates, in learning rates: one figure per entry.

    An entry's gradient g_t [steps, ...] is known to ±δ_t, δ_t = 1e-4 max |g_t| over its tensor, the tolerance on
    gradients; one that is exactly 0 is not rounded, δ_t = 0. `decay` is what weight decay adds to it. With Adam's
    update u_s = m̂_s / (√v̂_s + ε) as a function of all gradients so far:

        Σ_s min(2, Σ_t max |u_s(…, g_t ± δ_t, …) − u_s|)

    Where |g| is well above δ this is next to nothing, since an update hardly depends on the gradient's magnitude; where
    |g| < δ the sign is unknown, and it is up to 2 for each step that has no other gradient to go by.
    """
    seen = gradients.astype(np.float64) + decay
    largest = np.abs(gradients).max(axis=tuple(range(1, gradients.ndim)), keepdims=True, initial=0.0)
    rounding = np.where(gradients == 0, 0.0, GRADIENT_TOLERANCE * largest)
    updates, changes = _updates(seen), np.zeros_like(seen)
    for step, reach in enumerate(rounding):
        either = np.stack([seen, seen])  # [2, steps, ...]
        either[:, step] += np.stack([reach, -reach])
        changes += np.abs([_updates(one) - updates for one in either]).max(axis=0)
    return np.asarray(np.minimum(changes, 2.0).sum(axis=0))


def _updates(gradients: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adam's updates m̂ / (√v̂ + ε) [steps, ...] from gradients [steps, ...]."""
    (beta1, beta2), m, v = BETAS, np.zeros_like(gradients[0]), np.zeros_like(gradients[0])
    updates = []
    for step, gradient in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        updates.append(m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + EPSILON))
    return np.stack(updates)


def _array(tensor: Tensor) -> NDArray[Any]:
    found: NDArray[Any] = tensor.detach().cpu().numpy()
    return found


def _relative(ours: NDArray[Any] | None, recorded: NDArray[Any], allowed: NDArray[Any] | float = 0.0) -> float:
    """Largest difference beyond `allowed` over the recorded array's largest magnitude; infinite where there is nothing
    to compare, shapes differ or values are NaN.
    """
    if ours is None or ours.shape != recorded.shape:
        return float("inf")
    difference = np.maximum(np.abs(ours.astype(np.float64) - recorded) - allowed, 0.0).max(initial=0.0)
    largest = np.abs(recorded).max(initial=0.0)
    if difference == 0:
        return 0.0
    return float(difference / largest) if largest > 0 and np.isfinite(difference) else float("inf")


def _worst(ours: Arrays, recorded: Arrays, tolerance: float, allowed: Arrays | None = None) -> tuple[float, float, str]:
    """Largest relative difference over all recorded arrays, and which array has it."""
    found = {name: _relative(ours.get(name), array, (allowed or {}).get(name, 0.0)) for name, array in recorded.items()}
    name = max(found, key=lambda name: found[name])
    return found[name], tolerance, name
