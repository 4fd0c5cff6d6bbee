"""Pages of results against stored runs: what is committed holds, what is changed is found, and templates."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Command, refused
from run_files import DESCRIPTION, METRICS, RESULT

from harness.paper.load import load_paper
from harness.tools.results import BOUND, FIGURE, Bound, page, pages_of, plain, rendered, reports_of

COMMITTED = Path(__file__).parents[2] / "docs" / "results"
MB = 10**6
MEANS = {0.01: {1: 0.08, 2: 0.084}, 0.1: {1: 0.05}}
"""λ → seed → R@20 of the runs in `folder`."""
PAGE = '{% set best = row("small/mini", "bpr") %}\n# Title\n\nIt is {{ best.mean("R@20") }}.\n\n## More\n'


@pytest.fixture(scope="module")
def bound() -> Bound:
    """The committed runs."""
    return Bound(COMMITTED / "runs", load_paper())


@pytest.fixture(scope="module")
def answer(bound: Bound) -> tuple[Path, str]:
    """The committed answer as it would be made."""
    return COMMITTED / "answer.md", rendered(COMMITTED, bound)[COMMITTED / "answer.md"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of results with three runs of BPR."""
    for reg_weight, seeds in MEANS.items():
        for seed, value in seeds.items():
            run = tmp_path / "pages" / "runs" / "small" / "mini" / f"bpr-{reg_weight}-seed{seed}"
            run.mkdir(parents=True)
            about = {"config": {"reg_weight": reg_weight}, "searched": ["reg_weight"], "seed": seed}
            about |= {"environment": {"gpu": None, "cpu": "some", "source_revision": "abc", "source_dirty": False}}
            metrics = dict.fromkeys(METRICS, value)
            (run / "run.json").write_text(json.dumps(DESCRIPTION | about))
            (run / "result.json").write_text(json.dumps(RESULT | {"valid": metrics, "test": metrics}))
    return tmp_path / "pages"


def changed(wanted: str) -> Iterator[tuple[int, str]]:
    """Line of each bound figure of a rendered page, and the page with one digit of it changed."""
    for span in BOUND.finditer(wanted):
        for figure in FIGURE.finditer(span[1]):
            digit = re.search(r"\d", figure[0])
            assert digit is not None
            place = span.start(1) + figure.start() + digit.start()
            other = str((int(wanted[place]) + 1) % 10)
            yield wanted.count("\n", 0, place) + 1, plain(wanted[:place] + other + wanted[place + 1 :])


def test_the_committed_pages_and_reports_are_what_the_runs_give(bound: Bound) -> None:
    pages, reports = pages_of(COMMITTED, bound), [*reports_of(COMMITTED, bound)]
    assert [fault for one in (*pages, *reports) for fault in one.faults] == []
    assert {one.path.name for one in pages if one.bound} >= {"answer.md", "README.md"}
    assert len(reports) >= 30


def test_each_figure_of_the_answer_that_is_changed_is_found(answer: tuple[Path, str]) -> None:
    path, wanted = answer
    assert page(path, wanted).faults == ()
    pages = [*changed(wanted)]
    assert len(pages) > 50
    for line, stored in pages:
        faults = page(path, wanted, stored).faults
        assert len(faults) == 1, faults
        assert re.fullmatch(rf"{re.escape(str(path))}:{line}: says .*\d.*, the runs give .*\d.*", faults[0])


def test_the_answer_is_one_screen_without_a_figure_of_its_own(answer: tuple[Path, str]) -> None:
    path, wanted = answer
    assert wanted.count("\n") <= 60
    assert page(path, wanted).unbound == ()


def test_results_stay_small() -> None:
    sizes = {path: path.stat().st_size for path in COMMITTED.rglob("*") if path.is_file()}
    runs = sum(size for path, size in sizes.items() if COMMITTED / "runs" in path.parents)
    assert runs <= 15 * MB
    assert sum(sizes.values()) - runs <= 10 * MB


def test_a_page_is_written_and_holds_until_it_or_a_run_is_changed(folder: Path, command: Command) -> None:
    (folder / "page.md.j2").write_text(PAGE)
    assert command("results", "verify", folder).code == 1
    assert command("results", "write", folder).code == 0
    assert (folder / "page.md").read_text() == "# Title\n\nIt is 0.0820.\n\n## More\n"
    assert command("results", "verify", folder).code == 0

    (folder / "page.md").write_text("# Title\n\nIt is 0.0830.\n\n## More of it\n")
    outcome = command("results", "verify", folder)
    assert outcome.code == 1
    assert f"{folder}/page.md:3: says 0.0830, the runs give 0.0820" in outcome.out.splitlines()
    assert f"{folder}/page.md:5: says ## More of it, its template ## More" in outcome.out.splitlines()

    command("results", "write", folder)
    result = folder / "runs" / "small" / "mini" / "bpr-0.01-seed1" / "result.json"
    result.write_text(result.read_text().replace("0.08", "0.09"))
    assert "says 0.0820, the runs give 0.0870" in command("results", "verify", folder).out


def test_a_report_is_made_anew(folder: Path, command: Command) -> None:
    report = folder / "small" / "report.md"
    command("report", folder / "runs" / "small", "--out", report.parent, "--format", "md,html,tex,csv,json")
    outcome = command("results", "verify", folder)
    assert (outcome.code, "5 files of reports" in outcome.out) == (0, True)
    report.write_text(report.read_text().replace("0.0820", "0.0821"))
    outcome = command("results", "verify", folder)
    assert outcome.code == 1
    assert re.search(r"small/report.md:\d+: says 0.0821, the runs give 0.0820", outcome.out)


