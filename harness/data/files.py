"""Files that may come from anyone: arrays without pickle, tables by line, limits checked first, links kept inside.

Which files make a data set is `layouts`.
"""

import csv
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bm3 import BM3Error, DataError

LINKS_VARIABLE = "BM3_FOLLOW_LINKS"
MAX_EXPANSION = 100
"""Times its packed size that compressed content may claim; sorted pairs of ids stay below 20, a zip bomb has 1000."""
FREE_OF_LIMITS = 2**26  # bytes that anything may claim, whatever its packed size: 64 MiB do no harm


def checked_file(path: Path, folder: Path) -> Path:
    """`path`, a file of the data set in `folder`, once it is known to be a regular file of that data set.

    A data folder may be a link. A file in it may be one to a place in the same folder or below the folder's parent,
    the data root. A link that leads elsewhere is refused, unless $BM3_FOLLOW_LINKS is 1: a folder from somebody else
    could name any file of this machine. Raises DataError, also for devices, pipes and folders.
    """
    inside = (folder.resolve(), folder.absolute().parent.resolve())
    if path.is_symlink() and os.environ.get(LINKS_VARIABLE) != "1":
        target = path.resolve()
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
    with reading(path):
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04":
                raise DataError(f"{path}: an archive of arrays; needed is a single one: write it with np.save")
            file.seek(0)
            _check_header(file, size, str(path))
            file.seek(0)
            if not mapped:
                return _read(file)
        return np.lib.format.open_memmap(path, mode="r")


def read_archive(path: Path, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Of an .npz archive, the arrays with these names; a name that is missing or no array is left out.

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
            for name in names:
                member = members.get(f"{name}.npy")
                if member is not None:
                    found[name] = _read_member(archive, member, f"{path}, {member.filename}")
            return found


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> NDArray[Any]:
    check_claim(member.file_size, member.compress_size, where)
    with archive.open(member) as file:
        _check_header(file, member.file_size, where)
    with archive.open(member) as file:
        return _read(file)


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


def read_csv(path: Path, delimiter: str = ",", *, quoted: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Header, and each row that is not blank and as long as the header, with its line in the file.

    Raises DataError with the line.
    """
    width = None
    with reading(path), path.open(newline="", encoding="utf-8-sig") as file:
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        rows = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
        for fields in rows:
            if width is None:
                width = len(fields)
            elif fields and len(fields) != width:
                raise DataError(f"{path}, line {rows.line_num}: {len(fields)} fields, and the header names {width}")
            if fields:
                yield rows.line_num, fields
    if width is None:
        yield 1, []


def read_columns(
    path: Path, wanted: Sequence[str], delimiter: str = ",", *, quoted: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """Line and fields of the columns `wanted` of each row of a table with a header, in any order. Raises DataError."""
    rows = read_csv(path, delimiter, quoted=quoted)
    positions = column_positions(next(rows)[1], wanted, f"{path}, line 1")
    for line, fields in rows:
        yield line, [fields[position] for position in positions]


def column_positions(header: Sequence[str], wanted: Sequence[str], where: str) -> list[int]:
    """Where each of the columns `wanted` stands in a header. Raises DataError unless each stands there once."""
    for column in wanted:
        if header.count(column) != 1:
            there = "two columns" if column in header else "no column"
            raise DataError(f"{where}: {there} {column!r} among {listed(header)}; needed are {listed(wanted)}")
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
        raise DataError(
            f"{target}: cannot be written ({error.strerror or error}); make room, or choose another folder with --out"
        ) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns whatever the block raises into a DataError of one line, unless it is an error of BM3 already.

    Damaged bytes raise nearly anything: zlib.error, EOFError, struct.error, SyntaxError, ...
    """
    try:
        yield
    except BM3Error:
        raise
    except Exception as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)  # strerror: no path
        first = printable((text or type(error).__name__).splitlines()[0][:200])
        mend = "download or export it again, and check permissions"
        raise DataError(f"{path}: cannot be read ({first}): {mend}") from error


def listed(names: Iterable[str]) -> str:
    """Names out of a file, such as columns, for a message: in one line, at most 200 characters."""
    return printable(", ".join(names)[:200]) or "nothing"


def printable(text: str) -> str:
    """`text` with escapes for what a terminal would obey, not show."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
