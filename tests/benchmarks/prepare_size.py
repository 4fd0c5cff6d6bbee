"""Time and memory of `bm3 data prepare` on raw files as large as those of Baby, Sports and Electronics.

    python tests/benchmarks/prepare_size.py baby                    # 2 GB of disk for a while
    python tests/benchmarks/prepare_size.py baby sports electronics # 11 GB, and files that seem larger

Prints Markdown. The files are synthetic and temporary (--folder says where): their line counts are approximately those
of the public files, their core those of the paper's Table 2, their content has no meaning. Most of an image record is a
hole in the file, so reading it is faster than from a disk. Every line is a process of its own.
"""

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate

from harness.cli import main as cli
from harness.cli.data import prepare_command
from harness.measure import MemorySampler
from harness.paper.expected import expected_dir, load_expected

WIDTH, BLOCK = 4096, 100_000


@dataclass(frozen=True)
class Size:
    """Approximate counts of the public raw files of one category."""

    users: int
    items: int
    ratings: int
    metadata: int


SIZES = {
    "baby": Size(users=531_890, items=64_426, ratings=915_446, metadata=71_317),
    "sports": Size(users=1_990_521, items=478_898, ratings=3_268_695, metadata=532_197),
    "electronics": Size(users=4_201_696, items=476_002, ratings=7_824_482, metadata=498_196),
}


def write_ratings(path: Path, name: str, size: Size, draw: np.random.Generator) -> None:
    """A core of the published size, in which nearly everybody has five interactions, among passers-by with few."""
    core = {value.metric: int(value.value or 0) for value in load_expected(expected_dir()) if value.cell[0] == name}
    inner = np.stack(
        [shuffled_with_five_each(core[kind], core["interactions"], draw) for kind in ("users", "items")], axis=1
    )
    n_outer, n_passers_by = size.ratings - len(inner), size.users - core["users"]
    outer = np.stack(
        [
            core["users"] + np.arange(n_outer) % n_passers_by,
            (size.items * draw.random(n_outer) ** 3).astype(np.int64),  # popular items have low numbers
        ],
        axis=1,
    )
    pairs = np.concatenate([inner, outer])
    pairs = pairs[np.argsort(pairs[:, 1], kind="stable")]  # the public files are in order of item
    times = draw.integers(900_000_000, 1_400_000_000, size=len(pairs)) // 86_400 * 86_400
    with path.open("w", encoding="ascii") as file:
        for start in range(0, len(pairs), BLOCK):
            file.writelines(
                f"A{user * 7919:012X}X,{asin(item)},{1 + user % 5}.0,{at}\n"
                for (user, item), at in zip(
                    pairs[start : start + BLOCK].tolist(), times[start : start + BLOCK].tolist(), strict=True
                )
            )


def shuffled_with_five_each(n: int, n_interactions: int, draw: np.random.Generator) -> NDArray[np.int64]:
    rest = (n * draw.random(n_interactions - 5 * n) ** 2).astype(np.int64)
    return draw.permutation(np.concatenate([np.repeat(np.arange(n), 5), rest]))


def asin(item: int) -> str:
    return f"B{item:09}"


def write_metadata(path: Path, size: Size, draw: np.random.Generator) -> None:
    """Lines of about 2 kB: texts, and lists of other items that nobody needs."""
    words = [f"word{number}" for number in range(2000)]

    def lines() -> Iterator[bytes]:
        for item in range(size.metadata):
            chosen = [words[number] for number in draw.integers(len(words), size=110).tolist()]
            others = [asin(number) for number in draw.integers(size.items, size=60).tolist()]
            record = {
                "asin": asin(item),
                "title": " ".join(chosen[:10]),
                "price": 9.99,
                "related": {"also_bought": others[:40], "also_viewed": others[40:]},
                "salesRank": {"Things": item},
                "brand": chosen[10],
                "categories": [["Things", chosen[11], chosen[12]]],
                "description": " ".join(chosen[13:]) + "\n" + "It's good.",
            }
            yield repr(record).encode() + b"\n"

    with gzip.open(path, "wb", compresslevel=1) as file:
        file.writelines(lines())


def write_images(path: Path, size: Size) -> None:
    """Records of which all but a few numbers are a hole: the file takes less space than it has bytes."""
    numbers = np.ones(64, "<f4").tobytes()
    record = 10 + 4 * WIDTH
    with path.open("wb") as file:
        for item in range(size.metadata):
            file.seek(item * record)
            file.write(asin(item).encode() + numbers)
        file.truncate(size.metadata * record)


def child(folder: str, name: str) -> None:
    """Run the command and print JSON: exit code, seconds, bytes of resident memory before it and at the peak."""
    raw = Path(folder)
    cli.data.commands.setdefault("prepare", prepare_command)
    arguments = ["data", "prepare", name, "--ratings", raw / "ratings.csv", "--metadata", raw / "meta.json.gz"]
    sys.argv = ["bm3", *map(str, [*arguments, "--images", raw / "images.b", "--out", raw / "out"])]
    started = time.perf_counter()
    code: object = 0
    with MemorySampler(torch.device("cpu")) as memory:
        try:
            cli.main()
        except SystemExit as ending:
            code = ending.code
    readings = {key: reading.bytes for key, reading in memory.readings().items() if key.startswith("process")}
    print(json.dumps({"code": code, "seconds": time.perf_counter() - started, **readings}))


def measured(folder: Path, name: str) -> tuple[str, ...]:
    """One row of the table."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.run(
        [sys.executable, __file__, "--child", str(folder), name], env=environment, stdout=subprocess.PIPE, text=True
    )
    print(process.stdout, file=sys.stderr)
    found = json.loads(process.stdout.splitlines()[-1])
    if found["code"] != 0:
        raise SystemExit(f"bm3 data prepare {name} ended with exit code {found['code']}")
    counts = json.loads((folder / "out" / name / "prepared.json").read_text(encoding="utf-8"))["counts"]
    raw = sum((folder / file).stat().st_size for file in ("ratings.csv", "meta.json.gz", "images.b"))
    return (
        name,
        f"{counts['ratings']:,}",
        f"{raw / 1e9:.2f}",
        f"{counts['users']:,}",
        f"{counts['items']:,}",
        f"{counts['interactions']:,}",
        f"{found['seconds']:.0f}",
        f"{found['process_rss_start'] / 1e9:.2f}",
        f"{found['process_rss_peak'] / 1e9:.2f}",
    )


def check_room(folder: Path, sizes: list[Size]) -> None:
    """At the most one category's files are there at once; an image record with a hole takes up to half of its bytes."""
    record = 10 + 4 * WIDTH
    needed = max(150 * size.ratings + 3000 * size.metadata + size.metadata * record * 2 for size in sizes)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SystemExit(
            f"{folder}: {free / 1e9:.0f} GB free, up to {needed / 1e9:.0f} needed; choose another --folder"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=sorted(SIZES), metavar="NAME")
    parser.add_argument("--folder", type=Path, help="for the temporary files")
    chosen = parser.parse_args()
    rows = []
    for name in chosen.names:
        with tempfile.TemporaryDirectory(dir=chosen.folder) as made:
            folder, size, draw = Path(made), SIZES[name], np.random.default_rng(1)
            check_room(folder, [size])
            write_ratings(folder / "ratings.csv", name, size, draw)
            write_metadata(folder / "meta.json.gz", size, draw)
            write_images(folder / "images.b", size)
            rows.append(measured(folder, name))
    headers = ("category", "ratings", "raw, GB", "users", "items", "interactions", "seconds", "start, GB", "peak, GB")
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 8)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        main()
