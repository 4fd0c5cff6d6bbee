"""What a report says, as sections of tables: each table of a study is built here, once for all formats."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.common import NOT_KNOWN, number, spread
from harness.paper import selfcheck
from harness.paper.claims import ClaimResult
from harness.paper.costs import SHARED, SHARED_NOTE, joules_per_epoch
from harness.paper.literature import Consensus, Standing, consensus
from harness.paper.load import Paper
from harness.paper.published import PublishedValue, canonical_metric, short_metric
from harness.paper.rows import Row, expected_best, representative
from harness.paper.significance import Difference
from harness.paper.study import Spread, Study
from harness.paper.verdict import Outcome, Range, Verdict, mean_and_interval, power
from harness.report.tables import Cell, Emphasis, Table, ranked, table
from harness.runs.record import Reading, RunRecord, Timing
from harness.studies.suite import declared_seeds

LEVELS = {"***": 0.001, "**": 0.01, "*": 0.05}
"""Stars → the level below which a difference earns them."""
SURROGATES = "†"
SURROGATES_NOTE = "trained on surrogate features, not on the original vectors"
MEMORY = {"process MiB": "process_rss_peak", "allocator MiB": "allocator_peak", "GPU MiB": "gpu_process_peak"}
"""Where a GPU was used, what torch's allocator held, and what the process had besides, stand beside these."""
BETWEEN, BEST = "Differences between models", "Best against second"
MIXED = (
    "Runs on the name {} are of several contents, each with its hash beside `data`: other interactions, another split "
    "or other features. Rows of other contents are not compared, and none is best. Features that were added later make "
    "other data for a model that reads none too: train it again to compare it."
)
ACCURACY = "Test metrics, mean over seeds; of several rows the best of a column is bold."
EXTRA = "Test metrics, mean over seeds; a dash where they were not stored and do not follow from stored hits."
POINTS = "Means over the seeds of each point, and the range of the test part over them; nothing is chosen here."
SELECTION = (
    "Rows and verdicts are of the point that is best on validation. Metrics are means over the seeds that both points "
    "have; optimism is what choosing on test would add."
)
BUDGET = (
    "What the best on validation of so many points, drawn from those that were run, is expected to reach on the test "
    "part. The last column is how many points the paper's grid has."
)
DIFFERENCES = (
    "First minus second, paired over the users that all rows share; a user's value is the mean over as many runs of "
    "each. Effect and intervals (two-sided, t) are shares of the second; p is of the paired t-test over users, "
    "adjusted by Holm over one data set. A row is better only where the adjusted p, the margin of the effect and the "
    "interval over shared seeds agree. Means in other tables are over all seeds of a row."
)
SETTINGS = "Other settings of a model"
CHANGES = (
    "Each row less the row that stands for its model, as shares of that one: the mean over users and runs, and the "
    "interval over shared seeds. Bold where one of the two is better by the rule of the comparisons between models."
)
CLAIMS = "Whether a claim follows from printed tables, and, where it says ours, from these runs."
COSTS = "Of the first seed's run; time per epoch is the median after the warm-up, evaluation excluded."
ENVIRONMENT = "Everything that some run recorded; several values where runs differ."
UNVALIDATED = (
    "There is no validation part: each training took as many epochs as were asked for, and the last one is tested."
)
FIGURES = ("ours", "interval", "range", "seeds", "expected", "source", "band", "diff. %")
"""Of a cell that was judged."""
COMMANDS = "In the folder of these runs:"
OTHERS = (
    "Independent: somebody ran the model again; one figure per group, of which low, high and CV* (the coefficient of "
    "variation, corrected for few values) are. Copies are the paper's own digits and count for nothing. Ours is judged "
    "by the published figure, never by these. bm3 literature shows each figure and where it is from."
)


@dataclass(frozen=True)
class Section:
    """A part of a report."""

    id: str
    title: str
    lead: str = ""
    tables: tuple[Table, ...] = ()
    commands: tuple[str, ...] = ()


