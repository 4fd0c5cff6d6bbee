"""A study, or a table of the paper, as LaTeX tables that can be pasted into a paper.

Figures come from `study` and `paper`; here they are only laid out, escaped and marked.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from harness.paper.expected import short_metric
from harness.paper.numbers import number
from harness.paper.results import METRICS
from harness.paper.significance import Difference
from harness.paper.study import PROPOSED, Study, StudyRow, headline
from harness.paper.verdict import Outcome
from harness.report.paper import (
    IMPROVEMENT,
    PaperTable,
    grid,
    header,
    improvement,
    number_text,
    printed_models,
    rows_by_model,
)

LEVELS = {"***": 0.001, "**": 0.01, "*": 0.05}
MOST_LINES = 36  # of a table that fits a page
MOST_MODELS = 9  # beside each other
LONG_LABEL = 24  # characters; longer ones are broken into lines
DAGGER = "†"

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


def escape(text: str) -> str:
    """Text as LaTeX prints it. A character that a plain pdflatex has no glyph for becomes a question mark."""
    escaped = "".join(_ESCAPED.get(c) or (c if _PLAIN.fullmatch(c) else "?") for c in text)
    return re.sub(r"([-'`?!])(?=[-'`])", r"\1{}", escaped)  # no ligatures, such as a dash from two hyphens


def document(fragment: str) -> str:
    """A fragment as a document that pdflatex compiles as it is."""
    return rf"""% Compile this file as it is, with pdflatex, or copy tables out of it.
\documentclass{{article}}
\usepackage[a4paper,margin=18mm]{{geometry}}
\usepackage{{booktabs}}
\begin{{document}}
{fragment.rstrip()}
\end{{document}}
"""


def latex(study: Study) -> str:
    """Tables per data set: models by metrics, ours beside what was published; then ours in the layout of Table 3."""
    tables = [_comment(*headline(study), study.asked)]
    for dataset in study.datasets:
        tables += [_models(study, dataset), *_verdicts(study, dataset)]
    tables += [_as_in_the_paper(study) if study.published else ""] if study.rows else ["No finished run."]
    return "\n\n".join(table for table in tables if table) + "\n"


def tex_table(table: PaperTable) -> str:
    """A table of the paper; one that is too long for a page becomes a table per data set."""
    long = len(table.lines) > MOST_LINES
    lines = list(zip(table.lines, grid(table), strict=True))
    groups = [list(group) for _, group in groupby(lines, key=lambda pair: long and pair[0].head[0])]
    tables = []
    for i, group in enumerate(groups):
        body: list[str] = []
        for _, cells in group:
            if body and any(cells[: len(table.heads) - 1]):
                body.append(r"\midrule" if cells[0] else r"\addlinespace")
            body.append(_row(map(escape, cells)))
        heads = map(escape, (*table.heads, *map(header, table.columns)))
        columns = "l" * len(table.heads) + "r" * len(table.columns)
        caption = escape(table.title + (" (continued)." if i else "."))
        notes = map(escape, table.notes) if i == len(groups) - 1 else ()
        tables.append(
            _table(caption, group[0][0].source + group[0][0].head[0], columns, heads, body, notes, "scriptsize")
        )
    return "\n\n".join([_comment(table.title), *tables]) + "\n"


def _models(study: Study, dataset: str) -> str:
    rows = study.of(dataset)
    tested = {metric: study.tested(dataset, metric) for metric in METRICS}
    body = [
        _row(
            [
                _label(row),
                *(_ranked(study.best_two(dataset, metric), row, metric, tested[metric]) for metric in METRICS),
                str(len(row.result.runs)),
            ]
        )
        for row in rows
    ]
    caption = f"{escape(dataset)}: test metrics, means over seeds."
    if len(rows) > 1:
        caption += f" Best in bold, second underlined. {_significance(tested)}"
    heads = ["model", *map(short_metric, METRICS), "seeds"]
    return _table(caption + _surrogates(rows), f"models-{dataset}", _label_column(rows) + "rrrrr", heads, body)


def _ranked(best_two: Sequence[StudyRow], row: StudyRow, metric: str, tested: Difference | None) -> str:
    """The mean, marked if it is one of the best two; stars where the best is significantly better."""
    text = number_text(metric, row.mean(metric))
    if len(best_two) < 2 or row not in best_two:
        return text
    if row is not best_two[0]:
        return rf"\underline{{{text}}}"
    stars = next((s for s, level in LEVELS.items() if tested and tested.winner(level) == row.label), "")
    return rf"\textbf{{{text}}}" + (rf"\textsuperscript{{{stars}}}" if stars else "")


def _significance(tested: Mapping[str, Difference | None]) -> str:
    found = [difference for difference in tested.values() if difference]
    if not found:
        return "Differences between models were not tested."
    text = (
        f"Stars: best against second, paired over {min(pair.users for pair in found):,} users, "
        f"mean over {min(pair.runs for pair in found)} run(s) of each, which are taken as given "
        r"(\textsuperscript{*}\,\(p<.05\), \textsuperscript{**}\,\(p<.01\), \textsuperscript{***}\,\(p<.001\), "
        "Wilcoxon signed-rank test, Holm-adjusted)."
    )
    untested = [short_metric(metric) for metric, difference in tested.items() if difference is None]
    return text + (f" Not tested: {', '.join(untested)}." if untested else "")


def _verdicts(study: Study, dataset: str) -> Iterator[str]:
    """Ours beside the expected figures, as many tables as it takes."""
    judged = [
        row for row in study.of(dataset) if any(v.outcome is not Outcome.UNPUBLISHED for v in row.verdicts.values())
    ]
    step = MOST_LINES // len(METRICS)
    for start in range(0, len(judged), step):
        rows = judged[start : start + step]
        body: list[str] = []
        used: dict[str, None] = {}
        for row in rows:
            body += [r"\addlinespace"] if body else []
            label = _label(row)
            for metric, verdict in row.verdicts.items():
                if verdict.published is None:
                    continue
                used[verdict.published.source] = None
                ours = "not finite" if verdict.mean is None else number_text(metric, verdict.mean)
                difference = "" if verdict.difference is None else rf"\({number(100 * verdict.difference, '+.1f')}\)"
                expected = number_text(metric, verdict.published.value)
                cells = [ours, str(verdict.seeds), expected, difference, verdict.outcome.value]
                body.append(_row([label, short_metric(metric), *cells]))
                label = ""
        sources = "; ".join(f"{key}: {study.sources[key].citation}, {study.sources[key].table}" for key in used)
        caption = f"{escape(dataset)}: ours beside the expected figures{' (continued)' if start else ''}."
        caption += f" Source {escape(sources)}." + _surrogates(rows)
        heads = ["model", "metric", "ours", "seeds", "expected", r"diff.\ (\%)", "verdict"]
        yield _table(caption, f"verdicts-{dataset}-{start}", _label_column(rows) + "lrrrrl", heads, body)


def _as_in_the_paper(study: Study) -> str:
    """Ours in the layout of Table 3, of models with default settings; empty without BM3 or with too many models."""
    by_dataset = {
        dataset: {m: row for m, row in rows_by_model(study, dataset).items() if row.label == row.result.model}
        for dataset in study.datasets
    }
    present = {model for rows in by_dataset.values() for model in rows}
    printed = {name.lower(): name for name in printed_models(study.expected)}
    names = {model: printed.get(model, model) for model in [*printed, *sorted(present - set(printed))]}
    names = {model: name for model, name in names.items() if model in present}
    if PROPOSED not in names.values() or not 2 <= len(names) <= MOST_MODELS:
        return ""
    body: list[str] = []
    for dataset, rows in by_dataset.items():
        body += [r"\midrule"] if body and rows else []
        for metric in METRICS if rows else ():
            first = escape(dataset) if metric == METRICS[0] else ""
            body.append(_row([first, short_metric(metric), *_across(rows, names, metric)]))
    caption = (
        "Ours in the layout of the paper's Table 3: default settings, test metrics, means over seeds. "
        f"Best in bold, second underlined, not tested. {escape(IMPROVEMENT)}: {PROPOSED} over the best other model."
    )
    shown = [row for rows in by_dataset.values() for row in rows.values()]
    heads = ["data set", "metric", *map(escape, names.values()), escape(IMPROVEMENT)]
    return _table(caption + _surrogates(shown), "as-published", "ll" + "r" * (len(names) + 1), heads, body)


def _across(rows: Mapping[str, StudyRow], names: Mapping[str, str], metric: str) -> list[str]:
    """A metric of all models (lower-case name -> as printed), and BM3's improvement, which is as firm as its figure."""
    means = {names[model]: row.mean(metric) for model, row in rows.items()}
    daggers = {names[model]: escape(DAGGER) for model, row in rows.items() if row.result.surrogates}
    ranked = sorted(means, key=lambda name: -means[name])
    wraps = dict(zip(ranked, (r"\textbf{%s}", r"\underline{%s}"), strict=False)) if len(ranked) > 1 else {}
    cells = {name: wraps.get(name, "%s") % number_text(metric, mean) for name, mean in means.items()}
    gain = improvement(means)
    if gain is not None:
        cells[IMPROVEMENT], daggers[IMPROVEMENT] = rf"\({number(gain, '+.2f')}\)", daggers.get(PROPOSED, "")
    return [cells.get(name, "") + daggers.get(name, "") for name in (*names.values(), IMPROVEMENT)]


