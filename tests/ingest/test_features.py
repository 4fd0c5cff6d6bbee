"""Adding a modality to a data set on disk, by order or by id; nothing is written unless all of it fits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import Parts, Write, refusal

from harness.data.layouts import load_dataset
from harness.data.synthetic import mini
from harness.ingest.exporting import export
from harness.ingest.features import add_features, item_ids, join_by_id, read_row_ids
from harness.ingest.importing import import_dataset

# --- adding features ---


@pytest.fixture(params=["npz", "inter"])
def either(request: pytest.FixtureRequest, tmp_path: Path, small_parts: Parts) -> Path:
    """The folder of a data set in each layout, without features."""
    folder: Path = request.getfixturevalue(f"write_{request.param}")(tmp_path / "shop", small_parts)
    return folder


@pytest.mark.parametrize("surrogate", [False, True])
def test_a_modality_is_added_in_the_folders_own_layout(either: Path, surrogate: bool) -> None:
    table = np.random.default_rng(0).normal(size=(8, 3))
    file, added = add_features(either, table, "audio", "here", surrogate=surrogate)
    usual = "audio_feat" if (either / "shop.inter").exists() else "audio"
    assert file == either / ("audio_surrogate.npy" if surrogate else f"{usual}.npy")
    dataset = load_dataset(str(either))
    assert dataset.content_hash == added.content_hash
    np.testing.assert_array_equal(dataset.features["audio"], table.astype(np.float32))
    assert dataset.features["audio"].dtype == np.float32
    assert ("audio" in dataset.surrogates) == surrogate


def test_features_are_replaced_on_request_whatever_their_name(
    tmp_path: Path, small_parts: Parts, write_inter: Write
) -> None:
    folder = write_inter(tmp_path / "shop", small_parts, {"image": np.ones((8, 2), np.float32)})
    table = np.full((8, 3), 2.0, np.float32)
    assert "--replace" in refusal(lambda: add_features(folder, table, "visual", "here", surrogate=True))
    assert load_dataset(str(folder)).features["visual"].shape == (8, 2)
    add_features(folder, table, "visual", "here", surrogate=True, replace=True)
    dataset = load_dataset(str(folder))
    assert dataset.surrogates == {"visual"}
    np.testing.assert_array_equal(dataset.features["visual"], table)
    assert sorted(path.name for path in folder.iterdir()) == ["image_surrogate.npy", "shop.inter"]


def test_the_record_follows_what_was_added(tmp_path: Path) -> None:
    export(mini(), tmp_path / "x")
    _, added = add_features(tmp_path / "x", np.ones((699, 2)), "audio", "here")
    assert import_dataset(tmp_path / "x", "shop", tmp_path).dataset.content_hash == added.content_hash
    assert added.content_hash != mini().content_hash


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (np.ones((7, 2)), "have 7 rows for 8 items"),
        (np.ones(8), "have shape [8]"),
        (np.ones((8, 2), np.int64), "are int64"),
        (np.full((8, 2), np.nan), "contain NaN"),
        (np.full((8, 2), 1e300), "contain NaN or infinity"),
        (np.full((8, 2), "x"), "are <U1"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_and_nothing_is_written(shop: Path, table: Any, complaint: str) -> None:
    message = refusal(lambda: add_features(shop, table, "audio", "vectors.npy"))
    assert message.startswith("vectors.npy: ")
    assert complaint in message
    assert [path.name for path in shop.iterdir()] == ["interactions.npz"]


def test_a_failed_write_leaves_the_old_features(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(shop / "image.npy", np.ones((8, 2), np.float32))
    before = load_dataset(str(shop)).content_hash

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    table = np.zeros((8, 3), np.float32)
    assert "No space left" in refusal(lambda: add_features(shop, table, "visual", "here", replace=True))
    assert load_dataset(str(shop)).content_hash == before
    assert sorted(path.name for path in shop.iterdir()) == ["image.npy", "interactions.npz"]


@pytest.mark.parametrize(("fill", "row"), [("mean", [2, 5]), ("zero", [0, 0]), (None, None)])
def test_rows_are_joined_by_id_and_items_without_one_refused_or_filled(fill: Any, row: Any) -> None:
    table, items = np.array([[1.0, 2.0], [3.0, 8.0], [9.0, 9.0], [4.0, 4.0]]), ["a", "b", "c"]
    joined = join_by_id(table, ["c", "x", "a", "b"], items, "ids.txt", fill=fill)
    np.testing.assert_array_equal(joined.table, [[9, 9], [4, 4], [1, 2]])
    assert (joined.left_out, joined.filled) == (1, 0)
    ids = ["a", "c", "x"]
    if fill is None:
        assert "1 of 3 items have no row (first: 'b')" in refusal(lambda: join_by_id(table[:3], ids, items, "ids.txt"))
        return
    joined = join_by_id(table[:3], ids, items, "ids.txt", fill=fill)
    np.testing.assert_array_equal(joined.table, [[1, 2], row, [3, 8]])
    assert (joined.left_out, joined.filled) == (1, 1)


@pytest.mark.parametrize(
    ("name", "content", "column"),
    [
        ("ids.txt", "a\nb,1\n", None),
        ("ids.txt", "item_id\na \nb,1\n\n", None),
        ("items.csv", 'index,id\n0,a\n1,"b,1"\n', None),  # as the project writes them
        ("items.csv", 'title,asin\nx,a\ny,"b,1"\n', None),
        ("items.csv", 'id,sku\n7,a\n8,"b,1"\n', "sku"),
        ("items.txt", "id;sku\n7;a\n8;b,1\n", "sku"),
        ("items.tsv", "a\nb,1\n", None),
    ],
)
def test_ids_of_rows_are_lines_or_a_column(tmp_path: Path, name: str, content: str, column: str | None) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_row_ids(tmp_path / name, column) == ["a", "b,1"]


def test_a_table_of_ids_without_a_column_of_a_known_name_says_how_to_name_it(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("sku,title\na,x\n", encoding="utf-8")
    message = refusal(lambda: read_row_ids(tmp_path / "i.csv"))
    assert "no column 'id' among sku, title" in message
    assert "--id-column" in message


@pytest.mark.parametrize(("modality", "kept"), [("image", "visual"), ("textual", "text"), ("a_feat", "a_feat")])
def test_a_modality_keeps_its_name_but_for_the_two_that_have_two(either: Path, modality: str, kept: str) -> None:
    add_features(either, np.ones((8, 3)), modality, "here")
    assert set(load_dataset(str(either)).features) == {kept}


@pytest.mark.parametrize(
    ("ids", "table", "complaint"),
    [
        ("aba", np.ones((3, 2)), "id 'a' stands more than once"),
        ("ab", np.ones((3, 2)), "2 ids"),
        ("xyz", np.ones((3, 2)), "none of 3 ids is one of an item"),
        ("abc", np.full((3, 1), "x"), "<U1, needed are floating-point numbers"),
        ("abc", np.ones((3, 1), int), "int64, needed are floating-point numbers"),
        ("cbax", np.array([[1], [np.nan], [2], [np.inf]]), "row 1 (id 'b'): NaN"),  # the last is of no item here
    ],
)
def test_ids_and_rows_that_do_not_fit_are_refused(ids: str, table: Any, complaint: str) -> None:
    message = refusal(lambda: join_by_id(table, [*ids], [*"abc"], "ids.txt", fill="mean"))
    assert message.startswith(f"ids.txt: {complaint}")


def test_without_a_list_of_ids_items_go_by_their_numbers(tmp_path: Path) -> None:
    assert item_ids(tmp_path, 3) == ["0", "1", "2"]
    (tmp_path / "items.csv").write_text('name,id,index\nx,"b,1",1\ny,a,0\n', encoding="utf-8")
    assert item_ids(tmp_path, 2) == ["a", "b,1"]


@pytest.mark.parametrize(
    "content",
    ["", "id\na\n", *(f"index,id\n{rows}\n" for rows in ("0,a", "0,a\n0,b", "0,a\n2,b", "0,a\n1,a", "0"))],
)
def test_a_list_of_ids_with_gaps_or_repeats_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "items.csv").write_text(content, encoding="utf-8")
    assert str(tmp_path / "items.csv") in refusal(lambda: item_ids(tmp_path, 2))
