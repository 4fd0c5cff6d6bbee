"""Commands as processes of their own, and figures as tables.

Nothing here loads torch: the system's record of a process's memory begins with that of the one that starts it.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

ROOT = Path(__file__).parent.parent.parent


class Used(NamedTuple):
    """What a process took."""

    seconds: float
    """From its start to its end."""
    cpu_s: float
    """Of them those of the processor."""
    peak_mb: float
    code: int


def run(*arguments: str) -> Used:
    """Python with these arguments, in the checkout; what it prints is thrown away."""
    began, nowhere = time.perf_counter(), subprocess.DEVNULL
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=nowhere, stderr=nowhere)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    return Used(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6, process.returncode)


def markdown(heads: Sequence[str], rows: Sequence[Sequence[object]], align: str = "l") -> str:
    """A table of texts as they stand; `align` has l or r for each of the first columns, the others are figures."""
    sides = [{"l": "left", "r": "right"}[side] for side in align.ljust(len(heads), "r")]
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True, colalign=sides)
