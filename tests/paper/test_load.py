"""What papers hold, that loading them is strict, and that no paper is known in code."""

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from refusals import refusal

import bm3
import harness
from bm3.errors import ConfigError, DataError
from harness.paper.folders import ENTRY_POINT_GROUP, paper_folder, papers
from harness.paper.load import Paper, Tolerances, load_paper, validated_file
from harness.paper.published import COLUMNS, COSTS, STATISTICS, Status, canonical_metric, short_metric
from harness.paper.verdict import Outcome, judge
from harness.runs.settings import flatten
from harness.training.config import TrainingConfig

BM3, DAMRS = load_paper("bm3"), load_paper("damrs")
ROOT = Path(__file__).parents[2]
HEADER = ",".join(COLUMNS)
AMAZON = {"Baby", "Sports", "Electronics"}
NINE = set(BM3.models)
TOOLBOX = NINE - {"BUIR"} | {"SLMRec", "ADDVAE", "FREEDOM"}
AT_10_20 = {"R@10", "R@20", "N@10", "N@20"}
TABLES = [
    (BM3, "paper-table2", AMAZON, {""}, set(STATISTICS)),
    (BM3, "paper-table3", AMAZON, NINE, AT_10_20),
    (BM3, "paper-table4", AMAZON, NINE, set(COSTS)),
    (BM3, "toolbox", AMAZON | {"FoodRec"}, TOOLBOX, AT_10_20 | {"R@50", "N@50"}),
    (DAMRS, "damrs-counts", {"Baby", "Sports", "TikTok"}, {""}, set(STATISTICS[:3])),
    (DAMRS, "damrs-logs", set(DAMRS.datasets), set(DAMRS.models), AT_10_20),
    (DAMRS, "damrs-times", set(DAMRS.datasets), set(DAMRS.models), {"Time (s/epoch)"}),
]
EVERY = [*BM3.values, *DAMRS.values]


def copied(tmp_path: Path, *rows: str, header: str = HEADER) -> Path:
    """The smallest folder of a paper, with two sources, `first` before `second`, and these rows of figures."""
    fields = "".join(f'{field} = "x"\n' for field in ("title", "table", "date", "hardware", "citation"))
    about = (
        'title = "x"\ncitation = "x"\nquestion = "x"\nmodels = ["BM3"]\ndatasets = ["Baby"]\nmetrics = ["R@10"]\n'
        'cutoffs = [10]\nstopping = "R@10"\ntables = []\n[training]\n'
    )
    files = {
        "sources.toml": "".join(f"[{key}]\n{fields}" for key in ("first", "second")),
        "paper.toml": about,
        "tolerances.toml": tolerances_text(),
        "published/table.csv": "\n".join((header, *rows)) + "\n",
    }
    (tmp_path / "published").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def complaint_of(load: Callable[[], object], where: Path | str) -> str:
    """What is said of a file in one line that begins with `where`."""
    message = refusal(load)
    assert message.startswith(f"{where}: ")
    return message


@pytest.mark.parametrize(("paper", "source", "datasets", "models", "metrics"), TABLES, ids=[t[1] for t in TABLES])
def test_every_cell_of_a_table_is_there_once(
    paper: Paper, source: str, datasets: set[str], models: set[str], metrics: set[str]
) -> None:
    cells = Counter((v.dataset, v.model, v.metric) for v in paper.values if v.source == source)
    assert cells == Counter((d, m, k) for d in datasets for m in models for k in metrics)


def test_nothing_else_is_published() -> None:
    assert {value.source for value in EVERY} == {table[1] for table in TABLES} == {*BM3.sources, *DAMRS.sources}
    assert {table.source for paper in (BM3, DAMRS) for table in paper.tables} == {t[1] for t in TABLES} - {"toolbox"}


