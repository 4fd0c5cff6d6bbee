"""`bm3 recommend` and `bm3 export`: whom they are for, where lists go, and what wrong usage is told."""

import json
from pathlib import Path

import pytest
from command_line import Command, refused

from harness.runs.record import MODEL
from harness.runs.store import stored_runs


@pytest.fixture
def run(command: Command) -> Path:
    """A run below `runs`, with its model."""
    code, out, _ = command("train", "bpr", "mini", "--epochs", 2, "--keep-model")
    assert code == 0
    return Path(out.rpartition("run: ")[2].strip())


def test_lists_are_shown_or_written(command: Command, run: Path, tmp_path: Path) -> None:
    code, out, _ = command("recommend", run, "--user", 0, "--top", 3)
    _, _, *lines = (line.split() for line in out.splitlines())
    assert (code, [line[0] for line in lines], [line[2] for line in lines]) == (0, ["0"] * 3, ["1", "2", "3"])
    (tmp_path / "users.txt").write_text("5\n0\n")
    lists = tmp_path / "lists.json"
    code, out, _ = command("recommend", "bpr", "--users", tmp_path / "users.txt", "--top", 3, "--out", lists)
    assert (code, out) == (0, f"2 lists: {lists}\n")
    found = [json.loads(line) for line in lists.read_text().splitlines()]
    assert [one["item"] for one in found if one["user"] == "0"] == [line[1] for line in lines]
    assert [one["user"] for one in found] == ["5"] * 3 + ["0"] * 3


def test_vectors_are_written_where_they_are_asked_for(command: Command, run: Path, tmp_path: Path) -> None:
    code, out, _ = command("export", run, "--embeddings", "--out", tmp_path / "vectors.npz")
    assert (code, out) == (0, f"700 users and 699 items, 64-d: {tmp_path / 'vectors.npz'}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["recommend", "RUN"], "say for whom"),
        (["recommend", "RUN", "--user", "0", "--out", "lists.txt"], "choose an ending of .csv"),
        (["recommend", "RUN", "--user", "700"], "1 of 1 users are none of mini's (700)"),
        (["recommend", "RUN", "--users", "nobody.txt"], "no user is asked for"),
        (["recommend", "nothing", "--user", "0"], "no run 'nothing'"),
        (["export", "RUN", "--out", "v.npz"], "--embeddings"),
        (["export", "RUN", "--embeddings", "--out", "v.csv"], "choose an ending of .npz"),
    ],
)
def test_wrong_usage_is_one_line(command: Command, run: Path, arguments: list[str], said: str) -> None:
    Path("nobody.txt").write_text("\n")
    assert said in refused(command(*[str(run) if word == "RUN" else word for word in arguments]))
    assert not list(Path().glob("lists*")) + list(Path().glob("v.*"))


SUITE = """\
title = "points to choose from"
datasets = ["mini"]
seeds = [1, 2]
training = { epochs = 1, batch_size = 512 }
KEEP
[[experiments]]
model = "bpr"
grid = { reg_weight = [0.01, 0.1, 1.0] }
"""


@pytest.mark.parametrize("keep", ["", 'keep_model = "all"', 'keep_model = "best"'])
def test_a_suite_keeps_all_models_or_those_of_the_chosen_points(command: Command, tmp_path: Path, keep: str) -> None:
    (tmp_path / "suite.toml").write_text(SUITE.replace("KEEP", keep))
    command("reproduce", tmp_path / "suite.toml", "--in-process")
    runs = [*stored_runs(Path("runs"))]
    chosen = [run.config["reg_weight"] for run in runs if run.seed == 2]  # which the second seed is for
    wanted = [run.path for run in runs if "all" in keep or ("best" in keep and run.config["reg_weight"] in chosen)]
    assert [run.path for run in runs if (run.path / MODEL).is_file()] == wanted
    assert len(runs) > 3


def test_every_seed_of_the_chosen_points_keeps_its_model_also_where_every_point_has_every_seed(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "suite.toml").write_text(SUITE.replace("KEEP", 'repeat = "all"\nkeep_model = "best"'))
    command("reproduce", tmp_path / "suite.toml", "--in-process")
    kept = [run for run in stored_runs(Path("runs")) if (run.path / MODEL).is_file()]
    points = {run.config["reg_weight"] for run in kept}
    assert 1 <= len(points) < 3
    assert sorted((run.config["reg_weight"], run.seed) for run in kept) == [
        (p, s) for p in sorted(points) for s in (1, 2)
    ]


@pytest.fixture
def interrupted(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`interrupted(…)` goes on with a suite that keeps the best models, after all its trials but before the choice."""
    (tmp_path / "suite.toml").write_text(SUITE.replace("KEEP", 'keep_model = "best"'))
    arguments = ("reproduce", tmp_path / "suite.toml", "--in-process")
    with monkeypatch.context() as patch:
        patch.setattr("harness.studies.execute.keep_models", _interrupt)
        assert command(*arguments).code == 130
    assert len(kept()) > 3
    return lambda *more: command(*arguments, *more)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def kept(store: str = "runs") -> set[str]:
    return {path.parent.name for path in Path(store).rglob(MODEL)}


def test_a_study_that_was_interrupted_ends_with_the_models_of_one_that_was_not(interrupted: Command) -> None:
    interrupted()
    interrupted("--out", "undisturbed")
    assert kept() == kept("undisturbed")
    assert not [*Path("runs").rglob("models.txt")]


def test_a_report_alone_removes_no_model_and_forgets_none(interrupted: Command) -> None:
    before = kept()
    interrupted("--rerun", "none")
    assert kept() == before
    interrupted()
    assert 0 < len(kept()) < len(before)


def test_a_part_of_a_suite_decides_about_its_own_models_alone(
    interrupted: Command, command: Command, tmp_path: Path
) -> None:
    lightgcn = '[[experiments]]\nmodel = "lightgcn"\ngrid = { n_layers = [1, 2] }\n'
    (tmp_path / "suite.toml").write_text((tmp_path / "suite.toml").read_text() + lightgcn)
    interrupted("--model", "lightgcn")
    assert len({name for name in kept() if name.startswith("bpr")}) > 2
    interrupted()
    interrupted("--out", "undisturbed")
    assert kept() == kept("undisturbed")


def test_a_model_that_was_kept_by_hand_meanwhile_stays(interrupted: Command, command: Command) -> None:
    for weight in (0.01, 0.1, 1.0):
        how = ("--set", f"reg_weight={weight}", "--epochs", 1, "--set", "batch_size=512", "--seed", 1)
        assert command("train", "bpr", "mini", *how, "--keep-model", "--rerun").code == 0
    by_hand = {path.name for path in Path("runs/mini").glob("*-seed1")}
    told = interrupted().err
    assert by_hand <= kept()
    assert "from before stay" in told


def test_what_was_finished_before_neither_gains_nor_loses_a_model(command: Command, tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(SUITE.replace("KEEP", 'keep_model = "all"'))
    command("reproduce", tmp_path / "suite.toml", "--in-process")
    kept = {*Path("runs").rglob("model.safetensors")}
    bare = next(iter(kept))
    bare.unlink()
    (tmp_path / "suite.toml").write_text(SUITE.replace("KEEP", 'keep_model = "best"'))
    _, _, told = command("reproduce", tmp_path / "suite.toml", "--in-process")
    assert {*Path("runs").rglob("model.safetensors")} == kept - {bare}
    assert "runs from before stay" in told