def _label(row: StudyRow) -> str:
    text = escape(row.label + (DAGGER if row.result.surrogates else ""))
    # In a narrow column, spaces would be stretched.
    return rf"\raggedright {text}" if len(row.label) > LONG_LABEL else text


def _label_column(rows: Sequence[StudyRow]) -> str:
    return r"p{0.3\linewidth}" if max(len(row.label) for row in rows) > LONG_LABEL else "l"


def _surrogates(rows: Sequence[StudyRow]) -> str:
    """The note that goes with the daggers."""
    if not any(row.result.surrogates for row in rows):
        return ""
    return f" {escape(DAGGER)}\\,Trained on surrogate features, not on the original vectors: an orientation only."


def _comment(*lines: str) -> str:
    told = "".join(f"% {' '.join(line.split())}\n" for line in lines)
    return f"{told}% To paste or to \\input; needs \\usepackage{{booktabs}} in the preamble."


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _table(
    caption: str,
    label: str,
    columns: str,
    heads: Iterable[str],
    body: Sequence[str],
    notes: Iterable[str] = (),
    size: str = "footnotesize",
) -> str:
    lines = [
        r"\begin{table}[htbp]",
        rf"\centering\{size}\setlength{{\tabcolsep}}{{3pt}}",
        rf"\caption{{{caption}}}",
        r"\smallskip",
        rf"\label{{tab:{re.sub('[^a-z0-9]+', '-', label.lower())}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _row(heads),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip{{\raggedright\scriptsize {note}\par}}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines)
