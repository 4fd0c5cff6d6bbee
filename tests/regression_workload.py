"""A workload of `bm3 regress` that takes seconds: two models on data sets of dozens of users."""

import shutil
from dataclasses import replace
from pathlib import Path

import harness
from harness.data import Dataset
from harness.paper.expected import expected_dir
from harness.tools.regress.alternation import Tree
from harness.tools.regress.guarding import Material
from harness.tools.regress.regression_rules import Preset, Presets, Rules, load_rules

HERE = Tree("here", Path(harness.__file__).parent.parent)


def tiny_rules() -> Rules:
    """The rules that ship, of less work: two models, and as few repetitions as can be compared."""
    rules = load_rules(expected_dir() / "regression.toml")
    size = replace(
        rules.workload,
        models=("bpr", "lightgcn"),
        training={"epochs": 2, "batch_size": 256, "learning_rate": 0.01},
        training_of={},
        steps={device: {"bpr": 2, "lightgcn": 2} for device in ("cpu", "cuda")},
    )
    preset = Preset(passes=1, rounds=6, memory=1)
    return replace(rules, workload=size, presets=Presets(preset, preset, preset))


def tiny_material(dataset: Dataset, folder: Path) -> Material:
    """Twice the same data set, and one recorded trace, which is copied into `folder`."""
    traces = folder / "traces"
    traces.mkdir()
    shutil.copy(expected_dir() / "traces" / "bpr.npz", traces)
    return Material(replace(dataset, name="small"), replace(dataset, name="large"), traces)
