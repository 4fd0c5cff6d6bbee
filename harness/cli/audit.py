"""The command `bm3 audit`: options, messages and exit code. The other commands are in `cli`."""

import sys
from pathlib import Path

import click

from harness.cli.options import DATA, DEVICE, DRY_RUN, IN_PROCESS, OUT, PAPER, RAY, RERUN, THREADS_EACH, WORKERS
from harness.runs.words import Policy


@click.command()
@click.argument("dataset", default="mini")
@click.option("--model", "wanted", multiple=True, metavar="NAME", help="Audit this model; may be repeated.")
@click.option(
    "--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Run seeds 1 to N.", metavar="N"
)
@RERUN
@WORKERS
@RAY
@IN_PROCESS
@DRY_RUN
@click.option("--as-reference", is_flag=True, help="Write the effects to the paper's audit/<data set>.csv too.")
@DEVICE
@THREADS_EACH
@DATA
@OUT
@PAPER
def audit(
    dataset: str,
    wanted: tuple[str, ...],
    seeds: int,
    rerun: Policy,
    workers: int | None,
    ray_address: str | None,
    in_process: bool,
    dry_run: bool,
    as_reference: bool,
    device: str,
    threads: int | None,
    data: Path | None,
    out: Path,
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
    from harness.cli.study import backend_for, run_study, workers_for
    from harness.paper.load import load_paper
    from harness.runs.trial import resolve_device
    from harness.studies.conduct import Study, make_folder
    from harness.studies.execute import pending
    from harness.tools.audit.audit import Audit, audit_markdown, plan_audit, trials_of, write_audit

    about = load_paper(paper)
    chosen_seeds = tuple(range(1, seeds + 1))
    where = resolve_device(device)
    found, comparisons = plan_audit(about, dataset, data, wanted, chosen_seeds, where)
    trials = trials_of(comparisons)
    if dry_run:
        for trial in pending(lambda outcomes: trials, out, rerun).to_run:
            click.echo(trial.command)
        return
    name = f"audit-{found.name}"
    side_by_side = workers_for(workers, where, in_process=in_process, ray_address=ray_address)
    folder = out / name
    make_folder(folder)
    backend = backend_for(
        out, data, workers=side_by_side, threads=threads, ray_address=ray_address, in_process=in_process, paper=about
    )
    outcomes = run_study(Study(name, lambda outcomes: trials, out, folder, about, rerun, side_by_side), backend)
    runs = {key: run for key, run in outcomes.items() if run is not None}
    failed = tuple(trial.command for trial in trials if trial.key not in runs)
    outcome = Audit(found, comparisons, runs, failed, about.tolerances)
    paths = write_audit(outcome, folder, paper if as_reference and outcome.code == 0 else None)
    click.echo(audit_markdown(outcome).split("\n## ")[0].rstrip() + "\n")
    for path in paths:
        click.echo(f"written: {path}")
    if as_reference and outcome.code != 0:
        click.echo("not taken as reference, since not everything was measured", err=True)
    sys.exit(outcome.code)
