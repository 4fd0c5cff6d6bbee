"""Replaying traces: the stored ones pass, changed ones fail, unknown models are unsupported, junk is refused."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from one_device import META, OneDevice

from bm3 import DataError
from harness.cli import study as cli_study
from harness.cli.main import bm3
from harness.models import bm3 as fast
from harness.models import features
from harness.models.products import Pattern
from harness.models.registry import models
from harness.paper import conformance as conformance_module
from harness.paper.conformance import Status, conformance, replay, rounded_updates, trace_statuses
from harness.paper.load import load_paper

TRACES = load_paper().folder / "traces"


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


def failures(path: Path) -> set[str]:
    return {check.quantity for check in replay(path) if check.status is Status.FAILED}


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
        failed = failures(changed(name, tmp_path, key, step))
        assert quantity in failed, key
        assert failed <= {
            quantity,
            "followers' changes",
            "top 20 valid",
            "top 20 test",
            "metrics valid",
            "metrics test",
        }


@pytest.mark.parametrize(("key", "quantity"), [("metric/test_ndcg@20", "metrics test"), ("scores", "scores")])
def test_what_is_no_number_is_a_difference(tmp_path: Path, key: str, quantity: str) -> None:
    assert quantity in failures(changed("bpr", tmp_path, key, np.nan))


LEARNING_RATE = 1e-3  # of all stored traces


@pytest.mark.parametrize("noise", [True, False])
def test_a_step_may_go_either_way_only_where_the_gradient_is_rounding(tmp_path: Path, noise: bool) -> None:
    """In one entry the first step goes the other way: the one with the smallest gradient, or a middling one."""
    name = "predictor.weight"
    gradient = recorded("bm3-frozen")[f"grad0/{name}"]
    order = np.argsort(np.abs(gradient), axis=None)
    entry = np.unravel_index(order[0] if noise else order[len(order) // 2], gradient.shape)
    assert (abs(gradient[entry]) < 1e-4 * np.abs(gradient).max()) == noise
    other_way = np.zeros_like(gradient)
    other_way[entry] = 1.9 * LEARNING_RATE * np.sign(gradient[entry])
    found = failures(changed("bm3-frozen", tmp_path, f"final/{name}", other_way))
    assert ("parameters" in found) != noise
    assert "parameters" in failures(changed("bm3-frozen", tmp_path, f"final/{name}", 4 * other_way))


def test_what_rounding_of_gradients_explains() -> None:
    """In learning rates, of three steps: entries with the largest, a real, a tiny, a rounded and no gradient."""
    gradient = np.array([1.0, 0.1, 1e-3, 1e-5, 0.0])
    allowed = rounded_updates(np.stack([gradient, -gradient, gradient]), np.zeros((3, 5)))
    assert allowed[0] < 1e-3
    assert allowed[1] < 1e-2
    assert allowed[2] < 0.5
    assert 2 <= allowed[3] <= 6  # 2 lr for each step at most
    assert allowed[4] == 0
    rounded_once = np.stack([gradient[[0, 3]], gradient[[0, 0]], gradient[[0, 0]]])
    assert rounded_updates(rounded_once, np.zeros((3, 2)))[1] == pytest.approx(2, abs=1e-2)  # later steps are real
    decayed = rounded_updates(np.stack([gradient]), np.full((1, 5), 0.01))
    assert decayed[3] < 1e-3  # weight decay decides the sign


class Uncorrected(torch.optim.Optimizer):
    """Adam without the correction of its moments' bias."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": LEARNING_RATE, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                m, v = self.state[p].setdefault("moments", (torch.zeros_like(p), torch.zeros_like(p)))
                gradient = p.grad + group["weight_decay"] * p
                m.lerp_(gradient, 0.1)
                v.lerp_(gradient**2, 0.001)
                p -= group["lr"] * m / (v.sqrt() + 1e-8)


def _groups(model: Any) -> Any:
    if hasattr(model, "parameter_groups"):
        return model.parameter_groups()
    return [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]


