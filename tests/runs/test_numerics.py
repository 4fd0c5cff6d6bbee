"""Every model trains to the numbers that are stored for its numerics version, so that changed numbers raise a version.

The parameters are compared in float64, where rounding stays far below the tolerance on any processor and with any
number of threads. `python tests/runs/test_numerics.py [MODEL…]` stores the numbers of today.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.data.dataset import Dataset, checked_dataset
from harness.data.split import random_user_split
from harness.evaluation.words import METRICS
from harness.models import base
from harness.models.products import readout
from harness.models.registry import find_model, trained_in_steps
from harness.runs.record import RUN
from harness.runs.trial import _of_the_first_format, folder_of, make_trial, run_trial
from harness.training.config import NUMERICS_VERSION, TrainingConfig
from harness.training.fit import build, fit
from harness.training.streams import Streams

STORED = Path(__file__).parent / "numerics.json"
NINE = trained_in_steps()
TRAINING = TrainingConfig(epochs=3, batch_size=64, learning_rate=0.01)
TOLERANCE = 5e-5
"""Of a norm or a loss. Initial values are drawn in float32, which processors round otherwise by some 1e-7."""
TOLERANCE_IN_FLOAT32 = 1e-3
IN_FLOAT32 = ("lattice",)  # which converts its features itself
TOLERANCE_OF_METRICS = 0.03  # one of the users' hits may lie at a tie


def data() -> Dataset:
    """60 users and 40 items that belong to five clusters."""
    draw = np.random.default_rng(7)
    cluster = np.arange(40) % 5
    pairs = [(u, i) for u in range(60) for i in range(40) if draw.random() < (0.6 if cluster[i] == u % 5 else 0.08)]
    features = {
        name: (np.eye(5)[cluster] @ draw.normal(size=(5, width)) + draw.normal(size=(40, width))).astype(np.float32)
        for name, width in (("visual", 12), ("text", 8))
    }
    return checked_dataset("tiny", random_user_split(np.array(pairs), draw), features, where="tiny data set")


def numbers(name: str) -> dict[str, Any]:
    """What a short training of the model comes to: losses and validations by epoch, and two figures of each tensor."""
    entry, streams, dataset, cpu = find_model(name), Streams(3), data(), torch.device("cpu")
    config = entry.model.Config()
    if hasattr(config, "train_batch_size"):
        config = replace(config, train_batch_size=TRAINING.batch_size)
    model = build(entry.model, dataset, config, streams, cpu)
    model = model if name in IN_FLOAT32 else model.double()
    epochs: list[Any] = []
    result = fit(model, dataset, TRAINING, streams, cpu, epochs.append)
    return {
        "losses": [[record.loss, *(record.parts[part] for part in sorted(record.parts))] for record in epochs],
        "metrics": [
            *(record.valid["recall@20"] for record in epochs),
            *(result.test[one] for one in sorted(result.test) if one.partition("@")[0] in METRICS),
        ],
        "parameters": {key: figures(value.detach()) for key, value in model.named_parameters() if value.requires_grad},
    }


def figures(tensor: torch.Tensor) -> list[float]:
    """The norm of a tensor, and its product with a fixed direction, which a changed sign or order moves too."""
    flat = tensor.flatten().double()
    direction = torch.cos(torch.arange(len(flat), dtype=torch.float64))
    return [float(flat.norm()), float(flat @ direction)]


def check(name: str, stored: Mapping[str, Any]) -> None:
    """Raises AssertionError with what is to be done when the model trains to other numbers than the stored ones."""
    now, tolerance = numbers(name), TOLERANCE_IN_FLOAT32 if name in IN_FLOAT32 else TOLERANCE
    raise_it = (
        f"{name} trains to other numbers. If that is meant, raise numerics_version of its class (or, where the cause "
        "is shared, NUMERICS_VERSION in training/config.py) and store them anew: "
        f"python tests/runs/test_numerics.py {name}"
    )
    assert now["parameters"].keys() == stored["parameters"].keys(), raise_it
    for key, (norm, along) in stored["parameters"].items():
        assert now["parameters"][key] == pytest.approx([norm, along], rel=tolerance, abs=tolerance * norm), raise_it
    for ours, theirs in zip(now["losses"], stored["losses"], strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance, abs=tolerance), raise_it
    assert now["metrics"] == pytest.approx(stored["metrics"], abs=TOLERANCE_OF_METRICS), raise_it


def stored_for(name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(STORED.read_text())[name]
    return found


@pytest.mark.parametrize("name", NINE)
def test_a_model_trains_to_the_numbers_of_its_version(name: str) -> None:
    stored = stored_for(name)
    assert stored["versions"] == versions(name), f"store them anew: python tests/runs/test_numerics.py {name}"
    check(name, stored)


def versions(name: str) -> dict[str, int]:
    return {"model": find_model(name).model.numerics_version, "training": NUMERICS_VERSION}


def test_a_run_of_the_first_format_is_of_its_trial_until_a_version_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = make_trial("bpr", data(), "tiny", {"epochs": 1, "reg_weight": 0.1}, 1, torch.device("cpu"))
    made = run_trial(trial, tmp_path)
    description = json.loads((made.path / RUN).read_text())
    assert description["format"] == 2
    assert description.pop("numerics") == {"model": 1, "training": NUMERICS_VERSION}
    del description["training"]["precision"]  # a setting that came later
    (made.path / RUN).write_text(json.dumps({**description, "format": 1, "code": "abc"}))
    _of_the_first_format.cache_clear()  # as in another process
    old = made.path.rename(made.path.parent / "bpr-0123456789-seed1")
    assert run_trial(trial, tmp_path).path == folder_of(trial, tmp_path) == old
    for other in ({"epochs": 1}, {"epochs": 1, "reg_weight": 0.1, "precision": "bf16"}):
        asked = make_trial("bpr", data(), "tiny", other, 1, torch.device("cpu"))
        assert folder_of(asked, tmp_path) == tmp_path / asked.key
    monkeypatch.setattr(trial.entry.model, "numerics_version", 2)
    raised = make_trial("bpr", data(), "tiny", {"epochs": 1, "reg_weight": 0.1}, 1, torch.device("cpu"))
    assert raised.key != trial.key
    assert folder_of(raised, tmp_path) == tmp_path / raised.key


@pytest.mark.parametrize(
    ("name", "target", "value"),
    [
        ("bm3", "harness.models.bm3.BM3.readout", staticmethod(lambda *graph: 1.01 * readout(*graph))),
        ("bpr", "harness.models.bpr.pairwise_loss", lambda *scores: 1.01 * base.pairwise_loss(*scores)),
        ("lightgcn", "harness.training.optimiser.BETAS", (0.9, 0.998)),
    ],
)
def test_a_changed_coefficient_is_noticed(name: str, target: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, value)
    with pytest.raises(AssertionError, match="raise numerics_version"):
        check(name, stored_for(name))


if __name__ == "__main__":
    kept = json.loads(STORED.read_text()) if STORED.is_file() else {}
    for model in sys.argv[1:] or NINE:
        kept[model] = {"versions": versions(model), **numbers(model)}
    STORED.write_text(json.dumps({name: kept[name] for name in sorted(kept)}, indent=1) + "\n")
