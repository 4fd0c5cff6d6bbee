"""Everything a report says, as one immutable value. The formats (`markdown`, `html`, `latex`, `cells`, `pictures`) only
lay it out; they compute no figure of their own.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.compare.expected import (
    PublishedValue,
    Source,
    Tolerances,
    expected_dir,
    load_expected,
    load_sources,
    load_tolerances,
)
from harness.compare.verdict import Outcome, Verdict, exit_code
from harness.conformance import Check, Status, trace_statuses
from harness.experiments.store import StoredRun, stored_runs
from harness.report.results import METRICS, ResultRow, cell_sources, result_rows, verdicts

ANSWERS = {0: "Everything with evidence held.", 1: "Something deviates or failed.", 3: "Nothing could be measured."}

PerUser = tuple[NDArray[np.int64], NDArray[np.float64]]


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

    def per_user(self, metric: str) -> PerUser | None:
        """Users [n] and their test metric [n], mean over the seeds; None where a run stored none.

        Raises DataError when a file of a run is damaged.
        """
        stored = [run.per_user(metric) for run in self.result.runs]
        found = [pair for pair in stored if pair is not None]
        if len(found) < len(stored) or any(len(users) != len(found[0][0]) for users, _ in found):
            return None
        return found[0][0], np.mean([values for _, values in found], axis=0)


@dataclass(frozen=True)
class Study:
    """A folder of stored runs, judged. `code` is the exit code that goes with it."""

    folder: Path
    asked: str
    rows: tuple[StudyRow, ...]
    """By data set and label."""
    runs: tuple[StoredRun, ...]
    """All that were found, unfinished ones too."""
    conformance: Mapping[str, int]
    """How many recorded traces passed, failed or were not supported; empty where none was replayed."""
    unchecked: tuple[str, ...]
    failed: tuple[str, ...]
    """Commands of trials that failed."""
    expected: tuple[PublishedValue, ...]
    sources: Mapping[str, Source]
    tolerances: Tolerances
    code: int

    @property
    def answer(self) -> str:
        """The report in one sentence."""
        return ANSWERS[self.code]

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(row.dataset for row in self.rows))

    @property
    def outcomes(self) -> Mapping[Outcome, int]:
        """How many accuracy cells have each outcome, the most frequent first."""
        counts = Counter(verdict.outcome for row in self.rows for verdict in row.verdicts.values())
        return dict(counts.most_common())

    @property
    def unfinished(self) -> list[StoredRun]:
        return [run for run in self.runs if not run.finished]

    def of(self, dataset: str) -> list[StudyRow]:
        """The rows of a data set."""
        return [row for row in self.rows if row.dataset == dataset]

    def best_two(self, dataset: str, metric: str) -> list[StudyRow]:
        """The rows with the highest and second highest mean, as far as there are any; equal ones by label."""
        return sorted(self.of(dataset), key=lambda row: (-row.mean(metric), row.label))[:2]


def make_study(
    folder: Path, asked: str, *, checks: Sequence[Check] = (), unchecked: Sequence[str] = (), failed: Sequence[str] = ()
) -> Study:
    """Judge every run below `folder`; `checks` are conformance results, `failed` commands of trials that failed.

    Raises DataError when the folder or the expected values cannot be read.
    """
    runs = tuple(stored_runs(folder))
    directory = expected_dir()
    expected, tolerances = load_expected(directory), load_tolerances(directory / "tolerances.toml")
    rows = tuple(
        StudyRow(
            result=row,
            verdicts=verdicts(row, expected, tolerances),
            sources={metric: cell_sources(row, expected, metric) for metric in METRICS},
        )
        for row in result_rows(runs)
    )
    statuses = Counter(trace_statuses(list(checks)).values())
    code = exit_code(verdict for row in rows for verdict in row.verdicts.values())
    return Study(
        folder=folder,
        asked=asked,
        rows=rows,
        runs=runs,
        conformance={status.value: count for status, count in statuses.items()},
        unchecked=tuple(unchecked),
        failed=tuple(failed),
        expected=expected,
        sources=load_sources(directory),
        tolerances=tolerances,
        code=1 if statuses[Status.FAILED] or failed else code,
    )