def sections(study: Study, every_pair: bool = False) -> list[Section]:
    """The parts of a report that have something to say, in their order.

    `every_pair`: whether all rows that were compared over users are shown, or the best against the second; then
    what others report is shown too, which it is else where the study asks for it.
    """
    datasets = dict.fromkeys([*study.datasets, *study.starved])
    checked = table("Self-check", selfcheck.HEAD, selfcheck.table(study.selfcheck or ()), "llrrrl")
    told = study.published if study.literature or every_pair else ()
    found = [
        Section("self-check", "Self-check", selfcheck.NOTE, (checked,)),
        Section("accuracy", "Accuracy", ACCURACY, tuple(overview(study, name) for name in datasets)),
        Section("metrics", "Metrics asked for", EXTRA, tuple(extra(study, name) for name in datasets)),
        Section("verdicts", "Verdicts", "", tuple(verdicts(study, name) for name in datasets)),
        Section("literature", "What others report", OTHERS, others_on(study.paper, told, study.rows)),
        Section("points", "All points", POINTS, (all_points(study),)),
        Section("selection", "Selection", SELECTION, (selection(study),)),
        Section("budget", "At equal budgets", BUDGET, (budget(study),)),
        Section("differences", BETWEEN if every_pair else BEST, DIFFERENCES, (differences(study, every_pair),)),
        Section("settings", SETTINGS, CHANGES, (changes(study),)),
        Section("claims", "Claims of the paper", CLAIMS, (claims(study.claims),)),
        Section("time", "Time and memory", COSTS, (time_and_memory(study),)),
        Section("environment", "Environment", ENVIRONMENT, (environment(study.runs),)),
    ]
    found = [replace(section, tables=tuple(one for one in section.tables if one.rows)) for section in found]
    commands = tuple(command for row in study.rows for command in study.commands(row))
    found.append(Section("commands", "Commands that repeat each row", COMMANDS, commands=commands))
    return [section for section in found if section.tables or section.commands]


def overview(study: Study, dataset: str) -> Table:
    """Rows by metrics: means over seeds, with all that each rests on."""
    rows, metrics = study.of(dataset), study.paper.judged_by
    mixed = study.mixed(dataset)
    ranks = {metric: ranked([None if row.brief or mixed else row.mean(metric) for row in rows]) for metric in metrics}
    tested = {metric: study.tested(dataset, metric) for metric in metrics}
    body = [
        [
            _label(row),
            *(_mean(study, row, metric, ranks[metric][place], tested[metric]) for metric in metrics),
            len(row.runs),
            row.settings,
        ]
        for place, row in enumerate(rows)
    ]
    # As published: a dash where memory did not suffice.
    body += [[label, *["-"] * len(study.paper.metrics), 0, "out of memory"] for label in study.starved.get(dataset, ())]
    notes = [
        *_about_labels(rows),
        *([MIXED.format(dataset)] if mixed else []),
        *_not_declared(study, rows),
        *([UNVALIDATED] if not all(run.validated for row in rows for run in row.runs) else []),
    ]
    head = ["model", *study.paper.metrics, "seeds", "settings"]
    return table(dataset, head, body, "l" + "r" * (len(study.paper.metrics) + 1) + "l", notes=notes)


def _not_declared(study: Study, rows: Iterable[Row]) -> Iterator[str]:
    """Which seeds no suite declares, of models that suites run there; where a suite was asked for, its rows say it."""
    declared = {} if study.asked_datasets else declared_seeds(study.paper)
    for row in rows:
        of_suites = declared.get((row.model, row.dataset), {*row.seeds})
        if seeds := [str(seed) for seed in row.seeds if seed not in of_suites]:
            yield f"{row.label}: seeds that no suite of the paper declares, and that count here: {', '.join(seeds)}."


