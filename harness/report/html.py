"""A study as one HTML file that needs nothing else: every number, verdict, run and source of it, as text to lay out.

Layout, style and script are in `templates`; no figure is computed here or there.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from harness.paper import selfcheck
from harness.paper.claims import Claim, ClaimOutcome, ClaimResult
from harness.paper.expected import PublishedValue, Tolerances, short_metric
from harness.paper.measured import SHARED, SHARED_NOTE, device_notes, joules_per_epoch
from harness.paper.numbers import MIB, NONE, number
from harness.paper.results import METRICS, ResultRow, environments
from harness.paper.significance import Difference
from harness.paper.study import Study, StudyRow, headline
from harness.paper.verdict import Outcome, Range, Verdict
from harness.runs.store import StoredRun

Picture = tuple[str, str, str]
"""Title, caption, SVG."""

RUN_HEAD = ("seed", "value", "best epoch", "run folder", "source", "device", "finished")

MARKS: Mapping[str, tuple[str, str]] = {word.value: (word.mark, word.tone) for word in (*Outcome, *ClaimOutcome)}
"""Mark and tone of a word."""


@dataclass(frozen=True)
class Table:
    """A plain sortable table."""

    title: str
    head: tuple[str, ...]
    texts: int
    """How many columns are text; the others are figures, which stand on the right and sort from the highest."""
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Citation:
    """One figure that a source gives for a cell."""

    figure: str
    status: str
    name: str
    compared: bool
    about: tuple[str, ...]
    """Title; table, date and citation; what is noted on the figure, if anything."""


@dataclass(frozen=True)
class Strip:
    """Places on a line from 0 to 100 for the drawing of a cell: band, interval, seeds, mean and sources."""

    band: Range
    width: float
    interval: Range | None
    ends: tuple[str, str]
    mean: float
    seeds: tuple[float, ...]
    published: float
    label: str
    others: tuple[float, ...]


@dataclass(frozen=True)
class Cell:
    """A model's metric: what the table shows, and what unfolds."""

    id: str
    metric: str
    value: str
    key: str
    """What the cell is sorted by; empty, and so last, where the value is not finite."""
    rank: str
    """`best`, `second` or empty."""
    outcome: str
    difference: str
    reason: str
    facts: tuple[tuple[str, str], ...]
    strip: Strip | None
    runs: tuple[tuple[str, ...], ...]
    """A line of text per run, under RUN_HEAD."""
    sources: tuple[Citation, ...]


@dataclass(frozen=True)
class Model:
    """A row of an accuracy table."""

    label: str
    seeds: str
    settings: str
    surrogates: str
    cells: tuple[Cell, ...]
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """What is said about one data set."""

    name: str
    models: tuple[Model, ...]
    notes: tuple[str, ...]


def page_template(name: str) -> Template:
    """A template of this package whose values are escaped, and which none may miss."""
    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


def html(study: Study, pictures: Sequence[Picture] = ()) -> str:
    """The whole report as a page without any request; the same study gives the same text.

    Pictures are trusted SVG and are placed as they are; everything else is escaped.
    """
    time, time_notes = _efficiency(study)
    sections = {
        "self-check": ("Self-check", study.selfcheck),
        "accuracy": ("Accuracy", study.rows),
        "differences": ("Differences between models", any(study.differences.values())),
        "claims": ("Claims of the paper", study.claims),
        "time": ("Time and memory", time),
        "pictures": ("Pictures", pictures),
        "verdicts": ("How verdicts are made", study.published),
        "environment": ("Environment", study.runs),
        "commands": ("Commands", study.rows),
    }
    return page_template("report.html.j2").render(
        study=study,
        marks=MARKS,
        answer=_answer(study),
        headline=headline(study),
        outcomes=[(word.value, count, word.meaning) for word, count in study.outcomes.items() if study.published],
        conformance=", ".join(f"{count} {name}" for name, count in study.conformance.items()),
        run_head=RUN_HEAD,
        runs=_runs(study),
        lost={
            # The reason is a comment, so that the line can still be pasted.
            "Failed": [f"{command}{'  # ' * bool(why)}{why}" for command, why in study.failures.items()],
            "Unfinished, left out": [run.run["command"] for run in study.unfinished],
            "Cannot be read, left out": study.unread,
        },
        sections={id: title for id, (title, there) in sections.items() if there},
        self_check=Table("Self-check", selfcheck.HEAD, 2, tuple(selfcheck.table(study.selfcheck or ()))),
        self_check_note=selfcheck.NOTE,
        metrics=[short_metric(metric) for metric in METRICS],
        parts=[_part(study, dataset) for dataset in study.datasets],
        differences=[
            _differences(dataset, found, 1 - study.tolerances.confidence)
            for dataset, found in study.differences.items()
            if found
        ],
        claims=_claims(study.claims),
        time=time,
        time_notes=time_notes,
        pictures=[(title, caption, Markup(svg)) for title, caption, svg in pictures],
        environment=environments(study.runs),
        rules=_rules(study.tolerances),
        band=study.tolerances.published,
        commands=[command for row in study.rows for command in study.commands(row)],
    )


