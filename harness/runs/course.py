"""How far a training is, from the end of its `epochs.jsonl` alone, so that it may be asked often."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.runs.store import EPOCHS, LOG
from harness.training.config import STOPPING_METRIC

BLOCK = 1 << 16
IMPROVED = b'"improved": true'  # as `RunWriter.epoch` writes it


@dataclass(frozen=True)
class Course:
    """The last epoch that was written, and the best one so far; 0 and None where there is none yet."""

    epoch: int = 0
    best_epoch: int = 0
    best: float | None = None
    """Validation R@20 of the best epoch."""


def course(run: Path) -> Course:
    """The course of the run in a folder. What cannot be read, such as a line that is being written, is passed over.

    Reads back to the last epoch that was a new best, which a training's patience keeps near the end.
    """
    epoch = 0
    for line in lines_backwards(run / EPOCHS):
        if epoch and IMPROVED not in line:
            continue
        try:
            record = json.loads(line)
            epoch = epoch or int(record["epoch"])
            if record["improved"]:
                return Course(epoch, int(record["epoch"]), float(record["valid"][STOPPING_METRIC]))
        except (ValueError, KeyError, TypeError):
            continue
    return Course(epoch)


def last_log_line(run: Path) -> str | None:
    """The last line that says something in the log of a run's process; None without one."""
    lines = (line.decode(errors="replace").strip() for line in lines_backwards(run / LOG))
    return next((line for line in lines if line), None)


def lines_backwards(path: Path, block: int = BLOCK) -> Iterator[bytes]:
    """Lines of a file, the last one first, read as they are asked for; none of a file that cannot be read."""
    try:
        with path.open("rb") as file:
            position = file.seek(0, os.SEEK_END)
            rest = b""
            while position:
                start = max(0, position - block)
                file.seek(start)
                first, *lines = (file.read(position - start) + rest).split(b"\n")
                yield from (line for line in reversed(lines) if line)
                position, rest = start, first
            if rest:
                yield rest
    except OSError:
        return
