"""One function runs the trials of a study, whatever runs each of them; what the store has is not run again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import run_files
import torch
from command_line import GIVE_UP_AFTER, wait_until
from run_files import DESCRIPTION

from bm3 import ConfigError
from harness.common import WriteError
from harness.data.layouts import load_dataset
from harness.ending import IN_USE
from harness.runs import trial as trial_module
from harness.runs.record import FAILURE, RESULT, RunRecord, cost_key
from harness.runs.store import LOG, SUPERSEDED, InUseError, in_use, run_lock, stored_runs, write_failure
from harness.runs.trial import Trial, make_trial, run_trial
from harness.studies import local as backends_module
from harness.studies.estimate import Estimates
from harness.studies.execute import Backend, Ending, Progress, Study, Wanted, pending
from harness.studies.execute import execute as execute_study
from harness.studies.local import InProcess, Processes, train_arguments
from harness.studies.ray import RayCluster
from harness.studies.suite import Outcomes

CPU = torch.device("cpu")


def trials(models: Sequence[str] = ("bpr", "lightgcn", "bm3"), seeds: Sequence[int] = (1, 2)) -> list[Trial]:
    settings = {"epochs": 3, "batch_size": 256, "learning_rate": 0.01}
    mini = load_dataset("mini")
    return [make_trial(model, mini, "mini", settings, seed, CPU) for model in models for seed in seeds]


def one(seed: int = 1, device: str = "cpu", **settings: Any) -> Trial:
    """A trial of BPR."""
    return make_trial("bpr", load_dataset("mini"), "mini", settings, seed, torch.device(device))


def all_of(of: Sequence[Trial]) -> Callable[[Outcomes], Sequence[Trial]]:
    return lambda outcomes: of


def numbers(run: RunRecord | None) -> Any:
    """What must be the same bits wherever a trial ran."""
    assert run is not None
    result = run.outcome
    losses = [(epoch.loss, epoch.parts, epoch.valid) for epoch in run.epochs()]
    return result.state_hash, result.valid, result.test, result.best_epoch, losses


ENDINGS: dict[str, Any] = {
    "crowded": {"message": "", "beside": True},
    "crowded out": {"message": "", "vanished": True, "out_of_memory": True, "beside": True},  # before it wrote anything
    "vanish": {"message": "its process was ended by SIGKILL", "vanished": True},
    "crash": {"message": "IndexError: 7 (exit code 1)"},
    "misused": {"message": "no data set 'mini' (exit code 2)", "misused": True},
    "starved": {"message": "out of memory (ended by the system)", "vanished": True, "out_of_memory": True},
    "elsewhere": {"message": "", "elsewhere": True},
}


@dataclass
class Scripted:
    """A backend that trains nothing: it writes a result, a failure or nothing, as it is told for each attempt."""

    store: Path
    script: dict[str, list[str]] = field(default_factory=dict)
    room: int = 1
    started: list[str] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    stopped: bool = False
    _running: list[Trial] = field(default_factory=list)

    def start(self, trial: Trial, alone: bool = False) -> str | None:
        if len(self._running) >= self.room:
            return None
        self.started.append(trial.key)
        self.alone += [trial.key] * alone
        self._running.append(trial)
        return "a script"

    def wait(self, seconds: float) -> list[Ending]:
        if not self._running:
            time.sleep(0.01)
            return []
        trial = self._running.pop(0)
        what = self.script.get(trial.key, ["finish"]).pop(0)
        if what == "interrupt":
            raise KeyboardInterrupt
        if what == "finish":
            finished_run(self.store / trial.key)
        elif what not in ("elsewhere", "crowded out"):
            unfinished_run(self.store / trial.key)
        if what == "damage":
            (self.store / trial.key / RESULT).write_text("{")
        if what == "fail":
            write_failure(self.store / trial.key, "error", "the loss is nan")
        if what in ("crowded", "no room"):
            write_failure(self.store / trial.key, "out of memory", "CUDA out of memory")
        return [Ending(trial, **ENDINGS.get(what, {"message": ""}))]

    def stop(self) -> None:
        self.stopped = True


def unfinished_run(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / FAILURE).unlink(missing_ok=True)
    (path / "run.json").write_text(json.dumps(DESCRIPTION))


def finished_run(path: Path, finished: str = "2099-01-01T00:00:00+00:00") -> None:
    unfinished_run(path)
    (path / RESULT).write_text(json.dumps({**run_files.RESULT, "finished": finished}))


def execute(
    wanted: Wanted, store: Path, backend: Backend, observe: Any = lambda progress: None, **how: Any
) -> Outcomes:
    return execute_study(Study("test", store, Estimates([]), **how), wanted, backend, observe)


def keys(of: Sequence[Trial]) -> list[str]:
    return [trial.key for trial in of]


# --- the numbers ---


@pytest.mark.usefixtures("one_thread")
def test_the_same_bits_in_this_process_and_side_by_side(tmp_path: Path) -> None:
    expected = execute(all_of(trials()), tmp_path / "here", InProcess(tmp_path / "here"))
    assert len(expected) == 6
    for workers in (1, 2):
        store = tmp_path / f"workers{workers}"
        found = execute(all_of(trials()), store, Processes(store, None, workers, threads=1))
        assert found.keys() == expected.keys()
        for key, run in found.items():
            assert numbers(run) == numbers(expected[key]), key


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("shared", [True, False])
def test_the_same_bits_on_a_ray_cluster(tmp_path: Path, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    some = trials(seeds=(1,))
    expected = execute(all_of(some), tmp_path / "here", InProcess(tmp_path / "here"))
    store = tmp_path / "ray"
    cluster = RayCluster("local", store, None, threads=1, workers=2)
    if not shared:  # as where the driver's disk is not the workers'
        cluster._token.unlink()
    found = execute(all_of(some), store, cluster)
    assert found.keys() == expected.keys()
    for key, run in found.items():
        assert numbers(run) == numbers(expected[key]), key
    assert {path.name for path in store.iterdir()} == {"mini"}


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    with pytest.raises(ConfigError, match=r"--ray 127\.0\.0\.1:1: no cluster can be reached there"):
        RayCluster("127.0.0.1:1", tmp_path, None, threads=1)


def test_ray_that_is_not_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'bm3-harness\[ray\]'"):
        RayCluster("local", tmp_path, None, threads=1)


# --- what is run, and what is not ---


def test_what_is_wanted_may_depend_on_what_came_out(tmp_path: Path) -> None:
    first, second, third = trials(("bpr",), (1, 2, 3))

    def wanted(outcomes: Outcomes) -> list[Trial]:
        return [first] if first.key not in outcomes else [first, second, third]

    backend = Scripted(tmp_path)
    outcomes = execute(wanted, tmp_path, backend)
    assert backend.started == keys([first, second, third])
    assert all(run is not None and run.finished for run in outcomes.values())
    assert backend.stopped


BEGUN = {"absent", "unfinished", "unreadable"}
AGAIN = BEGUN | {"failed", "damaged"}


@pytest.mark.parametrize(
    ("policy", "run"), [("missing", BEGUN), ("failed", AGAIN), ("all", AGAIN | {"finished"}), ("none", set())]
)
def test_policies_choose_by_what_is_stored_and_a_dry_run_lists_it(tmp_path: Path, policy: Any, run: set[str]) -> None:
    """A damaged result is moved aside where reruns are asked for, a finished one where all are."""
    names = ("absent", "unfinished", "unreadable", "failed", "damaged", "finished")
    states = dict(zip(names, trials(("bpr",), range(6)), strict=True))
    folders = {name: tmp_path / trial.key for name, trial in states.items()}
    for name in names[1:4]:
        unfinished_run(folders[name])
    for name in names[4:]:
        finished_run(folders[name])
    (folders["unreadable"] / "run.json").write_text("{}")
    (folders["damaged"] / RESULT).write_text("{")
    write_failure(folders["failed"], "out of memory", "too large")
    backend, wanted = Scripted(tmp_path), all_of(list(states.values()))
    assert keys(pending(wanted, tmp_path, policy).to_run) == keys([states[name] for name in names if name in run])
    seen = list[Progress]()
    outcomes = execute(wanted, tmp_path, backend, policy=policy, observe=seen.append)
    assert backend.started == keys([states[name] for name in names if name in run])
    assert seen[-1].reused == {states[name].key for name in {"finished"} - run}
    assert seen[-1].outcomes.keys() == set(keys([*states.values()]))
    assert {name for name in names if outcomes[states[name].key] is not None} == run | {"finished"}
    assert len(list((tmp_path / SUPERSEDED).rglob(RESULT))) == len({"damaged", "finished"} & run)


@pytest.mark.parametrize(("policy", "run"), [("missing", False), ("none", False), ("failed", True), ("all", True)])
def test_a_run_of_vectors_that_are_said_to_be_others_now_is_no_answer(tmp_path: Path, policy: Any, run: bool) -> None:
    [trial] = trials(("vbpr",), (1,))
    said = replace(trial, dataset=replace(trial.dataset, surrogates=frozenset({"visual"})))
    finished_run(tmp_path / trial.key)
    assert execute(all_of([trial]), tmp_path, Scripted(tmp_path), policy="none")[trial.key] is not None
    backend = Scripted(tmp_path)
    outcomes = execute(all_of([said]), tmp_path, backend, policy=policy)
    assert (backend.started, outcomes[said.key] is not None) == ([said.key] * run, run)
    assert len(list((tmp_path / SUPERSEDED).rglob(RESULT))) == run


@pytest.mark.parametrize(
    ("script", "attempts", "finished", "failure"),
    [
        (["finish"], 1, True, None),
        (["fail"], 1, False, "the loss is nan"),
        (["vanish", "finish"], 2, True, None),
        (["vanish", "vanish"], 2, False, "its process was ended by SIGKILL"),
        (["crash"], 1, False, "IndexError: 7 (exit code 1)"),
        (["misused"], 1, False, None),
        (["starved"], 1, False, "out of memory (ended by the system)"),
        (["crowded", "finish"], 2, True, None),
        (["crowded", "no room"], 2, False, "CUDA out of memory"),
        (["crowded", "crowded"], 2, False, "out of memory, which others had part of; try again with --rerun failed"),
        (["elsewhere", "finish"], 2, True, None),
    ],
)
def test_what_becomes_of_a_trial(
    tmp_path: Path, script: list[str], attempts: int, finished: bool, failure: str | None
) -> None:
    bad, good = trials(("bpr",))
    backend = Scripted(tmp_path, {bad.key: [*script]})
    outcomes = execute(all_of([bad, good]), tmp_path, backend)
    assert outcomes[good.key] is not None  # the study goes on
    assert (outcomes[bad.key] is not None) == finished
    assert backend.started.count(bad.key) == attempts
    assert backend.alone == [bad.key] * ("crowded" in script)  # out of memory beside others: once more, alone
    stored = RunRecord.read(tmp_path / bad.key)
    assert (stored.failure and stored.failure.message) == failure
    assert stored.out_of_memory == (script[-1] in ("starved", "no room"))


def test_a_trial_that_ends_twice_before_it_begins_does_not_end_the_study(tmp_path: Path) -> None:
    bad, good = trials(("bpr",))
    outcomes = execute(all_of([bad, good]), tmp_path, Scripted(tmp_path, {bad.key: ["crowded out", "crowded out"]}))
    assert (outcomes[bad.key], outcomes[good.key] is not None) == (None, True)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("end", [finished_run, lambda path: write_failure(path, "error", "the loss is nan")])
def test_a_trial_that_another_process_runs_is_left_to_it(
    tmp_path: Path, alone: bool, end: Callable[[Path], None]
) -> None:
    """One that measures time waits until it has ended."""
    theirs, ours = trials(("bpr",))
    unfinished_run(tmp_path / theirs.key)
    lock = run_lock(tmp_path / theirs.key)
    lock.acquire()
    backend, seen, begun = Scripted(tmp_path), list[Progress](), list[int]()

    def observe(progress: Progress) -> None:
        seen.append(progress)
        begun.append(len(backend.started))
        if lock.is_locked and len(seen) >= 3:
            end(tmp_path / theirs.key)
            lock.release()

    outcomes = execute(all_of([ours, theirs]), tmp_path, backend, observe=observe, alone=alone)
    assert backend.started == [ours.key]
    assert begun[:3] == ([0] * 3 if alone else [1] * 3)
    assert (outcomes[theirs.key] is not None) == (end is finished_run)
    assert any(running.place == "another process" for progress in seen for running in progress.running)
    assert theirs.key not in seen[-1].reused
    assert seen[-1].running == ()


def test_ctrl_c_stops_what_runs(tmp_path: Path) -> None:
    backend = Scripted(tmp_path, {trials(("bpr",))[0].key: ["interrupt"]})
    with pytest.raises(KeyboardInterrupt):
        execute(all_of(trials(("bpr",))), tmp_path, backend)
    assert backend.stopped


# --- processes ---

SLEEP = "import time; time.sleep(600)"


@dataclass
class Child:
    """A command that stands in for a training."""

    code: str

    def __call__(self, arguments: Sequence[str]) -> None:
        exec(self.code)


Start = Callable[..., Backend]


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """`processes(code, …)`: a backend that runs this code in place of each training."""

    def start(code: str, **options: Any) -> Backend:
        monkeypatch.setattr(backends_module, "command", Child(code))
        return Processes(tmp_path, None, **{"workers": 2, "threads": 1} | options)

    return start


def endings(backend: Backend, count: int) -> list[Ending]:
    found: list[Ending] = []
    wait_until(lambda: found.extend(backend.wait(0.2)) or len(found) >= count)
    return found


@pytest.mark.parametrize(
    ("code", "message", "vanished", "misused"),
    [
        ("print('a'); print('bm3: b'); exit(1)", "b (exit code 1)", False, False),
        ("print('bm3: no such data'); exit(2)", "no such data (exit code 2)", False, True),
        ("exit(3)", "it said nothing (exit code 3)", False, False),
        ("import os; os.kill(os.getpid(), 9)", "its process was ended by SIGKILL", True, False),
        ("exit(143)", "its process was interrupted", True, False),
    ],
)
def test_how_a_process_ended_is_said(processes: Start, code: str, message: str, vanished: bool, misused: bool) -> None:
    backend, trial = processes(code), one()
    assert (backend.start(trial) or "").startswith("process ")
    assert endings(backend, 1) == [Ending(trial, message, vanished, misused)]


def test_compiled_loops_have_the_threads_of_the_trial(
    tmp_path: Path, processes: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the server was started with: numba reads their number when it is imported."""
    pytest.importorskip("numba", reason="loops are compiled where numba is installed")
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    backend = processes("import numba; print(numba.config.NUMBA_NUM_THREADS)", threads=3)
    backend.start(one())
    endings(backend, 1)
    assert (tmp_path / one().key / LOG).read_text().split() == ["3"]


