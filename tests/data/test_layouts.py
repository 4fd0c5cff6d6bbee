"""Reading data sets from disk: both layouts, look-up by name, and one clear line for every file that is unusable."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bm3 import DataError
from harness.data import PARTS, load_dataset

Parts = dict[str, NDArray[Any]]
Features = dict[str, NDArray[Any]]
Write = Callable[..., Path]


def refusal(folder: Path) -> str:
    """The message with which the data set in `folder` is refused: always one line."""
    with pytest.raises(DataError) as caught:
        load_dataset(str(folder))
    message = str(caught.value)
    assert "\n" not in message
    assert message
    return message


def write_lines(folder: Path, *lines: str, header: str = "userID\titemID\tx_label") -> Path:
    folder.mkdir()
    (folder / "shop.inter").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return folder


# --- what can be read ---


def test_both_layouts_give_the_same_data_set_and_hash(
    tmp_path: Path, write_npz: Write, write_inter: Write, small_parts: Parts, small_features: Features
) -> None:
    as_npz = load_dataset(str(write_npz(tmp_path / "a" / "shop", small_parts, small_features)))
    as_inter = load_dataset(str(write_inter(tmp_path / "b" / "shop", small_parts, small_features)))
    assert as_npz.name == as_inter.name == "shop"
    assert (as_npz.n_users, as_npz.n_items) == (as_inter.n_users, as_inter.n_items) == (6, 8)
    for part in PARTS:
        expected = small_parts[part][np.lexsort((small_parts[part][:, 1], small_parts[part][:, 0]))]
        np.testing.assert_array_equal(as_npz.part(part), expected)
        np.testing.assert_array_equal(as_inter.part(part), expected)
    assert set(as_npz.features) == set(as_inter.features) == {"visual", "text"}
    for modality, table in small_features.items():
        np.testing.assert_array_equal(as_inter.features[modality], table)
    assert as_npz.content_hash == as_inter.content_hash


@pytest.mark.parametrize(
    "columns",
    [
        ("userID", "itemID", "x_label"),
        ("x_label", "itemID", "userID"),
        ("timestamp", "itemID", "rating", "x_label", "userID"),
        ("userID", "rating", "itemID", "x_label"),
        ("brand", "userID", "itemID", "timestamp", "x_label"),
    ],
    ids=" ".join,
)
def test_columns_stand_in_any_order_and_only_three_are_needed(
    tmp_path: Path, write_npz: Write, write_inter: Write, small_parts: Parts, columns: tuple[str, ...]
) -> None:
    usual = load_dataset(str(write_npz(tmp_path / "a", small_parts)))
    other = load_dataset(str(write_inter(tmp_path / "b", small_parts, columns=columns)))
    assert other.content_hash == usual.content_hash


def test_blank_lines_and_windows_line_ends_change_nothing(
    tmp_path: Path, write_inter: Write, small_parts: Parts
) -> None:
    folder = write_inter(tmp_path / "shop", small_parts)
    before = load_dataset(str(folder)).content_hash
    file = folder / "shop.inter"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert load_dataset(str(folder)).content_hash == before


@pytest.mark.parametrize(
    ("file", "modality"),
    [
        ("image_feat.npy", "visual"),
        ("text_feat.npy", "text"),
        ("visual.npy", "visual"),
        ("textual.npy", "text"),
        ("acoustic.npy", "acoustic"),
        ("price_feat.npy", "price"),
    ],
)
def test_a_feature_file_is_named_by_its_modality(
    tmp_path: Path, write_npz: Write, small_parts: Parts, file: str, modality: str
) -> None:
    folder = write_npz(tmp_path / "shop", small_parts)
    np.save(folder / file, np.ones((8, 2), np.float32))
    dataset = load_dataset(str(folder))
    assert set(dataset.features) == {modality}
    assert dataset.surrogates == frozenset()


def test_surrogate_features_are_known_as_such(tmp_path: Path, write_npz: Write, small_parts: Parts) -> None:
    folder = write_npz(tmp_path / "shop", small_parts, {"text": np.ones((8, 2), np.float32)})
    np.save(folder / "visual_surrogate.npy", np.ones((8, 2), np.float32))
    dataset = load_dataset(str(folder))
    assert set(dataset.features) == {"text", "visual"}
    assert dataset.surrogates == {"visual"}


# --- what cannot ---


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")


def test_a_folder_without_interactions_says_which_file_is_needed(tmp_path: Path) -> None:
    message = refusal(tmp_path)
    assert str(tmp_path) in message
    assert "interactions.npz" in message
    assert ".inter" in message


def test_two_inter_files_are_ambiguous(tmp_path: Path, write_inter: Write, small_parts: Parts) -> None:
    folder = write_inter(tmp_path / "shop", small_parts)
    (folder / "old.inter").write_bytes((folder / "shop.inter").read_bytes())
    assert "2 .inter files" in refusal(folder)


def test_an_inter_file_that_is_a_folder_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "shop.inter").mkdir()
    assert str(tmp_path / "shop.inter") in refusal(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="every file is readable for root")
def test_a_file_without_read_permission_is_named(tmp_path: Path, write_npz: Write, small_parts: Parts) -> None:
    folder = write_npz(tmp_path / "shop", small_parts)
    (folder / "interactions.npz").chmod(0)
    assert str(folder / "interactions.npz") in refusal(folder)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.95])
def test_a_truncated_archive_is_named(tmp_path: Path, write_npz: Write, small_parts: Parts, share: float) -> None:
    folder = write_npz(tmp_path / "shop", small_parts)
    content = (folder / "interactions.npz").read_bytes()
    (folder / "interactions.npz").write_bytes(content[: int(share * len(content))])
    assert str(folder / "interactions.npz") in refusal(folder)


def test_a_damaged_compressed_archive_is_named(tmp_path: Path, write_npz: Write, small_parts: Parts) -> None:
    folder = write_npz(tmp_path / "shop", small_parts)
    np.savez_compressed(folder / "interactions.npz", allow_pickle=False, **small_parts)
    content = bytearray((folder / "interactions.npz").read_bytes())
    content[70:100] = b"\xff" * 30
    (folder / "interactions.npz").write_bytes(content)
    assert str(folder / "interactions.npz") in refusal(folder)


def test_a_single_array_in_place_of_the_archive_is_named(tmp_path: Path, write_npz: Write, small_parts: Parts) -> None:
    folder = write_npz(tmp_path / "shop", small_parts)
    with (folder / "interactions.npz").open("wb") as file:
        np.save(file, small_parts["train"])
    assert str(folder / "interactions.npz") in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"no array at all\n", b"\x93NUMPY\x01\x00"], ids=["empty", "text", "cut"])
def test_a_feature_file_that_holds_no_array_is_named(
    tmp_path: Path, write_npz: Write, small_parts: Parts, content: bytes
) -> None:
    folder = write_npz(tmp_path / "shop", small_parts)
    (folder / "visual.npy").write_bytes(content)
    assert str(folder / "visual.npy") in refusal(folder)


@pytest.mark.parametrize("name", ["interactions.npz", "visual.npy"])
def test_nobody_is_told_to_unpickle_a_file_that_merely_is_no_array(
    tmp_path: Path, write_npz: Write, small_parts: Parts, name: str
) -> None:
    folder = write_npz(tmp_path / "shop", small_parts)
    (folder / name).write_text("<html>404 Not Found</html>\n", encoding="utf-8")
    message = refusal(folder)
    assert str(folder / name) in message
    assert "allow_pickle=True" not in message


def test_an_archive_in_place_of_a_feature_table_is_named(tmp_path: Path, write_npz: Write, small_parts: Parts) -> None:
    folder = write_npz(tmp_path / "shop", small_parts)
    with (folder / "visual.npy").open("wb") as file:
        np.savez(file, table=np.ones((8, 2), np.float32))
    assert str(folder / "visual.npy") in refusal(folder)


def test_a_truncated_feature_table_is_named(
    tmp_path: Path, write_npz: Write, small_parts: Parts, small_features: Features
) -> None:
    folder = write_npz(tmp_path / "shop", small_parts, small_features)
    content = (folder / "text.npy").read_bytes()
    (folder / "text.npy").write_bytes(content[:-8])
    assert str(folder / "text.npy") in refusal(folder)


@pytest.mark.parametrize("part", PARTS)
def test_an_archive_without_a_part_says_which(tmp_path: Path, write_npz: Write, small_parts: Parts, part: str) -> None:
    del small_parts[part]
    message = refusal(write_npz(tmp_path / "shop", small_parts))
    assert str(tmp_path / "shop" / "interactions.npz") in message
    assert f"no array {part!r}" in message


@pytest.mark.parametrize("missing", ["userID", "itemID", "x_label"])
def test_a_missing_column_is_named_with_those_that_are_there(
    tmp_path: Path, write_inter: Write, small_parts: Parts, missing: str
) -> None:
    columns = tuple(column for column in ("userID", "itemID", "rating", "x_label") if column != missing)
    message = refusal(write_inter(tmp_path / "shop", small_parts, columns=columns))
    assert f"{tmp_path / 'shop' / 'shop.inter'}, line 1: " in message
    assert f"no column {missing!r}" in message
    assert all(column in message for column in columns)


def test_an_empty_inter_file_lacks_its_columns(tmp_path: Path) -> None:
    (tmp_path / "shop.inter").touch()
    assert f"{tmp_path / 'shop.inter'}, line 1: no column 'userID'" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("u17\t0\t0", "userID is 'u17', needed is a whole number"),
        ("1\t2.5\t0", "itemID is '2.5', needed is a whole number"),
        ("1\t2.0\t0", "itemID is '2.0', needed is a whole number"),
        ("1\t\t0", "itemID is '', needed is a whole number"),
        ("nan\t0\t0", "userID is 'nan', needed is a whole number"),
        ("1\t0\ttrain", "x_label is 'train', needed is a whole number"),
        ("+-5\t0\t0", "userID is '+-5', needed is a whole number"),
        ("1\t--5\t0", "itemID is '--5', needed is a whole number"),
        ("-1\t0\t0", "ids are -1 and 0, needed are whole numbers from 0"),
        ("1\t-3\t0", "ids are 1 and -3, needed are whole numbers from 0"),
        ("1\t2147483648\t0", "needed are whole numbers from 0 that fit 31 bits"),
        ("1\t0\t3", "x_label is 3, needed is 0 (train), 1 (valid) or 2 (test)"),
        ("1\t0", "2 fields, and the header names 3"),
    ],
)
def test_a_bad_line_is_named_with_what_is_needed(tmp_path: Path, line: str, complaint: str) -> None:
    folder = write_lines(tmp_path / "shop", "0\t0\t0", line, "0\t1\t1")
    message = refusal(folder)
    assert f"{folder / 'shop.inter'}, line 3: " in message
    assert complaint in message


def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "shop.inter").write_bytes(b"userID\titemID\tx_label\n\xff\xfe\t0\t0\n")
    assert str(tmp_path / "shop.inter") in refusal(tmp_path)


def test_an_inter_file_without_test_interactions_is_refused(
    tmp_path: Path, write_inter: Write, small_parts: Parts
) -> None:
    small_parts["test"] = small_parts["test"][:0]
    message = refusal(write_inter(tmp_path / "shop", small_parts))
    assert str(tmp_path / "shop" / "shop.inter") in message
    assert "part test is empty" in message


@pytest.mark.parametrize(
    ("first", "second"),
    [("visual.npy", "image_feat.npy"), ("visual.npy", "visual_surrogate.npy"), ("text.npy", "textual.npy")],
)
def test_two_files_for_one_modality_are_refused_by_name(
    tmp_path: Path, write_npz: Write, small_parts: Parts, first: str, second: str
) -> None:
    folder = write_npz(tmp_path / "shop", small_parts)
    for name in (first, second):
        np.save(folder / name, np.ones((8, 2), np.float32))
    message = refusal(folder)
    assert first in message
    assert second in message
    assert "keep one" in message


def test_a_bad_feature_table_is_named_by_its_file(
    tmp_path: Path, write_npz: Write, small_parts: Parts, small_features: Features
) -> None:
    small_features["text"][3, 1] = np.nan
    message = refusal(write_npz(tmp_path / "shop", small_parts, small_features))
    assert str(tmp_path / "shop" / "text.npy") in message
    assert "row 3" in message


class _Payload:
    """Unpickling it makes a folder: the trace that code from the file has run."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("name", ["visual.npy", "interactions.npz"])
