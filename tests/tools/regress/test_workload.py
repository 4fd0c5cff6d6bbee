"""What the workload measures of a tree, and that a planted regression shows in the figure that it is about."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from regression_workload import HERE, tiny_material, tiny_rules

from harness.data import Dataset, load_dataset
from harness.data.synthetic import baby_sized
from harness.tools.regress import alternation, workload
from harness.tools.regress.alternation import MeasuringError, Plan, Repetitions, Tree, measure
from harness.tools.regress.guarding import Material, laid_out, workload_identity
from harness.tools.regress.measurement import Measurement, Timing

ONCE = Repetitions(passes=1, rounds=2, memory=1)


@pytest.fixture(scope="module")
def material(clustered: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Material:
    return tiny_material(clustered, tmp_path_factory.mktemp("workload"))


@pytest.fixture(scope="module")
def plan(material: Material) -> Iterator[Plan]:
    with laid_out(tiny_rules().workload, material, "cpu", 1) as plan:
        yield plan


@pytest.fixture(scope="module")
def measured(plan: Plan) -> Measurement:
    return measure([HERE], plan, Repetitions(passes=2, rounds=2, memory=1))[0]


def seam(folder: Path, *lines: str) -> Path:
    """A file that plants something: see `workload.main`."""
    path = folder / "seam.py"
    path.write_text("\n".join(["import time", "def plant(Workload):", *(f"    {line}" for line in lines)]) + "\n")
    return path


def test_all_that_is_asked_for_is_measured_as_often_as_asked(plan: Plan, measured: Measurement) -> None:
    assert list(measured.timings) == ["small/bpr", "small/lightgcn", "large/bpr", "large/lightgcn", "large/evaluation"]
    assert {len(timings) for timings in measured.timings.values()} == {4}
    assert all(timing.cpu > 0 and timing.wall > 0 for timings in measured.timings.values() for timing in timings)
    assert list(measured.accuracy) == ["small/bpr", "small/lightgcn", "large/evaluation"]
    assert {trace.status for trace in measured.traces.values()} == {"passed"}
    assert set(measured.traces) == {path.stem for path in plan.traces.glob("*.npz")}
    assert measured.errors == {}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux' figures of resident memory")
def test_memory_is_measured_in_processes_of_its_own(plan: Plan, measured: Measurement) -> None:
    assert list(measured.memory) == list(plan.heavy)
    assert all(peak >= 0 for peaks in measured.memory.values() for peak in peaks)


def test_a_seed_gives_the_same_bits_in_every_process_and_another_seed_others(measured: Measurement) -> None:
    for seeds in measured.accuracy.values():
        first, second = ({result.bits for result in results} for results in seeds)
        assert len(first) == len(second) == 1
        assert first != second


def test_planted_waiting_shows_in_wall_time_alone_and_only_what_is_named_is_measured(
    plan: Plan, tmp_path: Path
) -> None:
    wait = "Workload._block = lambda self, subject: lambda: (time.sleep(0.2), print('spoils no answer'))"
    again = measure([HERE], plan, ONCE, only={"time": ["small/bpr"]}, seam=seam(tmp_path, wait))[0]
    assert list(again.timings) == ["small/bpr"]
    assert again.memory == again.accuracy == again.traces == {}
    assert all(timing.wall >= 0.2 and timing.cpu < 0.1 for timing in again.timings["small/bpr"])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux' figures of resident memory")
def test_planted_memory_shows_in_full(plan: Plan, measured: Measurement, tmp_path: Path) -> None:
    file = seam(
        tmp_path,
        "import numpy",
        "fresh = Workload._fresh",
        "def larger(self, subject, *, small=False):",
        "    fresh(self, subject, small=small)",
        "    if not small: self.kept = numpy.ones(2**24, dtype=numpy.uint8)",
        "Workload._fresh = larger",
    )
    grown = measure([HERE], plan, ONCE, only={"memory": ["large/bpr"]}, seam=file)[0].memory["large/bpr"][0]
    assert grown - measured.memory["large/bpr"][0] >= 0.9 * 2**24


def test_a_subject_that_fails_is_an_error_of_its_own(plan: Plan) -> None:
    broken = measure([HERE], replace(plan, steps={"bpr": 2}), ONCE, only={"time": ["small/bpr", "large/lightgcn"]})[0]
    assert list(broken.timings) == ["small/bpr"]
    assert "large/lightgcn: time" in broken.errors


def test_a_process_that_dies_is_an_error_of_its_subject_and_the_others_are_measured(plan: Plan, tmp_path: Path) -> None:
    die = seam(
        tmp_path,
        "block = Workload._block",
        "def dying(self, subject):",
        "    if subject == 'small/bpr': import os; os._exit(7)",
        "    return block(self, subject)",
        "Workload._block = dying",
    )
    found = measure([HERE], plan, ONCE, only={"time": ["small/bpr", "large/bpr"]}, seam=die)[0]
    assert "exit code 7" in found.errors["small/bpr: time"]
    assert list(found.timings) == ["large/bpr"]
    assert len(found.timings["large/bpr"]) == 2


def test_what_waits_for_ever_ends_at_the_deadline(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = seam(tmp_path, "Workload._block = lambda self, subject: lambda: time.sleep(1000)")
    monkeypatch.setattr(alternation, "DEADLINE_S", 8.0)  # in which a process must start, too
    found = measure([HERE], plan, replace(ONCE, rounds=1), only={"time": ["small/bpr"]}, seam=waiting)[0]
    assert "no answer in 8 s" in found.errors["small/bpr: time"]


def test_a_tree_without_the_packages_is_refused(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(MeasuringError, match="nowhere"):
        measure([Tree("nowhere", tmp_path)], plan, ONCE)


def test_the_worker_needs_nothing_of_this_project_that_older_trees_lack() -> None:
    """Modules that came with the command are used by its own side only."""
    command = [
        sys.executable,
        "-c",
        "import json, sys, harness.tools.regress.workload; print(json.dumps(list(sys.modules)))",
    ]
    modules = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout
    )
    new = {"alternation", "measurement", "machine_class", "revision"}
    assert not {f"harness.measure.{name}" for name in new} & set(modules)


def test_the_large_data_set_has_the_size_of_baby_and_is_made_alike_every_time() -> None:
    dataset = baby_sized()
    assert (dataset.n_users, dataset.n_items, dataset.n_interactions) == (19_445, 7_050, 160_792)
    assert dataset.content_hash == baby_sized().content_hash
    assert baby_sized(seed=1).content_hash != dataset.content_hash


def test_data_sets_are_laid_out_as_they_are(plan: Plan, material: Material) -> None:
    assert load_dataset(str(plan.large)).content_hash == material.large.content_hash


def test_workloads_of_other_steps_or_data_are_others(material: Material) -> None:
    size = tiny_rules().workload
    identity = workload_identity(size, material, "cpu")
    assert workload_identity(replace(size, seeds=(3, 4)), material, "cpu") != identity
    assert workload_identity(size, replace(material, large=load_dataset("mini")), "cpu") != identity
    assert workload_identity(replace(size, justification="other"), material, "cpu") == identity


def test_seconds_are_shares_of_the_calibration() -> None:
    timing = Timing(cpu=2.0, wall=6.0, calibration_cpu=0.5, calibration_wall=2.0)
    assert (timing.cpu_share, timing.wall_share) == (4.0, 3.0)


def test_trees_that_compute_with_other_packages_say_so(plan: Plan, tmp_path: Path) -> None:
    other = seam(
        tmp_path, "Workload.tree = lambda self, tree=Workload.tree: {**tree(self), 'versions': {'torch': '1'}}"
    )
    here, same = measure([HERE, HERE], plan, ONCE, only={"time": ["small/bpr"]}, seam=other)
    assert here.notes == same.notes
    assert here.notes[alternation.PACKAGES].startswith("torch 1 against 2.")


def test_the_seam_is_no_option_of_the_command() -> None:
    from harness.cli.regress import regress

    assert workload.main.__doc__ is not None
    assert not any("seam" in option for parameter in regress.params for option in parameter.opts)