def test_a_readme_above_quotes_the_first_lines_of_a_page(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = folder.rename(folder.parent / "docs-of-it") / "results"
    inner.mkdir()
    (inner.parent / "runs").rename(inner / "runs")
    (inner / "page.md.j2").write_text(PAGE)
    readme = inner.parent.parent / "README.md"
    readme.write_text("Before\n<!-- the first lines of docs-of-it/results/page.md -->\n<!-- end -->\nAfter\n")
    assert command("results", "write", inner).code == 0
    assert readme.read_text().splitlines()[2] == "It is 0.0820."
    readme.write_text(readme.read_text().replace("0.0820", "0.0920"))
    for place, named in ((inner, inner), (inner.parent.parent, "docs-of-it/results"), (inner.parent, "results")):
        monkeypatch.chdir(place)
        assert "README.md:3: says 0.0920, the runs give 0.0820" in command("results", "verify", named).out


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ('row("small/mini", "bpr", "reg_weight=0.1").mean("R@20")', "0.0500"),
        ('row("small/mini", "bpr").runs | length', "2"),
        ('row("small/mini", "bpr", "vectors.content=given", "reg_weight=0.01").seeds', "1, 2"),
        ('row("small/mini", "bpr").verdicts["recall@20"].interval', "0.0566 to 0.1074"),
        ('row("small/mini", "bpr").verdicts["recall@20"].outcome', "unpublished"),
        ('lead(row("small/mini", "bpr"), row("small/mini", "bpr", "reg_weight=0.1"), "R@20")', "+64.0 %"),
        ('lead(row("small/mini", "bpr"), row("small/mini", "bpr"), "R@20")', "0.0 % [0.0, 0.0] over 2 seeds"),
        ('(row("small/mini", "bpr").mean("R@20") / published("Baby", "BM3", "R@20") - 1) | apart', "7.1 % below"),
        ('claim("best everywhere", "paper").outcome', "holds"),
        ('comparisons(claim("best everywhere", "paper"), "Baby", "holds")', "32"),
        ('consensus("Baby", "BM3", "R@20").position', "above all"),
    ],
)
def test_what_an_expression_may_name(folder: Path, command: Command, expression: str, text: str) -> None:
    (folder / "page.md.j2").write_text(f"{{{{ {expression} }}}}\n")
    assert command("results", "write", folder).code == 0
    assert (folder / "page.md").read_text() == f"{text}\n"


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("1 +", "unexpected 'end of print statement'"),
        ("nothing", "'nothing' is undefined"),
        ('row("small/mini", "vbpr")', "no finished run of vbpr"),
        (
            'row("small/mini", "bpr", "reg_weight=1")',
            "no finished run of bpr reg_weight=1; there is reg_weight=0.01, reg_weight=0.1",
        ),
        ('row("smal/mini", "bpr")', "runs/smal"),
        ('row("small/mini", "bpr").mean("R@21")', "is the name of the metric right?"),
        ('published("Baby", "BM4", "R@20")', "nothing is published of BM4, Baby, R@20"),
        ('claim("best anywhere", "paper")', "nearest: best everywhere"),
        ("1 / 0", "division by zero"),
        ("''.__class__.__mro__", "unsafe"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_named_with_its_line(
    folder: Path, command: Command, expression: str, told: str
) -> None:
    (folder / "page.md.j2").write_text(f"One\nline\n{{{{ {expression} }}}}\n")
    for verb in ("verify", "write"):
        line = refused(command("results", verb, folder))
        assert f"{folder}/page.md.j2:3: " in line
        assert told in line
    assert not (folder / "page.md").exists()


def test_nothing_to_verify_is_no_pass(tmp_path: Path, command: Command) -> None:
    assert "does not exist" in refused(command("results", "verify", tmp_path / "none"))
    (tmp_path / "page.md").write_text("Half of it is 0.5.\n")
    outcome = command("results", "verify", tmp_path, "--unbound")
    assert outcome.code == 3
    assert f"{tmp_path}/page.md:1: 0.5 is bound to nothing" in outcome.out.splitlines()
    assert command("results", "write", tmp_path).code == 3


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        ("It is 0.0825 in 3 runs, +1.5 % and 2,048 of 19,445.", ["0.0825", "3", "+1.5", "2,048", "19,445"]),
        ("On 2026-11-30, at WWW 2023, with 0.1.0 and Python 3.11.", []),
        ("R@20 of BM3 by `bm3 tables 3` on 256-d, seed 999, seeds 1 to 3.", []),
        ("[page 7](a/b7.md) https://example.org/9", ["7"]),
        ("## 3 Results\n1. First, Table 3, equation (2).", []),
        ("```\n$ bm3 tables 3\nbm3 train bpr mini --seed 7\nR@20  0.0825\n```", ["0.0825"]),
    ],
)
def test_which_numbers_are_figures(tmp_path: Path, text: str, figures: list[str]) -> None:
    path = tmp_path / "page.md"
    path.write_text(text)
    assert [figure for _, figure in page(path, None).unbound] == figures


def test_the_quick_starts_rows_are_those_of_the_stored_report() -> None:
    def cells(page: Path, columns: list[int]) -> Iterator[tuple[str, ...]]:
        for line in page.read_text().splitlines():
            row = [cell.strip(" †") for cell in line.strip("|").split("|")]
            if len(row) > max(columns) and row[1] in ("R@10", "R@20", "N@10", "N@20"):
                yield tuple(row[column] for column in columns)

    shown = {*cells(COMMITTED.parent / "quickstart.md", [*range(7)])}
    assert len(shown) > 4
    assert shown <= {*cells(COMMITTED / "baby" / "report.md", [0, 1, 2, 5, 6, 9, 10])}
