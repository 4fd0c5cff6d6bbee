"""The command `bm3 regress`: options, messages, files and exit code. The check itself is `guarding`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import harness
from bm3 import ConfigError
from harness.cli.options import DEVICE, PAPER
from harness.common import check_writable, write_whole, writing

if TYPE_CHECKING:
    from harness.tools.regress.alternation import Tree
    from harness.tools.regress.baseline import Baseline
    from harness.tools.regress.guarding import Check
    from harness.tools.regress.machine_class import MachineClass
    from harness.tools.regress.measurement import Measurement
    from harness.tools.regress.regression_rules import Rules
    from harness.tools.regress.report import Regression

RULES_FILE = "regression.toml"
SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
CHECKOUT = Path(harness.__file__).parent.parent


@click.command()
@click.option(
    "--baseline",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Compare with this measurement. Default: baseline-CLASS.json in --out, for the class of this machine.",
)
@click.option("--update-baseline", is_flag=True, help="Measure, and store the measurement as the baseline.")
@click.option("--against", metavar="REV", help="Compare with this git revision, measured in turn with the files here.")
@click.option("--quick", is_flag=True, help="Fewer repetitions: a minute and a half on two slow cores.")
@click.option("--dry-run", is_flag=True, help="Say what would be measured and compared, and do neither.")
@DEVICE
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="CPU threads; with one, measurements are steadiest.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/regression"),
    show_default=True,
    metavar="DIR",
    help="Folder for the report, JUnit XML, the history and its page.",
)
@PAPER
def regress(
    baseline: Path | None,
    update_baseline: bool,
    against: str | None,
    quick: bool,
    dry_run: bool,
    device: str,
    threads: int,
    out: Path,
    paper: Path,
) -> None:
    """Did anything become slower, larger or less accurate?

    Recorded traces are replayed, all models trained for a few epochs on mini and some steps on a synthetic data set of
    Baby's size, and rankings evaluated, again and again in turn, in processes of their own. The figures are compared
    with a stored baseline of the same machine class, or with another revision. What looks like a slowdown or a growth
    is measured again before it counts. The rules are the paper's regression.toml, docs/ci.md explains them.

    Exit codes: 0 nothing regressed, 1 something did, 2 wrong usage, 3 nothing could be compared.

    \b
    bm3 regress --update-baseline       once per machine class
    bm3 regress                         against that baseline
    bm3 regress --against main          against a revision, no baseline needed
    """
    from harness.paper.load import load_paper
    from harness.runs.trial import resolve_device
    from harness.tools.regress.alternation import MeasuringError, Repetitions, Tree, measure
    from harness.tools.regress.baseline import Baseline, NothingToCompareError, read_baseline
    from harness.tools.regress.guarding import Material, check, laid_out, workload_identity
    from harness.tools.regress.machine_class import digest, machine_class
    from harness.tools.regress.regression_rules import load_rules
    from harness.tools.regress.report import described_source
    from harness.tools.regress.revision import revision_of

    if against is not None and (baseline is not None or update_baseline):
        raise ConfigError("--against compares with a revision: leave --baseline and --update-baseline out")
    if quick and update_baseline:
        raise ConfigError("--quick is for checks: a baseline needs its repetitions, leave one of the two options out")
    about = load_paper(paper)
    rules = load_rules(about.file(RULES_FILE))
    where = resolve_device(device)
    machine = machine_class(where, threads)
    path = baseline or out / f"baseline-{digest(machine)}.json"
    preset = "baseline" if update_baseline else "quick" if quick else "default"
    try:
        stored = None if update_baseline or against is not None else read_baseline(path)
        if stored is not None:
            stored.check(machine, stored.workload, path)  # before data sets are made
        commit = None if against is None else revision_of(CHECKOUT, against)
        if dry_run:
            often = getattr(rules.presets, preset)
            aim = f"stored as {path}" if update_baseline else f"compared with {path if commit is None else commit}"
            click.echo(
                f"{len(rules.workload.models)} models on two data sets, evaluation and traces would be measured by the "
                f"preset {preset} ({often.passes} processes with {often.rounds} rounds each, memory {often.memory} "
                f"times), and {aim}"
            )
            return
        with writing(out, "name another folder with --out"):
            out.mkdir(parents=True, exist_ok=True)
        if update_baseline:
            with writing(path, "name another file with --baseline"):
                path.parent.mkdir(parents=True, exist_ok=True)
                check_writable(path)
        material = Material.made(about.file("traces"))
        identity = workload_identity(rules.workload, material, where.type)
        if stored is not None:
            stored.check(machine, identity, path)
        with laid_out(rules.workload, material, where.type, threads) as plan:
            repetitions = Repetitions(**vars(getattr(rules.presets, preset)))
            here = Tree("here", CHECKOUT)
            if update_baseline:
                measurement = measure([here], plan, repetitions, tell=_tell)[0]
                _update(path, Baseline(machine, identity, _source(), measurement), rules, out)
            with _before(stored, against) as before:
                found = check(here, plan, repetitions, rules, before, tell=_tell)
        compared_with = (
            f"{path.name}, of {described_source(stored.source)}" if stored else f"revision {against}, measured in turn"
        )
        _finish(found, machine, compared_with, preset, out)
    except (NothingToCompareError, MeasuringError) as error:
        click.echo(f"bm3: {' '.join(str(error).split())}", err=True)
        sys.exit(3)


@contextmanager
def _before(stored: Baseline | None, against: str | None) -> Iterator[Measurement | Tree]:
    """What is compared with: the one of the two that there is."""
    if stored is not None:
        yield stored.measurement
    if against is not None:
        from harness.tools.regress.revision import tree_of

        with tree_of(CHECKOUT, against, _tell) as tree:
            yield tree


def _update(path: Path, made: Baseline, rules: Rules, out: Path, notes: Sequence[str] = ()) -> NoReturn:
    """Store a baseline, unless it is none: what fails now must not become what later checks are compared with."""
    from harness.tools.regress.baseline import write_baseline
    from harness.tools.regress.machine_class import described, digest
    from harness.tools.regress.regression import Outcome, compare
    from harness.tools.regress.report import BASELINE_ITSELF, Regression

    measurement = made.measurement
    failed = [f"trace {name}: {trace.note}" for name, trace in measurement.traces.items() if trace.status == "failed"]
    failed += [f"{subject} ({error})" for subject, error in measurement.errors.items()]
    # Against itself, it says what else is wrong: bits that differ, spreads that are too large.
    itself = compare(measurement, measurement, rules, str(made.machine["device"]))
    failed += [f"{one.subject}: {one.reason}" for one in itself if one.outcome is Outcome.REGRESSED]
    if failed:
        click.echo(f"not stored, since this fails: {'; '.join(failed)}", err=True)
        sys.exit(1)
    write_baseline(path, made)
    about = (described(made.machine), BASELINE_ITSELF, made.source, "baseline", measurement, (), notes)
    _remember(Regression(*about), out, digest(made.machine))
    unstable = [f"{one.subject} ({one.reason})" for one in itself if one.outcome is Outcome.UNSTABLE]
    if unstable:
        click.echo(f"unstable here, so regressions of these cannot be seen: {'; '.join(unstable)}", err=True)
    for note in notes:
        click.echo(f"as it was measured: {note}", err=True)
    click.echo(f"baseline: {path}")
    sys.exit(0)


def _finish(
    found: Check, machine: MachineClass, compared_with: str, preset: str, out: Path, notes: Sequence[str] = ()
) -> NoReturn:
    """Write everything, print the summary, and leave with the verdict."""
    from harness.tools.regress.machine_class import described, digest
    from harness.tools.regress.report import Regression, junit, markdown

    about = (described(machine), compared_with, _source(), preset, found.now, found.comparisons, notes)
    regression = Regression(*about)
    text = markdown(regression)
    trend = _remember(regression, out, digest(machine))
    for name, content in (("report.md", text), ("junit.xml", junit(regression))):
        with writing(out / name, "name another folder with --out"):
            write_whole(out / name, content.encode())
    if summary := os.environ.get(SUMMARY_VARIABLE):
        try:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:  # no reason to lose the verdict
            click.echo(f"{SUMMARY_VARIABLE}: {summary} cannot be written ({error.strerror})", err=True)
    click.echo(text.split("\n## ")[0].rstrip() + "\n")
    for path in (out / "report.md", out / "junit.xml", trend):
        click.echo(f"written: {path}")
    sys.exit(regression.code)


def _remember(regression: Regression, out: Path, kind: str) -> Path:
    """Add to the history, and draw all of it anew."""
    from harness.tools.regress.report import history_entry
    from harness.tools.regress.trend import append, page, read

    append(out / "history" / f"{kind}.jsonl", regression.machine, history_entry(regression))
    trend = out / "trend.html"
    with writing(trend, "name another folder with --out"):
        histories = [read(path) for path in sorted((out / "history").glob("*.jsonl"))]
        write_whole(trend, page(histories).encode())
    return trend


def _source() -> dict[str, Any]:
    from harness.measure.environment import source
    from harness.runs.store import now as time_now

    here = source(Path(harness.__file__).parent)
    return {"revision": here["source_revision"], "dirty": here["source_dirty"], "when": time_now()}


def _tell(stage: str) -> None:
    click.echo(f"regress: {stage}", err=True)
