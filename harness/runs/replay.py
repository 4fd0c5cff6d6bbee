"""Repeating a stored run from what it recorded, to see whether it comes out the same."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bm3 import ConfigError, DataError
from harness.runs.difference import Difference
from harness.runs.record import RunRecord
from harness.runs.settings import GONE
from harness.runs.trial import Trial, dataset_for, make_trial, resolve_device
from harness.training import TrainingConfig

CAUSES: Mapping[str, str] = {
    "numerics of model": "the model computes other numbers by now",
    "numerics of training": "training or evaluation computes other numbers by now",
    "device": "another kind of device sums in another order",
    "compiled": "compiled loops round otherwise than torch's (numba is or is not installed)",
    "gpu": "another GPU",
    "cuda": "another CUDA",
    "gpu_driver": "another GPU driver",
    "torch": "another torch",
    "numpy": "another numpy",
    "scipy": "another scipy",
    "numba": "another numba",
    "cpu": "another processor, for which libraries choose other instructions",
    "source_revision": "another revision of the source, which may round otherwise",
    "torch_threads": "sums are shared out among another number of threads",
    "platform": "another operating system or C library",
    "deterministic_algorithms": "deterministic algorithms were off in one of the two",
}
"""What may change the bits of a run, the likeliest first, by what a run records."""


def trial_of(run: RunRecord, data: Path | None, device: str | None = None) -> Trial:
    """The trial that a run was of, with its data set as it is found now, on its own kind of device if none is given.

    Raises ConfigError where this version lacks the model or one of its settings, DataError where the data set is not
    there or another one, and where files of the run cannot be read.
    """
    _, unread = run.readable([*run.result.test] if run.result else [])
    if unread:
        raise DataError(unread[0])
    dataset_name = named_dataset(run)
    settings: dict[str, Any] = {key: value for key, value in run.settings.items() if key not in GONE}
    settings["features_location"] = run.features_location or TrainingConfig().features_location
    where = resolve_device(device or run.device)
    try:
        dataset = dataset_for(settings, dataset_name, data)
        trial = make_trial(run.model, dataset, dataset_name, settings, run.seed, where)
    except ConfigError as error:
        raise ConfigError(f"{run.path}: cannot be repeated by this version: {error}") from error
    if dataset.content_hash != run.dataset_hash:
        raise DataError(
            f"data set {dataset_name!r} is not the one of {run.path}: its content hash is {dataset.content_hash[:12]}, "
            f"the run's is {run.dataset_hash[:12]}; name the folder that holds the run's data set with --data"
        )
    return trial


def named_dataset(run: RunRecord) -> str:
    """The data set as the run's command names it."""
    words = shlex.split(run.command)
    return words[3] if words[:2] == ["bm3", "train"] and len(words) > 3 else run.dataset.name


def causes(found: Difference) -> list[str]:
    """Why the two runs may have come out differently, the likeliest first."""
    changed = {change.what: change for change in (*found.asked, *found.environment)}
    return [
        f"{why} ({name}: {changed[name].first} -> {changed[name].second})"
        for name, why in CAUSES.items()
        if name in changed
    ]
