"""What is made of measured points: exponents, and a report that tells failed and missing points."""

from typing import Any

import growth_report
import numpy as np
import pytest
from growth import PointError, resumed, run
from growth_points import Figures, Sizes, points_of

FACTORS = [1, 2, 4, 8, 16]
BASE = Sizes()


@pytest.mark.parametrize("k", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_the_fit_of_a_power_is_its_exponent(k: float) -> None:
    assert growth_report.exponent(FACTORS, [7.0 * x**k for x in FACTORS]) == pytest.approx(k, abs=1e-12)
    assert growth_report.growth({x: 7.0 * x**k for x in FACTORS}, 4) == pytest.approx((k, k), abs=1e-12)


def test_the_fit_is_least_squares_in_logarithms() -> None:
    values = np.random.default_rng(0).uniform(1, 9, size=5)
    assert growth_report.exponent(FACTORS, values) == pytest.approx(np.polyfit(np.log(FACTORS), np.log(values), 1)[0])


def test_a_constant_part_holds_the_fit_below_the_last_doubling() -> None:
    fit, last = growth_report.growth({x: 10.0 + x**2 for x in FACTORS}, 4)
    assert fit is not None
    assert last is not None
    assert last == pytest.approx(np.log2((10 + 256) / (10 + 64)))
    assert 1 < fit < last < 2


def test_there_is_no_exponent_without_two_points_or_of_what_has_no_logarithm() -> None:
    assert growth_report.exponent([4], [1.0]) is None
    assert growth_report.exponent([1, 2], [0.0, 1.0]) is None
    assert growth_report.growth({1: 1.0, 2: 2.0, 16: 16.0}, 4) == (pytest.approx(1), None)


def test_exponents_above_a_tenth_more_than_linear_are_marked() -> None:
    assert [growth_report.marked(value) for value in (1.099, 1.101, 2.0, -0.001, None)] == [
        "1.10",
        "**1.10**",
        "**2.00**",
        "0.00",
        "–",
    ]


def made_up() -> dict[str, Any]:
    """Steps that grow with E^1, epochs with E^1 too, I failed once, the rest constant."""
    content = resumed(None, BASE)

    def measure(name: str, sizes: Sizes) -> Figures:
        if sizes.items == 4 * BASE.items:
            raise PointError("took more than 300 s")
        factor = sizes.interactions / BASE.interactions
        return Figures(
            step_s=factor,
            first_s=2 * factor,
            batches_s=3 * factor,
            state_s=0.5 * factor,
            n_steps=4,
            memory_bytes=int(1000 * factor**2),
            model_bytes=4_000,
        )

    run(points_of(["bpr"], 2), content, None, measure)
    return content


def test_report_has_exponents_marks_and_failures() -> None:
    text = growth_report.markdown(made_up(), ["bpr"], 2)
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| bpr")]
    step, epoch, memory, model, base = [[cell.strip() for cell in row] for row in rows]
    assert step == epoch == ["bpr", "1.00 (1.00)", "0.00 (–)", "0.00 (0.00)", "0.00 (0.00)"]
    assert memory == ["bpr", "**2.00** (**2.00**)", "0.00 (–)", "0.00 (0.00)", "0.00 (0.00)"]
    assert model == ["bpr", "0.00 (0.00)", "0.00 (–)", "0.00 (0.00)", "0.00 (0.00)"]
    assert base[:4] == ["bpr", "1000.0", "2000.0", "8.50"]
    assert "- bpr I x4: took more than 300 s" in text
    assert "not measured yet" not in text


def test_report_of_an_unfinished_run_says_so() -> None:
    content = made_up()
    del content["points"]["bpr E x4"]
    assert "1 of 9 points are not measured yet." in growth_report.markdown(content, ["bpr"], 2)
