"""The checks every data set passes, and the content hash."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from refusals import Features, Parts, refusal

from harness.data.dataset import MAX_UNSEEN_SHARE, ROWS_AT_A_TIME, Dataset, checked_dataset

WHERE = "shop/interactions.npz"


def made(parts: Parts, features: Features | None = None, name: str = "shop") -> Dataset:
    return checked_dataset(name, parts, features or {}, where=WHERE)


def refused(parts: Parts, features: Features | None = None) -> str:
    """The one line with which these arrays are refused; it begins with the place they came from."""
    message = refusal(lambda: made(parts, features))
    assert message.startswith(WHERE + ": ")
    return message


# --- interactions ---


def _with(part: str, change: Callable[[NDArray[Any]], Any]) -> Callable[[Parts], None]:
    def spoil(parts: Parts) -> None:
        parts[part] = np.asarray(change(parts[part]))

    return spoil


def _put(part: str, place: Any, value: int) -> Callable[[Parts], None]:
    return lambda parts: parts[part].__setitem__(place, value)


def _gap(column: int, from_: int) -> Callable[[Parts], None]:
    def spoil(parts: Parts) -> None:
        for pairs in parts.values():
            pairs[pairs[:, column] >= from_, column] += 1

    return spoil


def _repeat(other: str) -> Callable[[Parts], None]:
    return lambda parts: parts.update({other: np.concatenate([parts[other], parts["train"][7:8]])})


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        *[(_with(part, lambda pairs: pairs[:0]), f"part {part} is empty, but") for part in ("train", "test")],
        *[
            (
                _with("valid", lambda pairs, shape=shape: np.zeros(shape, np.int64)),
                f"part valid has shape {list(shape)}",
            )
            for shape in ((6,), (6, 3), (2, 3, 2), ())
        ],
        *[
            (_with("test", lambda pairs, dtype=dtype: pairs.astype(dtype)), "ids in part test are")
            for dtype in (np.float64, np.bool_, "U4")
        ],
        *[(_put("train", (4, column), -1), "part train, interaction 4 has a negative id") for column in (0, 1)],
        (_put("train", (4, 1), 2**40), f"part train has the id {2**40}"),
        (_gap(0, 2), "user ids have gaps (6 users, largest id 6, 2 is missing): number users from 0 to 5"),
        (_gap(1, 5), "item ids have gaps (8 items, largest id 8, 5 is missing): number items from 0 to 7"),
        *[
            (_repeat(other), "1 interactions stand more than once (first: user 2, item 3)")
            for other in ("train", "test")
        ],
        (_with("train", lambda pairs: pairs[pairs[:, 0] != 3]), "1 of 6 users in valid have no training interaction"),
    ],
)
def test_interactions_that_make_no_data_set_are_refused(
    small_parts: Parts, spoil: Callable[[Parts], None], complaint: str
) -> None:
    spoil(small_parts)
    assert complaint in refused(small_parts)


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
    said = f"3 of {n_users + 1} users in test have no training interaction (first: user {n_users - 2}): move one"
    assert said in refused(one_more)


def test_interactions_are_sorted_and_counted_and_the_callers_arrays_are_left_alone(small_parts: Parts) -> None:
    shuffled = {part: pairs[::-1].copy() for part, pairs in small_parts.items()}
    before = {part: pairs.copy() for part, pairs in shuffled.items()}
    dataset = made(shuffled)
    assert dataset.train.dtype == np.int32
    assert dataset.train.tolist() == sorted(small_parts["train"].tolist())
    for part, pairs in before.items():
        np.testing.assert_array_equal(shuffled[part], pairs)
    assert (dataset.n_users, dataset.n_items, dataset.n_interactions) == (6, 8, 30)
    assert dataset.sparsity == pytest.approx(100 * (1 - 30 / 48))


# --- features ---


def _table(dtype: Any, value: float) -> NDArray[Any]:
    table = np.ones((8, 3), dtype)
    table[5, 2] = value
    return table


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        *[(np.ones((rows, 4), np.float32), f"have {rows} rows for 8 items: row i must") for rows in (7, 9, 0)],
        *[(np.ones(shape, np.float32), "needed is one row of numbers") for shape in ((8,), (8, 0), (8, 2, 2))],
        *[
            (_table(dtype, bad), "contain NaN or infinity (first in row 5)")
            for dtype in (np.float16, np.float32, np.float64)
            for bad in (np.nan, -np.inf)
        ],
        (_table(np.float64, 1e300), "contain NaN or infinity (first in row 5) as float32"),
        *[
            (np.ones((8, 3), dtype), f"are {np.dtype(dtype)}, needed are floating")
            for dtype in (np.int64, np.bool_, "c8")
        ],
    ],
)
def test_features_that_do_not_fit_are_refused(small_parts: Parts, table: Any, complaint: str) -> None:
    message = refused(small_parts, {"visual": table})
    assert "features of 'visual'" in message
    assert complaint in message


def test_a_bad_row_far_down_a_long_table_is_found() -> None:
    n_items = ROWS_AT_A_TIME + 10
    parts = {
        "train": np.array([(0, item) for item in range(n_items - 2)]),
        "valid": np.array([(0, n_items - 2)]),
        "test": np.array([(0, n_items - 1)]),
    }
    table = np.ones((n_items, 1), np.float32)
    table[ROWS_AT_A_TIME + 7] = np.nan
    assert f"first in row {ROWS_AT_A_TIME + 7}" in refused(parts, {"visual": table})


@pytest.mark.parametrize(
    ("dtype", "stored"), [(np.float16, np.float16), (np.float32, np.float32), (np.float64, np.float32)]
)
def test_narrow_features_keep_their_type_and_wide_ones_become_float32(
    small_parts: Parts, dtype: Any, stored: Any
) -> None:
    table = np.random.default_rng(0).normal(size=(8, 3)).astype(dtype)
    found = made(small_parts, {"visual": table}).features["visual"]
    assert found.dtype == stored
    np.testing.assert_array_equal(found, table.astype(stored))


# --- the content hash ---


def test_equal_content_has_an_equal_hash_in_whatever_order_it_lies(
    small_parts: Parts, small_features: Features
) -> None:
    usual = made(small_parts, small_features)
    other = made(
        {part: pairs[::-1].astype(np.int32) for part, pairs in small_parts.items()},
        {modality: np.asfortranarray(table) for modality, table in reversed(small_features.items())},
        name="other",
    )
    assert other.content_hash == usual.content_hash


@pytest.mark.parametrize(
    "change",
    [
        lambda parts, features: parts.update(valid=parts["test"], test=parts["valid"]),
        lambda parts, features: features["text"].__setitem__(
            (7, 2), np.nextafter(features["text"][7, 2], np.float32(9))
        ),
        lambda parts, features: features.update(sound=features.pop("text")),
        lambda parts, features: features.pop("visual"),
        lambda parts, features: features.update(text=np.zeros_like(features["text"], dtype=np.float16)),
    ],
    ids=["parts", "one number", "name", "one modality less", "type"],
)
def test_any_change_of_content_changes_the_hash(
    small_parts: Parts, small_features: Features, change: Callable[[Parts, Features], None]
) -> None:
    before = made(small_parts, small_features).content_hash
    change(small_parts, small_features)
    assert made(small_parts, small_features).content_hash != before
