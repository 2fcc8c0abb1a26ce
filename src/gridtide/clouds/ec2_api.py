"""Calls to an EC2 endpoint: threads, rate, repetition, typed errors. What is called, the driver says.

boto3 blocks, so each call runs in a thread of this cloud's own pool: an endpoint that hangs holds up nothing else.
botocore's own retries are off. A call that failed without an answer, or was throttled, is repeated here while there is
time, with growing pauses: all calls that are made here may be repeated (launches by their client token).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final, TypeVar

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader, create_loader
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from gridtide.clouds.ec2_errors import typed
from gridtide.clouds.ec2_rate import Bucket, Rates
from gridtide.clouds.refusals import PlainRefusal
from gridtide.clouds.repeating import check_in_time
from gridtide.errors import AuthenticationFailed, CloudError, CloudUnavailable, Throttled

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from mypy_boto3_ec2 import EC2Client

T = TypeVar("T")

_THREADS: Final = 12
"""More than launches take (LAUNCHES of ec2.py), so that listings always find a free one."""
_ENOUGH: Final = 9.0
"""Seconds that must be left to a call when it is made, however long it may take by ``timeout``: with more, a timeout
near READ_PATIENCE (of ec2.py) would let nothing be read at all."""
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
"""Seconds before a call is repeated, doubling, with jitter. Shorter: a server in trouble gets more of it."""


class Kind(StrEnum):
    """By what a call is limited."""

    LAUNCH = "launch"
    TERMINATE = "terminate"
    READ = "read"


@dataclass(frozen=True, slots=True)
class Access:
    """Which endpoint, and by whose credentials. None: as boto3 finds it."""

    region: str
    endpoint: str | None = None
    profile: str | None = None
    credentials: Path | None = None
    """A file of the form of ``~/.aws/credentials``."""
    timeout: float = 10.0
    """Seconds for a connection, and for each wait on it."""


class Ec2Api:
    """Of one account in one region."""

    def __init__(self, where: str, access: Access, rates: Rates, random: Random | None = None) -> None:
        self.where = where
        self._access = access
        self._rates = {Kind.LAUNCH: rates.launch, Kind.TERMINATE: rates.terminate, Kind.READ: rates.read}
        self._buckets: dict[Kind, Bucket] = {}
        self._random = random or Random()  # noqa: S311 - jitter
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"ec2 {where}")
        self._making = threading.Lock()
        self._client: EC2Client | None = None

    async def call(self, kind: Kind, ask: Callable[[EC2Client], T], until: float) -> T:
        """Make the call, and make it again when that may help, as long as it can end before ``until`` (loop time).

        ``ask`` runs in a thread and must be repeatable. Raises CloudError: CloudUnavailable when any of the attempts
        may have done its work unseen; Throttled when none was made.
        """
        loop = asyncio.get_running_loop()
        bucket = self._buckets.setdefault(kind, Bucket(self._rates[kind], loop.time()))
        pause = _FIRST_PAUSE
        unsure: CloudUnavailable | None = None
        enough = min(self._access.timeout, _ENOUGH)
        while True:
            wait = bucket.wait(loop.time())
            if loop.time() + wait + enough > until:
                late = f"too many {kind} calls: the next may be made in {wait:.0f} s" if wait else "no time is left"
                raise unsure or Throttled(late, retry_after=wait, where=self.where)
            bucket.take(loop.time())
            await asyncio.sleep(wait)
            try:
                async with asyncio.timeout_at(until):
                    return await loop.run_in_executor(self._pool, self._do, ask, until)
            except TimeoutError:
                raise CloudUnavailable("no answer in time", where=self.where) from None
            except CloudUnavailable as error:
                unsure, at_least = error, 0.0
                failure: CloudError = error
            except Throttled as error:
                bucket.empty(loop.time())
                error.retry_after = error.retry_after or bucket.wait(loop.time())
                failure, at_least = unsure or error, error.retry_after
            except AuthenticationFailed as error:
                raise unsure or error from None
            pause_now = max(at_least, pause * self._random.uniform(0.5, 1.0))
            pause = min(_LONGEST_PAUSE, 2.0 * pause)
            if loop.time() + pause_now + enough > until:
                raise failure
            await asyncio.sleep(pause_now)

    async def pages(self, ask: Callable[[EC2Client, str], tuple[list[T], str]], until: float) -> list[T]:
        """All pages of a listing: ``ask`` gets the token of a page ("" for the first), answers rows and next token."""
        found: list[T] = []
        token = ""
        tokens: set[str] = set()
        while True:
            rows, token = await self.call(Kind.READ, lambda client, at=token: ask(client, at), until)  # type: ignore[misc]
            found += rows
            if not token:
                return found
            if token in tokens:
                raise CloudUnavailable("its pages go round in a circle", where=self.where)
            tokens.add(token)

    async def credentials(self) -> Credentials | None:
        """What boto3 found. Raises CloudError."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._guarded, self._find_credentials)

    def close(self) -> None:
        """Connections are closed when calls under way have ended."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._making:
            if self._client is not None:
                self._client.close()

    # --- in threads

    def _do(self, ask: Callable[[EC2Client], T], until: float) -> T:
        def in_time() -> T:
            client = self._connected()
            check_in_time(until, self.where)
            return ask(client)

        try:
            return self._guarded(in_time)
        except AuthenticationFailed:
            with self._making:
                self._client = None  # credentials may have been renewed in their file: look again next time
            raise

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (
            BotoCoreError,
            ClientError,
            HTTPError,
            OSError,
            PlainRefusal,
            ResponseParserError,
            # what an answer that lacks something makes of the code that reads it
            KeyError,
            IndexError,
            TypeError,
            ValueError,
            AttributeError,
        ) as error:
            raise typed(error, self.where) from error

    def _connected(self) -> EC2Client:
        with self._making:  # making a client is not safe in several threads at once, using it is
            if self._client is None:
                patience = self._access.timeout
                config = Config(
                    connect_timeout=patience,
                    read_timeout=patience,
                    max_pool_connections=_THREADS,
                    retries={"total_max_attempts": 1},
                    user_agent_extra="gridtide",
                )
                session = self._session()
                self._client = session.client("ec2", endpoint_url=self._access.endpoint, config=config)
                self._client.meta.events.register("before-parse.ec2", _refuse_plain)
            return self._client

    def _session(self) -> boto3.session.Session:
        core = botocore.session.Session(profile=self._access.profile)
        core.register_component("data_loader", _loader())
        if self._access.credentials is not None:
            core.set_config_variable("credentials_file", str(self._access.credentials))
        return boto3.session.Session(botocore_session=core, region_name=self._access.region)

    def _find_credentials(self) -> Credentials | None:
        with self._making:
            found = self._session().get_credentials()
        if found is not None:
            found.get_frozen_credentials()  # expired ones are renewed here, or fail to be
        return found


@cache
def _loader() -> Loader:
    """Shared: reading EC2's description takes a quarter of a second, ten times as long as all else of a client."""
    return create_loader()


def _refuse_plain(response_dict: dict[str, object], **_: object) -> None:
    """botocore finds no status in an error that is not XML, and calls it unparsable."""
    status, body, headers = response_dict["status_code"], response_dict["body"], response_dict["headers"]
    if not isinstance(status, int) or status < 400 or not isinstance(body, bytes) or body.lstrip()[:1] == b"<":
        return
    retry_after = getattr(headers, "get", lambda _name, default: default)("retry-after", "")
    raise PlainRefusal(status, str(retry_after))
