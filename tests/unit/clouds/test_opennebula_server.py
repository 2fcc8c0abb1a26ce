"""The wire: what a hostile or broken endpoint may answer, and what comes of it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from lxml.etree import LxmlError

from gridtide.clouds.opennebula_api import failures
from gridtide.clouds.opennebula_errors import Fault, Nonsense, Refused
from gridtide.clouds.opennebula_server import Server, Transport, values
from gridtide.clouds.refusals import PlainRefusal

BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
    + "]>"
)


def answer(*found: object) -> bytes:
    return xmlrpc.client.dumps((list(found),), methodresponse=True).encode()


# --- XML-RPC


def test_a_good_answer() -> None:
    assert values(answer(True, "<VM><ID>7</ID></VM>", 0)) == ([True, "<VM><ID>7</ID></VM>", 0],)
    assert values(answer(False, "Grüße", 0x0400, 7)) == ([False, "Grüße", 0x0400, 7],)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"<html>",
        b"<methodResponse/>",
        b"<methodName></methodName>",
        answer(True, 7, 0)[:-20],
        f"<?xml version='1.0'?>{BOMB}<methodResponse><params><param><value>&j;</value></param></params>".encode(),
        answer(True, 7, 0).replace(b"<methodResponse>", b"<!DOCTYPE x SYSTEM 'file:///etc/passwd'><methodResponse>"),
        answer(True, 7, 0).replace(b"<methodResponse>", b"<!DOCTYPE x><methodResponse>").decode().encode("utf-16"),
        b"<methodResponse>&undefined;</methodResponse>",
    ],
    ids=range(10),
)
def test_what_is_not_read(body: bytes) -> None:
    with pytest.raises(Nonsense):
        values(body)


@given(st.binary(max_size=200) | st.text(alphabet="<>/&;aimethodRspnvluy \n![CDATA]", max_size=200).map(str.encode))
def test_any_bytes_raise_what_is_known(body: bytes) -> None:
    with pytest.raises((Nonsense, *failures())):
        values(body)


# --- documents within it


class Scripted(Transport):
    """Answers always the same."""

    def __init__(self, body: bytes) -> None:
        super().__init__("http://127.0.0.1:1", 1.0, None)
        self.body = body

    def request(self, host: object, handler: object, request_body: object, verbose: bool = False) -> Any:
        return values(self.body)


def ask(body: bytes) -> object:
    transport = Scripted(body)
    try:
        return Server("http://127.0.0.1:1/RPC2", "user:secret", transport).ask("vm.info", (7,))
    finally:
        transport.close()


def test_a_document_becomes_pyones_object() -> None:
    assert ask(answer(True, "<VM><ID>7</ID></VM>", 0)).ID == 7  # type: ignore[attr-defined]
    assert ask(answer(True, 40, 0)) == 40
    assert ask(answer(True, "6.10.0", 0)) == "6.10.0"


@pytest.mark.parametrize(
    "document",
    [
        f"{BOMB}<VM><NAME>&j;</NAME></VM>",
        f"<?xml version='1.0'?>{BOMB}<VM/>",
        "<?xml version='1.0' encoding='utf-7'?>+ADwAIQ-DOCTYPE x+AD4-<VM/>",
        "<!-- --><!DOCTYPE VM SYSTEM 'file:///etc/passwd'><VM/>",
        " <!DOCTYPE VM><VM/>",
        "",
        "<",
    ],
)
def test_a_document_begins_with_its_root(document: str) -> None:
    with pytest.raises(Nonsense):
        ask(answer(True, document, 0))


@pytest.mark.parametrize("document", ["<VM><ID>7</ID>", "<VM><ID>&lol;</ID></VM>", "<VM>" * 1000, "<VM \0/>"])
def test_a_broken_document_raises_what_is_known(document: str) -> None:
    try:
        body = answer(True, document, 0)
        values(body)
    except Nonsense:
        return  # XML-RPC itself cannot say it
    with pytest.raises(LxmlError):
        ask(body)
    assert issubclass(LxmlError, failures())


def test_a_number_that_is_none_raises_what_is_known() -> None:
    with pytest.raises(failures()):
        ask(answer(True, "<VM><ID>seven</ID></VM>", 0))


@pytest.mark.parametrize("head", [b"", b"<value><boolean>0</boolean></value>"])
def test_an_answer_that_is_nested_without_an_end(head: bytes) -> None:
    deep = b"<value><array><data>" * 50_000 + b"</data></array></value>" * 50_000
    inside = b"<value><array><data>" + head + deep + deep + b"</data></array></value>"
    with pytest.raises((Nonsense, Refused)):
        ask(b"<methodResponse><params><param>" + inside + b"</param></params></methodResponse>")


@pytest.mark.parametrize("found", [(True,), (True, 7), ("yes", 7, 0), (1, 7, 0), ({}, 7, 0)])
def test_an_answer_has_three_parts(found: tuple[object, ...]) -> None:
    with pytest.raises(Nonsense):
        ask(answer(*found))


def test_refusals_keep_their_code() -> None:
    with pytest.raises(Refused) as raised:
        ask(answer(False, "locked", 0x8000, 5, 0))
    assert (raised.value.code, raised.value.words) == (0x8000, "locked")
    with pytest.raises(Refused) as raised:
        ask(answer(False, "odd", "code"))
    assert raised.value.code == 0


def test_faults_name_the_method() -> None:
    with pytest.raises(Fault) as raised:
        ask(
            xmlrpc.client.dumps(
                xmlrpc.client.Fault(-506, "Method 'one.vm.info' not defined"), methodresponse=True
            ).encode()
        )
    assert (raised.value.code, raised.value.method) == (-506, "vm.info")


# --- HTTP


def received(connection: socket.socket) -> bytes:
    """A whole request."""
    got = b""
    while not got.endswith(b"</methodCall>\n"):
        piece = connection.recv(65_536)
        assert piece
        got += piece
    return got


@contextmanager
def peer(talk: Callable[[socket.socket], None], *, reads: bool = True) -> Iterator[str]:
    """One connection is taken, its request read, and ``talk`` answers."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            if reads:
                received(connection)
            with contextlib.suppress(OSError):  # the other side has had enough
                talk(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/RPC2"
    finally:
        listener.close()
        thread.join(10.0)


def call(url: str, seconds: float = 10.0, most: int = 10_000) -> object:
    transport = Transport(url, seconds, None, most)
    try:
        return Server(url, "user:secret", transport).ask("system.version", ())
    finally:
        transport.close()


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""])
    return head.encode() + body


