"""The `bm3` command: options, messages and exit codes. Everything it does is done elsewhere."""

import errno
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.shell_completion import shell_complete

from bm3 import BM3Error, ConfigError
from harness.cli.data import DATA_COMMANDS, unread
from harness.cli.evaluate import evaluate
from harness.cli.literature import literature
from harness.cli.models import metrics_command, models_command, settings_command
from harness.cli.options import (
    DATA,
    DEFAULT_SEED,
    DEVICE,
    OUT,
    PAPER,
    REPORT_FORMATS,
    SEEDS_OF_OURS,
    SHOWN_METRICS,
    THREADS,
    USERS,
)
from harness.cli.pack import pack
from harness.cli.paper import paper
from harness.cli.recommend import export, recommend
from harness.cli.reference import reference
from harness.cli.replay import replay
from harness.cli.runs import runs
from harness.cli.study import reproduce
from harness.cli.suite import suite
from harness.cli.tables import expected, tables
from harness.cli.tools import audit, doctor, profile, regress, scaling
from harness.cli.watch import watch
from harness.ending import (
    CLOSED_PIPE,
    IN_USE,
    INTERRUPTED,
    MISUSED,
    NOTHING_MEASURED,
    TERMINATED,
    Interrupted,
    Terminated,
)

RENAMED: Mapping[str, Mapping[str, str]] = {
    "data prepare": {"--core": "--k-core"},
    **{key: {"--to": "--out"} for key in ("data fetch", "replay", "report", "scaling")},
}
"""By command: options whose old spelling goes on working until the next release, with a line that says so."""
COMPLETION = "_BM3_COMPLETE"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bm3-harness")
def bm3() -> None:
    """Does BM3 do what was published, here, now, and at what cost?

    \b
    bm3 reproduce                   what reproduces on this machine, as a report
    bm3 suite list                  what else can be run; bm3 suite show NAME: what is done of it
    bm3 watch                       a study that is running in another terminal
    bm3 runs list                   what is stored, and how far it is
    bm3 replay RUN                  does a stored run come out the same again?
    bm3 doctor                      what can be run and measured on this machine
    bm3 train bm3 mini              one model on one data set
    bm3 recommend RUN --user 0      lists of a model that was kept (train --keep-model); bm3 export: its vectors
    bm3 profile bm3 mini            where a training step and an evaluation spend their time
    bm3 regress                     did anything become slower, larger or less accurate?
    bm3 scaling                     do time and memory grow as published?
    bm3 conformance                 are the models the published ones?
    bm3 models                      what can be trained; bm3 settings MODEL: what can be set, and what it means
    bm3 metrics                     what rankings are measured by
    bm3 variants                    where text and published code disagree
    bm3 data stats mini             what is in a data set; bm3 data --help: bring in, check, encode, export
    bm3 report runs                 a report on stored runs, also as HTML, LaTeX or CSV
    bm3 pack runs                   runs and a report on them as one file of evidence; verify: is one as it was made?
    bm3 evaluate LISTS              lists of another program, by the same metrics, against a published figure
    bm3 tables 3                    the paper's tables, ours beneath
    bm3 paper list                  papers that runs can be compared with; new, check: one of your own
    bm3 expected list               the figures that runs are compared with
    bm3 literature bm3              what others report of the same cells, and what it says of a published figure
    bm3 audit                       what each variant changes

    Exit codes: 0 everything asked for was measured and held, 1 something lies outside its band or failed, 2 wrong
    usage, configuration or data, 3 nothing could be judged, 130 interrupted, 141 nobody reads the output.
    """


for command in (
    audit,
    doctor,
    evaluate,
    expected,
    export,
    literature,
    models_command,
    pack,
    paper,
    recommend,
    reference,
    profile,
    regress,
    replay,
    reproduce,
):
    bm3.add_command(command)
for command in (metrics_command, runs, scaling, settings_command, suite, tables, watch):
    bm3.add_command(command)


