"""Unpacking a .zip or .tar archive that may come from anyone: plain files only, confined, within limits."""

import bz2
import gzip
import lzma
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from bm3 import DataError
from harness.data.files import check_claim, unreadable

MAX_MEMBERS = 10_000
MAX_READ = 2**26  # bytes in one piece: tarfile reads a header of the size that the archive claims
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVE_ENDINGS = (".zip", *TAR_ENDINGS)


def is_archive(path: Path) -> bool:
    """Whether the name of `path` is that of an archive of files."""
    return path.name.lower().endswith(ARCHIVE_ENDINGS)


def unpack(path: Path, target: Path) -> Path:
    """Unpack the archive `path` into the folder `target`; gives the one folder in it, or `target`.

    Refused before anything of it is written: a member that is a link or a device, or that would lie outside of
    `target`; members that claim far more than the archive's size or than the free space. Raises DataError.
    """
    try:
        limits = _Limits(path, target)
        members = _zip_members(path, limits) if path.name.lower().endswith(".zip") else _tar_members(path, limits)
        for name, source in members:
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as file:
                shutil.copyfileobj(source, file)
    except DataError:
        raise
    except Exception as error:  # damaged bytes raise nearly anything: zlib.error, EOFError, struct.error, ...
        raise DataError(unreadable(path, error)) from error
    inside = list(target.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else target


class _Limits:
    """What is claimed so far by the members of one archive."""

    def __init__(self, path: Path, target: Path) -> None:
        self._path, self._size = path, path.stat().st_size
        self._members = self._claimed = 0
        self._free = shutil.disk_usage(target).free

    def admit(self, name: str, plain: bool, claimed: int) -> PurePosixPath:
        """Where to put a member, relative to the target; raises DataError if nowhere."""
        where = f"{self._path}, {name[:80]!r}"
        place = PurePosixPath(name)
        if not plain:
            raise DataError(f"{where}: a link or device: pack plain files and folders only")
        if place.is_absolute() or ".." in place.parts or "\\" in name or "\0" in name:
            raise DataError(f"{where}: would lie outside of the archive's folder: pack it with relative names")
        if claimed < 0:  # tarfile would go back, and read the same for ever
            raise DataError(f"{where}: claims {claimed:,} bytes: damaged; obtain it again")
        self._members, self._claimed = self._members + 1, self._claimed + claimed
        if self._members > MAX_MEMBERS:
            raise DataError(f"{self._path}: more than {MAX_MEMBERS:,} files: pack the data set alone")
        check_claim(self._claimed, self._size, str(self._path))
        if self._claimed > self._free:
            raise DataError(
                f"{self._path}: unpacks to {self._claimed:,} bytes or more, and {self._free:,} are free: set TMPDIR to "
                f"a folder with more space"
            )
        return place


def _zip_members(path: Path, limits: _Limits) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        files = []
        for info in archive.infolist():
            kind = info.external_attr >> 28  # the file type of Unix's mode; 0 where the archive has none
            place = limits.admit(info.filename, kind in (0, 0o4, 0o10), info.file_size)
            if not info.is_dir():
                files.append((place, info))
        for place, info in files:
            with archive.open(info) as source:
                yield place, source


def _tar_members(path: Path, limits: _Limits) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    with _decompressed(path) as raw, tarfile.open(fileobj=_Bounded(raw, path), mode="r:") as archive:
        files = []
        for info in archive:
            place = limits.admit(info.name, (info.isreg() and not info.issparse()) or info.isdir(), info.size)
            if info.isreg():
                files.append((place, info))
        for place, info in files:
            source = archive.extractfile(info)
            assert source is not None  # as it is a regular file
            yield place, source


def _decompressed(path: Path) -> IO[bytes]:
    opened: Any
    if path.suffix.lower() in (".gz", ".tgz"):
        opened = gzip.open(path, "rb")  # noqa: SIM115 - whoever calls closes it
    elif path.suffix.lower() == ".bz2":
        opened = bz2.open(path, "rb")  # noqa: SIM115
    elif path.suffix.lower() == ".xz":
        opened = lzma.open(path, "rb")  # noqa: SIM115
    else:
        opened = path.open("rb")
    stream: IO[bytes] = opened
    return stream


class _Bounded:
    """A stream from which nobody reads much at once."""

    def __init__(self, raw: IO[bytes], path: Path) -> None:
        self._raw, self._path = raw, path

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_READ:
            raise DataError(f"{self._path}: a header claims {size:,} bytes: damaged, or made to exhaust memory")
        return self._raw.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)
