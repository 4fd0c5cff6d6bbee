"""LaTeX: figures as in the study, best and second marked, stars only for what was tested, and it compiles.

The files in `golden` are compared byte for byte. After an intended change, write them anew and look at the difference:
`BM3_GOLDEN=write pytest tests/report/test_latex.py -k golden`.
"""

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.paper.significance import Difference
from harness.paper.study import Study, StudyRow, make_study
from harness.report.latex import document, escape, latex
from harness.report.markdown import markdown

GOLDEN = Path(__file__).parent / "golden"
ENGINES = {
    "pdflatex": ["-interaction=nonstopmode", "-halt-on-error"],
    "tectonic": [],
    "latexmk": ["-pdf", "-interaction=nonstopmode", "-halt-on-error"],
}
AWKWARD = r"""50%_of a&b #1 {c} $d$ ~e ^f \g <h> |i| "j" --k ``l'' ×±†‡ é ß 猫"""


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study(GOLDEN / "runs", "a report on hand-made records")


def difference(adjusted: float, mean: float = 0.004, first: str = "bm3", second: str = "lightgcn") -> Difference:
    return Difference(
        metric="recall@20",
        first=first,
        second=second,
        mean=mean,
        interval=(mean - 0.001, mean + 0.001),
        p_value=adjusted,
        adjusted=adjusted,
        runs=2,
        users=19445,
        ranks=0.1 if mean > 0 else -0.1,
    )


def with_differences(study: Study, *differences: Difference) -> Study:
    return replace(study, differences={"baby": differences})


def renamed(row: StudyRow, dataset: str, label: str) -> StudyRow:
    return replace(row, dataset=dataset, label=label)


@pytest.mark.parametrize("name", ["report.md", "report.tex"])
def test_reports_are_byte_for_byte_the_golden_ones(study: Study, name: str) -> None:
    made = markdown(study) if name == "report.md" else document(latex(study))
    if os.environ.get("BM3_GOLDEN") == "write":
        (GOLDEN / name).write_text(made, encoding="utf-8")
    assert made == (GOLDEN / name).read_text(encoding="utf-8")


def test_the_best_is_bold_the_second_underlined_and_the_third_plain(study: Study) -> None:
    table = latex(study).split(r"\begin{table}")[1]
    assert r"\textbf{0.0821} & \textbf{0.0286}" in table
    assert r"lightgcn & \underline{0.0494} & \underline{0.0781}" in table
    assert "bpr & 0.0357 & 0.0576" in table


def test_without_tests_the_caption_says_so_and_there_is_no_star(study: Study) -> None:
    table = latex(study).split(r"\begin{table}")[1]
    assert "Differences between models were not tested." in table
    assert r"\textsuperscript{*" not in table


@pytest.mark.parametrize(("adjusted", "stars"), [(0.0004, "***"), (0.004, "**"), (0.04, "*"), (0.05, ""), (0.2, "")])
def test_stars_say_how_sure_the_best_is(study: Study, adjusted: float, stars: str) -> None:
    table = latex(with_differences(study, difference(adjusted))).split(r"\begin{table}")[1]
    assert re.search(r"\\textbf\{0\.0821\}(?:\\textsuperscript\{(\**)\})? ", table).group(1) == (stars or None)  # type: ignore[union-attr]
    assert "19,445 users" in table
    assert "Not tested: R@10, N@10, N@20." in table


def test_a_difference_counts_whichever_of_the_two_stands_first(study: Study) -> None:
    turned = difference(0.004, mean=-0.004, first="lightgcn", second="bm3")
    assert latex(with_differences(study, turned)) == latex(with_differences(study, difference(0.004)))


def test_no_star_where_users_prefer_the_second(study: Study) -> None:
    assert r"0821}\textsuperscript{*" not in latex(with_differences(study, difference(0.004, mean=-0.004)))


def test_a_difference_of_other_rows_is_not_that_of_the_best_two(study: Study) -> None:
    other = difference(0.004, second="bpr")
    assert "were not tested" in latex(with_differences(study, other))


def test_rows_on_surrogate_features_have_a_dagger_with_its_meaning(study: Study) -> None:
    table = latex(study).split(r"\begin{table}")[1]
    assert r"bm3\textsuperscript{\(\dagger\)} &" in table
    assert r"bpr\textsuperscript" not in table
    assert "Trained on surrogate features" in table


def test_every_judged_cell_stands_beside_its_figure_with_its_verdict(study: Study) -> None:
    table = latex(study).split(r"\begin{table}")[2]
    assert r"bpr & R@10 & 0.0357 & 2 & 0.0357 & \(0.0\) & reproduced" in table
    assert r" & N@20 & 0.0314 & 2 & 0.0328 & \(-4.3\) & below" in table
    assert table.count(" & R@10 & ") == 3
    assert "Zhou et al., WWW 2023" in table


def test_more_models_than_fit_a_page_make_several_tables_without_losing_a_cell(study: Study) -> None:
    rows = tuple(renamed(study.rows[1], "baby", f"bpr reg_weight={n}") for n in range(25))
    text = latex(replace(study, rows=rows))
    assert text.count("ours beside the expected figures") == 3
    assert len(re.findall(r"^ & N@20 & \d", text, re.MULTILINE)) == 25


def test_ours_in_the_layout_of_table_3_have_the_improvement_of_bm3(study: Study) -> None:
    table = latex(study).split(r"\begin{table}")[3]
    assert r"data set & metric & BPR & LightGCN & BM3 & Improv. (\%) \\" in table
    assert rf"\({100 * (0.0531 / 0.0494 - 1):+.2f}\)" in table


def test_the_layout_of_table_3_is_left_out_where_nothing_compares_with_bm3(study: Study) -> None:
    assert "Improv." not in latex(replace(study, rows=study.rows[1:]))


def test_a_study_without_finished_runs_says_so(study: Study) -> None:
    assert "No finished run." in latex(replace(study, rows=()))


@given(st.text())
def test_no_special_character_passes_unescaped(text: str) -> None:
    escaped = re.sub(r"\\[&%$#_{}]|\\\(\\\w+\\\)|\\\w+|\{\}|[{}]", "", escape(text))
    assert not set(escaped) & set('&%$#_\\^~<>|"{}')


@pytest.mark.parametrize("rows", ["golden", "awkward", "none"])
def test_the_document_compiles(study: Study, rows: str, tmp_path: Path) -> None:
    engine = next((name for name in ENGINES if shutil.which(name)), None)
    if engine is None:
        pytest.skip(f"needs a LaTeX engine, one of {', '.join(ENGINES)}, and none is installed")
    if rows == "awkward":
        awkward = tuple(renamed(row, AWKWARD, f"{row.label} {AWKWARD}") for row in study.rows)
        study = replace(study, rows=(*study.rows, *awkward), asked=AWKWARD + "\n\\undefined")
    elif rows == "none":
        study = replace(study, rows=())
    (tmp_path / "report.tex").write_text(document(latex(with_differences(study, difference(0.004)))), encoding="utf-8")
    outcome = subprocess.run(
        [engine, *ENGINES[engine], "report.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout[-3000:]
    assert "Overfull" not in outcome.stdout
    assert (tmp_path / "report.pdf").stat().st_size > 1000
