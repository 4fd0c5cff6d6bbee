"""The index of a store: what lists, estimates and reports ask of every run, so that a store of many is read once. It is
a copy: where it is missing, damaged, older than this code or cannot be written, runs are read.

What it trusts: a run is as it was while its folder has the same files of those that an entry is made from, each with
the same inode, size, time of modification and time of change. The last is the system's, and nobody sets it back: an
edit to the same size with its time set back is seen, and an index from elsewhere says nothing. A file that changed
within MARGIN of being read is not taken in, since a second change in the same tick of the clock leaves no trace; the
clock of a file server must not be further off. Nor are damaged runs. What trains, verifies or removes reads the runs.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from harness.common import read_file, write_whole
from harness.runs import inspect, record
from harness.runs.inspect import FIELDS, Entry, entry, key_below
from harness.runs.record import COMPRESSED, EPOCHS, FAILURE, RESULT, RUN
from harness.runs.store import LOCK, in_use, walk

INDEX = ".index.json"
MADE_FROM = (RUN, RESULT, FAILURE, EPOCHS, *(f"{EPOCHS}{ending}" for ending in COMPRESSED))
LEAST, SHARE = 500, 50
"""It is written when so many runs were read, and a fiftieth of all: reading these takes as long as writing it."""
MARGIN = 2.0
"""Seconds."""
Watch = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Given how many runs are to be read, it is told how many have been."""


def entries(out: Path, watch: Watch | None = None) -> list[Entry]:
    """Every run below `out` that counts, by path, out of the index as far as that knows it, which is then brought up to
    date. `watch` sees those being read that it does not know, if they are many. Raises DataError as `walk` does.
    """
    looked, settled, above = {}, time.time() - MARGIN, len(str(out).rstrip(os.sep)) + 1
    for folder, files in walk(out):
        key = key_below(out, out) if folder == str(out) else folder[above:].replace(os.sep, "/")
        path = Path(folder)
        looked[key] = path, None if LOCK in files and in_use(path) else _stamp(files, settled)
    known = _read(out) if len(looked) >= LEAST else {}
    known = {key: row for key, row in known.items() if key in looked and row[1] == looked[key][1]}
    unknown, found, new = [key for key in looked if key not in known], dict[str, Entry](), 0
    shown = watch(len(unknown)) if watch and len(unknown) >= LEAST else nullcontext(lambda done: None)
    try:
        with shown as tell:
            for done, key in enumerate(unknown, start=1):
                path, stamp = looked[key]
                one = found[key] = entry(path, key)
                if stamp is not None and one.state not in ("damaged", "running"):
                    known[key] = [key, stamp, *(getattr(one, name) for name in FIELDS[2:])]
                    new += 1
                tell(done)
    finally:  # what was read before Ctrl-C stays known
        if new >= max(LEAST, len(looked) // SHARE):
            body = json.dumps([*known.values()]).encode()
            with suppress(OSError):  # as in a store of somebody else, or on a full disk
                write_whole(out / INDEX, _head(body) + b"\n" + body)
    return [found.get(key) or Entry(path, key, *known[key][2:]) for key, (path, _) in looked.items()]


def _stamp(files: Mapping[str, "os.DirEntry[str]"], settled: float) -> int | None:
    """What is the same as long as a run is; None where a file changed after that time or cannot be looked at."""
    try:
        found = [(place, files[name].stat()) for place, name in enumerate(MADE_FROM) if name in files]
    except OSError:
        return None
    if any(one.st_mtime > settled or one.st_ctime > settled for _, one in found):
        return None
    # Of whole numbers, so it is the same in every process.
    return hash(tuple((n, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for n, one in found))


def _read(out: Path) -> dict[str, list[Any]]:
    """Key → key, stamp of the files, and of the entry what follows; nothing where no whole index of this code is."""
    try:
        head, _, body = read_file(out / INDEX).partition(b"\n")
        return {row[0]: row for row in json.loads(body)} if head == _head(body) else {}
    except OSError:
        return {}


def _head(body: bytes) -> bytes:
    """The digest of the rest and of the code that says what an entry is."""
    code = (Path(str(module.__file__)).read_bytes() for module in (record, inspect))
    return hashlib.sha256(b"".join([*code, Path(__file__).read_bytes(), body])).hexdigest().encode()