@pytest.mark.parametrize(
    "faulty",
    [
        lambda model, rate: Uncorrected(_groups(model)),
        lambda model, rate: torch.optim.Adam(_groups(model), lr=2 * rate),
        lambda model, rate: torch.optim.Adam(_groups(model), lr=rate / 2),
        lambda model, rate: torch.optim.Adam(_groups(model), lr=rate, eps=1e-4),
    ],
    ids=["no bias correction", "twice the rate", "half the rate", "another epsilon"],
)
def test_another_optimiser_fails_on_every_trace(faulty: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance_module, "adam", faulty)
    for path in sorted(TRACES.glob("*.npz")):
        assert "parameters" in failures(path), path.stem


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


NOT_THERE = "(holds no trace|no such file or folder); needed is a trace .* or a folder"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        *(("bad.npz", content, "cannot be read") for content in (b"", b"junk", b"PK\x03\x04junk")),
        ("absent", None, NOT_THERE),
        ("notes.md", b"a trace", NOT_THERE),
        ("", None, NOT_THERE),
    ],
)
def test_what_is_neither_a_trace_nor_a_folder_of_them_is_named(
    tmp_path: Path, name: str, content: bytes | None, why: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: {why}"):
        conformance(tmp_path / name)


# On the device that is reported on ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.stem for path in TRACES.glob("*.npz") if path.stem != "lattice"))
def test_a_step_is_replayed_wholly_on_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Model, batch and masks; LATTICE looks for neighbours, which this stand-in for a GPU has no numbers for."""
    for module in (features, fast):
        monkeypatch.setattr(module, "keeps_repeated", lambda device: True)
    # The stand-in has no sampled product.
    monkeypatch.setattr(Pattern, "_sampled", lambda pattern, x, y: x.new_zeros(len(pattern.rows.columns)))
    arrays, meta = conformance_module.read_trace(TRACES / f"{name}.npz")
    entry = models()[str(meta["model"]).lower()]
    step = conformance_module._Replay(entry, conformance_module._config(entry, meta), arrays, meta, META)
    batch = step._batch(conformance_module._group(arrays, "batch0/"))
    with OneDevice() as seen:
        step._model.loss(batch).total.backward()
    assert seen.copies == []
    assert {p.grad.device for p in step._model.parameters() if p.grad is not None} == {META}


@pytest.mark.parametrize(
    ("asked", "there", "used"), [("auto", True, "cuda"), ("cuda", True, "cuda"), ("cpu", True, "cpu")]
)
def test_the_command_replays_on_the_device_asked_for_and_names_it(
    asked: str, there: bool, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on: list[str] = []

    def known(paper: Any, device: torch.device) -> list[conformance_module.Check]:
        on.append(device.type)
        return [conformance_module.Check("one", "loss", Status.PASSED)]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(conformance_module, "known_traces", known)
    result = CliRunner().invoke(bm3, ["conformance", "--device", asked])
    assert result.exit_code == 0
    assert on == [used]
    assert result.output.splitlines()[-1] == f"on {used}: 1 passed, 0 failed, 0 unsupported"


def test_a_study_on_a_gpu_replays_there_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Apart:
        def __init__(self, workers: int, context: Any) -> None:
            asked.append(context.get_start_method())

        def __enter__(self) -> "Apart":
            return self

        def __exit__(self, *_: object) -> None: ...

        def submit(self, call: Any, paper: Any, device: torch.device) -> "Apart":
            asked.append((call, paper.name, pickle.loads(pickle.dumps((paper, device)))[1].type))
            return self

        def result(self) -> list[str]:
            return ["checks"]

    monkeypatch.setattr(cli_study, "ProcessPoolExecutor", Apart)
    assert cli_study._replayed(load_paper(), torch.device("cuda")) == ["checks"]
    assert asked == ["spawn", (conformance_module.known_traces, load_paper().name, "cuda")]


@pytest.mark.gpu
def test_every_stored_trace_passes_on_a_gpu() -> None:
    assert set(trace_statuses(conformance(TRACES, torch.device("cuda"))).values()) == {Status.PASSED}
