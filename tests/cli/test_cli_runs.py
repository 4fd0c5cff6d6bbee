"""`bm3 runs`: what the commands print, their exit codes, and what they refuse."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Command, refused

from harness.data.layouts import load_dataset
from harness.evaluation.words import METRICS
from harness.runs.record import RESULT, RUN, RunRecord
from harness.runs.store import CHECKPOINT
from harness.runs.text import run_text
from harness.runs.trial import make_trial, run_trial

SETTINGS = {"epochs": 2, "batch_size": 512, "learning_rate": 0.05}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two finished runs of BPR on mini."""
    out = tmp_path_factory.mktemp("trained")
    for seed in (1, 2):
        run_trial(make_trial("bpr", load_dataset("mini"), "mini", SETTINGS, seed, torch.device("cpu")), out)
    return out


@pytest.fixture
def store(trained: Path, command: Command) -> Path:
    """A copy of it in the folder `runs` of the command's working folder."""
    return Path(shutil.copytree(trained, "runs"))


def run_of(store: Path, seed: int) -> Path:
    (path,) = store.glob(f"mini/*-seed{seed}")
    return path


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def unfinish(path: Path) -> None:
    (path / RESULT).unlink()


# --- show ---


def test_energy_and_what_happened_on_the_device_are_shown(command: Command, store: Path) -> None:
    gpu = {"joules": None, "per_epoch": None, "epochs": 0, "note": "no CUDA device in use"}
    cpu = {"joules": 2500.0, "per_epoch": 40.5, "epochs": 60, "note": None}
    notes = ["other processes took 0.3 of 2 cores on average"]
    edit(run_of(store, 1) / RESULT, energy={"gpu": gpu, "cpu": cpu}, device_notes=notes)
    out = command("runs", "show", "seed1").out
    for part in (r"energy of the gpu, in joules\njoules +–", r"per_epoch +40\.5\n", rf"while it ran\n  {notes[0]}\n"):
        assert re.search(part, out), part


def test_metrics_are_shown_on_request_of_all_users_or_of_some(command: Command, store: Path) -> None:
    run = RunRecord.read(run_of(store, 1))
    recorded = run.outcome.test
    usual = command("runs", "show", run.path.name).out
    assert "precision@20" in usual
    assert "novelty" not in usual
    asked = command("runs", "show", run.path.name, "--metrics", "novelty@10,MRR").out
    assert re.findall(r"^(\w+@\d+) +\S+ +(\S+)$", asked, re.MULTILINE) == [
        (name, f"{recorded[name]:.4f}") for name in ("novelty@10", "mrr@5", "mrr@10", "mrr@20", "mrr@50")
    ]
    users, values = run.per_user("recall@20") or pytest.fail("no hits")
    some = users[values > 0][:3]
    Path("some.txt").write_text("\n".join(["user_id", *map(str, some), "nobody", ""]))
    Path("some.csv").write_text("\n".join(["item_id,user_id", *(f"1,{user}" for user in some)]))
    of_some = command("runs", "show", run.path.name, "--metrics", "R@20,novelty@20", "--users", "some.txt")
    assert of_some.err == (
        "note: some.txt: 3 of 4 ids are users of mini, 3 of them tested; first that is none: 'nobody'\n"
    )
    assert "results of 3 users" in of_some.out
    mean = values[values > 0][:3].mean()
    assert re.search(rf"recall@20 +– +{mean:.4f}\nnovelty@20 +– +–\n", of_some.out)
    assert f"{mean:.4f}" in command("runs", "show", run.path.name, "--metrics", "R@20", "--users", "some.csv").out
    command("report", store, "--metrics", "hit@10,coverage@20", "--users", "some.txt")
    report = (store / "report.md").read_text(encoding="utf-8")
    assert "Of 3 users in some.txt alone." in report
    assert re.search(r"hit@10 \| +coverage@20 \|", report)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--metrics", "mrrr"], "no metric here 'mrrr'; nearest: mrr"),
        (["--users", "none.txt"], "0 of 1 ids are users of mini, 0 of them tested; first that is none: 'nobody'"),
        (["--users", "missing.txt"], "'missing.txt' does not exist"),
    ],
)
def test_metrics_and_users_that_are_not_there_are_refused(
    command: Command, store: Path, words: list[str], says: str
) -> None:
    Path("none.txt").write_text("nobody\n")
    assert says in refused(command("runs", "show", run_of(store, 1).name, *words))
    assert says in refused(command("report", store, *words))


def test_a_run_older_than_a_metric_has_what_follows_from_its_hits(command: Command, store: Path) -> None:
    run = RunRecord.read(run_of(store, 1))
    test = run.outcome.test
    earlier = {name: value for name, value in test.items() if name.partition("@")[0] in METRICS}
    edit(run.path / RESULT, test=earlier, digests={})
    asked = command("runs", "show", run.path.name, "--metrics", "hit@10,mrr@20").out
    assert re.search(rf"hit@10 +– +{test['hit@10']:.4f}\nmrr@20 +– +{test['mrr@20']:.4f}\n", asked)
    assert "no metric here 'coverage'" in refused(command("runs", "show", run.path.name, "--metrics", "coverage"))
    assert command("runs", "verify").code == 0


def test_a_run_that_went_on_elsewhere_says_what_changed(store: Path) -> None:
    once = {"after_epoch": 1, "when": "2026-01-02T03:04:05+00:00", "changed": {"torch": ["2.6", "2.7"]}}
    edit(run_of(store, 1) / RUN, resumed=[once, {**once, "changed": {}}])
    text = run_text(RunRecord.read(run_of(store, 1)), "key")
    assert "after epoch 1, 2026-01-02 03:04, elsewhere (torch: 2.6 -> 2.7)" in text
    assert "after epoch 1, 2026-01-02 03:04, in the same environment" in text


def test_the_same_results_from_elsewhere_are_the_same_bits(command: Command, store: Path) -> None:
    shutil.copytree(store, "again")
    other = run_of(Path("again"), 1)
    edit(other / RUN, environment={"torch": "1.0"})
    outcome = command("runs", "diff", "seed1", other)
    assert outcome.code == 0
    assert "The results are the same bits." in outcome.out
    assert "Nothing" not in outcome.out
    assert "not recorded" in outcome.out
    edit(other / RESULT, best_epoch=77)
    assert command("runs", "diff", "seed1", other).code == 1
    assert command("runs", "diff", "seed1", "seed2").code == 3  # another seed was asked for


# --- gc ---


def test_what_goes_is_said_with_its_size(command: Command, store: Path) -> None:
    (run_of(store, 1) / CHECKPOINT).write_bytes(b"x" * 2048)
    unfinish(run_of(store, 2))
    assert command("runs", "gc", "runs").out.splitlines()[-1] == "2.0 kB are free"
    assert not (run_of(store, 1) / CHECKPOINT).exists()
    assert "(unfinished, " in command("runs", "gc", "--unfinished").out
    assert list(store.glob("*/*")) == [run_of(store, 1)]
    assert command("runs", "gc", "--unfinished").out == "Nothing to remove in runs.\n"


# --- verify ---


def test_notes_are_no_damage(command: Command, store: Path) -> None:
    (store / "mini").rename(store / "elsewhere")
    outcome = command("runs", "verify")
    assert outcome.code == 0
    assert outcome.out.startswith("note: lies in no folder called mini")
