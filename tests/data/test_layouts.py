"""Reading data sets from disk: both layouts, look-up by name, and one clear line for every file that is unusable."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import Features, Parts, Write, refusal

from harness.data.dataset import PARTS
from harness.data.layouts import load_dataset

HEADER = "userID\titemID\tx_label\n"


def refused(folder: Path) -> str:
    """The one line with which the data set in `folder` is refused."""
    return refusal(lambda: load_dataset(str(folder)))


# --- what can be read ---


def test_a_link_to_a_folder_has_a_name_of_its_own(tmp_path: Path, write_npz: Write, small_parts: Parts) -> None:
    (tmp_path / "baby").symlink_to(write_npz(tmp_path / "amazon-v1", small_parts))
    assert load_dataset("baby", tmp_path).name == "baby"
    (tmp_path / "amazon-v1" / "below").mkdir()
    assert load_dataset(str(tmp_path / "baby" / "below" / "..")).name == "amazon-v1"


def test_both_layouts_give_the_same_data_set_and_hash(
    tmp_path: Path, write_npz: Write, write_inter: Write, small_parts: Parts, small_features: Features
) -> None:
    as_npz = load_dataset(str(write_npz(tmp_path / "a" / "shop", small_parts, small_features)))
    as_inter = load_dataset(str(write_inter(tmp_path / "b" / "shop", small_parts, small_features)))
    assert as_npz.name == as_inter.name == "shop"
    assert (as_npz.n_users, as_npz.n_items) == (as_inter.n_users, as_inter.n_items) == (6, 8)
    for part in PARTS:
        assert as_npz.part(part).tolist() == as_inter.part(part).tolist() == sorted(small_parts[part].tolist())
    assert set(as_npz.features) == set(as_inter.features) == {"visual", "text"}
    for modality, table in small_features.items():
        np.testing.assert_array_equal(as_inter.features[modality], table)
    assert as_npz.content_hash == as_inter.content_hash


@pytest.mark.parametrize(
    "columns",
    ["x_label itemID userID", "timestamp itemID rating x_label userID", "brand userID itemID timestamp x_label"],
)
def test_columns_stand_in_any_order_and_only_three_are_needed(
    tmp_path: Path, write_npz: Write, write_inter: Write, small_parts: Parts, columns: str
) -> None:
    usual = load_dataset(str(write_npz(tmp_path / "a", small_parts)))
    folder = write_inter(tmp_path / "b", small_parts, columns=tuple(columns.split()))
    file = folder / "b.inter"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")  # blank lines and line ends change nothing
    assert load_dataset(str(folder)).content_hash == usual.content_hash


@pytest.mark.parametrize(
    ("file", "modality", "surrogate"),
    [
        ("image_feat.npy", "visual", False),
        ("text_feat.npy", "text", False),
        ("visual.npy", "visual", False),
        ("textual.npy", "text", False),
        ("price_feat.npy", "price", False),
        ("visual_surrogate.npy", "visual", True),
    ],
)
def test_a_feature_file_is_named_by_its_modality(shop: Path, file: str, modality: str, surrogate: bool) -> None:
    np.save(shop / file, np.ones((8, 2), np.float32))
    dataset = load_dataset(str(shop))
    assert set(dataset.features) == {modality}
    assert dataset.surrogates == ({modality} if surrogate else set())


def test_mapped_features_are_the_same_data_set(shop: Path) -> None:
    np.save(shop / "visual.npy", np.random.default_rng(0).normal(size=(8, 4)).astype(np.float16))
    mapped, loaded = load_dataset(str(shop), mapped=True), load_dataset(str(shop))
    assert isinstance(mapped.features["visual"], np.memmap)
    assert not isinstance(loaded.features["visual"], np.memmap)
    assert mapped.content_hash == loaded.content_hash
    assert not loaded.features["visual"].flags.writeable


@pytest.mark.parametrize(
    "table", [np.ones((8, 4)), np.asfortranarray(np.ones((8, 4), np.float32))], ids=["float64", "F"]
)
def test_features_that_cannot_stay_in_their_file_are_refused(shop: Path, table: Any) -> None:
    np.save(shop / "visual.npy", table)
    message = refusal(lambda: load_dataset(str(shop), mapped=True))
    assert "visual.npy: float" in message
    assert "leave features_location out" in message


# --- what cannot ---


def test_a_folder_without_interactions_says_which_file_is_needed(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refused(tmp_path / "nowhere")
    message = refused(tmp_path)
    assert all(part in message for part in (str(tmp_path), "interactions.npz", ".inter"))
    (tmp_path / "shop.inter").mkdir()
    assert str(tmp_path / "shop.inter") in refused(tmp_path)
    (tmp_path / "old.inter").touch()
    assert "2 .inter files" in refused(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="every file is readable for root")
def test_a_file_without_read_permission_is_named(shop: Path) -> None:
    (shop / "interactions.npz").chmod(0)
    assert str(shop / "interactions.npz") in refused(shop)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"<html>404 Not Found</html>\n",
        lambda content: content[: len(content) // 5],
        lambda content: content[:-8],
        lambda content: content[:70] + b"\xff" * 30 + content[100:],
        lambda content: b"\x93NUMPY\x01\x00",
    ],
    ids=["empty", "text", "a fifth", "an end missing", "bytes changed", "a beginning"],
)
@pytest.mark.parametrize("name", ["interactions.npz", "visual.npy"])
def test_a_damaged_file_is_named_and_nobody_is_told_to_unpickle_it(
    shop: Path, small_parts: Parts, name: str, damage: Callable[[bytes], bytes]
) -> None:
    np.save(shop / "visual.npy", np.arange(16, dtype=np.float32).reshape(8, 2))
    np.savez_compressed(shop / "interactions.npz", allow_pickle=False, **small_parts)
    (shop / name).write_bytes(damage((shop / name).read_bytes()))
    message = refused(shop)
    assert str(shop / name) in message
    assert "allow_pickle=True" not in message


def test_an_array_and_an_archive_are_not_taken_for_each_other(shop: Path, small_parts: Parts) -> None:
    (shop / "visual.npy").write_bytes((shop / "interactions.npz").read_bytes())
    assert f"{shop / 'visual.npy'}: an archive of arrays" in refused(shop)
    (shop / "visual.npy").write_text("0.1,0.2\n")
    assert "needed is an .npy file: write it with np.save" in refused(shop)
    with (shop / "interactions.npz").open("wb") as file:
        np.save(file, small_parts["train"])
    assert f"{shop / 'interactions.npz'}: a single array" in refused(shop)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_missing_or_empty_is_named(
    tmp_path: Path, write_npz: Write, write_inter: Write, small_parts: Parts, part: str
) -> None:
    rows = small_parts.pop(part)
    message = refused(write_npz(tmp_path / "shop", small_parts))
    assert f"{tmp_path / 'shop' / 'interactions.npz'}: no array {part!r}" in message
    other = write_inter(tmp_path / "other", small_parts | {part: rows[:0]})
    if part == "valid":
        assert len(load_dataset(str(other)).valid) == 0
    else:
        assert f"{tmp_path / 'other' / 'other.inter'}: part {part} is empty" in refused(other)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "line 1: no column 'userID' among nothing"),
        ("userID\titemID\trating\n", "line 1: no column 'x_label' among userID, itemID, rating"),
        (f"{HEADER}\xff", "line 2: not UTF-8; it looks like CP1252 (then it reads 'ÿ')"),
        *[
            (f"{HEADER}0\t0\t0\n{line}\n0\t1\t1\n", f"line 3: {complaint}")
            for line, complaint in (
                ("u17\t0\t0", "userID is 'u17', needed is a whole number"),
                ("1\t2.0\t0", "itemID is '2.0', needed is a whole number"),
                ("1\t\t0", "itemID is '', needed is a whole number"),
                ("-1\t0\t0", "ids are -1 and 0, needed are whole numbers from 0"),
                ("1\t2147483648\t0", "ids are 1 and 2147483648, needed are whole numbers from 0 that fit 31 bits"),
                ("1\t0\t3", "x_label is 3, needed is 0 (train), 1 (valid) or 2 (test)"),
                ("1\t0", "2 fields, and the first line has 3"),
            )
        ],
    ],
)
def test_a_bad_line_is_named_with_what_is_needed(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "shop.inter").write_bytes(content.encode("latin-1"))
    message = refused(tmp_path)
    assert message.startswith(str(tmp_path / "shop.inter"))
    assert complaint in message


@pytest.mark.parametrize("second", ["image_feat.npy", "visual_surrogate.npy", None])
def test_two_files_for_one_modality_and_a_bad_table_are_refused_by_name(shop: Path, second: str | None) -> None:
    table = np.ones((8, 2), np.float32)
    table[3, 1] = 1 if second else np.nan
    for name in filter(None, ("visual.npy", second)):
        np.save(shop / name, table)
    message = refused(shop)
    assert all(part in message for part in (str(shop), "visual.npy", second or "row 3"))


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
    message = refused(folder)
    assert not trace.exists()
    assert all(part in message for part in (str(folder / name), "object array", "np.save"))
    loaded = np.load(folder / name, allow_pickle=True)  # the payload was a live one
    if name.endswith("npz"):
        dict(loaded)
    assert trace.exists()


# --- look-up by name ---


def test_names_are_looked_up_where_it_is_said_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_npz: Write, small_parts: Parts
) -> None:
    """A data set `shop` under --data, $BM3_DATA and ./data, with one, two and three features to tell them apart."""
    given, variable, here = roots = (tmp_path / "given", tmp_path / "variable", tmp_path / "work" / "data")
    for width, root in enumerate(roots, start=1):
        write_npz(root / "shop", small_parts, {"visual": np.ones((8, width), np.float32)})
    write_npz(given / "warehouse", small_parts)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("BM3_DATA", str(variable))

    def width_of(name: str, data: Path | None = None) -> int:
        return int(load_dataset(name, data).features["visual"].shape[1])

    assert width_of("shop", given) == 1
    assert width_of("shop") == 2
    assert width_of(str(here / "shop"), given) == 3  # a path is read wherever it is
    for elsewhere in (str(tmp_path), ""):
        monkeypatch.setenv("BM3_DATA", elsewhere)
        assert width_of("shop") == 3
    monkeypatch.chdir(given)
    assert width_of("shop") == 1  # a folder here
    message = refusal(lambda: load_dataset("shpo", given))
    assert "nearest: shop. " in message
    assert all(part in message for part in (str(given), "--data", "BM3_DATA"))
    assert str(variable) not in message
    assert "nearest: mini" in refusal(lambda: load_dataset("minni", given))
    assert f"{tmp_path / 'nowhere'}: no such folder" in refusal(lambda: load_dataset("shop", tmp_path / "nowhere"))


# --- the real data sets ---


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "sizes", "features"),
    [
        ("baby", (118_551, 20_559, 21_682), {"visual", "text"}),
        ("sports", (218_409, 37_899, 40_029), {"visual", "text"}),
        ("tiktok", (59_541, 3_051, 6_130), {"visual", "acoustic"}),
    ],
)
def test_the_real_data_sets_have_the_known_sizes(name: str, sizes: tuple[int, ...], features: set[str]) -> None:
    dataset = load_dataset(name)
    assert tuple(len(dataset.part(part)) for part in PARTS) == sizes
    assert features <= set(dataset.features)
    assert (len(dataset.unseen_users("test")) > 0) == (name == "tiktok")  # a few are no error