def extra(study: Study, dataset: str) -> Table:
    """Rows by metrics as they were asked for, of the users that were."""
    asked, confidence = study.extra, study.paper.tolerances.confidence
    rows = [row for row in study.of(dataset) if asked.metrics and row.label in (asked.rows or (row.label,))]
    found = [[_seeds(row, metric, asked.users.get(row.data)) for metric in asked.metrics] for row in rows]
    ranks = [
        ranked([mean_and_interval(values, confidence)[0] for values in column]) for column in zip(*found, strict=True)
    ]
    body = []
    for place, (row, values) in enumerate(zip(rows, found, strict=True)):
        best = [asked.best and not study.mixed(dataset) and column[place] is Emphasis.BEST for column in ranks]
        texts = (_with_spread(each, asked.spread, confidence) for each in values)
        cells = (Cell(text, emphasis=Emphasis.BEST if bold else None) for text, bold in zip(texts, best, strict=True))
        body.append([_label(row), *cells, len(row.repeated)])
    groups = {row.data: len(asked.users[row.data]) for row in rows if row.data in asked.users}
    notes = [f"Of {count:,} users in {asked.file} alone." for count in groups.values()]
    if asked.spread:
        notes.append(f"{SPREADS[asked.spread].format(confidence)}; a row of one seed has none.")
    printed = dict.fromkeys(
        canonical_metric(one.metric)
        for one in study.paper.values
        if one.dataset.lower() == dataset.lower() and "@" in one.metric
    )
    if missing := [short_metric(metric) for metric in printed if metric not in asked.metrics]:
        notes.append(f"Published for {dataset} and not shown: {', '.join(missing)}.")
    head = ["model", *map(short_metric, asked.metrics), "seeds"]
    return table(dataset, head, body, "l" + "r" * (len(head) - 1), notes=[*_about_labels(rows), *notes])


SPREADS = {
    "deviation": "Beside each mean: ± the standard deviation over seeds (of n - 1)",
    "interval": "Beside each mean: its two-sided t-interval over seeds, at {:.0%} confidence",
}


def _seeds(row: Row, metric: str, users: NDArray[np.integer] | None) -> list[float]:
    """The metric of each seed's run, of copies once; none where one run lacks it."""
    values = [run.value(metric, users) for run in row.repeated.values()]
    return [] if None in values else [value for value in values if value is not None]


def _with_spread(values: Sequence[float], spread: Spread | None, confidence: float) -> str:
    mean, interval = mean_and_interval(values, confidence)
    if spread is None or interval is None:
        return number(mean)
    return f"{number(mean)} ({_range(interval)})" if spread == "interval" else f"{number(mean)} ± {stdev(values):.4f}"


def about_stars(study: Study, dataset: str) -> str:
    """What stars beside the best of a data set mean, and where there are none since nothing was tested."""
    tested = {metric: study.tested(dataset, metric) for metric in study.paper.judged_by}
    found = [difference for difference in tested.values() if difference]
    if not found:
        return "Differences between models were not tested."
    levels = ", ".join(f"{stars} p < {level:g}" for stars, level in reversed(LEVELS.items()))
    untested = [short_metric(metric) for metric, difference in tested.items() if difference is None]
    return (
        f"Stars: best against second, paired over {min(pair.users for pair in found):,} users, mean over "
        f"{min(pair.runs for pair in found)} run(s) of each, which are taken as given ({levels}; paired t-test "
        "over users, Holm-adjusted, where seeds and margin agree)."
        + (f" Not tested: {', '.join(untested)}." if untested else "")
    )


