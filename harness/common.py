"""What every room may use, and which imports none of them: near names, whole files, words for quantities."""

import difflib
import errno
import hashlib
import itertools
import json
import math
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Literal, get_args, get_origin, get_type_hints
from uuid import uuid4

from bm3 import BM3Error, DataError
from bm3.errors import ConfigError

DEEPEST = 100
"""Levels of nested JSON that are read, many more than files of this program have."""
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_LONG_NUMBER = re.compile(r"(?<![\d.])\d{20}")


def nearest(name: str, known: Sequence[str], problem: str) -> str:
    """The known name that is `name` in any case. Raises ConfigError, which begins with `problem`, with the nearest."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    near = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.4)
    raise ConfigError(f"{problem} {name!r}; nearest: {', '.join([by_lower[n] for n in near] or known)}")


def exit_status(held: Iterable[bool | None]) -> int:
    """The exit code that goes with outcomes: 1 if one did not hold, else 0 if one held, else 3.

    None is an outcome without anything to judge by, which changes nothing: nothing measured is never a pass.
    """
    found = set(held)
    return 1 if False in found else 0 if True in found else 3


def require(config: object, field: str, holds: bool, needed: str) -> None:
    """Raise ConfigError naming the field unless `holds` and, if the value is a float, it is finite."""
    value = getattr(config, field)
    if not holds or (isinstance(value, float) and not math.isfinite(value)):
        raise ConfigError(f"{type(config).__name__}: {field} is {value!r}, it must be {needed}")


def check_config(config: object, **least: float) -> None:
    """Raise ConfigError unless these fields are at least so much, and those of a Literal type one of its values."""
    for field, low in least.items():
        require(config, field, getattr(config, field) >= low, f"at least {low}")
    for field, kind in get_type_hints(type(config)).items():
        if get_origin(kind) is Literal:
            require(config, field, getattr(config, field) in get_args(kind), " or ".join(map(str, get_args(kind))))


def folder_name(path: Path) -> str:
    """The name that a folder was given, which is a link's own and not that of what it points to."""
    return path.resolve().name if path.name in ("", "..") else path.name


def regular(path: Path) -> Path:
    """The path, unless something is there that is no file: a pipe would be waited for without end. Raises OSError."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a folder" if path.is_dir() else "not a regular file", str(path))
    return path


def read_file(path: Path) -> bytes:
    """What a file holds. Raises OSError."""
    return regular(path).read_bytes()


def sha256_of(path: Path) -> str:
    """The SHA-256 of what a file holds, in hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path) -> str:
    """The UTF-8 in a file. Raises OSError, and ValueError with the line."""
    content = read_file(path)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"not UTF-8 (at line {line}); store it as UTF-8") from None


def read_json(path: Path) -> Any:
    """What a JSON file says. Raises OSError, and ValueError for what is none, nested too deeply or no Unicode."""
    return parse_json(read_text(path))


def parse_json(text: str) -> Any:
    """What JSON says. Raises ValueError, also for what is nested too deeply and for numbers that no processor has."""
    if _LONG_NUMBER.search(text) or text.count("[") + text.count("{") > DEEPEST:
        bare = _STRING.sub("", text)
        levels = itertools.accumulate(1 if bracket in "[{" else -1 for bracket in re.findall(r"[][{}]", bare))
        if _LONG_NUMBER.search(bare) or max(levels, default=0) > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} deep, or a number of twenty digits")
    return json.loads(text)


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file says. Raises OSError and ValueError."""
    try:
        return tomllib.loads(read_text(path))
    except RecursionError:
        raise ValueError("nested too deeply") from None


class DivergedError(BM3Error):
    """A training that came to values which are not finite: it failed, and nothing was misused."""

    exit_code = 1


class WriteError(DataError):
    """Something cannot be written, as on a full disk. Work that this stops goes on once that is mended."""


@contextmanager
def writing(path: Path, mend: str = "make room and give the same command again, which goes on") -> Iterator[None]:
    """Turns an OSError of the block, which writes `path`, into a WriteError."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error}); {mend}") from error


def check_writable(path: Path, mend: str) -> None:
    """Raises WriteError unless a file can be written at `path`, whose folder is made; what is there stays as it is."""
    with writing(path, mend):
        path.parent.mkdir(parents=True, exist_ok=True)
        regular(path)
        with TemporaryFile(dir=path.parent):
            pass


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, all of it or nothing. Raises OSError."""
    write_whole(path, json.dumps(content, indent=1) + "\n")


def write_whole(path: Path, content: bytes | str) -> None:
    """Write all of it or nothing, text as UTF-8, with escapes for what of a file's name is none. Raises OSError."""
    with whole_file(path) as file:
        file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


@contextmanager
def whole_file(path: Path, *, flushed: bool = True) -> Iterator[IO[bytes]]:
    """A file to write and read, which is `path` after the block, or nothing where the block is left early: one beside
    it, `flushed` to disk in the end, then renamed. Raises OSError, also where no file stands: a device is not replaced.

    That file has a name of its own, so that two processes may write the same path: the last one's content stays.
    """
    temporary = regular(path).with_name(f"{path.name}.{os.getpid()}-{uuid4().hex[:8]}.part")
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            if flushed:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_files(contents: Mapping[Path, bytes | str], mend: str) -> list[Path]:
    """Write each file whole or not at all, in a folder that is made where there is none. Raises WriteError."""
    for path, content in contents.items():
        with writing(path, mend):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
    return list(contents)


NOT_KNOWN = "–"


def duration(seconds: float | None) -> str:
    """`42 s`, `5 min`, `2 h 05 min` or `3 d 4 h`: two units at most, and a dash for what is not known."""
    if seconds is None or not math.isfinite(seconds):
        return NOT_KNOWN
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def size(n_bytes: int) -> str:
    """`512 bytes`, `1.2 kB`, `3.4 GB`, of powers of 1000."""
    from rich.filesize import decimal

    return decimal(n_bytes)


def number(value: float | None, form: str = ".4f", otherwise: str = NOT_KNOWN) -> str:
    """A figure in this format, `otherwise` where there is none; what rounds to nothing has no sign."""
    if value is None:
        return otherwise
    if not math.isfinite(value):
        return "not finite"
    text = format(value, form)
    return text if text.strip("+-0.") else text.lstrip("+-")


def spread(values: Sequence[float]) -> str:
    """From the lowest to the highest of several figures; one has none."""
    return number(max(values) - min(values) if len(values) > 1 else None)


def clock_time(stored: str) -> str:
    """A stored time to the minute, in UTC; as it stands where it is none."""
    try:
        return datetime.fromisoformat(stored).astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):
        return stored
