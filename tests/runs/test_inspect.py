"""What a store is found to hold, whether its runs are whole, how two differ, and what is removed from it."""

import gzip
import json
import lzma
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bm3 import ConfigError, DataError
from harness.data.layouts import load_dataset
from harness.runs.clean import Also, compress, remove, unneeded
from harness.runs.difference import NOT_RECORDED, difference
from harness.runs.index import entries
from harness.runs.inspect import find
from harness.runs.record import EPOCHS, HITS, RESULT, RUN, RunRecord
from harness.runs.store import CHECKPOINT, LOCK, SUPERSEDED, run_folders, run_lock, supersede, write_failure
from harness.runs.trial import Trial, identity_digest, make_trial, run_trial
from harness.runs.verify import IDENTITY, verify

STORED = Path(__file__).parents[2] / "docs" / "results" / "runs"
ALL: tuple[Also, ...] = ("superseded", "unfinished", "stale")
LEFT = f"is not as the run left it: its SHA-256 is another than in {RESULT}"
Edit = Callable[[Any], Any]


def trial(seed: int = 1, epochs: int = 3, patience: int = 20) -> Trial:
    settings = {"epochs": epochs, "batch_size": 256, "early_stopping.patience": patience, "learning_rate": 0.05}
    return make_trial("bpr", load_dataset("mini"), "mini", settings, seed, torch.device("cpu"))


class CrashError(Exception):
    """Ends a training as a kill would."""