def _answer(study: Study) -> tuple[str, str]:
    """Mark and tone of the whole page, which has no ✓ while its own question is open."""
    if study.code == 1:
        return "✗", "bad"
    if not study.published:
        return "•", "none"
    return ("✓", "good") if study.answered and study.code == 0 else ("○", "none")


def _runs(study: Study) -> str:
    """How many runs there are, when they finished, and the revisions they were made with."""
    dates = sorted(run.result["finished"][:10] for run in study.runs if run.result)
    if not dates:
        return "none finished"
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    revisions = dict.fromkeys(_source(run) for run in study.runs if run.finished)
    return f"{len(dates)} finished, {when}, of source {', '.join(revisions)}"


def _part(study: Study, dataset: str) -> Part:
    rows = study.of(dataset)
    return Part(dataset, tuple(_model(study, row) for row in rows), tuple(_notes([row.result for row in rows])))


def _model(study: Study, row: StudyRow) -> Model:
    return Model(
        label=row.label,
        seeds=_count(len(row.result.runs), "seed"),
        settings=row.result.settings,
        surrogates=", ".join(row.result.surrogates),
        cells=tuple(_cell(study, row, metric) for metric in METRICS),
        commands=tuple(study.commands(row)),
    )


def _notes(rows: Sequence[ResultRow]) -> Iterator[str]:
    """What must be known about the rows of a data set before their numbers are quoted."""
    if surrogates := [row.label for row in rows if row.surrogates]:
        yield f"Trained on surrogate features, not on the original vectors: {', '.join(surrogates)}."
    yield from (row.search for row in rows if row.search)


def _cell(study: Study, row: StudyRow, metric: str) -> Cell:
    verdict, values, sources = row.verdicts[metric], row.result.values(metric), row.sources[metric]
    best = [other.label for other in study.best_two(row.dataset, metric)]
    return Cell(
        id=re.sub(r"\s", "+", f"{row.dataset}/{row.label}/{short_metric(metric)}"),
        metric=short_metric(metric),
        value=_text(verdict.mean, ".4f", "not finite"),
        key="" if verdict.mean is None else f"{verdict.mean:.10g}",
        rank="" if verdict.mean is None else dict(zip(best, ("best", "second"), strict=False)).get(row.label, ""),
        outcome=verdict.outcome.value if row.dataset in study.published else "",
        difference=_percent(verdict.difference),
        reason=verdict.reason.rstrip("."),
        facts=_facts(study.tolerances, verdict, values, metric),
        strip=_strip(verdict, values, sources),
        runs=tuple(_run(study, run, value) for run, value in zip(row.result.runs, values, strict=True)),
        sources=tuple(_citation(study, value, verdict) for value in sources),
    )


def _facts(
    tolerances: Tolerances, verdict: Verdict, values: Sequence[float], metric: str
) -> tuple[tuple[str, str], ...]:
    """Name and figure of everything that the verdict rests on."""
    facts = [
        ("Mean", _text(verdict.mean, ".4f", "not finite")),
        (f"{100 * tolerances.confidence:g} % interval", _range(verdict.interval) or NONE),
        ("Lowest to highest", _range((min(values), max(values)) if len(values) > 1 else None) or NONE),
        ("Seeds", str(len(values))),
    ]
    if verdict.published is not None:
        width = tolerances.of(metric).relative
        facts += [
            ("Compared with", f"{_published(verdict.published)}, {verdict.published.source}"),
            (f"Band, ± {100 * width:g} %", _range(verdict.band)),
            ("Difference", _percent(verdict.difference) or NONE),
        ]
    return tuple(facts)


def _strip(verdict: Verdict, values: Sequence[float], sources: Sequence[PublishedValue]) -> Strip | None:
    """Where everything stands on a line that holds all of it, with room for the figures at the interval's ends."""
    if verdict.band is None or verdict.mean is None or verdict.published is None or verdict.published.value is None:
        return None
    figures = [value.value for value in sources if value.value is not None]
    shown = [*verdict.band, *(verdict.interval or ()), *values, *figures]
    start, span = min(shown), max(shown) - min(shown)

    def place(value: float) -> float:
        return round(15 + 70 * (value - start) / span, 2) if span else 50.0

    (low, high), interval = map(place, verdict.band), verdict.interval
    return Strip(
        band=(low, high),
        width=round(high - low, 2),
        interval=(place(interval[0]), place(interval[1])) if interval else None,
        ends=(f"{interval[0]:.4f}", f"{interval[1]:.4f}") if interval else ("", ""),
        mean=place(verdict.mean),
        seeds=tuple(place(value) for value in values),
        published=place(verdict.published.value),
        label=_published(verdict.published),
        others=tuple(place(figure) for figure in figures if figure != verdict.published.value),
    )


def _run(study: Study, run: StoredRun, value: float) -> tuple[str, ...]:
    result, environment = run.result or {}, run.run["environment"]
    return (
        str(run.run["seed"]),
        f"{value:.4f}",
        f"{result['best_epoch']} of {result['epochs']}",
        run.path.relative_to(study.folder).as_posix(),
        _source(run),
        f"{run.run['device']}, {environment['gpu'] or environment['cpu']}",
        result["finished"][:10],
    )


