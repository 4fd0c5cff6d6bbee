"""The command line: one line and exit code 2 for bad input, finished runs that stay, and Ctrl-C."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from command_line import Command, leaves, refused
from refusals import Features, Write

from harness.cli import main as cli


@pytest.fixture
def shop(tmp_path: Path, write_npz: Write, small_parts: Any, small_features: Features) -> Path:
    """A tiny data set; its parent can be given as --data."""
    return write_npz(tmp_path / "data sets" / "shop", small_parts, small_features)


def only_run(out: Path) -> Path:
    """The directory of the one run below `out`."""
    (description,) = out.rglob("run.json")
    return description.parent


# --- bad input ---


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_refused_with_the_remedy(command: Command) -> None:
    assert "--device cpu" in refused(command("train", "bpr", "mini", "--device", "cuda"))


def test_bm3_without_features_says_what_to_add_and_what_does_without(command: Command, shop: Path) -> None:
    for table in shop.glob("*.npy"):
        table.unlink()
    line = refused(command("train", "bm3", "shop", "--data", shop.parent, "--epochs", 1))
    add = "bm3 data add-features shop FILE.npy --modality visual"
    for part in ("at least one modality", add, "bpr, buir", "lightgcn", "--set modalities=none"):
        assert part in line
    assert command("train", "bpr", shop, "--epochs", 1).code == 0


def test_a_training_that_diverges_has_failed(command: Command, shop: Path) -> None:
    code, _, told = command("train", "bpr", shop, "--epochs", 3, "--set", "learning_rate=1e30")
    assert (code, "training diverged" in told) == (1, True)


NAMING = {
    " ".join(words): (words, one)
    for words, one in leaves(cli.bm3)
    if any(isinstance(parameter, click.Argument) for parameter in one.params)
}


@pytest.mark.parametrize("name", NAMING)
@pytest.mark.parametrize("given", ["n" * 400, "loop", "9" * 5000, "caf\udce9"], ids=["long", "loop", "number", "bytes"])
def test_a_name_that_cannot_be_is_one_line(command: Command, name: str, given: str) -> None:
    words, one = NAMING[name]
    Path("loop").symlink_to("other")
    Path("other").symlink_to("loop")
    arguments = [given for parameter in one.params if isinstance(parameter, click.Argument)]
    options = [parameter.opts[0] for parameter in one.params if parameter.required and parameter.opts[0][0] == "-"]
    outcome = command(*words, *arguments, *(text for option in options for text in (option, "x")))
    assert len(outcome.err) < 1000
    if outcome.code == 2:  # a folder that is not there may also be an empty store, or be made
        refused(outcome)
        assert sorted(path.name for path in Path().iterdir()) == ["loop", "other"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "embedding_size=1000000000000000000"], "embedding_size=1000000000000000000: at most 2,147,483,647"),
        (["--threads", "1000000000"], "'--threads': 1000000000 is not in the range"),
        (["--seed", "9" * 5000], "'--seed'"),
        (["--out", "n" * 400], "File name too long; use a shorter name"),
    ],
)
def test_a_number_or_a_folder_that_cannot_be_is_one_line(command: Command, arguments: list[str], said: str) -> None:
    assert said in refused(command("train", "bpr", "mini", "--epochs", 1, *arguments))


# --- runs ---


def test_a_run_is_stored_with_what_was_asked_each_epoch_and_the_result(command: Command, shop: Path) -> None:
    outcome = command("train", "BM3", "shop", "--data", shop.parent, "--epochs", 3, "--seed", 5, "--out", "store")
    assert outcome.code == 0
    run = only_run(Path("store"))
    described = json.loads((run / "run.json").read_text(encoding="utf-8"))
    epochs = [json.loads(line) for line in (run / "epochs.jsonl").read_text(encoding="utf-8").splitlines()]
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert (described["model"], described["seed"], described["training"]["epochs"]) == ("bm3", 5, 3)
    assert described["dataset"]["users"] == 6
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    assert result["valid"] == epochs[result["best_epoch"] - 1]["valid"]
    assert f"{result['test']['recall@20']:.4f}" in outcome.out
    assert str(run) in outcome.out


def test_the_stored_command_repeats_the_run(command: Command, shop: Path) -> None:
    arguments = ["--set", "reg_weight=0.5", "--set", "early_stopping.rounding=none", "--set", "batch_size=5"]
    assert command("train", "bpr", shop, *arguments, "--epochs", 2, "--seed", 7, "--out", "a").code == 0
    run = only_run(Path("a"))
    stored = json.loads((run / "run.json").read_text(encoding="utf-8"))["command"]
    repeat = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", stored)]
    assert repeat[0] == "bm3"
    assert command(*repeat[1:], "--out", "b").code == 0
    assert only_run(Path("b")).relative_to("b") == run.relative_to("a")


def test_the_same_command_twice_shows_the_run_and_does_not_repeat_it(command: Command, shop: Path) -> None:
    first = command("train", "bpr", shop, "--epochs", 2)
    files = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in only_run(Path("runs")).iterdir()}
    assert {path.name for path in files} == {"run.json", "epochs.jsonl", "hits.npz", "result.json"}
    second = command("train", "bpr", shop, "--epochs", 2)
    assert (second.code, second.out) == (0, first.out)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in only_run(Path("runs")).iterdir()} == files


def test_a_dry_run_names_the_run_and_trains_nothing(command: Command, shop: Path) -> None:
    arguments = ("train", "bpr", shop, "--epochs", 2)
    before = command(*arguments, "--dry-run")
    assert before.code == 0
    assert not Path("runs").exists()
    run = str(only_run(Path("runs"))) if command(*arguments).code == 0 else ""
    assert f"{run} would be trained, at most 2 epochs" in before.out
    assert f"{run} is finished" in command(*arguments, "--dry-run").out
    assert command("train", "bpr", shop, "--set", "typo=1", "--dry-run").code == 2


def test_another_seed_or_setting_is_another_run_and_a_spelled_out_default_is_none(command: Command, shop: Path) -> None:
    other = ["--seed 1", "--set reg_weight=0.3", "--set learning_rate=0.01"]
    for options in ["", *other, "--set early_stopping.rounding=4", "--set embedding_size=64"]:
        assert command("train", "bpr", shop, "--epochs", 1, *options.split()).code == 0
    assert len(list(Path("runs").rglob("result.json"))) == 1 + len(other)


def test_without_a_validation_part_the_number_of_epochs_is_asked_for_and_told(
    command: Command, tmp_path: Path, write_npz: Write, small_parts: Any
) -> None:
    small_parts["train"] = np.concatenate([small_parts["train"], small_parts.pop("valid")])
    shop = write_npz(tmp_path / "shop", {**small_parts, "valid": np.empty((0, 2), int)})
    assert "no validation part, so nothing ends training early: say" in refused(command("train", "bpr", shop))
    assert command("train", "bpr", shop, "--epochs", 3).code == 0
    assert command("train", "bpr", shop, "--epochs", 3, "--set", "reg_weight=0.1").code == 0
    assert command("runs", "verify").code == 0
    run = next(path.parent for path in Path("runs").rglob("result.json"))
    assert "3, of which the last is tested: there is no validation part" in command("runs", "show", run.name).out
    assert command("replay", run, "--threads", 1).code == 0
    assert command("profile", "bpr", shop, "--steps", 1).code == 0
    assert command("report", "runs", "--format", "md,html,tex,csv,json").code == 0
    text = Path("runs/report.md").read_text(encoding="utf-8")
    assert "There is no validation part: each training took" in text
    assert "Selection" not in text  # nothing was chosen, above all not on test
    Path("grid.toml").write_text(
        f'title = "x"\ndatasets = ["{shop}"]\nseeds = [1]\ntraining.epochs = 1\n[[experiments]]\nmodel = "bpr"\n'
        "grid = { reg_weight = [0.1, 0.2] }\n"
    )
    assert "without a validation part nothing chooses" in refused(command("reproduce", "grid.toml"))


def test_another_stopping_metric_is_another_run_and_the_usual_one_is_none(command: Command, shop: Path) -> None:
    for words in ("", "--set early_stopping.metric=R@20", "--set early_stopping.metric=N@10"):
        assert command("train", "bpr", shop, "--epochs", 2, *words.split()).code == 0
    shown = command("train", "bpr", shop, "--epochs", 2, "--metrics", "mrr@5,coverage").out
    assert re.search(r"test: mrr@5 \d\.\d{4}  coverage@5 \d", shown)
    assert "no metric here 'mmr'" in refused(command("train", "bpr", shop, "--epochs", 3, "--metrics", "mmr"))
    usual, other = sorted(Path("runs").rglob("run.json"), key=lambda path: "ndcg@10" in path.read_text())
    assert "metric" not in json.loads(usual.read_text())["training"]["early_stopping"]
    assert json.loads(other.read_text())["training"]["early_stopping"]["metric"] == "ndcg@10"
    assert command("runs", "verify").code == 0
    assert "early_stopping.metric  recall@20  ndcg@10" in command("runs", "diff", usual.parent, other.parent).out
    assert "(validation N@10 " in command("runs", "show", other.parent.name).out


# --- help ---


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command, that of the group itself (none) first."""
    yield path
    for name, child in getattr(group, "commands", {}).items():
        yield from commands(child, (*path, name))


