"""What a report says, as sections of tables: each table of a study is built here, once for all formats."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.paper import selfcheck
from harness.paper.measured import SHARED, SHARED_NOTE, device_notes, joules_per_epoch
from harness.paper.numbers import MIB, NONE, number, spread
from harness.paper.published import PublishedValue, short_metric
from harness.paper.results import environments
from harness.paper.significance import Difference
from harness.paper.study import Study, StudyRow
from harness.paper.verdict import Outcome, Range, Verdict, Word
from harness.report.tables import Cell, Emphasis, Table, ranked, table
from harness.runs.record import Reading, RunRecord, Timing

LEVELS = {"***": 0.001, "**": 0.01, "*": 0.05}
"""Stars → the level below which a difference earns them."""
SURROGATES = "†"
SURROGATES_NOTE = "trained on surrogate features, not on the original vectors"
MEMORY = {"process MiB": "process_rss_peak", "allocator MiB": "allocator_peak", "GPU MiB": "gpu_process_peak"}


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

    `every_pair`: whether all rows that were compared over users are shown, or the best against the second.
    """
    datasets = dict.fromkeys([*study.datasets, *study.starved])
    commands = tuple(command for row in study.rows for command in study.commands(row))
    about = {
        "self-check": ("Self-check", selfcheck.NOTE, [self_check(study)]),
        "accuracy": (
            "Accuracy",
            "Test metrics, mean over seeds; of several rows the best of a column is bold.",
            [overview(study, name) for name in datasets],
        ),
        "verdicts": ("Verdicts", "", [verdicts(study, name) for name in datasets]),
        "points": (
            "All points",
            "Means over the seeds of each point, and the range of the test part over them; nothing is chosen here.",
            [all_points(study)],
        ),
        "selection": (
            "Selection",
            "The paper says that points are chosen on validation, the published code chose on test; rows and verdicts "
            "here are of the first. R@20 is that of the test part, mean over the seeds that both points have; optimism "
            "is what choosing on test adds.",
            [selection(study)],
        ),
        "differences": (
            "Differences between models" if every_pair else "Best against second",
            "First minus second, paired over the users that all rows share; a user's value is the mean over as many "
            "runs of each. The interval is from bootstrap samples of users; rank effect (−1 to 1) and p are of the "
            "Wilcoxon signed-rank test, adjusted by Holm over one data set. A row is called better only where the "
            "test and the interval agree. Means in other tables are over all seeds of a row.",
            [differences(study, every_pair)],
        ),
        "claims": (
            "Claims of the paper",
            "Whether a claim follows from printed tables, and, for `ours`, from these runs.",
            [claims(study)],
        ),
        "time": (
            "Time and memory",
            "Of the first seed's run; time per epoch is the median after the warm-up, evaluation excluded.",
            [time_and_memory(study)],
        ),
        "environment": (
            "Environment",
            "Everything that some run recorded; several values where runs differ.",
            [environment(study.runs)],
        ),
    }
    found = [
        Section(id, title, lead, tuple(one for one in tables if one.rows))
        for id, (title, lead, tables) in about.items()
    ]
    where = "In the folder of these runs, or anywhere with `--out` and that folder:"
    found.append(Section("commands", "Commands that repeat each row", where, commands=commands))
    return [section for section in found if section.tables or section.commands]


def self_check(study: Study) -> Table:
    return table("Self-check", selfcheck.HEAD, selfcheck.table(study.selfcheck or ()), "llrrrl")


def overview(study: Study, dataset: str) -> Table:
    """Rows by metrics: means over seeds, with all that each rests on."""
    rows = study.of(dataset)
    ranks: dict[str, list[Emphasis | None]] = {}
    for metric in study.metrics:
        ranks[metric] = ranked([None if row.brief else row.mean(metric) for row in rows])
    tested = {metric: study.tested(dataset, metric) for metric in study.metrics}
    body = [
        [
            _label(row),
            *(_mean(study, row, metric, ranks[metric][place], tested[metric]) for metric in study.metrics),
            len(row.result.runs),
            row.result.settings,
        ]
        for place, row in enumerate(rows)
    ]
    # As published: a dash where memory did not suffice.
    body += [[label, *["-"] * len(study.metrics), 0, "out of memory"] for label in study.starved.get(dataset, ())]
    head = ["model", *map(short_metric, study.metrics), "seeds", "settings"]
    return table(dataset, head, body, "l" + "r" * (len(study.metrics) + 1) + "l", notes=_about_labels(rows))


