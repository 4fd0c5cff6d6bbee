"""Exponents are recovered from noisy repetitions and judged by what is published; points differ in one size alone."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Command

from bm3 import DataError
from harness.common import exit_status
from harness.models.registry import find_model, models
from harness.paper.folders import DEFAULT, paper_folder
from harness.paper.growth import Complexity, load_complexity, stored_exponents
from harness.tools.scaling import measure as measuring
from harness.tools.scaling.fit import Cell, Verdict, fit, judge
from harness.tools.scaling.measure import FIELDS, Plan, Series, Sizes, Tell, Work, measure, power_law_dataset

CPU = torch.device("cpu")
SIZES = [1024, 2048, 4096, 8192, 16384]
SHIPPED = load_complexity(paper_folder(DEFAULT) / "complexity.toml")
HEAD = "confidence = 0.95\ntolerance = 0.25\nwidest = 1.0\nmisfit = 0.25\n"
COST = '[[costs]]\nmodel = "A"\nquantity = "epoch"\nexpression = "E"\nexponents = { E = 1 }\nsource = "s"\n'


def repetitions(
    power: float, *, constant: float = 0.0, noise: float = 0.02, n: int = 7, seed: int = 0
) -> list[list[float]]:
    """a + x^k at SIZES, a being `constant` times the middle of x^k; noise of each value and of each round."""
    draw = np.random.default_rng(seed)
    x = np.array(SIZES, dtype=np.float64) ** power
    rounds = np.exp(noise * draw.standard_normal(n))
    values = (constant * x[2] + x)[:, None] * rounds * np.exp(noise * draw.standard_normal((5, n)))
    return [[float(value) for value in row] for row in values]


def complexity(tmp_path: Path, text: str) -> Complexity:
    path = tmp_path / "complexity.toml"
    path.write_text(text, encoding="utf-8")
    return load_complexity(path)


def judged(of: Complexity, values: Sequence[Sequence[float]], *, factor: str = "E", model: str = "a") -> Cell:
    return judge(of, model, factor, "epoch", SIZES, values)


@pytest.mark.parametrize("power", [-1.0, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("constant", [0.0, 0.5, 2.0])
def test_an_exponent_above_a_constant_is_recovered(power: float, constant: float) -> None:
    found = fit(SIZES, repetitions(power, constant=constant, noise=0.0), 0.95)
    assert found is not None
    assert (found.exponent, found.low, found.high) == pytest.approx((power,) * 3, abs=0.02)
    share = constant * 4**-power / (constant * 4**-power + 1)
    assert found.constant == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(("power", "constant"), [(1.0, 0.0), (1.0, 2.0), (2.0, 0.3), (-1.0, 1.0)])
def test_intervals_cover_the_true_exponent(power: float, constant: float) -> None:
    found = [fit(SIZES, repetitions(power, constant=constant, noise=0.04, n=5, seed=seed), 0.95) for seed in range(40)]
    covered = [f.low <= power <= f.high for f in found if f is not None]
    assert len(covered) == 40
    assert sum(covered) >= 35


def test_one_slow_repetition_changes_little_and_noise_widens_the_interval() -> None:
    values = repetitions(1.0, n=9)
    values[-1][4] *= 50
    found = [fit(SIZES, v, 0.95) for v in (values, repetitions(1.0, n=9), repetitions(1.0, constant=0.5, noise=0.1))]
    slow, quiet, loud = (each for each in found if each is not None)
    assert slow.exponent == pytest.approx(quiet.exponent, abs=0.05)
    assert loud.high - loud.low > 3 * (quiet.high - quiet.low)


@pytest.mark.parametrize(
    ("sizes", "values"),
    [
        ([1, 2, 4], [[1.0] * 9, [2.0] * 9, [4.0] * 9]),
        ([1, 2, 4, 8], [[1.0] * 4, [2.0] * 4, [4.0] * 4, [8.0] * 4]),
        ([1, 2, 4, 8], [[0.0] * 9, [2.0] * 9, [4.0] * 9, [8.0] * 9]),
        ([], []),
    ],
    ids=["three sizes", "four repetitions", "nothing at one size", "no sizes"],
)
def test_too_little_has_no_exponent(sizes: list[int], values: list[list[float]]) -> None:
    cell = judge(SHIPPED, "bm3", "E", "epoch", sizes, values)
    assert (cell.fit, cell.verdict) == (None, Verdict.NO_EVIDENCE)
    assert "measured" in cell.reason or "not positive" in cell.reason


JUMP = [[size * by] * 7 for size, by in zip(SIZES, (1, 1, 8, 8, 1), strict=True)]


@pytest.mark.parametrize(
    ("values", "verdict", "reason"),
    [
        # A published exponent is an upper bound.
        (repetitions(0.5, noise=0.005), Verdict.CONSISTENT, "cheaper than published"),
        (repetitions(1.0, noise=0.005), Verdict.CONSISTENT, "as published"),
        (repetitions(1.2, noise=0.005), Verdict.CONSISTENT, "within the tolerance"),
        (repetitions(1.5, noise=0.005), Verdict.ABOVE, "faster than published"),
        (repetitions(2.0, noise=0.005), Verdict.ABOVE, "faster than published"),
        # Noise, or a constant that hides what grows, are no evidence.
        (repetitions(1.0, constant=1.0, noise=0.4), Verdict.NO_EVIDENCE, "too wide"),
        (repetitions(1.0, constant=500.0), Verdict.NO_EVIDENCE, "too wide"),
        (JUMP, Verdict.NO_EVIDENCE, "do not follow"),
        # A size that could not be measured is left out.
        ([*repetitions(1.0)[:4], []], Verdict.CONSISTENT, "published"),
    ],
)
def test_what_growth_says_of_a_published_exponent_of_1(
    values: list[list[float]], verdict: Verdict, reason: str, tmp_path: Path
) -> None:
    cell = judged(complexity(tmp_path, HEAD + COST), values)
    assert (cell.verdict, cell.published) == (verdict, 1)
    assert reason in cell.reason
    assert len(cell.sizes) == len([row for row in values if row])


def test_a_logarithm_raises_the_bound(tmp_path: Path) -> None:
    values = [[size**1.3] * 7 for size in SIZES]  # 1 / ln 4096 is 0.12
    assert judged(complexity(tmp_path, HEAD + COST), values).verdict is Verdict.ABOVE
    with_logarithm = complexity(tmp_path, HEAD + COST + 'logarithms = ["E"]\n')
    assert judged(with_logarithm, values).verdict is Verdict.CONSISTENT


def test_what_no_source_says_stays_open_and_nothing_judged_is_no_pass(tmp_path: Path) -> None:
    of = complexity(tmp_path, HEAD + COST + 'open = { B = "the sources differ" }\n')
    for factor, model, reason in (("B", "a", "the sources differ"), ("I", "a", "not in"), ("E", "b", "no cost")):
        cell = judged(of, repetitions(2.0), factor=factor, model=model)
        assert (cell.verdict, cell.published) == (Verdict.OPEN, None)
        assert reason in cell.reason
    above, held, opened = judged(of, repetitions(2.0)), judged(of, repetitions(1.0)), cell
    asked = ([above, held, opened], [held, opened], [opened], [])
    assert [exit_status(one.verdict.held for one in cells) for cells in asked] == [1, 0, 3, 3]


def test_every_published_cost_is_one_that_is_measured() -> None:
    for cost in SHIPPED.costs:
        factors = Plan().factors_of(find_model(cost.model))
        assert set(cost.exponents) <= set(factors) <= {*cost.exponents, *cost.open}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (HEAD, "costs"),
        (HEAD + COST.replace("E = 1", 'E = "1"'), "costs.0.exponents.E"),
        (HEAD + COST.replace("E = 1", "x = 1"), "costs.0.exponents.x"),
        (HEAD + COST + COST, "there twice"),
        (HEAD + COST + 'open = { E = "why" }\n', "E is given and open"),
        (HEAD + COST + 'logarithms = ["I"]\n', "I has no exponent"),
        (COST, "confidence"),
    ],
)
def test_a_damaged_file_is_refused_by_name_and_field(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(DataError, match=part) as refusal:
        complexity(tmp_path, text)
    assert "complexity.toml" in str(refusal.value)


# Measuring.

TINY = Sizes(users=60, items=60, interactions=128, width=8, embedding=4, batch=32, layers=1)
PLAN = Plan(base=TINY, multipliers=(1, 2, 4, 8), factors=("E",), repetitions=5, memory_repetitions=0, warm_up_s=0.0)


def test_one_size_grows_and_all_else_stays() -> None:
    for factor, field in FIELDS.items():
        assert TINY.grown(factor, 8) == replace(TINY, **{field: 8 * getattr(TINY, field)})
    assert [sizes.interactions for sizes in PLAN.grown("E")] == [128, 256, 512, 1024]
    plan = Plan()
    assert all(each.interactions % each.batch == 0 for factor in plan.factors for each in plan.grown(factor))


def test_data_have_the_sizes_asked_for_and_are_ranked_for_all_users() -> None:
    data = power_law_dataset(TINY)
    assert (data.n_users, data.n_items) == (60, 60)
    assert len(np.unique(data.train, axis=0)) == len(data.train) == 128
    assert {name: table.shape for name, table in data.features.items()} == {"visual": (60, 8), "text": (60, 2)}
    assert set(data.valid[:, 0]) == set(data.train[:, 0])


def test_a_model_has_the_sizes_that_it_depends_on_and_is_built_with_them() -> None:
    factors = {name: Plan().factors_of(entry) for name, entry in models().items()}
    assert factors["bm3"] == ["E", "I", "d_m", "d", "B", "L"]
    assert factors["bpr"] == ["E", "I", "d", "B"]
    assert factors["mmgcn"] == ["E", "I", "d_m", "d", "B"]
    for name, size in (("bm3", "embedding_size"), ("dualgnn", "latent_size")):
        work = Work(find_model(name), replace(TINY, embedding=12, layers=3, batch=64), CPU)
        assert getattr(work.model.config, size) == 12
        assert getattr(work.model.config, "n_layers", 3) == 3
        assert len(work.steps.batches) == 2


class Fake:
    """Work that writes down when it is done, and takes as many seconds as it has interactions."""

    log: list[tuple[str, int]]
    too_large: int

    def __init__(self, entry: object, sizes: Sizes, device: object) -> None:
        if sizes.interactions >= self.too_large:
            raise MemoryError("no room")
        self.size = sizes.interactions
        self.seconds: dict[str, list[float]] = {"step": [], "epoch": [], "evaluation": []}

    def warm_up(self, seconds: float) -> None:
        self.log.append(("warm up", self.size))

    def repeat(self) -> None:
        self.log.append(("repeat", self.size))
        for values in self.seconds.values():
            values.append(float(self.size))


@pytest.mark.parametrize("too_large", [10**9, 1024])
def test_sizes_are_repeated_in_turn_and_too_little_memory_at_one_leaves_the_others(
    too_large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fake, "log", [], raising=False)
    monkeypatch.setattr(Fake, "too_large", too_large, raising=False)
    monkeypatch.setattr(measuring, "Work", Fake)
    (series,) = measure(["bpr"], PLAN, CPU)
    sizes = [size for size in (128, 256, 512, 1024) if size < too_large]
    n = len(sizes)
    assert Fake.log[:n] == [("warm up", size) for size in sizes]
    rounds = [[size for _, size in Fake.log[start : start + n]] for start in range(n, 6 * n, n)]
    assert all(sorted(each) == sizes for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1  # no size always comes first
    assert series.values["step"] == (*((float(size),) * 5 for size in sizes), *[()] * (4 - n))
    assert series.notes == (() if n == 4 else ("E = 1,024: too little memory: no room",))


def test_an_epoch_is_its_first_step_and_the_plain_ones() -> None:
    (series,) = measure(["bpr"], replace(PLAN, repetitions=3), CPU)
    assert [len(row) for row in series.values["epoch"]] == [3] * 4
    for size, steps, epochs in zip(series.sizes, series.values["step"], series.values["epoch"], strict=True):
        assert all(epoch > (size // TINY.batch - 1) * step for step, epoch in zip(steps, epochs, strict=True))


def test_memory_is_that_of_fresh_processes_and_grows_with_the_data() -> None:
    base = replace(TINY, items=512, width=256)
    plan = replace(PLAN, base=base, factors=("I",), multipliers=(1, 16), repetitions=1, memory_repetitions=2)
    (series,) = measure(["vbpr"], plan, CPU)
    small, large = series.values["memory"]
    assert len(small) == len(large) == 2
    features = 16 * 512 * (256 + 64) * 4
    assert min(large) - max(small) > 0.9 * 15 / 16 * features
    assert max(large) < 20 * features


# The command, its records, and what claims take from them.

CALL = ("scaling", "--device", "cpu", "--out", "out")


def fakes(monkeypatch: pytest.MonkeyPatch, power: float, *, stop_after: int = 10**9) -> list[Plan]:
    """All times grow with this power of each size, without being measured; gives the plans asked for."""
    plans: list[Plan] = []

    def measure(names: Sequence[str], plan: Plan, device: torch.device, tell: Tell) -> Iterator[Series]:
        plans.append(plan)
        asked = [(name, factor) for name in names for factor in plan.factors_of(find_model(name))]
        for n, (name, factor) in enumerate(asked):
            if n == stop_after:
                raise KeyboardInterrupt
            sizes = tuple(each.of(factor) for each in plan.grown(factor))
            times = tuple((float(size) ** power,) * plan.repetitions for size in sizes)
            memory = tuple((1000.0,) * 5 for _ in sizes)
            yield Series(name, factor, sizes, {"step": times, "epoch": times, "memory": memory})

    monkeypatch.setattr(measuring, "measure", measure)
    return plans


@pytest.mark.parametrize(
    ("power", "code", "answer"), [(0.9, 0, "Nothing that could be judged"), (2.0, 1, "- Above: bm3, epoch in E")]
)
def test_each_call_leaves_a_record_a_report_and_a_picture_and_the_exit_code_is_the_verdict(
    command: Command, monkeypatch: pytest.MonkeyPatch, power: float, code: int, answer: str
) -> None:
    fakes(monkeypatch, power)
    outcome = command(*CALL, "bm3")
    assert outcome.code == code
    assert answer in outcome.out
    assert sorted(path.suffix for path in Path("out").iterdir()) == [".json", ".md", ".png"]
    (record,) = Path("out").glob("*.json")
    content = json.loads(record.read_text(encoding="utf-8"))
    assert content["environment"]["torch"] == torch.__version__
    report = record.with_suffix(".md").read_text(encoding="utf-8")
    for part in (content["command"], f"({record.stem}-bm3.png)", "| bm3", "O(4 Σ_m"):
        assert part in report
    assert stored_exponents(Path("out"))["bm3", "E"] == pytest.approx((power,) * 3, abs=0.02)
    assert stored_exponents(Path("out")).keys() == {("bm3", factor) for factor in FIELDS}  # epochs alone


def test_what_is_asked_for_is_what_is_measured_and_a_dry_run_measures_nothing(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = fakes(monkeypatch, 1.0)
    asked = ("bm3", "--vary", "B,d_m", "--sizes", "8,1,2,4", "--repetitions", 6)
    outcome = command(*CALL, *asked, "--dry-run")
    assert (outcome.code, plans, list(Path.cwd().iterdir())) == (0, [], [])
    assert "bm3: 2 sizes" in outcome.out
    assert command(*CALL, *asked).code == 0
    assert plans == [replace(Plan(), factors=("B", "d_m"), multipliers=(1, 2, 4, 8), repetitions=6)]


def test_ctrl_c_leaves_a_report_on_what_was_measured_if_anything_was(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes(monkeypatch, 1.0, stop_after=0)
    assert command(*CALL, "bm3").code == 130
    assert list(Path("out").iterdir()) == []
    fakes(monkeypatch, 1.0, stop_after=1)
    outcome = command(*CALL, "bm3")
    assert outcome.code == 130
    assert outcome.err.splitlines()[-1].startswith("bm3: interrupted: the report has what was measured")
    assert stored_exponents(Path("out")).keys() == {("bm3", "E")}


def record(folder: Path, name: str, powers: dict[str, float], **changes: object) -> None:
    fits = {factor: dict.fromkeys(("exponent", "low", "high"), power) for factor, power in powers.items()}
    cell = {"model": "bm3", "quantity": "epoch", "reason": ""}
    cells = [{**cell, "factor": factor, "fit": fit} for factor, fit in fits.items()]
    (folder / name).write_text(json.dumps({"format": 3, "cells": cells, **changes}), encoding="utf-8")


def test_the_latest_record_counts_of_whichever_format(tmp_path: Path) -> None:
    assert stored_exponents(tmp_path) == {}
    record(tmp_path, "scaling.json", {"E": 1.0, "I": 0.5}, format=2, complete=["bm3"])
    record(tmp_path, "scaling-20260102T000000.json", {"E": 2.0})
    record(tmp_path, "scaling-20260101T000000.json", {"E": 3.0})
    assert stored_exponents(tmp_path) == {("bm3", "E"): (2.0,) * 3, ("bm3", "I"): (0.5,) * 3}


def test_the_stored_record_of_an_earlier_release_is_read() -> None:
    stored = Path(__file__).parents[2] / "docs" / "results" / "runs"
    assert stored_exponents(stored)["bm3", "E"][0] == pytest.approx(2, abs=0.5)


@pytest.mark.parametrize(
    ("text", "part"),
    [("{", "cannot be read"), ("[]", "cannot be read"), ('{"format": 99}', "format 99"), ('{"format": 3}', "cells")],
)
def test_a_damaged_record_is_refused_in_one_line(text: str, part: str, tmp_path: Path) -> None:
    (tmp_path / "scaling-20260101T000000.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=part) as refusal:
        stored_exponents(tmp_path)
    assert "scaling-20260101T000000.json" in str(refusal.value)
    assert "\n" not in str(refusal.value)
