"""The data set `mini`, the same every time. That its content tells of its users is seen where data are verified."""

import numpy as np
import pytest

from harness.data.dataset import Dataset
from harness.data.layouts import load_dataset
from harness.data.synthetic import mini


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("mini")


def test_it_is_made_alike_every_time_without_a_folder_and_unlike_for_another_seed(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, dataset: Dataset
) -> None:
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.setenv("BM3_DATA", "nowhere")
    assert load_dataset("mini").content_hash == mini().content_hash == dataset.content_hash
    assert mini(seed=1).content_hash != dataset.content_hash


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
