"""What options of commands may say, and the shipped suites by name: known before anything that computes is loaded."""

import difflib
from pathlib import Path
from typing import Final, Literal

from bm3 import ConfigError

Policy = Literal["missing", "failed", "all", "none"]
"""Which stored trials are run: those without a result that did not fail; failed ones too; all, anew; none."""
State = Literal["finished", "failed", "unfinished"]
EntryState = State | Literal["running", "damaged"]
STATES: Final[tuple[EntryState, ...]] = ("finished", "running", "unfinished", "failed", "damaged")
SUITES = Path(__file__).parent.parent / "suites"


def suite_names() -> list[str]:
    """Names of the suites that come with the harness."""
    return sorted(path.stem for path in SUITES.glob("*.toml"))


def suite_path(name: str) -> Path:
    """The file of a shipped suite by name, or the one at a path. Raises ConfigError where there is none."""
    path = Path(name) if name.endswith(".toml") else SUITES / f"{name}.toml"
    if not path.is_file():
        near = difflib.get_close_matches(name, suite_names(), n=3, cutoff=0.4) or suite_names()
        raise ConfigError(f"no suite {name!r}; shipped: {', '.join(near)}, or give the path of a .toml file")
    return path
