"""Unpacking a .zip or .tar archive that may come from anyone: plain files only, confined, within limits."""

import bz2
import gzip
import lzma
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from bm3 import DataError
from harness.data.files import check_claim, reading
from harness.data.layouts import visible

MAX_MEMBERS = 10_000
MAX_READ = 2**26  # bytes in one piece: tarfile reads a header of the size that the archive claims
TARS: dict[str, Callable[..., Any]] = {
    ".tar": open,
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
}
ENDINGS = (".zip", *TARS)


@dataclass(frozen=True)
class Member:
    """A file or folder in an archive, as the archive claims it to be."""

    name: str
    size: int
    plain: bool
    """Whether it is no link and no device."""
    folder: bool
    open: Callable[[], IO[bytes] | None]


def is_archive(path: Path) -> bool:
    """Whether the name of `path` is that of an archive of files."""
    return path.name.lower().endswith(ENDINGS)


def unpack(path: Path, target: Path) -> Path:
    """Unpack the archive `path` into the folder `target`; gives the one folder in it, or `target`.

    Hidden files and what a Mac adds are left out.
    Refused before anything of it is written: a member that is a link or a device, or that would lie outside of
    `target`; members that claim far more than the archive's size or than the free space. Raises DataError.
    """
    with reading(path), _members(path) as claims:
        for member in checked(path, claims, shutil.disk_usage(target).free):
            if not member.folder:
                place = target / member.name
                place.parent.mkdir(parents=True, exist_ok=True)
                source = member.open()
                assert source is not None  # as it is a regular file
                with source, place.open("xb") as file:
                    shutil.copyfileobj(source, file)
    while len(inside := visible(target)) == 1 and inside[0].is_dir():
        target = inside[0]
    return target


def checked(path: Path, claims: Iterator[Member], free: int) -> list[Member]:
    """All members, if each may be written and there is room for them. Raises DataError."""
    members, claimed = [], 0
    for member in claims:
        where = f"{path}, {member.name[:80]!r}"
        place = PurePosixPath(member.name)
        if not member.plain:
            raise DataError(f"{where}: a link or device: pack plain files and folders only")
        if place.is_absolute() or ".." in place.parts or "\\" in member.name or "\0" in member.name:
            raise DataError(f"{where}: would lie outside of the archive's folder: pack it with relative names")
        if member.size < 0:  # tarfile would go back, and read the same for ever
            raise DataError(f"{where}: claims {member.size:,} bytes: damaged; obtain it again")
        if member.folder and member.size:  # which nobody unpacks, so that nobody would see it
            raise DataError(f"{where}: a folder that holds {member.size:,} bytes itself: damaged; obtain it again")
        members.append(member)
        claimed += member.size
        if len(members) > MAX_MEMBERS:
            raise DataError(f"{path}: more than {MAX_MEMBERS:,} files: pack what is needed alone")
        check_claim(claimed, path.stat().st_size, str(path))
        if claimed > free:
            raise DataError(
                f"{path}: unpacks to {claimed:,} bytes or more, and {free:,} are free: set TMPDIR to a folder with "
                f"more space"
            )
    return members


@contextmanager
def _members(path: Path) -> Iterator[Iterator[Member]]:
    """The members of an archive, which stays open meanwhile."""
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as packed:
            yield zip_members(packed)
        return
    opened = next(opened for ending, opened in TARS.items() if path.name.lower().endswith(ending))
    with opened(path, "rb") as raw, tarfile.open(fileobj=_Bounded(raw, path), mode="r:") as archive:
        yield (
            Member(info.name, info.size, plain, info.isdir(), partial(archive.extractfile, info))
            for info in archive  # one by one: a claim is checked before the next header is read
            for plain in [(info.isreg() and not info.issparse()) or info.isdir()]
        )


def zip_members(packed: zipfile.ZipFile) -> Iterator[Member]:
    """The members of a zip archive."""
    for info in packed.infolist():
        plain = info.external_attr >> 28 in (0, 0o4, 0o10)  # the type in Unix's mode, 0 without one
        yield Member(info.filename, info.file_size, plain, info.is_dir(), partial(packed.open, info))


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