def test_object_arrays_are_refused_with_the_remedy_and_never_unpickled(
    tmp_path: Path, write_npz: Write, small_parts: Parts, name: str
) -> None:
    trace = tmp_path / "code from the file has run"
    table = np.empty((8, 2), dtype=object)
    table[:] = _Payload(trace)
    parts = small_parts if name == "visual.npy" else small_parts | {"valid": table}
    folder = write_npz(tmp_path / "shop", parts, {"visual": table} if name == "visual.npy" else {})
    message = refusal(folder)
    assert not trace.exists()
    assert str(folder / name) in message
    assert "object array" in message
    assert "np.save" in message
    loaded = np.load(folder / name, allow_pickle=True)  # the payload was a live one
    if name.endswith("npz"):
        dict(loaded)
    assert trace.exists()


# --- look-up by name ---


@pytest.fixture
def shops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_npz: Write, small_parts: Parts) -> dict[str, Path]:
    """A data set `shop` under --data, $BM3_DATA and ./data, with one, two and three features to tell them apart."""
    roots = {"option": tmp_path / "given", "variable": tmp_path / "variable", "here": tmp_path / "work" / "data"}
    for width, root in enumerate(roots.values(), start=1):
        write_npz(root / "shop", small_parts, {"visual": np.ones((8, width), np.float32)})
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("BM3_DATA", str(roots["variable"]))
    return roots


