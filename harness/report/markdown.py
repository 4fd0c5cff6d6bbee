"""A study as Markdown: sections and tables one below the other."""

from collections.abc import Iterable

from harness.paper.study import Study
from harness.report import tables
from harness.report.study_tables import Section, environment, sections
from harness.runs.record import RunRecord


def markdown(study: Study) -> str:
    """The whole report; its first part, up to the first `## `, is the summary."""
    first, *more = study.headline
    parts = [f"# {study.title}", f"**{first}**", *more, f"Asked: {study.asked}", "\n".join(_summary(study))]
    if study.unchecked:
        parts += ["## Not checked here", "\n".join(f"- {text}" for text in study.unchecked)]
    parts += [_section(section) for section in sections(study)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(study: Study) -> Iterable[str]:
    if study.published:
        yield f"- Accuracy cells: {', '.join(f'{n} {outcome.value}' for outcome, n in study.outcomes.items())}"
    if study.conformance:
        counts = ", ".join(f"{n} {name}" for name, n in study.conformance.items())
        yield f"- Conformance with recorded traces, on {study.conformance_device}: {counts}"
    yield from (f"- Unfinished run, left out: `{run.command}`" for run in study.unfinished)
    yield from (f"- Cannot be read, left out: {text}" for text in study.unread)
    yield from (f"- Out of memory, a dash below: `{run.command}`" for run in study.out_of_memory)
    yield from (f"- Failed: `{command}`{': ' * bool(why)}{why}" for command, why in study.failures.items())


def _section(section: Section) -> str:
    alone = [table.title for table in section.tables] == [section.title]  # else a heading for each, of a data set
    found = [tables.markdown(table, 0 if alone else 3).rstrip() for table in section.tables]
    parts = [f"## {section.title}", section.lead, *found]
    if section.commands:
        parts.append("\n".join(["```", *section.commands, "```"]))
    return "\n\n".join(part for part in parts if part)


def environment_table(runs: Iterable[RunRecord]) -> list[str]:
    """A heading, and what the runs recorded of where they ran; nothing without runs."""
    table = environment(runs)
    return [tables.markdown(table).rstrip()] if table.rows else []
