"""Rows: which runs make one, which of its points counts, which row stands for a model, and what each is called.

Twelve functions once decided these things, and disagreed; the tests named after a rule say what became of each
disagreement.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows_by_hand import PAPER, HandRun, reaching, row_of, run

from harness.paper.rows import (
    Planned,
    Point,
    Row,
    choose,
    expected_best,
    finite,
    judged,
    ranked,
    representative,
    representatives,
    rows_of,
)
from harness.runs.record import RunRecord

ONE, TENTH = {"reg_weight": 1.0}, {"reg_weight": 0.1}


def point(runs: Sequence[HandRun]) -> Point:
    return Point(runs[0].config, {one.seed: one for one in runs}, "recall@20")


def searched(grid: dict[str, Any], *figures: tuple[float, float], **given: Any) -> list[HandRun]:
    """A run per seed, from 1 on, with these values on the validation and the test part."""
    return [run(seed=s, grid=grid, valid=v, test=t, **given) for s, (v, t) in enumerate(figures, 1)]


def key(one: RunRecord) -> str:
    """Its folder below the store."""
    return "/".join(one.path.parts[-2:])


def planned(*points: Sequence[RunRecord], label: str | None = None, every_seed: bool = False) -> Planned:
    """A row of these points, of which the first run is of the seed that points are chosen with."""
    keys = [{one.seed: key(one) for one in runs} for runs in points]
    return Planned(label, tuple(zip([runs[0].config for runs in points], keys, strict=True)), every_seed)


def rows(runs: Sequence[RunRecord], *plan: Planned) -> list[Row]:
    return rows_of(runs, PAPER, plan or None)[0]


# choose


def test_points_are_compared_on_the_seeds_that_all_have_and_shown_with_all_that_both_have() -> None:
    """λ 1 is best on validation with seed 1, λ 0.1 on test; λ 0.01 has no second seed, and λ 1 alone has a third."""
    one = searched(ONE, (0.50, 0.40), (0.50, 0.40), (0.50, 0.90))
    tenth, hundredth = searched(TENTH, (0.30, 0.48), (0.90, 0.36)), searched({"reg_weight": 0.01}, (0.20, 0.20))
    (row,) = rows([*one, *tenth, *hundredth])
    chosen = row.selection
    assert (chosen.on_validation.settings, chosen.on_test.settings) == (ONE, TENTH)
    assert (row.seeds, chosen.seeds) == ((1, 2, 3), (1, 2))
    assert (chosen.test(chosen.on_validation), chosen.test(chosen.on_test)) == pytest.approx((0.40, 0.42))
    assert chosen.optimism == pytest.approx(0.05)


def test_a_plan_chooses_with_its_first_seed_and_a_point_without_it_takes_no_part() -> None:
    """Over both seeds λ 0.1 would be best on validation. A report without the plan has only what runs share."""
    one, tenth = searched(ONE, (0.5, 0.4), (0.1, 0.9)), searched(TENTH, (0.4, 0.5), (0.9, 0.1))
    (row,) = rows([*one, *tenth], planned(one, tenth))
    assert (row.selection.on_validation.settings, row.selection.on_test.settings) == (ONE, TENTH)
    assert row.selection.optimism == pytest.approx(0.3 / 0.65 - 1)
    assert rows([*one, *tenth])[0].selection.on_validation.settings == TENTH
    (late,) = rows([*one, tenth[1]], planned(one, tenth))
    assert [each.settings for each in late.grid] == [ONE]


def test_where_every_point_is_run_with_every_seed_all_of_them_count() -> None:
    one, tenth = searched(ONE, (0.5, 0.4), (0.1, 0.9)), searched(TENTH, (0.4, 0.5), (0.9, 0.1))
    (row,) = rows([*one, *tenth], planned(one, tenth, every_seed=True))
    assert (row.selection.on_validation.settings, row.every_seed) == (TENTH, True)
    means = [(each.mean("valid"), each.mean("test")) for each in row.grid]
    assert means == [pytest.approx((0.3, 0.65)), pytest.approx((0.65, 0.3))]


def test_of_equals_a_plan_takes_the_earlier_and_a_store_the_one_with_more_seeds_then_by_settings() -> None:
    """Not the one that finished first: which that is depends on how many ran at a time."""
    one, tenth = searched(ONE, (0.5, 0.4)), searched(TENTH, (0.5, 0.4), (0.5, 0.4))
    assert rows([*one, *tenth], planned(one, tenth))[0].selection.on_validation.settings == ONE
    assert rows([*one, *tenth])[0].selection.on_validation.settings == TENTH
    early = searched(ONE, (0.5, 0.4), finished="2025-01-01T00:00:00+00:00")
    assert rows([*early, tenth[0]])[0].selection.on_validation.settings == TENTH


def test_points_that_agree_to_six_digits_are_two_points() -> None:
    near = {"reg_weight": 0.1000001}
    (row,) = rows([*searched(TENTH, (0.4, 0.4)), *searched(near, (0.5, 0.5))])
    assert [each.name for each in row.grid] == ["reg_weight=0.1", "reg_weight=0.1000001"]
    assert row.settings == "reg_weight=0.1000001"


parts = st.sampled_from([0.1, 0.2, 0.3, math.nan, math.inf])


@given(st.lists(st.lists(st.tuples(parts, parts), max_size=3), min_size=1, max_size=4), st.sampled_from([None, (1,)]))
def test_no_point_exceeds_the_chosen_one_and_what_is_not_finite_is_only_chosen_without_another(
    figures: list[list[tuple[float, float]]], seeds: tuple[int, ...] | None
) -> None:
    points = [
        Point({"x": i}, {r.seed: r for r in searched({"x": i}, *one)}, "recall@20") for i, one in enumerate(figures)
    ]
    chosen = choose(points, seeds)
    assert (chosen is None) == (not any(figures))
    if chosen is not None:
        for best, part in ((chosen.on_validation, "valid"), (chosen.on_test, "test")):
            values = [each.mean(part) for each in chosen.points]
            finite = [value for value in values if math.isfinite(value)]
            assert best.mean(part) == max(finite) if finite else best is chosen.points[0]
            if finite:
                assert best.settings == chosen.points[values.index(max(finite))].settings


# representative


def variant(*names: str, model: str = "bm3", seeds: int = 1, label: str = "", **given: Any) -> Row:
    departures = tuple(f"{name}=1" for name in names)
    runs = [run(model, seed, **given) for seed in range(1, seeds + 1)]
    return row_of(*runs, departures=departures, label=label or " ".join([model, *departures]))


def test_published_settings_stand_for_a_model_whatever_rows_are_called_and_whatever_they_reach() -> None:
    """A name of one word, a name equal to the model's and a better mean each decided once, in some table."""
    own = variant(label="a longer name", test=0.1)
    for other in (variant("dropout", label="bm3", test=0.9), variant("dropout", "epochs", label="short", test=0.9)):
        for order in ([own, other], [other, own]):
            assert representative(order, "BM3") is own
            assert representatives(order) == [own]


