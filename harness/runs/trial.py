"""One trial: a model, a data set, settings and a seed, trained once and stored as a run.

Which trials there are is `suite`; what a run directory looks like is `store`.
"""

import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from glob import escape
from pathlib import Path
from typing import Any

import torch

from bm3 import BM3Error, ConfigError, DataError
from harness.common import WriteError
from harness.data.dataset import PARTS, Dataset
from harness.data.layouts import load_dataset
from harness.ending import NOTHING_MEASURED
from harness.evaluation.compiling import can_compile
from harness.ingest.exporting import Ids
from harness.measure.energy import EnergyMeter
from harness.measure.environment import environment
from harness.measure.gpu import VISIBLE, GpuUnavailableError, driver_version, survey
from harness.measure.memory import MemorySampler
from harness.models.closed_form import ClosedForm
from harness.models.contract import check_class, check_model, without_features
from harness.models.registry import ModelEntry, find_model
from harness.runs.record import MODEL, OUT_OF_MEMORY, RESULT, RUN, RunRecord
from harness.runs.settings import GONE, changed_from_defaults, configure, flatten
from harness.runs.store import (
    CHECKPOINT,
    SUPERSEDED,
    RunWriter,
    identity_digest,
    locked,
    now,
    supersede,
    write_failure,
)
from harness.runs.weights import check_names, read_weights, state_hash, write_weights
from harness.runs.words import device_fault
from harness.training.checkpoint import SHARE as CHECKPOINT_SHARE
from harness.training.checkpoint import Checkpoints, TrainingState
from harness.training.config import NUMERICS_VERSION, STOPPING_METRIC, TrainingConfig, Vectors
from harness.training.fit import EpochRecord, Resume, build, fit
from harness.training.steps import make_deterministic
from harness.training.streams import Streams

FORMAT = 2  # of run.json; 1 named the source's hash, `code`, where 2 has `numerics`
OF_FORMAT_2 = b'"format": 2,'  # as run.json has it; to parse those of a large store would take minutes
RESULT_FORMAT = 1


@dataclass(frozen=True)
class Trial:
    """Everything that decides a run's numbers, checked. `dataset_name` is how the user named the data set."""

    entry: ModelEntry
    dataset: Dataset
    dataset_name: str
    config: Any
    training: TrainingConfig
    seed: int
    device: torch.device
    keep: Ids | None = None
    """The data set's ids, where the weights are to stay with them; it decides no number."""

    @property
    def identity(self) -> dict[str, Any]:
        """What two runs must share to be the same trial: all that decides numbers, up to what machines round."""
        training = asdict(self.training)
        del training["features_location"]
        if training["early_stopping"]["metric"] == STOPPING_METRIC:  # as in runs older than the setting
            del training["early_stopping"]["metric"]
        if self.training.vectors == Vectors():
            del training["vectors"]
        return {
            "model": self.entry.name,
            "config": asdict(self.config),
            "training": training,
            "dataset_hash": self.dataset.content_hash,
            "seed": self.seed,
            "device": self.device.type,
            "compiled": can_compile(),
            "numerics": {"model": self.entry.model.numerics_version, "training": NUMERICS_VERSION},
        }

    def was_of(self, run: RunRecord) -> bool:
        """Whether a stored run is of this trial, whatever its folder's name; of later settings it had the defaults."""
        identity = self.identity
        asked = flatten({**identity.pop("config"), **identity.pop("training")})
        had = {key: value for key, value in run.settings.items() if key in asked}
        same = run.model_dump(include={*identity}) == identity
        return same and had.items() <= asked.items() and not self.changed.keys() & (asked.keys() - had.keys())

    @cached_property
    def key(self) -> str:
        """Directory of the run below the store: data set, model, hash of the identity, seed."""
        return f"{self.dataset.name}/{self.entry.name}-{identity_digest(self.identity)}-seed{self.seed}"

    @property
    def epochs(self) -> int:
        """At most so many; one where the model is fitted at once."""
        return 1 if issubclass(self.entry.model, ClosedForm) else self.training.epochs

    @property
    def reads_features(self) -> bool:
        """Whether item features take part."""
        return self.entry.model.reads_features and bool(getattr(self.config, "reads_features", True))

    @property
    def changed(self) -> dict[str, Any]:
        """Settings that differ from their defaults, with dotted keys."""
        return changed_from_defaults(self.config) | changed_from_defaults(self.training)

    @property
    def arguments(self) -> list[str]:
        """Arguments of the `bm3` command that repeats this trial, without where data and results are."""
        assignments = [text for key, value in self.changed.items() for text in ("--set", f"{key}={value}")]
        options = ["--seed", str(self.seed), "--device", self.device.type]
        return ["train", self.entry.name, self.dataset_name, *assignments, *options]

    @property
    def command(self) -> str:
        return shlex.join(["bm3", *self.arguments])


