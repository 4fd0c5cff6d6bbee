"""What `bm3 data verify` finds, and what it lets pass."""

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.data import PARTS, Dataset, checked_dataset, load_dataset, published_split
from harness.data.split import RULES
from harness.data.synthetic import mini
from harness.ingest.verification import verify
from harness.ingest.verify import (
    Finding,
    Severity,
    check_hash,
    check_overlap,
    check_split,
    check_statistics,
    check_training,
)
from harness.ingest.verify_features import check_features
from harness.ingest.verify_order import check_order
from harness.paper.expected import PublishedValue, Status, expected_dir, load_expected

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


# --- statistics ---


def printed(metric: str, value: float, source: str = "paper", status: Status = Status.AS_PRINTED) -> PublishedValue:
    return PublishedValue("Mini", "", metric, value, source, status, "said so")


def test_every_source_that_prints_the_counts_is_named_and_held_against(data: Dataset) -> None:
    values = [printed("users", 700), printed("items", 699), printed("users", 700, "thesis"), printed("items", 9, "web")]
    findings = check_statistics(data, values)
    assert texts(findings, OK) == "as in paper: users 700, items 699 | as in thesis: users 700"
    assert texts(findings, PROBLEM) == "items 699, but web prints 9 (as printed: said so)"


def test_a_figure_that_sources_dispute_is_a_note(data: Dataset) -> None:
    findings = check_statistics(data, [printed("users", 701, status=Status.DISPUTED)])
    assert [finding.severity for finding in findings] == [NOTE]
    assert "disputed: said so" in findings[0].text


def test_sparsity_is_compared_as_printed(data: Dataset) -> None:
    assert worst(check_statistics(data, [printed("sparsity_percent", round(data.sparsity, 2))])) is OK
    assert worst(check_statistics(data, [printed("sparsity_percent", round(data.sparsity, 2) + 0.01)])) is PROBLEM


def test_a_name_that_nobody_published_is_said_to_be_unknown(data: Dataset) -> None:
    (finding,) = check_statistics(data, load_expected(expected_dir()))
    assert finding.severity is NOTE
    assert "baby, electronics, sports, not for 'mini'" in finding.text


def test_another_data_set_under_a_published_name_is_a_problem(data: Dataset) -> None:
    findings = check_statistics(replace(data, name="baby"), load_expected(expected_dir()))
    assert "users 700, but paper-table2 prints 19,445" in texts(findings, PROBLEM)


# --- interactions ---


@pytest.mark.parametrize("rule", ["published", "leave_one_out"])
def test_the_rule_that_made_the_split_is_recognised(data: Dataset, rule: str) -> None:
    pairs = np.concatenate([data.part(part) for part in PARTS])
    parts = RULES[rule].divide(pairs, np.arange(len(pairs)), np.random.default_rng(4))
    made = checked_dataset("made", parts, {}, where="test")
    (finding,) = check_split(made, as_published=False)
    assert finding.severity is OK
    assert f"all 700 users have parts as large as by the rule {rule}" in finding.text
    assert worst(check_split(made, as_published=True)) is (OK if rule == "published" else PROBLEM)


def test_one_user_with_other_sizes_breaks_the_rule(data: Dataset) -> None:
    moved = replace(data, train=data.train[1:], test=np.concatenate([data.test, data.train[:1]]))
    (finding,) = check_split(moved, as_published=False)
    assert finding.severity is NOTE
    assert "published in 699 of 700 users" in finding.text
    assert worst(check_split(moved, as_published=True)) is PROBLEM


def test_an_interaction_in_two_parts_leaks(data: Dataset) -> None:
    assert worst(check_overlap(data)) is OK
    user, item = data.train[7]
    leaking = replace(data, test=np.concatenate([data.test, data.train[7:8]]))
    assert texts(check_overlap(leaking), PROBLEM) == (
        f"1 of the interactions in train stand in test too (first: user {user}, item {item})"
    )


def test_an_interaction_twice_in_a_part_is_a_duplicate(data: Dataset) -> None:
    user, item = data.valid[3]
    doubled = replace(data, valid=np.concatenate([data.valid, data.valid[3:4]]))
    assert texts(check_overlap(doubled), PROBLEM) == (
        f"1 of the interactions in valid stand there twice or more (first: user {user}, item {item})"
    )


def test_users_and_items_without_training_are_counted(clustered: Dataset) -> None:
    assert worst(check_training(clustered)) is OK
    lacking = replace(clustered, train=clustered.train[(clustered.train != [0, 3]).all(axis=1)])
    notes = texts(check_training(lacking), NOTE)
    held_out = sum(int((clustered.part(part)[:, 1] == 3).sum()) for part in ("valid", "test"))
    assert "1 of 60 users have none" in notes
    assert "1 of 40 items have none" in notes
    assert f"{held_out} held-out interactions" in notes


def test_a_recorded_hash_must_be_that_of_the_data(data: Dataset) -> None:
    assert worst(check_hash(data, None)) is OK
    assert worst(check_hash(data, data.content_hash)) is OK
    assert worst(check_hash(data, "0" * 64)) is PROBLEM
    assert all(data.content_hash in check_hash(data, recorded)[0].text for recorded in (None, "0" * 64))


# --- features ---


def test_a_table_of_distinct_rows_passes_without_a_note(data: Dataset) -> None:
    (finding,) = check_features(data, "visual")
    assert finding.severity is OK
    assert "699 x 32 float32" in finding.text


