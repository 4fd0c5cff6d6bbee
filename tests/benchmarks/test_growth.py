"""How growth is measured: single points, what is kept and what is left after Ctrl-C. The measuring is no test."""

import json
from pathlib import Path

import growth
import numpy as np
import pytest
from click.testing import CliRunner
from growth import PointError
from growth_points import Figures, Point, Sizes, points_of
from torch import Tensor

from bm3 import ConfigError

TINY = Sizes(users=40, items=30, interactions=128, width=8, batch=32)


def figures(seconds: float = 1.0) -> Figures:
    return Figures(
        step_s=seconds,
        first_s=2 * seconds,
        batches_s=3 * seconds,
        state_s=0.5 * seconds,
        n_steps=4,
        memory_bytes=5_000,
        model_bytes=4_000,
    )


def test_points_share_the_base_and_multiply_one_size_each() -> None:
    points = points_of(["bpr", "bm3"], 2)
    assert len(points) == len({point.key for point in points}) == 2 * (1 + 4 * 2)
    assert Point("bpr").sizes(TINY) == TINY
    assert Point("bpr", "I", 4).sizes(TINY) == TINY._replace(items=120)
    assert {point.axis for point in points} == {"", "E", "I", "d_m", "B"}


def test_data_have_the_sizes_asked_for() -> None:
    data = growth.power_law_data(TINY, np.random.default_rng(0))
    assert (data.n_users, data.n_items) == (40, 30)
    assert len(np.unique(data.train, axis=0)) == len(data.train) == 128
    assert {name: table.shape for name, table in data.features.items()} == {"visual": (30, 8), "text": (30, 2)}
    with pytest.raises(ValueError, match="too many"):
        growth.power_law_data(TINY._replace(interactions=601), np.random.default_rng(0))


def test_a_point_is_measured_in_this_process() -> None:
    data = growth.power_law_data(TINY, np.random.default_rng(0))
    measured = growth.measured("bpr", lambda: data, TINY.batch, seconds=0.0)
    assert measured.n_steps == 4
    assert min(measured.step_s, measured.first_s, measured.batches_s) > 0
    assert measured.memory_bytes >= measured.model_bytes >= 0


def test_steps_are_those_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """BUIR's target follows every step, and a model's epoch starts in the first one alone."""
    data = growth.power_law_data(TINY, np.random.default_rng(0))
    training = growth.Training("buir", data, TINY.batch)
    before, target = (table.detach().clone() for table in (training.model.user_embedding, targets(training)))
    training.plain()
    assert not training.model.user_embedding.equal(before)
    assert not targets(training).equal(target)

    started: list[int] = []
    training = growth.Training("lattice", data, TINY.batch)
    monkeypatch.setattr(training.model, "start_epoch", lambda generator: started.append(generator.initial_seed()))
    for step in (training.first, training.plain, training.first):
        step()
    assert len(started) == len(set(started)) == 2


def targets(training: growth.Training) -> Tensor:
    return training.model.target_user_embedding


def test_an_epoch_is_its_batches_its_first_step_the_plain_ones_and_the_state() -> None:
    assert figures(1.0).epoch_s == 3 + 2 + 3 * 1 + 0.5


def test_a_fresh_process_gives_figures_or_the_reason_why_not() -> None:
    measured = growth.in_fresh_process("bpr", TINY)
    assert measured.n_steps == 4
    assert measured.memory_bytes > 0
    with pytest.raises(PointError, match="no model 'nosuch'"):
        growth.in_fresh_process("nosuch", TINY)


def test_a_rerun_measures_only_what_is_missing_and_what_failed(tmp_path: Path) -> None:
    path, points, asked = tmp_path / "growth.json", points_of(["bpr"], 1), []

    def stopped_at_the_fourth(name: str, sizes: Sizes) -> Figures:
        asked.append(sizes)
        if len(asked) == 2:
            raise PointError("ended by signal 9")
        if len(asked) == 4:
            raise KeyboardInterrupt
        return figures()

    with pytest.raises(KeyboardInterrupt):
        growth.run(points, growth.resumed(path, TINY), path, stopped_at_the_fourth)
    assert kinds(path) == ["figures", "failed", "figures"]

    again: list[Sizes] = []

    def working(name: str, sizes: Sizes) -> Figures:
        again.append(sizes)
        return figures()

    content = growth.resumed(path, TINY)
    growth.run(points, content, path, working)
    assert again == [point.sizes(TINY) for point in (points[1], *points[3:])]
    assert kinds(path) == ["figures"] * 5
    assert json.loads(path.read_text()) == content


def kinds(path: Path) -> list[str]:
    points = json.loads(path.read_text())["points"].values()
    return ["figures" if "figures" in point else "failed" for point in points]


def test_points_of_another_base_are_not_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "growth.json"
    growth.run([Point("bpr")], growth.resumed(path, TINY), path, lambda name, sizes: figures())
    with pytest.raises(ConfigError, match="another base"):
        growth.resumed(path, Sizes())


def test_ctrl_c_reports_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(name: str, sizes: Sizes) -> Figures:
        if sizes != Sizes():
            raise KeyboardInterrupt
        return figures()

    monkeypatch.setattr(growth, "in_fresh_process", stopped)
    json_file, markdown_file = tmp_path / "growth.json", tmp_path / "growth.md"
    arguments = ["--models", "bpr", "--doublings", "1", "--json", str(json_file), "--markdown", str(markdown_file)]
    ended = CliRunner().invoke(growth.main, arguments)
    assert ended.exit_code == 130
    assert list(json.loads(json_file.read_text())["points"]) == ["bpr base"]
    assert "4 of 5 points are not measured yet." in markdown_file.read_text()
