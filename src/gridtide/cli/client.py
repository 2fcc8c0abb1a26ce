"""Calls to the service. Every answer that is no success becomes an error of the tree in ``gridtide.errors``."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import quote

import httpx

from gridtide import __version__, errors
from gridtide.cli.locate import Address
from gridtide.cli.problems import Busy, NoService, ServiceFault
from gridtide.errors import GridtideError
from gridtide.store.ports import Json

T = TypeVar("T")

_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)
"""Seconds. A shorter one gives up on a store that is busy; a longer one looks like a hung terminal."""

_FOLLOW_TIMEOUT: Final = httpx.Timeout(None, connect=5.0)
"""Between two events any time may pass."""

_KINDS: Final[Mapping[str, type[GridtideError]]] = {
    kind.__name__: kind
    for kind in (
        errors.SiteFileError,
        errors.JobDescriptionError,
        errors.InvalidRequest,
        errors.AccessDenied,
        errors.NotFound,
        errors.Conflict,
        errors.StoreUnavailable,
        errors.LeaseLost,
        errors.QueueError,
        errors.CloudError,
        errors.CloudUnavailable,
    )
}
"""Errors that the service names in its answers and that may be raised here as they are."""

_STATUS: Final[Mapping[int, type[GridtideError]]] = {
    400: errors.InvalidRequest,
    401: errors.AccessDenied,
    403: errors.AccessDenied,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.InvalidRequest,
    422: errors.InvalidRequest,
}

MOST_WORKERS: Final = 20_000
"""Workers in one answer: the most that the service gives."""

_PAUSE: Final = 1.0
"""Seconds before a broken stream is opened again."""

Query = Mapping[str, str | int | None]
"""Values of None are left out."""


def segment(name: str) -> str:
    """A name as one part of a route."""
    return quote(name, safe="")


class Client:
    """One user's connection to one service. Raises errors of ``gridtide.errors`` and ``cli.problems`` only."""

    def __init__(self, address: Address, *, transport: httpx.BaseTransport | None = None) -> None:
        self._url = address.url.rstrip("/")
        headers = {"User-Agent": f"gridtide/{__version__}"}
        if address.token is not None:
            headers["Authorization"] = f"Bearer {address.token}"
        self._http = httpx.Client(
            base_url=self._url,
            headers=headers,
            timeout=_TIMEOUT,
            transport=transport,
            verify=_authority(address),
            # A proxy or netrc of the environment must neither see the token nor replace it.
            trust_env=False,
        )

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str, query: Query | None = None) -> Json:
        """The document at a route."""
        return self._json("GET", path, query=query)

    def post(self, path: str, body: Mapping[str, Json] | None = None) -> Json:
        """Ask for something; returns the answer's document, None when it has none."""
        return self._json("POST", path, body=body or {})

    def delete(self, path: str) -> Json:
        """Take something away."""
        return self._json("DELETE", path)

    def put(self, path: str, content: Iterator[bytes], size: int) -> None:
        """Upload ``size`` bytes."""
        with self._problems():
            headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
            response = self._http.put(path, content=content, headers=headers)
            self._raise_for(response)

    def read(self, path: str, query: Query | None = None) -> bytes:
        """The bytes at a route."""
        with self._problems():
            response = self._http.get(path, params=_given(query))
            self._raise_for(response)
            return response.content

    def chunks(self, path: str, query: Query | None = None) -> Iterator[bytes]:
        """The bytes at a route as they come, for as long as the service has some."""
        with self._problems():
            with self._http.stream("GET", path, params=_given(query), timeout=_FOLLOW_TIMEOUT) as response:
                if not response.is_success:
                    response.read()
                self._raise_for(response)
                yield from response.iter_bytes()

    def lines(self, path: str, query: Query | None = None) -> Iterator[str]:
        """The text lines at a route as they come."""
        with self._problems():
            with self._http.stream("GET", path, params=_given(query), timeout=_FOLLOW_TIMEOUT) as response:
                if not response.is_success:
                    response.read()
                self._raise_for(response)
                yield from response.iter_lines()

    def _json(self, method: str, path: str, *, query: Query | None = None, body: Json = None) -> Json:
        with self._problems():
            response = self._http.request(method, path, params=_given(query), json=body)
            self._raise_for(response)
            if not response.content:
                return None
            try:
                answer: Json = response.json()
            except ValueError:
                raise ServiceFault("the answer is no JSON", where=f"{self._url}{path}") from None
            return answer

    @contextmanager
    def _problems(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._unreachable(error) from None
        except httpx.TimeoutException:
            raise NoService("the service did not answer in time", where=self._url) from None
        except httpx.HTTPError as error:
            raise NoService(f"the connection broke: {error}", where=self._url) from None

    def _unreachable(self, error: httpx.TransportError) -> NoService:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLError):
                return NoService(
                    f"the certificate of {self._url} is not to be trusted: {cause.reason or cause}",
                    remedy="is this the right site? `--ca FILE` names another authority",
                )
            cause = cause.__cause__ or cause.__context__
        return NoService(f"no service answers at {self._url}: is it running? start it with `gridtide up`")

    def _raise_for(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        status = response.status_code
        what, where, remedy, kind = _explanation(response)
        if status in {429, 503}:
            remedy = remedy or "try again later"
            raise Busy(what, where=where, remedy=remedy, retry_after=_retry_after(response))
        known = _KINDS.get(kind) or _STATUS.get(status)
        if known is errors.AccessDenied and status == 401 and "Authorization" not in response.request.headers:
            remedy = remedy or "give a token with --token-file FILE or GRIDTIDE_TOKEN"
        if known is None:
            raise ServiceFault(what, where=where or f"{self._url}{response.request.url.path}", remedy=remedy)
        raise known(what, where=where, remedy=remedy)


def patiently(call: Callable[[], T], *, patience: float, sleep: Callable[[float], None] = time.sleep) -> T:
    """Repeat a harmless call while the service is away or busy, for ``patience`` seconds; then its error."""
    waited, pause = 0.0, 0.2
    while True:
        try:
            return call()
        except (NoService, Busy) as error:
            if waited >= patience:
                raise
            pause = max(pause, min(error.retry_after, 10.0)) if isinstance(error, Busy) else pause
        sleep(pause)
        waited += pause
        pause = min(pause * 2, 5.0)


def resumed(
    begin: Callable[[], Iterator[T]], *, patience: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator[T]:
    """A stream that goes on where it broke: ``begin`` opens it from there.

    After ``patience`` seconds without any item its error is raised.
    """
    waited = 0.0
    while True:
        try:
            for item in begin():
                yield item
                waited = 0.0
            return
        except (NoService, Busy):
            if waited >= patience:
                raise
        sleep(_PAUSE)
        waited += _PAUSE


def _authority(address: Address) -> ssl.SSLContext:
    if not address.url.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # believes nobody, and is made in no time
    if address.ca is None:
        return ssl.create_default_context()
    try:
        # Given cadata, no other authority is loaded.
        return ssl.create_default_context(cadata=address.ca)
    except ssl.SSLError as error:
        raise NoService(f"the site's certificate cannot be read: {error.reason}", where=address.url) from None


def _given(query: Query | None) -> dict[str, str | int]:
    return {name: value for name, value in (query or {}).items() if value is not None}


def _explanation(response: httpx.Response) -> tuple[str, str, str, str]:
    """(what, where, remedy, kind) of an answer that is no success."""
    try:
        error = response.json()["error"]
        return tuple(str(error.get(name) or "") for name in ("what", "where", "remedy", "kind"))  # type: ignore[return-value]
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"the service answered {response.status_code} {response.reason_phrase}", "", "", ""


def _retry_after(response: httpx.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("Retry-After", "1")))
    except ValueError:
        return 1.0
