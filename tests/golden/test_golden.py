"""What the commands print and write, compared with the files in `expected/`: a change of any word or figure shows.

`store/mini` holds a small study as the program made it, of `study.toml`: grids of BPR and BM3, a second BM3 with other
settings, LightGCN, a run that failed and one that was killed. Nothing here trains or measures, and nothing depends on
the machine: pictures are left blank, and long fractions are cut after nine digits.

After a change that is meant, write the files anew, read what git shows of them, and say it in the changelog:

    BM3_GOLDEN=write python -m pytest tests/golden
"""

import difflib
import io
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import pytest
from command_line import Command, Outcome
from matplotlib.figure import Figure

from harness.tools.results import nine_digits

HERE = Path(__file__).parent
EXPECTED = HERE / "expected"
RESULTS = HERE.parent.parent / "docs" / "results"
WRITE = "BM3_GOLDEN"

FILES = {"md": "report.md", "html": "report.html", "tex": "report.tex", "csv": "cells.csv", "json": "cells.json"}
BLANK = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"></svg>\n'
TO_COME = re.compile(r"(?<=^run: runs/mini/bm3-)\w+(?=-seed999 would)", re.MULTILINE)
CHOSEN, SECOND, FROZEN = "bm3-a3f78f129d", "bm3-3e10c97f2f", "bm3-3c64ca14d5"
SUITES = ("ablation", "audit", "baby", "electronics", "mini", "selfcheck", "sensitivity", "sports", "tiktok")
SOURCES = ("table2", "table3", "table4", "toolbox")

COMMANDS: dict[str, list[str]] = {
    "data-stats": ["data stats mini", "data verify mini", "data verify minni"],
    "expected-list": ["expected list", "expected show tabel3"],
    **{f"expected-{source}": [f"expected show {source}"] for source in SOURCES},
    "expected-formats": [
        "expected show table3 --dataset baby --model bm3 --format csv",
        "expected show toolbox --dataset sports --metric R@20 --format md",
        'expected show table4 --metric "Time (s/epoch)" --model mmgcn',
        "expected show tolerances",
        "expected show claims --format csv",
    ],
    "suite-list": ["suite list"],
    **{f"suite-{name}": [f"suite show {name} --device cpu"] for name in (*SUITES, "table3", "table4")},
    "suite-formats": [
        *(f"suite show mini --device cpu --format {form}" for form in ("md", "csv")),
        "suite show mini --device cpu --dry-run --model bm3 --seeds 4-6",
        "suite show baby --device cpu --dry-run --model bpr",
        "suite show min --device cpu",
    ],
    "reproduce-dry-run": ["reproduce mini --dry-run --device cpu", "audit --dry-run --device cpu --model mmgcn"],
    **{
        f"tables-{number}": [
            *(f"tables {number} --format {form}" for form in ("text", "md", "tex", "csv")),
            f"tables {number} results/runs/tiktok --dataset tiktok",
        ]
        for number in (2, 3, 4)
    },
    "tables-runs": [
        "tables 2 results/runs/sports --dataset sports",
        "tables 3 results/runs/tiktok --format tex",
        "tables 3 results/runs/baby --dataset baby",
        "tables 4 results/runs/cost --format md",
    ],
    "tables-other": ["tables 2 --data results", "tables 3 store", "tables 3 --dataset babi"],
    "runs-list": [
        "runs list store",
        "runs list --out store/mini --model BM3 --json",
        "runs list store --state failed",
        "runs list store --dataset baby",
        *(f"runs {command} none" for command in ("list", "verify", "gc")),
        "runs verify store",
        "runs gc store --dry-run --unfinished --superseded",
    ],
    "runs-show": [
        f"runs show {CHOSEN} --out store",
        "runs show grcn --out store",
        "runs show store/mini/vbpr-63e819ae32-seed999",
        "runs show bm3 --out store",
        "runs show itemknn --out store",
    ],
    "runs-diff": [
        f"runs diff {CHOSEN} {SECOND} --out store",
        f"runs diff {CHOSEN} {FROZEN} --out store",
        f"runs diff {CHOSEN} store/mini/{CHOSEN}-seed1 --out store",
        f"runs diff {CHOSEN} lightgcn-829f --out store",
        f"runs diff {CHOSEN} vbpr --out store",
    ],
    "train": [
        "train bm3 mini --dry-run --device cpu --set n_layers=2 --epochs 3",
        "train bm4 mini",
        "train bm3 mini --set n_layer=2",
        "train bm3 mini --set n_layers=two",
        "train bm3 nowhere",
    ],
    "models": ["models"],
    "settings": ["settings", "settings bm3", "settings lattice", "settings mmgcn", "settings bmr"],
    "variants": ["variants"],
    "regress": ["regress --quick --update-baseline", "regress --baseline none.json --device cpu"],
}


@pytest.fixture
def inside(command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command in a folder with the stored study and the results of the documentation, in a terminal of 100 columns.

    Pictures are not drawn: they are matplotlib's, with its fonts and its version.
    """

    def blank(self: Figure, file: IO[Any], **options: object) -> None:
        file.write(BLANK if isinstance(file, io.TextIOBase) else BLANK.encode())

    monkeypatch.setattr(Figure, "savefig", blank)
    monkeypatch.setattr(import_module("harness.report.plots.style"), "in_256_colours", io.BytesIO.getvalue)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    shutil.copytree(HERE / "store", "store")
    Path("results").symlink_to(RESULTS)
    return command


def compare(name: str, found: str) -> None:
    """Fail with the difference, or write the file anew where that is asked for."""
    path = EXPECTED / name
    found = normalised(found)
    if os.environ.get(WRITE) == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(found, encoding="utf-8")
    expected = normalised(path.read_text(encoding="utf-8")) if path.is_file() else ""
    if found != expected:
        lines = difflib.unified_diff(expected.splitlines(), found.splitlines(), str(path), "now", lineterm="", n=1)
        pytest.fail("\n".join([*lines, f"{WRITE}=write writes tests/golden/expected anew"]), pytrace=False)


def normalised(text: str) -> str:
    """Without what depends on the processor or on the code's version: last digits, the key of a run to come."""
    return TO_COME.sub("…", nine_digits(text))


def transcript(arguments: str, outcome: Outcome) -> str:
    """A command and all that it left: output, errors, and its exit code."""
    errors = "".join(f"! {line}\n" for line in outcome.err.splitlines())
    lines = "\n".join(line.rstrip() for line in outcome.out.splitlines())
    return f"$ bm3 {arguments}\n{lines}\n{errors}exit code {outcome.code}\n\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name: str, inside: Command) -> None:
    compare(f"{name}.txt", "".join(transcript(line, inside(*shlex.split(line))) for line in COMMANDS[name]))


def test_help(inside: Command) -> None:
    """Of every command and sub-command, as the help of the one above it lists them."""

    def texts(*names: str) -> Iterator[str]:
        outcome = inside(*names, "--help")
        yield transcript(" ".join([*names, "--help"]), outcome)
        _, _, listed = outcome.out.partition("\nCommands:\n")
        for found in re.finditer(r"^  (\w[\w-]*)", listed, re.MULTILINE):
            yield from texts(*names, found[1])

    compare("help.txt", "".join(texts()))


def test_report(inside: Command) -> None:
    outcome = inside("report", "store", "--out", "written", "--format", ",".join(FILES))
    compare("report.txt", transcript("report store --out written --format …", outcome))
    for name in FILES.values():
        compare(name, Path("written", name).read_text(encoding="utf-8"))
