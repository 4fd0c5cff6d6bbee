"""What `bm3 data verify` finds, and what it lets pass."""

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.data.dataset import PARTS, Dataset, checked_dataset
from harness.data.layouts import load_dataset
from harness.data.split import random_user_split, split_rule
from harness.data.synthetic import mini
from harness.ingest.verify import (
    Finding,
    Severity,
    check_counts,
    check_features,
    check_hash,
    check_order,
    check_split,
    check_training,
    verify,
)

OK, NOTE, PROBLEM = Severity.OK, Severity.NOTE, Severity.PROBLEM


@pytest.fixture(scope="module")
def data() -> Dataset:
    return mini()


def worst(findings: Sequence[Finding]) -> Severity:
    """The most severe of some findings, of which there must be one."""
    assert findings
    return max((finding.severity for finding in findings), key=[OK, NOTE, PROBLEM].index)


def texts(findings: Sequence[Finding], severity: Severity) -> str:
    return " | ".join(finding.text for finding in findings if finding.severity is severity)


def with_table(dataset: Dataset, table: NDArray[Any]) -> Dataset:
    return replace(dataset, features=MappingProxyType({"visual": table}))


# --- counts ---


@pytest.mark.parametrize(
    ("counts", "printed", "expected"),
    [
        (
            (20, 10, 66),  # 0.67 of 200 are there
            {
                "paper": {"users": (20, ""), "items": (10, ""), "sparsity_percent": (66.67, "")},
                "web": {"items": (9, ""), "sparsity_percent": (66.68, "")},
            },
            {
                OK: "as in paper: users 20, items 10",
                PROBLEM: "sparsity_percent 67, but paper prints 66.67 | items 10, but web prints 9 | "
                "sparsity_percent 67, but web prints 66.68",
                NOTE: "",
            },
        ),
        (
            (30, 10, 100),
            {"paper": {"users": (30, ""), "sparsity_percent": (66.67, ""), "years": (9, "")}},
            {OK: "as in paper: users 30, sparsity_percent 66.67", PROBLEM: "", NOTE: ""},
        ),
        (
            (20, 10, 66),
            {"thesis": {"users": (20, ""), "items": (9, "10 elsewhere")}},
            {OK: "as in thesis: users 20", PROBLEM: "", NOTE: "items 10, but thesis prints 9 (disputed: 10 elsewhere)"},
        ),
        ((20, 10, 66), {}, {OK: "", PROBLEM: "", NOTE: "not compared: no source prints those of this data set"}),
    ],
)
def test_counts_are_held_against_every_source(
    counts: tuple[int, ...], printed: Any, expected: dict[Severity, str]
) -> None:
    findings = check_counts(dict(zip(("users", "items", "interactions"), counts, strict=True)), printed)
    assert {severity: texts(findings, severity) for severity in Severity} == expected


# --- interactions ---


@pytest.mark.parametrize("rule", ["random_user", "leave_one_out"])
def test_the_rule_that_made_the_split_is_recognised(data: Dataset, rule: str) -> None:
    pairs = np.concatenate([data.part(part) for part in PARTS])
    parts = split_rule(rule).divide(pairs, np.arange(len(pairs)), np.random.default_rng(4))
    made = checked_dataset("made", parts, {}, where="test")
    (finding,) = check_split(made, None)
    assert finding.severity is OK
    assert f"all 700 users have parts as large as by the rule {rule}" in finding.text
    assert worst(check_split(made, "random_user")) is (OK if rule == "random_user" else PROBLEM)


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("temporal_user", OK),
        ("published", OK),
        ("leave_3_out", OK),
        ("temporal_global", NOTE),
        ("leave_one_out", PROBLEM),
    ],
)
def test_a_split_made_by_the_papers_own_rule_is_no_problem(data: Dataset, rule: str, found: Severity) -> None:
    pairs = np.concatenate([data.part(part) for part in PARTS])
    by = rule if found is not PROBLEM else "random_user"
    parts = split_rule(by).divide(pairs, np.arange(len(pairs)), np.random.default_rng(4))
    assert worst(check_split(checked_dataset("made", parts, {}, where="test"), rule)) is found


def test_one_user_with_other_sizes_breaks_the_rule(data: Dataset) -> None:
    moved = replace(data, train=data.train[1:], test=np.concatenate([data.test, data.train[:1]]))
    (finding,) = check_split(moved, None)
    assert finding.severity is NOTE
    assert "random_user in 699 of 700 users" in finding.text
    assert worst(check_split(moved, "random_user")) is PROBLEM


def test_users_and_items_without_training_are_counted(clustered: Dataset) -> None:
    assert worst(check_training(clustered)) is OK
    lacking = replace(clustered, train=clustered.train[(clustered.train != [0, 3]).all(axis=1)])
    notes = texts(check_training(lacking), NOTE)
    held_out = sum(int((clustered.part(part)[:, 1] == 3).sum()) for part in ("valid", "test"))
    assert "1 of 60 users have none" in notes
    assert "1 of 40 items have none" in notes
    assert f"{held_out} held-out interactions" in notes


