"""The commands `bm3 tables` and `bm3 expected`: options and messages. What a table says is in `report.paper_tables`."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bm3 import ConfigError
from harness.cli.options import DATA, PAPER
from harness.common import nearest

if TYPE_CHECKING:
    from harness.report.paper_tables import Figures

RULES = ("tolerances", "claims")
LAYOUTS = ("text", "md", "tex", "csv")


@click.command()
@click.argument("number", type=int)
@click.argument("runs", type=click.Path(path_type=Path), required=False)
@click.option("--format", "form", type=click.Choice(LAYOUTS), default="text", show_default=True, help="Layout.")
@click.option("--dataset", metavar="NAME", help="Only this data set.")
@DATA
@PAPER
def tables(number: int, runs: Path | None, form: str, dataset: str | None, data: Path | None, paper: Path) -> None:
    """Print table NUMBER of the paper as published, with ours beneath where the folder RUNS holds runs.

    A table of data sets has ours from --data too. Figures of another source that differ stand beneath the paper's;
    disputed ones are marked. Verdicts are in the report, not here.

    \b
    bm3 tables 3
    bm3 tables 2 --paper damrs
    bm3 tables 3 runs --dataset baby --format md
    bm3 tables 4 runs --format tex > table4.tex
    bm3 tables 2 --data ~/data
    """
    from harness.paper.load import load_paper
    from harness.paper.study import make_study
    from harness.report.flat import table_csv
    from harness.report.latex import tex_table
    from harness.report.paper_tables import paper_table
    from harness.report.tables import markdown, text

    about = load_paper(paper)
    layout = about.table(number)
    if data is not None and layout.kind != "datasets":
        raise click.UsageError("--data is for tables of data sets: the others have ours from RUNS")
    study = make_study(runs, f"table {number}", paper=about) if runs else None
    for unread in study.unread if study else ():
        click.echo(f"cannot be read, left out: {unread}", err=True)
    names = dict.fromkeys(value.dataset for value in about.values if value.source == layout.source)
    wanted = [name for name in names if dataset is None or name.lower() == dataset.lower()]
    counts = _statistics(wanted, data) if layout.kind == "datasets" else {}
    table = paper_table(about, layout, study=study, statistics=counts, dataset=dataset)
    layouts = {"text": text, "md": markdown, "tex": tex_table, "csv": table_csv}
    click.echo(layouts[form](table), nl=False)


@click.group()
def expected() -> None:
    """Look at the figures that runs are compared with.

    \b
    bm3 expected list
    bm3 expected show table3 --dataset baby --model bm3
    """


@expected.command(name="list")
@PAPER
def list_command(paper: Path) -> None:
    """List where figures come from: how many, of what status, of which data sets, metrics and models.

    \b
    bm3 expected list
    """
    from harness.paper.load import load_paper

    about = load_paper(paper)
    for key, source in about.sources.items():
        own = [value for value in about.values if value.source == key]
        statuses = ", ".join(f"{count} {status}" for status, count in Counter(v.status.value for v in own).items())
        lines = {
            "what": f"{source.title}, {source.table}",
            "figures": f"{len(own)}: {statuses}" if own else "0",
            "data sets": _names(value.dataset for value in own),
            "metrics": _names(value.metric for value in own),
            "models": _names(value.model for value in own),
        }
        click.echo("\n".join([key, *(f"  {name:<9}  {text}" for name, text in lines.items() if text), ""]))
    click.echo("More to show: tolerances (the bands of verdicts), claims (what the paper says in words)")


@expected.command()
@click.argument("name")
@click.option("--dataset", metavar="NAME", help="Only this data set.")
@click.option("--model", metavar="NAME", help="Only this model.")
@click.option("--metric", metavar="NAME", help="Only this metric, such as R@10 or recall@10.")
@click.option("--format", "form", type=click.Choice(["text", "csv", "json"]), default="text", show_default=True)
@PAPER
def show(name: str, dataset: str | None, model: str | None, metric: str | None, form: str, paper: Path) -> None:
    """Print the figures of the source NAME; or the file tolerances or claims.

    NAME is a source as `bm3 expected list` names it; what begins all names of a paper's tables can be left away.

    \b
    bm3 expected show table3
    bm3 expected show toolbox --dataset baby --model grcn
    bm3 expected show table4 --metric "Time (s/epoch)" --format csv
    bm3 expected show claims
    """
    from harness.paper.load import load_paper
    from harness.paper.published import COLUMNS, canonical_metric
    from harness.report.flat import csv_text
    from harness.report.paper_tables import figure_text, published_figures
    from harness.report.tables import text

    about = load_paper(paper)
    rules = [rule for rule in RULES if rule != "claims" or about.claims]
    sources = {key: key for key in about.sources} | {key.rpartition("-")[2]: key for key in reversed(about.sources)}
    chosen = nearest(
        name, [*about.sources, *(s for s in sources if s not in about.sources), *rules], "no expected figures"
    )
    if chosen in rules:
        if dataset or model or metric:
            raise ConfigError(f"{chosen} has no figures to choose from: leave out --dataset, --model and --metric")
        if form == "csv":
            raise ConfigError(f"{chosen} is no table: leave --format out, or give --format json")
        rules_text = (paper / f"{chosen}.toml").read_text(encoding="utf-8")
        click.echo(rules_text if form == "text" else json.dumps(tomllib.loads(rules_text), indent=1) + "\n", nl=False)
        return
    key = sources[chosen]
    found = [value for value in about.values if value.source == key]
    for option, wanted, read in (
        ("data set", dataset, lambda value: value.dataset),
        ("model", model, lambda value: value.model),
        ("metric", metric and canonical_metric(metric), lambda value: canonical_metric(value.metric)),
    ):
        if wanted:
            match = nearest(wanted, list(dict.fromkeys(map(read, found))), f"{key} has no {option}")
            found = [value for value in found if read(value) == match]
    if form == "json":
        click.echo(json.dumps([vars(value) for value in found], indent=1))
    elif form == "csv":
        rows = [vars(v) | {"value": "" if v.value is None else figure_text(v.metric, v.value)} for v in found]
        click.echo(csv_text(COLUMNS, (row.values() for row in rows)), nl=False)
    else:
        click.echo(text(published_figures(key, about.sources[key], found)), nl=False)


def _statistics(names: Iterable[str], data: Path | None) -> dict[str, Figures | None]:
    """Of the data sets that are there, by printed name; of all where --data says where to look."""
    from harness.data.layouts import data_roots, load_dataset
    from harness.report.paper_tables import statistics_of

    found: dict[str, Figures | None] = {}
    for name in names:
        if any((root / name.lower()).is_dir() for root in data_roots(data)):
            dataset = load_dataset(name.lower(), data)
            found[name] = statistics_of(dataset.n_users, dataset.n_items, dataset.n_interactions)
        elif data is not None:
            found[name] = None
    return found


def _names(names: Iterable[str]) -> str:
    return ", ".join(name for name in dict.fromkeys(names) if name)
