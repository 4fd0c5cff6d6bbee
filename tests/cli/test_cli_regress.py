"""`bm3 regress`, on a workload of seconds: what it writes, what it finds, what it refuses, and its exit codes."""

import json
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Command, Outcome, refused
from regression_workload import tiny_material, tiny_rules

from harness.cli import main as cli
from harness.cli import regress as cli_regress
from harness.cli.regress import regress
from harness.data import Dataset
from harness.tools.regress.guarding import Material

ROOT = Path(cli.__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def shrink(patch: pytest.MonkeyPatch, dataset: Dataset, folder: Path) -> None:
    """Let the command measure for seconds only; blocks of a millisecond are too short for a judgement on time."""
    rules = tiny_rules()
    blind = {kind: replace(getattr(rules, kind), factor=1000.0) for kind in ("time", "wall")}
    material = tiny_material(dataset, folder)
    patch.setattr("harness.tools.regress.regression_rules.load_rules", lambda path: replace(rules, **blind))
    patch.setattr(Material, "made", lambda: material)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, clustered: Dataset, tmp_path: Path) -> None:
    shrink(monkeypatch, clustered, tmp_path)


@pytest.fixture(scope="session")
def stored_baseline(tmp_path_factory: pytest.TempPathFactory, clustered: Dataset) -> tuple[Path, Outcome]:
    """A folder with a baseline, and what the command said as it made it."""
    from click.testing import CliRunner

    folder = tmp_path_factory.mktemp("baseline")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, clustered, tmp_path_factory.mktemp("material"))
        ended = CliRunner().invoke(regress, ["--update-baseline", "--out", str(folder), "--device", "cpu"])
    return folder, Outcome(ended.exit_code, ended.output, "")


@pytest.fixture
def baseline(stored_baseline: tuple[Path, Outcome], tmp_path: Path) -> Path:
    """A copy of the folder with the baseline, for one test to change."""
    folder, said = stored_baseline
    assert said.code == 0, said
    return Path(shutil.copytree(folder, tmp_path / "regression"))


def baseline_file(folder: Path) -> Path:
    (path,) = folder.glob("baseline-*.json")
    return path