def _source(run: StoredRun) -> str:
    """The revision that a run was made with; where that is not known, of what numerics version it is."""
    revision, dirty = (run.run["environment"][key] for key in ("source_revision", "source_dirty"))
    known = revision[:12] if revision else "numerics {model}.{training}".format(**run.numerics.model_dump())
    return known + (", dirty" if dirty else "")


def _citation(study: Study, value: PublishedValue, verdict: Verdict) -> Citation:
    source = study.sources[value.source]
    about = (source.title, f"{source.table}; date: {source.date}; {source.citation}", value.note)
    return Citation(
        figure=_published(value),
        status=value.status.value,
        name=value.source,
        compared=value == verdict.published,
        about=tuple(filter(None, about)),
    )


def _claims(results: Iterable[ClaimResult]) -> list[tuple[Claim, list[ClaimResult]]]:
    """Each claim with what every place says about it."""
    found: dict[str, list[ClaimResult]] = {}
    for result in results:
        found.setdefault(result.claim.id, []).append(result)
    return [(group[0].claim, group) for group in found.values()]


def _differences(dataset: str, found: Sequence[Difference], level: float) -> tuple[str, str, Table]:
    """Data set, how many pairs differ, and the table of all of them."""
    head = ("pair", "metric", "better", "difference", "interval", "rank effect", "p", "adjusted p", "users", "runs")
    winners = [difference.winner(level) for difference in found]
    rows = tuple(
        (
            f"{difference.first} − {difference.second}",
            short_metric(difference.metric),
            winner or NONE,
            _text(difference.mean, "+.4f"),
            _range(difference.interval, "+.4f"),
            _text(difference.ranks, "+.2f"),
            _text(difference.p_value, ".2g"),
            _text(difference.adjusted, ".2g"),
            str(difference.users),
            str(difference.runs),
        )
        for difference, winner in zip(found, winners, strict=True)
    )
    decided = sum(winner is not None for winner in winners)
    note = f"One model is better in {decided} of {len(found)} comparisons, at the level of {100 * level:.3g} %."
    return dataset, note, Table(f"Differences on {dataset}", head, 3, rows)


def _efficiency(study: Study) -> tuple[Table | None, list[str]]:
    """Cost of each row's first run. A kind of memory that no run could measure is a note instead of a column."""
    results = [(row, row.result.runs[0].result or {}) for row in study.rows]
    memory = {"process MiB": "process_rss_peak", "allocator MiB": "allocator_peak", "GPU MiB": "gpu_process_peak"}
    notes = []
    for title, key in list(memory.items()):
        readings = [result["memory"][key] for _, result in results]
        if all(reading["bytes"] is None for reading in readings):
            del memory[title]
            notes.append(f"{title}: " + "; ".join(dict.fromkeys(str(reading["note"]) for reading in readings)))
    joules = [joules_per_epoch(row.result.runs[0]) for row in study.rows]
    with_energy = any(figure is not None for figure in joules)
    rows = []
    for (row, result), energy in zip(results, joules, strict=True):
        timing, readings = result["timing"], [result["memory"][key] for key in memory.values()]
        quartiles, mark = (timing["q1_s"], timing["q3_s"]), study.time_mark(row)
        rows.append(
            (
                row.label if len(study.datasets) == 1 else f"{row.label}, {row.dataset}",
                _text(timing["median_s"], ".3f") + mark,
                str(timing["note"]) if None in quartiles else _range(quartiles, ".3f") + mark,
                _text(timing["warmup_s"], ".3f") + mark,
                _text(timing["evaluation_median_s"], ".3f") + mark,
                *(
                    str(reading["note"]) if reading["bytes"] is None else f"{reading['bytes'] / MIB:.0f}"
                    for reading in readings
                ),
                *([_text(energy, ".1f") + mark] if with_energy else []),
            )
        )
        if found := device_notes(row.result.runs[0]):
            notes.append(f"{rows[-1][0]}: {'; '.join(found)}")
    if any(map(study.time_mark, study.rows)):
        notes.append(f"{SHARED} {SHARED_NOTE}")
    head = (
        "model",
        "s/epoch",
        "quartiles",
        "first epoch",
        "evaluation s",
        *memory,
        *(["J/epoch"] if with_energy else []),
    )
    return (Table("Time and memory", head, 1, tuple(rows)), notes) if rows else (None, [])


def _rules(tolerances: Tolerances) -> list[str]:
    """How a verdict is made."""

    bands = tolerances.published
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


def _published(value: PublishedValue) -> str:
    return _text(value.value, ".4f")


def _percent(share: float | None) -> str:
    return "" if share is None else _text(100 * share, "+.1f") + " %"


def _range(pair: Range | None, form: str = ".4f") -> str:
    return " to ".join(_text(end, form) for end in pair) if pair else ""


def _text(value: float | None, form: str, otherwise: str = NONE) -> str:
    return number(value, form, otherwise).replace("-", "−")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