def test_every_figure_is_plausible_in_its_unit() -> None:
    limits = {"@": (0.005, 0.3), "sparsity_percent": (99, 100), "Time": (0, 1000), "Memory": (0, 1000)}
    limits |= dict.fromkeys(("users", "items", "interactions"), (1000, 1e7))
    for part, (low, high) in limits.items():
        found = [v.value for v in EVERY if part in v.metric and v.value is not None]
        assert found
        assert all(low < value < high for value in found), part


def test_recall_and_ndcg_grow_with_the_cut_off_where_they_must() -> None:
    by_cell = {(v.source, *v.cell): v.value for v in EVERY}
    pairs = [
        (by_cell[source, dataset, model, f"{name}@{smaller}"], value)
        for (source, dataset, model, metric), value in by_cell.items()
        for name, smaller in [(metric.partition("@")[0], {"20": "10", "50": "20"}.get(metric.partition("@")[2]))]
        if smaller and value is not None
    ]
    assert len(pairs) > 200
    assert all(smaller is not None and smaller < value for smaller, value in pairs)


def test_what_is_known_against_figures() -> None:
    """Out of memory is LATTICE on Electronics alone; disputed are three figures, each with a note."""
    assert {(v.dataset, v.model) for v in EVERY if v.status is Status.OUT_OF_MEMORY} == {("Electronics", "LATTICE")}
    disputed = [v for v in EVERY if v.status is Status.DISPUTED]
    assert {(v.model, v.metric) for v in disputed} == {
        ("", "interactions"),
        ("BM3", "Memory (GB)"),
        ("LATTICE", "Memory (GB)"),
    }
    assert all(v.note and v.dataset == "Electronics" for v in disputed)


def test_runs_at_published_values_are_judged_everywhere_but_where_sources_are_apart() -> None:
    disputed = set()
    for paper in (BM3, DAMRS):
        for value in (v for v in paper.values if v.metric in AT_10_20 and v.source in ("paper-table3", "damrs-logs")):
            if value.value is not None:
                verdict = judge([value.value] * 3, paper.cell(*value.cell), paper.tolerances.of(value.metric))
                assert verdict.outcome in {Outcome.REPRODUCED, Outcome.DISPUTED}
                if verdict.outcome is Outcome.DISPUTED:
                    disputed.add((value.dataset, value.model))
    assert disputed == {("Sports", "GRCN"), ("Electronics", "GRCN"), ("Electronics", "MMGCN")}


def test_names_of_metrics_translate_both_ways() -> None:
    assert canonical_metric("R@10") == canonical_metric("Recall@10") == "recall@10"
    assert (short_metric("ndcg@20"), canonical_metric("MAP@5")) == ("N@20", "map@5")
    for metric in {v.metric for v in EVERY}:
        assert short_metric(canonical_metric(metric)) == metric


def test_a_cell_is_found_by_any_spelling_in_the_order_of_the_sources(tmp_path: Path) -> None:
    rows = ["Baby,BM3,R@10,0.2,second,as printed,", "Baby,BM3,R@10,0.10,first,as printed,"]
    cell = load_paper(copied(tmp_path, *rows)).cell("BABY", "bm3", "recall@10")
    assert [(v.source, v.value) for v in cell] == [("first", 0.1), ("second", 0.2)]
    assert load_paper(tmp_path).cell("baby", "bm3", "recall@20") == ()


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("Baby,BM3,R@10,0.1,first,guessed,", "unknown status 'guessed'"),
        *((f"Baby,BM3,R@10,{text},first,as printed,", "not a finite number") for text in ("abc", "nan", "1e999", "-1")),
        ('Baby,BM3,R@10,"1,689",first,as printed,', "'1,689' is not a finite number"),
        ("Baby,BM3,R@10,5.64,first,as printed,", "'5.64' of R@10 is above 1"),
        ("Baby,BM3,R@10,,first,as printed,", "only 'out of memory' has no value"),
        ("Baby,BM3,R@10,0.1,first,out of memory,", "only 'out of memory' has no value"),
        ("Baby,BM3,R@10,0.1,elsewhere,as printed,", "unknown source 'elsewhere'"),
        ("Baby,BM3,R@10,0.1,first,as printed", "6 fields; expected 7"),
        ("Baby,,R@10,0.1,first,as printed,", "the model of an accuracy metric"),
        (",BM3,R@10,0.1,first,as printed,", "dataset, metric and source must be given"),
        ("baby,Bm3,recall@20,0.1,first,as printed,", "the same cell and source as"),
        ("", "0 fields; expected 7"),
    ],
)
def test_a_bad_row_stops_with_one_line_naming_file_and_line(tmp_path: Path, row: str, complaint: str) -> None:
    folder = copied(tmp_path, "Baby,BM3,R@20,0.1,first,as printed,", row)
    assert complaint in complaint_of(lambda: load_paper(folder), f"{folder / 'published' / 'table.csv'}:3")