def about_stars(study: Study, dataset: str) -> str:
    """What stars beside the best of a data set mean, and where there are none since nothing was tested."""
    tested = {metric: study.tested(dataset, metric) for metric in study.metrics}
    found = [difference for difference in tested.values() if difference]
    if not found:
        return "Differences between models were not tested."
    levels = ", ".join(f"{stars} p < {level:g}" for stars, level in reversed(LEVELS.items()))
    untested = [short_metric(metric) for metric, difference in tested.items() if difference is None]
    return (
        f"Stars: best against second, paired over {min(pair.users for pair in found):,} users, mean over "
        f"{min(pair.runs for pair in found)} run(s) of each, which are taken as given ({levels}; Wilcoxon signed-rank "
        "test, Holm-adjusted)." + (f" Not tested: {', '.join(untested)}." if untested else "")
    )


def verdicts(study: Study, dataset: str) -> Table:
    """A row per cell that something is published for."""
    rows = study.of(dataset)
    body = [
        [
            _label(row),
            short_metric(metric),
            number(verdict.mean, otherwise="not finite"),
            spread(row.result.values(metric)),
            verdict.seeds,
            number(verdict.published.value) if verdict.published else "",
            verdict.published.source if verdict.published else "",
            _percent(verdict.difference),
            Cell(verdict.outcome.value, word=verdict.outcome),
            verdict.reason,
        ]
        for row in rows
        for metric, verdict in row.verdicts.items()
        if verdict.outcome is not Outcome.UNPUBLISHED
    ]
    used = dict.fromkeys(v.published.source for row in rows for v in row.verdicts.values() if v.published)
    cited = [f"Source {key}: {study.sources[key].citation}, {study.sources[key].table}." for key in used]
    head = ["model", "metric", "ours", "range", "seeds", "expected", "source", "diff. %", "verdict", "why"]
    return table(dataset, head, body, "llrrrrlrll", notes=[*cited, *_about_labels(rows)])


def all_points(study: Study) -> Table:
    """Every point of the rows whose suite runs each of them with every seed: it is the points that it asks for."""
    body = []
    for row in (row.result for row in study.rows if row.result.every_seed and row.result.points > 1):
        for point in row.grid:
            test = list(point.test_by_seed.values())
            means = [number(sum(values) / len(values)) for values in (list(point.valid_by_seed.values()), test)]
            body.append([row.label, row.dataset, point.name, len(test), *means, spread(test)])
    head = ["model", "data set", "point", "seeds", "valid R@20", "test R@20", "range of test R@20"]
    return table("All points", head, body, "lllrrrr")


def selection(study: Study) -> Table:
    """Both points of every row that was searched: the one chosen on validation, and the one chosen on test."""
    body = []
    for row in (row.result for row in study.rows if row.result.points > 1):
        chosen = row.selection
        same = chosen.on_test is chosen.on_validation
        body.append(
            [
                row.label,
                row.dataset,
                row.points,
                chosen.on_validation.name,
                number(chosen.test(chosen.on_validation)),
                "the same" if same else chosen.on_test.name,
                number(chosen.test(chosen.on_test)),
                "0.0" if same else _percent(chosen.optimism),
                len(chosen.seeds),
            ]
        )
    head = ["model", "data set", "points", "best on validation", "R@20", "best on test", "R@20", "optimism %", "seeds"]
    return table("Selection", head, body, "llrlrlrrr")


def differences(study: Study, every_pair: bool) -> Table:
    """Rows that were compared over users: all pairs, or of each metric the best row against the second."""
    level = 1 - study.tolerances.confidence
    if every_pair:
        pairs = [(name, pair) for name, found in study.differences.items() for pair in found]
    else:
        tested = ((name, study.tested(name, metric)) for name in study.datasets for metric in study.metrics)
        pairs = [(name, pair) for name, pair in tested if pair is not None]
    winners = [pair.winner(level) for _, pair in pairs]
    body = [
        [
            name,
            short_metric(pair.metric),
            pair.first,
            pair.second,
            number(pair.mean, "+.4f"),
            _range(pair.interval, "+.4f"),
            number(pair.ranks, "+.2f"),
            f"{pair.p_value:.2g}",
            f"{pair.adjusted:.2g}",
            pair.users,
            pair.runs,
            winner or "neither",
        ]
        for (name, pair), winner in zip(pairs, winners, strict=True)
    ]
    head = ["data set", "metric", "first" if every_pair else "best", "second", "difference", "interval", "rank effect"]
    decided = sum(winner is not None for winner in winners)
    note = f"One row is better in {decided} of {len(pairs)} comparisons, at the level of {100 * level:.3g} %."
    head += ["p", "adjusted p", "users", "runs", "better"]
    return table(
        "Differences between models" if every_pair else "Best against second",
        head,
        body,
        "llllrrrrrrrl",
        notes=[note] if every_pair else (),
    )


