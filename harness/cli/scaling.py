"""The command `bm3 scaling`: options, messages and exit code. The other commands are in `cli`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bm3 import ConfigError
from harness.cli.options import DEVICE, PAPER, THREADS
from harness.ending import Interrupted
from harness.measure.sizes import FIELDS

if TYPE_CHECKING:
    from harness.tools.scaling.measure import Plan, Point


@click.command()
@click.argument("wanted", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--vary", metavar="LIST", help=f"Sizes that grow, with commas between: {', '.join(FIELDS)}. Default: all."
)
@click.option("--sizes", "multipliers", metavar="LIST", help="What they are multiplied by. Default: 1,2,4,8,16.")
@click.option("--repetitions", type=int, metavar="N", help="Per point. Default: 9.")
@click.option("--quick", is_flag=True, help="Small sizes: seconds per model, and too little for most exponents.")
@DEVICE
@THREADS
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    metavar="DIR",
    help="Folder for the report.",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all points there too."
)
@click.option("--dry-run", is_flag=True, help="Say what would be measured, and roughly how long it would take.")
@PAPER
def scaling(
    wanted: tuple[str, ...],
    vary: str | None,
    multipliers: str | None,
    repetitions: int | None,
    quick: bool,
    device: str,
    threads: int | None,
    to: Path,
    json_file: Path | None,
    dry_run: bool,
    paper: Path,
) -> None:
    """Check the published complexities: how time and memory of each MODEL (default: all) grow with the problem.

    One of E (interactions), I (items), d_m (feature width), d (embedding size), B (batch) and L (layers) grows, all
    else stays. Fitted exponents, with intervals, are judged by the paper's complexity.toml. The parts of BM3 and
    LATTICE that have a published cost are measured too. Where the folder holds runs, reports on them take the exponents
    from its scaling.json, which has the latest complete measurement of each model. What is not complete, for --vary or
    an interruption, goes to scaling-partial.json, and what is quick to scaling-quick.json: neither is evidence. The
    machine should have nothing else to do.

    Exit codes: 0 nothing above what is published, 1 something above, 3 nothing could be judged.

    \b
    bm3 scaling bm3 lattice --threads 1
    bm3 scaling bm3 --vary E,B --repetitions 15
    bm3 scaling --dry-run
    """
    from harness.common import writing
    from harness.evaluation.compiling import use_threads
    from harness.measure.environment import environment
    from harness.models.registry import find_model, models
    from harness.runs.trial import resolve_device
    from harness.tools.profiling.report import check_writable
    from harness.tools.scaling.fit import JSON_FILE, load_complexity
    from harness.tools.scaling.measure import QUICK, Plan, expected_seconds, measure
    from harness.tools.scaling.report import Origin, make_scaling, summary, write_scaling

    names = list(dict.fromkeys(find_model(name).name for name in wanted)) or sorted(models())
    plan = _plan(QUICK if quick else Plan(), vary, multipliers, repetitions)
    where = resolve_device(device)
    if threads is not None:
        use_threads(threads)
    if dry_run:
        _tell_plan(names, plan, expected_seconds(names, plan, where))
        return
    stated = paper / "complexity.toml"
    if not stated.is_file():
        raise ConfigError(
            f"{stated}: no such file, so nothing is published about costs to judge by; name another --paper"
        )
    complexity = load_complexity(stated)
    with writing(to, "name another folder with --to"):
        to.mkdir(parents=True, exist_ok=True)
    if json_file is not None:
        if json_file.name == JSON_FILE:
            raise ConfigError(f"--json: {json_file}: reports on runs take exponents from that name; choose another")
        check_writable(json_file)
    points: list[Point] = []
    stopped: KeyboardInterrupt | None = None
    try:
        for point in measure(names, plan, where, tell=lambda text: click.echo(text, err=True)):
            points.append(point)  # noqa: PERF402 - what there is must outlive an interruption
    except KeyboardInterrupt as interruption:
        stopped = interruption
    if not points and stopped is not None:
        raise Interrupted("nothing was measured") from stopped
    origin = Origin(_command(names, plan, quick, where.type, threads), environment(where))
    found = make_scaling(plan, dict.fromkeys(names, origin), points, complexity)
    lines = write_scaling(found, to, json_file)
    click.echo(summary(found) + "\n")
    for line in lines:
        click.echo(line)
    if stopped is not None:
        raise Interrupted("the report has what was measured before") from stopped
    sys.exit(found.code)


def _plan(preset: Plan, vary: str | None, multipliers: str | None, repetitions: int | None) -> Plan:
    """The preset with what was asked for. Raises ConfigError."""
    from harness.tools.scaling.fit import FEWEST_REPETITIONS, FEWEST_SIZES

    changes: dict[str, Any] = {}
    if vary is not None:
        changes["factors"] = tuple(dict.fromkeys(_listed("--vary", vary)))
        for factor in changes["factors"]:
            if factor not in FIELDS:
                raise ConfigError(f"--vary: there is no size {factor!r}; choose from {', '.join(FIELDS)}")
    if multipliers is not None:
        texts = _listed("--sizes", multipliers)
        for text in texts:
            if not text.isdecimal() or int(text) < 1:
                raise ConfigError(
                    f"--sizes: {text!r} is no whole number of at least 1; give multipliers such as 1,2,4,8"
                )
        changes["multipliers"] = tuple(sorted(set(map(int, texts))))
        if len(changes["multipliers"]) < FEWEST_SIZES:
            raise ConfigError(f"--sizes: {multipliers!r} has fewer than {FEWEST_SIZES} sizes, which an exponent needs")
    if repetitions is not None:
        if repetitions < FEWEST_REPETITIONS:
            raise ConfigError(
                f"--repetitions: {repetitions} is fewer than {FEWEST_REPETITIONS}, which an interval needs"
            )
        changes["repetitions"] = repetitions
    return replace(preset, **changes)


def _listed(option: str, text: str) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise ConfigError(f"{option}: {text!r} names nothing; give a list with commas between")
    return found


def _tell_plan(names: list[str], plan: Plan, expected: dict[str, tuple[int, float]]) -> None:
    from tabulate import tabulate

    rows = [[name, expected[name][0], f"{expected[name][1] / 60:.1f}"] for name in names]
    rows.append(
        ["all", sum(points for points, _ in expected.values()), f"{sum(s for _, s in expected.values()) / 60:.1f}"]
    )
    grown = "; ".join(f"{f} {', '.join(f'{sizes.of(f):,}' for sizes in plan.grown(f))}" for f in plan.factors)
    click.echo(f"sizes: {grown}\nrepetitions: {plan.repetitions}\n")
    click.echo(tabulate(rows, ["model", "points", "minutes, roughly"], disable_numparse=True))


def _command(names: list[str], plan: Plan, quick: bool, device: str, threads: int | None) -> str:
    words = ["bm3 scaling", *names, *(["--quick"] if quick else []), "--vary", ",".join(plan.factors)]
    words += [
        "--sizes",
        ",".join(map(str, plan.multipliers)),
        "--repetitions",
        str(plan.repetitions),
        "--device",
        device,
    ]
    return " ".join([*words, *(["--threads", str(threads)] if threads else [])])
