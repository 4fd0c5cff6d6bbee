"""Readers of the original files: what each takes, the one line for what it refuses, and anything at all as input."""

import csv
import gzip
import json
import os
import struct
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_files import METADATA, RATINGS, X1, csv_of

from bm3 import DataError
from harness.ingest.amazon import raw
from harness.ingest.amazon.raw import (
    MAX_LITERAL,
    BrokenRecordError,
    Images,
    Metadata,
    Ratings,
    item_text,
    opened,
    parse_record,
    read_images,
    read_metadata,
    read_ratings,
)

WIDTH = 3  # of the image features here; the original ones have 4096
Write = Callable[[bytes], Path]
Found = TypeVar("Found")


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """`write(content)` gives the path of a file, the same each time."""
    path = tmp_path_factory.mktemp("raw") / "file"

    def put(content: bytes) -> Path:
        path.write_bytes(content)
        return path

    return put


def ratings(path: Path) -> Ratings:
    with opened(path) as file:
        return read_ratings(file)


def metadata(path: Path, items: dict[bytes, int]) -> Metadata:
    with opened(path) as file:
        return read_metadata(file, items)


def images(path: Path, items: dict[bytes, int], width: int = WIDTH) -> tuple[Images, Any]:
    table = np.full((len(items), width), np.nan, np.float32)
    with opened(path) as file:
        return read_images(file, items, table), table


