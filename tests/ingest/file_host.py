"""A host of files on this machine, with ranges and conditions, that a test tells what to do wrong next."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

MODIFIED = "Wed, 01 Jan 2014 00:00:00 GMT"


class Asked(NamedTuple):
    """A request as it came in."""

    method: str
    path: str
    range: str | None
    condition: str | None


@dataclass
class Fault:
    """What goes wrong with the answer to one GET."""

    after: int | None = None
    """Only so many bytes of the body are sent, and then the connection breaks off."""
    stall: bool = False
    """Instead of breaking off, nothing comes any more."""
    status: int | None = None
    """An answer of this status without a file."""
    whole: bool = False
    """The whole file, whatever is asked for."""
    headers: dict[str, str | None] = field(default_factory=dict)
    """In place of those that were meant; None leaves one out."""


@dataclass
class Host:
    """What there is, what goes wrong, and what was asked for."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    """By path."""
    asked: list[Asked] = field(default_factory=list)
    faults: deque[Fault] = field(default_factory=deque)
    """Each is used up by one GET, in their order."""
    tag: Callable[[bytes], str | None] = lambda body: f'"{sha256(body).hexdigest()[:16]}"'
    modified: str | None = MODIFIED
    released: threading.Event = field(default_factory=threading.Event)
    """Ends what stalls."""

    @property
    def gets(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.method == "GET"]

    @property
    def ranges(self) -> list[str | None]:
        return [asked.range for asked in self.gets]


@contextmanager
def hosting() -> Iterator[Host]:
    """A host that runs meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer("HEAD", Fault())

        def do_GET(self) -> None:
            self._answer("GET", host.faults.popleft() if host.faults else Fault())

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, method: str, fault: Fault) -> None:
            wanted, condition = self.headers["Range"], self.headers["If-Range"]
            host.asked.append(Asked(method, self.path, wanted, condition))
            body, status, start = host.files.get(self.path), 200, 0
            marks: dict[str, str | None] = {}
            if body is None or fault.status is not None:
                body, status = b"", fault.status or 404
            else:
                marks |= {"ETag": host.tag(body), "Last-Modified": host.modified}
                if wanted and not fault.whole and (condition is None or condition in marks.values()):
                    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                    status = 206 if start < len(body) else 416
                    marks["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            headers = {"Content-Length": str(len(body) - start), **marks, **fault.headers}
            self.send_response(status)
            for name, value in headers.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()
            if method == "GET":
                self.wfile.write(body[start:][: fault.after])
                self.wfile.flush()
            if fault.stall:
                host.released.wait(60)
            if fault.after is not None or headers["Content-Length"] is None:
                self.close_connection = True

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
