"""Replaying traces: the stored ones pass, changed ones fail, unknown models are unsupported, junk is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from bm3 import DataError
from harness.compare.expected import expected_dir
from harness.conformance import Status, conformance, replay, trace_statuses

TRACES = expected_dir() / "traces"


def changed(name: str, folder: Path, **changes: object) -> Path:
    with np.load(TRACES / f"{name}.npz", allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    for key, value in changes.items():
        key = key.replace("__", "/")
        arrays[key] = arrays[key] + value if key != "meta" else np.array(value)
    path = folder / f"{name}.npz"
    np.savez(path, **arrays)
    return path


def test_every_stored_trace_passes() -> None:
    statuses = trace_statuses(conformance(TRACES))
    assert len(statuses) >= 5
    assert set(statuses.values()) == {Status.PASSED}


@pytest.mark.parametrize("name", ["bpr", "lightgcn", "bm3-dropout", "bm3-frozen"])
@pytest.mark.parametrize(
    ("key", "quantity"), [("loss", "loss"), ("scores", "scores"), ("metric__test_recall@20", "metrics test")]
)
def test_a_difference_is_found_where_it_is(tmp_path: Path, name: str, key: str, quantity: str) -> None:
    checks = replay(changed(name, tmp_path, **{key: 0.001}))
    failed = {check.quantity for check in checks if check.status is Status.FAILED}
    assert quantity in failed
    assert failed <= {quantity, "top 20 valid", "top 20 test", "metrics valid", "metrics test"}


def test_a_model_that_is_not_here_is_unsupported(tmp_path: Path) -> None:
    with np.load(TRACES / "bpr.npz", allow_pickle=False) as archive:
        meta = json.loads(str(archive["meta"])) | {"model": "Nobody"}
    (check,) = replay(changed("bpr", tmp_path, meta=json.dumps(meta)))
    assert check.status is Status.UNSUPPORTED
    assert "Nobody" in check.note


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk"])
def test_a_file_that_is_no_trace_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.npz"):
        conformance(tmp_path)


def test_an_empty_or_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no trace"):
        conformance(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        conformance(tmp_path / "absent")
