"""The service as it runs: uvicorn on a loopback port, httpx and raw sockets against it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import structlog
from starlette.responses import Response
from starlette.types import Scope

from gridtide.errors import SiteFileError
from gridtide.model.ids import WorkerId
from gridtide.pilot.protocol import JobId, JobState
from gridtide.service import connection as connection_module
from gridtide.service.certificates import ServerTls
from gridtide.service.server import serve
from gridtide.service.settings import MIB
from gridtide.service.shortcuts import Shortcuts
from gridtide.store.ports import Role
from tests.unit.service.site import Site, make_site

FREE = {"cores": 1, "memory": 1, "disk": 0, "gpus": 0}


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    (tmp_path / "files").mkdir()
    return await make_site(tmp_path / "files", aliec2=False)


@contextlib.asynccontextmanager
async def served(site: Site, tls: ServerTls | None = None, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """The base URL of the running service."""
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(site.app, listen=(host, 0), tls=tls, ready=url.set_result))
    task.add_done_callback(lambda _: url.done() or url.cancel())
    try:
        yield await url
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def client(site: Site, url: str, role: Role = Role.ADMIN, verify: ssl.SSLContext | bool = True) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {site.tokens[role]}"}
    return httpx.AsyncClient(base_url=url, headers=headers, verify=verify, timeout=30, trust_env=False)


async def raw(url: str, data: bytes, *, patience: float = 60.0) -> bytes:
    """What comes back for these bytes until the other side closes."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        async with asyncio.timeout(patience):
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            return await reader.read()
    finally:
        writer.close()


