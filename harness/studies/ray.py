"""Running trials on a Ray cluster, through the extra `ray`. Ray is imported only when it is used.

A worker that sees the store's own folder trains there, so that its checkpoints outlive it; on another file system it
trains in a folder of its own and the finished run is brought to the store.
"""

import signal
import socket
import tempfile
import threading
import time
import traceback
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from bm3 import BM3Error, ConfigError
from harness.common import write_whole, writing
from harness.runs.record import CARD, EPOCHS, FAILURE, HITS, MODEL, RESULT, RUN
from harness.runs.store import LOG, locked
from harness.runs.trial import Trial
from harness.studies.execute import Ending
from harness.studies.local import Need, command, ending, last_line, log_to, train_arguments

SECONDS_TO_CONNECT = 10
LOCAL = "local"
"""Address that stands for a cluster of this machine alone, begun and ended with the study."""


class Returned(NamedTuple):
    """What a worker gives back of a trial."""

    code: int
    """The exit code of `bm3 train`."""
    said: str
    """The last line of its log."""
    files: dict[str, bytes]
    """The run's files by name; none where the worker wrote to the store itself."""


class RayCluster:
    """Trials as tasks of a Ray cluster, each with `threads` cores, a GPU on CUDA, and its expected memory."""

    def __init__(
        self,
        address: str,
        store: Path,
        data: Path | None,
        threads: int,
        need: Need = lambda trial: None,
        *,
        workers: int | None = None,
    ) -> None:
        """`workers`: at most so many at a time; of a `local` cluster, also its cores are as many as they need.

        Raises ConfigError when Ray is not installed or the cluster cannot be reached.
        """
        try:
            import ray
        except ImportError as error:
            raise ConfigError("--ray needs Ray: pip install 'bm3-harness[ray]'") from error
        self._ray: Any = ray
        options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
        if address == LOCAL:
            options |= {"num_cpus": threads * (workers or 1), "include_dashboard": False}
        else:
            options["address"] = address
        handler = signal.getsignal(signal.SIGTERM)  # Ray puts its own in place of it
        try:
            _check_reachable(address)
            ray.init(**options)
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(f"--ray {address}: no cluster can be reached there ({reason})") from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)
        self._store, self._data, self._threads, self._need, self._workers = store, data, threads, need, workers
        # Attempts are counted in one place, which is not here; a process of its own for each trial, as elsewhere.
        self._task = ray.remote(max_retries=0, max_calls=1)(run_ordered)
        self._running: dict[Any, Trial] = {}
        self._token = store / f".shared-{uuid.uuid4().hex}"
        with writing(store):
            store.mkdir(parents=True, exist_ok=True)
            self._token.touch()

    def start(self, trial: Trial, alone: bool = False) -> str | None:
        if self._workers is not None and len(self._running) >= self._workers:
            return None
        cluster = self._ray.cluster_resources()
        room = int(cluster.get("CPU", 0)) // self._threads
        if trial.device.type == "cuda":
            room = min(room, int(cluster.get("GPU", 0)))
        if len(self._running) >= room:
            if not self._running:
                raise BM3Error(f"the cluster has no worker with {self._threads} cores and a {trial.device.type} device")
            return None
        resources: dict[str, Any] = {"num_cpus": self._threads, "num_gpus": int(trial.device.type == "cuda")}
        need = self._need(trial)
        if need is not None and need <= cluster.get("memory", 0):
            resources["memory"] = need
        data = None if self._data is None else self._data.resolve()
        arguments = [*train_arguments(trial, self._store.resolve(), data, self._threads), "--key", trial.key]
        places = str(self._store.resolve()), trial.key, str(self._token.resolve())
        reference = self._task.options(**resources).remote(arguments, *places)
        self._running[reference] = trial
        return "Ray"

    def wait(self, seconds: float) -> list[Ending]:
        if not self._running:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [self._ending(reference, self._running.pop(reference)) for reference in ready]

    def stop(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running = {}
        self._ray.shutdown()
        self._token.unlink(missing_ok=True)

    def _ending(self, reference: Any, trial: Trial) -> Ending:
        try:
            returned: Returned = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:  # the worker or its machine is gone
            return Ending(trial, f"its worker is gone ({type(error).__name__})", vanished=True)
        path = self._store / trial.key
        if returned.files:
            with locked(path), writing(path):
                # The result last: with it the run is finished, and nobody writes to it again.
                for name in sorted(returned.files, key=lambda name: name == RESULT):
                    if not (path / RESULT).exists():
                        write_whole(path / name, returned.files[name])
        return ending(trial, returned.code, returned.said)


def _check_reachable(address: str) -> None:
    """Raises OSError where nobody listens at HOST:PORT, which Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_CONNECT).close()


def run_ordered(arguments: list[str], store: str, key: str, token: str) -> Returned:
    """What a worker does: `bm3 train` in the store if it sees it, else in a folder of its own, to be brought back.

    `token` is a file in the store: a worker that sees it sees the store.
    """
    with tempfile.TemporaryDirectory() as own:
        shared = Path(token).is_file()
        path = Path(store if shared else own) / key
        path.mkdir(parents=True, exist_ok=True)
        log_to(path / LOG)
        try:
            command(arguments if shared else [*arguments, "--out", own])
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 0
        except Exception:  # a bug, of which the log is to have the traceback
            traceback.print_exc()
            code = 1
        ended = not shared and ((path / RESULT).is_file() or (path / FAILURE).is_file())
        names = (RUN, EPOCHS, HITS, LOG, FAILURE, MODEL, CARD, RESULT) if ended else ()
        files = {name: (path / name).read_bytes() for name in names if (path / name).is_file()}
        return Returned(code, last_line(path / LOG), files)