def dataset_for(settings: Mapping[str, Any], name: str, data: Path | None) -> Dataset:
    """The data set as `load_dataset` finds it, its features in their files until a model that reads them is built."""
    return load_dataset(name, data, mapped=True if settings.get("features_location") == "disk" else None)


def make_trial(
    model: str, dataset: Dataset, dataset_name: str, settings: Mapping[str, Any], seed: int, device: torch.device
) -> Trial:
    """A trial from names and settings. Raises ConfigError for an unknown model or setting.

    Without a validation part training takes exactly the number of epochs in the settings, which must have it.
    """
    if dataset.name == SUPERSEDED:
        raise ConfigError(f"a data set cannot be called {SUPERSEDED!r}, where runs go that were run anew; rename it")
    entry = find_model(model)
    check_class(entry)
    config, training = configure(entry.model, settings)
    training.check_device(device.type)
    if not hasattr(seed, "__index__") or not 0 <= seed < 2**63:
        raise ConfigError(f"seed is {seed!r}, it must be a whole number, not negative and below 2^63")
    if not len(dataset.valid) and "epochs" not in settings and not issubclass(entry.model, ClosedForm):
        raise ConfigError(
            f"data set {dataset_name!r} has no validation part, so nothing ends training early: say after how many "
            f"epochs the model is tested, with --epochs N or --set epochs=N"
        )
    trial = Trial(entry, dataset, dataset_name, config, training, int(seed), device)
    if training.vectors != Vectors() and not trial.reads_features:
        raise ConfigError(f"{entry.name} reads no item vectors with these settings: leave vectors.* out")
    return trial


class OutOfMemoryError(BM3Error):
    """A trial needs more memory than there is."""

    exit_code = NOTHING_MEASURED


