"""HTTP/1.1 on a connection: uvicorn's protocol with bounds, and heartbeats answered on the spot."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gridtide.service.answers import TooLarge, refusal
from gridtide.service.shortcuts import SHORTCUTS, Shortcuts

HEAD_LIMIT: Final = 32 * 1024
"""Bytes of request line and headers. Proxies and single sign-on headers stay below 16 KiB."""
HEAD_PATIENCE: Final = 20.0
"""Seconds from a connection, or from a request's first byte, to the end of its headers."""
LINGER: Final = 1.0
"""Seconds for which what a refused client still sends is thrown away, so that it gets to read why."""


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
        self._end_head()
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

    def _end_head(self) -> None:
        self._in_head = False
        self._stop_timer()

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


class ShortProtocol(BoundedProtocol):
    """The same, with shortcuts for requests that come in one piece.

    Such a request is held back until it is whole. If there is an answer at hand it is sent without a task, a cycle and
    layers of an application; if not, or if a part has yet to come, the request goes the usual way from its beginning.
    """

    _held: bytes | None = None
    """Body of the request that is held back, as far as it has come."""

    def __init__(self, *arguments: Any, shortcuts: Shortcuts, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._shortcuts = shortcuts

    def on_headers_complete(self) -> None:
        """Hold it back, or let it go."""
        if not self._is_plain():
            super().on_headers_complete()
            return
        self._end_head()
        self._held = b""

    def on_body(self, body: bytes) -> None:
        """A piece of it."""
        if self._held is None:
            super().on_body(body)
        else:
            self._held += body

    def on_message_complete(self) -> None:
        """Answer what was held back."""
        if self._held is not None:
            response = self._shortcuts.answer(self.url, dict(self.scope), self._held)
            if response is not None:
                self._held = None
                self._send(response)
                return
            self._let_go()
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Nothing is held back for longer than this takes."""
        super().data_received(data)
        if self._held is not None:
            self._let_go()

    def send_400_response(self, msg: str) -> None:
        """Not even the body is well formed: no application hears of it."""
        self._held = None
        super().send_400_response(msg)

    def _is_plain(self) -> bool:
        """Whether there may be a shortcut: a usual request, and nothing before it that is still being answered."""
        return (
            self.url in SHORTCUTS
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def _let_go(self) -> None:
        body, self._held = self._held, None
        super().on_headers_complete()
        if body:
            super().on_body(body)

    def _send(self, response: Response) -> None:
        head = [b"HTTP/1.1 %d OK" % response.status_code]
        head += [b"%b: %b" % pair for pair in (*self.server_state.default_headers, *response.raw_headers)]
        self.transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
        self.on_response_complete()