def test_a_trial_that_would_not_fit_waits(processes: Start) -> None:
    needs = {"bpr": 60, "lightgcn": 50, "bm3": 40, "vbpr": None}
    backend = processes(SLEEP, workers=3, need=lambda trial: needs[trial.entry.name], memory=120)
    bpr, lightgcn, bm3, vbpr = trials(("bpr", "lightgcn", "bm3", "vbpr"), (1,))
    assert backend.start(bpr)
    assert backend.start(lightgcn)
    assert backend.start(bm3) is None  # 60 + 50 + 40 > 120
    assert backend.start(vbpr) is None  # 60 + 50 + a third of 120
    backend.stop()
    assert backend.start(vbpr)
    assert backend.start(bm3)  # 40 + 40
    backend.stop()


def test_each_gpu_gets_its_share_of_trials(tmp_path: Path, processes: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices by the names that the user chose; what a process sees is written to its log."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-a")
    monkeypatch.setattr(backends_module, "free_bytes", lambda gpu: 100)
    code = f"import os; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); {SLEEP}"
    backend = processes(code, workers=4, need=lambda trial: 60)
    started = [backend.start(one(seed, "cuda")) for seed in range(3)]
    assert started[2] is None  # a second one of 60 does not fit beside the first
    wait_until(lambda: len([log for log in tmp_path.rglob(LOG) if log.read_text()]) == 2)
    backend.stop()
    assert sorted(log.read_text().strip() for log in tmp_path.rglob(LOG)) == ["3", "GPU-a"]


