"""What the files in `expected` hold, and that loading them is strict. Judging is tested in `test_verdict`."""

import ast
import csv
from collections import Counter
from pathlib import Path

import pytest

import bm3
import harness
from bm3.errors import DataError
from harness.paper.expected import (
    COLUMNS,
    PublishedValue,
    Status,
    canonical_metric,
    expected_dir,
    load_expected,
    load_sources,
    load_tolerances,
    short_metric,
    values_of_cell,
)
from harness.paper.verdict import Outcome, judge

AMAZON = {"Baby", "Sports", "Electronics"}
PAPER_MODELS = {"BPR", "LightGCN", "BUIR", "VBPR", "MMGCN", "GRCN", "DualGNN", "LATTICE", "BM3"}
TOOLBOX_MODELS = PAPER_MODELS - {"BUIR"} | {"SLMRec", "ADDVAE", "FREEDOM"}
AT_10_20 = {"R@10", "R@20", "N@10", "N@20"}
TABLES = {
    "paper-table2": (AMAZON, {""}, {"users", "items", "interactions", "sparsity_percent"}),
    "paper-table3": (AMAZON, PAPER_MODELS, AT_10_20),
    "paper-table4": (AMAZON, PAPER_MODELS, {"Memory (GB)", "Time (s/epoch)"}),
    "toolbox": (AMAZON | {"FoodRec"}, TOOLBOX_MODELS, AT_10_20 | {"R@50", "N@50"}),
}
HEADER = ",".join(COLUMNS)


@pytest.fixture(scope="module")
def shipped() -> tuple[PublishedValue, ...]:
    return load_expected(expected_dir())


def figure(values: tuple[PublishedValue, ...], dataset: str, model: str, metric: str, source: str) -> float:
    (value,) = (v for v in values_of_cell(values, dataset, model, metric) if v.source == source)
    assert value.value is not None
    return value.value


def numbers_in(code: str) -> set[float]:
    """Literals of Python source that are fractions, without their signs."""
    literals = (node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant))
    return {value for value in literals if isinstance(value, float)}


def folder(tmp_path: Path, *rows: str, header: str = HEADER, name: str = "published/table.csv") -> Path:
    """A folder like `expected` with two sources, `first` before `second`."""
    fields = "".join(f'{field} = "x"\n' for field in ("title", "table", "date", "hardware", "citation"))
    sources = "".join(f"[{key}]\n{fields}" for key in ("first", "second"))
    (tmp_path / "sources.toml").write_text(sources)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join((header, *rows)) + "\n")
    return tmp_path


@pytest.mark.parametrize("source", TABLES)
def test_every_cell_of_a_table_is_there_once(shipped: tuple[PublishedValue, ...], source: str) -> None:
    datasets, models, metrics = TABLES[source]
    cells = Counter((v.dataset, v.model, v.metric) for v in shipped if v.source == source)
    assert cells == Counter((d, m, k) for d in datasets for m in models for k in metrics)


def test_nothing_else_is_published(shipped: tuple[PublishedValue, ...]) -> None:
    assert {v.source for v in shipped} == set(TABLES)
    assert set(load_sources(expected_dir())) == set(TABLES)


def test_every_figure_is_plausible_in_its_unit(shipped: tuple[PublishedValue, ...]) -> None:
    for v in shipped:
        if v.value is None:
            continue
        if "@" in v.metric:
            assert 0 < v.value < 1, v
        elif v.metric in {"users", "items", "interactions"}:
            assert v.value == int(v.value) > 1000, v
        elif v.metric == "sparsity_percent":
            assert 99 < v.value < 100, v
        else:
            assert 0 < v.value < 1000, v


def test_numbers_are_found_wherever_code_may_hold_them() -> None:
    code = "x: float = 0.0564\ndef f(a={'k': [-0.0883]}): return a * 7. if a else f'{0.0301:.2f} 0.9'  # 0.8"
    assert numbers_in(code) == {0.0564, 0.0883, 7, 0.0301}


def test_no_published_accuracy_is_typed_into_code(shipped: tuple[PublishedValue, ...]) -> None:
    published = {v.value for v in shipped if "@" in v.metric and v.value is not None}
    files = [file for package in (bm3, harness) for file in Path(package.__path__[0]).rglob("*.py")]
    assert len(published) > 200
    assert {"expected.py", "verdict.py", "model.py", "bpr.py"} <= {file.name for file in files}
    typed = {str(file): numbers_in(file.read_text(encoding="utf-8")) & published for file in files}
    assert not {file: figures for file, figures in typed.items() if figures}


def test_recall_and_ndcg_grow_with_the_cut_off_where_they_must(shipped: tuple[PublishedValue, ...]) -> None:
    by_cell = {(v.source, *v.cell): v.value for v in shipped}
    for (source, dataset, model, metric), value in by_cell.items():
        name, _, cutoff = metric.partition("@")
        if cutoff in {"20", "50"} and value is not None:
            smaller = by_cell[source, dataset, model, f"{name}@{'10' if cutoff == '20' else '20'}"]
            assert smaller is not None
            assert smaller < value


