"""What the service may ask of the controller. The service holds no state and takes no decision of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gridtide.model.actions import Plan
from gridtide.model.boots import Boot, BootKey, BootReport, BootTimes
from gridtide.model.demand import Attribute
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.rules import SiteRules, Wishes
from gridtide.model.snapshot import Snapshot
from gridtide.model.workers import Worker, WorkerState
from gridtide.pilot.protocol import Order
from gridtide.queues.protocol import JoinOrders
from gridtide.store.ports import FleetStore


@dataclass(frozen=True, slots=True)
class JoinAnswer:
    """What a worker gets for its join token."""

    worker: Worker
    lease: float
    heartbeat: float
    orders: JoinOrders
    boot: Boot | None = None
    """How long it took to join; None for a request that was repeated."""


@dataclass(frozen=True, slots=True)
class AliveAnswer:
    """Orders to a worker. ``order`` is never CONTINUE for one that is draining."""

    order: Order
    lease: float
    heartbeat: float


@dataclass(frozen=True, slots=True)
class Cycle:
    """The last completed cycle."""

    number: int
    snapshot: Snapshot
    plan: Plan
    seconds: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why something is as it is: what it is now, and how it came to be so (newest last)."""

    subject: str
    now: str
    because: str
    history: Sequence[tuple[float, str]]


WorkerCounts = Mapping[tuple[GroupName, WorkerState], int]
"""How many workers of a group are in a state; what has none may be left out."""


class SiteControl(Protocol):
    """The controller as the service sees it."""

    @property
    def rules(self) -> SiteRules:
        """The rules in force (they change on reload)."""
        ...

    @property
    def store(self) -> FleetStore:
        """For history, events and tokens."""
        ...

    @property
    def workers(self) -> Mapping[WorkerId, Worker]:
        """All that are not GONE, as stored."""
        ...

    @property
    def worker_counts(self) -> WorkerCounts:
        """Of the same."""
        ...

    def oldest_first(self) -> Sequence[Worker]:
        """The same, by when they were made."""
        ...

    @property
    def cycle(self) -> Cycle | None:
        """None before the first cycle has ended."""
        ...

    def wake(self, why: str) -> None:
        """Something happened that may change the plan: look within the batching window."""
        ...

    async def dry_run(self) -> Cycle:
        """What the next cycle would do, from the readings at hand; nothing is changed or called."""
        ...

    @property
    def boot_times(self) -> Mapping[BootKey, BootTimes]:
        """What was learned of how long machines take to join."""
        ...

    async def join(
        self,
        worker: WorkerId,
        join_secret: str,
        worker_secret: str,
        host: Mapping[str, Attribute],
        report: BootReport | None = None,
    ) -> JoinAnswer:
        """See FleetStore.join. AccessDenied or Conflict."""
        ...

    async def context(self, worker: WorkerId, join_secret: str, reader: str) -> bytes:
        """What did not fit into a machine's user-data. AccessDenied for a bad token, and for a second reader."""
        ...

    async def check_worker(self, worker: WorkerId, secret: str) -> None:
        """AccessDenied unless this is the secret of the worker's own token."""
        ...

    def alive(self, worker: WorkerId, *, load: float, running: int, draining: bool) -> AliveAnswer:
        """Note a sign of life."""
        ...

    async def done(self, worker: WorkerId, text: str) -> None:
        """The worker says that it runs nothing and shuts down."""
        ...

    async def set_wishes(self, group: GroupName, wishes: Wishes, *, actor: str) -> None:
        """NotFound for an unknown group; InvalidRequest for figures that contradict each other."""
        ...

    async def drain(self, workers: Sequence[WorkerId], *, force: bool, actor: str) -> None:
        """Operators' order: drain these whatever the load; with ``force`` end them at once, whatever they run."""
        ...

    async def undrain(self, workers: Sequence[WorkerId], *, actor: str) -> None:
        """Take such an order back. Conflict for workers past recall."""
        ...

    async def explain(self, subject: str) -> Explanation:
        """Of a worker id or a group name. NotFound otherwise."""
        ...

    async def console(self, worker: WorkerId, *, most: int) -> bytes:
        """The last ``most`` bytes of what its machine printed, after its end too as long as they are kept. NotFound."""
        ...

    async def close_site(self, *, actor: str) -> None:
        """Launch nothing more and drain every worker of every group (``gridtide down``)."""
        ...

    async def reload(self) -> str:
        """Read the site file again; returns what changed in a line. SiteFileError leaves everything as it was."""
        ...
