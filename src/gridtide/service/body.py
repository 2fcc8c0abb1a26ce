"""Reading request bodies: bounded in size, depth and patience, with one clear line for each way to be wrong."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Final, NoReturn, cast

from starlette.requests import Request

from gridtide.errors import InvalidRequest
from gridtide.model.demand import Attribute
from gridtide.service.answers import Stalled, TooLarge
from gridtide.service.settings import MIB
from gridtide.store.ports import Json

SMALL: Final = 64 * 1024
"""Bytes in an ordinary JSON body. A worker with some hundred running jobs still fits."""
LARGE: Final = 8 * MIB
"""Bytes in a body that carries lists of digests or a job description."""
DEEPEST: Final = 32
"""Levels of nesting in a JSON body; ours have four."""
WRITE_SIZE: Final = MIB
"""Bytes gathered before a write is handed to a thread: fewer make more thread switches, more take more memory."""

_LARGEST_INTEGER: Final = 2**63
_HOST_ATTRIBUTE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)


class _Body:
    """A request's body, piece by piece. No generator: the hot routes come through here.

    TooLarge at once when the client announces too much; Stalled when nothing comes.
    """

    __slots__ = ("_done", "_limit", "_patience", "_receive", "size")

    def __init__(self, request: Request, limit: int, patience: float) -> None:
        announced = request.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > limit:
            raise TooLarge(f"the body has {announced} bytes, {limit} are allowed here")
        self._receive = request.receive
        self._limit = limit
        self._patience = patience
        self._done = False
        self.size = 0

    async def piece(self) -> bytes:
        """The next bytes; none at the end."""
        while not self._done:
            try:
                async with asyncio.timeout(self._patience):
                    message = await self._receive()
            except TimeoutError:
                raise Stalled(
                    f"no byte of the body came for {self._patience:g} s, {self.size} bytes were read"
                ) from None
            if message["type"] == "http.disconnect":
                raise Stalled(f"the connection ended inside the body after {self.size} bytes")
            self._done = not message.get("more_body", False)
            piece: bytes = message.get("body", b"")
            self.size += len(piece)
            if self.size > self._limit:
                raise TooLarge(f"the body has more than {self._limit} bytes")
            if piece:
                return piece
        return b""


async def read_body(request: Request, *, limit: int, patience: float) -> bytes:
    """All of a small body."""
    body = _Body(request, limit, patience)
    whole = await body.piece()
    while piece := await body.piece():
        whole += piece
    return whole


async def save_body(request: Request, path: Path, *, limit: int, patience: float) -> int:
    """Stream a body into a file, holding at most about ``WRITE_SIZE`` of it; returns its size.

    The file is closed but left behind when this raises: removing it is the caller's.
    """
    body = _Body(request, limit, patience)
    held = bytearray()
    with await asyncio.to_thread(path.open, "wb", 0) as file:
        while piece := await body.piece():
            held += piece
            if len(held) >= WRITE_SIZE:
                await asyncio.to_thread(_write, file, held)
                held = bytearray()
        await asyncio.to_thread(_write, file, held)
    return body.size


def _write(file: FileIO, data: bytearray) -> None:
    """All of it: one write of an unbuffered file may take less."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant)


def decode(body: bytes) -> Json:
    """JSON that is UTF-8, not too deep, and without NaN, NUL characters and lone surrogates. InvalidRequest."""
    try:
        value = cast(Json, _DECODER.decode(body.decode()))
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise InvalidRequest(
            f"the body is not JSON: {error.msg}", where=f"line {error.lineno}, column {error.colno}"
        ) from None
    except ValueError:
        raise InvalidRequest(
            "the body holds a number that cannot be used (NaN, Infinity or thousands of digits)"
        ) from None
    # What the walk looks for cannot be there without many brackets or an escape: the hot routes are spared it.
    if body.count(b"[") + body.count(b"{") > DEEPEST or b"\\u" in body:
        _inspect(value, 1)
    return value


def _inspect(value: Json, depth: int) -> None:
    if depth > DEEPEST:
        raise InvalidRequest(f"the body is nested deeper than {DEEPEST} levels")
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidRequest("the body holds a NUL character or half a surrogate pair")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _inspect(key, depth + 1)
            _inspect(item, depth + 1)
    elif isinstance(value, Sequence):
        for item in value:
            _inspect(item, depth + 1)


def check_json_type(request: Request) -> None:
    """InvalidRequest unless the body is called JSON: a web page in a browser cannot send that unasked."""
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise InvalidRequest(
            f"the body is called {kind[:80]!r}" if kind else "the body has no content type",
            remedy="send Content-Type: application/json",
        )


