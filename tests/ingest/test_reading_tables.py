"""Tables as people have them: every form gives the same data set; and what is wrong with one is said, and where."""

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import import_refused, pairs_by_id, refusal

from bm3 import BM3Error, ConfigError
from harness.data.dataset import PARTS
from harness.data.layouts import load_dataset, unread_files
from harness.ingest.exporting import read_ids
from harness.ingest.importing import Division, Imported, import_dataset
from harness.ingest.tables import AMAZON_2014, Columns, read_tables

ROWS = [
    (f"u{u}", f"i{(u + step) % 7}", 1 + (u + step) % 5, 10**9 + 1000 * step + u) for u in range(6) for step in range(4)
]
NAMES = ("user_id", "item_id", "rating", "timestamp")
LAST = "leave_one_out"
TIMED = Division(LAST)


def text(separator: str = ",", names: Sequence[str] = NAMES, rows: Any = ROWS) -> bytes:
    return "\n".join(separator.join(map(str, row)) for row in ([names] if names else []) + list(rows)).encode() + b"\n"


def json_lines(names: tuple[str, ...] = NAMES, form: Callable[[Any], str] = json.dumps) -> bytes:
    return "\n".join(form(dict(zip(names, row, strict=True)) | {"images": [{"x": 1}]}) for row in ROWS).encode()


def with_times(form: Callable[[int], object]) -> bytes:
    return text(rows=[(*row[:3], form(row[3])) for row in ROWS])


def parquet(form: Callable[[int], object]) -> bytes:
    pyarrow, module = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    users, items, _, times = zip(*ROWS, strict=True)
    file = io.BytesIO()
    table = pyarrow.table({"user_id": users, "item_id": items, "timestamp": list(map(form, times))})
    module.write_table(table, file, row_group_size=5)
    return file.getvalue()


def moment(time: int) -> datetime:
    return datetime.fromtimestamp(time, UTC)


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def same(found: Imported) -> None:
    """Each user's latest is in test, the one before in validation, and ids are those of the file in their order."""
    assert found.users == list(dict.fromkeys(row[0] for row in ROWS))
    assert found.items == list(dict.fromkeys(row[1] for row in ROWS))
    for label, pairs in enumerate(pairs_by_id(found).values()):
        assert pairs == {row[:2] for k, row in enumerate(ROWS) if max(0, k % 4 - 1) == label}


NUMBERED = Columns("1", "2", "4")
REVIEWS = ("reviewerID", "asin", "overall", "unixReviewTime")


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("r.csv", text, Columns()),
        ("r.CSV", lambda: text(names=("User_ID", "parent_asin", "overall", "unixReviewTime")), Columns()),
        ("r.csv", lambda: text(names=("a", "b", "c", "d")), Columns("a", "b", "d")),
        ("r.tsv", lambda: text("\t"), Columns()),
        ("r.txt", lambda: text("\t"), Columns()),
        ("r.csv", lambda: text(";"), Columns()),
        ("r.dat", lambda: text("::"), Columns()),
        ("r.dat", lambda: text("::", ()), NUMBERED),
        ("u.data", lambda: text("|", ()), NUMBERED),
        ("r.csv", lambda: b"\n" + text(", ").replace(b"u1", b"u1 ").replace(b"\n", b"\r\n"), Columns()),
        ("r.csv", lambda: b"\xef\xbb\xbf" + text(), Columns()),
        ("r.csv", lambda: text().decode().encode("utf-16"), Columns()),
        ("r.csv.gz", lambda: gzip.compress(text()), Columns()),
        ("r.csv.bz2", lambda: bz2.compress(text()), Columns()),
        ("r.csv.xz", lambda: lzma.compress(text()), Columns()),
        ("r.jsonl", json_lines, Columns()),
        ("r.json.gz", lambda: gzip.compress(json_lines(REVIEWS)), Columns()),
        ("r.json", lambda: json_lines(REVIEWS, repr), Columns()),
        ("r.csv", lambda: with_times(lambda time: 10**9 * time), Columns()),
        ("r.csv", lambda: with_times(lambda time: moment(time).isoformat()), Columns()),
        ("r.csv", lambda: with_times(lambda time: moment(time).strftime("%Y-%m-%d %H:%M:%S")), Columns()),
        ("r.csv", lambda: with_times(lambda time: moment(time).strftime("%Y%m%dT%H%M%SZ")), Columns()),
        ("r.parquet", lambda: parquet(lambda time: time), Columns()),
        ("r.parquet", lambda: parquet(moment), Columns()),
        ("r.parquet", lambda: parquet(lambda time: moment(time).date().replace(year=time - 10**9 + 1)), Columns()),
        ("r.inter", lambda: text("\t", [f"{name}:float" for name in NAMES]), Columns()),
    ],
)
def test_every_form_of_a_table_gives_the_same_data_set(
    tmp_path: Path, name: str, content: Callable[[], bytes], columns: Columns
) -> None:
    same(import_dataset(written(tmp_path / name, content()), "shop", tmp_path, columns, TIMED))


