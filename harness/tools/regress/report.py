"""A check for regressions as Markdown, as JUnit XML, and as a line of the history, of which `trend` makes a page."""

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from tabulate import tabulate

from harness.tools.regress.alternation import PACKAGES
from harness.tools.regress.measurement import Measurement
from harness.tools.regress.regression import JUDGED, MEMORY, TIME, WALL, Comparison, Outcome, exit_code, percent

MIB = 2**20
NONE = "–"
MARKS: Mapping[Outcome, str] = {
    Outcome.HELD: "✓",
    Outcome.REGRESSED: "✗",
    Outcome.IMPROVED: "↑",
    Outcome.CHANGED: "≠",
    Outcome.UNCONFIRMED: "≈",
    Outcome.UNSTABLE: "?",
    Outcome.NOT_COMPARED: "○",
}
HISTORY_FORMAT = 1
BASELINE_ITSELF = "nothing: the baseline itself"
NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no way to write, such as those of colours in a terminal."""


@dataclass(frozen=True)
class Regression:
    """All that is said of one check."""

    machine: str
    """The machine class, in a line."""
    compared_with: str
    source: Mapping[str, Any]
    """Revision, whether it was dirty, and when."""
    preset: str
    now: Measurement
    comparisons: Sequence[Comparison]
    notes: Sequence[str] = ()
    """Of the device while this was measured: see `harness.measure.power`."""

    @property
    def code(self) -> int:
        return exit_code(self.comparisons)

    @property
    def answer(self) -> str:
        """The one sentence on top."""
        worst = [one for one in self.comparisons if one.outcome is Outcome.REGRESSED]
        if worst:
            return f"{len(worst)} of {len(self.comparisons)} comparisons regressed."
        judged = sum(one.outcome in JUDGED for one in self.comparisons)
        return f"Nothing regressed in {judged} comparisons." if judged else "Nothing could be compared."


def markdown(regression: Regression) -> str:
    """The whole report; its first part, up to the first `## `, is the summary."""
    counts = Counter(one.outcome for one in regression.comparisons)
    head = [
        "# Did anything regress?",
        f"**{regression.answer}**",
        "\n".join(
            [
                f"- Compared with: {regression.compared_with}",
                f"- Source: {described_source(regression.source)}",
                f"- Machine: {regression.machine}; repetitions: {regression.preset}",
                "- Comparisons: " + (", ".join(f"{counts[o]} {o.value}" for o in Outcome if counts[o]) or "none"),
            ]
        ),
    ]
    remarks = [*regression.notes]
    if PACKAGES in regression.now.notes:
        remarks.insert(0, f"other packages, here against there: {regression.now.notes[PACKAGES]}")
    if remarks:
        head[-1] += "\n- While this was measured: " + "; ".join(remarks)
    told = [one for one in regression.comparisons if one.outcome is not Outcome.HELD]
    if told:
        head.append(_table(sorted(told, key=lambda one: one.outcome is not Outcome.REGRESSED)))
    sections = []
    for title, quantities, note in (
        ("Time", (TIME,), "CPU time in units of a calibration that is measured just before and after; medians."),
        ("Wall time", (WALL,), "In units of the calibration's wall time; only large changes count."),
        ("Memory", (MEMORY,), "Peak above the start, of a process of its own."),
    ):
        chosen = [one for one in regression.comparisons if one.quantity in quantities]
        if chosen:
            sections += [f"## {title}", note, _table(chosen)]
    rest = [one for one in regression.comparisons if one.quantity not in (TIME, WALL, MEMORY)]
    if rest:
        sections += ["## Accuracy and conformance", "Means over seeds of short trainings.", _table(rest)]
    return "\n\n".join([*head, *sections]) + "\n"


def described_source(source: Mapping[str, Any]) -> str:
    """Revision and date."""
    revision = str(source.get("revision") or "unknown revision")[:12]
    return (
        f"{revision}{', with uncommitted changes' if source.get('dirty') else ''}, {str(source.get('when', ''))[:10]}"
    )


def junit(regression: Regression) -> str:
    """JUnit XML, one test case per comparison: what regressed is a failure, what was not compared is skipped."""
    suites = ElementTree.Element("testsuites", name="bm3 regress")
    groups: dict[str, list[Comparison]] = {}
    for one in regression.comparisons:
        groups.setdefault(one.quantity, []).append(one)
    for quantity, group in groups.items():
        skipped = [one for one in group if one.outcome not in JUDGED]
        failed = [one for one in group if one.outcome is Outcome.REGRESSED]
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=quantity,
            tests=str(len(group)),
            failures=str(len(failed)),
            errors="0",
            skipped=str(len(skipped)),
            time="0",
            timestamp=str(regression.source.get("when", ""))[:19],
        )
        for one in group:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"regress.{quantity}", name=one.subject, time="0"
            )
            text = NOT_IN_XML.sub("", f"{one.outcome.value}: {one.reason}")
            if one in failed:
                failure = ElementTree.SubElement(case, "failure", message=text, type="regression")
                failure.text = f"before {_value(one, one.before)}, now {_value(one, one.now)}"
            elif one in skipped:
                ElementTree.SubElement(case, "skipped", message=text)
            else:
                ElementTree.SubElement(case, "system-out").text = text
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def history_entry(regression: Regression) -> dict[str, Any]:
    """What the history keeps of a check, fit for JSON: medians, metrics, and every outcome that is not `held`."""
    now = regression.now
    figures: dict[str, dict[str, float]] = {}
    for subject, timings in now.timings.items():
        if timings:
            figures.setdefault(subject, {}).update(
                {
                    TIME: statistics.median(timing.cpu_share for timing in timings),
                    WALL: statistics.median(timing.wall_share for timing in timings),
                    "cpu seconds": statistics.median(timing.cpu for timing in timings),
                }
            )
    for subject, peaks in now.memory.items():
        if peaks:
            figures.setdefault(subject, {})[MEMORY] = statistics.median(peaks)
    for subject, seeds in now.accuracy.items():
        results = [results[0] for results in seeds if results]
        for metric in results[0].metrics if results else ():
            figures.setdefault(subject, {})[metric] = statistics.fmean(result.metrics[metric] for result in results)
    return {
        "format": HISTORY_FORMAT,
        **regression.source,
        "compared_with": regression.compared_with,
        "preset": regression.preset,
        "code": regression.code,
        "figures": figures,
        "outcomes": [
            [one.subject, one.quantity, one.outcome.value, one.reason]
            for one in regression.comparisons
            if one.outcome is not Outcome.HELD
        ],
    }


def _table(comparisons: Iterable[Comparison]) -> str:
    head = ["subject", "what", "before", "now", "change", "p", "spread", "result", "why"]
    rows = [
        [
            one.subject,
            one.quantity,
            _value(one, one.before),
            _value(one, one.now),
            NONE if one.change is None else percent(one.change),
            NONE if one.adjusted is None else f"{one.adjusted:.2g}",
            NONE if one.spread is None else f"{100 * one.spread:.1f} %",
            f"{MARKS[one.outcome]} {one.outcome.value}",
            " ".join(one.reason.replace("|", "/").split()),
        ]
        for one in comparisons
    ]
    right = ("left", "left", "right", "right", "right", "right", "right", "left", "left")
    return tabulate(rows, head, tablefmt="github", disable_numparse=True, colalign=right)


def _value(one: Comparison, value: float | None) -> str:
    if value is None:
        return NONE
    if one.quantity == MEMORY:
        return f"{value / MIB:.1f} MiB"
    if one.quantity in (TIME, WALL):
        return f"{value:.3f}"
    return f"{value:.4f}" if "@" in one.quantity else f"{value:.2g}"