@pytest.mark.parametrize(
    ("there", "policy", "run", "answers"),
    [
        ({"gpu": "A", "gpu_driver": "1", "gpu_clocks_mhz": [9, 9]}, "missing", False, True),
        ({"gpu": "B", "gpu_driver": "1", "gpu_clocks_mhz": [9, 9]}, "missing", True, True),
        ({"gpu": "A", "gpu_driver": "2", "gpu_clocks_mhz": [9, 9]}, "missing", True, True),
        ({"gpu": "A", "gpu_driver": "1", "gpu_clocks_mhz": [8, 9]}, "failed", True, True),
        ({"gpu": "B", "gpu_driver": "1", "gpu_clocks_mhz": [9, 9]}, "none", False, False),
    ],
)
def test_where_costs_are_asked_for_a_run_of_another_card_is_no_answer(
    tmp_path: Path, there: dict[str, Any], policy: Any, run: bool, answers: bool
) -> None:
    """It is moved aside and kept, or with the policy `none` left alone; where numbers are asked for it stands."""
    trial = one()
    finished_run(tmp_path / trial.key)
    about = DESCRIPTION["environment"] | {"gpu_power_limit_w": 300.0}
    (tmp_path / trial.key / "run.json").write_text(json.dumps({**DESCRIPTION, "environment": {**about, **there}}))
    here = cost_key({**about, "gpu": "A", "gpu_driver": "1", "gpu_clocks_mhz": [9, 9]})
    assert execute(all_of([trial]), tmp_path, Scripted(tmp_path), policy=policy)[trial.key] is not None
    backend = Scripted(tmp_path)
    outcomes = execute(all_of([trial]), tmp_path, backend, policy=policy, costs=here)
    assert (backend.started, outcomes[trial.key] is not None) == ([trial.key] * run, answers)
    assert len(list((tmp_path / SUPERSEDED).rglob(RESULT))) == run


