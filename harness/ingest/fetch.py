"""Original files of a data set fetched into a folder, gone on with where a download broke off, and held to a record.

Publishers rarely print checksums. So the first copy is trusted and recorded in fetched.json, and every later one must
equal it. A file that is begun stands beside a note of what it is the beginning of; pieces of two are never joined.
"""

# Why not a downloader such as pooch: it deletes what it has when a connection breaks off, and resumes nothing.

import os
import re
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

import requests
import urllib3
from filelock import FileLock, Timeout
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from bm3 import ConfigError, DataError
from harness.common import nearest, read_file, read_toml, regular, sha256_of, write_json, writing
from harness.data.files import reading

RECORD, LOCK, PARTIAL, NOTE, MISMATCH = "fetched.json", ".fetching.lock", ".part", ".part.json", ".mismatch-"
BLOCK = 64 * 2**10
"""Bytes. What has come of a block is lost when the connection breaks off within it."""
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
LONGEST_WAIT = 60.0  # seconds between attempts
ELSEWHERE = "name another host with --base-url, or other places with --manifest"

Report = Callable[[int, int | None], None]
"""Is told the position in a file, and its size where that is known."""
Line = Annotated[str, Field(pattern=r"^[^\s\p{C}]\PC*$")]  # it is printed: a terminal must not be told anything by it
Url = Annotated[str, Field(pattern=r"^https?://[^\s\p{C}?#@/]+(/[^\s\p{C}?#@]*)?$")]  # no password: URLs are recorded
Place = Annotated[str, Field(pattern="^([A-Za-z0-9][A-Za-z0-9._-]*/)*[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""Of a file below the base URL. Its last part is the file's name, so it can lead to no other folder."""
STRICT = ConfigDict(extra="forbid")


@validated(frozen=True, config=STRICT)
class Source:
    """The original files of one data set, and what a reader should know before fetching them."""

    title: Line
    licence: Line
    page: Line
    """Where the publisher describes the files."""
    citation: Line
    base: Url
    prepare: Line
    """The command that makes a data set of the files; {folder} stands for theirs."""
    files: Annotated[tuple[Place, ...], Field(min_length=1)]

    def chosen(self, names: Iterable[str]) -> dict[str, str]:
        """Places by file name, all of them where none is named. Raises ConfigError."""
        places = {place.rpartition("/")[2]: place for place in self.files}
        for name in names:
            if name not in places:
                raise ConfigError(f"no file {name!r} in {self.title}; there are: {', '.join(places)}")
        return {name: places[name] for name in names} or places

    def prepare_command(self, folder: Path) -> str:
        """The command for a shell, with the files in `folder`."""
        return self.prepare.replace("{folder}", shlex.quote(str(folder)))


def load_sources(manifest: Path) -> dict[str, Source]:
    """The sources in a manifest, by the name of the data set. Raises DataError with file and field."""
    try:
        return TypeAdapter(dict[str, Source]).validate_python(read_toml(manifest))
    except (OSError, ValueError) as error:
        raise DataError(f"{manifest}: {_reason(error)}; check the path given with --manifest") from error


def find_source(name: str, manifest: Path, base: str | None = None) -> Source:
    """The source of a data set, at another base URL if one is given; raises ConfigError too."""
    sources = load_sources(manifest)
    source = sources[nearest(name, list(sources), f"{manifest} has no data set")]
    try:
        return source if base is None else replace(source, base=base)
    except ValidationError:
        raise ConfigError(f"--base-url {base!r}: needed is https://host/folder, without password, ? and #") from None


@validated(frozen=True, config=STRICT)
class Fetched:
    """A file as it was when it came; `fetched.json` holds one for each. `url` is None where it lay there already."""

    url: str | None
    bytes: int
    sha256: str
    when: str


@validated(frozen=True, config=STRICT)
class _Record:
    format: Literal[1]
    files: dict[str, Fetched] = field(default_factory=dict)


@validated(frozen=True, config=STRICT)
class _Begun:
    """Which file on a server a partial one is the beginning of. `condition`: an ETag of equal bytes, or a date."""

    url: str
    condition: str
    total: int


class _Unavailable(Exception):  # noqa: N818 - it is mended by trying again
    """An attempt that ended in something which may pass."""


@dataclass(frozen=True)
class Found:
    """What is known of a file before it is fetched: bytes in the folder, and bytes it has, if its server says so."""

    name: str
    there: bool
    here: int
    size: int | None


@dataclass(frozen=True)
class Fetch:
    """Files of a source on their way into a folder. `survey` writes nothing, `run` brings what is missing."""

    source: Source
    folder: Path
    only: tuple[str, ...] = ()
    """File names; none: all of them."""
    checksums: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 by file name, as the user demands; they overrule the record."""
    retries: int = 5
    """Attempts in a row in which nothing more of a file has come."""
    stall: float = 60.0
    """Seconds without a byte after which a connection counts as broken off."""
    tell: Callable[[str], None] = lambda line: None
    progress: Callable[[str], AbstractContextManager[Report]] = lambda name: nullcontext(lambda position, total: None)
    wait: Callable[[float], None] = time.sleep

    def url(self, name: str) -> str:
        return f"{self.source.base.rstrip('/')}/{self.source.chosen([name])[name]}"

    def partial(self, name: str) -> Path:
        """Where what has come of a file is kept until all of it is there."""
        return self.folder / (name + PARTIAL)

    def survey(self) -> list[Found]:
        """What is there of each file, and how large it is. Writes nothing. Raises ConfigError or DataError."""
        self.source.chosen(self.checksums)
        recorded, found = _recorded(self.folder), []
        for name in self.source.chosen(self.only):
            target, part = self.folder / name, self.partial(name)
            for path in (target, part, part.with_name(name + NOTE)):
                if path.is_symlink() or (path.exists() and not path.is_file()):
                    raise DataError(f"{path}: is no plain file; move it away, or choose another folder with --out")
            size = recorded[name].bytes if name in recorded and name not in self.checksums else self._remote_size(name)
            found.append(Found(name, target.exists(), max(_size(target), _size(part)), size))
        return found

    def kept(self) -> str:
        """What is there of files that are not whole, for whoever interrupts."""
        begun = [path for path in map(self.partial, self.source.chosen(self.only)) if path.exists()]
        kept = ", ".join(f"{_size(path):,} bytes are kept in {path}" for path in begun)
        return f"{kept or 'no file is left unfinished'}; the same command goes on"

    def _remote_size(self, name: str) -> int | None:
        try:
            with _ask("HEAD", self.url(name), {}, min(self.stall, 15.0)) as response:
                return _length(response) if response.status_code == HTTPStatus.OK else None
        except (_Unavailable, DataError):
            return None

    def run(self, found: list[Found]) -> None:
        """Fetch what is missing, check all of it, and keep the record; what is there stays as it is.

        Raises DataError. What had come until then stays, and the same command goes on with it.
        """
        made = [each for each in (self.folder, *self.folder.parents) if not each.exists()]
        with writing(self.folder, "choose another folder with --out"):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK, timeout=0)  # two commands must not write one partial file
            try:
                lock.acquire()
            except Timeout as error:
                raise DataError(f"{self.folder}: another command is fetching into it; wait until it ends") from error
        try:
            for each in found:
                if each.there:
                    self._admit(each.name, self.folder / each.name, None, each.size)
                    continue
                with self.progress(each.name) as report:
                    self._transfer(each.name, report)
                self._admit(each.name, self.partial(each.name), self.url(each.name), None)
        finally:
            with suppress(OSError):  # some systems remove no file that is open
                (self.folder / LOCK).unlink(missing_ok=True)
            lock.release()
            with suppress(OSError):  # something has come
                for folder in made:
                    folder.rmdir()

    def _admit(self, name: str, path: Path, url: str | None, size: int | None) -> None:
        """Record a file if it is what it must be, and give it its name; `url` is where it has just come from.

        One that lay there is never touched, as its owner may have nothing else.
        """
        recorded, demanded = _recorded(self.folder).get(name), self.checksums.get(name)
        authority = "--checksum" if demanded else RECORD
        expected = demanded or (recorded.sha256 if recorded else None)
        with reading(path):
            sha256, n_bytes = sha256_of(path), _size(path)
        accept = f"or accept it with --checksum {name}={sha256}"
        left = f"it is left as it is. Move it away to fetch it again, {accept}"
        if expected is None and size not in (None, n_bytes):
            raise DataError(f"{path}: {n_bytes:,} bytes, and {self.url(name)} has {size:,}; {left}")
        if expected not in (None, sha256):
            if url is not None:
                aside = self._rename(path, f"{name}{MISMATCH}{sha256[:8]}", name)
                left = f"what came is kept as {aside}. Fetch it from another host with --base-url, {accept} once it is "
                left += f"renamed to {name}"
            raise DataError(f"{url or path}: its sha256 is {sha256}, and {authority} says {expected}; {left}")
        if recorded is None or recorded.sha256 != sha256:  # before it has its name: it must not be there unrecorded
            entry = Fetched(url, n_bytes, sha256, datetime.now(UTC).isoformat(timespec="seconds"))
            files = dict(sorted({**_recorded(self.folder), name: entry}.items()))
            with writing(self.folder / RECORD):
                write_json(self.folder / RECORD, asdict(_Record(1, files)))
        if url is not None:
            self._rename(path, name, name)
        trust = f"as {authority} says" if expected else "recorded, and later copies must equal it"
        self.tell(f"{name}: {n_bytes:,} bytes, sha256 {sha256} ({trust})")

    def _rename(self, part: Path, new: str, name: str) -> Path:
        with writing(self.folder / new):
            part.replace(self.folder / new)
            part.with_name(name + NOTE).unlink(missing_ok=True)
        return self.folder / new

    def _transfer(self, name: str, report: Report) -> None:
        """Attempts until the partial file is whole. Raises DataError, and leaves what has come."""
        part, failures = self.partial(name), 0
        best = _size(part)
        while True:
            try:
                self._attempt(name, report)
                return
            except _Unavailable as error:
                reached = _size(part)
                failures, best = 1 if reached > best else failures + 1, max(best, reached)
                if failures > self.retries:
                    kept = f"; {reached:,} bytes are kept in {part}, and the same command goes on after them"
                    message = f"{self.url(name)}: {error}{kept if reached else ''}"
                    raise DataError(f"{message}. If the host is gone, {ELSEWHERE}") from error
                pause = min(LONGEST_WAIT, 2.0 ** (failures - 1))
                self.tell(f"{name}: {error}; trying again in {pause:.0f} s")
                self.wait(pause)

    def _attempt(self, name: str, report: Report) -> None:
        """Go on after what is there, by the rules of RFC 9110 on ranges. Raises _Unavailable or DataError."""
        url, part = self.url(name), self.partial(name)
        note, offset = part.with_name(name + NOTE), _size(part)
        begun = _begun(note, url) if offset else None
        if begun is not None and begun.total == offset:
            return  # stopped after the last byte
        headers = {} if begun is None else {"Range": f"bytes={offset}-", "If-Range": begun.condition}
        with _ask("GET", url, headers, self.stall) as response:
            total, tag = _length(response), response.headers.get("ETag")
            if begun is not None and response.status_code in (HTTPStatus.PARTIAL_CONTENT, 416):
                total, given = begun.total, response.headers.get("Content-Range", "")
                another_tag = tag is not None and '"' in begun.condition and tag != begun.condition
                if another_tag or not re.fullmatch(rf"bytes {offset}-[0-9]+/{total}", given):
                    self.tell(f"{name}: is another file on the server now; begins again")
                    part.unlink()
                    self._attempt(name, report)
                    return
            elif response.status_code == HTTPStatus.OK:
                if begun is not None:
                    self.tell(f"{name}: comes from the beginning; it has changed, or its server cannot go on")
                offset = 0
            elif response.status_code in PASSING:
                raise _Unavailable(_said(response))
            else:
                raise DataError(f"{url}: {_said(response)}; check the URL, or {ELSEWHERE}")
            with writing(part), regular(part).open("r+b" if offset else "wb") as content:
                content.seek(offset)
                if not offset:  # after the old content has gone: else a kill would leave it under this note
                    weak = tag is None or tag.startswith("W/")
                    condition = response.headers.get("Last-Modified") if weak else tag
                    write_json(note, {"url": url, "condition": condition, "total": total})
                report(offset, total)
                for block in _blocks(response, self.stall):
                    offset += content.write(block)
                    report(offset, total)
                content.flush()
                os.fsync(content.fileno())
        if total is None:
            self.tell(f"{name}: the server does not say how long it is, so an end may be missing unnoticed")
        elif offset < total:
            raise _Unavailable(f"the connection broke off after {offset:,} of {total:,} bytes")


def _ask(method: str, url: str, headers: Mapping[str, str], stall: float) -> requests.Response:
    """The answer to a request, redirects followed; its body is not read. Raises _Unavailable or DataError."""
    agent = f"bm3-harness/{metadata.version('bm3-harness')}"
    # Compressed on the way, a file would have other bytes and other ranges.
    headers = {"Accept-Encoding": "identity", "User-Agent": agent, **headers}
    try:
        response = requests.request(method, url, headers=headers, timeout=stall, stream=True, allow_redirects=True)
    except requests.exceptions.SSLError as error:
        raise DataError(f"{url}: its host cannot be trusted ({_reason(error)}); {ELSEWHERE}") from error
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        raise _Unavailable(_broken(error, stall)) from error
    except (requests.exceptions.RequestException, ValueError) as error:
        raise DataError(f"{url}: cannot be asked for ({_reason(error)}); check the URL, or {ELSEWHERE}") from error
    if url.startswith("https:") and not response.url.startswith("https:"):
        response.close()
        raise DataError(f"{url}: redirects to {response.url!r}, which is not https; {ELSEWHERE}")
    return response


def _blocks(response: requests.Response, stall: float) -> Iterator[bytes]:
    """The body as it is on the server: one that calls a .gz file compressed content means the file itself."""
    try:
        yield from response.raw.stream(BLOCK, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _Unavailable(_broken(error, stall)) from error


def _broken(error: BaseException | None, stall: float) -> str:
    """The few words for a reader that an error of the network has somewhere within."""
    words = "the connection broke off"
    while error is not None:  # what is furthest within says most
        if isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError | requests.exceptions.Timeout):
            words = f"no byte for {stall:g} s"
        elif isinstance(error, OSError) and error.strerror:
            words = error.strerror
        error = error.__cause__ or error.__context__
    return words


def _said(response: requests.Response) -> str:
    phrases = {status.value: f" ({status.phrase})" for status in HTTPStatus}  # the server's own words can be anything
    return f"the server answers {response.status_code}{phrases.get(response.status_code, '')}"


def _length(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch("[0-9]{1,18}", length) else None


def _begun(note: Path, url: str) -> _Begun | None:
    """Which file a partial one is the beginning of; None where it is of none that could be gone on with."""
    try:
        begun = TypeAdapter(_Begun).validate_json(read_file(note))
    except (OSError, ValueError):
        return None
    return begun if begun.url == url else None


def _recorded(folder: Path) -> dict[str, Fetched]:
    """What `fetched.json` in a folder says of each file. Raises DataError."""
    path = folder / RECORD
    try:
        return TypeAdapter(_Record).validate_json(read_file(path)).files if path.exists() else {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {_reason(error)}; mend it, or move it away to record anew what is there") from error


def _reason(error: Exception) -> str:
    """What is wrong, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
