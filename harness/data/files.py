"""Files that may come from anyone: arrays without pickle, tables by line, limits checked first, links kept inside.

Which files make a data set is `layouts`.
"""

import bz2
import codecs
import csv
import errno
import gzip
import io
import itertools
import lzma
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bm3 import BM3Error, DataError
from harness.common import regular

LINKS_VARIABLE = "BM3_FOLLOW_LINKS"
MAX_EXPANSION = 100
"""Times its packed size that compressed content may claim; sorted pairs of ids stay below 20, a zip bomb has 1000."""
FREE_OF_LIMITS = 2**26  # bytes that anything may claim, whatever its packed size: 64 MiB do no harm
BLOCK = 2**20
MAX_LINE = 16 * 2**20
"""Bytes. The longest lines of the original Amazon files have some hundred kilobytes."""
PACKED: Mapping[bytes, Callable[[Any], Any]] = {
    rb"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    rb"BZh[1-9]1A": bz2.BZ2File,
    rb"\xfd7zXZ": lzma.LZMAFile,
}
"""How packed files begin, and what unpacks them."""
ENOUGH = 100  # lines to guess an encoding from
DELIMITERS = (",", "::", "\t", ";", "|")

Report = Callable[[int, int], None]
"""Is told the position in a file and its size, both in bytes on disk."""


def checked_file(path: Path, folder: Path) -> Path:
    """`path`, a file of the data set in `folder`, once it is known to be a regular file of that data set.

    A data folder may be a link. A file in it may be one to a place in the same folder or below the folder's parent,
    the data root. A link that leads elsewhere is refused, unless $BM3_FOLLOW_LINKS is 1: a folder from somebody else
    could name any file of this machine. Raises DataError, also for devices, pipes and folders.
    """
    inside = (folder.resolve(), folder.absolute().parent.resolve())
    if path.is_symlink() and os.environ.get(LINKS_VARIABLE) != "1":
        target = Path(os.path.realpath(path))  # which takes links in a circle as they are
        if not any(target.is_relative_to(root) for root in inside):
            raise DataError(
                f"{path}: a link to {target}, outside of the data root {inside[1]}: copy the file here, or set "
                f"{LINKS_VARIABLE}=1 if you trust whoever made the link"
            )
    if path.exists() and not path.is_file():  # a pipe would block for ever
        raise DataError(f"{path}: cannot be read (not a regular file): put a file in its place")
    return path


def check_claim(claimed: int, packed: int, where: str) -> None:
    """Refuse content that claims to unpack to far more bytes than `packed` ones can hold. Raises DataError."""
    if claimed > max(FREE_OF_LIMITS, MAX_EXPANSION * packed):
        raise DataError(
            f"{where}: claims {claimed:,} bytes in {packed:,} packed ones, more than {MAX_EXPANSION} times as many: "
            f"damaged or made to exhaust memory; obtain it again, or store it uncompressed"
        )


