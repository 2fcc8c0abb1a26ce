"""What goes on inside simulated machines: they boot, join, report, and are taken back.

One task per machine that boots, one for all signs of life together; the jobs are the batch system's
(:mod:`gridtide.sim.batch`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gridtide.clock import Clock
from gridtide.clouds.fake import FakeMachine
from gridtide.errors import AccessDenied, Conflict, GridtideError
from gridtide.model.demand import Attribute
from gridtide.model.ids import CloudName, WorkerId
from gridtide.sim.cloud import SimulatedCloud
from gridtide.sim.queue import SimulatedQueue
from gridtide.testing.world import LifeCycle

_RETRY_AFTER: Final = 10.0
"""Seconds between attempts to join while the service does not answer."""


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """A broken network: the machines behind it run on, and so do their jobs, but they reach nothing."""

    cloud: CloudName | None
    """The only one concerned; None: all are."""
    behind: Callable[[WorkerId], bool]


class SimulatedWorld:
    """Ties clouds and queues together. ``connected`` is None while the service is down.

    ``lease``: seconds without contact to the service after which a machine drains itself.
    """

    def __init__(
        self,
        clouds: Sequence[SimulatedCloud],
        queue: SimulatedQueue,
        clock: Clock,
        *,
        heartbeat: float,
        lease: float,
        attributes: Mapping[str, Attribute],
    ) -> None:
        self.connected: LifeCycle | None = None
        self.refused: list[tuple[float, WorkerId, str]] = []
        """Machines whose join was refused for good: when, which, why."""
        self.crashed: list[BaseException] = []
        """Bugs of the world or of what it is connected to."""
        self.on_joined: Callable[[WorkerId], object] = lambda _worker: None
        self._queue = queue
        self._clock = clock
        self._heartbeat = heartbeat
        self._lease = lease
        self._attributes = dict(attributes)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._reporting: dict[WorkerId, CloudName] = {}
        self._partitions: list[Partition] = []
        self._alone_since: dict[WorkerId, float] = {}
        self._pulse: asyncio.Task[None] | None = None
        for cloud in clouds:
            cloud.jobs_on = queue.running_on
            cloud.on_made.append(lambda machine, cloud=cloud: self._boot(cloud, machine))  # type: ignore[misc]
            cloud.on_ended.append(self._ended)

    def connect(self, service: LifeCycle | None) -> None:
        """The service is up, and this answers; None: it is down."""
        self.connected = service

    def start(self) -> None:
        """Let machines report from now on."""
        self._pulse = asyncio.get_running_loop().create_task(self._report(), name="signs of life")
        self._pulse.add_done_callback(self._note_crash)

    async def close(self) -> None:
        """End all tasks."""
        tasks = [*self._tasks.values(), *([self._pulse] if self._pulse is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- broken networks

    def part(self, partition: Partition) -> None:
        """Let it begin."""
        self._partitions.append(partition)
        for worker, cloud in self._reporting.items():
            if self._cut_off(worker, cloud):
                self._queue.cut_off(worker)

    def rejoin(self, partition: Partition) -> None:
        """Let it end."""
        self._partitions.remove(partition)
        for worker, cloud in self._reporting.items():
            if not self._cut_off(worker, cloud):
                self._queue.heal(worker)

    def _cut_off(self, worker: WorkerId, cloud: CloudName) -> bool:
        if not self._partitions:
            return False
        return any(each.cloud in (None, cloud) and each.behind(worker) for each in self._partitions)

    # --- machines come and go

    def _boot(self, cloud: SimulatedCloud, machine: FakeMachine) -> None:
        if machine.worker is None:
            return
        work = self._live(cloud, machine, machine.worker)
        task = asyncio.get_running_loop().create_task(work, name=f"machine {machine.worker}")
        self._tasks[machine.id] = task
        task.add_done_callback(self._note_crash)

    def _note_crash(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.crashed.append(error)

    def _ended(self, machine: FakeMachine) -> None:
        task = self._tasks.pop(machine.id, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        if machine.worker is not None:
            self._reporting.pop(machine.worker, None)
            self._alone_since.pop(machine.worker, None)
            self._queue.machine_ended(machine.worker)

    async def _live(self, cloud: SimulatedCloud, machine: FakeMachine, worker: WorkerId) -> None:
        after = cloud.reclaim_after(worker)
        boots = max(0.0, machine.boots - self._clock.now())
        if after is not None and after < boots:
            await asyncio.sleep(after)
            cloud.take_back(machine.id)
            return
        await asyncio.sleep(boots)
        if not machine.dead and not await self._join(cloud, machine, worker):
            return
        if after is not None:
            await asyncio.sleep(max(0.0, machine.made + after - self._clock.now()))
            cloud.take_back(machine.id)

    async def _join(self, cloud: SimulatedCloud, machine: FakeMachine, worker: WorkerId) -> bool:
        """Try until the service decides. Whether the machine became a node."""
        total = machine.resources
        host: dict[str, Attribute] = {
            **self._attributes,
            "Cpus": total.cores,
            "Memory": total.memory,
            "Disk": total.disk,
            "Gpus": total.gpus,
            "Machine": str(worker),
        }
        secret = machine.user_data.decode().rpartition(".")[2]
        while True:
            try:
                if self.connected is not None and not self._cut_off(worker, cloud.name):
                    await self.connected.join(worker, secret, f"secret of {worker}", host)
                    self._queue.register(worker, total)
                    self._reporting[worker] = cloud.name
                    self.on_joined(worker)
                    return True
            except (AccessDenied, Conflict) as error:
                self.refused.append((self._clock.now(), worker, str(error)))
                cloud.stop_machine(machine.id, "its join was refused")
                return False
            except GridtideError:
                pass  # it does not answer: the same again later
            await asyncio.sleep(_RETRY_AFTER)

    # --- signs of life

    async def _report(self) -> None:
        """All machines report at the same moment: one event of the loop, not one for each of them."""
        node_of = self._queue.batch.nodes.get
        # A worker that is gone by now, or a service that is busy, loses a sign of life and nothing else.
        lost = contextlib.suppress(GridtideError)
        while True:
            await asyncio.sleep(self._heartbeat)
            self._queue.catch_up()
            for worker, cloud in list(self._reporting.items()):
                node = node_of(worker)
                if node is None:
                    continue
                service = self.connected
                if service is None or (self._partitions and self._cut_off(worker, cloud)):
                    self._alone(worker)
                    continue
                if self._alone_since:
                    self._alone_since.pop(worker, None)
                cores = node.total.cores
                load = 1.0 - node.free[0] / cores if cores else 0.0
                with lost:
                    service.alive(worker, load=load, running=len(node.jobs), draining=node.draining or node.own_will)

    def _alone(self, worker: WorkerId) -> None:
        """It reaches no service. After its lease it takes no new job, as it promised when it joined."""
        now = self._clock.now()
        since = self._alone_since.setdefault(worker, now - self._heartbeat)
        if now - since > self._lease:
            self._queue.self_drain(worker)
