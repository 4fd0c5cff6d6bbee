"""`bm3 conformance --log`: training with a log's settings, and what is said of its curve. The rule is `paper.logs`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from harness.cli.progress import trained
from harness.common import exit_status
from harness.ending import NOTHING_MEASURED

if TYPE_CHECKING:
    from harness.paper.logs import Compared
    from harness.report.tables import Table

DEFAULT_SEEDS = [1, 2, 3]


def follow(
    path: Path,
    number: int | None,
    seeds: list[int],
    epochs: int | None,
    device: str,
    data: Path | None,
    out: Path,
    paper: Path,
    as_json: bool,
) -> NoReturn:
    """Train what the log did, once per seed, print the comparison, and leave with its word as exit code."""
    from harness.data import PARTS
    from harness.paper import logs
    from harness.paper.load import load_paper
    from harness.paper.published import canonical_metric
    from harness.report.tables import text
    from harness.runs.trial import dataset_for, make_trial, resolve_device

    about, log = load_paper(paper), logs.read_log(path)
    point = log.chosen(number)
    meant = logs.meant(log, point, about)
    if epochs is not None:
        point, meant.settings["epochs"] = replace(point, epochs=point.epochs[:epochs]), epochs
        meant.notes.append(f"only the first {epochs} epochs are compared: its best epoch is the best of these")
    name = log.header["dataset"]
    dataset = dataset_for(meant.settings, name, data)
    logs.check_counts(log, dataset.n_users, dataset.n_items, {part: len(dataset.part(part)) for part in PARTS})
    where = resolve_device(device)
    trials = [make_trial(meant.entry.name, dataset, name, meant.settings, seed, where) for seed in seeds]
    runs = [trained(trial, out) for trial in trials]
    batches = -(-len(dataset.train) // trials[0].training.batch_size)
    found = logs.compare(point, runs, batches, [canonical_metric(metric) for metric in about.metrics])
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
    from harness.common import number
    from harness.report.tables import table

    rows = []
    for one in found:
        form = "g" if one.quantity == "best epoch" else ".4f"
        figures = [number(value, form) for value in (one.log, one.ours)]
        inside = f"{one.inside} of {one.epochs} epochs" if one.log is None else "yes" if one.inside else "no"
        inside += f", first outside {one.first_outside}" if one.first_outside else ""
        rows.append(
            [one.quantity, *figures, *([" to ".join(map(number, one.band or ())), inside] if banded else ["", ""])]
        )
    lines = [f"- {note}" for note in notes]
    return table(title, ["quantity", "log", "ours", "band", "inside"], rows, "lrrrl", notes=lines)
