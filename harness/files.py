"""Files that are written whole or not at all, and the one error for those that cannot be written."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from uuid import uuid4

from bm3 import DataError

HALF_WRITTEN = re.compile(r"\.tmp\w{6}")
"""What safetensors calls a file until it is whole."""


class WriteError(DataError):
    """Something cannot be written, as on a full disk. Work that this stops goes on once that is mended."""


@contextmanager
def writing(path: Path, mend: str = "make room and give the same command again, which goes on") -> Iterator[None]:
    """Turns an OSError of the block, which writes `path`, into a WriteError."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error}); {mend}") from error


def check_writable(path: Path) -> None:
    """Raises OSError unless a file can be written at `path`; what is there stays as it is."""
    if path.is_dir():
        raise IsADirectoryError(None, "it is a folder")
    with TemporaryFile(dir=path.parent):
        pass


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, all of it or nothing. Raises OSError."""
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write all of it or nothing: to a file beside it first, flushed to disk, then renamed. Raises OSError.

    That file has a name of its own, so that two processes may write the same path: the last one's content stays.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{uuid4().hex[:8]}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
