"""Top-K lists made by another program: read, held against a data set, and ranked as a model's own would be.

A file's first line tells its form. Masks and metrics are those of `ranking` and `metrics`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from bm3 import DataError
from harness.data.dataset import Dataset, Part
from harness.data.files import listed, open_text, read_csv, reading
from harness.evaluation.metrics import Ranking
from harness.evaluation.ranking import Evaluator
from harness.ingest.exporting import Ids, called
from harness.ingest.tables import PARQUET, Columns, first_names, is_table, number_in, read_tables

TOLERATED = 0.01
"""Share of lists that may be amiss before they are no evidence."""
FORMS = (
    "needed is a table with columns user, item and rank or score, a TREC run (user Q0 item rank score tag), or tabs "
    "below a header id, top_0, top_1, …"
)

Rows = Iterator[tuple[str, str, float, float]]
"""User, item, its score and its rank: the highest score first, of equal ones the lowest rank."""
Naming = Literal["own", "number"]


@dataclass(frozen=True)
class Lists:
    """What a file comes to: the ranking of the evaluated users, and what is to be said of it."""

    ranking: Ranking
    length: int
    """Of the longest list, of which metrics beyond say nothing."""
    findings: tuple[str, ...]
    """What is amiss, a line each."""
    obstacle: str
    """Why it cannot be compared with a published figure; empty where it can."""
    naming: Naming
    """How the file names users and items: by the data set's own ids, or by its numbers."""
    elsewhere: bool
    """Whether it seems to be of other data or of another split, so that its metrics mean nothing."""


def evaluate_lists(
    path: Path, dataset: Dataset, part: Part, depth: int, ids: Ids, naming: Naming | None = None
) -> Lists:
    """The lists in a file up to rank `depth`, for the users that a model would be evaluated on.

    `ids` are what the data set calls its users and items, None where it has numbers alone; `naming` says which of the
    two the file has, else it is found out. Raises DataError for a file that cannot be read, whose names can be read in
    both ways or that names an item twice in a list, and where the part has no user to evaluate.
    """
    named, findings = read_lists(path, depth)
    evaluator, obstacles = Evaluator(dataset, part), list[str]()
    if not len(evaluator.users):
        raise DataError(f"{dataset.name}: nobody is in its {part} part and in training too: use another data set")
    naming, users, items = _numbered(path, named, dataset, ids, naming)
    strangers, unknown = ([name for name, number in of.items() if number < 0] for of in (users, items))
    if strangers:
        of = f"{len(strangers):,} of {len(users):,} users are none of {dataset.name}'s"
        findings.append(f"{of} ({listed(strangers[:3])}): left out")
    by_number = {users[user]: [items[item] for item in row[:depth]] for user, row in named.items()}
    lists = [by_number.get(user, []) for user in evaluator.users.tolist()]
    lengths, n = np.array([*map(len, lists)], np.int64), len(lists)
    ranked = np.full((n, depth), -1)
    filled = np.arange(depth) < lengths[:, None]
    ranked[filled] = [*chain.from_iterable(lists)]
    if with_unknown := int((filled & (ranked < 0)).any(axis=1).sum()):
        of = f"{with_unknown:,} of {n:,} lists recommend items that are none of {dataset.name}'s"
        findings.append(f"{of} ({listed(unknown[:3])}): they count as misses")
        obstacles += ["items are unknown"] * (with_unknown > TOLERATED * n)
    if missing := int((lengths == 0).sum()):
        findings.append(f"{missing:,} of {n:,} evaluated users have no list: they count as users without a hit")
        obstacles += ["users are missing"] * (missing > TOLERATED * n)
    train = dataset.train.astype(np.int64) @ [dataset.n_items, 1]
    seen = np.isin(evaluator.users[:, None] * dataset.n_items + ranked, train) & (ranked >= 0)
    if with_seen := int(seen.any(axis=1).sum()):
        findings.append(f"{with_seen:,} of {n:,} lists recommend training items of their users, {seen.sum():,} in all")
        if with_seen > TOLERATED * n:
            obstacles.append("another split, or training items were not left out")
    short = lengths[(lengths > 0) & (lengths < depth)]
    if len(short):
        least = f"the shortest at {short.min()}: the rest is no hit"
        findings.append(f"{len(short):,} lists end before rank {depth}, {least}")
    elsewhere = len(strangers) > TOLERATED * len(users) or max(with_unknown, with_seen) > TOLERATED * n
    longest = int(lengths.max(initial=0))
    return Lists(evaluator.ranking_of(ranked), longest, tuple(findings), "; ".join(obstacles), naming, elsewhere)


