"""How often the self-check is inconsistent where nothing changed, and which planted faults it and conformance find.

    python tests/benchmarks/self_check.py alarms RECORD.jsonl
    python tests/benchmarks/self_check.py faults RECORD.jsonl
    python tests/benchmarks/self_check.py table RECORD.jsonl

`alarms`: ten sets of three seeds, each with every instruction set that torch can be told to use, on one or two threads.
`faults`: each of `planted/faults.py`, with the seeds of the suite. There is a process per instruction set and threads,
or per fault. What is in the record is not run again; the tables are of all of it.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tabulate import tabulate

SUITE = "selfcheck"
CAPABILITIES = ("default", "avx2", "native")
"""Values of ATEN_CPU_CAPABILITY; native is without it."""
THREADS = (1, 2)
SETS, SEEDS_OF_A_SET = 10, 3
NO_FAULT = "none"

Record = dict[str, Any]


def self_check(seeds: Sequence[int]) -> Record:
    """The outcome of each model, with the mean and its prediction interval."""
    import torch

    from harness.paper.load import load_paper
    from harness.paper.selfcheck import FILE, check, load_reference
    from harness.runs.store import stored_runs
    from harness.runs.trial import run_trial
    from harness.studies.suite import load_suite, plan

    with TemporaryDirectory() as folder:
        for row in plan(load_suite(SUITE), None, torch.device("cpu")):
            for seed in seeds:
                run_trial(replace(row.points[0], seed=seed), Path(folder))
        error = load_paper().tolerances.selfcheck.error
        found = check(stored_runs(Path(folder)), load_reference(load_paper().file(FILE)), error)
    return {one.model: [one.outcome, one.mean, *(one.interval or ())] for one in found}


def conformance() -> list[str]:
    """Names of the recorded traces that fail."""
    from harness.paper.conformance import Status, known_traces, trace_statuses
    from harness.paper.load import load_paper

    return [trace for trace, status in trace_statuses(known_traces(load_paper())).items() if status is Status.FAILED]


def worker(arguments: argparse.Namespace) -> None:
    """Runs in a process of its own: prints a record per line."""
    from harness.evaluation.compiling import use_threads
    from harness.measure.environment import source

    revision = source(Path(__file__).parent)["source_revision"]
    use_threads(arguments.threads)
    if arguments.fault:
        from planted.faults import FAULTS

        if arguments.fault != NO_FAULT:
            FAULTS[arguments.fault]()
        said = {"fault": arguments.fault, "revision": revision, "traces": conformance()}
        print(json.dumps(said | {"models": self_check(arguments.seeds)}), flush=True)
        return
    for start in range(0, len(arguments.seeds), SEEDS_OF_A_SET):
        seeds = arguments.seeds[start : start + SEEDS_OF_A_SET]
        said = {"capability": arguments.capability, "threads": arguments.threads, "revision": revision}
        print(json.dumps(said | {"seeds": seeds, "models": self_check(seeds)}), flush=True)


def run(record: Path, options: Sequence[str], capability: str, threads: int) -> None:
    """Start a worker and append what it prints to the record."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
    environment.pop("ATEN_CPU_CAPABILITY", None)
    if capability != "native":
        environment["ATEN_CPU_CAPABILITY"] = capability
    command = [sys.executable, __file__, "worker", "-", "--threads", str(threads), "--capability", capability, *options]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            with record.open("a", encoding="utf-8") as file:
                file.write(line)
            print(f"{capability}, {threads} threads {options}: {line[:60]}…", file=sys.stderr, flush=True)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")


def read(record: Path) -> list[Record]:
    return [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()] if record.exists() else []


def alarms(record: Path, capabilities: Sequence[str], threads: Sequence[int]) -> None:
    done = {(one["capability"], one["threads"], one["seeds"][0]) for one in read(record) if "capability" in one}
    for n in threads:
        for capability in capabilities:
            sets = [range(1 + SEEDS_OF_A_SET * k, 1 + SEEDS_OF_A_SET * (k + 1)) for k in range(SETS)]
            seeds = [str(seed) for some in sets if (capability, n, some[0]) not in done for seed in some]
            if seeds:
                run(record, ["--seeds", *seeds], capability, n)


def faults(record: Path) -> None:
    from planted.faults import FAULTS

    done = {one["fault"] for one in read(record) if "fault" in one}
    for fault in (NO_FAULT, *FAULTS):
        if fault not in done:
            run(record, ["--fault", fault, "--seeds", "1", "2", "3"], "native", 1)


def inconsistent(one: Record) -> list[str]:
    return [model for model, (outcome, *_) in one["models"].items() if outcome != "consistent"]


def tables(records: Sequence[Record]) -> Iterator[str]:
    checks = [one for one in records if "capability" in one]
    cells: dict[tuple[str, int], list[Record]] = {}
    for one in checks:
        cells.setdefault((one["capability"], one["threads"]), []).append(one)
    rows = []
    for (capability, threads), found in cells.items():
        models = Counter(model for one in found for model in inconsistent(one))
        rows.append([capability, threads, len(found), sum(bool(inconsistent(one)) for one in found), _counts(models)])
    total = sum(bool(inconsistent(one)) for one in checks)
    yield _table(rows, ["instructions", "threads", "checks", "inconsistent", "models"])
    yield f"{total} of {len(checks)} checks of unchanged models are inconsistent."
    rows = []
    for one in records:
        if "fault" in one:
            by_self_check = ", ".join(
                f"{model} {mean:.3f} ({low:.3f} to {high:.3f})"
                for model, (outcome, mean, low, high) in one["models"].items()
                if outcome != "consistent"
            )
            rows.append([one["fault"], by_self_check or "–", ", ".join(one["traces"]) or "–"])
    found = sum(row[1:] != ["–", "–"] for row in rows if row[0] != NO_FAULT)
    yield _table(rows, ["fault", "self-check: mean R@20 (where it was expected)", "conformance: traces that fail"])
    yield f"{found} of {sum(row[0] != NO_FAULT for row in rows)} planted faults are found."
    yield f"Source revisions: {', '.join(dict.fromkeys(str(one['revision'])[:12] for one in records))}."


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())


def _table(rows: Sequence[Sequence[object]], head: Sequence[str]) -> str:
    return tabulate(rows, head, tablefmt="github", disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["alarms", "faults", "table", "worker"])
    parser.add_argument("record", type=Path)
    parser.add_argument("--capability", choices=CAPABILITIES, help="alarms: only this one")
    parser.add_argument("--threads", type=int, choices=THREADS, help="alarms: only this many")
    parser.add_argument("--seeds", type=int, nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--fault", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what == "worker":
        worker(arguments)
    elif arguments.what == "faults":
        faults(arguments.record)
    elif arguments.what == "alarms":
        capabilities = [arguments.capability] if arguments.capability else CAPABILITIES
        alarms(arguments.record, capabilities, [arguments.threads] if arguments.threads else THREADS)
    else:
        print("\n\n".join(tables(read(arguments.record))))


if __name__ == "__main__":
    main()
