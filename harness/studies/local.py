"""Ways of running a trial on this machine: in this process, or in processes of its own side by side."""

import multiprocessing
import os
import pkgutil
import runpy
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from signal import SIGKILL, Signals
from types import ModuleType

import psutil

import harness.models
from bm3 import BM3Error
from harness.common import WriteError, regular, writing
from harness.ending import IN_USE, INTERRUPTED, MISUSED, TERMINATED
from harness.measure.gpu import free_bytes, occupied, visible_gpus
from harness.measure.host import container_limits, system_text, usable_cores
from harness.measure.memory import hold_files_of
from harness.runs.inspect import last_log_line
from harness.runs.store import LOG, InUseError
from harness.runs.trial import Trial, run_trial
from harness.studies.execute import Ending

SHARE_OF_MEMORY = 0.9  # of what is available when a study begins, for its trials
SECONDS_TO_STOP = 30  # for a process that was asked to; an epoch's end is not waited for
FORKS = sys.platform == "linux"  # elsewhere system libraries may not survive a fork, and each process starts anew
PRELOADED = (
    "harness.cli.main",
    "harness.runs.trial",
    "harness.cli.progress",
    *(module.name for module in pkgutil.iter_modules(harness.models.__path__, "harness.models.")),
)
"""What every trial would import for seconds: the server that their processes are forked from has done so once."""
SERVER_GONE = 255  # as multiprocessing says it

Need = Callable[[Trial], int | None]
"""Bytes that a trial is expected to need at most; None if nothing is known."""


