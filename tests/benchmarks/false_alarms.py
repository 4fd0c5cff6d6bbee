"""How often `bm3 regress` gives a false alarm on a busy machine, and how often it finds what was planted.

    python tests/benchmarks/false_alarms.py RECORD.jsonl --runs 30 --case baseline
    python tests/benchmarks/false_alarms.py RECORD.jsonl --runs 10 --case against --case planted

Each run is a whole check of files that nobody changed, or of files in which `planted/` slows BM3's steps down by a
fifth, adds a tenth to LightGCN's peak, and takes away one hit in a hundred. Other processes are busy beside it. A
baseline serves ten runs; every other one is made while the processes beside it are stopped. Finished runs are in the
record, a JSON line each: the same command goes on from there. The table that is printed is of all of it.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

import harness
from harness.measure.environment import source
from harness.paper.folders import paper_folder
from harness.tools.regress.alternation import Plan, Repetitions, Tree, measure
from harness.tools.regress.baseline import Baseline, read_baseline, write_baseline
from harness.tools.regress.guarding import Check, Material, check, laid_out, workload_identity
from harness.tools.regress.machine_class import described, machine_class
from harness.tools.regress.measurement import Measurement
from harness.tools.regress.regression import DETERMINISM, MEMORY, TIME, WALL, Outcome, exit_code
from harness.tools.regress.regression_rules import Rules, load_rules

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
PLANTED = Path(__file__).parent / "planted" / "all_three.py"
CASES = ("baseline", "against", "planted")
RUNS_OF_A_BASELINE = 10
ROOT = Path(harness.__file__).parent.parent
HERE, SAME = Tree("here", ROOT), Tree("the same", ROOT)
OUTCOMES = (Outcome.REGRESSED, Outcome.UNCONFIRMED, Outcome.UNSTABLE, Outcome.IMPROVED)
Shows = Callable[[str, str], bool]
FOUND: dict[str, Shows] = {
    "each step of BM3 20 % slower": lambda subject, quantity: subject.endswith("/bm3") and quantity in (TIME, WALL),
    "LightGCN's peak 10 % higher": lambda subject, quantity: subject.endswith("/lightgcn") and quantity == MEMORY,
    "1 % of all hits lost": lambda subject, quantity: "@" in quantity,
}
"""What was planted, and the comparisons in which it is to show."""
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

TRACES = paper_folder("bm3") / "traces"


class Bench:
    """What every run shares: the plan, the rules, the record, and the processes beside."""

    def __init__(self, chosen: argparse.Namespace, plan: Plan, rules: Rules, beside: list["subprocess.Popen[bytes]"]):
        self.chosen, self.plan, self.rules, self.beside = chosen, plan, rules, beside
        self.machine = machine_class(torch.device(chosen.device), chosen.threads)
        self.identity = workload_identity(rules.workload, Material.made(TRACES), chosen.device)
        self.settings = {
            "preset": chosen.preset,
            "busy": chosen.busy,
            "machine": described(self.machine),
            "rules": hashlib.sha256((paper_folder("bm3") / "regression.toml").read_bytes()).hexdigest()[:16],
            "revision": source(ROOT)["source_revision"],
        }

    def run(self, case: str, number: int) -> None:
        """One check, added to the record."""
        before: Tree | Measurement = SAME if case == "against" else self.baseline(case, number // RUNS_OF_A_BASELINE)
        started = time.monotonic()
        os.environ["BM3_PLANTED_RUN"] = str(number)  # other hits are lost in each
        found = check(
            HERE,
            self.plan,
            self.often(self.chosen.preset),
            self.rules,
            before,
            seam=PLANTED if case == "planted" else None,
            tell=tell,
        )
        line = {"case": case, "code": exit_code(found.comparisons), "seconds": time.monotonic() - started}
        with self.chosen.record.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, **told(found), "settings": self.settings}) + "\n")
        tell(f"{case} {number + 1}: exit code {line['code']}")

    def baseline(self, case: str, number: int) -> Measurement:
        """Made when it is first asked for, every other one on a quiet machine."""
        path = self.chosen.record.with_suffix(f".{case}-{number}.json")
        if not path.is_file():
            quiet = number % 2 == 1
            for process in self.beside if quiet else ():
                process.send_signal(signal.SIGSTOP)
            made = measure([HERE], self.plan, self.often("baseline"), tell=tell)[0]
            for process in self.beside if quiet else ():
                process.send_signal(signal.SIGCONT)
            write_baseline(path, Baseline(self.machine, self.identity, {}, made))
        baseline = read_baseline(path)
        baseline.check(self.machine, self.identity, path)
        return baseline.measurement

    def often(self, preset: str) -> Repetitions:
        return Repetitions(**vars(getattr(self.rules.presets, preset)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("record", type=Path)
    parser.add_argument("--runs", type=int, default=10, help="of each case, those in the record among them")
    parser.add_argument("--case", action="append", choices=CASES, help="default: all")
    parser.add_argument("--preset", default="quick", choices=["quick", "default"])
    parser.add_argument("--busy", type=int, default=2, help="processes beside the check")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table of the record")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    if chosen.table:
        print(table(lines(chosen.record)))
        return
    rules = load_rules(paper_folder("bm3") / "regression.toml")
    with (
        laid_out(rules.workload, Material.made(TRACES), chosen.device, chosen.threads) as plan,
        ExitStack() as stack,
    ):
        beside = []
        for _ in range(chosen.busy):
            process = subprocess.Popen([sys.executable, "-c", BUSY], env={**os.environ, **ONE_THREAD})
            stack.callback(process.wait)
            stack.callback(process.kill)
            beside.append(process)
        bench = Bench(chosen, plan, rules, beside)
        for line in lines(chosen.record):
            if other := [key for key, value in line["settings"].items() if value != bench.settings[key]]:
                sys.exit(f"{chosen.record}: has runs of another {', '.join(other)}; name a new record")
        for number in range(chosen.runs):  # cases in turn: what the machine does at some time meets all of them
            for case in chosen.case or CASES:
                if sum(line["case"] == case for line in lines(chosen.record)) <= number:
                    bench.run(case, number)
    print(f"{bench.settings['machine']}; {chosen.busy} busy processes beside; preset {chosen.preset};")
    print(f"source {bench.settings['revision']}.\n\n{table(lines(chosen.record))}")


def told(found: Check) -> dict[str, Any]:
    """Every comparison that did not hold."""
    return {
        outcome.value: [[one.subject, one.quantity, one.reason] for one in found.comparisons if one.outcome is outcome]
        for outcome in OUTCOMES
    }


def lines(record: Path) -> list[Any]:
    """Those of the record."""
    return [json.loads(text) for text in record.read_text(encoding="utf-8").splitlines()] if record.is_file() else []


def table(runs: list[Any]) -> str:
    """How many runs raised an alarm, found each planted change, or blamed what was not changed; in Markdown."""
    rows = []
    for case in CASES:
        of_case = [line for line in runs if line["case"] == case]
        planted = FOUND if case == "planted" else {}
        if not of_case:
            continue

        def count(counted: Shows, of_case: list[Any] = of_case) -> str:
            found = sum(any(counted(*one[:2]) for one in line["regressed"]) for line in of_case)
            return f"{found} of {len(of_case)}"

        other = [f"{kind.value} {sum(len(line[kind.value]) for line in of_case)}" for kind in OUTCOMES[1:]]
        seconds = sum(line["seconds"] for line in of_case) / len(of_case)
        rows += [[case, f"found: {name}", count(shows), "", ""] for name, shows in planted.items()]

        def unplanted(subject: str, quantity: str, planted: Mapping[str, Shows] = planted) -> bool:
            # Each ranking loses other hits, so a repeated training may stop at another epoch, with other bits.
            follows = bool(planted) and quantity == DETERMINISM
            return not follows and not any(shows(subject, quantity) for shows in planted.values())

        rows.append([case, "false alarms", count(unplanted), ", ".join(other), f"{seconds:.0f}"])
    return tabulate(rows, ["case", "what", "runs", "other comparisons", "s per run"], tablefmt="github")


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
