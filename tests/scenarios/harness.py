"""A whole site on virtual time: the production controller and planner, with fakes only beyond the process boundary.

A scenario is Start (what there is), Do (what happens), Expected (what must be true). Whatever a scenario is about,
leaving it checks what must always hold: no running job was ended, no machine of others was touched, no worker had two
machines, the maximum was kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from random import Random
from typing import Any, Self

import structlog

from gridtide.clock import Clock, LoopClock, SystemClock
from gridtide.clouds.fake import FakeCloud
from gridtide.context.agent import ContextSettings, agent_context
from gridtide.control.assembly import Assembly, Timing
from gridtide.control.controller import Controller, Think, think_at_once
from gridtide.control.lease import LeaseKeeper
from gridtide.control.sources import Rhythm
from gridtide.model.costs import Billing, Budget, Choose
from gridtide.model.ids import CloudName, Generation, GroupName, QueueName, ShapeName, WorkerId
from gridtide.model.machines import Quota
from gridtide.model.reasons import Reason
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import CloudRules, GroupRules, Policy, QueuePolicy, SiteRules
from gridtide.model.workers import Worker, WorkerState
from gridtide.queues.fake import FakeQueue
from gridtide.sim import virtual_time
from gridtide.store.memory import MemoryFleetStore
from gridtide.store.ports import Owner
from gridtide.testing.world import FakeWorld

# A scenario of hours logs tens of thousands of lines, which would cost more time than the scenario.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))

QUEUE = QueueName("pool")
CLOUD = CloudName("cloud")
GROUP = GroupName("grid")
SHAPE = Shape(ShapeName("one"), Resources(1, 1024, 1024))
IDLE_FOR = 300.0
TIMING = Timing(
    queue=Rhythm(every=15.0, spacing=0.0, deadline=10.0),
    cloud=Rhythm(every=30.0, spacing=1.0, deadline=20.0),
    shapes=Rhythm(every=300.0, spacing=60.0, deadline=20.0),
    heartbeat=10.0,
)


class Site:
    """One queue, one or more clouds, one group; change what a scenario needs before ``up()``.

    Further groups come from :meth:`add_group`; ``queues`` makes further queues, ``more_shapes`` further shapes,
    ``prices`` a cloud for each price per hour.
    """

    def __init__(
        self,
        *,
        minimum: int = 0,
        maximum: int = 4,
        policy: Policy | None = None,
        clouds: int = 1,
        boot_time: float = 60.0,
        list_lag: float = 0.0,
        call_time: float = 0.0,
        drain_delay: float = 0.0,
        quota: Quota | None = None,
        join_deadline: float | None = 600.0,
        lease: float = 600.0,
        may_pass_maximum: bool = False,
        leave_when_drained: bool = True,
        shape: Shape = SHAPE,
        image: str | None = None,
        queues: int = 1,
        more_shapes: Sequence[Shape] = (),
        share: float = 1.0,
        prices: Sequence[float] = (),
        budget: Budget | None = None,
        billing: Billing | None = None,
        choose: Choose = Choose.ORDER,
    ) -> None:
        self.clock = LoopClock()
        self.random = Random(7)
        self.queues = [
            FakeQueue(QueueName(f"{QUEUE}{number or ''}"), self.clock, self.random, drain_delay=drain_delay)
            for number in range(queues)
        ]
        self.queue = self.queues[0]
        self.clouds = [
            FakeCloud(
                CloudName(f"{CLOUD}{number or ''}"),
                self.clock,
                self.random,
                shapes=[replace(each, price=price) for each in (shape, *more_shapes)],
                boot_time=boot_time,
                list_lag=list_lag,
                call_time=call_time,
                quota=quota,
            )
            for number, price in enumerate(prices or [0.0] * clouds)
        ]
        self.world = FakeWorld(self.clouds, self.queues, self.clock, self.random, leave_when_drained=leave_when_drained)
        self.store = MemoryFleetStore()
        self.maximum = maximum
        self.may_pass_maximum = may_pass_maximum
        self.generation = Generation("g1")
        self._group = GroupRules(
            name=GROUP,
            queue=QUEUE,
            clouds=tuple(cloud.name for cloud in self.clouds),
            shapes=(),
            generation=self.generation,
            minimum=minimum,
            maximum=maximum,
            policy=policy or QueuePolicy(idle_for=IDLE_FOR),
            join_deadline=join_deadline,
            image=image,
            lease=lease,
            share=share,
            choose=choose,
        )
        self._budget, self._billing = budget, billing or Billing()
        self._more_groups: dict[GroupName, GroupRules] = {}
        self._quota = quota or Quota()
        self._join_secrets: dict[WorkerId, str] = {}
        self._process = 0
        self._dead: set[int] = set()
        self.wall_step = 0.0
        """Seconds by which the wall clock was set since the first process: those that start later begin with it."""
        self.think: Think = think_at_once
        """How plans are worked out by controllers that start from now on."""
        self.controllers: dict[int, tuple[Controller, asyncio.Task[None]]] = {}

    @property
    def cloud(self) -> FakeCloud:
        """The first one."""
        return self.clouds[0]

    def add_group(
        self,
        name: str,
        *,
        queue: int = 0,
        shapes: Sequence[Shape] = (),
        share: float = 1.0,
        maximum: int | None = None,
        minimum: int = 0,
        policy: Policy | None = None,
    ) -> GroupName:
        """Like the first one, but for what is given."""
        self._more_groups[GroupName(name)] = replace(
            self._group,
            name=GroupName(name),
            queue=self.queues[queue].name,
            shapes=tuple(shape.name for shape in shapes),
            share=share,
            maximum=self.maximum if maximum is None else maximum,
            minimum=minimum,
            policy=policy or self._group.policy,
        )
        return GroupName(name)

    # --- controllers

    def assembly(self) -> Assembly:
        """As the site file would give it."""
        rules = SiteRules(
            name="site",
            groups={GROUP: self._group, **self._more_groups},
            clouds={
                cloud.name: CloudRules(cloud.name, self._quota, cloud.settle, self._billing, self._budget)
                for cloud in self.clouds
            },
            queues=tuple(queue.name for queue in self.queues),
        )
        context = ContextSettings(("http://127.0.0.1:1",), None, "exit")

        def render(worker: Worker, token: str) -> bytes:
            self._join_secrets[worker.id] = token.rpartition(".")[2]
            return agent_context(worker, token, context, {})

        return Assembly(
            rules=rules,
            queues={queue.name: queue for queue in (self.queue, *self.queues[1:])},
            clouds={cloud.name: cloud for cloud in self.clouds},
            render=render,
            timing=TIMING,
        )

    def join_secret(self, worker: WorkerId) -> str:
        """What the context told its machine."""
        return self._join_secrets[worker]

    async def up(self) -> Controller:
        """Start a controller process; it leads at once if nobody else does."""
        self._process += 1
        process = self._process
        owner = Owner("host", "boot", process, process)
        secrets = Random(process)
        clock: Clock = self.clock
        if self.wall_step:
            clock = SystemClock(lambda: self.clock.now() + self.wall_step, asyncio.get_running_loop().time)
        keeper = LeaseKeeper(
            self.store, owner, lambda other: other.process not in self._dead, clock=clock, seconds=10.0
        )
        controller = Controller(
            self.assembly(),
            self.store,
            keeper,
            clock=clock,
            random=Random(process),
            make_secret=lambda: f"{secrets.getrandbits(256):064x}",
            think=self.think,
        )

        async def run() -> None:
            await keeper.take(lambda who: None)
            await controller.load()
            self.world.connect(controller)
            await controller.lead()

        self.controllers[process] = (controller, asyncio.create_task(run(), name=f"controller {process}"))
        await asyncio.sleep(0.001)
        return controller

    @property
    def controller(self) -> Controller:
        """The one started last."""
        return self.controllers[max(self.controllers)][0]

    async def kill(self, process: int | None = None) -> None:
        """kill -9: everything that it was doing stops where it is, nothing is released."""
        number = process if process is not None else max(self.controllers)
        controller, task = self.controllers.pop(number)
        self._dead.add(number)
        if self.world.connected is controller:
            self.world.connect(None)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def update(self, generation: str) -> Controller:
        """A new image or context in the site file: its controller is started anew with it."""
        self._group = replace(self._group, generation=Generation(generation))
        return await self.restart()

    async def restart(self) -> Controller:
        """kill -9, then a new process."""
        await self.kill()
        return await self.up()

    # --- looking

    @property
    def workers(self) -> list[Worker]:
        """As the leading controller has them."""
        return list(self.controller.workers.values())

    def in_state(self, state: WorkerState) -> list[Worker]:
        """Those in this state."""
        return [worker for worker in self.workers if worker.state is state]

    def machines(self) -> int:
        """Machines of ours that really exist now."""
        return sum(machine.worker is not None for cloud in self.clouds for machine in cloud.alive())

    def submit(self, number: int, *, queue: int = 0, **job: Any) -> list[str]:
        """Let jobs wait in a queue, which tells of it."""
        made = self.queues[queue].submit(number, **job)
        self.controller.queue_changed(self.queues[queue].name)
        return made

    def of_group(self, group: GroupName) -> list[Worker]:
        """Its workers, in any state."""
        return [worker for worker in self.workers if worker.group == group]

    def why_demand(self, label: str, queue: QueueName = QUEUE) -> Reason:
        """Why these jobs wait."""
        cycle = self.controller.cycle
        assert cycle is not None
        return cycle.plan.why_demand[(queue, label)]

    def launches(self) -> int:
        """Machines ever made."""
        return sum(len(cloud.record.made) for cloud in self.clouds)

    async def until(self, holds: Callable[[], bool], *, within: float, what: str = "it") -> float:
        """Wait until it holds; the seconds that took. AssertionError when it does not in time."""
        began = self.clock.now()
        while not holds():
            if self.clock.now() - began > within:
                raise AssertionError(f"{what} did not happen within {within:g} s: {self.describe()}")
            await asyncio.sleep(0.25)
        return self.clock.now() - began

    def describe(self) -> str:
        """For messages of failed scenarios."""
        cycle = self.controller.cycle
        why = {} if cycle is None else {str(k): str(v) for k, v in cycle.plan.why_group.items()}
        return f"{[(w.id, w.state.value, str(w.reason)) for w in self.workers]}, {self.machines()} machines, {why}"

    # --- always

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, *details: object) -> None:
        for process in list(self.controllers):
            _, task = self.controllers[process]
            if task.done() and not task.cancelled() and kind is None:
                task.result()
            await self.kill(process)
        await self.world.close()
        if kind is None:
            self.check_always()

    def check_always(self) -> None:
        """What no scenario may break."""
        for cloud in self.clouds:
            assert cloud.record.killed_jobs == []
            assert cloud.record.foreign_ended == []
            assert cloud.record.doubled == []
            if not self.may_pass_maximum:
                assert cloud.record.most_alive <= self.maximum


def scenario(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run an async test on virtual time."""

    def run() -> None:
        virtual_time.run(test())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run
