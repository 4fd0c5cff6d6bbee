"""One run of a store that cannot be read, whatever is wrong with it, is named and hides no other from any command."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Command

from harness.data.layouts import load_dataset
from harness.paper.study import make_study
from harness.runs.record import EPOCHS, HITS, RESULT, RUN
from harness.runs.trial import make_trial, run_trial

SUITE = """\
title = "three seeds"
datasets = ["mini"]
seeds = [1, 2, 3]
training = { epochs = 2, batch_size = 512 }
[[experiments]]
model = "bpr"
"""
Damage = Callable[[Path], object]


def write(text: str | bytes) -> Damage:
    return lambda file: file.write_bytes(text.encode() if isinstance(text, str) else text)


def edit(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(file: Path) -> None:
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return damage


def edit_arrays(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Damage:
    def damage(file: Path) -> None:
        with np.load(file) as stored:
            arrays = dict(stored)
        np.savez(file, **{**arrays, **change(arrays)})

    return damage


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DESCRIPTIONS: dict[str, tuple[str, Damage]] = {
    "description cut off": (RUN, cut),
    "description no object": (RUN, write("[1]")),
    "description nested too deep": (RUN, write("[" * 100_000)),
    "description lacks data set": (RUN, edit(lambda run: run.pop("dataset"))),
    "description searched what it has not": (RUN, edit(lambda run: run.update(searched=["dropout"]))),
    "description with half a command": (RUN, edit(lambda run: run.update(command="bm3 train 'bpr"))),
    "description missing": (RUN, Path.unlink),
    "result cut off": (RESULT, cut),
    "result lacks a metric": (RESULT, edit(lambda result: result["test"].pop("ndcg@10"))),
    "result without times": (RESULT, edit(lambda result: result.update(timing=None))),
    "result at no time": (RESULT, edit(lambda result: result.update(finished="yesterday"))),
}
EPOCH_FILES: dict[str, tuple[str, Damage]] = {
    "epochs with a broken line": (EPOCHS, lambda file: file.write_text('{"epoch": 1, "lo\n' + file.read_text())),
    "epochs without seconds": (EPOCHS, write('{"epoch": 1, "improved": true}\n')),
}
HIT_FILES: dict[str, tuple[str, Damage]] = {
    "hits cut off": (HITS, cut),
    "hits empty": (HITS, write("")),
    "hits of one user": (HITS, edit_arrays(lambda arrays: {"gaps": np.zeros_like(arrays["gaps"])})),
    "hits of users without items": (HITS, edit_arrays(lambda arrays: {"n_relevant": 0 * arrays["n_relevant"]})),
    "hits of texts": (HITS, edit_arrays(lambda arrays: {"hits": arrays["hits"].astype(str)})),
    "hits of shorter lists": (HITS, edit_arrays(lambda arrays: {"hits": arrays["hits"][:, :2], "length": 16})),
    "hits of another run": (HITS, edit_arrays(lambda arrays: {"hits": ~arrays["hits"]})),
}
ALL = {**DESCRIPTIONS, **EPOCH_FILES, **HIT_FILES}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trials of SUITE, finished, and one of another model."""
    out, mini = tmp_path_factory.mktemp("trained"), load_dataset("mini")
    for model, seed in (("bpr", 1), ("bpr", 2), ("bpr", 3), ("lightgcn", 1)):
        settings = {"epochs": 2, "batch_size": 512}
        run_trial(make_trial(model, mini, "mini", settings, seed, torch.device("cpu")), out)
    return out


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "store"))


def run_of(store: Path, seed: int) -> Path:
    (path,) = store.glob(f"mini/bpr-*-seed{seed}")
    return path


def damage(store: Path, name: str) -> Path:
    """Damage the run with seed 1; the file that is damaged."""
    file, change = ALL[name]
    change(run_of(store, 1) / file)
    return run_of(store, 1) / file


@pytest.mark.parametrize("name", ALL)
def test_the_commands_on_runs_name_it_alone_and_go_on_with_the_others(store: Path, command: Command, name: str) -> None:
    file = damage(store, name)
    verified = command("runs", "verify", store)
    assert verified.code == 1
    assert str(file) in verified.out
    assert "3 in order, 1 damaged" in verified.out
    if name not in HIT_FILES:
        listed, cleaned, tables = (
            command(*words, store) for words in (("runs", "list"), ("runs", "gc"), ("tables", 3))
        )
        assert "4 runs: 3 finished, 1 damaged" in listed.out
        assert f"left, since it is damaged: {file}: " in cleaned.out
        assert run_of(store, 1).is_dir()
        assert f"cannot be read, left out: {file}: " in tables.err
    assert not any(str(run_of(store, seed)) in verified.out for seed in (2, 3))
    shown, compared = (
        command("runs", *words, "--out", store) for words in (("show", "seed2"), ("diff", "seed2", "seed3"))
    )
    assert (shown.code, compared.code) == (0, 3)
    assert run_of(store, 2).name in shown.out
    assert "The results differ" in compared.out
    with_it = command("runs", "diff", run_of(store, 2), run_of(store, 1)), command("replay", run_of(store, 1))
    for outcome in with_it if name not in HIT_FILES else with_it[1:]:
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
        assert str(file) in outcome.err


@pytest.mark.parametrize("name", ALL)
def test_every_format_of_a_report_names_it_and_reports_the_others(store: Path, command: Command, name: str) -> None:
    file = damage(store, name)
    pages = "html,tex," * (name in ("result cut off", "hits cut off"))  # pictures take seconds
    outcome = command("report", store, "--format", f"{pages}md,csv,json")
    assert outcome.code == 0  # nothing is published, and the others have accuracies
    assert f"- Cannot be read, left out: {file}: " in outcome.out
    (named,) = json.loads((store / "cells.json").read_text())["unread"]
    assert named.startswith(f"{file}: ")
    (row,) = (row for row in make_study(store, "x").rows if row.label.startswith("bpr"))
    assert row.seeds == ((2, 3) if name in DESCRIPTIONS else (1, 2, 3))
    assert row.label in (store / "report.md").read_text()
    if pages:
        assert str(file) in (store / "report.html").read_text()


@pytest.mark.parametrize("name", ["result cut off", "epochs with a broken line", "hits cut off"])
def test_a_suite_is_shown_and_reported_with_what_is_left(
    store: Path, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    (tmp_path / "three.toml").write_text(SUITE)
    monkeypatch.setattr("harness.paper.conformance.known_traces", lambda paper, device: [])
    file = damage(store, name)
    shown = command("suite", "show", tmp_path / "three.toml", "--out", store)
    assert shown.code == 0
    told = command("reproduce", tmp_path / "three.toml", "--out", store, "--rerun", "none", "--in-process")
    assert f"Cannot be read, left out: {file}: " in told.out
    if name in DESCRIPTIONS:
        assert f"cannot be read, left out: {file}: " in shown.out
        assert "2 of 3 done" in told.err
