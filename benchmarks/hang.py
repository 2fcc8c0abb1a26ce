"""One cloud of three hangs on every call: what that costs the launches on the two others.

The production controller and the real drivers. Two clouds are EC2 (moto, each by an endpoint of its own); the third is,
by turns, not there, EC2, or OpenStack, by an address that takes connections and never answers. Machines are played.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import statistics
import threading
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import structlog
import yaml
from tests.real.ec2.account import FAST, IMAGE, SIZE, Account, moto, with_types

from benchmarks.figures import Figure
from benchmarks.played_site import PlayedCloud, PlayedSite
from gridtide.clouds.openstack import OpenstackCloud
from gridtide.clouds.openstack_api import Access
from gridtide.clouds.openstack_machine import FlavorChoice, OpenstackSettings
from gridtide.clouds.protocol import Cloud
from gridtide.model.ids import CloudName, MachineId, ShapeName, WorkerId
from gridtide.testing.fault_proxy import Call, FaultProxy, ec2_action

HEALTHY: Final = ("first", "second")
HANGING: Final = "third"
WARMUP: Final = 3.0
"""Seconds before the first launch: the healthy clouds have been read, the hanging one has been asked."""
PAUSE: Final = 0.35
"""Seconds between launches: they fall on all instants of the hanging calls."""


class Deaf:
    """Takes connections, reads what comes, never answers. ``open`` counts those that are open, ``most`` at once."""

    def __init__(self) -> None:
        self.url = ""
        self.taken = self.open = self.most = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, family=socket.AF_INET)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.taken, self.open = self.taken + 1, self.open + 1
        self.most = max(self.most, self.open)
        try:
            with contextlib.suppress(OSError):
                while await reader.read(65_536):
                    pass
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.close()


@dataclass(slots=True)
class Outcome:
    """Of all rounds of one kind."""

    latencies: list[float] = field(default_factory=list)
    """Seconds from an operator's wish for one worker more to the launch call at a healthy cloud's endpoint."""
    threads: int = 0
    """Most at once that the hanging cloud's driver had."""
    connections: int = 0
    """Most at once that were open to the hanging cloud."""
    taken: int = 0
    """Connections that the hanging cloud took in all: it was really asked."""
    late_launches: int = 0
    """Launches that were not called within :data:`LATE` seconds."""


LATE: Final = 10.0


def figures(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """Rounds with and without by turns, each kind first once: so that all see the same weather."""
    directory.mkdir(parents=True)
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))  # the hanging cloud is told of
    rounds, launches = (1, 3) if quick else (3, 100)
    kinds = ("none", "ec2", "openstack")
    outcomes = {kind: Outcome() for kind in kinds}
    with moto() as first, moto() as second:
        accounts = [Account(address, directory / name) for address, name in zip((first, second), HEALTHY, strict=True)]
        for account in accounts:
            account.directory.mkdir()
        for number in range(rounds):
            for kind in (*kinds[number % 3 :], *kinds[: number % 3]):
                asyncio.run(_round(accounts, directory, kind, launches, outcomes[kind]))
    alone = outcomes.pop("none")
    for kind, outcome in outcomes.items():
        yield from _judged(kind, alone, outcome)


def _judged(kind: str, alone: Outcome, beside: Outcome) -> Iterable[Figure]:
    ratio = statistics.median(beside.latencies) / statistics.median(alone.latencies)
    tail = _tail(beside.latencies) / _tail(alone.latencies)
    note = (
        f"{len(beside.latencies)} launches, median {1000 * statistics.median(beside.latencies):.0f} ms beside it and "
        f"{1000 * statistics.median(alone.latencies):.0f} ms without; {beside.taken} connections to the hanging one"
    )
    tails = f"{1000 * _tail(beside.latencies):.0f} ms and {1000 * _tail(alone.latencies):.0f} ms"
    name = f"one of three clouds hangs ({kind})"
    yield Figure(f"{name}: the others' launch latency", ratio, "x", "<=", 1.1, note)
    yield Figure(f"{name}: the same, slowest tenth", tail, "x", "<=", 1.25, tails)
    yield Figure(f"{name}: launches not called within {LATE:g} s", beside.late_launches, "launches", "==", 0)
    yield Figure(f"{name}: threads of its driver", beside.threads, "threads", "<=", 24)
    yield Figure(f"{name}: connections open at once", beside.connections, "connections", "<=", 24)


