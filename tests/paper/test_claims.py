"""Claims as data, and what becomes of them on the published tables and on made-up runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from rows_by_hand import PAPER, reaching, row_of, run

from bm3.errors import DataError
from harness.paper.claims import (
    Claim,
    ClaimOutcome,
    ClaimResult,
    Exponent,
    Measured,
    claims_of_published,
    claims_of_rows,
    load_claims,
)
from harness.paper.published import PublishedValue, Status
from harness.paper.rows import Row
from harness.paper.study import differences_of

HOLDS, FAILS, UNDECIDED, NO_EVIDENCE = ClaimOutcome
TOLERANCES, SHIPPED = PAPER.tolerances, PAPER.claims

HEAD = '[[claims]]\nid = "x"\ntext = "x"\nsource = "x"\n'
ORDERING = HEAD + 'kind = "ordering"\nmodel = "A"\nothers = ["B"]\ndatasets = ["D"]\nmetrics = ["R@10"]\n'
IMPROVEMENT = (
    HEAD
    + 'kind = "improvement"\nmodel = "A"\nothers = ["B", "C"]\nmetric = "R@10"\npercent = { D = 20 }\ndecimals = 2\n'
)
RATIO = (
    HEAD + 'kind = "ratio"\nnumerators = ["B"]\ndenominator = "A"\ndatasets = ["D"]\nmetrics = ["Time (s/epoch)"]\n'
    "low = 2\nhigh = 9\ndecimals = 0\n"
)
SHARE = HEAD + 'kind = "share"\nmodel = "A"\ndatasets = ["D"]\nabove = 0.25\n'
GROWTH = HEAD + 'kind = "growth"\n[claims.exponents]\nA = { E = 1, I = 2 }\n'


def claim(tmp_path: Path, text: str) -> Claim:
    path = tmp_path / "claims.toml"
    path.write_text(text)
    (found,) = load_claims(path)
    return found


def row(
    model: str,
    values: Sequence[float] = (0.5, 0.5, 0.5),
    *,
    first_seed: int = 0,
    per_user: bool = True,
    seconds: Sequence[tuple[float, float, float]] = ((0.9, 1.0, 1.1),) * 3,
    memory: Sequence[float] = (2.0, 2.0, 2.0),
    kind: str = "process_rss_peak",
    shares: Sequence[float] = (),
    host: str = "a core",
    data: str = "0123456789abcdef",
    of_runs: Mapping[str, Any] = MappingProxyType({}),
    **fields: Any,
) -> Row:
    """A row whose runs have these values of every metric, and so on; as many users as their mean have 1, others 0."""
    runs = [
        run(
            model,
            seed,
            dataset="d",
            test=value,
            data=data,
            seconds=seconds[place] if place < len(seconds) else None,
            memory={kind: int(memory[place] * 2**30)} if place < len(memory) else None,
            users={"recall@10": reaching(float(np.mean(values)))} if per_user and place == 0 else {},
            shares=tuple(shares[place : place + 1]),
            host=host,
            **of_runs,
        )
        for place, (seed, value) in enumerate(enumerate(values, first_seed))
    ]
    return row_of(*runs, **fields)


def ours(judged: Claim, *rows: Row, exponents: Mapping[tuple[str, str], Exponent] | None = None) -> ClaimResult:
    place = Measured(rows, TOLERANCES, differences_of(rows, TOLERANCES.confidence), exponents or {})
    (result,) = claims_of_rows([judged], place)
    assert result.where == "ours"
    assert "\n" not in result.evidence
    return result


def published(judged: Claim, *cells: tuple[str, str, float | None]) -> dict[str, ClaimResult]:
    """(source, model, value) of R@10 on D; by place."""
    values = [
        PublishedValue("D", model, "R@10", value, source, Status.AS_PRINTED if value else Status.OUT_OF_MEMORY, "")
        for source, model, value in cells
    ]
    return {result.where: result for result in claims_of_published([judged], values)}


# what ships


@pytest.fixture(scope="module")
def on_tables() -> dict[tuple[str, str], ClaimResult]:
    results = claims_of_published(SHIPPED, PAPER.values)
    return {(result.claim.id, result.where): result for result in results}


def test_the_eight_claims_are_there_in_the_papers_order() -> None:
    assert [c.id for c in SHIPPED] == [
        "best everywhere",
        "lead over the best baseline",
        "faster than multimodal graph models",
        "half the cost of LATTICE",
        "cost of sampling negatives",
        "multimodal models do not always win",
        "features help factorisation",
        "complexity",
    ]


def test_the_paper_bears_out_each_claim_that_it_prints_figures_for(
    on_tables: dict[tuple[str, str], ClaimResult],
) -> None:
    paper = {claim: result.outcome for (claim, where), result in on_tables.items() if where == "paper"}
    assert set(paper) == {c.id for c in SHIPPED} - {"cost of sampling negatives", "complexity"}
    assert set(paper.values()) == {HOLDS}


def test_the_toolbox_bears_out_the_orderings_that_it_prints_whole_and_not_the_lead(
    on_tables: dict[tuple[str, str], ClaimResult],
) -> None:
    toolbox = {claim: result.outcome for (claim, where), result in on_tables.items() if where == "toolbox"}
    assert toolbox == {
        "best everywhere": UNDECIDED,
        "lead over the best baseline": FAILS,
        "multimodal models do not always win": HOLDS,
        "features help factorisation": HOLDS,
    }
    assert "not printed 12" in on_tables["best everywhere", "toolbox"].evidence  # BUIR


def test_the_lead_on_electronics_depends_on_which_figure_of_grcn_is_taken(
    on_tables: dict[tuple[str, str], ClaimResult],
) -> None:
    paper, toolbox = (on_tables["lead over the best baseline", where] for where in ("paper", "toolbox"))
    (what, figure, outcome) = paper.details[-1]
    assert (what, outcome) == ("BM3 over LightGCN, Electronics R@10", HOLDS)
    assert figure.startswith("+20.39 % ")
    (what, figure, outcome) = toolbox.details[-1]
    assert (what, outcome) == ("BM3 over GRCN, Electronics R@10", FAILS)
    assert figure.startswith("+12.34 % ")
    assert "+12.34 %" in toolbox.evidence


def test_lattice_takes_part_only_where_the_paper_has_figures_for_it(
    on_tables: dict[tuple[str, str], ClaimResult],
) -> None:
    for name, count in (("best everywhere", 3 * 4 * 8 - 4), ("faster than multimodal graph models", 3 * 4 - 1)):
        result = on_tables[name, "paper"]
        assert len(result.details) == count
        assert not any("LATTICE" in what and "Electronics" in what for what, *_ in result.details)


def test_without_runs_no_claim_has_evidence() -> None:
    results = claims_of_rows(SHIPPED, Measured([], TOLERANCES))
    assert [result.claim for result in results] == list(SHIPPED)
    assert {result.outcome for result in results} == {NO_EVIDENCE}
    assert all(
        "was not run" in r.evidence
        or "no baseline was run" in r.evidence
        or "no fitted exponents are stored" in r.evidence
        for r in results
    )


# published tables


def test_each_place_is_judged_by_its_own_figures(tmp_path: Path) -> None:
    found = published(
        claim(tmp_path, ORDERING),
        ("p-1", "A", 0.3),
        ("p-2", "B", 0.2),
        ("q", "A", 0.2),
        ("q", "B", 0.3),
        ("r", "A", 0.5),
    )
    assert {where: result.outcome for where, result in found.items()} == {"p": HOLDS, "q": FAILS}


def test_a_claim_of_which_a_place_prints_a_part_is_undecided_unless_that_part_fails(tmp_path: Path) -> None:
    judged = claim(tmp_path, ORDERING.replace('["B"]', '["B", "C"]'))
    assert published(judged, ("p", "A", 0.3), ("p", "B", 0.2))["p"].outcome is UNDECIDED
    assert published(judged, ("p", "A", 0.2), ("p", "B", 0.3))["p"].outcome is FAILS


def test_equal_digits_decide_nothing(tmp_path: Path) -> None:
    assert published(claim(tmp_path, ORDERING), ("p", "A", 0.2), ("p", "B", 0.2))["p"].outcome is UNDECIDED


def test_a_printed_dash_is_no_figure(tmp_path: Path) -> None:
    assert published(claim(tmp_path, ORDERING), ("p", "A", 0.2), ("p", "B", None)) == {}


def test_a_disputed_figure_is_no_evidence(tmp_path: Path) -> None:
    values = [
        PublishedValue("D", "A", "Time (s/epoch)", 1.0, "p", Status.AS_PRINTED, ""),
        PublishedValue("D", "B", "Time (s/epoch)", 3.0, "p", Status.DISPUTED, "a slip"),
    ]
    (result,) = claims_of_published([claim(tmp_path, RATIO)], values)
    assert result.outcome is NO_EVIDENCE
    assert "3.00" in result.evidence
    assert "a slip" in result.evidence


def test_an_improvement_is_over_the_best_and_to_the_decimals_it_is_claimed_in(tmp_path: Path) -> None:
    judged = claim(tmp_path, IMPROVEMENT)
    assert published(judged, ("p", "A", 0.6), ("p", "B", 0.5), ("p", "C", 0.4))["p"].outcome is HOLDS
    result = published(judged, ("p", "A", 0.6), ("p", "B", 0.5), ("p", "C", 0.5001))["p"]
    assert result.outcome is FAILS
    assert result.details[0][0] == "A over C, D R@10"
    assert published(claim(tmp_path, IMPROVEMENT.replace("= 2\n", "= 0\n")), ("p", "A", 0.6), ("p", "C", 0.5001))


@pytest.mark.parametrize(
    ("seconds", "outcome"), [(1.49, FAILS), (1.51, HOLDS), (2.0, HOLDS), (9.49, HOLDS), (9.51, FAILS)]
)
def test_a_range_is_meant_to_the_digits_it_is_claimed_in(tmp_path: Path, seconds: float, outcome: ClaimOutcome) -> None:
    values = [
        PublishedValue("D", model, "Time (s/epoch)", value, "p", Status.AS_PRINTED, "")
        for model, value in (("A", 1.0), ("B", seconds))
    ]
    (result,) = claims_of_published([claim(tmp_path, RATIO)], values)
    assert result.outcome is outcome


# orderings of runs


def test_an_ordering_of_runs_holds_or_fails_where_users_and_seeds_agree(tmp_path: Path) -> None:
    judged = claim(tmp_path, ORDERING)
    good, bad = (0.50, 0.51, 0.52), (0.40, 0.41, 0.43)
    result = ours(judged, row("a", good), row("b", bad))
    assert result.outcome is HOLDS
    for part in ("0.5100 against 0.4133", "over users +0.0975 [", "adjusted p ", "over 3 seeds +0.0967 ["):
        assert part in result.evidence
    assert ours(judged, row("a", bad), row("b", good)).outcome is FAILS


def test_a_difference_that_may_be_chance_is_undecided(tmp_path: Path) -> None:
    result = ours(claim(tmp_path, ORDERING), row("a", (0.502, 0.502)), row("b", (0.5, 0.5)))
    assert result.outcome is UNDECIDED


def test_a_seed_that_says_the_opposite_leaves_it_undecided(tmp_path: Path) -> None:
    judged = claim(tmp_path, ORDERING)
    for a, b in (((0.50, 0.60), (0.51, 0.40)), ((0.51, 0.40), (0.50, 0.60))):
        assert ours(judged, row("a", a), row("b", b)).outcome is UNDECIDED


def test_an_ordering_needs_an_interval_over_shared_seeds_without_0(tmp_path: Path) -> None:
    judged = claim(tmp_path, ORDERING)
    assert ours(judged, row("a", (0.60, 0.61, 0.60)), row("b", (0.40, 0.40, 0.41))).outcome is HOLDS
    assert ours(judged, row("b", (0.60, 0.61, 0.60)), row("a", (0.40, 0.40, 0.41))).outcome is FAILS
    wide = ours(judged, row("a", (0.60, 0.80)), row("b", (0.40, 0.41)))  # both seeds agree, and two are few
    assert wide.outcome is UNDECIDED
    others = row("b", (0.40, 0.40, 0.41), first_seed=7)
    unpaired = ours(judged, row("a", (0.60, 0.61, 0.60)), others)
    assert unpaired.outcome is UNDECIDED
    assert "no two shared seeds" in unpaired.evidence


def test_without_per_user_metrics_an_ordering_is_undecided_and_says_so(tmp_path: Path) -> None:
    result = ours(claim(tmp_path, ORDERING), row("a", (0.9, 0.9), per_user=False), row("b", (0.1, 0.1)))
    assert result.outcome is UNDECIDED
    assert "no per-user metrics" in result.evidence


def test_fewer_seeds_than_a_cell_needs_are_no_evidence(tmp_path: Path) -> None:
    result = ours(claim(tmp_path, ORDERING), row("a", (0.9,)), row("b", (0.1, 0.1)))
    assert result.outcome is NO_EVIDENCE
    assert "of at least 2 seeds" in result.evidence


@pytest.mark.parametrize("departing", ["a", "b"])
def test_a_row_that_is_not_as_published_is_no_evidence_but_the_figure_is_shown(tmp_path: Path, departing: str) -> None:
    rows = [
        row(model, values, departures=("dropout=1",) if model == departing else ())
        for model, values in (("a", (0.9, 0.9)), ("b", (0.1, 0.1)))
    ]
    result = ours(claim(tmp_path, ORDERING), *rows)
    assert result.outcome is NO_EVIDENCE
    assert "0.9000 against 0.1000" in result.evidence
    assert "orientation only: settings are not the published ones (dropout=1)" in result.evidence


def test_rows_on_other_data_are_not_compared(tmp_path: Path) -> None:
    result = ours(claim(tmp_path, ORDERING), row("a", (0.9, 0.9)), row("b", (0.1, 0.1), data="another"))
    assert result.outcome is NO_EVIDENCE
    assert "data 0123456789 and on data another" in result.evidence
    assert "0.9" not in result.evidence


def test_a_run_without_a_finite_value_is_no_evidence(tmp_path: Path) -> None:
    result = ours(claim(tmp_path, ORDERING), row("a", (0.9, math.nan), per_user=False), row("b", (0.1, 0.1)))
    assert result.outcome is NO_EVIDENCE
    assert "not finite" in result.evidence


def test_a_part_of_a_claim_is_not_the_claim(tmp_path: Path) -> None:
    judged = claim(tmp_path, ORDERING.replace('["B"]', '["B", "C"]'))
    result = ours(judged, row("a", (0.9, 0.9)), row("b", (0.1, 0.1)))
    assert result.outcome is UNDECIDED
    assert [outcome for *_, outcome in result.details] == [HOLDS, NO_EVIDENCE]
    assert "holds 1" in result.evidence
    assert "no evidence 1" in result.evidence


def test_one_failure_is_enough(tmp_path: Path) -> None:
    judged = claim(tmp_path, ORDERING.replace('["B"]', '["B", "C", "X"]'))
    result = ours(judged, row("a", (0.5, 0.5)), row("b", (0.1, 0.1)), row("c", (0.9, 0.9)))
    assert result.outcome is FAILS
    assert "a over c" in result.evidence
    assert "a over b" not in result.evidence


def test_the_representative_row_stands_for_a_model(tmp_path: Path) -> None:
    judged = claim(tmp_path, ORDERING)
    variant = row("a", (0.1, 0.1), label="a", departures=("x=1", "y=1"))
    result = ours(judged, variant, row("a", (0.9, 0.9), label="by another name"), row("b", (0.5, 0.5)))
    assert (result.outcome, result.details[0][0]) == (HOLDS, "by another name over b, D R@10")
    assert ours(judged, variant, row("b", (0.5, 0.5))).outcome is NO_EVIDENCE


def test_names_are_compared_without_case(tmp_path: Path) -> None:
    result = ours(claim(tmp_path, ORDERING), row("A", (0.9, 0.9)), row("b", (0.1, 0.1)))
    assert result.outcome is HOLDS


def test_all_rows_of_one_data_set_are_one_family() -> None:
    rows = [row(model, values) for model, values in (("a", (0.5,)), ("b", (0.9,)), ("c", (0.52,)))]
    family = differences_of([*rows, row("e", data="another"), row("f", per_user=False)], 0.95)
    assert {data: len(found) for data, found in family.items()} == {"0123456789abcdef": 3, "another": 0}
    (alone,) = differences_of(rows[:2], 0.95)["0123456789abcdef"]
    assert family["0123456789abcdef"][0].p_value == alone.p_value
    assert family["0123456789abcdef"][0].adjusted == pytest.approx(3 * alone.adjusted)


# improvements of runs


def test_an_improvement_holds_to_within_the_tolerance_of_the_metric(tmp_path: Path) -> None:
    """+20 % within 3 % of the ratio is +16.4 % to +23.6 %; every seed of A is so much above that of B."""
    judged, base = claim(tmp_path, IMPROVEMENT), np.array([0.40, 0.42, 0.44])
    b, c = row("b", base.tolist()), row("c", (base / 2).tolist())
    for factor, outcome in ((1.17, HOLDS), (1.23, HOLDS), (1.15, FAILS), (1.25, FAILS)):
        result = ours(judged, row("a", (base * factor).tolist()), b, c)
        assert result.outcome is outcome
        assert f"{100 * (factor - 1):+.1f} % [" in result.evidence
    assert ours(judged, row("a", (base * [1.05, 1.2, 1.35]).tolist()), b, c).outcome is UNDECIDED


def test_the_best_baseline_is_unknown_while_one_was_not_run_or_had_other_features(tmp_path: Path) -> None:
    judged = claim(tmp_path, IMPROVEMENT)
    a, b = row("a", (0.6, 0.6)), row("b", (0.5, 0.5))
    result = ours(judged, a, b)
    assert result.outcome is NO_EVIDENCE
    assert "C was not run" in result.evidence
    assert "+20.0 %" in result.evidence
    assert ours(judged, a, b, row("c", (0.4, 0.4), departures=("dropout=1",))).outcome is NO_EVIDENCE
    assert ours(judged, a, b, row("c", (0.4, 0.4))).outcome is HOLDS
    assert ours(judged, a).outcome is NO_EVIDENCE


def test_an_improvement_needs_shared_seeds(tmp_path: Path) -> None:
    other = row("b", (0.5, 0.5), first_seed=8)
    result = ours(claim(tmp_path, IMPROVEMENT), row("a", (0.6, 0.6)), other, row("c", (0.4, 0.4)))
    assert result.outcome is NO_EVIDENCE
    assert "no two shared seeds" in result.evidence


# ratios, shares, growth


@pytest.mark.parametrize(
    ("quartiles", "outcome"),
    [
        ((2.9, 3.0, 3.1), HOLDS),
        ((1.2, 1.3, 1.34), FAILS),
        ((11.0, 12.0, 13.0), FAILS),
        ((1.0, 3.0, 3.1), UNDECIDED),
        ((8.0, 9.0, 12.0), UNDECIDED),
    ],
)
def test_a_ratio_is_judged_by_the_epochs_quartiles(
    tmp_path: Path, quartiles: tuple[float, float, float], outcome: ClaimOutcome
) -> None:
    a, b = row("a", seconds=[(1.0, 1.0, 1.0)]), row("b", seconds=[quartiles])
    result = ours(claim(tmp_path, RATIO), a, b)
    assert result.outcome is outcome
    assert f"{quartiles[1]:.2f} [{quartiles[0]:.2f}, {quartiles[2]:.2f}]" in result.evidence
    assert "1 and 1 runs" in result.evidence


def test_more_runs_can_only_widen_the_range_of_a_ratio(tmp_path: Path) -> None:
    steady, busy = (2.9, 3.0, 3.1), (2.9, 3.2, 12.0)
    result = ours(claim(tmp_path, RATIO), row("a", seconds=[(1.0, 1.0, 1.0)]), row("b", seconds=[steady, busy]))
    assert result.outcome is UNDECIDED
    assert "3.10 [2.90, 12.00]" in result.evidence
    assert "2 and 1 runs" in result.evidence


def test_ratios_of_memory_are_of_the_same_kind_of_reading(tmp_path: Path) -> None:
    judged = claim(tmp_path, RATIO.replace("Time (s/epoch)", "Memory (GB)"))
    a, b = row("a", (0.5,), memory=[1]), row("b", (0.5, 0.5), memory=[3, 5])
    result = ours(judged, a, b)
    assert result.outcome is HOLDS
    assert "4.00 [3.00, 5.00] (4 against 1" in result.evidence
    result = ours(judged, a, row("b", (0.5, 0.5), memory=[3, 5], kind="gpu_process_peak"))
    assert result.outcome is NO_EVIDENCE
    assert "process rss peak" in result.evidence
    assert "gpu process peak" in result.evidence


@pytest.mark.parametrize("change", [{"host": "another"}, {"data": "another"}])
def test_costs_on_different_machines_or_data_form_no_ratio(tmp_path: Path, change: dict[str, Any]) -> None:
    result = ours(claim(tmp_path, RATIO), row("a"), row("b", seconds=[(3.0, 3.0, 3.0)], **change))
    assert result.outcome is NO_EVIDENCE
    assert "another" in result.evidence
    assert "3.00" not in result.evidence


def test_what_makes_costs_incomparable_is_not_what_makes_accuracy_incomparable(tmp_path: Path) -> None:
    judged = claim(tmp_path, RATIO)
    slow, third = row("b", seconds=[(3.0, 3.0, 3.0)]), [(3.0, 3.0, 3.0)]
    fast = row("a", seconds=[(1.0, 1.0, 1.0)], departures=("epochs=7",))
    assert ours(judged, fast, slow).outcome is HOLDS
    beside = replace(slow, shared=frozenset([slow.runs[0].path]))
    for changed, why in (
        (row("b", seconds=third, of_runs={"surrogates": ["visual"]}), "surrogate features (visual)"),
        (row("b", seconds=third, of_runs={"changed": {"batch_size": 7}}), "batch_size changed"),
        (beside, "timed beside another run"),
    ):
        result = ours(judged, fast, changed)
        assert (result.outcome, "3.00" in result.evidence) == (NO_EVIDENCE, True)
        assert why in result.evidence
    of_memory = claim(tmp_path, RATIO.replace("Time (s/epoch)", "Memory (GB)").replace("low = 2", "low = 1"))
    assert ours(of_memory, fast, beside).outcome is HOLDS


def test_unmeasured_costs_are_no_evidence(tmp_path: Path) -> None:
    result = ours(claim(tmp_path, RATIO), row("a", seconds=[]), row("b"))
    assert result.outcome is NO_EVIDENCE
    assert "a has no Time (s/epoch)" in result.evidence


@pytest.mark.parametrize(
    ("shares", "outcome"),
    [
        ((0.26, 0.4), HOLDS),
        ((0.2,), FAILS),
        ((0.25,), FAILS),
        ((0.2, 0.3), UNDECIDED),
        ((), NO_EVIDENCE),
    ],
)
def test_a_share_is_judged_by_all_runs(tmp_path: Path, shares: Sequence[float], outcome: ClaimOutcome) -> None:
    assert ours(claim(tmp_path, SHARE), row("a", shares=shares)).outcome is outcome


def test_growth_is_an_upper_bound_on_each_fitted_exponent(tmp_path: Path) -> None:
    judged = claim(tmp_path, GROWTH)
    items = ("a", "I"), (0.9, 0.8, 1.0)
    for fitted, outcome in (((0.8, 0.7, 0.9), HOLDS), ((1.2, 1.1, 1.3), FAILS), ((1.0, 0.9, 1.1), UNDECIDED)):
        assert ours(judged, exponents=dict([(("a", "E"), fitted), items])).outcome is outcome
    result = ours(judged, exponents=dict([items]))
    assert result.outcome is UNDECIDED
    assert [outcome for *_, outcome in result.details] == [NO_EVIDENCE, HOLDS]


# loading


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "claims"),
        ("claims = []", "claims"),
        (ORDERING.replace('kind = "ordering"', 'kind = "guess"'), "claims.0"),
        (ORDERING.replace('kind = "ordering"\n', ""), "claims.0"),
        (ORDERING.replace('model = "A"', 'model = ""'), "claims.0.ordering.model"),
        (ORDERING.replace('others = ["B"]', "others = []"), "claims.0.ordering.others"),
        (ORDERING + "surplus = 1\n", "claims.0.ordering.surplus"),
        (IMPROVEMENT.replace("{ D = 20 }", "{ D = -20 }"), "claims.0.improvement.percent.D"),
        (IMPROVEMENT.replace("{ D = 20 }", '{ D = "20" }'), "claims.0.improvement.percent.D"),
        (IMPROVEMENT.replace("{ D = 20 }", "{}"), "claims.0.improvement.percent"),
        (RATIO.replace("Time (s/epoch)", "R@10"), "claims.0.ratio.metrics.0"),
        (RATIO.replace("high = 9", "high = nan"), "claims.0.ratio.high"),
        (RATIO.replace("decimals = 0", "decimals = 0.5"), "claims.0.ratio.decimals"),
        (SHARE.replace("0.25", "25"), "claims.0.share.above"),
        (GROWTH.replace("E = 1", 'E = "1"'), "claims.0.growth.exponents.A.E"),
        (ORDERING * 2, "'x'"),
        ("claims =\n", "line 1"),
    ],
)
def test_a_claim_that_makes_no_sense_is_refused_by_file_and_field(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "claims.toml"
    path.write_text(text)
    with pytest.raises(DataError) as raised:
        load_claims(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert field in message
    assert "\n" not in message
