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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from pydantic import TypeAdapter

from bm3 import DataError
from harness.data.manifest import PARTIAL, PARTIAL_VERSION
from harness.files import write_json, writing

BLOCK = 64 * 2**10
"""Bytes. What has come of a block is lost when the connection breaks off within it."""
MAX_REDIRECTS = 10
LONGEST_WAIT = 60.0  # seconds between attempts, unless the server asks for more
LONGEST_ASKED_WAIT = 600.0
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
MISSING = frozenset({403, 404, 410})
ELSEWHERE = "name another host with --base-url, or other places with --manifest"

Report = Callable[[int, int | None], None]
"""Is told how many bytes of the file are there, and how many it has if the server says so."""


class Unavailable(Exception):  # noqa: N818 - it is mended by trying again
    """An attempt that ended in something which may pass."""

    def __init__(self, reason: str, asked_wait: float | None = None) -> None:
        super().__init__(reason)
        self.asked_wait = asked_wait


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


@dataclass(frozen=True)
class Version:
    """What a server says of a file, by which another one in its place can be told."""

    url: str
    etag: str | None
    modified: str | None
    total: int | None
    """Bytes."""

    @property
    def condition(self) -> str | None:
        """For If-Range, which admits no weak ETag."""
        return self.etag if self.etag is not None and not self.etag.startswith("W/") else self.modified

    def may_be(self, other: "Version") -> bool:
        """Whether nothing that both say differs."""
        pairs = ((self.etag, other.etag), (self.modified, other.modified), (self.total, other.total))
        return all(one is None or another is None or one == another for one, another in pairs)


_VERSION = TypeAdapter(Version)


def transfer(
    session: requests.Session,
    url: str,
    target: Path,
    *,
    exact: int | None,
    limit: int | None,
    patience: Patience,
    report: Report,
    tell: Callable[[str], None],
) -> Path:
    """Bring `url` whole into the partial file of `target`, whose path is returned.

    `exact` is the size it must have and `limit` the most it may have, where these are known. Raises DataError, and
    leaves what has come for the next time, unless the file is too large.
    """
    part = partial(target)
    best, failures = _size(part), 0
    while True:
        try:
            if _attempt(session, url, target, exact, limit, patience.stall, report, tell):
                return part
        except Unavailable as error:
            reached = _size(part)
            failures = 1 if reached > best else failures + 1
            best = max(best, reached)
            if failures > patience.retries:
                raise DataError(
                    f"{url}: {error}; {reached:,} bytes are kept in {part}, and the same command goes on after them. "
                    f"If the host is gone, {ELSEWHERE}"
                ) from error
            pause = patience.pause(failures, error.asked_wait)
            tell(f"{target.name}: {error}; trying again in {pause:.0f} s")
            patience.wait(pause)


def partial(target: Path) -> Path:
    """Where what has come of a file is kept until all of it is there."""
    return target.with_name(target.name + PARTIAL)


def discard(target: Path) -> None:
    """Forget what has come of a file."""
    partial(target).unlink(missing_ok=True)
    _note(target).unlink(missing_ok=True)


def forget_version(target: Path) -> None:
    """Remove the note beside a partial file, once that is whole and has become the file."""
    _note(target).unlink(missing_ok=True)


def remote_size(session: requests.Session, url: str, stall: float) -> int | None:
    """Bytes of a file by its server, or None where that does not say. Raises Unavailable or DataError."""
    with _ask(session, "HEAD", url, {}, stall) as response:
        if response.status_code in PASSING or response.status_code in MISSING:
            raise Unavailable(_answer(response))
        return _length(response) if response.status_code == HTTPStatus.OK else None


