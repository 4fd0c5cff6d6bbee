"""The command `bm3 regress`: options, messages, files and exit code. The check itself is `tools.regress`."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import click

import harness
from bm3.errors import ConfigError
from harness.cli.options import DEVICE, PAPER

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
@click.option("--quick", is_flag=True, help="Fewer repetitions: some two minutes on two slow cores.")
@click.option("--dry-run", is_flag=True, help="Say what would be measured and compared, and do neither.")
@PAPER
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
    help="Folder for the report, JUnit XML and the baseline.",
)
def regress(
    baseline: Path | None,
    update_baseline: bool,
    against: str | None,
    quick: bool,
    dry_run: bool,
    paper: Path,
    device: str,
    threads: int,
    out: Path,
) -> None:
    """Did anything become slower, larger or less accurate?

    Recorded traces are replayed, all models trained for a few epochs on mini and some steps on a synthetic data set of
    Baby's size, and rankings evaluated, again and again in processes of their own. The figures are compared with a
    stored baseline of the same machine class, or with another revision. What looks like a slowdown or a growth is
    measured again before it counts. The rules are the paper's regression.toml, docs/ci.md explains them.

    Exit codes: 0 nothing regressed, 1 something did, 2 wrong usage, 3 nothing could be compared.

    \b
    bm3 regress --update-baseline       once per machine class
    bm3 regress                         against that baseline
    bm3 regress --against main          against a revision, no baseline needed
    """
    from harness.common import check_writable, write_whole, writing
    from harness.measure.environment import source
    from harness.paper.load import load_paper
    from harness.runs.store import now
    from harness.runs.trial import resolve_device
    from harness.tools.regress import baseline as stored
    from harness.tools.regress import check, judge, measure, text
    from harness.tools.regress.rules import load_rules

    if against is not None and (baseline is not None or update_baseline):
        raise ConfigError("--against compares with a revision: leave --baseline and --update-baseline out")
    if quick and update_baseline:
        raise ConfigError("--quick is for checks: a baseline needs its repetitions, leave one of the two options out")
    published = load_paper(paper)
    rules = load_rules(published.file("regression.toml"))
    where = resolve_device(device)
    machine = stored.machine_class(where, threads)
    path = baseline or out / f"baseline-{stored.digest(machine)}.json"
    preset = "baseline" if update_baseline else "quick" if quick else "default"
    often, before = rules.presets[preset], None
    if against is not None:
        compared_with = f"revision {against} ({measure.revision_of(CHECKOUT, against)[:12]}), measured in turn"
    elif not update_baseline:
        before = stored.read_baseline(path)
        before.check(machine, before.workload, path)  # before data sets are made
        compared_with = f"{path.name}, of {text.described_source(before.source)}"
    if dry_run:
        aim = f"stored as {path}" if update_baseline else f"compared with {path if against is None else against}"
        click.echo(
            f"{len(rules.workload.models)} models on two data sets, a ranking and traces would be measured by the "
            f"preset {preset} ({often.passes} processes with {often.rounds} rounds each, memory {often.memory} times), "
            f"and {aim}"
        )
        return
    with writing(path if update_baseline else out, "name another place with --out or --baseline"):
        for folder in (out, path.parent) if update_baseline else (out,):
            folder.mkdir(parents=True, exist_ok=True)
        if update_baseline:
            check_writable(path)
    here = measure.Tree("here", CHECKOUT)
    made_of = source(Path(harness.__file__).parent)
    about = {"revision": made_of["source_revision"], "dirty": made_of["source_dirty"], "when": now()}
    with ExitStack() as stack:
        inputs = Path(stack.enter_context(TemporaryDirectory(prefix="bm3-regress-")))
        plan = check.plan_of(rules.workload, *check.inputs(published), inputs, where.type, threads)
        if update_baseline:
            measured = measure.measure([here], plan, often, tell=_tell)[0]
            failed, unstable = check.faults(measured, rules, where.type)
            if failed:
                click.echo(f"not stored, since this fails: {'; '.join(failed)}", err=True)
                sys.exit(1)
            stored.write_baseline(path, stored.Baseline(dict(machine), dict(plan.work), about, measured))
            if unstable:
                click.echo(f"unstable here, so regressions of these cannot be seen: {'; '.join(unstable)}", err=True)
            click.echo(f"baseline: {path}")
            return
        if before is not None:
            before.check(machine, plan.work, path)
            other: stored.Measurement | measure.Tree = before.measurement
        else:
            other = stack.enter_context(measure.tree_of(CHECKOUT, str(against)))
        found = check.check(here, plan, often, rules, other, tell=_tell)
    facts = {
        "Compared with": compared_with,
        "Source": text.described_source(about),
        "Machine": f"{text.described_machine(machine)}; repetitions: {preset}",
    }
    report = text.markdown(found, facts)
    for name, content in (("report.md", report), ("junit.xml", text.junit(found, str(about["when"])))):
        with writing(out / name, "name another folder with --out"):
            write_whole(out / name, content.encode())
    if summary := os.environ.get(SUMMARY_VARIABLE):
        try:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(report)
        except OSError as error:  # no reason to lose the verdict
            click.echo(f"{SUMMARY_VARIABLE}: {summary} cannot be written ({error.strerror})", err=True)
    click.echo(report.split("\n## ")[0].rstrip() + "\n")
    click.echo(f"written: {out / 'report.md'}\nwritten: {out / 'junit.xml'}")
    sys.exit(judge.exit_code(found))


def _tell(stage: str) -> None:
    click.echo(f"regress: {stage}", err=True)
