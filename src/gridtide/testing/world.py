"""What goes on inside the machines of fake clouds: they boot, join, run jobs for a fake queue, and leave.

    async with FakeWorld([cloud], [queue], clock, random) as world:
        world.connect(controller)     # whatever has join, alive and done of gridtide.control.api.SiteControl
        ...

Each machine has one task that does what its agent would do. All waiting is ``asyncio.sleep``: on virtual time a day
takes a moment and is the same each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol, Self

from gridtide.clock import Clock
from gridtide.clouds.fake import FakeCloud, FakeMachine
from gridtide.control.api import AliveAnswer, JoinAnswer
from gridtide.errors import AccessDenied, Conflict, GridtideError
from gridtide.model.demand import Attribute
from gridtide.model.ids import WorkerId
from gridtide.pilot.protocol import Order
from gridtide.queues.fake import FakeQueue

_RETRY_FIRST: Final = 5.0
_RETRY_MOST: Final = 60.0
"""Seconds between attempts to join, doubling from the first to the most: like the real agent's."""


class LifeCycle(Protocol):
    """The part of the controller that machines talk to."""

    async def join(
        self, worker: WorkerId, join_secret: str, worker_secret: str, host: Mapping[str, Attribute]
    ) -> JoinAnswer:
        """See SiteControl."""
        ...

    def alive(self, worker: WorkerId, *, load: float, running: int, draining: bool) -> AliveAnswer:
        """See SiteControl."""
        ...

    async def done(self, worker: WorkerId, text: str) -> None:
        """See SiteControl."""
        ...


class _Unreachable(Exception):
    """The service does not answer this machine: it is down, or the machine is cut off."""


@dataclass(slots=True)
class _Agent:
    """One machine's agent."""

    worker: WorkerId
    cloud: FakeCloud
    machine: FakeMachine
    task: asyncio.Task[None] | None = None