def test_else_fewest_departures_then_original_features_then_newest_then_most_seeds_then_the_first() -> None:
    ranking = [
        variant(numerics={"model": 10, "training": 1}),
        variant(numerics={"model": 2, "training": 1}),
        variant(seeds=2),
        variant(),
        variant(surrogates=["visual"], seeds=3),
        variant("dropout", test=0.9),
        variant("dropout", "epochs", seeds=3),
    ]
    for place in range(len(ranking)):
        assert representative(ranking[place:], "bm3") is ranking[place]
        assert representative(ranking[: place - 1 : -1] if place else ranking[::-1], "bm3") is ranking[place]
    twin = variant("learning_rate")
    assert representative([twin, ranking[5]], "bm3") is twin
    foreign = replace(ranking[0], other_data="40 users, published 19,445")
    assert representative([foreign, ranking[-1]], "bm3") is ranking[-1]
    assert representative(ranking, "lightgcn") is None


def test_a_departure_is_counted_once_however_many_words_its_value_has() -> None:
    (one,) = rows([run("bm3", changed={"sizes": (64, 64, 64)})])
    (two,) = rows([run("bm3", changed={"dropout": 0.1, "epochs": 7})])
    assert (len(one.departures), len(two.departures)) == (1, 2)
    assert representative([two, one], "bm3") is one


