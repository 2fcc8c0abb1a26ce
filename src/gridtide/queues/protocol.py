"""What Gridtide asks of a queue: six methods.

A driver answers completely or raises :class:`~gridtide.errors.QueueError`; a partial answer is an error. It is called
by the controller (through deadlines and backoff that are not the driver's business) and by the join route. It knows
neither the controller nor a cloud.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from gridtide.errors import QueueError
from gridtide.model.demand import Attribute, Demand, Nodes, Offer
from gridtide.model.ids import QueueName, WorkerId
from gridtide.model.reasons import Reason
from gridtide.model.workers import Worker


@dataclass(frozen=True, slots=True)
class JoinOrders:
    """What a machine is told when it trades its join token, so that it becomes a node of the queue.

    ``kind`` names the way ("pilot": the agent pulls jobs itself). ``settings`` are for the agent's part of it.
    ``secrets`` hold credentials of this one worker; they travel in the answer to the join and are kept nowhere.
    """

    kind: str
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    secrets: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)


Outcome = QueueError | None
"""Of one worker in a bulk order: None when the queue took it."""


class Queue(Protocol):
    """A batch system or task queue."""

    name: QueueName

    async def demand(self, offers: Sequence[Offer]) -> Demand:
        """All waiting jobs, counted by shape, each row with the offers that could run it (maybe none)."""
        ...

    async def nodes(self) -> Nodes:
        """All nodes, ours and others."""
        ...

    async def drain(self, workers: Mapping[WorkerId, Reason]) -> Mapping[WorkerId, Outcome]:
        """Give these no new job; let what runs run to its end. Repeating it is harmless."""
        ...

    async def undrain(self, workers: Sequence[WorkerId]) -> Mapping[WorkerId, Outcome]:
        """Take the drain back. An outcome of None means that the node may be given jobs again."""
        ...

    async def join(self, worker: Worker, host: Mapping[str, Attribute]) -> JoinOrders:
        """Admit a worker whose machine describes itself as ``host``. Repeating it gives equivalent orders."""
        ...

    async def forget(self, workers: Sequence[WorkerId]) -> None:
        """The machines of these are gone: remove what the queue still holds of them. Repeating it is harmless."""
        ...