class FakeWorld:
    """Ties fake clouds and fake queues together.

    ``leave_when_drained``: agents shut their machine down once they are drained and empty, without waiting for the
    order to stop. ``connected`` is None while the service is down.
    """

    def __init__(
        self,
        clouds: Sequence[FakeCloud],
        queues: Sequence[FakeQueue],
        clock: Clock,
        random: Random,
        *,
        leave_when_drained: bool = True,
    ) -> None:
        self.connected: LifeCycle | None = None
        self.leave_when_drained = leave_when_drained
        self.refused: list[tuple[float, WorkerId, str]] = []
        """Machines whose join was refused for good: when, which, why."""
        self.left: list[tuple[float, WorkerId]] = []
        """Machines that shut themselves down in order."""
        self.crashed: list[BaseException] = []
        """Bugs of the world or of what it is connected to. :meth:`close` raises the first."""
        self._queues = {str(queue.name): queue for queue in queues}
        self._clock = clock
        self._random = random
        self._agents: dict[str, _Agent] = {}
        self._cut: set[WorkerId] = set()
        for cloud in clouds:
            cloud.jobs_on = self.running_on
            cloud.on_made.append(lambda machine, cloud=cloud: self._boot(cloud, machine))  # type: ignore[misc]
            cloud.on_ended.append(self._ended)

    def connect(self, life_cycle: LifeCycle | None) -> None:
        """The service is up, and this answers; None: it is down."""
        self.connected = life_cycle

    def running_on(self, worker: WorkerId) -> Sequence[str]:
        """The jobs that the worker's machine runs."""
        return [job for queue in self._queues.values() for job in queue.running_on(worker)]

    def cut_off(self, worker: WorkerId) -> None:
        """A network partition: the machine runs on, its jobs too, but it reaches nothing."""
        self._cut.add(worker)
        for queue in self._queues.values():
            queue.cut_off(worker)

    def heal(self, worker: WorkerId) -> None:
        """The network of the machine works again."""
        self._cut.discard(worker)
        for queue in self._queues.values():
            queue.heal(worker)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all tasks. Raises the first unexpected error that one of them met."""
        tasks = [agent.task for agent in self._agents.values() if agent.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._agents.clear()
        if self.crashed:
            raise self.crashed[0]

    # --- machines come and go

    def _boot(self, cloud: FakeCloud, machine: FakeMachine) -> None:
        if machine.worker is None:
            return
        agent = _Agent(machine.worker, cloud, machine)
        self._agents[machine.id] = agent
        agent.task = asyncio.get_running_loop().create_task(self._live(agent), name=f"agent {machine.worker}")
        agent.task.add_done_callback(self._note_crash)

    def _note_crash(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.crashed.append(error)

    def _ended(self, machine: FakeMachine) -> None:
        agent = self._agents.pop(machine.id, None)
        if agent is None:
            return
        if agent.task is not None and agent.task is not asyncio.current_task():
            agent.task.cancel()
        if not any(other.worker == agent.worker for other in self._agents.values()):
            for queue in self._queues.values():
                queue.machine_ended(agent.worker)

    # --- what an agent does

    async def _live(self, agent: _Agent) -> None:
        await asyncio.sleep(max(0.0, agent.machine.boots - self._clock.now()))
        if agent.machine.dead:
            return
        answer = await self._join(agent)
        if answer is None:
            agent.cloud.stop_machine(agent.machine.id, "its join was refused")
            return
        queue = self._queues[answer.orders.settings["queue"]]
        queue.register(agent.worker, agent.machine.resources)
        await self._serve(agent, queue, answer)
        queue.leave(agent.worker)
        self.left.append((self._clock.now(), agent.worker))
        # Without the word of it, the cloud still says that the machine stopped.
        with contextlib.suppress(_Unreachable, GridtideError):
            await self._service(agent.worker).done(agent.worker, "drained and empty")
        agent.cloud.stop_machine(agent.machine.id, "shut down by its agent")

    async def _join(self, agent: _Agent) -> JoinAnswer | None:
        """Try until the service decides; None when it refuses."""
        token = str(json.loads(agent.machine.user_data)["join_token"])
        join_secret = token.removeprefix("gtj_").partition(".")[2]
        worker_secret = f"{self._random.getrandbits(128):032x}"
        resources = agent.machine.resources
        host: dict[str, Attribute] = {"Cpus": resources.cores, "Memory": resources.memory, "Disk": resources.disk}
        host |= {"Gpus": resources.gpus, "Arch": "X86_64", "OpSys": "LINUX", "Machine": str(agent.worker)}
        host |= json.loads(agent.machine.user_data).get("attributes", {})
        pause = _RETRY_FIRST
        while True:
            try:
                service = self._service(agent.worker)
                return await service.join(agent.worker, join_secret, worker_secret, host)
            except (AccessDenied, Conflict) as error:
                self.refused.append((self._clock.now(), agent.worker, str(error)))
                return None
            except (_Unreachable, GridtideError):
                await asyncio.sleep(pause)
                pause = min(2 * pause, _RETRY_MOST)

    async def _serve(self, agent: _Agent, queue: FakeQueue, answer: JoinAnswer) -> None:
        """Report until it is time to leave: told to stop, or drained and empty."""
        heartbeat, lease, contact = answer.heartbeat, answer.lease, self._clock.now()
        while True:
            await asyncio.sleep(heartbeat)
            now = self._clock.now()
            running = len(queue.running_on(agent.worker))
            load = running / max(agent.machine.resources.cores, 1)
            try:
                told = self._service(agent.worker).alive(
                    agent.worker, load=load, running=running, draining=queue.is_draining(agent.worker)
                )
            except (_Unreachable, GridtideError):
                if now - contact > lease:
                    queue.self_drain(agent.worker)
            else:
                heartbeat, lease, contact = told.heartbeat, told.lease, now
                if told.order is Order.STOP and not queue.running_on(agent.worker):
                    return
            if self.leave_when_drained and queue.is_drained(agent.worker) and agent.worker not in self._cut:
                return

    def _service(self, worker: WorkerId) -> LifeCycle:
        if self.connected is None or worker in self._cut:
            raise _Unreachable
        return self.connected
