"""Lists of another program: every form gives what the model itself would be given, and what is amiss is said."""

import gzip
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Command, refused

from bm3 import DataError
from harness.data.dataset import PARTS, Dataset
from harness.evaluation.lists import evaluate_lists, read_lists
from harness.evaluation.metrics import Ranking
from harness.evaluation.ranking import Evaluator
from harness.paper.load import load_paper
from harness.paper.published import COLUMNS

CPU = torch.device("cpu")
Named = Mapping[str, list[str]]
NONE = (None, None)
DEPTH = 10


@pytest.fixture(scope="module")
def ranking(clustered: Dataset) -> Ranking:
    """Of scores that know the clusters a little."""
    draw = np.random.default_rng(4)
    scores = torch.from_numpy(np.eye(4)[np.arange(60) % 4] @ np.eye(4)[:, np.arange(40) % 4] + draw.random((60, 40)))
    return Evaluator(clustered, "test").rank(lambda users: scores[users].clone(), 2 * DEPTH, device=CPU)


@pytest.fixture
def named(ranking: Ranking) -> dict[str, list[str]]:
    return {str(u): [str(i) for i in row] for u, row in zip(ranking.users, ranking.items.tolist(), strict=True)}


def toolbox(path: Path, lists: Named) -> Path:
    width = max(map(len, lists.values()))
    lines = ["\t".join(["id", *(f"top_{k}" for k in range(width))])]
    lines += ["\t".join([user, *row, *[""] * (width - len(row))]) for user, row in lists.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def packed(path: Path, lists: Named) -> Path:
    path.with_suffix(".csv.gz").write_bytes(gzip.compress(toolbox(path, lists).read_bytes()))
    return path.with_suffix(".csv.gz")


def trec(path: Path, lists: Named) -> Path:
    rows = [(user, item, place) for user, row in lists.items() for place, item in enumerate(row)]
    rows.sort(key=lambda row: row[1])  # the rank tells the order
    lines = [f"{user} Q0 {item} {place + 1}   {1 / (place + 1)} mine" for user, item, place in rows]
    path.write_text("\n\n".join([*lines, ""]))
    return path


def by_rank(path: Path, lists: Named) -> Path:
    rows = [f"{user},{place},{item}" for user, row in lists.items() for place, item in reversed([*enumerate(row)])]
    path.with_suffix(".csv").write_text("\n".join(["User,rank,ITEM", *rows]) + "\n")
    return path.with_suffix(".csv")


def by_score(path: Path, lists: Named) -> Path:
    rows = [f"{item},{user},{-0.5 * place}" for user, row in lists.items() for place, item in enumerate(row)]
    path.with_suffix(".csv").write_text("\n".join(["item,user,score", *rows[::-1]]) + "\n")
    return path.with_suffix(".csv")


def parquet(path: Path, lists: Named) -> Path:
    pyarrow, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [(int(user), int(item), place) for user, row in lists.items() for place, item in enumerate(row)]
    columns = dict(zip(("user", "item", "rank"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pyarrow.table(columns), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


@pytest.mark.parametrize("write", [toolbox, packed, trec, by_rank, by_score, parquet])
def test_every_form_is_evaluated_as_the_model_is(
    write: Callable[..., Path], tmp_path: Path, clustered: Dataset, ranking: Ranking, named: Named
) -> None:
    found = evaluate_lists(write(tmp_path / "lists", named), clustered, "test", DEPTH, NONE)
    assert found.ranking.metrics([5, DEPTH]) == ranking.metrics([5, DEPTH])
    assert (found.findings, found.obstacle, found.length) == ((), "", DEPTH)


def test_ids_are_the_data_sets_own_where_more_of_them_are_known(
    tmp_path: Path, clustered: Dataset, ranking: Ranking, named: Named
) -> None:
    users, items = [f"u{n}" for n in range(60)], [str(39 - n) for n in range(40)]  # other numbers than its own
    own = {users[int(user)]: [items[int(item)] for item in row] for user, row in named.items()}
    found = evaluate_lists(toolbox(tmp_path / "lists", own), clustered, "test", DEPTH, (users, items))
    assert found.ranking.metrics([DEPTH]) == ranking.metrics([DEPTH])


SHIFTED = [str(n) for n in range(1, 61)], [str(n) for n in range(1, 41)]


@pytest.mark.parametrize("asked", [None, "own", "number"])
@pytest.mark.parametrize("users", ["number", "own"])
def test_users_and_items_are_read_by_one_numbering(
    users: str, asked: Any, tmp_path: Path, clustered: Dataset, named: Named
) -> None:
    """Own ids from 1 on: item 0 is in no list, so that items alone could be either."""
    shift = 1 if users == "own" else 0
    lists = {
        str(int(user) + shift): [str(int(item) + shift) for item in row if item != "0"] for user, row in named.items()
    }
    found = evaluate_lists(toolbox(tmp_path / "lists", lists), clustered, "test", DEPTH, SHIFTED, asked)
    without = {user: [item for item in row if item != "0"] for user, row in named.items()}
    right = evaluate_lists(toolbox(tmp_path / "right", without), clustered, "test", DEPTH, NONE)
    assert found.naming == (asked or users)
    assert (found.ranking.metrics([DEPTH]) == right.ranking.metrics([DEPTH])) == (found.naming == users)


def test_lists_that_can_be_read_by_both_numberings_are_refused(
    tmp_path: Path, clustered: Dataset, named: Named
) -> None:
    lists = {user: [item for item in row if item != "0"] for user, row in named.items() if user != "0"}
    path = toolbox(tmp_path / "lists", lists)
    with pytest.raises(DataError, match="say which with --ids own or --ids number"):
        evaluate_lists(path, clustered, "test", DEPTH, SHIFTED)
    same = [str(n) for n in range(60)], [str(n) for n in range(40)]
    assert evaluate_lists(path, clustered, "test", DEPTH, same).ranking.users.size


@pytest.mark.parametrize(
    ("content", "order", "notes"),
    [
        ("1 Q0 a 1 0.1 t\n1 Q0 b 2 0.9 t\n", ["b", "a"], ["in 1 of 1 lists ranks contradict scores"]),
        ("1 Q0 a 2 0.5 t\n1 Q0 b 1 0.5 t\n", ["b", "a"], ["1 of 1 lists have equal scores up to rank 1"]),
        ("1 Q0 a 1 0.9 t\n1 Q0 b 2 0.5 t\n1 Q0 c 3 0.5 t\n", ["a", "b", "c"], []),  # beyond what is evaluated
        ("user,item,score\n1,a,0\n1,b,0\n", ["a", "b"], ["1 of 1 lists have equal scores up to rank 1"]),
        ("user,item,score\n1,a,0.0001000581979751587\n1,b,2.5e-308\n1,c,1e+20\n", ["c", "a", "b"], []),
        ("user,item,rank\n1,a,1\n1,b,0\n", ["b", "a"], []),
    ],
)
def test_scores_decide_and_what_they_leave_open_is_said(
    tmp_path: Path, content: str, order: list[str], notes: list[str]
) -> None:
    (tmp_path / "lists.csv").write_text(content)
    lists, said = read_lists(tmp_path / "lists.csv", 1)
    assert lists == {"1": order}
    assert [line.partition(":")[0].partition(", which")[0] for line in said] == notes


def with_training(lists: Named, clustered: Dataset, n: int) -> Named:
    """The first n lists begin with a training item."""
    first = {str(u): str(i) for u, i in clustered.train[::-1]}
    return {**lists, **{user: [first[user], *row] for user, row in [*lists.items()][:n]}}


FAULTS: list[tuple[Callable[[Named, Dataset], Named], str, str]] = [
    (lambda lists, _: {**lists, "nobody": ["1"]}, "1 of 61 users are none of clustered's (nobody)", ""),
    (
        lambda lists, _: {**lists, "3": ["thing", *lists["3"]]},
        "1 of 60 lists recommend items that are none of clustered's (thing): they count as misses",
        "items are unknown",
    ),
    (
        lambda lists, _: {**lists, "3": [*lists["3"][:DEPTH], "thing"]},  # beyond what is evaluated
        "",
        "",
    ),
    (
        lambda lists, _: {user: ["thing", *row] if int(user) % 2 else row for user, row in lists.items()},
        "30 of 60 lists recommend items that are none of clustered's (thing): they count as misses",
        "items are unknown",
    ),
    (
        lambda lists, _: {user: row for user, row in lists.items() if user not in ("3", "4")},
        "2 of 60 evaluated users have no list: they count as users without a hit",
        "users are missing",
    ),
    (lambda lists, _: {**lists, "3": lists["3"][:4]}, "1 lists end before rank 10, the shortest at 4: the rest is", ""),
    (
        lambda lists, data: with_training(lists, data, 8),
        "8 of 60 lists recommend training items of their users, 8 in all",
        "another split, or training items were not left out",
    ),
    (
        lambda lists, data: with_training(lists, data, 60),
        "60 of 60 lists recommend training items of their users, 60 in all",
        "another split, or training items were not left out",
    ),
]


@pytest.mark.parametrize(("change", "finding", "obstacle"), FAULTS)
def test_what_is_amiss_is_said_and_decides_whether_anything_is_judged(
    change: Callable[..., Named],
    finding: str,
    obstacle: str,
    tmp_path: Path,
    clustered: Dataset,
    named: Named,
    ranking: Ranking,
) -> None:
    path = toolbox(tmp_path / "lists", change(named, clustered))
    found = evaluate_lists(path, clustered, "test", DEPTH, NONE)
    assert any(line.startswith(finding) for line in found.findings) == bool(finding), found.findings
    assert found.obstacle == obstacle
    assert found.ranking.metrics([DEPTH])["recall@10"] <= ranking.metrics([DEPTH])["recall@10"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no form of lists that is known"),
        ("user,item\n1,2\n", "no form of lists that is known"),
        ("1 Q0 2 1 0.5 mine\n1 Q0 3\n", "line 2: needed is `user Q0 item rank score tag`"),
        ("1 Q0 2 first 0.5 mine\n", "line 1: needed is"),
        ("id\ttop_0\ttop_1\n1\t2\t2\n", "user '1' is recommended '2' twice"),
        ("id\ttop_0\ttop_1\ttop_2\n1\t2\t\t3\n", "line 2: the list of user '1' has no item at rank 2 and one after"),
        ("id\ttop_0\n1\t2\n1\t3\n", "line 3: user '1' stands there twice"),
        ("1 Q0 2 1 best mine\n", "line 1: needed is"),
        ("user,item,rank\n1,2,x\n", "rank is 'x'"),
        ("user,item,rank\n1,2,501\n1,3,502\n", "user '1' has ranks 501, 502; needed is each from 1 on"),
        ("user,item,rank\n1,2,1\n1,3,1\n", "user '1' has ranks 1, 1;"),
        ("user,item,rank\n1,2,-1\n1,3,-2\n", "user '1' has ranks -2, -1;"),
        ("user,item,rank\n1,2,1\n1,3,3\n", "user '1' has ranks 1, 3;"),
        ("user,item,score\n1,2,2023-05-01\n", "score holds dates"),
        (b"\xff\xfe\x00", "line 1: not UTF-8"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_place(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "lists.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as told:
        read_lists(path, DEPTH)
    assert message in str(told.value)
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)


@pytest.fixture
def tiny(tmp_path: Path, clustered: Dataset, write_npz: Callable[..., Path]) -> Path:
    """The data set on disk."""
    return write_npz(tmp_path / "tiny", {part: clustered.part(part) for part in PARTS})


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """The paper bm3 with figures for that data set alone."""
    folder = tmp_path / "paper"
    shutil.copytree(load_paper().folder, folder, ignore=shutil.ignore_patterns("traces", "suites", "audit", "*.csv"))
    rows = [f"tiny,BM3,{metric},0.5,paper-table3,as printed," for metric in ("R@10", "R@20", "N@10", "N@20")]
    (folder / "published" / "tiny.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    return folder


def answers(folder: Path, data: Dataset, share: float, depth: int = 20) -> Path:
    """Lists that begin with the answers for this share of the users, and are wrong for the others."""
    held, lists = data.part("test"), {}
    for place, user in enumerate(np.unique(held[:, 0]).tolist()):
        answer, seen = (pairs[pairs[:, 0] == user, 1] for pairs in (held, data.train))
        wrong = np.setdiff1d(np.arange(data.n_items), [*answer, *seen])
        right = answer if place < 60 * share else answer[:0]
        lists[str(user)] = [str(item) for item in [*right, *wrong][:depth]]
    return toolbox(folder / f"lists-{share}-{depth}", lists)


@pytest.mark.parametrize(
    ("share", "depth", "code", "word"),
    [(0.5, 20, 0, "close"), (1.0, 20, 1, "above"), (0.1, 20, 1, "below"), (0.5, 5, 3, "no evidence")],
)
def test_the_exit_code_is_that_of_a_report(
    command: Command,
    tmp_path: Path,
    tiny: Path,
    paper: Path,
    clustered: Dataset,
    share: float,
    depth: int,
    code: int,
    word: str,
) -> None:
    lists = answers(tmp_path, clustered, share, depth)
    ended, out, _ = command("evaluate", lists, "--dataset", tiny, "--model", "bm3", "--paper", paper)
    assert (ended, word in out) == (code, True), out


def test_without_a_published_figure_there_are_metrics_and_no_verdict(
    command: Command, tmp_path: Path, tiny: Path, clustered: Dataset
) -> None:
    lists = [answers(tmp_path, clustered, share) for share in (1.0, 0.5)]
    code, out, _ = command("evaluate", *lists, "--dataset", tiny)
    assert code == 0
    assert out.startswith("2 files on tiny, test part, 60 users\n")
    assert "unpublished" in out


def test_what_others_report_stands_beneath_where_it_is_asked_for(
    command: Command, tmp_path: Path, tiny: Path, paper: Path, clustered: Dataset
) -> None:
    asked = ("evaluate", answers(tmp_path, clustered, 1.0), "--dataset", tiny, "--model", "bm3", "--literature")
    assert "nothing is kept there" in refused(command(*asked, "--paper", paper))
    (paper / "literature" / "sources.csv").write_text("source,group,title,address\ns,g,title,address\n")
    figures = "".join(f"tiny,{model},R@20,0.5,s,Table 1,independent,\n" for model in ("BM3", "BPR"))
    columns = "dataset,model,metric,value,source,where,standing,note\n"
    (paper / "literature" / "figures.csv").write_text(columns + figures)
    out = command(*asked, "--paper", paper).out
    assert "What others report on tiny" in out
    assert "BPR" not in out


@pytest.mark.parametrize(("strangers", "expected"), [(False, 0), (True, 3)])
def test_lists_of_other_users_are_no_pass_where_nothing_is_published_either(
    command: Command, tmp_path: Path, tiny: Path, clustered: Dataset, strangers: bool, expected: int
) -> None:
    lists = answers(tmp_path, clustered, 0.5)
    header, *lines = lists.read_text().splitlines()
    others = [f"stranger{line}" for line in lines[50:]] if strangers else []
    lists.write_text("\n".join([header, *lines[:50], *others]) + "\n")
    code, out, _ = command("evaluate", lists, "--dataset", tiny)
    assert (code, out.count("users are missing")) == (expected, 4)


def test_a_part_without_users_is_refused(tmp_path: Path, clustered: Dataset) -> None:
    lists, empty = answers(tmp_path, clustered, 1.0), replace(clustered, valid=clustered.valid[:0])
    with pytest.raises(DataError, match="nobody is in its valid part"):
        evaluate_lists(lists, empty, "valid", 20, (None, None))


@pytest.mark.parametrize("write", [toolbox, packed])
def test_the_lists_of_one_run_given_twice_are_refused(
    write: Callable[..., Path], command: Command, tmp_path: Path, tiny: Path, named: Named
) -> None:
    first, second = toolbox(tmp_path / "seed1", named), write(tmp_path / "seed2", named)
    code, out, told = command("evaluate", first, second, "--dataset", tiny)
    assert (code, out) == (2, "")
    assert f"{second}: the same lists as {first}; give each run once" in told


def test_a_model_that_the_paper_does_not_have_is_wrong_usage(command: Command, tmp_path: Path) -> None:
    code, _, told = command("evaluate", tmp_path / "lists", "--dataset", "mini", "--model", "bm4")
    assert code == 2
    assert "no model 'bm4'; nearest: " in told