def crash(record: Any) -> None:
    if record.epoch == 2:
        raise CrashError


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with seeds 1 and 2 finished, the second stopped early, and seed 3 interrupted in its second epoch."""
    out = tmp_path_factory.mktemp("trained")
    run_trial(trial(1), out)
    run_trial(trial(2, 60, 0), out)
    with pytest.raises(CrashError):
        run_trial(trial(3), out, crash, share=1e9)
    return out


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> Path:
    """A copy of that store to do anything to."""
    return Path(shutil.copytree(trained, tmp_path / "store"))


def run_of(store: Path, seed: int) -> Path:
    (path,) = store.glob(f"mini/*-seed{seed}")
    return path


def edit(file: Path, change: Edit) -> None:
    """Change what a JSON file holds; of epochs, give other lines."""
    content = file.read_text().splitlines() if file.name == EPOCHS else json.loads(file.read_text())
    changed = change(content)
    file.write_text("\n".join([*changed, ""]) if file.name == EPOCHS else json.dumps(content))


def states(store: Path) -> list[str]:
    return [one.state for one in entries(store)]


# --- what there is ---


def test_every_run_is_an_entry_with_its_state_and_figures(store: Path) -> None:
    first, second, third = sorted(entries(store), key=lambda one: one.key[-1])
    assert (first.state, second.state, third.state) == ("finished", "finished", "unfinished")
    run = RunRecord.read(first.path)
    assert run.result is not None
    assert first.key == trial(1).key
    assert (first.epoch, first.limit, first.best_epoch) == (3, 3, run.result.best_epoch)
    assert (first.valid, first.test) == (run.result.valid["recall@20"], run.result.test["recall@20"])
    assert first.seconds == pytest.approx(sum(e.seconds + e.evaluation_seconds for e in run.epochs()))
    assert (third.epoch, third.test, third.finished) == (2, None, None)
    best = max(e.valid["recall@20"] for e in RunRecord.read(third.path).epochs())
    assert third.valid == best


def test_superseded_runs_and_links_do_not_count(store: Path) -> None:
    moved = supersede(store, run_of(store, 1))
    (store / "link").symlink_to(store / "mini", target_is_directory=True)
    assert len(list(run_folders(store))) == len(entries(store / "link" / "..")) == 2
    assert [path.name for path in run_folders(store / SUPERSEDED)] == [moved.name]


# --- by name ---


def test_a_run_is_found_by_path_key_start_and_part(store: Path) -> None:
    wanted = run_of(store, 2)
    digest = wanted.name.split("-")[1]
    shutil.copytree(wanted, store / "mini" / f"{wanted.name}2")  # a whole name wins over those that have it in them
    for name in (str(wanted), str(wanted / RUN), trial(2, 60, 0).key, wanted.name):
        assert find(name, store).path == wanted
    shutil.rmtree(store / "mini" / f"{wanted.name}2")
    for name in (f"bpr-{digest[:6]}", digest[2:8]):
        assert find(name, store).path == wanted


def test_an_ambiguous_name_shows_the_candidates_in_one_line(store: Path) -> None:
    with pytest.raises(DataError, match=r"'bpr' fits 3 runs in .*: mini/bpr-.*, mini/bpr-.*, mini/bpr-[^,]*$") as error:
        find("bpr", store)
    assert "\n" not in str(error.value)


# --- whether it is whole ---


def problems(store: Path) -> dict[str, tuple[str, ...]]:
    checked = {path: verify(path) for path in run_folders(store)}
    return {path.name[-5:]: one.problems for path, one in checked.items() if one.problems}


def test_the_key_of_a_trial_has_the_digest_of_its_identity() -> None:
    one = trial()
    assert tuple(one.identity) == tuple(name for name in IDENTITY if name != "code")
    assert one.key == f"mini/bpr-{identity_digest(one.identity)}-seed1"


@pytest.mark.skipif(not STORED.is_dir(), reason="needs the checkout's docs/results/runs")
def test_the_projects_own_runs_of_all_versions_are_in_order() -> None:
    checked = {path: verify(path) for path in run_folders(STORED)}
    assert len(checked) >= 78
    assert {path: one.problems for path, one in checked.items() if one.problems} == {}
    earlier = {path for path, one in checked.items() if any("earlier version" in note for note in one.notes)}
    assert earlier == {path for path, one in checked.items() if one.run and one.run.compiled is None}


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        (RUN, lambda run: run["config"].update(reg_weight=0.5), "is not of this folder"),
        (RUN, lambda run: run.update(seed=7), "is not of this folder"),
        (RUN, lambda run: run["numerics"].update(model=2), "is not of this folder"),
        (RUN, lambda run: run["dataset"].update(surrogates=["visual"]), LEFT),
        (RUN, lambda run: run["environment"].update(cpu="a faster one"), LEFT),
        (RESULT, lambda result: result.update(epochs=2), r"has 3 epochs, result\.json counts 2"),
        (RESULT, lambda result: result.update(best_epoch=9), "best epoch 9 of 3 of at most 3 cannot be"),
        (RESULT, lambda result: result["valid"].update({"ndcg@5": 0.5}), "has another validation"),
        (RESULT, lambda result: result["test"].update({"map@50": 0.5}), "whose map@50 is another"),
        (RESULT, lambda result: result["timing"].update(median_s=0.1), LEFT),
        (EPOCHS, lambda lines: lines[:-1], "has 2 epochs"),
        (EPOCHS, lambda lines: [lines[1], lines[0], *lines[2:]], "epoch 2 stands where epoch 1 should"),
        (EPOCHS, lambda lines: [*lines[:2], lines[2][:40]], "line 3 is no record of an epoch"),
        (EPOCHS, lambda lines: [*lines, lines[-1]], "epoch 3 stands where epoch 4 should"),
        (EPOCHS, lambda lines: [one.replace("true", "false") for one in lines], "its last new best is"),
        (EPOCHS, lambda lines: [lines[0].replace('"seconds": ', '"seconds": 1'), *lines[1:]], LEFT),
    ],
)
def test_what_does_not_fit_is_named(store: Path, name: str, change: Edit, problem: str) -> None:
    """The file itself, or what does not fit it; where all else fits, the digests do not."""
    edit(run_of(store, 1) / name, change)
    found = problems(store)
    assert list(found) == ["seed1"]
    assert any(re.search(problem, one) for one in found["seed1"]), found


def test_compressed_epochs_are_the_same_epochs_and_their_damage_is_named(store: Path) -> None:
    path = run_of(store, 1)
    before, content = RunRecord.read(path).epochs(), (path / EPOCHS).read_bytes()
    saved = compress(path, dry_run=True)
    assert 0 < saved < len(content)
    assert (path / EPOCHS).read_bytes() == content
    assert (compress(path, dry_run=False), compress(path, dry_run=False)) == (saved, 0)
    assert RunRecord.read(path).epochs() == before != []
    assert problems(store) == {}
    file = path / f"{EPOCHS}.xz"
    assert file.stat().st_size == len(content) - saved
    for ending, pack in ((".xz", lzma.compress), (".gz", gzip.compress)):  # gzip was written by earlier versions
        file = file.rename(path / f"{EPOCHS}{ending}")
        file.write_bytes(whole := pack(content))
        assert RunRecord.read(path).epochs() == before
        assert problems(store) == {}
        file.write_bytes(pack(content.replace(b'"epoch": 1', b'"epoch": 7')))
        assert problems(store)["seed1"][0].startswith(f"{file}: epoch 7 stands where epoch 1 should")
        for broken in (whole[:-9], whole[:40] + bytes([whole[40] ^ 255]) + whole[41:], whole[:2]):
            file.write_bytes(broken)
            assert str(file) in problems(store)["seed1"][0]
            assert RunRecord.read(path).readable(())[0].epochs() == []
            assert compress(path, dry_run=False) == 0
            assert file.read_bytes() == broken
    file.write_bytes(gzip.compress(content))
    assert compress(path, dry_run=False) > 0
    assert not file.exists()
    assert RunRecord.read(path).epochs() == before


@pytest.mark.parametrize("name", [EPOCHS, HITS])
def test_a_file_that_is_missing_is_damage_unless_the_run_is_older_than_it(store: Path, name: str) -> None:
    path = run_of(store, 1)
    (path / name).unlink()
    assert problems(store) == {"seed1": (f"{path / name}: is missing",)}
    edit(path / RUN, lambda run: run.pop("compiled"))
    edit(path / RESULT, lambda result: result.pop("digests"))
    digest = identity_digest({key: value for key, value in trial(1).identity.items() if key != "compiled"})
    renamed = path.rename(path.parent / f"bpr-{digest}-seed1")
    verified = verify(renamed)
    assert verified.problems == ()
    assert f"{name} was not kept by the earlier version that made it" in verified.notes
    assert any("has no digests" in note for note in verified.notes)


def test_an_unfinished_run_may_end_in_half_a_line_but_not_lack_an_epoch(store: Path) -> None:
    file = run_of(store, 3) / EPOCHS
    whole = file.read_text()
    assert all(verify(path).notes == () for path in run_folders(store))
    file.write_text(whole + '{"epoch": 3, "lo')
    assert problems(store) == {}
    file.write_text(whole.splitlines()[1])
    assert "epoch 2 stands where epoch 1 should" in problems(store)["seed3"][0]


def test_a_damaged_checkpoint_is_a_note_since_it_only_costs_time(store: Path) -> None:
    file = run_of(store, 3) / CHECKPOINT
    file.write_bytes(file.read_bytes()[:-10])
    verified = verify(run_of(store, 3))
    assert verified.problems == ()
    assert "the training begins anew" in verified.notes[0]


# --- how two differ ---


def test_the_same_training_twice_differs_in_times_alone(store: Path, tmp_path: Path) -> None:
    again = run_trial(trial(1), tmp_path / "again")
    found = difference(RunRecord.read(run_of(store, 1)), again)
    assert (found.asked, found.environment, found.results) == ((), (), ())
    assert (found.first_epoch, found.same_parameters) == (None, True)
    assert found.verdict == "same"


def test_what_was_asked_and_what_came_out_is_compared(store: Path) -> None:
    one, other = RunRecord.read(run_of(store, 1)), RunRecord.read(run_of(store, 2))
    found = difference(one, other)
    asked = {change.what: (change.first, change.second) for change in found.asked}
    assert asked == {"seed": (1, 2), "epochs": (3, 60), "early_stopping.patience": (20, 0)}
    assert found.same_parameters is False
    assert found.first_epoch == 1
    (recall,) = (change for change in found.results if change.what == "test recall@20")
    assert one.result is not None
    assert other.result is not None
    then, here = one.result.test["recall@20"], other.result.test["recall@20"]
    assert recall.relative == pytest.approx((here - then) / then)
    assert found.verdict == "other"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (RESULT, lambda result: result.update(state_hash="0")),
        (RESULT, lambda result: result["valid"].update({"map@5": result["valid"]["map@5"] + 1e-16})),
        (RESULT, lambda result: result["test"].update({"map@5": result["test"]["map@5"] * (1 + 1e-12)})),
    ],
)
def test_the_last_bit_counts(store: Path, tmp_path: Path, name: str, change: Edit) -> None:
    other = shutil.copytree(run_of(store, 1), tmp_path / "other")
    edit(other / name, change)
    assert difference(RunRecord.read(run_of(store, 1)), RunRecord.read(other)).verdict == "other"


def test_a_course_that_differs_in_one_epoch_is_told(store: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run_of(store, 1), tmp_path / "other"))

    def change(lines: list[str]) -> list[str]:
        first, second, third = map(json.loads, lines)
        first["seconds"] = 99  # which does not count
        second["loss"] *= 1 + 1e-15
        return [json.dumps(record) for record in (first, second, third)]

    edit(other / EPOCHS, change)
    assert difference(RunRecord.read(run_of(store, 1)), RunRecord.read(other)).first_epoch == 2


def test_a_run_older_than_a_setting_had_its_default(store: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run_of(store, 1), tmp_path / "other"))

    def as_earlier(run: dict[str, Any]) -> None:
        del run["training"]["precision"], run["compiled"], run["environment"]["numba"]

    edit(other / RUN, as_earlier)
    edit(other / RESULT, lambda result: result.pop("state_hash"))
    found = difference(RunRecord.read(other), RunRecord.read(run_of(store, 1)))
    assert [(change.what, change.first) for change in found.asked] == [("compiled", NOT_RECORDED)]
    assert [(change.what, change.first) for change in found.environment] == [("numba", NOT_RECORDED)]
    assert found.same_parameters is None
    assert found.verdict == "same"


# --- what can go ---


def gone(store: Path, *also: Also) -> set[str]:
    """Remove what can go, and give what has vanished, below the store."""
    before = set(store.rglob("*"))
    for one in unneeded(store, also):
        assert remove(store, one)
    return {path.relative_to(store).as_posix() for path in before - set(store.rglob("*"))}


def test_only_what_no_one_needs_goes_by_default(store: Path) -> None:
    assert gone(store) == set()
    finished, unfinished = run_of(store, 1), run_of(store, 3)
    supersede(store, run_of(store, 2))
    half = [unfinished / f"{CHECKPOINT}.part", finished / f"{RESULT}.17-0a1b2c3d.part"]
    wanted = {path.relative_to(store).as_posix() for path in (finished / CHECKPOINT, finished / LOCK, *half)}
    others = {"notes.part", "mini/reports/run.part", "mini/bm3-0123456789-seed5/thesis.txt"}
    for name in wanted | others:
        (store / name).parent.mkdir(exist_ok=True)
        (store / name).write_text("precious")
    assert gone(store) == wanted
    assert all((store / name).is_file() for name in others)


def test_removing_a_checkpoint_leaves_no_lock_behind(store: Path) -> None:
    names = sorted(path.name for path in run_of(store, 1).iterdir())
    (run_of(store, 1) / CHECKPOINT).touch()
    assert gone(store) == {f"mini/{run_of(store, 1).name}/{CHECKPOINT}"}
    assert sorted(path.name for path in run_of(store, 1).iterdir()) == names


def test_damaged_runs_stay(store: Path) -> None:
    (run_of(store, 1) / RUN).unlink()
    (run_of(store, 2) / RUN).write_text("{")
    assert not any("seed1" in name or "seed2" in name for name in gone(store, *ALL))


def test_half_files_beside_runs_go_once_nobody_can_be_writing_them(store: Path) -> None:
    halves = {".index.json.17-0a1b2c3d.part", "mini/status.json.17-0a1b2c3d.part", "report.md.17-0a1b2c3d.part"}
    for name in halves:
        (store / name).touch()
    assert gone(store) == set()
    for name in halves:
        os.utime(store / name, (0, 0))
    assert gone(store) == halves


def test_half_files_in_runs_behind_links_and_folders_of_such_names_are_none_beside_runs(store: Path) -> None:
    """Where the store that is named is a data set's folder too, below which are runs at once."""
    name, elsewhere = "x.17-0a1b2c3d.part", store.with_name("elsewhere")
    (store / "mini" / name).mkdir()
    for place in (run_of(store, 1), run_of(store, 3), elsewhere):
        place.mkdir(exist_ok=True)
        (place / name).touch()
        os.utime(place / name, (0, 0))
    (store / "mini" / "linked").symlink_to(elsewhere)
    with run_lock(run_of(store, 3)):
        assert gone(store / "mini") == {f"{run_of(store, 1).name}/{name}"}