def refusal(read: Callable[[], object], path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read()
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


# --- bytes and lines ---


def test_lines_have_numbers_and_no_ends_and_empty_ones_are_left_out(write: Write) -> None:
    with opened(write(b"\xef\xbb\xbfone\r\n\n  \ntwo\nthree")) as file:
        assert list(file.lines()) == [(1, b"one"), (4, b"two"), (5, b"three")]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_lines_across_blocks_come_whole_and_the_position_is_told(
    write: Write, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "BLOCK", 7)
    lines = [str(n).encode() * n for n in range(1, 30)]
    content = pack(b"\n".join(lines))
    seen: list[tuple[int, int]] = []
    with opened(write(content), lambda position, size: seen.append((position, size))) as file:
        assert [line for _, line in file.lines()] == lines
    assert seen == sorted(seen)
    assert seen[-1] == (len(content), len(content))


def test_a_line_without_an_end_is_refused_before_it_fills_memory(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "BLOCK", 64)
    monkeypatch.setattr(raw, "MAX_LINE", 100)
    path = write(b"short\n" + b"x" * 10_000)
    with opened(path) as file:
        message = refusal(lambda: list(file.lines()), path)
    assert f"{path}, line 2: longer than 100 bytes" in message


def test_a_gzip_bomb_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.data.files.FREE_OF_LIMITS", 2**20)
    path = write(gzip.compress(b"\n" * 2**24))
    with opened(path) as file:
        assert "more than 100 times as many" in refusal(lambda: list(file.lines()), path)


@pytest.mark.parametrize("spoil", [lambda c: c[:-9], lambda c: c[:40] + b"\0" + c[41:], lambda c: c + b"more"])
def test_a_damaged_gzip_file_is_named_with_the_place(write: Write, spoil: Callable[[bytes], bytes]) -> None:
    path = write(spoil(gzip.compress(csv_of(RATINGS).encode())))
    assert "damaged or cut off after" in refusal(lambda: ratings(path), path)


def test_a_folder_or_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        assert "not a file" in refusal(lambda path=path: ratings(path), path)  # type: ignore[misc]


# --- ratings ---


def test_ratings_keep_their_order_and_numbers_follow_first_appearance(write: Write) -> None:
    found = ratings(write(csv_of(RATINGS).encode()))
    assert [name.decode() for name in found.user_ids] == ["NED", "ZOE", "BEN", "CARA", "DAN"]
    users, items = (
        [ids[n].decode() for n in numbers]
        for ids, numbers in ((found.user_ids, found.users), (found.item_ids, found.items))
    )
    assert list(zip(users, items, found.times.tolist(), strict=True)) == [(u, i, t) for u, i, _, t in RATINGS]


@pytest.mark.parametrize(
    "line",
    [
        "NED,X1,5.0",
        "NED,X1,5.0,100,7",
        ",X1,5.0,100",
        "NED,X 1,5.0,100",
        'NED,"X1",5.0,100',
        "NED," + "X" * 65 + ",5.0,100",
        "NED,X1,nan,100",
        "NED,X1,1_0,100",
        "NED,X1,5.0,",
        "NED,X1,5.0,-100",
        "NED,X1,5.0,1e9",
        "NED,X1,5.0,9999999999999",
        "N\u00cbD,X1,5.0,100",
    ],
)
def test_a_line_that_is_no_rating_is_named_with_what_is_needed(write: Write, line: str) -> None:
    path = write(f"NED,X1,5.0,100\n\n{line}\nBEN,X1,5,100.0\n".encode())
    message = refusal(lambda: ratings(path), path)
    assert message.startswith(f"{path}, line 3: {line.encode()!r}"[:60])
    assert "needed is user,item,rating,timestamp" in message


def test_a_header_is_refused_with_the_remedy(write: Write) -> None:
    path = write(b"user,item,rating,timestamp\nNED,X1,5.0,100\n")
    assert "; the original files have no header, remove it" in refusal(lambda: ratings(path), path)


def test_reviews_may_be_literals_of_python_too(write: Write) -> None:
    reviews = [{"reviewerID": u, "asin": i, "overall": r, "unixReviewTime": t} for u, i, r, t in RATINGS]
    expected = ratings(write(csv_of(RATINGS).encode()))
    for form in (json.dumps, repr):
        found = ratings(write("\n".join(map(form, reviews)).encode()))
        assert found.users.tolist() == expected.users.tolist()
        assert found.items.tolist() == expected.items.tolist()
        assert found.times.tolist() == expected.times.tolist()
        assert (found.user_ids, found.item_ids) == (expected.user_ids, expected.item_ids)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"reviewerID": None}, "no reviewerID"),
        ({"reviewerID": 7}, "reviewerID is 7"),
        ({"asin": "a,b"}, "asin is 'a,b'"),
        ({"asin": ["X"] * 9}, "asin is of type list"),
        ({"asin": "\ud800"}, "asin is"),
        ({"overall": "good"}, "overall is 'good', needed is a number"),
        ({"overall": True}, "overall is True"),
        ({"unixReviewTime": 1.5}, "unixReviewTime is 1.5, needed are whole seconds"),
        ({"unixReviewTime": float("nan")}, "unixReviewTime is nan"),
        ({"unixReviewTime": 10**60}, "unixReviewTime is"),
        ({"unixReviewTime": 10**3000}, "unixReviewTime is of type int"),
    ],
)
def test_a_line_that_is_no_review_is_named(write: Write, change: dict[str, Any], complaint: str) -> None:
    good = {"reviewerID": "NED", "asin": X1, "overall": 5.0, "unixReviewTime": 100}
    path = write(f"{json.dumps(good)}\n{json.dumps(good | change)}\n".encode())
    message = refusal(lambda: ratings(path), path)
    assert f"{path}, line 2: {complaint}" in message


def test_a_file_without_ratings_is_refused(write: Write) -> None:
    path = write(b"\n\n")
    assert "no ratings" in refusal(lambda: ratings(path), path)


# --- records and texts ---


def test_json_and_literals_give_the_same_record() -> None:
    record = {"asin": X1, "title": 'It\'s "5\\d" \u00e9', "categories": [["a", "b"]], "price": 1.5}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "\d" in a literal would make Python warn
        assert parse_record(json.dumps(record).encode()) == record
        assert parse_record(repr(record).encode()) == record
        assert parse_record(rb"{'a': '5\d'}") == {"a": "5\\d"}


