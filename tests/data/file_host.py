"""A host of files on this machine, with ranges and conditions, that a test tells what to do wrong next."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

MODIFIED = "Wed, 01 Jan 2014 00:00:00 GMT"


class Asked(NamedTuple):
    """A request as it came in."""

    method: str
    path: str
    range: str | None
    condition: str | None


@dataclass
class Host:
    """What there is, what goes wrong, and what was asked for."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    """By path."""
    asked: list[Asked] = field(default_factory=list)
    faults: "deque[Fault]" = field(default_factory=deque)
    """Each is used up by one GET, in their order; None is none."""
    validators: bool = True
    """Whether ETag and Last-Modified are sent."""
    weak: bool = False
    """Whether the ETag promises less than equal bytes."""
    released: threading.Event = field(default_factory=threading.Event)
    """Ends what stalls."""

    @property
    def gets(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.method == "GET"]


class Answer(NamedTuple):
    """What the host means to send."""

    status: int
    headers: dict[str, str]
    body: bytes


Fault = Callable[[BaseHTTPRequestHandler, Answer, Host], None] | None


def send(handler: BaseHTTPRequestHandler, answer: Answer, sent: int | None = None) -> None:
    """The answer with as many bytes of its body as given."""
    handler.send_response(answer.status)
    for name, value in answer.headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(answer.body[:sent])
    handler.wfile.flush()


def breaks_off(after: int) -> Fault:
    def fault(handler: BaseHTTPRequestHandler, answer: Answer, host: Host) -> None:
        send(handler, answer, after)
        handler.close_connection = True

    return fault


def breaks_off_unannounced(after: int) -> Fault:
    """As `breaks_off`, and neither the size was said nor anything by which the file could be known again."""

    def fault(handler: BaseHTTPRequestHandler, answer: Answer, host: Host) -> None:
        chunk = f"{len(answer.body):x}\r\n".encode() + answer.body[:after]
        send(handler, Answer(200, {"Transfer-Encoding": "chunked"}, chunk))
        handler.close_connection = True

    return fault


def stalls(after: int) -> Fault:
    def fault(handler: BaseHTTPRequestHandler, answer: Answer, host: Host) -> None:
        send(handler, answer, after)
        host.released.wait(60)
        handler.close_connection = True

    return fault


def answers(status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Fault:
    """Something else than the file."""

    def fault(handler: BaseHTTPRequestHandler, answer: Answer, host: Host) -> None:
        send(handler, Answer(status, {"Content-Length": str(len(body)), **(headers or {})}, body))

    return fault


def ignores_ranges(then: Fault = None) -> Fault:
    """Sends the whole file whatever is asked for."""

    def fault(handler: BaseHTTPRequestHandler, answer: Answer, host: Host) -> None:
        body = host.files[handler.path]
        whole = Answer(200, {**_validators(host, body), "Content-Length": str(len(body))}, body)
        if then is None:
            send(handler, whole)
        else:
            then(handler, whole, host)

    return fault


def alters(**changes: Any) -> Fault:
    """Sends the answer with other headers, underscores for dashes; None leaves one out."""

    def fault(handler: BaseHTTPRequestHandler, answer: Answer, host: Host) -> None:
        headers = {**answer.headers, **{name.replace("_", "-"): value for name, value in changes.items()}}
        send(handler, answer._replace(headers={name: value for name, value in headers.items() if value is not None}))

    return fault


def _validators(host: Host, body: bytes) -> dict[str, str]:
    if not host.validators:
        return {}
    return {"ETag": ("W/" if host.weak else "") + f'"{sha256(body).hexdigest()[:16]}"', "Last-Modified": MODIFIED}


@contextmanager
def hosting() -> Iterator[Host]:
    """A host that runs meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer("HEAD")

        def do_GET(self) -> None:
            self._answer("GET")

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, method: str) -> None:
            host.asked.append(Asked(method, self.path, self.headers["Range"], self.headers["If-Range"]))
            answer = self._meant()
            if method == "HEAD":
                send(self, answer, 0)
                return
            fault = host.faults.popleft() if host.faults else None
            if fault is None:
                send(self, answer)
            else:
                fault(self, answer, host)

        def _meant(self) -> Answer:
            if self.path not in host.files:
                return Answer(404, {"Content-Length": "0"}, b"")
            body = host.files[self.path]
            headers = _validators(host, body)
            condition, wanted = self.headers["If-Range"], self.headers["Range"]
            if wanted is None or (condition is not None and condition not in headers.values()):
                return Answer(200, {**headers, "Content-Length": str(len(body))}, body)
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return Answer(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(body)}"}, b"")
            headers |= {"Content-Length": str(len(body) - start)}
            headers |= {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            return Answer(206, headers, body[start:])

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A client that has gone is no news here."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    host = Host(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def write_manifest(path: Path, url: str, ratings: str = "", **changes: str) -> Path:
    """A manifest with the data set `shop` at `url`; more on its file of ratings, and other fields, in TOML."""
    said = {
        "title": '"Shop"',
        "licence": '"CC0 1.0"',
        "page": '"https://shop.example/files"',
        "citation": '"Shopkeeper, Things, 2014"',
        "base": f'"{url}"',
        "prepare": '"bm3 data prepare shop --ratings {folder}/ratings.csv"',
        "files": f'[{{ path = "ratings.csv"{ratings} }}, {{ path = "texts/meta.json.gz" }}]',
    }
    lines = [f"{name} = {value}" for name, value in {**said, **changes}.items() if value]
    path.write_text("\n".join(["[shop]", *lines, ""]), encoding="utf-8")
    return path
