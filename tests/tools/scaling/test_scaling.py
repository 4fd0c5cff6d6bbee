"""Points of growth: what differs between them, in which order they are measured, and what a lack of memory leaves."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch

from bm3 import ConfigError
from harness.data import Dataset
from harness.measure.sizes import FIELDS, Sizes
from harness.models.registry import models
from harness.tools.scaling import measure as scaling
from harness.tools.scaling.measure import QUICK, Plan, complete_models, expected_seconds, measure
from harness.tools.scaling.parts import PARTS, Subject, power_law_dataset, subjects_of

CPU = torch.device("cpu")
TINY = Sizes(users=60, items=40, interactions=128, width=8, embedding=4, batch=32, layers=1)
PLAN = Plan(base=TINY, multipliers=(1, 2, 4, 8), factors=("E",), repetitions=5, memory_repetitions=0, settle_s=0.0)


def tiny() -> Dataset:
    return power_law_dataset(TINY, np.random.default_rng(0))


def test_one_size_grows_and_all_else_stays() -> None:
    for factor, field in FIELDS.items():
        grown = TINY.grown(factor, 8)
        assert grown == replace(TINY, **{field: 8 * getattr(TINY, field)})
        assert grown.of(factor) == 8 * TINY.of(factor)
    assert [sizes.interactions for sizes in PLAN.grown("E")] == [128, 256, 512, 1024]


def test_data_have_the_sizes_asked_for() -> None:
    data = tiny()
    assert (data.n_users, data.n_items) == (60, 40)
    assert len(np.unique(data.train, axis=0)) == len(data.train) == 128
    assert {name: table.shape for name, table in data.features.items()} == {"visual": (40, 8), "text": (40, 2)}
    with pytest.raises(ValueError, match="too many"):
        power_law_dataset(replace(TINY, interactions=1201), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("factor", "by", "part"), [("E", 16, "half of the 2,400 pairs"), ("B", 8, "larger than the 128 interactions")]
)
def test_sizes_that_no_data_can_have_are_refused(factor: str, by: int, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        replace(PLAN, factors=(factor,), multipliers=(1, by))


def test_the_presets_can_be_measured_and_their_batches_are_full() -> None:
    for plan in (Plan(), QUICK):
        for factor in plan.factors:
            for sizes in plan.grown(factor):
                assert sizes.interactions % sizes.batch == 0


def test_a_subject_has_the_sizes_that_it_depends_on() -> None:
    whole = {name: subjects_of(name)[0].factors for name in models()}
    assert whole["bm3"] == ("E", "I", "d_m", "d", "B", "L")
    assert whole["bpr"] == ("E", "I", "d", "B")
    assert whole["mmgcn"] == ("E", "I", "d_m", "d", "B")
    assert "d" in whole["dualgnn"]
    with pytest.raises(ConfigError, match="no model 'bm4'"):
        subjects_of("bm4")


@pytest.mark.parametrize("name", ["bm3", "dualgnn", "lattice"])
def test_a_model_is_built_with_the_sizes_of_the_point(name: str) -> None:
    sizes = replace(TINY, embedding=12, layers=3, batch=64)
    work: Any = subjects_of(name)[0].prepare(tiny(), sizes, CPU)
    config = work._steps.model.config
    assert (config.latent_size if name == "dualgnn" else config.embedding_size) == 12
    assert name == "dualgnn" or config.n_layers == 3
    assert len(work._steps.batches) == 2


@pytest.mark.parametrize("subject", [part for parts in PARTS.values() for part in parts], ids=lambda part: part.name)
def test_every_part_is_timed_once_per_repetition(subject: Subject) -> None:
    work = subject.prepare(tiny(), TINY, CPU)
    work.settle(0.0)
    for _ in range(3):
        work.repeat()
    (seconds,) = work.seconds().values()
    assert len(seconds) == 3
    assert min(seconds) > 0


def called(function: Callable[[], object]) -> set[str]:
    """Names of the functions of `bm3` and `harness.models` that run."""
    names: set[str] = set()

    def seen(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and str(frame.f_globals.get("__name__")).startswith(("bm3.", "harness.models.")):
            names.add(frame.f_code.co_name)

    sys.setprofile(seen)
    try:
        function()
    finally:
        sys.setprofile(None)
    return names


@pytest.mark.parametrize(
    ("name", "functions"),
    [
        ("bm3 propagation", {"encode", "mean_readout"}),
        ("bm3 projection", {"project"}),
        ("bm3 losses", {"reconstruction_loss", "alignment_loss", "masked_loss", "cosine_loss"}),
        ("lattice similarity", {"row_blocks", "similarities"}),
        ("lattice normalisation", {"normalised_entries", "_symmetric_scale"}),
        ("lattice top-k", {"most_similar"}),
    ],
)
def test_a_part_is_timed_by_the_functions_that_its_model_calls(name: str, functions: set[str]) -> None:
    model = name.partition(" ")[0]
    (part,) = (part for part in PARTS[model] if part.name == name)
    timed = part.prepare(tiny(), TINY, CPU)
    timed.settle(0.0)
    assert called(timed.repeat) >= functions
    whole = subjects_of(model)[0].prepare(tiny(), TINY, CPU)
    assert called(whole.repeat) >= functions


def test_a_model_is_complete_when_all_its_sizes_and_parts_were_measured() -> None:
    plan = Plan(base=TINY, multipliers=(1, 2), factors=tuple(FIELDS))
    points = [
        scaling.Point(name, subject.part, factor, sizes, {})
        for name in ("bm3", "bpr")
        for subject in subjects_of(name)
        for factor in subject.factors
        for sizes in plan.grown(factor)
    ]
    assert complete_models(plan, points) == {"bm3", "bpr"}
    assert complete_models(plan, points[:-1]) == {"bm3"}
    assert complete_models(plan, [replace(points[0], note="too little memory"), *points[1:]]) == {"bpr"}
    without_a_part = [point for point in points if point.part != "losses"]
    assert complete_models(plan, without_a_part) == {"bpr"}
    assert complete_models(replace(plan, multipliers=(1, 2, 4)), points) == set()
    assert complete_models(plan, []) == set()


def test_nothing_is_complete_in_a_quick_plan() -> None:
    points = [
        scaling.Point("bpr", "", factor, sizes, {})
        for factor in subjects_of("bpr")[0].factors
        for sizes in QUICK.grown(factor)
    ]
    assert complete_models(QUICK, points) == set()


class Fake:
    """Work that writes down when it is done, and takes as many seconds as it has interactions."""

    def __init__(self, log: list[tuple[str, int]], size: int) -> None:
        self.log, self.size, self.repeats = log, size, 0

    def settle(self, seconds: float) -> None:
        self.log.append(("settle", self.size))

    def repeat(self) -> None:
        self.repeats += 1
        self.log.append(("repeat", self.size))

    def seconds(self) -> dict[str, list[float]]:
        return {"call": [float(self.size)] * self.repeats}


def fakes(monkeypatch: pytest.MonkeyPatch, *, too_large: int = 10**9) -> list[tuple[str, int]]:
    """Let `measure` find one part, which has too little memory from a size on; gives the log of what it does."""
    log: list[tuple[str, int]] = []

    def prepare(dataset: Dataset, sizes: Sizes, device: torch.device) -> Fake:
        assert len(dataset.train) == sizes.interactions
        if sizes.interactions >= too_large:
            raise MemoryError("no room")
        return Fake(log, sizes.interactions)

    monkeypatch.setattr(scaling, "subjects_of", lambda model: (Subject(model, "fake", ("E",), prepare),))
    return log


def test_sizes_are_repeated_in_turn_after_all_have_warmed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    log = fakes(monkeypatch)
    points = list(measure(["x"], PLAN, CPU))
    sizes = [128, 256, 512, 1024]
    assert log[:4] == [("settle", size) for size in sizes]
    rounds = [[size for _, size in log[start : start + 4]] for start in range(4, 24, 4)]
    assert all(sorted(each) == sizes for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1  # no size always comes first
    assert [(point.size, point.seconds) for point in points] == [(size, {"call": (float(size),) * 5}) for size in sizes]


def test_too_little_memory_at_one_size_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes(monkeypatch, too_large=1024)
    *measured, missing = measure(["x"], PLAN, CPU)
    assert all(point.values("call") and not point.note for point in measured)
    assert (missing.size, missing.values("call")) == (1024, ())
    assert missing.note == "too little memory: no room"


def test_sizes_that_do_not_matter_to_a_subject_are_not_varied(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes(monkeypatch)
    assert list(measure(["x"], replace(PLAN, factors=("d_m",)), CPU)) == []


def test_an_epoch_is_its_first_step_and_the_plain_ones() -> None:
    points = list(measure(["bpr"], replace(PLAN, repetitions=3), CPU))
    for point in points:
        steps = point.size // TINY.batch
        assert [len(values) for values in point.seconds.values()] == [3, 3]
        for step, epoch in zip(point.values("step"), point.values("epoch"), strict=True):
            assert epoch > max(steps - 1, 1) * step
        assert point.bytes == ()


def test_memory_is_that_of_fresh_processes_and_grows_with_the_data() -> None:
    base = replace(TINY, items=512, width=256)
    plan = replace(PLAN, base=base, factors=("I",), multipliers=(1, 16), repetitions=1, memory_repetitions=2)
    small, large = measure(["vbpr"], plan, CPU)
    assert len(small.bytes) == len(large.bytes) == 2
    features = 16 * 512 * (256 + 64) * 4
    assert min(large.bytes) - max(small.bytes) > 0.9 * 15 / 16 * features
    assert max(large.bytes) < 20 * features


def test_a_process_that_is_killed_ends_in_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Killed:
        def run(self, function: object) -> int:
            raise scaling._EndedError("its process was ended")

    point = scaling.Point("bpr", "", "E", TINY, {"step": (1.0,)})
    found = scaling._with_memory(point, tmp_path, 2, CPU, Killed())  # type: ignore[arg-type]
    assert (found.bytes, found.values("step"), found.note) == ((), (1.0,), "memory: its process was ended")


def test_what_a_plan_takes_grows_with_its_repetitions() -> None:
    few, many = (expected_seconds(["bpr"], replace(PLAN, repetitions=n), CPU)["bpr"] for n in (1, 100))
    assert few[0] == many[0] == 4
    assert many[1] > 2 * few[1] > 0