async def read_fields(request: Request, *, limit: int, patience: float) -> Fields:
    """A JSON object for :class:`Fields`."""
    check_json_type(request)
    return Fields.of(decode(await read_body(request, limit=limit, patience=patience)), "body")


def decode_fields(request: Request, body: bytes) -> Fields:
    """The same of a body that has come already."""
    check_json_type(request)
    return Fields.of(decode(body), "body")


class Fields:
    """A JSON object whose fields are asked for by type; each wrong one is an InvalidRequest that names it.

    Fields that nobody asks for are ignored, so that an older service understands a newer agent.
    """

    __slots__ = ("_values", "_where")

    def __init__(self, values: Mapping[str, Json], where: str) -> None:
        self._values = values
        self._where = where

    @classmethod
    def of(cls, value: Json, where: str) -> Fields:
        """InvalidRequest when it is no object."""
        if not isinstance(value, Mapping):
            raise InvalidRequest(f"must be a JSON object, not {_named(value)}", where=where)
        return cls(value, where)

    def _wrong(self, name: str, wanted: str) -> InvalidRequest:
        found = f"not {_named(self._values[name])}" if name in self._values else "and is missing"
        return InvalidRequest(f"must be {wanted}, {found}", where=f"{self._where}.{name}")

    def text(self, name: str, *, longest: int) -> str:
        """A string of at most ``longest`` characters."""
        value = self._values.get(name)
        if not isinstance(value, str) or len(value) > longest:
            raise self._wrong(name, f"a string of at most {longest} characters")
        return value

    def integer(self, name: str, *, least: int = 0) -> int:
        """A whole number from ``least`` to 2**63 - 1."""
        value = self._values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < _LARGEST_INTEGER:
            raise self._wrong(name, f"a whole number from {least}")
        return value

    def integer_or_none(self, name: str, *, least: int = 0) -> int | None:
        """The same, or null, or absent."""
        return None if self._values.get(name) is None else self.integer(name, least=least)

    def number(self, name: str) -> float:
        """A finite number, not negative."""
        value = self._values.get(name)
        if (
            not isinstance(value, int | float)
            or isinstance(value, bool)
            or not 0 <= value < _LARGEST_INTEGER
            or not math.isfinite(value)
        ):
            raise self._wrong(name, "a finite number from 0")
        return float(value)

    def any_number_or_none(self, name: str) -> float | None:
        """Any number at all, or null, or absent; one that no float holds is infinite. For what is judged elsewhere."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._wrong(name, "a number or null")
        try:
            return float(value)
        except OverflowError:
            return math.inf

    def flag(self, name: str) -> bool:
        """true or false."""
        value = self._values.get(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def fields(self, name: str) -> Fields:
        """An object."""
        value = self._values.get(name)
        if not isinstance(value, Mapping):
            raise self._wrong(name, "a JSON object")
        return Fields(value, f"{self._where}.{name}")

    def fields_or_none(self, name: str) -> Fields | None:
        """An object, or null, or absent."""
        return None if self._values.get(name) is None else self.fields(name)

    def each(self, name: str, *, most: int) -> list[Fields]:
        """A list of objects."""
        value = self._values.get(name)
        if not isinstance(value, list) or len(value) > most:
            raise self._wrong(name, f"a list of at most {most} objects")
        return [Fields.of(item, f"{self._where}.{name}[{number}]") for number, item in enumerate(value)]

    def attributes(self, *, most: int = 200) -> Mapping[str, Attribute]:
        """This object as a host's attributes: ClassAd names with plain values."""
        if len(self._values) > most:
            raise InvalidRequest(f"has {len(self._values)} attributes, {most} are allowed", where=self._where)
        checked: dict[str, Attribute] = {}
        for name, value in self._values.items():
            if not _HOST_ATTRIBUTE.fullmatch(name):
                raise InvalidRequest(f"{name[:80]!r} is no attribute name", where=self._where)
            short = isinstance(value, str) and len(value) <= 1024
            if not short and not (isinstance(value, bool | int | float) and abs(value) < _LARGEST_INTEGER):
                raise self._wrong(name, "a short string, a number or a flag")
            checked[name] = cast(Attribute, value)
        return checked


def _named(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a flag"
    if isinstance(value, str):
        return "a string" if len(value) > 40 else f"the string {value!r}"
    if isinstance(value, int | float):
        return "that number"
    return "an object" if isinstance(value, Mapping) else "a list"