def edited(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_baseline_that_is_not_there_ends_in_3_at_once_and_says_how_to_make_one(command: Command) -> None:
    started = time.monotonic()
    outcome = command("regress", "--baseline", "none.json")
    assert outcome.code == 3
    assert time.monotonic() - started < 10
    assert len(outcome.err.splitlines()) == 1
    assert "none.json" in outcome.err
    assert "--update-baseline" in outcome.err
    assert not list(Path.cwd().iterdir())


def test_without_any_baseline_of_this_machine_nothing_is_measured(command: Command) -> None:
    outcome = command("regress", "--device", "cpu")
    assert outcome.code == 3
    assert "--update-baseline" in outcome.err


def test_making_a_baseline_begins_a_history(baseline: Path) -> None:
    (history,) = (baseline / "history").glob("*.jsonl")
    assert len(history.read_text().splitlines()) == 2
    assert (baseline / "trend.html").is_file()


@pytest.mark.usefixtures("tiny")
def test_an_unchanged_tree_keeps_its_bits_and_traces_and_everything_is_written(
    command: Command, baseline: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    outcome = command("regress", "--quick", "--out", baseline, "--device", "cpu")
    report = (baseline / "report.md").read_text()
    assert outcome.code == 0, outcome
    assert report.count("the same bits") == 3 * 4  # subjects with an accuracy, metrics
    assert "# Did anything regress?" in outcome.out
    assert summary.read_text() == "before\n" + report
    assert (baseline / "junit.xml").read_text().startswith("<?xml")
    (history,) = (baseline / "history").glob("*.jsonl")
    assert len(history.read_text().splitlines()) == 3


@pytest.mark.usefixtures("tiny")
def test_a_loss_of_accuracy_is_exit_code_1(command: Command, baseline: Path) -> None:
    def better_before(content: Any) -> None:
        for results in content["measurement"]["accuracy"]["small/bpr"]:
            for result in results:
                result["metrics"]["recall@20"] *= 1.01

    edited(baseline_file(baseline), better_before)
    outcome = command("regress", "--quick", "--out", baseline, "--device", "cpu")
    assert outcome.code == 1
    assert any("small/bpr" in line and "recall@20" in line and "regressed" in line for line in outcome.out.splitlines())


@pytest.mark.usefixtures("tiny")
def test_a_baseline_of_another_machine_class_is_refused_with_what_differs(command: Command, baseline: Path) -> None:
    edited(baseline_file(baseline), lambda content: content["machine"].update(cpu="another CPU", torch="1.0"))
    outcome = command("regress", "--baseline", baseline_file(baseline), "--device", "cpu")
    assert outcome.code == 3
    assert "another CPU" in outcome.err
    assert "torch 1.0" in outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.usefixtures("tiny")
def test_a_baseline_of_another_workload_is_refused(command: Command, baseline: Path) -> None:
    edited(baseline_file(baseline), lambda content: content["workload"].update(seeds=[7, 8]))
    outcome = command("regress", "--baseline", baseline_file(baseline), "--device", "cpu")
    assert outcome.code == 3
    assert "seeds" in outcome.err


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 99}', "{"])
def test_a_file_that_is_no_baseline_is_refused_in_one_line(command: Command, text: str) -> None:
    Path("broken.json").write_text(text)
    assert "broken.json" in refused(command("regress", "--baseline", "broken.json"))


def test_a_revision_and_a_baseline_exclude_each_other(command: Command) -> None:
    assert "--against" in refused(command("regress", "--against", "main", "--update-baseline"))
    assert "--against" in refused(command("regress", "--against", "main", "--baseline", "one.json"))


def test_a_dry_run_measures_and_writes_nothing_and_refuses_what_a_check_would(
    command: Command, baseline: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cli_regress, "CHECKOUT", repository)
    before = {path: path.stat().st_mtime_ns for path in baseline.rglob("*")}
    against = command("regress", "--dry-run", "--against", "first", "--out", tmp_path / "out")
    stored = command("regress", "--dry-run", "--quick", "--out", baseline, "--device", "cpu")
    made = command("regress", "--dry-run", "--update-baseline", "--out", tmp_path / "out")
    assert [one.code for one in (against, stored, made)] == [0, 0, 0]
    assert "preset quick (3 processes with 2 rounds each" in stored.out
    assert str(baseline_file(baseline)) in stored.out
    assert "stored as" in made.out
    assert {path: path.stat().st_mtime_ns for path in baseline.rglob("*")} == before
    assert not (tmp_path / "out").exists()
    assert "--against nothing" in refused(command("regress", "--dry-run", "--against", "nothing"))
    assert command("regress", "--dry-run", "--out", tmp_path / "none").code == 3


def test_a_baseline_is_never_made_quickly(command: Command) -> None:
    assert "--quick" in refused(command("regress", "--quick", "--update-baseline"))


@pytest.mark.usefixtures("tiny")
def test_a_summary_that_cannot_be_written_loses_no_verdict(
    command: Command, baseline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(baseline))
    outcome = command("regress", "--quick", "--out", baseline, "--device", "cpu")
    assert outcome.code == 0
    assert "GITHUB_STEP_SUMMARY" in outcome.err
    (history,) = (baseline / "history").glob("*.jsonl")
    assert len(history.read_text().splitlines()) == 3


def test_a_folder_that_cannot_be_written_is_refused_before_measuring(command: Command) -> None:
    Path("taken").write_text("")
    line = refused(command("regress", "--update-baseline", "--out", Path("taken") / "below"))
    assert "taken" in line


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of its own, whose only revision has the files as they are now."""
    folder = tmp_path_factory.mktemp("repository") / "checkout"
    folder.mkdir()
    for name in ("bm3", "harness", "expected"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]

    def git(*arguments: str) -> None:
        subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    git("tag", "first")
    return folder


@pytest.mark.usefixtures("tiny")
def test_a_revision_is_measured_in_turn_and_the_repository_is_left_as_it_was(
    command: Command, repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cli_regress, "CHECKOUT", repository)
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling for new folders would take most of the time
    before = sorted(path for path in (repository / ".git").rglob("*"))
    outcome = command("regress", "--against", "first", "--quick", "--device", "cpu", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome
    assert "revision first, measured in turn" in outcome.out
    assert (tmp_path / "out" / "report.md").read_text().count("the same bits") == 3 * 4
    assert sorted(path for path in (repository / ".git").rglob("*")) == before


@pytest.mark.usefixtures("tiny")
def test_a_revision_that_is_not_there_is_refused(
    command: Command, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_regress, "CHECKOUT", repository)
    assert "--against nothing" in refused(command("regress", "--against", "nothing", "--device", "cpu"))
    assert "--against --help" in refused(command("regress", "--against=--help", "--device", "cpu"))
