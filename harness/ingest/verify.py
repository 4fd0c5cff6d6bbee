"""Checks of interactions: is this the published data set, does it obey a split rule, are parts apart.

Those of feature tables are in `verify_features` and `verify_order`. All are pure functions from a Dataset to findings.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from harness.data.dataset import PARTS, Dataset
from harness.data.split import RULES
from harness.paper.expected import PublishedValue, Status

RULES_BY_COUNT = {
    "published": "published (and temporal_user, whose parts are as large)",
    "leave_one_out": "leave_one_out",
}
"""The rules that fix how many of a user's interactions each part gets, with their names for people."""


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


def check_statistics(dataset: Dataset, values: Iterable[PublishedValue]) -> list[Finding]:
    """Hold the counts of a data set of a published name against every source that prints them (Table 2).

    Sparsity is compared at the two decimals that are printed. A figure that the sources dispute is a note.
    """
    of_data_sets = [value for value in values if not value.model]
    ours = {
        "users": dataset.n_users,
        "items": dataset.n_items,
        "interactions": dataset.n_interactions,
        "sparsity_percent": round(dataset.sparsity, 2),
    }
    printed = [value for value in of_data_sets if value.cell[0] == dataset.name.lower() and value.metric in ours]
    if not printed:
        known = sorted({value.dataset.lower() for value in of_data_sets})
        text = f"not compared: published counts are at hand for {', '.join(known)}, not for {dataset.name!r}"
        return [Finding("statistics", Severity.NOTE, text)]
    findings = []
    for source in dict.fromkeys(value.source for value in printed):
        of_source = [value for value in printed if value.source == source]
        agreeing = [value for value in of_source if value.value == ours[value.metric]]
        if agreeing:
            text = ", ".join(f"{value.metric} {ours[value.metric]:,}" for value in agreeing)
            findings.append(Finding("statistics", Severity.OK, f"as in {source}: {text}"))
        for value in of_source:
            if value not in agreeing:
                disputed = value.status is Status.DISPUTED
                note = f" ({value.status}: {value.note})" if value.note else ""
                text = f"{value.metric} {ours[value.metric]:,}, but {source} prints {value.value:,}{note}"
                findings.append(Finding("statistics", Severity.NOTE if disputed else Severity.PROBLEM, text))
    return findings


def check_split(dataset: Dataset, *, as_published: bool) -> list[Finding]:
    """Which rule the sizes of every user's parts obey; another than the published one is a problem if `as_published`.

    Sizes alone show no more than that the rule may have made the split: not which interactions were held out, nor why.
    """
    together = np.concatenate([dataset.part(part) for part in PARTS])
    ours = _sizes([dataset.part(part) for part in PARTS], dataset.n_users)
    obeying = {}
    for name in RULES_BY_COUNT:
        parts = RULES[name].divide(together, np.zeros(len(together), np.int64), np.random.default_rng(0))
        by_rule = _sizes([parts[part] for part in PARTS], dataset.n_users)
        obeying[name] = int((ours == by_rule).all(axis=0).sum())
    n = dataset.n_users
    full = [RULES_BY_COUNT[name] for name, users in obeying.items() if users == n]
    if full:
        severity = Severity.OK if not as_published or obeying["published"] == n else Severity.PROBLEM
        text = f"all {n:,} users have parts as large as by the rule {' and '.join(full)}"
    else:
        severity = Severity.PROBLEM if as_published else Severity.NOTE
        counts = ", ".join(f"{name} in {users:,} of {n:,} users" for name, users in obeying.items())
        text = f"sizes of parts follow no rule that fixes them per user ({counts})"
    return [Finding("split rule", severity, text)]


def _sizes(parts: Sequence[NDArray[np.integer]], n_users: int) -> NDArray[np.integer]:
    """Interactions of every user in each part, [parts, users]."""
    return np.stack([np.bincount(part[:, 0], minlength=n_users) for part in parts])


def check_overlap(dataset: Dataset) -> list[Finding]:
    """Interactions in two parts, which leak what is to be predicted, and interactions twice in one."""
    keys = {part: _keys(dataset, dataset.part(part)) for part in PARTS}
    findings = []
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        shared = np.intersect1d(keys[first], keys[second])  # type: ignore[index]
        if len(shared):
            pair = _pair(dataset, shared[0])
            text = f"{len(shared):,} of the interactions in {first} stand in {second} too (first: {pair})"
            findings.append(Finding("leakage", Severity.PROBLEM, text))
    if not findings:
        findings.append(Finding("leakage", Severity.OK, "no interaction stands in two parts"))
    repeated = []
    for part in PARTS:
        present, counts = np.unique(keys[part], return_counts=True)
        if (counts > 1).any():
            pair, n = _pair(dataset, present[counts > 1][0]), int((counts > 1).sum())
            text = f"{n:,} of the interactions in {part} stand there twice or more (first: {pair})"
            repeated.append(Finding("duplicates", Severity.PROBLEM, text))
    return [*findings, *(repeated or [Finding("duplicates", Severity.OK, "no interaction stands in a part twice")])]


def _keys(dataset: Dataset, pairs: NDArray[np.int32]) -> NDArray[np.int64]:
    return pairs[:, 0].astype(np.int64) * dataset.n_items + pairs[:, 1]


def _pair(dataset: Dataset, key: np.int64) -> str:
    user, item = divmod(int(key), dataset.n_items)
    return f"user {user}, item {item}"


def check_training(dataset: Dataset) -> list[Finding]:
    """Users and items without an interaction in training: the first are not evaluated, the second are never learnt."""
    n_users = dataset.n_users - len(np.unique(dataset.train[:, 0]))
    n_items = dataset.n_items - len(np.unique(dataset.train[:, 1]))
    findings = []
    if n_users:
        text = f"{n_users:,} of {dataset.n_users:,} users have none and are left out of evaluation"
        findings.append(Finding("training", Severity.NOTE, text))
    if n_items:
        cold = np.setdiff1d(np.arange(dataset.n_items), dataset.train[:, 1])
        held_out = sum(int(np.isin(dataset.part(part)[:, 1], cold).sum()) for part in ("valid", "test"))
        text = (
            f"{n_items:,} of {dataset.n_items:,} items have none, so only features can tell about them; "
            f"{held_out:,} held-out interactions are with them"
        )
        findings.append(Finding("training", Severity.NOTE, text))
    return findings or [Finding("training", Severity.OK, "every user and every item has an interaction in training")]


def check_hash(dataset: Dataset, recorded: str | None) -> list[Finding]:
    """The content hash, and whether it is the one recorded beside the data."""
    if recorded is None:
        return [Finding("content hash", Severity.OK, f"{dataset.content_hash} (none is recorded to compare with)")]
    if recorded == dataset.content_hash:
        return [Finding("content hash", Severity.OK, f"{dataset.content_hash}, as recorded")]
    text = f"{dataset.content_hash}, but {recorded[:80]!r} is recorded: files have changed since"
    return [Finding("content hash", Severity.PROBLEM, text)]
