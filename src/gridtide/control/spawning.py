"""AliEC2's three routes (seeds-digest section 1): a worker for each request, which runs the script of that request.

The life of such a worker is that of any other; what differs is who asks for it, and what its machine is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gridtide.clock import Clock
from gridtide.control.fleet import Fleet, event_of, moved
from gridtide.errors import Conflict, NotFound
from gridtide.model.actions import Launch
from gridtide.model.ids import GroupName, QueueName, WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.workers import MAY_JOIN, Worker, WorkerState
from gridtide.queues.aliec2 import SpawnedQueue
from gridtide.store.ports import AddWorker, Change, Event, UpdateWorker


class Launcher(Protocol):
    """What spawning needs of the controller."""

    @property
    def fleet(self) -> Fleet:
        """The workers."""
        ...

    def spawn_launch(self, group: GroupName) -> Launch | Reason:
        """Whether one more may be launched now, and how."""
        ...

    def intents_of(self, launch: Launch) -> list[Change]:
        """The records of a launch."""
        ...

    def queue_changed(self, name: QueueName) -> None:
        """Look at the queue again."""
        ...


class Spawning:
    """Implements the service's Spawner for one group."""

    def __init__(self, launcher: Launcher, queue: SpawnedQueue, group: GroupName, clock: Clock) -> None:
        self._launcher = launcher
        self._queue = queue
        self._group = group
        self._clock = clock

    async def spawn(self, script: bytes, *, actor: str) -> WorkerId:
        """Record the intent of a worker that runs this script. Conflict when there is no room for one."""
        decided: list[WorkerId] = []

        def decide(_: Mapping[WorkerId, Worker]) -> list[Change]:
            launch = self._launcher.spawn_launch(self._group)
            if isinstance(launch, Reason):
                raise Conflict(f"no worker can be spawned: {launch.text}", where=f"group {self._group}")
            changes = self._launcher.intents_of(launch)
            worker = next(change.worker.id for change in changes if isinstance(change, AddWorker))
            said = Event(
                self._clock.now(), "spawn", worker, actor, launch.reason, "asked for by /spawn", group=self._group
            )
            # Kept before the intent is committed: a launch must never find a worker without its script.
            self._queue.keep_script(worker, script)
            decided.append(worker)
            return [*changes, said]

        await self._launcher.fleet.change(decide)
        self._launcher.queue_changed(self._queue.name)
        return decided[0]

    async def alive(self, worker: WorkerId) -> None:
        """Its job agent runs: the worker has joined, if it had not."""
        self._check(worker)
        self._queue.mark(worker, "alive")

        def decide(workers: Mapping[WorkerId, Worker]) -> list[Change]:
            known = workers.get(worker)
            if known is None or known.state not in MAY_JOIN:
                return []
            now = self._clock.now()
            joined = moved(known, WorkerState.JOINED, Reason(Cause.JOINED, "its script says that it lives"), now)
            return [UpdateWorker(known.state, joined), event_of(joined, actor=f"worker:{worker}", now=now)]

        await self._launcher.fleet.change(decide)
        self._launcher.queue_changed(self._queue.name)

    async def done(self, worker: WorkerId) -> None:
        """Its job agent has ended: the machine may be returned."""
        await self.alive(worker)
        self._queue.mark(worker, "done")
        self._launcher.queue_changed(self._queue.name)

    def _check(self, worker: WorkerId) -> None:
        known = self._launcher.fleet.workers.get(worker)
        if known is None or known.group != self._group:
            raise NotFound(f"no spawned worker is called {worker}")
