"""Whatever bytes a file has, reading it gives a valid data set or one clear line, and never anything else.

Files are valid ones with a few changes, or pieces in the file's own language, or any bytes: each reaches other places
of a parser. With the profile `thorough` every parser reads 10,000 files.
"""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from raw_files import METADATA, Q2, RATINGS, X1, csv_of, image_records

from bm3 import BM3Error
from harness.data.dataset import Dataset, checked_dataset
from harness.data.files import RawFile, read_array
from harness.data.layouts import read_folder
from harness.ingest.amazon.raw import Metadata, read_images, read_metadata
from harness.ingest.archives import unpack
from harness.ingest.exporting import RECORD, read_ids, recorded_hash
from harness.ingest.features import join_by_id, read_texts
from harness.ingest.importing import Division, read_source
from harness.ingest.tables import AMAZON_2014, Columns, Table, read_tables

THOROUGH = 500  # examples of any other property in the profile of that name
FILES = 10_000 if (settings.default or settings()).max_examples >= THOROUGH else 100
fuzzed = settings(max_examples=FILES)

PAIRS = [(u, (u + step) % 5) for u in range(4) for step in range(4)]
PARTS = {
    "train": [pair for k, pair in enumerate(PAIRS) if k % 4 < 2],
    "valid": [pair for k, pair in enumerate(PAIRS) if k % 4 == 2],
    "test": [pair for k, pair in enumerate(PAIRS) if k % 4 == 3],
}
SPARE = st.sampled_from([0, 1, 9, 10, 13, 34, 44, 58, 255])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@st.composite
def changed(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with up to four bytes, or stretches of it, replaced, put in, taken out or doubled; or cut short."""
    found = bytearray(content)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, max(0, len(found) - 1)))
        end = min(len(found), start + draw(st.integers(1, 12)))
        new = draw(
            st.binary(max_size=6) | st.lists(SPARE, max_size=3).map(bytes) | st.just(bytes(found[start:end]) * 2)
        )
        found[start : end if draw(st.booleans()) else start] = new
    return bytes(found[: draw(st.integers(0, len(found)))]) if draw(st.integers(0, 9)) == 0 else bytes(found)


def lines(fields: st.SearchStrategy[str], separator: str, *headers: str) -> st.SearchStrategy[bytes]:
    """Tables that are well-formed more often than not, of any fields, under one of the headers."""
    rows = st.lists(st.lists(fields, min_size=2, max_size=4).map(separator.join), max_size=12)
    return st.builds(lambda header, body: "\n".join([header, *body]).encode(), st.sampled_from(headers), rows)


def files(valid: bytes, *others: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(changed(valid), st.binary(max_size=200), *others)


def text_table(separator: str, header: str, rows: Any) -> bytes:
    return "\n".join([header, *(separator.join(map(str, row)) for row in rows)]).encode() + b"\n"


def read_or_refused(read: Callable[[], Any]) -> Any:
    """What was read, or None with one clear line."""
    try:
        return read()
    except BM3Error as error:
        message = str(error)
        assert message
        assert message.isprintable()  # one line, and nothing that a terminal would obey
        assert len(message) < 2000
        return None


def assert_valid(dataset: Dataset) -> None:
    """Passing it through every check again changes nothing."""
    parts: Any = {part: dataset.part(part) for part in ("train", "valid", "test")}
    again = checked_dataset("again", parts, dataset.features, where="again")
    assert again.content_hash == dataset.content_hash


def emptied(folder: Path) -> Path:
    """A folder without files."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    return folder


INTER = text_table(
    "\t", "userID\titemID\tx_label", [(u, i, k % 4 // 2 + (k % 4 == 3)) for k, (u, i) in enumerate(PAIRS)]
)
NUMBERS = st.integers(-2, 5).map(str) | st.sampled_from(["", "x", "1.0", "1e3", "٣", "2147483648", "9" * 30, '"', " 1"])


@given(files(INTER, lines(NUMBERS, "\t", "userID\titemID\tx_label", "x_label\tuserID\titemID\tx_label")))
@example(content=b'""userID\titemID\tx_label\n0\t0\t0\n')  # whose message would hold a tab
@fuzzed
def test_inter_files(place: Path, content: bytes) -> None:
    folder = emptied(place / "inter")
    (folder / "shop.inter").write_bytes(content)
    dataset = read_or_refused(lambda: read_folder(folder))
    if dataset is not None:
        assert_valid(dataset)


def stored(save: Callable[..., Any], *table: Any, **arrays: Any) -> bytes:
    file = io.BytesIO()
    save(file, *table, allow_pickle=True, **arrays)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    return stored(np.savez, **arrays)


DTYPES = ["<i4", ">i8", "<u8", "?", "<f4", "<f2", ">f8", "<f16", "<c8", "<U3", "S2", "<M8[s]", "O", "V3", "i4,f4"]
ARRAYS = st.builds(
    lambda dtype, shape: np.zeros(shape, dtype),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 5), max_size=3).map(tuple),
)


@given(
    st.one_of(
        files(npz(**{part: np.array(pairs) for part, pairs in PARTS.items()})),
        changed(stored(np.savez_compressed, **{part: np.array(pairs, np.int32) for part, pairs in PARTS.items()})),
        st.dictionaries(st.sampled_from([*PARTS, "other"]), ARRAYS).map(lambda arrays: npz(**arrays)),
    )
)
@fuzzed
def test_npz_archives(place: Path, content: bytes) -> None:
    folder = emptied(place / "npz")
    (folder / "interactions.npz").write_bytes(content)
    dataset = read_or_refused(lambda: read_folder(folder))
    if dataset is not None:
        assert_valid(dataset)


def header(descr: str, order: str, shape: str) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(80)


HEADERS = st.builds(
    header,
    st.sampled_from([*(repr(dtype) for dtype in DTYPES), "[('a', '<f4')]", "('<f4', (10**9,))", "'<U999999999'", "1"]),
    st.sampled_from(["True", "False", "0", "x"]),
    st.sampled_from(
        ["(5, 4)", "(5, 10**12)", "(-5, 4)", "(5, -4)", "(0, 4)", "(5, 0)", "(2**64, 2**64)", "5", "((5,), 4)"]
    ),
)


@given(
    files(
        stored(np.save, np.arange(20, dtype=np.float32).reshape(5, 4)), HEADERS, ARRAYS.map(partial(stored, np.save))
    ),
    st.booleans(),
)
@fuzzed
def test_npy_tables(place: Path, content: bytes, mapped: bool) -> None:
    folder = emptied(place / "npy")
    (folder / "shop.inter").write_bytes(INTER)
    (folder / "visual_feat.npy").write_bytes(content)
    array = read_or_refused(lambda: read_array(folder / "visual_feat.npy", mapped=mapped))
    dataset = read_or_refused(lambda: read_folder(folder, mapped=mapped))
    if dataset is not None:
        assert array is not None
        assert_valid(dataset)


IDS = st.sampled_from(
    ["a", "b", "c", "ä", "", " ", '"', '""', "0", "1", "train", "test", "valid", "nan", "1e3", "1e99", "\x00"]
)
TABLE = text_table(
    ",", "user,item,time,part", [(f"u{u}", f"i{i}", 10 * u + i, k % 3) for k, (u, i) in enumerate(PAIRS)]
)


@given(
    files(TABLE, lines(IDS, ",", "user,item,time,part", "user,item", "item,user,part", "user,user,item")),
    st.sampled_from([None, "time"]),
    st.sampled_from([None, "part"]),
    st.sampled_from([None, "leave_one_out", "temporal_global"]),
    st.sampled_from([".csv", ".tsv"]),
)
@fuzzed
def test_tables(place: Path, content: bytes, time: str | None, part: str | None, rule: str | None, ending: str) -> None:
    path = place / f"table{ending}"
    path.write_bytes(content.replace(b",", b"\t") if ending == ".tsv" else content)
    found = read_or_refused(lambda: read_source(path, Columns("user", "item", time, part), Division(rule)))
    if found is not None:
        assert_valid(found.dataset)
        assert (len(found.users), len(found.items)) == (found.dataset.n_users, found.dataset.n_items)


ATOMIC = text_table("\t", "user_id:token\titem_id:token\ttimestamp:float", [(u, i, u + i) for u, i in PAIRS])


@given(
    files(
        ATOMIC,
        lines(IDS, "\t", "user_id:token\titem_id:token\ttimestamp:float", "item_id:token\tuser_id", ":token\t:"),
    ),
    st.sampled_from(
        [("shop.inter",), ("shop.train.inter", "shop.valid.inter", "shop.test.inter"), ("a.inter", "b.inter")]
    ),
    st.integers(0, 2),
)
@fuzzed
def test_recbole_files(place: Path, content: bytes, names: tuple[str, ...], which: int) -> None:
    folder = emptied(place / "recbole")
    for k, name in enumerate(names):
        rows = [(u, i, 1) for u, i in list(PARTS.values())[k]]
        (folder / name).write_bytes(text_table("\t", "user_id:token\titem_id:token\ttimestamp:float", rows))
    (folder / names[which % len(names)]).write_bytes(content)
    found = read_or_refused(lambda: read_source(folder, Columns(), Division()))
    if found is not None:
        assert_valid(found.dataset)


@given(files(text_table(",", "index,id", enumerate("abcd")), lines(IDS | NUMBERS, ",", "index,id", "id,index,x", "id")))
@fuzzed
def test_lists_of_ids(place: Path, content: bytes) -> None:
    folder = emptied(place / "ids")
    (folder / "items.csv").write_bytes(content)
    ids = read_or_refused(lambda: read_ids(folder, "items.csv", 4))
    if ids is not None:
        assert len(set(ids)) == 4
        joined = join_by_id(np.arange(4.0)[:, None], ids, ids, "ids")
        np.testing.assert_array_equal(joined.table[:, 0], range(4))


@given(
    files(
        text_table(",", "id,title,brand", [("a", "b c", "d"), ("e", '"f,g"', "")]), lines(IDS, ",", "id,title", "x,id")
    )
)
@fuzzed
def test_tables_of_texts(place: Path, content: bytes) -> None:
    (place / "texts.csv").write_bytes(content)
    texts = read_or_refused(lambda: read_texts(place / "texts.csv"))
    assert texts is None or all(text == " ".join(text.split()) for text in texts.values())


@given(
    files(b'{"format": 1, "name": "x", "content_hash": "abc"}', st.sampled_from([b"[" * 2000, b"1e999", b'{"a": NaN}']))
)
@fuzzed
def test_records(place: Path, content: bytes) -> None:
    folder = emptied(place / "record")
    (folder / RECORD).write_bytes(content)
    found = read_or_refused(lambda: recorded_hash(folder))
    assert found is None or isinstance(found, str)


ITEMS = {X1: 0, Q2: 1}
REVIEW = {"reviewerID": "NED", "asin": X1, "overall": 5.0, "unixReviewTime": 100}
FIELDS = st.sampled_from(["NED", X1, "5.0", "100", "1e9", "nan", "", " ", '"', "\ufeff", "\0", "é", "-1"])
RAW: dict[str, tuple[bytes, Callable[[RawFile], Any]]] = {
    kind: (content, lambda file: read_tables([file.path], Columns(), usual=AMAZON_2014))
    for kind, content in {
        "ratings": csv_of(RATINGS).encode(),
        "reviews": f"{json.dumps(REVIEW)}\n{REVIEW}\n".encode(),
        "reviews of 2023": json.dumps({"user_id": "NED", "parent_asin": X1, "timestamp": 1500000000000}).encode(),
    }.items()
} | {
    "metadata": ("\n".join(METADATA).encode(), lambda file: read_metadata(file, ITEMS)),
    "images": (image_records(4), lambda file: read_images(file, ITEMS, np.empty((2, 4), np.float32))),
}


@pytest.mark.parametrize("kind", RAW)
@given(data=st.data(), pack=st.sampled_from([bytes, gzip.compress]))
@fuzzed
def test_original_files(place: Path, kind: str, data: st.DataObject, pack: Callable[[bytes], bytes]) -> None:
    valid, read = RAW[kind]
    content = pack(data.draw(files(valid, lines(FIELDS, ",", "NED,X1,5.0,100", ""))))
    path = place / "raw"
    path.write_bytes(data.draw(changed(content)) if data.draw(st.booleans()) else content)

    def opened() -> Any:
        with RawFile(path) as file:
            return read(file)

    found = read_or_refused(opened)
    if isinstance(found, Table):
        for numbers, ids in ((found.users, found.user_ids), (found.items, found.item_ids)):
            assert list(dict.fromkeys(numbers.tolist())) == list(range(len(ids)))
    elif isinstance(found, Metadata):
        assert not any(end in text for text in found.texts for end in "\r\n")
        "".join(found.texts).encode("utf-8")  # or they could not be written
        assert found.of_other_items + found.repeated + found.broken < found.lines
    elif found is not None:
        assert found.records == found.of_other_items + found.repeated + 2 - len(found.items_without_image)


def archived(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("shop/shop.inter", INTER)
    else:
        with tarfile.open(fileobj=file, mode="w:gz" if kind == "tar.gz" else "w") as packed:
            member = tarfile.TarInfo("shop/shop.inter")
            member.size = len(INTER)
            packed.addfile(member, io.BytesIO(INTER))
    return file.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@given(data=st.data())
@fuzzed
def test_archives(place: Path, kind: str, data: st.DataObject) -> None:
    (place / f"x.{kind}").write_bytes(data.draw(files(archived(kind))))
    target = place / "unpacked"
    for path in sorted(target.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    target.mkdir(exist_ok=True)
    before = set(place.iterdir())
    found = read_or_refused(lambda: unpack(place / f"x.{kind}", target))
    assert set(place.iterdir()) == before
    assert found is None or found.is_relative_to(target)
    assert not any(path.is_symlink() for path in target.rglob("*"))


def test_the_valid_files_that_are_changed_are_valid(place: Path) -> None:
    """Otherwise the properties above would be about refusals alone."""
    folder = emptied(place / "valid")
    (folder / "shop.inter").write_bytes(INTER)
    assert read_folder(folder).n_users == 4
    (folder / "shop.inter").write_bytes(ATOMIC)
    assert read_source(folder, Columns(), Division()).dataset.n_items == 5
    (place / "valid.csv").write_bytes(TABLE)
    assert read_source(place / "valid.csv", Columns("user", "item", "time", "part"), Division()).dataset.n_items == 5