@pytest.mark.parametrize(
    ("change", "severity", "text"),
    [
        (lambda table: table.__setitem__((5, 1), np.nan), PROBLEM, "1 of 699 rows contain NaN or infinity"),
        (lambda table: table.__setitem__((5, 1), np.inf), PROBLEM, "1 of 699 rows contain NaN or infinity"),
        (lambda table: table.fill(2.0), PROBLEM, "all rows are equal"),
        (lambda table: table.__setitem__(slice(9), 0), NOTE, "9 of 699 rows are zero"),
        (lambda table: table.__setitem__(slice(350), 0), PROBLEM, "350 of 699 rows are zero"),
        (lambda table: table.__setitem__((slice(None), 4), 1.5), NOTE, "1 of 32 columns are constant"),
        (lambda table: table.__setitem__(slice(10, 13), table[9]), NOTE, "4 of 699 rows equal another one exactly"),
        (
            lambda table: table.__setitem__(slice(0, 20), table[20:].mean(axis=0)),
            NOTE,
            "20 of 699 rows are the mean of the others",
        ),
        (
            lambda table: table.__setitem__(0, table[1:].mean(axis=0)),
            NOTE,
            "1 of 699 rows are the mean of the others",
        ),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_rows_and_columns_of_no_content_are_found(
    data: Dataset, change: Any, severity: Severity, text: str, dtype: Any
) -> None:
    table = np.array(data.features["visual"], dtype)
    change(table)
    assert text in texts(check_features(with_table(data, table), "visual"), severity)


def test_surrogate_vectors_are_noted(data: Dataset) -> None:
    assert "surrogate" in texts(check_features(replace(data, surrogates=frozenset({"text"})), "text"), NOTE)


# --- the order of rows ---


@pytest.mark.parametrize("modality", ["visual", "text"])
def test_the_right_order_passes(data: Dataset, modality: str) -> None:
    (finding,) = check_order(data, modality)
    assert finding.severity is OK


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_rows_are_detected(data: Dataset, seed: int) -> None:
    table = data.features["visual"][np.random.default_rng(seed).permutation(data.n_items)]
    (finding,) = check_order(with_table(data, table), "visual")
    assert finding.severity is PROBLEM
    assert "are the rows in the order of the items?" in finding.text


@pytest.mark.parametrize(("shift", "text"), [(1, "1 before"), (-2, "2 after")])
def test_rows_that_moved_from_somewhere_on_are_detected(data: Dataset, shift: int, text: str) -> None:
    table = np.array(data.features["visual"])
    table[400:] = np.roll(table[400:], shift, axis=0)
    moved = check_order(with_table(data, table), "visual")
    assert f"fit the items {text} theirs far better" in texts(moved, PROBLEM)


def test_rows_without_content_are_not_taken_for_neighbours(data: Dataset) -> None:
    """Three hundred zero or mean rows are near to each other, and say nothing about the order of the rest."""
    table = np.array(data.features["visual"])
    table[:150] = 0
    table[150:300] = table.mean(axis=0)
    assert worst(check_order(with_table(data, table), "visual")) is OK


def test_too_little_to_tell_is_a_note(small_parts: Any, small_features: Any) -> None:
    small = checked_dataset("small", small_parts, small_features, where="test")
    (finding,) = check_order(small, "visual")
    assert finding.severity is NOTE
    assert "too few to tell" in finding.text


def test_items_that_share_no_users_tell_nothing_about_the_order() -> None:
    """Sixty users with one item each, and one user with three."""
    pairs = np.array([*((user, user) for user in range(60)), (60, 60), (60, 61), (60, 62)])
    table = np.random.default_rng(0).normal(size=(63, 8)).astype(np.float32)
    parts = published_split(pairs, np.random.default_rng(1))
    lonely = checked_dataset("lonely", parts, {"visual": table}, where="test")
    (finding,) = check_order(lonely, "visual")
    assert finding.severity is NOTE
    assert "share too few users" in finding.text


# --- all together ---


def test_the_same_data_gives_the_same_findings(data: Dataset) -> None:
    values = load_expected(expected_dir())
    assert verify(data, values, None) == verify(mini(), values, None)
    assert worst(verify(data, values, None)) is NOTE


def test_a_table_of_equal_rows_is_one_problem_and_no_error(data: Dataset) -> None:
    findings = verify(with_table(data, np.ones((data.n_items, 3), np.float32)), [], None)
    assert [finding.check for finding in findings if finding.severity is PROBLEM] == ["features visual"]


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["baby", "sports", "tiktok"])
def test_the_real_data_sets_have_no_problem_and_their_order_is_recognised(name: str) -> None:
    dataset = load_dataset(name)
    findings = verify(dataset, load_expected(expected_dir()), None)
    assert texts(findings, PROBLEM) == ""
    orders = [finding for finding in findings if finding.check.startswith("row order")]
    assert [finding.severity for finding in orders] == [OK] * len(dataset.features)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["baby", "sports", "tiktok"])
def test_shuffled_features_of_the_real_data_sets_are_detected(name: str) -> None:
    dataset = load_dataset(name)
    for modality, table in dataset.features.items():
        shuffled = table[np.random.default_rng(1).permutation(len(table))]
        moved = replace(dataset, features=MappingProxyType({modality: shuffled}))
        assert worst(check_order(moved, modality)) is PROBLEM


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["baby", "sports"])
def test_the_published_data_sets_obey_the_published_rule(name: str) -> None:
    assert worst(check_split(load_dataset(name), as_published=True)) is OK
