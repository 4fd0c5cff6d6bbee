"""The paper's tables: every published figure, what other sources print, and ours beneath without mixing the two."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from run_files import HAND_MADE, altered, without_result

from harness.paper.costs import ALLOCATED, CONTEXT, PROCESS, RESERVED
from harness.paper.load import Paper, load_paper
from harness.paper.published import Status
from harness.paper.study import SHARED, Study, make_study
from harness.paper.verdict import Outcome
from harness.report.paper_tables import IMPROVEMENT, improvement, paper_table
from harness.report.tables import Cell, Table
from harness.runs.record import RunRecord

PAPER = load_paper()
TIME, MEMORY = "Time (s/epoch)", "Memory (GB)"


def table(number: int, study: Study | None = None, paper: Paper = PAPER, **options: Any) -> Table:
    return paper_table(paper, paper.table(number), study=study, **options)


def line(found: Table, *head: str) -> dict[str, Cell]:
    """The cells of a line by column, as far as they are not empty."""
    (only,) = [row for row in found.rows if tuple(cell.text for cell in row[: len(head)]) == head]
    cells = dict(zip(found.head, only, strict=True))
    return {name: cell for name, cell in cells.items() if cell.text and name not in ("data set", "metric", "figures")}


def texts(cells: dict[str, Cell]) -> dict[str, str]:
    return {column: cell.text for column, cell in cells.items()}


def changed(study: Study, model: str, **result: Any) -> Study:
    """With another result of the first run of a model, which alone is left of it."""
    rows = (replace(row, runs=(altered(row.runs[0], result),)) if row.model == model else row for row in study.rows)
    return replace(study, rows=tuple(rows))


@pytest.mark.parametrize(
    ("figures", "gain"),
    [
        ({"BM3": 3.0, "BPR": 1.0, "VBPR": 2.0}, 50),
        ({"BM3": 3.0, "VBPR": float("nan"), "BPR": 2.0}, 50),
        ({"BM3": 3.0}, None),
        ({"BPR": 3.0}, None),
    ],
)
def test_the_improvement_is_over_the_best_model_that_has_a_figure(figures: dict[str, float], gain: float) -> None:
    assert improvement(figures, "BM3") == (None if gain is None else pytest.approx(gain))


def test_figures_that_the_paper_does_not_judge_by_stand_as_published_alone(study: Study) -> None:
    """R@10 is printed and not judged by; and memory and time are all that is read of costs."""
    paper = PAPER.model_copy(update={"metrics": ("R@20",)})
    both = table(3, make_study(HAND_MADE, "a test", paper=paper), paper, dataset="baby")
    assert {row[1].text for row in both.rows if row[2].text == "ours"} == {"R@20"}
    values = [replace(one, metric="R@20") if one.metric == TIME else one for one in PAPER.values]
    paper = PAPER.model_copy(update={"values": tuple(values)})
    costs = table(4, study, paper, dataset="baby")
    assert {row[1].text for row in costs.rows if row[2].text.startswith("ours")} == {MEMORY}


def test_a_figure_that_a_source_disputes_is_marked_where_accuracy_is_judged_too() -> None:
    cell = next(v for v in PAPER.values if (v.source, *v.cell) == ("paper-table3", "baby", "bm3", "recall@10"))
    disputed = replace(cell, status=Status.DISPUTED, note="a misprint")
    paper = PAPER.model_copy(update={"values": tuple(disputed if v is cell else v for v in PAPER.values)})
    published = line(table(3, paper=paper), "Baby", "R@10", "published")
    assert published["BM3"].note == published[IMPROVEMENT].note == "disputed: a misprint"


@pytest.mark.parametrize("number", [2, 3, 4])
def test_ours_change_no_published_line(number: int, study: Study) -> None:
    assert {*map(str, table(number).rows)} <= {*map(str, table(number, study).rows)}


def test_the_row_with_default_settings_stands_for_a_model_and_else_the_note_says_which(study: Study) -> None:
    bpr = study.rows[1]
    variant = replace(bpr, label="bpr embedding_size=8", departures=("embedding_size=8",), runs=bpr.runs[:1])
    assert table(3, replace(study, rows=(variant, *study.rows))) == table(3, study)
    alone = line(table(3, replace(study, rows=(variant,))), "Baby", "R@10", "ours")
    assert alone["BPR"].note == "run with embedding_size=8"


def test_figures_of_two_machines_and_of_shared_ones_are_not_divided(study: Study) -> None:
    (run, *_), others = study.rows[2].runs, study.rows[:2]
    moved = replace(study.rows[2], runs=(altered(run, environment={"device": "cuda", "gpu": "Some GPU"}),))
    found = table(4, replace(study, rows=(*others, moved)))
    assert texts(line(found, "Baby", TIME, "ours / LightGCN")) == {"LightGCN": "1.00"}
    assert set(line(found, "Baby", TIME, "ours / BPR")) == {"BPR", "BM3"}
    shared = table(4, replace(study, rows=tuple(replace(row, shared=frozenset({run.path})) for row in study.rows)))
    assert line(shared, "Baby", TIME, "ours")["LightGCN"].mark == SHARED
    assert set(line(shared, "Baby", TIME, "ours / BPR")) == {"BPR", "BM3"}
    assert not [row for row in shared.rows if [cell.text for cell in row[1:3]] == [TIME, "ours / LightGCN"]]


def test_memory_says_how_it_was_read_and_found_and_main_memory_is_not_taken_for_a_gpus(study: Study) -> None:
    found = table(4, study)
    assert line(found, "Baby", MEMORY, "ours, RAM")["BPR"].text == f"{700 / 1024:.2f}"
    assert not [row for row in found.rows if [cell.text for cell in row[:3]] == ["Baby", MEMORY, "ours"]]
    assert any(
        "cpu, a processor, 2 cores, torch threads: 1: Baby BPR, Baby LightGCN, Baby BM3" in n for n in found.notes
    )
    on_gpu: dict[str, Any] = {"gpu_process_peak": {"bytes": 2**31, "note": None, "how": "rise of the device's"}}
    on_gpu["allocator_reserved_peak"], on_gpu["allocator_peak"] = ({"bytes": n, "note": None} for n in (2**30, 2**29))
    found = table(4, changed(study, "bpr", memory=on_gpu))
    cells = {way: line(found, "Baby", MEMORY, f"ours, {way}")["BPR"] for way in (PROCESS, RESERVED, ALLOCATED, CONTEXT)}
    assert [cell.text for cell in cells.values()] == ["2.00", "1.00", "0.50", "1.00"]
    assert cells[PROCESS].note == "rise of the device's"


def test_memory_is_judged_beyond_the_reference_model_and_ratios_are_not(study: Study) -> None:
    """On the CPU there is nothing to judge."""
    found = table(4, study)
    assert texts(line(found, "Baby", MEMORY, "published, beyond BPR"))["BM3"] == "0.52"
    assert any("Memory is judged beyond BPR, within 25 % and 0.01 GB" in note for note in found.notes)
    assert not [row for row in found.rows if row[2].text in ("verdict", "ours, beyond BPR")]
    for model, gib in (("bpr", 4), ("bm3", 5)):
        study = changed(study, model, memory={"gpu_process_peak": {"bytes": gib * 2**29, "note": None}})
    found = table(4, study)
    assert texts(line(found, "Baby", MEMORY, "ours, beyond BPR")) == {"BM3": "0.50"}
    verdict = line(found, "Baby", MEMORY, "verdict")["BM3"]
    assert (verdict.word, "surrogate features" in verdict.note) == (Outcome.NO_EVIDENCE, True)
    assert {cell.word for row in found.rows if "/" in row[2].text for cell in row} == {None}


@pytest.mark.parametrize(("number", "metric"), [(3, "R@20"), (4, MEMORY), (4, TIME)])
def test_a_model_that_ran_out_of_memory_here_has_a_dash(number: int, metric: str, study: Study) -> None:
    """Unless another of its runs on the data set has a result."""
    starved = {run.model: run for run in study.runs if run.finished}
    (lost, kept) = list(starved)[:2]
    failure = {"kind": "out of memory", "message": "too large", "when": "2026-01-01T00:00:00+00:00"}
    others: Sequence[RunRecord] = [run for run in study.runs if run.model != lost]
    runs = [*others, *(without_result(starved[model], failure) for model in (lost, kept))]
    found = table(number, make_study(HAND_MADE, "a report", of=runs), dataset="Baby")
    ours = [row for row in found.rows if row[1].text == metric and row[2].text in ("ours", "ours, RAM")]
    (cells,) = [{name.lower(): cell.text for name, cell in zip(found.head, row, strict=True)} for row in ours]
    assert cells[lost] == "-"
    assert cells[kept] != "-"
    without = table(number, make_study(HAND_MADE, "a report", of=others), dataset="Baby")
    assert ["A dash: out of memory." in one.notes for one in (found, without)] == [True, False]
