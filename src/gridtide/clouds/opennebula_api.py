"""Calls to OpenNebula: credentials, threads, deadlines, repetition, typed errors. What is called, the driver says.

XML-RPC blocks, so each call runs in a thread of this cloud's own pool, and what it answers is read there: a cloud that
hangs, or answers a lot, holds up nothing else. Reading calls and orders to a machine that is named are repeated while
there is time; making a machine never is (there is no client token), except when it was throttled and nothing was done.
"""

from __future__ import annotations

import asyncio
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gridtide.clouds.opennebula_errors import Fault, Nonsense, Refused, WrongState, typed
from gridtide.clouds.refusals import PlainRefusal
from gridtide.clouds.repeating import check_in_time, repeated
from gridtide.errors import AuthenticationFailed, CloudError, CloudUnavailable, Throttled

if TYPE_CHECKING:
    from gridtide.clouds.opennebula_server import Server, Transport

T = TypeVar("T")

_SPARE: Final = 4
"""Threads beyond those for launches and terminates, so that listings always find a free one."""
_LONGEST_SECRET: Final = 10_000
"""Characters of a credentials file. A login token has 64."""


@dataclass(frozen=True, slots=True)
class Access:
    """Which OpenNebula, and by whose credentials."""

    endpoint: str
    credentials: Path
    """A file of the form of ``~/.one/one_auth``: ``USER:PASSWORD`` or ``USER:TOKEN``, for nobody else to read."""
    authority: Path | None = None
    """Certificates to trust, in place of the system's."""
    timeout: float = 20.0
    """Seconds for one call."""


class OpennebulaApi:
    """Of one user of one OpenNebula."""

    def __init__(self, where: str, access: Access, calls: int, random: Random | None = None) -> None:
        self.where = where
        self._access = access
        self._random = random or Random()  # noqa: S311 - jitter
        self._pool = ThreadPoolExecutor(2 * calls + _SPARE, thread_name_prefix=f"opennebula {where}")
        self._connecting = threading.Lock()
        self._server: Server | None = None
        self._transport: Transport | None = None
        self._closed = False

    async def call(
        self, method: str, *arguments: object, read: Callable[[Any], T], until: float, again: bool = True
    ) -> T:
        """Call ``one.METHOD``, and again where ``again`` allows, as long as it can end before ``until`` (loop time).

        ``read`` gets a number, a text or pyone's object and makes of it what is answered. Raises CloudError; Throttled
        when no call was made.
        """
        if asyncio.get_running_loop().time() >= until:
            raise Throttled("no time was left for the call", where=self.where)
        return await repeated(
            lambda: self._in_thread(lambda: self._do(method, arguments, read, until), until),
            until,
            self._random,
            final=lambda error: not again or self._closed or isinstance(error, WrongState),
        )

    async def secret(self) -> str:
        """What stands behind the user's name in the credentials file. Raises CloudError."""
        return (await asyncio.to_thread(session_of, self._access.credentials)).partition(":")[2]

    def close(self) -> None:
        """Calls under way end by themselves."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._connecting:
            if self._transport is not None:
                self._transport.close()

    async def _in_thread(self, work: Callable[[], T], until: float) -> T:
        if self._closed:
            raise CloudUnavailable("the driver is closed", where=self.where)
        try:
            async with asyncio.timeout_at(until):
                return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except TimeoutError:
            raise CloudUnavailable("no answer in time", where=self.where) from None

    # --- in threads

    def _do(self, method: str, arguments: tuple[object, ...], read: Callable[[Any], T], until: float) -> T:
        def in_time() -> T:
            server = self._connected()
            check_in_time(until, self.where)
            return read(server.ask(method, arguments))

        try:
            return self._guarded(in_time)
        except AuthenticationFailed:
            with self._connecting:  # credentials may have been renewed in their file: look again next time
                self._server = None
            raise

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except failures() as error:
            # Not "from": what a parser raised may hold all that was answered.
            raise typed(error, self.where) from None

    def _connected(self) -> Server:
        from gridtide.clouds.opennebula_server import Server, Transport

        with self._connecting:
            if self._server is None:
                access = self._access
                session = session_of(access.credentials)
                if self._transport is None:
                    self._transport = Transport(access.endpoint, access.timeout, access.authority)
                self._server = Server(access.endpoint, session, self._transport)
            return self._server


def session_of(file: Path) -> str:
    """The credentials. Raises AuthenticationFailed when they are not there, not right, or not kept to oneself."""
    try:
        mode = file.stat().st_mode
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise AuthenticationFailed(f"{file} cannot be read: {why}", remedy="write USER:PASSWORD into it") from None
    if stat.S_IMODE(mode) & (stat.S_IRWXG | stat.S_IRWXO):
        raise AuthenticationFailed(f"others may read or write {file}", remedy=f"chmod 600 {file}")
    user, colon, secret = text.partition(":")
    if not user or not colon or not secret or not text.isprintable() or len(text) > _LONGEST_SECRET:
        raise AuthenticationFailed(f"{file} does not hold credentials", remedy="one line: USER:PASSWORD or USER:TOKEN")
    return text


@cache
def failures() -> tuple[type[Exception], ...]:
    """All that a call can raise: our own, the system's, httpx's, and what code and parsers make of odd answers."""
    import httpx
    from lxml.etree import LxmlError
    from pyone import OneException
    from pyone.bindings.supbind import GDSParseError

    ours = (CloudError, Refused, Fault, PlainRefusal, Nonsense)
    odd = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError)
    wire = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError)
    return (*ours, *wire, *odd, LxmlError, OneException, GDSParseError)