def read_array(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    """The array in an .npy file, in memory or memory-mapped. Raises DataError.

    The header's claim is held against the file's size before memory is taken.
    """
    with reading(path), path.open("rb") as file:
        begin = file.read(6)
        if begin.startswith(b"PK\x03\x04"):
            raise DataError(f"{path}: an archive of arrays; needed is a single one: write it with np.save")
        if begin != b"\x93NUMPY":
            there = f"begins with {begin!r}" if begin else "empty"
            raise DataError(f"{path}: cannot be read ({there}); needed is an .npy file: write it with np.save")
        file.seek(0)
        _check_header(file, path.stat().st_size, str(path))
        file.seek(0)
        return np.lib.format.open_memmap(path, mode="r") if mapped else _read(file)


def read_archive(path: Path, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
    """Of an .npz archive, the arrays with these names, or all; a name that is missing or no array is left out.

    Raises DataError, also for a single array in place of an archive and for members that claim too much.
    """
    with reading(path):
        with path.open("rb") as file:
            begin = file.read(6)
        if begin == b"\x93NUMPY":
            raise DataError(
                f"{path}: a single array; needed is an archive of train, valid and test: write it with np.savez"
            )
        if not begin.startswith(b"PK"):
            raise ValueError(f"begins with {begin!r}" if begin else "empty")
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            found = {}
            for name in (each.removesuffix(".npy") for each in members) if names is None else names:
                if member := members.get(f"{name}.npy"):
                    where = f"{path}, {member.filename}"
                    check_claim(member.file_size, member.compress_size, where)
                    with archive.open(member) as file:
                        _check_header(file, member.file_size, where)
                    with archive.open(member) as file:
                        found[name] = _read(file)
            return found


def _read(file: IO[bytes]) -> NDArray[Any]:
    array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _check_header(file: IO[bytes], size: int, where: str) -> None:
    """Hold what the header of an .npy stream claims against the stream's `size` in bytes."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        path = where.split(", ", 1)[0]
        if not shape:
            raise DataError(f"{path}: one pickled object and no table of features: move it out of the folder")
        raise DataError(
            f"{path}: an object array, which only pickle could read and pickle can run code. If you trust its origin, "
            f"rewrite it once: a = np.load(F, allow_pickle=True); np.save(F, np.stack(a).astype('float32'))"
        )
    claimed = dtype.itemsize  # Python integers: a product of NumPy's would wrap around
    for length in shape:
        claimed *= int(length)
    present = size - file.tell()
    if min(shape, default=0) < 0 or claimed > present:
        raise DataError(
            f"{where}: the header claims {list(shape)} of {dtype}, {claimed:,} bytes, and {max(0, present):,} are "
            f"there: download or export it again"
        )


class RawFile(io.RawIOBase):
    """The content of one file, plain or packed (gzip, bzip2, xz), read once. Raises DataError if it is damaged.

    `report` is told the position in the file and its size, both in bytes on disk.
    """

    def __init__(self, path: Path, report: Report = lambda position, size: None) -> None:
        if not path.is_file():  # opening a pipe would wait for ever
            raise DataError(f"{path}: {'not a file' if path.exists() else 'no such file'}; check the path")
        with reading(path):
            self._disk = path.open("rb")
            begin = self._disk.read(6)
            self._disk.seek(0)
        self.path, self.size, self._report, self._expanded = path, path.stat().st_size, report, 0
        unpack = next((unpack for mark, unpack in PACKED.items() if re.match(mark, begin)), None)
        self.compressed = unpack is not None
        self._content: Any = unpack(self._disk) if unpack else self._disk

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if hasattr(self, "_content"):
            self._content.close()
            self._disk.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        try:
            n: int = self._content.readinto(buffer)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:  # gzip's is an OSError, EOFError means cut off
            at = f"after {self._disk.tell()} of {self.size} bytes"
            reason = (isinstance(error, OSError) and error.strerror) or error
            raise DataError(f"{self.path}: damaged or cut off {at} ({reason}); download it again") from error
        self._expanded += n
        if self.compressed:
            check_claim(self._expanded, self.size, str(self.path))
        self._report(self._disk.tell(), self.size)
        return n

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Number, from 1, and content of every line, without its end; empty ones and a byte order mark are left out."""
        content = io.BufferedReader(self, BLOCK)
        for number in itertools.count(1):
            line = content.readline(MAX_LINE + 1)
            if len(line) > MAX_LINE:
                raise DataError(
                    f"{self.path}, line {number}: longer than {MAX_LINE} bytes; is it the file that was meant?"
                )
            if not line:
                return
            line = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).rstrip(b"\r\n")
            if line.strip():
                yield number, line


@contextmanager
def open_text(path: Path, report: Report = lambda position, size: None) -> Iterator[IO[str]]:
    """The text in a file, plain or packed: UTF-8, or UTF-16 that is marked so. Raises DataError, with the line."""
    with reading(path), RawFile(path, report) as raw:
        content = io.BufferedReader(raw, BLOCK)
        begin = content.peek(64)[:64]
        marked = begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        if begin.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):  # the first begins as UTF-16 does
            raise _other_encoding(path, [], "UTF-32")
        if b"\0" in begin and not marked:
            at = {place % 2 for place, byte in enumerate(begin) if byte == 0}
            text = len(at) == 1 and 4 * begin.count(0) > len(begin)  # where Latin letters are, every second byte is 0
            raise _other_encoding(path, [], {1: "UTF-16LE", 0: "UTF-16BE"}[at.pop()] if text else None)
        try:
            yield io.TextIOWrapper(content, "utf-16" if marked else "utf-8-sig", newline="")
        except UnicodeDecodeError as error:
            with RawFile(path) as again:
                bad = (each for each in again.lines() if each[1].decode(errors="ignore").encode() != each[1])
                raise _other_encoding(path, [*itertools.islice(bad, ENOUGH)]) from error


def _other_encoding(path: Path, bad: Sequence[tuple[int, bytes]], encoding: str | None = None) -> DataError:
    """What a text looks like whose lines `bad`, with their numbers, are not UTF-8, or that is in `encoding`."""
    if bad:
        together = b"\n".join(line for _, line in bad)
        # Letters with accents stand alone, other scripts' bytes together.
        alone = re.search(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])", together)
        best = None if alone else import_module("charset_normalizer").from_bytes(together).best()
        encoding = best.encoding.upper() if best else "CP1252"
    if encoding is None:
        return DataError(f"{path}: cannot be read (not text): unpack it, or give it the ending of what it is")
    number, line = bad[0] if bad else (1, b"")
    shown = f" (then it reads {printable(line.decode(encoding, 'replace')[:60])!r})" if line else ""
    return DataError(
        f"{path}, line {number}: not UTF-8; it looks like {encoding}{shown}: convert the file, as with iconv -f "
        f"{encoding} -t UTF-8 {path.name} > utf8-{path.name}"
    )