def check_room(folder: Path, needed: int) -> None:
    """Raises DataError where fewer than `needed` bytes are free for `folder`, which need not exist."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise DataError(
            f"{folder}: {needed:,} bytes are still to come and {free:,} are free on this disk; make room, or choose "
            f"another folder with --to"
        )


def _attempt(
    session: requests.Session,
    url: str,
    target: Path,
    exact: int | None,
    limit: int | None,
    stall: float,
    report: Report,
    tell: Callable[[str], None],
) -> bool:
    """Whether the partial file is whole now; False: begin again, with nothing. Raises Unavailable or DataError."""
    part = partial(target)
    begun = _begun(target, url)
    offset = _size(part) if begun else 0
    if begun and offset and begun.total == offset:
        return True  # stopped after the last byte
    headers = {"Range": f"bytes={offset}-"} if begun and offset else {}
    if begun and offset and begun.condition:
        headers["If-Range"] = begun.condition
    with _ask(session, "GET", url, headers, stall) as response:
        found = _version(response, url)
        if begun and offset and response.status_code in (HTTPStatus.PARTIAL_CONTENT, 416):
            if not _continues(response, begun, found, offset):
                tell(f"{target.name}: is another file on the server now; begins again")
                discard(target)
                return False
        elif response.status_code == HTTPStatus.OK:
            if offset:
                tell(f"{target.name}: the server sends it from the beginning, as it has changed or cannot go on")
            offset = 0
        elif response.status_code in PASSING:
            raise Unavailable(_answer(response), _asked_wait(response))
        else:
            mend = ELSEWHERE if response.status_code in MISSING else "check the URL, or " + ELSEWHERE
            raise DataError(f"{url}: {_answer(response)}; {mend}")
        total = found.total if found.total is not None else exact
        _check_size(url, total, exact, limit)
        check_room(target.parent, 0 if total is None else total - offset)
        with writing(part), part.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            if not offset:
                # After the old content has gone: else a kill between the two would leave it under this note.
                write_json(_note(target), asdict(found))
            report(offset, total)
            for block in _blocks(response, stall):
                offset += len(block)
                if limit is not None and offset > limit:
                    discard(target)
                    _check_size(url, offset, None, limit)
                file.write(block)
                report(offset, total)
            file.flush()
            os.fsync(file.fileno())
    if total is None:
        tell(f"{target.name}: the server does not say how long it is, so a part may be missing unnoticed")
    elif offset < total:
        raise Unavailable(f"the connection broke off after {offset:,} of {total:,} bytes")
    return True


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


def _continues(response: requests.Response, begun: Version, found: Version, offset: int) -> bool:
    """Whether an answer to a range goes on where the partial file ends, in the same file."""
    match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(?:\d{1,18}|\*)", response.headers.get("Content-Range", ""))
    if response.status_code != HTTPStatus.PARTIAL_CONTENT or match is None or int(match[1]) != offset:
        return False
    # Without a condition in the request, only an equal size speaks for the same file.
    return begun.may_be(found) and (begun.condition is not None or found.total is not None)


def _version(response: requests.Response, url: str) -> Version:
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes [^/]*/(\d{1,18})", response.headers.get("Content-Range", ""))
        total = int(match[1]) if match else None
    else:
        total = _length(response)
    modified = response.headers.get("Last-Modified")
    return Version(url, response.headers.get("ETag"), modified if _is_date(modified) else None, total)


def _length(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None


def _is_date(text: str | None) -> bool:
    try:
        return text is not None and parsedate_to_datetime(text) is not None
    except ValueError:
        return False


def _check_size(url: str, size: int | None, exact: int | None, limit: int | None) -> None:
    if size is None:
        return
    if exact is not None and size != exact:
        raise DataError(f"{url}: has {size:,} bytes, and the manifest says {exact:,}; it is another file, so {ELSEWHERE}")
    if limit is not None and size > limit:
        raise DataError(f"{url}: has {size:,} bytes or more, and the manifest admits {limit:,}; {ELSEWHERE}")


def _ask(
    session: requests.Session, method: str, url: str, headers: Mapping[str, str], stall: float
) -> requests.Response:
    """The answer to a request, redirects followed; its body is not read. Raises Unavailable or DataError."""
    place = url
    for _ in range(MAX_REDIRECTS + 1):
        try:
            response = session.request(
                method,
                place,
                # Compressed on the way, a file would have other bytes and other ranges.
                headers={"Accept-Encoding": "identity", **headers},
                timeout=stall,
                stream=True,
                allow_redirects=False,
            )
            location = session.get_redirect_target(response)
        except requests.exceptions.SSLError as error:
            raise DataError(f"{url}: its host cannot be trusted ({_reason(error, stall)}); {ELSEWHERE}") from error
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
            raise Unavailable(_reason(error, stall)) from error
        except (requests.exceptions.RequestException, ValueError) as error:
            raise DataError(f"{url}: cannot be asked for ({type(error).__name__}); check the URL") from error
        if location is None:
            return response
        response.close()
        place = _redirected(url, place, location)
    raise DataError(f"{url}: redirects more than {MAX_REDIRECTS} times; {ELSEWHERE}")


def _redirected(url: str, place: str, location: str) -> str:
    target = urljoin(place, location)
    admitted = ("https",) if urlsplit(place).scheme == "https" else ("http", "https")
    if urlsplit(target).scheme not in admitted:
        raise DataError(f"{url}: redirects from {place} to {target!r}, which is not {' or '.join(admitted)}; {ELSEWHERE}")
    return target


def _blocks(response: requests.Response, stall: float) -> Iterator[bytes]:
    """The body as it is on the server; raises Unavailable."""
    try:
        # Not decoded: a server that calls a .gz file compressed content means the file itself.
        yield from response.raw.stream(BLOCK, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unavailable(_reason(error, stall)) from error


def _reason(error: BaseException, stall: float) -> str:
    """The few words for a reader that an error of the network has somewhere within."""
    chain: list[BaseException] = [error]
    while (deeper := chain[-1].__cause__ or chain[-1].__context__) is not None and deeper not in chain:
        chain.append(deeper)
    for each in reversed(chain):
        if isinstance(each, TimeoutError | urllib3.exceptions.TimeoutError | requests.exceptions.Timeout):
            return f"no byte for {stall:g} s"
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
    return "the connection broke off"


def _answer(response: requests.Response) -> str:
    try:
        phrase = HTTPStatus(response.status_code).phrase  # the server's own words are not printed: they can be anything
    except ValueError:
        phrase = "a status of no meaning"
    return f"the server answers {response.status_code} ({phrase})"


def _asked_wait(response: requests.Response) -> float | None:
    asked = response.headers.get("Retry-After", "")
    return float(asked) if re.fullmatch(r"[0-9]{1,6}", asked) else None


def _note(target: Path) -> Path:
    return target.with_name(target.name + PARTIAL_VERSION)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