def _tail(latencies: list[float]) -> float:
    """That nine of ten stay below."""
    return statistics.quantiles(latencies, n=10)[-1] if len(latencies) > 1 else latencies[0]


async def _round(accounts: list[Account], directory: Path, kind: str, launches: int, outcome: Outcome) -> None:
    async with _site(accounts, directory, kind, launches) as (site, healthy, arrivals, deaf):
        await asyncio.sleep(WARMUP)
        if kind != "none":
            await site.want(2, *(each for each in site.clouds if each.cloud.name == HANGING))
        wanted = dict.fromkeys(HEALTHY, 0)
        for number in range(launches):
            await asyncio.sleep(PAUSE)
            cloud = healthy[number % len(healthy)]
            name = cloud.cloud.name
            wanted[name] += 1
            asked = time.monotonic()
            await site.want(wanted[name], cloud)
            await _until(arrivals, name, wanted[name], asked + LATE)
            called = arrivals[name]
            if len(called) < wanted[name]:
                outcome.late_launches += 1
                continue
            outcome.latencies.append(called[wanted[name] - 1] - asked)
            outcome.threads = max(outcome.threads, _threads_of(HANGING))
        outcome.connections, outcome.taken = max(outcome.connections, deaf.most), outcome.taken + deaf.taken


async def _until(arrivals: Mapping[str, list[float]], name: str, number: int, end: float) -> None:
    """Until so many launches were called, or it is too late."""
    while len(arrivals[name]) < number and time.monotonic() < end:  # noqa: ASYNC110 - a proxy notes it
        await asyncio.sleep(0.002)


def _threads_of(cloud: str) -> int:
    return sum(f" {cloud} (" in thread.name for thread in threading.enumerate())


@contextlib.asynccontextmanager
async def _site(
    accounts: list[Account], directory: Path, kind: str, launches: int
) -> AsyncIterator[tuple[PlayedSite, list[PlayedCloud], Mapping[str, list[float]], Deaf]]:
    """A site on two healthy clouds and perhaps one that hangs; when launches came in at each healthy one."""
    arrivals: dict[str, list[float]] = {name: [] for name in HEALTHY}
    async with contextlib.AsyncExitStack() as stack:
        healthy = []
        for account, name in zip(accounts, HEALTHY, strict=True):
            await asyncio.to_thread(account.empty)

            def note(call: Call, name: str = name) -> str:
                action = ec2_action(call)
                if action == "RunInstances":
                    arrivals[name].append(time.monotonic())
                return action

            proxy = await stack.enter_async_context(FaultProxy(account.address, name=note))
            cloud = account.cloud(with_types(rates=FAST, page=1000), name=name, endpoint=proxy.url)
            stack.push_async_callback(cloud.close)
            healthy.append(PlayedCloud(cloud, account.look, "m5.large", IMAGE, SIZE, workers=launches))
        deaf = await stack.enter_async_context(Deaf())
        hanging: list[PlayedCloud] = []
        if kind != "none":
            cloud_of = accounts[0].cloud(name=HANGING, endpoint=deaf.url) if kind == "ec2" else None
            driver: Cloud = cloud_of or _openstack(directory, deaf.url)
            stack.push_async_callback(driver.close)
            hanging.append(PlayedCloud(driver, _nothing, "m5.large", IMAGE, SIZE, workers=2))
        site = PlayedSite(*healthy, *hanging)
        running = asyncio.create_task(site.run())
        try:
            yield site, healthy, arrivals, deaf
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def _nothing() -> Mapping[MachineId, tuple[WorkerId, bool]]:
    return {}


def _openstack(directory: Path, address: str) -> OpenstackCloud:
    """By a password, at an address that says nothing."""
    auth = {"auth_url": f"{address}/v3", "username": "u", "password": "p", "project_name": "p"}
    domains = {"user_domain_id": "default", "project_domain_id": "default"}
    file = directory / "clouds.yaml"
    file.write_text(yaml.safe_dump({"clouds": {HANGING: {"auth": auth | domains, "region_name": "RegionOne"}}}))
    settings = OpenstackSettings(flavors=(FlavorChoice(ShapeName("m5.large")),), networks="none")
    return OpenstackCloud(CloudName(HANGING), "site", Access(HANGING, file, timeout=10.0), settings)
