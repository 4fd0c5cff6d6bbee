"""A check for regressions as Markdown and as JUnit XML."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from harness.report import tables
from harness.tools.regress.judge import MEMORY, Comparison, Outcome, percent

NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no way to write, such as those of colours in a terminal."""


def markdown(comparisons: Sequence[Comparison], about: Mapping[str, str]) -> str:
    """The whole report; its first part, up to the first `## `, is the summary. `about`: what is said above it."""
    counts = Counter(one.outcome for one in comparisons)
    answer = f"Nothing regressed in {counts[Outcome.HELD]} comparisons."
    if counts[Outcome.REGRESSED]:
        answer = f"{counts[Outcome.REGRESSED]} of {len(comparisons)} comparisons regressed."
    elif not counts[Outcome.HELD]:
        answer = "Nothing could be compared."
    told = [one for one in comparisons if one.outcome is not Outcome.HELD or one.reason.startswith("better")]
    counted = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    facts = [f"- {name}: {text}" for name, text in {**about, "Comparisons": counted or "none"}.items()]
    parts = ["# Did anything regress?", f"**{answer}**", "\n".join(facts)]
    if told:
        parts.append(_table("", sorted(told, key=lambda one: one.outcome is not Outcome.REGRESSED)))
    legend = (
        "Time is in units of a calibration that is measured just before and after, or in seconds on a GPU whose clocks "
        "are held; memory is the peak above the start."
    )
    return "\n\n".join([*parts, _table("All comparisons", comparisons, legend)]) + "\n"


def described_source(source: Mapping[str, Any]) -> str:
    """Revision and date."""
    revision, dirty = (str(source.get("revision") or "unknown revision")[:12], source.get("dirty"))
    return f"{revision}{', with uncommitted changes' if dirty else ''}, {str(source.get('when', ''))[:10]}"


def described_machine(machine: Mapping[str, object]) -> str:
    """One line for readers."""
    gpu = f", {machine['gpu']}" if machine.get("gpu") else ""
    cores = f"{machine['logical_cores']} cores, {machine['threads']} thread{'s' if machine['threads'] != 1 else ''}"
    return f"{machine['cpu']}, {cores}{gpu}; torch {machine['torch']}, Python {machine['python']}"


def junit(comparisons: Iterable[Comparison], when: str) -> str:
    """JUnit XML, one test case per comparison: what regressed is a failure, what is unmeasured is skipped."""
    groups: dict[str, list[Comparison]] = {}
    for one in comparisons:
        groups.setdefault(one.quantity, []).append(one)
    suites = ElementTree.Element("testsuites", name="bm3 regress")
    for quantity, group in groups.items():
        counts = Counter(one.outcome for one in group)
        failures, skipped = (str(counts[Outcome.REGRESSED]), str(counts[Outcome.UNMEASURED]))
        totals = {"tests": str(len(group)), "failures": failures, "skipped": skipped, "errors": "0"}
        facts = {"name": quantity, **totals, "time": "0", "timestamp": when[:19]}
        suite = ElementTree.SubElement(suites, "testsuite", facts)
        for one in group:
            named = {"classname": f"regress.{quantity}", "name": one.subject, "time": "0"}
            case = ElementTree.SubElement(suite, "testcase", named)
            text = NOT_IN_XML.sub("", f"{one.outcome}: {one.reason}")
            if one.outcome is Outcome.REGRESSED:
                failure = ElementTree.SubElement(case, "failure", message=text, type="regression")
                failure.text = f"before {_value(one, one.before)}, now {_value(one, one.now)}"
            elif one.outcome is Outcome.UNMEASURED:
                ElementTree.SubElement(case, "skipped", message=text)
            else:
                ElementTree.SubElement(case, "system-out").text = text
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _table(title: str, comparisons: Iterable[Comparison], lead: str = "") -> str:
    rows = [
        [
            one.subject,
            one.quantity,
            _value(one, one.before),
            _value(one, one.now),
            "" if one.change is None else percent(one.change),
            f"{one.outcome.mark} {one.outcome}",
            " ".join(one.reason.split()),
        ]
        for one in comparisons
    ]
    head = ["subject", "what", "before", "now", "change", "result", "why"]
    return tables.markdown(tables.table(title, head, rows, "llrrrll", lead=lead), 2 if title else 0).rstrip()


def _value(one: Comparison, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value / 2**20:.1f} MiB" if one.quantity == MEMORY else f"{value:.4f}"
