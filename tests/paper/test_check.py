"""`bm3 paper`: a skeleton that is consistent, and every fault of a folder told with its place."""

import re
from pathlib import Path

import pytest
from command_line import Command, refused

from harness.paper.folders import papers


@pytest.fixture
def skeleton(command: Command, tmp_path: Path) -> Path:
    assert command("paper", "new", tmp_path / "mine").code == 0
    return tmp_path / "mine"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize("name", papers())
def test_the_papers_that_come_with_the_harness_are_consistent(command: Command, name: str) -> None:
    done = command("paper", "check", name)
    assert (done.code, done.err) == (0, "")


def test_a_new_paper_is_consistent_and_all_its_tables_are_shown(command: Command, skeleton: Path) -> None:
    done = command("paper", "check", skeleton)
    assert (done.code, done.out) == (0, "mine: consistent; 4 figures, 1 claims, 1 suites\n")


def test_nothing_is_overwritten_by_a_new_paper(command: Command, skeleton: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in skeleton.rglob("*")}
    assert "is there already" in refused(command("paper", "new", skeleton))
    assert {path: path.stat().st_mtime_ns for path in skeleton.rglob("*")} == before
    assert not list(skeleton.parent.glob(".*"))


FAULTS = [
    ("paper.toml", 'title = "Title', 'titel = "Title', ["paper.toml: title: ", "paper.toml: titel: "]),
    ("paper.toml", 'stopping = "R@20"', 'stopping = "R@30"', ["paper.toml: stopping: no metric 'R@30'"]),
    ("paper.toml", 'proposed = "LightGCN"', 'proposed = "LightGNC"', ["paper.toml: proposed: no model 'LightGNC'"]),
    ("paper.toml", 'proposed = "LightGCN"\n', "", ["paper.toml: tables.0: improvement: no model is proposed"]),
    ("paper.toml", 'source = "table1"', 'source = "table2"', ["paper.toml: tables.0: source: 'table2'"]),
    ("paper.toml", "epochs = 1000", "epoch = 1000", ["paper.toml: training: bm3 has no setting 'epoch'"]),
    ("paper.toml", "n_layers = 2", "n_layer = 2", ["paper.toml: settings.0.set: lightgcn has no setting 'n_layer'"]),
    ("paper.toml", 'models = ["BPR",', 'models = ["BPR", "BPR",', ["paper.toml: models: BPR stands there 2"]),
    ("sources.toml", "[table1]", "[table2]", ["sources.toml: table2: no figure", "table1.csv:2: unknown source"]),
    ("tolerances.toml", "relative = 0.03", "relative = 3", ["tolerances.toml: published.relative: "]),
    ("published/table1.csv", "Baby,BPR,R@10", "Babi,BPR,R@10", ["table1.csv:2: no data set 'Babi'; nearest: Baby"]),
    ("published/table1.csv", "LightGCN,R@10", "LightGNC,R@10", ["table1.csv:4: no model 'LightGNC'"]),
    ("published/table1.csv", "BPR,R@20,0.6", "BPR,R@30,0.6", ["table1.csv:3: no metric 'R@30'"]),
    ("published/table1.csv", "BPR,R@20,0.6", "bpr,recall@10,0.6", ["table1.csv:3: the same cell and source as"]),
    ("published/table1.csv", "R@20,0.6,", "R@20,x,", ["table1.csv:3: value 'x' is not a finite number"]),
    ("grids.toml", "n_layers", "layers", ["grids.toml: lightgcn.layers: lightgcn has no setting 'layers'"]),
    ("grids.toml", "[lightgcn]", "[lightgc]", ["grids.toml: no model 'lightgc'; nearest: LightGCN"]),
    ("claims.toml", 'model = "LightGCN"', 'model = "Light"', ["claims.toml: claims.0.model: no model 'Light'"]),
    ("claims.toml", 'others = ["BPR"]', 'others = ["BP"]', ["claims.toml: claims.0.others: no model 'BP'"]),
    ("claims.toml", 'kind = "ordering"', 'kind = "order"', ["claims.toml: claims.0: "]),
    ("claims.toml", 'kind = "ordering"', "exponents = 3", ["claims.toml: claims.0: "]),
    ("complexity.toml", "", "confidence = [", ["complexity.toml: "]),
    ("complexity.toml", "", "confidence = 2", ["complexity.toml: confidence: "]),
    ("regression.toml", "", "[time", ["regression.toml: "]),
    ("suites/table1.toml", 'model = "bpr"', 'model = "bp"', ["table1.toml: experiments.0 (bp): no model 'bp'"]),
    ("suites/table1.toml", "seeds", "seed", ["table1.toml: the file: no key 'seed'"]),
]


