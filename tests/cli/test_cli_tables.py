"""`bm3 tables` and `bm3 expected`: published figures without any run, ours beneath, and near names for wrong ones."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Command, refused

from harness.paper.load import load_paper
from harness.paper.published import COLUMNS
from harness.paper.study import make_study

RUNS = Path(__file__).parents[1] / "report" / "golden" / "runs"
Write = Callable[..., Path]


@pytest.mark.parametrize("layout", ["text", "md", "tex", "csv"])
@pytest.mark.parametrize("number", [2, 3, 4])
def test_tables_need_no_run(command: Command, number: int, layout: str) -> None:
    outcome = command("tables", number, "--format", layout)
    assert outcome.code == 0
    assert "Zhou et al." in outcome.out
    assert {2: "19445", 3: "0.0564", 4: "470.15"}[number] in outcome.out
    assert "ours" not in outcome.out.lower()


@pytest.mark.parametrize("layout", ["text", "md", "tex", "csv"])
def test_ours_stand_beneath_where_there_are_runs(command: Command, layout: str) -> None:
    out = command("tables", 3, RUNS, "--dataset", "baby", "--format", layout).out
    assert "0.0494" in out
    assert "surrogate features" in out
    assert "Sports" not in out


def test_our_verdict_is_no_exit_code_here(command: Command) -> None:
    assert make_study(RUNS, "a report").code == 1
    assert command("tables", 3, RUNS).code == 0


def test_statistics_of_data_that_is_found_stand_beneath_and_the_others_are_named(
    command: Command, write_npz: Write, small_parts: Any, tmp_path: Path
) -> None:
    write_npz(tmp_path / "data sets" / "baby", small_parts)
    outcome = command("tables", 2, "--data", tmp_path / "data sets", "--format", "csv")
    assert outcome.code == 0
    ours = {row["data set"]: row for row in csv.DictReader(io.StringIO(outcome.out)) if row["figures"] == "ours"}
    assert (ours["Baby"]["users"], ours["Baby"]["items"], ours["Baby"]["interactions"]) == ("6", "8", "30")
    assert ours["Sports"]["users"] == "not found"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["tables", "5"], ["no table 5", "2, 3, 4"]),
        (["tables", "3", "nowhere"], ["nowhere: no such folder"]),
        (["tables", "3", "--dataset", "babby"], ["'babby'", "Baby, Sports, Electronics"]),
        (["tables", "3", "--format", "html"], ["'html'"]),
        (["tables", "3", "--data", "."], ["--data", "tables of data sets"]),
        (["tables", "2", "--data", "nowhere"], ["nowhere: no such folder"]),
        (["expected", "show", "tabel3"], ["'tabel3'", "nearest: table3"]),
        (["expected", "show", "paper-table9"], ["nearest: paper-table"]),
        (["expected", "show", "table3", "--model", "lightgnc"], ["paper-table3 has no model 'lightgnc'", "LightGCN"]),
        (["expected", "show", "table3", "--dataset", "tiktok"], ["no data set 'tiktok'", "Baby"]),
        (["expected", "show", "table3", "--metric", "R@50"], ["no metric 'recall@50'", "recall@20"]),
        (["expected", "show", "claims", "--model", "bm3"], ["claims", "leave out"]),
    ],
    ids=" ".join,
)
def test_wrong_names_end_in_one_line_with_what_there_is(
    command: Command, arguments: list[str], parts: list[str]
) -> None:
    line = refused(command(*arguments))
    for part in parts:
        assert part in line


def test_the_list_names_every_source_with_its_figures(command: Command) -> None:
    code, out, _ = command("expected", "list")
    assert code == 0
    values = load_paper().values
    for key in load_paper().sources:
        block = out.split(f"{key}\n")[1].split("\n\n")[0]
        own = [value for value in values if value.source == key]
        assert f"{len(own)}: " in block
        for name in {value.dataset for value in own} | {value.metric for value in own}:
            assert name in block
    assert "104 as printed, 4 out of memory" in out
    assert "tolerances" in out
    assert "claims" in out


@pytest.mark.parametrize("name", ["table3", "paper-table3", "TABLE3"])
def test_a_source_is_described_above_its_figures(command: Command, name: str) -> None:
    code, out, _ = command("expected", "show", name)
    source = load_paper().sources["paper-table3"]
    assert code == 0
    above = out.split("data set")[0]
    assert all(text in above for text in (source.title, source.table, source.date, source.hardware, source.citation))
    assert "0.0564" in out
    assert "toolbox prints 0.0598 (+7.0 %)" in out
    assert "out of memory" in out


def test_figures_can_be_chosen_by_data_set_model_and_metric_in_any_spelling(command: Command) -> None:
    out = command("expected", "show", "toolbox", "--dataset", "baby", "--model", "grcn", "--metric", "recall@10").out
    assert len(out.split("----\n")[-1].splitlines()) == 1
    assert "0.0539" in out


@pytest.mark.parametrize("key", list(load_paper().sources))
def test_csv_and_json_hold_every_figure(command: Command, key: str) -> None:
    values = [value for value in load_paper().values if value.source == key]
    rows = list(csv.reader(io.StringIO(command("expected", "show", key, "--format", "csv").out)))
    records = json.loads(command("expected", "show", key, "--format", "json").out)
    assert rows[0] == list(COLUMNS)
    assert [float(row[3]) if row[3] else None for row in rows[1:]] == [value.value for value in values]
    assert [record["value"] for record in records] == [value.value for value in values]
    assert [record["note"] for record in records] == [value.note for value in values]


@pytest.mark.parametrize("form", ["text", "csv", "json"])
def test_tolerances_and_claims_can_be_shown(command: Command, form: str) -> None:
    assert "0.03" in command("expected", "show", "tolerances", "--format", form).out
    assert "LightGCN beats MMGCN everywhere" in command("expected", "show", "claims", "--format", form).out


@pytest.mark.parametrize("number", [3, 4])
def test_a_folder_without_runs_of_the_table_is_said_and_not_passed_over(
    tmp_path: Path, command: Command, number: int
) -> None:
    (tmp_path / "nothing").mkdir()
    outcome = command("tables", number, tmp_path / "nothing")
    assert outcome.code == 0
    assert f"no finished run below {tmp_path / 'nothing'}" in outcome.out
    assert "no finished run below" not in command("tables", number, RUNS).out
