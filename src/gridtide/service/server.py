"""The HTTP server: uvicorn inside a loop that is not its own, started and stopped by the caller."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import resource
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import structlog
import uvicorn
from fastapi import FastAPI

from gridtide.errors import SiteFileError
from gridtide.service.certificates import ServerTls
from gridtide.service.connection import ShortProtocol
from gridtide.service.shortcuts import Shortcuts
from gridtide.service.state import Service

_log = structlog.get_logger("gridtide.service")

BACKLOG: Final = 4096
"""Connections that may wait to be accepted: all agents of a site knock at once after a restart."""
KEEP_ALIVE: Final = 90
"""Seconds for which an idle connection is kept. Must be above the longest poll (60 s) and the slowest heartbeat (30 s):
below, every heartbeat of a worker pays for a new TLS handshake."""
STOP_PATIENCE: Final = 5
"""Seconds that transfers under way get when the server stops."""
CONNECTIONS: Final = 65_536
"""Files and connections that the process may have open. The usual 1024 is less than the agents of a site keep open."""
REFRESH: Final = 12 * 3600.0
"""Seconds between two looks whether the certificate is to be renewed."""


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


def _config(app: FastAPI, tls: ServerTls | None) -> uvicorn.Config:
    protocol: Any = functools.partial(ShortProtocol, shortcuts=Shortcuts(app.state.service))
    return uvicorn.Config(
        app,
        http=protocol,
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
