"""The command `bm3 profile`: options and output."""

from __future__ import annotations

import json
from pathlib import Path

import click

from harness.cli.options import DATA, DEVICE, THREADS

SEED = 999  # as in bm3 train


@click.command()
@click.argument("model")
@click.argument("dataset")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change a setting; may be repeated.")
@click.option("--steps", type=click.IntRange(min=1), default=10, show_default=True, help="Training steps to measure.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write all figures there.")
@click.option("--json", "as_json", is_flag=False, flag_value="-", metavar="", help="Print all figures as JSON.")
@DEVICE
@THREADS
@DATA
def profile(
    model: str,
    dataset: str,
    assignments: tuple[str, ...],
    steps: int,
    out: Path | None,
    as_json: str | None,
    device: str,
    threads: int | None,
    data: Path | None,
) -> None:
    """Show where a training step and an evaluation of MODEL on DATASET spend their time, by torch operation.

    Recording operations slows them, so the whole is measured without it. Beside it stand the products that were
    multiplied, and what this machine moves in a large copy. Nothing is stored unless --out says where.

    \b
    bm3 profile bm3 mini
    bm3 profile lattice baby --data ~/data --steps 20 --threads 1 --out lattice.json
    bm3 profile bm3 ./data/mine --set features=frozen --set batch_size=4096
    """
    from harness.common import check_writable, write_json, writing
    from harness.evaluation.compiling import use_threads
    from harness.measure.environment import environment
    from harness.runs.settings import parse_assignments
    from harness.runs.trial import dataset_for, make_trial, resolve_device
    from harness.tools.profiling import profile as profiling
    from harness.training import Streams

    if as_json not in (None, "-"):  # --json FILE, as it was written before --out
        out, as_json = Path(as_json), None
    if out is not None:
        with writing(out, "name another file with --out"):
            check_writable(out)
    if threads is not None:
        use_threads(threads)
    settings = parse_assignments(assignments)
    where = resolve_device(device)
    trial = make_trial(model, dataset_for(settings, dataset, data), dataset, settings, SEED, where)
    title = f"{trial.entry.name} on {trial.dataset.name}, {trial.device.type}"
    found = profiling.profile(
        trial.entry.model,
        trial.dataset,
        trial.config,
        trial.training,
        Streams(trial.seed),
        trial.device,
        steps=steps,
        tell=lambda stage: click.echo(f"{title}: {stage}", err=True),
    )
    about = {"environment": environment(trial.device), "dataset": trial.dataset.name, "steps": steps}
    values = {"format": 2, **trial.identity, **about, **profiling.profile_values(found)}
    if out is not None:
        with writing(out, "name another file with --out"):
            write_json(out, values)
    click.echo(json.dumps(values, indent=1) if as_json else f"{title}\n{profiling.profile_text(found)}")