async def test_the_port_is_known_and_free_again_after_the_end(site: Site) -> None:
    async with served(site) as url:
        port = int(url.rpartition(":")[2])
        async with client(site, url) as user:
            assert (await user.get("/v1/version")).json()["site"] == "torino"
            assert "server" not in (await user.get("/healthz")).headers
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_taken_port_and_a_plain_line_to_the_world_are_refused(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(SiteFileError, match="cannot listen"):
            await serve(site.app, listen=("127.0.0.1", taken.getsockname()[1]), tls=None, ready=print)
    with pytest.raises(SiteFileError, match="TLS"):
        await serve(site.app, listen=("0.0.0.0", 0), tls=None, ready=print)  # noqa: S104 - that is the point
    with pytest.raises(SiteFileError, match="cannot listen"):
        await serve(site.app, listen=("127.0.0.1", 70_000), tls=None, ready=print)


async def test_tls_with_the_sites_own_authority_and_nothing_else(site: Site, tmp_path: Path) -> None:
    site.clock.time = time.time()
    tls = ServerTls.of_site(tmp_path / "tls", site="torino", names=["127.0.0.1"], clock=site.clock)
    trusting = ssl.create_default_context(cadata=tls.authority)
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    other = ServerTls.of_site(tmp_path / "other", site="other", names=["127.0.0.1"], clock=site.clock)
    async with served(site, tls) as url:
        assert url.startswith("https://127.0.0.1:")
        async with client(site, url, verify=trusting) as user:
            assert (await user.get("/v1/version")).status_code == 200
        for stranger in (True, ssl.create_default_context(cadata=other.authority)):
            async with client(site, url, verify=stranger) as user:
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                    await user.get("/v1/version")
        async with client(site, url.replace("127.0.0.1", "localhost"), verify=trusting) as user:
            with pytest.raises(httpx.ConnectError, match="Hostname mismatch"):
                await user.get("/v1/version")


async def test_a_renewed_certificate_is_shown_to_new_connections(site: Site, tmp_path: Path) -> None:
    site.clock.time = time.time()
    tls = ServerTls.of_site(tmp_path / "tls", site="torino", names=["127.0.0.1"], clock=site.clock)
    async with served(site, tls) as url:
        port = int(url.rpartition(":")[2])
        before = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
        site.clock.time += 370 * 86400
        await asyncio.to_thread(tls.refresh)
        after = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
    assert before != after


async def test_a_log_is_followed_while_it_grows(site: Site) -> None:
    async with served(site) as url, client(site, url) as user:
        await user.post("/v1/submissions", json={"description": "a 1"})
        job = site.pilot.all[JobId("1.0")]
        async with user.stream("GET", "/v1/jobs/1.0/log", params={"follow": "true"}) as answer:
            pieces = answer.aiter_bytes()
            for line in (b"first\n", b"second\n"):
                job.logs["stdout"] += line
                assert await anext(pieces) == line
            await site.pilot.cancel(jobs=[JobId("1.0")], submission=None, user=None)
            assert [piece async for piece in pieces] == []
    assert site.app.state.service.following == 0


async def test_events_are_followed_and_a_follower_that_leaves_is_forgotten(site: Site) -> None:
    async with served(site) as url, client(site, url) as user:
        await user.post("/v1/groups/grid/scale", json={"desired": 1})
        async with user.stream("GET", "/v1/events", params={"follow": "true"}) as answer:
            lines = answer.aiter_lines()
            assert json.loads(await anext(lines))["number"] == 1
            await user.post("/v1/groups/grid/scale", json={"desired": 2})
            assert json.loads(await anext(lines))["number"] == 2
            assert site.app.state.service.following == 1
        async with asyncio.timeout(60):
            while site.app.state.service.following:  # noqa: ASYNC110 - the server's own bookkeeping has no event
                await asyncio.sleep(0.01)


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_big_file_passes_in_both_directions_with_flat_memory(site: Site, tmp_path: Path) -> None:
    block = os.urandom(MIB)
    count = 64
    digest = hashlib.sha256(block * count).hexdigest()
    most = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal most
        for _ in range(count):
            yield block
            most = max(most, resident())

    async with served(site) as url, client(site, url) as user:
        warm = b"warm" * MIB
        await user.put(f"/v1/files/{hashlib.sha256(warm).hexdigest()}", content=warm)
        start = most = resident()
        assert (await user.put(f"/v1/files/{digest}", content=pieces())).status_code == 201
        await user.post("/v1/submissions", json={"description": "a 1", "files": {"big": digest}})
        await site.join()
        agent = httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {site.worker_tokens['grid-1']}"})
        async with agent:
            await agent.post("/v1/pilot/request", json={"number": "1", "free": FREE, "wait": 0})
            got = hashlib.sha256()
            async with agent.stream("GET", "/v1/pilot/jobs/1.0/inputs/big", params={"attempt": 1}) as answer:
                async for piece in answer.aiter_bytes():
                    got.update(piece)
                    most = max(most, resident())
    assert got.hexdigest() == digest
    assert most - start < 24 * MIB, f"{(most - start) / MIB:.0f} MiB more for a file of 64 MiB"


async def test_a_slow_client_hinders_nobody_and_is_given_up(site: Site) -> None:
    settings = site.app.state.service.settings
    object.__setattr__(settings, "body_patience", 0.5)
    async with served(site) as url, client(site, url) as user:
        head = (
            f"PUT /v1/files/{'0' * 64} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {site.tokens[Role.ADMIN]}\r\n"
            "content-length: 1000\r\n\r\nabc"
        )
        slow = asyncio.create_task(raw(url, head.encode()))
        for _ in range(20):
            assert (await user.get("/v1/version")).status_code == 200
        answer = await slow
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"no byte of the body came for 0.5 s" in answer
    assert list(site.pilot.directory.iterdir()) == []


async def test_two_hundred_long_polls_wait_at_once_and_each_gets_a_job(site: Site) -> None:
    await site.join()
    limits = httpx.Limits(max_connections=None)
    headers = {"authorization": f"Bearer {site.worker_tokens['grid-1']}"}
    async with (
        served(site) as url,
        client(site, url) as user,
        httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=60) as agents,
    ):
        polls = [
            asyncio.create_task(agents.post("/v1/pilot/request", json={"number": str(index), "free": FREE, "wait": 50}))
            for index in range(200)
        ]
        async with asyncio.timeout(60):
            while site.pilot.waiting < 200:  # noqa: ASYNC110 - counts what the server does
                await asyncio.sleep(0.02)
        assert (await user.get("/v1/version")).status_code == 200, "others are served meanwhile"
        lines = "\n".join(f"j{index} 1" for index in range(200))
        await user.post("/v1/submissions", json={"description": lines})
        for _ in range(200):
            site.pilot.something.set()
            await asyncio.sleep(0)
        answers = await asyncio.gather(*polls)
    assert {answer.json()["job"]["job"] for answer in answers} == {f"1.{index}" for index in range(200)}


async def test_an_agent_that_goes_away_takes_no_job(site: Site) -> None:
    await site.join()
    headers = {"authorization": f"Bearer {site.worker_tokens['grid-1']}"}
    async with served(site) as url, client(site, url) as user:
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=0.5) as agent:
            with pytest.raises(httpx.ReadTimeout):
                await agent.post("/v1/pilot/request", json={"number": "1", "free": FREE, "wait": 50})
        async with asyncio.timeout(60):
            while site.pilot.waiting:  # noqa: ASYNC110 - counts what the server does
                await asyncio.sleep(0.01)
        await user.post("/v1/submissions", json={"description": "a 1"})
        assert (await user.get("/v1/jobs/1.0")).json()["state"] == JobState.WAITING


