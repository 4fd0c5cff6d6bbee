"""What a report begins with: the answer on the proposed model, what was judged, and the exit code that goes with it."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import rows_by_hand
from rows_by_hand import difference, reaching, row_of
from run_files import HAND_MADE, METRICS, altered

from harness.common import number, spread
from harness.paper.costs import SHARED, SHARED_NOTE
from harness.paper.exceptions import ExceptedCells
from harness.paper.rows import ranked
from harness.paper.study import Extra, Study, differences_of, make_study, shared_machine
from harness.report.flat import cells
from harness.report.html import html
from harness.report.markdown import markdown
from harness.report.paper_tables import paper_table
from harness.report.plots.accuracy import cost, users
from harness.report.study_tables import extra
from harness.runs.record import RunRecord
from harness.runs.store import stored_runs

ALL = {run.path.name: run for run in stored_runs(HAND_MADE)}
PAPER = {"bm3": (0.0564, 0.0883, 0.0301, 0.0383), "lightgcn": (0.0479, 0.0754, 0.0257, 0.0328)}


def run(name: str, *, dataset: str = "baby", surrogates: tuple[str, ...] = (), **test: float) -> RunRecord:
    """A hand-made run, on the original features if nothing else is said, with these test metrics."""
    one = ALL[name]
    result = {"test": {key.replace("_", "@"): value for key, value in test.items()}}
    return altered(one, result, dataset={"name": dataset, "surrogates": list(surrogates)})


def at(model: str, factor: float, **changed: float) -> list[RunRecord]:
    """Two runs of a model at `factor` times the published values, but for metrics that are given."""
    values = {m.replace("@", "_"): factor * v for m, v in zip(METRICS, PAPER[model], strict=True)}
    return [run(f"{model}-seed{seed}", **(values | changed)) for seed in (1, 2)]


def study_of(*runs: RunRecord, **options: Any) -> Study:
    return make_study(HAND_MADE, "a question", of=runs, **options)


def page_mark(study: Study) -> str:
    return html(study).partition('<p class="answer"><span class="mark ')[2].partition("</span>")[0][-1]


def test_the_answer_on_the_proposed_model_comes_first_then_what_was_judged() -> None:
    study = study_of(*at("bm3", 1.0, ndcg_20=0.0390), *at("lightgcn", 1.0, recall_10=0.06))
    assert study.headline == [
        "BM3 on baby: reproduced in 4 of 4 cells.",
        "8 of 8 cells judged: 7 reproduced, 1 above (lightgcn R@10).",
    ]
    assert markdown(study).splitlines()[:3] == ["# Does BM3 reproduce here?", "", f"**{study.headline[0]}**"]
    assert (study.code, page_mark(study)) == (1, "✗")
    held = study_of(*at("bm3", 1.0))
    assert (held.code, page_mark(held)) == (0, "✓")
    part = study_of(at("bm3", 1.0)[0], at("bm3", 1.0, ndcg_20=0.0375)[1])
    assert part.headline[0] == "BM3 on baby: reproduced in 3 of 4 cells, close in 1."


def test_no_page_has_a_tick_while_its_own_question_is_open() -> None:
    without = study_of(*at("lightgcn", 1.0))
    assert without.headline[0] == "BM3 on baby: not run."
    assert (without.code, page_mark(without)) == (0, "○")
    surrogate = [run(f"bm3-seed{seed}", surrogates=("visual", "text")) for seed in (1, 2)]
    other = study_of(*surrogate, *at("lightgcn", 1.0))
    assert other.headline[0] == "BM3 on baby: not judged (surrogate features: visual, text)."
    assert (other.code, page_mark(other)) == (0, "○")
    alone = study_of(*surrogate)
    assert alone.headline[1] == "0 of 4 cells judged."
    assert alone.code == 3


def test_an_excepted_cell_stands_in_the_headline_and_fails_when_it_is_not_needed() -> None:
    exception = ExceptedCells(dataset="baby", model="lightgcn", metrics=["R@10"], low=0.2, high=0.3, reason="known")
    above = study_of(*at("lightgcn", 1.0, recall_10=0.06), exceptions=[exception])
    assert above.code == 0
    assert "excepted: lightgcn R@10 on baby, +25.3 %: known." in above.headline
    held = study_of(*at("lightgcn", 1.0), exceptions=[exception])
    assert held.code == 1
    assert "exception no longer applies: lightgcn R@10 on baby" in markdown(held)


# own data


def test_of_several_contents_of_one_name_none_is_best() -> None:
    runs = [run(f"bm3-seed{seed}", dataset="mine") for seed in (1, 2)]
    runs += [one.model_copy(update={"model": "bpr", "dataset_hash": "another"}) for one in runs]
    asked = Extra(("recall@20",), best=True)
    page = markdown(replace(study_of(*runs), extra=asked))
    assert "Runs on the name mine are of several contents" in page
    assert "not compared over users, since their data are not the same." in page
    assert "| **" not in page


def test_figures_of_several_contents_are_not_compared_in_the_papers_tables_and_pictures() -> None:
    for data, compared in (("another", False), ("0123456789abcdef", True)):
        runs = [
            rows_by_hand.run(model, s, dataset="baby", users={"recall@20": reaching(0.5)}, data=of)
            for model, of in (("bm3", data), ("lightgcn", "0123456789abcdef"))
            for s in (1, 2)
        ]
        study = study_of(*runs)
        accuracy = paper_table(study.paper, study.paper.table(3), study=study, dataset="baby")
        (ours,) = [row for row in accuracy.rows if (row[1].text, row[2].text) == ("R@20", "ours")]
        assert any(cell.emphasis is not None for cell in ours) is compared
        assert bool(ours[-1].text) is compared  # the improvement
        assert (users(study, "baby") is not None) is compared


def test_copies_of_a_run_that_draws_nothing_have_no_spread() -> None:
    runs = [rows_by_hand.run("ease", seed, stopped="closed form") for seed in (1, 2, 3)]
    study = replace(study_of(*runs), extra=Extra(("recall@20",), spread="interval"))
    assert [cell.text for cell in extra(study, "mini").rows[0]] == ["ease", "0.5000", "1"]


def test_names_that_differ_in_case_alone_are_two_data_sets() -> None:
    study = study_of(run("bm3-seed1", dataset="Mine"), run("bm3-seed2", dataset="mine"))
    assert [[row.dataset for row in study.of(name)] for name in study.datasets] == [["Mine"], ["mine"]]
    assert len(study.of("MINE")) == 2


def test_a_run_of_the_self_check_takes_no_part_in_comparisons() -> None:
    first, second = (row_of(rows_by_hand.run(users={"recall@20": reaching(share)})) for share in (0.8, 0.4))
    rows = [replace(first, label="a"), replace(second, label="b"), replace(second, label="c", brief=True)]
    (pairs,) = differences_of(rows, rows_by_hand.PAPER.tolerances).values()
    assert {(pair.first, pair.second) for pair in pairs} == {("a", "b")}


def own(per_user: Mapping[str, float], **options: Any) -> Study:
    """BM3, BPR and LightGCN on a data set of which nothing is published; BM3's lead over each of the others."""
    runs = [run(f"{model}-seed{seed}", dataset="mine") for model in ("bm3", *per_user) for seed in (1, 2)]
    pairs = tuple(difference("bm3", other, lead) for other, lead in per_user.items())
    return replace(study_of(*runs, **options), differences={"mine": pairs})


