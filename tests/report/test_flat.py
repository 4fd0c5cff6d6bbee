"""Figures for other programs: what is missing, what is not finite. Whole files are compared in `tests/golden`."""

import json
import math
from dataclasses import replace
from typing import Any

from run_files import METRICS, altered

from harness.paper.study import Study
from harness.report.flat import cells, cells_csv, cells_json, table_csv
from harness.report.tables import Cell, table


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_table_for_a_spreadsheet_has_no_marks_and_repeats_its_groups() -> None:
    rows = [["Baby", Cell("0.05", "†", "two seeds")], ["Baby", Cell("0.08")]]
    text = table_csv(table("Ours", ("data set", "BM3"), rows, groups=1))
    assert text.splitlines() == ["data set,BM3,notes", "Baby,0.05,BM3: two seeds", "Baby,0.08,"]


def test_a_reading_that_is_missing_says_why_and_what_is_published_stands_there(study: Study) -> None:
    (record,) = [r for r in cells(study) if (r["label"], r["metric"]) == ("bpr", "Memory (GB)")]
    assert (record["values"], record["mean"], record["published"]) == ([None, None], None, 1.59)
    assert (record["reason"], record["outcome"]) == ("no CUDA device in use", None)


def test_what_is_not_finite_is_empty_in_csv_and_null_in_strict_json(study: Study) -> None:
    row = study.rows[0]
    diverged = altered(row.runs[0], {"test": dict.fromkeys(METRICS, math.nan)})
    broken = replace(study, rows=(replace(row, runs=(diverged, *row.runs[1:])), *study.rows[1:]))
    assert strict(cells_json(broken))["cells"][0]["values"] == [None, 0.0532]
    assert "nan" not in cells_csv(broken).lower()


def test_a_study_without_finished_runs_is_a_header_and_an_empty_list(study: Study) -> None:
    empty = replace(study, rows=())
    assert strict(cells_json(empty))["cells"] == []
    assert len(cells_csv(empty).splitlines()) == 1
