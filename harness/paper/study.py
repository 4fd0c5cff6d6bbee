"""Everything a report says, as one immutable value. The formats (`markdown`, `html`, `latex`, `cells`, `pictures`) only
lay it out; they compute no figure of their own.
"""

import math
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.paper import selfcheck
from harness.paper.claim_checks import MeasuredRow, claims_of_published, claims_of_runs, differences_of
from harness.paper.claims import ClaimResult, load_claims
from harness.paper.exceptions import Applied, ExceptedCells, JudgedCell, apply
from harness.paper.expected import (
    PublishedValue,
    Source,
    Tolerances,
    expected_dir,
    load_expected,
    load_sources,
    load_tolerances,
)
from harness.paper.growth import stored_exponents
from harness.paper.measured import SHARED, measured_row, shared_machine
from harness.paper.numbers import number
from harness.paper.results import METRICS, AskedRow, ResultRow, cell_sources, result_rows, starved_labels, verdicts
from harness.paper.selfcheck import Checked
from harness.paper.significance import Difference, paired
from harness.paper.verdict import Outcome, Verdict, exit_code
from harness.runs.store import StoredRun, readable_runs, stored_runs

if TYPE_CHECKING:
    from harness.paper.conformance import Check

PROPOSED = "BM3"
"""The model that the paper proposes, as printed: every report begins with what became of it."""
SHOWN_METRIC = "recall@20"
"""What models are compared by in the headline where nothing is published."""


@dataclass(frozen=True)
class StudyRow:
    """A model on a data set, judged."""

    result: ResultRow
    verdicts: Mapping[str, Verdict]
    """By canonical metric, in the order of METRICS."""
    sources: Mapping[str, tuple[PublishedValue, ...]]
    """By canonical metric: every figure published for the cell, whether or not it was compared with."""
    brief: bool = False
    """Whether it is of the self-check, which trains too briefly for models to be compared with each other."""

    @property
    def dataset(self) -> str:
        return self.result.dataset

    @property
    def label(self) -> str:
        return self.result.label

    @property
    def published(self) -> bool:
        """Whether some source is about one of its cells."""
        return any(self.sources.values())

    @property
    def judged(self) -> list[Verdict]:
        """Verdicts that rest on evidence."""
        return [verdict for verdict in self.verdicts.values() if verdict.outcome.held is not None]

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
    of_costs: bool = False
    """Whether time and memory are what was asked for."""
    exceptions: Applied = field(default_factory=Applied)
    """What became of the exceptions that the suite makes."""
    shared: frozenset[Path] = frozenset()
    """Runs beside which another one ran on the same machine."""
    asked_datasets: tuple[str, ...] = ()
    """Those of the rows that were asked for, whether or not there are runs."""
    selfcheck: tuple[Checked, ...] | None = None
    """The models against the reference of the self-check; None where that is not what was asked."""

    @property
    def title(self) -> str:
        """The question, where there is a published answer to it."""
        if self.selfcheck is not None:
            return "Do the models work here?"
        if self.published:
            return f"Does {PROPOSED} reproduce here?"
        return f"Runs on {', '.join(self.datasets)}" if self.rows else "A report on no run"

    @property
    def published(self) -> list[str]:
        """The data sets, with runs or asked for, for which accuracies are published."""
        printed = {value.dataset.lower() for value in self.expected if "@" in value.metric}
        with_rows = _names([row for row in self.rows if row.published])
        return [*with_rows, *(name for name in self.asked_datasets if name in printed and name not in self.datasets)]

    @property
    def answered(self) -> bool:
        """Whether the proposed model was judged on every data set for which something is published."""
        judged = {row.dataset for row in self.rows if row.judged and row.result.model == PROPOSED.lower()}
        return bool(self.published) and judged >= {*self.published}

    @property
    def datasets(self) -> list[str]:
        return _names(self.rows)

    def commands(self, row: StudyRow) -> list[str]:
        """What repeats each run of the row, with everything its bits depend on; paths are below the folder."""
        return [shlex.join(["bm3", "replay", run.path.relative_to(self.folder).as_posix()]) for run in row.result.runs]

    def time_mark(self, row: StudyRow) -> str:
        """What stands beside times of the first seed's run: SHARED where another run had a part of the machine."""
        return SHARED if row.result.runs[0].path in self.shared else ""

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
        """The rows with the highest and second highest mean, as far as there are finite ones; equal ones by label.

        None of the self-check is among them.
        """
        finite = [row for row in self.of(dataset) if not row.brief and math.isfinite(row.mean(metric))]
        return sorted(finite, key=lambda row: (-row.mean(metric), row.label))[:2]

    def pairs(self, dataset: str, metric: str, label: str) -> list[Difference]:
        """The row against every other one that it was compared with over users."""
        found = [pair for pair in self.differences.get(dataset, ()) if pair.metric == metric]
        return [pair.seen_from(label) for pair in found if label in (pair.first, pair.second)]

    def tested(self, dataset: str, metric: str) -> Difference | None:
        """The best row against the second over the runs that are compared, where users were.

        The best is the row that none exceeds over the runs it is compared with it by, the second the one it leads by
        least. Means over all seeds may order rows otherwise, where seeds are not the same ones.
        """
        rows = sorted(self.of(dataset), key=lambda row: (-_ranked(row.mean(metric)), row.label))
        rows = [row for row in rows if not row.brief]
        for row in rows:
            leads = self.pairs(dataset, metric, row.label)
            if not {other.label for other in rows[:2]} - {row.label} <= {lead.second for lead in leads}:
                return None  # what ranks first or second was not compared over users
            if leads and min(lead.mean for lead in leads) >= 0:
                return min(leads, key=lambda lead: lead.mean)
        return None


