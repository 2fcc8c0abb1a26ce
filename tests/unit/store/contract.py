"""What every FleetStore does. Each kind of store runs all of it: see the test files that import this one.

A file that imports it defines the fixture ``store``: an empty FleetStore.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import product
from types import MappingProxyType

import pytest

from gridtide.errors import Conflict, LeaseLost, NotFound, StoreError
from gridtide.model.costs import Stay
from gridtide.model.demand import Attribute
from gridtide.model.ids import CloudName, GroupName, WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import Wishes
from gridtide.model.workers import WorkerState, may
from gridtide.store.ports import (
    AccessToken,
    AddWorker,
    Change,
    Event,
    FleetStore,
    Join,
    JoinToken,
    Lease,
    RecordedEvent,
    Role,
    SetWishes,
    UpdateWorker,
)
from tests.unit.store.values import (
    FIRST,
    NOW,
    SECOND,
    S,
    digest,
    event,
    everything,
    join,
    join_one,
    lead,
    led_with,
    step,
    way_to,
    worker,
)

A = WorkerId("grid-a")
GRID = GroupName("grid")


# --- leadership


async def test_nobody_leads_at_first(store: FleetStore) -> None:
    assert await store.current_lease() is None


async def test_the_first_one_leads(store: FleetStore) -> None:
    lease = await store.take_lease(FIRST, now=NOW, seconds=30.0, owner_lives=None)
    assert lease == Lease(FIRST, lease.epoch, NOW + 30.0)
    assert await store.current_lease() == lease


@pytest.mark.parametrize("owner_lives", [True, None])
async def test_a_second_one_is_told_who_leads(store: FleetStore, owner_lives: bool | None) -> None:
    lease = await lead(store)
    with pytest.raises(Conflict, match=r"process number 100 on host-a leads until 2023-11-14 22:14:20 UTC"):
        await store.take_lease(SECOND, now=NOW + 59.9, seconds=60.0, owner_lives=owner_lives)
    assert await store.current_lease() == lease


async def test_an_expired_lease_is_taken_with_a_higher_epoch(store: FleetStore) -> None:
    first = await lead(store)
    second = await store.take_lease(SECOND, now=first.expires, seconds=60.0, owner_lives=None)
    assert second.epoch > first.epoch
    assert await store.current_lease() == second


async def test_a_dead_owners_lease_is_taken_before_it_expires(store: FleetStore) -> None:
    first = await lead(store)
    second = await store.take_lease(SECOND, now=NOW + 1, seconds=60.0, owner_lives=False, seen=first)
    assert (second.owner, second.epoch) == (SECOND, first.epoch + 1)


async def test_a_death_says_nothing_about_the_next_leader(store: FleetStore) -> None:
    third = replace(SECOND, process=300)
    dead = await lead(store)
    leader = await store.take_lease(SECOND, now=NOW + 1, seconds=60.0, owner_lives=False, seen=dead)
    with pytest.raises(Conflict):
        await store.take_lease(third, now=NOW + 2, seconds=60.0, owner_lives=False, seen=dead)
    assert await store.current_lease() == leader


async def test_the_owner_keeps_its_epoch(store: FleetStore) -> None:
    first = await lead(store)
    again = await store.take_lease(FIRST, now=NOW + 100, seconds=60.0, owner_lives=True)
    assert again == Lease(FIRST, first.epoch, NOW + 160)


async def test_a_lease_is_renewed(store: FleetStore) -> None:
    lease = await lead(store)
    renewed = await store.renew_lease(lease, now=NOW + 50, seconds=60.0)
    assert renewed == Lease(FIRST, lease.epoch, NOW + 110)
    assert await store.current_lease() == renewed


async def test_a_released_lease_is_nobodys(store: FleetStore) -> None:
    first = await lead(store)
    await store.release_lease(first)
    await store.release_lease(first)
    assert await store.current_lease() is None
    second = await lead(store, SECOND)
    assert second.epoch > first.epoch
    await store.release_lease(first)
    assert await store.current_lease() == second


async def test_who_leads_no_more_can_change_nothing(store: FleetStore) -> None:
    old, booting = await led_with(store, S.BOOTING)
    await lead(store, SECOND, lives=False)
    before = await everything(store)
    with pytest.raises(LeaseLost, match="process number 200"):
        await store.commit(old, [event()])
    with pytest.raises(LeaseLost):
        await store.commit(old, [])
    with pytest.raises(LeaseLost):
        await store.renew_lease(old, now=NOW, seconds=600.0)
    with pytest.raises(LeaseLost):
        await join(store, old)
    await store.release_lease(old)
    assert await everything(store) == before
    assert await store.worker(A) == booting


async def test_who_released_its_lease_can_change_nothing(store: FleetStore) -> None:
    lease = await lead(store)
    await store.release_lease(lease)
    with pytest.raises(LeaseLost):
        await store.commit(lease, [event()])
    with pytest.raises(LeaseLost):
        await store.renew_lease(lease, now=NOW, seconds=60.0)
    assert await store.events() == []


async def test_of_many_that_want_to_lead_one_does(store: FleetStore) -> None:
    owners = [replace(FIRST, process=number) for number in range(1, 21)]
    answers = await asyncio.gather(*(lead(store, owner) for owner in owners), return_exceptions=True)
    leases = [answer for answer in answers if isinstance(answer, Lease)]
    assert len(leases) == 1
    assert sum(isinstance(answer, Conflict) for answer in answers) == 19
    assert await store.current_lease() == leases[0]


# --- commit


async def test_a_worker_is_stored_whole(store: FleetStore) -> None:
    lease = await lead(store)
    plain = worker("grid-b", created=NOW + 1)
    bare = replace(plain, zone=None, single_use=True, shape=replace(plain.shape, price=0.0))
    await store.commit(lease, [AddWorker(worker()), AddWorker(bare)])
    assert await store.workers() == [worker(), bare]
    change = step(worker(), S.LAUNCHING, key="join")
    full = replace(change.worker, drain_wanted=True, force_wanted=True)
    await store.commit(lease, [replace(change, worker=full)])
    assert await store.worker(A) == full


async def test_an_unknown_worker_is_none(store: FleetStore) -> None:
    assert await store.worker(WorkerId("nobody")) is None
    assert await store.worker_token(WorkerId("nobody")) is None
    assert await store.host(WorkerId("nobody")) is None


async def test_a_whole_life_in_one_commit(store: FleetStore) -> None:
    lease = await lead(store)
    await store.commit(lease, way_to(S.GONE, worker()))
    stored = await store.worker(A)
    assert stored is not None
    assert (stored.state, stored.since, stored.machine) == (S.GONE, NOW + 7, "i-1")
    assert await store.workers() == []
    assert await store.past_workers(group=None, limit=10) == [stored]


@pytest.mark.parametrize(("before", "after"), list(product(WorkerState, WorkerState)))
async def test_only_legal_steps_are_taken(store: FleetStore, before: WorkerState, after: WorkerState) -> None:
    lease, stored = await led_with(store, before)
    change = step(stored, after)
    if may(before, after) or before is after:
        await store.commit(lease, [change])
        assert await store.worker(A) == change.worker
    else:
        with pytest.raises(Conflict, match=f"may not go from {before} to {after}"):
            await store.commit(lease, [change])
        assert await store.worker(A) == stored


async def test_a_change_decided_on_another_state_is_refused(store: FleetStore) -> None:
    lease, stored = await led_with(store, S.JOINED)
    with pytest.raises(Conflict, match="is joined, not booting"):
        await store.commit(lease, [UpdateWorker(S.BOOTING, replace(stored, state=S.FAILED))])
    assert await store.worker(A) == stored


BAD: list[Change] = [
    AddWorker(worker()),
    AddWorker(replace(worker("grid-d"), state=S.LAUNCHING)),
    step(worker("grid-d"), S.LAUNCHING),
    UpdateWorker(S.BOOTING, replace(worker(), state=S.FAILED)),
    UpdateWorker(S.INTENDED, replace(worker(), state=S.JOINED)),
    UpdateWorker(S.INTENDED, replace(worker(), state=S.GONE), JoinToken(digest("x"), NOW)),
]


@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize("bad", BAD)
async def test_one_bad_change_undoes_all(store: FleetStore, bad: Change, place: int) -> None:
    lease = await lead(store)
    await store.commit(lease, [AddWorker(worker()), SetWishes(GRID, Wishes(maximum=3)), event()])
    before = await everything(store)
    changes: list[Change] = [
        AddWorker(worker("grid-b")),
        SetWishes(GRID, Wishes(maximum=9)),
        event("should not be there"),
        AddWorker(worker("grid-c")),
    ]
    with pytest.raises(Conflict):
        await store.commit(lease, [*changes[:place], bad, *changes[place:]])
    assert await everything(store) == before


async def test_a_commit_that_its_last_check_refuses_undoes_all(store: FleetStore) -> None:
    lease = await lead(store)
    before = await everything(store)

    def check() -> None:
        raise StoreError("held up for 70 s")

    with pytest.raises(StoreError, match="held up"):
        await store.commit(lease, [AddWorker(worker()), SetWishes(GRID, Wishes(maximum=3)), event()], check)
    assert await everything(store) == before
    await store.commit(lease, [AddWorker(worker())], lambda: None)
    assert len(await store.workers()) == 1


async def test_a_worker_added_twice_in_one_commit_is_refused(store: FleetStore) -> None:
    lease = await lead(store)
    with pytest.raises(Conflict, match="exists already"):
        await store.commit(lease, [AddWorker(worker()), AddWorker(worker())])
    assert await store.workers() == []


async def test_an_empty_commit_is_harmless(store: FleetStore) -> None:
    lease = await lead(store)
    before = await everything(store)
    await store.commit(lease, [])
    assert await everything(store) == before


async def test_four_thousand_workers_in_one_commit(store: FleetStore) -> None:
    lease = await lead(store)
    fleet = [worker(f"grid-{number:05}", created=NOW + number) for number in range(4000)]
    await store.commit(lease, [AddWorker(one) for one in fleet])
    steps = [step(one, S.LAUNCHING, key=one.id) for one in fleet]
    await store.commit(lease, steps)
    assert await store.workers() == [change.worker for change in steps]


async def test_the_dead_are_listed_latest_first(store: FleetStore) -> None:
    lease = await lead(store)
    for name, group, created in (("grid-a", "grid", 1.0), ("grid-b", "other", 3.0), ("grid-c", "grid", 2.0)):
        await store.commit(lease, way_to(S.GONE, worker(name, group, created=created)))
    await store.commit(lease, [AddWorker(worker("grid-d"))])

    async def names(group: str | None, limit: int = 10) -> list[str]:
        past = await store.past_workers(group=None if group is None else GroupName(group), limit=limit)
        return [one.id for one in past]

    assert await names(None) == ["grid-b", "grid-c", "grid-a"]
    assert await names("grid") == ["grid-c", "grid-a"]
    assert await names(None, 1) == ["grid-b"]
    assert await names(None, 0) == await names(None, -1) == await names("nobody") == []


async def test_what_the_dead_cost_is_told_from_a_moment_on(store: FleetStore) -> None:
    lease = await lead(store)
    for name, created in (("grid-a", NOW), ("grid-b", NOW + 50), ("grid-c", NOW + 20)):
        await store.commit(lease, way_to(S.GONE, worker(name, created=created)))
    free = worker("grid-d")
    await store.commit(lease, way_to(S.GONE, replace(free, shape=replace(free.shape, price=0.0))))
    await store.commit(lease, [AddWorker(worker("grid-e"))])
    withdrawn = replace(worker("grid-f", created=NOW + 60), state=S.GONE)
    await store.commit(lease, [AddWorker(worker("grid-f")), UpdateWorker(S.INTENDED, withdrawn)])
    ends = [one.since for one in await store.past_workers(group=None, limit=10) if one.launched and one.shape.price]
    stays = await store.stays(since=NOW)
    assert [stay.ended for stay in stays] == sorted(ends)
    assert stays[0] == Stay(CloudName("private"), 0.25, NOW + 1, NOW + 7)
    assert await store.stays(since=stays[1].ended) == stays[1:]
    assert await store.stays(since=stays[2].ended + 1) == []


async def test_a_launch_that_was_refused_costs_nothing(store: FleetStore) -> None:
    lease, failed = await led_with(store, S.FAILED)
    refused = Reason(Cause.LAUNCH_REFUSED, "no capacity")
    over = replace(failed, state=S.GONE, reason=refused, machine=None)
    await store.commit(lease, [UpdateWorker(S.FAILED, over)])
    assert await store.stays(since=0.0) == []


# --- wishes


async def test_wishes_are_kept_until_taken_back(store: FleetStore) -> None:
    lease = await lead(store)
    other = GroupName("other")
    full = Wishes(minimum=0, maximum=9, desired=3, hold=True, closing=True)
    await store.commit(lease, [SetWishes(GRID, full), SetWishes(other, Wishes(hold=True))])
    assert await store.wishes() == {GRID: full, other: Wishes(hold=True)}
    await store.commit(lease, [SetWishes(GRID, Wishes(desired=0)), SetWishes(other, Wishes())])
    assert await store.wishes() == {GRID: Wishes(desired=0)}
    await store.commit(lease, [SetWishes(GRID, Wishes(hold=True)), SetWishes(GRID, Wishes(minimum=1))])
    assert await store.wishes() == {GRID: Wishes(minimum=1)}


# --- events


async def test_an_event_is_stored_whole(store: FleetStore) -> None:
    lease = await lead(store)
    bare = Event(NOW + 1.5, "site", "torino", "user:eve", None, "reloaded")
    await store.commit(lease, [event(), bare])
    first, second = await store.events()
    assert (first.event, second.event) == (event(), bare)
    assert first.number < second.number


async def test_evidence_of_any_shape(store: FleetStore) -> None:
    lease = await lead(store)
    evidence = MappingProxyType(
        {
            "none": None,
            "yes": True,
            "many": (1, 2.5, "x", ("deep", None)),
            "inner": MappingProxyType({"age": 1e-9, "big": 2**60}),
            "never": float("nan"),
            "forever": float("-inf"),
            "name": "naïve \N{SNOWMAN}",
        }
    )
    await store.commit(lease, [replace(event(), evidence=evidence)])
    [recorded] = await store.events()
    assert recorded.event.evidence == {
        "none": None,
        "yes": True,
        "many": [1, 2.5, "x", ["deep", None]],
        "inner": {"age": 1e-9, "big": 2**60},
        "never": "nan",
        "forever": "-inf",
        "name": "naïve \N{SNOWMAN}",
    }


async def test_evidence_is_what_it_was_at_the_commit(store: FleetStore) -> None:
    lease = await lead(store)
    figures = {"jobs": 3}
    await store.commit(lease, [replace(event(), evidence={"queue": figures})])
    figures["jobs"] = 0
    [recorded] = await store.events()
    assert recorded.event.evidence == {"queue": {"jobs": 3}}


async def test_broken_text_does_not_break_the_log(store: FleetStore) -> None:
    lease, booting = await led_with(store, S.BOOTING)
    broken = "bad\0name \ud800"
    reason = Reason(Cause.MACHINE_BROKEN, broken)
    changes: list[Change] = [
        replace(event(), subject=broken, actor=broken, text=broken, reason=reason, evidence={broken: [broken]}),
        UpdateWorker(S.BOOTING, replace(booting, reason=reason)),
    ]
    await store.commit(lease, changes)
    host: dict[str, Attribute] = {broken: broken, "Load": float("inf")}
    await join_one(store, lease, Join(A, digest("join"), digest("mine"), NOW, host, reason))
    mended = "bad\N{REPLACEMENT CHARACTER}name ?"
    [recorded] = await store.events()
    told = recorded.event
    assert (told.subject, told.actor, told.text, told.evidence) == (mended, mended, mended, {mended: [mended]})
    assert told.reason == Reason(Cause.MACHINE_BROKEN, mended)
    assert (await store.workers())[0].reason == told.reason
    assert await store.host(A) == {mended: mended, "Load": "inf"}


async def test_events_are_found(store: FleetStore) -> None:
    lease = await lead(store)
    for number in range(10):
        kind = "launch" if number % 2 else "drain"
        await store.commit(lease, [event(str(number), subject=f"grid-{'ab'[number % 3 == 0]}", kind=kind)])
    recorded = await store.events()

    def texts(found: list[RecordedEvent]) -> str:
        return "".join(one.event.text for one in found)

    async def find(**query: object) -> str:
        return texts(list(await store.events(**query)))  # type: ignore[arg-type]

    assert [one.number for one in recorded] == sorted({one.number for one in recorded})
    assert texts(list(recorded)) == "0123456789"
    fourth = recorded[3].number
    assert await find(after=fourth) == "456789"
    assert await find(after=fourth, limit=2) == "45"
    assert await find(after=fourth, limit=2, newest=True) == "89"
    assert await find(after=recorded[-1].number) == ""
    assert await find(newest=True, limit=100) == "0123456789"
    assert await find(subject="grid-b") == "0369"
    assert await find(kind="launch") == "13579"
    assert await find(kind="launch", subject="grid-b") == "39"
    assert await find(kind="launch", subject="grid-b", newest=True, limit=1) == "9"
    assert await find(kind="launch", after=fourth, limit=2) == "57"
    assert await find(subject="nobody") == await find(kind="nothing") == ""
    assert await find(limit=0) == await find(limit=-1) == await find(limit=-1, newest=True) == ""


# --- users' tokens

TOKEN = AccessToken("t1", "eve", Role.OPERATOR, digest("secret"), NOW, NOW + 60)


async def test_users_tokens_are_kept(store: FleetStore) -> None:
    forever = AccessToken("t2", "adam", Role.ADMIN, digest("other"), NOW + 1, None)
    await store.add_token(TOKEN)
    await store.add_token(forever)
    assert await store.token("t1") == TOKEN
    assert await store.token("t3") is None
    assert await store.tokens() == [forever, TOKEN]


async def test_a_token_is_not_replaced(store: FleetStore) -> None:
    await store.add_token(TOKEN)
    with pytest.raises(Conflict, match="t1 exists already"):
        await store.add_token(replace(TOKEN, user="mallory"))
    assert await store.tokens() == [TOKEN]


async def test_a_revoked_token_stays_known(store: FleetStore) -> None:
    await store.add_token(TOKEN)
    await store.revoke_token("t1")
    await store.revoke_token("t1")
    assert await store.token("t1") == replace(TOKEN, revoked=True)
    with pytest.raises(NotFound, match="no token t9"):
        await store.revoke_token("t9")


async def test_reasons_of_every_cause_are_kept(store: FleetStore) -> None:
    lease = await lead(store)
    reasons = [Reason(cause, f"for {cause}") for cause in Cause]
    await store.commit(lease, [replace(event(), reason=reason) for reason in reasons])
    assert [one.event.reason for one in await store.events()] == reasons
