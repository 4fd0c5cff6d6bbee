"""The tables of a report: each fact stands in its cell. How they look is in the tests of the renderers."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from rows_by_hand import difference
from run_files import HAND_MADE, METRICS, altered

from harness.paper.claims import ClaimOutcome, ClaimResult
from harness.paper.load import load_paper
from harness.paper.significance import Difference
from harness.paper.study import Study
from harness.paper.verdict import Outcome
from harness.report.study_tables import (
    FIGURES,
    _one_more,
    about_stars,
    budget,
    changes,
    claims,
    differences,
    overview,
    verdicts,
)
from harness.report.tables import Cell, Emphasis, Table


def test_seeds_that_no_suite_declares_are_named_unless_a_suite_was_asked(study: Study) -> None:
    rows = [replace(row, runs=tuple(altered(run, seed=run.seed + 10) for run in row.runs)) for row in study.rows]
    mine = replace(study, rows=(*(row for row in rows if row.model == "bpr"), *study.rows[1:]))
    found = [note for note in overview(mine, "baby").notes if "no suite" in note]
    assert found == ["bpr: seeds that no suite of the paper declares, and that count here: 11, 12."]
    others = (mine.paper.model_copy(update={"folder": HAND_MADE}), ())
    for paper, asked in ((others[0], ()), (mine.paper, ("baby",))):
        assert not any(
            "no suite" in note for note in overview(replace(mine, paper=paper, asked_datasets=asked), "baby").notes
        )


def lines(table: Table) -> list[dict[str, str]]:
    return [{name: cell.marked for name, cell in zip(table.head, row, strict=True)} for row in table.rows]


def column(table: Table, name: str) -> list[Cell]:
    return [row[table.head.index(name)] for row in table.rows]


def compared(study: Study, *found: Difference) -> Study:
    return replace(study, differences={"baby": found})


# means


def test_runs_of_the_self_check_and_what_is_not_finite_are_nobodys_best(study: Study) -> None:
    brief = replace(study, rows=(replace(study.rows[0], brief=True), *study.rows[1:]))
    assert [cell.emphasis for cell in column(overview(brief, "baby"), "R@20")] == [None, Emphasis.SECOND, Emphasis.BEST]
    row = study.rows[0]
    verdict = replace(row.verdicts["recall@20"], mean=None, interval=None, outcome=Outcome.DIVERGED)
    runs = altered(row.runs[0], {"test": dict.fromkeys(METRICS, math.nan)}), *row.runs[1:]
    rows = (replace(row, runs=runs, verdicts={**row.verdicts, "recall@20": verdict}), *study.rows[1:])
    cell = column(overview(replace(study, rows=rows), "baby"), "R@20")[0]
    assert (cell.text, cell.emphasis, cell.word) == ("not finite", None, Outcome.DIVERGED)


def test_rows_on_surrogate_features_are_marked_with_what_that_means(study: Study) -> None:
    for table in (overview(study, "baby"), verdicts(study, "baby")):
        assert {cell.marked for cell in column(table, "model")} == {"bm3†", "bpr", "lightgcn"}
        assert table.notes[-1] == "† trained on surrogate features, not on the original vectors."


def test_a_row_without_a_result_for_want_of_memory_has_dashes(study: Study) -> None:
    table = overview(replace(study, starved={"baby": ("lattice",)}), "baby")
    assert [*lines(table)[-1].values()] == ["lattice", "-", "-", "-", "-", "0", "out of memory"]


@pytest.mark.parametrize(("adjusted", "stars"), [(0.0004, "***"), (0.004, "**"), (0.04, "*"), (0.05, ""), (0.2, "")])
def test_stars_say_how_sure_the_best_is(study: Study, adjusted: float, stars: str) -> None:
    turned = difference("lightgcn", "bm3", -0.004, adjusted)
    for one in (difference(adjusted=adjusted), turned):
        told = compared(study, one)
        assert [cell.stars for cell in column(overview(told, "baby"), "R@20")] == [stars, "", ""]
        assert "19,445 users" in about_stars(told, "baby")
        assert "Not tested: R@10, N@10, N@20." in about_stars(told, "baby")


def test_there_is_no_star_where_the_second_is_preferred_or_others_were_compared(study: Study) -> None:
    preferred = compared(study, difference(mean=-0.004))
    other = compared(study, difference(second="bpr"))
    for told in (preferred, other, study):
        assert not any(cell.stars for row in overview(told, "baby").rows for cell in row)
    for told in (other, study):
        assert about_stars(told, "baby") == "Differences between models were not tested."


def test_a_mean_unfolds_to_all_that_its_verdict_rests_on(study: Study) -> None:
    for row, cells in zip(study.rows, overview(study, "baby").rows, strict=True):
        for (metric, verdict), cell in zip(row.verdicts.items(), cells[1:5], strict=True):
            assert (cell.word, cell.note) == (verdict.outcome, verdict.reason.rstrip("."))
            figures, runs, sources = cell.details
            assert [line["what"] for line in lines(figures)] == [*FIGURES, *_one_more(verdict, 0.95)]
            assert [line["value"] for line in lines(runs)] == [f"{value:.4f}" for value in row.values(metric)]
            assert [line["command"] for line in lines(runs)] == study.commands(row)
            assert [line["source"].split(",")[0] for line in lines(sources)] == [v.source for v in row.sources[metric]]
            assert sum("compared with" in line["source"] for line in lines(sources)) == 1


# the other tables


def test_differences_name_the_better_row_or_none_all_pairs_or_best_against_second(study: Study) -> None:
    told = compared(study, difference(adjusted=0.004), difference("bm3", "bpr", 0.0, 0.7))
    every = differences(told, every_pair=True)
    assert [line["better"] for line in lines(every)] == ["bm3", "neither: not over users"]
    assert every.notes == ("One row is better in 1 of 2 comparisons, at 5 % with a margin of 1 %.",)
    wanted = {"effect %": "+5.0", "over users %": "+3.8 to +6.2", "over seeds %": "+3.8 to +6.2", "adjusted p": "0.004"}
    assert lines(every)[0] | wanted | {"users": "19445", "runs": "2", "metric": "R@20"} == lines(every)[0]
    told = compared(study, difference(), difference("bm3", "bpr", 0.02, 0.7))
    (best,) = lines(differences(told, every_pair=False))
    assert (best["best"], best["second"], best["better"]) == ("bm3", "lightgcn", "bm3")


def test_rows_of_a_model_are_held_against_the_one_that_stands_for_it(study: Study) -> None:
    (usual,) = (row for row in study.of("baby") if row.model == "bm3")
    other = replace(usual, label="bm3 noise", departures=("vectors.content=noise",))
    found = difference("bm3", "bm3 noise", -0.004)
    told = compared(replace(study, rows=[*study.rows, other]), found, difference())
    (line,) = lines(changes(told))
    assert (line["model"], line["against"], line["R@20 %"], line["R@10 %"]) == (
        "bm3 noise",
        "bm3",
        "+5.3 [+3.9 to +6.6]",
        "–",
    )


def test_values_of_the_grid_that_no_point_has_are_named_where_a_row_is_held_against_the_paper(study: Study) -> None:
    row = study.rows[1]
    whole = study.paper.grids[row.model]["reg_weight"]

    def told(values: Sequence[object], **changes: Any) -> list[str]:
        runs = [altered(row.runs[0], config={**row.runs[0].config, "reg_weight": value}) for value in values]
        points = tuple(replace(row.grid[0], runs={1: run}, compared=()) for run in runs)
        searched = replace(row, selection=replace(row.selection, points=points), **changes)
        return [*budget(replace(study, rows=(searched,))).notes]

    assert told(whole[:2]) == [
        "bpr on baby: no run has of the paper's grid reg_weight 0.1, 0.01, 0.001, 0.0001, 1e-05."
    ]
    assert told(whole) == told(whole[:2], departures=("epochs=4",)) == told(whole[:2], verdicts={}) == []


def test_a_claim_stands_once_with_what_each_place_says_and_its_comparisons(study: Study) -> None:
    claim = load_paper().claims[0]
    found = [
        ClaimResult(claim, w, o, f"{w} says", (("what", "0.5", o),)) for w, o in zip("ab", ClaimOutcome, strict=False)
    ]
    table = claims(tuple(found))
    assert [[cell.text for cell in row] for row in table.grid] == [
        [claim.text, "a", "holds", "a says"],
        ["", "b", "fails", "b says"],
    ]
    (comparisons,) = table.rows[1][2].details
    assert lines(comparisons) == [{"what": "what", "figure": "0.5", "outcome": "fails"}]