@bm3.command()
@click.argument("model")
@click.argument("dataset")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change a setting; may be repeated.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=DEFAULT_SEED, show_default=True, help="Seed of all randomness."
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
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
    no_wait: bool,
    keep_model: bool,
    rerun: bool,
    dry_run: bool,
    metrics: str | None,
    key: str | None,
    device: str,
    threads: int | None,
    data: Path | None,
    out: Path,
) -> None:
    """Train MODEL on DATASET, evaluate its best epoch, and store the run.

    A run that is stored and finished is shown, not repeated. An interrupted or killed one goes on after its last
    checkpoint, to the same bits as if it had never stopped.

    \b
    bm3 train bm3 mini --epochs 20
    bm3 train lightgcn baby --data ~/data --set n_layers=3 --set reg_weight=1e-4 --seed 1
    bm3 train bpr mini --set early_stopping.metric=ndcg@10 --metrics ndcg,mrr,coverage
    bm3 train bm3 ./data/mine --set features=frozen --set early_stopping.rounding=none
    bm3 train bm3 ./data/mine --keep-model
    """
    from harness.cli.progress import trained
    from harness.evaluation.compiling import use_threads
    from harness.evaluation.metrics import asked_metrics
    from harness.evaluation.words import METRICS
    from harness.ingest.exporting import own_ids
    from harness.runs.settings import parse_assignments
    from harness.runs.trial import dataset_for, finished_run, make_trial, resolve_device
    from harness.training.fit import evaluation_of

    settings: dict[str, Any] = dict(parse_assignments(assignments))
    if epochs is not None:
        settings["epochs"] = epochs
    if threads is not None:
        use_threads(threads)
    trial = make_trial(model, dataset_for(settings, dataset, data), dataset, settings, seed, resolve_device(device))
    if key not in (None, trial.key):
        raise ConfigError(f"the code, data or compiled loops are others here ({trial.key} instead of {key})")
    for note in unread(dataset, data):
        click.echo(f"note: {note}", err=True)
    if dry_run:
        there = "is finished" if finished_run(trial, out) else "would be trained"
        click.echo(f"{trial.command}\nrun: {out / trial.key} {there}, at most {trial.epochs} epochs")
        return
    evaluated = evaluation_of(trial.dataset, trial.training)
    usual = [name for name in evaluated.names if name.partition("@")[0] in METRICS[:2]]
    shown = asked_metrics(metrics, evaluated.names) if metrics else usual  # before anything is trained
    ids = own_ids(dataset, data, trial.dataset) if keep_model else None
    run = trained(trial, out, wait=not no_wait, keep=ids, rerun=rerun)
    result = run.outcome
    test = "  ".join(f"{name} {value:.4f}" for name in shown if (value := run.value(name)) is not None)
    click.echo(f"best epoch {result.best_epoch} of {result.epochs}; test: {test}\nrun: {run.path}")


@bm3.command(name="report")
@click.argument("folder", type=click.Path(path_type=Path))
@REPORT_FORMATS
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Where to write. Default: into FOLDER.")
@click.option("--literature", is_flag=True, help="With what others report of each cell; HTML always has it.")
@SHOWN_METRICS
@USERS
@DATA
@PAPER
def report_command(
    folder: Path,
    formats: list[str],
    out: Path | None,
    literature: bool,
    metrics: str | None,
    users: Path | None,
    data: Path | None,
    paper: Path,
) -> None:
    """Write a report on the runs stored below FOLDER, and give its verdict as exit code.

    --metrics and --users add a table per data set to md and html; they change no verdict.

    \b
    bm3 report runs
    bm3 report runs --literature
    bm3 report runs --format md,html,tex,csv
    bm3 report runs --metrics hit,mrr,coverage
    bm3 report runs --metrics recall,ndcg --users cold-start.txt
    """
    from harness.cli.runs import users_of
    from harness.cli.study import finish
    from harness.evaluation.metrics import asked_metrics
    from harness.paper.load import load_paper
    from harness.paper.study import Extra, make_study

    asked = f"a report on the runs in {folder.name or 'this folder'}"
    study = make_study(folder, asked, paper=load_paper(paper))
    study = replace(study, literature=literature)
    if metrics or users:
        finished = [run for row in study.rows for run in row.runs]
        there = dict.fromkeys(name for run in finished for name in run.known_metrics)
        group = {} if users is None else {run.dataset_hash: run for run in finished}
        among = {of: users_of(run, users, data) for of, run in group.items() if users}
        asked_for = Extra(tuple(asked_metrics(metrics or ",".join(study.paper.metrics), there)), among, users)
        study = replace(study, extra=asked_for)
    finish(study, out or folder, formats)


