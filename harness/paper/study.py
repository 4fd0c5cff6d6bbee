"""Everything a report says, as one immutable value. Reports only lay it out; they compute no figure of their own."""

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bm3.errors import DataError
from harness.common import exit_status, number
from harness.evaluation.words import short_metric
from harness.paper import selfcheck
from harness.paper.claims import ClaimResult, Measured, claims_of_paper, claims_of_rows
from harness.paper.costs import SHARED
from harness.paper.exceptions import Applied, ExceptedCells, JudgedCell, apply
from harness.paper.growth import stored_exponents
from harness.paper.load import Paper, Tolerances, load_paper
from harness.paper.rows import Planned, Row, finite, judged, ranked, representative, rows_of
from harness.paper.selfcheck import Checked
from harness.paper.significance import Difference, UserValues, compare_all
from harness.paper.verdict import Outcome
from harness.runs.index import entries
from harness.runs.inspect import Entry
from harness.runs.record import RunRecord, memory_kind
from harness.runs.store import stored_runs

Spread = Literal["deviation", "interval"]


@dataclass(frozen=True)
class Extra:
    """What is shown on request in a table of its own, and changes nothing else."""

    metrics: tuple[str, ...] = ()
    """Canonical names; without any, there is no such table."""
    rows: tuple[str, ...] = ()
    """Labels of the rows that are shown; empty: all."""
    spread: Spread | None = None
    """What over seeds stands beside each mean: the standard deviation, or the t-interval of the mean."""
    best: bool = False
    """Whether the best mean of each metric is bold."""
    users: Mapping[str, NDArray[np.integer]] = field(default_factory=dict)
    """By the hash of a data set: of whom alone; empty: of all."""
    file: Path | None = None
    """Which names them."""


