"""A folder for another paper, to be filled in: a copy of `skeleton`, which `check` accepts."""

import shutil
import tempfile
from pathlib import Path

from bm3.errors import ConfigError

SKELETON = Path(__file__).parent / "skeleton"


def new_paper(folder: Path) -> list[str]:
    """Make the folder, whole or not at all; names of its files. Raises ConfigError where something is there already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: is there already; name a folder that is not there, or an empty one")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as unfinished:
            made = Path(shutil.copytree(SKELETON, Path(unfinished, "paper")))
            made.replace(folder)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made ({error.strerror})") from error
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
