"""Readers of the original files: what each takes, the one line for what it refuses, and anything at all as input."""

import bz2
import csv
import gzip
import json
import lzma
import os
import struct
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_files import METADATA, RATINGS, X1, csv_of
from refusals import refusal

from harness.data import files
from harness.data.files import RawFile
from harness.ingest.amazon import raw
from harness.ingest.amazon.raw import Images, Metadata, item_text, read_images, read_metadata
from harness.ingest.tables import MAX_LITERAL, BrokenRecordError, parse_record

WIDTH = 3  # of the image features here; the original ones have 4096
ITEMS = {"a_________": 0, "b_________": 1, "c_________": 2}
Write = Callable[[bytes], Path]
packings = pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
blocks = pytest.mark.parametrize("block", [1, 10**6], ids=["record by record", "at once"])


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """`write(content)` gives the path of a file, the same each time."""
    path = tmp_path_factory.mktemp("raw") / "file"

    def put(content: bytes) -> Path:
        path.write_bytes(content)
        return path

    return put


def content(path: Path) -> bytes:
    with RawFile(path) as file:
        return file.read()


def metadata(path: Path, items: dict[str, int]) -> Metadata:
    with RawFile(path) as file:
        return read_metadata(file, items)


def images(path: Path, items: dict[str, int] = ITEMS) -> tuple[Images, Any]:
    table = np.full((len(items), WIDTH), np.nan, np.float32)
    with RawFile(path) as file:
        return read_images(file, items, table), table


def refused(read: Callable[[Path], object], path: Path) -> str:
    message = refusal(lambda: read(path))
    assert message.startswith(str(path))
    return message


# --- bytes and lines ---


@packings
def test_lines_come_whole_with_their_numbers_and_the_position_is_told(
    write: Write, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK", 7)
    path = write(pack(b"\xef\xbb\xbfone\r\n\n  \ntwo of a longer line\nthree"))
    seen: list[tuple[int, int]] = []
    with RawFile(path, lambda position, size: seen.append((position, size))) as file:
        assert list(file.lines()) == [(1, b"one"), (4, b"two of a longer line"), (5, b"three")]
    assert seen == sorted(seen)
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)


def test_a_line_without_an_end_is_refused_before_it_fills_memory(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK", 64)
    monkeypatch.setattr(files, "MAX_LINE", 100)
    path = write(b"short,\n" + b"x" * 10_000)
    with RawFile(path) as file:
        assert f"{path}, line 2: longer than 100 bytes" in refusal(lambda: list(file.lines()))
        assert file.read(9_000)  # most of it was not read


@pytest.mark.parametrize("spoil", [lambda c: c[:-9], lambda c: c[:40] + b"\0" + c[41:], lambda c: c + b"more"])
def test_a_damaged_gzip_file_is_named_with_the_place(write: Write, spoil: Callable[[bytes], bytes]) -> None:
    assert "damaged or cut off after" in refused(content, write(spoil(gzip.compress(csv_of(RATINGS).encode()))))


def test_a_gzip_bomb_a_folder_and_a_pipe_are_refused(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.data.files.FREE_OF_LIMITS", 2**20)
    assert "more than 100 times as many" in refused(content, write(gzip.compress(b"\n" * 2**24)))
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        assert "not a file" in refused(content, path)


# --- records and texts ---


def test_json_and_literals_give_the_same_record() -> None:
    record = {"asin": X1, "title": 'It\'s "5\\d" \u00e9', "categories": [["a", "b"]], "price": 1.5}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "\d" in a literal would make Python warn
        assert parse_record(json.dumps(record).encode()) == parse_record(repr(record).encode()) == record
        assert parse_record(rb"{'a': '5\d'}") == {"a": "5\\d"}


@pytest.mark.parametrize(
    "line",
    [
        b"__import__('os').mkdir('ran')",
        b"{'a': open('ran', 'w')}",
        b"{**{'a': 1}}",
        b"[1]",
        b"{'a': '\xff'}",
        b"{'a': 1",
        b"{[]: 1}",
        b"{'a': '\0'}",
        b"(" * 10_000,
        b"-" * 10_000 + b"1",
        b"{'a': " + b"1+" * 10_000 + b"1}",
        b"{'a': " + b"9" * 10_000 + b"}",
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"{'a': '" + b"x" * MAX_LITERAL + b"'}",
    ],
    ids=lambda line: line[:24].decode(errors="replace"),
)
def test_what_is_no_dictionary_is_never_run(line: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BrokenRecordError) as caught:
        parse_record(line)
    assert len(str(caught.value)) < 200
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({}, ""),
        ({"title": "T", "brand": "B", "categories": [["c", "d"], ["e"]], "description": "D"}, "T B c d D"),
        ({"description": "D", "title": None, "brand": "", "categories": []}, "D"),
        ({"title": "a\nb\r\n\r\nc", "description": "\n"}, "a b c"),
        ({"title": "R&amp;D &lt;b&gt;"}, "R&amp;D &lt;b&gt;"),
        ({"title": 7, "brand": {"x": 1}, "categories": 3, "description": [["x"]]}, ""),
        ({"category": ["c", "d"], "description": ["D", "E"]}, "c d D E"),
        ({"categories": [["c", None, "d"]]}, "c d"),
        ({"title": "half \ud800 of a pair"}, "half ? of a pair"),
    ],
)
def test_texts_join_what_there_is(record: dict[str, Any], text: str) -> None:
    assert item_text(record) == text


