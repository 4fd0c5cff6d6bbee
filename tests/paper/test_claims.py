"""Claims as data, and what becomes of them on the published tables and on made-up runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from refusals import refusal
from rows_by_hand import PAPER, reaching, row_of, run

from harness.paper.claims import (
    Claim,
    ClaimOutcome,
    ClaimResult,
    Exponent,
    Measured,
    claims_about,
    claims_of_published,
    claims_of_rows,
    load_claims,
)
from harness.paper.published import PublishedValue, Status
from harness.paper.rows import Point, Row, choose
from harness.paper.significance import EVERY_SEED
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
    """A row whose runs have these values of every metric, and so on; as many users as that have 1, others 0."""
    runs = [
        run(
            model,
            seed,
            dataset="d",
            test=value,
            data=data,
            seconds=seconds[place] if place < len(seconds) else None,
            memory={kind: int(memory[place] * 2**30)} if place < len(memory) else None,
            users={"recall@10": reaching(value)} if per_user else {},
            shares=tuple(shares[place : place + 1]),
            host=host,
            **of_runs,
        )
        for place, (seed, value) in enumerate(enumerate(values, first_seed))
    ]
    return row_of(*runs, **fields)


GPU = "gpu_process_peak"


def needing(base: float, first: float, second: float, kind: str = GPU) -> list[Row]:
    """Rows of the reference model and of two others with these GB."""
    return [row(name, memory=[gb] * 3, kind=kind) for name, gb in (("bpr", base), ("a", first), ("b", second))]


def ours(judged: Claim, *rows: Row, exponents: Mapping[tuple[str, str], Exponent] | None = None) -> ClaimResult:
    place = Measured(PRINTED, TOLERANCES.memory, TOLERANCES, rows, differences_of(rows, TOLERANCES), exponents or {})
    (result,) = claims_of_rows([judged], place)
    assert result.where == "ours"
    assert "\n" not in result.evidence
    return result


def test_without_runs_no_claim_has_evidence() -> None:
    results = claims_of_rows(SHIPPED, Measured([], None, TOLERANCES))
    assert [(result.claim, result.outcome) for result in results] == [(claim, NO_EVIDENCE) for claim in SHIPPED]
    reasons = ("was not run", "no baseline was run", "no fitted exponents are stored")
    assert all(any(reason in result.evidence for reason in reasons) for result in results)


# published tables


BC = '["B", "C"]'


def published(printed: str, metric: str = "") -> list[PublishedValue]:
    """Figures of R@10, or of another metric: `source model figure, …`."""
    values = []
    for source, model, figure in map(str.split, printed.split(", ")):
        value, status = (None, Status.OUT_OF_MEMORY) if figure == "-" else (float(figure), Status.AS_PRINTED)
        values.append(PublishedValue("D", model, metric or "R@10", value, source, status, ""))
    return values


@pytest.mark.parametrize(
    ("text", "printed", "outcomes"),
    [
        # each place is judged by its own figures
        (ORDERING, "p-1 A 0.3, p-2 B 0.2, q A 0.2, q B 0.3, r A 0.5", {"p": HOLDS, "q": FAILS}),
        # a part that is printed leaves the claim undecided, unless it fails
        (ORDERING.replace('["B"]', BC), "p A 0.3, p B 0.2, q A 0.2, q B 0.3", {"p": UNDECIDED, "q": FAILS}),
        # equal digits decide nothing, and a dash is no figure
        (ORDERING, "p A 0.2, p B 0.2, q A 0.2, q B -", {"p": UNDECIDED}),
        # an improvement is over the best, to the decimals that it is claimed in
        (IMPROVEMENT, "p A 0.6, p B 0.5, p C 0.4, q A 0.6, q B 0.5, q C 0.5001", {"p": HOLDS, "q": FAILS}),
        (IMPROVEMENT.replace("= 2\n", "= 0\n"), "p A 0.6, p B 0.5, p C 0.5001", {"p": HOLDS}),
        (IMPROVEMENT, "p A 0.6000225, p B 0.5, p C 0.4, q A 0.6000275, q B 0.5, q C 0.4", {"p": HOLDS, "q": FAILS}),
        # a range is meant to the digits that it is claimed in
        (RATIO, "p A 1, p B 1.49, q A 1, q B 1.51, r A 1, r B 2", {"p": FAILS, "q": HOLDS, "r": HOLDS}),
        (RATIO, "p A 1, p B 9.49, q A 1, q B 9.51", {"p": HOLDS, "q": FAILS}),
    ],
)
def test_what_tables_say_of_a_claim(tmp_path: Path, text: str, printed: str, outcomes: dict[str, ClaimOutcome]) -> None:
    found = claims_of_published([claim(tmp_path, text)], published(printed, "Time (s/epoch)" * (text == RATIO)))
    assert {result.where: result.outcome for result in found} == outcomes


@pytest.mark.parametrize(
    ("figure", "shown"),
    [(0.6, "(holds 5): the nearest: A over F, D R@10: 0.6000 against 0.5000"), (0.4, "(holds 3, fails 2): A over F")],
)
def test_of_many_comparisons_those_that_decide_are_shown_or_the_nearest_of_them(
    tmp_path: Path, figure: float, shown: str
) -> None:
    judged = claim(tmp_path, ORDERING.replace('["B"]', '["B", "C", "E", "F", "G"]'))
    values = published(f"p A {figure}, p B 0.1, p C 0.2, p E 0.3, p F 0.5, p G 0.45")
    (result,) = claims_of_published([judged], values)
    assert shown in result.evidence
    assert claims_about([result], "G") == (result,)
    assert claims_about([result], "H") == ()


def test_the_nearest_is_the_one_next_to_either_end_of_its_range(tmp_path: Path) -> None:
    judged = claim(tmp_path, RATIO.replace('["B"]', '["B", "C", "E", "F", "G"]'))
    for near, others in ((2.1, 8.4), (8.9, 2.6)):
        values = published(f"p A 1, p B 5, p C {others}, p E {near}, p F 4, p G 6", "Time (s/epoch)")
        (result,) = claims_of_published([judged], values)
        assert "(holds 5): the nearest: E " in result.evidence


def test_a_disputed_figure_is_no_evidence(tmp_path: Path) -> None:
    first, second = published("p A 1, p B 3", "Time (s/epoch)")
    slip = replace(second, status=Status.DISPUTED, note="a slip")
    (result,) = claims_of_published([claim(tmp_path, RATIO)], [first, slip])
    assert result.outcome is NO_EVIDENCE
    assert "3.00" in result.evidence
    assert "a slip" in result.evidence


# runs


def times(factor: float | Sequence[float]) -> list[float]:
    return list(np.array([0.40, 0.42, 0.44]) * factor)


TWO, THREE = ORDERING.replace('["B"]', BC), ORDERING.replace('["B"]', '["B", "C", "X"]')
HALF_OF = RATIO.replace("Time (s/epoch)", "Memory (GB)").replace(
    "low = 2\nhigh = 9\ndecimals = 0", "high = 0.5\ndecimals = 2"
)
HALF_OF = HALF_OF.replace('["B"]', '["A"]').replace('denominator = "A"', 'denominator = "B"')
PRINTED = [PublishedValue("D", "BPR", "Memory (GB)", 1.59, "paper", Status.AS_PRINTED, "")]
GOOD, BAD, HIGH, LOW = (0.50, 0.51, 0.52), (0.40, 0.41, 0.43), (0.9, 0.9), (0.1, 0.1)
A, B, ODD = row("a", HIGH), row("b", LOW), ("dropout=1",)
BASE, HALF = row("b", times(1)), row("c", times(0.5))
SIX, FIVE, FOUR = row("a", (0.6, 0.6)), row("b", (0.5, 0.5)), row("c", (0.4, 0.4))
VARIANT = row("a", LOW, label="a", departures=("x=1", "y=1"))
SECOND = row("a", seconds=[(1.0, 1.0, 1.0)], departures=("epochs=7",))


def thrice(**given: Any) -> list[Row]:
    """Rows of which the second takes three times as long."""
    return [SECOND, row("b", seconds=[(3.0, 3.0, 3.0)], **given)]


SLOW = thrice()[1]
BESIDE = replace(SLOW, shared=frozenset([SLOW.runs[0].path]))
IN_BLOCKS = row("b", memory=[9.0] * 3, kind=GPU, of_runs={"changed": {"evaluation": {"block_users": 7}}})
OTHER_KIND = row("b", memory=[9.0] * 3, kind="allocator_reserved_peak")
ELSEWHERE = row("bpr", memory=[1.0] * 3, kind=GPU, host="another")
ORIENTATION = ["0.9000 against 0.1000", "orientation only: settings are not the published ones (dropout=1)"]
FIGURES = ["0.5100 against 0.4133", "over users +0.0967 [", "adjusted p ", "over 3 seeds +0.0967 ["]
Case = tuple[str, str, Sequence[Row], ClaimOutcome, Sequence[str]]

ORDERINGS: list[Case] = [
    ("users and seeds agree", ORDERING, [row("a", GOOD), row("b", BAD)], HOLDS, FIGURES),
    ("they agree on the opposite", ORDERING, [row("a", BAD), row("b", GOOD)], FAILS, []),
    ("may be chance", ORDERING, [row("a", (0.502, 0.502)), row("b", (0.5, 0.5))], UNDECIDED, []),
    ("a seed says less", ORDERING, [row("a", (0.50, 0.60)), row("b", (0.51, 0.40))], UNDECIDED, []),
    ("a seed says more", ORDERING, [row("a", (0.51, 0.40)), row("b", (0.50, 0.60))], UNDECIDED, []),
    ("two seeds far apart", ORDERING, [row("a", (0.60, 0.80)), row("b", (0.40, 0.41))], UNDECIDED, []),
    ("other seeds", ORDERING, [A, row("b", LOW, first_seed=7)], UNDECIDED, ["fewer than two shared seeds"]),
    ("users not stored", ORDERING, [row("a", HIGH, per_user=False), B], UNDECIDED, ["no per-user metrics"]),
    ("one seed", ORDERING, [row("a", (0.9,)), B], NO_EVIDENCE, ["of at least 2 seeds"]),
    ("a is not as published", ORDERING, [row("a", HIGH, departures=ODD), B], NO_EVIDENCE, ORIENTATION),
    ("b is not as published", ORDERING, [A, row("b", LOW, departures=ODD)], NO_EVIDENCE, ORIENTATION),
    ("other data", ORDERING, [A, row("b", LOW, data="x")], NO_EVIDENCE, ["data 0123456789 and on data x", "-0.9"]),
    ("not finite", ORDERING, [row("a", (0.9, math.nan), per_user=False), B], NO_EVIDENCE, ["not finite"]),
    ("a part is not the claim", TWO, [A, B], UNDECIDED, ["holds 1, no evidence 1"]),
    ("one failure is enough", THREE, [row("a", GOOD), B, row("c", HIGH)], FAILS, ["a over c", "-a over b"]),
    ("the representative", ORDERING, [VARIANT, row("a", HIGH, label="name"), B], HOLDS, ["name over b, D R@10"]),
    ("a variant alone", ORDERING, [VARIANT, B], NO_EVIDENCE, []),
    ("names in any case", ORDERING, [row("A", HIGH), B], HOLDS, []),
]
IMPROVEMENTS: list[Case] = [  # +20 % within 3 % of the ratio is +16.4 % to +23.6 %
    ("+17 %", IMPROVEMENT, [row("a", times(1.17)), BASE, HALF], HOLDS, ["+17.0 % ["]),
    ("+23 %", IMPROVEMENT, [row("a", times(1.23)), BASE, HALF], HOLDS, ["+23.0 % ["]),
    ("+15 %", IMPROVEMENT, [row("a", times(1.15)), BASE, HALF], FAILS, ["+15.0 % ["]),
    ("+25 %", IMPROVEMENT, [row("a", times(1.25)), BASE, HALF], FAILS, ["+25.0 % ["]),
    ("+5 % to 35 %", IMPROVEMENT, [row("a", times([1.05, 1.2, 1.35])), BASE, HALF], UNDECIDED, []),
    ("all were run", IMPROVEMENT, [SIX, FIVE, FOUR], HOLDS, []),
    ("a baseline was not", IMPROVEMENT, [SIX, FIVE], NO_EVIDENCE, ["C was not run", "+20.0 %"]),
    ("one departs", IMPROVEMENT, [SIX, FIVE, row("c", (0.4, 0.4), departures=ODD)], NO_EVIDENCE, []),
    ("no baseline", IMPROVEMENT, [SIX], NO_EVIDENCE, []),
    ("other seeds", IMPROVEMENT, [SIX, row("b", (0.5,) * 2, first_seed=8), FOUR], NO_EVIDENCE, ["no two shared"]),
]
QUARTILES = {
    (2.9, 3.0, 3.1): (HOLDS, "3.00 [2.90, 3.10]"),
    (1.2, 1.3, 1.34): (FAILS, "1.30 [1.20, 1.34]"),
    (11.0, 12.0, 13.0): (FAILS, "12.00 [11.00, 13.00]"),
    (1.0, 3.0, 3.1): (UNDECIDED, "3.00 [1.00, 3.10]"),
    (8.0, 9.0, 12.0): (UNDECIDED, "9.00 [8.00, 12.00]"),
}
SHARES = {(0.26, 0.4): HOLDS, (0.2,): FAILS, (0.25,): FAILS, (0.2, 0.3): UNDECIDED, (): NO_EVIDENCE}
NEED, WIDE = needing(1.0, 2.0, 9.0), row("b", seconds=[(2.9, 3.0, 3.1), (2.9, 3.2, 12.0)])
COSTS: list[Case] = [
    *(
        (f"quartiles {q}", RATIO, [SECOND, row("b", seconds=[q])], found, [told, "1 and"])
        for q, (found, told) in QUARTILES.items()
    ),
    ("more runs widen the range", RATIO, [SECOND, WIDE], UNDECIDED, ["3.10 [2.90, 12.00]", "2 and 1 runs"]),
    ("memory, whatever the context", HALF_OF, needing(1.0, 2.25, 9.0), HOLDS, ["0.30 if 0 GB", "0.20 if 1.1 GB"]),
    ("too much, whatever it is", HALF_OF, needing(1.0, 1.5, 2.0), FAILS, ["0.81 if 0 GB", "0.66 if 1.1", "0.75 (1.5"]),
    ("that depends on it", HALF_OF, needing(1.0, 1.5, 3.5), UNDECIDED, ["0.51 if 0", "how much of the printed"]),
    ("no reference", HALF_OF, NEED[1:], NO_EVIDENCE, ["0.22 (2 against 9 GB)", "BPR was not run"]),
    ("main memory", HALF_OF, needing(1.0, 2.0, 9.0, kind="process_rss_peak"), NO_EVIDENCE, ["main memory"]),
    ("of two kinds", HALF_OF, [*NEED[:2], OTHER_KIND], NO_EVIDENCE, ["allocator reserved peak", "gpu p", "-blocks of"]),
    ("in blocks", HALF_OF, [*NEED[:2], IN_BLOCKS], NO_EVIDENCE, ["evaluated in blocks of [7] users"]),
    ("the reference elsewhere", HALF_OF, [ELSEWHERE, *NEED[1:]], NO_EVIDENCE, ["measured elsewhere"]),
    ("another host", RATIO, thrice(host="another"), NO_EVIDENCE, ["another", "-3.00"]),
    ("other data", RATIO, thrice(data="another"), NO_EVIDENCE, ["another", "-3.00"]),
    # what makes costs incomparable is not what makes accuracy so
    ("surrogates", RATIO, thrice(of_runs={"surrogates": ["visual"]}), NO_EVIDENCE, ["3.00", "features (visual)"]),
    (
        "another batch",
        RATIO,
        thrice(departures=("batch_size=7",)),
        NO_EVIDENCE,
        ["3.00", "(batch_size=7)"],
    ),
    ("another width", RATIO, thrice(departures=("embedding_size=4",)), NO_EVIDENCE, ["3.00", "(embedding_size=4)"]),
    ("shorter", RATIO, thrice(departures=("epochs=9", "early_stopping.patience=3")), HOLDS, ["3.00", "-published"]),
    ("as its paper", RATIO, thrice(of_runs={"changed": {"batch_size": 7}}), HOLDS, ["3.00", "-published"]),
    ("beside another run", RATIO, [SECOND, BESIDE], NO_EVIDENCE, ["3.00", "timed beside another run"]),
    ("which leaves memory", HALF_OF, [replace(one, shared=BESIDE.shared) for one in NEED], HOLDS, []),
    ("not measured", RATIO, [row("a", seconds=[]), B], NO_EVIDENCE, ["a has no Time (s/epoch)"]),
    *((f"shares {shares}", SHARE, [row("a", shares=shares)], outcome, []) for shares, outcome in SHARES.items()),
]
CASES = [pytest.param(*case[1:], id=case[0]) for case in (*ORDERINGS, *IMPROVEMENTS, *COSTS)]


@pytest.mark.parametrize(("text", "rows", "outcome", "told"), CASES)
def test_what_runs_say_of_a_claim(
    tmp_path: Path, text: str, rows: Sequence[Row], outcome: ClaimOutcome, told: Sequence[str]
) -> None:
    """The evidence has each text that is `told`, and none that has a minus before it."""
    result = ours(claim(tmp_path, text), *rows)
    assert result.outcome is outcome
    for part in told:
        assert (part.removeprefix("-") in result.evidence) != part.startswith("-"), result.evidence


def test_all_rows_of_one_data_set_are_one_family() -> None:
    rows = [row(model, values) for model, values in (("a", (0.5,)), ("b", (0.9,)), ("c", (0.52,)))]
    family = differences_of([*rows, row("e", data="another"), row("f", per_user=False)], TOLERANCES)
    ours, another = (rows[0].dataset, "0123456789abcdef"), (rows[0].dataset, "another")
    assert {data: len(found) for data, found in family.items()} == {ours: 3, another: 0}
    ((alone,),) = differences_of(rows[:2], TOLERANCES).values()
    first = family[ours][0]
    assert first.p_value == alone.p_value
    assert first.adjusted == pytest.approx(3 * alone.adjusted)


def test_one_content_under_two_names_is_two_families() -> None:
    rows = [row("a", (0.5,)), row("b", (0.9,))]
    copies = [replace(one, dataset="copy") for one in (row("a", (0.9,)), row("b", (0.5,)))]
    (ours,), (theirs,) = differences_of([*rows, *copies], TOLERANCES).values()
    assert ours.mean == pytest.approx(-theirs.mean)


CLOSED = {"stopped": "closed form"}


@pytest.mark.parametrize(
    ("model", "of_runs", "draws"),
    [
        ("ease", CLOSED, False),
        ("ials", CLOSED, True),
        ("ease", {"stopped": "early"}, True),
        ("theirs", CLOSED, True),
        ("easecontent", {**CLOSED, "changed": {"vectors": {"content": "noise"}}}, True),
        ("easecontent", {**CLOSED, "changed": {"vectors": {"content": "ones"}}}, False),
    ],
)
def test_copies_of_a_run_that_draws_nothing_are_one_seed_of_a_cell(
    model: str, of_runs: Mapping[str, Any], draws: bool
) -> None:
    found = row(model, of_runs=of_runs)
    assert [*found.by_seed("R@20")] == ([0, 1, 2] if draws else [EVERY_SEED])
    assert len(found.values("R@20")) == 3
    assert {verdict.seeds for verdict in found.verdicts.values()} == {3 if draws else 1}


@pytest.mark.parametrize(
    ("b", "told"),
    [("mostpop", "; neither draws anything"), ("bpr", "; over 3 seeds +0.4000 [+0.4000, +0.4000]")],
)
def test_a_claim_of_a_model_that_draws_nothing_asks_for_no_seeds_of_it(tmp_path: Path, b: str, told: str) -> None:
    text = ORDERING.replace('"A"', '"ease"').replace('"B"', f'"{b}"')
    others = row(b, (0.5,) * 3, of_runs=CLOSED if b == "mostpop" else {})
    result = ours(claim(tmp_path, text), row("ease", (0.9,), first_seed=9, of_runs=CLOSED), others)
    assert result.outcome is ClaimOutcome.HOLDS
    assert told in result.evidence


def searched(model: str, *reached: float, data: str = "0123456789abcdef", **given: Any) -> Row:
    """A row of as many points, each with this value on both parts."""
    points = []
    for place, value in enumerate(reached):
        one = run(model, dataset="d", test=value, valid=value, grid={"reg_weight": place})
        points.append(Point({"p": place}, {1: one}, "recall@20"))
    chosen = choose(points)
    assert chosen is not None
    return replace(row(model, data=data), selection=chosen, **given)


@pytest.mark.parametrize(
    ("rows", "outcome", "told"),
    [
        ([searched("a", 0.3, 0.5), searched("b", 0.1, 0.2, 0.6)], HOLDS, "1 trials +33.3 %, 2 trials +7.1 %"),
        ([searched("a", 0.3, 0.5), searched("b", 0.1, 0.2, 0.9)], UNDECIDED, "2 trials -25.0 %"),
        ([searched("a", 0.3, 0.5, 0.9), searched("b", 0.1, 0.2, 0.6)], HOLDS, "2 trials +64.3 %, 3 trials +50.0 %"),
        ([searched("a", 0.5, 0.6), searched("b", 0.2, 0.4, 0.45)], HOLDS, "1 trials +57.1 %, 2 trials +38.5 %"),
        ([searched("b", 0.5, 0.6), searched("a", 0.2, 0.4)], FAILS, "2 trials -33.3 %"),
        ([searched("a", 0.5, 0.6), searched("b", 0.499, 0.6)], UNDECIDED, ""),
        ([searched("a", 0.5, 0.6), row("b")], NO_EVIDENCE, "one point of b was run"),
        ([searched("a", 0.5, 0.6)], NO_EVIDENCE, "B was not run"),
        ([searched("a", 0.5, 0.6), searched("b", 0.1, 0.2, data="another")], NO_EVIDENCE, "measured on other data"),
        ([searched("a", 0.5, 0.6, departures=("x=1",)), searched("b", 0.1, 0.2)], NO_EVIDENCE, "+266.7 %"),
    ],
)
def test_at_equal_budgets_it_is_better_for_each_number_of_trials(
    tmp_path: Path, rows: list[Row], outcome: ClaimOutcome, told: str
) -> None:
    judged = claim(tmp_path, HEAD + 'kind = "budget"\nmodel = "A"\nothers = ["B"]\ndatasets = ["D"]')
    assert not claims_of_published([judged], [])
    result = ours(judged, *rows)
    assert (result.outcome, told in result.evidence) == (outcome, True), result.evidence
    assert result.evidence.count("2 trials") <= 1


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
        (ORDERING.replace('kind = "ordering"\n', ""), "claims.0"),
        (ORDERING.replace('others = ["B"]', "others = []"), "claims.0.ordering.others"),
        (ORDERING + "surplus = 1\n", "claims.0.ordering.surplus"),
        (IMPROVEMENT.replace("{ D = 20 }", '{ D = "20" }'), "claims.0.improvement.percent.D"),
        (RATIO.replace("Time (s/epoch)", "R@10"), "claims.0.ratio.metrics.0"),
        (RATIO.replace("high = 9", "high = nan"), "claims.0.ratio.high"),
        (SHARE.replace("0.25", "25"), "claims.0.share.above"),
        (ORDERING * 2, "'x'"),
        ("claims =\n", "line 1"),
    ],
)
def test_a_claim_that_makes_no_sense_is_refused_by_file_and_field(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "claims.toml"
    path.write_text(text)
    message = refusal(lambda: load_claims(path))
    assert message.startswith(f"{path}: ")
    assert field in message