def headline(study: Study) -> list[str]:
    """What every report begins with: what became of the proposed model, what was judged, and what went wrong."""
    lines = [_proposed(study, dataset) for dataset in study.published]
    if study.published:
        lines.append(_judged(study))
    others = [dataset for dataset in study.datasets if dataset not in study.published]
    if study.selfcheck is not None:
        lines += [f"{PROPOSED} on {dataset}: not judged (nothing is published for it)." for dataset in others]
        lines.append(selfcheck.headline(study.selfcheck))
    else:
        lines += [_compared(study, dataset) for dataset in others]
    lines += [f"{line.rstrip('.')}." for line in (*study.exceptions.broken, *study.exceptions.lines)]
    if study.of_costs and study.rows:
        lines.append(f"Time and memory of {study.with_costs} of {len(study.rows)} rows were measured.")
    if study.failed:
        lines.append(f"{len(study.failed)} {'trial' if len(study.failed) == 1 else 'trials'} failed.")
    if failed := study.conformance.get("failed"):
        lines.append(f"{failed} of {sum(study.conformance.values())} recorded traces failed.")
    return lines or ["No run has a result."]


def _proposed(study: Study, dataset: str) -> str:
    """The answer for one data set."""
    about = f"{PROPOSED} on {dataset}"
    row = _own_row(study.of(dataset))
    if row is None:
        tried = [r for r in study.runs if (r.run["model"], r.run["dataset"]["name"]) == (PROPOSED.lower(), dataset)]
        starved = any(run.out_of_memory for run in tried)
        return f"{about}: {'out of memory' if starved else 'no run finished' if tried else 'not run'}."
    cells = [verdict for verdict in row.verdicts.values() if verdict.outcome is not Outcome.UNPUBLISHED]
    if not row.judged:
        reasons = dict.fromkeys(verdict.reason.rstrip(".") for verdict in cells or row.verdicts.values())
        return f"{about}: not judged ({'; '.join(reasons)})."
    counts = Counter(verdict.outcome for verdict in row.judged)
    first, *others = [(outcome, counts[outcome]) for outcome in Outcome if counts[outcome]]
    text = f"{about}: {first[0]} in {first[1]} of {len(cells)} cells"
    text += "".join(f", {outcome} in {count}" for outcome, count in others)
    unjudged = len(cells) - len(row.judged)
    return f"{text}, not judged in {unjudged}." if unjudged else f"{text}."