@pytest.mark.parametrize(
    "names", [("shop.train", "shop.valid", "shop.test"), ("train", "val", "test"), ("a_train", "a_dev", "a_test")]
)
@pytest.mark.parametrize(
    ("ending", "packed", "separator"), [(".csv", bytes, ","), (".csv.gz", gzip.compress, ","), (".inter", bytes, "\t")]
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_split_in_three_files_is_kept(
    tmp_path: Path, names: tuple[str, ...], ending: str, packed: Any, separator: str, zipped: bool
) -> None:
    folder = tmp_path / "split"
    for label, name in enumerate(names):
        rows = [row for k, row in enumerate(ROWS) if max(0, k % 4 - 1) == label]
        written(folder / f"{name}{ending}", packed(text(separator, rows=rows)))
    written(folder / "README.txt", b"of the split")
    if zipped:  # as a Mac does it
        with zipfile.ZipFile(tmp_path / "split.zip", "w") as archive:
            for path in sorted(folder.iterdir()):
                archive.write(path, f"a/split/{path.name}")
                archive.writestr(f"__MACOSX/a/split/._{path.name}", b"\0\5")
            archive.writestr("a/.DS_Store", b"\0")
        folder = tmp_path / "split.zip"
    found = import_dataset(folder, "shop", tmp_path)
    parts = pairs_by_id(found)
    assert [len(parts[part]) for part in PARTS] == [12, 6, 6]
    assert parts["test"] == {row[:2] for row in ROWS[3::4]}
    anew = import_dataset(folder, "anew", tmp_path, None, TIMED)
    assert anew.dataset.n_interactions == len(ROWS)


def test_a_split_without_validation_is_kept_too(tmp_path: Path) -> None:
    for part, rows in (("train", [row for k, row in enumerate(ROWS) if k % 4]), ("test", ROWS[::4])):
        written(tmp_path / "x" / f"shop.{part}.csv", text(rows=rows))
    written(tmp_path / "x" / "shop.item", b"item_id:token\n")
    found = import_dataset(tmp_path / "x", "shop", tmp_path)
    assert [len(found.dataset.part(part)) for part in PARTS] == [18, 0, 6]
    for source in (tmp_path / "x", tmp_path / "shop"):
        notes = import_dataset(source, "again", tmp_path / source.name).notes
        assert any("no validation part" in note for note in notes)
    assert "not read: shop.item" in found.notes


def test_of_several_tables_one_is_named(tmp_path: Path) -> None:
    written(tmp_path / "x" / "ratings.csv", text())
    written(tmp_path / "x" / "products.csv", b"item_id,title\ni1,x\n")
    message = import_refused(tmp_path / "x", tmp_path / "out")
    assert "2 tables (products.csv, ratings.csv)" in message
    assert "--table" in message
    same(import_dataset(tmp_path / "x", "shop", tmp_path, None, TIMED, "ratings.csv"))
    assert "none.csv" in refusal(lambda: import_dataset(tmp_path / "x", "s", tmp_path, None, TIMED, "none.csv"))


# --- swapped columns ---


AMAZON = [(f"A{u:013}", f"B{i % 5:09}", 5, 10**9 + i) for u in range(9) for i in range(u, u + 4)]


@pytest.mark.parametrize(
    ("names", "columns", "swapped"),
    [
        ((), AMAZON_2014, False),
        ((), Columns("2", "1"), True),
        (("one", "two", "three", "four"), Columns("two", "one"), True),
        (("user", "item", "three", "four"), Columns(), False),
        (("item", "user", "three", "four"), Columns("user", "item"), True),  # by their ids
    ],
)
def test_swapped_columns_of_amazon_are_noticed_by_their_ids(
    tmp_path: Path, names: tuple[str, ...], columns: Columns, swapped: bool
) -> None:
    found = read_tables([written(tmp_path / "r.csv", text(names=names, rows=AMAZON))], columns)
    assert any("swapped" in note for note in found.notes) == swapped


def test_swapped_columns_are_noticed_by_their_names_and_where_nobody_named_them_nothing_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "r.csv", text(names=("item", "user", "rating", "time")))
    assert any("look swapped" in note for note in read_tables([path], Columns("item", "user")).notes)
    assert "has a header, item, user, rating, time" in refusal(
        lambda: read_tables([path], Columns("2", "1")), ConfigError
    )
    assert read_tables([path], Columns()).user_ids[0].startswith("i")  # by their names, wherever they stand
    path = written(tmp_path / "r.csv", text(names=(), rows=[(i, u, *rest) for u, i, *rest in AMAZON]))
    message = refusal(lambda: read_tables([path], Columns(), usual=AMAZON_2014))
    assert "--user 2 --item 1" in message
    assert read_tables([path], Columns("2", "1"), usual=AMAZON_2014).item_ids[0].startswith("B")


