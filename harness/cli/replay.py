"""The command `bm3 replay`: options, messages and exit code."""

import shlex
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import click

from bm3 import DataError
from harness.cli.options import DATA, PAPER, STORE, THREADS


@click.command()
@click.argument("run")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default=None, help="Where to compute. Default: as the run."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep the new run in this store; it can be resumed; with its model, if RUN kept one.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be repeated, and train nothing.")
@THREADS
@DATA
@PAPER
def replay(
    run: str,
    device: str | None,
    dry_run: bool,
    threads: int | None,
    data: Path | None,
    out: Path | None,
    paper: Path,
) -> None:
    """Train RUN again and say whether it comes out the same, to the bit.

    RUN is the path of a stored run, or a part of its name that no other below runs has. It is repeated with its own
    settings, seed and number of threads. What differs is shown with its likely causes. Nothing stored is changed.

    Exit code 0: the same bits; or other bits in another environment, with the test metric of early stopping within the
    tolerance for replays (bm3 expected show tolerances). 1: other bits in the same environment, or further away.

    \b
    bm3 replay bm3-164e
    bm3 replay docs/results/runs/mini/bm3-cc65bfb649-seed1 --threads 1
    """
    from harness.cli.progress import trained
    from harness.evaluation.compiling import use_threads
    from harness.ingest.exporting import own_ids
    from harness.paper.load import load_paper
    from harness.runs.difference import causes, difference
    from harness.runs.inspect import find
    from harness.runs.record import MODEL
    from harness.runs.text import difference_text
    from harness.runs.trial import trial_of

    stored = find(run, STORE)
    if not stored.finished:
        raise DataError(f"{stored.path}: is {stored.state}, so there is no result to compare with")
    use_threads(threads or stored.environment.get("torch_threads") or 1)
    trial = trial_of(stored, data, device)
    if dry_run:
        click.echo(f"would repeat: {trial.command}")
        return
    with nullcontext(out) if out else tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        if store.resolve() in stored.path.resolve().parents:
            raise DataError(f"--out {store}: holds the run itself, to be compared with itself; name another folder")
        click.echo(f"repeating: {trial.command}", err=True)
        keep = out and (stored.path / MODEL).is_file()
        ids = own_ids(trial.dataset_name, data, trial.dataset) if keep else None
        again = trained(trial, store, left="" if out else "nothing is kept without --out", keep=ids)
        found = difference(stored, again)
    click.echo(difference_text(found, f"{stored.path} (stored)", f"{shlex.join(['bm3', 'replay', run])} (now)"))
    if found.verdict == "same":
        return
    likely = causes(found)
    none = ["none is recorded: the same code in the same environment"]
    click.echo("\nlikely causes\n" + "\n".join(f"  {cause}" for cause in likely or none))
    before, now = (one.outcome.test[stored.stopping] for one in (stored, again))
    near = abs(now - before) <= load_paper(paper).tolerances.replay.relative * abs(before)
    sys.exit(0 if likely and near else 1)