def test_an_answer_over_http() -> None:
    with peer(lambda to: to.sendall(http(answer(True, "6.10.0", 0)))) as url:
        assert call(url) == "6.10.0"


def test_an_answer_without_an_end_is_left() -> None:
    def flood(to: socket.socket) -> None:
        to.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            to.sendall(b"<" * 5000)

    with peer(flood) as url, pytest.raises(Nonsense, match="more than 10000 bytes"):
        call(url)


def test_an_answer_that_drips_is_left() -> None:
    done = threading.Event()

    def drip(to: socket.socket) -> None:
        to.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not done.wait(0.05):
            to.sendall(b"<")

    with peer(drip) as url:
        with pytest.raises(TimeoutError, match="slowly"):
            call(url, seconds=0.5)
        done.set()


def test_a_packed_answer_is_not_unpacked() -> None:
    import gzip

    packed = http(gzip.compress(answer(True, "6.10.0", 0)), "content-encoding: gzip")
    with peer(lambda to: to.sendall(packed)) as url, pytest.raises(Nonsense):
        call(url)


@pytest.mark.parametrize("status", ["302 Found", "429 Too Many", "503 Down"])
def test_a_status_is_told_with_how_long_to_wait(status: str) -> None:
    talk = http(b"", "retry-after: 7", "location: http://127.0.0.1:1/", status=status)
    with peer(lambda to: to.sendall(talk)) as url, pytest.raises(PlainRefusal) as raised:
        call(url)
    assert (raised.value.status, raised.value.retry_after) == (int(status[:3]), "7")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Key and certificate of 127.0.0.1, signed by itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "one")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "one.pem"
    plain = serialization.NoEncryption()
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.mark.parametrize("known", [True, False])
def test_an_endpoint_is_believed_by_its_authority_alone(certificate: Path, known: bool) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    asked: list[bytes] = []

    def talk(to: socket.socket) -> None:
        with context.wrap_socket(to, server_side=True) as safe:
            asked.append(received(safe))
            safe.sendall(http(answer(True, "6.10.0", 0)))

    with peer(talk, reads=False) as url:
        transport = Transport(url.replace("http:", "https:"), 10.0, certificate if known else None)
        server = Server(url.replace("http:", "https:"), "user:secret", transport)
        if known:
            assert server.ask("system.version", ()) == "6.10.0"
        else:
            with pytest.raises(httpx.ConnectError):
                server.ask("system.version", ())
        transport.close()
    assert bool(asked) is known, "no credentials are sent to who is not believed"


def test_the_time_outs_of_other_sockets_are_left_alone() -> None:
    before = socket.getdefaulttimeout()
    ask(answer(True, 40, 0))
    assert socket.getdefaulttimeout() == before
