"""Every cell as a record: the figures of the study, unrounded, in CSV and in strict JSON."""

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from run_files import METRICS, altered

from harness.paper.significance import Difference
from harness.paper.study import Study, make_study
from harness.report.flat import MEMORY, TIMES, cells, cells_csv, cells_json, table_csv
from harness.report.tables import Cell, table

RUNS = Path(__file__).parent / "golden" / "runs"


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study(RUNS, "a report on hand-made records")


def of(records: list[dict[str, Any]], label: str, metric: str) -> dict[str, Any]:
    (record,) = [record for record in records if (record["label"], record["metric"]) == (label, metric)]
    return record


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def with_result(study: Study, change: dict[str, Any]) -> Study:
    """The first row's first run with another result."""
    row = study.rows[0]
    run = row.runs[0]
    changed = altered(run, change)
    new = replace(row, runs=(changed, *row.runs[1:]))
    return replace(study, rows=(new, *study.rows[1:]))


def test_a_table_for_a_spreadsheet_has_no_marks_and_repeats_its_groups() -> None:
    rows = [["Baby", Cell("0.05", "†", "two seeds")], ["Baby", Cell("0.08")]]
    text = table_csv(table("Ours", ("data set", "BM3"), rows, groups=1))
    assert text.splitlines() == ["data set,BM3,notes", "Baby,0.05,BM3: two seeds", "Baby,0.08,"]


def test_each_row_has_a_record_per_metric_all_with_the_same_fields(study: Study) -> None:
    records = cells(study)
    assert len(records) == len(study.rows) * (len(METRICS) + len(TIMES) + len(MEMORY))
    assert len({tuple(record) for record in records}) == 1


def test_an_accuracy_record_is_the_verdict_with_its_evidence(study: Study) -> None:
    record = of(cells(study), "lightgcn", "N@20")
    verdict = next(row for row in study.rows if row.label == "lightgcn").verdicts["ndcg@20"]
    assert (record["mean"], (record["low"], record["high"])) == (verdict.mean, verdict.interval)
    assert (record["values"], record["seeds"], record["seed_of_run"]) == ([0.0312, 0.0316], 2, [1, 2])
    assert (record["published"], record["source"], record["status"]) == (0.0328, "paper-table3", "as printed")
    assert record["difference_percent"] == pytest.approx(100 * (0.0314 / 0.0328 - 1))
    assert (record["band_low"], record["band_high"]) == verdict.band
    assert record["outcome"] == "below"
    assert record["reason"] == verdict.reason
    assert record["settings"] == "n_layers=4 reg_weight=0.0001"
    assert record["runs"] == ["baby/lightgcn-seed1", "baby/lightgcn-seed2"]
    assert record["commands"] == [f"bm3 replay baby/lightgcn-seed{seed}" for seed in (1, 2)]


def test_surrogate_modalities_stand_where_the_model_reads_them(study: Study) -> None:
    records = cells(study)
    assert of(records, "bm3", "R@10")["surrogates"] == ["text", "visual"]
    assert of(records, "bpr", "R@10")["surrogates"] == []


def test_time_and_memory_stand_beside_what_was_published_and_are_not_judged(study: Study) -> None:
    records = cells(study)
    time = of(records, "bpr", "Time (s/epoch)")
    assert (time["values"], time["mean"], time["published"]) == ([0.5, 0.52], pytest.approx(0.51), 0.47)
    assert time["outcome"] is None
    assert of(records, "bpr", "Time, lower quartile (s/epoch)")["values"] == [0.45, 0.468]
    memory = of(records, "bm3", "Memory, process (GB)")
    assert memory["values"] == [pytest.approx(1000 / 1024)] * 2
    assert memory["published"] is None


def test_a_reading_that_is_missing_says_why(study: Study) -> None:
    record = of(cells(study), "bpr", "Memory (GB)")
    assert (record["values"], record["mean"]) == ([None, None], None)
    assert record["reason"] == "no CUDA device in use"
    assert record["published"] == 1.59


def test_the_csv_says_what_the_records_say(study: Study) -> None:
    rows = list(csv.DictReader(io.StringIO(cells_csv(study))))
    records = cells(study)
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        assert list(row) == list(record)
        assert (row["label"], row["metric"]) == (record["label"], record["metric"])
        assert row["mean"] == ("" if record["mean"] is None else repr(record["mean"]))
        assert row["values"].split("; ") == ["" if v is None else repr(v) for v in record["values"]]
        assert row["commands"].split("; ") == record["commands"]


def test_the_json_has_the_records_and_all_that_they_were_judged_by(study: Study) -> None:
    difference = Difference(
        metric="recall@20",
        first="bm3",
        second="bpr",
        mean=0.02,
        interval=(0.01, 0.03),
        p_value=0.001,
        adjusted=0.002,
        runs=3,
        users=19445,
        base=0.06,
        over_seeds=None,
        better="bm3",
    )
    content = strict(cells_json(replace(study, differences={"baby": (difference,)})))
    assert content["cells"] == cells(study)
    assert (content["asked"], content["code"]) == (study.asked, 1)
    assert content["answer"].startswith(study.headline[0])
    assert content["tolerances"]["published"]["relative"] == study.paper.tolerances.published.relative
    assert content["sources"]["paper-table3"]["citation"] == study.paper.sources["paper-table3"].citation
    assert content["differences"][0]["dataset"] == "baby"
    assert content["differences"][0]["interval"] == [0.01, 0.03]
    assert [found["claim"]["id"] for found in content["claims"]] == [result.claim.id for result in study.claims]


def test_what_is_not_finite_is_empty_in_csv_and_null_in_strict_json(study: Study) -> None:
    broken = with_result(study, {"test": dict.fromkeys(METRICS, math.nan)})
    record = of(strict(cells_json(broken))["cells"], "bm3", "R@10")
    assert record["values"] == [None, 0.0532]
    assert "nan" not in cells_csv(broken).lower()


def test_nothing_says_where_the_folder_is_on_this_machine(study: Study) -> None:
    for text in (cells_csv(study), cells_json(study)):
        assert str(RUNS.resolve().parent) not in text


def test_a_study_without_finished_runs_is_a_header_and_an_empty_list(study: Study) -> None:
    empty = replace(study, rows=())
    assert strict(cells_json(empty))["cells"] == []
    assert len(cells_csv(empty).splitlines()) == 1