@bm3.command(name="conformance")
@click.argument("path", metavar="[TRACE|FOLDER]", type=click.Path(path_type=Path), required=False)
@click.option("--log", type=click.Path(path_type=Path), metavar="FILE", help="A training log to compare runs with.")
@click.option("--point", type=click.IntRange(min=1), metavar="N", help="Of the log's settings; default: best on valid.")
@click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="Train and compare the log's first N epochs.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison with a log as JSON.")
@SEEDS_OF_OURS
@DEVICE
@THREADS
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
    device: str,
    threads: int | None,
    data: Path | None,
    out: Path,
    paper: Path,
) -> None:
    """Replay one TRACE or those in FOLDER (default: what comes with the paper and with installed models) on a device.

    One row per trace and quantity with the largest difference. Exit code 0 when all that could be replayed passed, 1
    when one failed, 3 when none could be replayed.

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
        from harness.cli.logs import DEFAULT_SEEDS, follow
        from harness.evaluation.compiling import use_threads

        if path is not None:
            raise click.UsageError("a trace and --log are two questions: ask one")
        if threads is not None:
            use_threads(threads)
        follow(log, point, seeds or DEFAULT_SEEDS, epochs, device, data, out, paper, as_json)
    if point or epochs or seeds or as_json:
        raise click.UsageError("--point, --epochs, --seeds and --json are for --log FILE")
    from tabulate import tabulate

    from harness.cli.study import conformance_line
    from harness.paper.conformance import Status, conformance, known_traces, trace_statuses
    from harness.paper.load import load_paper
    from harness.runs.trial import resolve_device

    where = resolve_device(device)
    checks = known_traces(load_paper(paper), where) if path is None else conformance(path, where)
    table = [[c.trace, c.quantity, _number(c.difference), _number(c.tolerance), c.status.value, c.note] for c in checks]
    click.echo(
        tabulate(table, ["trace", "quantity", "difference", "tolerance", "result", "where"], disable_numparse=True)
    )
    click.echo(conformance_line(checks, where))
    statuses = set(trace_statuses(checks).values())
    sys.exit(1 if Status.FAILED in statuses else 0 if Status.PASSED in statuses else NOTHING_MEASURED)


@bm3.command(name="variants")
@click.argument("model", required=False)
def variants_command(model: str | None) -> None:
    """List the settings in which a paper's text and the published code disagree, of MODEL or of all.

    The first value is what was published, and the default. Change one with --set SETTING=VALUE.

    \b
    bm3 variants
    bm3 variants mmgcn
    bm3 train mmgcn mini --set training=as_authored
    """
    from tabulate import tabulate

    from harness.models.registry import find_model
    from harness.paper.folders import DEFAULT, paper_folder
    from harness.runs.settings import ALL_MODELS, variants
    from harness.tools.audit import effect_lines, known_effects

    wanted = None if model is None else find_model(model).name
    effects = known_effects(paper_folder(DEFAULT))
    for row in variants():
        if wanted in (None, row.model) or row.model == ALL_MODELS:
            values = " | ".join(str(value) for value in row.values)
            lines = [("text", row.text), ("code", row.code), ("where", row.where)]
            lines += [("effect", text) for text in effect_lines(row, effects, wanted)]
            click.echo(f"{row.model}: {row.setting} = {values}")
            click.echo(tabulate([[f"  {name}", value] for name, value in lines], tablefmt="plain") + "\n")


@bm3.group()
def data() -> None:
    """Look at data sets, check them, and bring them in and out."""


for command in DATA_COMMANDS:
    data.add_command(command)


@data.command()
@click.argument("dataset")
@DATA
def stats(dataset: str, data: Path | None) -> None:
    """Print what is in DATASET: a name, or the path of its folder.

    \b
    bm3 data stats mini
    bm3 data stats baby --data ~/data
    bm3 data stats ./data/mine
    """
    from tabulate import tabulate

    from harness.data import PARTS, load_dataset

    found = load_dataset(dataset, data)
    row = [
        found.name,
        f"{found.n_users:,}",
        f"{found.n_items:,}",
        f"{found.n_interactions:,}",
        f"{found.sparsity:.2f} %",
    ]
    click.echo(tabulate([row], ["data set", "users", "items", "interactions", "sparsity"], disable_numparse=True))
    click.echo("\nparts: " + ", ".join(f"{part} {len(found.part(part)):,}" for part in PARTS))
    for name, table in found.features.items():
        surrogate = " (surrogate vectors)" if name in found.surrogates else ""
        click.echo(f"modality {name}: {table.shape[0]:,} x {table.shape[1]:,} {table.dtype.name}{surrogate}")
    for part in ("valid", "test"):
        unseen = len(found.unseen_users(part))
        if unseen:
            click.echo(f"note: {unseen} users of {part} have no training interaction and are left out of evaluation")
    for note in unread(dataset, data):
        click.echo(f"note: {note}")
    click.echo(f"content hash: {found.content_hash}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def main() -> None:
    """Run the command and leave with its exit code, in silence where nobody reads what it prints."""
    try:
        code = _outcome(sys.argv[1:])
        if sys.stdout is not None:  # as where a shell has closed it
            sys.stdout.flush()
    except OSError as error:
        broken = isinstance(error, BrokenPipeError)
        if not broken and (error.errno not in FULL or error.filename is not None):
            raise
        _let_go_of_output()
        room = f"{error.strerror}, on standard output or elsewhere; make room and give the same command again"
        code = CLOSED_PIPE if broken else _told(MISUSED, room)
    sys.exit(code)


def _outcome(arguments: Sequence[str]) -> int:
    """Run the command; its exit code. What ends it early is told in one line."""
    try:
        if instruction := os.environ.get(COMPLETION):
            return shell_complete(bm3, {}, "bm3", COMPLETION, instruction)
        with bm3.make_context(
            "bm3", list(_respelled(arguments))
        ) as context:  # click's own `main` ends a closed pipe with 1
            bm3.invoke(context)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):  # as rich ends
            return CLOSED_PIPE
        return leaving.code if isinstance(leaving.code, int) else 0
    except BM3Error as error:
        return _told(error.exit_code, str(error))
    except PermissionError as error:
        if error.filename is None:
            raise
        return _told(MISUSED, f"{error.filename}: {error.strerror}; check its permissions, or those of its folder")
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return MISUSED
    except click.ClickException as error:
        return _told(error.exit_code, error.format_message())
    except Interrupted as interruption:
        terminated = isinstance(interruption.__cause__, Terminated)
        return _told(TERMINATED if terminated else INTERRUPTED, f"interrupted: {interruption}")
    except Terminated:
        return _told(TERMINATED, "terminated")
    except (KeyboardInterrupt, click.Abort):
        return _told(INTERRUPTED, "interrupted")
    return 0


def _respelled(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments, with options as they are spelled now."""
    words = [word for word in arguments if not word.startswith("-")]
    renamed = {**RENAMED.get(" ".join(words[:1]), {}), **RENAMED.get(" ".join(words[:2]), {})}
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if option in renamed:
            click.echo(f"{option} is now {renamed[option]}; the old spelling goes with the next release", err=True)
        yield renamed.get(option, option) + equals + value


def _told(code: int, message: str) -> int:
    with suppress(OSError):  # standard error may be where nobody reads either
        print("bm3:", " ".join(message.split()), file=sys.stderr, flush=True)
    return code


def _let_go_of_output() -> None:
    """Send what standard streams still hold nowhere, or the interpreter would complain of it in the end."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
