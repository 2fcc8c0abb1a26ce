"""A reverse proxy that spoils HTTP calls: in front of the real API of a cloud, between it and a driver.

    async with FaultProxy("http://127.0.0.1:5000", name=ec2_action) as proxy:
        proxy.add(HttpFault.LOST, call="RunInstances", times=1)
        cloud = MyCloud(endpoint=proxy.url)

It listens on a loopback port of its own, in the running event loop: the driver must not block that loop. Nothing is
changed in what is passed on, the Host header neither (signatures hold).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from types import MappingProxyType
from typing import Final, Self
from urllib.parse import parse_qs

import httpx

_LARGEST: Final = 16 * 1024 * 1024
"""Bytes of a request that are taken."""
_HOP_BY_HOP: Final = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "content-length", "expect"}


class HttpFault(StrEnum):
    """What can happen to a call."""

    ANSWER = "answer"
    """The rule's answer comes back; nothing was done."""
    HANG = "hang"
    """No answer ever; nothing was done."""
    HANG_AFTER = "hang-after"
    """It is done, and no answer ever comes."""
    REFUSED = "refused"
    """The connection is closed; nothing was done."""
    LOST = "lost"
    """It is done, and the connection is closed in place of the answer."""
    CUT = "cut"
    """It is done, and the connection is closed in the middle of the answer."""
    TRUNCATED = "truncated"
    """It is done, and half of the answer comes back as if it were all of it."""
    OLD = "old"
    """What was answered to the same call before comes back again; nothing was done. The first call passes."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({"content-type": "text/plain"}))


@dataclass(slots=True)
class _Rule:
    fault: HttpFault
    call: str | None
    left: int | None
    chance: float
    answer: Answer


def path_of(call: Call) -> str:
    """Names calls ``METHOD /path``."""
    return f"{call.method} {call.path.partition('?')[0]}"


def ec2_action(call: Call) -> str:
    """Names calls of APIs with an ``Action`` parameter."""
    return parse_qs(call.body.decode("ascii", "replace")).get("Action", [path_of(call)])[0]


def xmlrpc_method(call: Call) -> str:
    """Names calls of XML-RPC by their method."""
    found = re.search(rb"<methodName>\s*([\w.]+)\s*</methodName>", call.body[:1000])
    return path_of(call) if found is None else found[1].decode("ascii", "replace")


class FaultProxy:
    """Use it as an async context manager. ``calls`` counts what came in, ``struck`` what was spoilt, both by name."""

    def __init__(
        self, upstream: str, *, seed: int = 1, name: Callable[[Call], str] = path_of, patience: float = 60.0
    ) -> None:
        """``name`` says what a call is called in rules and counts. ``patience``: seconds for the API behind."""
        self.calls: Counter[str] = Counter()
        self.struck: Counter[tuple[str, HttpFault]] = Counter()
        self.url = ""
        self._upstream = upstream.rstrip("/")
        self._name = name
        self._random = Random(seed)  # noqa: S311 - faults that can be repeated
        self._rules: list[_Rule] = []
        self._mix: tuple[float, Sequence[tuple[HttpFault, Answer]]] = (0.0, ())
        self._before: dict[tuple[str, bytes], Answer] = {}
        self._client = httpx.AsyncClient(timeout=patience, trust_env=False, verify=upstream.startswith("https:"))
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    def add(
        self,
        fault: HttpFault,
        *,
        call: str | None = None,
        times: int | None = None,
        chance: float = 1.0,
        answer: Answer | None = None,
    ) -> None:
        """Let it happen to calls of this name (None: all), so often (None: for ever), each time with this chance."""
        self._rules.append(_Rule(fault, call, times, chance, answer or Answer(503)))

    def mix(self, chance: float, faults: Sequence[HttpFault | Answer]) -> None:
        """Spoil this part of all calls, each with one of ``faults`` by lot. Answers stand for themselves."""
        pairs = [(HttpFault.ANSWER, each) if isinstance(each, Answer) else (each, Answer(503)) for each in faults]
        self._mix = (chance, pairs)

    def heal(self) -> None:
        """No more faults. Calls that hang go on hanging."""
        self._rules.clear()
        self._mix = (0.0, ())

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_LARGEST)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._client.aclose()

    # --- one connection

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - start_server makes one
        self._serving.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
                while await self._one(reader, writer):
                    pass
        except asyncio.CancelledError:
            pass  # the proxy closes; asyncio would log it as a fault of the connection
        finally:
            self._serving.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one call. Whether the connection goes on."""
        call = await _read(reader, writer)
        name = self._name(call)
        self.calls[name] += 1
        fault, answer = self._strike(name, call)
        if fault is not None:
            self.struck[name, fault] += 1
        if fault is HttpFault.HANG:
            await asyncio.Event().wait()
        if fault is HttpFault.REFUSED:
            return False
        if fault not in (HttpFault.ANSWER, HttpFault.OLD):
            answer = await self._pass_on(call)
            self._before[name, call.body] = answer
        if fault is HttpFault.HANG_AFTER:
            await asyncio.Event().wait()
        if fault is HttpFault.LOST:
            return False
        half = len(answer.body) // 2
        body = answer.body[:half] if fault in (HttpFault.CUT, HttpFault.TRUNCATED) else answer.body
        length = len(answer.body) if fault is HttpFault.CUT else len(body)
        writer.write(_head(answer, length) + (b"" if call.method == "HEAD" else body))
        await writer.drain()
        return fault is not HttpFault.CUT

    def _strike(self, name: str, call: Call) -> tuple[HttpFault | None, Answer]:
        for rule in self._rules:
            if rule.left == 0 or rule.call not in (None, name):
                continue
            if rule.fault is HttpFault.OLD and (name, call.body) not in self._before:
                continue
            if rule.chance < 1.0 and self._random.random() >= rule.chance:
                continue
            if rule.left is not None:
                rule.left -= 1
            old = rule.fault is HttpFault.OLD
            return rule.fault, self._before[name, call.body] if old else rule.answer
        chance, pairs = self._mix
        if pairs and self._random.random() < chance:
            return self._random.choice(pairs)
        return None, Answer(503)

    async def _pass_on(self, call: Call) -> Answer:
        headers = {name: value for name, value in call.headers.items() if name not in _HOP_BY_HOP}
        request = self._client.build_request(
            call.method, self._upstream + call.path, headers=headers, content=call.body or None
        )
        try:
            response = await self._client.send(request, stream=True)
            try:
                body = b"".join([piece async for piece in response.aiter_raw()])
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            return Answer(502, f"the API behind the proxy: {error}".encode())
        kept = {name: value for name, value in response.headers.items() if name.lower() not in _HOP_BY_HOP}
        return Answer(response.status_code, body, kept)


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Call:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return Call(method, path, headers, await _chunks(reader))
    return Call(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return body


def _head(answer: Answer, length: int) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} -", *(f"{name}: {value}" for name, value in answer.headers.items())]
    return "\r\n".join([*lines, f"content-length: {length}", "", ""]).encode("latin-1")
