"""A second paper, which is there without a line of code: what commands say of `damrs`. No data set is needed."""

import csv
import io
from pathlib import Path

import pytest
from command_line import Command, refused
from rows_by_hand import run

from harness.paper.load import PublishedTable, load_paper
from harness.paper.rows import judged, rows_of
from harness.paper.study import make_study
from harness.paper.verdict import Outcome

DAMRS = load_paper("damrs")


@pytest.mark.parametrize("table", DAMRS.tables, ids=lambda table: table.source)
def test_its_tables_have_every_printed_figure_and_no_improvement(command: Command, table: PublishedTable) -> None:
    done = command("tables", table.number, "--paper", "damrs", "--format", "csv")
    assert (done.code, done.err, "Improv. (%)" in done.out) == (0, "", False)
    lines = [line for line in csv.DictReader(io.StringIO(done.out)) if line["figures"] == "published"]
    rows = {(line["data set"], line.get("metric")): line for line in lines}
    for value in DAMRS.values:
        if value.source == table.source:
            metric, column = (value.metric, value.model) if value.model else (None, value.metric)
            assert float(rows[value.dataset, metric][column]) == pytest.approx(value.value, abs=1e-9)


def test_its_sources_and_figures_are_listed(command: Command) -> None:
    assert "GRCN" in command("expected", "list", "--paper", "damrs").out
    done = command("expected", "show", "damrs-logs", "--dataset", "tiktok", "--model", "bm3", "--paper", "damrs")
    assert "0.1064" in done.out
    assert "no expected figures 'table3'" in refused(command("expected", "show", "table3", "--paper", "damrs"))


@pytest.mark.parametrize("words", [("suite", "show"), ("reproduce",)], ids=" ".join)
def test_its_suites_run_with_its_settings(command: Command, words: tuple[str, ...]) -> None:
    done = command(
        *words, *["tiktok", "--dataset", "mini", "--dry-run", "--paper", "damrs", "--model", "bpr", "--seeds", "1"]
    )
    assert done.code == 0
    (line,) = [line for line in done.out.splitlines() if line.startswith("bm3 train")]
    assert "--set epochs=500" in line
    assert "batch_size" not in line  # which is stated for its own data sets alone


def test_a_suite_of_another_paper_is_not_found_under_its_name(command: Command) -> None:
    assert "no suite 'table3'; shipped: " in refused(command("suite", "show", "table3", "--paper", "damrs"))


@pytest.mark.parametrize(
    "words", [("tables", "3"), ("expected", "list"), ("suite", "list"), ("reproduce",)], ids=" ".join
)
def test_a_paper_that_is_not_there_is_one_line_with_the_nearest(command: Command, words: tuple[str, ...]) -> None:
    assert "no paper and no folder 'damsr'; nearest: damrs" in refused(command(*words, "--paper", "damsr"))


def test_a_run_with_its_settings_is_judged_by_it_and_by_no_other_paper() -> None:
    own = {"epochs": 500, "batch_size": 4096}
    runs = [run("bpr", s, dataset="baby", grid={"reg_weight": 0.1}, changed=own, test=0.057) for s in (1, 2)]
    outcomes = {}
    for paper in (DAMRS, load_paper("bm3")):
        (row,), _ = rows_of(runs, paper)
        outcomes[paper.name] = (row.departures, judged(row, paper).verdicts["recall@20"].outcome)
    assert outcomes == {
        "damrs": ((), Outcome.REPRODUCED),
        "bm3": (("batch_size=4096", "epochs=500"), Outcome.NO_EVIDENCE),
    }


def test_where_its_test_part_is_the_one_that_training_stops_by_nothing_is_judged() -> None:
    runs = [run("bpr", s, dataset="tiktok", changed={"epochs": 500, "batch_size": 4096}, valid=0.0558) for s in (1, 2)]
    (row,), _ = rows_of(runs, DAMRS)
    assert (row.part, row.mean("recall@20")) == ("valid", 0.0558)
    verdicts = judged(row, DAMRS).verdicts.values()
    assert {verdict.outcome for verdict in verdicts} == {Outcome.NO_EVIDENCE}


def test_a_row_without_a_metric_of_the_paper_is_named_and_hides_no_other(tmp_path: Path) -> None:
    short = run("bpr", changed={"evaluation.top_k": 10}, training={"epochs": 1000, "evaluation": {"top_k": 10}})
    del short.outcome.test["recall@20"]
    study = make_study(tmp_path, "a test", paper=load_paper("bm3"), of=[short, run("lightgcn")])
    assert [row.model for row in study.rows] == ["lightgcn"]
    assert [text.partition(": ")[2] for text in study.unread] == ["has no recall@20, by which the paper bm3 judges"]