def _judged(study: Study) -> str:
    """How many cells have which outcome; those that did not hold are named."""
    cells = [cell for cell in _cells(study.rows) if cell.verdict.outcome is not Outcome.UNPUBLISHED]
    told = []
    for outcome in Outcome:
        found = [cell for cell in cells if cell.verdict.outcome is outcome]
        if found and outcome.held is not None:
            names = ", ".join(cell.named(with_dataset=len(study.published) > 1) for cell in found)
            told.append(f"{len(found)} {outcome}" + ("" if outcome.held else f" ({names})"))
    judged = sum(cell.verdict.outcome.held is not None for cell in cells)
    return f"{judged} of {len(cells)} cells judged" + (f": {', '.join(told)}." if told else ".")


def _compared(study: Study, dataset: str) -> str:
    """Where nothing is published: the best other row against the proposed model, or against the second one."""
    rows = sorted(study.of(dataset), key=lambda row: -_ranked(row.mean(SHOWN_METRIC)))
    rows = [row for row in rows if not row.brief]
    if not rows:
        return (
            f"On {dataset} only runs of the self-check, too brief for models to be compared; bm3 reproduce judges them."
        )
    own = _own_row(rows)
    if len(rows) == 1:
        (row,) = rows
        seeds = f"{len(row.result.runs)} seed{'s' * (len(row.result.runs) > 1)}"
        return f"{_printed(study, row)} on {dataset}: {SHOWN_METRIC} {number(row.mean(SHOWN_METRIC))} over {seeds}."
    first = next(row for row in rows if row is not own)
    second = own or next(row for row in rows if row is not first)
    names = _printed(study, first), _printed(study, second)
    for pair in study.pairs(dataset, SHOWN_METRIC, first.label):
        if pair.second == second.label:
            winner = pair.winner(1 - study.tolerances.confidence)
            if winner == second.label:
                pair, names = pair.seen_from(winner), (names[1], names[0])
                first, second = second, first
            over = [by_seed for _, by_seed in paired(*(_by_seed(row) for row in (first, second)))]
            ends = (number(100 * end * len(over) / sum(over), "+.1f") for end in (pair.mean, *pair.interval))
            figures = "{} {} % [{}, {}]".format(SHOWN_METRIC, *ends) if sum(over) else f"{SHOWN_METRIC} 0"
            if winner is None:
                figures += f", adjusted p {pair.adjusted:.2g}"
                return f"{names[0]} against {names[1]} on {dataset}: neither better ({figures})."
            return f"{names[0]} is better than {names[1]} on {dataset}: {figures}."
    means = (number(row.mean(SHOWN_METRIC)) for row in (first, second))
    return "{} against {} on {}: {} {} and {}, not compared over users.".format(*names, dataset, SHOWN_METRIC, *means)


def _by_seed(row: StudyRow) -> Mapping[int, float]:
    return dict(zip(row.result.seeds, row.result.values(SHOWN_METRIC), strict=True))


def _own_row(rows: Sequence[StudyRow]) -> StudyRow | None:
    """The row of the proposed model that has the fewest settings of its own; None without any."""
    own = [row for row in rows if row.result.model == PROPOSED.lower()]
    return min(own, key=lambda row: len(row.result.by_settings.split()), default=None)


def _printed(study: Study, row: StudyRow) -> str:
    """The model as sources print it, with what tells its row from others of the model on the data set."""
    names = {value.model.lower(): value.model for value in study.expected}
    name = names.get(row.result.model, row.result.model)
    alone = sum(other.result.model == row.result.model for other in study.of(row.dataset)) == 1
    return name if alone else row.label.replace(row.result.model, name, 1)


