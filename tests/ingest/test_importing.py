"""Data sets that come in and go out: round trips, tables, RecBole files; and what is refused, with nothing left."""

import json
import re
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import NAMED, import_refused, pairs_by_id, refusal, write_table

from bm3 import ConfigError
from harness.data.dataset import PARTS, Dataset, checked_dataset
from harness.data.layouts import load_dataset
from harness.data.split import random_user_split
from harness.data.synthetic import mini
from harness.ingest.exporting import export
from harness.ingest.importing import Division, import_dataset
from harness.ingest.tables import Columns

# --- round trips ---


@st.composite
def data_sets(draw: st.DrawFn) -> Dataset:
    """Up to twelve users and nine items, up to three modalities of any float type, some of them surrogates."""
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    n_items = draw(st.integers(4, 9))
    rows = [(u, i) for u in range(draw(st.integers(2, 12))) for i in generator.permutation(n_items)[:4]]
    pairs = np.array([*rows, *((0, i) for i in range(n_items) if (0, i) not in rows)])
    names = draw(
        st.lists(st.sampled_from(["visual", "text", "acoustic", "v1.5 audio", "a_feat", "x_surrogate"]), unique=True)
    )
    features = {}
    for name in names:
        dtype = draw(st.sampled_from([np.float16, np.float32, ">f4", np.float64]))
        order = draw(st.sampled_from(["C", "F"]))
        features[name] = np.asarray(generator.normal(size=(n_items, draw(st.integers(1, 3)))), dtype, order=order)
    surrogates = frozenset(name for name in names if draw(st.booleans()))
    return checked_dataset("tiny", random_user_split(pairs, generator), features, surrogates=surrogates, where="test")


@given(data_sets(), st.booleans())
def test_import_and_export_give_back_the_same_data_set(tmp_path_factory: Any, dataset: Dataset, packed: bool) -> None:
    """From the layout of interactions.npz, compressed or not, to the .inter layout, out and in again."""
    folder = tmp_path_factory.mktemp("trip")
    (folder / "in").mkdir()
    save: Any = np.savez_compressed if packed else np.savez
    save(folder / "in" / "interactions.npz", **{part: dataset.part(part) for part in PARTS})
    for name, table in dataset.features.items():
        suffix = "_surrogate" if name in dataset.surrogates else "_feat"
        np.save(folder / "in" / f"{name}{suffix}.npy", table)
    import_dataset(folder / "in", "mine", folder / "data")
    export(load_dataset("mine", folder / "data"), folder / "out")
    found = import_dataset(folder / "out", "again", folder / "data").dataset
    back = load_dataset("again", folder / "data")
    assert back.content_hash == found.content_hash == dataset.content_hash
    assert back.surrogates == dataset.surrogates
    assert {name: table.dtype for name, table in back.features.items()} == {
        name: table.dtype for name, table in dataset.features.items()
    }
    shutil.rmtree(folder)


def test_the_exported_files_are_those_that_other_tools_look_for_and_the_same_each_time(tmp_path: Path) -> None:
    for name in "xy":
        export(mini(), tmp_path / name)
    files = {path.name: path.read_bytes() for path in (tmp_path / "x").iterdir()}
    assert set(files) == {"mini.inter", "image_feat.npy", "text_feat.npy", "dataset.json"}
    assert all((tmp_path / "y" / name).read_bytes() == content for name, content in files.items())
    record = json.loads(files["dataset.json"])
    assert (record["name"], record["content_hash"]) == ("mini", mini().content_hash)