@pytest.mark.parametrize("words", list(commands(cli.bm3)), ids=" ".join)
def test_every_command_explains_itself_with_an_example(command: Command, words: tuple[str, ...]) -> None:
    outcome = command(*words, "-h")
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.startswith("Usage: ")
    if words != ("data",):  # a group of its own, whose commands have examples
        assert re.search(r"^ +bm3 " + " ".join(words), outcome.out.split("\n", 1)[1], re.MULTILINE)


def test_the_version_is_that_of_the_distribution(command: Command) -> None:
    from importlib.metadata import version

    assert version("bm3-harness") in command("--version").out


def test_variants_of_a_model_are_its_own_and_those_of_training(command: Command) -> None:
    out = command("variants", "mmgcn").out
    assert "mmgcn: training = as_published | as_authored" in out
    assert "early_stopping.rounding = 4 | none" in out
    assert "grcn" not in out


@pytest.mark.parametrize("words", ["--to there", "--to=there"])
def test_an_old_spelling_of_an_option_goes_on_working_and_says_the_new_one(command: Command, words: str) -> None:
    outcome = command("report", "nowhere", *words.split())
    assert outcome.code == 2
    assert outcome.err.splitlines()[0] == "--to is now --out; the old spelling goes with the next release"
    assert "nowhere: no such folder" in outcome.err