@pytest.mark.parametrize(
    ("free", "alone", "begins"),
    [
        ([140, 70], (False, False), True),  # of both a tenth is left: 126 for two of 60, 63 for the second
        ([130, 130], (False, False), False),
        ([140, 66], (False, False), False),  # somebody else, or the first one already, has the rest
        ([900, None], (False, False), False),
        ([None, 900], (False, False), False),
        ([900, 900], (False, True), False),
        ([900, 900], (True, False), False),
    ],
)
def test_beside_another_a_trial_has_what_nvml_says_is_free(
    processes: Start, monkeypatch: pytest.MonkeyPatch, free: list[int | None], alone: tuple[bool, bool], begins: bool
) -> None:
    """Without a CUDA context in this process, which would take memory from all of them."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,-1,1")
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: pytest.fail("CUDA was begun"))
    monkeypatch.setattr(backends_module, "free_bytes", lambda gpu: free.pop(0))
    backend = processes(SLEEP, need=lambda trial: 60)
    for seed, (as_asked, expected) in enumerate(zip(alone, (True, begins), strict=True)):
        assert (backend.start(one(seed, "cuda"), as_asked) is not None) == expected
    backend.stop()


def test_what_ends_beside_another_says_so(processes: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = processes("exit(1)")
    assert all(backend.start(trial) for trial in trials(("bpr",)))
    assert [ending.beside for ending in endings(backend, 2)] == [True, True]
    for others in (False, True):  # of somebody else, on a GPU
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        monkeypatch.setattr(backends_module, "free_bytes", lambda gpu: None)
        monkeypatch.setattr(backends_module, "occupied", lambda gpu, found=others: found)
        backend.start(one(device="cuda"))
        assert [ending.beside for ending in endings(backend, 1)] == [others]


def test_stopping_lets_processes_end_by_themselves(tmp_path: Path, processes: Start) -> None:
    code = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(print('saved'))); print('up', flush=True)"
    backend = processes(f"{code}; {SLEEP}")
    backend.start(one())
    log = tmp_path / one().key / LOG
    wait_until(lambda: "up" in log.read_text())
    backend.stop()
    assert log.read_text().split() == ["up", "saved"]


def test_a_forked_trial_is_the_command_that_repeats_it(tmp_path: Path) -> None:
    """The same bits, the same environment, and memory that means the same: libraries are counted in both."""
    (trial,) = trials(("lightgcn",), (1,))
    forked = execute(all_of([trial]), tmp_path / "a", Processes(tmp_path / "a", None, 1, threads=2))[trial.key]
    command = [sys.executable, "-m", "harness", *train_arguments(trial, tmp_path / "b", None, 2)]
    subprocess.run(command, check=True, capture_output=True)
    (anew,) = stored_runs(tmp_path / "b")
    assert numbers(forked) == numbers(anew)
    assert forked is not None
    assert forked.environment == anew.environment
    peaks = [run.result.memory.process_rss_peak.bytes for run in (forked, anew)]  # type: ignore[index]
    assert peaks[0] == pytest.approx(peaks[1], rel=0.06)


@pytest.mark.skipif(not backends_module.FORKS, reason="there is no server here")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_study_that_ends_while_its_server_starts_leaves_nothing_running(tmp_path: Path, sent: int) -> None:
    (tmp_path / "two.toml").write_text(STUDY)
    command = [sys.executable, "-m", "harness", "reproduce", "two.toml", "--threads", "1"]
    # Ctrl-C is for all processes of a terminal. A shell that starts the tests in the background may have it ignored.
    study = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_until(lambda: list(tmp_path.rglob(LOG)))
    time.sleep(0.3)
    started = psutil.Process(study.pid).children(recursive=True)
    (os.killpg if sent == signal.SIGINT else os.kill)(study.pid, sent)
    _, said = study.communicate(timeout=GIVE_UP_AFTER)  # which ends when all that was started has ended
    assert started
    assert psutil.wait_procs(started, timeout=GIVE_UP_AFTER)[1] == []
    assert list(tmp_path.rglob("run.json")) == []
    assert "Traceback" not in said
    assert study.returncode == (130 if sent == signal.SIGINT else -signal.SIGKILL)


def test_a_server_that_is_killed_costs_no_trial(tmp_path: Path) -> None:
    trial = one(epochs=400, batch_size=256, **{"early_stopping.patience": 400})
    ended: list[Ending] = []

    def kill(progress: Progress) -> None:
        if not ended and (tmp_path / trial.key / "run.json").exists():
            (process,) = (int(running.place.removeprefix("process ")) for running in progress.running)
            server = psutil.Process(process).ppid()
            os.kill(server, signal.SIGKILL)
            ended.append(Ending(trial, ""))

    outcomes = execute(all_of([trial]), tmp_path, Processes(tmp_path, None, 1, threads=1), observe=kill)
    assert ended
    assert outcomes[trial.key] is not None


# --- memory ---


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9.31 GiB"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
            "allocate 4000000 bytes"
        ),
        *(
            RuntimeError(f"CUDA error: {text}")
            for text in (
                "out of memory",
                "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
                "CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
                "insufficient resources when calling `cusparseSpMM(handle)`",
                "CUSOLVER_STATUS_INTERNAL_ERROR when calling `cusolverDnCreate(handle)`",
            )
        ),
    ],
)
def test_too_little_memory_is_an_outcome_and_the_study_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real = trial_module.build

    def build(model: type[Any], *arguments: Any) -> Any:
        if model.__name__ == "LightGCN":
            raise error
        return real(model, *arguments)

    monkeypatch.setattr(trial_module, "build", build)
    some = trials(("lightgcn", "bpr"), (1,))
    outcomes = execute(all_of(some), tmp_path, InProcess(tmp_path))
    assert outcomes[some[0].key] is None
    assert outcomes[some[1].key] is not None
    stored = RunRecord.read(tmp_path / some[0].key)
    assert stored.out_of_memory
    assert str(error).rpartition("err == 0. ")[2] in stored.failure.message  # type: ignore[union-attr]
    assert ("try smaller settings" in stored.failure.message, "enforce" in stored.failure.message) == (True, False)  # type: ignore[union-attr]


def test_another_setting_of_cublas_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "Deterministic behavior was enabled ... set CUBLAS_WORKSPACE_CONFIG=:4096:8"
    monkeypatch.setattr(trial_module, "build", lambda *_: (_ for _ in ()).throw(RuntimeError(said)))
    (trial,) = trials(("bpr",), (1,))
    with pytest.raises(ConfigError, match="set it to :4096:8, or leave it unset and import harness before"):
        run_trial(trial, tmp_path)


def test_a_store_that_cannot_be_written_stops_the_study(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    for backend in (InProcess(tmp_path / "store"), Processes(tmp_path / "store", None, 1, 1)):
        with pytest.raises(WriteError, match="cannot be written"):
            execute(all_of(trials(("bpr",), (1,))), tmp_path / "store", backend)


def test_a_run_that_its_process_damaged_fails_alone(tmp_path: Path) -> None:
    bad, good = trials(("bpr",))
    outcomes = execute(all_of([bad, good]), tmp_path, Scripted(tmp_path, {bad.key: ["damage"]}))
    assert (outcomes[bad.key], outcomes[good.key] is not None) == (None, True)


def test_what_the_system_ended_for_want_of_memory_is_known(
    tmp_path: Path, processes: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its counter rises between the beginning and the end of the process."""
    counters = tmp_path / "vmstat"
    counters.write_text("nr_free_pages 7\noom_kill 3\n")
    real = backends_module.memory_kills
    assert (real(counters), real(tmp_path / "missing")) == (3, 0)
    monkeypatch.setattr(backends_module, "memory_kills", lambda: real(counters))
    backend = processes("import os; os.kill(os.getpid(), 9)")
    backend.start(one())
    counters.write_text("oom_kill 4\n")
    (ending,) = endings(backend, 1)
    assert ending.out_of_memory
    assert ending.message == "bpr on mini: out of memory (ended by the system)"


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from harness.common import write_json\n"
        "for n in range(300): write_json(Path(sys.argv[1]), {'n': n})\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "status.json")]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [writer.communicate(timeout=GIVE_UP_AFTER)[1] for writer in writers] == ["", ""]
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_a_lock_that_cannot_be_written_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where another user's process left or holds it."""
    lock = run_lock(tmp_path)
    lock.acquire()

    def refused(*arguments: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("harness.runs.store.run_lock", refused)
    assert in_use(tmp_path)
    lock.release()
    (tmp_path / ".lock").touch()
    assert not in_use(tmp_path)


def test_train_may_leave_a_trial_to_another_process(tmp_path: Path) -> None:
    trial = one()
    (tmp_path / trial.key).mkdir(parents=True)
    with run_lock(tmp_path / trial.key):
        command = [sys.executable, "-m", "harness", *train_arguments(trial, tmp_path, None, 1)]
        left = subprocess.run(command, capture_output=True, text=True, check=False)
        assert left.returncode == IN_USE
        assert "another process runs this trial" in left.stderr
        with pytest.raises(InUseError):
            run_trial(trial, tmp_path, wait=False)
    assert not (tmp_path / trial.key / "run.json").exists()


STUDY = """
title = "two at once"
datasets = ["mini"]
seeds = [1, 2, 3, 4]
training = { epochs = 150, batch_size = 256, "early_stopping.patience" = 200 }

[[experiments]]
model = "lightgcn"
"""


def test_two_studies_on_one_store_share_the_work(tmp_path: Path) -> None:
    """Each trial is trained once, by one of the two, and both report all of them."""
    (tmp_path / "two.toml").write_text(STUDY)
    command = [sys.executable, "-m", "harness", "reproduce", "two.toml", "--threads", "1"]
    studies = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ends = [study.communicate(timeout=GIVE_UP_AFTER) for study in studies]
    assert [study.returncode for study in studies] == [0, 0], ends
    runs = list(stored_runs(tmp_path / "runs"))
    assert len(runs) == 4
    assert all(run.finished and not run.resumed and len(run.epochs()) == 150 for run in runs)
    log = (tmp_path / "runs" / "two" / "study.log").read_text()
    begun = [line.split("(process ")[0] for line in log.splitlines() if " started: " in line]
    assert len(begun) - log.count("left to another process") == 4
    by_study = [sum(f"finished: {run.path.relative_to(tmp_path / 'runs')}" in end[1] for run in runs) for end in ends]
    assert sum(by_study) == 4
    assert min(by_study) >= 1, ends
