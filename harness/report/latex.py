"""Tables as LaTeX that can be pasted into a paper: laid out, escaped and marked; no figure is computed here."""

import re
from collections.abc import Iterable
from dataclasses import replace

from harness.paper.study import Study
from harness.report.study_tables import about_stars, extra, overview, verdicts
from harness.report.tables import Cell, Emphasis, Table

MOST_LINES = 36  # of a table that fits a page
LONG_LABEL = 24  # characters; longer ones are broken into lines
WRAPPED = r"p{0.3\linewidth}"

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\texttt{\char34}",
    "±": r"\(\pm\)",
    "×": r"\(\times\)",
    "†": r"\textsuperscript{\(\dagger\)}",
    "‡": r"\textsuperscript{\(\ddagger\)}",
    "§": r"\textsuperscript{\S}",
    **{character: "\\" + character for character in "&%$#_{}"},
}
_PLAIN = re.compile(r"[ -~À-ÏÑ-ÖØ-Ýß-ïñ-öø-ýÿ]")
_EMPHASIS = {Emphasis.BEST: r"\textbf{%s}", Emphasis.SECOND: r"\underline{%s}", None: "%s"}


def escape(text: str) -> str:
    """Text as LaTeX prints it. A character that a plain pdflatex has no glyph for becomes a question mark."""
    escaped = "".join(_ESCAPED.get(c) or (c if _PLAIN.fullmatch(c) else "?") for c in text)
    escaped = re.sub(r"^[\[*]", r"{\g<0>}", escaped)  # which a line break before it would take for its own
    return re.sub(r"([-'`?!])(?=[-'`])", r"\1{}", escaped)  # no ligatures, such as a dash from two hyphens


def report(study: Study) -> str:
    """A study as a document that pdflatex compiles as it is: for each data set, models by metrics, and ours beside what
    was published."""
    tables: list[str] = []
    for dataset in study.datasets:
        if (own := extra(study, dataset)).rows:
            bold = " The best mean of a metric is bold." * study.extra.best
            own = replace(own, title=f"{dataset}: test metrics, means over seeds.{bold}")
            tables += _pages(own, f"metrics-{dataset}", fits=True)
        means, judged = overview(study, dataset), verdicts(study, dataset)
        about = " Best in bold, second underlined." if len(means.rows) > 1 else ""
        notes = [about_stars(study, dataset), *means.notes] if about else means.notes
        title = f"{dataset}: test metrics, means over seeds.{about}"
        shown = [name for name in means.head if name != "settings"]
        tables += _pages(replace(means, title=title, notes=tuple(notes)).only(*shown), f"models-{dataset}")
        judged = replace(judged, title=f"{dataset}: ours beside the expected figures.", groups=1)
        if judged.rows:
            columns = ("model", "metric", "ours", "seeds", "expected", "diff. %", "verdict")
            tables += _pages(judged.only(*columns), f"verdicts-{dataset}")
    needed = ["Metrics asked for need graphicx too."] * bool(study.extra.metrics)
    about = _comment(*study.headline, study.asked, *needed)
    body = "\n\n".join([about, *(tables or ["No finished run."])])
    return rf"""% Compile this file as it is, with pdflatex, or copy tables out of it.
\documentclass{{article}}
\usepackage[a4paper,margin=18mm]{{geometry}}
\usepackage{{booktabs{",graphicx" * bool(study.extra.metrics)}}}
\begin{{document}}
{body}
\end{{document}}
"""


def tex_table(table: Table) -> str:
    """One table, as many pages as it takes."""
    name = table.title.partition(",")[0].partition(":")[0]
    return "\n\n".join([_comment(table.title), *_pages(table, name, "scriptsize")]) + "\n"


def _pages(table: Table, label: str, size: str = "footnotesize", *, fits: bool = False) -> list[str]:
    """The table as LaTeX tables which fit a page each, the notes below the last; `fits`: shrunk to a column's width."""
    parts, starts = [], range(0, len(table.rows), MOST_LINES)
    for number, start in enumerate(starts):
        title = table.title.rstrip(".") + (" (continued)." if number else ".")
        notes = table.notes if start == starts[-1] else ()
        page = replace(table, title=title, rows=table.rows[start : start + MOST_LINES], notes=notes)
        parts.append(_table(page, f"{label}-{number}", size, fits))
    return parts


def _table(table: Table, label: str, size: str, fits: bool) -> str:
    long = any(len(row[0].text) > LONG_LABEL for row in table.rows)
    align = ("p" if long else table.align[0]) + table.align[1:]
    body: list[str] = []
    for cells in table.grid:
        if body and any(cell.text for cell in cells[: table.groups]):
            body.append(r"\midrule" if cells[0].text and table.groups > 1 else r"\addlinespace")
        body.append(_row(_cell(cell, letter) for cell, letter in zip(cells, align, strict=True)))
    lines = [
        r"\begin{table}[htbp]",
        rf"\centering\{size}\setlength{{\tabcolsep}}{{3pt}}",
        rf"\caption{{{escape(table.title)}}}",
        r"\smallskip",
        rf"\label{{tab:{re.sub('[^a-z0-9]+', '-', label.lower())}}}",
        *[r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"] * fits,
        rf"\begin{{tabular}}{{{align.replace('p', WRAPPED)}}}",
        r"\toprule",
        _row(map(escape, table.head)),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}" + "}" * fits,
        *(rf"\par\smallskip{{\raggedright\scriptsize {escape(note)}\par}}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines)


def _cell(cell: Cell, align: str) -> str:
    text = escape(cell.text)
    if align == "r" and re.fullmatch(r"[+-]\d[\d.]*", cell.text):
        text = rf"\({text}\)"  # with a sign, not a hyphen
    if align == "p" and len(cell.text) > LONG_LABEL:
        text = rf"\raggedright {text}"  # in a narrow column, spaces would be stretched
    stars = rf"\textsuperscript{{{cell.stars}}}" if cell.stars else ""
    return _EMPHASIS[cell.emphasis] % text + stars + escape(cell.mark)


def _comment(*lines: str) -> str:
    told = "".join(f"% {' '.join(line.split())}\n" for line in lines)
    return f"{told}% To paste or to \\input; needs \\usepackage{{booktabs}} in the preamble."


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"
