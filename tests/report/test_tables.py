"""A table as a value: its columns, groups and ranks, and how terminals and Markdown show them."""

import math

import pytest

from harness.report.tables import Cell, Emphasis, Table, markdown, ranked, table

BEST, SECOND = Emphasis.BEST, Emphasis.SECOND


@pytest.fixture
def example() -> Table:
    rows = [
        ["Baby", "R@10", Cell("0.0564", "‡", "disputed", BEST)],
        ["Baby", "R@20", Cell("0.08")],
        ["Sports", "R@20", None],
    ]
    return table("Ours", ("data set", "metric", "BM3"), rows, "llr", notes=["‡ disputed."], groups=1)


def test_markdown_breaks_at_no_character() -> None:
    assert markdown(table("", ("a|b", "c"), [["1\n2", "x"], ["3", "4"]]), 0).splitlines() == [
        "| a\\|b   | c   |",
        "|:-------|:----|",
        "| 1 2    | x   |",
        "| 3      | 4   |",
    ]


def test_columns_are_chosen_by_name(example: Table) -> None:
    chosen = example.only("metric", "BM3")
    assert (chosen.head, chosen.align, chosen.groups) == (("metric", "BM3"), "lr", 0)
    assert [row[0].text for row in chosen.rows] == ["R@10", "R@20", "R@20"]


def test_rows_that_do_not_fit_their_head_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        table("t", ("a", "b"), [["1"]])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([0.1, 0.3, 0.2], [None, BEST, SECOND]),
        ([0.3, 0.3, 0.2], [BEST, SECOND, None]),
        ([0.3, math.nan, None, 0.2], [BEST, None, None, SECOND]),
        ([0.3, math.inf], [None, None]),
        ([0.3], [None]),
        ([-0.2, -0.1], [SECOND, BEST]),
        ([], []),
    ],
)
def test_the_best_and_the_second_of_finite_values_are_told_where_there_are_two(
    values: list[float | None], told: list[Emphasis | None]
) -> None:
    assert ranked(values) == told
