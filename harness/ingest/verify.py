"""Whether a data set can be trusted: its counts, split, leaks and features, and whether rows are in the order of items.

All are pure functions from a Dataset to findings. Which counts are expected is the caller's knowledge.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from harness.data.dataset import PARTS, Dataset, in_blocks
from harness.data.split import Pairs, split_rule
from harness.data.words import NO_VALIDATION

COUNTED_RULES = {"random_user": "random_user (and temporal_user, whose parts are as large)", "leave_one_out": ""}
"""The rules that fix how many of a user's interactions each part gets, and what to say of them."""
NEIGHBOURS = 10
SAMPLE = 2000  # items; all their products of pairs take a second at 4096 columns
PERMUTATIONS = 999
SEED = 2023
LEVEL = 0.01
"""Share of random orders that do as well as the real one, above which the real one is taken to be no better."""
FEW_ITEMS = 50
FEW_SHARED = 5.0  # near pairs with a user in common that chance alone would give; below this nothing can be told

Printed = Mapping[str, Mapping[str, tuple[float, str]]]
"""By source, then by count: the value that it prints, and why that is disputed if it is, else an empty text."""


class Severity(StrEnum):
    """How a finding is to be taken. Only a problem changes the exit code."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    severity: Severity
    text: str


def verify(dataset: Dataset, printed: Printed, rule: str | None, recorded: str | None) -> list[Finding]:
    """Every finding; counts of this data set are `printed`, a split `rule` must hold, and a hash was `recorded`."""
    counts = {"users": dataset.n_users, "items": dataset.n_items, "interactions": dataset.n_interactions}
    findings = [
        *check_counts(counts, printed),
        *check_split(dataset, rule),
        Finding("leakage", Severity.OK, "no interaction stands in two parts, or twice: such data sets are not read"),
        *check_training(dataset),
    ]
    for modality in dataset.features:
        content = check_features(dataset, modality)
        findings += content
        if all(finding.severity != Severity.PROBLEM for finding in content):  # without content, order means nothing
            findings.append(check_order(dataset, modality))
    return [*findings, check_hash(dataset, recorded)]


def check_counts(counts: Mapping[str, int], printed: Printed) -> list[Finding]:
    """Hold users, items and interactions against every source that prints them, and sparsity to two decimals."""
    sparsity = 100 * (1 - counts["interactions"] / (counts["users"] * counts["items"]))
    ours: dict[str, float] = {name: counts[name] for name in ("users", "items", "interactions")}
    ours["sparsity_percent"] = round(sparsity, 2)
    findings = []
    for source, values in printed.items():
        known = {name: each for name, each in values.items() if name in ours}
        agreeing = [f"{name} {ours[name]:,.9g}" for name, (value, _) in known.items() if value == ours[name]]
        if agreeing:
            findings.append(Finding("counts", Severity.OK, f"as in {source}: {', '.join(agreeing)}"))
        for name, (value, disputed) in known.items():
            if value != ours[name]:
                note = f" (disputed: {disputed})" if disputed else ""
                text = f"{name} {ours[name]:,.9g}, but {source} prints {value:,.9g}{note}"
                findings.append(Finding("counts", Severity.NOTE if disputed else Severity.PROBLEM, text))
    return findings or [Finding("counts", Severity.NOTE, "not compared: no source prints those of this data set")]


def check_split(dataset: Dataset, rule: str | None) -> list[Finding]:
    """Which rule the sizes of every user's parts obey; another one than the given one is a problem.

    Sizes alone show no more than that the rule may have made the split: not which interactions were held out, nor why.
    """
    given = split_rule(rule).name.replace("temporal_user", "random_user") if rule else None
    if given and given.startswith("temporal_global"):
        text = f"{rule} divides all interactions at two times, of which sizes of users' parts cannot tell"
        return [Finding("split rule", Severity.NOTE, text)]
    together, n = np.concatenate([dataset.part(part) for part in PARTS]), dataset.n_users
    ours = _sizes([dataset.part(part) for part in PARTS], n)
    obeying = {}
    known = [*COUNTED_RULES] if len(dataset.valid) else [f"{name}:{NO_VALIDATION}" for name in COUNTED_RULES]
    for name in dict.fromkeys([*known, given] if given else known):
        parts = split_rule(name).divide(together, np.zeros(len(together), np.int64), np.random.default_rng(0))
        obeying[name] = int((ours == _sizes([parts[part] for part in PARTS], n)).all(axis=0).sum())
    full = [name for name, users in obeying.items() if users == n]
    wrong = given is not None and given not in full
    if full:
        names = " and ".join(COUNTED_RULES.get(name) or name for name in full)
        text = f"all {n:,} users have parts as large as by the rule {names}" + (f", not {rule}" if wrong else "")
        return [Finding("split rule", Severity.PROBLEM if wrong else Severity.OK, text)]
    counts = ", ".join(f"{name} in {users:,} of {n:,} users" for name, users in obeying.items())
    text = f"sizes of parts follow no rule that fixes them per user ({counts})"
    return [Finding("split rule", Severity.PROBLEM if wrong else Severity.NOTE, text)]


def _sizes(parts: Sequence[Pairs], n_users: int) -> NDArray[np.integer]:
    """Interactions of every user in each part, [parts, users]."""
    return np.stack([np.bincount(part[:, 0], minlength=n_users) for part in parts])


def check_training(dataset: Dataset) -> list[Finding]:
    """Users and items without an interaction in training: the first are not evaluated, the second are never learnt."""
    n_users = dataset.n_users - len(np.unique(dataset.train[:, 0]))
    cold = np.setdiff1d(np.arange(dataset.n_items), dataset.train[:, 1])
    held_out = int(np.isin(np.concatenate([dataset.valid[:, 1], dataset.test[:, 1]]), cold).sum())
    notes = []
    if n_users:
        notes.append(f"{n_users:,} of {dataset.n_users:,} users have none and are left out of evaluation")
    if len(cold):
        of = f"{len(cold):,} of {dataset.n_items:,} items have none, so only features can tell about them"
        notes.append(f"{of}; {held_out:,} held-out interactions are with them")
    findings = [Finding("training", Severity.NOTE, text) for text in notes]
    return findings or [Finding("training", Severity.OK, "every user and every item has an interaction in training")]


def check_hash(dataset: Dataset, recorded: str | None) -> Finding:
    """The content hash, and whether it is the one recorded beside the data."""
    if recorded in (None, dataset.content_hash):
        said = "as recorded" if recorded else "none is recorded to compare with"
        return Finding("content hash", Severity.OK, f"{dataset.content_hash} ({said})")
    text = f"{dataset.content_hash}, but {str(recorded)[:80]!r} is recorded: files have changed since"
    return Finding("content hash", Severity.PROBLEM, text)


# --- features ---


def check_features(dataset: Dataset, modality: str) -> list[Finding]:
    """Rows of no content: zero, equal to others, or filled with the mean of the others; and columns of no content.

    That all numbers are finite is seen to when a data set is read.
    """
    table, check = dataset.features[modality], f"features {modality}"
    n, width = table.shape
    seen = Counter(hashlib.blake2b(row.tobytes(), digest_size=16).digest() for rows in _blocks(table) for row in rows)
    if len(seen) == 1:
        return [Finding(check, Severity.PROBLEM, "all rows are equal: they tell nothing about the items")]
    zero, filled, _ = _empty_rows(table)
    text, note = f"{n:,} x {width:,} {table.dtype.name}, all finite", dataset.surrogates & {modality}
    text += ", surrogate vectors: figures made with them are not comparable with published ones" if note else ""
    findings, notes = [Finding(check, Severity.NOTE if note else Severity.OK, text)], []
    if zero.any():
        severity = Severity.PROBLEM if 2 * zero.sum() > n else Severity.NOTE
        findings.append(Finding(check, severity, f"{zero.sum():,} of {n:,} rows are zero"))
    if filled.any():
        notes.append(
            f"{filled.sum():,} of {n:,} rows are the mean of the others, as published for items without content"
        )
    if repeated := [count for count in seen.values() if count > 1]:
        text = f"{sum(repeated):,} of {n:,} rows equal another one exactly, in {len(repeated):,} groups"
        notes.append(f"{text} (largest: {max(repeated):,})")
    if flat := int((np.asarray(table).min(axis=0) == np.asarray(table).max(axis=0)).sum()):
        notes.append(f"{flat:,} of {width:,} columns are constant")
    return [*findings, *(Finding(check, Severity.NOTE, text) for text in notes)]


def _blocks(table: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    """The table some rows at a time, as float64: it may be larger than memory."""
    return (np.asarray(rows, np.float64) for _, rows in in_blocks(table))


def _empty_rows(table: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
    """Which rows [I] are zero, which are the mean as far as their type can tell, and the mean row [d].

    If rows are the mean of the others, they are the mean of all rows too, so the one mean does for any number of them.
    """
    mean = sum((rows.sum(axis=0) for rows in _blocks(table)), np.zeros(table.shape[1])) / len(table)
    squares = sum((np.square(rows).sum(axis=0) for rows in _blocks(table)), np.zeros(table.shape[1])) / len(table)
    spread = float(np.sqrt(np.maximum(squares - np.square(mean), 0).sum()))  # root mean square distance to the mean
    limit = 1e-3 * spread + 2 * float(np.finfo(table.dtype).eps) * float(np.linalg.norm(mean))
    zero = np.concatenate([(rows == 0).all(axis=1) for rows in _blocks(table)])
    return zero, np.concatenate([np.linalg.norm(rows - mean, axis=1) <= limit for rows in _blocks(table)]), mean


# --- the order of rows ---


def check_order(dataset: Dataset, modality: str) -> Finding:
    """Do items near in features share users more often than under a random order of the rows?

    Of each item of a sample the nearest ones in it (cosine of centred rows) are taken; the statistic is the mean
    cosine of their users, over all parts. Where it is no better than under random assignments of rows to items, that is
    a problem. Features without any relation to behaviour look like a wrong order here: the table alone cannot tell the
    two apart.
    """
    check = f"row order {modality}"
    sample, pairs = _near_pairs(dataset.features[modality])
    if len(sample) < FEW_ITEMS:
        text = f"{len(sample)} items with features of their own, fewer than {FEW_ITEMS}: too few to tell"
        return Finding(check, Severity.NOTE, text)
    together = _shared_users(dataset, sample)
    if len(pairs) * float((together > 0).mean()) < FEW_SHARED:
        return Finding(check, Severity.NOTE, "items share too few users to tell whether near ones share more")
    draw = np.random.default_rng(SEED)
    orders = (draw.permutation(len(together)) for _ in range(PERMUTATIONS))
    by_chance = np.array([together[order[pairs[:, 0]], order[pairs[:, 1]]].mean() for order in orders], np.float64)
    ours = float(together[pairs[:, 0], pairs[:, 1]].mean())
    p = (1 + int((by_chance >= ours).sum())) / (1 + PERMUTATIONS)
    text = (
        f"items near in content, {NEIGHBOURS} for each of {len(sample):,}, have {ours / by_chance.mean():.2f} times "
        f"the overlap of users that {PERMUTATIONS} random orders of the rows give (p = {p:.3f})"
    )
    if p > LEVEL:
        return Finding(check, Severity.PROBLEM, f"{text}: are the rows in the order of the items?")
    return Finding(check, Severity.OK, text)


def _near_pairs(table: NDArray[Any]) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """A sample of items [S], and pairs of positions in it, [n, 2]: each item and one of its nearest in features.

    Items are drawn among those whose row is neither zero nor the mean: such rows are near to each other for no reason.
    """
    zero, filled, mean = _empty_rows(table)
    candidates = np.flatnonzero(~(zero | filled))
    sample = np.sort(np.random.default_rng(SEED).permutation(candidates)[:SAMPLE])
    if len(sample) < 2:
        return sample, np.empty((0, 2), np.int64)
    centred = np.asarray(table[sample], np.float64) - mean
    unit = (centred / np.linalg.norm(centred, axis=1, keepdims=True)).astype(np.float32)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    k = min(NEIGHBOURS, len(sample) - 1)
    nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
    return sample, np.stack([np.repeat(np.arange(len(sample)), k), nearest.ravel()], axis=1)


def _shared_users(dataset: Dataset, sample: NDArray[np.integer]) -> NDArray[np.float32]:
    """Cosine of the users, in any part, of every two items of a sample, [S, S]; zero on the diagonal."""
    together = np.concatenate([dataset.part(part) for part in PARTS])
    counts = np.bincount(together[:, 1], minlength=dataset.n_items)
    weights = (1 / np.sqrt(counts[together[:, 1]])).astype(np.float32)
    shape = (dataset.n_items, dataset.n_users)
    users = scipy.sparse.csr_array((weights, (together[:, 1], together[:, 0])), shape=shape)[sample]
    cosines: NDArray[np.float32] = (users @ users.T).toarray()
    np.fill_diagonal(cosines, 0)
    return cosines
