"""Weights that stay with a run on request: one safetensors file with what is needed to use it, and a card in words.

The file holds the state of the best epoch and what the data set calls its users and items. Two digests cover all of
it: the state hash, which the run's result has too, and one over the rest. Nothing is ever unpickled.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bm3 import DataError
from harness.common import number, parse_json, size, write_whole, writing
from harness.data.dataset import Dataset
from harness.evaluation.words import METRICS
from harness.ingest.exporting import Ids, called
from harness.runs.record import CARD, MODEL, RunRecord
from harness.training.checkpoint import blocks_of, write_tensors

FORMAT = "1"
STATE, IDS = "state/", "ids/"
KINDS = ("users", "items")
DESCRIBED = ("model", "config", "dataset", "dataset_hash", "seed", "numerics")
"""What the file has of the run's description."""


def state_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bits of tensors: equal exactly when two models are."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        for block in blocks_of(tensor):
            digest.update(block)
    return digest.hexdigest()


def write_weights(
    folder: Path, state: Mapping[str, Tensor], description: Mapping[str, Any], result: Mapping[str, Any], ids: Ids
) -> None:
    """Write a run's weights and their card, each whole or not at all. Raises WriteError."""
    named = {IDS + kind: json.dumps(own).encode() for kind, own in zip(KINDS, ids, strict=True) if own is not None}
    about = {key: description[key] for key in DESCRIBED} | {"state_hash": result["state_hash"]}
    text = json.dumps(about, sort_keys=True)
    tensors = {STATE + name: tensor.detach().contiguous() for name, tensor in state.items()}
    tensors |= {name: torch.frombuffer(bytearray(content), dtype=torch.uint8) for name, content in named.items()}
    metadata = {"format": FORMAT, "about": text, "digest": _digest(text, named)}
    write_tensors(folder / MODEL, tensors, metadata, stays=True)
    run = RunRecord.model_validate({**description, "path": folder, "result": result})
    with writing(folder / CARD):
        write_whole(folder / CARD, card(run, (folder / MODEL).stat().st_size))


def read_weights(run: RunRecord) -> tuple[dict[str, Tensor], Ids]:
    """The state of a run's model, and what its data set calls users and items.

    Raises DataError where the run has no weights, and where the file is damaged or of another run.
    """
    file = run.path / MODEL
    if not run.finished:
        raise DataError(f"{run.path}: is {run.state}, so it has no model; {run.command} goes on with it")
    if not file.is_file():
        raise DataError(f"{run.path}: its model was not kept; {again(run)} trains it again and keeps it")
    try:
        with safe_open(file, framework="pt") as stored:
            about = stored.metadata() or {}
            if about.get("format") != FORMAT:
                raise ValueError(f"format {about.get('format')}, known is {FORMAT}")
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - it is no mapping
        named = {name: tensors[name].numpy().tobytes() for name in tensors if name.startswith(IDS)}
        state = {name.removeprefix(STATE): tensor for name, tensor in tensors.items() if name.startswith(STATE)}
        told = parse_json(about["about"])
        if about["digest"] != _digest(about["about"], named) or told["state_hash"] != state_hash(state):
            raise ValueError("its content is not that of its digests")
        ids = [json.loads(named[IDS + kind]) if IDS + kind in named else None for kind in KINDS]
        other = told["state_hash"] != run.outcome.state_hash or told["dataset_hash"] != run.dataset_hash
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"{file}: damaged ({error}); {again(run)} makes it anew") from error
    if other:
        raise DataError(f"{file}: is of another run than {run.path}; {again(run)} makes it anew")
    return state, (ids[0], ids[1])


def check_names(run: RunRecord, kept: Ids, found: Ids, dataset: Dataset) -> None:
    """Raises DataError where the model that a run kept calls a user or item otherwise than its data set does now."""
    for kind, then, now in zip(KINDS, called(kept, dataset), called(found, dataset), strict=True):
        if then != now:
            number = next(number for number, names in enumerate(zip(then, now, strict=True)) if len({*names}) > 1)
            raise DataError(
                f"{run.path}: its model calls {kind[:-1]} {number} {then[number][:40]!r}, and the data set now "
                f"{now[number][:40]!r}: put the former {kind}.csv back, or {again(run)} (rerun=True) trains it anew"
            )


def again(run: RunRecord) -> str:
    """The command that trains a finished run again into its store and keeps its model."""
    return f"{run.command} --out {shlex.quote(str(run.path.parent.parent))} --keep-model --rerun"


def card(run: RunRecord, n_bytes: int) -> str:
    """What the weights are, as Markdown: data, settings, figures, limits."""
    data, result = run.dataset, run.outcome
    changed = [f"- {name} = {value}" for name, value in sorted(run.changed_settings.items())]
    counts = ", ".join(f"{n:,} {part}" for part, n in data.interactions.items())
    tables = [f"{name} ({shape[1]}-d)" for name, shape in data.modalities.items()] if run.reads_features else []
    metrics = [name for name in result.test if name.partition("@")[0] in METRICS[:2]]
    figures = [f"| {name} | {number(result.valid.get(name))} | {number(result.test[name])} |" for name in metrics]
    limits = [
        f"- It knows these {data.users:,} users and {data.items:,} items alone. Another data set is refused.",
        "- Its figures are of this split and this seed; another seed gives others.",
        "- It was trained on what users did, with what they were shown and what was popular in it.",
    ]
    if run.reads_features and data.surrogates:
        stand_in = f"- Vectors of {', '.join(data.surrogates)} stand in for the original ones (surrogates)"
        limits.insert(0, f"{stand_in}: its figures are not to be compared with published ones.")
    parts = [
        f"# {run.model} on {data.name}, seed {run.seed}",
        f"Weights of epoch {result.best_epoch} of {result.epochs}{', the best on validation' * run.validated}: "
        f"`{MODEL}`, {size(n_bytes)}. "
        "`bm3 recommend` and `bm3 export` read it, and refuse it where a bit of it has changed.",
        f"## Data\n\n{data.name}: {data.users:,} users, {data.items:,} items; interactions: {counts}. "
        f"Item features: {', '.join(tables) or 'none are read'}. Content hash `{run.dataset_hash}`.",
        "## Settings\n\n" + ("\n".join(changed) or "All as by default."),
        f"Numerics: version {run.numerics.model} of the model, {run.numerics.training} of training. "
        f"State hash `{result.state_hash}`.",
        f"```\n{run.command}\n```",
        "## Figures\n\n| metric | validation | test |\n| --- | --- | --- |\n" + "\n".join(figures),
        "Of all items, training items left out; means over users with a held-out item.",
        "## Limits\n\n" + "\n".join(limits),
    ]
    return "\n\n".join(parts) + "\n"


def _digest(about: str, ids: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256(about.encode())
    for name, content in sorted(ids.items()):
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()
