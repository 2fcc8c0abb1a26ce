"""The proxy that spoils HTTP calls: each fault as a client meets it, and what the API behind has done."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from gridtide.testing.fault_proxy import Answer, FaultProxy, HttpFault


class Api(BaseHTTPRequestHandler):
    """Answers what it was told, and remembers it."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: otherwise each answer waits 40 ms for an acknowledgement
    done: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        self.done.append(f"{self.path} {body.decode()} {self.headers['host']}")
        answer = b"done: " + body
        self.send_response(201)
        self.send_header("content-length", str(len(answer)))
        self.send_header("x-kept", "yes")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def api() -> Iterator[tuple[str, list[str]]]:
    done: list[str] = []
    handler = type("Handler", (Api,), {"done": done})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", done
    server.shutdown()
    server.server_close()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=0.5, trust_env=False) as made:
        yield made


async def test_calls_pass_unchanged(api: tuple[str, list[str]], client: httpx.AsyncClient) -> None:
    address, done = api
    async with FaultProxy(address) as proxy:
        answer = await client.post(f"{proxy.url}/servers?all=1", content=b"abc", headers={"host": "signed.example"})
        assert (answer.status_code, answer.content, answer.headers["x-kept"]) == (201, b"done: abc", "yes")

        async def pieces() -> AsyncIterator[bytes]:
            yield b"x"
            yield b"yz"

        assert (await client.post(f"{proxy.url}/chunks", content=pieces())).content == b"done: xyz"
        assert done[0] == "/servers?all=1 abc signed.example"
        assert proxy.calls == {"POST /servers": 1, "POST /chunks": 1}


@pytest.mark.parametrize(
    ("fault", "is_done"),
    [
        (HttpFault.HANG, False),
        (HttpFault.HANG_AFTER, True),
        (HttpFault.REFUSED, False),
        (HttpFault.LOST, True),
        (HttpFault.CUT, True),
    ],
)
async def test_a_fault_happens_so_often_and_not_again(
    api: tuple[str, list[str]], client: httpx.AsyncClient, fault: HttpFault, is_done: bool
) -> None:
    address, done = api
    async with FaultProxy(address) as proxy:
        proxy.add(fault, call="POST /servers", times=1)
        assert (await client.post(f"{proxy.url}/other", content=b"1")).status_code == 201
        with pytest.raises(httpx.HTTPError):
            await client.post(f"{proxy.url}/servers", content=b"2")
        assert len(done) == 1 + is_done
        assert (await client.post(f"{proxy.url}/servers", content=b"3")).status_code == 201
        assert proxy.struck == {("POST /servers", fault): 1}


async def test_answers_old_and_truncated_ones(api: tuple[str, list[str]], client: httpx.AsyncClient) -> None:
    address, done = api
    async with FaultProxy(address) as proxy:
        proxy.add(HttpFault.ANSWER, call="POST /a", answer=Answer(429, b"slow", {"retry-after": "3"}))
        answer = await client.post(f"{proxy.url}/a")
        assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (429, "slow", "3")
        assert not done
        proxy.add(HttpFault.TRUNCATED, call="POST /b")
        assert (await client.post(f"{proxy.url}/b", content=b"123456")).content == b"done: "
        proxy.heal()
        proxy.add(HttpFault.OLD, times=1)
        assert (await client.post(f"{proxy.url}/c", content=b"1")).status_code == 201, "there is no old one yet"
        assert (await client.post(f"{proxy.url}/c", content=b"1")).status_code == 201
        assert len(done) == 2


async def test_the_same_seed_spoils_the_same_calls(api: tuple[str, list[str]], client: httpx.AsyncClient) -> None:
    async def statuses(seed: int) -> list[int]:
        async with FaultProxy(api[0], seed=seed) as proxy:
            proxy.mix(0.2, [Answer(500), Answer(503), Answer(429)])
            return [(await client.post(proxy.url)).status_code for _ in range(100)]

    first = await statuses(7)
    assert await statuses(7) == first
    assert await statuses(8) != first
    assert 8 <= sum(status != 201 for status in first) <= 35
    assert set(first) == {201, 500, 503, 429}


async def test_closing_ends_calls_that_hang(api: tuple[str, list[str]], client: httpx.AsyncClient) -> None:
    async with FaultProxy(api[0]) as proxy:
        proxy.add(HttpFault.HANG)
        call = asyncio.create_task(client.post(proxy.url, timeout=30.0))
        await asyncio.sleep(0.2)
    with pytest.raises(httpx.HTTPError):
        await call


async def test_an_api_that_is_not_there_is_a_bad_gateway(client: httpx.AsyncClient) -> None:
    async with FaultProxy("http://127.0.0.1:9") as proxy:
        assert (await client.get(proxy.url)).status_code == 502
