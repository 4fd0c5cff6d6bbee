"""The command `bm3 scaling`: options, messages and exit code."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bm3.errors import ConfigError
from harness.cli.options import DEVICE, OUT, PAPER, THREADS
from harness.ending import Interrupted

if TYPE_CHECKING:
    from harness.tools.scaling.measure import Series


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
@click.option("--quick", is_flag=True, help="Small sizes, no files: seconds per model, too little for most exponents.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON instead of the summary.")
@DEVICE
@THREADS
@OUT
@PAPER
@click.option("--dry-run", is_flag=True, help="Say what would be measured.")
def scaling(
    wanted: tuple[str, ...],
    vary: str | None,
    sizes: tuple[int, ...] | None,
    repetitions: int | None,
    quick: bool,
    as_json: bool,
    device: str,
    threads: int | None,
    out: Path,
    paper: Path,
    dry_run: bool,
) -> None:
    """Check the published complexities: how time and memory of each MODEL (default: all) grow with the problem.

    One of E (interactions), I (items), d_m (feature width), d (embedding size), B (batch) and L (layers) grows, all
    else stays. Steps, epochs, evaluations and peak memory are measured; fitted exponents, with intervals, are judged by
    the paper's complexity.toml. Each call leaves a record, a report and pictures of its own in --out, named by the
    time; reports on runs in that folder take exponents from the records. The machine should have nothing else to do.

    Exit codes: 0 nothing above what is published, 1 something above, 3 nothing could be judged.

    \b
    bm3 scaling bm3 lattice --threads 1
    bm3 scaling bm3 --vary E,B --repetitions 15
    bm3 scaling --dry-run
    """
    from json import dumps

    from harness.common import check_writable, writing
    from harness.evaluation.compiling import use_threads
    from harness.measure.environment import environment
    from harness.models.registry import find_model, models
    from harness.runs.trial import resolve_device
    from harness.tools.scaling import measure, report
    from harness.tools.scaling.fit import load_complexity

    names = list(dict.fromkeys(find_model(name).name for name in wanted)) or sorted(models())
    factors = vary and tuple(dict.fromkeys(part.strip() for part in vary.split(",")))
    given: dict[str, Any] = {"factors": factors, "multipliers": sizes, "repetitions": repetitions}
    preset = measure.QUICK if quick else measure.Plan()
    plan = replace(preset, **{name: value for name, value in given.items() if value is not None})
    where = resolve_device(device)
    if threads is not None:
        use_threads(threads)
    if dry_run:
        for factor in plan.factors:
            click.echo(f"{factor}: {', '.join(f'{each.of(factor):,}' for each in plan.grown(factor))}")
        for name in names:
            click.echo(f"{name}: {len(plan.factors_of(find_model(name)))} sizes, {plan.repetitions} repetitions each")
        return
    stated = paper / "complexity.toml"
    if not stated.is_file():
        raise ConfigError(f"{stated}: no such file, so no published cost to judge by; name another --paper")
    complexity = load_complexity(stated)
    if not quick:
        with writing(out, "name another folder with --out"):
            out.mkdir(parents=True, exist_ok=True)
            check_writable(out / "scaling.md")
    series: list[Series] = []
    stopped: KeyboardInterrupt | None = None
    try:
        for each in measure.measure(names, plan, where, tell=lambda text: click.echo(text, err=True)):
            series.append(each)  # noqa: PERF402 -- what there is must outlive an interruption
    except KeyboardInterrupt as interruption:
        if not series:
            raise Interrupted("nothing was measured") from interruption
        stopped = interruption
    growth = report.Growth(" ".join(["bm3", *sys.argv[1:]]), environment(where), plan, tuple(series), complexity)
    cells = growth.cells
    click.echo(dumps(report.as_json(growth, cells), indent=1) if as_json else report.summary(growth, cells))
    for path in [] if quick else report.write(growth, out):
        click.echo(f"written: {path}", err=as_json)
    if stopped is not None:
        raise Interrupted("the report has what was measured before") from stopped
    sys.exit(growth.code)