def test_what_is_left_out_of_metadata_is_counted_and_nothing_left_is_refused(write: Write) -> None:
    long = json.dumps({"asin": "NED", "title": "long", "description": "x" * 200_000})
    others = ["{'asin': 'B999999999', 'title': 'x'}", "{'title': 'x', 'asin': 'B999999999'}"]
    lines = [METADATA[0], *others, *["broken"] * 20, long, METADATA[0]]
    found = metadata(write("\n".join(lines).encode()), {X1: 0, "NED": 1})
    assert (found.lines, found.of_other_items, found.broken, found.repeated, found.cut) == (25, 2, 20, 1, 1)
    assert [each["line"] for each in found.first_broken] == [4, 5, 6, 7, 8]
    assert found.texts[1].startswith("long xxx")
    assert len(found.texts[1]) < csv.field_size_limit()
    message = refused(partial(metadata, items={X1: 0}), write(b"NED,B0000000X1,5.0,100\n"))
    assert "none of 1 lines belongs to an item of the ratings" in message
    assert "line 1 is broken: neither JSON nor a Python literal" in message


# --- images ---


def record(name: bytes, *features: float) -> bytes:
    return name.ljust(10, b"_") + struct.pack(f"<{WIDTH}f", *features)


@blocks
def test_rows_go_to_their_items_and_the_first_record_counts(
    write: Write, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "IMAGE_BLOCK", block)
    stranger = record(b"x", float("nan"), 9, 9)  # of no item of the data set: no harm
    path = write(record(b"c", 1, 2, 3) + stranger + record(b"a", 3, 4, 7) + record(b"c", 5, 5, 5))
    found, table = images(path)
    np.testing.assert_array_equal(table, [[3, 4, 7], [2, 3, 5], [1, 2, 3]])
    assert found == Images(records=4, of_other_items=1, repeated=1, items_without_image=[1])


@packings
@blocks
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ((record(b"a", 1, 2, 3) * 5)[:-4], "cut off: the record at byte 88 has 18 of 22 bytes"),
        (record(b"a", 1, 2, 3) + b"\x01" + record(b"b", 1, 2, 3) + bytes(21), "no item id at byte 22, where a record"),
        (record(b"a", 1, 2, 3) + record(b"b", 1, float("nan"), 3), "at byte 22, of item b_________, holds NaN"),
        (record(b"a", 1, 2, 3) + record(b"b", 1, 3, float("inf")), "at byte 22, of item b_________, holds NaN"),
        (record(b"x", 1, 2, 3), "none of 1 records belongs to an item"),
    ],
)
def test_a_bad_record_is_named_with_its_byte(
    write: Write, pack: Any, block: int, content: bytes, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "IMAGE_BLOCK", block)
    assert complaint in refused(images, write(pack(content)))