def _ranked(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def _cells(rows: Iterable[StudyRow]) -> list[JudgedCell]:
    return [
        JudgedCell(row.dataset, row.result.model, row.label, metric, verdict)
        for row in rows
        for metric, verdict in row.verdicts.items()
    ]


def _exit_code(rows: Sequence[StudyRow], exceptions: Applied) -> int:
    """By accuracy alone. Where nothing is published about any row, having measured is enough."""
    if exceptions.broken:
        return 1
    cells = _cells(rows)
    code = exit_code(c.verdict for c in cells if (c.dataset, c.label, c.metric) not in exceptions.excepted)
    if code != 3:
        return code
    if exceptions.excepted:
        return 0
    own = not any(row.published for row in rows)
    return 0 if own and any(cell.verdict.mean is not None for cell in cells) else 3


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
    exceptions: Sequence[ExceptedCells] = (),
    self_check: Sequence[str] | None = None,
) -> Study:
    """Judge these runs of the store `folder`, or all of it.

    `asked_for` are the rows that the runs answer; without them, rows are formed from what runs have in common. `checks`
    are conformance results, `failed` commands of trials that failed and should not have. Where they are `of_costs`,
    time and memory are what is to be measured, and accuracy need not have evidence. What could not be read of the runs
    is `unread`; it is named and changes no verdict on the others. Models named in `self_check` are held against its
    stored reference instead, and not against each other. `exceptions` are cells that are known to lie outside
    their band.

    Raises DataError when the folder or the expected values cannot be read.
    """
    unread = list(unread)
    runs = tuple(stored_runs(folder, unread) if of is None else of)
    directory = expected_dir()
    expected, tolerances = load_expected(directory), load_tolerances(directory / "tolerances.toml")
    reference = selfcheck.load_reference(directory)
    rows = tuple(
        StudyRow(
            result=row,
            verdicts=verdicts(row, expected, tolerances),
            sources={metric: cell_sources(row, expected, metric) for metric in METRICS},
            brief=selfcheck.of_self_check(row.runs[0], reference),
        )
        for row in (_readable(row, unread) for row in result_rows(runs, asked_for))
    )
    shared = shared_machine(runs if of is None else [*readable_runs(folder)])
    measured = [measured_row(row.result, shared) for row in rows]
    by_data = {} if self_check is not None else differences_of(measured, tolerances.confidence)
    hashes = {dataset: {row.data: None for row in measured if row.dataset == dataset} for dataset in _names(rows)}
    claims = load_claims(directory / "claims.toml")
    statuses = _statuses(checks)
    applied = apply(exceptions, _cells(rows))
    code = _exit_code(rows, applied)
    with_costs = sum(bool(row.seconds and row.memory) for row in measured)
    if of_costs and code == 3 and with_costs:
        code = 0
    checked = None
    if self_check is not None:
        checked = selfcheck.check(runs, reference, tolerances.selfcheck.error, self_check)
        code = selfcheck.exit_code(checked)
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
        if any(row.published for row in rows)
        else (),
        expected=expected,
        sources=load_sources(directory),
        tolerances=tolerances,
        code=1 if statuses["failed"] or failed else code,
        with_costs=with_costs,
        of_costs=of_costs,
        exceptions=applied,
        shared=shared,
        selfcheck=checked,
        asked_datasets=tuple(
            dict.fromkeys(key.split("/")[0] for row in asked_for or () for p in row.points for key in p.runs.values())
        ),
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
    from harness.paper.conformance import trace_statuses  # torch, which reading runs does not wait for

    return Counter(status.value for status in trace_statuses(list(checks)).values())


def _failed(run: StoredRun) -> bool:
    return run.state == "failed" and not run.out_of_memory


def _standing_for_models(rows: Sequence[StudyRow], measured: Sequence[MeasuredRow]) -> list[MeasuredRow]:
    """Of each model the rows with the fewest settings, whatever a suite calls them."""
    groups: dict[tuple[str, str], list[tuple[int, MeasuredRow]]] = defaultdict(list)
    for row, as_measured in zip(rows, measured, strict=True):
        groups[row.dataset, row.result.model].append((len(row.result.by_settings.split()), as_measured))
    found = []
    for group in groups.values():
        nearest = [row for settings, row in group if settings == min(group, key=lambda pair: pair[0])[0]]
        # Claims count the words of a label: where rows are equally near, names must not decide between them.
        even = len({len(row.label.split()) for row in nearest}) == 1
        found += nearest if even else [replace(row, label="-".join(row.label.split())) for row in nearest]
    return found


def _names(rows: Sequence[StudyRow]) -> list[str]:
    return list(dict.fromkeys(row.dataset for row in rows))