def test_a_recorded_hash_must_be_that_of_the_data(data: Dataset) -> None:
    assert check_hash(data, None).severity is OK
    assert check_hash(data, data.content_hash).severity is OK
    assert check_hash(data, "0" * 64).severity is PROBLEM
    assert all(data.content_hash in check_hash(data, recorded).text for recorded in (None, "0" * 64))


# --- features ---


@pytest.mark.parametrize(
    ("change", "severity", "text"),
    [
        (lambda table: table.fill(2.0), PROBLEM, "all rows are equal"),
        (lambda table: table.__setitem__(slice(9), 0), NOTE, "9 of 699 rows are zero"),
        (lambda table: table.__setitem__(slice(350), 0), PROBLEM, "350 of 699 rows are zero"),
        (lambda table: table.__setitem__((slice(None), 4), 1.5), NOTE, "1 of 32 columns are constant"),
        (lambda table: table.__setitem__(slice(10, 13), table[9]), NOTE, "4 of 699 rows equal another one exactly"),
        *[
            (
                lambda table, n=n: table.__setitem__(slice(n), table[n:].mean(axis=0)),
                NOTE,
                f"{n} of 699 rows are the mean of the others",
            )
            for n in (1, 20)
        ],
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_rows_and_columns_of_no_content_are_found(
    data: Dataset, change: Any, severity: Severity, text: str, dtype: Any
) -> None:
    table = np.array(data.features["visual"], dtype)
    change(table)
    assert text in texts(check_features(with_table(data, table), "visual"), severity)


def test_a_table_of_distinct_rows_passes_and_surrogate_vectors_are_noted(data: Dataset) -> None:
    (finding,) = check_features(data, "visual")
    assert (finding.severity, "699 x 32 float32" in finding.text) == (OK, True)
    assert "surrogate" in texts(check_features(replace(data, surrogates=frozenset({"text"})), "text"), NOTE)


# --- the order of rows ---


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_rows_are_detected(data: Dataset, seed: int) -> None:
    table = data.features["visual"][np.random.default_rng(seed).permutation(data.n_items)]
    finding = check_order(with_table(data, table), "visual")
    assert finding.severity is PROBLEM
    assert "are the rows in the order of the items?" in finding.text


def test_the_right_order_passes_and_rows_without_content_are_not_taken_for_neighbours(data: Dataset) -> None:
    """Three hundred zero or mean rows are near to each other, and say nothing about the order of the rest."""
    assert all(check_order(data, modality).severity is OK for modality in ("visual", "text"))
    table = np.array(data.features["visual"])
    table[:150] = 0
    table[150:300] = table.mean(axis=0)
    assert check_order(with_table(data, table), "visual").severity is OK


def test_too_few_items_or_too_few_shared_users_to_tell_are_a_note(small_parts: Any, small_features: Any) -> None:
    """Eight items; and sixty users with one item each, and one user with three."""
    small = checked_dataset("small", small_parts, small_features, where="test")
    pairs = np.array([*((user, user) for user in range(60)), (60, 60), (60, 61), (60, 62)])
    table = np.random.default_rng(0).normal(size=(63, 8)).astype(np.float32)
    parts = random_user_split(pairs, np.random.default_rng(1))
    lonely = checked_dataset("lonely", parts, {"visual": table}, where="test")
    for dataset, said in ((small, "too few to tell"), (lonely, "share too few users")):
        finding = check_order(dataset, "visual")
        assert (finding.severity, said in finding.text) == (NOTE, True)


# --- all together ---


def test_the_same_data_gives_the_same_findings_and_equal_rows_are_one_problem_and_no_error(data: Dataset) -> None:
    assert verify(data, {}, None, None) == verify(mini(), {}, None, None)
    assert worst(verify(data, {}, "random_user", data.content_hash)) is NOTE
    findings = verify(with_table(data, np.ones((data.n_items, 3), np.float32)), {}, None, None)
    assert [finding.check for finding in findings if finding.severity is PROBLEM] == ["features visual"]


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["baby", "sports", "tiktok"])
def test_the_order_of_the_real_data_sets_is_recognised_and_shuffled_rows_are_detected(name: str) -> None:
    dataset = load_dataset(name)
    assert texts(verify(dataset, {}, None if name == "tiktok" else "random_user", None), PROBLEM) == ""
    for modality, table in dataset.features.items():
        assert check_order(dataset, modality).severity is OK
        shuffled = table[np.random.default_rng(1).permutation(len(table))]
        moved = replace(dataset, features=MappingProxyType({modality: shuffled}))
        assert check_order(moved, modality).severity is PROBLEM
