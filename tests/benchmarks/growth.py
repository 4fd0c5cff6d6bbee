"""How time and peak memory of every model grow when E, I, d_m or B doubles and the others stay.

    python tests/benchmarks/growth.py --json growth.json --markdown growth.md

Every point is measured on random data in a fresh process, which is this script with --point. All nine models take some
25 minutes on two cores. With --json points are kept as they are measured, and a rerun goes on from there.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import torch
from growth_points import Figures, Point, Sizes, points_of
from growth_report import markdown
from tqdm import tqdm

from bm3 import Batch, BM3Error, ConfigError, Data, TrainingData
from bm3.features import FeatureTable
from harness.data import Dataset
from harness.measure import MemorySampler
from harness.measure.environment import environment
from harness.models.registry import find_model, models
from harness.runs.store import write_json
from harness.tools.scaling import parts
from harness.tools.scaling.parts import power_law_dataset
from harness.training import Streams
from harness.training.batches import EpochBatches
from harness.training.fit import make_deterministic, train_step
from harness.training.optimiser import adam

CPU = torch.device("cpu")
LEARNING_RATE = 1e-3
LIMIT_S = 300  # for one point
UNSETTLED = 250  # steps in which an optimiser by row has other work than later: few rows are due, and one by one
WARM_UP = Sizes(users=64, items=32, interactions=256, width=64, batch=64)

Measure = Callable[[str, Sizes], Figures]


class PointError(Exception):
    """A point could not be measured, and why."""


def power_law_data(sizes: Sizes, draw: np.random.Generator) -> Dataset:
    """Distinct random interactions by power laws, and features of two modalities. Raises ValueError for too many."""
    return power_law_dataset(parts.Sizes(*sizes[:4]), draw)


class Training:
    """A new model with its published defaults, its batches and its optimiser, as `harness.training.fit` has them."""

    def __init__(self, name: str, data: TrainingData, batch_size: int) -> None:
        make_deterministic()
        self._streams, self._epochs = Streams(0), itertools.count(1)
        kind = find_model(name).model
        self.model = kind(data, kind.Config(), self._streams.torch("initialisation"))
        self._batches = EpochBatches(
            data.train,
            data.n_items,
            batch_size=batch_size,
            uses_negatives=kind.uses_negatives,
            streams=self._streams,
            device=CPU,
        )
        self._optimiser = adam(self.model, LEARNING_RATE)
        self._supply = itertools.cycle(self.prepare())
        self.n_steps = len(self._batches)

    def prepare(self) -> list[Batch]:
        """The batches of an epoch."""
        return list(self._batches.epoch(1))

    def plain(self) -> None:
        """A step on the next batch."""
        train_step(self.model, self._optimiser, next(self._supply))

    def first(self) -> None:
        """The first step of an epoch."""
        if hasattr(self.model, "start_epoch"):
            self.model.start_epoch(self._streams.torch("model", next(self._epochs)))
        self.plain()


def measured(name: str, load: Callable[[], TrainingData], batch_size: int, seconds: float = 1.0) -> Figures:
    """Memory over building the model and the starts of two epochs, then times, of plain steps for at least `seconds`.

    A tiny model of the kind goes before all, so that what a process loads once and keeps counts nowhere. `load` gives
    the data without needing more memory than they have: a peak of its own would hide the model's.
    """
    tiny = Training(name, power_law_data(WARM_UP, np.random.default_rng(0)), WARM_UP.batch)
    for step in (tiny.first, tiny.plain):
        step()
    with MemorySampler(CPU) as loading:
        data = load()
    with MemorySampler(CPU) as training:
        model = Training(name, data, batch_size)
        for step in (model.first, model.plain, model.first, model.plain):
            step()
    peak = max(resident(loading, "peak"), resident(training, "peak"))
    by_row = any(table.row_gradients for table in model.model.modules() if isinstance(table, FeatureTable))
    timed(model.plain, seconds / 2, at_least=UNSETTLED if by_row else 1)
    plain = timed(model.plain, seconds, at_least=5)
    (state,) = timed(model.model.state_dict, 0, at_least=1)
    return Figures(
        step_s=statistics.median(plain),
        first_s=statistics.median(timed(model.first, seconds / 2, at_least=3)),
        batches_s=statistics.median(timed(model.prepare, seconds / 4, at_least=3)),
        state_s=state,
        n_steps=model.n_steps,
        memory_bytes=peak - resident(loading, "start"),
        model_bytes=resident(training, "peak") - resident(training, "start"),
    )


def resident(sampler: MemorySampler, when: str) -> int:
    reading = sampler.readings()[f"process_rss_{when}"]
    if reading.bytes is None:
        raise PointError(f"memory was not measured: {reading.note}")
    return reading.bytes


def timed(step: Callable[[], object], seconds: float, at_least: int) -> list[float]:
    """Seconds of each call; calls until `seconds` have passed and there are enough."""
    times: list[float] = []
    while len(times) < at_least or sum(times) < seconds:
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return times


def in_fresh_process(name: str, sizes: Sizes) -> Figures:
    """`measured` by this script started anew, on data from a file. Raises PointError with the reason of a failure."""
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with TemporaryDirectory() as folder:
        file = Path(folder, "data.npz")
        data = power_law_data(sizes, np.random.default_rng(2023))
        np.savez(file, train=data.train, **data.features)
        command = [sys.executable, __file__, "--point", json.dumps([name, sizes, str(file)])]
        try:
            ended = subprocess.run(command, env=paths, capture_output=True, text=True, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            raise PointError(f"took more than {LIMIT_S} s") from None
    if ended.returncode < 0:
        raise PointError(f"ended by signal {-ended.returncode}, as when memory runs out")
    if ended.returncode:
        raise PointError((ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1])
    return Figures(**json.loads(ended.stdout.splitlines()[-1]))


def point_in_this_process(text: str) -> Figures:
    """The figures of what `in_fresh_process` asks for."""
    name, values, file = json.loads(text)
    sizes = Sizes(*values)

    def load() -> Data:
        with np.load(file) as arrays:
            features = {modality: arrays[modality] for modality in ("visual", "text")}
            return Data(sizes.users, sizes.items, arrays["train"], features)

    return measured(name, load, sizes.batch)


def resumed(path: Path | None, base: Sizes) -> dict[str, Any]:
    """What the file holds, or nothing measured yet. Raises ConfigError when the file is of another base."""
    content: dict[str, Any] = {"base": base._asdict(), "environments": [], "points": {}}
    if path is not None and path.exists():
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("base") != base._asdict():
            raise ConfigError(f"{path} has points of another base: give another --json or remove it")
    here = environment(CPU)
    if here not in content["environments"]:
        content["environments"].append(here)
    return content


def run(points: list[Point], content: dict[str, Any], path: Path | None, measure: Measure) -> None:
    """Measure what `content` lacks, failed points again, and keep each in it and in the file."""
    base = Sizes(**content["base"])
    missing = [point for point in points if "figures" not in content["points"].get(point.key, {})]
    with tqdm(missing, file=sys.stderr, unit="point", dynamic_ncols=True) as bar:
        for point in bar:
            bar.set_description(point.key)
            sizes = point.sizes(base)
            kept = content["points"][point.key] = {**point._asdict(), "sizes": sizes._asdict()}
            try:
                kept["figures"] = measure(point.model, sizes)._asdict()
            except PointError as error:
                kept["failed"] = str(error)
            except BaseException:
                del content["points"][point.key]
                raise
            if path is not None:
                write_json(path, content)


@click.command(help=__doc__.split("\n", 1)[0])
@click.option("--models", "chosen", default=",".join(sorted(models())), show_default=True, help="Names with commas.")
@click.option("--doublings", type=click.IntRange(1), default=4, show_default=True, help="Of each of the four sizes.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Keeps the points; a rerun goes on from it.")
@click.option("--markdown", "markdown_file", type=click.Path(path_type=Path), help="The report; also printed.")
@click.option("--point", hidden=True, help="Measure one point in this process and print its figures.")
def main(chosen: str, doublings: int, json_file: Path | None, markdown_file: Path | None, point: str | None) -> None:
    if point is not None:
        click.echo(json.dumps(point_in_this_process(point)._asdict()))
        return
    try:
        names = [find_model(name.strip()).name for name in chosen.split(",")]
        content = resumed(json_file, Sizes())
    except BM3Error as error:
        raise click.ClickException(str(error)) from error
    points = points_of(names, doublings)
    stopped = False
    try:
        run(points, content, json_file, in_fresh_process)
    except KeyboardInterrupt:
        stopped = True
        click.echo(f"stopped; what was measured is {f'in {json_file}' if json_file else 'below'}", err=True)
    text = markdown(content, names, doublings)
    click.echo(text)
    if markdown_file is not None:
        markdown_file.write_text(text, encoding="utf-8")
    failed = any("failed" in content["points"].get(point.key, {}) for point in points)
    sys.exit(130 if stopped else int(failed))


if __name__ == "__main__":
    main()
