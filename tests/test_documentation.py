"""Files that the documentation names are there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/reference/*.md"), *ROOT.glob("expected/*.md")]
)
NAMED = re.compile(r"(?<![\w./:-])((?:bm3|harness|tests|expected|docs|examples|ci-examples)/[\w./*-]*\w)")


def named(page: Path) -> Iterator[str]:
    """Paths in a page, as they stand there."""
    if page.name != "CHANGELOG.md":  # which tells of what was
        yield from NAMED.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    assert [name for name in named(page) if not list(ROOT.glob(name.rstrip("/")))] == []


def test_the_table_of_where_things_are_is_read_by_it() -> None:
    assert {"harness/training/optimiser.py", "expected/bm3/claims.toml"} <= set(named(ROOT / "CONTRIBUTING.md"))


def test_adams_constants_stand_in_one_file() -> None:
    code = {path: path.read_text(encoding="utf-8") for path in [*ROOT.glob("harness/**/*.py"), *ROOT.glob("bm3/*.py")]}
    assert [path.name for path, text in code.items() if re.search(r"^[A-Z_, ]+ = \(+0\.9, 0\.999\)", text, re.M)] == [
        "optimiser.py"
    ]
