"""Who is let in, when many stand at the door."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pytest

from gridtide.control.fleet import Fleet, Joined, moved
from gridtide.control.lease import LeaseKeeper
from gridtide.errors import AccessDenied, Conflict, GridtideError, StoreError, StoreUnavailable
from gridtide.model.ids import WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import Wishes
from gridtide.model.workers import Worker, WorkerState
from gridtide.store.memory import MemoryFleetStore
from gridtide.store.ports import Change, Join, Lease, Owner, SetWishes, Traded, UpdateWorker, no_check
from tests.unit.store.values import NOW, S, digest, event, way_to, worker


class HandClock:
    """Stands still."""

    def now(self) -> float:
        return NOW


class SlowStore(MemoryFleetStore):
    """Whose joins and commits wait until they may; joins may fail then."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.go.set()
        self.batches: list[list[str]] = []
        self.refuses: dict[str, GridtideError] = {}
        self.reads_fail = 0
        self.silent = False
        """What it is given is recorded, and nobody is told."""
        self.commits = 0
        self.record = asyncio.Event()
        self.record.set()
        self.begun = asyncio.Event()

    async def commit(self, lease: Lease, changes: Sequence[Change], check: Callable[[], None] = no_check) -> None:
        self.commits += 1
        self.begun.set()
        await self.record.wait()
        await super().commit(lease, changes, check)
        self._answer()

    async def join(self, lease: Lease, joins: Sequence[Join]) -> Sequence[Traded | AccessDenied | Conflict]:
        self.batches.append([each.worker for each in joins])
        self.begun.set()
        await self.go.wait()
        for each in joins:
            if each.worker in self.refuses:
                raise self.refuses[each.worker]
        outcomes = await super().join(lease, joins)
        self._answer()
        return outcomes

    async def workers(self) -> Sequence[Worker]:
        if self.reads_fail:
            self.reads_fail -= 1
            raise StoreUnavailable("it cannot be read")
        return await super().workers()

    @property
    def lease(self) -> Lease:
        assert self._lease is not None
        return self._lease

    def _answer(self) -> None:
        if self.silent:
            raise StoreUnavailable("the connection was lost")


NAMES = [f"grid-{number:03}" for number in range(300)]


async def booted(*names: str, state: WorkerState = S.BOOTING) -> tuple[Fleet, SlowStore]:
    """Workers whose machines are about to join."""
    store = SlowStore()
    keeper = LeaseKeeper(store, Owner("host", "boot", 1, 1), lambda _: None, clock=HandClock(), seconds=10.0)
    lease = await keeper.take(lambda _: None)
    for name in names:
        await store.commit(lease, way_to(state, worker(name)))
    fleet = Fleet(store, keeper)
    await fleet.load(NOW)
    store.commits = 0
    store.begun.clear()
    return fleet, store


async def join(fleet: Fleet, name: str, key: str = "join") -> Joined:
    return await fleet.join(
        WorkerId(name), join_digest=digest(key), worker_digest=digest("mine"), now=NOW + 10, host={}, report=None
    )


async def test_those_who_wait_are_let_in_together() -> None:
    fleet, store = await booted(*NAMES)
    store.go.clear()
    asked = [asyncio.ensure_future(join(fleet, name)) for name in NAMES]
    await asyncio.sleep(0)
    store.go.set()
    joined = await asyncio.gather(*asked)
    assert [each.worker.id for each in joined] == NAMES
    assert [len(batch) for batch in store.batches] == [256, 44]
    assert len(fleet.in_state(WorkerState.JOINED)) == 300
    told = [each.event for each in await store.events(limit=1000) if each.event.text.startswith("joined")]
    assert [each.subject for each in told] == NAMES
    assert {each.actor for each in told} == {f"worker:{name}" for name in NAMES}


async def test_each_gets_its_own_answer() -> None:
    fleet, store = await booted("grid-a", "grid-b")
    store.go.clear()
    wishes = [("grid-a", "join"), ("grid-b", "wrong"), ("grid-a", "join"), ("grid-x", "join"), ("grid-b", "join")]
    asked = [asyncio.ensure_future(join(fleet, *wish)) for wish in wishes]
    await asyncio.sleep(0)
    store.go.set()
    first, denied, again, unknown, late = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(first, Joined)
    assert isinstance(again, Joined)
    assert isinstance(late, Joined)
    assert (first.boot is not None, again.boot, late.boot is not None) == (True, None, True)
    assert isinstance(denied, AccessDenied)
    assert isinstance(unknown, AccessDenied)