def test_out_of_memory_is_lattice_on_electronics_and_nothing_else(shipped: tuple[PublishedValue, ...]) -> None:
    out = {(v.dataset, v.model) for v in shipped if v.status is Status.OUT_OF_MEMORY}
    assert out == {("Electronics", "LATTICE")}
    for metric in AT_10_20:
        cell = values_of_cell(shipped, "electronics", "lattice", metric)
        assert [v.value for v in cell] == [None, None]


def test_disputed_are_the_three_known_figures_each_with_a_note(shipped: tuple[PublishedValue, ...]) -> None:
    disputed = [v for v in shipped if v.status is Status.DISPUTED]
    assert {(v.dataset, v.model, v.metric) for v in disputed} == {
        ("Electronics", "", "interactions"),
        ("Electronics", "BM3", "Memory (GB)"),
        ("Electronics", "LATTICE", "Memory (GB)"),
    }
    assert all(v.note for v in disputed)


def test_sources_differ_in_eight_rows_and_each_such_cell_names_the_other_figure(
    shipped: tuple[PublishedValue, ...],
) -> None:
    differing = set()
    twice = 0
    for dataset in AMAZON:
        for model in PAPER_MODELS & TOOLBOX_MODELS:
            cells = [values_of_cell(shipped, dataset, model, metric) for metric in sorted(AT_10_20)]
            assert all(len(cell) == 2 for cell in cells)
            twice += cells[0][0].value is not None
            for first, second in cells:
                differ = first.value != second.value
                if differ:
                    differing.add((dataset, model))
                    assert f"{first.value:.4f}" in second.note
                    assert f"{second.value:.4f}" in first.note
                assert bool(first.note) == bool(second.note) == differ
    assert twice == 23
    assert differing == {
        *((dataset, "GRCN") for dataset in AMAZON),
        ("Baby", "LATTICE"),
        ("Sports", "LATTICE"),
        ("Electronics", "MMGCN"),
        ("Electronics", "DualGNN"),
        ("Electronics", "BM3"),
    }


def test_bm3_has_the_best_value_of_every_cell_of_table_3(shipped: tuple[PublishedValue, ...]) -> None:
    table3 = [v for v in shipped if v.source == "paper-table3" and v.value is not None]
    for dataset in AMAZON:
        for metric in AT_10_20:
            row = [v for v in table3 if (v.dataset, v.metric) == (dataset, metric)]
            assert max(row, key=lambda v: v.value or 0).model == "BM3"


@pytest.mark.parametrize(
    ("dataset", "grcn_source", "gain_percent"),
    [
        ("Baby", "paper-table3", 3.68),
        ("Sports", "paper-table3", 6.15),
        ("Electronics", "paper-table3", 20.39),
        ("Electronics", "toolbox", 12.34),
    ],
)
def test_gains_the_paper_claims_follow_from_the_cells(
    shipped: tuple[PublishedValue, ...], dataset: str, grcn_source: str, gain_percent: float
) -> None:
    baselines = [
        v for v in shipped if v.dataset == dataset and v.metric == "R@10" and v.model in PAPER_MODELS - {"BM3"}
    ]
    best = max(
        v.value
        for v in baselines
        if v.value is not None and v.source == (grcn_source if v.model == "GRCN" else "paper-table3")
    )
    bm3 = figure(shipped, dataset, "BM3", "R@10", "paper-table3")
    assert 100 * (bm3 / best - 1) == pytest.approx(gain_percent, abs=0.005)


def test_printed_digits_are_kept() -> None:
    with (expected_dir() / "published" / "table3_accuracy.csv").open(newline="") as file:
        texts = [row["value"] for row in csv.DictReader(file) if row["value"]]
    assert all(len(text) == len("0.0000") for text in texts)
    assert any(text.endswith("0") for text in texts)


def test_runs_at_the_papers_values_are_judged_everywhere_but_where_sources_are_apart(
    shipped: tuple[PublishedValue, ...],
) -> None:
    tolerances = load_tolerances(expected_dir() / "tolerances.toml")
    disputed = set()
    for paper in (v for v in shipped if v.source == "paper-table3" and v.value is not None):
        cell = values_of_cell(shipped, *paper.cell)
        verdict = judge([paper.value or 0] * 3, cell, tolerances.of(paper.metric))
        assert verdict.published == paper
        assert verdict.outcome in {Outcome.REPRODUCED, Outcome.DISPUTED}
        if verdict.outcome is Outcome.DISPUTED:
            disputed.add((paper.dataset, paper.model))
    assert disputed == {("Sports", "GRCN"), ("Electronics", "GRCN"), ("Electronics", "MMGCN")}


def test_metric_names_translate_both_ways(shipped: tuple[PublishedValue, ...]) -> None:
    assert canonical_metric("R@10") == canonical_metric("Recall@10") == "recall@10"
    assert canonical_metric("N@20") == "ndcg@20"
    assert short_metric("ndcg@20") == "N@20"
    assert canonical_metric("MAP@5") == "map@5"
    for metric in {v.metric for v in shipped}:
        assert short_metric(canonical_metric(metric)) == metric