def claims(study: Study) -> Table:
    """What the paper says in words, with what each place says of it."""
    body = [
        [
            result.claim.text,
            result.where,
            Cell(
                result.outcome.value,
                word=result.outcome,
                details=(_comparisons(result.details),) if result.details else (),
            ),
            result.evidence,
        ]
        for claim in dict.fromkeys(result.claim.id for result in study.claims)
        for result in study.claims
        if result.claim.id == claim
    ]
    return table("Claims of the paper", ("claim", "from", "outcome", "evidence"), body, groups=1)


def time_and_memory(study: Study) -> Table:
    """Cost of each row's first run. A kind of memory that no run could measure is a note instead of a column."""
    runs = [(row, row.result.runs[0]) for row in study.rows]
    notes, memory = [], {}
    for title, key in MEMORY.items():
        readings = [run.outcome.memory.of(key) for _, run in runs]
        if any(reading.bytes is not None for reading in readings):
            memory[title] = key
        elif readings:
            notes.append(f"{title}: {'; '.join(dict.fromkeys(str(reading.note) for reading in readings))}.")
    joules = [joules_per_epoch(run) for _, run in runs]
    with_energy = any(figure is not None for figure in joules)
    if with_energy:
        notes.append(
            "J/epoch is what GPU and processor took for an epoch and its evaluation, whoever used them: mean after the "
            "first epoch."
        )
    body = []
    for (row, run), energy in zip(runs, joules, strict=True):
        timing, mark = run.outcome.timing, study.time_mark(row)
        body.append(
            [
                row.dataset,
                row.label,
                _timed(timing.median_s, mark),
                _quartiles(timing, mark),
                _timed(timing.warmup_s, mark),
                _timed(timing.evaluation_median_s, mark),
                *(_size(run.outcome.memory.of(key)) for key in memory.values()),
                *([_timed(energy, mark, ".1f")] if with_energy else []),
            ]
        )
        if found := device_notes(run):
            notes.append(f"{row.dataset}, {row.label}, while it ran: {'; '.join(found)}.")
    if any(study.time_mark(row) for row, _ in runs):
        notes.append(f"{SHARED} {SHARED_NOTE}.")
    head = ["data set", "model", "s/epoch", "quartiles", "first epoch", "evaluation s", *memory]
    head += ["J/epoch"] if with_energy else []
    return table("Time and memory", head, body, "ll" + "r" * (len(head) - 2), notes=notes)


def environment(runs: Iterable[RunRecord]) -> Table:
    """What runs recorded of where they ran."""
    return table("Environment", ("what", "value"), [(key, "; ".join(all)) for key, all in environments(runs).items()])


def rules(study: Study) -> list[str]:
    """How a verdict is made."""
    tolerances, bands = study.tolerances, study.tolerances.published
    own = "".join(f", of {short_metric(name)} ± {100 * share:g} %" for name, share in bands.metrics.items())
    return [
        "A cell is the mean of a test metric over the seeds of the settings that were best on validation R@20.",
        "It is compared with the first of its sources that prints a figure.",
        f"The band is the published figure ± {100 * bands.relative:g} %{own}.",
        f"The interval is the two-sided t-interval of the mean at {100 * tolerances.confidence:g} % confidence; "
        f"fewer than {tolerances.min_seeds} seeds are no evidence.",
        f"{' and '.join(word for word in Outcome if word.held)} count as held; "
        f"{', '.join(word for word in Outcome if word.held is False)} do not; the others are no judgements.",
    ]


def source(run: RunRecord) -> str:
    """The revision that a run was made with; where that is not known, of what numerics version it is."""
    revision, dirty = (run.environment[key] for key in ("source_revision", "source_dirty"))
    known = revision[:12] if revision else f"numerics {run.numerics.model}.{run.numerics.training}"
    return known + (", dirty" if dirty else "")


