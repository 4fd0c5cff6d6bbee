"""A suite run one by one, side by side and on Ray: wall time, and whether all results are the same bits.

python tests/benchmarks/side_by_side.py [SUITE]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from harness.measure.environment import environment
from harness.runs.store import StoredRun, stored_runs

WAYS = {
    "1 worker": ["--workers", "1"],
    "2 workers": ["--workers", "2"],
    "Ray on this machine, 2 workers": ["--ray", "local", "--workers", "2"],
    "in one process": ["--in-process"],
}


def bits(run: StoredRun) -> Any:
    """What must not depend on how a trial is run."""
    result = run.result or {}
    losses = [(epoch["loss"], epoch["parts"], epoch["valid"]) for epoch in run.epochs()]
    return result["state_hash"], result["valid"], result["test"], result["best_epoch"], losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", nargs="?", default="mini")
    suite = parser.parse_args().suite
    rows, first = [], None
    for name, options in WAYS.items():
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, "-m", "harness", "reproduce", suite, "--threads", "1", "--out", out, *options]
            started = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            seconds = time.perf_counter() - started
            if done.returncode not in (0, 1, 3):
                sys.exit(done.stderr)
            found = {str(run.path.relative_to(out)): bits(run) for run in stored_runs(Path(out)) if run.finished}
        first = first or found
        same = sum(found.get(key) == value for key, value in first.items())
        rows.append([name, len(found), f"{seconds:.0f}", f"{same} of {len(first)}"])
    here = environment(torch.device("cpu"))
    print(f"Suite {suite}, one thread per trial, {here['logical_cores']} cores ({here['cpu']}), torch {here['torch']},")
    print(f"source {here['source_revision']}{' (changed)' if here['source_dirty'] else ''}.\n")
    head = ["trials run", "finished", "wall time (s)", "results with the bits of the first way"]
    print(tabulate(rows, head, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
