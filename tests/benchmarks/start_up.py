"""How long commands take that compute nothing, as ratios to importing torch: `python tests/benchmarks/start_up.py`.

    python tests/benchmarks/start_up.py [ROUNDS] > FILE

Every round runs each command once, in a process of its own, in turns with `python -c 'import torch'`; a first round is
not counted. Prints Markdown with the medians. Help and wrong usage may take a third of importing torch, commands that
read stored data as long as that.
"""

import json
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch
from processes import markdown, run

from harness.measure.environment import environment

RUNS = "docs/results/runs/mini"
TORCH = "python -c 'import torch'"
ALLOWED = {
    "--help": 1 / 3,
    "--version": 1 / 3,
    "train bpr mini --device tpu": 1 / 3,
    "reproduce no-such-suite": 1 / 3,
    f"runs list {RUNS}": 1.0,
    f"runs show {RUNS}/bpr-f892e99d66-seed1": 1.0,
    f"report {RUNS}": 1.0,
    "expected show table3": 1.0,
    "tables 3": 1.0,
    "suite list": 1.0,
}
"""Commands → what they may take, in imports of torch."""


def trial_s() -> tuple[float, float]:
    """Seconds of one more trial in a suite, and of them those of its training: an epoch of BPR on mini."""
    few, many, taken = 2, 22, {}
    with tempfile.TemporaryDirectory() as place:
        for n in (few, many):
            suite, runs = Path(place, f"{n}.toml"), Path(place, str(n))
            suite.write_text(
                f'title = "x"\ndatasets = ["mini"]\nseeds = {list(range(1, n + 1))}\n'
                '[training]\nepochs = 1\n[[experiments]]\nmodel = "bpr"\n'
            )
            taken[n] = run("-m", "harness", "reproduce", str(suite), "--out", str(runs), "--device", "cpu").seconds
        records = [json.loads(path.read_text()) for path in Path(place, str(many)).glob("mini/*/epochs.jsonl")]
        assert len(records) == many
    return (taken[many] - taken[few]) / (many - few), median(
        one["seconds"] + one["evaluation_seconds"] for one in records
    )


def main(rounds: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in (TORCH, *ALLOWED)}
    with tempfile.TemporaryDirectory() as folder:
        for n in range(rounds + 1):
            for name, found in seconds.items():
                to = ["--out", folder] if name.startswith("report") else []
                used = run(*(["-c", "import torch"] if name == TORCH else ["-m", "harness", *name.split(), *to]))
                if n:
                    found.append(used.seconds)
    torch_s = median(seconds[TORCH])
    rows = [[f"`{TORCH}`", f"{torch_s:.2f}", "1", ""]]
    for name, allowed in ALLOWED.items():
        ratio = median(seconds[name]) / torch_s
        verdict = "yes" if ratio <= allowed else "no"
        rows.append([f"`bm3 {name}`", f"{ratio * torch_s:.2f}", f"{ratio:.2f}", f"{allowed:.2f}: {verdict}"])
    here = environment(torch.device("cpu"))
    print(f"Medians of {rounds} processes each, in turns; {here['cpu']}, torch {torch.__version__}\n")
    head = ["command", "seconds", "imports of torch", "allowed"]
    print(markdown(head, rows))
    trial, training = trial_s()
    ratio = trial / torch_s
    print(
        f"\nOne more trial in a suite: {trial:.2f} s, {ratio:.2f} imports of torch; of them {training:.2f} s its epoch"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
