"""The command `bm3 doctor`: options and layout. What is checked is in `harness.tools.doctor`."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path

import click

from harness.cli.options import DATA, OUT, PAPER

INDENT = 22  # severity and topic
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
    from harness.tools.doctor.doctor import diagnose

    findings = diagnose(data, out, paper)
    problems = sum(finding.severity == "problem" for finding in findings)
    if as_json:
        able = not problems
        click.echo(json.dumps({"able": able, "findings": [asdict(finding) for finding in findings]}, indent=1))
        sys.exit(not able)
    width = min(max(shutil.get_terminal_size((WIDEST, 24)).columns, NARROWEST), WIDEST)
    for finding in findings:
        for head, text in ((f"{finding.severity:<9}{finding.topic:<13}", finding.found), ("→ ", finding.advice)):
            if text:
                click.echo(
                    textwrap.fill(text, width, initial_indent=f"{head:>{INDENT}}", subsequent_indent=" " * INDENT)
                )
    words = f"{problems} problem{'s' if problems > 1 else ''} in the way of the main job."
    click.echo("\n" + (words if problems else "The main job can run: bm3 reproduce"))
    sys.exit(1 if problems else 0)