def test_unfinished_and_failed_runs_go_when_asked_and_their_trials_can_be_run_again(store: Path) -> None:
    path = run_of(store, 3)
    write_failure(path, "error", "no")
    assert gone(store, "unfinished") >= {f"mini/{path.name}", f"mini/{path.name}/{RUN}"}
    assert sorted(path.name for path in store.iterdir()) == ["mini"]
    assert sorted(states(store)) == ["finished", "finished"]
    assert run_trial(trial(3), store).finished


def test_a_run_that_is_being_written_is_running_and_stays(store: Path) -> None:
    (leftover,) = unneeded(store, ["unfinished"])
    with run_lock(run_of(store, 3)):
        assert not remove(store, leftover)
        assert gone(store, *ALL) == set()
        assert sorted(states(store)) == ["finished", "finished", "running"]


@pytest.mark.parametrize("seed", [1, 3])
def test_a_run_in_place_of_a_store_is_refused(store: Path, seed: int) -> None:
    with pytest.raises(DataError, match="is a run itself; name the store"):
        unneeded(run_of(store, seed), ALL)


def test_superseded_runs_go_when_asked_with_their_folders(store: Path) -> None:
    path = run_of(store, 1)
    moved = supersede(store, path)
    assert gone(store, "superseded") == set()  # nothing has taken its place yet
    shutil.copytree(moved, path)
    assert moved.relative_to(store).as_posix() in gone(store, "superseded")
    assert not (store / SUPERSEDED).exists()
    assert len(states(store)) == 3


