"""Can the main job run here, and what will be missing? Checks of the machine and of the installation, as findings.

A check is a function from facts to findings, and changes nothing; `diagnose` gathers the facts. Printing them is in
`cli_doctor`.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

from bm3 import BM3Error, DataError
from harness.common import size
from harness.data import PARTS, load_dataset
from harness.data.files import read_array
from harness.data.layouts import (
    DATA_VARIABLE,
    SYNTHETIC,
    data_roots,
    feature_files,
    find_interactions,
    read_interactions,
)
from harness.measure.gpu import GpuSurvey, GpuUnavailableError, driver_version, survey
from harness.measure.host import Limits, container_limits, usable_cores
from harness.models.registry import find_model
from harness.paper.load import load_paper
from harness.tools.doctor.extras import Extra, installed_extras
from harness.training import Streams, TrainingConfig, build
from harness.training.batches import EpochBatches
from harness.training.fit import make_deterministic, train_step
from harness.training.optimiser import adam

OLDEST_PYTHON = (3, 11)
NEEDED_MEMORY, NEEDED_DISK = 10**9, 10**8
"""Bytes for the main job: a process that trains on `mini` holds about half a gigabyte, its runs a few megabytes."""
READ_AT_ONCE = 5 * 10**7
"""Bytes of a file of interactions that is read here; a larger one is only named."""
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
TORCH_PAGE = "https://pytorch.org/get-started/locally"

Severity = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    topic: str
    found: str
    severity: Severity = "ok"
    """`problem`: the main job, `bm3 reproduce`, cannot run; `note`: something else cannot."""
    advice: str = ""
    """What to do about it; empty where there is nothing to do."""


def diagnose(data: Path | None, out: Path, paper: Path) -> list[Finding]:
    """All findings about this machine and installation, with data sets from `data` and runs stored in `out`.

    Raises DataError where `data` is no folder; whatever else is wrong is a finding.
    """
    roots = data_roots(data)
    limits = container_limits()
    cuda = _cuda_devices()
    gpus = _surveyed()
    return [
        check_python(sys.version_info[:2], platform.python_version()),
        check_torch(str(torch.__version__), torch.version.cuda, len(cuda)),
        *check_devices(cuda),
        *check_nvml(gpus, driver=_driver(), cuda=len(cuda)),
        check_determinism(*_deterministic_step(torch.device("cuda" if cuda else "cpu")), os.environ.get(CUBLAS)),
        check_cores(psutil.cpu_count() or 1, usable_cores(limits), limits, torch.get_num_threads()),
        check_memory(psutil.virtual_memory().available, psutil.virtual_memory().total, limits),
        *check_out(out),
        *check_expected(paper),
        *check_data(roots, _published_names(paper)),
        *check_extras(installed_extras()),
    ]


def check_python(version: tuple[int, ...], text: str) -> Finding:
    """Whether Python is new enough."""
    if version < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return Finding("Python", text, "problem", f"install Python {oldest} or later")
    return Finding("Python", text)


def check_torch(version: str, built_for: str | None, devices: int) -> Finding:
    """Which torch it is, and whether it finds what it was built for."""
    build_text = f"{version}, built for {'the CPU alone' if built_for is None else f'CUDA {built_for}'}"
    if built_for is not None and not devices:
        advice = "where there should be a GPU, look at nvidia-smi and CUDA_VISIBLE_DEVICES; the CPU is used otherwise"
        return Finding("torch", f"{build_text}, which finds no GPU", "note", advice)
    return Finding("torch", build_text)


def check_devices(cuda: Sequence[tuple[str, int]]) -> Iterator[Finding]:
    """The GPUs that torch finds: name and bytes of each."""
    for place, (name, n_bytes) in enumerate(cuda):
        yield Finding("device", f"cuda:{place}, {name}, {size(n_bytes)}")
    if not cuda:
        yield Finding("device", "cpu alone: no memory or time on a GPU can be measured here", "note")


def check_nvml(gpus: Sequence[GpuSurvey] | str, *, driver: str | None, cuda: int) -> Iterator[Finding]:
    """Whether memory on a GPU can be measured from outside torch; `gpus` is a text where NVML cannot be used."""
    if isinstance(gpus, str):
        advice = "mount the driver's libnvidia-ml into the container, or install the driver" if cuda else ""
        yield Finding("NVML", gpus if "NVML" in gpus else f"NVML: {gpus}", "note", advice)
        return
    if gpus and not cuda:
        advice = f"install a build of torch for CUDA to use it: {TORCH_PAGE}"
        yield Finding("NVML", f"driver {driver} has {len(gpus)} GPU(s) that torch does not use", "note", advice)
    for gpu in gpus:
        figures = gpu.lists_processes and gpu.gives_process_bytes is not False
        parts = [
            f"NVML, driver {driver}: {gpu.name}",
            *(["partitioned (MIG)"] if gpu.partitioned else []),
            ("figures per process" if gpu.gives_process_bytes else "lists processes (none is there to show figures)")
            if figures
            else "no figures per process",
            "energy counter" if gpu.counts_energy else "no energy counter",
        ]
        advice = "" if figures else "a run's memory is then the rise of the device's figure, and says so"
        yield Finding("NVML", ", ".join(parts), "ok" if figures and gpu.counts_energy else "note", advice)
    if not gpus:
        yield Finding("NVML", f"NVML, driver {driver}, knows no GPU", "note")


def check_determinism(same: bool, error: str | None, cublas: str | None) -> Finding:
    """Whether a training step is possible with deterministic algorithms alone, and twice the same to the bit."""
    setting = f"{CUBLAS} {cublas or 'not set: trainings set it to :4096:8'}"
    if error is not None:
        advice = "install the tested versions: pip install -c constraints.txt"
        return Finding("determinism", f"a training step fails: {error}", "problem", advice)
    if not same:
        advice = "same seed, same bits does not hold here: try --threads 1"
        return Finding("determinism", f"two equal training steps differ; {setting}", "problem", advice)
    if cublas is not None and cublas not in (":4096:8", ":16:8"):
        advice = f"unset {CUBLAS}, or set it to :4096:8: with other values cuBLAS may sum in any order"
        return Finding("determinism", f"two equal training steps agree to the bit; {setting}", "note", advice)
    return Finding("determinism", f"two equal training steps agree to the bit; {setting}")


def check_cores(cores: int, usable: int, limits: Limits, threads: int) -> Finding:
    """Whether torch has as many threads as it may use cores."""
    text = f"{cores} cores, {usable} of them usable"
    if limits.cores is not None:
        text += f" (the container gives {limits.cores:g})"
    text += f"; torch threads: {threads}"
    if threads > usable:
        return Finding("cores", text, "note", f"more threads than cores wait for one another: use --threads {usable}")
    return Finding("cores", text)


def check_memory(available: int, total: int, limits: Limits) -> Finding:
    """Whether main memory suffices for the main job."""
    usable = min(available, limits.memory or available)
    text = f"{size(available)} of {size(total)} free"
    if limits.memory is not None and limits.memory < total:
        text += f", the container may use {size(limits.memory)}"
    if usable < NEEDED_MEMORY:
        return Finding("memory", text, "problem", f"free some: the main job needs about {size(NEEDED_MEMORY)}")
    return Finding("memory", text)


def check_out(out: Path) -> Iterator[Finding]:
    """Whether runs can be written to `out`, and how much; nothing is left there."""
    try:
        made = "" if out.is_dir() else ", made on first use"
        there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"bm3")
    except OSError as error:
        advice = "choose another folder with --out"
        yield Finding("store", f"{out}: cannot be written ({error.strerror})", "problem", advice)
        return
    try:
        free = psutil.disk_usage(str(there)).free
    except OSError as error:
        yield Finding("store", f"{out}: writable{made}; free space is not known ({error.strerror})", "note")
        return
    text = f"{out}: writable{made}; {size(free)} free"
    if free < NEEDED_DISK:
        yield Finding("store", text, "problem", f"make room, or choose another disk with --out: {size(NEEDED_DISK)}")
    else:
        yield Finding("store", text)


def check_expected(folder: Path) -> Iterator[Finding]:
    """Whether the figures and traces that results are compared with can be read."""
    advice = "reinstall the package"
    try:
        figures = len(load_paper(folder).values)
    except BM3Error as error:
        yield Finding("expected", str(error), "problem", advice)
        return
    yield Finding("expected", f"{figures} figures to compare with")
    traces = sorted(folder.glob("traces/*.npz"))
    if not traces:
        yield Finding("traces", f"{folder / 'traces'}: none", "problem", advice)
        return
    yield Finding("traces", f"{len(traces)} recorded traces of the published models")


def check_data(roots: Sequence[Path], published: Sequence[str]) -> Iterator[Finding]:
    """The data sets in these folders, first match first, and the published ones that are not there."""
    yield Finding("data", f"{', '.join(SYNTHETIC)}: made when needed, enough for the main job")
    found: dict[str, Path] = {}
    for root in roots:
        try:
            for folder in sorted(root.iterdir()) if root.is_dir() else ():
                if folder.is_dir() and any((*folder.glob("*.inter"), *folder.glob("interactions.npz"))):
                    found.setdefault(folder.name, folder)
        except OSError as error:
            yield Finding("data", f"{root}: cannot be read ({error.strerror})", "note", "mend its permissions")
    for name, folder in found.items():
        yield check_folder(name, folder)
    missing = [name for name in published if name.lower() not in set(map(str.lower, found))]
    if missing:
        where = ", ".join(map(str, roots))
        advice = f"bm3 data --help says how to bring data in; name their folder with --data DIR or ${DATA_VARIABLE}"
        yield Finding("data", f"not in {where}: {', '.join(missing)}", "note", advice)


def check_folder(name: str, folder: Path) -> Finding:
    """What is in a data set's folder, from headers where that suffices; neither checked nor hashed."""
    try:
        interactions = find_interactions(folder)
        tables = {
            modality: (read_array(path, mapped=True), surrogate)
            for modality, (path, surrogate) in feature_files(folder).items()
        }
        if interactions.stat().st_size > READ_AT_ONCE:
            counts = f"{interactions.name}, {size(interactions.stat().st_size)}"
        else:
            parts = read_interactions(interactions)
            counts = " + ".join(f"{len(parts[part]):,}" for part in PARTS) + " interactions"
    except (DataError, OSError) as error:
        return Finding("data", str(error), "note", "bring it in anew: bm3 data --help")
    texts = [
        f"{modality} {' x '.join(f'{extent:,}' for extent in table.shape)}{' (surrogate)' if surrogate else ''}"
        for modality, (table, surrogate) in tables.items()
    ]
    return Finding("data", "; ".join([f"{name}: {counts}", ", ".join(texts) or "no features"]) + f"; in {folder}")


