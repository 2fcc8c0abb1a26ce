"""A fifth of all calls to EC2's API fail: the production controller and driver, moto behind a proxy that spoils calls.

The machines of moto run nothing: their agents and their batch queue are played here.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from tests.real.ec2.account import IMAGE, Account, moto, refusal, with_types

from benchmarks.figures import Figure
from gridtide.clock import LoopClock
from gridtide.clouds.ec2 import Ec2Cloud
from gridtide.clouds.ec2_rate import Rates
from gridtide.context.agent import ContextSettings, agent_context
from gridtide.control.assembly import Assembly, Timing
from gridtide.control.controller import Controller
from gridtide.control.lease import LeaseKeeper
from gridtide.control.sources import Rhythm
from gridtide.model.ids import Generation, GroupName, QueueName, ShapeName, WorkerId
from gridtide.model.machines import Quota
from gridtide.model.resources import Resources
from gridtide.model.rules import CloudRules, GroupRules, QueuePolicy, SiteRules
from gridtide.model.workers import Worker
from gridtide.queues.fake import FakeJobState, FakeQueue
from gridtide.store.memory import MemoryFleetStore
from gridtide.store.ports import Owner
from gridtide.testing.fault_proxy import Answer, FaultProxy, HttpFault, ec2_action

MIX: Final = (
    Answer(500),
    refusal("RequestLimitExceeded", 503),
    Answer(429, b"slow down"),
    HttpFault.HANG,
    HttpFault.HANG_AFTER,
    HttpFault.REFUSED,
    HttpFault.LOST,
    HttpFault.CUT,
)
PART: Final = 0.2
TIMEOUT: Final = 2.0
"""Seconds for a call. The default of 10 suits the distance to a real region; moto is on this host, and loaded."""
PATIENCE: Final = 240.0
"""Seconds after which a run counts as stuck."""
GROUP: Final = GroupName("grid")
QUEUE: Final = QueueName("pool")


@dataclass(slots=True)
class Outcome:
    """Of one run."""

    reached: float = float("inf")
    """Seconds until all workers had joined."""
    ended: float = float("inf")
    """Seconds until all were gone again."""
    doubled: int = 0
    """Workers that ever had two machines."""
    lost: int = 0
    """Machines that live and belong to no worker."""
    killed: int = 0
    """Jobs that ran on a machine when it was ended."""
    unfinished: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    struck: int = 0


def figures(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """Reach a target and leave it again, without faults and with them."""
    workers = 6 if quick else 60
    directory.mkdir(parents=True)
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    with moto() as address:
        account = Account(address, directory)
        calm = asyncio.run(run(account, workers, 0.0))
        rough = asyncio.run(run(account, workers, PART))
    total = sum(rough.calls.values())
    note = f"{workers} workers; {rough.struck} of {total} calls spoilt; {calm.reached:.1f} s without faults"
    yield Figure("ec2 faults: machines lost", rough.lost, "machines", "==", 0, note)
    yield Figure("ec2 faults: workers with two machines", rough.doubled, "workers", "==", 0, note)
    yield Figure("ec2 faults: jobs killed", rough.killed + rough.unfinished, "jobs", "==", 0, note)
    yield Figure("ec2 faults: time to the target", rough.reached / calm.reached, "x", "<=", 2.0, note)
    launching = sum(calm.calls[call] for call in ("RunInstances", "TerminateInstances", "DescribeImages"))
    yield Figure("ec2: calls per worker, listings aside", launching / workers, "calls", "<=", 3.0, note)


async def run(account: Account, workers: int, part: float, seed: int = 1) -> Outcome:
    """Two jobs per worker: all machines are made, then drained and ended when the jobs are done."""
    await asyncio.to_thread(account.empty)
    outcome = Outcome()
    async with FaultProxy(account.address, seed=seed, name=ec2_action) as proxy:
        proxy.mix(part, MIX)
        cloud = account.cloud(with_types(rates=Rates(), page=1000), endpoint=proxy.url, timeout=TIMEOUT)
        site = _Site(account, cloud, workers)
        tasks = [asyncio.create_task(site.control()), asyncio.create_task(site.play_agents())]
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                await _until(lambda: len(site.joined) >= workers)
                outcome.reached = time.monotonic() - began
                await _until(lambda: not site.controller.workers)
                outcome.ended = time.monotonic() - began
        except TimeoutError:
            pass  # the figures tell: nothing reached, or machines left
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await cloud.close()
        outcome.calls, outcome.struck = proxy.calls, sum(proxy.struck.values())
    known = {worker.machine for worker in site.controller.workers.values()}
    outcome.lost = sum(each["InstanceId"] not in known for each in account.instances())
    outcome.doubled = sum(number > 1 for number in Counter(site.made.values()).values())
    outcome.killed = site.killed
    outcome.unfinished = 2 * workers - site.queue.count(FakeJobState.DONE)
    return outcome


async def _until(holds: Callable[[], bool]) -> None:
    """What is looked at changes in many places."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.05)


