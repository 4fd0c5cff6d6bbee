"""The commands `bm3 tables` and `bm3 expected`: options and messages. The other commands are in `cli`."""

from __future__ import annotations

import csv
import io
import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bm3 import ConfigError
from harness.cli.options import DATA
from harness.common import nearest

if TYPE_CHECKING:
    from harness.paper.expected import PublishedValue, Source, Tolerances
    from harness.report.paper import Statistics

PAPER = "paper-"
RULES = ("tolerances", "claims")
LAYOUTS = ("text", "md", "tex", "csv")


@click.command()
@click.argument("number", type=click.Choice(["2", "3", "4"]))
@click.argument("runs", type=click.Path(path_type=Path), required=False)
@click.option("--format", "form", type=click.Choice(LAYOUTS), default="text", show_default=True, help="Layout.")
@click.option("--dataset", metavar="NAME", help="Only this data set.")
@DATA
def tables(number: str, runs: Path | None, form: str, dataset: str | None, data: Path | None) -> None:
    """Print table NUMBER of the BM3 paper as published, with ours beneath where the folder RUNS holds runs.

    2 has the statistics of the data sets (ours also from --data), 3 the accuracy, 4 memory and time. Figures of another
    source that differ stand beneath the paper's; disputed ones are marked. Verdicts are in the report, not here.

    \b
    bm3 tables 3
    bm3 tables 3 runs --dataset baby --format md
    bm3 tables 4 runs --format tex > table4.tex
    bm3 tables 2 --data ~/data
    """
    from harness.paper.study import make_study
    from harness.report.latex import tex_table
    from harness.report.paper import as_csv, as_markdown, as_text, paper_table

    if data is not None and number != "2":
        raise click.UsageError("--data is for table 2: tables 3 and 4 have ours from RUNS")
    values, sources, tolerances = _expected()
    study = make_study(runs, f"table {number}") if runs else None
    for text in study.unread if study else ():
        click.echo(f"cannot be read, left out: {text}", err=True)
    names = dict.fromkeys(value.dataset for value in values if value.source == f"{PAPER}table2")
    wanted = [name for name in names if dataset is None or name.lower() == dataset.lower()] if number == "2" else []
    table = paper_table(
        int(number),
        values,
        sources,
        tolerances,
        study=study,
        statistics=_statistics(wanted, data),
        dataset=dataset,
    )
    layouts = dict(zip(LAYOUTS, (as_text, as_markdown, tex_table, as_csv), strict=True))
    click.echo(layouts[form](table), nl=False)


@click.group()
def expected() -> None:
    """Look at the figures that runs are compared with.

    \b
    bm3 expected list
    bm3 expected show table3 --dataset baby --model bm3
    """


@expected.command(name="list")
def list_command() -> None:
    """List where figures come from: how many, of what status, of which data sets, metrics and models.

    \b
    bm3 expected list
    """
    values, sources, _ = _expected()
    for key, source in sources.items():
        own = [value for value in values if value.source == key]
        statuses = ", ".join(f"{count} {status}" for status, count in Counter(v.status.value for v in own).items())
        lines = [
            ("what", f"{source.title}, {source.table}"),
            ("figures", f"{len(own)}: {statuses}" if own else "0"),
            ("data sets", _names(value.dataset for value in own)),
            ("metrics", _names(value.metric for value in own)),
            ("models", _names(value.model for value in own)),
        ]
        click.echo(f"{key}\n{_indented(lines)}\n")
    click.echo("More to show: tolerances (the bands of verdicts), claims (what the paper says in words)")