def test_rows_are_ranked_by_finite_means_equal_ones_in_their_order() -> None:
    names = [("b", 0.5), ("c", math.nan), ("a", 0.5), ("d", 0.7)]
    found = [row_of(run("bpr", test=test), label=name) for name, test in names]
    assert [row.label for row in ranked(found, "recall@20")] == ["d", "b", "a"]
    assert ranked([replace(found[0], brief=True)], "recall@20") == []


# what is published


def test_what_was_searched_and_is_not_published_is_no_evidence_even_if_the_default_was_chosen() -> None:
    runs = {rate: run(changed={"learning_rate": rate}, valid=valid) for rate, valid in ((0.01, 0.4), (0.001, 0.5))}
    plan = Planned(None, tuple(({"learning_rate": rate}, {1: key(one)}) for rate, one in runs.items()))
    (row,) = rows([*runs.values()], plan)
    assert (len(row.grid), row.label) == (2, "bpr")
    assert row.obstacle == "settings are not the published ones (learning_rate searched)"


def test_a_grid_beyond_the_published_one_is_no_evidence_and_a_part_of_it_is() -> None:
    weights = [*PAPER.grids["bpr"]["reg_weight"], 0.77]
    points = [searched({"reg_weight": weight}, (0.5, 0.4)) for weight in weights]
    runs = [each for runs in points for each in runs]
    (part,), (whole,), (beyond,) = (rows(runs, planned(*some)) for some in (points[:2], points[:-1], points))
    assert not part.obstacle
    assert not whole.obstacle
    assert "(reg_weight searched beyond the published grid)" in beyond.obstacle


def test_a_published_grid_of_training_settings_is_searched_as_one_of_the_models_own() -> None:
    paper = PAPER.model_copy(update={"grids": {"bpr": {"learning_rate": [0.01, 0.001]}}})
    runs = [
        run(changed={"learning_rate": rate}, training={"epochs": 1000, "learning_rate": rate}, valid=valid)
        for rate, valid in ((0.01, 0.4), (0.001, 0.5))
    ]
    plan = Planned(None, tuple(({"learning_rate": one.settings["learning_rate"]}, {1: key(one)}) for one in runs))
    for asked in (None, [plan]):
        (row,) = rows_of(runs, paper, asked)[0]
        assert (len(row.grid), row.label, row.obstacle) == (2, "bpr", "")
        assert row.selection.on_validation.settings == {"learning_rate": 0.001}


@pytest.mark.parametrize(
    ("weight", "stated", "departing"),
    [
        (0.1, {}, []),
        (123.0, {}, ["reg_weight=123.0"]),
        (123.0, {"reg_weight": 123.0}, []),
        (0.1, {"reg_weight": 123.0}, ["reg_weight=0.1"]),
    ],
)
def test_a_point_alone_is_held_against_what_the_paper_states_else_against_its_grid(
    weight: float, stated: dict[str, float], departing: list[str]
) -> None:
    paper = PAPER.model_copy(update={"training": {**PAPER.training, **stated}})
    alone = run(grid={"reg_weight": weight})
    for plan in (None, [planned([alone])]):
        assert [list(row.departures) for row in rows_of([alone], paper, plan)[0]] == [departing]
    lost = run(grid={"reg_weight": 0.01}, failure="out of memory")  # the other point of a search
    (row,) = rows_of([alone, lost], paper, [planned([alone], [lost])])[0]
    assert [*row.departures] == [one for one in departing if weight == 123.0]
    default = run(grid={"reg_weight": weight}).model_copy(update={"changed": []})
    assert [bool(row.departures) for row in rows_of([default], paper)[0]] == [bool(departing) and bool(stated)]