def run_trial(
    trial: Trial,
    out: Path,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    *,
    earlier: Callable[[Sequence[EpochRecord]], None] = lambda records: None,
    tell: Callable[[str], None] = lambda message: None,
    share: float = CHECKPOINT_SHARE,
    wait: bool = True,
    rerun: bool = False,
) -> RunRecord:
    """Train and evaluate the trial and store it under `out`; one that is finished is returned as it is.

    A finished run is refused by a ConfigError where weights are to stay and it has none, and where the data set says
    other than it did what is a surrogate, which its content does not show; by a DataError where the weights are of
    other ids. On `rerun` it is moved aside first, and whether the bits are the same is told.

    An unfinished run goes on after its last checkpoint, which may cost `share` of the time; `earlier` gets the epochs
    before it. While another process runs the same trial this one waits for it, or raises InUseError. `tell` gets a line
    on either. Raises WriteError when `out` cannot be written, and OutOfMemoryError or another BM3Error when training
    fails, which is stored as the run's failure. What else ends it, Ctrl-C or a kill, leaves a run that a later call
    goes on with.
    """
    finished = finished_run(trial, out)
    if finished is not None and rerun:
        supersede(out, finished.path)
    elif finished is not None:
        return _as_asked(trial, finished)
    path = out / trial.key
    with locked(path, wait=wait, tell=lambda: tell(f"waiting for another process that runs the same trial ({path})")):
        finished = finished_run(trial, out)
        if finished is not None:
            return _as_asked(trial, finished)
        try:
            check_model(trial.entry, trial.dataset, trial.config)
            _run(trial, RunWriter(path), on_epoch, earlier, tell, share)
        except (RuntimeError, MemoryError) as error:
            if "CUBLAS_WORKSPACE_CONFIG" in str(error):
                mend = "set it to :4096:8, or leave it unset and import harness before torch multiplies anything"
                raise ConfigError(f"cuBLAS sums in any order with this CUBLAS_WORKSPACE_CONFIG: {mend}") from error
            if not is_out_of_memory(error):
                raise
            said = ALLOCATOR.sub("", str(error).partition("\n")[0])
            message = f"{trial.entry.name} on {trial.dataset.name}: out of memory ({said}); {MORE_ROOM}"
            write_failure(path, OUT_OF_MEMORY, message)
            raise OutOfMemoryError(message) from error
        except WriteError:
            raise
        except BM3Error as error:
            if isinstance(error, DataError) and trial.reads_features and not trial.dataset.features:
                error = without_features(error, trial.dataset_name)
            if not (path / RUN).is_file():  # it failed before it began: a model that breaks the contract
                RunWriter(path).begin(_description(trial))
            write_failure(path, "error", str(error))
            raise error
    run = RunRecord.read(path)
    if rerun and (aside := sorted((out / SUPERSEDED).glob(f"{escape(trial.key)}-*/{RESULT}"))):
        tell(_compared(run, RunRecord.read(aside[-1].parent)))
    return run


def relabelled(trial: Trial, run: RunRecord) -> str:
    """Why a finished run is not of the trial's data set as it is now: other vectors are surrogates; else nothing."""
    changed = {*run.dataset.surrogates} ^ {*trial.dataset.surrogates} if trial.reads_features else set()
    are = "are surrogates" if len(changed) > 1 else "is a surrogate"
    of = f"its record and the data set as it is now differ in whether {', '.join(sorted(changed))} {are}"
    return f"{run.path}: {of}" if changed else ""


def _as_asked(trial: Trial, run: RunRecord) -> RunRecord:
    if why := relabelled(trial, run):
        raise ConfigError(f"{why}: add --rerun (rerun=True), which moves that run aside and trains it again")
    if trial.keep is not None and not (run.path / MODEL).is_file():
        raise ConfigError(
            f"{run.path}: is finished and its model was not kept: add --rerun (rerun=True), which moves that run "
            f"aside, trains it again with the model kept, and says whether it is the same to the bit"
        )
    if trial.keep is not None:
        check_names(run, read_weights(run)[1], trial.keep, trial.dataset)
    return run


def _compared(run: RunRecord, before: RunRecord) -> str:
    same = run.outcome.state_hash == before.outcome.state_hash
    bits = "the same bits as" if same else "other bits, as machines and versions round differently, than"
    return f"{bits} the run before, which is now in {before.path}"