@dataclass(frozen=True)
class Study:
    """A folder of stored runs, judged. `code` is the exit code that goes with it."""

    paper: Paper
    folder: Path
    asked: str
    rows: tuple[Row, ...]
    """By data set and model."""
    runs: tuple[RunRecord, ...]
    """All that were found, unfinished ones too."""
    unread: tuple[str, ...]
    """What of them could not be read and is left out: a line each, its path and why."""
    conformance: Mapping[str, int]
    """How many recorded traces passed, failed or were not supported; empty where none was replayed."""
    conformance_device: str
    """Where they were replayed: `cpu` or `cuda`."""
    unchecked: tuple[str, ...]
    failed: tuple[str, ...]
    """Commands of trials that failed."""
    starved: Mapping[str, tuple[str, ...]]
    """By data set: what rows are called that have no result for want of memory, where papers print a dash."""
    differences: Mapping[str, tuple[Difference, ...]]
    """By data set: pairs of rows compared over users, as far as runs stored what that needs."""
    claims: tuple[ClaimResult, ...]
    """What the paper claims in words, against published tables and against these runs; empty without a published data
    set."""
    code: int
    of_costs: bool = False
    """Whether time and memory are what was asked for."""
    exceptions: Applied = field(default_factory=Applied)
    """What became of the exceptions that the suite makes."""
    asked_datasets: tuple[str, ...] = ()
    """Those of the rows that were asked for, whether or not there are runs."""
    extra: Extra = Extra()
    selfcheck: tuple[Checked, ...] | None = None
    """The models against the reference of the self-check; None where that is not what was asked."""
    literature: bool = False
    """Whether a report has what others report of the same cells."""

    @property
    def title(self) -> str:
        """The question, where there is a published answer to it."""
        if self.selfcheck is not None:
            return "Do the models work here?"
        if self.published:
            return f"Does {self.paper.proposed or self.paper.name} reproduce here?"
        return f"Runs on {', '.join(self.datasets)}" if self.rows else "A report on no run"

    @property
    def published(self) -> list[str]:
        """The data sets, with runs or asked for, for which accuracies are published."""
        printed = {value.dataset.lower() for value in self.paper.values if "@" in value.metric}
        with_rows = dict.fromkeys(row.dataset for row in self.rows if row.published)
        return [
            *with_rows,
            *(name for name in self.asked_datasets if name.lower() in printed and name not in self.datasets),
        ]

    @property
    def answered(self) -> bool:
        """Whether the proposed model, or without one any, was judged on every data set with published figures."""
        there = {row.dataset for row in self.rows if row.judged and self.proposes(row.model)}
        return bool(self.published) and there >= {*self.published}

    def proposes(self, model: str) -> bool:
        """Whether it is the model that the study is about: any, where the paper proposes none."""
        return self.paper.proposed is None or model.lower() == self.paper.proposed.lower()

    @property
    def stopping(self) -> str:
        """What epochs and points were chosen by, as printed."""
        return " or ".join(dict.fromkeys(row.stopping for row in self.rows)) or self.paper.stopping

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(row.dataset for row in self.rows))

    def of(self, dataset: str) -> list[Row]:
        """The rows of a data set; its name may be in any case, where none has it as it is."""
        named = [row for row in self.rows if row.dataset == dataset]
        return named or [row for row in self.rows if row.dataset.lower() == dataset.lower()]

    def commands(self, row: Row) -> list[str]:
        """What repeats each run of the row, with everything its bits depend on; paths are below the folder."""
        return [shlex.join(["bm3", "replay", run.path.relative_to(self.folder).as_posix()]) for run in row.runs]

    def time_mark(self, row: Row) -> str:
        """What stands beside times of the first seed's run: SHARED where another run had a part of the machine."""
        return SHARED if row.runs[0].path in row.shared else ""

    @property
    def outcomes(self) -> Mapping[Outcome, int]:
        """How many accuracy cells have each outcome, the most frequent first."""
        return dict(Counter(cell.verdict.outcome for cell in cells_of(self.rows)).most_common())

    @property
    def unfinished(self) -> list[RunRecord]:
        """Runs without a result that did not fail."""
        ended = {*self.failed}
        return [r for r in self.runs if not (r.finished or r.out_of_memory or r.command in ended)]

    @property
    def failures(self) -> Mapping[str, str]:
        """Command of a failed trial → what its run says of why, empty where it left nothing."""
        told = {run.command: run.failure.message for run in self.runs if run.failure is not None}
        return {command: told.get(command, "") for command in self.failed}

    @property
    def out_of_memory(self) -> list[RunRecord]:
        """Runs that needed more memory than there was."""
        return [run for run in self.runs if run.out_of_memory]

    @property
    def with_costs(self) -> int:
        """How many rows have time and memory."""
        timed = (row for row in self.rows if any(run.outcome.timing.q1_s is not None for run in row.runs))
        return sum(memory_kind([run.outcome.memory for run in row.runs]) is not None for row in timed)

    def pairs(self, dataset: str, metric: str, label: str) -> list[Difference]:
        """The row against every other one that it was compared with over users."""
        found = [pair for pair in self.differences.get(dataset, ()) if pair.metric == metric]
        return [pair.seen_from(label) for pair in found if label in (pair.first, pair.second)]

    def mixed(self, dataset: str) -> bool:
        """Whether rows on that name are of several contents, so that none is the best."""
        return len({row.data for row in self.of(dataset)}) > 1

    def tested(self, dataset: str, metric: str) -> Difference | None:
        """The best row against the second over the runs that are compared, where users were.

        The best is the row that none exceeds over the runs it is compared with it by, the second the one it leads by
        least. Means over all seeds may order rows otherwise, where seeds are not the same ones.
        """
        rows = ranked(self.of(dataset), metric)
        for row in () if self.mixed(dataset) else rows:
            leads = self.pairs(dataset, metric, row.label)
            if not {other.label for other in rows[:2]} - {row.label} <= {lead.second for lead in leads}:
                return None  # what ranks first or second was not compared over users
            if leads and min(lead.mean for lead in leads) >= 0:
                return min(leads, key=lambda lead: lead.mean)
        return None

    @property
    def headline(self) -> list[str]:
        """What every report begins with: what became of the proposed model, what was judged, and what went wrong."""
        lines = [_proposed(self, dataset) for dataset in self.published if self.paper.proposed]
        if self.published:
            lines.append(_judged(self))
        others = [dataset for dataset in self.datasets if dataset not in self.published]
        if self.selfcheck is not None:
            about = self.paper.proposed or self.paper.name
            lines += [f"{about} on {dataset}: not judged (nothing is published for it)." for dataset in others]
            lines.append(selfcheck.headline(self.selfcheck))
        else:
            lines += [_compared(self, dataset) for dataset in others]
        lines += [f"{line.rstrip('.')}." for line in (*self.exceptions.broken, *self.exceptions.lines)]
        if self.of_costs and self.rows:
            lines.append(f"Time and memory of {self.with_costs} of {len(self.rows)} rows were measured.")
        if self.failed:
            lines.append(f"{len(self.failed)} {'trial' if len(self.failed) == 1 else 'trials'} failed.")
        if failed := self.conformance.get("failed"):
            lines.append(
                f"{failed} of {sum(self.conformance.values())} recorded traces failed on {self.conformance_device}."
            )
        return lines or ["No run has a result."]


