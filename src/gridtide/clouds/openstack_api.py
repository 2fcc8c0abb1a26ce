"""Calls to the services of an OpenStack cloud: log-in, threads, deadlines, repetition, typed errors.

openstacksdk reads clouds.yaml and makes the session; it blocks, so each call runs in a thread of this cloud's own pool:
a cloud that hangs holds up nothing else. What is called, the driver says, in the terms of the API reference: the SDK's
own layer of objects would make calls that nobody asked for. Reading and deleting is repeated while there is time;
a launch never is (Nova has no client token), except when it was throttled and nothing was done.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gridtide.clouds.openstack_errors import failures, of_answer, typed
from gridtide.clouds.openstack_machine import Json
from gridtide.clouds.repeating import check_in_time, repeated
from gridtide.errors import AuthenticationFailed, CloudUnavailable, LaunchRejected

if TYPE_CHECKING:
    from keystoneauth1.adapter import Adapter
    from openstack.config.cloud_region import CloudRegion

T = TypeVar("T")

MICROVERSION: Final = (2, 69)
"""Of Stein (2019), the first whose listings do not leave out the servers of a cell that is down."""
LEAST_MICROVERSION: Final = (2, 52)
"""Of Pike (2017), the first in which a server can be tagged when it is made."""

_SPARE: Final = 4
"""Threads beyond those for launches and terminates, so that listings always find a free one."""


class Service(StrEnum):
    """By the names of the catalog's types."""

    COMPUTE = "compute"
    IMAGE = "image"
    NETWORK = "network"
    VOLUME = "block-storage"


_VERSIONS: Final = {Service.COMPUTE: "2.1", Service.IMAGE: "2", Service.VOLUME: "3"}
"""Neutron's is in its paths."""


@dataclass(frozen=True, slots=True)
class Access:
    """Which cloud, and by whose credentials. None: as openstacksdk finds it."""

    profile: str | None = None
    """Name of a section of clouds.yaml."""
    file: Path | None = None
    """clouds.yaml itself."""
    region: str | None = None
    project: str | None = None
    timeout: float = 10.0
    """Seconds for a connection, and for each wait on it."""


@dataclass(frozen=True, slots=True)
class LogIn:
    """What Keystone said of it. No secret is in it."""

    address: str
    """Of Keystone."""
    user: str
    credential: str
    """Id of the application credential; empty for a password."""


