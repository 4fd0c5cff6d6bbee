"""One file over HTTP, gone on with where it broke off. What becomes of the file is decided in `fetch`.

A partial file stands beside a note which file on the server it is the beginning of; pieces of two are never joined.
"""

# Why not a downloader such as pooch: it deletes what it has when a connection breaks off and when a checksum differs,
# and resumes nothing, also with a `downloader` of one's own, whose temporary file it removes. What would be left of it
# is moving a file. So this is `requests`, which pooch is built on, and the rules of RFC 9110 on ranges.

import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path

import requests
from pydantic import TypeAdapter

from bm3 import DataError
from harness.data.manifest import PARTIAL, PARTIAL_VERSION
from harness.data.remote import (
    ELSEWHERE,
    PASSING,
    RANGE_TOO_FAR,
    Unavailable,
    Version,
    answer_of,
    ask,
    asked_wait,
    blocks,
    version_of,
)
from harness.files import write_json, writing

LONGEST_WAIT = 60.0  # seconds between attempts, unless the server asks for more
LONGEST_ASKED_WAIT = 600.0

Report = Callable[[int, int | None], None]
"""Is told how many bytes of the file are there, and how many it has if the server says so."""


@dataclass(frozen=True)
class Patience:
    """How long and how often a server is tried."""

    retries: int = 5
    """In a row in which nothing more of the file has come."""
    stall: float = 60.0
    """Seconds without a byte after which the connection counts as broken off."""
    wait: Callable[[float], None] = time.sleep

    def pause(self, failures: int, asked: float | None) -> float:
        """Seconds before the next attempt after so many failures in a row: doubled each time."""
        own = min(LONGEST_WAIT, 2.0 ** (failures - 1))
        return own if asked is None else min(LONGEST_ASKED_WAIT, max(own, asked))


_VERSION = TypeAdapter(Version)


@dataclass(frozen=True)
class Transfer:
    """Bringing one file here, as `partial(target)`."""

    session: requests.Session
    url: str
    target: Path
    exact: int | None
    """Bytes it must have, if they are known."""
    limit: int | None
    """The most bytes it may have."""
    patience: Patience
    report: Report
    tell: Callable[[str], None]
    """Is told in a line what a user should know, such as why an attempt ended."""

    def run(self) -> None:
        """Attempts until the file is whole. Raises DataError, and then leaves what has come, unless it is too much."""
        part = partial(self.target)
        best, failures = _size(part), 0
        while True:
            try:
                if self._attempt():
                    return
            except Unavailable as error:
                reached = _size(part)
                failures = 1 if reached > best else failures + 1
                best = max(best, reached)
                if failures > self.patience.retries:
                    kept = f"; {reached:,} bytes are kept in {part}, and the same command goes on after them"
                    raise DataError(
                        f"{self.url}: {error}{kept if reached else ''}. If the host is gone, {ELSEWHERE}"
                    ) from error
                pause = self.patience.pause(failures, error.asked_wait)
                self.tell(f"{self.target.name}: {error}; trying again in {pause:.0f} s")
                self.patience.wait(pause)

    def _attempt(self) -> bool:
        """Whether the partial file is whole now; False: begin again, with nothing. Raises Unavailable or DataError."""
        begun = _begun(self.target, self.url)
        offset = _size(partial(self.target)) if begun else 0
        headers = {}
        if begun and offset:
            if begun.total == offset:
                return True  # stopped after the last byte
            headers["Range"] = f"bytes={offset}-"
            if begun.condition:
                headers["If-Range"] = begun.condition
        with ask(self.session, "GET", self.url, headers, self.patience.stall) as response:
            if begun and offset and response.status_code in (HTTPStatus.PARTIAL_CONTENT, RANGE_TOO_FAR):
                if not _continues(response, begun, offset):
                    self.tell(f"{self.target.name}: is another file on the server now; begins again")
                    discard(self.target)
                    return False
            elif response.status_code == HTTPStatus.OK:
                if offset:
                    self.tell(
                        f"{self.target.name}: comes from the beginning; it has changed, or its server cannot go on"
                    )
                offset = 0
            elif response.status_code in PASSING:
                raise Unavailable(answer_of(response), asked_wait(response))
            else:
                raise DataError(f"{self.url}: {answer_of(response)}; check the URL, or {ELSEWHERE}")
            self._receive(response, offset)
        return True

    def _receive(self, response: requests.Response, offset: int) -> None:
        """Write the body from `offset` on. Raises Unavailable where it ends too early, or DataError."""
        found, part = version_of(response, self.url), partial(self.target)
        total = self.exact if found.total is None else found.total
        self._check_size(total)
        check_room(self.target.parent, 0 if total is None else total - offset)
        with writing(part), part.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            if not offset:
                # After the old content has gone: else a kill between the two would leave it under this note.
                write_json(_note(self.target), asdict(found))
            self.report(offset, total)
            for block in blocks(response, self.patience.stall):
                offset += len(block)
                if self.limit is not None and offset > self.limit:
                    break
                file.write(block)
                self.report(offset, total)
            file.flush()
            os.fsync(file.fileno())
        if self.limit is not None and offset > self.limit:
            discard(self.target)
            self._check_size(offset)
        if total is None:
            self.tell(f"{self.target.name}: the server does not say how long it is, so an end may be missing unnoticed")
        elif offset < total:
            raise Unavailable(f"the connection broke off after {offset:,} of {total:,} bytes")

    def _check_size(self, size: int | None) -> None:
        if size is None:
            return
        if self.limit is not None and size > self.limit:
            raise DataError(f"{self.url}: more than the {self.limit:,} bytes that the manifest admits; {ELSEWHERE}")
        if self.exact is not None and size != self.exact:
            raise DataError(f"{self.url}: {size:,} bytes, and the manifest says {self.exact:,}; {ELSEWHERE}")


def partial(target: Path) -> Path:
    """Where what has come of a file is kept until all of it is there."""
    return target.with_name(target.name + PARTIAL)


def discard(target: Path) -> None:
    """Forget what has come of a file."""
    partial(target).unlink(missing_ok=True)
    _note(target).unlink(missing_ok=True)


def check_room(folder: Path, needed: int) -> None:
    """Raises DataError where fewer than `needed` bytes are free for `folder`, which need not exist."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise DataError(
            f"{folder}: {needed:,} bytes are still to come and {free:,} are free on this disk; make room, or choose "
            f"another folder with --to"
        )


def _begun(target: Path, url: str) -> Version | None:
    """Which file the partial one is the beginning of; None where it is of none that could be gone on with."""
    part, note = partial(target), _note(target)
    for path in (part, note):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise DataError(f"{path}: is no file of this command; move it away")
    try:
        begun = _VERSION.validate_json(note.read_bytes(), strict=True)
    except (OSError, ValueError):
        return None
    known = begun.condition is not None or begun.total is not None
    return begun if begun.url == url and known and (begun.total is None or _size(part) <= begun.total) else None


def _continues(response: requests.Response, begun: Version, offset: int) -> bool:
    """Whether an answer to a range goes on where the partial file ends, in the same file."""
    found = version_of(response, begun.url)
    match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(?:\d{1,18}|\*)", response.headers.get("Content-Range", ""))
    if response.status_code != HTTPStatus.PARTIAL_CONTENT or match is None or int(match[1]) != offset:
        return False
    # Without a condition in the request, only an equal size speaks for the same file.
    return begun.may_be(found) and (begun.condition is not None or found.total is not None)


def _note(target: Path) -> Path:
    return target.with_name(target.name + PARTIAL_VERSION)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