def verdicts(study: Study, dataset: str) -> Table:
    """A row per cell that something is published for."""
    rows = study.of(dataset)
    body = [
        [
            _label(row),
            short_metric(metric),
            *_figures(row, metric).values(),
            Cell(verdict.outcome.value, word=verdict.outcome),
            verdict.reason,
        ]
        for row in rows
        for metric, verdict in row.verdicts.items()
        if verdict.outcome is not Outcome.UNPUBLISHED
    ]
    used = dict.fromkeys(v.published.source for row in rows for v in row.verdicts.values() if v.published)
    cited = [f"Source {key}: {study.paper.sources[key].citation}, {study.paper.sources[key].table}." for key in used]
    head = ["model", "metric", *FIGURES, "verdict", "why"]
    return table(dataset, head, body, "llrrrrrlrrll", notes=[*cited, *_about_labels(rows)])


def reported_cells(paper: Paper, dataset: str) -> list[Consensus]:
    """The cells of a data set that somebody else reports too, by the paper's models and metrics."""
    found = [consensus(paper, dataset, model, metric) for model in paper.models for metric in paper.metrics]
    return [cell for cell in found if cell.figures]


def others_on(paper: Paper, datasets: Iterable[str], rows: Sequence[Row], model: str = "") -> tuple[Table, ...]:
    """What others report of the cells of each data set, of one model if it is named."""
    found = {name: [one for one in reported_cells(paper, name) if model in ("", one.model)] for name in datasets}
    return tuple(literature(cells, rows, f"What others report on {name}") for name, cells in found.items() if cells)


def literature(cells: Iterable[Consensus], rows: Iterable[Row], title: str) -> Table:
    """A row per cell: what was published, what independent groups report, where the first lies among them, and ours."""
    body, rows = [], [*rows]
    for cell in cells:
        row = representative((row for row in rows if row.dataset.lower() == cell.dataset.lower()), cell.model)
        ours = None if row is None else row.verdicts.get(canonical_metric(cell.metric))
        known, voices = cell.published, cell.voices.values()
        body.append(
            [
                cell.dataset,
                cell.model,
                cell.metric,
                number(known.value) if known else NOT_KNOWN,
                len(voices),
                _range((min(voices), max(voices))) if voices else NOT_KNOWN,
                number(None if cell.variation is None else 100 * cell.variation, ".1f", NOT_KNOWN),
                Cell(cell.place, word=cell.position),
                cell.copies,
                _label(row, number(ours.mean)) if ours and row else NOT_KNOWN,
                Cell(ours.outcome.value, word=ours.outcome) if ours else "not run",
            ]
        )
    head = ["data set", "model", "metric", "published", "groups", "independent", "CV* %", "published lies", "copies"]
    notes = _about_labels(rows)
    return table(title, [*head, "ours", "verdict"], body, "lllrrrrlrrl", groups=2, notes=notes)


def reported(cell: Consensus) -> Table:
    """All figures of a cell that others print: independent ones first."""
    body = []
    for figure in sorted(cell.figures, key=lambda figure: [*Standing].index(figure.standing)):
        of, where = figure.origin, figure.where
        body.append((number(figure.value), figure.standing, of.group, of.key, where, of.title, of.address, figure.note))
    head = ("figure", "standing", "group", "source", "where", "title", "address", "note")
    return table("What others report", head, body, "rlllllll")


def all_points(study: Study) -> Table:
    """Every point of the rows whose suite runs each of them with every seed: it is the points that it asks for."""
    body = []
    for row in study.rows:
        for point in row.grid if row.every_seed and len(row.grid) > 1 else ():
            test = list(point.by_seed("test").values())
            means = [number(fmean(values)) for values in (point.by_seed("valid").values(), test)]
            body.append([row.label, row.dataset, point.name, len(test), *means, spread(test)])
    metric = study.stopping
    head = ["model", "data set", "point", "seeds", f"valid {metric}", f"test {metric}", f"range of test {metric}"]
    return table("All points", head, body, "lllrrrr")