class OpenstackApi:
    """Of one project in one region."""

    def __init__(self, where: str, access: Access, calls: int, random: Random | None = None) -> None:
        self.where = where
        self._access = access
        self._random = random or Random()  # noqa: S311 - jitter
        self._pool = ThreadPoolExecutor(2 * calls + _SPARE, thread_name_prefix=f"openstack {where}")
        self._connecting = threading.Lock()
        self._region: CloudRegion | None = None
        self._adapters: dict[Service, tuple[Adapter, str | None]] = {}
        self._closed = False

    async def call(self, service: Service, method: str, path: str, until: float, *, body: object = None) -> Json:
        """Make the call, and make it again where that is safe, as long as it can end before ``until`` (loop time).

        Raises CloudError; for a POST, CloudUnavailable means that its outcome is not known.
        """
        return await repeated(
            lambda: self._in_thread(lambda: self._do(service, method, path, body, until), until),
            until,
            self._random,
            final=lambda _: method == "POST" or self._closed,
        )

    async def log_in(self, until: float) -> LogIn:
        """As whom calls are made. Raises CloudError."""
        return await self._in_thread(lambda: self._guarded(self._log_in), until)

    async def ask_keystone(self, path: str, until: float) -> Json:
        """A reading call. Raises CloudError."""
        return await self._in_thread(lambda: self._guarded(lambda: self._keystone(path, until)), until)

    async def microversion(self, until: float) -> str:
        """The one that calls to Nova are made in. Raises CloudError."""
        found = await self._in_thread(lambda: self._guarded(lambda: self._adapter(Service.COMPUTE)), until)
        return found[1] or ""

    def close(self) -> None:
        """Calls under way end by themselves."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[[], T], until: float) -> T:
        if self._closed:
            raise CloudUnavailable("the driver is closed", where=self.where)
        try:
            async with asyncio.timeout_at(until):
                return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except TimeoutError:
            raise CloudUnavailable("no answer in time", where=self.where) from None

    # --- in threads

    def _do(self, service: Service, method: str, path: str, body: object, until: float) -> Json:
        try:
            return self._guarded(lambda: self._request(service, method, path, body, until))
        except AuthenticationFailed:
            with self._connecting:  # credentials may have been renewed in their file: look again next time
                self._region = None
                self._adapters.clear()
            raise

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except failures() as error:
            raise typed(error, self.where) from error

    def _request(self, service: Service, method: str, path: str, body: object, until: float) -> Json:
        adapter, microversion = self._adapter(service)
        check_in_time(until, self.where)
        response = adapter.request(
            path,
            method,
            json=body,
            microversion=microversion,
            raise_exc=False,
            log=False,  # the body of a launch holds a secret
            connect_retries=0,
            timeout=self._patience(until),
            headers={"Accept": "application/json"},
        )
        if response.status_code >= 300:
            retry_after = response.headers.get("retry-after", "")
            raise of_answer(response.status_code, response.content, retry_after, self.where)
        document = response.json() if response.content else {}
        if not isinstance(document, dict):
            raise TypeError("not a JSON object")
        return document

    def _patience(self, until: float) -> float:
        return min(self._access.timeout, max(0.1, until - time.monotonic()))

    def _adapter(self, service: Service) -> tuple[Adapter, str | None]:
        from keystoneauth1.adapter import Adapter

        region = self._connected()
        with self._connecting:
            if service not in self._adapters:
                adapter = Adapter(
                    region.get_session(),
                    service_type=region.get_service_type(service),
                    service_name=region.get_service_name(service),
                    interface=region.get_interface(service),
                    region_name=region.get_region_name(service),
                    endpoint_override=region.get_endpoint(service),
                    version=_VERSIONS.get(service),
                )
                microversion = self._choose(adapter) if service is Service.COMPUTE else None
                self._adapters[service] = (adapter, microversion)
            return self._adapters[service]

    def _choose(self, adapter: Adapter) -> str:
        data = adapter.get_endpoint_data()
        newest = tuple(data.max_microversion or ()) if data is not None else ()
        if newest < LEAST_MICROVERSION:
            # keystoneauth keeps to itself why it found no version: asked once more, the service says it.
            response = adapter.get("", raise_exc=False, log=False, connect_retries=0, timeout=self._access.timeout)
            if response.status_code >= 400:
                retry_after = response.headers.get("retry-after", "")
                raise of_answer(response.status_code, response.content, retry_after, self.where)
            what = "its Nova is not reached, or older than Pike (microversion 2.52)"
            raise LaunchRejected(what, where=self.where, remedy="look at the compute endpoint of the catalog")
        return ".".join(map(str, min(newest, MICROVERSION)))

    def _connected(self) -> CloudRegion:
        from openstack.config import OpenStackConfig

        with self._connecting:
            if self._region is None:
                access = self._access
                files = None if access.file is None else [str(access.file)]
                given: dict[str, Any] = {
                    "region_name": access.region,
                    "project_name": access.project,
                    "api_timeout": access.timeout,
                    "app_name": "gridtide",
                }
                config = OpenStackConfig(config_files=files, load_envvars=files is None)
                section = config.cloud_config.get("clouds", {}).get(access.profile)
                if access.region is not None and isinstance(section, dict) and "regions" not in section:
                    section["region_name"] = access.region  # else only the region that it names would be let pass
                more = {key: value for key, value in given.items() if value is not None}
                self._region = config.get_one(cloud=access.profile, **more)
            return self._region

    def _log_in(self) -> LogIn:
        session = self._connected().get_session()
        found = session.auth.get_access(session)  # type: ignore[union-attr]
        address = str(getattr(session.auth, "auth_url", ""))
        return LogIn(address, str(found.user_id), found.application_credential_id or "")

    def _keystone(self, path: str, until: float) -> Json:
        session = self._connected().get_session()
        address = str(getattr(session.auth, "auth_url", "")).rstrip("/").removesuffix("/v3")
        response = session.get(f"{address}/v3{path}", raise_exc=False, log=False, timeout=self._patience(until))
        if response.status_code >= 300:
            raise of_answer(response.status_code, response.content, "", self.where)
        document = response.json()
        if not isinstance(document, dict):
            raise TypeError("not a JSON object")
        return document
