"""Asking a server for a file: requests, redirects, and what answers say. Going on with a file is `transfer`."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from bm3 import DataError

BLOCK = 64 * 2**10
"""Bytes. What has come of a block is lost when the connection breaks off within it."""
MAX_REDIRECTS = 10
RANGE_TOO_FAR = 416  # HTTPStatus calls it by two names, depending on the Python
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
MISSING = frozenset({403, 404, 410})
ELSEWHERE = "name another host with --base-url, or other places with --manifest"


class Unavailable(Exception):  # noqa: N818 - it is mended by trying again
    """An attempt that ended in something which may pass."""

    def __init__(self, reason: str, asked_wait: float | None = None) -> None:
        super().__init__(reason)
        self.asked_wait = asked_wait


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


def remote_size(session: requests.Session, url: str, stall: float) -> int | None:
    """Bytes of a file by its server, or None where that does not say. Raises Unavailable or DataError."""
    with ask(session, "HEAD", url, {}, stall) as response:
        if response.status_code in PASSING or response.status_code in MISSING:
            raise Unavailable(answer_of(response))
        return _length(response) if response.status_code == HTTPStatus.OK else None


def ask(
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
        raise DataError(
            f"{url}: redirects from {place} to {target!r}, which is not {' or '.join(admitted)}; {ELSEWHERE}"
        )
    return target


def blocks(response: requests.Response, stall: float) -> Iterator[bytes]:
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


def answer_of(response: requests.Response) -> str:
    try:
        phrase = HTTPStatus(response.status_code).phrase  # the server's own words are not printed: they can be anything
    except ValueError:
        phrase = "a status of no meaning"
    return f"the server answers {response.status_code} ({phrase})"


def asked_wait(response: requests.Response) -> float | None:
    asked = response.headers.get("Retry-After", "")
    return float(asked) if re.fullmatch(r"[0-9]{1,6}", asked) else None


def version_of(response: requests.Response, url: str) -> Version:
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