# --- what is wrong, and where ---


@pytest.mark.parametrize(
    ("content", "division", "complaint"),
    [
        (with_times(lambda time: "2020-01-01"), "temporal_global", "same time, 2020-01-01 00:00:00+00:00"),
        (with_times(lambda time: time if time > 10**9 + 9 else "2020-01-01"), LAST, "line 3: timestamp is '100000"),
        (with_times(lambda time: time if time < 10**9 + 9 else "2020-01-01"), LAST, "in all rows the same"),
        (with_times(lambda time: "soon"), LAST, "line 2: timestamp is 'soon', needed is a number, or"),
        (text().replace(b"u3,", "Zo\u00eb,".encode("cp1252")), None, "line 14: not UTF-8; it looks like CP1252 (then"),
        (text().replace(b"i", "\u5546\u54c1".encode("gbk")), None, "GB18030 (then it reads 'user_\u5546\u54c1d"),
        (text().decode().encode("utf-16-le"), None, "it looks like UTF-16LE"),
        (text().decode().encode("utf-32"), None, "it looks like UTF-32:"),
        (b"\x7fELF\2\1\1\0" + b"\5" * 60, None, "not text"),
        (b"PK\x03\x04\x14\0\0\0\x08\0", None, "not text"),
        (text().replace(b"u1,i3", b",i3"), None, "line 8: no user"),
        (json_lines().replace(b'"item_id": "i1"', b'"item_id": null', 1), None, "line 2: no item"),
        (json_lines().replace(b'"user_id": "u0", "item_id": "i1"', b'"user": 0'), None, "line 2: no user_id among"),
        (json_lines().replace(b'"u0"', b'"\\ud800"', 1), None, "line 1: '\\ud800' has half of a character"),
        (json_lines().replace(b'"u0"', b'"a\\u0000"', 1), None, "NUL"),
        (json_lines().replace(b'"u0"', b"NaN", 1), None, "line 1: 'nan' is no id"),
        (json_lines().replace(b'"u0"', b"1e999", 1), None, "line 1: 'inf' is no id"),
        (b"user_id,item_id\n", None, "no interactions"),
        (b"", None, "empty"),
        (text(" "), None, "user_id item_id rating timestamp in one column; needed are commas"),
        (text() + b'"u1,i2,3,4\n', None, "line 26: a quote does not end where its field does"),
        (b"[" + json_lines().replace(b"\n", b",\n") + b"]", None, "needed is one object a line"),
        (gzip.compress(text())[:-9], None, "damaged or cut off"),
    ],
)
def test_what_is_wrong_with_a_table_and_where(
    tmp_path: Path, content: bytes, division: str | None, complaint: str
) -> None:
    path = written(tmp_path / ("r.json" if content.startswith(b"[") else "r.csv"), content)
    columns = Columns(user="user_id") if b"{" in content else None
    message = import_refused(path, tmp_path / "out", columns, Division(division), BM3Error)
    assert message.startswith(str(path))
    assert complaint in message