def _run(
    trial: Trial,
    writer: RunWriter,
    on_epoch: Callable[[EpochRecord], None],
    earlier: Callable[[Sequence[EpochRecord]], None],
    tell: Callable[[str], None],
    share: float,
) -> None:
    make_deterministic()  # before the environment is recorded, which names the setting
    streams = Streams(trial.seed)
    with MemorySampler(trial.device) as memory, EnergyMeter(trial.device) as meter:
        description = _description(trial)
        state = Checkpoints(writer.path / CHECKPOINT).load(trial.device)
        left = None if state is None else _left_behind(writer.path, state, description)
        resume, description = left or (None, description)
        if resume is None:
            writer.begin(description)
        else:
            tell(f"going on after epoch {resume.state.epoch}")
            earlier(resume.records)
            writer.resume(description, [asdict(record) for record in resume.records])
        model = build(trial.entry.model, trial.dataset, trial.config, streams, trial.device, trial.training)
        trained = [p for p in model.parameters() if p.requires_grad]
        size = 4 * sum(p.nbytes for p in trained)  # with two moments, and the best state
        checkpoints = Checkpoints(writer.path / CHECKPOINT, share, size=size)

        def record(epoch: EpochRecord) -> None:
            meter.epoch()
            memory.sample()
            writer.epoch(asdict(epoch))
            on_epoch(epoch)

        where = streams, trial.device, record
        outcome = fit(model, trial.dataset, trial.training, *where, checkpoints=checkpoints, resume=resume)
    writer.hits(outcome.test_ranking)
    result = {
        "format": RESULT_FORMAT,
        "finished": now(),
        "best_epoch": outcome.best_epoch,
        "epochs": outcome.epochs,
        "stopped": outcome.stopped,
        "valid": outcome.valid,
        "test": outcome.test,
        "timing": outcome.timing,
        "memory": {name: asdict(reading) for name, reading in memory.readings().items()},
        "energy": {"gpu": asdict(meter.energy())},
        "device_notes": [*meter.notes(), *memory.notes()],
        "parameters": sum(p.numel() for p in trained),
        "state_hash": state_hash(model.state_dict()),
    }
    if trial.keep is not None:
        write_weights(writer.path, model.state_dict(), description, result, trial.keep)
    writer.finish(result)


def _left_behind(
    path: Path, state: TrainingState, description: Mapping[str, Any]
) -> tuple[Resume, dict[str, Any]] | None:
    """Where an unfinished run goes on, and its description then; None where its files do not reach its checkpoint."""
    try:
        before = RunRecord.read(path)
        records = [EpochRecord(**record.model_dump()) for record in before.epochs()[: state.epoch]]
    except (DataError, TypeError):  # damaged, as by a power failure
        return None
    if len(records) < state.epoch:
        return None
    then, here = before.environment, description["environment"]
    changed = {key: [then.get(key), value] for key, value in here.items() if then.get(key) != value}
    earlier = list(before.described().get("resumed", ()))
    went_on = {"after_epoch": state.epoch, "when": description["started"], "changed": changed}
    resume = Resume(state, records, [0, *(one["after_epoch"] for one in earlier)])
    return resume, {**before.described(), "resumed": [*earlier, went_on]}


def trial_of(run: RunRecord, data: Path | None, device: str | None = None) -> Trial:
    """The trial that a run was of, with its data set as it is found now, on its own kind of device if none is given.

    Raises ConfigError where this version lacks the model or one of its settings, DataError where the data set is not
    there or another one, and where files of the run cannot be read.
    """
    _, unread = run.readable([*run.result.test] if run.result else [])
    if unread:
        raise DataError(unread[0])
    settings = {key: value for key, value in run.settings.items() if key not in GONE}
    settings["features_location"] = run.features_location or TrainingConfig().features_location
    where = resolve_device(device or run.device)
    try:
        name, dataset = dataset_of(run, data)
        return make_trial(run.model, dataset, name, settings, run.seed, where)
    except ConfigError as error:
        raise ConfigError(f"{run.path}: cannot be repeated by this version: {error}") from error


def dataset_of(run: RunRecord, data: Path | None) -> tuple[str, Dataset]:
    """A run's data set as it is found now, and how its command names it. Raises DataError where it is another one."""
    words = shlex.split(run.command)
    name = words[3] if words[:2] == ["bm3", "train"] and len(words) > 3 else run.dataset.name
    dataset = dataset_for({"features_location": run.features_location}, name, data)
    if dataset.content_hash != run.dataset_hash:
        raise DataError(
            f"data set {name!r} is not the one of {run.path}: its content hash is {dataset.content_hash[:12]}, "
            f"the run's is {run.dataset_hash[:12]}; name the folder that holds the run's data set with --data"
        )
    return name, dataset