def test_models_on_own_data_are_compared_and_nothing_is_said_of_reproducing() -> None:
    study = own({"lightgcn": 0.0041})
    assert study.headline == ["BM3 is better than LightGCN on mine: R@20 +5.1 % [+3.9, +6.4]."]
    assert study.code == 0
    (line,) = own({"lightgcn": 0.0}).headline
    assert line.startswith("LightGCN against BM3 on mine: neither better (R@20 0.0 %")
    of_one_user = tuple(replace(pair, interval=(-math.inf, math.inf)) for pair in study.differences["mine"])
    (line,) = replace(study, differences={"mine": of_one_user}).headline
    assert line.endswith("R@20 +5.1 %, one user, too few for an interval.")
    for text in (markdown(study), html(study)):
        assert not any(word in text.lower() for word in ("reproduce here", "unpublished", "no source", "claim"))
    assert page_mark(study) == "•"


def test_one_model_alone_is_measured_and_no_finite_value_is_not() -> None:
    alone = study_of(run("bpr-seed1", dataset="mine"))
    assert (alone.code, alone.headline[0][:22]) == (0, "BPR on mine: R@20 0.05")
    nothing = study_of(run("bpr-seed1", dataset="mine", **{m.replace("@", "_"): float("nan") for m in METRICS}))
    assert nothing.code == 3


# best against second


def test_the_best_row_never_has_a_negative_lead() -> None:
    """Over all seeds BM3 is best; over those that both have, LightGCN is."""
    study = own({"lightgcn": -0.002, "bpr": 0.02})
    assert ranked(study.of("mine"), "recall@20")[0].label == "bm3"
    tested = study.tested("mine", "recall@20")
    assert tested is not None
    assert (tested.first, tested.second, tested.mean) == ("lightgcn", "bm3", 0.002)


# times beside other runs


def together(*names: str) -> list[RunRecord]:
    """Runs that all began when the first did, and end as they did."""
    start = ALL[names[0]].started
    return [altered(run(name), started=start) for name in names]


def test_runs_share_a_machine_where_their_times_overlap_on_the_same_host() -> None:
    first, second = together("bm3-seed1", "bpr-seed1")
    later = run("lightgcn-seed1")
    assert shared_machine([first, second, later]) == {first.path, second.path}
    elsewhere = altered(second, environment={"cpu": "another"})
    assert not shared_machine([first, elsewhere, later])
    touching = altered(later, started=second.outcome.finished)
    assert not shared_machine([second, touching])


def test_times_of_runs_that_shared_a_machine_are_marked_and_not_ranked() -> None:
    runs = together("bm3-seed1", "lightgcn-seed1")
    study = study_of(*runs, run("bpr-seed2"))
    study = replace(study, rows=tuple(replace(row, shared=shared_machine(runs)) for row in study.rows))
    bm3 = study.rows[0]
    time = f"{bm3.runs[0].outcome.timing.median_s:.3f}{SHARED}"
    assert f" {time} |" in markdown(study)
    assert [record["shared"] for record in cells(study) if record["metric"] == "R@10"] == [[True], [False], [True]]
    drawn = cost(study, "baby")
    assert drawn is not None
    assert f"Time left out, {SHARED_NOTE}: bm3, lightgcn." in drawn.caption


# figures


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (-2e-14, "+.1f", "0.0"),
        (-0.00001, ".4f", "0.0000"),
        (0.0, "+.4f", "0.0000"),
        (-0.05, "+.2f", "-0.05"),
        (1.0, "+.1f", "+1.0"),
        (1e-9, ".2g", "1e-09"),
        (float("nan"), ".4f", "not finite"),
        (None, ".4f", "–"),
    ],
)
def test_what_rounds_to_nothing_has_no_sign(value: float | None, form: str, text: str) -> None:
    assert number(value, form) == text


def test_one_seed_has_no_range() -> None:
    assert (spread([0.5]), spread([0.5, 0.7])) == ("–", "0.2000")
