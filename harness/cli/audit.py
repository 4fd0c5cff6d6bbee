"""The command `bm3 audit`: options, messages and exit code."""

import sys
from pathlib import Path

import click

from harness.cli.options import DRY_RUN, MODELS
from harness.cli.study import Execution, execution_options


@click.command()
@click.argument("dataset", default="mini")
@MODELS
@click.option(
    "--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Run seeds 1 to N.", metavar="N"
)
@DRY_RUN
@click.option("--as-reference", is_flag=True, help="Write the effects to the paper's audit/<data set>.csv too.")
@execution_options
def audit(
    dataset: str,
    models: tuple[str, ...],
    seeds: int,
    dry_run: bool,
    as_reference: bool,
    how: Execution,
    paper: Path,
) -> None:
    """Measure what every variant changes on DATASET (default: mini): the settings in which text and code disagree.

    Each other value is trained beside the published one with the same seeds. Settings of training are audited with
    every model, so all models make many trials: --dry-run lists them, --model chooses. Training is as published, on
    mini as in the suite mini. Finished trials are not run again. The report is in the folder audit-DATASET below --out.

    \b
    bm3 audit
    bm3 audit --model bm3 --model grcn
    bm3 audit baby --data ~/data --model bm3 --seeds 2
    """
    from harness.paper.load import load_paper
    from harness.runs.trial import resolve_device
    from harness.studies.execute import pending
    from harness.tools.audit.audit import Audit, audit_markdown, plan_audit, trials_of, write_audit

    about = load_paper(paper)
    where = resolve_device(how.device)
    found, comparisons = plan_audit(about, dataset, how.data, models, tuple(range(1, seeds + 1)), where)
    trials = trials_of(comparisons)
    if dry_run:
        for trial in pending(lambda outcomes: trials, how.out, how.rerun).to_run:
            click.echo(trial.command)
        return
    begun = how.begin(f"audit-{found.name}", about)
    runs = {key: run for key, run in begun.run(lambda outcomes: trials).items() if run is not None}
    failed = tuple(trial.command for trial in trials if trial.key not in runs)
    outcome = Audit(found, comparisons, runs, failed, about.tolerances)
    paths = write_audit(outcome, how.out / begun.name, paper if as_reference and outcome.code == 0 else None)
    click.echo(audit_markdown(outcome).split("\n## ")[0].rstrip() + "\n")
    for path in paths:
        click.echo(f"written: {path}")
    if as_reference and outcome.code != 0:
        click.echo("not taken as reference, since not everything was measured", err=True)
    sys.exit(outcome.code)
