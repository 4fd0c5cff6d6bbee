"""Everything a report says, as one immutable value. The formats (`markdown`, `html`, `latex`, `cells`, `pictures`) only
lay it out; they compute no figure of their own.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.compare.claim_checks import MeasuredRow, claims_of_published, claims_of_runs, differences_of
from harness.compare.claims import ClaimResult, load_claims
from harness.compare.expected import (
    PublishedValue,
    Source,
    Tolerances,
    expected_dir,
    load_expected,
    load_sources,
    load_tolerances,
)
from harness.compare.scaling import stored_exponents
from harness.compare.significance import Difference
from harness.compare.verdict import Outcome, Verdict, exit_code
from harness.experiments.store import StoredRun, stored_runs
from harness.report.measured import measured_row
from harness.report.results import METRICS, AskedRow, ResultRow, cell_sources, result_rows, starved_labels, verdicts

if TYPE_CHECKING:
    from harness.conformance import Check

ANSWERS = {0: "Everything with evidence held.", 1: "Something deviates or failed.", 3: "Nothing could be measured."}


@dataclass(frozen=True)
class StudyRow:
    """A model on a data set, judged."""

    result: ResultRow
    verdicts: Mapping[str, Verdict]
    """By canonical metric, in the order of METRICS."""
    sources: Mapping[str, tuple[PublishedValue, ...]]
    """By canonical metric: every figure published for the cell, whether or not it was compared with."""

    @property
    def dataset(self) -> str:
        return self.result.dataset

    @property
    def label(self) -> str:
        return self.result.label

    def mean(self, metric: str) -> float:
        """Test metric, mean over seeds."""
        values = self.result.values(metric)
        return sum(values) / len(values)


@dataclass(frozen=True)
class Study:
    """A folder of stored runs, judged. `code` is the exit code that goes with it."""

    folder: Path
    asked: str
    rows: tuple[StudyRow, ...]
    """By data set and model."""
    runs: tuple[StoredRun, ...]
    """All that were found, unfinished ones too."""
    unread: tuple[str, ...]
    """What of them could not be read and is left out: a line each, its path and why."""
    conformance: Mapping[str, int]
    """How many recorded traces passed, failed or were not supported; empty where none was replayed."""
    unchecked: tuple[str, ...]
    failed: tuple[str, ...]
    """Commands of trials that failed."""
    starved: Mapping[str, tuple[str, ...]]
    """By data set: what rows are called that have no result, since memory did not suffice, where the paper prints a
    dash."""
    differences: Mapping[str, tuple[Difference, ...]]
    """By data set: pairs of rows compared over users, as far as runs stored what that needs."""
    claims: tuple[ClaimResult, ...]
    """What the paper claims in words, against published tables and against these runs; empty without a published data
    set."""
    expected: tuple[PublishedValue, ...]
    sources: Mapping[str, Source]
    tolerances: Tolerances
    code: int
    with_costs: int
    """How many rows have time and memory."""

    @property
    def answer(self) -> str:
        """The report in one sentence."""
        costs = f"Time and memory of {self.with_costs} of {len(self.rows)} rows were measured"
        if self.code != 1 and self.with_costs and exit_code_of(self.rows) == 3:
            return f"{costs}." if self.code == 0 else f"{costs}, and no accuracy could be judged."
        without, cells = self.outcomes.get(Outcome.NO_EVIDENCE, 0), sum(self.outcomes.values())
        doubt = f" For {without} of {cells} accuracy cells there is no evidence." if self.code != 3 and without else ""
        return ANSWERS[self.code] + doubt

    @property
    def datasets(self) -> list[str]:
        return _names(self.rows)

    @property
    def outcomes(self) -> Mapping[Outcome, int]:
        """How many accuracy cells have each outcome, the most frequent first."""
        counts = Counter(verdict.outcome for row in self.rows for verdict in row.verdicts.values())
        return dict(counts.most_common())

    @property
    def unfinished(self) -> list[StoredRun]:
        """Runs without a result that did not fail."""
        ended = {*self.failed}
        return [r for r in self.runs if not (r.finished or r.out_of_memory or r.run["command"] in ended)]

    @property
    def failures(self) -> Mapping[str, str]:
        """Command of a failed trial → what its run says of why, empty where it left nothing."""
        told = {run.run["command"]: str(run.failure["message"]) for run in self.runs if run.failure is not None}
        return {command: told.get(command, "") for command in self.failed}

    @property
    def out_of_memory(self) -> list[StoredRun]:
        """Runs that needed more memory than there was."""
        return [run for run in self.runs if run.out_of_memory]

    def of(self, dataset: str) -> list[StudyRow]:
        """The rows of a data set."""
        return [row for row in self.rows if row.dataset == dataset]

    def best_two(self, dataset: str, metric: str) -> list[StudyRow]:
        """The rows with the highest and second highest mean, as far as there are finite ones; equal ones by label."""
        finite = [row for row in self.of(dataset) if math.isfinite(row.mean(metric))]
        return sorted(finite, key=lambda row: (-row.mean(metric), row.label))[:2]

    def tested(self, dataset: str, metric: str) -> Difference | None:
        """The best row against the second, where users were compared."""
        best = [row.label for row in self.best_two(dataset, metric)]
        for pair in self.differences.get(dataset, ()):
            if pair.metric == metric and {pair.first, pair.second} == set(best):
                return pair.seen_from(best[0])
        return None


def exit_code_of(rows: Iterable[StudyRow]) -> int:
    """By the accuracy of these rows alone."""
    return exit_code(verdict for row in rows for verdict in row.verdicts.values())


def make_study(
    folder: Path,
    asked: str,
    *,
    of: Sequence[StoredRun] | None = None,
    asked_for: Sequence[AskedRow] | None = None,
    checks: Sequence["Check"] = (),
    unchecked: Sequence[str] = (),
    failed: Sequence[str] = (),
    of_costs: bool = False,
    unread: Sequence[str] = (),
) -> Study:
    """Judge these runs of the store `folder`, or all of it.

    `asked_for` are the rows that the runs answer; without them, rows are formed from what runs have in common. `checks`
    are conformance results, `failed` commands of trials that failed and should not have. Where they are `of_costs`,
    time and memory are what is to be measured, and accuracy need not have evidence. What could not be read of the runs
    is `unread`; it is named and changes no verdict on the others.

    Raises DataError when the folder or the expected values cannot be read.
    """
    unread = list(unread)
    runs = tuple(stored_runs(folder, unread) if of is None else of)
    directory = expected_dir()
    expected, tolerances = load_expected(directory), load_tolerances(directory / "tolerances.toml")
    rows = tuple(
        StudyRow(
            result=row,
            verdicts=verdicts(row, expected, tolerances),
            sources={metric: cell_sources(row, expected, metric) for metric in METRICS},
        )
        for row in (_readable(row, unread) for row in result_rows(runs, asked_for))
    )
    measured = [measured_row(row.result) for row in rows]
    by_data = differences_of(measured, tolerances.confidence)
    hashes = {dataset: {row.data: None for row in measured if row.dataset == dataset} for dataset in _names(rows)}
    claims = load_claims(directory / "claims.toml")
    published = any(value.kind == "published" for row in rows for cell in row.sources.values() for value in cell)
    statuses = _statuses(checks)
    code = exit_code_of(rows)
    with_costs = sum(bool(row.seconds and row.memory) for row in measured)
    if of_costs and code == 3 and with_costs:
        code = 0
    return Study(
        folder=folder,
        asked=asked,
        rows=rows,
        runs=runs,
        unread=tuple(unread),
        conformance=statuses,
        unchecked=tuple(unchecked),
        failed=tuple(dict.fromkeys([*failed, *(run.run["command"] for run in runs if _failed(run))])),
        starved=starved_labels([row.result for row in rows], runs, asked_for),
        differences={
            name: tuple(pair for data in of_name for pair in by_data.get(data, ())) for name, of_name in hashes.items()
        },
        claims=(
            *claims_of_published(claims, expected),
            *claims_of_runs(
                claims, _standing_for_models(rows, measured), tolerances, by_data, stored_exponents(folder)
            ),
        )
        if published
        else (),
        expected=expected,
        sources=load_sources(directory),
        tolerances=tolerances,
        code=1 if statuses["failed"] or failed else code,
        with_costs=with_costs,
    )


def _readable(row: ResultRow, unread: list[str]) -> ResultRow:
    """The row with what can be read of its runs; why the rest cannot is added to `unread`."""
    found = [run.readable(METRICS) for run in row.runs]
    unread += [reason for _, reasons in found for reason in reasons]
    return replace(row, runs=tuple(run for run, _ in found))


def _statuses(checks: Sequence["Check"]) -> Counter[str]:
    """How many traces have which status."""
    if not checks:
        return Counter()
    from harness.conformance import trace_statuses  # torch, which reading runs does not wait for

    return Counter(status.value for status in trace_statuses(list(checks)).values())


def _failed(run: StoredRun) -> bool:
    return run.state == "failed" and not run.out_of_memory


def _standing_for_models(rows: Sequence[StudyRow], measured: Sequence[MeasuredRow]) -> list[MeasuredRow]:
    """Of each model the rows with the fewest settings, whatever a suite calls them."""
    groups: dict[tuple[str, str], list[tuple[int, MeasuredRow]]] = defaultdict(list)
    for row, as_measured in zip(rows, measured, strict=True):
        groups[row.dataset, row.result.model].append((len(row.result.reference.split()), as_measured))
    found = []
    for group in groups.values():
        nearest = [row for settings, row in group if settings == min(group, key=lambda pair: pair[0])[0]]
        # Claims count the words of a label: where rows are equally near, names must not decide between them.
        even = len({len(row.label.split()) for row in nearest}) == 1
        found += nearest if even else [replace(row, label="-".join(row.label.split())) for row in nearest]
    return found


def _names(rows: Sequence[StudyRow]) -> list[str]:
    return list(dict.fromkeys(row.dataset for row in rows))
