"""What the controller and the service ask of a store. SQL and in-memory versions pass the same tests.

Every change that the controller makes goes through :meth:`FleetStore.commit`: one transaction, refused as a whole when
another controller leads (LeaseLost) or when a worker is not in the state that the change was decided on (Conflict).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from gridtide.errors import AccessDenied, Conflict
from gridtide.model.boots import Boot
from gridtide.model.costs import Stay
from gridtide.model.demand import Attribute
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.reasons import Reason
from gridtide.model.rules import Wishes
from gridtide.model.workers import Worker, WorkerState

Json = str | int | float | bool | None | Mapping[str, "Json"] | Sequence["Json"]


@dataclass(frozen=True, slots=True)
class Owner:
    """Who leads, or wants to: enough to tell on the same host whether the process still lives."""

    host: str
    boot: str
    """The kernel's boot id, so that a process number of before a reboot is not believed."""
    process: int
    started: int
    """The process's start time in clock ticks since boot, so that a reused number is not believed."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to act. ``epoch`` grows with every new leader and fences off the ones before."""

    owner: Owner
    epoch: int
    expires: float


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A single-use right to join, at rest."""

    digest: bytes
    """SHA-256 of the secret."""
    expires: float


@dataclass(frozen=True, slots=True)
class AddWorker:
    """Record an intent (state INTENDED)."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class UpdateWorker:
    """Replace a worker's record.

    Refused with Conflict when the stored state is not ``before`` or the step is not in
    :data:`gridtide.model.workers.TRANSITIONS` (staying in a state is always legal). Leaving the states in which a
    worker may join revokes its join token in the same transaction.
    """

    before: WorkerState
    worker: Worker
    join_token: JoinToken | None = None
    """Set (replacing any before) on the way from INTENDED to LAUNCHING."""


@dataclass(frozen=True, slots=True)
class SetWishes:
    """What operators want of a group from now on."""

    group: GroupName
    wishes: Wishes


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the audit log. Never holds a secret."""

    at: float
    kind: str
    """``worker``, ``launch``, ``drain``, ``wishes``, ``token``, ``site``, ``source`` ..."""
    subject: str
    """A worker id, group, queue, cloud or user."""
    actor: str
    """``controller``, ``worker:<id>`` or ``user:<name>``."""
    reason: Reason | None
    text: str
    evidence: Mapping[str, Json] = field(default_factory=lambda: MappingProxyType({}))
    """The readings behind it: source -> quality, age, figures."""
    group: GroupName | None = None


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event with its number; numbers grow."""

    number: int
    event: Event


Change = AddWorker | UpdateWorker | SetWishes | Event


@dataclass(frozen=True, slots=True)
class Join:
    """A machine trades its join token for a worker token of its own making."""

    worker: WorkerId
    join_digest: bytes
    worker_digest: bytes
    now: float
    host: Mapping[str, Attribute]
    reason: Reason
    boot: Boot | None = None
    """Kept if it joins by this."""
    event: Event | None = None
    """The same."""


@dataclass(frozen=True, slots=True)
class Traded:
    """A machine that may call itself a worker."""

    worker: Worker
    now: bool
    """Whether it has joined by this; else the same pair of tokens was traded before."""


class Role(StrEnum):
    """Who may do what; docs/reference/roles.md has the table."""

    ADMIN = "admin"
    OPERATOR = "operator"
    SUBMITTER = "submitter"
    VIEWER = "viewer"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A user's token at rest."""

    id: str
    user: str
    role: Role
    digest: bytes
    created: float
    expires: float | None
    revoked: bool = False


def no_check() -> None:
    """Whatever was decided holds until it is committed."""