@pytest.mark.parametrize("modality", ["image", "textual", "a/b", "", ".x"])
def test_modalities_that_would_become_others_are_not_exported(tmp_path: Path, small_parts: Any, modality: str) -> None:
    dataset = checked_dataset("shop", small_parts, {modality: np.ones((8, 2), np.float32)}, where="test")
    assert repr(modality) in refusal(lambda: export(dataset, tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", ".hidden", "-x", "x" * 101, "a\nb", "mini", "a "])
def test_names_that_no_folder_should_have_are_refused(tmp_path: Path, name: str) -> None:
    export(mini(), tmp_path / "x")
    refusal(lambda: import_dataset(tmp_path / "x", name, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    export(mini(), tmp_path / "x")
    (tmp_path / "out" / "shop").mkdir(parents=True)
    assert "exists already" in refusal(lambda: import_dataset(tmp_path / "x", "shop", tmp_path / "out"))
    assert "exists already" in refusal(lambda: export(mini(), tmp_path / "x"))
    for name in ("there", "there"):
        assert import_dataset(tmp_path / "x", name, tmp_path / "out", again=True).dataset.name == name
    other = refusal(lambda: import_dataset(tmp_path / "x", "shop", tmp_path / "out", again=True))
    assert "exists already, with other content" in other


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"content_hash": 7}', "[" * 100_000, "\x00"])
def test_files_that_changed_since_their_export_are_not_imported(tmp_path: Path, content: str | None) -> None:
    export(mini(), tmp_path / "x")
    record = tmp_path / "x" / "dataset.json"
    if content is None:
        np.save(tmp_path / "x" / "text_feat.npy", np.array(mini().features["text"])[::-1])
    else:
        record.write_text(content, encoding="utf-8")
    message = import_refused(tmp_path / "x", tmp_path / "out")
    assert str(record) in message
    assert (mini().content_hash in message) == (content is None)
    record.unlink()
    import_dataset(tmp_path / "x", "shop", tmp_path / "out")


# --- tables ---


WHEN, TIMED = ("who", "what", "when"), Columns("who", "what", time="when")
ROWS = [
    (f"u{u}", f"item, {i}" if i % 2 else f"i{i}", 1000.5 + 10 * step + u)
    for u in range(6)
    for step, i in enumerate((u, u + 1, u + 3, u + 4))
]


def test_a_table_is_numbered_by_first_appearance_and_divided_by_a_seed(tmp_path: Path) -> None:
    rows = [(i, "5.0", u) for u, i, _ in ROWS]
    table = write_table(tmp_path / "ratings.csv", rows, ("what", "stars", "who"))
    found, again, other = (
        import_dataset(table, f"shop{k}", tmp_path / "data", NAMED, Division(seed=seed))
        for k, seed in enumerate((None, 0, 1))
    )
    assert found.users == [f"u{u}" for u in range(6)]
    assert found.items == list(dict.fromkeys(i for _, i, _ in ROWS))
    by_part = pairs_by_id(found)
    assert set.union(*by_part.values()) == {(u, i) for u, i, _ in ROWS}
    assert [len(by_part[part]) for part in PARTS] == [12, 6, 6]
    assert "numbered by first appearance" in " ".join(found.notes)
    assert found.dataset.content_hash == again.dataset.content_hash != other.dataset.content_hash


@pytest.mark.parametrize("repeated", [False, True])
def test_a_rule_by_time_holds_out_the_latest_and_of_repeats_the_earliest_counts(tmp_path: Path, repeated: bool) -> None:
    again = [("u0", "i0", 99_999.0)] if repeated else []  # by it alone, u0's first would be held out
    table = write_table(tmp_path / "ratings.csv", [*again, *ROWS[::-1], *again], WHEN)
    found = import_dataset(table, "shop", tmp_path / "data", TIMED, Division("leave_one_out"))
    assert any(note.startswith("2 interactions repeat") for note in found.notes) == repeated
    for part, held_out in (("test", 3), ("valid", 2)):
        assert pairs_by_id(found)[part] == {(u, i) for u, i, _ in ROWS[held_out::4]}


def test_users_that_a_rule_leaves_out_leave_no_gap(tmp_path: Path) -> None:
    late = [("newcomer", "i0", 10_000.0), ("newcomer", "only theirs", 10_001.0)]
    table = write_table(tmp_path / "ratings.csv", [late[0], *ROWS, late[1]], WHEN)
    found = import_dataset(table, "shop", tmp_path / "data", TIMED, Division("temporal_global"))
    assert "newcomer" not in (found.users or ())
    assert any("left out" in note for note in found.notes)
    assert set.union(*pairs_by_id(found).values()) <= {(u, i) for u, i, _ in ROWS}
    assert load_dataset("shop", tmp_path / "data").n_users == len(found.users or ())


def test_parts_that_a_table_names_are_kept(tmp_path: Path) -> None:
    labels = ["Train", "0", "validation", "test"]
    rows = [(u, i, labels[position % 4]) for position, (u, i, _) in enumerate(ROWS)]
    table = write_table(tmp_path / "ratings.csv", rows, ("who", "what", "part"))
    found = import_dataset(table, "shop", tmp_path / "data", Columns("who", "what", part="part"))
    assert pairs_by_id(found)["test"] == {(u, i) for u, i, label in rows if label == "test"}


GLOBAL = "temporal_global"


@pytest.mark.parametrize(
    ("rule", "new", "last", "complaint"),
    [
        (GLOBAL, (), 5, "part train is empty by the rule temporal_global: 20 of 20 interactions have the same"),
        (GLOBAL, (), 16, "part valid is empty by the rule temporal_global: 4 of 20 interactions have the same"),
        (GLOBAL, (18, 19), 99, "part test is empty.*: all 2 interactions of it, from 18 on, are of new users"),
        (GLOBAL, (16, 17), 99, "part valid is empty.*: all 2 interactions of it, from 16 on, are of new users"),
        (f"{GLOBAL}:no_validation", range(16, 20), 99, "part test is empty.*: all 4 .*, from 16 on, are of new users"),
        ("random_user", range(20), 99, "part valid is empty.*: no user has more than 1 interactions"),
        ("random_user:no_validation", range(20), 99, "part test is empty.*: no user has more than 1 interactions"),
    ],
)
def test_an_empty_part_has_its_cause(tmp_path: Path, rule: str, new: Sequence[int], last: int, complaint: str) -> None:
    """Twenty interactions at times 0, 1, …, none after `last` (if it is 5, none before either); `new` of new users."""
    times = [max(min(k, last), 5 if last == 5 else 0) for k in range(20)]
    rows = [(f"new{k}" if k in new else f"u{k % 4}", f"i{k}", time) for k, time in enumerate(times)]
    table = write_table(tmp_path / "ratings.csv", rows, WHEN)
    assert re.search(complaint, import_refused(table, tmp_path / "out", TIMED, Division(rule)))


@pytest.mark.parametrize(
    ("row", "columns", "complaint"),
    [
        (("u0",), NAMED, "line 3: 1 fields"),
        (("u0", "i0", "nan", "0"), TIMED, "line 3: when is 'nan'"),
        (("u0", "i0", "1", "3"), Columns("who", "what", part="part"), "line 3: part is '3'"),
        (("u0", "i0", "1", "0"), Columns("whom", "what"), "line 1: no column 'whom' among who, what, when, part"),
        (("u0", "i0", "1", "0"), Columns("two", "what"), "line 1: two columns 'two'"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, row: tuple[str, ...], columns: Columns, complaint: str) -> None:
    table = write_table(tmp_path / "ratings.csv", [("u", "i", "1", "0"), row], ("who", "what", "when", "part"))
    if columns.user == "two":
        table.write_text(table.read_text().replace("when,part", "two,two"))
    message = import_refused(table, tmp_path / "out", columns)
    assert message.startswith(str(table))
    assert complaint in message


@pytest.mark.parametrize(
    ("columns", "division", "complaint"),
    [
        (Columns(), Division(), "--user COLUMN, or its number where there is no header; the first line has who"),
        (Columns(user="who"), Division(), "--item"),
        (Columns("who", "what", rating="part"), Division(), "--min-rating"),
        (NAMED, Division(min_rating=3), "--rating"),
        (Columns("who", "who"), Division(), "two things"),
        (NAMED, Division("random_usr"), "random_user"),
        (NAMED, Division("leave_one_out"), "--time"),
        (Columns("who", "what", part="part"), Division(seed=1), "--split"),
    ],
)
def test_options_that_do_not_fit_a_table_are_refused(
    tmp_path: Path, columns: Columns, division: Division, complaint: str
) -> None:
    rows = [(u, i, "train") for u, i, _ in ROWS]
    table = write_table(tmp_path / "ratings.csv", rows, ("who", "what", "part"))
    assert complaint in import_refused(table, tmp_path / "out", columns, division, ConfigError)


def test_options_that_would_change_nothing_are_refused(tmp_path: Path) -> None:
    export(mini(), tmp_path / "x")
    assert "--split" in import_refused(tmp_path / "x", tmp_path / "out", None, Division("published"), ConfigError)
    assert "--user" in import_refused(tmp_path / "x", tmp_path / "out", NAMED, None, ConfigError)


def test_parquet_without_its_library_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "ratings.parquet").write_bytes(b"PAR1")
    message = import_refused(tmp_path / "ratings.parquet", tmp_path / "out", NAMED, None, ConfigError)
    assert "pip install 'bm3-harness[tables]'" in message
    monkeypatch.undo()
    if find_spec("pyarrow"):
        message = import_refused(tmp_path / "ratings.parquet", tmp_path / "out", NAMED)
        assert "ratings.parquet: cannot be read" in message


# --- RecBole's atomic files ---


HEADER = "rating:float\tuser_id:token\titem_id:token\ttimestamp:float"


def recbole(path: Path, rows: Any, header: str = HEADER) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(f'5\t{u}\t"{i}\t{time}' for u, i, time in rows)]) + "\n", encoding="utf-8")
    return path


def test_an_atomic_file_is_a_table_with_known_columns_and_no_quotes(tmp_path: Path) -> None:
    file = recbole(tmp_path / "ml" / "ml.inter", ROWS)
    table = write_table(tmp_path / "c.csv", [(u, f'"{i}', t) for u, i, t in ROWS], WHEN)
    expected = import_dataset(table, "csv", tmp_path, TIMED, Division("leave_one_out"))
    for source in (file, file.parent):
        found = import_dataset(source, f"from{source.suffix}", tmp_path / "out", None, Division("leave_one_out"))
        assert found.dataset.content_hash == expected.dataset.content_hash
        assert found.items == expected.items


def test_atomic_files_that_lack_a_part_or_a_column_are_named(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        file = recbole(tmp_path / "ml" / f"ml.{part}.inter", ROWS, HEADER.replace("user_id", "user"))
    message = import_refused(tmp_path / "ml", tmp_path / "out")
    assert "ml.train.inter" in message
    assert "NAME.test.inter" in message
    file = file.rename(tmp_path / "ml.inter")
    found = import_refused(file, tmp_path / "out", Columns(user="user_id"))
    assert f"{file}, line 1: no column 'user_id' among rating, user" in found


# --- the .inter layout ---


BY_IDS = ("ids are numbered by first", "features beside tables")


@pytest.mark.parametrize(
    ("header", "item", "columns", "told"),
    [
        ("userID\titemID\tx_label", "{}", None, ()),
        ("userID\titemID\tx_label", "{0}0", None, ("some numbers have no interactions",)),
        ("userID\titemID\tpart", "{}", Columns(part="part"), ()),
        ("userID\titemID\tpart", "i{}", Columns(part="part"), BY_IDS),
        ("userID\tthing\tpart", "{}", Columns(item="thing", part="part"), BY_IDS),
    ],
)
def test_items_have_the_features_of_their_numbers_where_columns_say_that_these_are_numbers(
    tmp_path: Path, header: str, item: str, columns: Columns | None, told: Sequence[str]
) -> None:
    """Each item has the features of its number; none where items have no numbers."""
    lines = [f"{u}\t{item.format((2 + u + k) % 3)}\t{k}" for u in range(3) for k in range(3)]
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "x.inter").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    np.save(tmp_path / "x" / "text_feat.npy", np.arange(60, dtype=np.float32).reshape(30, 2))
    found = import_dataset(tmp_path / "x", "shop", tmp_path / "out", columns)
    notes = [note for note in found.notes if not re.search("^columns: |no interactions, left out", note)]
    assert len(notes) == len(told)
    assert all(note.startswith(start) for note, start in zip(notes, told, strict=True))
    if any("beside" in note for note in notes):
        assert found.dataset.features == {}
    else:
        numbers = [0, 10, 20] if told else [*map(int, found.items or (0, 1, 2))]
        assert found.dataset.features["text"][:, 0].tolist() == [2 * number for number in numbers]


@pytest.mark.parametrize(
    ("users", "items", "told"), [((0, 1, 2), (0, 1, 2), 0), ((0, 1, 3), (0, 1, 2), 1), ((0, 1, 2), (0, 1, 3), 1)]
)
def test_one_number_without_interactions_is_told(
    tmp_path: Path, users: Sequence[int], items: Sequence[int], told: int
) -> None:
    lines = [f"{u}\t{i}\t{part}" for part in range(3) for u, i in zip(users, np.roll(items, part), strict=True)]
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "x.inter").write_text("\n".join(["userID\titemID\tx_label", *lines]) + "\n", encoding="utf-8")
    (tmp_path / "x" / "prices.csv").write_text("item,price\n0,9.99\n")  # another table, which is not meant
    notes = import_dataset(tmp_path / "x", "shop", tmp_path / "out").notes
    assert sum(note.startswith("some numbers have no interactions") for note in notes) == told


def test_original_ids_beside_the_layout_are_read(tmp_path: Path) -> None:
    table = write_table(tmp_path / "ratings.csv", ROWS, WHEN)
    first = import_dataset(table, "shop", tmp_path / "data", NAMED)
    export(load_dataset("shop", tmp_path / "data"), tmp_path / "x", first.users, first.items)
    found = import_dataset(tmp_path / "x", "again", tmp_path / "data")
    assert (found.users, found.items) == (first.users, first.items)


@pytest.mark.parametrize("name", ["nowhere", "notes.md", "empty"])
def test_a_source_of_no_known_kind_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.md").touch()
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / name) in import_refused(tmp_path / name, tmp_path / "out")


def test_features_that_are_given_beside_a_source_are_joined_by_the_ids_of_its_items(tmp_path: Path) -> None:
    table = write_table(tmp_path / "ratings.csv", ROWS, WHEN)
    items = [*dict.fromkeys(i for _, i, _ in ROWS)]
    given = {"image": (items[::-1], np.arange(len(items), dtype=np.float32)[:, None])}
    found = import_dataset(table, "shop", tmp_path / "out", NAMED, features=given)
    assert found.dataset.features["visual"][:, 0].tolist() == [*range(len(items))][::-1]
