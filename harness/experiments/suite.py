"""Suites: TOML files that say which trials answer a question. How trials are run is `execution`.

Grid points are searched with the first seed; the point that is best on validation runs with the other seeds too.
"""

import difflib
import itertools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bm3 import ConfigError
from harness.data import Dataset
from harness.experiments.trial import Trial, dataset_for, make_trial

Scalar = bool | int | float | str
SUITES = Path(__file__).parent.parent / "suites"


class Experiment(BaseModel):
    """One model with fixed settings and, optionally, a grid over others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    label: str | None = None
    """Name of the row in reports; the model's name if None."""
    set: dict[str, Scalar] = {}
    """Settings, as after `--set`."""
    grid: dict[str, Annotated[list[Scalar], Field(min_length=1)]] = {}
    """Settings with several values each; every combination is a trial."""

    def points(self) -> list[dict[str, Scalar]]:
        """Settings of each grid point."""
        return [
            self.set | dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())
        ]


class Suite(BaseModel):
    """A suite file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    datasets: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    training: dict[str, Scalar] = {}
    """Settings of training for every experiment."""
    experiments: Annotated[list[Experiment], Field(min_length=1)]


def suite_names() -> list[str]:
    """Names of the suites that come with the harness."""
    return sorted(path.stem for path in SUITES.glob("*.toml"))


def load_suite(name: str) -> Suite:
    """A shipped suite by name, or the suite file at a path. Raises ConfigError naming file and key."""
    path = Path(name) if name.endswith(".toml") else SUITES / f"{name}.toml"
    if not path.is_file():
        near = difflib.get_close_matches(name, suite_names(), n=3, cutoff=0.4) or suite_names()
        raise ConfigError(f"no suite {name!r}; shipped: {', '.join(near)}, or give the path of a .toml file")
    try:
        return Suite.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = "no such key" if first["type"] == "extra_forbidden" else first["msg"]
        raise ConfigError(f"{path}: {key}: {message}") from error


@dataclass(frozen=True)
class Row:
    """One experiment on one data set: its grid points with the first seed, and how to repeat a point."""

    label: str
    dataset: Dataset
    points: tuple[Trial, ...]
    seeds: tuple[int, ...]

    def repeats(self, best: Trial) -> list[Trial]:
        """The chosen point with the seeds after the first."""
        settings = {"entry": best.entry, "config": best.config, "training": best.training}
        return [
            Trial(dataset=self.dataset, dataset_name=best.dataset_name, seed=seed, device=best.device, **settings)
            for seed in self.seeds[1:]
        ]


def plan(suite: Suite, data: Path | None, device: torch.device) -> list[Row]:
    """The rows of a suite, every setting and data set checked. Raises ConfigError or DataError before anything runs."""
    rows = []
    for name in suite.datasets:
        dataset = dataset_for(suite.training, name, data)
        for experiment in suite.experiments:
            points = tuple(
                make_trial(experiment.model, dataset, name, {**suite.training, **point}, suite.seeds[0], device)
                for point in experiment.points()
            )
            rows.append(Row(experiment.label or experiment.model, dataset, points, tuple(suite.seeds)))
    return rows