def test_pairs_that_stand_twice_and_users_without_training_are_named_by_their_ids(tmp_path: Path) -> None:
    rows = [(*row[:3], "train" if k % 4 < 2 else ("valid", "test")[k % 2]) for k, row in enumerate(ROWS)]
    names = (*NAMES[:3], "part")
    path = written(tmp_path / "r.csv", text(names=names, rows=[*rows, rows[9]]))
    columns = Columns(part="part")
    assert "(first: user 'u2', item 'i3')" in import_refused(path, tmp_path / "out", columns)
    late = [("late", "i0", 5, "test"), ("late", "only theirs", 5, "valid")]
    found = import_dataset(written(path, text(names=names, rows=[*rows, *late])), "shop", tmp_path, columns)
    assert "1 users have no interaction in training, so their 2 interactions are left out" in found.notes
    assert found.dataset.n_interactions == len(ROWS)
    rows = [(f"{row[0]}{row[3]}", *row[1:]) for row in rows]
    written(path, text(names=names, rows=rows))
    assert "part valid is empty: all its 6 interactions are of new users" in import_refused(
        path, tmp_path / "out", columns
    )


# --- choosing what counts ---


@pytest.mark.parametrize(("least", "k"), [(3.0, None), (None, 3), (2.0, 2), (6.0, None), (None, 9)])
def test_a_least_rating_and_a_core_choose_rows(tmp_path: Path, least: float | None, k: int | None) -> None:
    path = written(tmp_path / "r.csv", text(rows=[*ROWS, ("odd", "i0", 5, 1), ("u0", "odd", 5, 1)]))
    division = Division(None, None, least, k)
    if least == 6 or k == 9:
        complaint = "no row has a rating of 6; the highest is 5" if least else "--k-core"
        assert complaint in import_refused(path, tmp_path / "out", None, division)
        return
    left = {row[:2] for row in ROWS if row[2] >= (least or 0)} | ({("odd", "i0"), ("u0", "odd")} if not k else set())
    found = import_dataset(path, "shop", tmp_path, None, division)
    assert set.union(*pairs_by_id(found).values()) == left
    assert any("lower rating" in note for note in found.notes) == (least is not None)
    assert any("core" in note for note in found.notes) == (k is not None)


# --- layouts of numbers ---


def numbered(folder: Path, names: str, rows: Any, features: int) -> Path:
    written(folder / "shop.inter", text("\t", tuple(names.split()), rows))
    np.save(folder / "visual_feat.npy", np.arange(features, dtype=np.float32)[:, None])
    return folder


PAIRS = [(u, (u + step) % 7, (0, 0, 1, 2)[step]) for u in range(6) for step in range(4)]


