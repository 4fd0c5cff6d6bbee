"""The commands `bm3 runs …` and `bm3 replay`: what the store holds, cleaning it up, and a run once more."""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from bm3 import DataError
from harness.cli.options import DATA, OUT, PAPER, PATH, SHOWN_METRICS, STORE, THREADS, USERS, Device
from harness.cli.output import say
from harness.common import size
from harness.runs.words import DEVICES, STATES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.paper.load import Paper
    from harness.runs.record import RunRecord

NAMED = 3  # runs that share a note

FOLDER = click.argument("folder", type=PATH, required=False)


@click.group()
def runs() -> None:
    """Look at stored runs, check them, remove what is not needed.

    \b
    bm3 runs list
    bm3 runs show bm3-164e
    """


@runs.command(name="list")
@FOLDER
@click.option("--model", metavar="NAME", help="Only runs of this model.")
@click.option("--dataset", metavar="NAME", help="Only runs on this data set.")
@click.option("--state", type=click.Choice(STATES), help="Only runs in this state.")
@click.option("--json", "as_json", is_flag=True, help="As JSON: a list with an object for each run.")
@OUT
def list_command(
    folder: Path | None, model: str | None, dataset: str | None, state: str | None, as_json: bool, out: Path
) -> None:
    """List the runs below FOLDER (default: --out), with the best epoch so far and R@20.

    \b
    bm3 runs list
    bm3 runs list runs/mini --model bm3 --state finished
    bm3 runs list --json
    """
    from harness.cli.progress import reading_runs
    from harness.runs.index import entries
    from harness.runs.text import list_text

    where = _there(folder or out)
    everything = entries(where, reading_runs)
    found = everything
    for name, wanted in (("state", state), ("model", model), ("dataset", dataset)):
        found = [one for one in found if wanted is None or getattr(one, name).lower() == wanted.lower()]
    if as_json:
        click.echo(json.dumps([one.values() for one in found], indent=1))
    elif found:
        click.echo(list_text(found))
    else:
        click.echo(f"None of the {len(everything)} runs in {where} is of that kind." if everything else _none(where))


@runs.command()
@click.argument("run")
@SHOWN_METRICS
@USERS
@DATA
@OUT
def show(run: str, metrics: str | None, users: Path | None, data: Path | None, out: Path) -> None:
    """Show everything about RUN: its folder, or its key in --out, or a part of that.

    \b
    bm3 runs show runs/mini/bm3-164ea68512-seed5
    bm3 runs show bm3-164e --metrics all
    bm3 runs show bm3-164e --metrics recall,mrr --users cold-start.txt
    """
    from harness.evaluation.metrics import asked_metrics
    from harness.runs.inspect import find, key_below
    from harness.runs.text import run_text

    found = find(run, out)
    key = key_below(out, found.path) if found.path.is_relative_to(out) else found.path.name
    if (metrics or users) and not found.finished:
        raise DataError(f"{found.path}: is {found.state}, so it has no metrics")
    shown = asked_metrics(metrics, found.known_metrics) if metrics else []
    click.echo(run_text(found, key, shown, users_of(found, users, data) if users else None))


@runs.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@OUT
def diff(first: str, second: str, out: Path) -> None:
    """Show how run B differs from run A, both named as for `bm3 runs show`.

    Exit code 0 when the results are the same bits, 1 when they differ although the same was asked, 3 when one has no
    result, or settings, data, seed or device differ too.

    \b
    bm3 runs diff bm3-164e bm3-9a01
    bm3 runs diff runs/mini/bm3-164ea68512-seed5 elsewhere/mini/bm3-164ea68512-seed5
    """
    from harness.runs.difference import difference
    from harness.runs.inspect import find
    from harness.runs.text import difference_text

    one, other = find(first, out), find(second, out)
    found = difference(one, other)
    click.echo(difference_text(found, str(one.path), str(other.path)))
    sys.exit(found.exit_code)


@runs.command()
@FOLDER
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--superseded", is_flag=True, help="Also runs that were run anew, to the end.")
@click.option("--unfinished", is_flag=True, help="Also unfinished and failed runs that nobody is running.")
@click.option("--stale", is_flag=True, help="Also finished runs of another numerics version than today's.")
@click.option("--models", is_flag=True, help="Also weights that were kept of finished runs; the runs stay.")
@click.option("--compress", "compressing", is_flag=True, help="Make epochs of finished runs smaller.")
@OUT
def gc(folder: Path | None, dry_run: bool, compressing: bool, out: Path, **also: bool) -> None:
    """Remove what no one needs from the store FOLDER (default: --out), and say what.

    That is half-written files, and checkpoints and locks of finished runs; options add whole runs or kept models, or
    compress what stays. What is running or damaged stays as it is. Links are not followed.

    \b
    bm3 runs gc --dry-run
    bm3 runs gc --superseded --unfinished
    """
    from harness.runs.clean import Also, compress, remove, unneeded
    from harness.runs.index import entries

    where = _there(folder or out)
    asked = cast("list[Also]", [name for name, wanted in also.items() if wanted])
    found = unneeded(where, asked)
    verb, end, gone = ("would remove", "would be free", 0) if dry_run else ("removed", "are free", 0)
    for one in found:
        bytes_ = one.size
        if dry_run or remove(where, one):
            gone += bytes_
            click.echo(f"{verb}: {one.path} ({one.why}, {size(bytes_)})")
        else:
            click.echo(f"left, since it is in use now: {one.path}")
    for entry in entries(where):
        if entry.state == "damaged":
            click.echo(f"left, since it is damaged: {entry.reason}")
    if compressing:
        smaller = [compress(entry.path, dry_run=dry_run) for entry in entries(where) if entry.state == "finished"]
        click.echo(f"compressed files of {sum(map(bool, smaller))} runs: {size(sum(smaller))} {end}")
    elif found:
        click.echo(f"{size(gone)} {end}")
    else:
        click.echo(f"Nothing to remove in {where}." if where.is_dir() else _none(where))


