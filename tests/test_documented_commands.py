"""Every command in the documentation is spelled as the program takes it; those that need nothing more are run.

`nox -s docs` runs them, on `mini` and small files, page by page in a folder of its own. What is skipped says why.
"""

import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pytest
from command_line import Command

from bm3 import BM3Error
from harness.cli import main as cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
OTHERS = [*ROOT.glob("docs/*/**/*.md"), *(ROOT / name / "README.md" for name in ("examples", "expected"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`(bm3 [^`…]+)`(?!`)")
SHELL = ("{", "python", "sha256sum")
NOT_RUN = {
    r"^(nox|pytest|tox|pre-commit|BM3_GOLDEN=)": "is a session of its own",
    r"^(pip|python -m (pip|venv))|^\.": "installs",
    r"^python tests/|^bm3 (scaling|audit|regress)": "takes long, and is measured",
    r"--ray|--workers|table[34] ": "is a study of many trials",
    r"--device cuda|--require cuda": "needs a GPU",
    r"data (fetch|prepare)": "needs the original Amazon files, from the network",
    r"data encode": "needs an encoder, of the extra text or images",
    r"--data DIR|\b(baby|sports)\b": "needs the real data",
    r"bm3 watch": "watches a study that is running",
    r"bm3 results": "looks at this repository",
}
STORED = "docs/results/runs"
JUDGES = ("data verify", "evaluate", "report", "replay")
"""Commands whose exit code is a verdict."""


class Documented(NamedTuple):
    page: Path
    line: str
    fenced: bool


def documented(page: Path) -> Iterator[Documented]:
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        if match[1] in ("", "sh"):
            for line in re.sub(r"\\\n\s*", "", match[2]).splitlines():
                command = re.sub(r"(^|\s)#.*", "", line.removeprefix("$ ")).strip()
                if command:
                    yield Documented(page, command, True)
    yield from (Documented(page, " ".join(found.split()), False) for found in INLINE.findall(FENCE.sub("", text)))


def name_of(one: object) -> str:
    return f"{one.page.relative_to(ROOT)}: {one.line}" if isinstance(one, Documented) else str(one)


TO_RUN = [one for page in PAGES for one in documented(page) if one.fenced]


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: str(page.relative_to(ROOT)))
def test_its_commands_are_spelled_as_the_program_takes_them(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.Command, "invoke", lambda self, context: None)  # a group's own finds the command
    wrong = []
    for one in documented(page):
        if one.line.startswith("bm3 "):
            try:
                cli.bm3.main(shlex.split(one.line.partition(" | ")[0])[1:], standalone_mode=False)
            except (BM3Error, click.BadParameter, click.BadOptionUsage, click.exceptions.NoArgsIsHelpError):
                pass  # a name or a number that stands for another, or a word left out
            except click.UsageError as error:
                wrong.append(f"{one.line}: {error.format_message()}")
    assert wrong == []


@pytest.mark.parametrize("pattern", NOT_RUN)
def test_each_reason_not_to_run_a_command_is_needed(pattern: str) -> None:
    assert [one for one in TO_RUN if re.search(pattern, one.line)]


def test_the_stored_runs_that_commands_name_are_there() -> None:
    named = {path for page in PAGES for one in documented(page) for path in re.findall(rf"{STORED}\S+", one.line)}
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pages take for granted: runs on mini, and files of one's own in many forms."""
    folder = tmp_path_factory.mktemp("material")
    run = [sys.executable, "-m", "harness"]
    for model in ("bm3", "lightgcn"):
        subprocess.run([*run, "train", model, "mini", "--epochs", "2"], cwd=folder, check=True)
    subprocess.run([*run, "data", "export", "mini", "--out", "old-folder"], cwd=folder, check=True)
    pairs = [(user, (user + step) % 30) for user in range(40) for step in (1, 2, 4, 7, 11)]
    rows = [f"u{user},i{item}\n" for user, item in pairs]
    (folder / "ratings.csv").write_text("user_id,item_id\n" + "".join(rows))
    (folder / "split-folder").mkdir()
    for place, part in enumerate(("train", "train", "train", "valid", "test")):
        file = folder / "split-folder" / f"mine.{part}.csv"
        lines = "".join(rows[place::5])
        file.write_text((file.read_text() if file.exists() else "user_id,item_id\n") + lines)
    with zipfile.ZipFile(folder / "ml-1m.zip", "w") as archive:
        archive.writestr("ratings.dat", "".join(f"{user}::{item}::5::97830{user}\n" for user, item in pairs))
    np.save(folder / "audio.npy", np.random.default_rng(0).normal(size=(30, 4)))
    (folder / "products.csv").write_text("sku\n" + "".join(f"i{item}\n" for item in range(30)))
    (folder / "cold-start.txt").write_text("".join(f"{user}\n" for user in range(50)))
    shutil.copytree(ROOT / STORED / "mini", folder / STORED / "mini")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """Where the commands of each page are run, one after the other."""
    return {}


@pytest.mark.documentation
@pytest.mark.parametrize("one", TO_RUN, ids=name_of)
def test_it_does_what_it_says(
    one: Documented,
    command: Command,
    material: Path,
    folders: dict[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for pattern, reason in NOT_RUN.items():
        if re.search(pattern, one.line):
            pytest.skip(f"{reason}: {one.line}")
    if one.page not in folders:
        folders[one.page] = shutil.copytree(material, tmp_path_factory.mktemp("page") / "here")
    monkeypatch.chdir(folders[one.page])
    first = one.line.split()[0]
    if first in SHELL:
        subprocess.run(["bash", "-ec", re.sub(r"^python ", f"{sys.executable} ", one.line)], check=True)
        return
    assert first == "bm3", "is no command: label the block `text`"
    words = shlex.split(one.line)[1:]
    outcome = command(*words, *(["--epochs", "2"] if words[0] == "train" else []))
    assert outcome.code in ((0, 1, 3) if " ".join(words).startswith(JUDGES) else (0,)), outcome


@pytest.mark.documentation
def test_the_site_asks_for_nothing_from_elsewhere() -> None:
    pages = [*(ROOT / "site").rglob("*.html")]
    if not pages:
        pytest.skip("needs the site: mkdocs build")
    asked = re.compile(
        r"""<(?:script|img|iframe)[^>]*\ssrc=["']?https?:[^>]*|<link[^>]*rel=["']?(?:stylesheet|preconnect)[^>]*https?:[^>]*"""
    )
    assert [found for page in pages for found in asked.findall(page.read_text(encoding="utf-8"))] == []
