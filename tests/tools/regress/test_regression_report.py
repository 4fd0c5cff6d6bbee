"""What a check says to people, to CI systems, and to later checks."""

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.tools.regress.measurement import Measurement, Result, Timing
from harness.tools.regress.regression import Comparison, Outcome
from harness.tools.regress.report import BASELINE_ITSELF, Regression, history_entry, junit, markdown
from harness.tools.regress.trend import append, page, read

NOW = Measurement(
    timings={"mini/bm3": [Timing(1.0, 2.0, 0.5, 0.5), Timing(1.5, 2.0, 0.5, 0.5), Timing(2.0, 2.0, 0.5, 0.5)]},
    memory={"large/bm3": [3 * 2**20]},
    accuracy={"mini/bm3": [[Result({"recall@20": 0.2}, "a")], [Result({"recall@20": 0.4}, "b")]]},
    traces={},
    errors={},
    notes={},
)
SLOWER = Comparison("mini/bm3", "time", Outcome.REGRESSED, 2.0, 3.0, 0.001, 0.04, "+50.0 %, more than 12 % slower")
HELD = Comparison("mini/bm3", "recall@20", Outcome.HELD, 0.3, 0.3, None, None, "the same bits")
UNSTABLE = Comparison("mini/bpr", "time", Outcome.UNSTABLE, 1.0, 1.1, 0.5, 0.6, "repetitions spread by 60 %")
GROWN = Comparison("large/bm3", "memory", Outcome.IMPROVED, 4.0 * 2**20, 3.0 * 2**20, None, 0.0, "−25.0 %")
TRACE = Comparison("trace <bm3> & co", "conformance", Outcome.HELD, 0.1, 0.1, None, None, "passed")


@pytest.fixture
def regression() -> Regression:
    return Regression(
        machine="a CPU, 2 cores, 1 thread; torch 2, Python 3",
        compared_with="baseline.json, of 0123456789ab, 2026-01-01",
        source={"revision": "f" * 40, "dirty": False, "when": "2026-01-02T03:04:05+00:00"},
        preset="quick",
        now=NOW,
        comparisons=(SLOWER, HELD, UNSTABLE, GROWN, TRACE),
    )


def test_the_summary_names_what_regressed_first_and_what_it_was_compared_with(regression: Regression) -> None:
    summary = markdown(regression).split("\n## ")[0]
    assert "1 of 5 comparisons regressed." in summary
    assert "baseline.json, of 0123456789ab" in summary
    rows = [line for line in summary.splitlines() if line.startswith("| mini") or line.startswith("| large")]
    assert "regressed" in rows[0]
    assert "+50.0 %" in rows[0]
    assert any("unstable" in row for row in rows)


def test_every_comparison_stands_in_the_report_with_both_figures(regression: Regression) -> None:
    text = markdown(regression)
    for one in regression.comparisons:
        assert any(one.subject in line and one.outcome.value in line for line in text.splitlines())
    assert re.search(r"large/bm3 +\| memory +\| +4.0 MiB +\| +3.0 MiB +\| +−25.0 %", text)


def test_junit_stays_xml_whatever_a_message_holds(regression: Regression) -> None:
    coloured = replace(SLOWER, reason="fails: \x1b[31mError\x1b[0m \x00 at <here> & there")
    (message,) = (
        case.get("message")
        for case in ElementTree.fromstring(junit(replace(regression, comparisons=(coloured,)))).iter("failure")
    )
    assert message == "regressed: fails: [31mError[0m  at <here> & there"


def test_what_happened_on_the_machine_and_other_packages_are_said(regression: Regression) -> None:
    now = replace(NOW, notes={"packages": "torch 1 against 2"})
    text = markdown(replace(regression, now=now, notes=("other processes took 0.9 of 2 cores on average",)))
    (line,) = (line for line in text.splitlines() if "While this was measured" in line)
    assert "torch 1 against 2" in line
    assert "0.9 of 2 cores" in line
    assert "While this was measured" not in markdown(regression)


def test_lines_that_are_no_check_are_counted_as_damaged(regression: Regression, tmp_path: Path) -> None:
    path = tmp_path / "class.jsonl"
    append(path, regression.machine, history_entry(regression))
    with path.open("a") as file:
        for damage in ({"figures": None}, {"outcomes": 3}, {"code": "x"}, {"figures": {"mini/bm3": {"time": None}}}):
            file.write(json.dumps({**history_entry(regression), **damage}) + "\n")
    history = read(path)
    assert (len(history.entries), history.damaged) == (1, 4)
    assert "mini/bm3" in page([history])


