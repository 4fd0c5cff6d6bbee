"""The record of fetched files, `fetched.json` beside them: where each was from, when it came and what it was."""

from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from bm3 import DataError
from harness.data.manifest import RECORD
from harness.files import write_json, writing

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@validated(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Fetched:
    """A file as it was when it came. `fetched.json` holds one for each."""

    url: str | None
    """None: it lay there already, and where it is from is not known."""
    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256
    when: str


@validated(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Record:
    """The file `fetched.json`."""

    format: Literal[1]
    files: dict[str, Fetched] = field(default_factory=dict)


_RECORD = TypeAdapter(Record)


def read_record(folder: Path) -> Record:
    """What `fetched.json` in a folder says; empty where there is none. Raises DataError."""
    path = folder / RECORD
    try:
        return _RECORD.validate_json(path.read_bytes())
    except FileNotFoundError:
        return Record(format=1)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path}: {where + ': ' if where else ''}{first['msg']}; mend it, or move it away to record anew what is "
            f"there"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def remember(folder: Path, name: str, fetched: Fetched) -> None:
    """Enter a file in the record of a folder, in place of what was there of it."""
    record = read_record(folder)
    changed = replace(record, files=dict(sorted({**record.files, name: fetched}.items())))
    with writing(folder / RECORD):
        write_json(folder / RECORD, asdict(changed))