def folder_of(trial: Trial, out: Path) -> Path:
    """Where below `out` the trial's run is or would be: the folder of its key, or that of a finished run of format 1.

    That made up the key from the hash of the source, so the same trial may have another name.
    """
    path = out / trial.key
    earlier = [] if path.exists() else _of_the_first_format(path.parent, trial.entry.name, trial.seed)
    return next((run.path for run in earlier if trial.was_of(run) and (run.path / RUN).is_file()), path)


@cache
def _of_the_first_format(folder: Path, model: str, seed: int) -> list[RunRecord]:
    """Finished runs of format 1, of a model and seed, in the folder of a data set, by path; none are added any more."""
    found = []
    for path in sorted(path.parent for path in folder.glob(f"{escape(model)}-*-seed{seed}/{RESULT}")):
        with suppress(DataError, OSError):  # damaged
            if OF_FORMAT_2 not in (path / RUN).read_bytes():
                run = RunRecord.read(path)
                found += [run] if run.format == 1 else []
    return found


def finished_run(trial: Trial, out: Path) -> RunRecord | None:
    """The finished run of a trial in the store `out`, if there is one."""
    path = folder_of(trial, out)
    return RunRecord.read(path) if (path / RESULT).is_file() else None


ALLOCATOR = re.compile(r"^\[enforce fail[^]]*\] (err == 0\. )?")
"""Where in torch's source memory was asked for."""
MORE_ROOM = "try smaller settings, such as batch_size, or a machine with more memory"
NO_MEMORY = re.compile(
    "can't allocate memory|CUDA error: out of memory|CUBLAS_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)"
    "|CUSOLVER_STATUS_ALLOC_FAILED|calling `cusolverDnCreate"
    "|CUSPARSE_STATUS_INSUFFICIENT_RESOURCES|insufficient resources when calling `cusparse"
)
"""What torch's plain RuntimeErrors say where memory did not suffice, be it for cuBLAS or cuSOLVER itself."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory, the device's or the machine's, did not suffice."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or NO_MEMORY.search(str(error)) is not None


@cache
def say_once(line: str) -> None:
    """To stderr, however often it is asked for."""
    print(line, file=sys.stderr)


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one; where NVML sees a GPU that torch cannot use, stderr says so once.

    Raises ConfigError for another name, and where CUDA is asked for and not available.
    """
    if fault := device_fault(name):
        raise ConfigError(f"--device: {fault}")
    available = name != "cpu" and torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("--device cuda: torch finds no CUDA device here; use --device cpu or auto")
    if name == "auto" and not available and os.environ.get(VISIBLE, "0").strip()[:1] not in ("", "-"):
        with suppress(GpuUnavailableError):
            if gpus := survey():
                built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone"
                why = f"torch {torch.__version__}, built for {built}, cannot use it with driver {driver_version()}"
                say_once(f"bm3: on the CPU, though there is a GPU ({gpus[0].name}): {why}; bm3 doctor says more")
    return torch.device("cuda" if available else "cpu")


def _description(trial: Trial) -> dict[str, Any]:
    dataset = trial.dataset
    return {
        "format": FORMAT,
        **trial.identity,
        "dataset": {
            "name": dataset.name,
            "users": dataset.n_users,
            "items": dataset.n_items,
            "interactions": {part: len(dataset.part(part)) for part in PARTS},
            "modalities": {name: [*table.shape, table.dtype.name] for name, table in dataset.features.items()},
            "surrogates": sorted(dataset.surrogates),
        },
        "features_location": trial.training.features_location,
        "reads_features": trial.reads_features,
        "searched": sorted(getattr(trial.entry.model.Config, "GRID", ())),
        "changed": sorted(trial.changed),
        "command": trial.command,
        "started": now(),
        "environment": environment(trial.device),
    }
