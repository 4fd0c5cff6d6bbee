"""How long commands take that look at a store of many light runs: `python tests/benchmarks/stored_runs.py`.

    python tests/benchmarks/stored_runs.py [RUNS [FOLDER]] > FILE

Makes a store of RUNS runs (5,000; one in ten failed, one in twenty unfinished) below a temporary folder, or in FOLDER,
which stays, and of 50 more in `few`. Their epochs and hits are links to those of four stored runs; descriptions and
results are files of their own. Prints Markdown: the seconds of each command before there is an index, and once more,
both as they pass and, in brackets, of the processor, which other work on the machine moves less; and its peak memory
and exit code then.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from processes import ROOT, markdown, run

from harness.runs.index import INDEX
from harness.runs.record import EPOCHS, FAILURE, HITS, RESULT, RUN, read_epochs

MINI = ROOT / "docs" / "results" / "runs" / "mini"
MODELS = ("bpr", "lightgcn", "lattice", "vbpr")
DATASETS = ("mini", "baby", "sports", "few")
FEW, BEGAN, LINKS = 50, datetime(2026, 1, 1, tzinfo=UTC), 20_000
PER_FOLDER = len(MODELS) * 3
COMMANDS = (
    "runs list {store}",
    "runs list {store} --model bpr",
    "runs list {store} --dataset baby",
    "runs list {store} --state failed",
    "runs list {store} --json",
    "runs show --out {store} lightgcn-0000000066-seed1234",
    "suite show mini --out {store}",
    "reproduce mini --rerun none --out {store}",
    "report {store}/few --out {store}/report",
)


def make_store(store: Path, n: int) -> None:
    """Fill the folder with `n` runs and FEW more."""
    sources = [next(MINI.glob(f"{model}-*-seed1")) for model in MODELS]
    files = [{name: json.loads((source / name).read_bytes()) for name in (RUN, RESULT)} for source in sources]
    for number in range(n + FEW):
        model = number % len(MODELS)
        of_few = number >= n
        dataset = DATASETS[3 if of_few else number // len(MODELS) % 3]
        path = store / dataset / f"{MODELS[model]}-{number // PER_FOLDER % 997:010x}-seed{number + 1}"
        path.mkdir(parents=True)
        began = BEGAN + timedelta(minutes=number)
        times = [(began + timedelta(seconds=seconds)).isoformat() for seconds in (0, 45)]
        run = {**files[model][RUN], "seed": number + 1, "started": times[0]}
        run["dataset"] = {**run["dataset"], "name": dataset}
        (path / RUN).write_text(json.dumps(run, indent=1))
        _link(sources[model], path, number)
        if of_few or number % 20 not in (3, 7, 11):
            (path / RESULT).write_text(json.dumps({**files[model][RESULT], "finished": times[1]}, indent=1))
        elif number % 20 != 11:
            (path / FAILURE).write_text(json.dumps({"kind": "error", "message": "planted", "when": times[1]}))


def _link(source: Path, path: Path, number: int) -> None:
    """Epochs, as they were written, and hits: one file for LINKS runs, since file systems count links."""
    kept = path.parent.parent / ".linked" / f"{source.name}-{number // LINKS}"
    if not kept.is_dir():
        kept.mkdir(parents=True)
        shutil.copy(source / HITS, kept)
        epochs = next(source.glob(f"{EPOCHS}*"))
        (kept / EPOCHS).write_bytes(read_epochs(epochs))
    for name in (EPOCHS, HITS):
        os.link(kept / name, path / name)


def rows_of(store: Path) -> list[list[Any]]:
    rows = []
    for command in COMMANDS:
        words = command.format(store=store).split()
        (store / INDEX).unlink(missing_ok=True)
        found = [run("-m", "harness", *words) for _ in range(2)]
        times = [f"{used.seconds:.1f} ({used.cpu_s:.1f})" for used in found]
        again = found[1]
        rows.append([f"`bm3 {command.format(store='STORE')}`", *times, f"{again.peak_mb:,.0f}", again.code])
    return rows


def main(n: int, folder: Path | None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        store = folder or Path(scratch)
        if not (store / "few").is_dir():
            make_store(store, n)
            time.sleep(5)  # a file that was only just written may change again within a tick of the clock
        rows = rows_of(store)  # printed before the store is removed, which takes minutes
        import torch  # not before: a command's record of memory begins with that of this process

        from harness.measure.environment import environment

        here = environment(torch.device("cpu"))
        print(f"A store of {n:,} runs; {here['cpu']}, {here['logical_cores']} cores, Python {here['python']}\n")
        head = ["command", "seconds at first (CPU)", "again (CPU)", "peak, MB", "exit code"]
        print(markdown(head, rows), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
