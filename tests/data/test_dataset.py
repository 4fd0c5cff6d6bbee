"""The checks every data set passes, and the content hash."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bm3 import DataError
from harness.data import Dataset, checked_dataset
from harness.data.dataset import MAX_UNSEEN_SHARE, ROWS_AT_A_TIME

Parts = dict[str, NDArray[Any]]
Features = dict[str, NDArray[Any]]
WHERE = "shop/interactions.npz"


def refusal(parts: Parts, features: Features | None = None) -> str:
    """The one line with which these arrays are refused; it begins with the place they came from."""
    with pytest.raises(DataError) as caught:
        checked_dataset("shop", parts, features or {}, where=WHERE)
    message = str(caught.value)
    assert message.startswith(WHERE + ": ")
    assert "\n" not in message
    return message


def made(parts: Parts, features: Features | None = None, name: str = "shop") -> Dataset:
    return checked_dataset(name, parts, features or {}, where=WHERE)


# --- interactions ---


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_an_empty_part_is_refused(small_parts: Parts, part: str) -> None:
    message = refusal(small_parts | {part: small_parts[part][:0]})
    assert f"part {part} is empty" in message
    assert "each need an interaction" in message


@pytest.mark.parametrize("shape", [(6,), (6, 3), (2, 3, 2), ()])
def test_a_part_that_holds_no_pairs_is_refused(small_parts: Parts, shape: tuple[int, ...]) -> None:
    message = refusal(small_parts | {"valid": np.zeros(shape, np.int64)})
    assert "part valid has shape" in message
    assert "needed are pairs (user, item)" in message


@pytest.mark.parametrize("dtype", [np.float64, np.bool_, "U4"])
def test_ids_that_are_no_whole_numbers_are_refused(small_parts: Parts, dtype: Any) -> None:
    message = refusal(small_parts | {"test": small_parts["test"].astype(dtype)})
    assert "ids in part test are" in message
    assert "needed are whole numbers from 0" in message


@pytest.mark.parametrize("column", [0, 1])
def test_a_negative_id_is_refused_with_its_row(small_parts: Parts, column: int) -> None:
    small_parts["train"][4, column] = -1
    message = refusal(small_parts)
    assert "part train, interaction 4 has a negative id" in message
    assert "from 0" in message


def test_an_id_beyond_32_bits_is_refused(small_parts: Parts) -> None:
    small_parts["train"][4, 1] = 2**40
    assert f"part train has the id {2**40}" in refusal(small_parts)


@pytest.mark.parametrize(("column", "kind", "gap"), [(0, "user", 2), (1, "item", 5)])
def test_a_gap_in_ids_is_refused_and_named(small_parts: Parts, column: int, kind: str, gap: int) -> None:
    for pairs in small_parts.values():
        pairs[pairs[:, column] >= gap, column] += 1
    message = refusal(small_parts)
    assert f"{kind} ids have gaps" in message
    assert f"{gap} is missing" in message
    assert f"number {kind}s from 0 to" in message


@pytest.mark.parametrize("other", ["train", "valid", "test"])
def test_a_repeated_interaction_is_refused_within_and_across_parts(small_parts: Parts, other: str) -> None:
    pair = small_parts["train"][7]
    message = refusal(small_parts | {other: np.concatenate([small_parts[other], pair[None]])})
    assert "1 interactions stand more than once" in message
    assert f"first: user {pair[0]}, item {pair[1]}" in message
    assert "keep each pair once" in message


def test_a_user_in_test_but_not_in_training_is_refused(small_parts: Parts) -> None:
    small_parts["train"] = small_parts["train"][small_parts["train"][:, 0] != 3]
    message = refusal(small_parts)
    assert "1 of 6 users in valid have no training interaction (first: user 3)" in message
    assert "move one interaction of each into training" in message


def test_a_share_of_unseen_users_is_allowed_up_to_the_limit_and_not_beyond() -> None:
    allowed = 2
    n_users = round(allowed / MAX_UNSEEN_SHARE)
    train = np.array([(user, item) for user in range(n_users - allowed) for item in (0, 1)])
    parts = {
        "train": train,
        "valid": np.array([(user, 2) for user in range(n_users - allowed)]),
        "test": np.array([(user, 3) for user in range(n_users)]),
    }
    dataset = made(parts)
    np.testing.assert_array_equal(dataset.unseen_users("test"), [n_users - 2, n_users - 1])
    one_more = parts | {"test": np.concatenate([parts["test"], [(n_users, 3)]])}
    assert f"3 of {n_users + 1} users in test have no training" in refusal(one_more)


def test_interactions_are_sorted_int32_and_the_callers_arrays_are_left_alone(small_parts: Parts) -> None:
    shuffled = {part: pairs[::-1].copy() for part, pairs in small_parts.items()}
    before = {part: pairs.copy() for part, pairs in shuffled.items()}
    dataset = made(shuffled)
    assert dataset.train.dtype == np.int32
    assert dataset.train.tolist() == sorted(small_parts["train"].tolist())
    for part, pairs in before.items():
        np.testing.assert_array_equal(shuffled[part], pairs)


def test_sizes_and_sparsity_count_all_parts(small_parts: Parts) -> None:
    dataset = made(small_parts)
    assert (dataset.n_users, dataset.n_items, dataset.n_interactions) == (6, 8, 30)
    assert dataset.sparsity == pytest.approx(100 * (1 - 30 / 48))


# --- features ---


@pytest.mark.parametrize("rows", [7, 9, 0])
def test_as_many_feature_rows_as_items_are_needed(small_parts: Parts, rows: int) -> None:
    message = refusal(small_parts, {"visual": np.ones((rows, 4), np.float32)})
    assert "'visual'" in message
    assert f"{rows} rows for 8 items" in message
    assert "row i must belong to item i" in message


@pytest.mark.parametrize("shape", [(8,), (8, 0), (8, 2, 2)])
def test_features_are_one_row_of_numbers_per_item(small_parts: Parts, shape: tuple[int, ...]) -> None:
    assert "needed is one row of numbers per item" in refusal(small_parts, {"text": np.ones(shape, np.float32)})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_and_infinity_in_features_are_refused_with_their_row(small_parts: Parts, bad: float, dtype: Any) -> None:
    table = np.ones((8, 3), dtype)
    table[5, 2] = bad
    message = refusal(small_parts, {"visual": table})
    assert "'visual' contain NaN or infinity (first in row 5)" in message
    assert "replace them" in message


def test_a_bad_row_far_down_a_long_table_is_found() -> None:
    n_items = ROWS_AT_A_TIME + 10
    parts = {
        "train": np.array([(0, item) for item in range(n_items - 2)]),
        "valid": np.array([(0, n_items - 2)]),
        "test": np.array([(0, n_items - 1)]),
    }
    table = np.ones((n_items, 1), np.float32)
    table[ROWS_AT_A_TIME + 7] = np.nan
    assert f"first in row {ROWS_AT_A_TIME + 7}" in refusal(parts, {"visual": table})


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, np.complex64])
def test_features_that_are_not_floating_point_are_refused_with_the_remedy(small_parts: Parts, dtype: Any) -> None:
    message = refusal(small_parts, {"visual": np.ones((8, 3), dtype)})
    assert f"'visual' are {np.dtype(dtype)}" in message
    assert "float32" in message


def test_float64_features_become_float32(small_parts: Parts) -> None:
    table = np.random.default_rng(0).normal(size=(8, 3))
    stored = made(small_parts, {"visual": table}).features["visual"]
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, table.astype(np.float32))


@pytest.mark.filterwarnings("ignore:overflow")
def test_float64_features_too_large_for_float32_are_refused(small_parts: Parts) -> None:
    table = np.ones((8, 3))
    table[2, 0] = 1e300
    assert "row 2" in refusal(small_parts, {"visual": table})


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_narrow_features_keep_their_precision(small_parts: Parts, dtype: Any) -> None:
    assert made(small_parts, {"visual": np.ones((8, 3), dtype)}).features["visual"].dtype == dtype


# --- the content hash ---


def test_equal_content_has_an_equal_hash_whatever_name_order_and_memory_layout(
    small_parts: Parts, small_features: Features
) -> None:
    usual = made(small_parts, small_features)
    other = made(
        {part: pairs[::-1].astype(np.int32) for part, pairs in small_parts.items()},
        {modality: np.asfortranarray(table) for modality, table in reversed(small_features.items())},
        name="other",
    )
    assert other.content_hash == usual.content_hash


def _move_between_parts(parts: Parts, features: Features) -> None:
    parts["valid"], parts["test"] = parts["test"], parts["valid"]


def _change_one_feature(parts: Parts, features: Features) -> None:
    features["text"][7, 2] = np.nextafter(features["text"][7, 2], np.float32(9))


def _rename_modality(parts: Parts, features: Features) -> None:
    features["sound"] = features.pop("text")


def _drop_modality(parts: Parts, features: Features) -> None:
    del features["visual"]


def _narrow(parts: Parts, features: Features) -> None:
    features["text"] = np.zeros_like(features["text"], dtype=np.float16)


@pytest.mark.parametrize(
    "change", [_move_between_parts, _change_one_feature, _rename_modality, _drop_modality, _narrow]
)
def test_any_change_of_content_changes_the_hash(
    small_parts: Parts, small_features: Features, change: Callable[[Parts, Features], None]
) -> None:
    before = made(small_parts, small_features).content_hash
    change(small_parts, small_features)
    assert made(small_parts, small_features).content_hash != before