def test_settings_are_published_if_they_are_as_the_paper_states_them_default_or_not() -> None:
    paper = PAPER.model_copy(update={"training": {**PAPER.training, "epochs": 7}})
    as_stated, by_default = run(changed={"epochs": 7}, training={"epochs": 7}), run()
    assert [row.departures for row in rows_of([as_stated], paper)[0]] == [()]
    assert [row.label for row in rows_of([by_default], paper)[0]] == ["bpr epochs=1000"]


def test_the_stopping_metric_is_the_one_that_the_paper_states_or_a_departure() -> None:
    paper = PAPER.model_copy(update={"stopping": "N@10"})
    usual = run()
    other = run(
        changed={"early_stopping.metric": "ndcg@10"}, training={"epochs": 1000, "early_stopping": {"metric": "ndcg@10"}}
    )
    assert [row.departures for row in rows_of([other], paper)[0]] == [()]
    assert [row.departures for row in rows_of([usual], paper)[0]] == [("early_stopping.metric=recall@20",)]
    assert [row.departures for row in rows_of([other], PAPER)[0]] == [("early_stopping.metric=ndcg@10",)]
    assert [row.departures for row in rows_of([usual], PAPER)[0]] == [()]


def test_an_obstacle_leaves_cells_without_evidence_and_says_why() -> None:
    def reason(seeds: int, **given: Any) -> str:
        (row,) = rows([run("bm3", seed, dataset="baby", **given) for seed in range(1, seeds + 1)])
        verdicts = judged(row, PAPER).verdicts
        assert list(verdicts) == ["recall@10", "recall@20", "ndcg@10", "ndcg@20"]
        assert {verdict.outcome.value for verdict in verdicts.values()} == {"no evidence"}
        return verdicts["recall@20"].reason

    assert reason(2, surrogates=["visual", "text"]) == "surrogate features: visual, text"
    assert reason(2, counts={"users": 40}) == "other data of that name: 40 users, published 19,445"
    assert reason(1, changed={"epochs": 7}).startswith(
        "settings are not the published ones (epochs=7); 1 of at least 2"
    )


def test_figures_are_of_the_part_that_the_papers_are_of() -> None:
    paper = PAPER.model_copy(update={"test_parts": {"Baby": "valid"}})
    (row,) = rows_of([run("bm3", dataset="baby", valid=0.3, test=0.4, users={"recall@20": reaching(0.4)})], paper)[0]
    assert (row.values("recall@20"), row.per_user("recall@20")) == ([0.3], None)


# which runs make a row, and what it is called


def test_a_row_is_called_as_its_suite_says_else_after_its_departures() -> None:
    runs = [run(changed={"epochs": 7})]
    (named,), (unnamed,) = rows(runs, planned(runs, label="the short one")), rows(runs, planned(runs))
    assert (named.label, unnamed.label) == ("the short one", "bpr epochs=7")
    assert named.departures == unnamed.departures == ("epochs=7",)
    assert ("epochs=7" in named.settings, "epochs=7" in unnamed.settings) == (True, False)


def test_rows_of_one_name_are_told_apart_by_what_they_differ_in() -> None:
    one, tenth = searched(ONE, (0.5, 0.4)), searched(TENTH, (0.5, 0.4))
    runs = [*one, *tenth]
    assert [row.label for row in rows(runs, planned(one), planned(tenth))] == ["bpr reg_weight=1", "bpr reg_weight=0.1"]
    assert [row.label for row in rows(runs, planned(one, label="x"), planned(one, label="x"))] == ["x", "x (2)"]


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"data": "another"}, {"bpr data=0123456789", "bpr data=another"}),
        ({"surrogates": ["visual"]}, {"bpr surrogates=none", "bpr surrogates=visual"}),
        ({"numerics": {"model": 2, "training": 1}}, {"bpr numerics=1/1", "bpr numerics=2/1"}),
    ],
)
def test_runs_on_other_data_on_surrogates_or_of_other_numerics_are_rows_of_their_own(
    change: dict[str, Any], names: set[str]
) -> None:
    found = rows([run(), run(seed=2, **change), run(seed=3)])
    assert sorted(row.seeds for row in found) == [(1, 3), (2,)]
    assert {row.label for row in found} == names


