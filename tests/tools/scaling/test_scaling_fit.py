"""Exponents are recovered from noisy repetitions, and judged by what is published, never by what is not."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from bm3 import DataError
from harness.paper.claims import ClaimOutcome, Measured, claims_of_rows, load_claims
from harness.paper.expected import expected_dir, load_tolerances
from harness.tools.scaling.fit import (
    FORMAT,
    JSON_FILE,
    Cell,
    Complexity,
    Verdict,
    exit_code,
    exponents_of,
    fit,
    judge,
    load_complexity,
    stored_exponents,
)
from harness.tools.scaling.parts import subjects_of

SIZES = [1024, 2048, 4096, 8192, 16384]
SHIPPED = load_complexity(expected_dir() / "complexity.toml")
HEAD = "confidence = 0.95\ntolerance = 0.25\nwidest = 1.0\nmisfit = 0.25\n"
COST = '[[costs]]\nmodel = "A"\nquantity = "epoch"\nexpression = "E"\nexponents = { E = 1 }\nsource = "s"\n'


def repetitions(
    power: float, *, constant: float = 0.0, noise: float = 0.02, n: int = 7, seed: int = 0
) -> list[list[float]]:
    """a + x^k at SIZES, a being `constant` times the middle of x^k; noise of each value and of each round."""
    draw = np.random.default_rng(seed)
    x = np.array(SIZES, dtype=np.float64) ** power
    rounds = np.exp(noise * draw.standard_normal(n))
    values: list[list[float]] = (
        (constant * x[2] + x)[:, None] * rounds * np.exp(noise * draw.standard_normal((5, n)))
    ).tolist()
    return values


def complexity(tmp_path: Path, text: str) -> Complexity:
    path = tmp_path / "complexity.toml"
    path.write_text(text, encoding="utf-8")
    return load_complexity(path)


def judged(of: Complexity, values: Sequence[Sequence[float]], *, factor: str = "E", model: str = "a") -> Cell:
    return judge(of, model, "", factor, "epoch", SIZES, values)


@pytest.mark.parametrize("power", [-1.0, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("constant", [0.0, 0.5, 2.0])
def test_an_exponent_above_a_constant_is_recovered(power: float, constant: float) -> None:
    found = fit(SIZES, repetitions(power, constant=constant, noise=0.0), 0.95)
    assert found is not None
    assert (found.exponent, found.low, found.high) == pytest.approx((power,) * 3, abs=0.02)
    share = constant * 4**-power / (constant * 4**-power + 1)
    assert found.constant == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(("power", "constant"), [(1.0, 0.0), (1.0, 2.0), (2.0, 0.3), (-1.0, 1.0)])
def test_intervals_cover_the_true_exponent(power: float, constant: float) -> None:
    found = [fit(SIZES, repetitions(power, constant=constant, noise=0.04, n=5, seed=seed), 0.95) for seed in range(40)]
    covered = [f.low <= power <= f.high for f in found if f is not None]
    assert len(covered) == 40
    assert sum(covered) >= 35


def test_a_slope_stays_below_the_exponent_where_a_constant_is_there() -> None:
    found = fit(SIZES, repetitions(1.0, constant=2.0, noise=0.0), 0.95)
    assert found is not None
    assert 0.3 < found.slope < 0.9
    assert found.exponent == pytest.approx(1.0)


def test_one_slow_repetition_changes_little() -> None:
    values = repetitions(1.0, n=9)
    values[-1][4] *= 50
    found, undisturbed = fit(SIZES, values, 0.95), fit(SIZES, repetitions(1.0, n=9), 0.95)
    assert found is not None
    assert undisturbed is not None
    assert found.exponent == pytest.approx(undisturbed.exponent, abs=0.05)


def test_more_noise_makes_a_wider_interval() -> None:
    quiet, loud = (fit(SIZES, repetitions(1.0, constant=0.5, noise=noise), 0.95) for noise in (0.01, 0.1))
    assert quiet is not None
    assert loud is not None
    assert loud.high - loud.low > 3 * (quiet.high - quiet.low)


@pytest.mark.parametrize(
    ("sizes", "values"),
    [
        ([1, 2, 4], [[1.0] * 9, [2.0] * 9, [4.0] * 9]),
        ([1, 2, 4, 8], [[1.0] * 4, [2.0] * 4, [4.0] * 4, [8.0] * 4]),
        ([1, 2, 4, 8], [[0.0] * 9, [2.0] * 9, [4.0] * 9, [8.0] * 9]),
        ([], []),
    ],
    ids=["three sizes", "four repetitions", "nothing at one size", "no sizes"],
)
def test_too_little_has_no_exponent(sizes: list[int], values: list[list[float]]) -> None:
    assert fit(sizes, values, 0.95) is None
    cell = judge(SHIPPED, "bm3", "", "E", "epoch", sizes, values)
    assert cell.verdict is Verdict.NO_EVIDENCE
    assert "measured" in cell.reason or "not positive" in cell.reason


@pytest.mark.parametrize(
    ("power", "verdict", "reason"),
    [
        (0.5, Verdict.CONSISTENT, "cheaper than published"),
        (1.0, Verdict.CONSISTENT, "as published"),
        (1.2, Verdict.CONSISTENT, "within the tolerance"),
        (1.5, Verdict.ABOVE, "faster than published"),
        (2.0, Verdict.ABOVE, "faster than published"),
    ],
)
def test_a_published_exponent_is_an_upper_bound(tmp_path: Path, power: float, verdict: Verdict, reason: str) -> None:
    cell = judged(complexity(tmp_path, HEAD + COST), repetitions(power, noise=0.005))
    assert (cell.verdict, cell.published) == (verdict, 1)
    assert reason in cell.reason


def test_a_logarithm_raises_the_bound(tmp_path: Path) -> None:
    values = [[size**1.3] * 7 for size in SIZES]  # 1 / ln 4096 is 0.12
    assert judged(complexity(tmp_path, HEAD + COST), values).verdict is Verdict.ABOVE
    with_logarithm = complexity(tmp_path, HEAD + COST + 'logarithms = ["E"]\n')
    assert judged(with_logarithm, values).verdict is Verdict.CONSISTENT


def test_what_is_too_noisy_or_hidden_by_a_constant_is_no_evidence(tmp_path: Path) -> None:
    of = complexity(tmp_path, HEAD + COST)
    for values in (repetitions(1.0, constant=1.0, noise=0.4), repetitions(1.0, constant=500.0, noise=0.02)):
        cell = judged(of, values)
        assert cell.verdict is Verdict.NO_EVIDENCE
        assert "too wide" in cell.reason


def test_a_jump_is_no_evidence_of_a_power(tmp_path: Path) -> None:
    values = [[size * by] * 7 for size, by in zip(SIZES, (1, 1, 8, 8, 1), strict=True)]
    cell = judged(complexity(tmp_path, HEAD + COST), values)
    assert cell.verdict is Verdict.NO_EVIDENCE
    assert "do not follow" in cell.reason
    assert exponents_of([cell]) == {}


def test_what_no_source_says_stays_open(tmp_path: Path) -> None:
    of = complexity(tmp_path, HEAD + COST + 'open = { B = "the sources differ" }\n')
    for factor, model, reason in (("B", "a", "the sources differ"), ("I", "a", "not in"), ("E", "b", "no cost")):
        cell = judged(of, repetitions(2.0), factor=factor, model=model)
        assert (cell.verdict, cell.published) == (Verdict.OPEN, None)
        assert reason in cell.reason
        assert cell.fit is not None


def test_a_size_that_could_not_be_measured_is_left_out(tmp_path: Path) -> None:
    cell = judged(complexity(tmp_path, HEAD + COST), [*repetitions(1.0)[:4], []])
    assert cell.sizes == tuple(SIZES[:4])
    assert cell.verdict is Verdict.CONSISTENT


def test_exit_codes_say_above_before_consistent_and_nothing_judged_is_no_pass(tmp_path: Path) -> None:
    of = complexity(tmp_path, HEAD + COST)
    above, held, opened = (
        judged(of, repetitions(2.0)),
        judged(of, repetitions(1.0)),
        judged(of, repetitions(1.0), factor="B"),
    )
    assert [exit_code(cells) for cells in ([above, held, opened], [held, opened], [opened], [])] == [1, 0, 3, 3]


# the published data


def test_every_published_cost_is_one_that_is_measured() -> None:
    for cost in SHIPPED.costs:
        (subject,) = (s for s in subjects_of(cost.model) if s.part == cost.part)
        assert set(cost.exponents) <= set(subject.factors)
        assert set(subject.factors) <= {*cost.exponents, *cost.open} or cost.part


def test_parts_of_a_published_cost_grow_no_faster_than_the_whole() -> None:
    for model in ("BM3", "LATTICE"):
        whole = SHIPPED.cost(model, "", "epoch")
        assert whole is not None
        for cost in SHIPPED.costs:
            if cost.model == model and cost.part:
                assert all(power <= whole.exponents[factor] for factor, power in cost.exponents.items())


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (HEAD, "costs"),
        (HEAD + COST.replace("E = 1", 'E = "1"'), "costs.0.exponents.E"),
        (HEAD + COST.replace("E = 1", "x = 1"), "costs.0.exponents.x"),
        (HEAD + COST + COST, "there twice"),
        (HEAD + COST + 'open = { E = "why" }\n', "E is given and open"),
        (HEAD + COST + 'logarithms = ["I"]\n', "I has no exponent"),
        (COST, "confidence"),
    ],
)
def test_a_damaged_file_is_refused_by_name_and_field(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(DataError, match=part) as refusal:
        complexity(tmp_path, text)
    assert "complexity.toml" in str(refusal.value)


# what claims are judged by


def write(folder: Path, of: Sequence[Cell], **changes: object) -> None:
    complete = sorted({cell.model for cell in of})
    content = {"format": FORMAT, "complete": complete, "cells": [asdict(cell) for cell in of], **changes}
    (folder / JSON_FILE).write_text(json.dumps(content), encoding="utf-8")


def test_stored_exponents_judge_the_claim_on_complexity(tmp_path: Path) -> None:
    cells = [
        judged(SHIPPED, repetitions(power), factor=factor, model="bm3") for factor, power in (("E", 2.0), ("I", 0.5))
    ]
    write(tmp_path, cells)
    exponents = stored_exponents(tmp_path)
    assert exponents["bm3", "E"] == pytest.approx((2.0,) * 3, abs=0.2)
    claims = [claim for claim in load_claims(expected_dir() / "claims.toml") if claim.kind == "growth"]
    (result,) = claims_of_rows(
        claims, Measured([], load_tolerances(expected_dir() / "tolerances.toml"), exponents=exponents)
    )
    outcomes = {what: outcome for what, _, outcome in result.details}
    assert result.outcome is ClaimOutcome.FAILS
    assert outcomes["BM3, power of E"] is ClaimOutcome.FAILS
    assert outcomes["BM3, power of I"] is ClaimOutcome.HOLDS
    assert outcomes["LATTICE, power of I"] is ClaimOutcome.NO_EVIDENCE


def test_only_epochs_of_whole_models_are_exponents_of_a_claim() -> None:
    values = repetitions(1.0)
    cells = [
        judge(SHIPPED, "bm3", "propagation", "E", "call", SIZES, values),
        judge(SHIPPED, "bm3", "", "E", "step", SIZES, values),
        judge(SHIPPED, "bm3", "", "E", "memory", SIZES, values),
    ]
    assert exponents_of(cells) == {}


def test_a_folder_without_measured_growth_has_no_exponents(tmp_path: Path) -> None:
    assert stored_exponents(tmp_path) == {}


def test_models_that_are_not_complete_have_no_exponents(tmp_path: Path) -> None:
    cells = [judged(SHIPPED, repetitions(1.0), model=model) for model in ("bm3", "lattice")]
    write(tmp_path, cells, complete=["lattice"])
    assert stored_exponents(tmp_path).keys() == {("lattice", "E")}


def test_a_damaged_file_of_growth_is_refused(tmp_path: Path) -> None:
    cell = judged(SHIPPED, repetitions(1.0), model="bm3")
    for part, damage in (
        ("cannot be read", lambda: (tmp_path / JSON_FILE).write_text("{", encoding="utf-8")),
        ("cannot be read", lambda: (tmp_path / JSON_FILE).write_text("[]", encoding="utf-8")),
        ("format 99", lambda: write(tmp_path, [cell], format=99)),
        ("cannot be read", lambda: write(tmp_path, [cell], cells=[{"model": 1}])),
        ("cannot be read", lambda: write(tmp_path, [cell], complete=True)),
    ):
        damage()
        with pytest.raises(DataError, match=part) as refusal:
            stored_exponents(tmp_path)
        assert JSON_FILE in str(refusal.value)
        assert "\n" not in str(refusal.value)
