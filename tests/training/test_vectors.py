from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bm3 import ConfigError, DataError
from harness.data.dataset import Dataset
from harness.runs.record import RunRecord
from harness.runs.trial import Trial, make_trial, run_trial
from harness.training.config import Vectors
from harness.training.streams import Streams
from harness.training.vectors import vectors_read

GIVEN = {
    "text": np.array([[3, 4], [0, 1], [0, 0], [6, 8]], np.float32),
    "visual": np.array([[2, 0, 0], [0, 3, 0], [0, 0, 4], [5, 0, 0]], np.float16),
}
CPU = torch.device("cpu")


def norms(table: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.asarray(table, np.float64), axis=1)


def test_given_vectors_are_not_touched() -> None:
    assert vectors_read(GIVEN, Vectors(), Streams(1)) is GIVEN
    assert vectors_read(GIVEN, Vectors(modality="visual"), Streams(1))["visual"] is GIVEN["visual"]


@pytest.mark.parametrize("content", ["permuted", "noise", "ones"])
def test_controls_keep_shape_precision_and_norms_and_say_nothing_about_an_item(content: str) -> None:
    read = vectors_read(GIVEN, Vectors(content=content), Streams(1))  # type: ignore[arg-type]
    for name, table in GIVEN.items():
        assert (read[name].shape, read[name].dtype) == (table.shape, table.dtype)
        assert not read[name].flags.writeable
        expected = norms(table)
        np.testing.assert_allclose(*(sorted(norms(read[name])), sorted(expected)), rtol=2e-3)
        if content != "permuted":
            np.testing.assert_allclose(norms(read[name]), expected, rtol=2e-3)
    if content == "ones":
        assert (np.ptp(np.asarray(read["visual"], np.float32) / norms(read["visual"])[:, None], axis=0) < 1e-3).all()


def test_items_swap_the_vectors_of_all_modalities_together_by_the_seed() -> None:
    items = np.eye(60, dtype=np.float32)
    given = {"text": items, "visual": items}
    one, other = (vectors_read(given, Vectors(content="permuted"), Streams(seed)) for seed in (1, 2))
    assert (one["text"] == one["visual"]).all()
    assert (one["text"].sum(axis=0) == 1).all()
    assert (one["text"] != other["text"]).any()
    noise = vectors_read(given, Vectors(content="noise"), Streams(1))
    assert abs(np.corrcoef(noise["text"].ravel(), noise["visual"].ravel())[0, 1]) < 0.1


def test_a_norm_is_that_of_every_vector_but_of_zeros() -> None:
    read = vectors_read(GIVEN, Vectors(norm=50), Streams(1))
    np.testing.assert_allclose(norms(read["text"]), [50, 50, 0, 50])
    np.testing.assert_allclose(read["text"][0], [30, 40], rtol=1e-6)


def test_a_modality_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match=r"vectors.modality is 'sound'.* has 'text', 'visual'"):
        vectors_read(GIVEN, Vectors(modality="sound"), Streams(1))


def made(dataset: Dataset, **settings: object) -> Trial:
    return make_trial("vbpr", dataset, "clustered", {"epochs": 2, "batch_size": 100, **settings}, 1, CPU)


def test_a_run_is_known_by_the_vectors_it_read(clustered: Dataset, tmp_path: Path) -> None:
    usual = made(clustered)
    assert "vectors" not in usual.identity["training"]  # as in runs older than the setting
    trials = [usual, *(made(clustered, **{"vectors.content": content}) for content in ("permuted", "noise", "ones"))]
    trials.append(made(clustered, **{"vectors.modality": min(clustered.features)}))
    runs = [run_trial(trial, tmp_path) for trial in trials]
    assert len({run.path for run in runs}) == len({run.outcome.state_hash for run in runs}) == len(trials)
    assert RunRecord.read(runs[2].path).changed_settings["vectors.content"] == "noise"
    features = vectors_read(clustered.features, Vectors(content="noise"), Streams(1))
    by_hand = run_trial(made(replace(clustered, features=features)), tmp_path / "by hand")
    assert by_hand.outcome.state_hash == runs[2].outcome.state_hash
    assert asdict(trials[2].training)["vectors"]["content"] == "noise"


@pytest.mark.parametrize("wrong", [{"vectors.content": "none"}, {"vectors.norm": -1.0}, {"vectors.modality": ""}])
def test_what_cannot_be_is_refused(wrong: dict[str, object], clustered: Dataset) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong)).rpartition(".")[2]):
        made(clustered, **wrong)


@pytest.mark.parametrize(("model", "settings"), [("bpr", {}), ("bm3", {"modalities": "none"})])
def test_a_control_of_what_is_not_read_is_refused(model: str, settings: dict[str, object], clustered: Dataset) -> None:
    with pytest.raises(ConfigError, match=f"{model} reads no item vectors"):
        make_trial(model, clustered, "clustered", {**settings, "vectors.content": "noise"}, 1, CPU)
