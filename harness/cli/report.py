"""Commands that print what was published, and what stored runs or lists of others are beside it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bm3 import ConfigError, DataError
from harness.cli.options import DATA, LAYOUT, OUT, PAPER, PATH, REPORT_FORMATS, SHOWN_METRICS, STORE, USERS
from harness.cli.output import say, say_table, say_unread
from harness.common import exit_status, nearest, number, read_text

if TYPE_CHECKING:
    from harness.evaluation.lists import Naming
    from harness.paper.load import Paper
    from harness.paper.study import Spread, Study
    from harness.report.paper_tables import Figures


def _kept(folder: Path) -> bool:
    """Raises ConfigError for a paper without figures of others."""
    from harness.paper.literature import load_literature

    if not load_literature(folder / "literature"):
        raise ConfigError(f"{folder}: nothing is kept there of what others report; it goes into literature/*.csv")
    return True


LITERATURE = click.option(
    "--literature",
    is_flag=True,
    callback=lambda context, _, asked: asked and _kept(context.params["paper"]),
    help="With what others report of each cell; an HTML report always has it.",
)


@click.command(name="report")
@click.argument("folder", type=PATH)
@REPORT_FORMATS
@click.option("--out", type=PATH, metavar="DIR", help="Where to write. Default: into FOLDER.")
@LITERATURE
@SHOWN_METRICS
@click.option("--rows", metavar="LIST", help="Show these rows alone, by model or name, with commas between.")
@click.option("--spread", type=click.Choice(["deviation", "interval"]), help="Over seeds, beside each mean.")
@click.option("--best", type=click.Choice(["bold"]), help="Mark the best mean of each metric.")
@USERS
@DATA
@PAPER
def report_command(
    folder: Path,
    formats: list[str],
    out: Path | None,
    literature: bool,
    metrics: str | None,
    rows: str | None,
    spread: Spread | None,
    best: str | None,
    users: Path | None,
    data: Path | None,
    paper: Paper,
) -> None:
    """Write a report on the runs stored below FOLDER.

    Its verdict is the exit code. --metrics, --rows, --spread, --best and --users add a table per data set to md, html
    and tex; they change no verdict. Its metrics are those of the paper unless --metrics names others.

    \b
    bm3 report runs
    bm3 report runs --literature
    bm3 report runs --format md,html,tex,csv
    bm3 report runs --metrics hit,mrr,coverage
    bm3 report runs --metrics recall,ndcg --users cold-start.txt
    bm3 report runs --format tex --metrics all --rows bpr,bm3 --spread deviation --best bold
    """
    from harness.cli.runs import users_of
    from harness.cli.study import finish
    from harness.evaluation.metrics import asked_metrics
    from harness.paper.study import Extra, make_study

    asked = f"a report on the runs in {folder.name or 'this folder'}"
    study = replace(make_study(folder, asked, paper=paper), literature=literature)
    if metrics or users or rows or spread or best:
        finished = [run for row in study.rows for run in row.runs]
        there = dict.fromkeys(name for run in finished for name in run.known_metrics)
        group = {} if users is None else {run.dataset_hash: run for run in finished}
        among = {of: users_of(run, users, data) for of, run in group.items() if users}
        asked_for = Extra(
            tuple(asked_metrics(metrics or ",".join(paper.metrics), there)),
            tuple(dict.fromkeys(label for name in (rows or "").split(",") if name for label in _named(name, study))),
            spread,
            best is not None,
            among,
            users,
        )
        study = replace(study, extra=asked_for)
    finish(study, out or folder, formats)


def _named(name: str, study: Study) -> list[str]:
    """Labels of the rows of that model or name. Raises ConfigError with the nearest."""
    by_name = {row.label: row.model for row in study.rows}
    found = nearest(name.strip(), [*dict.fromkeys([*by_name.values(), *by_name])], "no row or model")
    return [label for label, model in by_name.items() if found in (label, model)]


@click.command()
@click.argument("number", type=int)
@click.argument("runs", type=PATH, required=False)
@LAYOUT
@click.option("--dataset", metavar="NAME", help="Only this data set.")
@LITERATURE
@DATA
@PAPER
def tables(
    number: int, runs: Path | None, form: str, dataset: str | None, literature: bool, data: Path | None, paper: Paper
) -> None:
    """Print table NUMBER of the paper as published, ours beneath.

    Ours is of the runs in the folder RUNS. A table of data sets has ours from --data too. Figures of another source
    that differ stand beneath the paper's; disputed ones are marked. Verdicts are in the report, not here.

    \b
    bm3 tables 3
    bm3 tables 2 --paper damrs
    bm3 tables 3 runs --dataset baby --format md
    bm3 tables 3 --literature
    bm3 tables 4 runs --format tex > table4.tex
    bm3 tables 2 --data ~/data
    """
    from harness.paper.study import make_study
    from harness.report.paper_tables import paper_table
    from harness.report.study_tables import others_on
    from harness.report.write import laid_out

    layout = paper.table(number)
    if literature and layout.kind != "accuracy":
        raise click.UsageError("--literature is for tables of accuracy: costs of others are of other hardware")
    if data is not None and layout.kind != "datasets":
        raise click.UsageError("--data is for tables of data sets: the others have ours from RUNS")
    study = make_study(runs, f"table {number}", paper=paper) if runs else None
    say_unread(study.unread if study else ())
    names = dict.fromkeys(value.dataset for value in paper.values if value.source == layout.source)
    wanted = [name for name in names if dataset is None or name.lower() == dataset.lower()]
    counts = _statistics(wanted, data) if layout.kind == "datasets" else {}
    shown = [paper_table(paper, layout, study=study, statistics=counts, dataset=dataset)]
    shown += others_on(paper, wanted, study.rows if study else ()) if literature else ()
    click.echo("\n".join(laid_out(one, form) for one in shown), nl=False)


@click.group()
def expected() -> None:
    """Look at the figures that runs are compared with.

    \b
    bm3 expected list
    bm3 expected show table3 --dataset baby --model bm3
    """


@expected.command(name="list")
@PAPER
def list_command(paper: Paper) -> None:
    """List where figures come from: how many, of what status, of which data sets, metrics and models.

    \b
    bm3 expected list
    """
    for key, source in paper.sources.items():
        own = [value for value in paper.values if value.source == key]
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
@LAYOUT
@PAPER
def show(name: str, dataset: str | None, model: str | None, metric: str | None, form: str, paper: Paper) -> None:
    """Print the figures of the source NAME; or the file tolerances or claims.

    NAME is a source as `bm3 expected list` names it; what begins all names of a paper's tables can be left away.

    \b
    bm3 expected show table3
    bm3 expected show toolbox --dataset baby --model grcn
    bm3 expected show table4 --metric "Time (s/epoch)" --format csv
    bm3 expected show claims
    """
    from harness.paper.published import canonical_metric
    from harness.report.paper_tables import published_figures
    from harness.report.write import laid_out

    rules = ["tolerances", *(["claims"] if paper.claims else [])]
    sources = {key: key for key in paper.sources} | {key.rpartition("-")[2]: key for key in reversed(paper.sources)}
    if (chosen := nearest(name, [*sources, *rules], "no expected figures")) in rules:
        if dataset or model or metric or form != "text":
            raise ConfigError(f"{chosen} is no table: leave out --dataset, --model, --metric and --format")
        click.echo(read_text(paper.folder / f"{chosen}.toml"), nl=False)
        return
    key = sources[chosen]
    found = [value for value in paper.values if value.source == key]
    for option, wanted, read in (
        ("data set", dataset, lambda value: value.dataset),
        ("model", model, lambda value: value.model),
        ("metric", metric and canonical_metric(metric), lambda value: canonical_metric(value.metric)),
    ):
        if wanted:
            match = nearest(wanted, list(dict.fromkeys(map(read, found))), f"{key} has no {option}")
            found = [value for value in found if read(value) == match]
    click.echo(laid_out(published_figures(key, paper.sources[key], found), form), nl=False)


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


@click.command()
@click.argument("model", required=False)
@click.option("--dataset", metavar="NAME", help="Only this data set.")
@click.option(
    "--metric", metavar="NAME", help="Only this metric, such as R@10. Default: those that the paper judges by."
)
@LAYOUT
@OUT
@PAPER
def literature(model: str | None, dataset: str | None, metric: str | None, form: str, out: Path, paper: Paper) -> None:
    """Show what others report of the cells of the paper.

    Of MODEL or of all: published, independent groups, copies, ours. Independent groups ran the model again; each is one
    voice, and where the published figure lies among them is said. Copies have the paper's own digits and are no
    evidence. Ours is of the runs below --out, if there are any. A single cell comes with every figure and its source; a
    whole data set or paper with the claims, judged on the paper's tables, on independent figures and on our runs.

    \b
    bm3 literature
    bm3 literature bm3 --dataset baby --metric R@20
    bm3 literature bm3 --out docs/results/runs --format md
    """
    from harness.paper.claims import claims_about, claims_of_paper
    from harness.paper.literature import consensus
    from harness.paper.published import short_metric
    from harness.paper.study import make_study
    from harness.report import study_tables
    from harness.report.write import laid_out

    _kept(paper.folder)
    there = dict.fromkeys((one.dataset, one.model, short_metric(one.metric)) for one in paper.literature)
    nothing = "nothing is kept here of what others report"
    datasets, reported, by = (list(dict.fromkeys(names)) for names in zip(*there, strict=True))
    models = [nearest(model, reported, f"{nothing} of")] if model else paper.models
    datasets = [nearest(dataset, datasets, f"{nothing} on")] if dataset else datasets
    metrics = [nearest(short_metric(metric), by, f"{nothing} by")] if metric else [*map(short_metric, paper.metrics)]
    asked = [(d, m, k) for d in datasets for m in models for k in metrics if (d, m, k) in there]
    if not asked:
        raise ConfigError(f"{nothing} by {', '.join(metrics)} of {', '.join(models)} on {', '.join(datasets)}")
    cells = [consensus(paper, *cell) for cell in asked]
    study = make_study(out, "what others report", paper=paper) if out != STORE or out.is_dir() else None
    say_unread(study.unread if study else ())
    rows, claims = study.rows if study else (), (study.claims if study else ()) or claims_of_paper(paper)
    claims = () if dataset or metric else claims_about(claims, models[0]) if model else claims
    shown = [study_tables.literature(cells, rows, f"What others report of {', '.join(models)}")]
    if len(cells) == 1:
        figures = study_tables.reported(cells[0])
        # A terminal has no room for titles, addresses and notes.
        shown.append(figures.only("figure", "standing", "group", "source", "where") if form == "text" else figures)
    shown += [study_tables.claims(claims)] if claims else []
    click.echo("\n".join(laid_out(one, form) for one in shown), nl=False)


@click.command()
@click.argument("lists", nargs=-1, required=True, type=PATH)
@click.option("--dataset", required=True, metavar="NAME|DIR", help="The data set that the lists are for.")
@click.option("--model", metavar="NAME", help="The published model that they are compared with. Default: none is.")
@click.option(
    "--ids",
    "naming",
    type=click.Choice(["own", "number"]),
    help="How they name users and items: as the data set's users.csv and items.csv, or by its numbers from 0. "
    "Default: found out, and refused where both can be.",
)
@LITERATURE
@DATA
@PAPER
def evaluate(
    lists: tuple[Path, ...],
    dataset: str,
    model: str | None,
    naming: Naming | None,
    literature: bool,
    data: Path | None,
    paper: Paper,
) -> None:
    """Judge top-K LISTS that another program made.

    By the metrics of the paper; of several files, the mean over them. A file is a table (CSV, TSV, parquet) with
    columns user, item and rank or score, a TREC run, or the recommend_topk of the published toolbox. Ids are the data
    set's numbers, or those of its users.csv and items.csv: --ids. What is amiss is said in a line each; where more
    than one list in a hundred is missing or has training or unknown items, nothing is judged.

    Exit codes: 0 all published metrics held, or none is published for the data set, 1 one lies outside its band, 2 a
    file cannot be read or has the lists of another one, 3 nothing could be judged, or they are of other data.

    \b
    bm3 evaluate recommend_topk/BM3-baby.csv --dataset baby --model BM3
    bm3 evaluate seed1.trec seed2.trec seed3.trec --dataset baby --model BM3
    bm3 evaluate mine.parquet --dataset ./data/mine
    """
    import numpy as np

    from harness.data.layouts import load_dataset
    from harness.evaluation.lists import evaluate_lists
    from harness.ingest.exporting import own_ids
    from harness.paper.published import canonical_metric, short_metric
    from harness.paper.verdict import Outcome, judge
    from harness.report.study_tables import others_on
    from harness.report.tables import text

    known = dict.fromkeys(value.model for value in paper.values if value.model)
    compared = nearest(model, [*known], f"the paper {paper.name} has no model") if model else ""
    asked = load_dataset(dataset, data)
    ids = own_ids(dataset, data, asked)
    cutoffs = {name: int(name.partition("@")[2]) for name in map(canonical_metric, paper.metrics)}
    part, depth = paper.test_part(asked.name), max(cutoffs.values())
    found = [evaluate_lists(path, asked, part, depth, ids, naming) for path in lists]
    ranked = [one.ranking.listed(depth)[0] for one in found]
    for (first, its), (second, others) in combinations(zip(lists, ranked, strict=True), 2):
        if np.array_equal(its, others):
            raise DataError(f"{second}: the same lists as {first}; give each run once")
    names = {metric.partition("@")[0] for metric in cutoffs}
    values = [one.ranking.metrics([*{*cutoffs.values()}], names) for one in found]
    other = paper.other_data(asked.name, asked.n_users, asked.n_items, asked.n_interactions)
    amiss, length = next((one.obstacle for one in found if one.obstacle), other), min(one.length for one in found)
    table, outcomes = [], []
    for metric, cutoff in cutoffs.items():
        cell = paper.cell(asked.name, compared, metric) if compared else ()
        tolerance = replace(paper.tolerances.of(metric), min_seeds=1)
        obstacle = f"the lists end before rank {cutoff}" if cutoff > length else amiss
        verdict = judge([one[metric] for one in values], cell, tolerance, not obstacle)
        outcomes.append(verdict.outcome)
        published = verdict.published.value if verdict.published else None
        difference = None if verdict.difference is None else 100 * verdict.difference
        figures = [number(verdict.mean), number(published), number(difference, "+.1f")]
        table.append([short_metric(metric), *figures, verdict.outcome, obstacle or verdict.reason])
    files, against = f"{len(lists)} file{'s' * (len(lists) > 1)}", f", against {compared}" if compared else ""
    ways = {"own": "by the data set's own ids", "number": "by the data set's numbers"}
    named = "".join(f", {ways[way]}" for way in dict.fromkeys(one.naming for one in found) if ids != (None, None))
    click.echo(f"{files} on {asked.name}, {part} part, {len(found[0].ranking.users):,} users{named}{against}")
    say_table(["metric", "lists", "published", "diff. %", "verdict", "why"], table)
    for path, one in zip(lists, found, strict=True):
        say(one.findings, f"{path}: ")
    say(map(text, others_on(paper, [asked.name], (), compared) if literature else ()), "\n")
    unpublished = {*outcomes} == {Outcome.UNPUBLISHED} and not any(one.elsewhere for one in found)
    sys.exit(0 if unpublished else exit_status(outcome.held for outcome in outcomes))
