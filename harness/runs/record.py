"""A stored run as a value: what its files say, parsed and checked once where they are read. Writing them is `store`.

A file may hold more than what is named here, and may lack what has a default, which came with a later version. Format 1
of `run.json` had the hash of the source, `code`, where format 2 has numerics versions: its runs count as version 1.
"""

import gzip
import json
import lzma
import math
import re
import shlex
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bm3 import DataError
from harness.common import read_file, read_json
from harness.data.files import read_archive
from harness.evaluation.metrics import Ranking, known_metrics, metrics_of_hits
from harness.training.config import STOPPING_METRIC

COMPRESSED: Mapping[str, Callable[[bytes], bytes]] = {".xz": lzma.decompress, ".gz": gzip.decompress}
"""Endings of compressed epochs of finished runs, and what unpacks them; the first is written."""
DAMAGED = OSError, EOFError, zlib.error, lzma.LZMAError
"""What `read_epochs` may raise."""
RUN, EPOCHS, HITS, RESULT, FAILURE = "run.json", "epochs.jsonl", "hits.npz", "result.json", "failure.json"
MODEL, CARD = "model.safetensors", "model.md"
"""The weights, and what they are in words: only where they were asked for."""
OUT_OF_MEMORY: Final = "out of memory"
GPU_KINDS = ("gpu_process_peak", "allocator_reserved_peak")
MEMORY_KINDS = (*GPU_KINDS, "process_rss_peak")
"""Peaks of memory by how near they are to what is published: the first that was measured counts."""
GPU_KEYS = ("gpu", "gpu_driver", "gpu_power_limit_w", "gpu_clocks_mhz", "gpu_mig", "gpu_compute_mode")
COST_KEYS = ("device", "cpu", "logical_cores", "torch_threads", *GPU_KEYS)
"""What of an environment decides costs: two runs that differ in one of them do not stand for each other there."""
HOST_KEYS = ("platform", "cpu", "logical_cores", "memory_bytes")

METRIC = re.compile(r"[^@]+@[1-9]\d{0,8}")

State = Literal["finished", "failed", "unfinished"]
FailureKind = Literal["out of memory", "error", "killed"]
PerUser = tuple[NDArray[np.int64], NDArray[np.float64]]


