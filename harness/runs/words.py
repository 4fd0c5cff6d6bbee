"""What options of commands may say, and the shipped suites by name: known before anything that computes is loaded."""

import difflib
from pathlib import Path
from typing import Final, Literal

from bm3 import ConfigError
from harness.paper.folders import DEFAULT, paper_folder, suite_files

Policy = Literal["missing", "failed", "all", "none"]
"""Which stored trials are run: those without a result that did not fail; failed ones too; all, anew; none."""
EntryState = Literal["finished", "failed", "unfinished", "running", "damaged"]
STATES: Final[tuple[EntryState, ...]] = ("finished", "running", "unfinished", "failed", "damaged")


def suite_names(paper: str | Path = DEFAULT) -> list[str]:
    """Names of the suites of a paper."""
    return sorted(suite_files(paper_folder(paper)))


def suite_path(name: str, paper: str | Path = DEFAULT) -> Path:
    """The file of a paper's suite by name, or the one at a path. Raises ConfigError where there is none."""
    path = Path(name) if name.endswith(".toml") else suite_files(paper_folder(paper)).get(name)
    if path is None or not path.is_file():
        near = difflib.get_close_matches(name, suite_names(paper), n=3, cutoff=0.4) or suite_names(paper)
        raise ConfigError(f"no suite {name!r}; shipped: {', '.join(near)}, or give the path of a .toml file")
    return path
