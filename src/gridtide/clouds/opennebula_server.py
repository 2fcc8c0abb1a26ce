"""The wire to OpenNebula: pyone's server and its bindings, with a transport of our own. Imported when first used.

Whoever answers at the endpoint may be anybody. So an answer is bounded in bytes and in time, is never unpacked, leads
nowhere else, and no document type (which could define entities that grow without end, or name files) is ever parsed.
pyone's own transport has none of this, and would set the time-out of all sockets of the process.
"""

from __future__ import annotations

import re
import ssl
import time
import xmlrpc.client
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from xml.parsers import expat

import httpx
from pyone.server_xrpc import OneServerXRPC

from gridtide.clouds.opennebula_errors import Fault, Nonsense, Refused
from gridtide.clouds.refusals import PlainRefusal

LARGEST: Final = 64 * 1024 * 1024
"""Bytes of one answer. A page of 500 machines has about one million; thousands of templates have ten."""
_BEGINS: Final = re.compile(r"<([A-Z_]+)[ />]", re.ASCII)
"""A document that begins with its root element: entities and other encodings can only be declared in front of it."""


class Transport(xmlrpc.client.Transport):
    """One POST per call; connections are kept. Safe in several threads."""

    def __init__(self, url: str, seconds: float, authority: Path | None, most: int = LARGEST) -> None:
        super().__init__()
        self._url = url
        self._seconds = seconds
        self._most = most
        context = ssl.create_default_context(cafile=None if authority is None else str(authority))
        self._client = httpx.Client(timeout=seconds, verify=context, trust_env=False, follow_redirects=False)

    def request(self, host: Any, handler: Any, request_body: Any, verbose: bool = False) -> Any:
        """The values of the answer. Raises PlainRefusal, Nonsense, xmlrpc.client.Fault, and what httpx raises."""
        end = time.monotonic() + self._seconds
        headers = {"content-type": "text/xml", "accept-encoding": "identity", "user-agent": "gridtide"}
        with self._client.stream("POST", self._url, content=request_body, headers=headers) as response:
            if response.status_code != 200:
                raise PlainRefusal(response.status_code, response.headers.get("retry-after", ""))
            body = bytearray()
            for piece in response.iter_raw():
                body += piece
                if len(body) > self._most:
                    raise Nonsense(f"it has more than {self._most} bytes")
                if time.monotonic() > end:
                    raise TimeoutError("the answer comes too slowly")
        return values(bytes(body))

    def close(self) -> None:
        """Connections that no call uses."""
        self._client.close()


def values(body: bytes) -> Any:
    """What an XML-RPC answer says. Raises Nonsense, or xmlrpc.client.Fault."""
    target = xmlrpc.client.Unmarshaller()
    target.xml(None, None)  # type: ignore[arg-type]  # the parser decodes
    parser = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise Nonsense("it declares a document type")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = target.start
    parser.EndElementHandler = target.end
    parser.CharacterDataHandler = target.data
    try:
        parser.Parse(body, True)
        found = target.close()
    except (expat.ExpatError, xmlrpc.client.ResponseError):
        raise Nonsense("it is not XML-RPC, or was cut short") from None
    if len(found) != 1:
        raise Nonsense("it is no answer of XML-RPC")
    return found


class Server(OneServerXRPC):  # type: ignore[misc]  # pyone has no types
    """pyone's, that tells error codes and reads nothing but what was asked for."""

    def __init__(self, url: str, session: str, transport: Transport) -> None:
        super().__init__(url, session)
        self._ServerProxy__transport = transport

    def ask(self, method: str, arguments: Sequence[object]) -> Any:
        """``method`` without ``one.``. A number, a text, or pyone's object for a document."""
        return self._ServerProxy__request(method, tuple(arguments))

    def _do_request(self, method: str, params: Any) -> Any:
        try:
            answer = xmlrpc.client.ServerProxy._ServerProxy__request(self, method, params)  # type: ignore[attr-defined]
        except xmlrpc.client.Fault as fault:
            raise Fault(fault.faultCode, method.removeprefix("one.")) from None
        if not isinstance(answer, list) or len(answer) < 3 or not isinstance(answer[0], bool):
            raise Nonsense("it is not OpenNebula's")
        done, value, code = answer[:3]
        if not done:
            raise Refused(code if isinstance(code, int) else 0, value if isinstance(value, str) else "")
        if isinstance(value, str) and (not value or (value.lstrip()[:1] == "<" and not _BEGINS.match(value))):
            raise Nonsense("it does not begin with its root element")
        return answer