def _time(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return text


def _settings(value: Any) -> Any:
    """A list as a tuple, so that values can be compared and counted; no number but finite ones."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no setting")
    if isinstance(value, dict):
        return {key: _settings(inside) for key, inside in value.items()}
    return tuple(map(_settings, value)) if isinstance(value, list) else value


def _environment(found: dict[str, Any]) -> dict[str, Any]:
    kinds = {"torch_threads": int, "gpu_power_limit_w": int | float, "gpu_clocks_mhz": list}
    for key, value in found.items():
        if value is not None and not isinstance(value, kinds.get(key, str | int | float)):
            raise ValueError(f"{key} is {value!r:.40}")
    return found


def _words(text: str) -> str:
    if not {*text}.isdisjoint("'\"\\"):  # else nothing can be wrong, and to split it takes as long as to read a run
        shlex.split(text)
    return text


def _reported(metrics: dict[str, float]) -> dict[str, float]:
    """What one metric has at a cut-off, the others have too."""
    if wrong := _wrong(tuple(metrics)):
        raise ValueError(wrong)
    return metrics


@lru_cache(1024)  # runs and their epochs have the same metrics
def _wrong(metrics: tuple[str, ...]) -> str:
    if odd := [name for name in metrics if not METRIC.fullmatch(name)]:
        return f"{odd[0]!r:.40} is no metric at a cut-off"
    names = [name.partition("@") for name in metrics]
    cutoffs = dict.fromkeys(name[2] for name in names)
    every = [f"{metric}@{k}" for metric in dict.fromkeys(name[0] for name in names) for k in cutoffs]
    missing = ", ".join(name for name in every if name not in metrics)
    return f"lacks {missing}" if missing else ""


Time = Annotated[str, AfterValidator(_time)]
Count = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Metrics = Annotated[dict[str, float], AfterValidator(_reported)]


class Record(BaseModel):
    """A JSON object with these fields, and perhaps others, which are kept."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    def written(self) -> dict[str, Any]:
        """What the file said, as JSON has it."""
        return self.model_dump(mode="json", exclude_unset=True)


class EvaluationSettings(Record):
    top_k: Annotated[int, Field(ge=1)] | None = None
    block_users: int = 0


class EarlyStopping(Record):
    patience: int | None = None
    metric: str = STOPPING_METRIC
    """Not written where it is that, as in earlier versions."""


class Training(Record):
    epochs: int
    evaluation: EvaluationSettings = EvaluationSettings()
    early_stopping: EarlyStopping = EarlyStopping()


class DatasetRecord(Record):
    name: str
    users: Count
    items: Count
    interactions: dict[str, Count]
    modalities: dict[str, list[Any]]
    """Shape and type of each table of features."""
    surrogates: list[str]


class Resumed(Record):
    """The run went on, perhaps somewhere else."""

    after_epoch: int
    when: Time
    changed: dict[str, Annotated[list[Any], Field(min_length=2, max_length=2)]]
    """What of the environment was another, before and after."""


class Numerics(Record):
    """Versions of what the model, and training with evaluation, compute."""

    model: int = 1
    training: int = 1


class Timing(Record):
    """Seconds; `note` says why some are missing."""

    median_s: Finite | None
    """Of an epoch's training, after the warm-up."""
    q1_s: Finite | None
    q3_s: Finite | None
    warmup_s: Finite | None
    """Of the first epoch."""
    evaluation_median_s: Finite | None
    note: str | None
    warm_up_epochs: int | None = None
    """How many epochs are left out of median and quartiles."""
    warm_up_note: str | None = None


class Reading(Record):
    """Bytes, or why there are none; `how` they were found where they were not simply read."""

    bytes: Count | None
    note: str | None
    how: str | None = None


class Memory(Record):
    """Peaks while the run was trained and evaluated."""

    allocator_peak: Reading
    allocator_reserved_peak: Reading
    gpu_process_peak: Reading
    gpu_device_peak: Reading
    process_rss_start: Reading | None = None
    process_rss_peak: Reading

    @property
    def readings(self) -> dict[str, Reading]:
        """All that were taken, by name."""
        return {name: self.of(name) for name in Memory.model_fields if name in self.model_fields_set}

    def of(self, kind: str) -> Reading:
        reading: Reading = getattr(self, kind)
        return reading

    @property
    def context(self) -> int | None:
        """Bytes of the process that torch did not reserve: the CUDA context and what libraries took beside it."""
        process, reserved = self.gpu_process_peak.bytes, self.allocator_reserved_peak.bytes
        return None if process is None or reserved is None else process - reserved


def memory_kind(memories: Iterable[Memory], kinds: Sequence[str] = MEMORY_KINDS) -> str | None:
    """Which reading counts for all of them, so that they can be compared: the first that all measured, and not as 0."""
    return next((kind for kind in kinds if all(memory.of(kind).bytes for memory in memories)), None)


class Energy(Record):
    joules: Finite | None
    per_epoch: Finite | None
    epochs: int
    note: str | None


class Result(Record):
    """What came out: `result.json`."""

    finished: Time
    best_epoch: int
    epochs: int
    stopped: str | None = None
    """`early`, `limit` or `closed form`."""
    valid: Metrics
    """In the best epoch."""
    test: Metrics
    timing: Timing
    memory: Memory
    energy: dict[str, Energy] = {}
    device_notes: list[str] = []
    """Of earlier versions: clocks, slowdowns and other processes, a sentence each."""
    parameters: int | None = None
    state_hash: str | None = None
    digests: dict[str, str] = {}
    """SHA-256 of the run's other files, and of what `result.json` says beside these; earlier versions have none."""


class Failure(Record):
    """Why a run ended without a result: `failure.json`."""

    kind: str
    message: str
    when: Time


class Epoch(Record):
    """A line of `epochs.jsonl`."""

    epoch: Annotated[int, Field(lt=2**63)]
    loss: float | None
    parts: dict[str, float]
    seconds: Finite
    evaluation_seconds: Finite
    sampling_seconds: Finite = 0.0
    valid: Metrics
    improved: bool


def read_epochs(file: Path) -> bytes:
    """Lines of epochs, compressed or not. Raises DAMAGED."""
    return COMPRESSED.get(file.suffix, bytes)(read_file(file))


def epochs_files(path: Path) -> Iterator[Path]:
    """What there is of a run's epochs, as they were written or compressed; the first counts."""
    return (file for end in ("", *COMPRESSED) if (file := path / f"{EPOCHS}{end}").is_file())


class RunRecord(Record):
    """A run as read from its folder: what was asked and where it ran (`run.json`), and the result, if there is one."""

    path: Path
    format: int = 1
    model: str
    config: Annotated[dict[str, Any], AfterValidator(_settings)]
    training: Training
    dataset: DatasetRecord
    dataset_hash: str
    seed: int
    device: str = "cpu"
    compiled: bool | None = None
    """Whether numba's loops took part; None where an earlier version did not record it."""
    numerics: Numerics = Numerics()
    features_location: str | None = None
    reads_features: bool
    searched: list[str]
    changed: list[str] | None = None
    """Settings that differed from their defaults; earlier versions have them in the command alone."""
    command: Annotated[str, AfterValidator(_words)]
    started: Time | None = None
    environment: Annotated[dict[str, Any], AfterValidator(_environment)]
    resumed: list[Resumed] = []
    result: Result | None = None
    """None when it is unfinished. Where it is known to be finished, `outcome` is the same."""
    failure: Failure | None = None
    """What ended it; None when it is finished or was merely interrupted."""
    without: frozenset[str] = frozenset()
    """Names of files that are there, cannot be read, and are taken as not there."""

    @model_validator(mode="after")
    def _has_what_was_searched(self) -> Self:
        if unknown := [key for key in self.searched if key not in self.config]:
            raise ValueError(f"searched settings {', '.join(unknown)} are not in its config")
        if self.result is not None and self.validated and self.stopping not in self.result.valid:
            raise ValueError(f"{RESULT} lacks {self.stopping}, by which training stopped")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises DataError when the files are missing, not JSON, or not what every run has."""
        found: dict[str, Any] = {"result": None, "failure": None}
        run = _read_json(path / RUN)
        if (path / RESULT).is_file():
            found["result"] = _checked(path / RESULT, Result, _read_json(path / RESULT))
        elif (path / FAILURE).is_file():
            found["failure"] = _checked(path / FAILURE, Failure, _read_json(path / FAILURE))
        return _checked(path / RUN, cls, {**run, **found, "path": path})

    def described(self) -> dict[str, Any]:
        """What `run.json` said."""
        return self.model_dump(mode="json", exclude_unset=True, exclude={"path", "result", "failure", "without"})

    @property
    def finished(self) -> bool:
        return self.result is not None

    @property
    def outcome(self) -> Result:
        """The result of a run that is finished. Raises ValueError for another."""
        if self.result is None:
            raise ValueError(f"{self.path} has no result")
        return self.result

    @property
    def stopping(self) -> str:
        """The validation metric that ended its training, chose its epoch and compares it with other grid points."""
        return self.training.early_stopping.metric

    @property
    def validated(self) -> bool:
        """Whether its data has a validation part; without one its last epoch counts."""
        return self.dataset.interactions.get("valid") != 0

    @property
    def state(self) -> State:
        return "finished" if self.finished else "unfinished" if self.failure is None else "failed"

    @property
    def out_of_memory(self) -> bool:
        return self.failure is not None and self.failure.kind == OUT_OF_MEMORY

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings that it recorded, and the metric of stopping, with dotted keys."""
        return flatten(_settings({**self.config, **self.training.written()})) | {"early_stopping.metric": self.stopping}

    @cached_property
    def changed_settings(self) -> dict[str, Any]:
        """Those that differed from their defaults when it was made; a run older than a setting had its default."""
        changed = self.changed
        if changed is None:
            words = pairwise(shlex.split(self.command))
            changed = [word.partition("=")[0] for option, word in words if option == "--set"]
        return {key: value for key, value in self.settings.items() if key in changed}

    @property
    def ended(self) -> Time | None:
        """When it finished or failed."""
        return self.outcome.finished if self.finished else self.failure.when if self.failure else None

    @property
    def host(self) -> str:
        """The same for runs of one machine, as far as an environment tells machines apart."""
        return json.dumps([self.environment.get(key) for key in HOST_KEYS])

    def epochs(self) -> list[Epoch]:
        """Its epochs, in order; a last line that was cut off is left out. Raises DataError."""
        file = self.epochs_file
        if EPOCHS in self.without or file is None:
            return []
        try:
            lines = read_epochs(file).split(b"\n")
        except DAMAGED as error:
            raise _unreadable(file, error) from error
        records: list[Epoch] = []
        for number, line in enumerate(lines, start=1):
            try:
                records.append(check(line, Epoch))
            except ValueError as error:
                if number == len(lines):
                    break
                what = f"line {number} is no record of an epoch ({error}); remove the folder to run again"
                raise DataError(f"{file}: {what}") from error
        return records

    @property
    def epochs_file(self) -> Path | None:
        """Where its epochs are, as they were written or compressed."""
        return next(epochs_files(self.path), None)

    @property
    def seconds(self) -> float | None:
        """What all its epochs took, training and evaluation; None without epochs. Raises DataError."""
        epochs = self.epochs()
        return sum(epoch.seconds + epoch.evaluation_seconds for epoch in epochs) if epochs else None

    def per_user(self, metric: str) -> PerUser | None:
        """Users [n] and their test metric [n], such as `recall@20`; None where it does not follow from stored hits.

        Ranks past the last item are misses. Raises DataError when the file cannot be read, its lists are shorter than
        they were asked for though there are more items, or it is not of this result.
        """
        file = self.path / HITS
        if HITS in self.without or not file.is_file():
            return None
        if metric in self._per_user:
            return self._per_user[metric]
        users, n_relevant, packed, length = self.stored_hits
        name, _, at = metric.partition("@")
        if name not in metrics_of_hits():
            return None
        cutoff = int(at)
        asked = self.training.evaluation.top_k or length
        if length < (wanted := min(asked, self.dataset.items)):
            what = f"its lists end at rank {length}, before rank {wanted}; remove the folder to run it again"
            raise DataError(f"{file}: {what}")
        if length < min(cutoff, self.dataset.items):
            return None
        hits = np.unpackbits(packed, axis=1, count=length).astype(bool)
        values = known_metrics()[name](Ranking(users, hits[:, :cutoff], n_relevant), cutoff)
        stored_mean = None if self.result is None else self.result.test.get(metric)
        if stored_mean is not None and abs(values.mean() - stored_mean) > 1e-6:
            raise DataError(f"{file}: is not of {self.path / RESULT}, whose {metric} is another; run that trial again")
        self._per_user[metric] = users, values
        return users, values

    def value(self, metric: str, users: NDArray[np.integer] | None = None) -> float | None:
        """A test metric of all its users, or of these alone; None where it neither is stored nor follows from hits.

        Raises ValueError for an unfinished run, DataError as `per_user` does.
        """
        if users is None and metric in self.outcome.test:
            return self.outcome.test[metric]
        if (found := self.per_user(metric)) is None:
            return None
        values = found[1] if users is None else found[1][np.isin(found[0], users)]
        return float(values.mean()) if len(values) else None

    @property
    def known_metrics(self) -> list[str]:
        """Its test metrics: the stored ones, then what follows from its hits at the same cut-offs."""
        cutoffs = dict.fromkeys(name.partition("@")[2] for name in self.outcome.test)
        follow = [f"{name}@{k}" for name in metrics_of_hits() for k in cutoffs] if (self.path / HITS).is_file() else []
        return [*dict.fromkeys([*self.outcome.test, *follow])]

    @cached_property
    def _per_user(self) -> dict[str, PerUser]:
        """What `per_user` has found already, since a report asks several times."""
        return {}

    @cached_property
    def stored_hits(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8], int]:
        """Users [n], their numbers of relevant items [n], their hits [n, ⌈length / 8⌉] as bits, and the length."""
        file = self.path / HITS
        try:
            stored = read_archive(file, ("users", "gaps", "n_relevant", "hits", "length"))
            users = np.cumsum(stored["gaps"]) if "gaps" in stored else stored["users"]  # as older versions stored them
            n_relevant, packed = stored["n_relevant"], stored["hits"]
            length = int(stored["length"])
        except (DataError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise _unreadable(file, error) from error
        whole = [array.ndim == 1 and np.issubdtype(array.dtype, np.integer) for array in (users, n_relevant)]
        fits = all(whole) and packed.dtype == np.uint8 and packed.shape == (len(users), -(-length // 8))
        if not fits or not len(users) == len(np.unique(users)) == len(n_relevant) or not (n_relevant > 0).all():
            raise DataError(f"{file}: its users do not fit its lists; remove the folder to run that trial again")
        return users, n_relevant, packed, length

    def readable(self, metrics: Sequence[str]) -> tuple[Self, list[str]]:
        """The run without those of its files of epochs and hits that cannot be read, and why they cannot, a line each.

        After that, `epochs` and `per_user` of these metrics raise nothing.
        """
        unread: dict[str, str] = {}
        try:
            found = len(self.epochs())
            if self.result is not None and (file := self.epochs_file) and found != self.result.epochs:
                raise DataError(f"{file}: has {found} epochs, {RESULT} counts {self.result.epochs}")
        except DataError as error:
            unread[EPOCHS] = f"{error}; the run counts without it"
        try:
            for metric in metrics:
                self.per_user(metric)
        except DataError as error:
            unread[HITS] = f"{error}; the run counts without it"
        return (self.model_copy(update={"without": frozenset(unread)}) if unread else self), list(unread.values())


R = TypeVar("R", bound=Record)


def cost_key(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What decides costs of a run made there; of what an earlier version did not record, None."""
    return {key: environment.get(key) for key in COST_KEYS}


def gpu_text(environment: Mapping[str, Any]) -> str:
    """A GPU with what its speed depends on, as far as it was recorded; empty without one."""
    forms = ("{}", "driver {}", "{:g} W", "clocks {} MHz", "{}", "compute mode {}")
    known = zip(forms, (environment.get(key) for key in GPU_KEYS), strict=True)
    return ", ".join(form.format(value) for form, value in known if value)


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def check(content: Any, form: type[R]) -> R:
    """Raises ValueError with what is missing, or what is the first that is not as it must be; bytes are JSON."""
    try:
        return form.model_validate_json(content) if isinstance(content, bytes) else form.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        places = [".".join(map(str, one["loc"])) for one in problems]
        missing = [place for place, one in zip(places, problems, strict=True) if one["type"] == "missing"]
        first = ": ".join(filter(None, [places[0], problems[0]["msg"].removeprefix("Value error, ")]))
        raise ValueError(f"lacks {', '.join(missing)}" if missing else first) from None


def _checked(path: Path, form: type[R], content: Any) -> R:
    try:
        return check(content, form)
    except ValueError as error:
        raise DataError(f"{path}: {error}; remove the folder to run that trial again") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no JSON object; remove the folder to run that trial again")
    return content


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read ({error}); remove the folder to run that trial again")
