"""Whole writes: what a failing write leaves. Who writes what is tested with its room."""

import json
import os
from pathlib import Path

import pytest

from harness.common import parse_json, write_whole


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "result.json"
    write_whole(path, b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text", ["[" * 10**5, "[" * 300 + "]" * 300, '["]]",' + "[" * 300, "9" * 20, '{"a": -' + "9" * 5000 + "}"]
)
def test_json_that_is_nested_or_counts_beyond_reason_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"nested more than 100 deep, or a number of twenty digits"):
        parse_json(text)


def test_other_json_is_read() -> None:
    found = [0.00012345678901234567, 1e22, 2**63 - 1, "9" * 30, "[" * 300, [[]] * 300]
    assert parse_json(json.dumps(found)) == found
