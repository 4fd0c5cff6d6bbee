"""`bm3 tables` and `bm3 expected`: near names for wrong ones, every figure in CSV and JSON. What they print
is compared with stored outputs in `tests/golden`.
"""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Command

from harness.paper.load import load_paper
from harness.paper.published import COLUMNS
from harness.paper.study import make_study

RUNS = Path(__file__).parents[1] / "report" / "golden" / "runs"
Write = Callable[..., Path]


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


@pytest.mark.parametrize("key", list(load_paper().sources))
def test_csv_and_json_hold_every_figure(command: Command, key: str) -> None:
    values = [value for value in load_paper().values if value.source == key]
    rows = list(csv.reader(io.StringIO(command("expected", "show", key, "--format", "csv").out)))
    records = json.loads(command("expected", "show", key, "--format", "json").out)
    assert rows[0] == list(COLUMNS)
    assert [float(row[3]) if row[3] else None for row in rows[1:]] == [value.value for value in values]
    assert [record["value"] for record in records] == [value.value for value in values]
    assert [record["note"] for record in records] == [value.note for value in values]
