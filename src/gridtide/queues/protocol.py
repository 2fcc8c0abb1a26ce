"""What Gridtide asks of a queue: six methods.

A driver answers completely or raises :class:`~gridtide.errors.QueueError`; a partial answer is an error. It is called
by the controller (through deadlines and backoff that are not the driver's business) and by the join route. It knows
neither the controller nor a cloud.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from gridtide.clouds.protocol import Finding
from gridtide.errors import QueueError
from gridtide.model.demand import Attribute, Demand, Nodes, Offer
from gridtide.model.ids import QueueName, WorkerId
from gridtide.model.reasons import Reason
from gridtide.model.workers import Worker


@dataclass(frozen=True, slots=True)
class OrderedFile:
    """A file that the agent writes before it starts anything. Its content may be a secret of this one worker."""

    path: str
    """Absolute, in the machine."""
    content: str = field(repr=False)
    mode: int = 0o600
    owner: str = "root"
    """User and group of that name in the machine."""


@dataclass(frozen=True, slots=True)
class OrderedService:
    """A program that stays in the foreground; the agent starts it, and starts it again when it ends by itself."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Batch:
    """How a machine becomes a node of a batch system that hands out its jobs itself. The agent does it as root.

    The agent writes the files, runs ``prepare`` in order, keeps ``services`` running, and does nothing else for the
    batch system as long as the service answers: draining is the queue's business. When the lease is over it runs
    ``drain``; the machine then goes when no process is ``busy``.
    """

    files: tuple[OrderedFile, ...] = ()
    prepare: tuple[tuple[str, ...], ...] = ()
    """Commands that end by themselves; one that fails is tried again, and the services wait for it."""
    services: tuple[OrderedService, ...] = ()
    busy: tuple[str, ...] = ()
    """Names of processes (``/proc/PID/comm``) each of which stands for a running job."""
    drain: tuple[str, ...] = ()
    """Command that makes the node refuse new jobs, without any word from outside. Empty: there is none."""
    resume: tuple[str, ...] = ()
    """Command that takes it back, when the service answers again before the machine was empty."""


@dataclass(frozen=True, slots=True)
class JoinOrders:
    """What a machine is told when it trades its join token, so that it becomes a node of the queue.

    ``kind`` names the way ("pilot": the agent pulls jobs itself; "batch": it follows ``batch``). ``settings`` are for
    the agent's part of it. ``secrets`` and the files of ``batch`` may hold credentials of this one worker; they travel
    in the answer to the join and are kept nowhere but in that machine.
    """

    kind: str
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    secrets: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    batch: Batch | None = None


Outcome = QueueError | None
"""Of one worker in a bulk order: None when the queue took it."""


@runtime_checkable
class Queue(Protocol):
    """A batch system or task queue."""

    name: QueueName

    async def demand(self, offers: Sequence[Offer]) -> Demand:
        """All waiting jobs, counted by shape, each row with the offers that could run it (maybe none)."""
        ...

    async def nodes(self) -> Nodes:
        """All nodes, ours and others.

        What is said of a node is no older than the last order for it that was taken before this was called, however
        long the node itself has been silent. DRAINED is evidence: a drain that was taken back and given again must not
        be answered with what the node said after the first one, since it may have begun a job in between.
        """
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


@runtime_checkable
class HasClose(Protocol):
    """A queue that holds a process or a connection."""

    async def close(self) -> None:
        """Let it go. Nothing in the batch system changes."""
        ...


@runtime_checkable
class HasCheck(Protocol):
    """A queue that can say more than whether it answers."""

    async def check(self) -> Sequence[Finding]:
        """Look at the batch system's configuration without changing anything. Never raises."""
        ...
