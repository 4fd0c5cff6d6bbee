"""The paper's tables: every published figure, what other sources print, and ours beneath without mixing the two."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from bm3 import ConfigError
from harness.paper.claims import Improvement, load_claims
from harness.paper.expected import (
    PublishedValue,
    Status,
    expected_dir,
    load_expected,
    load_sources,
    load_tolerances,
    values_of_cell,
)
from harness.paper.study import Study, make_study
from harness.report.efficiency import RATIOS_TO
from harness.report.paper import (
    IMPROVEMENT,
    Line,
    PaperTable,
    Statistics,
    as_csv,
    as_markdown,
    as_text,
    improvement,
    paper_table,
)

RUNS = Path(__file__).parent / "golden" / "runs"
EXPECTED = load_expected(expected_dir())
NINE = ("BPR", "LightGCN", "BUIR", "VBPR", "MMGCN", "GRCN", "DualGNN", "LATTICE", "BM3")


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study(RUNS, "a report on hand-made records")


def table(
    number: int,
    study: Study | None = None,
    statistics: dict[str, Statistics | None] | None = None,
    dataset: str | None = None,
    expected: tuple[PublishedValue, ...] = EXPECTED,
) -> PaperTable:
    directory = expected_dir()
    return paper_table(
        number,
        expected,
        load_sources(directory),
        load_tolerances(directory / "tolerances.toml"),
        study=study,
        statistics=statistics,
        dataset=dataset,
    )


def line(found: PaperTable, *head: str) -> Line:
    (only,) = [line for line in found.lines if line.head == head]
    return only


@pytest.mark.parametrize("number", [2, 3, 4])
def test_every_published_figure_stands_in_its_cell(number: int) -> None:
    found = table(number)
    for value in EXPECTED:
        if value.source == f"paper-table{number}":
            head = (value.dataset, "published") if number == 2 else (value.dataset, value.metric, "published")
            text = line(found, *head).cells[value.model or value.metric]
            assert text == "-" if value.value is None else float(text) == value.value


def test_models_stand_in_the_papers_order_and_figures_have_its_digits() -> None:
    found = table(3)
    assert found.columns == (*NINE, IMPROVEMENT)
    assert line(found, "Baby", "R@10", "published").cells["BM3"] == "0.0564"
    assert line(table(4), "Sports", "Memory (GB)", "published").cells["BPR"] == "2.00"


def test_the_improvement_that_is_computed_is_the_one_that_is_claimed() -> None:
    claims = load_claims(expected_dir() / "claims.toml")
    (claim,) = [claim for claim in claims if isinstance(claim, Improvement)]
    found = table(3)
    for dataset, percent in claim.percent.items():
        assert line(found, dataset, claim.metric, "published").cells[IMPROVEMENT] == f"+{percent:.2f}"


def test_the_improvement_is_over_the_best_model_that_has_a_figure() -> None:
    assert improvement({"BM3": 3.0, "BPR": 1.0, "VBPR": 2.0, "LATTICE": None}) == pytest.approx(50)
    assert improvement({"BM3": 3.0, "VBPR": float("nan"), "BPR": 2.0}) == pytest.approx(50)
    assert improvement({"BM3": 3.0}) is None
    assert improvement({"BPR": 3.0, "BM3": None}) is None


def test_another_source_has_a_line_with_only_the_figures_that_differ() -> None:
    found = table(3)
    assert line(found, "Baby", "R@10", "toolbox").cells == {"GRCN": "0.0539", "LATTICE": "0.0547"}
    assert all(
        values_of_cell(EXPECTED, dataset, model, metric)[1].value == float(text)
        for dataset, metric, source in (other.head for other in found.lines if other.head[2] == "toolbox")
        for model, text in line(found, dataset, metric, source).cells.items()
    )
    assert "toolbox" in found.sources
    assert "toolbox" not in table(4).sources


@pytest.mark.parametrize(
    ("number", "head", "column", "reason"),
    [
        (2, ("Electronics", "published"), "interactions", "1689188 elsewhere"),
        (3, ("Sports", "R@10", "published"), "GRCN", "sources differ by more than 3 %"),
        (4, ("Electronics", "Memory (GB)", "published"), "BM3", "about 9.5 GB"),
        (4, ("Electronics", "Memory (GB)", "published"), "LATTICE", "neither a time nor an accuracy"),
    ],
)
def test_a_disputed_figure_is_marked_and_the_dispute_is_told(
    number: int, head: tuple[str, ...], column: str, reason: str
) -> None:
    found = table(number)
    assert reason in line(found, *head).notes[column].reason
    assert f"{line(found, *head).cells[column]}‡" in as_text(found)
    assert any(text.startswith("‡") and reason in text for text in found.footnotes)


def test_sources_that_differ_by_less_than_the_band_are_no_dispute() -> None:
    assert line(table(3), "Baby", "R@10", "published").notes == {}


def test_a_figure_that_a_source_disputes_is_marked_in_table_3_too() -> None:
    cell = next(v for v in EXPECTED if (v.source, *v.cell) == ("paper-table3", "baby", "bm3", "recall@10"))
    disputed = replace(cell, status=Status.DISPUTED, note="a misprint")
    expected = tuple(disputed if value is cell else value for value in EXPECTED)
    assert line(table(3, expected=expected), "Baby", "R@10", "published").notes["BM3"].reason == "disputed: a misprint"


def test_ours_stand_beneath_with_half_interval_and_seeds(study: Study) -> None:
    found = table(3, study)
    verdict = study.rows[1].verdicts["recall@10"]
    assert verdict.interval is not None
    assert line(found, "Baby", "R@10", "ours").cells["BPR"] == f"{verdict.mean:.4f}"
    half = (verdict.interval[1] - verdict.interval[0]) / 2
    assert line(found, "Baby", "R@10", "± 95 %").cells["BPR"] == f"{half:.4f}"
    assert line(found, "Baby", "R@10", "seeds").cells == {"BPR": "2", "LightGCN": "2", "BM3": "2"}
    assert not [other for other in found.lines if other.head[0] == "Sports" and other.head[-1] == "ours"]


def test_our_runs_change_no_published_line(study: Study) -> None:
    for number in (2, 3, 4):
        assert set(map(str, table(number).lines)) <= set(map(str, table(number, study).lines))


def test_our_figures_on_surrogate_features_are_marked_and_so_is_what_follows_from_them(study: Study) -> None:
    ours = line(table(3, study), "Baby", "R@10", "ours")
    assert set(ours.notes) == {"BM3", IMPROVEMENT}
    assert "surrogate features: text, visual" in ours.notes["BM3"].reason
    assert set(line(table(4, study), "Baby", "Time (s/epoch)", "ours").notes) == {"BM3"}


def test_the_row_with_default_settings_stands_for_a_model_and_else_the_note_says_which(study: Study) -> None:
    bpr = study.rows[1]
    variant = replace(bpr, label="bpr embedding_size=8", runs=bpr.runs[:1])
    both = table(3, replace(study, rows=(variant, *study.rows)))
    assert both.lines == table(3, study).lines
    alone = line(table(3, replace(study, rows=(variant,))), "Baby", "R@10", "ours")
    assert alone.notes["BPR"].reason == "run with embedding_size=8"


def test_time_and_memory_have_ratios_to_lightgcn_and_bpr(study: Study) -> None:
    found = table(4, study)
    published = line(found, "Baby", "Time (s/epoch)", "published / LightGCN").cells
    ours = line(found, "Baby", "Time (s/epoch)", "ours / LightGCN").cells
    assert published["BM3"] == f"{0.85 / 0.99:.2f}"
    assert ours == {"BPR": f"{0.5 / 3.2:.2f}", "LightGCN": "1.00", "BM3": f"{1.7 / 3.2:.2f}"}
    assert "LATTICE" not in line(found, "Electronics", "Time (s/epoch)", "published / BPR").cells


def test_our_ratios_stand_next_to_the_published_ones_and_absolutes_before_them(study: Study) -> None:
    heads = [line.head[-1] for line in table(4, study).lines if line.head[:2] == ("Baby", "Time (s/epoch)")]
    assert heads == ["published", "ours", *(f"{whose} / {m}" for m in RATIOS_TO for whose in ("published", "ours"))]


def test_figures_of_two_machines_are_not_divided(study: Study) -> None:
    lightgcn = next(row for row in study.rows if row.result.model == "lightgcn")
    run = lightgcn.result.runs[0]
    elsewhere = replace(run, run={**run.run, "environment": {"device": "cuda", "gpu": "Some GPU"}})
    moved = replace(lightgcn, runs=(elsewhere,))
    rows = tuple(moved if row is lightgcn else row for row in study.rows)
    found = table(4, replace(study, rows=rows))
    assert line(found, "Baby", "Time (s/epoch)", "ours / LightGCN").cells == {"LightGCN": "1.00"}
    assert set(line(found, "Baby", "Time (s/epoch)", "ours / BPR").cells) == {"BPR", "BM3"}


def test_memory_that_was_not_simply_read_is_marked_with_how_it_was_found(study: Study) -> None:
    bpr = study.rows[1]
    run = bpr.result.runs[0]
    assert run.result is not None
    memory = {**run.result["memory"], "gpu_process_peak": {"bytes": 2**31, "note": None, "how": "rise of the device's"}}
    found_so = replace(run, result={**run.result, "memory": memory})
    row = replace(bpr, runs=(found_so,))
    found = table(4, replace(study, rows=(row,)))
    assert line(found, "Baby", "Memory (GB)", "ours").cells == {"BPR": "2.00"}
    assert line(found, "Baby", "Memory (GB)", "ours").notes["BPR"].reason == "rise of the device's"
    assert line(found, "Baby", "Time (s/epoch)", "ours").notes == {}


def test_our_time_and_memory_name_their_device_and_main_memory_is_not_taken_for_a_gpus(study: Study) -> None:
    found = table(4, study)
    assert line(found, "Baby", "Memory (GB)", "ours, RAM").cells["BPR"] == f"{700 / 1024:.2f}"
    assert not [other for other in found.lines if other.head == ("Baby", "Memory (GB)", "ours")]
    (machine,) = [text for text in found.remarks if text.startswith("Ours on")]
    assert "cpu, a processor, 2 cores, torch threads: 1: Baby BPR, Baby LightGCN, Baby BM3" in machine


def test_statistics_of_data_stand_beneath_the_published_ones() -> None:
    found = table(2, statistics={"Baby": Statistics(19445, 7050, 160792), "Sports": None})
    assert line(found, "Baby", "ours").cells == line(found, "Baby", "published").cells
    assert set(line(found, "Sports", "ours").cells.values()) == {"not found"}
    assert not [other for other in found.lines if other.head == ("Electronics", "ours")]


def test_statistics_come_from_runs_too(study: Study) -> None:
    assert line(table(2, study), "Baby", "ours").cells["interactions"] == "160792"


@pytest.mark.parametrize("number", [2, 3, 4])
@pytest.mark.parametrize("layout", [as_text, as_markdown])
def test_every_table_ends_with_its_sources(number: int, layout: object) -> None:
    assert callable(layout)
    text = layout(table(number))
    last = text.rstrip().splitlines()[-3:]
    source = load_sources(expected_dir())[f"paper-table{number}"]
    assert any(all(part in row for part in (source.title, source.table, source.hardware)) for row in last)


@pytest.mark.parametrize("number", [2, 3, 4])
def test_the_csv_repeats_heads_and_has_plain_figures_with_their_notes_and_source(number: int, study: Study) -> None:
    found = table(number, study)
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert len(rows) == len(found.lines)
    for row in rows:
        assert row["data set"] in ("Baby", "Sports", "Electronics")
        assert all(row[column] in ("", "-") or float(row[column]) is not None for column in found.columns)
        assert ("Zhou et al." in row["source"]) == (row["figures"] == "published")
    assert any("disputed" in row["notes"] for row in rows)


def test_one_data_set_can_be_chosen_in_any_case() -> None:
    assert {found.head[0] for found in table(3, dataset="sports").lines} == {"Sports"}
    with pytest.raises(ConfigError, match=r"no data set 'tiktok'; it has Baby, Sports, Electronics"):
        table(3, dataset="tiktok")


@pytest.mark.parametrize(("number", "metric"), [(3, "R@20"), (4, "Memory (GB)"), (4, "Time (s/epoch)")])
def test_a_model_that_ran_out_of_memory_here_has_a_dash(number: int, metric: str) -> None:
    """Unless another of its runs on the data set has a result."""
    whole = make_study(RUNS, "a report on hand-made records")
    on_baby = [run for run in whole.runs if run.finished and run.run["dataset"]["name"] == "baby"]
    starved = {run.run["model"]: run for run in on_baby}
    (lost, kept) = list(starved)[:2]
    failure = {"kind": "out of memory", "message": "too large", "when": "2026-01-01T00:00:00+00:00"}
    others = [run for run in whole.runs if run.run["model"] != lost]
    runs = [*others, *(replace(starved[model], result=None, failure=failure) for model in (lost, kept))]
    study = make_study(RUNS, "a report", of=runs)
    ours = [line for line in table(number, study, dataset="Baby").lines if line.head[-1].startswith("ours")]
    lines = [line for line in ours if line.head[1] == metric and "/" not in line.head[-1]]
    assert lines
    cells = {column.lower(): text for line in lines for column, text in line.cells.items()}
    assert cells[lost] == "-"
    assert cells[kept] != "-"