async def test_what_the_store_refuses_of_one_does_not_concern_the_others() -> None:
    fleet, store = await booted(*NAMES[:5])
    store.refuses = {NAMES[3]: StoreError("too large")}
    store.go.clear()
    asked = [asyncio.ensure_future(join(fleet, name)) for name in NAMES[:5]]
    await asyncio.sleep(0)
    store.go.set()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(outcome, Joined) for outcome in outcomes] == [True, True, True, False, True]
    assert isinstance(outcomes[3], StoreError)


async def test_a_store_that_is_down_is_asked_once_for_all_of_them() -> None:
    fleet, store = await booted(*NAMES[:5])
    store.refuses = dict.fromkeys(NAMES, StoreUnavailable("it is down"))
    store.go.clear()
    asked = [asyncio.ensure_future(join(fleet, name)) for name in NAMES[:5]]
    await asyncio.sleep(0)
    store.go.set()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
    assert store.batches == [NAMES[:5]]
    asked = [asyncio.ensure_future(join(fleet, name)) for name in NAMES[:5]]
    store.reads_fail = 1
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["it cannot be read"] * 5
    store.refuses = {}
    assert (await join(fleet, NAMES[0])).worker.state is WorkerState.JOINED


async def test_one_that_goes_away_holds_up_nobody() -> None:
    fleet, store = await booted(*NAMES[:4])
    store.go.clear()
    first = asyncio.ensure_future(join(fleet, NAMES[0]))
    await store.begun.wait()
    asked = [first, *(asyncio.ensure_future(join(fleet, name)) for name in NAMES[1:4])]
    await asyncio.sleep(0)
    asked[0].cancel()  # it is being let in
    asked[2].cancel()  # it waits
    await asyncio.sleep(0)
    store.go.set()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(outcome, Joined) for outcome in outcomes] == [False, True, False, True]
    assert store.batches == [NAMES[:1], [NAMES[1], NAMES[3]]]
    assert [fleet.workers[WorkerId(name)].state for name in NAMES[:3]] == [S.JOINED, S.JOINED, S.BOOTING]
    assert (await join(fleet, NAMES[2])).worker.state is WorkerState.JOINED


async def test_a_change_waits_for_those_who_are_being_let_in_and_not_for_the_whole_row() -> None:
    fleet, store = await booted(*NAMES)
    store.go.clear()
    asked = [asyncio.ensure_future(join(fleet, name)) for name in NAMES]
    await asyncio.sleep(0)
    seen: list[int] = []

    def look(_workers: object) -> list[object]:
        seen.append(len(fleet.in_state(WorkerState.JOINED)))
        return []

    changing = asyncio.ensure_future(fleet.change(look))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    store.go.set()
    await asyncio.gather(changing, *asked)
    assert seen == [256]


async def test_a_change_that_was_begun_is_made_and_seen_though_its_caller_is_gone() -> None:
    """Otherwise every later change would meet a record that is other than the fleet believes."""
    fleet, store = await booted("grid-a", "grid-b")
    store.record.clear()
    failed = moved(fleet.workers[WorkerId("grid-a")], S.FAILED, Reason(Cause.NEVER_JOINED, "late"), NOW)
    begun = asyncio.ensure_future(fleet.change(lambda _: [UpdateWorker(S.BOOTING, failed)]))
    await store.begun.wait()
    waits = asyncio.ensure_future(fleet.change(lambda _: [event()]))
    await asyncio.sleep(0)
    begun.cancel()
    waits.cancel()
    seen: dict[WorkerId, Worker] = {}

    def look(workers: Mapping[WorkerId, Worker]) -> Sequence[Change]:
        seen.update(workers)
        return []

    later = asyncio.ensure_future(fleet.change(look))
    await asyncio.sleep(0)
    assert seen == {}, "nobody looks at workers of which one is being changed"
    store.record.set()
    await asyncio.gather(begun, waits, later, return_exceptions=True)
    assert (begun.cancelled(), waits.cancelled(), store.commits) == (True, True, 1)
    assert seen[WorkerId("grid-a")].state is S.FAILED


