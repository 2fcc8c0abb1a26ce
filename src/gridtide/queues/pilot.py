"""The built-in task queue as a queue: a thin adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gridtide.errors import GridtideError, QueueError
from gridtide.model.demand import Attribute, Demand, Nodes, Offer
from gridtide.model.ids import QueueName, WorkerId
from gridtide.model.reasons import Reason
from gridtide.model.workers import Worker
from gridtide.pilot.protocol import Pilot
from gridtide.queues.protocol import JoinOrders, Outcome


class PilotQueueDriver:
    """Implements :class:`~gridtide.queues.protocol.Queue`. Agents pull their jobs; a join needs no further secret."""

    def __init__(self, name: QueueName, pilot: Pilot) -> None:
        self.name = name
        self._pilot = pilot

    async def demand(self, offers: Sequence[Offer]) -> Demand:
        """Waiting jobs, counted by shape."""
        try:
            return await self._pilot.demand(offers)
        except GridtideError as error:
            raise self._failed(error) from error

    async def nodes(self) -> Nodes:
        """All admitted workers."""
        try:
            return await self._pilot.nodes()
        except GridtideError as error:
            raise self._failed(error) from error

    async def drain(self, workers: Mapping[WorkerId, Reason]) -> Mapping[WorkerId, Outcome]:
        """No new job from now on."""
        return await self._set_draining(tuple(workers), True, "it was never admitted, or its machine is gone")

    async def undrain(self, workers: Sequence[WorkerId]) -> Mapping[WorkerId, Outcome]:
        """Take the drain back, except from those that were told to stop or drain of their own will."""
        return await self._set_draining(workers, False, "it was told to stop, or drains by itself, or is not known")

    async def _set_draining(
        self, workers: Sequence[WorkerId], draining: bool, why_not: str
    ) -> Mapping[WorkerId, Outcome]:
        try:
            taken = frozenset(await self._pilot.set_draining(workers, draining))
        except GridtideError as error:
            raise self._failed(error) from error
        word = "drain" if draining else "undrain"
        return {
            worker: None
            if worker in taken
            else QueueError(f"cannot {word} worker {worker}: {why_not}", where=f"queue {self.name}")
            for worker in workers
        }

    async def join(self, worker: Worker, host: Mapping[str, Attribute]) -> JoinOrders:
        """Admit the worker; its agent then asks for jobs with its worker token."""
        try:
            await self._pilot.admit(worker.id, worker.group, host, single_use=worker.single_use)
        except GridtideError as error:
            raise self._failed(error) from error
        return JoinOrders(kind="pilot")

    async def forget(self, workers: Sequence[WorkerId]) -> None:
        """Their machines are gone: what they ran waits again."""
        try:
            await self._pilot.remove(workers)
        except GridtideError as error:
            raise self._failed(error) from error

    def _failed(self, error: GridtideError) -> QueueError:
        return QueueError(error.what, where=f"queue {self.name}", remedy=error.remedy)