async def test_stopping_is_quick_while_polls_and_streams_are_open(site: Site) -> None:
    await site.join()
    headers = {"authorization": f"Bearer {site.worker_tokens['grid-1']}"}
    async with httpx.AsyncClient(headers=headers, timeout=60) as agent, client(site, "") as user:
        async with served(site) as url:
            await user.post(url + "/v1/submissions", json={"description": "a 64"})
            asked = {"number": "1", "free": FREE, "wait": 50}
            poll = asyncio.create_task(agent.post(url + "/v1/pilot/request", json=asked))
            follow = asyncio.create_task(user.get(url + "/v1/jobs/1.0/log", params={"follow": "true"}))
            await site.pilot.polled.wait()
            started = time.monotonic()
        assert time.monotonic() - started < 25, "it did not wait for the end of the poll"
        answer = await poll
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert (await follow).status_code == 200
    assert WorkerId("grid-1") in site.control.workers


def beat(site: Site, body: bytes = b'{"load": 0, "running": [], "draining": false}', *more: str) -> bytes:
    """A heartbeat of grid-1."""
    lines = [
        "POST /v1/worker/alive HTTP/1.1",
        "host: x",
        f"authorization: Bearer {site.worker_tokens['grid-1']}",
        "content-type: application/json",
        *(more or [f"content-length: {len(body)}"]),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Wire:
    """A connection for bytes in whatever pieces."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, url: str) -> Wire:
        host, port = url.removeprefix("http://").split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def answer(self) -> tuple[bytes, list[bytes], bytes]:
        """Status line, other lines without the date, body."""
        async with asyncio.timeout(30):
            head = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
            lines = sorted(line for line in head[1:-2] if not line.startswith(b"date:"))
            (length,) = (int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
            return head[0], lines, await self.reader.readexactly(length)


@pytest.fixture
async def shortcuts(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """grid-1 has joined; whether each request that asked for a shortcut got one."""
    taken: list[bool] = []
    real = Shortcuts.answer

    def counted(self: Shortcuts, target: bytes, scope: Scope, body: bytes) -> Response | None:
        response = real(self, target, scope, body)
        taken.append(response is not None)
        return response

    monkeypatch.setattr(Shortcuts, "answer", counted)
    await site.join()
    site.pilot.remembering = True
    return taken


async def test_a_heartbeat_in_one_piece_takes_the_short_way_and_is_answered_the_same(
    site: Site, shortcuts: list[bool]
) -> None:
    async with served(site) as url:
        wire = await Wire.to(url)
        wire.writer.write(beat(site))
        short = await wire.answer()
        assert shortcuts == [True]
        for at in (10, len(beat(site)) - 20):  # inside the head, inside the body
            wire.writer.write(beat(site)[:at])
            await asyncio.sleep(0.1)
            wire.writer.write(beat(site)[at:])
            assert await wire.answer() == short
        # In two pieces of which the first ends before the body, it had to go the long way.
        assert shortcuts == [True, True]
        wire.writer.write(beat(site))
        assert await wire.answer() == short
        assert shortcuts == [True, True, True]
        wire.writer.close()
    assert short[0] == b"HTTP/1.1 200 OK"
    assert b"cache-control: no-store" in short[1]
    assert json.loads(short[2])["order"] == "continue"


async def test_the_short_way_is_not_for_unusual_requests(site: Site, shortcuts: list[bool]) -> None:
    plain = b'{"load": 0, "running": [], "draining": false}'
    length = f"content-length: {len(plain)}"
    async with served(site) as url:
        wire = await Wire.to(url)
        wire.writer.write(beat(site, plain, length, "connection: close"))
        status, lines, _ = await wire.answer()
        assert (status, b"connection: close" in lines) == (b"HTTP/1.1 200 OK", True)
        assert await wire.reader.read() == b""
        wire = await Wire.to(url)
        wire.writer.write(beat(site, plain, length, "expect: 100-continue"))
        assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await wire.answer())[0] == b"HTTP/1.1 200 OK"
        wire.writer.write(beat(site).replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert (await wire.answer())[0] == b"HTTP/1.1 200 OK"
        assert await wire.reader.read() == b""
        wire = await Wire.to(url)
        wire.writer.write(beat(site).replace(b"POST", b"GET"))
        assert (await wire.answer())[0].startswith(b"HTTP/1.1 405 ")
        assert shortcuts == []
        wire.writer.write(beat(site, b"%x\r\n%b\r\n0\r\n\r\n" % (len(plain), plain), "transfer-encoding: chunked"))
        assert (await wire.answer())[0] == b"HTTP/1.1 200 OK"
        assert shortcuts == [True], "in one piece, whatever its coding"
        wire.writer.write(beat(site, b"no length\r\n", "transfer-encoding: chunked"))
        assert (await wire.answer())[0].startswith(b"HTTP/1.1 400 ")
        assert shortcuts == [True]
        wire.writer.close()


async def test_requests_in_one_piece_are_answered_in_their_order(site: Site, shortcuts: list[bool]) -> None:
    version = f"GET /v1/version HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {site.tokens[Role.VIEWER]}\r\n\r\n"
    bad = beat(site, b"nonsense")
    async with served(site) as url:
        wire = await Wire.to(url)
        wire.writer.write(beat(site) + beat(site) + version.encode() + beat(site) + bad + beat(site))
        answers = [await wire.answer() for _ in range(6)]
        wire.writer.close()
    assert [status.split(b" ")[1] for status, _, _ in answers] == [b"200", b"200", b"200", b"200", b"400", b"200"]
    assert [b'"order"' in body for _, _, body in answers] == [True, True, False, True, False, True]
    assert shortcuts == [True, True], "what comes behind a request that is being answered waits like any other"


async def test_what_the_short_way_leaves_is_answered_as_ever(site: Site, shortcuts: list[bool]) -> None:
    async with served(site) as url:
        wire = await Wire.to(url)
        for body, status in ((b"", b"400"), (b" " * 70_000, b"413")):
            wire.writer.write(beat(site, body))
            first, _, told = await wire.answer()
            assert (first.split(b" ")[1], json.loads(told)["error"]["kind"]) == (status, "InvalidRequest")
        wire.writer.close()
        del site.control.workers[WorkerId("grid-1")]
        wire = await Wire.to(url)
        wire.writer.write(beat(site))
        assert (await wire.answer())[0].split(b" ")[1] == b"401"
        wire.writer.close()
    assert True not in shortcuts


async def test_huge_heads_get_431_and_rubbish_400(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "LINGER", 0.2)
    start = b"GET /v1/version HTTP/1.1\r\nhost: x\r\n"
    big = connection_module.HEAD_LIMIT + 100
    requests = {
        start + b"x-a: " + b"a" * big + b"\r\n\r\n": b"HTTP/1.1 431 ",
        start + b"".join(b"x-%d: b\r\n" % index for index in range(big // 5)) + b"\r\n": b"HTTP/1.1 431 ",
        start + b"x-a: " + b"a" * 10 * big: b"HTTP/1.1 431 ",
        b"GET /" + b"a" * big + b" HTTP/1.1\r\nhost: x\r\n\r\n": b"HTTP/1.1 431 ",
        b"\x16\x03\x01\x02\x00": b"HTTP/1.1 400 ",
        b"NONSENSE\r\n\r\n": b"HTTP/1.1 400 ",
        b"GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n": b"HTTP/1.1 400 ",
        b"GET / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n": b"HTTP/1.1 400 ",
    }
    async with served(site) as url:
        for request, wanted in requests.items():
            answer = await raw(url, request)
            assert answer.startswith(wanted), (request[:60], answer[:200])
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["kind"] == "InvalidRequest"
        async with client(site, url) as user:
            assert (await user.get("/v1/version", headers={"x-a": "a" * 16_000})).status_code == 200


async def test_connections_that_say_nothing_are_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = connection_module.HEAD_PATIENCE
    monkeypatch.setattr(connection_module, "HEAD_PATIENCE", 0.3)
    async with served(site) as url:
        assert await raw(url, b"", patience=usual / 2) == b""
        assert await raw(url, b"GET /v1/version HTTP/1.1\r\nhost: x\r\n", patience=usual / 2) == b""
        async with client(site, url) as user:
            await user.get("/v1/version")
            await asyncio.sleep(0.6)
            assert (await user.get("/v1/version")).status_code == 200


async def test_a_failure_inside_a_stream_is_one_line_in_the_log(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(job: JobId, stream: str, *, offset: int, limit: int) -> bytes:
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr(site.pilot, "read_log", broken)
    with structlog.testing.capture_logs() as logs:
        async with served(site) as url, client(site, url) as user:
            await user.post("/v1/submissions", json={"description": "a 1"})
            with contextlib.suppress(httpx.RemoteProtocolError):
                await user.get("/v1/jobs/1.0/log", params={"follow": "true"})
    assert [line["event"] for line in logs] == ["the HTTP server complains"]
    assert "the disk is gone" in logs[0]["failure"]
