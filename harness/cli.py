"""The `bm3` command: options, messages and exit codes. Everything it does is done elsewhere."""

import sys
from pathlib import Path
from typing import Any

import click
import torch

from bm3 import BM3Error
from harness.data import load_dataset
from harness.experiments.settings import parse_assignments
from harness.experiments.trial import make_trial, resolve_device, run_trial
from harness.progress import TrainingProgress

INTERRUPTED = 130

DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder that holds data sets by name. Default: $BM3_DATA, then ./data.",
)
OUT = click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    metavar="DIR",
    help="Folder for runs and reports.",
)
DEVICE = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
THREADS = click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads of torch. Default: torch's own choice."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bm3-harness")
def bm3() -> None:
    """Does BM3 do what was published, here, now, and at what cost?

    \b
    bm3 reproduce                   what reproduces on this machine, as a report
    bm3 train bm3 mini              one model on one data set
    bm3 conformance                 are the models the published ones?
    bm3 data stats mini             what is in a data set

    Exit codes: 0 everything asked for was measured and held, 1 something deviates, 2 wrong usage, configuration or
    data, 3 nothing could be measured, 130 interrupted.
    """


@bm3.command()
@click.argument("model")
@click.argument("dataset")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change a setting; may be repeated.")
@click.option("--seed", type=click.IntRange(min=0), default=999, show_default=True, help="Seed of all randomness.")
@click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="At most N epochs; short for --set epochs=N.")
@DEVICE
@THREADS
@DATA
@OUT
def train(
    model: str,
    dataset: str,
    assignments: tuple[str, ...],
    seed: int,
    epochs: int | None,
    device: str,
    threads: int | None,
    data: Path | None,
    out: Path,
) -> None:
    """Train MODEL on DATASET, evaluate its best epoch, and store the run.

    A run that is stored and finished is shown, not repeated. An interrupted one begins anew.

    \b
    bm3 train bm3 mini --epochs 20
    bm3 train lightgcn baby --data ~/data --set n_layers=3 --set reg_weight=1e-4 --seed 1
    bm3 train bm3 ./data/mine --set features=frozen --set early_stopping.rounding=none
    """
    settings: dict[str, Any] = dict(parse_assignments(assignments))
    if epochs is not None:
        settings["epochs"] = epochs
    if threads is not None:
        torch.set_num_threads(threads)
    trial = make_trial(model, load_dataset(dataset, data), dataset, settings, seed, resolve_device(device))
    try:
        with TrainingProgress(f"{trial.entry.name} on {trial.dataset.name}, seed {seed}", trial.training.epochs) as bar:
            run = run_trial(trial, out, bar.epoch)
    except KeyboardInterrupt:
        raise Interrupted(f"{out / trial.key} is left unfinished; {trial.command} begins it anew") from None
    result = run.result or {}
    test = "  ".join(f"{name} {result['test'][name]:.4f}" for name in ("recall@10", "recall@20", "ndcg@10", "ndcg@20"))
    click.echo(f"best epoch {result['best_epoch']} of {result['epochs']}; test: {test}\nrun: {run.path}")


class Interrupted(Exception):  # noqa: N818 - it is no error
    """Ctrl-C, after what was finished has been kept; the message says what is not."""


def main() -> None:
    """Run the command; input errors end in one line and exit code 2, Ctrl-C in one line and 130."""
    try:
        code = bm3.main(standalone_mode=False)
    except BM3Error as error:
        stop(2, str(error))
    except click.ClickException as error:
        stop(error.exit_code, error.format_message())
    except Interrupted as interruption:
        stop(INTERRUPTED, f"interrupted: {interruption}")
    except (KeyboardInterrupt, click.Abort):
        stop(INTERRUPTED, "interrupted")
    sys.exit(code if isinstance(code, int) else 0)


def stop(code: int, message: str) -> None:
    """Print one line and leave."""
    print("bm3:", " ".join(message.split()), file=sys.stderr)
    sys.exit(code)
