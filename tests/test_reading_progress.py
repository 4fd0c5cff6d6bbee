"""Progress of reading: plain lines every few seconds where there is no terminal, a bar where there is one."""

import sys

import pytest
from tqdm import tqdm

from harness import reading_progress as module
from harness.reading_progress import reading_progress


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
    with reading_progress("meta.json.gz", 40_000_000) as advance:
        for _ in range(40):  # 40 seconds, one million bytes each
            clock.now += 1
            advance(1_000_000)
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert lines[0] == "meta.json.gz: 10 of 40 MB read, about 30 s left"
    assert [line.split()[1] for line in lines] == ["10", "20", "30", "40"]


def test_on_a_terminal_a_bar_shows_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []

    class Bar(tqdm):  # type: ignore[type-arg]
        def close(self) -> None:
            shown[:] = [int(self.n), int(self.total)]
            super().close()

    monkeypatch.setattr(module, "tqdm", Bar)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with reading_progress("meta.json.gz", 2000) as advance:
        advance(500)
        advance(1300)
    assert shown == [1800, 2000]
