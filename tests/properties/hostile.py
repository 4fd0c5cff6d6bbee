"""What is hostile about an input: of values that commands are given, and of the files that they read.

A file is changed as one of its kind (a key of JSON, a column of a table, an array of an archive) or as mere bytes, or
something else stands in its place, such as a pipe or a folder. `test_properties_commands` judges what commands do.
"""

import gzip
import io
import json
import lzma
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from hypothesis import strategies as st

NINES, DEEP = "9" * 5000, "[" * 100_000
TEXTS = ["", " ", "-", "--", ".", "n" * 400, "caf\udce9", "é\u202e\x1b[2J", "a\nb", "a,b", "$(true)", "%s{0}"]
NUMBERS = ["0", "-1", "1.5", "1e999", "nan", "inf", "1000000000", str(2**64), NINES, "\u0661", "0x10", "1_0"]
PLACES = ["loop", "dangling", "pipe", "pipe.csv", "pipe.json", "pipe.npz", "closed"]
DEVICES = ["/dev/zero", "/dev/full", "/proc/self/mem", "/nowhere/x"]  # not to be written to: the tests may be root's
PAIRS = ["=", "x", "=1", "epochs=", f"epochs={NINES}", "embedding_size=1e9", "a.b.c=1", "learning_rate=nan"]
RAW_JSON = ["null", "true", "-1", "0", "1.5", "1e999", "NaN", NINES, str(10**30), "1" + "0" * 400, str(2**63 - 1)]
RAW_JSON += [
    '"x"',
    '""',
    "[]",
    "{}",
    DEEP,
    "[" * 300 + "]" * 300,
    '[{"a": [1]}]',
    '{"a": 1, "a": 2}',
    '"../../x"',
    '"\\ud800"',
    '"\\u0000"',
]
RAW_TOML = ["nan", "-1", "true", NINES, "[]", "{}", '"x"', '""', "1979-05-27", "[" * 3000, "'''", '["a", 1]', "1e400"]
CELLS = ["", "x", "-1", "nan", "1e999", "1.5", NINES, str(2**63), '"', "\0", "é", "a,b", "=1+1", "\u202e"]
DTYPES = ["<f8", "<i8", "<u8", "?", "<c8", "<U3", "O", "V3", "<M8[s]", ">f4", "<f2"]


def values(parameter: click.Parameter) -> st.SearchStrategy[str]:
    """Hostile values of an option or argument, by its type."""
    if isinstance(parameter.type, click.Path):
        return st.sampled_from(
            TEXTS + PLACES + (DEVICES if parameter.name not in ("out", "folder", "baseline") else [])
        )
    if isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType):
        return st.sampled_from(NUMBERS + TEXTS)
    pairs = PAIRS if "=" in (parameter.metavar or "") else []
    return st.sampled_from(TEXTS + pairs + NUMBERS + ["loop", "pipe", "1-99999999", "recall@0", "all"])


@st.composite
def edited_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Bits flipped, ends cut off, pieces doubled, put in or taken out; or all of it in another encoding."""
    place = draw(st.integers(0, max(0, len(content) - 1)))
    end = place + draw(st.integers(1, 40))
    text = content.decode("utf-8", "replace")
    made: list[Callable[[], bytes]] = [
        lambda: content[:place] + bytes([content[place] ^ 1 << (end % 8)]) + content[place + 1 :] if content else b"x",
        lambda: content[:place],
        lambda: content[:place] + content[end:],
        lambda: content[:end] + content[place:],
        lambda: (
            content[:place] + draw(st.sampled_from([b"\0", b"\xff\xfe", b"\x1b[2J", b"9" * 5000])) + content[place:]
        ),
        lambda: b"",
        lambda: content * 2,
        lambda: b"\xef\xbb\xbf" + content,
        lambda: text.encode("utf-16", "replace"),
        lambda: content.replace(b"\n", b"\r\n"),
        lambda: content.replace(b"\n", b" "),
        lambda: b"x" * 2**20 + content,
        lambda: b"\n".join(draw(st.permutations(content.split(b"\n")[:9]))),
    ]
    return draw(st.sampled_from(made))()


def spots(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a JSON value."""
    yield above
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from spots(child, (*above, key))


@st.composite
def edited_json(draw: st.DrawFn, content: bytes) -> bytes:
    """A value replaced by another, a key left out, written twice, or one more."""
    try:
        found = json.loads(content)
    except ValueError:
        return draw(edited_bytes(content))
    way = draw(st.sampled_from([*spots(found)]))
    raw, how = (
        draw(st.sampled_from(RAW_JSON)),
        draw(st.sampled_from(["value", "value", "gone", "twice", "more", "name"])),
    )
    mark, within = "here it goes", found
    if not way:
        return raw.encode()
    for key in way[:-1]:
        within = within[key]
    if how == "gone":
        del within[way[-1]]
    elif how == "name" and isinstance(within, dict):
        within[draw(st.sampled_from([f"{way[-1]}x", "", "recall@x", "\ud800", "a" * 400]))] = within.pop(way[-1])
    elif how == "value" or not isinstance(within, dict):
        within[way[-1]] = mark
    else:
        within[mark] = mark
        key = json.dumps(way[-1] if how == "twice" else "more")
        return json.dumps(found).replace(f'"{mark}": "{mark}"', f"{key}: {raw}").encode()
    return json.dumps(found, indent=1).replace(f'"{mark}"', raw).encode()


