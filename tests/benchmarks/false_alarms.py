"""How often `bm3 regress` gives a false alarm on a busy machine, and how often it finds what was planted.

    python tests/benchmarks/false_alarms.py RECORD.jsonl --runs 30
    python tests/benchmarks/false_alarms.py RECORD.jsonl --runs 10 --case slowdown --case memory

Each run is a check against one baseline, which the first call makes, while a process beside it is busy. Finished runs
are in the record, a JSON line each: the same command goes on from there. The table that is printed is of all of it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

import harness
from harness.compare.baseline import Baseline, read_baseline, write_baseline
from harness.compare.expected import expected_dir
from harness.compare.regression import Outcome, exit_code
from harness.compare.regression_rules import Rules, load_rules
from harness.guarding import Check, Material, check, laid_out, workload_identity
from harness.measure.alternation import Plan, Repetitions, Tree, measure
from harness.measure.machine_class import described, machine_class

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
PLANTED = Path(__file__).parent / "planted"
CASES = {
    "nothing": "nothing",
    "slowdown": "every step 20 % slower",
    "slow_bm3": "every step of BM3 20 % slower",
    "memory": "peaks 10 % higher",
    "accuracy": "1 % of the hits lost",
}
HERE = Tree("here", Path(harness.__file__).parent.parent)
BUSY = """
import os, random, time
import numpy as np
numbers, parent = np.random.default_rng(0).random((1200, 1200)), os.getppid()
while os.getppid() == parent:  # computes, moves memory, runs Python, and rests, for random times
    until = time.monotonic() + random.uniform(0.05, 1.5)
    work = random.choice([lambda: numbers @ numbers, lambda: numbers.copy(), lambda: sum(range(10**5))])
    while time.monotonic() < until:
        work()
    time.sleep(random.uniform(0, 0.3))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("record", type=Path)
    parser.add_argument("--runs", type=int, default=30, help="of each case, those in the record among them")
    parser.add_argument("--case", action="append", choices=[*CASES], help="default: all")
    parser.add_argument("--preset", default="quick", choices=["quick", "default"])
    parser.add_argument("--busy", type=int, default=1, help="processes beside the check")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    rules = load_rules(expected_dir() / "regression.toml")
    machine = machine_class(torch.device(chosen.device), chosen.threads)
    material = Material.made()
    identity = workload_identity(rules.workload, material, chosen.device)
    stored = chosen.record.with_suffix(".baseline.json")
    with laid_out(rules.workload, material, chosen.device, chosen.threads) as plan, ExitStack() as beside:
        for _ in range(chosen.busy):
            process = subprocess.Popen([sys.executable, "-c", BUSY], env={**os.environ, **ONE_THREAD})
            beside.callback(process.wait)
            beside.callback(process.kill)
        if not stored.is_file():
            measurement = measure([HERE], plan, Repetitions(**vars(rules.presets["default"])), tell=tell)[0]
            write_baseline(stored, Baseline(machine, identity, {}, measurement))
        baseline = read_baseline(stored)
        baseline.check(machine, identity, stored)
        for number in range(chosen.runs):  # cases in turn: what the machine does at some time meets all of them
            for case in chosen.case or CASES:
                if runs_of(chosen.record, case) <= number:
                    run(chosen.record, case, plan, Repetitions(**vars(rules.presets[chosen.preset])), rules, baseline)
    print(f"{described(machine)}; {chosen.busy} busy process(es) beside; preset {chosen.preset}\n")
    print(table(chosen.record))


def run(record: Path, case: str, plan: Plan, repetitions: Repetitions, rules: Rules, baseline: Baseline) -> None:
    """One check, added to the record."""
    started = time.monotonic()
    seam = None if case == "nothing" else PLANTED / f"{case}.py"
    found = check(HERE, plan, repetitions, rules, baseline.measurement, seam=seam, tell=tell)
    line = {"case": case, "code": exit_code(found.comparisons), "seconds": time.monotonic() - started}
    with record.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, **_told(found)}) + "\n")
    tell(f"{case}: exit code {line['code']}")


def _told(found: Check) -> dict[str, Any]:
    return {
        outcome.value: [[one.subject, one.quantity, one.reason] for one in found.comparisons if one.outcome is outcome]
        for outcome in Outcome
        if outcome is not Outcome.HELD
    }


def runs_of(record: Path, case: str) -> int:
    """How many are in the record."""
    return sum(line["case"] == case for line in lines(record))


def lines(record: Path) -> list[Any]:
    """Those of the record."""
    return [json.loads(text) for text in record.read_text(encoding="utf-8").splitlines()] if record.is_file() else []


def table(record: Path) -> str:
    """Counts by case, in Markdown."""
    rows = []
    for case, text in CASES.items():
        runs = [line for line in lines(record) if line["case"] == case]
        if not runs:
            continue
        counts = Counter(quantity for line in runs for quantity in {one[1] for one in line["regressed"]})
        named = ", ".join(f"{quantity} {count}" for quantity, count in counts.most_common())
        mean = {
            kind: sum(len(line[kind]) for line in runs) / len(runs)
            for kind in ("regressed", "not confirmed", "unstable")
        }
        rows.append(
            [
                text,
                len(runs),
                sum(line["code"] == 1 for line in runs),
                named or "–",
                *(f"{value:.1f}" for value in mean.values()),
                f"{sum(line['seconds'] for line in runs) / len(runs):.0f}",
            ]
        )
    head = ["planted", "runs", "alarms", "in", "comparisons regressed", "not confirmed", "unstable", "s per run"]
    return tabulate(rows, head, tablefmt="github", disable_numparse=True)


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