def test_no_data_set_is_called_as_the_folder_of_superseded_runs() -> None:
    with pytest.raises(ConfigError, match="cannot be called 'superseded'"):
        make_trial("bpr", replace(load_dataset("mini"), name=SUPERSEDED), "x", {}, 1, torch.device("cpu"))


def test_the_former_result_stays_until_its_trial_was_run_anew_to_the_end(store: Path) -> None:
    again, done = run_of(store, 1), run_of(store, 2)
    held, free = supersede(store, again), supersede(store, done)
    shutil.copytree(free, done)
    shutil.copytree(held, again)
    (again / RESULT).unlink()
    assert gone(store, "superseded") & {"superseded", *(one.relative_to(store).as_posix() for one in (held, free))} == {
        free.relative_to(store).as_posix()
    }
    shutil.copy(held / RESULT, again)
    assert "superseded" in gone(store, "superseded")


def test_a_run_that_was_finished_since_it_was_looked_at_stays(store: Path) -> None:
    (found,) = unneeded(store, ["unfinished"])
    shutil.copy(run_of(store, 1) / RESULT, found.path)
    before = sorted(found.path.iterdir())
    assert not remove(store, found)
    assert sorted(found.path.iterdir()) == before  # its lock is not left there either


def test_stale_runs_are_those_of_other_versions_whose_model_is_known(store: Path) -> None:
    assert gone(store, "stale") == set()
    edit(run_of(store, 1) / RUN, lambda run: run["numerics"].update(training=99))
    edit(run_of(store, 2) / RUN, lambda run: run.update(numerics={"model": 99, "training": 1}, model="stranger"))
    path = run_of(store, 1)
    assert f"mini/{path.name}" in gone(store, "stale")
    assert sorted(states(store)) == ["finished", "unfinished"]


def test_links_are_not_followed(store: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(run_of(store, 3), elsewhere / "mini" / run_of(store, 3).name)
    (elsewhere / "precious").write_text("precious")
    before = sorted(elsewhere.rglob("*"))
    for link, target in (
        (store / "more", elsewhere),
        (store / SUPERSEDED, elsewhere),
        (run_of(store, 3) / "features", elsewhere),
        (run_of(store, 1) / "x.part", elsewhere / "precious"),
    ):
        link.symlink_to(target, target_is_directory=target.is_dir())
    gone(store, *ALL)
    assert sorted(elsewhere.rglob("*")) == before


def test_a_removal_that_is_killed_leaves_nothing_that_counts(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path) -> None:
        (path / RESULT).unlink(missing_ok=True)
        raise CrashError

    (leftover,) = unneeded(store, ["unfinished"])
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(CrashError):
            remove(store, leftover)
    assert sorted(states(store)) == ["finished", "finished"]
    assert gone(store, "superseded")
    assert not (store / SUPERSEDED).exists()
