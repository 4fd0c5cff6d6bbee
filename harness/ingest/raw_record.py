"""One line of a raw file as a dictionary: JSON, or the Python literal in which the original metadata is written.

Literals are parsed by `ast.literal_eval`, which runs nothing. What the keys mean is elsewhere.
"""

import ast
import json
import re
import warnings
from typing import Any

MAX_LITERAL = 2**20
"""Bytes. Parsing a literal takes some hundred times its size in memory; original lines have up to some 100 kB."""
IDENTIFIER = re.compile(rb"[!#-+\--~]{1,64}")
"""What users and items are called in the original files: visible ASCII without commas and quotes."""


class BrokenRecordError(Exception):
    """A line that is no record; the message says why in a few words."""


def parse_record(line: bytes) -> dict[Any, Any]:
    """The dictionary on a line. Raises BrokenRecordError."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # ValueError: not JSON, not UTF-8, a number of too many digits
        record = _parse_literal(line)
    if not isinstance(record, dict):
        raise BrokenRecordError(f"a {type(record).__name__}, not a dictionary")
    return record


def identifier(record: dict[Any, Any], key: str) -> bytes:
    """The user or item named under `key`. Raises BrokenRecordError."""
    value = record.get(key)
    if value is None:
        raise BrokenRecordError(f"no {key}")
    encoded = value.encode() if isinstance(value, str) and value.isascii() else b""
    if not IDENTIFIER.fullmatch(encoded):
        raise BrokenRecordError(f'{key} is {shown(value)}, needed are 1 to 64 visible ASCII characters without , and "')
    return encoded


def shown(value: object) -> str:
    """A value as errors show it: in quotes, escaped, and short."""
    long_number = isinstance(value, int) and value.bit_length() > 200
    if long_number or not isinstance(value, str | bytes | int | float | None):
        return f"of type {type(value).__name__}"  # too long or too deeply nested to be shown
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _parse_literal(line: bytes) -> Any:
    if len(line) > MAX_LITERAL:
        raise BrokenRecordError(f"no JSON, and longer than {MAX_LITERAL} bytes, up to which Python literals are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # texts contain backslashes that Python would warn of
            return ast.literal_eval(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BrokenRecordError("not UTF-8") from error
    # Nesting can exceed what the parser takes (MemoryError) or what may recurse (RecursionError).
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise BrokenRecordError("neither JSON nor a Python literal") from error
