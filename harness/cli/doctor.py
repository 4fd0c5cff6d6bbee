"""The command `bm3 doctor`: options and layout. What is checked is in `harness.tools.doctor.doctor`."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import DATA, OUT, PAPER

if TYPE_CHECKING:
    from harness.tools.doctor.doctor import Finding

SEVERITY_WIDTH, TOPIC_WIDTH = 9, 13
NARROWEST, WIDEST = 60, 120


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@DATA
@OUT
@PAPER
def doctor(as_json: bool, data: Path | None, out: Path, paper: Path) -> None:
    """Look at this machine and installation: what can be run and measured here, and what to do about the rest.

    Nothing is stored. Exit code 0 where the main job, bm3 reproduce, can run, 1 where a problem is in its way.

    \b
    bm3 doctor
    bm3 doctor --data ~/data --out /shared/runs
    bm3 doctor --json
    """
    from harness.tools.doctor.doctor import diagnose, main_job_can_run

    findings = diagnose(data, out, paper)
    able = main_job_can_run(findings)
    if as_json:
        click.echo(json.dumps({"able": able, "findings": [asdict(finding) for finding in findings]}, indent=1))
    else:
        width = min(max(shutil.get_terminal_size((WIDEST, 24)).columns, NARROWEST), WIDEST)
        click.echo("\n".join(_lines(findings, width)))
        click.echo("\n" + _summary(findings))
    sys.exit(0 if able else 1)


def _lines(findings: Sequence[Finding], width: int) -> Iterator[str]:
    """One finding after another, its topic where that changes, with what to do beneath."""
    indent, above = " " * (SEVERITY_WIDTH + TOPIC_WIDTH), ""
    for finding in findings:
        topic = "" if finding.topic == above else finding.topic
        head = f"{finding.severity:<{SEVERITY_WIDTH}}{topic:<{TOPIC_WIDTH}}"
        yield textwrap.fill(finding.found, width, initial_indent=head, subsequent_indent=indent)
        if finding.advice:
            yield textwrap.fill(finding.advice, width, initial_indent=f"{indent}→ ", subsequent_indent=indent + "  ")
        above = finding.topic


def _summary(findings: Sequence[Finding]) -> str:
    problems = sum(finding.severity == "problem" for finding in findings)
    if problems:
        return f"{problems} {'problem' if problems == 1 else 'problems'} in the way of the main job."
    return "The main job can run: bm3 reproduce"