def selection(study: Study) -> Table:
    """Both points of every row that was searched: the one chosen on validation, and the one chosen on test."""
    body = []
    for row in (row for row in study.rows if len(row.grid) > 1):
        chosen = row.selection
        same = chosen.on_test is chosen.on_validation
        body.append(
            [
                row.label,
                row.dataset,
                len(row.grid),
                chosen.on_validation.name,
                number(chosen.test(chosen.on_validation)),
                "the same" if same else chosen.on_test.name,
                number(chosen.test(chosen.on_test)),
                "0.0" if same else _percent(chosen.optimism),
                len(chosen.seeds),
            ]
        )
    metric = study.stopping
    head = ["model", "data set", "points", "best on validation", metric, "best on test", metric, "optimism %", "seeds"]
    return table("Selection", head, body, "llrlrlrrr")


def budget(study: Study) -> Table:
    """What a search of so many points is expected to reach, of the models of which several were run."""
    searched = [row for row in study.rows if len(row.grid) > 1]
    trials = [2**power for power in range(max((len(row.grid) for row in searched), default=0).bit_length())]
    body = []
    for row in searched:
        reached = dict(enumerate(expected_best(row.grid), 1))
        of_paper = study.paper.grids.get(row.model, {})
        published = str(math.prod(len(values) for values in of_paper.values())) if of_paper else NOT_KNOWN
        figures = [number(reached[n]) if n in reached else NOT_KNOWN for n in trials]
        body.append([row.label, row.dataset, *figures, number(reached[len(row.grid)]), len(row.grid), published])
    head = ["model", "data set", *(f"{n} trial{'s' * (n > 1)}" for n in trials), "all run", "points run", "grid"]
    return table(f"Expected test {study.stopping}", head, body, "ll" + "r" * (len(head) - 2), notes=_untried(study))


def _untried(study: Study) -> Iterator[str]:
    """Of each row that is held against the paper: the values of the paper's grid that none of its points has."""
    for row in (row for row in study.rows if row.verdicts and not row.departures):
        had = [run.settings for point in row.grid for run in point.runs.values()]
        grid = study.paper.grids.get(row.model, {})
        left = {key: [str(v) for v in grid[key] if all(of.get(key) != v for of in had)] for key in grid}
        if any(left.values()):
            told = "; ".join(f"{key} {', '.join(values)}" for key, values in left.items() if values)
            yield f"{row.label} on {row.dataset}: no run has of the paper's grid {told}."


def differences(study: Study, every_pair: bool) -> Table:
    """Rows that were compared over users: all pairs, or of each metric the best row against the second."""
    if every_pair:
        pairs = [(name, pair) for name, found in study.differences.items() for pair in found]
    else:
        tested = ((name, study.tested(name, metric)) for name in study.datasets for metric in study.paper.judged_by)
        pairs = [(name, pair) for name, pair in tested if pair is not None]
    body = [
        [
            name,
            short_metric(pair.metric),
            pair.first,
            pair.second,
            _percent(pair.relative),
            _shares(pair.interval, pair.base),
            _shares(pair.over_seeds.interval, pair.base) if pair.over_seeds else NOT_KNOWN,
            f"{pair.p_value:.2g}",
            f"{pair.adjusted:.2g}",
            pair.users,
            pair.runs,
            pair.better or f"neither: {pair.why}",
        ]
        for name, pair in pairs
    ]
    head = ["data set", "metric", "first" if every_pair else "best", "second", "effect %", "over users %"]
    head += ["over seeds %", "p", "adjusted p", "users", "runs", "better"]
    decided = sum(pair.better is not None for _, pair in pairs)
    rule = study.paper.tolerances
    level, margin = 100 * (1 - rule.confidence), 100 * rule.margin
    note = (
        f"One row is better in {decided} of {len(pairs)} comparisons, at {level:.3g} % with a margin of {margin:g} %."
    )
    if not all(pair.draws for _, pair in pairs):
        note += " Where neither row draws anything, there is nothing over seeds, and the rest decides."
    title = BETWEEN if every_pair else BEST
    return table(title, head, body, "llllrrrrrrrl", notes=[note] if every_pair else ())


