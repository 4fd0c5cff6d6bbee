"""A study as one HTML file that needs nothing else. Layout, style and script are in `templates`; no figure is computed
here or there.
"""

import re
from base64 import b64encode
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.paper.study import Study
from harness.report.study_tables import powers, rules, sections, source
from harness.report.tables import Cell, Table

Picture = tuple[str, str, bytes]
"""Title, caption, SVG."""

FOLDED = 24
"""Rows of a table from which on it is folded at first."""


def html(study: Study, pictures: Sequence[Picture] = ()) -> str:
    """The whole report as a page without any request; the same study gives the same text.

    Pictures are put in as images, so that nothing in them is of the page; everything else is escaped. Cells of the
    accuracy tables unfold to their verdicts, which have no table of their own here.
    """
    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["figure"] = figure
    environment.globals["cell_id"] = cell_id
    return environment.get_template("report.html.j2").render(
        study=study,
        answer=_answer(study),
        headline=study.headline,
        outcomes=[(word, count) for word, count in study.outcomes.items() if study.published],
        conformance=", ".join(f"{count} {name}" for name, count in study.conformance.items()),
        device=study.conformance_device,
        runs=_runs(study),
        lost={
            # The reason is a comment, so that the line can still be pasted.
            "Failed": [f"{command}{'  # ' * bool(why)}{why}" for command, why in study.failures.items()],
            "Unfinished, left out": [run.command for run in study.unfinished],
            "Out of memory": [run.command for run in study.out_of_memory],
            "Cannot be read, left out": study.unread,
        },
        sections=[section for section in sections(study, every_pair=True) if section.id != "verdicts"],
        folded=FOLDED,
        pictures=[(title, caption, b64encode(svg).decode()) for title, caption, svg in pictures],
        rules=rules(study) if study.published else [],
        powers=powers(study.paper),
        band=study.paper.tolerances.published,
    )


def cell_id(table: Table, row: Sequence[Cell], place: int) -> str:
    """What a cell's details are found by: its table, the texts before it, and its column."""
    texts = [cell.text for cell, letter in zip(row[:place], table.align, strict=False) if letter == "l"]
    return re.sub(r"\s", "+", "/".join((table.title, *texts, table.head[place])))


def figure(text: str) -> str:
    """A figure with a true minus."""
    return re.sub(r"(?<!\w)-(?=\d)|(?<=\de)-", "−", text)


def _answer(study: Study) -> tuple[str, str]:
    """Mark and tone of the whole page, which has no ✓ while its own question is open."""
    if study.code == 1:
        return "✗", "bad"
    if not study.published:
        return "•", "none"
    return ("✓", "good") if study.answered and study.code == 0 else ("○", "none")


def _runs(study: Study) -> str:
    """How many runs there are, when they finished, and the revisions they were made with."""
    dates = sorted(run.outcome.finished[:10] for run in study.runs if run.finished)
    if not dates:
        return "none finished"
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    revisions = dict.fromkeys(source(run) for run in study.runs if run.finished)
    return f"{len(dates)} finished, {when}, of source {', '.join(revisions)}"
