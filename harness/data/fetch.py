"""Original files of a data set fetched into a folder, and the record of what they were. How bytes travel is `transfer`.

Publishers rarely print checksums. So the first copy is trusted and recorded, and every later one must equal it.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

import requests
from filelock import FileLock, Timeout

from bm3 import ConfigError, DataError
from harness.data.fetch_record import Fetched, Record, read_record, remember
from harness.data.manifest import MISMATCH, RECORD, DataSource, SourceFile
from harness.data.remote import Unavailable, remote_size
from harness.data.transfer import Patience, Transfer, check_room, discard, partial
from harness.files import writing

LOCK = ".fetching.lock"
HASHED_AT_A_TIME = 2**20
SIZE_WITHIN = 15.0  # seconds; a host that does not even say sizes must not hold up for long

State = Literal["there", "begun", "missing"]


@dataclass(frozen=True)
class Order:
    """What to fetch and where to. Made by `make_order`."""

    source: DataSource
    files: tuple[SourceFile, ...]
    folder: Path
    base: str | None
    """In place of the manifest's."""
    checksums: Mapping[str, str]
    """SHA-256 by file name, as the user demands."""

    def url(self, file: SourceFile) -> str:
        return self.source.url(file, self.base)

    def target(self, file: SourceFile) -> Path:
        return self.folder / file.name


@dataclass(frozen=True)
class Found:
    """What is known of a file before it is fetched."""

    file: SourceFile
    state: State
    here: int
    """Bytes of it in the folder."""
    size: int | None
    """Bytes it has, by the record, the manifest or the server."""
    trouble: str | None = None
    """Why its server does not say the size."""


@dataclass(frozen=True)
class Display:
    """How a user learns what goes on."""

    tell: Callable[[str], None] = lambda line: None
    progress: Callable[[str], AbstractContextManager[Callable[[int, int | None], None]]] = lambda name: nullcontext(
        lambda position, total: None
    )
    """From a file's name to a function that is told the position in it, and its size where that is known."""


def make_order(
    source: DataSource, folder: Path, *, base: str | None, only: tuple[str, ...], checksums: Mapping[str, str]
) -> Order:
    """An order whose names are all in the manifest and whose checksums do not contradict it; raises ConfigError."""
    files = tuple(source.file(name) for name in dict.fromkeys(only)) or source.files
    for name, sha256 in checksums.items():
        listed = source.file(name).sha256
        if listed is not None and listed != sha256:
            raise ConfigError(
                f"{name}: --checksum says {sha256}, and the manifest {listed}; leave --checksum out, or name a "
                f"manifest of your own with --manifest"
            )
    return Order(source, files, folder, base, checksums)


def new_session() -> requests.Session:
    """Says who asks."""
    session = requests.Session()
    session.headers["User-Agent"] = f"bm3-harness/{metadata.version('bm3-harness')}"
    return session


def survey(order: Order, session: requests.Session, stall: float) -> list[Found]:
    """What is there of each file and how large it is. Asks servers for sizes, writes nothing. Raises DataError."""
    record = read_record(order.folder)
    return [_look_up(order, file, record, session, min(stall, SIZE_WITHIN)) for file in order.files]


def _look_up(order: Order, file: SourceFile, record: Record, session: requests.Session, stall: float) -> Found:
    target = order.target(file)
    if target.exists() and not target.is_file():
        raise DataError(f"{target}: is no file; move it away, or choose another folder with --to")
    state: State = "there" if target.exists() else "begun" if partial(target).exists() else "missing"
    path = target if state == "there" else partial(target)
    here = path.stat().st_size if path.exists() else 0
    if file.name in record.files and file.name not in order.checksums:
        return Found(file, state, here, record.files[file.name].bytes)
    if file.bytes is not None:
        return Found(file, state, here, file.bytes)
    try:
        return Found(file, state, here, remote_size(session, order.url(file), stall))
    except (Unavailable, DataError) as error:
        return Found(file, state, here, None, str(error))


def fetch(
    order: Order, found: list[Found], session: requests.Session, patience: Patience, display: Display
) -> dict[str, Fetched]:
    """Fetch what is missing, check all of it, and keep the record; what is there and as recorded stays as it is.

    Raises DataError. What had come until then stays, and the same order goes on with it.
    """
    check_room(order.folder, sum((each.size or 0) - each.here for each in found if each.state != "there"))
    with _locked(order.folder):
        return {each.file.name: _fetch_one(order, each, session, patience, display) for each in found}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two commands must not write one partial file. A folder that is made for this is removed if nothing comes."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    with writing(folder, "choose another folder with --to"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise DataError(f"{folder}: another command is fetching into it; wait until it has ended") from error
    try:
        yield
    finally:
        with suppress(OSError):  # some systems remove no file that is open
            (folder / LOCK).unlink()
        lock.release()
        with suppress(OSError):
            for each in made:
                each.rmdir()


