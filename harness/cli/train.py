"""Commands on models: training one, what there is to set and to measure, and whether they are the published ones."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bm3 import ConfigError
from harness.cli.data import unread
from harness.cli.options import COUNT, DATA, DEFAULT_SEED, OUT, PAPER, PATH, SEEDS_OF_OURS, SHOWN_METRICS, computing
from harness.cli.output import say, say_table, to_stderr
from harness.common import exit_status, number
from harness.ending import IN_USE, NOTHING_MEASURED, keeping

if TYPE_CHECKING:
    import torch

    from harness.paper.load import Paper
    from harness.paper.logs import Compared
    from harness.report.tables import Table
    from harness.runs.record import RunRecord
    from harness.runs.trial import Trial


@click.command()
@click.argument("model")
@click.argument("dataset")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change a setting; may be repeated.")
@click.option("--seed", type=click.IntRange(min=0), default=DEFAULT_SEED, help="Seed of all randomness.")
@click.option(
    "--epochs",
    type=COUNT,
    metavar="N",
    help="At most N epochs, all N without a validation part; short for --set epochs=N.",
)
@click.option(
    "--no-wait", is_flag=True, help=f"Where another process runs the same trial, leave with exit code {IN_USE} at once."
)
@click.option("--keep-model", is_flag=True, help="Keep the weights of the best epoch, with ids and a card, in the run.")
@click.option("--rerun", is_flag=True, help="Train again what is finished; the run there is moved aside.")
@click.option("--dry-run", is_flag=True, help="Check everything, say where the run would be, and train nothing.")
@SHOWN_METRICS
@click.option("--key", hidden=True)  # of the run that is meant by who planned it, maybe on another machine
@computing
@DATA
@OUT
def train(
    model: str,
    dataset: str,
    assignments: tuple[str, ...],
    seed: int,
    epochs: int | None,
    no_wait: bool,
    keep_model: bool,
    rerun: bool,
    dry_run: bool,
    metrics: str | None,
    key: str | None,
    device: torch.device,
    data: Path | None,
    out: Path,
) -> None:
    """Train MODEL on DATASET, test its best epoch, store the run.

    A run that is stored and finished is shown, not repeated. An interrupted or killed one goes on after its last
    checkpoint, to the same bits as if it had never stopped.

    \b
    bm3 train bm3 mini --epochs 20
    bm3 train lightgcn baby --data ~/data --set n_layers=3 --set reg_weight=1e-4 --seed 1
    bm3 train bpr mini --set early_stopping.metric=ndcg@10 --metrics ndcg,mrr,coverage
    bm3 train bm3 ./data/mine --set features=frozen --set early_stopping.rounding=none
    bm3 train bm3 ./data/mine --keep-model
    """
    from harness.evaluation.metrics import asked_metrics
    from harness.evaluation.words import METRICS
    from harness.ingest.exporting import own_ids
    from harness.runs.settings import parse_assignments
    from harness.runs.trial import dataset_for, finished_run, make_trial
    from harness.training.fit import evaluation_of

    limit = [] if epochs is None else [f"epochs={epochs}"]
    settings: dict[str, Any] = dict(parse_assignments([*assignments, *limit]))
    trial = make_trial(model, dataset_for(settings, dataset, data), dataset, settings, seed, device)
    if key not in (None, trial.key):
        raise ConfigError(f"the code, data or compiled loops are others here ({trial.key} instead of {key})")
    say(unread(dataset, data), "note: ", err=True)
    if dry_run:
        there = "is finished" if finished_run(trial, out) else "would be trained"
        click.echo(f"{trial.command}\nrun: {out / trial.key} {there}, at most {trial.epochs} epochs")
        return
    evaluated = evaluation_of(trial.dataset, trial.training)
    usual = [name for name in evaluated.names if name.partition("@")[0] in METRICS[:2]]
    shown = asked_metrics(metrics, evaluated.names) if metrics else usual  # before anything is trained
    if keep_model:
        trial = replace(trial, keep=own_ids(dataset, data, trial.dataset))
    run = trained(trial, out, wait=not no_wait, rerun=rerun)
    result = run.outcome
    test = "  ".join(f"{name} {value:.4f}" for name in shown if (value := run.value(name)) is not None)
    click.echo(f"best epoch {result.best_epoch} of {result.epochs}; test: {test}\nrun: {run.path}")


def trained(trial: Trial, out: Path, kept: str = "", **options: bool) -> RunRecord:
    """What `run_trial` gives with these options, its progress shown; `kept`: what is said when it is interrupted."""
    from harness.cli.progress import TrainingProgress
    from harness.runs.trial import run_trial

    title = f"{trial.entry.name} on {trial.dataset.name}, seed {trial.seed}"
    kept = kept or f"{out / trial.key} is left unfinished; the same command goes on with it"
    with keeping(lambda: kept), TrainingProgress(title, trial.epochs, trial.training.early_stopping.metric) as bar:
        return run_trial(trial, out, bar.epoch, earlier=bar.earlier, tell=to_stderr, **options)


@click.command(name="conformance")
@click.argument("path", metavar="[TRACE|FOLDER]", type=PATH, required=False)
@click.option("--log", type=PATH, metavar="FILE", help="A training log to compare runs with.")
@click.option("--point", type=COUNT, metavar="N", help="Of the log's settings; default: best on valid.")
@click.option("--epochs", type=COUNT, metavar="N", help="Train and compare the log's first N epochs.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison with a log as JSON.")
@SEEDS_OF_OURS
@computing
@DATA
@OUT
@PAPER
def conformance_command(
    path: Path | None,
    log: Path | None,
    point: int | None,
    epochs: int | None,
    as_json: bool,
    seeds: list[int],
    device: torch.device,
    data: Path | None,
    out: Path,
    paper: Paper,
) -> None:
    """Replay recorded traces: are the models the published ones?

    One TRACE or those in FOLDER; by default what comes with the paper and with installed models. One row per trace and
    quantity with the largest difference. Exit code 0 when all that could be replayed passed, 1 when one failed, 3 when
    none could be replayed.

    With --log, train with the settings of another program's training log instead, with seeds 1 to 3 or those of
    --seeds, and compare losses, validation metrics and the best epoch: same curve, same end (exit code 0) or other (1);
    3 with fewer than three seeds. Runs are kept in --out. All options but --device are for this.

    \b
    bm3 conformance
    bm3 conformance my-traces
    bm3 conformance my-traces/bpr.npz
    bm3 conformance --log LightGCN-baby.log --data ~/data
    bm3 conformance --device cuda
    """
    if log is not None:
        if path is not None:
            raise click.UsageError("a trace and --log are two questions: ask one")
        follow(log, point, seeds or [1, 2, 3], epochs, device, data, out, paper, as_json)
    if point or epochs or seeds or as_json:
        raise click.UsageError("--point, --epochs, --seeds and --json are for --log FILE")
    from harness.cli.study import conformance_line
    from harness.paper.conformance import Status, conformance, known_traces, trace_statuses

    checks = known_traces(paper, device) if path is None else conformance(path, device)
    table = [[c.trace, c.quantity, _number(c.difference), _number(c.tolerance), c.status.value, c.note] for c in checks]
    say_table(["trace", "quantity", "difference", "tolerance", "result", "where"], table)
    click.echo(conformance_line(checks, device))
    statuses = set(trace_statuses(checks).values())
    sys.exit(1 if Status.FAILED in statuses else 0 if Status.PASSED in statuses else NOTHING_MEASURED)


@click.command()
@click.argument("model", required=False)
def variants(model: str | None) -> None:
    """List settings in which text and published code disagree.

    Those of MODEL, or of all. The first value is what was published, and the default. Change one with --set
    SETTING=VALUE.

    \b
    bm3 variants
    bm3 variants mmgcn
    bm3 train mmgcn mini --set training=as_authored
    """
    from tabulate import tabulate

    from harness.models.registry import find_model
    from harness.paper.folders import DEFAULT, paper_folder
    from harness.runs import settings as known
    from harness.tools.audit import effect_lines, known_effects

    wanted = None if model is None else find_model(model).name
    effects = known_effects(paper_folder(DEFAULT))
    for row in known.variants():
        if wanted in (None, row.model) or row.model == known.ALL_MODELS:
            values = " | ".join(str(value) for value in row.values)
            lines = [("text", row.text), ("code", row.code), ("where", row.where)]
            lines += [("effect", text) for text in effect_lines(row, effects, wanted)]
            click.echo(f"{row.model}: {row.setting} = {values}")
            click.echo(tabulate([[f"  {name}", value] for name, value in lines], tablefmt="plain") + "\n")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def follow(
    path: Path,
    number: int | None,
    seeds: list[int],
    epochs: int | None,
    device: torch.device,
    data: Path | None,
    out: Path,
    paper: Paper,
    as_json: bool,
) -> NoReturn:
    """Train what the log did, once per seed, print the comparison, and leave with its word as exit code."""
    from harness.data.dataset import PARTS
    from harness.paper import logs
    from harness.paper.published import canonical_metric
    from harness.report.tables import text
    from harness.runs.trial import dataset_for, make_trial
    from harness.training.config import STOPPING_METRIC

    log = logs.read_log(path)
    point = log.chosen(number)
    meant = logs.meant(log, point, paper)
    if epochs is not None:
        point, meant.settings["epochs"] = replace(point, epochs=point.epochs[:epochs]), epochs
        meant.notes.append(f"only the first {epochs} epochs are compared: its best epoch is the best of these")
    name = log.header["dataset"]
    dataset = dataset_for(meant.settings, name, data)
    logs.check_counts(log, dataset.n_users, dataset.n_items, {part: len(dataset.part(part)) for part in PARTS})
    trials = [make_trial(meant.entry.name, dataset, name, meant.settings, seed, device) for seed in seeds]
    runs = [trained(trial, out) for trial in trials]
    batches = -(-len(dataset.train) // trials[0].training.batch_size)
    metrics = dict.fromkeys([*map(canonical_metric, paper.metrics), STOPPING_METRIC])
    found = logs.compare(point, runs, batches, [*metrics])
    word = logs.word_of(found, len(runs))
    notes = [*meant.notes, logs.about_parameters(point, runs[0])]
    if trials[0].reads_features and dataset.surrogates:
        notes.append(f"vectors here are surrogates: {', '.join(sorted(dataset.surrogates))}")
    if word is None:
        notes.append(f"{len(runs)} of at least {logs.FEWEST} seeds were run, so there is no word")
    title = f"{path.name}, {point.name}: {word or 'no word'}"
    if as_json:
        record: dict[str, Any] = {"log": str(path), "point": point.settings, "settings": meant.settings, "seeds": seeds}
        record |= {"word": word, "notes": notes, "compared": [asdict(one) for one in found]}
        click.echo(json.dumps(record, indent=1))
    else:
        click.echo(text(_table(title, found, notes, len(runs) > 1)), nl=False)
        click.echo("\n".join(["", *(trial.command for trial in trials)]))
    sys.exit(NOTHING_MEASURED if word is None else exit_status([word.held]))


def _table(title: str, found: list[Compared], notes: list[str], banded: bool) -> Table:
    from harness.report.tables import table

    rows = []
    for one in found:
        form = "g" if one.quantity == "best epoch" else ".4f"
        figures = [number(value, form) for value in (one.log, one.ours)]
        inside = f"{one.inside} of {one.epochs} epochs" if one.log is None else "yes" if one.inside else "no"
        inside += f", first outside {one.first_outside}" if one.first_outside else ""
        judged = [" to ".join(map(number, one.band or ())), inside] if banded else ["", ""]
        rows.append([one.quantity, *figures, *judged])
    lines = [f"- {note}" for note in notes]
    return table(title, ["quantity", "log", "ours", "band", "inside"], rows, "lrrrl", notes=lines)


@click.command(name="models")
def models_command() -> None:
    """List the models: what they need, and where they are from.

    They are of the harness and of installed packages. Features: whether it reads features of items. Negatives: whether
    it is trained on pairs with items drawn at random.

    \b
    bm3 models
    """
    from harness.models.registry import models
    from harness.runs.settings import about, settings

    table = []
    for name, model in sorted((name, entry.model) for name, entry in models().items()):
        needs = ["yes" if needed else "no" for needed in (model.reads_features, model.uses_negatives)]
        table.append([name, *needs, len([*settings(model.Config)]), "\n".join(filter(None, about(model)))])
    say_table(["model", "features", "negatives", "settings", "what it is"], table, [None] * 4 + [80])
    click.echo("\nbm3 settings MODEL: what can be set; bm3 variants MODEL: where text and published code disagree")


@click.command(name="metrics")
def metrics_command() -> None:
    """List the metrics: formula and source.

    They are of the harness and of installed packages. L is a user's list of K items, R the items relevant to the user.
    Those of hits alone can end a training (early_stopping.metric), and are known of stored runs for any group of users.

    \b
    bm3 metrics
    bm3 train bpr mini --metrics mrr,coverage@20
    """
    from harness.evaluation.metrics import known_metrics, metrics_of_hits

    told = {name: " ".join((metric.__doc__ or "").split()) for name, metric in known_metrics().items()}
    rows = [[name, "yes" if name in metrics_of_hits() else "no", text] for name, text in told.items()]
    say_table(["metric", "of hits alone", "what it is"], rows, [None, None, 88])


@click.command(name="settings")
@click.argument("model", required=False)
@PAPER
def settings_command(model: str | None, paper: Paper) -> None:
    """List what --set changes, for MODEL and for training.

    Without MODEL for training alone. Grid: the values that a suite tries where it searches the model's own grid.

    \b
    bm3 settings bm3
    bm3 settings
    bm3 train bm3 mini --set n_layers=2 --set early_stopping.patience=10
    """
    from harness.models.contract import check_class
    from harness.models.registry import find_model
    from harness.runs.settings import search_grid, settings
    from harness.training.config import TrainingConfig

    listed = [("training, of every model", settings(TrainingConfig))]
    if model is not None:
        entry = find_model(model)
        check_class(entry)
        grid = search_grid(entry.name, paper.grids)
        listed.insert(0, (entry.name, settings(entry.model.Config, grid=grid)))
    for of, some in listed:
        table = [[s.name, s.default, s.values, ", ".join(map(str, s.grid)), s.meaning] for s in some]
        click.echo(f"Settings of {of}\n")
        say_table(["setting", "default", "values", "grid", "meaning"], table, [None, None, 24, 14, 56])
        click.echo()
