"""A real HTTP server with made-up content, so that the CLI is tested through its whole way to the wire.

Documents are made by the service's own ``views``: a change of their shape is noticed here.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from gridtide.store.ports import Json


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> Json:
        """Its JSON."""
        value: Json = json.loads(self.content)
        return value


@dataclass(frozen=True)
class Answer:
    """What is sent back. ``pieces`` are sent one after the other, without a length."""

    status: int = 200
    document: Json = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: tuple[bytes, ...] | None = None
    cut: bool = False
    """Break the connection off after the pieces, as a service that is killed does."""


Handler = Callable[[Asked], Answer]


def refuse(status: int, kind: str, what: str = "not so", where: str = "", remedy: str = "") -> Answer:
    """An error as the service words it."""
    return Answer(status, {"error": {"kind": kind, "what": what, "where": where, "remedy": remedy}})


class FakeService:
    """Answers per route. A list of answers is used up one by one, its last one stays."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self._routes: dict[tuple[str, str], list[Answer] | Handler] = {}

    def on(self, method: str, path: str, *answers: Answer) -> None:
        """Answer so."""
        self._routes[(method, path)] = list(answers)

    def handle(self, method: str, path: str, handler: Handler) -> None:
        """Answer by a function."""
        self._routes[(method, path)] = handler

    def calls(self, method: str, path: str) -> list[Asked]:
        """What came in on a route."""
        return [one for one in self.asked if (one.method, one.path) == (method, path)]

    def answer(self, asked: Asked) -> Answer:
        """The next answer for a request."""
        self.asked.append(asked)
        known = self._routes.get((asked.method, asked.path))
        if known is None:
            return refuse(404, "NotFound", "there is no such route", asked.path)
        if callable(known):
            return known(asked)
        return known.pop(0) if len(known) > 1 else known[0]


class QuietServer(ThreadingHTTPServer):
    """Clients that break off are part of the tests."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing on stderr, which belongs to the command under test."""


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[FakeService]:
    """A fake service on a port that the kernel chooses."""
    service = FakeService()

    class RequestHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            parts = urlsplit(self.path)
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            asked = Asked(self.command, unquote(parts.path), query, dict(self.headers), content)
            self._send(service.answer(asked))

        do_GET = do_POST = do_PUT = do_DELETE = _do

        def _send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.pieces is not None:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for piece in answer.pieces:
                    self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                    self.wfile.flush()
                if answer.cut:
                    self.close_connection = True
                else:
                    self.wfile.write(b"0\r\n\r\n")
                return
            content = answer.content
            if content is None:
                content = b"" if answer.document is None else json.dumps(answer.document).encode()
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            """Tests are quiet."""

    server = QuietServer(("127.0.0.1", 0), RequestHandler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    service.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
