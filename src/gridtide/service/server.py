"""The HTTP server: uvicorn inside a loop that is not its own, started and stopped by the caller."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import resource
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gridtide.errors import SiteFileError
from gridtide.service.answers import TooLarge, refusal
from gridtide.service.certificates import ServerTls
from gridtide.service.state import Service

_log = structlog.get_logger("gridtide.service")

BACKLOG: Final = 4096
"""Connections that may wait to be accepted: all agents of a site knock at once after a restart."""
KEEP_ALIVE: Final = 90
"""Seconds for which an idle connection is kept. Must be above the longest poll (60 s) and the slowest heartbeat (30 s):
below, every heartbeat of a worker pays for a new TLS handshake."""
STOP_PATIENCE: Final = 5
"""Seconds that transfers under way get when the server stops."""
HEAD_LIMIT: Final = 32 * 1024
"""Bytes of request line and headers. Proxies and single sign-on headers stay below 16 KiB."""
HEAD_PATIENCE: Final = 20.0
"""Seconds from a connection, or from a request's first byte, to the end of its headers."""
LINGER: Final = 1.0
"""Seconds for which what a refused client still sends is thrown away, so that it gets to read why."""
CONNECTIONS: Final = 65_536
"""Files and connections that the process may have open. The usual 1024 is less than the agents of a site keep open."""
REFRESH: Final = 12 * 3600.0
"""Seconds between two looks whether the certificate is to be renewed."""


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 with a bound on the size of a request's head and on the time it may take."""

    _head = 0
    _in_head = True
    _refused = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock: a connection that says nothing is closed."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_PATIENCE, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A new head begins."""
        super().on_message_begin()
        self._head = 0
        self._in_head = True

    def on_headers_complete(self) -> None:
        """The head is whole: what follows is bounded by its route."""
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def on_url(self, url: bytes) -> None:
        """Count the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def data_received(self, data: bytes) -> None:
        """Feed the parser. It gathers an unfinished header without bound, so the bytes are counted here too."""
        if self._refused:
            return
        super().data_received(data)
        if self._refused or not self._in_head or self.transport.is_closing():
            return
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_PATIENCE, self._late)
        self._head += len(data)
        if self._head > HEAD_LIMIT:
            self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """The one shape of error, also for what is no HTTP."""
        if self._head > HEAD_LIMIT:
            error = TooLarge(f"the request line and headers have more than {HEAD_LIMIT} bytes", status=431)
        else:
            error = TooLarge("this is no HTTP/1.1 request", status=400)
        response = refusal(error)
        head = [f"HTTP/1.1 {response.status_code} {'Bad Request' if response.status_code == 400 else 'Too Large'}"]
        head += [f"{name}: {value}" for name, value in response.headers.items()]
        self.transport.write("\r\n".join([*head, "connection: close", "", ""]).encode() + bytes(response.body))
        self._refused = True
        # Closing while bytes are unread would reset the connection, and the client would never see the answer.
        self._stop_timer()
        self._timer = self.loop.call_later(LINGER, self._late)

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > HEAD_LIMIT:
            raise ValueError("the head is too large")

    def _late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Server(uvicorn.Server):
    """Leaves signals to the caller, and says when it is there."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The caller has its own handlers."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, then say so."""
        await super().startup(sockets=sockets)
        self._ready()


class _ToStructlog(logging.Handler):
    """uvicorn's own complaints as lines of our log."""

    def emit(self, record: logging.LogRecord) -> None:
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        _log.error("the HTTP server complains", what=record.getMessage().strip(), failure=trace)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 lets the kernel choose. SiteFileError when the address cannot be had."""
    try:
        if not 0 <= port < 65_536:  # getaddrinfo would take it modulo 65536
            raise OSError("ports are below 65536")
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.create_server(cast(Any, address)[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SiteFileError(
            f"cannot listen: {why}", where=f"{host}:{port}", remedy="choose another port or address"
        ) from None
    # Accepted connections inherit it. Without it an answer of two packets waits 40 ms for an acknowledgement.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bound.setblocking(False)
    return bound


def url_of(bound: socket.socket, *, encrypted: bool) -> str:
    """Where to reach it from this machine."""
    host, port = bound.getsockname()[:2]
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"{'https' if encrypted else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _config(app: ASGIApp, tls: ServerTls | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=STOP_PATIENCE,
        ssl_context_factory=None if tls is None else lambda _config, _default: tls.context,
    )


def _prepare_process() -> None:
    """As many connections as the kernel allows, and uvicorn's complaints in our log."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS if hard == resource.RLIM_INFINITY else min(CONNECTIONS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    logger = logging.getLogger("uvicorn.error")
    logger.handlers = [_ToStructlog(logging.ERROR)]
    logger.setLevel(logging.ERROR)
    logger.propagate = False


async def serve(
    app: FastAPI, *, listen: tuple[str, int] | socket.socket, tls: ServerTls | None, ready: Callable[[str], None]
) -> None:
    """Serve until cancelled; then stop accepting, end long polls, let transfers finish for a moment, and return.

    ``listen`` is host and port, or a socket from :func:`bind`, for a caller that must know the port beforehand.

    ``ready`` is called with the base URL once connections are accepted. SiteFileError when the address cannot be had,
    or is beyond loopback without TLS: every token would be readable on the way.
    """
    bound = listen if isinstance(listen, socket.socket) else bind(*listen)
    try:
        if tls is None and not ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback:
            raise SiteFileError(
                "plain HTTP is for loopback only", where=url_of(bound, encrypted=False), remedy="switch TLS on"
            )
        _prepare_process()
        url = url_of(bound, encrypted=tls is not None)
        server = _Server(_config(app, tls), lambda: ready(url))
        refreshing = asyncio.create_task(_keep_fresh(tls))
        try:
            await _stoppable(server, bound, cast(Service, app.state.service))
        finally:
            refreshing.cancel()
    finally:
        bound.close()


async def _stoppable(server: _Server, bound: socket.socket, service: Service) -> None:
    """Run the server; a cancellation stops it in order instead of breaking it off."""
    task = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        service.stop()
        server.should_exit = True
        await task
        raise


async def _keep_fresh(tls: ServerTls | None) -> None:
    while tls is not None:
        await asyncio.sleep(REFRESH)
        await asyncio.to_thread(tls.refresh)