def width(name: str, data: Path | None = None) -> int:
    return int(load_dataset(name, data).features["visual"].shape[1])


def test_the_data_option_comes_first(shops: dict[str, Path]) -> None:
    assert width("shop", shops["option"]) == 1


def test_the_variable_comes_before_the_working_folder(shops: dict[str, Path]) -> None:
    assert width("shop") == 2


def test_the_working_folder_is_used_without_the_variable(
    shops: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BM3_DATA")
    assert width("shop") == 3


def test_the_working_folder_is_used_when_the_variables_folder_lacks_the_name(
    shops: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BM3_DATA", str(tmp_path))
    assert width("shop") == 3


def test_nothing_else_is_searched_when_the_data_option_is_given(shops: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="no data set 'shop' in") as caught:
        load_dataset("shop", tmp_path / "bare")
    assert str(shops["variable"]) not in str(caught.value)


def test_a_path_is_read_wherever_it_is(shops: dict[str, Path]) -> None:
    assert width(str(shops["here"] / "shop"), shops["option"]) == 3


def test_an_existing_folder_is_read_without_a_separator_in_its_name(
    shops: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BM3_DATA")
    monkeypatch.chdir(shops["option"])
    assert width("shop") == 1


def test_a_data_option_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder") as caught:
        load_dataset("shop", tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(caught.value)


def test_an_unknown_name_shows_the_nearest_ones_and_where_it_looked(
    shops: dict[str, Path], write_npz: Write, small_parts: Parts
) -> None:
    write_npz(shops["option"] / "warehouse", small_parts)
    with pytest.raises(DataError) as caught:
        load_dataset("shpo", shops["option"])
    message = str(caught.value)
    assert "nearest: shop" in message
    assert "warehouse" not in message
    assert str(shops["option"]) in message
    assert "--data" in message
    assert "BM3_DATA" in message
    with pytest.raises(DataError, match="nearest: mini"):
        load_dataset("minni", shops["option"])


# --- the real data sets ---


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["Baby", "Sports"])
def test_the_real_data_sets_have_the_published_size(name: str) -> None:
    from harness.paper.expected import expected_dir, load_expected

    published = {
        value.metric: value.value for value in load_expected(expected_dir()) if value.cell[:2] == (name.lower(), "")
    }
    dataset = load_dataset(name.lower())
    assert dataset.n_users == published["users"]
    assert dataset.n_items == published["items"]
    assert dataset.n_interactions == published["interactions"]
    assert round(dataset.sparsity, 2) == published["sparsity_percent"]
    assert {"visual", "text"} <= set(dataset.features)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("baby", (118_551, 20_559, 21_682)),
        ("sports", (218_409, 37_899, 40_029)),
        ("tiktok", (59_541, 3_051, 6_130)),
    ],
)
def test_the_real_parts_have_the_known_sizes(name: str, sizes: tuple[int, int, int]) -> None:
    dataset = load_dataset(name)
    assert tuple(len(dataset.part(part)) for part in PARTS) == sizes


@pytest.mark.real_data
def test_the_few_tiktok_users_without_training_are_no_error() -> None:
    dataset = load_dataset("tiktok")
    assert len(dataset.unseen_users("test")) > 0
    assert set(dataset.features) == {"visual", "acoustic"}


# --- features that stay in their files ---


def test_mapped_features_are_the_same_data_set(write_npz: Write, tmp_path: Path, small_parts: Any) -> None:
    table = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float16)
    folder = str(write_npz(tmp_path / "shop", small_parts, {"visual": table}))
    mapped, loaded = load_dataset(folder, mapped=True), load_dataset(folder)
    assert isinstance(mapped.features["visual"], np.memmap)
    assert not isinstance(loaded.features["visual"], np.memmap)
    assert mapped.content_hash == loaded.content_hash
    assert not loaded.features["visual"].flags.writeable


@pytest.mark.parametrize(
    "table", [np.ones((8, 4)), np.asfortranarray(np.ones((8, 4), np.float32))], ids=["float64", "F"]
)
def test_features_that_cannot_stay_in_their_file_are_refused(
    write_npz: Write, tmp_path: Path, small_parts: Any, table: Any
) -> None:
    folder = str(write_npz(tmp_path / "shop", small_parts, {"visual": table}))
    with pytest.raises(DataError, match=r"visual\.npy: float.* cannot stay on disk .*leave features_location out"):
        load_dataset(folder, mapped=True)
