"""Folders that appear whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bm3 import DataError


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`, which takes its name when the block ends and is removed when it raises.

    Raises DataError when `target` exists already or cannot be made.
    """
    if target.exists():
        raise DataError(f"{target}: exists already; remove it or choose another name")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise DataError(f"{target}: cannot be made ({error.strerror}); choose another folder") from error
    try:
        yield made
        made.chmod(0o777 & ~_umask())
        made.rename(target)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
