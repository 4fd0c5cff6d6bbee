"""LaTeX: cells escaped and marked, long tables broken, and the document compiles.

What a report says in LaTeX is compared with a stored one in `tests/golden`.
"""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Command, refused
from hypothesis import given
from hypothesis import strategies as st
from run_files import HAND_MADE

from harness.paper.rows import Row
from harness.paper.study import Extra, Study
from harness.report.latex import escape, report, tex_table
from harness.report.tables import table

ENGINES = {
    "pdflatex": ["-interaction=nonstopmode", "-halt-on-error"],
    "tectonic": [],
    "latexmk": ["-pdf", "-interaction=nonstopmode", "-halt-on-error"],
}
AWKWARD = r"""[A] 50%_of a&b #1 {c} $d$ ~e ^f \g <h> |i| "j" --k ``l'' ×±†‡ é ß 猫"""


def test_long_tables_are_broken_and_only_the_last_has_the_notes() -> None:
    rows = [[f"model {number}", metric] for number in range(25) for metric in ("R@10", "R@20", "N@10", "N@20")]
    text = tex_table(table("Long", ("model", "metric"), rows, notes=["a note"], groups=1))
    tables = text.split(r"\begin{table}")[1:]
    assert [len(re.findall(r"@\d\d \\", part)) for part in tables] == [36, 36, 28]
    assert all(part.partition(r"\midrule")[2].strip().startswith("model ") for part in tables)
    assert [r"Long (continued).}" in part for part in tables] == [False, True, True]
    assert ["a note" in part for part in tables] == [False, False, True]


@given(st.text())
def test_no_special_character_passes_unescaped(text: str) -> None:
    escaped = re.sub(r"\\[&%$#_{}]|\\\(\\\w+\\\)|\\\w+|\{\}|[{}]", "", escape(text))
    assert not set(escaped) & set('&%$#_\\^~<>|"{}')


@pytest.mark.parametrize("label", ["[A] plain", "*starred"])
def test_no_label_is_taken_for_an_argument_of_the_line_break_before_it(label: str) -> None:
    text = tex_table(table("T", ("model", "R@20"), [["first", "0.1"], [label, "0.2"]]))
    assert f"\n{{{label[0]}}}{label[1:]} & 0.2" in text


def test_a_table_for_a_paper_has_the_rows_metrics_and_spread_that_are_asked_for(
    tmp_path: Path, command: Command
) -> None:
    asked = ["--metrics", "recall@20,ndcg@20", "--rows", "BPR,bm3", "--spread", "deviation", "--best", "bold"]
    command("report", HAND_MADE, "--format", "tex,md", "--out", tmp_path, *asked)
    table = (tmp_path / "report.tex").read_text().split(r"\end{table}")[0]
    dagger = r"\textsuperscript{\(\dagger\)}"
    assert rf"bm3{dagger} & \textbf{{0.0821 \(\pm\) 0.0004}} & \textbf{{0.0362 \(\pm\) 0.0001}} & 2 \\" in table
    assert "lightgcn" not in table.partition(r"\begin{table}")[2]
    assert r"The best mean of a metric is bold.}" in table
    assert "Published for baby and not shown: R@10, N@10, R@50, N@50." in table
    assert "**0.0821 ± 0.0004**" in (tmp_path / "report.md").read_text()
    command("report", HAND_MADE, "--format", "tex", "--out", tmp_path, "--spread", "interval")
    table = (tmp_path / "report.tex").read_text().split(r"\end{table}")[0]
    assert "& 0.0821 (0.0783 to 0.0859) &" in table
    assert "at 95\\% confidence" in table
    assert "no row or model 'bpm'; nearest: " in refused(command("report", HAND_MADE, "--rows", "bpm"))


@pytest.mark.parametrize("rows", ["golden", "awkward", "none", "asked"])
def test_the_document_compiles(study: Study, rows: str, tmp_path: Path) -> None:
    engine = next((name for name in ENGINES if shutil.which(name)), None)
    if engine is None:
        pytest.skip(f"needs a LaTeX engine, one of {', '.join(ENGINES)}, and none is installed")
    if rows == "awkward":
        awkward = tuple(renamed(row, AWKWARD, f"{row.label} {AWKWARD}") for row in study.rows)
        study = replace(study, rows=(*study.rows, *awkward), asked=AWKWARD + "\n\\undefined")
    elif rows == "asked":
        metrics = tuple(f"{name}@{k}" for name in ("recall", "ndcg", "map", "precision") for k in (10, 20))
        study = replace(study, extra=Extra(metrics, spread="interval", best=True))
    elif rows == "none":
        study = replace(study, rows=())
    (tmp_path / "report.tex").write_text(report(study), encoding="utf-8")
    command = [engine, *ENGINES[engine], "report.tex"]
    outcome = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=300, check=False
    )
    assert outcome.returncode == 0, outcome.stdout[-3000:]
    assert "Overfull" not in outcome.stdout
    assert (tmp_path / "report.pdf").stat().st_size > 1000


def renamed(row: Row, dataset: str, label: str) -> Row:
    return replace(row, dataset=dataset, label=label)
