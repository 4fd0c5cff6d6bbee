"""Replaying traces: the stored ones pass, changed ones fail, unknown models are unsupported, junk is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bm3 import DataError
from harness.compare.expected import expected_dir
from harness.conformance import Status, conformance, replay, trace_statuses

TRACES = expected_dir() / "traces"


def recorded(name: str) -> dict[str, Any]:
    with np.load(TRACES / f"{name}.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def changed(name: str, folder: Path, key: str, value: Any) -> Path:
    """The trace with `value` added to an array; its meta is replaced."""
    arrays = recorded(name)
    arrays[key] = np.array(value) if key == "meta" else arrays[key] + value
    path = folder / f"{name}.npz"
    np.savez(path, **arrays)
    return path


def test_every_stored_trace_passes() -> None:
    statuses = trace_statuses(conformance(TRACES))
    models = {"bpr", "lightgcn", "buir", "vbpr", "mmgcn", "grcn", "dualgnn", "lattice"}
    assert set(statuses) == models | {"bm3-dropout", "bm3-frozen", "bm3-nodrop"}
    assert set(statuses.values()) == {Status.PASSED}


@pytest.mark.parametrize("name", sorted(path.stem for path in TRACES.glob("*.npz")))
@pytest.mark.parametrize(
    ("group", "quantity"),
    [
        ("loss", "loss"),
        ("scores", "scores"),
        ("grad0/", "gradients"),
        ("final/", "parameters"),
        ("metric/test_recall@20", "metrics test"),
        ("final/target_encoder", "followers' changes"),
    ],
)
def test_a_difference_is_found_where_it_is(tmp_path: Path, name: str, group: str, quantity: str) -> None:
    """Each array of a group is changed alone, by 0.1 % of its largest value (a follower by 2 % of its change)."""
    for key in [key for key in recorded(name) if key.startswith(group)]:
        array = recorded(name)[key]
        if group == "final/target_encoder":
            step = 0.02 * (array - recorded(name)[key.replace("final/", "init/")])
        else:
            step = 1e-3 * max(np.abs(array).max(), 1e-3)
        failed = {
            check.quantity for check in replay(changed(name, tmp_path, key, step)) if check.status is Status.FAILED
        }
        assert quantity in failed, key
        assert failed <= {
            quantity,
            "followers' changes",
            "top 20 valid",
            "top 20 test",
            "metrics valid",
            "metrics test",
        }


def test_a_tensor_that_should_not_train_is_found(tmp_path: Path) -> None:
    meta = json.loads(str(recorded("mmgcn")["meta"]))
    meta["trainable"].append("id_embedding")
    checks = replay(changed("mmgcn", tmp_path, "meta", json.dumps(meta)))
    (failed,) = [check for check in checks if check.status is Status.FAILED]
    assert (failed.quantity, failed.note) == ("trained tensors", "id_embedding")


def test_an_incomplete_trace_fails_alone(tmp_path: Path) -> None:
    arrays = recorded("bpr")
    np.savez(tmp_path / "complete.npz", **arrays)
    del arrays["batch1/users"]
    np.savez(tmp_path / "incomplete.npz", **arrays)
    assert trace_statuses(conformance(tmp_path)) == {"complete": Status.PASSED, "incomplete": Status.FAILED}


def test_masked_items_at_the_end_of_a_short_ranking_have_no_order(tmp_path: Path) -> None:
    """A user with 30 of 36 items masked has six to rank; the other fourteen places are filled anyhow."""
    arrays = recorded("bpr")
    user = int(arrays["topk/test_users"][0])
    held_out = {int(i) for part in ("valid", "test") for u, i in arrays[f"interactions/{part}"] if u == user}
    seen = [item for item in range(36) if item not in held_out][:30]
    others = arrays["interactions/train"][arrays["interactions/train"][:, 0] != user]
    own = np.array([(user, item) for item in seen], dtype=np.int32)
    arrays["interactions/train"] = np.concatenate([others, own])
    left = [item for item in np.argsort(-arrays["scores"][user]) if item not in seen]
    for part in ("valid", "test"):
        row = list(arrays[f"topk/{part}_users"]).index(user)
        arrays[f"topk/{part}"][row] = [*left, *seen[::-1]][:20]
    arrays = {key: array for key, array in arrays.items() if not key.startswith("metric/")}
    np.savez(tmp_path / "short.npz", **arrays)
    assert [check for check in replay(tmp_path / "short.npz") if check.status is not Status.PASSED] == []


def test_a_model_that_is_not_here_is_unsupported(tmp_path: Path) -> None:
    meta = json.loads(str(recorded("bpr")["meta"])) | {"model": "Nobody"}
    (check,) = replay(changed("bpr", tmp_path, "meta", json.dumps(meta)))
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