def changes(study: Study) -> Table:
    """Rows of a model against the one that stands for it, as far as users were compared."""
    body, metrics = [], study.paper.judged_by
    for name in study.datasets:
        for row in study.of(name):
            base = representative(study.of(name), row.model)
            if base is None or base is row:
                continue
            pairs = {metric: study.pairs(name, metric, row.label) for metric in metrics}
            found = {metric: pair for metric, each in pairs.items() for pair in each if pair.second == base.label}
            if found:
                cells = [_change(found[metric]) if metric in found else NOT_KNOWN for metric in metrics]
                body.append([name, row.label, base.label, *cells, min(pair.runs for pair in found.values())])
    head = ["data set", "model", "against", *(f"{short_metric(metric)} %" for metric in metrics), "runs"]
    return table(SETTINGS, head, body, "lll" + "r" * (len(head) - 3))


def _change(pair: Difference) -> Cell:
    seeds = f" [{_shares(pair.over_seeds.interval, pair.base)}]" if pair.over_seeds else ""
    return Cell(_percent(pair.relative) + seeds, emphasis=Emphasis.BEST if pair.better else None)


def claims(results: Sequence[ClaimResult]) -> Table:
    """What the paper says in words, with what each place says of it."""
    ids = [*dict.fromkeys(result.claim.id for result in results)]
    body = []
    for result in sorted(results, key=lambda result: ids.index(result.claim.id)):
        made = [(what, figure, Cell(word.value, word=word)) for what, figure, word in result.details]
        details = (table("Comparisons", ("what", "figure", "outcome"), made),) if made else ()
        outcome = Cell(result.outcome.value, word=result.outcome, details=details)
        body.append([result.claim.text, result.where, outcome, result.evidence])
    return table("Claims of the paper", ("claim", "from", "outcome", "evidence"), body, groups=1)


def time_and_memory(study: Study) -> Table:
    """Cost of each row's first run. A kind of memory that no run could measure is a note instead of a column."""
    runs, notes = [row.runs[0] for row in study.rows], []
    timed = [(run.outcome.timing, study.time_mark(row)) for row, run in zip(study.rows, runs, strict=True)]
    columns: dict[str, list[Any]] = {
        "data set": [row.dataset for row in study.rows],
        "model": [row.label for row in study.rows],
        "s/epoch": [_timed(timing.median_s, mark) for timing, mark in timed],
        "quartiles": [_quartiles(timing, mark) for timing, mark in timed],
        "first epoch": [_timed(timing.warmup_s, mark) for timing, mark in timed],
        "evaluation s": [_timed(timing.evaluation_median_s, mark) for timing, mark in timed],
    }
    for title, key in MEMORY.items():
        readings = [run.outcome.memory.of(key) for run in runs]
        if any(reading.bytes is not None for reading in readings):
            columns[title] = [_size(reading) for reading in readings]
        elif readings:
            notes.append(f"{title}: {'; '.join(dict.fromkeys(str(reading.note) for reading in readings))}.")
    if MEMORY.keys() <= columns.keys():
        columns["reserved MiB"] = [_size(run.outcome.memory.allocator_reserved_peak) for run in runs]
        context = (run.outcome.memory.context for run in runs)
        columns["context MiB"] = [NOT_KNOWN if each is None else f"{each / 2**20:.0f}" for each in context]
    joules = [joules_per_epoch(run) for run in runs]
    if any(figure is not None for figure in joules):
        columns["J/epoch"] = [_timed(each, mark, ".1f") for each, (_, mark) in zip(joules, timed, strict=True)]
        notes.append(
            "J/epoch is what GPU and processor took for an epoch and its evaluation, whoever used them: mean after the "
            "first epoch."
        )
    for row, run in zip(study.rows, runs, strict=True):
        if found := run.outcome.device_notes:
            notes.append(f"{row.dataset}, {row.label}, while it ran: {'; '.join(found)}.")
    if any(mark for _, mark in timed):
        notes.append(f"{SHARED} {SHARED_NOTE}.")
    rows, align = zip(*columns.values(), strict=True), "ll" + "r" * (len(columns) - 2)
    return table("Time and memory", [*columns], rows, align, notes=notes)