def _label(row: StudyRow) -> Cell:
    return Cell(row.label, *((SURROGATES, SURROGATES_NOTE) if row.result.surrogates else ()))


def _about_labels(rows: Iterable[StudyRow]) -> list[str]:
    return [f"{SURROGATES} {SURROGATES_NOTE}."] if any(row.result.surrogates for row in rows) else []


def _mean(study: Study, row: StudyRow, metric: str, emphasis: Emphasis | None, tested: Difference | None) -> Cell:
    verdict = row.verdicts[metric]
    judged = row.dataset in study.published
    sure = emphasis is Emphasis.BEST and tested is not None
    return Cell(
        number(verdict.mean, otherwise="not finite"),
        emphasis=emphasis,
        stars=next((s for s, level in LEVELS.items() if sure and tested and tested.winner(level) == row.label), ""),
        word=verdict.outcome if judged else None,
        beside=f"{_percent(verdict.difference)} %" if judged and verdict.difference is not None else "",
        note=verdict.reason.rstrip(".") if judged else "",
        details=tuple(_evidence(study, row, metric, verdict)),
    )


def _evidence(study: Study, row: StudyRow, metric: str, verdict: Verdict) -> Iterator[Table]:
    """Everything that a mean and its verdict rest on: figures, runs, sources."""
    values, tolerances = row.result.values(metric), study.tolerances
    facts = [
        ("Mean", number(verdict.mean, otherwise="not finite")),
        (f"{100 * tolerances.confidence:g} % interval", _range(verdict.interval)),
        ("Lowest to highest", _range((min(values), max(values)) if len(values) > 1 else None)),
        ("Seeds", str(len(values))),
    ]
    if verdict.published is not None:
        facts += [
            ("Compared with", f"{number(verdict.published.value)}, {verdict.published.source}"),
            (f"Band, ± {100 * tolerances.of(metric).relative:g} %", _range(verdict.band)),
            ("Difference, %", _percent(verdict.difference) or NONE),
        ]
    yield table("Figures", ("what", "figure"), facts, "lr")
    head = ("seed", "value", "best epoch", "source", "device", "finished", "command")
    runs = zip(row.result.runs, values, study.commands(row), strict=True)
    yield table("Runs", head, [_run(run, value, command) for run, value, command in runs], "rrrllll")
    if row.sources[metric]:
        cited = [_citation(study, value, value == verdict.published) for value in row.sources[metric]]
        yield table("Sources", ("figure", "status", "source", "about"), cited, "rlll")


def _run(run: RunRecord, value: float, command: str) -> list[str]:
    result, device = run.outcome, f"{run.device}, {run.environment['gpu'] or run.environment['cpu']}"
    epochs, finished = f"{result.best_epoch} of {result.epochs}", result.finished[:10]
    return [str(run.seed), f"{value:.4f}", epochs, source(run), device, finished, command]


def _citation(study: Study, value: PublishedValue, compared: bool) -> list[str]:
    source = study.sources[value.source]
    about = [source.title, source.table, f"date: {source.date}", source.citation, value.note]
    name = f"{value.source}, compared with" if compared else value.source
    return [number(value.value), value.status.value, name, "; ".join(filter(None, about))]


def _comparisons(details: Iterable[tuple[str, str, Word]]) -> Table:
    body = [(what, figure, Cell(outcome.value, word=outcome)) for what, figure, outcome in details]
    return table("Comparisons", ("what", "figure", "outcome"), body)


def _timed(seconds: float | None, mark: str, form: str = ".3f") -> Cell:
    return Cell() if seconds is None else Cell(number(seconds, form), mark)


def _quartiles(timing: Timing, mark: str) -> Cell:
    if timing.q1_s is None or timing.q3_s is None:
        return Cell(str(timing.note))
    return Cell(_range((timing.q1_s, timing.q3_s), ".3f"), mark)


def _size(reading: Reading) -> str:
    return str(reading.note) if reading.bytes is None else f"{reading.bytes / MIB:.0f}"


def _percent(share: float | None) -> str:
    return number(None if share is None else 100 * share, "+.1f", "")


def _range(pair: Range | None, form: str = ".4f") -> str:
    return " to ".join(number(end, form) for end in pair) if pair else NONE