def _fetch_one(order: Order, found: Found, session: requests.Session, patience: Patience, display: Display) -> Fetched:
    if order.target(found.file).exists():
        return _check_there(order, found, display)
    with display.progress(found.file.name) as report:
        Transfer(
            session=session,
            url=order.url(found.file),
            target=order.target(found.file),
            exact=found.file.bytes,
            limit=found.file.limit,
            patience=patience,
            report=report,
            tell=display.tell,
        ).run()
    return _take_in(order, found.file, display)


def _check_there(order: Order, found: Found, display: Display) -> Fetched:
    """Compare a file in the folder with what is known of it. It is never touched: its owner may have nothing else."""
    file, target = found.file, order.target(found.file)
    recorded = read_record(order.folder).files.get(file.name)
    expected, authority = _expected(order, file, recorded)
    sha256, size = _hashed(target, f"{file.name}, checking", display), target.stat().st_size
    if expected is not None and sha256 != expected:
        raise DataError(
            f"{target}: its sha256 is {sha256}, and {authority} says {expected}; it is left as it is. Move it away to "
            f"fetch it again{_or_accept(file, sha256)}"
        )
    if expected is None and found.size is not None and found.size != size:
        raise DataError(
            f"{target}: {size:,} bytes, and {order.url(file)} has {found.size:,}; it is left as it is. Move it away to "
            f"fetch it{_or_accept(file, sha256)}"
        )
    if recorded is not None and recorded.sha256 == sha256:
        display.tell(f"{file.name}: is there, and as recorded")
        return recorded
    display.tell(f"{file.name}: is there; recorded as it is")
    first = Fetched(None, size, sha256, _now())
    remember(order.folder, file.name, first)
    return first


def _take_in(order: Order, file: SourceFile, display: Display) -> Fetched:
    """Give a partial file that is whole its name, if it is what it must be; else a name that says it is not."""
    target, part = order.target(file), partial(order.target(file))
    recorded = read_record(order.folder).files.get(file.name)
    expected, authority = _expected(order, file, recorded)
    sha256 = _hashed(part, f"{file.name}, checking", display)
    if expected is not None and sha256 != expected:
        aside = target.with_name(f"{file.name}{MISMATCH}{sha256[:8]}")  # of another content, it would have another name
        _rename(part, aside)
        discard(target)
        accept = _or_accept(file, sha256)
        renamed = f"{accept} once it is renamed to {file.name}" if accept else ""
        raise DataError(
            f"{order.url(file)}: its sha256 is {sha256}, and {authority} says {expected}; what came is kept as "
            f"{aside}. Fetch it from another host with --base-url{renamed}"
        )
    came = Fetched(order.url(file), part.stat().st_size, sha256, _now())
    if recorded is None or recorded.sha256 != sha256:
        remember(
            order.folder, file.name, came
        )  # before the file appears: nothing would tell where an unrecorded one is from
    _rename(part, target)
    discard(target)
    trust = "recorded, and later copies must equal it" if expected is None else f"as {authority} says"
    display.tell(f"{file.name}: {came.bytes:,} bytes, sha256 {sha256} ({trust})")
    return came


def _or_accept(file: SourceFile, sha256: str) -> str:
    """How a file that is not the known one can be admitted, unless the manifest forbids it."""
    return "" if file.sha256 is not None else f", or accept it with --checksum {file.name}={sha256}"


def _rename(old: Path, new: Path) -> None:
    with writing(new):
        old.replace(new)


def _expected(order: Order, file: SourceFile, recorded: Fetched | None) -> tuple[str | None, str]:
    """The SHA-256 a file must have, if one is known, and who says so. The user may overrule the record."""
    if file.sha256 is not None:
        return file.sha256, "the manifest"
    if file.name in order.checksums:
        return order.checksums[file.name], "--checksum"
    return (None, "") if recorded is None else (recorded.sha256, RECORD)


def _hashed(path: Path, name: str, display: Display) -> str:
    digest, position, size = hashlib.sha256(), 0, path.stat().st_size
    try:
        with path.open("rb") as file, display.progress(name) as report:
            report(0, size)
            while block := file.read(HASHED_AT_A_TIME):
                digest.update(block)
                position += len(block)
                report(position, size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    return digest.hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
