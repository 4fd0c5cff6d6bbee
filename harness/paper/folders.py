"""Where papers lie: by name, or as a folder. Known before anything is loaded; what a folder holds is `load`."""

import difflib
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import harness
from bm3.errors import ConfigError
from harness.common import nearest

DEFAULT = "bm3"
"""The paper that is meant where none is named."""
ENTRY_POINT_GROUP = "bm3.papers"
PAPER_FILE = "paper.toml"


def papers() -> dict[str, Path]:
    """The folders of all papers that have a name: those that come with the harness, then those of entry points."""
    package = Path(harness.__file__).parent
    # Installed, the folder `expected` is in the package; in a checkout it is beside it.
    root = next((root for root in (package / "expected", package.parent / "expected") if root.is_dir()), package)
    found = {path.parent.name: path.parent for path in sorted(root.glob(f"*/{PAPER_FILE}"))}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            target = point.load()
            folder = Path(str(target.__file__)).parent if isinstance(target, ModuleType) else Path(target)
        except Exception as error:  # somebody else's module may raise anything
            where = f"entry point {point.name!r} ({point.value})"
            raise ConfigError(f"{where} is no folder of a paper ({type(error).__name__}: {error}): mend it") from error
        found.setdefault(point.name, folder)
    return found


def paper_folder(name: str | Path) -> Path:
    """Where a paper lies: a text may be its name, a Path is its folder, whatever a paper of that name is there.

    Raises ConfigError with the nearest names where there is none.
    """
    known = papers()
    if isinstance(name, str) and name in known:
        return known[name]
    folder = Path(name)
    if (folder / PAPER_FILE).is_file():
        return folder
    if folder.is_dir():
        raise ConfigError(f"{folder / PAPER_FILE}: no such file; `bm3 paper new` makes a folder with one")
    return known[nearest(str(name), list(known), "no paper and no folder")]


def suite_files(folder: Path) -> dict[str, Path]:
    """The suite files of a paper, by name."""
    return {path.stem: path for path in sorted((folder / "suites").glob("*.toml"))}


def suite_path(name: str, folder: Path) -> Path:
    """The file of a paper's suite by name, or the one at a path. Raises ConfigError where there is none."""
    known = suite_files(folder)
    path = Path(name) if name.endswith(".toml") else known.get(name)
    if path is None or not path.is_file():
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
        raise ConfigError(f"no suite {name!r}; shipped: {', '.join(near)}, or give the path of a .toml file")
    return path