@pytest.mark.parametrize(("name", "old", "new", "told"), FAULTS, ids=[f"{f[0]}-{n}" for n, f in enumerate(FAULTS)])
def test_each_fault_is_told_with_its_place(
    command: Command, skeleton: Path, name: str, old: str, new: str, told: list[str]
) -> None:
    (skeleton / name).touch()
    edit(skeleton / name, old, new)
    done = command("paper", "check", skeleton)
    assert (done.code, done.out) == (2, "")
    for text in told:
        assert text in done.err
    assert all(line.startswith(str(skeleton)) for line in done.err.splitlines())


def test_all_faults_are_told_at_once(command: Command, skeleton: Path) -> None:
    edit(skeleton / "grids.toml", "n_layers", "layers")
    edit(skeleton / "published" / "table1.csv", "R@20,0.6,", "R@20,x,")
    (skeleton / "tolerances.toml").unlink()
    (skeleton / "claim.toml").touch()
    (skeleton / "traces").mkdir()
    (skeleton / "traces" / "bpr.npz").write_bytes(b"no trace")
    lines = command("paper", "check", skeleton).err.splitlines()
    for text in ("grids.toml", "table1.csv:3", "tolerances.toml: no such file", "claim.toml: no file", "bpr.npz"):
        assert sum(text in line for line in lines) == 1, text


def with_reported(skeleton: Path, *rows: str) -> None:
    """With these figures of others, all of one source."""
    folder = skeleton / "literature"
    folder.mkdir()
    (folder / "sources.csv").write_text("source,group,title,address\ns,g,title,address\n")
    (folder / "figures.csv").write_text("\n".join(["dataset,model,metric,value,source,where,standing,note", *rows, ""]))


def printed(skeleton: Path, start: str) -> list[list[str]]:
    """Metric and figure of the lines of the table that start so."""
    lines = (skeleton / "published" / "table1.csv").read_text().splitlines()
    return [line.split(",")[2:4] for line in lines if line.startswith(start)]


COPIES = [
    ("Baby,LightGCN", "independent", "literature/figures.csv:2: baby bpr has the digits", "call it copying-error"),
    ("Baby,LightGCN", "copying-error", "", ""),
    ("Baby,BPR", "independent", "literature/figures.csv:2: baby bpr has the digits", "call it copied"),
    ("Baby,BPR", "copied", "", ""),
]


@pytest.mark.parametrize(("of", "standing", "where", "mend"), COPIES)
def test_a_row_with_the_digits_of_another_one_must_say_so(
    command: Command, skeleton: Path, of: str, standing: str, where: str, mend: str
) -> None:
    rows = (f"Baby,BPR,{metric},{value},s,Table 1,{standing}," for metric, value in printed(skeleton, of))
    with_reported(skeleton, *rows)
    done = command("paper", "check", skeleton)
    assert done.code == (2 if where else 0)
    assert where in done.err
    assert mend in done.err


def test_rows_with_the_same_digits_are_one_fault_and_published_ones_are_called_disputed(
    command: Command, skeleton: Path
) -> None:
    table = skeleton / "published" / "table1.csv"
    lines, digits = table.read_text().splitlines(), printed(skeleton, "Baby,BPR")
    for metric, value in digits:  # LightGCN as BPR
        lines = [re.sub(f"^(Baby,LightGCN,{metric}),[^,]*", rf"\1,{value}", line) for line in lines]
    table.write_text("\n".join([*lines, ""]))
    others = [("BPR", "copied"), ("LightGCN", "copied-chain"), ("LightGCN", "copying-error"), ("BPR", "independent")]
    rows = (
        f"Baby,{model},{metric},{value},s,Table {number},{standing},"
        for number, (model, standing) in enumerate(others)
        for metric, value in digits
    )
    with_reported(skeleton, *rows)
    (fault,) = command("paper", "check", skeleton).err.splitlines()
    assert "table1.csv:4: baby lightgcn has the digits of baby bpr" in fault
    assert fault.endswith("literature/figures.csv:8: mend one, or call it disputed")
    table.write_text(re.sub(r"(?m)^(Baby,LightGCN.*),as printed,", r"\1,disputed,", table.read_text()))
    (fault,) = command("paper", "check", skeleton).err.splitlines()
    assert "figures.csv:8: baby bpr" in fault
    assert fault.endswith("call it copied")


@pytest.mark.parametrize(("path", "text"), [("", "paper.toml: no such file"), ("nowhere", "no paper and no folder")])
def test_a_folder_that_is_no_paper_is_one_line(command: Command, tmp_path: Path, path: str, text: str) -> None:
    assert text in refused(command("paper", "check", tmp_path / path))
