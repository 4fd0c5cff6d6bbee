"""`import harness`: the names that stay, the same bits as the command, and the page on it as it stands."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
from command_line import Command, refused

import harness
from harness.data.dataset import Dataset
from harness.runs.record import RunRecord

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BM3_DATA", raising=False)


def test_the_names_that_stay_are_there_and_explained_and_the_package_loads_none_of_them() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in harness.__all__:
        assert getattr(harness, name).__doc__, name
        assert name in page or name in ("Embeddings", "Recommendation"), name
    said = "import sys, harness; print(any(n in sys.modules for n in ('torch', 'numpy', 'click')))"
    assert subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True).stdout == "False\n"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = harness.nothing


def test_the_page_runs_as_it_stands() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert sum(bool(line.strip()) for line in program.splitlines()) <= 15
    exec(compile(program.replace("epochs=20", "epochs=2"), str(PAGE), "exec"), {})
    assert Path("curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_notebook_has_the_pages_lines() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    cells = json.loads((PAGE.parents[1] / "examples" / "own_data.ipynb").read_text(encoding="utf-8"))["cells"]
    assert "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code") == program.strip()


def test_the_command_and_the_function_give_the_same_bits(command: Command, tmp_path: Path) -> None:
    settings = {"n_layers": 1, "batch_size": 512}
    run = harness.train("bm3", "mini", settings=settings, seed=3, epochs=2, device="cpu", out=tmp_path / "api")
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command("train", "bm3", "mini", *words, "--seed", 3, "--epochs", 2, "--device", "cpu", "--out", tmp_path / "cli")
    other = RunRecord.read(tmp_path / "cli" / run.path.relative_to(tmp_path / "api"))
    assert run.record.outcome.state_hash == other.outcome.state_hash
    assert (run.metrics, run.record.command) == (other.outcome.test, other.command)
    (again,) = harness.load_runs(tmp_path / "api")
    same = harness.train("bm3", "mini", settings=settings, seed=3, epochs=2, device="cpu", out=tmp_path / "api")
    assert again.record.started == same.record.started


PAIRS = [(f"u{user}", f"i{(user + k) % 12}") for user in range(30) for k in (1, 2, 4, 7, 8)]
SOURCES = {
    "pandas": lambda: pd.DataFrame(PAIRS, columns=["user_id", "item_id"]),
    "array": lambda: np.array(PAIRS),
    "list": lambda: PAIRS,
    "file": lambda: Path(pd.DataFrame(PAIRS, columns=["user_id", "item_id"]).to_csv("t.csv", index=False) or "t.csv"),
}
VECTORS = np.random.default_rng(1).normal(size=(12, 4))
IDS = [f"i{n}" for n in range(12)]
FEATURES = {
    "mapping": dict(zip(IDS, VECTORS, strict=True)),
    "frame": pd.DataFrame(VECTORS, index=IDS),
    "pair": (IDS, VECTORS),
}


@pytest.mark.parametrize("missing", [pd.NA, pd.NaT, None], ids=repr)
def test_a_missing_id_in_a_pair_is_nobodys(missing: object) -> None:
    with pytest.raises(harness.DataError, match="no user: fill it in"):
        harness.import_data([*PAIRS, (missing, "i1")], "shop")


def test_a_data_set_is_the_same_in_whatever_form_it_comes() -> None:
    found = [harness.import_data(make(), name) for name, make in SOURCES.items()]
    found += [harness.import_data(PAIRS, name, features={"image": one}) for name, one in FEATURES.items()]
    hashes = [one.content.content_hash for one in found]
    assert len({*hashes[: len(SOURCES)]}) == len({*hashes[len(SOURCES) :]}) == 1
    assert found[-1].items[3] in IDS
    item = [*found[-1].items].index("i5")
    np.testing.assert_allclose(found[-1].content.features["visual"][item], VECTORS[5], rtol=1e-6)
    assert harness.load_data("pair").users == found[-1].users
    # Once more it is the one that is there; another of the name is refused.
    assert harness.import_data(PAIRS, "pair", features={"image": FEATURES["pair"]}).content.content_hash == hashes[-1]
    with pytest.raises(harness.DataError, match="pair: exists already"):
        harness.import_data(PAIRS[:-5], "pair")


def test_corrected_ids_are_another_data_set_and_another_model() -> None:
    kept = harness.train("bpr", harness.import_data(PAIRS, "shop"), epochs=1)
    fixed = [(user, f"i{int(item[1:]) + 1}") for user, item in PAIRS]
    with pytest.raises(harness.DataError, match=r"shop: exists already, with other ids"):
        harness.import_data(fixed, "shop")
    shutil.rmtree("data/shop")
    shop = harness.import_data(fixed, "shop")
    for call in (lambda: harness.train("bpr", shop, epochs=1), harness.load_run(kept.path).recommend):
        with pytest.raises(harness.DataError, match=r"its model calls item 0 'i1', and the data set now 'i2': .*rerun"):
            call()
    assert "i12" in harness.train("bpr", shop, epochs=1, rerun=True).embeddings().item_ids


NUMBERS = pd.DataFrame([(int(user[1:]), int(item[1:])) for user, item in PAIRS], columns=["user", "item"])
THREE = {"train": slice(0, None, 2), "valid": slice(1, None, 4), "test": slice(3, None, 4)}


@pytest.mark.parametrize(
    ("one", "other", "named"),
    [
        (NUMBERS, NUMBERS.astype(float), {}),
        (NUMBERS, NUMBERS.to_numpy(float), {}),
        (NUMBERS, NUMBERS.set_axis(["1", "2"], axis="columns"), {"user": "1", "item": "2"}),
        (NUMBERS, NUMBERS.set_axis([1, 0], axis="columns"), {"user": "1", "item": "0"}),
        (
            {part: NUMBERS[rows].to_numpy() for part, rows in THREE.items()},
            {part: NUMBERS[rows][["item", "user"]] for part, rows in THREE.items()},
            {},
        ),
    ],
    ids=["float frame", "float array", "columns of digits", "columns of numbers", "parts"],
)
def test_names_decide_on_columns_and_a_whole_number_is_one_id(
    one: object, other: object, named: dict[str, str]
) -> None:
    vectors = {"image": dict(enumerate(VECTORS))}
    first, second = (
        harness.import_data(one, "one", features=vectors),
        harness.import_data(other, "other", features=vectors, **named),
    )
    assert first.content.content_hash == second.content.content_hash
    assert [*first.items] == [*second.items]


@pytest.mark.parametrize("column", ["item", "id", "index"])
def test_a_column_of_ids_is_no_feature(column: str) -> None:
    frame = pd.DataFrame(VECTORS[::-1]).assign(**{column: IDS[::-1]})
    found = harness.import_data(PAIRS, "one", features={"image": frame})
    wanted = harness.import_data(PAIRS, "other", features={"image": (IDS, VECTORS)})
    assert found.content.content_hash == wanted.content.content_hash


def test_parts_and_numbered_rows_of_vectors_come_as_arrays(clustered: Dataset) -> None:
    parts = {part: clustered.part(part) for part in ("train", "valid", "test")}
    found = harness.import_data(parts, "parts", features={"text": clustered.features["text"]})
    own = [*map(int, found.items)]
    np.testing.assert_array_equal(found.content.features["text"], clustered.features["text"][own])
    assert len(found.content.test) == len(clustered.test)


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (lambda: harness.train("bm4", "mini"), ["train", "bm4", "mini"]),
        (lambda: harness.train("bpr", "mini", settings={"layers": 8}), ["train", "bpr", "mini", "--set", "layers=8"]),
        (lambda: harness.load_data("nowhere"), ["data", "stats", "nowhere"]),
        (lambda: harness.load_run("nothing"), ["runs", "show", "nothing"]),
        (lambda: harness.judge("runs", "nobody"), ["tables", "3", "--paper", "nobody"]),
    ],
)  # fmt: skip
def test_errors_say_what_the_command_says(command: Command, call: Callable[[], object], arguments: list[str]) -> None:
    with pytest.raises(harness.BM3Error) as told:
        call()
    assert refused(command(*arguments)) == f"bm3: {told.value}"


WRONG_IMPORTS: list[dict[str, object]] = [
    {"name": 5},
    {"user": 1},
    {"features": None},
    {"features": {5: VECTORS}},
    {"fill": "median"},
    {"k_core": 0},
    {"k_core": 2.5},
    {"split_seed": -3},
    {"min_rating": float("nan")},
]
WRONG_TRAININGS: list[dict[str, object]] = [
    {"model": None},
    {"data": NUMBERS},
    {"threads": 0},
    {"epochs": 2.0},
    {"epochs": 2, "settings": {"epochs": 2}},
    {"seed": True},
    {"settings": {1: 2}},
]


@pytest.mark.parametrize(
    ("function", "given"),
    [
        *((harness.import_data, {"source": PAIRS, "name": "bad", **given}) for given in WRONG_IMPORTS),
        *((harness.train, {"model": "bpr", "data": "mini", **given}) for given in WRONG_TRAININGS),
        (harness.judge, {"runs": 5}),
        (harness.judge, {"runs": [5]}),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_it(function: Callable[..., object], given: dict[str, object]) -> None:
    with pytest.raises(harness.ConfigError, match=r"^\w+ is .*: ") as told:
        function(**given)
    assert "\n" not in str(told.value)
    assert not Path("data").exists()


@pytest.mark.parametrize(
    ("source", "features", "message"),
    [
        (Path("nothing.csv"), {}, "nothing.csv: no such file"),
        (np.zeros((3, 3)), {}, r"bad: source has shape \[3, 3\], needed are pairs"),
        (pd.DataFrame({"a": [1], "b": [2]}), {}, "bad: which column holds the users"),
        (PAIRS, {"image": {"i1": [1.0]}}, "11 of 12 items have no row"),
        (PAIRS, {"image": {"i1": [1.0], "i2": [1.0, 2.0]}}, "no vectors of one length"),
        (PAIRS, {"image": {"i1": ["x"]}}, "no vectors of one length"),
        (PAIRS, {"image": {"i1": [1j]}}, "no vectors of one length.*complex"),
        (PAIRS, {"image": None}, "no vectors of one length"),
        (PAIRS, dict.fromkeys(("image", "visual"), (IDS, VECTORS)), "under another name of 'visual'"),
        (np.array([(1.0, 2.0), (np.nan, 2.0)]), {}, "bad, row 1: 'nan' is no id"),
        (pd.DataFrame(PAIRS, columns=["user", "user"]), {}, "two columns of one name: user, user"),
        ({"train": pd.DataFrame(PAIRS, columns=["user", "item"]), "test": PAIRS}, {}, "no column 'user' among user_id"),
    ],
)
def test_what_cannot_be_imported_leaves_nothing(source: object, features: dict[str, object], message: str) -> None:
    with pytest.raises(harness.BM3Error, match=message):
        harness.import_data(source, "bad", features=features)
    assert not Path("data").exists()


def test_runs_are_judged_with_tables_and_pictures(tmp_path: Path) -> None:
    runs = [harness.train("bpr", "mini", seed=seed, epochs=2, keep_model=False) for seed in (1, 2)]
    found = harness.judge(runs)
    assert "BPR on mini" in found.headline[0]
    (cell,) = [one for one in found.cells if one["metric"] == "R@20"]
    assert cell["values"] == [run.metrics["recall@20"] for run in runs]
    assert {"mini", "Environment"} <= found.tables().keys()
    assert isinstance(found.figures()["mini-learning"], matplotlib.figure.Figure)
    assert harness.judge("runs").cells == found.cells
    assert [path.name for path in found.write(tmp_path / "report")] == ["report.md"]
    rows = pd.DataFrame(runs[0].epochs)
    assert rows["epoch"].tolist() == [1, 2]
    assert rows["valid.recall@20"].max() == runs[0].record.outcome.valid["recall@20"]
    with pytest.raises(harness.DataError, match="was not kept"):
        runs[0].recommend([0])
    (runs[0].path / "result.json").unlink()
    with pytest.raises(harness.DataError, match="is unfinished, so it has no metrics"):
        _ = harness.load_run(runs[0].path).metrics


def test_values_of_another_kind_are_refused_as_the_command_refuses_words(tmp_path: Path) -> None:
    run = harness.train("bpr", "mini", epochs=1, seed=np.int64(1), device="cpu", out=tmp_path)
    assert len(run.recommend(["1"], k=np.int64(2))) == 2
    for call, message in (
        (lambda: run.recommend(["1"], k=2.5), "k is 2.5: needed is a whole number"),
        (lambda: run.recommend("1"), "give a list of ids, such as"),
        (lambda: harness.train("bpr", "mini", seed="x"), "seed is 'x'"),
        (lambda: harness.judge(run).write(tmp_path / "report", ["docx"]), "no format 'docx'; nearest: "),
    ):
        with pytest.raises(harness.ConfigError, match=message):
            call()
    assert not (tmp_path / "report").exists()


def test_items_without_a_vector_are_filled_where_that_is_asked_for_and_messages_name_arguments() -> None:
    pairs = np.array([(user, item) for user in range(12) for item in range(6)])
    some = {"image": {item: [float(item), 1.0] for item in [1, 2, 3, 4, 5, 99]}}
    with pytest.raises(harness.DataError, match="fill=") as told:
        harness.import_data(pairs, "shop", features=some)
    assert told.value.__suppress_context__
    filled = harness.import_data(pairs, "shop", features=some, fill="mean")
    np.testing.assert_allclose(filled.content.features["visual"][0], [3, 1])
    assert {"image: rows of other items, left out: 1", "image: items without a row, filled with the mean: 1"} <= {
        *filled.notes
    }
    with pytest.raises(harness.DataError, match="shop: exists already, with other content"):
        harness.import_data(pairs, "shop", features=some, fill="zero")