class InProcess:
    """One trial after another in this process. Memory figures then include what earlier trials left behind."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._trial: Trial | None = None

    def start(self, trial: Trial, alone: bool = False) -> str | None:
        if self._trial is not None:
            return None
        self._trial = trial
        return "this process"

    def wait(self, seconds: float) -> list[Ending]:
        trial, self._trial = self._trial, None
        if trial is None:
            time.sleep(seconds)
            return []
        try:
            run_trial(trial, self._store, wait=False)
        except WriteError:
            raise
        except InUseError:
            return [Ending(trial, "", elsewhere=True)]
        except BM3Error as error:  # stored as the run's failure
            return [Ending(trial, str(error))]
        return [Ending(trial, "")]

    def stop(self) -> None:
        self._trial = None


@dataclass
class _Child:
    trial: Trial
    process: BaseProcess
    gpu: str | None
    need: int | None
    kills: int
    """For want of memory, by the system, when it began."""
    alone: bool
    """Whether none may begin beside it."""
    beside: bool
    """Whether it shared its memory with another one at some time."""


class Processes:
    """Up to `workers` trials side by side, each the `bm3 train` command that repeats it, in a process of its own.

    Where the system allows, processes are forked from a server that has imported everything and computed nothing.
    So memory is measured apart, and a crash costs one trial. A trial waits while its expected memory would not fit
    beside that of the running ones; one of which nothing is known counts as an equal share. On CUDA each is shown the
    one GPU that has the fewest of them, and begins beside others there as far as NVML says that memory is free. What a
    process prints goes to the log in its run's folder.
    """

    def __init__(
        self,
        store: Path,
        data: Path | None,
        workers: int,
        threads: int,
        need: Need = lambda trial: None,
        *,
        memory: int | None = None,
    ) -> None:
        """`memory`: bytes for all trials together; by default 90 % of what is available now, or of a container's."""
        self._store, self._data, self._workers, self._threads, self._need = store, data, workers, threads, need
        available = psutil.virtual_memory().available
        self._memory = memory or int(SHARE_OF_MEMORY * min(available, container_limits().memory or available))
        self._free: dict[str, int | None] = {}
        """Bytes by GPU when none of the trials was there."""
        self._children: list[_Child] = []

    def start(self, trial: Trial, alone: bool = False) -> str | None:
        if len(self._children) >= self._workers:
            return None
        gpu = self._gpu() if trial.device.type == "cuda" else None
        need, beside = self._need(trial), [child for child in self._children if child.gpu == gpu]
        if beside and (alone or any(child.alone for child in beside) or not self._fits(need, gpu, beside)):
            return None
        if gpu is not None and not beside:  # alone it has all there is
            self._free[gpu] = free_bytes(gpu)
        path, kills = self._store / trial.key, memory_kills()
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            (path / LOG).touch()
        environment = {"NUMBA_NUM_THREADS": str(self._threads)} | os.environ
        environment |= {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        arguments = train_arguments(trial, self._store, self._data, self._threads)
        context = multiprocessing.get_context("forkserver" if FORKS else "spawn")
        work = (command, arguments, Path.cwd(), path / LOG, environment)
        process = context.Process(target=_apart, args=work, daemon=False)  # type: ignore[attr-defined]  # the types lack it
        with _without_main():
            if FORKS:
                _serve()
            process.start()
        for child in beside:
            child.beside = True
        self._children.append(_Child(trial, process, gpu, need, kills, alone, bool(beside)))
        return f"{'' if gpu is None else f'GPU {gpu}, '}process {process.pid}"

    def wait(self, seconds: float) -> list[Ending]:
        if not self._children:
            time.sleep(seconds)
        connection.wait([child.process.sentinel for child in self._children], seconds)
        ended = [child for child in self._children if child.process.exitcode is not None]
        self._children = [child for child in self._children if child not in ended]
        return [_ending(child, self._store / child.trial.key / LOG) for child in ended]

    def stop(self) -> None:
        for child in self._children:
            child.process.terminate()
        for child in self._children:
            child.process.join(SECONDS_TO_STOP)
            if child.process.exitcode is None:
                child.process.kill()
                child.process.join()
        self._children = []

    def _fits(self, need: int | None, gpu: str | None, beside: Sequence[_Child]) -> bool:
        now, before = (self._memory,) * 2 if gpu is None else (free_bytes(gpu), self._free[gpu])
        if now is None or before is None:
            return False
        # What runs may not have taken yet what it will need.
        left, room = (now, before) if gpu is None else (SHARE_OF_MEMORY * now, SHARE_OF_MEMORY * before)
        share = room // max(1, self._workers)
        needs = [share if known is None else known for known in (need, *(child.need for child in beside))]
        return needs[0] <= left and sum(needs) <= room

    def _gpu(self) -> str:
        taken = Counter(child.gpu for child in self._children)
        return min(visible_gpus(), key=lambda gpu: taken[gpu])


def train_arguments(trial: Trial, store: Path, data: Path | None, threads: int) -> list[str]:
    """The arguments of the `bm3` command that runs a trial into the store."""
    kept = ["--keep-model"] * (trial.keep is not None)
    there = [] if data is None else ["--data", str(data)]
    return [*trial.arguments, "--out", str(store), "--threads", str(threads), "--no-wait", *kept, *there]


def command(arguments: Sequence[str]) -> None:
    """`python -m harness` with these arguments; raises SystemExit."""
    sys.argv = ["bm3", *arguments]
    runpy.run_module("harness", run_name="__main__", alter_sys=False)


def log_to(path: Path) -> None:
    """What this process prints from now on is appended to the file."""
    with regular(path).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _serve() -> None:
    """Have the server started that processes are forked from."""
    forkserver.set_forkserver_preload(list(PRELOADED))
    resource_tracker.ensure_running()  # which the server needs; starting it unblocks signals
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: Ctrl-C is for this process
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def _without_main() -> Iterator[None]:
    """Processes that are started do not run the main script again, which then needs no guard."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _apart(
    run: Callable[[Sequence[str]], None],
    arguments: Sequence[str],
    folder: Path,
    log: Path,
    environment: Mapping[str, str],
) -> None:
    """In a process of its own: run a command in a folder with an environment, what it prints appended to a log."""
    parent = multiprocessing.parent_process()
    if parent is None or not parent.is_alive():
        return  # it ended while the server was starting
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C is for the parent, which stops its children
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ.clear()
    os.environ.update(environment)
    if "numba" in sys.modules:
        sys.modules["numba"].config.reload_config()  # it has read the server's environment
    os.chdir(folder)
    log_to(log)
    if FORKS:
        hold_files_of(os.getppid())
    run(arguments)


def threads_beside(workers: int) -> int:
    """Threads for each of so many trials side by side: the cores this process may use, shared out."""
    return max(1, usable_cores(container_limits()) // workers)


def memory_kills(counters: Path = Path("/proc/vmstat")) -> int:
    """How many processes the system has ended for want of memory since it began; 0 where it does not say."""
    words = [line.split() for line in system_text(counters).splitlines()]
    return next((int(value) for name, value in words if name == "oom_kill"), 0)


def _ending(child: _Child, log: Path) -> Ending:
    code, trial = child.process.exitcode or 0, child.trial
    beside = child.beside or (code != 0 and child.gpu is not None and occupied(child.gpu))
    if code == -SIGKILL and memory_kills() > child.kills:
        message = f"{trial.entry.name} on {trial.dataset.name}: out of memory (ended by the system)"
        return Ending(trial, message, vanished=True, out_of_memory=True, beside=beside)
    if code < 0:
        return Ending(trial, f"its process was ended by {Signals(-code).name}", vanished=True)
    if code == SERVER_GONE:
        return Ending(trial, "the server that its process was forked from has ended", vanished=True)
    return ending(trial, code, last_line(log), beside)


def ending(trial: Trial, code: int, said: str, beside: bool = False) -> Ending:
    """What the exit code of `bm3 train` means, which `said` this in the end."""
    if code in (INTERRUPTED, TERMINATED):
        return Ending(trial, "its process was interrupted", vanished=True)
    if code == IN_USE:
        return Ending(trial, "", elsewhere=True)
    return Ending(trial, f"{said} (exit code {code})", misused=code == MISUSED, beside=beside)


def last_line(log: Path) -> str:
    """The last line that says something in a log, without the command's name before it."""
    return (last_log_line(log.parent) or "it said nothing").removeprefix("bm3: ")