def environment(runs: Iterable[RunRecord]) -> Table:
    """Every value that some run recorded of where it ran."""
    seen: dict[str, dict[str, None]] = {}
    for run in runs:
        for key, value in run.environment.items():
            seen.setdefault(key, {})[NOT_KNOWN if value is None else str(value)] = None
    return table("Environment", ("what", "value"), [(key, "; ".join(values)) for key, values in seen.items()])


def rules(study: Study) -> list[str]:
    """How a verdict is made."""
    tolerances, bands = study.paper.tolerances, study.paper.tolerances.published
    own = "".join(f", of {short_metric(name)} ± {100 * share:g} %" for name, share in bands.metrics.items())
    return [
        "A cell is the mean of a test metric over the seeds of the settings that were best on validation "
        f"{study.stopping}.",
        "It is compared with the first of its sources that prints a figure.",
        f"The band is the published figure ± {100 * bands.relative:g} %{own}.",
        f"The interval is the two-sided t-interval of the mean at {100 * tolerances.confidence:g} % confidence; "
        f"fewer than {tolerances.min_seeds} seeds are no evidence.",
        f"Where the true mean lies outside the band, a cell is {Outcome.REPRODUCED} in at most "
        f"{50 * (1 - tolerances.confidence):.3g} % of cases.",
        f"{' and '.join(word for word in Outcome if word.held)} count as held; "
        f"{', '.join(word for word in Outcome if word.held is False)} do not; the others are no judgements.",
    ]


def powers(paper: Paper) -> Table:
    """How often a cell is reproduced whose true mean is the published figure, by number of seeds and their spread."""
    rule, spreads = paper.tolerances.of(paper.stopping), (1, 2, 3)  # per cent
    body = [(n, *(f"{power(spread / 100, n, rule):.2f}" for spread in spreads)) for n in (3, 5, 10)]
    title = f"How often a cell is {Outcome.REPRODUCED} whose true mean is the published figure"
    return table(title, ("seeds", *(f"spread over seeds {spread} %" for spread in spreads)), body, "rrrr")


def source(run: RunRecord) -> str:
    """The revision that a run was made with; where that is not known, of what numerics version it is."""
    revision, dirty = (run.environment.get(key) for key in ("source_revision", "source_dirty"))
    known = str(revision)[:12] if revision else f"numerics {run.numerics.model}.{run.numerics.training}"
    return known + (", dirty" if dirty else "")


def _label(row: Row, text: str = "") -> Cell:
    """What the row is called, or another text about it, with a mark where its features are no original ones."""
    return Cell(text or row.label, *((SURROGATES, SURROGATES_NOTE) if row.surrogates else ()))


def _about_labels(rows: Iterable[Row]) -> list[str]:
    return [f"{SURROGATES} {SURROGATES_NOTE}."] if any(row.surrogates for row in rows) else []


def _mean(study: Study, row: Row, metric: str, emphasis: Emphasis | None, tested: Difference | None) -> Cell:
    verdict = row.verdicts[metric]
    judged = row.dataset in study.published
    better = emphasis is Emphasis.BEST and tested is not None and tested.better == row.label
    return Cell(
        number(verdict.mean, otherwise="not finite"),
        emphasis=emphasis,
        stars=next((s for s, level in LEVELS.items() if better and tested and tested.adjusted < level), ""),
        word=verdict.outcome if judged else None,
        beside=f"{_percent(verdict.difference)} %" if judged and verdict.difference is not None else "",
        note=verdict.reason.rstrip(".") if judged else "",
        details=tuple(_evidence(study, row, metric)),
    )


