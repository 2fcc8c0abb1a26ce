"""The in-memory store and SQLite answer alike, step by step, whatever is asked of them."""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from gridtide.errors import GridtideError
from gridtide.model.boots import Boot, BootKey, Phase
from gridtide.model.ids import CloudName, GroupName, MachineId, ShapeName, WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import Wishes
from gridtide.model.workers import WorkerState
from gridtide.store.database import Database, make_engine
from gridtide.store.memory import MemoryFleetStore
from gridtide.store.migrate import migrate
from gridtide.store.ports import (
    AccessToken,
    AddWorker,
    Change,
    Event,
    FleetStore,
    Join,
    JoinToken,
    Lease,
    Owner,
    Role,
    SetWishes,
    UpdateWorker,
)
from gridtide.store.sql import SqlFleetStore
from tests.unit.store.values import NOW, S, digest, join_one, worker

names = st.sampled_from(["grid-a", "grid-b", "other-c"])
groups = st.sampled_from(["grid", "other"])
owners = st.integers(1, 3).map(lambda number: Owner("host", "boot", number, number))
digests = st.sampled_from([digest("one"), digest("two")])
words = st.text(max_size=8)
reasons = st.builds(Reason, st.sampled_from(Cause), words)
figures = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | words
evidence = st.dictionaries(words, figures | st.lists(figures, max_size=2) | st.dictionaries(words, figures, max_size=2))
limits = st.none() | st.integers(0, 5)
wishes = st.builds(Wishes, limits, limits, limits, st.booleans(), st.booleans())


@cache
def _migrated() -> Path:
    directory = tempfile.mkdtemp(prefix="gridtide-twins-")
    atexit.register(shutil.rmtree, directory)
    file = Path(directory) / "store.db"
    engine = make_engine(f"sqlite:///{file}")
    migrate(engine)
    engine.dispose()
    return file


async def _outcome(call: Awaitable[object]) -> object:
    try:
        answer = await call
    except GridtideError as error:
        return type(error), str(error)
    return list(answer) if isinstance(answer, tuple) else answer


async def _picture(store: FleetStore) -> list[object]:
    every = [WorkerId("grid-a"), WorkerId("grid-b"), WorkerId("other-c")]
    return [
        await store.current_lease(),
        list(await store.workers()),
        list(await store.past_workers(group=None, limit=10)),
        list(await store.past_workers(group=GroupName("grid"), limit=1)),
        dict(await store.wishes()),
        list(await store.events(newest=True, limit=5)),
        list(await store.events(subject="grid-a", limit=3)),
        list(await store.tokens()),
        list(await store.boots(limit=2)),
        [await store.boot(name) for name in every],
        [(await store.worker(name), await store.worker_token(name), await store.host(name)) for name in every],
    ]