async def test_what_a_store_has_recorded_without_an_answer_is_read_before_the_next_change() -> None:
    """PostgreSQL ends in the middle of a commit, and is back later than is waited for."""
    fleet, store = await booted("grid-a", "grid-b", "grid-c", "grid-d")
    a, b = (fleet.workers[WorkerId(name)] for name in ("grid-a", "grid-b"))
    late, wishes = Reason(Cause.NEVER_JOINED, "late"), Wishes(maximum=3)
    failed = moved(b, S.FAILED, late, NOW)
    changes: list[Change] = [
        UpdateWorker(S.BOOTING, moved(a, S.FAILED, late, NOW)),
        UpdateWorker(S.BOOTING, failed),
        UpdateWorker(S.FAILED, moved(failed, S.GONE, late, NOW)),
        SetWishes(a.group, wishes),
    ]
    store.silent = True
    with pytest.raises(StoreUnavailable):
        await fleet.change(lambda _: changes)
    assert {worker.state for worker in fleet.workers.values()} == {S.BOOTING}
    with pytest.raises(StoreUnavailable):
        await join(fleet, "grid-c")
    store.silent = False
    assert (await join(fleet, "grid-d")).worker.state is S.JOINED
    states = {worker.id: worker.state for worker in fleet.workers.values()}
    assert states == {a.id: S.FAILED, "grid-c": S.JOINED, "grid-d": S.JOINED}
    assert fleet.wishes == {a.group: wishes}
    assert +fleet.counts == Counter((each.group, each.state) for each in fleet.workers.values())


async def test_a_record_that_is_other_than_believed_is_read_before_the_next_change() -> None:
    fleet, store = await booted("grid-a")
    known = fleet.workers[WorkerId("grid-a")]
    failed, by_hand = (
        moved(known, S.FAILED, Reason(cause, "x"), NOW) for cause in (Cause.NEVER_JOINED, Cause.OPERATOR)
    )
    await store.commit(store.lease, [UpdateWorker(S.BOOTING, failed)])

    def fail(workers: Mapping[WorkerId, Worker]) -> Sequence[Change]:
        return [UpdateWorker(S.BOOTING, by_hand)] if workers[known.id] == known else []

    with pytest.raises(Conflict):
        await fleet.change(fail)
    assert await fleet.change(fail) == []
    assert fleet.workers[known.id] == failed


async def test_a_change_that_is_refused_lets_the_next_one_in() -> None:
    fleet, _ = await booted("grid-a")
    wrong = moved(fleet.workers[WorkerId("grid-a")], S.DRAINING, Reason(Cause.IDLE, "idle"), NOW)
    with pytest.raises(Conflict):
        await fleet.change(lambda _: [UpdateWorker(S.JOINED, wrong)])

    def stumble(_workers: object) -> Sequence[Change]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fleet.change(stumble)
    await fleet.change(lambda _: [event()])
    assert fleet.workers[WorkerId("grid-a")].state is S.BOOTING


async def test_what_changes_no_worker_does_not_wait() -> None:
    fleet, store = await booted("grid-a")
    store.go.clear()
    asked = asyncio.ensure_future(join(fleet, "grid-a"))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await fleet.note(event())
    assert [each.event for each in await store.events()][-1] == event()
    store.go.set()
    await asked


@pytest.mark.parametrize("state", [S.INTENDED, S.DRAINING])
async def test_who_may_not_join_is_refused(state: WorkerState) -> None:
    fleet, _ = await booted("grid-a", state=state)
    with pytest.raises((AccessDenied, Conflict)):
        await join(fleet, "grid-a")


async def test_counts_and_ages_follow_every_change() -> None:
    fleet, _ = await booted("grid-b", "grid-a")
    assert [each.id for each in fleet.oldest_first()] == ["grid-a", "grid-b"]
    younger = worker("grid-0", created=NOW + 1)
    for change in way_to(S.GONE, younger):
        await fleet.change(lambda _, change=change: [change])  # type: ignore[misc]
        assert +fleet.counts == Counter((each.group, each.state) for each in fleet.workers.values())
        assert set(fleet.oldest_first()) == set(fleet.workers.values())
        assert [each.id for each in fleet.oldest_first()][:2] == ["grid-a", "grid-b"]
    assert +fleet.counts == {("grid", S.BOOTING): 2}
    assert fleet.oldest_first() is fleet.oldest_first()
    await fleet.load(NOW)
    assert len(fleet.oldest_first()) == fleet.counts.total() == 2
