"""A training that goes on from a checkpoint ends with the bits of one that was never stopped."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file

from bm3 import ConfigError
from harness.common import WriteError
from harness.data.dataset import Dataset
from harness.models.registry import find_model, trained_in_steps
from harness.training.accelerators import lazy_adam
from harness.training.checkpoint import BEST, Checkpoints, KeptState, TrainingState, write_tensors
from harness.training.config import TrainingConfig
from harness.training.fit import EpochRecord, Fit, Resume, build, fit
from harness.training.streams import Streams

CPU = torch.device("cpu")


class Stopped(Exception):  # noqa: N818 - what a kill is to a process
    pass


class StopAfter(Checkpoints):
    """Saves at the epochs given and stops the training right after the last of them."""

    def __init__(self, path: Path, epochs: set[int]) -> None:
        super().__init__(path, share=math.inf)
        self._epochs = epochs

    def save(self, state: TrainingState) -> None:
        if state.epoch in self._epochs:
            super().save(state)
        if state.epoch == max(self._epochs):
            raise Stopped


def run(
    name: str,
    dataset: Dataset,
    records: list[EpochRecord],
    checkpoints: Checkpoints | None = None,
    resume: Resume | None = None,
    **config: Any,
) -> tuple[Fit, dict[str, torch.Tensor]]:
    """A short training with a learning rate at which models get worse again, so that the best epoch is not the last."""
    entry, streams = find_model(name), Streams(3)
    training = TrainingConfig(epochs=7, batch_size=100, learning_rate=0.05)
    model = build(entry.model, dataset, entry.model.Config(**config), streams, CPU)
    outcome = fit(model, dataset, training, streams, CPU, records.append, checkpoints=checkpoints, resume=resume)
    return outcome, model.state_dict()


def stopped_and_resumed(
    name: str, dataset: Dataset, path: Path, epochs: set[int], **config: Any
) -> tuple[Fit, dict[str, torch.Tensor], list[EpochRecord]]:
    records: list[EpochRecord] = []
    with pytest.raises(Stopped):
        run(name, dataset, records, StopAfter(path, epochs), **config)
    assert len(records) == max(epochs)
    records = [EpochRecord(**json.loads(json.dumps(asdict(record)))) for record in records]  # as they are stored
    state = Checkpoints(path).load(CPU)
    assert state is not None
    outcome, parameters = run(name, dataset, records, None, Resume(state, tuple(records), (0,)), **config)
    return outcome, parameters, records


def assert_same(
    one: tuple[Fit, dict[str, torch.Tensor], list[EpochRecord]],
    other: tuple[Fit, dict[str, torch.Tensor], list[EpochRecord]],
) -> None:
    (fit_1, state_1, records_1), (fit_2, state_2, records_2) = one, other
    assert [(r.epoch, r.loss, r.parts, r.valid, r.improved) for r in records_1] == [
        (r.epoch, r.loss, r.parts, r.valid, r.improved) for r in records_2
    ]
    assert (fit_1.best_epoch, fit_1.epochs, fit_1.test) == (fit_2.best_epoch, fit_2.epochs, fit_2.test)
    assert fit_1.timing["epochs"] == fit_2.timing["epochs"]  # those before the stop too
    assert state_1.keys() == state_2.keys()
    for name, tensor in state_1.items():
        assert torch.equal(tensor, state_2[name]), name


@pytest.mark.parametrize("name", trained_in_steps())
def test_every_model_goes_on_to_the_same_bits(tmp_path: Path, clustered: Dataset, name: str) -> None:
    records: list[EpochRecord] = []
    whole = *run(name, clustered, records), records
    assert_same(stopped_and_resumed(name, clustered, tmp_path / "saved", {4}), whole)


@pytest.mark.parametrize("by_row", [False, True], ids=["dense", "rows that move when they are read"])
@pytest.mark.parametrize("epochs", [{1}, {2, 3}, {1, 2, 3, 4, 5, 6}, {7}])
def test_it_does_not_matter_how_often_it_was_saved(
    tmp_path: Path, clustered: Dataset, monkeypatch: pytest.MonkeyPatch, epochs: set[int], by_row: bool
) -> None:
    if by_row:
        pytest.importorskip("numba")
        monkeypatch.setattr(lazy_adam, "SMALLEST", 1)
    records: list[EpochRecord] = []
    whole = *run("bm3", clustered, records, features="trained"), records
    assert_same(stopped_and_resumed("bm3", clustered, tmp_path / "saved", epochs, features="trained"), whole)


def test_a_best_epoch_that_is_the_last_one_is_stored_once(tmp_path: Path, clustered: Dataset) -> None:
    with pytest.raises(Stopped):
        run("bpr", clustered, [], StopAfter(tmp_path / "saved", {1}))
    size = (tmp_path / "saved").stat().st_size
    tensors = 4 * 64 * (clustered.n_users + clustered.n_items)
    assert 3 * tensors < size < 3.2 * tensors  # parameters and two moments, no second copy of the parameters
    assert BEST.encode() not in (tmp_path / "saved").read_bytes()


@pytest.mark.parametrize(
    "damage", [lambda b: b"", lambda b: b"no", lambda b: b[:-7], lambda b: b[:-2000] + bytes(2000)]
)
def test_a_damaged_checkpoint_is_none(tmp_path: Path, clustered: Dataset, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "saved"
    with pytest.raises(Stopped):
        run("bpr", clustered, [], StopAfter(path, {1}))
    path.write_bytes(damage(path.read_bytes()))
    assert Checkpoints(path).load(CPU) is None
    assert Checkpoints(tmp_path / "missing").load(CPU) is None


def test_saving_takes_no_more_than_its_share(tmp_path: Path) -> None:
    """With a writing of 1 s and epochs of 10 s, a share of 2 % is one checkpoint in five epochs; the first one waits as
    its size demands: 80 MB take about a fifth of a second, so it is due after 10 seconds.
    """
    now, state, saved = [0.0], TrainingState(1, {"a": torch.zeros(1)}, {}, {}), list[int]()
    checkpoints = Checkpoints(tmp_path / "saved", share=0.02, size=80_000_001, clock=lambda: now[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.training.checkpoint.write_tensors", lambda *_, **__: now.__setitem__(0, now[0] + 1))
        for epoch in range(1, 21):
            now[0] += 10
            if checkpoints.due:
                saved.append(epoch)
                checkpoints.save(state)
    assert saved == [2, 7, 12, 17]


def test_tensors_under_two_names_come_back(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    model = {"a": shared, "b": shared, "c": shared[2:], "d": torch.tensor(True)}
    checkpoints = Checkpoints(tmp_path / "saved")
    checkpoints.save(TrainingState(9, model, {"0.step": torch.tensor(3.0)}, model))
    loaded = checkpoints.load(CPU)
    assert loaded is not None
    assert loaded.epoch == 9
    assert loaded.best is loaded.model
    assert all(torch.equal(loaded.model[name], tensor) for name, tensor in model.items())
    assert torch.equal(loaded.optimiser["0.step"], torch.tensor(3.0))


def test_a_failed_saving_keeps_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path / "saved")
    state = {"a": torch.ones(3, 2).T}
    checkpoints.save(TrainingState(1, state, {}, state))

    def full(tensor: torch.Tensor) -> Iterator[bytes]:
        yield b"half"
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("harness.training.checkpoint._checksum", lambda tensors, drop: 0)
        patch.setattr("harness.training.checkpoint.blocks_of", full)
        with pytest.raises(WriteError, match=r"\(No space left"):
            checkpoints.save(TrainingState(2, state, {}, state))
    loaded = checkpoints.load(CPU)
    assert loaded is not None
    assert loaded.epoch == 1
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


TYPES = ["float64", "float32", "float16", "bfloat16", "bool", "int64", "int32", "int16", "int8", "uint8"]


def of_all_types() -> dict[str, torch.Tensor]:
    """Among them odd lengths, which make what follows begin anywhere, an empty one, a number, and a transposed one."""
    tensors = {name: torch.arange(7).to(getattr(torch, name)) for name in TYPES}
    return {
        **tensors,
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(2.5),
        "turned": torch.arange(6.0).view(2, 3).T,
    }


@pytest.mark.parametrize("later", [{"a": torch.ones(6), "w": torch.ones(3)}, {"a": torch.ones(4)}])
def test_a_state_of_other_shapes_or_names_is_not_kept(later: dict[str, torch.Tensor], tmp_path: Path) -> None:
    kept = KeptState(tmp_path)
    kept.keep({"a": torch.ones(4), "w": torch.ones(3)})
    with pytest.raises(ConfigError, match=r"state '[aw]' was .*: it must stay as it was built"):
        kept.keep(later)


def test_tensors_of_every_type_are_written_and_kept(tmp_path: Path) -> None:
    """Read by safetensors itself; and what is kept of a state is what it was then, until another is kept."""
    state, kept = of_all_types(), KeptState(tmp_path)
    write_tensors(tmp_path / "saved", state, {"an": "entry"})
    kept.keep(state)
    content = (tmp_path / "saved").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0  # what follows begins at a multiple of the width of each type
    assert all(header[name]["data_offsets"][0] % state[name].element_size() == 0 for name in state)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]  # it has no name, so nobody need remove it
    for read in (load_file(tmp_path / "saved"), kept):
        assert read.keys() == state.keys()
        for name, tensor in state.items():
            assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(read[name], tensor), name
    state["float32"].add_(1)
    assert not torch.equal(kept["float32"], state["float32"])
    kept.keep(state)
    assert torch.equal(kept["float32"], state["float32"])


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs what Linux says of a process's memory")
def test_the_best_epochs_state_takes_no_memory(tmp_path: Path) -> None:
    """Neither where it is kept nor where it is written to a checkpoint: less than half."""
    code = """if True:
        import sys, torch
        from pathlib import Path
        from harness.training.checkpoint import Checkpoints, KeptState, TrainingState
        def resident():
            status = dict(line.split(":") for line in open("/proc/self/status"))
            return sum(int(status[name].split()[0]) for name in ("RssAnon", "RssFile", "RssShmem"))
        folder, table, peaks = Path(sys.argv[1]), torch.rand(32, 2**18), []
        checkpoints, kept = Checkpoints(folder / "saved"), KeptState(folder)
        small = {"a": torch.zeros(9)}
        checkpoints.save(TrainingState(1, small, small, small))
        before, drop = resident(), kept.drop
        kept.drop = lambda: (peaks.append(resident()), drop())
        kept.keep({"a": table})
        peaks.append(resident())
        checkpoints.save(TrainingState(1, small, small, kept))
        print((max(peaks) - before) * 1024 / table.nbytes, len(peaks))
    """
    ran = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    share, times = ran.stdout.split()
    assert float(share) < 0.4
    assert int(times) > 8


def test_what_stays_is_flushed_and_may_be_read_as_the_user_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    mask = os.umask(0o020)
    try:
        for stays in (False, True):
            write_tensors(tmp_path / "saved", {"a": torch.ones(3)}, {}, stays=stays)
            assert len(flushed) == stays
    finally:
        os.umask(mask)
    assert (tmp_path / "saved").stat().st_mode & 0o777 == 0o646
    with pytest.raises(WriteError, match="cannot be written"):
        write_tensors(tmp_path / "nowhere" / "saved", {"a": torch.ones(3)}, {})


def test_what_a_killed_process_left_of_a_checkpoint_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it may be large, and the next training may end without another one."""
    checkpoints, state = Checkpoints(tmp_path / "saved"), {"a": torch.ones(3)}
    checkpoints.save(TrainingState(1, state, {}, state))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", Mock(side_effect=Stopped))
        patch.setattr(Path, "unlink", Mock())  # which whoever is killed does not come to
        with pytest.raises(Stopped):
            checkpoints.save(TrainingState(2, state, {}, state))
    assert len([*tmp_path.iterdir()]) == 2
    loaded = checkpoints.load(CPU)
    assert (loaded and loaded.epoch, [path.name for path in tmp_path.iterdir()]) == (1, ["saved"])
