"""Top-K lists made by another program: read, held against a data set, and ranked as a model's own would be.

A file's first line tells its form. Masks and metrics are those of `ranking` and `metrics`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bm3 import DataError
from harness.data import Dataset, Part
from harness.data.files import listed, read_csv, reading
from harness.evaluation.metrics import Ranking
from harness.evaluation.ranking import Evaluator
from harness.ingest.tables import Columns, first_names, is_table, read_tables

TOLERATED = 0.01
"""Share of lists that may be amiss before they are no evidence."""
NOT_LEFT_OUT = 0.5
"""Share of lists with training items above which these were not left out at all."""
FORMS = (
    "needed is a table with columns user, item and rank or score, a TREC run (user Q0 item rank score tag), or tabs "
    "below a header id, top_0, top_1, …"
)

Named = Mapping[str, Sequence[str]]
"""User → items, best first, as a file names them."""


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


def evaluate_lists(
    path: Path, dataset: Dataset, part: Part, depth: int, ids: tuple[Sequence[str] | None, Sequence[str] | None]
) -> Lists:
    """The lists in a file up to rank `depth`, for the users that a model would be evaluated on.

    `ids` are what the data set calls its users and items, None where it has numbers alone. Raises DataError for a file
    that cannot be read or that names an item twice in a list.
    """
    named = read_lists(path)
    evaluator, findings = Evaluator(dataset, part), list[str]()
    users = _numbers([*named], ids[0], dataset.n_users)
    items = _numbers([*dict.fromkeys(item for row in named.values() for item in row)], ids[1], dataset.n_items)
    for what, found, then in (("users", users, "left out"), ("items", items, "they count as misses")):
        unknown = [name for name, number in found.items() if number < 0]
        if unknown:
            of = f"{len(unknown):,} of {len(found):,} {what} are none of {dataset.name}'s"
            findings.append(f"{of} ({listed(unknown[:3])}): {then}")
    lists = {users[user]: [items[item] for item in row[:depth]] for user, row in named.items() if users[user] >= 0}
    ranked = np.full((len(evaluator.users), depth), -1)
    for place, user in enumerate(evaluator.users.tolist()):
        row = lists.get(user, [])
        ranked[place, : len(row)] = row
    lengths = np.array([len(lists.get(user, [])) for user in evaluator.users.tolist()])
    seen = _in_training(dataset, evaluator.users, ranked)
    missing, with_seen, n = int((lengths == 0).sum()), int(seen.any(axis=1).sum()), len(lengths)
    short = int(((lengths > 0) & (lengths < depth)).sum())
    obstacles = []
    if missing:
        findings.append(f"{missing:,} of {n:,} evaluated users have no list: they count as users without a hit")
        obstacles += ["users are missing"] * (missing > TOLERATED * n)
    if with_seen:
        findings.append(f"{with_seen:,} of {n:,} lists recommend training items of their users, {seen.sum():,} in all")
        if with_seen > TOLERATED * n:
            all_seen = with_seen > NOT_LEFT_OUT * n
            why = "training items were not left out" if all_seen else "they are of another split"
            findings.append(f"so it seems that {why}")
            obstacles.append(why)
    if short:
        shortest = int(lengths[lengths > 0].min())
        findings.append(f"{short:,} lists end before rank {depth}, the shortest at {shortest}: the rest is no hit")
    ranking = evaluator.ranking_of(ranked)
    return Lists(ranking, int(lengths.max(initial=0)), tuple(findings), "; ".join(obstacles))


def read_lists(path: Path) -> Named:
    """A file of lists in any of the forms. Raises DataError with the line."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with reading(path):
        if path.suffix != ".parquet":
            with path.open(encoding="utf-8-sig") as file:
                first = file.readline()
            if first.rstrip("\r\n").split("\t")[:2] == ["id", "top_0"]:
                return _toolbox(path)
            if len(first.split()) == 6 and first.split()[1].upper() == "Q0":
                return _best_first(path, _trec(path))
    if is_table(path):
        names = [name.strip().lower() for name in first_names(path)]
        order = next((name for name in ("rank", "score") if name in names), None)
        if {"user", "item"} <= {*names} and order:
            table = read_tables([path], Columns("user", "item", order))
            sign = 1 if order == "rank" else -1
            places = sign * table.times if table.times is not None else np.zeros(len(table))
            rows = zip(table.users.tolist(), table.items.tolist(), places.tolist(), strict=True)
            return _best_first(path, ((table.user_ids[u], table.item_ids[i], place) for u, i, place in rows))
    raise DataError(f"{path}: no form of lists that is known; {FORMS}")


def _toolbox(path: Path) -> Named:
    found: dict[str, list[str]] = {}
    rows = read_csv(path, "\t")
    next(rows)
    for line, (user, *items) in rows:
        if user in found:
            raise DataError(f"{path}, line {line}: user {user[:40]!r} stands there twice; keep one list of each")
        found[user] = [item for item in items if item]
        _check_once(path, user, found[user])
    return found


def _trec(path: Path) -> Iterator[tuple[str, str, float]]:
    with path.open(encoding="utf-8-sig") as file:
        for line, text in enumerate(file, start=1):
            fields = text.split()
            if len(fields) != 6 or not fields[3].lstrip("-").isdecimal():
                raise DataError(f"{path}, line {line}: needed is `user Q0 item rank score tag`, rank a whole number")
            yield fields[0], fields[2], float(fields[3])


def _best_first(path: Path, rows: Iterator[tuple[str, str, float]]) -> Named:
    """Rows of user, item and place as lists; of equal places the item that is named first."""
    found: dict[str, list[tuple[float, str]]] = {}
    for user, item, place in rows:
        found.setdefault(user, []).append((place, item))
    lists = {user: [item for _, item in sorted(row, key=itemgetter(0))] for user, row in found.items()}
    for user, items in lists.items():
        _check_once(path, user, items)
    return lists


def _check_once(path: Path, user: str, items: Sequence[str]) -> None:
    if len({*items}) < len(items):
        twice = next(item for place, item in enumerate(items) if item in items[:place])
        raise DataError(f"{path}: user {user[:40]!r} is recommended {twice[:40]!r} twice; each item can be a hit once")


def _numbers(names: Sequence[str], ids: Sequence[str] | None, n: int) -> dict[str, int]:
    """The data set's number of each name, −1 where it is none: by its own ids, or by number where more are known so."""
    ways = [{str(number): number for number in range(n)}]
    if ids is not None:
        ways.insert(0, {name: number for number, name in enumerate(ids)})
    way = max(ways, key=lambda way: sum(name in way for name in names))
    return {name: way.get(name, -1) for name in names}


def _in_training(dataset: Dataset, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each of the items [n, K] is a training item of its user [n]."""
    train = dataset.train.astype(np.int64) @ [dataset.n_items, 1]
    found: NDArray[np.bool_] = np.isin(users[:, None] * dataset.n_items + items, train) & (items >= 0)
    return found
