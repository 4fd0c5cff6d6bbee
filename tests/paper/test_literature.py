"""What others report: strict loading, one voice per group, and where a published figure lies."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Command, refused
from run_files import HAND_MADE

from bm3.errors import DataError
from harness.paper.claims import ClaimOutcome, Reported, claims_of_rows
from harness.paper.literature import (
    FIGURE_COLUMNS,
    SOURCE_COLUMNS,
    Origin,
    Position,
    ReportedValue,
    Standing,
    consensus,
    load_literature,
    variation,
)
from harness.paper.load import Paper, load_paper
from harness.paper.study import make_study
from harness.report.markdown import markdown
from harness.report.write import made

PAPER = load_paper()
NAMES = ("Baby", "BM3", "R@20")


def figures(*values: float, cell: Sequence[str] = NAMES, standing: str = "independent") -> list[ReportedValue]:
    """One of each group."""
    return [
        ReportedValue(*cell, value, Origin(f"s{n}", f"g{n}", "title", "address"), "Table 1", Standing(standing), "", "")
        for n, value in enumerate(values)
    ]


def paper_with(*reported: ReportedValue) -> Paper:
    paper = PAPER.model_copy()
    paper.__dict__["literature"] = reported
    return paper


def literature(folder: Path, row: str, sources: str = "s,g,title,address") -> Path:
    folder.mkdir()
    (folder / "sources.csv").write_text(f"{','.join(SOURCE_COLUMNS)}\n{sources}\n")
    (folder / "figures.csv").write_text(f"{','.join(FIGURE_COLUMNS)}\n{row}\n")
    return folder


def test_the_variation_is_that_of_its_source() -> None:
    # By hand: s = 1, c4(3) = √(2/2) Γ(3/2) / Γ(1) = 0.8862, m = 2, 1 + 1/12.
    assert variation([1, 2, 3]) == pytest.approx(13 / 12 / 0.886227 / 2)
    assert variation([1]) is None


@pytest.mark.parametrize(
    ("values", "position"),
    [
        ((0.08, 0.09), Position.AMONG),
        ((0.07, 0.0883), Position.AMONG),
        ((0.07, 0.08), Position.ABOVE_ALL),
        ((0.09, 0.1), Position.BELOW_ALL),
        ((0.09,), Position.TOO_FEW),
        ((), Position.TOO_FEW),
    ],
)
def test_a_published_figure_is_placed_among_groups(values: tuple[float, ...], position: Position) -> None:
    copies = figures(0.0883, 0.0883, standing="copied")
    found = consensus(paper_with(*figures(*values), *copies), *NAMES)
    assert (found.position, len(found.voices), found.copies) == (position, len(values), 2)


def test_several_figures_of_a_group_are_one_voice() -> None:
    first, second = figures(0.08, 0.09)
    assert consensus(paper_with(first, replace(second, origin=first.origin)), *NAMES).voices == {"g0": 0.08}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("Baby,BM3,R@20,0.08,t,Table 1,independent,", "figures.csv:2: unknown source 't'"),
        ("Baby,BM3,R@20,0.08,s,Table 1,mine,", "figures.csv:2: unknown standing 'mine'"),
        ("Baby,BM3,R@20,x,s,Table 1,independent,", "figures.csv:2: value 'x'"),
        ("Baby,BM3,R@20,,s,Table 1,independent,", "figures.csv:2: value ''"),
        ("Baby,BM3,R@20,0.08", "figures.csv:2: 4 fields; expected 8"),
    ],
)
def test_a_line_that_does_not_fit_is_told(tmp_path: Path, row: str, told: str) -> None:
    with pytest.raises(DataError, match=r"^[^\n]*$") as raised:
        load_literature(literature(tmp_path / "literature", row))
    assert told in str(raised.value)


@pytest.mark.parametrize("sources", ["s,g,title,", "s,g,title,address\ns,h,title,address"])
def test_a_source_is_described_once_and_in_full(tmp_path: Path, sources: str) -> None:
    with pytest.raises(DataError, match=r"sources.csv:\d: source, group"):
        load_literature(literature(tmp_path / "literature", "Baby,BM3,R@20,1,s,Table 1,independent,", sources))


@pytest.mark.parametrize(
    ("bm3", "lattice", "outcome"),
    [
        ((0.09, 0.091, 0.092), (0.08, 0.081, 0.0821), ClaimOutcome.HOLDS),
        ((0.08, 0.081, 0.0821), (0.09, 0.091, 0.092), ClaimOutcome.FAILS),
        ((0.09, 0.08), (0.08, 0.09), ClaimOutcome.UNDECIDED),
        ((0.09,), (0.08,), ClaimOutcome.NO_EVIDENCE),
    ],
)
def test_a_claim_is_judged_within_independent_groups(
    bm3: tuple[float, ...], lattice: tuple[float, ...], outcome: ClaimOutcome
) -> None:
    claim = replace(PAPER.claims[0], others=("LATTICE",), datasets=("Baby",), metrics=("R@20",))
    reported = [*figures(*bm3), *figures(*lattice, cell=("Baby", "LATTICE", "R@20"))]
    copies = figures(0.01, 0.01, 0.01, standing="copied")
    (result,) = claims_of_rows([claim], Reported([], None, PAPER.tolerances, [*copies, *reported]))
    assert (result.where, result.outcome) == ("independents", outcome)
    for place, one in enumerate(reported[len(bm3) :], len(bm3)):
        reported[place] = replace(one, origin=replace(one.origin, group=f"{one.origin.group}'s neighbour"))
    (result,) = claims_of_rows([claim], Reported([], None, PAPER.tolerances, reported))
    assert result.outcome is (outcome if outcome is ClaimOutcome.NO_EVIDENCE else ClaimOutcome.UNDECIDED)


def test_a_cell_is_shown_with_every_figure(command: Command) -> None:
    done = command("literature", "bm3", "--dataset", "baby", "--metric", "recall@20")
    cell = r"Baby +BM3 +R@20 +0\.0883 +4 +0\.0747 to 0\.0876 +8\.2 +above all 4 +7 "
    assert re.search(cell, done.out)
    for text in ("0.0847  independent", "0.0883  copied", "smore"):
        assert text in done.out
    assert done.code == 0
    assert "Claims" not in done.out


@pytest.mark.parametrize(
    ("model", "dataset", "standing", "figures"),
    [
        ("EASE", "Baby", "independent", [0.0561, 0.0825, 0.0327, 0.0396]),
        ("BM3", "TikTok", "other-protocol", [0.0703, 0.1064, 0.0363, 0.0454]),  # its parts are swapped
    ],
)
def test_models_and_data_sets_that_the_paper_does_not_have_are_kept_too(
    command: Command, model: str, dataset: str, standing: str, figures: list[float]
) -> None:
    found = [consensus(PAPER, dataset, model, metric) for metric in PAPER.metrics]
    for one, value in zip(found, figures, strict=True):
        assert (value, standing) in [(figure.value, figure.standing) for figure in one.figures]
    assert all(one.voices for one in found) is (standing == "independent")
    assert {one.published for one in found} == {None}
    done = command("literature", model.lower(), "--dataset", dataset.lower())
    assert done.code == 0
    assert done.out.count("unpublished") == len(figures)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("bm4",), "nothing is kept here of what others report of 'bm4'; nearest: BM3"),
        (("easecontent",), "nearest: EASE + content"),
        (("--dataset", "babby"), "nearest: Baby"),
        (("--metric", "R@21"), "nothing is kept here of what others report by 'R@21'"),
        (("buir", "--dataset", "electronics"), "what others report of 'buir'"),
        (("ease", "--dataset", "electronics"), "by R@10, R@20, N@10, N@20 of EASE on Electronics"),
        (("--paper", "damrs"), "nothing is kept there of what others report"),
        (("--out", "nowhere"), "nowhere"),
    ],
)
def test_what_is_not_kept_of_others_is_one_line(command: Command, arguments: tuple[str, ...], told: str) -> None:
    assert told in refused(command("literature", *arguments))


def test_a_report_has_what_others_report_where_it_is_asked_for_and_html_always() -> None:
    study = make_study(HAND_MADE, "a question")
    title = "What others report"
    assert title not in markdown(study)
    assert title in markdown(replace(study, literature=True))
    assert title in str(made(study, "html")["report.html"])


def test_a_table_of_the_paper_has_what_others_report_where_it_is_asked_for(command: Command) -> None:
    plain, asked = command("tables", 3, "--dataset", "baby"), command("tables", 3, "--dataset", "baby", "--literature")
    assert asked.out.startswith(plain.out)
    assert "above all 4" in asked.out.removeprefix(plain.out)
    assert "tables of accuracy" in refused(command("tables", 4, "--literature"))
    assert "literature/*.csv" in refused(command("tables", 3, "--paper", "damrs", "--literature"))
