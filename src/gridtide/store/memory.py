"""The store in memory: the SQL store's twin, for users' tests and for the simulator.

It passes the same tests. Nothing outlives the process.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gridtide.errors import AccessDenied, Conflict, NotFound
from gridtide.model.boots import Boot
from gridtide.model.costs import Stay, stay_of
from gridtide.model.demand import Attribute
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.rules import Wishes
from gridtide.model.workers import Worker, WorkerState
from gridtide.store.ports import (
    AccessToken,
    Change,
    Event,
    Join,
    JoinToken,
    Lease,
    Owner,
    RecordedEvent,
    Traded,
    no_check,
)
from gridtide.store.rules import NO_WISHES, Applicant, admit, attributes, fence, fold, grant, trade


class MemoryFleetStore:
    """Implements :class:`~gridtide.store.ports.FleetStore` with dicts.

    No method ever waits, so each is atomic on its event loop. Several controllers may share one instance.
    """

    def __init__(self) -> None:
        self._epoch = 0
        self._lease: Lease | None = None
        self._alive: dict[WorkerId, Worker] = {}
        self._dead: dict[WorkerId, Worker] = {}
        self._join_tokens: dict[WorkerId, JoinToken] = {}
        self._boots: dict[WorkerId, Boot] = {}
        self._readers: dict[WorkerId, bytes] = {}
        self._worker_digests: dict[WorkerId, bytes] = {}
        self._hosts: dict[WorkerId, Mapping[str, Attribute]] = {}
        self._wishes: dict[GroupName, Wishes] = {}
        self._events: list[Event] = []
        self._tokens: dict[str, AccessToken] = {}

    async def take_lease(
        self, owner: Owner, *, now: float, seconds: float, owner_lives: bool | None, seen: Lease | None = None
    ) -> Lease:
        """See FleetStore."""
        lease = grant(self._lease, self._epoch, owner, now=now, seconds=seconds, owner_lives=owner_lives, seen=seen)
        self._lease = lease
        self._epoch = lease.epoch
        return lease

    async def current_lease(self) -> Lease | None:
        """See FleetStore."""
        return self._lease

    async def renew_lease(self, lease: Lease, *, now: float, seconds: float) -> Lease:
        """See FleetStore."""
        fence(self._lease, lease)
        self._lease = replace(lease, expires=now + seconds)
        return self._lease

    async def release_lease(self, lease: Lease) -> None:
        """See FleetStore."""
        if self._lease is not None and self._lease.epoch == lease.epoch:
            self._lease = None

    async def commit(self, lease: Lease, changes: Sequence[Change], check: Callable[[], None] = no_check) -> None:
        """See FleetStore."""
        fence(self._lease, lease)
        effects = fold(changes, self._state)
        check()
        # Nothing below can fail: all of it happens, or none.
        self._put(effects.added)
        self._put(effects.updated)
        self._join_tokens.update(effects.join_tokens)
        for group, wishes in effects.wishes.items():
            if wishes == NO_WISHES:
                self._wishes.pop(group, None)
            else:
                self._wishes[group] = wishes
        self._events.extend(effects.events)

    async def workers(self) -> Sequence[Worker]:
        """See FleetStore. In the order of their creation."""
        return sorted(self._alive.values(), key=lambda worker: (worker.created, worker.id))

    async def worker(self, worker: WorkerId) -> Worker | None:
        """See FleetStore."""
        return self._alive.get(worker) or self._dead.get(worker)

    async def past_workers(self, *, group: GroupName | None, limit: int) -> Sequence[Worker]:
        """See FleetStore."""
        candidates = (worker for worker in self._dead.values() if group is None or worker.group == group)
        return heapq.nlargest(limit, candidates, key=lambda worker: (worker.since, worker.id))

    async def stays(self, *, since: float) -> Sequence[Stay]:
        """See FleetStore. In the order of their ends."""
        lately = [worker for worker in self._dead.values() if worker.since >= since and worker.shape.price]
        lately.sort(key=lambda worker: (worker.since, worker.id))
        return [stay for worker in lately if (stay := stay_of(worker)) is not None]

    async def wishes(self) -> Mapping[GroupName, Wishes]:
        """See FleetStore."""
        return dict(self._wishes)

    async def join(self, lease: Lease, joins: Sequence[Join]) -> Sequence[Traded | AccessDenied | Conflict]:
        """See FleetStore."""
        fence(self._lease, lease)
        stored = {each.worker: self._applicant(each.worker) for each in joins}
        trades = trade(joins, stored)
        for name, (join, after) in trades.made.items():
            self._put({name: after})
            self._worker_digests[name] = join.worker_digest
            self._hosts[name] = attributes(join.host)
            if join.boot is not None:
                self._boots[name] = join.boot
        self._events += trades.events
        return trades.outcomes

    def _applicant(self, name: WorkerId) -> Applicant:
        worker = self._alive.get(name) or self._dead.get(name)
        return Applicant(worker, self._join_tokens.get(name), self._worker_digests.get(name))

    async def read_context(
        self, lease: Lease, worker: WorkerId, *, join_digest: bytes, reader_digest: bytes, now: float
    ) -> Worker:
        """See FleetStore."""
        fence(self._lease, lease)
        admitted = admit(
            await self.worker(worker),
            self._join_tokens.get(worker),
            self._readers.get(worker),
            worker in self._worker_digests,
            join_digest=join_digest,
            reader_digest=reader_digest,
            now=now,
        )
        self._readers[worker] = reader_digest
        return admitted

    async def boots(self, *, limit: int) -> Sequence[Boot]:
        """See FleetStore."""
        return sorted(self._boots.values(), key=lambda boot: (boot.joined, boot.worker))[-limit:]

    async def boot(self, worker: WorkerId) -> Boot | None:
        """See FleetStore."""
        return self._boots.get(worker)

    async def worker_token(self, worker: WorkerId) -> bytes | None:
        """See FleetStore."""
        return self._worker_digests.get(worker) if worker in self._alive else None

    async def host(self, worker: WorkerId) -> Mapping[str, Attribute] | None:
        """See FleetStore."""
        return self._hosts.get(worker)

    async def events(
        self,
        *,
        after: int = 0,
        subject: str | None = None,
        kind: str | None = None,
        limit: int = 200,
        newest: bool = False,
    ) -> Sequence[RecordedEvent]:
        """See FleetStore."""
        first = max(after, 0)
        numbers = range(len(self._events), first, -1) if newest else range(first + 1, len(self._events) + 1)
        found: list[RecordedEvent] = []
        for number in numbers:
            if len(found) >= limit:
                break
            event = self._events[number - 1]
            if (subject is None or event.subject == subject) and (kind is None or event.kind == kind):
                found.append(RecordedEvent(number, event))
        return found[::-1] if newest else found

    async def add_token(self, token: AccessToken) -> None:
        """See FleetStore."""
        if token.id in self._tokens:
            raise Conflict(f"a token named {token.id} exists already")
        self._tokens[token.id] = token

    async def token(self, token_id: str) -> AccessToken | None:
        """See FleetStore."""
        return self._tokens.get(token_id)

    async def tokens(self) -> Sequence[AccessToken]:
        """See FleetStore."""
        return sorted(self._tokens.values(), key=lambda token: (token.created, token.id), reverse=True)

    async def revoke_token(self, token_id: str) -> None:
        """See FleetStore."""
        if token_id not in self._tokens:
            raise NotFound(f"there is no token {token_id}")
        self._tokens[token_id] = replace(self._tokens[token_id], revoked=True)

    async def close(self) -> None:
        """Keep everything, so that a controller's restart on the same store can be tried."""

    def _state(self, worker: WorkerId) -> WorkerState | None:
        present = self._alive.get(worker) or self._dead.get(worker)
        return None if present is None else present.state

    def _put(self, records: Mapping[WorkerId, Worker]) -> None:
        for name, worker in records.items():
            if worker.state is WorkerState.GONE:
                self._alive.pop(name, None)
                self._dead[name] = worker
            else:
                self._alive[name] = worker
