"""`bm3 reproduce`: what it runs and does not run again, its log and status, its report, and how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import GIVE_UP_AFTER, Command, refused, wait_until

from harness.paper import selfcheck
from harness.paper.load import load_paper
from harness.runs import trial as trial_module
from harness.runs.record import RunRecord
from harness.runs.store import stored_runs
from harness.runs.trial import Trial, resolve_device, run_trial
from harness.studies.status import read_status
from harness.studies.suite import Row, load_suite, plan, wanted

SUITE = """
title = "a small study"
datasets = ["mini"]
seeds = [1, 2]
training = { epochs = 2, batch_size = 256, learning_rate = 0.01 }

[[experiments]]
model = "bpr"
grid = { reg_weight = [0.1, 1.0] }

[[experiments]]
model = "lightgcn"
"""


RUN = ("reproduce", "small.toml", "--in-process", "--threads", 1)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def study(command: Command) -> Path:
    """The suite's file in the working folder; the folder its report will be in."""
    Path("small.toml").write_text(SUITE, encoding="utf-8")
    return Path("runs/small")


def result_files() -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path("runs").rglob("result.json")}


def test_a_study_is_run_reported_and_not_run_again(command: Command, study: Path) -> None:
    outcome = command(*RUN)
    assert outcome.code == 0, outcome  # nothing is published, and accuracies were measured
    runs = list(stored_runs(Path("runs")))
    assert len(runs) in (5, 6)  # two points, one or two chosen ones' second seed, two of LightGCN
    assert all(run.finished and run.path.parent == Path("runs/mini") for run in runs)
    report = (study / "report.md").read_text(encoding="utf-8")
    assert "a small study" in report
    assert "## Selection" in report
    status = read_status(study)
    assert (status.state, status.done, status.total, status.failed) == ("finished", len(runs), len(runs), 0)
    log = (study / "study.log").read_text(encoding="utf-8")
    assert log.count(" finished: ") == len(runs)

    files = result_files()
    again = command(*RUN)
    assert (again.code, again.out) == (outcome.code, outcome.out)
    assert result_files() == files
    assert read_status(study).reused == len(runs)


ROWS = """
title = "rows of many kinds"
datasets = ["mini"]
seeds = [1, 2]
training = { epochs = 2, batch_size = 256 }

[[experiments]]
model = "bm3"
set = { n_layers = 1, learning_rate = 0.01 }
vary = { dropout = [0.3, 0.5] }

[[experiments]]
model = "bm3"
label = "without text"
set = { n_layers = 1, learning_rate = 0.01, modalities = "visual" }

[[experiments]]
model = "lightgcn"
grid = { learning_rate = [1e-4, 0.01] }
"""


def lines_of(report: str, title: str) -> dict[str, list[str]]:
    """First cell of each line of a section's first table → the others; none where there is no such section."""
    _, _, rest = report.partition(f"## {title}\n")
    table = re.search(r"^\|.*\n\| ?:?-.*\n((?:\|.*\n)*)", rest.split("\n## ")[0], re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()] if table else []
    assert len({row[0] for row in rows}) == len(rows) or title == "All points"
    return {" ".join([row[0], row[2]] if title == "All points" else row[:1]): row[1:] for row in rows}


def test_a_report_has_the_rows_of_its_suite_with_their_points_and_names(command: Command) -> None:
    Path("rows.toml").write_text(ROWS, encoding="utf-8")
    command("reproduce", "rows.toml", "--in-process", "--threads", 1)
    report = Path("runs/rows/report.md").read_text(encoding="utf-8")
    base = "bm3 batch_size=256 epochs=2 learning_rate=0.01"
    rows = lines_of(report, "Accuracy")
    assert list(rows) == [
        f"{base} dropout=0.3",
        f"{base} dropout=0.5",
        "without text",
        "lightgcn batch_size=256 epochs=2",
    ]
    assert [cells[4] for cells in rows.values()] == ["2"] * 4  # varied values, too, have every seed
    assert "modalities=visual" in rows["without text"][5]
    assert "learning_rate=0.01" in rows["lightgcn batch_size=256 epochs=2"][5]
    (chosen,) = lines_of(report, "Selection").values()  # what is varied is not chosen from, what is searched is
    assert chosen[1:3] == ["2", "learning_rate=0.01"]
    assert chosen[-1] == "2"
    assert "## All points" not in report