@expected.command()
@click.argument("name")
@click.option("--dataset", metavar="NAME", help="Only this data set.")
@click.option("--model", metavar="NAME", help="Only this model.")
@click.option("--metric", metavar="NAME", help="Only this metric, such as R@10 or recall@10.")
@click.option("--format", "form", type=click.Choice(["text", "csv", "json"]), default="text", show_default=True)
def show(name: str, dataset: str | None, model: str | None, metric: str | None, form: str) -> None:
    """Print the figures of NAME: table2, table3, table4 or toolbox; or the file tolerances or claims.

    NAME is a source as `bm3 expected list` names it; `paper-` can be left away.

    \b
    bm3 expected show table3
    bm3 expected show toolbox --dataset baby --model grcn
    bm3 expected show table4 --metric "Time (s/epoch)" --format csv
    bm3 expected show claims
    """
    from harness.paper.expected import canonical_metric

    values, sources, _ = _expected()
    known = [*sources, *(key.removeprefix(PAPER) for key in sources if key.startswith(PAPER)), *RULES]
    chosen = nearest(name, known, "no expected figures")
    if chosen in RULES:
        if dataset or model or metric:
            raise ConfigError(f"{chosen} has no figures to choose from: leave out --dataset, --model and --metric")
        click.echo(_rules(chosen, form), nl=False)
        return
    key = chosen if chosen in sources else PAPER + chosen
    found = [value for value in values if value.source == key]
    for option, wanted, read in (
        ("data set", dataset, lambda value: value.dataset),
        ("model", model, lambda value: value.model),
        ("metric", metric and canonical_metric(metric), lambda value: canonical_metric(value.metric)),
    ):
        if wanted:
            match = nearest(wanted, list(dict.fromkeys(map(read, found))), f"{key} has no {option}")
            found = [value for value in found if read(value) == match]
    click.echo(_figures(key, sources[key], found, form), nl=False)


def _expected() -> tuple[tuple[PublishedValue, ...], Mapping[str, Source], Tolerances]:
    from harness.paper.expected import expected_dir, load_expected, load_sources, load_tolerances

    directory = expected_dir()
    return load_expected(directory), load_sources(directory), load_tolerances(directory / "tolerances.toml")


def _statistics(names: Sequence[str], data: Path | None) -> dict[str, Statistics | None]:
    """Of the data sets that are there, by printed name; of all where --data says where to look."""
    from harness.data.layouts import data_roots, load_dataset
    from harness.report.paper import Statistics

    found: dict[str, Statistics | None] = {}
    for name in names:
        if any((root / name.lower()).is_dir() for root in data_roots(data)):
            dataset = load_dataset(name.lower(), data)
            found[name] = Statistics(dataset.n_users, dataset.n_items, dataset.n_interactions)
        elif data is not None:
            found[name] = None
    return found


def _figures(key: str, source: Source, values: Sequence[PublishedValue], form: str) -> str:
    from tabulate import tabulate

    from harness.paper.expected import COLUMNS

    if form == "json":
        return json.dumps([_record(value) for value in values], indent=1) + "\n"
    if form == "csv":
        printed = [_record(value) | {"value": "" if value.value is None else _text(value)} for value in values]
        return _csv(COLUMNS, [record.values() for record in printed])
    description = [("citation", source.citation), ("date", source.date), ("hardware", source.hardware)]
    rows = [[v.dataset, v.model, v.metric, _text(v), v.status.value, v.note] for v in values]
    head = ["data set", "model", "metric", "value", "status", "note"]
    return "\n".join(
        [
            f"{key}: {source.title}, {source.table}",
            _indented(description),
            "",
            tabulate(rows, head, disable_numparse=True, colalign=["left", "left", "left", "right", "left", "left"]),
            "",
        ]
    )


def _record(value: PublishedValue) -> dict[str, Any]:
    from harness.paper.expected import COLUMNS

    status = value.status.value
    figures = (value.dataset, value.model, value.metric, value.value, value.source, status, value.note)
    return dict(zip(COLUMNS, figures, strict=True))


def _text(value: PublishedValue) -> str:
    """With the digits of print."""
    from harness.report.lines import number_text

    return number_text(value.metric, value.value)


def _rules(name: str, form: str) -> str:
    from harness.paper.claims import load_claims
    from harness.paper.expected import expected_dir, load_tolerances
    from harness.runs.settings import flatten

    path = expected_dir() / f"{name}.toml"
    load_tolerances(path) if name == "tolerances" else load_claims(path)  # a broken file is named by its field
    text = path.read_text(encoding="utf-8")
    if form == "text":
        return text
    content = tomllib.loads(text)
    if form == "json":
        return json.dumps(content, indent=1) + "\n"
    if name == "claims":
        return _csv(
            ("id", "kind", "text", "source"), [[c["id"], c["kind"], c["text"], c["source"]] for c in content[name]]
        )
    return _csv(("what", "value"), [[key, value] for key, value in flatten(content).items()])


def _csv(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([head, *rows])
    return text.getvalue()


def _indented(lines: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"  {name:<9}  {text}" for name, text in lines if text)


def _names(names: Iterable[str]) -> str:
    return ", ".join(name for name in dict.fromkeys(names) if name)