def read_lists(path: Path, depth: int) -> tuple[dict[str, list[str]], list[str]]:
    """Items of each user, best first, as a file in any of the forms names them, and what is to be said of their order.

    In a table ranks decide, else scores; in a TREC run scores, then ranks, then which is named first. Raises
    DataError with the line.
    """
    with reading(path):
        first = ""
        if path.suffix.lower() != PARQUET:
            with open_text(path) as file:
                first = file.readline()
        fields = first.split()
        if first.rstrip().split("\t")[:2] == ["id", "top_0"]:
            rows, scored = _toolbox(path), False
        elif len(fields) == 6 and fields[1].upper() == "Q0":
            rows, scored = _trec(path), True
        else:
            rows, scored = _table(path)
        placed: dict[str, list[tuple[float, float, str]]] = {}
        for user, item, score, rank in rows:
            placed.setdefault(user, []).append((-score, rank, item))
    tied = against = 0
    for user, row in placed.items():
        row.sort(key=itemgetter(0, 1))
        ranks, items = [rank for _, rank, _ in row], [item for *_, item in row]
        if len({*items}) < len(items):
            of = f"{path}: user {user[:40]!r} is recommended {max(items, key=items.count)[:40]!r} twice"
            raise DataError(f"{of}; each item can be a hit once")
        if not scored and ranks not in ([*range(len(row))], [*range(1, len(row) + 1)]):
            of = f"{path}: user {user[:40]!r} has ranks {listed(f'{rank:g}' for rank in ranks)}"
            raise DataError(
                f"{of}; needed is each from 1 on, or from 0 on, once: a gap would be an item that is missing"
            )
        near = [*pairwise(row[: depth + 1])]
        tied += scored and any(better[0] == worse[0] for better, worse in near)
        against += any(better[1] > worse[1] for better, worse in near)
    of, notes = f"of {len(placed):,} lists", list[str]()
    if tied:
        notes.append(
            f"{tied:,} {of} have equal scores up to rank {depth}: of these the lower rank, or the first, counts"
        )
    if against:
        notes.append(f"in {against:,} {of} ranks contradict scores, which decide, as trec_eval has it")
    return {user: [item for *_, item in row] for user, row in placed.items()}, notes


def _toolbox(path: Path) -> Rows:
    found = set[str]()
    rows = read_csv(path, "\t")
    next(rows)
    for line, (user, *items) in rows:
        if user in found:
            raise DataError(f"{path}, line {line}: user {user[:40]!r} stands there twice; keep one list of each")
        found.add(user)
        while items and not items[-1]:
            items.pop()
        if "" in items:
            blank = f"the list of user {user[:40]!r} has no item at rank {items.index('') + 1}"
            raise DataError(f"{path}, line {line}: {blank} and one after it; name each, or end the list there")
        yield from ((user, item, 0, rank) for rank, item in enumerate(items))


def _trec(path: Path) -> Rows:
    with open_text(path) as file:
        for line, text in enumerate(file, start=1):
            fields = text.split()
            if not fields:
                continue
            rank, score = map(number_in, fields[3:5]) if len(fields) == 6 else (None, None)
            if rank is None or score is None or not rank.is_integer():
                needed = "`user Q0 item rank score tag`, rank a whole number and score a number"
                raise DataError(f"{path}, line {line}: needed is {needed}")
            yield fields[0], fields[2], score, rank


def _table(path: Path) -> tuple[Rows, bool]:
    """Its rows, and whether they have scores."""
    names = {name.strip().lower(): name for name in first_names(path)} if is_table(path) else {}
    order = "rank" if "rank" in names else "score"
    if not {"user", "item", order} <= {*names}:
        raise DataError(f"{path}: no form of lists that is known; {FORMS}")
    table = read_tables([path], Columns(names["user"], names["item"], names[order]))
    if table.dates:
        raise DataError(f"{path}: {names[order]} holds dates; needed are numbers")
    places = np.asarray(table.times)
    scores, ranks = (places, np.zeros_like(places))[:: 1 if order == "score" else -1]
    users, items = (table.user_ids[user] for user in table.users), (table.item_ids[item] for item in table.items)
    return zip(users, items, scores.tolist(), ranks.tolist(), strict=True), order == "score"


def _numbered(
    path: Path, named: Mapping[str, list[str]], dataset: Dataset, ids: Ids, asked: Naming | None
) -> tuple[Naming, dict[str, int], dict[str, int]]:
    """How users and items are named, and the data set's number of each; as `asked`, else as all or most are known.

    Raises DataError where both namings know them, to other numbers.
    """
    kinds, found = (named, dict.fromkeys(chain.from_iterable(named.values()))), dict[Naming, list[dict[str, int]]]()
    for naming in (asked,) if asked else get_args(Naming):
        found[naming] = [*map(numbers_of, kinds, called(ids if naming == "own" else (None, None), dataset))]
    unknown = {way: sum(number < 0 for of in numbers for number in of.values()) for way, numbers in found.items()}
    best = min(unknown, key=unknown.__getitem__)
    bearable = TOLERATED * sum(map(len, kinds)) if unknown[best] else 0
    if max(unknown.values()) <= bearable and any(numbers != found[best] for numbers in found.values()):
        raise DataError(
            f"{path}: users and items can be read as {dataset.name}'s own ids (users.csv, items.csv) and as its "
            f"numbers, which are others: say which with --ids own or --ids number"
        )
    users, items = found[best]
    return best, users, items


def numbers_of(names: Iterable[str], ids: Iterable[str]) -> dict[str, int]:
    """The number of each name among `ids`, in their order; −1: none."""
    known = {each: number for number, each in enumerate(ids)}
    return {name: known.get(name, -1) for name in names}