@st.composite
def edited_lines(draw: st.DrawFn, content: bytes, edit: Callable[[bytes], st.SearchStrategy[bytes]]) -> bytes:
    """One line edited, left out or written twice."""
    lines = content.split(b"\n")
    place = draw(st.integers(0, max(0, len(lines) - 2)))
    new = draw(st.sampled_from(["edit", "edit", "gone", "twice"]))
    lines[place : place + 1] = (
        [draw(edit(lines[place]))] if new == "edit" else [] if new == "gone" else [lines[place]] * 2
    )
    return b"\n".join(lines)


def toml_line(line: bytes) -> st.SearchStrategy[bytes]:
    key, equals, _ = line.partition(b"=")
    odd = st.sampled_from(
        [*(key + b"= " + raw.encode() for raw in RAW_TOML), b"odd = 1", b"[odd]", line + b"\n" + line]
    )
    return odd if equals else st.sampled_from([b"odd = 1", b"[[odd]]", b"[" + line, b"[a.b]\n[a.b]"])


@st.composite
def edited_table(draw: st.DrawFn, content: bytes) -> bytes:
    """A column doubled or left out, names of columns exchanged, or a cell replaced."""
    text = content.decode("utf-8", "replace")
    separator = "\t" if "\t" in text.partition("\n")[0] else ","
    rows = [line.split(separator) for line in text.splitlines()] or [[""]]
    column, row = draw(st.integers(0, len(rows[0]) - 1)), draw(st.integers(0, len(rows) - 1))
    how, cell = draw(st.sampled_from(["double", "drop", "swap", "cell", "cell"])), draw(st.sampled_from(CELLS))
    for number, fields in enumerate(rows):
        if how == "double":
            fields += fields[column : column + 1]
        elif how == "drop":
            del fields[column : column + 1]
        elif (how == "swap" and number == 0) or (how == "cell" and number == row):
            fields[min(column, len(fields) - 1)] = fields[0] if how == "swap" else cell
    return "\n".join(map(separator.join, rows)).encode("utf-8", "replace") + b"\n"


@st.composite
def edited_array(draw: st.DrawFn, array: Any) -> Any:
    """Of another type or shape, cut short, doubled, or of other numbers."""
    flat = np.atleast_1d(array)
    changed = [np.zeros(flat.shape, draw(st.sampled_from(DTYPES))), flat[: len(flat) // 2], flat[:0], flat[None]]
    changed += [np.concatenate([flat, flat]), np.full(flat.shape, np.nan, np.float32)]
    changed += [np.full(np.shape(array), number) for number in (-1, 0, 2**40, 2**62)]
    return draw(st.sampled_from([*changed, np.array(-1), np.array("x"), np.array(np.nan)]))


@st.composite
def edited_npz(draw: st.DrawFn, content: bytes) -> bytes:
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        arrays = dict(stored)
    name = draw(st.sampled_from([*arrays]))
    arrays[name] = draw(edited_array(arrays[name]))
    if draw(st.integers(0, 4)) == 0:
        del arrays[name]
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, **arrays)
    return file.getvalue()


@st.composite
def edited_npy(draw: st.DrawFn, content: bytes) -> bytes:
    file = io.BytesIO()
    np.save(file, draw(edited_array(np.load(io.BytesIO(content)))), allow_pickle=True)
    return file.getvalue()


@st.composite
def edited_zip(draw: st.DrawFn, content: bytes) -> bytes:
    """A member changed as its kind is, left out or twice; or one that leads out, is a link, or a bomb."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        members = {name: old.read(name) for name in old.namelist()}
        name = draw(st.sampled_from([*members]))
        how = draw(st.sampled_from(["edit", "edit", "gone", "twice", "out", "root", "link", "bomb"]))
        for each, inside in members.items():
            if each != name or how != "gone":
                new.writestr(old.getinfo(each), draw(edited(each, inside)) if (each, how) == (name, "edit") else inside)
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        more = {"twice": (name, b"x"), "out": ("../out", b"x"), "root": ("/out", b"x"), "link": (link, b"/etc")}
        more["bomb"] = ("bomb.csv", bytes(80 * 2**20))
        if how in more:
            new.writestr(*more[how])
    return file.getvalue()


@st.composite
def edited_safetensors(draw: st.DrawFn, content: bytes) -> bytes:
    size = int.from_bytes(content[:8], "little")
    header = draw(edited_json(content[8 : 8 + size]))
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


KINDS: Mapping[str, Callable[[bytes], st.SearchStrategy[bytes]]] = {
    ".json": edited_json,
    ".jsonl": lambda content: edited_lines(content, edited_json),
    ".toml": lambda content: edited_lines(content, toml_line),
    **dict.fromkeys((".csv", ".tsv", ".inter", ".trec"), edited_table),
    **dict.fromkeys((".log", ".txt", ".md", ".j2"), lambda content: edited_lines(content, edited_bytes)),
    **{".npz": edited_npz, ".npy": edited_npy, ".zip": edited_zip, ".safetensors": edited_safetensors},
    ".gz": lambda content: edited("x.jsonl", gzip.decompress(content)).map(gzip.compress),
    ".xz": lambda content: edited("x.jsonl", lzma.decompress(content)).map(lzma.compress),
}
"""By the end of a file's name."""


def edited(name: str, content: bytes) -> st.SearchStrategy[bytes]:
    """A file's content changed: as that of its kind three times out of four, else as any bytes."""
    kind = KINDS.get(Path(name).suffix, edited_bytes)
    return st.integers(0, 3).flatmap(lambda number: kind(content) if number else edited_bytes(content))


def stand_in(path: Path, kind: str) -> None:
    """Put something else in the place of a file."""
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "gone":
        path.symlink_to(
            {"loop": path.name, "dangling": "nowhere", "device": "/dev/zero", "elsewhere": "/etc/passwd"}[kind]
        )


STAND_INS = ("gone", "folder", "pipe", "loop", "dangling", "device", "elsewhere")