def make_study(
    folder: Path,
    asked: str,
    *,
    paper: Paper | None = None,
    of: Sequence[RunRecord] | None = None,
    planned: Sequence[Planned] | None = None,
    conformance: Mapping[str, int] | None = None,
    conformance_device: str = "cpu",
    unchecked: Sequence[str] = (),
    failed: Sequence[str] = (),
    of_costs: bool = False,
    unread: Sequence[str] = (),
    exceptions: Sequence[ExceptedCells] = (),
    self_check: Sequence[str] | None = None,
) -> Study:
    """Judge these runs of the store `folder`, or all of it, by a paper.

    `planned` are the rows that the runs answer; without them, rows are formed from what runs have in common.
    `conformance` counts recorded traces by what became of them on `conformance_device`, `failed` are commands of trials
    that failed and should not have. Where they are `of_costs`, time and memory are what is to be measured, and accuracy
    need not have evidence. What could not be read of the runs is `unread`; it is named and changes no verdict on the
    others. Models named in `self_check` are held against its stored reference instead, and not against each other.
    `exceptions` are cells that are known to lie outside their band.

    Raises DataError when the folder or the paper cannot be read.
    """
    paper = paper or load_paper()
    unread, conformance = list(unread), dict(conformance or {})
    runs = tuple(stored_runs(folder, unread) if of is None else of)
    shared = shared_machine(runs if of is None else entries(folder))
    reference = selfcheck.load_reference(paper.file(selfcheck.FILE))
    found, starved = rows_of(runs, paper, planned)
    rows = list[Row]()
    for row in found:
        read = [run.readable(paper.judged_by) for run in row.runs]
        unread += [reason for _, reasons in read for reason in reasons]
        brief = selfcheck.of_self_check(row.runs[0], reference)
        try:
            rows.append(judged(replace(row, runs=tuple(run for run, _ in read), brief=brief, shared=shared), paper))
        except DataError as error:
            unread.append(str(error))
    by_data = {} if self_check is not None else differences_of(rows, paper.tolerances)
    differences: dict[str, tuple[Difference, ...]] = {row.dataset: () for row in rows}
    for name, data in dict.fromkeys((row.dataset, row.data) for row in rows):
        differences[name] += by_data.get((name, data), ())
    claims: tuple[ClaimResult, ...] = ()
    if any(row.published for row in rows):
        memory = paper.tolerances.memory
        ours = Measured(paper.values, memory, paper.tolerances, rows, by_data, stored_exponents(folder))
        claims = *claims_of_paper(paper), *claims_of_rows(paper.claims, ours)
    checked = None
    if self_check is not None:
        checked = selfcheck.check(runs, reference, paper.tolerances.selfcheck.error, self_check)
    lost = (run.command for run in runs if run.state == "failed" and not run.out_of_memory)
    keys = (key for row in planned or () for _, keys in row.points for key in keys.values())
    study = Study(
        paper=paper,
        folder=folder,
        asked=asked,
        rows=tuple(rows),
        runs=runs,
        unread=tuple(unread),
        conformance=conformance,
        conformance_device=conformance_device,
        unchecked=tuple(unchecked),
        failed=tuple(dict.fromkeys([*failed, *lost])),
        starved=starved,
        differences=differences,
        claims=claims,
        code=0,
        of_costs=of_costs,
        exceptions=apply(exceptions, cells_of(rows)),
        asked_datasets=tuple(dict.fromkeys(key.split("/")[0] for key in keys)),
        selfcheck=checked,
    )
    return replace(study, code=1 if conformance.get("failed") or study.failed else _exit_code(study))


def cells_of(rows: Iterable[Row]) -> list[JudgedCell]:
    """The cells of rows."""
    return [JudgedCell(row.dataset, row.model, row.label, m, v) for row in rows for m, v in row.verdicts.items()]


def differences_of(rows: Iterable[Row], rule: Tolerances) -> dict[tuple[str, str], tuple[Difference, ...]]:
    """Name and content hash of a data set → every pair of its rows with per-user metrics; each is a family for Holm.

    Raises ValueError as `compare_all` does.
    """
    families: dict[tuple[str, str], dict[str, dict[str, Mapping[int, UserValues]]]] = {}
    for row in rows:
        for metric in () if row.brief else row.verdicts:
            if (values := row.per_user(metric)) is not None:
                families.setdefault((row.dataset, row.data), {}).setdefault(metric, {})[row.label] = values
    return {
        data: compare_all(per_user, confidence=rule.confidence, margin=rule.margin)
        for data, per_user in families.items()
    }


def shared_machine(runs: Iterable[RunRecord | Entry]) -> frozenset[Path]:
    """Paths of the runs beside which another of these ran on the same machine at the same time.

    Times are stored in whole seconds: a run that began in the second in which another ended came after it.
    """
    by_host: dict[str, list[tuple[datetime, datetime, Path]]] = {}
    for run in runs:
        if run.ended and run.started:
            span = (datetime.fromisoformat(run.started), datetime.fromisoformat(run.ended), run.path)
            by_host.setdefault(run.host, []).append(span)
    found: set[Path] = set()
    for spans in by_host.values():
        last, *others = sorted(spans)
        for span in others:
            if span[0] < last[1]:
                found |= {span[2], last[2]}
            last = max(last, span, key=lambda one: one[1])
    return frozenset(found)


