"""The lines of keys in awkward but valid TOML."""

import tomllib

import pytest

from harness.studies.toml_lines import Location, line_of

QUOTES = '"' * 3  # in place of XXX
AWKWARD = r"""title = "no # comment, no [table]" # [[experiments]]
"qu oted".'k' = '''
[[experiments]]
a line = "with" quotes ''
end''''
seeds = [
  1, # one, two ]
  2
]
training = { epochs = 1.5, early.patience = 3, s = ["a,b", '}'] } # }
basic = XXX"\"
a = 1 \XXX \\
[[experiments]]""XXX
last = 1 # no end of line""".replace("XXX", QUOTES)
TABLES = r"""
[[experiments]]
model = 'x' # [[experiments]]
grid = { a = [1, 2], b = [] }

[experiments.set]
"c d" = 1979-05-27 07:32:00
"e.f" = 1
g.h = 2

[[ experiments ]]
 [experiments . "vary"]
 n = [[1,
   2], {a = 1}]

[other]
model = "y"
[[experiments.deep]]
[[experiments.deep]]
x = 1
[experiments.deep.er]
y = 1
"""


def test_the_texts_are_toml() -> None:
    assert list(tomllib.loads(AWKWARD)) == ["title", "qu oted", "seeds", "training", "basic", "last"]
    assert len(tomllib.loads(TABLES)["experiments"][1]["deep"]) == 2


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (("title",), 1),
        (("qu oted", "k"), 2),
        (("seeds",), 6),
        (("seeds", 0), 7),
        (("seeds", 1), 8),
        (("training", "epochs"), 10),
        (("training", "early", "patience"), 10),
        (("training", "s", 1), 10),
        (("basic",), 11),
        (("last",), 14),
    ],
)
def test_keys_are_told_from_comments_and_texts_that_look_like_keys(location: Location, line: int) -> None:
    assert line_of(AWKWARD, location) == line


@pytest.mark.parametrize("name", ["experiments", "a", "end", "a line", "1"])
def test_what_stands_in_a_text_or_a_comment_has_no_line(name: str) -> None:
    assert line_of(AWKWARD, (name,)) is None


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (("experiments", 0), 2),
        (("experiments", 0, "model"), 3),
        (("experiments", 0, "grid", "b"), 4),
        (("experiments", 0, "set"), 6),
        (("experiments", 0, "set", "c d"), 7),
        (("experiments", 0, "set", "e.f"), 8),
        (("experiments", 0, "set", "g", "h"), 9),
        (("experiments", 1), 11),
        (("experiments", 1, "vary"), 12),
        (("experiments", 1, "vary", "n", 0, 1), 14),
        (("experiments", 1, "vary", "n", 1, "a"), 14),
        (("other", "model"), 17),
        (("experiments", 1, "deep", 0), 18),
        (("experiments", 1, "deep", 1, "x"), 20),
        (("experiments", 1, "deep", 1, "er", "y"), 22),
    ],
)
def test_lists_of_tables_are_counted(location: Location, line: int) -> None:
    assert line_of(TABLES, location) == line


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (("experiments", 1, "model"), 11),
        (("experiments", 0, "grid", "<table>", "a", 1, "int"), 4),
        (("experiments", 0, "set", "e.f", "e", "f"), 8),
        (("experiments", 0, "set", "g.h", "g", "h"), 9),
        (("experiments", 7, "model"), 2),
        (("seeds",), None),
        ((), None),
    ],
)
def test_what_is_not_there_is_on_the_line_of_what_is_around_it(location: Location, line: int | None) -> None:
    assert line_of(TABLES, location) == line
