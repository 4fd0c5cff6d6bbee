"""Progress of reading: plain lines every few seconds where there is no terminal, a bar where there is one."""

import sys

import pytest

from harness.cli import progress as module
from harness.cli.progress import reading_progress


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_without_a_terminal_lines_come_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    with reading_progress("ratings.csv") as report:
        for position in range(10_000_000, 35_000_000, 1_000_000):  # a million a second, and ten were there
            report(position, 40_000_000)
            clock.now += 1
        report(0, None)
        clock.now += 10
        report(5_000_000, None)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "ratings.csv: 20.0 MB of 40.0 MB, about 20 s left",
        "ratings.csv: 30.0 MB of 40.0 MB, about 10 s left",
        "ratings.csv: 5.0 MB",
    ]


def test_on_a_terminal_a_bar_shows_the_bytes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with reading_progress("ratings[1].csv") as report:
        report(1_000, None)
        report(1_300, 2_000)
    assert "ratings[1].csv" in (shown := capsys.readouterr().err)
    assert "1.3/2.0 kB" in shown
