"""On which line of a TOML text each key stands, for messages on what a key says. What the text means is `tomllib`'s."""

import re
import tomllib
from collections.abc import Sequence

Location = tuple[int | str, ...]
"""Keys, and places in lists from 0: `("experiments", 1, "grid", "dropout", 0)`."""

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'  # a text that ends in quotes has up to two more of them
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|[\[\]{},=.\n]"
    r"""|[^\s\[\]{},=.#"']+""",
    re.DOTALL,
)


def line_of(text: str, location: Sequence[int | str]) -> int | None:
    """The line of what stands at `location`, else of the nearest table around it; None where none is in the text.

    Parts of the location that the text does not have are passed over: pydantic names alternatives of a type there.
    The text must be TOML that `tomllib` reads.
    """
    lines = _Reader(text).read()
    found: Location = ()
    for part in location:
        if (*found, part) in lines:
            found = (*found, part)
    return lines.get(found)


class _Reader:
    """Walks through the text once and notes where keys, tables and elements of lists begin."""

    def __init__(self, text: str) -> None:
        self._tokens = [
            (match[0], text.count("\n", 0, match.start()) + 1)
            for match in _TOKEN.finditer(text)
            if not match[0].startswith("#")
        ]
        self._at = 0
        self._lines: dict[Location, int] = {}
        self._tables_in: dict[Location, int] = {}
        """How many tables a list of tables has so far."""

    def read(self) -> dict[Location, int]:
        table: Location = ()
        while self._next != "":
            if self._next == "[":
                table = self._header()
            elif self._next == "\n":
                self._at += 1
            else:
                self._assignment(table)
        return self._lines

    @property
    def _next(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _note(self, location: Location, line: int) -> None:
        for length in range(1, len(location) + 1):
            self._lines.setdefault(location[:length], line)

    def _header(self) -> Location:
        """`[a.b]` or `[[a.b]]`: inside the last table of every list of tables on the way."""
        line = self._tokens[self._at][1]
        repeated = self._tokens[self._at + 1][0] == "["
        self._at += 1 + repeated
        keys = self._keys("]")
        self._at += repeated
        table: Location = ()
        for place, key in enumerate(keys, start=1):
            table = (*table, key)
            if repeated and place == len(keys):
                self._tables_in[table] = self._tables_in.get(table, 0) + 1
            if table in self._tables_in:
                table = (*table, self._tables_in[table] - 1)
        self._note(table, line)
        return table

    def _keys(self, end: str) -> list[str]:
        """The parts of a dotted key, quotes undone, up to and with the token `end`."""
        keys = []
        while self._next != end:
            if self._next != ".":
                keys.append(next(iter(tomllib.loads(f"{self._next} = 0"))))
            self._at += 1
        self._at += 1
        return keys

    def _assignment(self, table: Location) -> None:
        line = self._tokens[self._at][1]
        location = (*table, *self._keys("="))
        self._note(location, line)
        self._value(location)

    def _value(self, location: Location) -> None:
        opening = self._next
        if opening not in ("[", "{"):
            while self._next not in (",", "]", "}", "\n", ""):  # a float or a date is several tokens
                self._at += 1
            return
        self._at += 1
        place = 0
        while self._next not in ("]", "}"):
            if self._next in ("\n", ","):
                self._at += 1
            elif opening == "{":
                self._assignment(location)
            else:
                self._note((*location, place), self._tokens[self._at][1])
                self._value((*location, place))
                place += 1
        self._at += 1
