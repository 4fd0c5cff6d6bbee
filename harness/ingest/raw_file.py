"""Reading a raw file once, plain or gzip: its bytes or lines, and meanwhile its SHA-256. What lines mean is elsewhere.

Nothing that a file claims is believed: lines and what a compressed file expands to have bounds.
"""

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bm3 import DataError

MAX_LINE = 16 * 2**20
"""Bytes. The longest lines of the original files have some hundred kilobytes."""
MAX_EXPANSION = 200
"""Times the compressed size. Text of this kind expands 3 to 20 times; gzip's own limit is 1032."""
FREE_EXPANSION = 64 * 2**20  # bytes that a file may expand to whatever its size: small files are harmless
BLOCK = 2**20
GZIP = b"\x1f\x8b"

Advance = Callable[[int], None]
"""Is told how many more bytes of the file on disk have been read."""


class RawFile:
    """Context manager over one file on disk; sequential. Raises DataError where the file cannot be read or is damaged.

    `size` is in bytes on disk. `sha256` is of the file on disk and complete once everything has been read.
    """

    def __init__(self, path: Path, advance: Advance = lambda n: None) -> None:
        self.path = path
        if not path.is_file():  # opening a pipe would wait for ever
            raise DataError(f"{path}: {'not a file' if path.exists() else 'no such file'}; check the path")
        try:
            self._counted = _Counted(path.open("rb", buffering=0), advance)
            self.size = path.stat().st_size
            self._buffered = io.BufferedReader(self._counted, BLOCK)
            self.compressed = self._buffered.peek(len(GZIP))[: len(GZIP)] == GZIP
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
        self._content: gzip.GzipFile | io.BufferedReader[_Counted] = (
            gzip.GzipFile(fileobj=self._buffered) if self.compressed else self._buffered
        )
        self._expanded = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._content.close()
        self._buffered.close()
        self._counted.close()

    @property
    def sha256(self) -> str:
        return self._counted.digest.hexdigest()

    @property
    def position(self) -> int:
        """Bytes of the file on disk that have been read."""
        return self._counted.position

    def read(self, n: int) -> bytes:
        """The next `n` bytes of the content, fewer only at its end."""
        try:
            block = self._content.read(n)
        except (OSError, EOFError, zlib.error) as error:  # gzip: BadGzipFile is an OSError, EOFError means cut off
            at = f"after {self.position} of {self.size} bytes"
            raise DataError(
                f"{self.path}: damaged or cut off {at} ({(isinstance(error, OSError) and error.strerror) or error}); "
                f"download it again"
            ) from error
        self._expanded += len(block)
        if self.compressed and self._expanded > FREE_EXPANSION + MAX_EXPANSION * self.size:
            raise DataError(
                f"{self.path}: expands to more than {MAX_EXPANSION} times its {self.size} bytes, which no such file "
                f"does; check where it is from"
            )
        return block

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Number, from 1, and content of every line, without its end; empty ones and a byte order mark are left out."""
        number, rest = 0, b""
        while block := self.read(BLOCK):
            *complete, rest = (rest + block).split(b"\n")
            for line in complete:
                number += 1
                yield from self._checked(number, line)
            if len(rest) > MAX_LINE:
                break
        yield from self._checked(number + 1, rest)

    def _checked(self, number: int, line: bytes) -> Iterator[tuple[int, bytes]]:
        if len(line) > MAX_LINE:
            raise DataError(
                f"{self.path}, line {number}: longer than {MAX_LINE} bytes, which no line of such a file is; check "
                f"that it is the file that was meant"
            )
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        line = line.rstrip(b"\r")
        if line.strip():
            yield number, line


class _Counted(io.RawIOBase):
    """A file that counts and hashes what is read from it."""

    def __init__(self, file: io.FileIO, advance: Advance) -> None:
        self._file, self._advance = file, advance
        self.digest = hashlib.sha256()
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = self._file.readinto(buffer) or 0
        self.digest.update(memoryview(buffer)[:n])
        self.position += n
        self._advance(n)
        return n

    def close(self) -> None:
        self._file.close()
        super().close()