def _exit_code(study: Study) -> int:
    """By the self-check where that was asked, else by accuracy; where nothing is published about any row, or costs are
    what was asked for, having measured is enough."""
    if study.selfcheck is not None:
        return selfcheck.exit_code(study.selfcheck)
    if study.exceptions.broken:
        return 1
    cells, excepted = cells_of(study.rows), study.exceptions.excepted
    code = exit_status(c.verdict.outcome.held for c in cells if (c.dataset, c.label, c.metric) not in excepted)
    if code != 3:
        return code
    own = not any(row.published for row in study.rows) and any(cell.verdict.mean is not None for cell in cells)
    return 0 if excepted or own or (study.of_costs and study.with_costs) else 3


def _proposed(study: Study, dataset: str) -> str:
    """The answer for one data set."""
    proposed = study.paper.proposed or ""
    about = f"{proposed} on {dataset}"
    row = representative(study.of(dataset), proposed)
    if row is None:
        tried = [r for r in study.runs if (r.model, r.dataset.name) == (proposed.lower(), dataset)]
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
    cells = [cell for cell in cells_of(study.rows) if cell.verdict.outcome is not Outcome.UNPUBLISHED]
    told = []
    for outcome in Outcome:
        found = [cell for cell in cells if cell.verdict.outcome is outcome]
        if found and outcome.held is not None:
            names = ", ".join(cell.named(with_dataset=len(study.published) > 1) for cell in found)
            told.append(f"{len(found)} {outcome}" + ("" if outcome.held else f" ({names})"))
    count = sum(cell.verdict.outcome.held is not None for cell in cells)
    return f"{count} of {len(cells)} cells judged" + (f": {', '.join(told)}." if told else ".")


def _compared(study: Study, dataset: str) -> str:
    """Where nothing is published: the best other row against the proposed model, or against the second one."""
    rows = [row for row in study.of(dataset) if not row.brief]
    if not rows:
        brief = "only runs of the self-check, too brief for models to be compared"
        return f"On {dataset} {brief}; bm3 reproduce judges them."
    metric = rows[0].selection.on_validation.metric
    if rows[0].verdicts and metric not in rows[0].verdicts:  # what models stopped by is nothing that is compared
        metric = next(iter(rows[0].verdicts))
    printed = short_metric(metric)
    rows.sort(key=lambda row: -finite(row.mean(metric)))
    if len(rows) == 1:
        seeds = f"{len(rows[0].runs)} seed{'s' * (len(rows[0].runs) > 1)}"
        return f"{_printed(study, rows[0])} on {dataset}: {printed} {number(rows[0].mean(metric))} over {seeds}."
    second = representative(rows, study.paper.proposed or "")
    first = next(row for row in rows if row is not second)
    second = second or rows[1]
    names = {row.label: _printed(study, row) for row in (first, second)}
    both = f"{names[first.label]} against {names[second.label]} on {dataset}: "
    pair = next((p for p in study.pairs(dataset, metric, first.label) if p.second == second.label), None)
    if pair is None:
        means = f"{number(first.mean(metric))} and {number(second.mean(metric))}"
        other = ", since their data are not the same" if first.data != second.data else ""
        return f"{both}{printed} {means}, not compared over users{other}."
    if pair.better == second.label:
        pair, first, second = pair.seen_from(pair.better), second, first
    ends = (number(100 * end / pair.base, "+.1f") for end in (pair.mean, *pair.interval) if pair.base)
    figures = "{} {} % [{}, {}]".format(printed, *ends) if pair.base else f"{printed} 0"
    if not math.isfinite(pair.interval[0]):
        figures = f"{figures.partition(' [')[0]}, one user, too few for an interval"
    fixed = "" if pair.draws else "; neither draws anything"
    if pair.better is None:
        return f"{both}neither better ({figures}, adjusted p {pair.adjusted:.2g}; {pair.why}{fixed})."
    return f"{names[first.label]} is better than {names[second.label]} on {dataset}: {figures}{fixed}."


def _printed(study: Study, row: Row) -> str:
    """The model as sources print it, with what tells its row from others of the model on the data set."""
    names = {value.model.lower(): value.model for value in study.paper.values}
    name = names.get(row.model, row.model)
    alone = sum(other.model == row.model for other in study.of(row.dataset)) == 1
    return name if alone else row.label.replace(row.model, name, 1)