def test_a_cell_is_found_by_any_spelling_in_the_order_of_the_sources(tmp_path: Path) -> None:
    rows = [
        "Baby,BM3,R@10,0.2,second,as printed,",
        "Baby,BM3,R@10,0.10,first,as printed,",
        "Baby,BPR,R@10,1,first,as printed,",
    ]
    values = load_expected(folder(tmp_path, *rows))
    cell = values_of_cell(values, "BABY", "bm3", "recall@10")
    assert [(v.source, v.value) for v in cell] == [("first", 0.1), ("second", 0.2)]
    assert values_of_cell(values, "baby", "bm3", "recall@20") == ()


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("Baby,BM3,R@10,0.1,first,guessed,", "unknown status 'guessed'"),
        ("Baby,BM3,R@10,abc,first,as printed,", "'abc' is not a finite number"),
        ("Baby,BM3,R@10,nan,first,as printed,", "'nan' is not a finite number"),
        ("Baby,BM3,R@10,1e999,first,as printed,", "'1e999' is not a finite number"),
        ("Baby,BM3,R@10,-0.1,first,as printed,", "'-0.1' is not a finite number"),
        ('Baby,BM3,R@10,"1,689",first,as printed,', "'1,689' is not a finite number"),
        ("Baby,BM3,R@10,,first,as printed,", "only 'out of memory' has no value"),
        ("Baby,BM3,R@10,,first,disputed,", "only 'out of memory' has no value"),
        ("Baby,BM3,R@10,0.1,first,out of memory,", "only 'out of memory' has no value"),
        ("Baby,BM3,R@10,0.1,elsewhere,as printed,", "unknown source 'elsewhere'"),
        ("Baby,BM3,R@10,0.1,first,as printed", "6 fields; expected 7"),
        ("Baby,BM3,R@10,0.1,first,as printed,a,b", "8 fields; expected 7"),
        ("Baby,,R@10,0.1,first,as printed,", "the model of an accuracy metric"),
        (",BM3,R@10,0.1,first,as printed,", "dataset, metric and source must be given"),
        ("baby,Bm3,recall@20,0.1,first,as printed,", "the same cell and source as"),
        ("", "0 fields; expected 7"),
    ],
)
def test_a_bad_row_stops_with_one_line_naming_file_and_line(tmp_path: Path, row: str, complaint: str) -> None:
    directory = folder(tmp_path, "Baby,BM3,R@20,0.1,first,as printed,", row)
    with pytest.raises(DataError) as raised:
        load_expected(directory)
    message = str(raised.value)
    assert message.startswith(f"{directory / 'published' / 'table.csv'}:3: ")
    assert complaint in message
    assert "\n" not in message


@pytest.mark.parametrize("header", [HEADER.replace("note", "remark"), HEADER + ",more", "value", ""])
def test_wrong_columns_are_refused_at_line_1(tmp_path: Path, header: str) -> None:
    with pytest.raises(DataError, match=r"table\.csv:1: "):
        load_expected(folder(tmp_path, header=header))


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sources\.toml"):
        load_expected(tmp_path)
    folder(tmp_path)
    path = tmp_path / "published" / "table.csv"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"table\.csv"):
        load_expected(tmp_path)
    path.write_text("")
    with pytest.raises(DataError, match=r"table\.csv:1: empty"):
        load_expected(tmp_path)
    path.unlink()
    assert load_expected(tmp_path) == ()


def tolerances_text(confidence: str = "0.9", relative: str = "0.1", more: str = "") -> str:
    band = 'justification = "x"\nrelative ='
    return (
        f"confidence = {confidence}\nmin_seeds = 3\n[published]\n{band} {relative}\n"
        f'[published.metrics]\n"ndcg@10" = 0.2\n{more}\n[replay]\n{band} 0.3\n'
        '[selfcheck]\njustification = "x"\nerror = 0.01\n'
    )


def test_a_metric_may_have_a_band_of_its_own_and_so_have_replays(tmp_path: Path) -> None:
    path = tmp_path / "tolerances.toml"
    path.write_text(tolerances_text())
    tolerances = load_tolerances(path)
    assert tolerances.of("N@10").relative == 0.2
    assert tolerances.of("R@10").relative == 0.1
    assert tolerances.replay.relative == 0.3
    assert tolerances.selfcheck.error == 0.01
    assert tolerances.of("N@10").confidence == 0.9
    assert tolerances.of("N@10").min_seeds == 3


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (tolerances_text(relative="0"), "published.relative"),
        (tolerances_text(relative="nan"), "published.relative"),
        (tolerances_text(relative='"0.1"'), "published.relative"),
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
    with pytest.raises(DataError) as raised:
        load_tolerances(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert field in message
    assert "\n" not in message


def test_shipped_bands_respect_what_published_figures_say_about_themselves() -> None:
    tolerances = load_tolerances(expected_dir() / "tolerances.toml")
    assert 0.02 <= tolerances.published.relative < 0.05
    assert tolerances.replay.relative >= 0.02
