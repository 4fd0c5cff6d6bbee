"""The optional parts of the installation, as its metadata lists them, and what is there of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

DISTRIBUTION = "bm3-harness"
GIVES: Mapping[str, str] = {
    "fast": "compiled loops for top K and Adam",
    "ray": "studies on a Ray cluster",
    "tables": "Parquet files in and out",
    "text": "item texts encoded as features",
    "images": "item images encoded as features",
    "browser": "the HTML report tested in a browser",
    "test": "the tests",
    "lint": "format and style checks",
    "types": "type checks",
    "dev": "everything for working on this project",
}
"""In words, for the extras that are known here; which ones there are is read from the metadata."""

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*([^;]*)(?:;(.*))?")
_EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")


@dataclass(frozen=True)
class Extra:
    """An optional part: `pip install bm3-harness[NAME]`."""

    name: str
    present: Mapping[str, str]
    """Package → its version, of those that suffice."""
    missing: tuple[str, ...]
    """Packages that are not there or too old."""

    @property
    def installed(self) -> bool:
        return not self.missing

    @property
    def gives(self) -> str:
        """What it is for."""
        return GIVES.get(self.name, ", ".join((*self.present, *self.missing)))


def installed_extras(
    names: Sequence[str] | None = None,
    requirements: Sequence[str] | None = None,
    version_of: Callable[[str], str] = metadata.version,
) -> list[Extra]:
    """Every extra that the installed package declares, in its order; empty where it was not installed.

    `names` and `requirements` are as in its metadata (Provides-Extra, Requires-Dist), `version_of` raises
    PackageNotFoundError.
    """
    if names is None or requirements is None:
        try:
            found = metadata.metadata(DISTRIBUTION)
        except metadata.PackageNotFoundError:
            return []
        names, requirements = found.get_all("Provides-Extra") or [], found.get_all("Requires-Dist") or []
    return [_extra(name, requirements, version_of) for name in names]


def _extra(name: str, requirements: Sequence[str], version_of: Callable[[str], str]) -> Extra:
    present: dict[str, str] = {}
    missing: list[str] = []
    for text in requirements:
        match = _REQUIREMENT.match(text)
        if match is None or name not in _EXTRA.findall(match[3] or ""):
            continue
        package, bound = match[1], match[2]
        if package == DISTRIBUTION:  # extras of its own, whose packages are listed with them
            continue
        try:
            version = version_of(package)
        except metadata.PackageNotFoundError:
            missing.append(package)
            continue
        if _old(version, bound):
            missing.append(f"{package} ({version} is older than needed)")
        else:
            present[package] = version
    return Extra(name, present, tuple(missing))


def _old(version: str, bound: str) -> bool:
    lowest = re.search(r">=\s*([0-9.]+)", bound)
    return lowest is not None and _numbers(version) < _numbers(lowest[1])


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"[0-9.]*", version)
    return tuple(int(part) for part in (leading[0] if leading else "").split(".") if part)
