"""The commands of the tools beside the comparison: options, messages, files and exit codes.

What they do is in `harness.tools`: `bm3 audit`, `doctor`, `profile`, `regress` and `scaling`.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

import harness
from bm3.errors import ConfigError
from harness.cli.options import COUNT, DATA, DEVICE, DRY_RUN, MODELS, OUT, PAPER, PAPER_FOLDER, SEEDS_OF_OURS, computing
from harness.cli.output import say, to_stderr
from harness.cli.study import Execution, execution_options, run
from harness.common import check_writable, write_files
from harness.ending import Interrupted

if TYPE_CHECKING:
    import torch

    from harness.paper.load import Paper

WIDEST = 96  # of what the doctor finds
CHECKOUT = Path(harness.__file__).parent.parent
FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("dataset", default="mini")
@MODELS
@SEEDS_OF_OURS
@DRY_RUN
@click.option("--as-reference", is_flag=True, help="Write effects to the paper's audit/<data set>.csv too.")
@execution_options
def audit(
    dataset: str,
    models: tuple[str, ...],
    seeds: list[int],
    dry_run: bool,
    as_reference: bool,
    how: Execution,
    paper: Paper,
) -> None:
    """Measure what every variant changes on DATASET.

    Variants are settings in which text and code disagree; DATASET is mini by default. Each other value is trained
    beside the published one with the same seeds. Settings of training are audited with every model, so all models make
    many trials: --dry-run lists them, --model chooses. Training is as published, on mini as in the suite mini. Finished
    trials are not run again. The report is in the folder audit-DATASET below --out.

    \b
    bm3 audit
    bm3 audit --model bm3 --model grcn
    bm3 audit baby --data ~/data --model bm3 --seeds 1-2
    """
    from harness.runs.trial import resolve_device
    from harness.studies.execute import pending
    from harness.studies.suite import wanted
    from harness.tools.audit import Audit, audit_markdown, plan_audit, write_audit

    rows = plan_audit(paper, dataset, how.data, models, seeds or (1, 2, 3), resolve_device(how.device))
    if dry_run:
        say(trial.command for trial in pending(lambda outcomes: wanted(rows, outcomes), how.out, how.rerun).to_run)
        return
    begun, backend = how.begin(f"audit-{rows[0].dataset.name}", paper)
    outcome = Audit(rows, run(begun, backend, lambda outcomes: wanted(rows, outcomes)), paper)
    paths = write_audit(outcome, begun.folder, paper.folder if as_reference else None)
    click.echo(audit_markdown(outcome).split("\n## ")[0].rstrip() + "\n")
    say(paths, "written: ")
    if as_reference and (rest := len(outcome.effects) - len(outcome.measured)):
        click.echo(f"note: not taken as reference: {rest} effects that not every seed contributes to", err=True)
    sys.exit(outcome.code)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--require", metavar="cuda[=VERSION]", help="A GPU that torch uses, built for this CUDA, is needed too.")
@DATA
@OUT
@PAPER_FOLDER
def doctor(as_json: bool, require: str | None, data: Path | None, out: Path, paper: Path) -> None:
    """Look at what can be run and measured here.

    And what to do about the rest. Nothing is stored. Exit code 0 where the main job, bm3 reproduce, can run and what
    --require names is there, 1 where a problem is in the way.

    \b
    bm3 doctor
    bm3 doctor --require cuda
    bm3 doctor --data ~/data --out /shared/runs
    bm3 doctor --json
    """
    from tabulate import tabulate

    from harness.tools.doctor import check_required, diagnose

    findings = [*check_required(require), *diagnose(data, out, paper)]
    problems = sum(finding.severity == "problem" for finding in findings)
    if as_json:
        able = not problems
        click.echo(json.dumps({"able": able, "findings": [asdict(finding) for finding in findings]}, indent=1))
        sys.exit(not able)
    told = [[one.severity, one.topic, "\n→ ".join(filter(None, (one.found, one.advice)))] for one in findings]
    click.echo(tabulate(told, tablefmt="plain", disable_numparse=True, maxcolwidths=[None, None, WIDEST]))
    words = f"{problems} problem{'s' if problems > 1 else ''} in the way."
    click.echo("\n" + (words if problems else "The main job can run: bm3 reproduce"))
    sys.exit(1 if problems else 0)


@click.command()
@click.argument("model")
@click.argument("dataset")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change a setting; may be repeated.")
@click.option("--steps", type=COUNT, default=10, help="Training steps to measure.")
@click.option("--out", type=FILE, metavar="FILE", help="Write all figures there.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@computing
@DATA
def profile(
    model: str,
    dataset: str,
    assignments: tuple[str, ...],
    steps: int,
    out: Path | None,
    as_json: bool,
    device: torch.device,
    data: Path | None,
) -> None:
    """Show where a training step and an evaluation take time.

    By torch operation, of MODEL on DATASET. Recording operations slows them, so the whole is measured without it.
    Beside it stand the products that were multiplied, and what this machine moves in a large copy. Nothing is stored
    unless --out says where.

    \b
    bm3 profile bm3 mini
    bm3 profile lattice baby --data ~/data --steps 20 --threads 1 --out lattice.json
    bm3 profile bm3 ./data/mine --set features=frozen --set batch_size=4096
    """
    from harness.measure.environment import environment
    from harness.runs.settings import parse_assignments
    from harness.runs.trial import dataset_for, make_trial
    from harness.tools import profile as profiling
    from harness.training.streams import Streams

    if out is not None:
        check_writable(out, "name another file with --out")
    settings = {"epochs": "1000", **parse_assignments(assignments)}  # it ends by itself, with validation or without
    trial = make_trial(model, dataset_for(settings, dataset, data), dataset, settings, 999, device)
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
        write_files({out: json.dumps(values, indent=1) + "\n"}, "name another file with --out")
    click.echo(json.dumps(values, indent=1) if as_json else f"{title}\n{profiling.profile_text(found)}")


@click.command()
@click.option(
    "--baseline",
    type=FILE,
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
    "--threads", type=COUNT, default=1, metavar="N", help="CPU threads; with one, measurements are steadiest."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/regression"),
    metavar="DIR",
    help="Folder for the report, JUnit XML and the baseline.",
)
def regress(
    baseline: Path | None,
    update_baseline: bool,
    against: str | None,
    quick: bool,
    dry_run: bool,
    paper: Paper,
    device: torch.device,
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
    from harness.measure.environment import source
    from harness.runs.store import now
    from harness.tools.regress import baseline as stored
    from harness.tools.regress import judge, measure, text
    from harness.tools.regress.rules import load_rules

    if against is not None and (baseline is not None or update_baseline):
        raise ConfigError("--against compares with a revision: leave --baseline and --update-baseline out")
    if quick and update_baseline:
        raise ConfigError("--quick is for checks: a baseline needs its repetitions, leave one of the two options out")
    rules = load_rules(paper.file("regression.toml"))
    machine = stored.machine_class(device, threads)
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
    written = path if update_baseline else out / "report.md"
    check_writable(written, "name another place with --out or --baseline")
    here, made_of = measure.Tree("here", CHECKOUT), source(Path(harness.__file__).parent)
    about = {"revision": made_of["source_revision"], "dirty": made_of["source_dirty"], "when": now()}
    with ExitStack() as stack:
        inputs = Path(stack.enter_context(TemporaryDirectory(prefix="bm3-regress-")))
        plan = measure.plan_of(rules.workload, *measure.inputs(paper), inputs, device, threads)
        if update_baseline:
            measured = measure.measure([here], plan, often, tell=to_stderr)[0]
            failed, unstable = measure.faults(measured, rules, device.type)
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
        found = measure.check(here, plan, often, rules, other, tell=to_stderr)
    made_on = f"{text.described_machine(machine)}; repetitions: {preset}"
    facts = {"Compared with": compared_with, "Source": text.described_source(about), "Machine": made_on}
    report = text.markdown(found, facts)
    contents = {"report.md": report, "junit.xml": text.junit(found, str(about["when"]))}
    files = write_files({out / name: of for name, of in contents.items()}, "name another folder with --out")
    click.echo(report.split("\n## ")[0].rstrip() + "\n")
    say(files, "written: ")
    sys.exit(judge.exit_code(found))


def _numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """A list with commas, in ascending order."""
    try:
        numbers = sorted({int(part) for part in text.split(",")}) if text is not None else None
    except ValueError:
        numbers = [0]
    if numbers and (numbers[0] < 1 or len(numbers) < 4):
        raise click.BadParameter(f"{text!r} is no list of four whole numbers or more, such as 1,2,4,8")
    return tuple(numbers) if numbers else None


@click.command()
@click.argument("wanted", nargs=-1, metavar="[MODEL]...")
@click.option("--vary", metavar="LIST", help="Sizes that grow: of E,I,d_m,d,B,L, which are the default.")
@click.option(
    "--sizes",
    metavar="LIST",
    callback=_numbers,
    help="What they are multiplied by, four at least. Default: 1,2,4,8,16.",
)
@click.option("--repetitions", type=click.IntRange(min=5), metavar="N", help="Per point. Default: 9.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON instead of the summary.")
@computing
@OUT
@PAPER
@click.option("--dry-run", is_flag=True, help="Say what would be measured.")
def scaling(
    wanted: tuple[str, ...],
    vary: str | None,
    sizes: tuple[int, ...] | None,
    repetitions: int | None,
    as_json: bool,
    device: torch.device,
    out: Path,
    paper: Paper,
    dry_run: bool,
) -> None:
    """Check published complexities: how time and memory grow.

    With the size of the problem, for each MODEL (default: all). One of E (interactions), I (items), d_m (feature
    width), d (embedding size), B (batch) and L (layers) grows, all else stays. Steps, epochs, evaluations and peak
    memory are measured; fitted exponents, with intervals, are judged by the paper's complexity.toml. Each call leaves a
    record, a report and pictures of its own in --out, named by the time; reports on runs in that folder take exponents
    from the records. The machine should have nothing else to do.

    Exit codes: 0 nothing above what is published, 1 something above, 3 nothing could be judged.

    \b
    bm3 scaling bm3 lattice --threads 1
    bm3 scaling bm3 --vary E,B --repetitions 15
    bm3 scaling --dry-run
    """
    from harness.measure.environment import environment
    from harness.models.registry import find_model, trained_in_steps
    from harness.paper.growth import COMPLEXITY, load_complexity
    from harness.tools.scaling import measure, report

    names = list(dict.fromkeys(find_model(name).name for name in wanted)) or trained_in_steps()
    factors = vary and tuple(dict.fromkeys(part.strip() for part in vary.split(",")))
    given: dict[str, Any] = {"factors": factors, "multipliers": sizes, "repetitions": repetitions}
    plan = measure.Plan(**{name: value for name, value in given.items() if value is not None})
    if dry_run:
        say(f"{of}: {', '.join(f'{each.of(of):,}' for each in plan.grown(of))}" for of in plan.factors)
        grown = {name: len(plan.factors_of(find_model(name))) for name in names}
        say(f"{name}: {number} sizes, {plan.repetitions} repetitions each" for name, number in grown.items())
        return
    stated = paper.folder / COMPLEXITY
    if not stated.is_file():
        raise ConfigError(f"{stated}: no such file, so no published cost to judge by; name another --paper")
    complexity = load_complexity(stated)
    check_writable(out / "scaling.md", "name another folder with --out")
    series: list[measure.Series] = []
    stopped: KeyboardInterrupt | None = None
    try:
        series.extend(measure.measure(names, plan, device, tell=to_stderr))  # keeps what came before an interruption
    except KeyboardInterrupt as interruption:
        if not series:
            raise Interrupted("nothing was measured") from interruption
        stopped = interruption
    growth = report.Growth(" ".join(["bm3", *sys.argv[1:]]), environment(device), plan, tuple(series), complexity)
    click.echo(json.dumps(report.as_json(growth), indent=1) if as_json else report.summary(growth))
    say(report.write(growth, out), "written: ", err=as_json)
    if stopped is not None:
        raise Interrupted("the report has what was measured before") from stopped
    sys.exit(growth.code)