class Twins(RuleBasedStateMachine):
    """Both stores, and the leases that were ever given."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="gridtide-twins-")
        self.runner = asyncio.Runner()
        self.memory = MemoryFleetStore()
        self.sql = SqlFleetStore(Database(f"sqlite:///{shutil.copy(_migrated(), self.directory)}"))
        self.now = NOW
        self.leases: list[Lease] = []

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.sql.close())
            self.runner.close()
            shutil.rmtree(self.directory)

    def both(self, ask: Callable[[FleetStore], Awaitable[object]]) -> object:
        async def compare() -> object:
            answers = [await _outcome(ask(store)) for store in (self.memory, self.sql)]
            assert answers[0] == answers[1]
            assert await _picture(self.memory) == await _picture(self.sql)
            return answers[0]

        return self.runner.run(compare())

    @rule(seconds=st.floats(0, 50))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(owner=owners, owner_lives=st.sampled_from([None, True, False]), seen=st.booleans())
    def take_lease(self, owner: Owner, owner_lives: bool | None, seen: bool) -> None:
        looked = self.leases[-1] if seen and self.leases else None
        answer = self.both(
            lambda store: store.take_lease(owner, now=self.now, seconds=60.0, owner_lives=owner_lives, seen=looked)
        )
        if isinstance(answer, Lease):
            self.leases.append(answer)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def renew_lease(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        self.both(lambda store: store.renew_lease(lease, now=self.now, seconds=60.0))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release_lease(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        self.both(lambda store: store.release_lease(lease))

    def change(self, data: st.DataObject) -> Change:
        """Mostly one that may be made."""
        kind = data.draw(st.sampled_from(["add", "update", "update", "update", "wishes", "event"]))
        name = WorkerId(data.draw(names))
        if kind == "add":
            return AddWorker(worker(name, data.draw(groups), created=self.now))
        if kind == "wishes":
            return SetWishes(GroupName(data.draw(groups)), data.draw(wishes))
        if kind == "event":
            reason, group = data.draw(st.none() | reasons), data.draw(st.none() | groups.map(GroupName))
            return Event(self.now, data.draw(words), name, "user:eve", reason, "x", data.draw(evidence), group)
        present = self.runner.run(self.memory.worker(name)) or worker(name)
        before = data.draw(st.sampled_from([present.state] * 9 + [S.BOOTING]))
        after = data.draw(st.sampled_from(WorkerState))
        token = data.draw(st.none() | st.builds(JoinToken, digests, st.floats(self.now, self.now + 100)))
        new = replace(present, state=after, since=self.now, reason=data.draw(reasons), machine=MachineId("i-1"))
        return UpdateWorker(before, new, token)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), count=st.integers(0, 4), stale=st.booleans())
    def commit(self, data: st.DataObject, count: int, stale: bool) -> None:
        lease = data.draw(st.sampled_from(self.leases)) if stale else self.leases[-1]
        changes = [self.change(data) for _ in range(count)]
        self.both(lambda store: store.commit(lease, changes))

    @precondition(lambda self: self.leases)
    @rule(name=names, data=st.data())
    def bring_up(self, name: str, data: st.DataObject) -> None:
        """Straight to where a worker may join: chance alone comes there too seldom."""
        present = self.runner.run(self.memory.worker(WorkerId(name)))
        start = worker(name, created=self.now)
        token = JoinToken(data.draw(digests), self.now + 60)
        launching = replace(start, state=S.LAUNCHING, launched=self.now)
        changes: list[Change] = [UpdateWorker(S.INTENDED, launching, token)]
        if present is None:
            changes.insert(0, AddWorker(start))
        self.both(lambda store: store.commit(self.leases[-1], changes))

    @precondition(lambda self: self.leases)
    @rule(
        name=names,
        mine=digests,
        token=digests,
        host=st.dictionaries(words, words | st.floats() | st.booleans()),
        image=st.none() | words,
        phases=st.none() | st.dictionaries(st.sampled_from(Phase), st.floats(0, 1e6)),
    )
    def join(
        self,
        name: str,
        mine: bytes,
        token: bytes,
        host: dict[str, str | float | bool],
        image: str | None,
        phases: dict[Phase, float] | None,
    ) -> None:
        key = BootKey(CloudName("private"), ShapeName("small"), image)
        took = sum((phases or {}).values())
        boot = None if phases is None else Boot(WorkerId(name), key, self.now, took, phases)
        self.both(
            lambda store: join_one(
                store,
                self.leases[-1],
                Join(WorkerId(name), token, mine, self.now, host, Reason(Cause.JOINED, "traded"), boot),
            )
        )

    @rule(number=st.integers(1, 3), role=st.sampled_from(Role), expires=st.none() | st.floats(NOW, NOW + 9))
    def add_token(self, number: int, role: Role, expires: float | None) -> None:
        token = AccessToken(f"t{number}", "eve", role, digest("x"), self.now, expires)
        self.both(lambda store: store.add_token(token))

    @rule(number=st.integers(1, 3))
    def revoke_token(self, number: int) -> None:
        self.both(lambda store: store.revoke_token(f"t{number}"))


TestTwins = Twins.TestCase
TestTwins.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
