"""A kept model gives what the run was measured by, and is refused where anything about it is otherwise."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import Command, refused

from bm3 import BM3Error, ConfigError, DataError
from harness.data.dataset import Dataset, checked_dataset
from harness.data.layouts import load_dataset
from harness.evaluation.lists import evaluate_lists
from harness.ingest.exporting import export
from harness.models.registry import models
from harness.runs.clean import remove, unneeded
from harness.runs.recommend import LISTS, KeptModel, write_embeddings, write_lists
from harness.runs.record import CARD, MODEL, RunRecord
from harness.runs.trial import make_trial, run_trial
from harness.runs.verify import verify

CPU = torch.device("cpu")
USERS, ITEMS = [f"u{n}" for n in range(60)], [f"B{39 - n}" for n in range(40)]
SETTINGS = {"epochs": 2, "batch_size": 512}
Settings = dict[str, Any]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, clustered: Dataset) -> Path:
    """A folder of data sets: `clustered` with ids of its own."""
    root = tmp_path_factory.mktemp("data")
    export(clustered, root / "clustered", USERS, ITEMS)
    return root


@pytest.fixture(scope="module")
def train(data: Path) -> Callable[..., RunRecord]:
    def run(
        out: Path, model: str = "bpr", settings: Settings | None = None, *, keep: bool = True, **options: Any
    ) -> RunRecord:
        trial = make_trial(model, load_dataset("clustered", data), "clustered", SETTINGS | (settings or {}), 1, CPU)
        return run_trial(replace(trial, keep=(USERS, ITEMS) if keep else None), out, **options)

    return run


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, train: Callable[..., RunRecord]) -> RunRecord:
    return train(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def own(tmp_path: Path, kept: RunRecord) -> RunRecord:
    """That run, to be changed."""
    shutil.copytree(kept.path, tmp_path / "runs" / "clustered" / kept.path.name)
    return RunRecord.read(tmp_path / "runs" / "clustered" / kept.path.name)


PERMUTED = {"features": "frozen", "vectors.content": "permuted"}  # which the kept model must read again
CASES = [*((model, {}) for model in sorted(models())), ("bm3", PERMUTED)]


@pytest.mark.parametrize(("model", "settings"), CASES)
def test_lists_of_all_users_have_the_runs_own_metrics(
    model: str, settings: Settings, tmp_path: Path, data: Path, clustered: Dataset, train: Callable[..., RunRecord]
) -> None:
    run, without = (train(tmp_path / name, model, settings, keep=name == "runs") for name in ("runs", "without"))
    assert (run.path.name, run.outcome.test) == (without.path.name, without.outcome.test)
    lists = KeptModel.load(run, data).recommend(None, 50)
    write_lists(tmp_path / "lists.csv", lists)
    found = evaluate_lists(tmp_path / "lists.csv", clustered, "test", 50, (USERS, ITEMS))
    assert [note for note in found.findings if "end before rank" not in note] == []  # the data set has 40 items
    assert found.ranking.metrics([5, 10, 20, 50]).items() <= run.outcome.test.items()


@pytest.mark.parametrize("ending", LISTS)
def test_every_form_of_lists_is_read_by_the_evaluation(
    ending: str, tmp_path: Path, data: Path, clustered: Dataset, kept: RunRecord
) -> None:
    write_lists(tmp_path / f"lists{ending}", KeptModel.load(kept, data).recommend(None, 20))
    found = evaluate_lists(tmp_path / f"lists{ending}", clustered, "test", 20, (USERS, ITEMS))
    assert (found.obstacle, found.ranking.metrics([20])["ndcg@20"]) == ("", kept.outcome.test["ndcg@20"])


def test_users_are_asked_for_and_answered_by_their_own_ids(data: Path, clustered: Dataset, kept: RunRecord) -> None:
    lists = KeptModel.load(kept, data).recommend(["u7", "u3"], 4)
    assert [(line.user, line.rank) for line in lists] == [(user, rank) for user in ("u7", "u3") for rank in range(1, 5)]
    seen = {ITEMS[item] for user, item in clustered.train.tolist() if user == 7}
    assert not seen & {line.item for line in lists if line.user == "u7"}
    for form in (np.array, pd.Series, iter):
        assert KeptModel.load(kept, data).recommend(form(["u7", "u3"]), 4) == lists
    for wrong, message in ((["7"], r"1 of 1 users are none of clustered's \(7\)"), (["u1", "x"], r"1 of 2 .*\(x\)")):
        with pytest.raises(DataError, match=message):
            KeptModel.load(kept, data).recommend(wrong)


def test_vectors_are_written_with_their_ids(tmp_path: Path, data: Path, kept: RunRecord) -> None:
    model = KeptModel.load(kept, data)
    found = model.embeddings()
    (best, *_) = model.recommend(["u3"], 1)
    score = found.users[found.user_ids.index("u3")] @ found.items[found.item_ids.index(best.item)]
    assert score == pytest.approx(best.score, rel=1e-5)
    for ending in (".npz", ".parquet"):
        write_embeddings(tmp_path / f"vectors{ending}", found)
    with np.load(tmp_path / "vectors.npz") as stored:
        assert (stored["user_ids"].tolist(), stored["item_ids"].tolist()) == (USERS, ITEMS)
        np.testing.assert_array_equal(stored["items"], found.items)
    from pyarrow.parquet import read_table

    rows = read_table(tmp_path / "vectors.parquet").to_pylist()
    assert [row["id"] for row in rows] == [*USERS, *ITEMS]
    np.testing.assert_array_equal(rows[-1]["vector"], found.items[-1])


def test_what_scores_by_no_dot_products_has_lists_and_no_vectors(
    tmp_path: Path, data: Path, train: Callable[..., RunRecord]
) -> None:
    with pytest.raises(ConfigError, match=r"ease has no vectors: .*bm3 recommend"):
        KeptModel.load(train(tmp_path, "ease"), data).embeddings()


def flipped(place: float) -> Callable[[Path], object]:
    def change(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[int(place * (len(content) - 1))] ^= 1
        file.write_bytes(content)

    return change


DAMAGE: dict[str, Callable[[Path], object]] = {
    **{f"a bit at {place}": flipped(place) for place in (0.001, 0.02, 0.05, 0.3, 0.5, 0.7, 0.95, 1.0)},
    "another item's id": lambda file: file.write_bytes(file.read_bytes().replace(b'"B39"', b'"B40"')),
    "another data set": lambda file: file.write_bytes(file.read_bytes().replace(b"clustered", b"clustared")),
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-9]),
    "empty": lambda file: file.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_refused_in_one_line(
    damage: Callable[[Path], object], own: RunRecord, data: Path, command: Command
) -> None:
    before = (own.path / MODEL).read_bytes()
    damage(own.path / MODEL)
    assert (own.path / MODEL).read_bytes() != before
    said = refused(command("recommend", own.path, "--user", "u3", "--data", data))
    assert f"{own.path / MODEL}: damaged (" in said
    assert "--keep-model --rerun makes it anew" in said
    assert any(str(own.path / MODEL) in problem for problem in verify(own.path).problems)


def test_a_file_of_another_run_is_refused(
    own: RunRecord, data: Path, tmp_path: Path, train: Callable[..., RunRecord]
) -> None:
    shutil.copy(train(tmp_path / "other", "lightgcn").path / MODEL, own.path / MODEL)
    with pytest.raises(DataError, match="is of another run than"):
        KeptModel.load(own, data)


def test_another_data_set_of_the_name_is_refused(tmp_path: Path, own: RunRecord, clustered: Dataset) -> None:
    parts = {part: clustered.part(part) for part in ("train", "valid", "test")}
    export(checked_dataset("clustered", parts, {}, where="test"), tmp_path / "clustered")
    with pytest.raises(DataError, match=r"data set 'clustered' is not the one of .*--data"):
        KeptModel.load(own, tmp_path)


def test_scores_of_another_numerics_version_are_refused(
    own: RunRecord, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models()["bpr"].model, "numerics_version", 9)
    with pytest.raises(ConfigError, match=r"numerics version 1 of bpr, and this is version 9"):
        KeptModel.load(own, data)


def test_without_weights_it_is_said_how_to_make_them(
    tmp_path: Path, data: Path, train: Callable[..., RunRecord], command: Command
) -> None:
    run = train(tmp_path / "runs", keep=False)
    with pytest.raises(DataError, match=r"was not kept; bm3 train bpr .*--keep-model --rerun trains it again"):
        KeptModel.load(run, data)
    asked = ["train", "bpr", "clustered", "--data", data, "--out", tmp_path / "runs", "--seed", 1, "--keep-model"]
    asked += [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    assert "its model was not kept: add --rerun" in refused(command(*asked))
    code, _, told = command(*asked, "--rerun")
    assert (code, "the same bits as the run before, which is now in" in told) == (0, True), told
    again = RunRecord.read(run.path)
    assert again.outcome.state_hash == run.outcome.state_hash
    assert KeptModel.load(again, data).recommend(["u3"], 1)


def test_other_bits_are_told(own: RunRecord, train: Callable[..., RunRecord]) -> None:
    result = own.path / "result.json"
    result.write_text(result.read_text().replace(str(own.outcome.state_hash), "0" * 64))
    told: list[str] = []
    again = train(own.path.parent.parent, rerun=True, tell=told.append)
    assert again.outcome.state_hash != "0" * 64
    assert any(line.startswith("other bits") for line in told)


def test_the_card_says_data_settings_figures_limits_and_what_stands_in_for_vectors(
    tmp_path: Path, clustered: Dataset, kept: RunRecord
) -> None:
    card = (kept.path / CARD).read_text()
    for said in ("clustered: 60 users, 40 items", "- batch_size = 512", kept.command, "Another data set is refused"):
        assert said in card
    assert f"{kept.outcome.test['recall@20']:.4f}" in card
    data = replace(clustered, surrogates=frozenset({"visual"}))
    trial = make_trial("vbpr", data, "clustered", SETTINGS, 1, CPU)
    run = run_trial(replace(trial, keep=(None, None)), tmp_path)
    assert "- Vectors of visual stand in for the original ones (surrogates)" in (run.path / CARD).read_text()
    with pytest.raises(ConfigError, match="whether visual is a surrogate: add --rerun"):
        run_trial(make_trial("vbpr", replace(data, surrogates=frozenset()), "clustered", SETTINGS, 1, CPU), tmp_path)


def test_weights_go_when_asked_and_the_run_stays_in_order(own: RunRecord, data: Path) -> None:
    store = own.path.parent.parent
    assert unneeded(store) == []
    for one in unneeded(store, ["models"]):
        assert remove(store, one)
    assert {file.name for file in own.path.iterdir()} == {"run.json", "epochs.jsonl", "hits.npz", "result.json"}
    assert verify(own.path).problems == ()
    with pytest.raises(BM3Error, match="was not kept"):
        KeptModel.load(own, data)


def test_a_replay_that_is_kept_keeps_the_model_too(
    own: RunRecord, data: Path, tmp_path: Path, command: Command
) -> None:
    code, out, err = command("replay", own.path, "--data", data, "--out", tmp_path / "again")
    assert code == 0, out + err
    assert [file.name for file in sorted((tmp_path / "again").rglob("model.*"))] == [CARD, MODEL]
