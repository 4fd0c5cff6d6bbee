"""A study as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from harness.paper import selfcheck
from harness.paper.expected import short_metric
from harness.paper.measured import SHARED, SHARED_NOTE, device_notes, joules_per_epoch
from harness.paper.numbers import MIB, number, spread
from harness.paper.results import METRICS, environments
from harness.paper.study import Study, StudyRow, headline
from harness.paper.verdict import Outcome
from harness.runs.store import StoredRun


def markdown(study: Study) -> str:
    """The whole report; its first part, up to the first `## `, is the summary."""
    first, *more = headline(study)
    sections = [
        f"# {study.title}",
        f"**{first}**",
        *more,
        f"Asked: {study.asked}",
        *_summary(study),
        *(["## Not checked here", "\n".join(f"- {text}" for text in study.unchecked)] if study.unchecked else []),
        *_self_check(study),
        *_accuracy(study),
        *_all_points(study.rows),
        *_selection(study.rows),
        *_differences(study),
        *_claims(study),
        *_efficiency(study),
        *environment_table(study.runs),
        *_commands(study),
    ]
    return "\n\n".join(sections) + "\n"


def _summary(study: Study) -> list[str]:
    lines = []
    if study.published:
        outcomes = ", ".join(f"{n} {outcome.value}" for outcome, n in study.outcomes.items())
        lines.append(f"- Accuracy cells: {outcomes}")
    if study.conformance:
        counts = ", ".join(f"{n} {name}" for name, n in study.conformance.items())
        lines.append(f"- Conformance with recorded traces: {counts}")
    lines += [f"- Unfinished run, left out: `{run.run['command']}`" for run in study.unfinished]
    lines += [f"- Cannot be read, left out: {text}" for text in study.unread]
    lines += [f"- Out of memory, a dash below: `{run.run['command']}`" for run in study.out_of_memory]
    lines += [f"- Failed: `{command}`{': ' * bool(why)}{why}" for command, why in study.failures.items()]
    return ["\n".join(lines)] if lines else []


def _self_check(study: Study) -> list[str]:
    if not study.selfcheck:
        return []
    table = tabulate(selfcheck.table(study.selfcheck), selfcheck.HEAD, tablefmt="github", disable_numparse=True)
    return ["## Self-check", selfcheck.NOTE, table]


def _accuracy(study: Study) -> list[str]:
    datasets = dict.fromkeys([*study.datasets, *study.starved])
    sections = ["## Accuracy"] if datasets else []
    for dataset in datasets:
        rows = study.of(dataset)
        sections += [f"### {dataset}", _overview(study, dataset), *_verdicts(rows)]
    notes = [
        f"- {row.dataset}, {row.label}: trained on surrogate features, not on the original vectors."
        for row in (row.result for row in study.rows)
        if row.surrogates
    ]
    return [*sections, *(["\n".join(notes)] if notes else [])]


def _overview(study: Study, dataset: str) -> str:
    """Models by metrics: means over seeds, the best of each metric in bold."""
    best = {metric: study.best_two(dataset, metric)[:1] for metric in METRICS}
    table = [
        [
            row.label,
            *(f"**{_mean(row, m)}**" if row in best[m] else _mean(row, m) for m in METRICS),
            len(row.result.runs),
            row.result.settings,
        ]
        for row in study.of(dataset)
    ]
    # As published: a dash where memory did not suffice.
    table += [[label, *["-"] * len(METRICS), 0, "out of memory"] for label in study.starved.get(dataset, ())]
    head = ["model", *(short_metric(metric) for metric in METRICS), "seeds", "settings"]
    return tabulate(table, head, tablefmt="github", disable_numparse=True)


def _mean(row: StudyRow, metric: str) -> str:
    return number(row.mean(metric))


def _verdicts(rows: Sequence[StudyRow]) -> list[str]:
    """One row per cell that something is published for."""
    table = []
    for row in rows:
        for metric, verdict in row.verdicts.items():
            if verdict.outcome is Outcome.UNPUBLISHED:
                continue
            table.append(
                [
                    row.label,
                    short_metric(metric),
                    number(verdict.mean, otherwise="not finite"),
                    spread(row.result.values(metric)),
                    verdict.seeds,
                    number(verdict.published.value) if verdict.published else "",
                    verdict.published.source if verdict.published else "",
                    number(None if verdict.difference is None else 100 * verdict.difference, "+.1f", ""),
                    verdict.outcome.value,
                    verdict.reason,
                ]
            )
    head = ["model", "metric", "ours", "range", "seeds", "expected", "source", "diff. %", "verdict", "why"]
    return [tabulate(table, head, tablefmt="github", disable_numparse=True)] if table else []


def _all_points(rows: Sequence[StudyRow]) -> list[str]:
    """Every point of the rows whose suite runs each of them with every seed: it is the points that it asks for."""
    table = []
    for row in (row.result for row in rows if row.result.every_seed and row.result.points > 1):
        for point in row.grid:
            test = list(point.test_by_seed.values())
            means = [number(sum(values) / len(values)) for values in (list(point.valid_by_seed.values()), test)]
            table.append([row.label, row.dataset, point.name, len(test), *means, spread(test)])
    if not table:
        return []
    head = ["model", "data set", "point", "seeds", "valid R@20", "test R@20", "range of test R@20"]
    note = "Means over the seeds of each point, and the range of the test part over them; nothing is chosen here."
    return ["## All points", note, tabulate(table, head, tablefmt="github", disable_numparse=True)]


def _selection(rows: Sequence[StudyRow]) -> list[str]:
    """Both points of every row that was searched: the one chosen on validation, and the one chosen on test."""
    table = []
    for row in (row.result for row in rows if row.result.points > 1):
        chosen = row.selection
        same = chosen.on_test is chosen.on_validation
        optimism = number(None if chosen.optimism is None else 100 * chosen.optimism, "+.1f", "")
        table.append(
            [
                row.label,
                row.dataset,
                row.points,
                chosen.on_validation.name,
                number(chosen.test(chosen.on_validation)),
                "the same" if same else chosen.on_test.name,
                number(chosen.test(chosen.on_test)),
                "0.0" if same else optimism,
                len(chosen.seeds),
            ]
        )
    if not table:
        return []
    head = ["model", "data set", "points", "best on validation", "R@20", "best on test", "R@20", "optimism %", "seeds"]
    note = (
        "The paper says that points are chosen on validation, the published code chose on test; rows and verdicts here "
        "are of the first. R@20 is that of the test part, mean over the seeds that both points have; optimism is what "
        "choosing on test adds."
    )
    return ["## Selection", note, tabulate(table, head, tablefmt="github", disable_numparse=True)]


def _differences(study: Study) -> list[str]:
    """The best row of each metric against the second, where users were compared; all pairs are in the other formats."""
    level = 1 - study.tolerances.confidence
    table = []
    for dataset in study.datasets:
        for metric in METRICS:
            pair = study.tested(dataset, metric)
            if pair is not None:
                interval = " to ".join(number(end, "+.4f") for end in pair.interval)
                figures = [number(pair.mean, "+.4f"), interval, f"{pair.adjusted:.2g}", pair.users, pair.runs]
                names = [pair.first, pair.second, *figures, pair.winner(level) or "neither"]
                table.append([dataset, short_metric(metric), *names])
    if not table:
        return []
    head = ["data set", "metric", "best", "second", "difference", "interval", "p (Holm)", "users", "runs", "better"]
    note = (
        "Paired over users, mean over as many runs of each, which also say which row is best; means above are over all "
        "seeds of a row. The interval is from bootstrap samples of users. A row is better where the adjusted test and "
        "the interval agree."
    )
    return ["## Best against second", note, tabulate(table, head, tablefmt="github", disable_numparse=True)]


def _claims(study: Study) -> list[str]:
    note = "`paper` and `toolbox`: whether the claim follows from the printed tables; `ours`: from these runs."
    lines = []
    for text in dict.fromkeys(result.claim.text for result in study.claims):
        lines.append(f"- {text}")
        results = [result for result in study.claims if result.claim.text == text]
        lines += [f"  - `{result.where}`: **{result.outcome.value}**. {result.evidence}." for result in results]
    return ["## Claims of the paper", note, "\n".join(lines)] if lines else []


def _efficiency(study: Study) -> list[str]:
    rows, table = study.rows, []
    for row in rows:
        mark = study.time_mark(row)
        run = row.result.runs[0]
        timing, memory = (run.result or {})["timing"], (run.result or {})["memory"]
        table.append(
            [
                row.dataset,
                row.label,
                _figure(timing["median_s"], mark),
                f"{timing['q1_s']:.3f} to {timing['q3_s']:.3f}{mark}" if timing["q1_s"] is not None else timing["note"],
                _figure(timing["warmup_s"], mark),
                _figure(timing["evaluation_median_s"], mark),
                *(_bytes(memory[key]) for key in ("process_rss_peak", "allocator_peak", "gpu_process_peak")),
            ]
        )
    head = [
        "data set",
        "model",
        "s/epoch",
        "quartiles",
        "first epoch",
        "evaluation s",
        "process MiB",
        "allocator MiB",
        "GPU MiB",
    ]
    note = "Of the first seed's run; time per epoch is the median after the warm-up, evaluation excluded."
    joules = [joules_per_epoch(row.result.runs[0]) for row in rows]
    if any(figure is not None for figure in joules):
        note += " J/epoch is what GPU and processor took for an epoch and its evaluation, whoever used them: "
        note += "mean after the first epoch."
        head.append("J/epoch")
        table = [
            [*line, _figure(figure, study.time_mark(row), ".1f")]
            for line, figure, row in zip(table, joules, rows, strict=True)
        ]
    noted = [
        f"- {row.dataset}, {row.label}: {'; '.join(notes)}."
        for row in rows
        if (notes := device_notes(row.result.runs[0]))
    ]
    if not table:
        return []
    if any(map(study.time_mark, rows)):
        note += f" {SHARED} {SHARED_NOTE}."
    lines = ["## Time and memory", note, tabulate(table, head, tablefmt="github", disable_numparse=True)]
    return [*lines, "While these ran:", "\n".join(noted)] if noted else lines


def environment_table(runs: Iterable[StoredRun]) -> list[str]:
    """A heading, and what the runs recorded of where they ran; nothing without runs."""
    rows = [[key, "; ".join(values)] for key, values in environments(runs).items()]
    table = tabulate(rows, ["what", "value"], tablefmt="github", disable_numparse=True)
    return ["## Environment", table] if rows else []


def _commands(study: Study) -> list[str]:
    lines = [command for row in study.rows for command in study.commands(row)]
    note = "In the folder of these runs, or anywhere with `--out` and that folder:"
    return ["## Commands that repeat each row", note, "```\n" + "\n".join(lines) + "\n```"] if lines else []


def _figure(value: Any, mark: str, form: str = ".3f") -> str:
    return "" if value is None else number(value, form) + mark


def _bytes(reading: Mapping[str, Any]) -> str:
    return str(reading["note"]) if reading["bytes"] is None else f"{reading['bytes'] / MIB:.0f}"
