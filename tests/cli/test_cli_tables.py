"""`bm3 tables` and `bm3 expected`: near names for wrong ones, every figure in CSV and JSON. What they print
is compared with stored outputs in `tests/golden`.
"""

import csv
import io
from pathlib import Path
from typing import Any

from command_line import Command
from refusals import Write

from harness.paper.study import make_study

RUNS = Path(__file__).parents[1] / "report" / "golden" / "runs"


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