def test_points_that_all_have_every_seed_are_all_in_the_report(command: Command, study: Path) -> None:
    Path("small.toml").write_text(SUITE.replace("seeds =", 'repeat = "all"\nseeds ='), encoding="utf-8")
    command(*RUN)
    points = lines_of((study / "report.md").read_text(encoding="utf-8"), "All points")
    label = "bpr batch_size=256 epochs=2 learning_rate=0.01"
    assert list(points) == [f"{label} reg_weight=0.1", f"{label} reg_weight=1"]
    runs = [run for run in stored_runs(Path("runs")) if run.model == "bpr"]
    for weight, cells in zip((0.1, 1.0), points.values(), strict=True):
        found = [run.result for run in runs if run.config["reg_weight"] == weight and run.result]
        valid, test = ([getattr(result, part)["recall@20"] for result in found] for part in ("valid", "test"))
        figures = sum(valid) / 2, sum(test) / 2, max(test) - min(test)
        assert cells[2:] == ["2", *(f"{figure:.4f}" for figure in figures)]


def test_the_self_check_says_which_models_are_consistent(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    only = ("reproduce", "--in-process", "--threads", 1, "--model", "bpr")
    outcome = command(*only)
    assert outcome.code == 0
    assert "BM3 on mini: not judged (nothing is published for it)." in outcome.out
    assert "Self-check: 1 of 1 models consistent." in outcome.out
    assert "reproduced" not in outcome.out
    assert "only runs of the self-check" in command("report", "runs").out
    assert command(*only, "--model", "buir", "--rerun", "none").code == 3

    reference = selfcheck.load_reference(load_paper().file(selfcheck.FILE))
    known = reference.models["bpr"]
    moved = replace(known, values={seed: 0.9 * value for seed, value in known.values.items()})
    shifted = replace(reference, models={**reference.models, "bpr": moved})
    monkeypatch.setattr(selfcheck, "load_reference", lambda directory: shifted)
    outcome = command(*only)
    assert outcome.code == 1
    assert "0 of 1 models consistent, 1 inconsistent (bpr)" in outcome.out


def test_data_sets_that_are_not_there_are_left_out_and_named(command: Command, study: Path) -> None:
    Path("small.toml").write_text(SUITE.replace('["mini"]', '["mini", "elsewhere"]'), encoding="utf-8")
    assert "no data set 'elsewhere'" in refused(command(*RUN, "--dry-run"))
    assert "none of elsewhere is in" in refused(command(*RUN, "--dry-run", "--available", "--dataset", "elsewhere"))
    outcome = command(*RUN, "--available", "--model", "lightgcn")
    assert "left out, since not there: elsewhere" in outcome.err
    assert "- elsewhere: the data set is not there" in (study / "report.md").read_text()


def test_seeds_that_the_suite_does_not_declare_are_run_and_are_no_evidence(command: Command, study: Path) -> None:
    Path("small.toml").write_text(SUITE.replace('["mini"]', '["baby"]'), encoding="utf-8")
    command("data", "export", "mini", "--out", "exported")
    command("data", "import", "exported", "--name", "baby", "--out", "data")
    given = ("--model", "lightgcn", "--data", "data", "--format", "csv")
    command(*RUN, *given)
    assert "does not declare" not in (study / "cells.csv").read_text()
    assert command(*RUN, *given, "--seeds", "1-3").code == 3
    assert "the suite does not declare seed 3" in (study / "cells.csv").read_text()


def test_rerun_none_reports_what_is_there(command: Command, study: Path) -> None:
    settings = ("--set", "epochs=2", "--set", "batch_size=256", "--set", "learning_rate=0.01")
    command("train", "lightgcn", "mini", "--seed", 1, "--threads", 1, *settings)
    outcome = command("reproduce", "small.toml", "--rerun", "none")
    assert outcome.code == 0
    assert "3 of 4 trials, which are not run" in (study / "report.md").read_text(encoding="utf-8")
    assert "Failed" not in outcome.out
    assert "3 not run" in outcome.err
    assert "failed" not in outcome.err
    assert len(result_files()) == 1


def test_too_little_memory_is_a_dash_and_no_failure(
    command: Command, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trial_module.build

    def build(model: type[Any], *arguments: Any) -> Any:
        if model.__name__ == "LightGCN":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, *arguments)

    monkeypatch.setattr(trial_module, "build", build)
    outcome = command(*RUN)
    assert outcome.code == 0
    report = (study / "report.md").read_text(encoding="utf-8")
    (row,) = [line for line in report.splitlines() if line.startswith("| lightgcn")]
    assert [cell.strip() for cell in row.split("|")[2:-1]] == ["-", "-", "-", "-", "0", "out of memory"]
    assert outcome.out.count("Out of memory, a dash below: `bm3 train lightgcn mini") == 2
    assert read_status(study).failed == 2
    monkeypatch.setattr(trial_module, "build", real)
    command(*RUN)  # failed earlier: not tried again
    assert read_status(study).failed == 2
    command(*RUN, "--rerun", "failed")
    assert read_status(study).failed == 0


def test_a_trial_that_fails_makes_the_exit_code(command: Command, study: Path) -> None:
    study_file = SUITE.replace("learning_rate = 0.01", "learning_rate = 1e30")
    Path("small.toml").write_text(study_file, encoding="utf-8")
    outcome = command(*RUN)
    assert outcome.code == 1
    failed = [line for line in outcome.out.splitlines() if "bm3 train lightgcn mini" in line]
    assert len(failed) == 2  # seeds; named once each
    assert all(re.match(r"- Failed: `bm3 train lightgcn mini .*`: .*training diverged", line) for line in failed)
    assert "training diverged" in (study / "study.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_study_stops_its_trials_and_goes_on(command: Command, study: Path, sent: int, code: int) -> None:
    suite = SUITE.replace("epochs = 2,", 'epochs = 400, "early_stopping.patience" = 1000,')
    Path("small.toml").write_text(suite, encoding="utf-8")
    arguments = [sys.executable, "-m", "harness", "reproduce", "small.toml", "--workers", "2", "--threads", "1"]
    process = subprocess.Popen(
        arguments,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_until(lambda: len(list(Path("runs").rglob("checkpoint.safetensors"))) == 2)
    children = [int(one.place.removeprefix("process ")) for one in read_status(study).running]
    process.send_signal(sent)
    _, errors = process.communicate(timeout=GIVE_UP_AFTER)
    assert process.returncode == code, errors
    assert errors.splitlines()[-1] == (
        "bm3: interrupted: finished trials are kept in runs; the same command goes on from there"
    )
    assert len(children) == 2
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
    assert read_status(study).state == "interrupted"
    assert not (study / "report.md").exists()
    runs = list(stored_runs(Path("runs")))
    assert [run.state for run in runs] == ["unfinished"] * 2
    assert all(json.loads((run.path / "run.json").read_text())["training"]["epochs"] == 400 for run in runs)


# --- dry runs ---


FOLLOW = "up to 2 more trials follow from the selection, once the points above are done"
STORE = Path("runs")


@pytest.fixture
def rows(command: Command) -> list[Row]:
    """Those of the suite, whose file is in the working folder."""
    Path("small.toml").write_text(SUITE.replace("epochs = 2", "epochs = 1"), encoding="utf-8")
    return plan(load_suite("small.toml"), None, resolve_device("cpu"))


def dry_run(command: Command, policy: str) -> list[str]:
    before = {path: path.stat().st_mtime_ns for path in STORE.rglob("*")}
    outcome = command("reproduce", "small.toml", "--dry-run", "--device", "cpu", "--rerun", policy)
    assert (outcome.code, outcome.err) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in STORE.rglob("*")} == before
    return outcome.out.splitlines()


def commands(*trials: Trial) -> list[str]:
    return [trial.command for trial in trials]


def ran(rows: list[Row]) -> Mapping[str, RunRecord | None]:
    return {point.key: run_trial(point, STORE) for row in rows[:1] for point in row.points}


def test_finished_trials_are_left_out_and_repeats_of_chosen_points_listed(command: Command, rows: list[Row]) -> None:
    runs = ran(rows)
    left = commands(*rows[0].wanted(runs)[2:], *rows[1].points, *rows[1].wanted({})[1:])
    assert len(left) == len(rows[0].chosen(runs)) + 2
    assert dry_run(command, "missing") == dry_run(command, "failed") == left
    assert dry_run(command, "all") == [*commands(*wanted(rows, {})), FOLLOW]
    assert dry_run(command, "none") == ["nothing is left to run"]
