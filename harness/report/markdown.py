"""The Markdown report of a folder of stored runs. It reads runs and expected values, never models or data."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness.compare.expected import expected_dir, load_expected, load_tolerances, short_metric
from harness.compare.verdict import Outcome, Verdict, exit_code
from harness.conformance import Check, Status, trace_statuses
from harness.experiments.store import StoredRun, stored_runs
from harness.report.results import METRICS, ResultRow, result_rows, verdicts

MB = 2**20
REPORT = "report.md"

Judged = tuple[ResultRow, Mapping[str, Verdict]]


@dataclass(frozen=True)
class Report:
    """Markdown text and the exit code that goes with it."""

    text: str
    code: int


def make_report(
    folder: Path, asked: str, *, checks: Sequence[Check] = (), unchecked: Sequence[str] = (), failed: Sequence[str] = ()
) -> Report:
    """Report on every run below `folder`; `checks` are conformance results, `failed` commands of trials that failed.

    Raises DataError when the folder or the expected values cannot be read.
    """
    runs = list(stored_runs(folder))
    expected, tolerances = load_expected(expected_dir()), load_tolerances(expected_dir() / "tolerances.toml")
    judged = [(row, verdicts(row, expected, tolerances)) for row in result_rows(runs)]
    cells = [verdict for _, row in judged for verdict in row.values()]
    code = exit_code(cells)
    statuses = Counter(trace_statuses(list(checks)).values())
    if statuses[Status.FAILED] or failed:
        code = 1
    sections = [
        "# Does BM3 reproduce here?",
        f"Asked: {asked}",
        _summary(cells, statuses, [run for run in runs if not run.finished], failed, code),
        *(["## Not checked here", "\n".join(f"- {text}" for text in unchecked)] if unchecked else []),
        *_accuracy(judged),
        *_efficiency([row for row, _ in judged]),
        *_environment(runs),
        *_commands(judged),
    ]
    return Report("\n\n".join(sections) + "\n", code)


def write_report(report: Report, folder: Path) -> Path:
    """Write `report.md` into `folder`, whole or not at all."""
    path = folder / REPORT
    temporary = path.with_suffix(".part")
    temporary.write_text(report.text, encoding="utf-8")
    return temporary.replace(path)


def _summary(
    cells: Sequence[Verdict],
    statuses: Mapping[Status, int],
    open_runs: Sequence[StoredRun],
    failed: Sequence[str],
    code: int,
) -> str:
    answer = {0: "Everything with evidence held.", 1: "Something deviates or failed.", 3: "Nothing could be measured."}[
        code
    ]
    lines = [f"**{answer}**", ""]
    counts = Counter(verdict.outcome.value for verdict in cells)
    lines.append("- Accuracy cells: " + (", ".join(f"{n} {name}" for name, n in counts.most_common()) or "none"))
    if statuses:
        lines.append("- Conformance with recorded traces: " + ", ".join(f"{n} {name}" for name, n in statuses.items()))
    lines += [f"- Unfinished run, left out: `{run.run['command']}`" for run in open_runs]
    lines += [f"- Failed: `{command}`" for command in failed]
    return "\n".join(lines)


def _accuracy(judged: Sequence[Judged]) -> list[str]:
    sections = ["## Accuracy"] if judged else []
    for dataset in dict.fromkeys(row.dataset for row, _ in judged):
        rows = [(row, cells) for row, cells in judged if row.dataset == dataset]
        sections += [f"### {dataset}", _overview([row for row, _ in rows]), *_verdicts(rows)]
    notes = []
    for row, _ in judged:
        if row.surrogates:
            notes.append(f"- {row.dataset}, {row.label}: trained on surrogate features, not on the original vectors.")
        if row.points > 1:
            text = (
                f"- {row.dataset}, {row.label}: {row.points} grid points searched; best on validation: {row.settings}"
            )
            if row.optimism is not None:
                text += f"; best on test: {row.best_on_test}, which would add {100 * row.optimism:.1f} % to test R@20"
            notes.append(text + ".")
    return [*sections, *(["\n".join(notes)] if notes else [])]


def _overview(rows: Sequence[ResultRow]) -> str:
    """Models by metrics: means over seeds, the best of each metric in bold."""
    means = [{metric: sum(row.values(metric)) / len(row.runs) for metric in METRICS} for row in rows]
    best = {metric: max(mean[metric] for mean in means) for metric in METRICS}
    table = [
        [
            row.label,
            *(f"**{mean[m]:.4f}**" if mean[m] == best[m] else f"{mean[m]:.4f}" for m in METRICS),
            len(row.runs),
            row.settings,
        ]
        for row, mean in zip(rows, means, strict=True)
    ]
    head = ["model", *(short_metric(metric) for metric in METRICS), "seeds", "settings"]
    return tabulate(table, head, tablefmt="github", disable_numparse=True)


def _verdicts(rows: Sequence[Judged]) -> list[str]:
    """One row per cell that something is published or stored for; a sentence on the rest."""
    table, unpublished = [], []
    for row, cells in rows:
        for metric in METRICS:
            verdict = cells[metric]
            if verdict.outcome is Outcome.UNPUBLISHED:
                unpublished.append(row.label)
                continue
            spread = max(row.values(metric)) - min(row.values(metric))
            table.append(
                [
                    row.label,
                    short_metric(metric),
                    f"{verdict.mean:.4f}" if verdict.mean is not None else "not finite",
                    f"{spread:.4f}",
                    verdict.seeds,
                    f"{verdict.published.value:.4f}" if verdict.published else "",
                    verdict.published.source if verdict.published else "",
                    f"{100 * verdict.difference:+.1f}" if verdict.difference is not None else "",
                    verdict.outcome.value,
                    verdict.reason,
                ]
            )
    head = ["model", "metric", "ours", "range", "seeds", "expected", "source", "diff. %", "verdict", "why"]
    sections = [tabulate(table, head, tablefmt="github", disable_numparse=True)] if table else []
    if unpublished:
        sections.append(f"No source gives values to compare with for: {', '.join(dict.fromkeys(unpublished))}.")
    return sections


def _efficiency(rows: Sequence[ResultRow]) -> list[str]:
    table = []
    for row in rows:
        run = row.runs[0]
        timing, memory = (run.result or {})["timing"], (run.result or {})["memory"]
        table.append(
            [
                row.dataset,
                row.label,
                _figure(timing["median_s"], "{:.3f}"),
                f"{timing['q1_s']:.3f} to {timing['q3_s']:.3f}" if timing["q1_s"] is not None else timing["note"],
                _figure(timing["warmup_s"], "{:.3f}"),
                _figure(timing["evaluation_median_s"], "{:.3f}"),
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
    note = "Of the first seed's run; time per epoch is the median without the first epoch, evaluation excluded."
    return (
        ["## Time and memory", note, tabulate(table, head, tablefmt="github", disable_numparse=True)] if table else []
    )


def _environment(runs: Sequence[StoredRun]) -> list[str]:
    seen: dict[str, list[str]] = {}
    for run in runs:
        for key, value in run.run["environment"].items():
            if str(value) not in seen.setdefault(key, []):
                seen[key].append(str(value))
    rows = [[key, "; ".join(values)] for key, values in seen.items()]
    return (
        ["## Environment", tabulate(rows, ["what", "value"], tablefmt="github", disable_numparse=True)] if rows else []
    )


def _commands(judged: Sequence[Judged]) -> list[str]:
    lines = [f"{run.run['command']}" for row, _ in judged for run in row.runs]
    return ["## Commands that repeat each row", "```\n" + "\n".join(lines) + "\n```"] if lines else []


def _figure(value: Any, template: str) -> str:
    return "" if value is None else template.format(value)


def _bytes(reading: Mapping[str, Any]) -> str:
    return str(reading["note"]) if reading["bytes"] is None else f"{reading['bytes'] / MB:.0f}"
