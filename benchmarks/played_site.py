"""A site whose machines are only played: the production controller and a real cloud driver, a fake queue, no agents.

The machines of a test cloud run nothing. Here they join as soon as the cloud has them, and their nodes die with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from gridtide.clock import LoopClock
from gridtide.clouds.protocol import Cloud
from gridtide.context.agent import ContextSettings, agent_context
from gridtide.control.assembly import Assembly, Timing
from gridtide.control.controller import Controller
from gridtide.control.lease import LeaseKeeper
from gridtide.control.sources import Rhythm
from gridtide.model.ids import Generation, GroupName, MachineId, QueueName, ShapeName, WorkerId
from gridtide.model.machines import Quota
from gridtide.model.resources import Resources
from gridtide.model.rules import CloudRules, GroupRules, QueuePolicy, SiteRules, Wishes
from gridtide.model.workers import Worker
from gridtide.queues.fake import FakeQueue
from gridtide.store.memory import MemoryFleetStore
from gridtide.store.ports import Owner

QUEUE: Final = QueueName("pool")

Look = Callable[[], Awaitable[Mapping[MachineId, tuple[WorkerId, bool]]]]
"""What there really is, past any proxy: of each machine its worker, and whether it lives. Ended ones may be missing."""


@dataclass(frozen=True, slots=True)
class PlayedCloud:
    """A cloud and the group of the same name that uses it alone. Its machines have ``resources``."""

    cloud: Cloud
    look: Look
    shape: str
    image: str
    resources: Resources
    workers: int
    """Most at once."""
    idle_for: float = 2.0

    @property
    def group(self) -> GroupName:
        """What it is called."""
        return GroupName(self.cloud.name)

    def rules(self) -> GroupRules:
        """For the planner."""
        return GroupRules(
            name=self.group,
            queue=QUEUE,
            clouds=(self.cloud.name,),
            shapes=(ShapeName(self.shape),),
            generation=Generation("g1"),
            minimum=0,
            maximum=self.workers,
            policy=QueuePolicy(idle_for=self.idle_for),
            join_deadline=600.0,
            image=self.image,
            lease=60.0,
        )


class PlayedSite:
    """A queue, and a group on each cloud. Machines join when ``look`` shows them alive.

    The queue calls a dead node dead after 20 s, in place of some minutes: that is not what is measured.
    """

    def __init__(self, *clouds: PlayedCloud) -> None:
        self.clock = LoopClock()
        self.queue = FakeQueue(QUEUE, self.clock, Random(1), contact_timeout=20.0)
        self.joined: dict[WorkerId, MachineId] = {}
        self.workers_of: dict[MachineId, WorkerId] = {}
        """Of all machines that ever were."""
        self.killed = 0
        """Jobs that ran on a machine when it was ended, and not by an administrator (``touched``)."""
        self.touched: set[MachineId] = set()
        self.clouds = clouds
        self._secrets: dict[WorkerId, str] = {}
        self._dead: set[WorkerId] = set()
        rules = SiteRules(
            name="site",
            groups={each.group: each.rules() for each in clouds},
            clouds={each.cloud.name: CloudRules(each.cloud.name, Quota(), each.cloud.settle) for each in clouds},
            queues=(QUEUE,),
        )
        timing = Timing(
            queue=Rhythm(every=2.0, spacing=0.0, deadline=10.0),
            cloud=Rhythm(every=10.0, spacing=2.0, deadline=20.0),
            shapes=Rhythm(every=300.0, spacing=10.0, deadline=20.0),
        )
        drivers = {each.cloud.name: each.cloud for each in clouds}
        assembly = Assembly(rules, {QUEUE: self.queue}, drivers, self._render, timing=timing)
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

    def living(self) -> int:
        """Workers that have joined and whose machine lives."""
        return len(self.joined.keys() - self._dead)

    async def want(self, workers: int, *clouds: PlayedCloud) -> None:
        """An operator pins their number in the groups of these clouds; of all when none is given."""
        for each in clouds or self.clouds:
            await self.controller.set_wishes(each.group, Wishes(desired=workers), actor="benchmark")

    async def run(self) -> None:
        """Until it is cancelled."""
        await self._keeper.take(lambda _: None)
        await self.controller.load()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.controller.lead())
            for each in self.clouds:
                group.create_task(self._play(each))

    def _render(self, worker: Worker, token: str) -> bytes:
        self._secrets[worker.id] = token.rpartition(".")[2]
        return agent_context(worker, token, ContextSettings(("http://127.0.0.1:1",), None, "exit"), {})

    async def _play(self, cloud: PlayedCloud) -> None:
        """Of this cloud: whoever is there joins, and whose machine is gone dies."""
        joined: dict[WorkerId, MachineId] = {}
        while True:
            began = self.clock.now()
            seen = await cloud.look()
            pause = max(0.5, 4.0 * (self.clock.now() - began))  # looking must not be what the cloud is busy with
            for machine, (worker, living) in seen.items():
                self.workers_of[machine] = worker
                if living and worker not in joined:
                    await self._join(worker, cloud.resources)
                    self.joined[worker] = joined[worker] = machine
            for worker, machine in joined.items():
                if worker not in self._dead and not seen.get(machine, (worker, False))[1]:
                    self._dead.add(worker)
                    self.killed += 0 if machine in self.touched else len(self.queue.running_on(worker))
                    self.queue.machine_ended(worker)
            await asyncio.sleep(pause)

    async def _join(self, worker: WorkerId, amount: Resources) -> None:
        host = {"Cpus": amount.cores, "Memory": amount.memory, "Disk": amount.disk}
        await self.controller.join(worker, self._secrets[worker], f"secret of {worker}", host)
        self.queue.register(worker, amount)