class _Site:
    """One group on one cloud, with a queue that is played."""

    def __init__(self, account: Account, cloud: Ec2Cloud, workers: int) -> None:
        self.account = account
        self.clock = LoopClock()
        self.queue = FakeQueue(QUEUE, self.clock, Random(1))
        self.queue.submit(2 * workers, need=Resources(1, 1024, 1024), duration=5.0)
        self.joined: set[WorkerId] = set()
        self.made: dict[str, str] = {}
        """Machine -> worker, of all that ever were."""
        self.killed = 0
        self._secrets: dict[WorkerId, str] = {}
        self._ended: set[WorkerId] = set()
        group = GroupRules(
            name=GROUP,
            queue=QUEUE,
            clouds=(cloud.name,),
            shapes=(ShapeName("m5.large"),),
            generation=Generation("g1"),
            minimum=0,
            maximum=workers,
            policy=QueuePolicy(idle_for=2.0),
            join_deadline=600.0,
            image=IMAGE,
            lease=600.0,
        )
        rules = SiteRules(
            name="site",
            groups={GROUP: group},
            clouds={cloud.name: CloudRules(cloud.name, Quota(), cloud.settle)},
            queues=(QUEUE,),
        )
        timing = Timing(
            queue=Rhythm(every=2.0, spacing=0.0, deadline=10.0),
            cloud=Rhythm(every=5.0, spacing=0.5, deadline=20.0),
            shapes=Rhythm(every=300.0, spacing=10.0, deadline=20.0),
        )
        assembly = Assembly(rules, {QUEUE: self.queue}, {cloud.name: cloud}, self._render, timing=timing)
        store = MemoryFleetStore()
        self._keeper = LeaseKeeper(store, Owner("host", "boot", 1, 1), lambda _: True, clock=self.clock, seconds=60.0)
        secrets = Random(1)
        self.controller = Controller(
            assembly,
            store,
            self._keeper,
            clock=self.clock,
            random=Random(1),
            make_secret=lambda: f"{secrets.getrandbits(256):064x}",
        )

    def _render(self, worker: Worker, token: str) -> bytes:
        self._secrets[worker.id] = token.rpartition(".")[2]
        return agent_context(worker, token, ContextSettings(("http://127.0.0.1:1",), None, "exit"), {})

    async def control(self) -> None:
        """The production loop."""
        await self._keeper.take(lambda _: None)
        await self.controller.load()
        await self.controller.lead()

    async def play_agents(self) -> None:
        """Machines join as soon as they exist; when one is ended its node dies."""
        while True:
            for machine, (worker, living) in (await asyncio.to_thread(self._look)).items():
                self.made[machine] = worker
                name = WorkerId(worker)
                if living and name not in self.joined:
                    await self._join(name)
                elif not living and name in self.joined - self._ended:
                    self._ended.add(name)
                    self.killed += len(self.queue.running_on(name))
                    self.queue.machine_ended(name)
            await asyncio.sleep(0.2)

    async def _join(self, worker: WorkerId) -> None:
        host = {"Cpus": 2, "Memory": 8192, "Disk": 20480}
        await self.controller.join(worker, self._secrets[worker], f"secret of {worker}", host)
        self.queue.register(worker, Resources(2, 8192, 20480))
        self.joined.add(worker)

    def _look(self) -> Mapping[str, tuple[str, bool]]:
        """Past the proxy: what there really is, ended machines included."""
        seen = {}
        for page in self.account.client.get_paginator("describe_instances").paginate():
            for found in page["Reservations"]:
                for each in found["Instances"]:
                    tags = {tag["Key"]: tag["Value"] for tag in each["Tags"]}
                    living = each["State"]["Name"] in {"pending", "running"}
                    seen[each["InstanceId"]] = (tags["gridtide:worker"], living)
        return seen