def test_rows_of_other_models_name_their_data_where_there_are_several_of_one_name() -> None:
    found = rows([run(), run("buir", data="another"), run(dataset="other", data="another")])
    assert [row.label for row in found] == ["bpr data=0123456789", "buir data=another", "bpr"]


def test_a_default_that_was_changed_between_runs_tells_them_apart_and_one_that_came_later_does_not() -> None:
    def with_default(seed: int, **config: Any) -> HandRun:
        return run(seed=seed, config=config)

    alike = rows([with_default(1, dropout=0.3), with_default(2), with_default(3, dropout=0.3)])
    assert [(row.label, row.seeds) for row in alike] == [("bpr", (1, 2, 3))]
    apart = rows([with_default(1, dropout=0.3), with_default(2, dropout=0.5), with_default(3, dropout=0.3)])
    assert [(row.label, row.seeds) for row in apart] == [("bpr dropout=0.3", (1, 3)), ("bpr dropout=0.5", (2,))]


def test_the_latest_run_of_a_seed_counts_once() -> None:
    early = run(test=0.1, finished="2025-01-01T00:00:00+00:00")
    for order in ([early, run()], [run(), early]):
        (row,) = rows(order)
        assert row.values("recall@20") == [0.5]


def test_a_point_without_a_result_is_left_out_and_a_row_for_want_of_memory_keeps_its_name() -> None:
    done, failed = searched(ONE, (0.5, 0.4)), [run(grid=TENTH, failure="error")]
    (row,) = rows([*done, *failed], planned(done, failed))
    assert len(row.grid) == 1
    assert rows_of(failed, PAPER, [planned(failed)]) == ([], {})
    starved = [run(grid=TENTH, failure="out of memory")]
    for names, dash in (((None, None), "bpr reg_weight=0.1"), (("one", "two"), "two")):
        plan = [planned(runs, label=name) for runs, name in zip((done, starved), names, strict=True)]
        assert rows_of([*done, *starved], PAPER, plan)[1] == {"mini": (dash,)}
    assert rows_of([*done, *starved], PAPER, [planned(done, starved)])[1] == {}
    assert rows_of(starved, PAPER)[1] == {"mini": ("bpr",)}
    broken = [run(grid=ONE, failure="error")]  # a plan has these too
    assert rows_of([*starved, *broken], PAPER, [planned(starved, broken, label="one")])[1] == {"mini": ("one",)}


@pytest.mark.parametrize(
    "valid", [(0.3, 0.1, 0.5, 0.2, 0.4), (0.3, 0.5, 0.5, 0.5, 0.4), (0.3, math.nan, 0.5, 0.2, 0.4)]
)
def test_the_best_of_n_is_what_drawing_n_points_gives_on_average(valid: tuple[float, ...]) -> None:
    test = [0.31, math.nan if math.isnan(valid[1]) else 0.15, 0.45, 0.22, 0.48]
    points = [
        Point({"p": i}, {1: run(valid=v, test=t)}, "recall@20")
        for i, (v, t) in enumerate(zip(valid, test, strict=True))
    ]
    assert len(expected_best(points)) == 5
    for n, expected in enumerate(expected_best(points), 1):
        drawn = [max(chosen, key=lambda i: finite(valid[i])) for chosen in itertools.combinations(range(5), n)]
        assert expected == pytest.approx(np.mean([test[i] for i in drawn]), nan_ok=True)