@pytest.mark.parametrize("header", [HEADER.replace("note", "remark"), HEADER + ",more", "value", ""])
def test_wrong_columns_are_refused_at_line_1(tmp_path: Path, header: str) -> None:
    with pytest.raises(DataError, match=r"table\.csv:1: "):
        load_paper(copied(tmp_path, header=header))


@pytest.mark.parametrize("name", ["sources.toml", "tolerances.toml", "paper.toml", "published/table.csv"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (copied(tmp_path) / name).write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=re.escape(str(tmp_path / name))):
        load_paper(tmp_path)


def tolerances_text(confidence: str = "0.9", relative: str = "0.1", more: str = "") -> str:
    band = 'justification = "x"\nrelative ='
    return (
        f"confidence = {confidence}\nmin_seeds = 3\n[published]\n{band} {relative}\n"
        f'[published.metrics]\n"ndcg@10" = 0.2\n{more}\n[replay]\n{band} 0.3\n'
        '[selfcheck]\njustification = "x"\nerror = 0.01\n'
    )


def test_a_metric_may_have_a_band_of_its_own_and_so_have_replays(tmp_path: Path) -> None:
    tolerances = load_paper(copied(tmp_path)).tolerances
    assert [tolerances.of(metric).relative for metric in ("N@10", "R@10")] == [0.2, 0.1]
    assert (tolerances.replay.relative, tolerances.selfcheck.error) == (0.3, 0.01)
    assert (tolerances.of("N@10").confidence, tolerances.of("N@10").min_seeds) == (0.9, 3)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        *((tolerances_text(relative=text), "published.relative") for text in ("0", "nan", '"0.1"')),
        (tolerances_text(confidence="1.0"), "confidence"),
        (tolerances_text(more='"N@20" = 0.1'), "published.metrics.N@20"),
        (tolerances_text().replace("min_seeds = 3", "min_seeds = 1"), "min_seeds"),
        (tolerances_text().replace('justification = "x"', 'justification = ""'), "justification"),
        ("surplus = 1\n" + tolerances_text(), "surplus"),
        ("confidence =\n", "line 1"),
    ],
)
def test_impossible_tolerances_are_refused_by_file_and_field(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "tolerances.toml"
    path.write_text(text)
    assert field in complaint_of(lambda: validated_file(path, TypeAdapter(Tolerances)), path)


def test_the_defaults_of_training_are_those_that_the_paper_bm3_states() -> None:
    defaults = flatten(asdict(TrainingConfig()))
    # What a machine can do, and no paper states.
    of_machines = {"features_location", "evaluation.block_users"}
    assert BM3.own_settings("bm3", "baby") == {key: value for key, value in defaults.items() if key not in of_machines}


def test_a_paper_states_the_settings_of_its_own_runs() -> None:
    assert BM3.departures("bm3", "baby") == {}
    assert DAMRS.departures("LightGCN", "baby") == {"epochs": 500, "batch_size": 4096, "n_layers": 3}
    assert (DAMRS.test_part("tiktok"), DAMRS.test_part("Baby"), BM3.test_part("Baby")) == ("valid", "test", "test")
    assert (DAMRS.split("baby"), DAMRS.split("TikTok")) == ("random_user", None)
    assert (BM3.proposed, DAMRS.proposed) == ("BM3", None)


def test_a_paper_is_found_by_name_by_folder_and_as_an_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = copied(tmp_path)
    assert list(papers()) == ["bm3", "damrs"]
    assert load_paper(mine).name == tmp_path.name
    with pytest.raises(ConfigError, match="no paper and no folder 'damsr'; nearest: damrs"):
        paper_folder("damsr")
    (tmp_path / "mine.py").write_text(f"PAPER = {str(mine)!r}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [
        importlib.metadata.EntryPoint(n, v, ENTRY_POINT_GROUP) for n, v in (("mine", "mine:PAPER"), ("m2", "mine"))
    ]
    monkeypatch.setattr("harness.paper.folders.entry_points", lambda group: points)
    assert load_paper("mine").folder == load_paper("m2").folder == mine
    broken = importlib.metadata.EntryPoint("mine", "nowhere:X", ENTRY_POINT_GROUP)
    monkeypatch.setattr("harness.paper.folders.entry_points", lambda group: [broken])
    with pytest.raises(ConfigError, match=r"entry point 'mine' \(nowhere:X\) is no folder of a paper"):
        papers()


def test_a_folder_that_is_called_as_a_shipped_paper_is_itself_and_models_of_grids_have_any_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = Path(shutil.copytree(paper_folder("damrs"), "damrs"))
    (mine / "grids.toml").write_text("[LightGCN]\nn_layers = [1, 7]\n")
    for one in ("./damrs", Path("damrs")):
        assert load_paper(paper_folder(Path(one))).grids == {"lightgcn": {"n_layers": (1, 7)}}
    assert load_paper("damrs").folder == paper_folder("damrs") != mine


def test_a_wheel_carries_the_papers(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = f"WheelBuilder({str(ROOT)!r}).build(directory={str(tmp_path)!r})"
    code = f"from hatchling.builders.wheel import WheelBuilder; print(*{build})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = set(zipfile.ZipFile(done.stdout.strip()).namelist())
    shipped = [path for path in (ROOT / "expected").rglob("*") if path.is_file()]
    assert len(shipped) > 40
    assert {f"harness/{path.relative_to(ROOT).as_posix()}" for path in shipped} <= names
    assert "harness/tools/papers/skeleton/paper.toml" in names


def constants(path: Path) -> Iterator[tuple[int, object]]:
    """Literals of a file with their lines, without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in told:
            yield node.lineno, node.value


CODE = [path for package in (bm3, harness) for path in sorted(Path(package.__path__[0]).rglob("*.py"))]


def test_no_published_accuracy_is_typed_into_code() -> None:
    published = {v.value for v in EVERY if "@" in v.metric and v.value is not None}
    assert len(published) > 300
    assert {"load.py", "verdict.py", "model.py", "bpr.py"} <= {path.name for path in CODE}
    typed = {f"{path}:{line}" for path in CODE for line, value in constants(path) if value in published}
    assert not typed


NAMES = {v.dataset for v in EVERY} | {v.model for v in EVERY if v.model}
NAMED = "|".join(sorted(NAMES | {name.lower() for name in NAMES - {"BM3"}}, key=len, reverse=True))
KNOWN = {
    "tools/scaling/parts.py": {"lattice"},  # parts are of the models' code
}
"""Texts that may name a model or a data set, by file and why; files of models and help texts name what they like."""


def test_no_data_set_model_or_table_of_a_paper_is_named_in_code() -> None:
    pattern = re.compile(rf"(?<![\w./-])(?:{NAMED})(?!\w)|\bTables? \d|\btable\d")
    found = {}
    for path in CODE:
        name = path.relative_to(ROOT).as_posix().removeprefix("harness/")
        texts = {value for _, value in constants(path) if isinstance(value, str) and pattern.search(value)}
        if not name.startswith(("models/", "bm3/")) and texts - KNOWN.get(name, set()):
            found[name] = texts
    assert not found
    for text in ("Electronics", "lightgcn", "Table 3", "paper-table4"):
        assert pattern.search(text), text