def _figures(row: Row, metric: str) -> dict[str, str]:
    """By FIGURES: everything that a verdict rests on."""
    verdict, published = row.verdicts[metric], row.verdicts[metric].published
    figures = (
        number(verdict.mean, otherwise="not finite"),
        _range(verdict.interval),
        spread([*row.by_seed(metric).values()]),
        str(verdict.seeds),
        number(published.value) if published else "",
        published.source if published else "",
        _range(verdict.band) if published else "",
        _percent(verdict.difference),
    )
    return dict(zip(FIGURES, figures, strict=True))


def _one_more(verdict: Verdict, confidence: float) -> dict[str, str]:
    """Whether the published run could be one of ours, and how many of ours it would take to be sure of the band."""
    expected = verdict.published.value if verdict.published else None
    if verdict.prediction is None or expected is None:
        return {}
    low, high = verdict.prediction
    needed = verdict.seeds_needed(confidence)
    inside = "inside" if low <= expected <= high else "outside"
    told = {"one more run": f"{_range(verdict.prediction)}, expected lies {inside}"}
    if needed is not None:
        told[f"seeds for {Outcome.REPRODUCED}"] = f"{needed}, if mean and spread stay"
    return told


def _evidence(study: Study, row: Row, metric: str) -> Iterator[Table]:
    """What a mean and its verdict come from: figures, runs, sources."""
    figures = {**_figures(row, metric), **_one_more(row.verdicts[metric], study.paper.tolerances.confidence)}
    yield table("Figures", ("what", "figure"), [(k, v) for k, v in figures.items() if v], "lr")
    head = ("seed", "value", "best epoch", "source", "device", "finished", "command")
    runs = zip(row.runs, row.values(metric), study.commands(row), strict=True)
    yield table("Runs", head, [_run(run, value, command) for run, value, command in runs], "rrrllll")
    if row.sources[metric]:
        cited = [_citation(study, value, value == row.verdicts[metric].published) for value in row.sources[metric]]
        yield table("Sources", ("figure", "status", "source", "about"), cited, "rlll")


def _run(run: RunRecord, value: float, command: str) -> list[str]:
    result, device = run.outcome, f"{run.device}, {run.environment.get('gpu') or run.environment.get('cpu')}"
    epochs, finished = f"{result.best_epoch} of {result.epochs}", result.finished[:10]
    return [str(run.seed), f"{value:.4f}", epochs, source(run), device, finished, command]


def _citation(study: Study, value: PublishedValue, compared: bool) -> list[str]:
    source = study.paper.sources[value.source]
    about = [source.title, source.table, f"date: {source.date}", source.citation, value.note]
    name = f"{value.source}, compared with" if compared else value.source
    return [number(value.value), value.status.value, name, "; ".join(filter(None, about))]


def _timed(seconds: float | None, mark: str, form: str = ".3f") -> Cell:
    return Cell() if seconds is None else Cell(number(seconds, form), mark)


def _quartiles(timing: Timing, mark: str) -> Cell:
    if timing.q1_s is None or timing.q3_s is None:
        return Cell(str(timing.note))
    return Cell(_range((timing.q1_s, timing.q3_s), ".3f"), mark)


def _size(reading: Reading) -> str:
    return str(reading.note) if reading.bytes is None else f"{reading.bytes / 2**20:.0f}"


def _percent(share: float | None) -> str:
    return number(None if share is None else 100 * share, "+.1f", "")


def _shares(ends: Range, base: float) -> str:
    return _range((100 * ends[0] / base, 100 * ends[1] / base), "+.1f") if base else NOT_KNOWN


def _range(pair: Range | None, form: str = ".4f") -> str:
    return " to ".join(number(end, form) for end in pair) if pair else NOT_KNOWN
