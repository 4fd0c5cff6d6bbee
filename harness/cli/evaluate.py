"""The command `bm3 evaluate`: lists that another program made. Reading them is `evaluation.lists`."""

import sys
from dataclasses import replace
from pathlib import Path

import click

from harness.cli.options import DATA, PAPER
from harness.common import exit_status, nearest, number


@click.command()
@click.argument("lists", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--dataset", required=True, metavar="NAME|DIR", help="The data set that the lists are for.")
@click.option("--model", metavar="NAME", help="The published model that they are compared with. Default: none is.")
@DATA
@PAPER
def evaluate(lists: tuple[Path, ...], dataset: str, model: str | None, data: Path | None, paper: Path) -> None:
    """Judge top-K LISTS that another program made, by the metrics of the paper; of several files, the mean over them.

    A file is a table (CSV, TSV, parquet) with columns user, item and rank or score, a TREC run, or the recommend_topk
    of the published toolbox. Ids are the data set's numbers, or those of its users.csv and items.csv. What is amiss is
    said in a line each; where more than one list in a hundred is missing or has training items, nothing is judged.

    Exit codes: 0 all published metrics held, or none is published for the data set, 1 one lies outside its band, 2 a
    file cannot be read, 3 nothing could be judged.

    \b
    bm3 evaluate recommend_topk/BM3-baby.csv --dataset baby --model BM3
    bm3 evaluate seed1.trec seed2.trec seed3.trec --dataset baby --model BM3
    bm3 evaluate mine.parquet --dataset ./data/mine
    """
    from tabulate import tabulate

    from harness.data import load_dataset
    from harness.evaluation.lists import evaluate_lists
    from harness.ingest.exporting import own_ids
    from harness.paper.load import load_paper
    from harness.paper.published import canonical_metric, short_metric
    from harness.paper.verdict import Outcome, judge

    about = load_paper(paper)
    known = dict.fromkeys(value.model for value in about.values if value.model)
    compared = nearest(model, [*known], f"the paper {about.name} has no model") if model else ""
    asked = load_dataset(dataset, data)
    ids = own_ids(dataset, data, asked)
    cutoffs = {name: int(name.partition("@")[2]) for name in map(canonical_metric, about.metrics)}
    part, depth = about.test_part(asked.name), max(cutoffs.values())
    found = [evaluate_lists(path, asked, part, depth, ids) for path in lists]
    names = {metric.partition("@")[0] for metric in cutoffs}
    values = [one.ranking.metrics([*{*cutoffs.values()}], names) for one in found]
    amiss, length = next((one.obstacle for one in found if one.obstacle), ""), min(one.length for one in found)
    table, outcomes = [], []
    for metric, cutoff in cutoffs.items():
        cell = about.cell(asked.name, compared, metric) if compared else ()
        tolerance = replace(about.tolerances.of(metric), min_seeds=1)
        obstacle = f"the lists end before rank {cutoff}" if cutoff > length else amiss
        verdict = judge([one[metric] for one in values], cell, tolerance, not obstacle)
        outcomes.append(verdict.outcome)
        published = verdict.published.value if verdict.published else None
        difference = None if verdict.difference is None else 100 * verdict.difference
        reason = obstacle if verdict.outcome is Outcome.NO_EVIDENCE else verdict.reason
        figures = [number(verdict.mean), number(published), number(difference, "+.1f")]
        table.append([short_metric(metric), *figures, verdict.outcome, reason])
    head = ["metric", "lists", "published", "diff. %", "verdict", "why"]
    files, against = f"{len(lists)} file{'s' * (len(lists) > 1)}", f", against {compared}" if compared else ""
    click.echo(f"{files} on {asked.name}, {part} part, {len(found[0].ranking.users):,} users{against}")
    click.echo(tabulate(table, head, disable_numparse=True))
    for path, one in zip(lists, found, strict=True):
        for finding in one.findings:
            click.echo(f"{path}: {finding}")
    sys.exit(0 if {*outcomes} == {Outcome.UNPUBLISHED} else exit_status(outcome.held for outcome in outcomes))
