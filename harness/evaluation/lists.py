"""Top-K lists made by another program: read, held against a data set, and ranked as a model's own would be.

A file's first line tells its form. Masks and metrics are those of `ranking` and `metrics`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path

import numpy as np

from bm3 import DataError
from harness.data import Dataset, Part
from harness.data.files import listed, open_text, read_csv, reading
from harness.evaluation.metrics import Ranking
from harness.evaluation.ranking import Evaluator
from harness.ingest.tables import PARQUET, Columns, first_names, is_table, read_tables

TOLERATED = 0.01
"""Share of lists that may be amiss before they are no evidence."""
FORMS = (
    "needed is a table with columns user, item and rank or score, a TREC run (user Q0 item rank score tag), or tabs "
    "below a header id, top_0, top_1, …"
)

Rows = Iterator[tuple[str, str, float]]
"""User, item, and its place in the user's list, the first one lowest."""


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
    elsewhere: bool
    """Whether it seems to be of other data or of another split, so that its metrics mean nothing."""


def evaluate_lists(
    path: Path, dataset: Dataset, part: Part, depth: int, ids: tuple[Sequence[str] | None, Sequence[str] | None]
) -> Lists:
    """The lists in a file up to rank `depth`, for the users that a model would be evaluated on.

    `ids` are what the data set calls its users and items, None where it has numbers alone. Raises DataError for a file
    that cannot be read or that names an item twice in a list, and where the part has no user to evaluate.
    """
    named = read_lists(path)
    evaluator, findings, obstacles = Evaluator(dataset, part), list[str](), list[str]()
    if not len(evaluator.users):
        raise DataError(f"{dataset.name}: nobody is in its {part} part and in training too: use another data set")
    users = numbers_of(named, ids[0], dataset.n_users)
    items = numbers_of(dict.fromkeys(chain.from_iterable(named.values())), ids[1], dataset.n_items)
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
    return Lists(evaluator.ranking_of(ranked), longest, tuple(findings), "; ".join(obstacles), elsewhere)


def read_lists(path: Path) -> dict[str, list[str]]:
    """Items of each user, best first, as a file in any of the forms names them; of equal places the first named first.

    Raises DataError with the line.
    """
    with reading(path):
        first = ""
        if path.suffix.lower() != PARQUET:
            with open_text(path) as file:
                first = file.readline()
        fields = first.split()
        if first.rstrip().split("\t")[:2] == ["id", "top_0"]:
            rows = _toolbox(path)
        elif len(fields) == 6 and fields[1].upper() == "Q0":
            rows = _trec(path)
        else:
            rows = _table(path)
        placed: dict[str, list[tuple[float, str]]] = {}
        for user, item, place in rows:
            placed.setdefault(user, []).append((place, item))
    lists = {user: [item for _, item in sorted(row, key=itemgetter(0))] for user, row in placed.items()}
    for user, items in lists.items():
        if len({*items}) < len(items):
            of = f"{path}: user {user[:40]!r} is recommended {max(items, key=items.count)[:40]!r} twice"
            raise DataError(f"{of}; each item can be a hit once")
    return lists


def _toolbox(path: Path) -> Rows:
    found = set[str]()
    rows = read_csv(path, "\t")
    next(rows)
    for line, (user, *items) in rows:
        if user in found:
            raise DataError(f"{path}, line {line}: user {user[:40]!r} stands there twice; keep one list of each")
        found.add(user)
        yield from ((user, item, place) for place, item in enumerate(items) if item)


def _trec(path: Path) -> Rows:
    with open_text(path) as file:
        for line, text in enumerate(file, start=1):
            fields = text.split()
            if not fields:
                continue
            if len(fields) != 6 or not fields[3].lstrip("-").isdecimal():
                raise DataError(f"{path}, line {line}: needed is `user Q0 item rank score tag`, rank a whole number")
            yield fields[0], fields[2], float(fields[3])


def _table(path: Path) -> Rows:
    names = {name.strip().lower(): name for name in first_names(path)} if is_table(path) else {}
    order, sign = ("rank", 1) if "rank" in names else ("score", -1)
    if not {"user", "item", order} <= {*names}:
        raise DataError(f"{path}: no form of lists that is known; {FORMS}")
    table = read_tables([path], Columns(names["user"], names["item"], names[order]))
    places = (sign * np.asarray(table.times)).tolist()
    for user, item, place in zip(table.users.tolist(), table.items.tolist(), places, strict=True):
        yield table.user_ids[user], table.item_ids[item], place


def numbers_of(names: Collection[str], ids: Sequence[str] | None, n: int) -> Mapping[str, int]:
    """The data set's number of each name, −1 where it is none: by its own ids, or by number where more are known so."""
    ways = [{str(number): number for number in range(n)}]
    if ids is not None:
        ways.insert(0, {name: number for number, name in enumerate(ids)})
    way = max(ways, key=lambda way: sum(name in way for name in names))
    return {name: way.get(name, -1) for name in names}
