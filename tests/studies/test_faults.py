"""Trainings that are killed, starved of disk and run twice: nothing finished is lost and all bits are the same."""

import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import GIVE_UP_AFTER, wait_until

from harness.common import WriteError
from harness.data.layouts import load_dataset
from harness.runs.record import EPOCHS, RESULT, RunRecord
from harness.runs.store import CHECKPOINT, LOCK, stored_runs
from harness.runs.trial import Trial, make_trial, run_trial

KILLS = 20
# Children of a server that has imported everything start in milliseconds, without this process's threads.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["harness.runs.trial", "harness.models.bm3", "harness.models.lightgcn"])


class CrashError(Exception):
    """Ends a training in a way that is none of its failures."""


def trial(model: str = "lightgcn", epochs: int = 12) -> Trial:
    settings = {"epochs": epochs, "batch_size": 256, "learning_rate": 0.01}
    return make_trial(model, load_dataset("mini"), "mini", settings, 5, torch.device("cpu"))


def train(out: Path, model: str = "lightgcn", epochs: int = 12) -> None:
    """What a process does that may be killed: run the trial with a checkpoint after every epoch."""
    torch.set_num_threads(1)
    run_trial(trial(model, epochs), out, share=math.inf)


def in_child(work: Any, *arguments: Any) -> int | None:
    """The exit code of a process of its own."""
    process = FORKS.Process(target=work, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def only(out: Path) -> RunRecord:
    """The run that a store has."""
    (run,) = stored_runs(out)
    return run


def outcome(run: RunRecord) -> Any:
    """Everything of a run but times, memory and how often it was resumed."""
    result = dict(run.outcome)
    kept = {key: result[key] for key in ("best_epoch", "epochs", "stopped", "valid", "test", "state_hash")}
    epochs = [(e.epoch, e.loss, e.parts, e.valid, e.improved) for e in run.epochs()]
    return kept, epochs, {metric: run.per_user(metric)[1].tolist() for metric in ("recall@20",)}  # type: ignore[index]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, float]:
    """The outcome of a training that nothing disturbs, and its seconds."""
    out = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    assert in_child(train, out) == 0
    return outcome(only(out)), time.monotonic() - started


def crashed(out: Path, after: int) -> None:
    """A training that ends by a bug after so many epochs."""

    def crash(record: Any) -> None:
        if record.epoch == after:
            raise CrashError

    with pytest.raises(CrashError):
        run_trial(trial(), out, crash, share=math.inf)


def test_a_training_killed_at_random_moments_ends_with_the_same_bits(
    tmp_path: Path, undisturbed: tuple[Any, float], record_property: Any
) -> None:
    expected, seconds = undisturbed
    moments = random.Random(2023)
    kills, finished, stages = 0, 0, Counter[str]()
    while kills < KILLS:
        out = tmp_path / f"store{finished}"
        killed = True
        while killed and kills < KILLS:
            process = FORKS.Process(target=train, args=(out,))
            process.start()
            if kills % 2:  # every other time not before it trains: its start may take most of the time
                before = checkpoint_time(out)
                while process.exitcode is None and checkpoint_time(out) == before:
                    time.sleep(0.002)
            process.join(moments.uniform(0, seconds * 0.6) / (1 + 5 * (kills % 2)))
            if process.exitcode is None:
                assert process.pid is not None
                with suppress(ProcessLookupError):  # it may have ended just before
                    os.kill(process.pid, signal.SIGKILL)
                process.join()
            assert process.exitcode in (0, -signal.SIGKILL)
            killed = process.exitcode != 0
            if killed:
                kills += 1
                stages[stage(out)] += 1
        assert in_child(train, out) == 0
        run = only(out)
        assert outcome(run) == expected
        # A kill may leave the checkpoint, or the part of a file that it was writing, which `bm3 runs gc` removes.
        left = {path.name for path in run.path.iterdir() if path.suffix != ".part"}
        assert left <= {"run.json", EPOCHS, RESULT, "hits.npz", CHECKPOINT, LOCK}
        finished += 1
    assert kills == KILLS
    assert stages["training"] >= KILLS // 4, stages  # the moments reach the part that matters
    record_property("kills", dict(stages))
    print(f"{kills} kills: {dict(stages)}; {finished} trainings, all with the bits of an undisturbed one")


def checkpoint_time(out: Path) -> list[int]:
    """When the checkpoint was written; none where there is none."""
    try:
        return [path.stat().st_mtime_ns for path in out.rglob(CHECKPOINT)]
    except FileNotFoundError:  # it was removed in between: the training is finished
        return [-1]


def stage(out: Path) -> str:
    """How far a killed training had come."""
    if any(out.rglob(RESULT)):
        return "finished"
    return "training" if any(out.rglob(CHECKPOINT)) else "before the first checkpoint"


@pytest.mark.usefixtures("one_thread")
def test_a_crash_between_checkpoints_loses_only_what_came_after(tmp_path: Path, undisturbed: tuple[Any, float]) -> None:
    """Records of epochs after the last checkpoint are made again, not counted twice."""
    crashed(tmp_path, 7)
    run = only(tmp_path)
    assert [record.epoch for record in run.epochs()] == [1, 2, 3, 4, 5, 6, 7]
    with (run.path / EPOCHS).open("a") as file:
        file.write('{"epoch": 8, "lo')  # a line that the crash cut off
    told, seen, before = list[str](), list[int](), list[int]()
    run = run_trial(
        trial(),
        tmp_path,
        lambda record: seen.append(record.epoch),
        earlier=lambda records: before.extend(record.epoch for record in records),
        tell=told.append,
    )
    assert told == ["going on after epoch 6"]
    assert before == [1, 2, 3, 4, 5, 6]
    assert seen == [7, 8, 9, 10, 11, 12]
    assert outcome(run) == undisturbed[0]
    assert [resumed.after_epoch for resumed in run.resumed] == [6]
    assert run.resumed[0].changed == {}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("damaged", [CHECKPOINT, EPOCHS, "run.json"])
def test_a_damaged_file_costs_time_and_nothing_else(
    tmp_path: Path, undisturbed: tuple[Any, float], damaged: str
) -> None:
    crashed(tmp_path, 3)
    (path,) = tmp_path.rglob(damaged)
    path.write_bytes(b"")
    told: list[str] = []
    assert outcome(run_trial(trial(), tmp_path, tell=told.append)) == undisturbed[0]
    assert told == []


def test_two_processes_on_one_trial_train_it_once(tmp_path: Path, undisturbed: tuple[Any, float]) -> None:
    processes = [FORKS.Process(target=train, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    run = only(tmp_path)
    assert outcome(run) == undisturbed[0]
    assert not run.resumed


def limited(out: Path) -> None:
    """As `train`, with a limit on the size of files that the checkpoint does not fit in."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        train(out)
    except WriteError as error:
        (out / "message").write_text(str(error))


def test_what_cannot_be_written_is_said_and_goes_on_later(tmp_path: Path, undisturbed: tuple[Any, float]) -> None:
    in_child(limited, tmp_path)
    assert "cannot be written (" in (tmp_path / "message").read_text()
    assert not list(tmp_path.rglob("*.part"))
    assert only(tmp_path).state == "unfinished"
    assert in_child(train, tmp_path) == 0
    assert outcome(only(tmp_path)) == undisturbed[0]


EAGER = """
import math
from harness.__main__ import main
from harness.runs.trial import run_trial
run_trial.__kwdefaults__["share"] = math.inf
main()
"""  # the command, with a checkpoint after every epoch, however short
FULL_DISK = """
mount -t tmpfs -o size=SIZE tmpfs DISK && cd DISK || exit 99
train() {
  PYTHON EAGER train lightgcn mini --set batch_size=256 --set learning_rate=0.01 --epochs 12 --seed 5 \\
    --threads 1 --out .
}
train
code=$?
find . -name '*.part' -o -name result.json
echo "code $code"
mount -o remount,size=100m DISK
train || exit 98
cp -r mini KEEP
"""


@pytest.mark.parametrize("size", ["8k", "600k", "1400k"])  # too small for run.json, one checkpoint, two beside another
def test_a_full_disk_loses_nothing(tmp_path: Path, undisturbed: tuple[Any, float], size: str) -> None:
    unshare = shutil.which("unshare")
    (tmp_path / "disk").mkdir()
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare and user namespaces, to mount a small disk without being root")
    words = {"SIZE": size, "DISK": tmp_path / "disk", "PYTHON": sys.executable, "KEEP": tmp_path / "kept"}
    (tmp_path / "eager.py").write_text(EAGER)
    words["EAGER"] = tmp_path / "eager.py"
    script = FULL_DISK
    for word, value in words.items():
        script = script.replace(word, str(value))
    ran = subprocess.run([unshare, "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    if ran.returncode == 99:
        pytest.skip("needs to mount a small disk, which this system refuses")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0] == "code 2", ran.stdout
    message = next(line for line in ran.stderr.splitlines() if line.startswith("bm3: "))
    assert "No space left on device" in message
    assert "make room" in message
    assert outcome(only(tmp_path / "kept")) == undisturbed[0]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_scheduler_and_the_user_may_stop_it(tmp_path: Path, sent: int, code: int) -> None:
    command = [sys.executable, "-m", "harness", "train", "bpr", "mini", "--seed", "5", "--threads", "1"]
    command += ["--set", "early_stopping.patience=5000", "--epochs", "2000", "--out", str(tmp_path)]
    # A shell that starts the tests in the background lets them, and what they start, ignore Ctrl-C.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    wait_until(lambda: any(tmp_path.rglob(CHECKPOINT)))
    process.send_signal(sent)
    _, err = process.communicate(timeout=GIVE_UP_AFTER)
    assert process.returncode == code, err
    assert err.splitlines()[-1].startswith("bm3: interrupted: ")
    assert "the same command goes on with it" in err
    run = only(tmp_path)
    assert run.state == "unfinished"
    assert json.loads((run.path / "run.json").read_text())["seed"] == 5
