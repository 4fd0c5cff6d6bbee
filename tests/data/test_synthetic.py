"""The data set `mini` is the same every time and has the structure that makes item content worth reading."""

import numpy as np
import pytest

from harness.data import Dataset, load_dataset
from harness.data.synthetic import mini


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("mini")


def test_it_is_made_alike_every_time_and_unlike_for_another_seed(dataset: Dataset) -> None:
    assert mini().content_hash == dataset.content_hash
    assert mini(seed=1).content_hash != dataset.content_hash


def test_it_needs_no_folder(tmp_path: object, monkeypatch: pytest.MonkeyPatch, dataset: Dataset) -> None:
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.setenv("BM3_DATA", "nowhere")
    assert load_dataset("mini").content_hash == dataset.content_hash


def test_every_user_and_item_takes_part_and_two_modalities_describe_the_items(dataset: Dataset) -> None:
    assert dataset.n_users == 700
    assert 650 <= dataset.n_items <= 700
    assert {name: table.shape for name, table in dataset.features.items()} == {
        "text": (dataset.n_items, 16),
        "visual": (dataset.n_items, 32),
    }
    assert set(dataset.train[:, 0].tolist()) == set(range(700))
    assert len(dataset.unseen_users("test")) == 0


@pytest.mark.parametrize("column", [0, 1], ids=["users", "items"])
def test_few_have_much_and_many_have_little(dataset: Dataset, column: int) -> None:
    counts = np.sort(np.bincount(dataset.train[:, column]))[::-1]
    top_tenth = counts[: len(counts) // 10].sum() / counts.sum()
    assert top_tenth > 0.2  # with equal shares it would be 0.1
    assert counts.max() > 4 * np.median(counts)


@pytest.mark.parametrize("modality", ["visual", "text"])
def test_items_near_in_features_share_more_users_than_chance(dataset: Dataset, modality: str) -> None:
    features = dataset.features[modality]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    nearest = np.argsort(-cosine, axis=1)[:, :5]
    matrix = np.zeros((dataset.n_users, dataset.n_items))
    matrix[tuple(dataset.train.T)] = 1
    shared = matrix.T @ matrix  # users in common, item by item
    item = np.arange(dataset.n_items)[:, None]
    observed = shared[item, nearest].mean()
    draw = np.random.default_rng(0)
    by_chance = []
    for _ in range(99):  # the same neighbour graph with items exchanged: features that say nothing
        other = draw.permutation(dataset.n_items)
        by_chance.append(shared[other[item], other[nearest]].mean())
    assert observed > 1.5 * max(by_chance)