@pytest.mark.parametrize("gap", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_items_with_features_but_no_interactions_are_left_out_and_counted(tmp_path: Path, gap: bool, own: bool) -> None:
    rows = [(u, i + (gap and i > 3), label) for u, i, label in PAIRS]  # with a gap nobody has item 4
    folder = numbered(tmp_path / "in", "userID itemID x_label", rows, 10)
    if own:
        written(folder / "items.csv", text(names=("index", "id"), rows=[(i, f"B{i}") for i in range(10)]))
    assert "10 rows" in refusal(lambda: load_dataset(str(folder))) or gap
    found = import_dataset(folder, "shop", tmp_path)
    kept = [0, 1, 2, 3, 5, 6, 7] if gap else list(range(7))
    assert "items with visual features but no interactions, left out: 3" in found.notes
    assert load_dataset("shop", tmp_path).features["visual"][:, 0].tolist() == kept
    ids = [f"B{i}" if own else str(i) for i in kept] if own or gap else None
    assert read_ids(tmp_path / "shop", "items.csv", 7) == ids


@pytest.mark.parametrize("rule", [None, "temporal_global"])
def test_a_layout_without_a_column_of_parts_is_divided_and_keeps_features(tmp_path: Path, rule: str | None) -> None:
    rows = [(u, 6 - i, 100 * (k % 4) + u) for k, (u, i, _) in enumerate(PAIRS)]
    folder = numbered(tmp_path / "in", "userID itemID timestamp", rows, 7)
    assert "bm3 data import" in refusal(lambda: load_dataset(str(folder)))
    found = import_dataset(folder, "shop", tmp_path, None, Division(rule))
    assert found.items
    assert found.dataset.features["visual"][:, 0].tolist() == [float(item) for item in found.items]
    assert found.items != sorted(found.items)


@pytest.mark.parametrize("names", ["userID itemID x_label", "userID itemID"])
@pytest.mark.parametrize(("numbers", "features", "first"), [(range(7), 7, 0), (range(1, 8), 7, 1), (range(2, 9), 8, 1)])
def test_features_are_those_of_the_items_numbers_from_0_or_from_1_on(
    tmp_path: Path, names: str, numbers: Sequence[int], features: int, first: int
) -> None:
    rows = [(u, numbers[6 - i], label)[: len(names.split())] for u, i, label in PAIRS]
    found = import_dataset(numbered(tmp_path / "in", names, rows, features), "shop", tmp_path)
    items = [*map(int, found.items or numbers)]
    assert found.dataset.features["visual"][:, 0].tolist() == [item - first for item in items]
    assert any("numbered from 1 on" in note for note in found.notes) is bool(first)


def test_the_items_that_a_core_leaves_out_do_not_move_rows(tmp_path: Path) -> None:
    rows = [*((u, i + 1) for u, i, _ in PAIRS), (0, 8)]  # item 8 has one interaction
    folder = numbered(tmp_path / "in", "userID itemID", rows, 8)
    found = import_dataset(folder, "shop", tmp_path, None, Division(k_core=2))
    assert "8" not in (found.items or ())
    assert found.dataset.features["visual"][:, 0].tolist() == [int(item) - 1 for item in found.items or ()]


def test_the_ratings_that_are_left_out_do_not_move_rows(tmp_path: Path) -> None:
    rows = [*((u, i + 1, 5) for u, i, _ in PAIRS), (0, 8, 1)]  # item 8 has a low rating alone
    folder = numbered(tmp_path / "in", "userID itemID rating", rows, 8)
    found = import_dataset(folder, "shop", tmp_path, None, Division(min_rating=3))
    assert "8" not in (found.items or ())
    assert found.dataset.features["visual"][:, 0].tolist() == [int(item) - 1 for item in found.items or ()]


@pytest.mark.parametrize("names", ["userID itemID x_label", "userID itemID"])
def test_more_rows_than_item_numbers_and_no_item_0_are_told_or_refused(tmp_path: Path, names: str) -> None:
    rows = [(u, i + 1, label)[: len(names.split())] for u, i, label in PAIRS]  # items 1 to 7, and 9 rows
    folder = numbered(tmp_path / "in", names, rows, 9)
    told = f"items are numbered from 1 on, and {folder / 'visual_feat.npy'} has 9 rows"
    if "x_label" in names:
        found = import_dataset(folder, "shop", tmp_path)
        assert f"{told}, of which the first is taken to be of item 0" in found.notes
        assert (found.items, found.users) == ([*map(str, range(1, 8))], None)
    else:
        assert f"{told}: whether the first is of item 0 or 1 is not known" in refusal(
            lambda: import_dataset(folder, "shop", tmp_path)
        )


def test_a_file_alone_leaves_what_lies_beside_it_and_says_so(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "in", "userID itemID x_label", PAIRS, 7)
    found = import_dataset(folder / "shop.inter", "shop", tmp_path)
    assert "not read (give the folder, not one file of it): visual_feat.npy" in found.notes
    assert not found.dataset.features


def test_ids_with_zeros_before_them_are_no_numbers_of_rows(tmp_path: Path) -> None:
    rows = [(u, "00" if i == 6 else i) for u, i, _ in PAIRS]
    found = import_dataset(numbered(tmp_path / "in", "userID itemID", rows, 7), "shop", tmp_path)
    assert not found.dataset.features
    assert any(note.startswith("features beside tables are left out") for note in found.notes)


def test_a_carriage_return_in_an_id_is_refused_in_csv_too(tmp_path: Path) -> None:
    rows = [(f"u{u}", f"i{i}") for u, i, _ in PAIRS]
    path = written(tmp_path / "shop.csv", text(names=("user", "item"), rows=[*rows, ("u0", '"i\r9"')]))
    assert "has half of a character (a lone surrogate), NUL, a carriage return" in refusal(
        lambda: import_dataset(path, "shop", tmp_path)
    )


def test_a_seed_where_nothing_is_drawn_is_refused(tmp_path: Path) -> None:
    rows = [(u, 6 - i, 100 * (k % 4) + u) for k, (u, i, _) in enumerate(PAIRS)]
    folder = numbered(tmp_path / "in", "userID itemID timestamp", rows, 7)
    told = refusal(lambda: import_dataset(folder, "shop", tmp_path, None, Division("temporal_global", 7)), ConfigError)
    assert told == "split temporal_global: nothing is drawn; leave --split-seed out"


def test_a_name_that_begins_like_a_licence_is_a_data_set(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "in", "userID itemID x_label", PAIRS, 7)
    found = import_dataset(folder, "license-plates", tmp_path)
    assert load_dataset("license-plates", tmp_path).content_hash == found.dataset.content_hash


def test_fewer_rows_than_item_numbers_are_refused(tmp_path: Path) -> None:
    rows = [(u, i + (i > 3), label) for u, i, label in PAIRS]
    folder = numbered(tmp_path / "in", "userID itemID x_label", rows, 7)
    assert "has 7 rows, and items have numbers to 7: give" in refusal(lambda: import_dataset(folder, "shop", tmp_path))


def test_files_and_arrays_that_are_not_read_are_listed(tmp_path: Path, write_npz: Any, small_parts: Any) -> None:
    folder = write_npz(tmp_path / "a", small_parts, {"visual": np.ones((8, 2), np.float32)})
    for name in (".hidden", "README.md", "texts.csv", "items.csv", "prepared.json", "visual.encoder.json"):
        written(folder / name, b"")
    assert unread_files(folder) == []
    for name in ("visual.npz", "text_feat.pt", "Image.NPY", "old.csv"):
        written(folder / name, b"")
    (folder / "images").mkdir()
    np.savez(folder / "interactions.npz", text=np.ones((8, 2)), **small_parts)
    unread = ["Image.NPY", "images/", "old.csv", "text in interactions.npz", "text_feat.pt", "visual.npz"]
    assert sorted(unread_files(folder)) == unread
    (folder / "items.csv").unlink()
    assert f"not read: {', '.join(unread_files(folder))}" in import_dataset(folder, "b", tmp_path).notes