def test_a_baseline_that_was_made_is_no_failed_check(regression: Regression, tmp_path: Path) -> None:
    path = tmp_path / "class.jsonl"
    append(path, regression.machine, history_entry(replace(regression, compared_with=BASELINE_ITSELF, comparisons=())))
    assert "baseline made" in page([read(path)])
    assert "not compared" not in page([read(path)])


def test_a_check_in_which_all_held_says_so(regression: Regression) -> None:
    held = replace(regression, comparisons=(HELD, TRACE))
    assert "Nothing regressed in 2 comparisons." in markdown(held)
    assert held.code == 0


def test_nothing_compared_is_said_and_is_no_pass(regression: Regression) -> None:
    nothing = replace(regression, comparisons=(UNSTABLE,))
    assert "Nothing could be compared." in markdown(nothing)
    assert nothing.code == 3


def test_junit_has_one_case_per_comparison_and_its_counts_are_right(regression: Regression) -> None:
    root = ElementTree.fromstring(junit(regression))
    assert root.tag == "testsuites"
    for suite in root:
        cases = suite.findall("testcase")
        assert suite.attrib["tests"] == str(len(cases))
        assert suite.attrib["failures"] == str(len(suite.findall("testcase/failure")))
        assert suite.attrib["skipped"] == str(len(suite.findall("testcase/skipped")))
        assert suite.attrib["errors"] == "0"
        assert all({"classname", "name", "time"} == case.attrib.keys() for case in cases)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
    assert sum(len(suite) for suite in root) == len(regression.comparisons)
    (failure,) = root.iter("failure")
    assert "more than 12 % slower" in failure.attrib["message"]
    (skipped,) = root.iter("skipped")
    assert "spread" in skipped.attrib["message"]
    assert [case.attrib["name"] for case in root.iter("testcase")][-1] == "trace <bm3> & co"


def test_the_history_keeps_medians_means_over_seeds_and_what_did_not_hold(regression: Regression) -> None:
    entry = json.loads(json.dumps(history_entry(regression)))
    assert entry["figures"]["mini/bm3"]["time"] == 3.0
    assert entry["figures"]["mini/bm3"]["recall@20"] == pytest.approx(0.3)
    assert entry["figures"]["large/bm3"]["memory"] == 3 * 2**20
    assert [outcome[:3] for outcome in entry["outcomes"]] == [
        ["mini/bm3", "time", "regressed"],
        ["mini/bpr", "time", "unstable"],
        ["large/bm3", "memory", "improved"],
    ]


def test_each_check_adds_a_line_and_earlier_ones_stay(regression: Regression, tmp_path: Path) -> None:
    path = tmp_path / "history" / "class.jsonl"
    append(path, "machine A", history_entry(regression))
    before = path.read_bytes()
    append(path, "machine A", history_entry(replace(regression, preset="default")))
    assert path.read_bytes().startswith(before)
    history = read(path)
    assert history.machine == "machine A"
    assert [entry["preset"] for entry in history.entries] == ["quick", "default"]
    assert history.damaged == 0


def test_a_line_cut_off_by_a_kill_spoils_no_other(regression: Regression, tmp_path: Path) -> None:
    path = tmp_path / "class.jsonl"
    append(path, "machine A", history_entry(regression))
    with path.open("ab") as file:
        file.write(b'{"format": 1, "figures": {"mini')
    append(path, "machine A", history_entry(regression))
    history = read(path)
    assert (len(history.entries), history.damaged) == (2, 1)
    assert "1 damaged line of the history left out" in page([history])


def test_the_page_draws_every_figure_and_marks_the_check_in_which_one_regressed(
    regression: Regression, tmp_path: Path
) -> None:
    path = tmp_path / "class.jsonl"
    calm = replace(regression, comparisons=(HELD,))
    for one in (calm, regression, calm):
        append(path, "machine A", history_entry(one))
    text = page([read(path)])
    row = next(part for part in text.split("<tr>") if "mini/bm3" in part and "polyline" in part)
    assert row.count("<circle") == 3
    assert row.count('class="bad"') == 1
    assert [float(pair.split(",")[0]) for pair in re.findall(r'points="([^"]*)"', row)[0].split()] == [5, 120, 235]


def test_the_page_is_one_file_that_asks_for_nothing_and_escapes_names(regression: Regression, tmp_path: Path) -> None:
    path = tmp_path / "class.jsonl"
    append(path, "<script>alert(1)</script>", history_entry(regression))
    text = page([read(path)])
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"(?!#)", text)
    assert "default-src 'none'" in text
    assert text == page([read(path)])