@runs.command(name="verify")
@FOLDER
@OUT
def verify_command(folder: Path | None, out: Path) -> None:
    """Check that every run below FOLDER (default: --out) is whole and is what its name says.

    Its description is that of its name, its epochs are complete, its result is that of its epochs and its hits, and
    every file has the digest (SHA-256) that the run stored when it finished, which earlier versions did not.
    Exit code 0 when all are in order, 1 when one is damaged, 3 when there is none.

    \b
    bm3 runs verify
    bm3 runs verify runs/mini
    """
    from harness.runs.inspect import key_below
    from harness.runs.store import run_folders
    from harness.runs.verify import verify

    where = _there(folder or out)
    notes: dict[str, list[str]] = defaultdict(list)
    damaged, folders = 0, list(run_folders(where))
    for path in folders:
        key = key_below(where, path)
        found = verify(path)
        damaged += bool(found.problems)
        say(found.problems, f"damaged: {key}: ")
        for note in found.notes:
            notes[note].append(key)
    if not folders:
        click.echo(_none(where))
        sys.exit(3)
    for note, keys in notes.items():
        more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
        click.echo(f"note: {note}: {', '.join(keys[:NAMED])}{more}")
    number = len(folders)
    click.echo(f"{number} {'run' if number == 1 else 'runs'}: {number - damaged} in order, {damaged} damaged")
    sys.exit(1 if damaged else 0)


def users_of(run: RunRecord, path: Path, data: Path | None) -> NDArray[np.int64]:
    """Those users of a run whose ids stand in a file; what is left out is said. Raises DataError where none is."""
    import numpy as np

    from harness.evaluation.lists import numbers_of
    from harness.ingest.exporting import USERS as FILE
    from harness.ingest.exporting import called, own_ids
    from harness.ingest.features import read_row_ids
    from harness.runs.trial import dataset_of

    name, dataset = dataset_of(run, data)
    own = own_ids(name, data, dataset)
    asked = numbers_of(filter(None, read_row_ids(path, kind="user")), called(own, dataset)[0])
    unknown = [each for each, number in asked.items() if number < 0]
    found = np.array([number for number in asked.values() if number >= 0], np.int64)
    tested = found[np.isin(found, dataset.test[:, 0]) & np.isin(found, dataset.train[:, 0])]
    known = f"{len(found)} of {len(asked)} ids are users of {dataset.name}, {len(tested)} of them tested"
    said = f"{path}: {known}" + (f"; first that is none: {unknown[0]!r}" if unknown else "")
    if not len(tested):
        raise DataError(f"{said}; needed are ids as in {FILE if own[0] else 'the data, from 0'}, one a line")
    if len(tested) < len(asked):
        click.echo(f"note: {said}", err=True)
    return tested


def _there(where: Path) -> Path:
    """The folder, unless it was named and is not there: nothing need have been stored yet where runs usually are."""
    if where != STORE and not where.exists():
        raise DataError(
            f"{where}: no such folder; name one of runs, as bm3 train --out or bm3 reproduce --out makes it"
        )
    return where


def _none(where: Path) -> str:
    return f"There are no runs in {where}; bm3 train or bm3 reproduce makes some, for example bm3 reproduce mini."


@click.command()
@click.argument("run")
@click.option("--device", type=Device(DEVICES), help="Where to compute. Default: as the run.")
@click.option("--out", type=PATH, metavar="DIR", help="Keep the new run, as RUN was kept; it can be resumed.")
@click.option("--dry-run", is_flag=True, help="Say what would be repeated, and train nothing.")
@THREADS
@DATA
@PAPER
def replay(
    run: str, device: str | None, dry_run: bool, threads: int | None, data: Path | None, out: Path | None, paper: Paper
) -> None:
    """Train RUN again: does it come out the same, to the bit?

    RUN is the path of a stored run, or a part of its name that no other below runs has. It is repeated with its own
    settings, seed and number of threads. What differs is shown with its likely causes. Nothing stored is changed.

    Exit code 0: the same bits; or other bits in another environment, with the test metric of early stopping within the
    tolerance for replays (bm3 expected show tolerances). 1: other bits in the same environment, or further away.

    \b
    bm3 replay bm3-164e
    bm3 replay docs/results/runs/mini/bm3-cc65bfb649-seed1 --threads 1
    """
    from harness.cli.train import trained
    from harness.evaluation.compiling import use_threads
    from harness.ingest.exporting import own_ids
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
        if Path(os.path.realpath(store)) in stored.path.resolve().parents:
            raise DataError(f"--out {store}: holds the run itself, to be compared with itself; name another folder")
        click.echo(f"repeating: {trial.command}", err=True)
        if out and (stored.path / MODEL).is_file():
            trial = replace(trial, keep=own_ids(trial.dataset_name, data, trial.dataset))
        again = trained(trial, store, "" if out else "nothing is kept without --out")
        found = difference(stored, again)
    click.echo(difference_text(found, f"{stored.path} (stored)", f"{shlex.join(['bm3', 'replay', run])} (now)"))
    if found.verdict == "same":
        return
    likely = causes(found)
    none = ["none is recorded: the same code in the same environment"]
    click.echo("\nlikely causes\n" + "\n".join(f"  {cause}" for cause in likely or none))
    before, now = (one.outcome.test[stored.stopping] for one in (stored, again))
    near = abs(now - before) <= paper.tolerances.replay.relative * abs(before)
    sys.exit(0 if likely and near else 1)
