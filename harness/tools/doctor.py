"""Can the main job run here, and what will be missing? Eight checks of the machine and of the installation.

A check takes facts, changes nothing and gives findings; `diagnose` gathers the facts.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

from bm3 import BM3Error, ConfigError
from harness.common import size
from harness.data.dataset import Dataset
from harness.data.layouts import DATA_VARIABLE, SYNTHETIC, data_roots, load_dataset
from harness.measure.gpu import GpuSurvey, GpuUnavailableError, driver_version, survey
from harness.measure.host import Limits, container_limits, usable_cores
from harness.models.registry import find_model, trained_in_steps
from harness.paper.load import Paper, load_paper
from harness.training.config import TrainingConfig
from harness.training.fit import build
from harness.training.steps import TrainingSteps, make_deterministic
from harness.training.streams import Streams

OLDEST_PYTHON = (3, 11)
NEEDED_MEMORY, NEEDED_DISK = 10**9, 10**8
"""Bytes for the main job: a process that trains on `mini` holds about half a gigabyte, its runs a few megabytes."""
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    topic: str
    found: str
    severity: Literal["ok", "note", "problem"] = "ok"
    """`problem`: the main job, `bm3 reproduce`, or what was required cannot run; `note`: something else cannot."""
    advice: str = ""
    """What to do about it; empty where there is nothing to do."""


def diagnose(data: Path | None, out: Path, paper: Path) -> list[Finding]:
    """All findings about this machine and installation, with data sets from `data` and runs stored in `out`.

    Raises DataError where `data` is no folder; whatever else is wrong is a finding.
    """
    roots, limits, cublas = data_roots(data), container_limits(), os.environ.get(CUBLAS)
    memory, (finding, about) = psutil.virtual_memory(), check_paper(paper)
    try:
        gpus: list[GpuSurvey] | str = survey()
        driver: str | None = driver_version()
    except GpuUnavailableError as error:
        gpus, driver = str(error), None
    try:
        devices = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        cuda = [(one.name, one.total_memory) for one in devices]
    except Exception:  # a driver that does not fit torch; the check of torch says that none is found
        cuda = []
    return [
        check_python_and_torch(sys.version_info[:2], str(torch.__version__), torch.version.cuda, len(cuda)),
        *check_gpus(cuda, gpus, driver),
        check_determinism(_unrepeatable(torch.device("cuda" if cuda else "cpu")), cublas),
        check_cores(psutil.cpu_count() or 1, usable_cores(limits), limits, torch.get_num_threads()),
        check_memory(memory.available, memory.total, limits),
        check_store(out),
        finding,
        *check_data(roots, () if about is None else about.datasets),
    ]


def check_python_and_torch(python: tuple[int, ...], version: str, built_for: str | None, devices: int) -> Finding:
    """Whether Python is new enough, and whether torch finds what it was built for."""
    text = f"Python {platform.python_version()}, torch {version} for {f'CUDA {built_for}' if built_for else 'the CPU'}"
    if python < OLDEST_PYTHON:
        return Finding("packages", text, "problem", f"install Python {'.'.join(map(str, OLDEST_PYTHON))} or later")
    if built_for is not None and not devices:
        advice = "where there should be a GPU, look at nvidia-smi and CUDA_VISIBLE_DEVICES; the CPU is used otherwise"
        return Finding("packages", f"{text}, which finds no GPU", "note", advice)
    return Finding("packages", text)


def check_required(required: str | None) -> Iterator[Finding]:
    """Whether torch uses a GPU, and is built for that CUDA, where `required` is `cuda` or `cuda=VERSION`.

    Raises ConfigError for another word.
    """
    if required is None:
        return
    word, _, version = required.partition("=")
    if word != "cuda":
        raise ConfigError(f"--require {required}: known is cuda, or cuda=VERSION, such as cuda=13.0")
    built_for, able = torch.version.cuda, torch.cuda.is_available()
    text = f"CUDA{f' {version}' if version else ''}; torch {torch.__version__} is built for {built_for or 'the CPU'}"
    if version and built_for != version:
        advice = "install the build that is pinned: pip install -c constraints.txt torch, without a CPU index"
        yield Finding("required", text, "problem", advice)
    elif not able:
        advice = "see the lines on packages and GPU below"
        yield Finding("required", f"{text}, and finds no GPU that it can use", "problem", advice)
    else:
        yield Finding("required", f"{text} and uses {torch.cuda.get_device_name()}")


def check_gpus(
    cuda: Sequence[tuple[str, int]], gpus: Sequence[GpuSurvey] | str, driver: str | None
) -> Iterator[Finding]:
    """The GPUs that torch finds, by name and bytes, and what NVML says of them; `gpus` is a text where it cannot."""
    for place, (name, n_bytes) in enumerate(cuda):
        yield Finding("GPU", f"cuda:{place}, {name}, {size(n_bytes)}")
    if isinstance(gpus, str):
        advice = "mount the driver's libnvidia-ml into the container, or install the driver" if cuda else ""
        yield Finding("GPU", gpus if "NVML" in gpus else f"NVML: {gpus}", "note", advice)
    elif not gpus:
        yield Finding("GPU", f"NVML, driver {driver}, knows none", "note")
    elif not cuda:
        advice = "install a build of torch for CUDA to use it: https://pytorch.org/get-started/locally"
        yield Finding("GPU", f"driver {driver} has {len(gpus)} that torch does not use", "note", advice)
    for gpu in () if isinstance(gpus, str) else gpus:
        figures = gpu.process_figures
        text = f"NVML, driver {driver}: {gpu.name}{', partitioned (MIG)' if gpu.partitioned else ''}, "
        text += f"{'' if figures else 'no '}figures per process, {'' if gpu.counts_energy else 'no '}energy counter"
        advice = "" if figures else "a run's memory is then the rise of the device's figure, and says so"
        yield Finding("GPU", text, "ok" if figures and gpu.counts_energy else "note", advice)


def check_determinism(found: Mapping[str, str], cublas: str | None) -> Finding:
    """Whether a step of each model is possible with deterministic algorithms alone, and twice the same to the bit.

    `found` has by model what is wrong, or nothing.
    """
    foreign = cublas is not None and cublas not in (":4096:8", ":16:8")
    unset = f"unset {CUBLAS}, or set it to :4096:8: with other values cuBLAS may sum in any order"
    if wrong := [f"{name}: {what}" for name, what in found.items() if what]:
        advice = "same seed, same bits does not hold for these: try --threads 1, or the tested versions of "
        advice = unset if foreign else f"{advice}constraints.txt (pip install -c)"
        text = f"a training step of {len(wrong)} of {len(found)} models is not repeatable: {'; '.join(wrong)}"
        return Finding("determinism", text, "problem", advice)
    text = f"two equal training steps of each of {len(found)} models agree to the bit"
    if foreign:
        return Finding("determinism", f"{text}; {CUBLAS} is {cublas}", "note", unset)
    return Finding("determinism", text)


def check_cores(cores: int, usable: int, limits: Limits, threads: int) -> Finding:
    """Whether torch has as many threads as it may use cores."""
    container = "" if limits.cores is None else f" (the container gives {limits.cores:g})"
    text = f"{cores} cores, {usable} of them usable{container}; torch threads: {threads}"
    if threads > usable:
        return Finding("cores", text, "note", f"more threads than cores wait for one another: use --threads {usable}")
    return Finding("cores", text)


def check_memory(available: int, total: int, limits: Limits) -> Finding:
    """Whether main memory suffices for the main job."""
    text = f"{size(available)} of {size(total)} free"
    if limits.memory is not None and limits.memory < total:
        text += f", the container may use {size(limits.memory)}"
    if min(available, limits.memory or available) < NEEDED_MEMORY:
        return Finding("memory", text, "problem", f"free some: the main job needs about {size(NEEDED_MEMORY)}")
    return Finding("memory", text)


def check_store(out: Path) -> Finding:
    """Whether runs can be written to `out`, and how much; nothing is left there."""
    try:
        there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"bm3")
        free = psutil.disk_usage(str(there)).free
    except OSError as error:
        where = f"{out}: cannot be written ({error.strerror})"
        return Finding("store", where, "problem", "choose another folder with --out")
    text = f"{out}: writable{'' if out.is_dir() else ', made on first use'}; {size(free)} free"
    if free < NEEDED_DISK:
        advice = f"make room, or choose another disk with --out: {size(NEEDED_DISK)}"
        return Finding("store", text, "problem", advice)
    return Finding("store", text)


def check_paper(folder: Path) -> tuple[Finding, Paper | None]:
    """Whether the figures and traces that results are compared with can be read, and the paper where they can."""
    try:
        paper = load_paper(folder)
    except BM3Error as error:
        return Finding("paper", str(error), "problem", "reinstall the package"), None
    traces = len(list(paper.folder.glob("traces/*.npz")))
    text = f"{paper.name}: {len(paper.values)} figures to compare with, {traces} recorded traces"
    return Finding("paper", text, "ok" if traces else "problem", "" if traces else "reinstall the package"), paper


def check_data(roots: Sequence[Path], published: Sequence[str]) -> Iterator[Finding]:
    """The data sets in these folders, first match first, and the published ones that are not there.

    What is in one, and whether it is sound, `bm3 data stats` and `bm3 data verify` say.
    """
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
        yield Finding("data", f"{name}: in {folder}")
    if missing := [name for name in published if name.lower() not in map(str.lower, found)]:
        advice = f"bm3 data --help says how to bring data in; name their folder with --data DIR or ${DATA_VARIABLE}"
        yield Finding("data", f"not in {', '.join(map(str, roots))}: {', '.join(missing)}", "note", advice)


def _unrepeatable(device: torch.device) -> dict[str, str]:
    """By model: that two equal steps of training differ, or why there is none; empty where all is well."""
    dataset, found = load_dataset(next(iter(SYNTHETIC))), {}
    for name in trained_in_steps():
        try:
            first, second = _step(name, dataset, device), _step(name, dataset, device)
            found[name] = "" if all(torch.equal(first[key], second[key]) for key in first) else "two equal steps differ"
        except Exception as error:  # whatever a broken installation may raise is what was asked for
            lines = str(error).strip().splitlines()
            found[name] = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
    return found


def _step(name: str, dataset: Dataset, device: torch.device) -> Mapping[str, torch.Tensor]:
    """The state of a model after one step on the synthetic data, as a training makes it."""
    make_deterministic()
    model, streams = find_model(name).model, Streams(0)
    built = build(model, dataset, model.Config(), streams, device)
    TrainingSteps(built, dataset, TrainingConfig(), streams, device).first_step(1)
    return {key: tensor.detach().cpu() for key, tensor in built.state_dict().items()}
