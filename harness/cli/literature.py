"""The command `bm3 literature`: options and messages. What others say of a cell is in `paper.literature`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bm3 import ConfigError
from harness.cli.options import OUT, PAPER, STORE
from harness.common import nearest

if TYPE_CHECKING:
    from harness.paper.claims import ClaimResult
    from harness.paper.literature import Consensus
    from harness.paper.rows import Row


@click.command()
@click.argument("model", required=False)
@click.option("--dataset", metavar="NAME", help="Only this data set.")
@click.option(
    "--metric", metavar="NAME", help="Only this metric, such as R@10. Default: those that the paper judges by."
)
@click.option("--format", "form", type=click.Choice(["text", "md", "csv"]), default="text", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print cells, all their figures and the claims as JSON.")
@OUT
@PAPER
def literature(
    model: str | None, dataset: str | None, metric: str | None, form: str, as_json: bool, out: Path, paper: Path
) -> None:
    """Show what others report of the paper's cells, of MODEL or of all: published, independent groups, copies, ours.

    Independent groups ran the model again; each is one voice, and where the published figure lies among them is said.
    Copies have the paper's own digits and are no evidence. Ours is of the runs below --out, if there are any. A single
    cell comes with every figure and its source; a whole data set or paper with the claims, judged on the paper's
    tables, on independent figures and on our runs.

    \b
    bm3 literature
    bm3 literature bm3 --dataset baby --metric R@20
    bm3 literature bm3 --out docs/results/runs --format md
    """
    from harness.paper.claims import claims_about, claims_of_paper
    from harness.paper.literature import consensus
    from harness.paper.load import load_paper
    from harness.paper.published import short_metric
    from harness.paper.study import make_study
    from harness.report import study_tables, tables
    from harness.report.flat import table_csv

    about = load_paper(paper)
    if not about.literature:
        raise ConfigError(
            f"{paper}: nothing is known of what others report; figures of others go into literature/*.csv"
        )
    there: dict[tuple[str, str, str], None] = {}
    for figure in about.literature:
        there.setdefault((figure.dataset, figure.model, short_metric(figure.metric)))
    models = [nearest(model, [*dict.fromkeys(m for _, m, _ in there)], "nobody reports")] if model else about.models
    datasets = dict.fromkeys(d for d, _, _ in there)
    if dataset:
        datasets = dict.fromkeys([nearest(dataset, [*datasets], "nobody reports the data set")])
    metrics = about.metrics
    if metric:
        metrics = (nearest(short_metric(metric), [*dict.fromkeys(m for *_, m in there)], "nobody reports the metric"),)
    asked = [(d, m, k) for d in datasets for m in models for k in metrics if (d, m, k) in there]
    if not asked:
        raise ConfigError(f"nobody reports {', '.join(metrics)} of {', '.join(models)} on {', '.join(datasets)}")
    cells = [consensus(about, *cell) for cell in asked]
    study = make_study(out, "what others report", paper=about) if out != STORE or out.is_dir() else None
    for unread in study.unread if study else ():
        click.echo(f"cannot be read, left out: {unread}", err=True)
    rows, claims = study.rows if study else (), (study.claims if study else ()) or claims_of_paper(about)
    claims = () if dataset or metric else claims_about(claims, models[0]) if model else claims
    if as_json:
        click.echo(json.dumps(_record(cells, rows, claims), indent=1))
        return
    shown = [study_tables.literature(cells, rows, f"What others report of {', '.join(models)}")]
    if len(cells) == 1:
        figures = study_tables.reported(cells[0])
        # A terminal has no room for titles, addresses and notes.
        shown.append(figures.only("figure", "standing", "group", "source", "where") if form == "text" else figures)
    shown += [study_tables.claims(claims)] if claims else []
    layouts = {"text": tables.text, "md": tables.markdown, "csv": table_csv}
    click.echo("\n".join(layouts[form](one) for one in shown), nl=False)


def _record(cells: list[Consensus], rows: tuple[Row, ...], claims: tuple[ClaimResult, ...]) -> dict[str, Any]:
    """Everything that is shown, unrounded."""
    from harness.paper.published import canonical_metric
    from harness.paper.rows import representative

    found = []
    for cell in cells:
        row = representative((row for row in rows if row.dataset.lower() == cell.dataset.lower()), cell.model)
        ours = row.verdicts[canonical_metric(cell.metric)] if row else None
        more = {"mean": cell.mean, "copies": cell.copies, "lies": cell.place}
        judged = ours and {"mean": ours.mean, "seeds": ours.seeds, "outcome": ours.outcome, "reason": ours.reason}
        found.append(asdict(cell) | more | {"ours": judged})
    return {"cells": found, "claims": [asdict(result) for result in claims]}