class FleetStore(Protocol):
    """Workers, lease, wishes, events and tokens."""

    async def take_lease(
        self, owner: Owner, *, now: float, seconds: float, owner_lives: bool | None, seen: Lease | None = None
    ) -> Lease:
        """Become the leader, or Conflict naming who leads and until when.

        Granted when nobody leads, when the lease has expired, when it is already this owner's, or when
        ``owner_lives`` is False: the caller has looked (see :meth:`current_lease`) and the present owner's process
        is dead on this same host. Every grant to a new owner raises the epoch. ``seen`` is the lease whose owner the
        caller looked at: when another one is stored by now, ``owner_lives`` says nothing about its owner.
        """
        ...

    async def current_lease(self) -> Lease | None:
        """The lease as stored, expired or not."""
        ...

    async def renew_lease(self, lease: Lease, *, now: float, seconds: float) -> Lease:
        """The same epoch, expiring later. LeaseLost when another epoch is stored."""
        ...

    async def release_lease(self, lease: Lease) -> None:
        """Let the next one lead at once. Harmless when it is not ours any more."""
        ...

    async def commit(self, lease: Lease, changes: Sequence[Change], check: Callable[[], None] = no_check) -> None:
        """All changes or none. LeaseLost when the stored epoch is not the lease's; Conflict as UpdateWorker says.

        ``check`` is called last of all, perhaps on another thread and more than once; what it raises undoes everything.
        """
        ...

    async def workers(self) -> Sequence[Worker]:
        """All workers that are not GONE."""
        ...

    async def worker(self, worker: WorkerId) -> Worker | None:
        """One of any state."""
        ...

    async def past_workers(self, *, group: GroupName | None, limit: int) -> Sequence[Worker]:
        """GONE ones, latest first."""
        ...

    async def stays(self, *, since: float) -> Sequence[Stay]:
        """Of the workers that are GONE since then, what their machines cost. Those without a price are left out."""
        ...

    async def wishes(self) -> Mapping[GroupName, Wishes]:
        """Groups without any are left out."""
        ...

    async def join(self, lease: Lease, joins: Sequence[Join]) -> Sequence[Traded | AccessDenied | Conflict]:
        """Trade join tokens for worker tokens, and move the workers to JOINED, in one transaction; the outcome of each.

        The machine makes its worker token itself, so that a lost answer can be asked for again: the same pair of
        tokens gives the same worker; any other use of a spent token is AccessDenied, as are an unknown or expired
        token and a wrong digest (compared in constant time, and told apart in no way). Conflict when the worker is
        not in :data:`~gridtide.model.workers.MAY_JOIN` any more. One that is refused does not concern the others.
        """
        ...

    async def read_context(
        self, lease: Lease, worker: WorkerId, *, join_digest: bytes, reader_digest: bytes, now: float
    ) -> Worker:
        """Admit the reader of what did not fit into a worker's user-data: the first one, as often as it asks.

        AccessDenied, told apart in no way, for a token that is unknown, expired or spent (the machine has joined), and
        for any other reader: somebody else holds the token then.
        """
        ...

    async def boots(self, *, limit: int) -> Sequence[Boot]:
        """The latest ``limit`` of all, oldest first."""
        ...

    async def boot(self, worker: WorkerId) -> Boot | None:
        """How long this worker took to join; None when it has not, or nothing was noted."""
        ...

    async def worker_token(self, worker: WorkerId) -> bytes | None:
        """Digest of its worker token; None when it has not joined or is GONE."""
        ...

    async def host(self, worker: WorkerId) -> Mapping[str, Attribute] | None:
        """How its machine described itself when it joined."""
        ...

    async def events(
        self,
        *,
        after: int = 0,
        subject: str | None = None,
        kind: str | None = None,
        limit: int = 200,
        newest: bool = False,
    ) -> Sequence[RecordedEvent]:
        """Oldest first from number ``after``; with ``newest`` the last ``limit`` ones, still oldest first."""
        ...

    async def add_token(self, token: AccessToken) -> None:
        """Conflict when the id exists."""
        ...

    async def token(self, token_id: str) -> AccessToken | None:
        """By id, revoked or not."""
        ...

    async def tokens(self) -> Sequence[AccessToken]:
        """All, newest first."""
        ...

    async def revoke_token(self, token_id: str) -> None:
        """NotFound when there is none."""
        ...

    async def close(self) -> None:
        """Finish and release."""
        ...