def check_extras(extras: Sequence[Extra]) -> Iterator[Finding]:
    """Which optional parts are installed, and what each is for."""
    if not extras:
        yield Finding("extras", "the package's metadata lists none: it is not installed", "note", "pip install -e .")
        return
    there = [f"{extra.name} ({extra.gives})" for extra in extras if extra.installed]
    yield Finding("extras", f"installed: {', '.join(there) or 'none'}")
    for extra in extras:
        if not extra.installed:
            missing = f"{extra.name} ({extra.gives}): without {', '.join(extra.missing)}"
            yield Finding("extras", missing, "note", f"pip install 'bm3-harness[{extra.name}]'")


def main_job_can_run(findings: Sequence[Finding]) -> bool:
    """Whether no finding says otherwise."""
    return all(finding.severity != "problem" for finding in findings)


def _deterministic_step(device: torch.device) -> tuple[bool, str | None]:
    """Whether two equal steps of training agree to the bit; and why there is none, if there is none."""
    try:
        with _settings_kept():
            first, second = _step(device), _step(device)
    except Exception as error:  # whatever a broken installation may raise is what was asked for
        text = str(error).strip().splitlines()
        return False, f"{type(error).__name__}: {text[0] if text else 'no message'}"
    return all(torch.equal(first[name], second[name]) for name in first), None