def read_csv(
    path: Path,
    delimiter: str | None = None,
    *,
    quoted: bool = True,
    report: Report = lambda position, size: None,
) -> Iterator[tuple[int, list[str]]]:
    """Header, and each row that is not blank and as long as the header, with its line in the file.

    Without `delimiter` it is the tab in a .tsv file, elsewhere the one that the first line has most of. Blanks around
    fields are taken away. Raises DataError with the line.
    """
    width = None
    with open_text(path, report) as text:
        begin = [text.readline(MAX_LINE)]  # blank lines, and the first one that is not
        while begin[-1] and not begin[-1].strip():
            begin.append(text.readline(MAX_LINE))
        if delimiter is None:
            delimiter = "\t" if ".tsv" in path.name.lower() else max(DELIMITERS, key=begin[-1].count)
        lines: Iterator[str] = itertools.chain(begin, iter(lambda: text.readline(MAX_LINE), ""))
        if delimiter == "::":  # the csv module knows separators of one character
            lines, delimiter, quoted = (line.replace("::", "\x1f") for line in lines), "\x1f", False
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        rows = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True, skipinitialspace=True)
        last = 0
        try:
            for fields in rows:
                last = rows.line_num
                fields = [*map(str.strip, fields)]
                if len(fields) < 2 and not any(fields):
                    continue
                width = width or len(fields)
                if len(fields) != width:
                    raise DataError(
                        f"{path}, line {last}: {len(fields)} fields, and the first line has {width}: put fields that "
                        f"hold the separator in quotes, or mend the line"
                    )
                yield last, fields
        except csv.Error as error:
            said = str(error).replace("\t", r"\t")
            raise DataError(
                f"{path}, line {last + 1}: a quote does not end where its field does ({said}): close it, or double "
                f"quotes inside of fields"
            ) from error
    if width is None:
        yield 1, []


def read_columns(
    path: Path, wanted: Sequence[str], delimiter: str | None = None, *, mend: str = ""
) -> Iterator[tuple[int, list[str]]]:
    """Line and fields of the columns `wanted` of each row of a table with a header, in any order. Raises DataError."""
    rows = read_csv(path, delimiter)
    line, header = next(rows)
    positions = column_positions(header, wanted, f"{path}, line {line}", mend)
    for number, fields in rows:
        yield number, [fields[position] for position in positions]


def column_positions(header: Sequence[str], wanted: Sequence[str], where: str, mend: str = "") -> list[int]:
    """Where each of the columns `wanted` stands in a header. Raises DataError unless each stands there once."""
    for column in wanted:
        if header.count(column) != 1:
            there = "two columns" if column in header else "no column"
            raise DataError(f"{where}: {there} {column!r} among {listed(header)}; needed are {listed(wanted)}{mend}")
    return [header.index(column) for column in wanted]


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`, which takes its name when the block ends and is removed when it raises.

    Raises DataError when `target` exists already or it cannot be written.
    """
    if target.exists():
        raise DataError(f"{target}: exists already; remove it or choose another name")
    parents = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield made
            mask = os.umask(0)
            os.umask(mask)
            made.chmod(0o777 & ~mask)
            made.rename(target)
        finally:
            shutil.rmtree(made, ignore_errors=True)
            with suppress(OSError):  # with something in it, it stays
                for folder in parents:
                    folder.rmdir()
    except OSError as error:
        full = error.errno in (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # NumPy's error has no number
        mend = "check permissions, or " if isinstance(error, PermissionError) else "make room, or " if full else ""
        raise DataError(
            f"{target}: cannot be written ({error.strerror or error}); {mend}choose another folder with --out"
        ) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns whatever the block raises into a DataError of one line, unless it is an error of BM3 already.

    Damaged bytes raise nearly anything: zlib.error, EOFError, struct.error, SyntaxError, ... A pipe is refused.
    """
    try:
        regular(path)
        yield
    except BM3Error:
        raise
    except Exception as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)  # strerror: no path
        first = printable((text or type(error).__name__).splitlines()[0][:200])
        mends = {"FileNotFoundError": "check the path", "PermissionError": "check its permissions"}
        mend = mends.get(type(error).__name__, "download or export it again")
        raise DataError(f"{path}: cannot be read ({first}): {mend}") from error


def listed(names: Iterable[str]) -> str:
    """Names out of a file, such as columns, for a message: in one line, at most 200 characters."""
    return printable(", ".join(names)[:200]) or "nothing"


def printable(text: str) -> str:
    """`text` with escapes for what a terminal would obey, not show."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