@pytest.mark.parametrize(
    "line",
    [
        b"__import__('os').mkdir('ran')",
        b"{'a': __import__('os').mkdir('ran')}",
        b"{'a': open('ran', 'w')}",
        b"{**{'a': 1}}",
        b"[1]",
        b"7",
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
def test_whatever_is_no_plain_dictionary_is_broken_and_never_run(
    line: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_only_the_first_broken_lines_are_kept_and_all_are_counted(write: Write) -> None:
    found = metadata(write(b"\n".join([METADATA[0].encode(), *[b"broken"] * 20])), {X1.encode(): 0})
    assert found.broken == 20
    assert [number for number, _ in found.first_broken] == [2, 3, 4, 5, 6]


def test_a_text_stays_short_enough_for_readers_of_csv(write: Write) -> None:
    lines = [{"asin": X1, "title": "long", "description": "x" * 200_000}, {"asin": "NED", "title": "short"}]
    found = metadata(write("\n".join(map(json.dumps, lines)).encode()), {X1.encode(): 0, b"NED": 1})
    assert found.texts[0].startswith("long xxx")
    assert len(found.texts[0]) < csv.field_size_limit()
    assert (found.cut, found.texts[1]) == (1, "short")


def test_lines_of_other_items_count_as_such_wherever_the_id_stands(write: Write) -> None:
    lines = [METADATA[0], "{'asin': 'B999999999', 'title': 'x'}", "{'title': 'x', 'asin': 'B999999999'}"]
    found = metadata(write("\n".join(lines).encode()), {X1.encode(): 0})
    assert (found.lines, found.other_items, found.broken) == (3, 2, 0)


def test_metadata_of_other_items_alone_are_refused_with_the_first_broken_line(write: Write) -> None:
    path = write(b"NED,B0000000X1,5.0,100\n")
    message = refusal(lambda: metadata(path, {X1.encode(): 0}), path)
    assert "none of 1 lines belongs to an item of the ratings" in message
    assert "line 1 is broken: neither JSON nor a Python literal" in message


# --- images ---


def record(name: bytes, *features: float) -> bytes:
    return name.ljust(10, b"_") + struct.pack(f"<{WIDTH}f", *features)


ITEMS = {b"a_________": 0, b"b_________": 1, b"c_________": 2}


@pytest.mark.parametrize("block", [1, 10**6], ids=["record by record", "at once"])
def test_rows_go_to_their_items_and_the_first_record_counts(
    write: Write, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.ingest.amazon.raw.IMAGE_BLOCK", block)
    path = write(record(b"c", 1, 2, 3) + record(b"x", 9, 9, 9) + record(b"a", 3, 4, 7) + record(b"c", 5, 5, 5))
    found, table = images(path, ITEMS)
    np.testing.assert_array_equal(table, [[3, 4, 7], [2, 3, 5], [1, 2, 3]])
    assert found == Images(records=4, other_items=1, repeated=1, without_image=[1])


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("block", [1, 10**6], ids=["record by record", "at once"])
def test_a_file_that_is_cut_off_is_named_with_the_byte(
    write: Write, pack: Callable[[bytes], bytes], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.ingest.amazon.raw.IMAGE_BLOCK", block)
    path = write(pack((record(b"a", 1, 2, 3) * 5)[:-4]))
    assert "cut off: the record at byte 88 has 18 of 22 bytes" in refusal(lambda: images(path, ITEMS), path)


def test_records_that_begin_elsewhere_are_named_with_the_byte(write: Write) -> None:
    path = write(record(b"a", 1, 2, 3) + b"\x01" + record(b"b", 1, 2, 3) + bytes(21))
    assert "no item id at byte 22, where a record of 22 bytes should begin" in refusal(
        lambda: images(path, ITEMS), path
    )


@pytest.mark.parametrize("block", [1, 10**6], ids=["record by record", "at once"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_named_with_item_and_byte(
    write: Write, bad: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.ingest.amazon.raw.IMAGE_BLOCK", block)
    other = record(b"x", bad, 0, 0)  # of no item of the data set: no harm
    path = write(other + record(b"a", 1, 2, 3) + record(b"b", 1, bad, 3))
    message = refusal(lambda: images(path, ITEMS), path)
    assert "the record at byte 44, of item b_________, holds NaN or infinity" in message
    assert images(write(other + record(b"a", 1, 2, 3)), ITEMS)[0].without_image == [1, 2]


# --- anything at all ---

PACKED = st.sampled_from([bytes, gzip.compress])
WORDS = st.sampled_from(["NED", "X1", "5.0", "100", "1e9", "nan", "", " ", '"', "user", "\ufeff", "\0", "\u00e9", "-1"])
LINES = st.sampled_from(["NED,X1,5.0,100", "BEN,X1,3,100"]) | st.lists(WORDS, max_size=6).map(",".join)
CSV_LINES = st.lists(LINES, max_size=6).map(lambda lines: "\n".join(lines).encode())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["NED", X1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["asin", "reviewerID", "overall", "unixReviewTime", "title", "brand", "categories", "other"])
IDS = st.sampled_from(["NED", X1])
WHOLE = {"asin": IDS, "reviewerID": IDS, "overall": st.just(5.0), "unixReviewTime": st.integers(0, 10**9)}
RECORDS = st.dictionaries(KEYS, VALUES, max_size=6) | st.fixed_dictionaries(
    WHOLE, optional={"title": VALUES, "brand": VALUES, "categories": VALUES, "description": VALUES}
)


@st.composite
def record_lines(draw: st.DrawFn) -> bytes:
    """Lines in either notation, some of them spoiled."""
    lines = []
    for each in draw(st.lists(RECORDS, min_size=1, max_size=5)):
        line = draw(st.sampled_from([json.dumps, repr]))(each).encode("utf-8", "backslashreplace")
        if draw(st.booleans()):
            at = draw(st.integers(0, len(line)))
            line = line[:at] + draw(st.binary(max_size=3)) + line[at + draw(st.integers(0, 3)) :]
        lines.append(line)
    return b"\n".join(lines)


def spoiled(content: bytes, pack: Callable[[bytes], bytes], cut: int) -> bytes:
    packed = pack(content)
    return packed[: len(packed) - cut % 5] if cut % 3 == 0 else packed


def read_or_refused(read: Callable[[Path], Found], path: Path) -> Found | None:
    """What was read, or None after an error of one clear line; any other exception is a bug."""
    try:
        return read(path)
    except DataError as error:
        check_message(str(error), path)
        return None


def check_message(message: str, path: Path) -> None:
    assert message.startswith(str(path))
    assert message.isprintable()  # so it is one line
    assert len(message) < 500 + len(str(path))


# The thorough profile is for few and costly examples; of files many are tried.
fuzzed = settings(max_examples=10_000 if (settings.default or settings()).max_examples >= 500 else 50)


@fuzzed
@given(content=CSV_LINES | record_lines() | st.binary(max_size=300), pack=PACKED, cut=st.integers(0, 30))
def test_any_ratings_file_is_read_or_refused(
    write: Write, content: bytes, pack: Callable[[bytes], bytes], cut: int
) -> None:
    found = read_or_refused(ratings, write(spoiled(content, pack, cut)))
    if found is not None:
        assert len(found) == len(found.items) == len(found.times) > 0
        assert list(dict.fromkeys(found.users.tolist())) == list(range(len(found.user_ids)))
        assert list(dict.fromkeys(found.items.tolist())) == list(range(len(found.item_ids)))
        assert all(name.decode("ascii").isprintable() for name in [*found.user_ids, *found.item_ids])


@fuzzed
@given(content=record_lines() | st.binary(max_size=300), pack=PACKED, cut=st.integers(0, 30))
def test_any_metadata_file_is_read_or_refused(
    write: Write, content: bytes, pack: Callable[[bytes], bytes], cut: int
) -> None:
    found = read_or_refused(partial(metadata, items={X1.encode(): 0, b"NED": 1}), write(spoiled(content, pack, cut)))
    if found is not None:
        assert len(found.texts) == 2
        assert not any(end in text for text in found.texts for end in "\r\n")
        "".join(found.texts).encode("utf-8")  # or they could not be written
        assert found.other_items + found.repeated + found.broken < found.lines


@st.composite
def image_content(draw: st.DrawFn) -> bytes:
    names = draw(st.lists(st.sampled_from([*ITEMS, b"other_____"]), max_size=6))
    records = [name + draw(st.binary(min_size=4 * WIDTH, max_size=4 * WIDTH)) for name in names]
    return b"".join(records) + draw(st.sampled_from([b"", b"", b"a", bytes(22)]))


@fuzzed
@given(content=image_content() | st.binary(max_size=100), pack=PACKED, cut=st.integers(0, 30))
def test_any_image_file_is_read_or_refused(
    write: Write, content: bytes, pack: Callable[[bytes], bytes], cut: int
) -> None:
    read = read_or_refused(partial(images, items=ITEMS), write(spoiled(content, pack, cut)))
    if read is not None:
        found, table = read
        assert np.isfinite(table).all()
        assert found.records == found.other_items + found.repeated + len(ITEMS) - len(found.without_image)