def _step(device: torch.device) -> Mapping[str, torch.Tensor]:
    """The state of BM3 after one step on the synthetic data, as a training makes it."""
    make_deterministic()
    dataset, entry, training, streams = load_dataset("mini"), find_model("bm3"), TrainingConfig(), Streams(0)
    model = build(entry.model, dataset, entry.model.Config(), streams, device)
    batches = EpochBatches(
        dataset.train,
        dataset.n_items,
        batch_size=training.batch_size,
        uses_negatives=model.uses_negatives,
        streams=streams,
        device=device,
    )
    optimiser = adam(model, training.learning_rate)
    if hasattr(model, "start_epoch"):
        model.start_epoch(streams.torch("model", 1, device=device))
    try:
        train_step(model, optimiser, next(iter(batches.epoch(1))))
        optimiser.catch_up()
    finally:
        optimiser.release()
    return {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}


@contextmanager
def _settings_kept() -> Iterator[None]:
    """What a training sets for the whole process is afterwards as before."""
    cublas, deterministic = os.environ.get(CUBLAS), torch.are_deterministic_algorithms_enabled()
    benchmark, fill = torch.backends.cudnn.benchmark, torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = benchmark
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        if cublas is None:
            os.environ.pop(CUBLAS, None)


def _cuda_devices() -> list[tuple[str, int]]:
    try:
        found = [torch.cuda.get_device_properties(place) for place in range(torch.cuda.device_count())]
    except Exception:  # a driver that does not fit torch; check_torch says that none is found
        return []
    return [(one.name, one.total_memory) for one in found]


def _surveyed() -> list[GpuSurvey] | str:
    try:
        return survey()
    except GpuUnavailableError as error:
        return str(error)


def _driver() -> str | None:
    try:
        return driver_version()
    except GpuUnavailableError:
        return None


def _published_names(folder: Path) -> Sequence[str]:
    try:
        return load_paper(folder).datasets
    except BM3Error:  # which is a finding of its own
        return ()
