"""Manifests: which original files a data set is made of, where they are, and on what terms. Fetching is `fetch`.

What a manifest names is checked here, so that a file lands in the folder it is fetched to and nowhere else.
"""

import difflib
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from bm3 import ConfigError, DataError

MANIFEST = Path(__file__).parent / "sources.toml"
RECORD = "fetched.json"
PARTIAL, PARTIAL_VERSION = ".part", ".part.json"
MISMATCH = ".mismatch-"
STRICT = ConfigDict(extra="forbid")

_PART = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"  # no "..", and no hidden file
_PATH = re.compile(f"(?:{_PART}/)*{_PART}")


def checked_base(url: str) -> str:
    """A URL that paths can be appended to, without a slash at its end. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("needed is a URL such as https://host/folder, without ? and #")
    if not url.isprintable() or " " in url:
        raise ValueError("a URL has no blanks and no control characters")
    if parts.username or parts.password:
        raise ValueError("leave user and password out, for URLs are recorded; ~/.netrc can hold them")
    return url.rstrip("/")


def _checked_path(path: str) -> str:
    name = path.rpartition("/")[2]
    if not _PATH.fullmatch(path):
        raise ValueError("needed are names of letters, digits and . _ - with / between them")
    if name.lower() == RECORD or name.endswith((PARTIAL, PARTIAL_VERSION)) or MISMATCH in name:
        raise ValueError(f"{name!r} is a name this project gives to files of its own")
    return path


def _checked_text(text: str) -> str:
    if not text.strip() or not text.isprintable():  # it is printed: a terminal must not be told anything by it
        raise ValueError("needed is one line of text")
    return text


Text = Annotated[str, AfterValidator(_checked_text)]
Bytes = Annotated[int, Field(ge=0, strict=True)]


@validated(frozen=True, config=STRICT)
class SourceFile:
    """One original file."""

    path: Annotated[str, AfterValidator(_checked_path)]
    """Below the base URL; its last part is the file's name."""
    bytes: Bytes | None = None
    """Exact size, if the publisher prints it."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    max_bytes: Bytes | None = None
    """A larger file is refused."""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def limit(self) -> int | None:
        """The most bytes it may have."""
        return min((limit for limit in (self.bytes, self.max_bytes) if limit is not None), default=None)


def _checked_files(files: Sequence[SourceFile]) -> Sequence[SourceFile]:
    names = [file.name.lower() for file in files]  # some file systems know no case
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two files would be stored as {repeated!r}")
    return files


@validated(frozen=True, config=STRICT)
class DataSource:
    """The original files of one data set, and what a reader should know before fetching them."""

    title: Text
    licence: Text
    page: Text
    """Where the publisher describes the files."""
    citation: Text
    base: Annotated[str, AfterValidator(checked_base)]
    prepare: Text
    """The command that makes a data set of the files; {folder} stands for theirs."""
    files: Annotated[tuple[SourceFile, ...], Field(min_length=1), AfterValidator(_checked_files)]

    def url(self, file: SourceFile, base: str | None = None) -> str:
        """Where a file is, at another base if one is given."""
        return f"{base or self.base}/{file.path}"

    def file(self, name: str) -> SourceFile:
        """The file of that name; raises ConfigError."""
        for file in self.files:
            if file.name == name:
                return file
        raise ConfigError(f"no file {name!r} in {self.title}; there are: {', '.join(file.name for file in self.files)}")

    def prepare_command(self, folder: Path) -> str:
        """The command for a shell, with the files in `folder`."""
        return self.prepare.replace("{folder}", shlex.quote(str(folder)))


_MANIFEST = TypeAdapter(dict[Annotated[str, Field(pattern=f"^{_PART}$")], DataSource])


def load_manifest(path: Path = MANIFEST) -> dict[str, DataSource]:
    """Data sources by the name of the data set; raises DataError with the file and the field."""
    try:
        found = _MANIFEST.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path}: {field}: {first['msg'].removeprefix('Value error, ')}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path given with --manifest") from error
    except ValueError as error:  # not TOML, not UTF-8
        raise DataError(f"{path}: is no TOML ({error})") from error
    if not found:
        raise DataError(f"{path}: names no data set")
    return found


def find_source(name: str, manifest: Mapping[str, DataSource]) -> DataSource:
    """The source of the data set called `name`; raises ConfigError with the nearest names."""
    if name in manifest:
        return manifest[name]
    near = difflib.get_close_matches(name, manifest, n=3, cutoff=0.4) or list(manifest)
    raise ConfigError(
        f"no files are known for the data set {name!r}; nearest: {', '.join(near)}. "
        f"Name a manifest that has it with --manifest FILE"
    )
