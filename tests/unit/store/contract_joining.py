"""What every FleetStore does when a machine joins. See contract.py.

A file that imports it defines the fixture ``store``: an empty FleetStore.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gridtide.errors import AccessDenied, Conflict, LeaseLost
from gridtide.model.ids import WorkerId
from gridtide.model.workers import MAY_JOIN, Worker, WorkerState
from gridtide.store.ports import AddWorker, FleetStore, Join, Traded
from tests.unit.store.values import (
    JOINED,
    NOW,
    S,
    boot,
    digest,
    event,
    everything,
    join,
    join_one,
    joining,
    lead,
    led_with,
    step,
    way_to,
    worker,
)

A = WorkerId("grid-a")


@pytest.mark.parametrize("state", [S.LAUNCHING, S.BOOTING])
async def test_a_join_token_is_traded(store: FleetStore, state: WorkerState) -> None:
    lease, before = await led_with(store, state)
    assert await store.worker_token(A) is None
    assert await store.host(A) is None
    joined = await join(store, lease)
    assert joined == replace(before, state=S.JOINED, since=NOW + 10, joined=NOW + 10, reason=JOINED)
    assert await store.worker(A) == joined
    assert await store.worker_token(A) == digest("mine")
    assert await store.host(A) == {"Cpus": 4, "Arch": "X86_64", "Load": 0.5, "HasDocker": True}


async def test_the_same_pair_gives_the_same_answer(store: FleetStore) -> None:
    lease, _ = await led_with(store, S.BOOTING)
    joined = await join(store, lease)
    before = await everything(store)
    # However late: the first answer may have been lost, and the agent asks until it has one.
    assert await join(store, lease, now=NOW + 10_000) == joined
    assert await everything(store) == before
    drain = step(joined, S.DRAINING)
    await store.commit(lease, [drain])
    assert await join(store, lease) == drain.worker


@pytest.mark.parametrize("image", ["thin", None])
async def test_a_boot_is_kept_with_its_join(store: FleetStore, image: str | None) -> None:
    lease, _ = await led_with(store, S.BOOTING)
    assert (await store.boot(A), list(await store.boots(limit=9))) == (None, [])
    took = boot(image=image)
    await join(store, lease, took=took)
    assert await store.boot(A) == took
    assert list(await store.boots(limit=9)) == [took]
    # A repeated request changes nothing, whatever is said of it.
    await join(store, lease, took=boot(joined=NOW + 99))
    assert list(await store.boots(limit=9)) == [took]


async def test_a_refused_join_leaves_no_boot(store: FleetStore) -> None:
    lease, _ = await led_with(store, S.BOOTING)
    with pytest.raises(AccessDenied):
        await join(store, lease, key="wrong", took=boot())
    with pytest.raises(AccessDenied):
        await join(store, lease, now=NOW + 601, took=boot())
    assert await store.boot(A) is None
    await store.release_lease(lease)
    with pytest.raises(LeaseLost):
        await join(store, lease, took=boot())
    assert list(await store.boots(limit=9)) == []


async def test_a_join_that_says_nothing_of_its_boot_keeps_none(store: FleetStore) -> None:
    lease, _ = await led_with(store, S.BOOTING)
    await join(store, lease)
    assert (await store.boot(A), list(await store.boots(limit=9))) == (None, [])


async def test_the_latest_boots_come_oldest_first(store: FleetStore) -> None:
    lease = await lead(store)
    ends = {"grid-a": 30.0, "grid-b": 10.0, "grid-c": 20.0, "grid-d": 20.0}
    for name, end in ends.items():
        await store.commit(lease, way_to(S.BOOTING, worker(name)))
        await join(store, lease, name=name, took=boot(name, joined=NOW + end))
    assert [each.worker for each in await store.boots(limit=9)] == ["grid-b", "grid-c", "grid-d", "grid-a"]
    assert [each.worker for each in await store.boots(limit=2)] == ["grid-d", "grid-a"]
    # They outlive their workers: the next ones boot as long.
    present = await store.worker(A)
    assert present is not None
    for state in (S.FAILED, S.TERMINATING, S.GONE):
        change = step(present, state)
        await store.commit(lease, [change])
        present = change.worker
    assert await store.boot(A) == boot("grid-a", joined=NOW + 30)
    assert len(await store.boots(limit=9)) == 4


async def test_of_many_that_join_at_once_one_does(store: FleetStore) -> None:
    lease, _ = await led_with(store, S.BOOTING)
    answers = await asyncio.gather(
        *(join(store, lease, mine=f"mine-{number}") for number in range(20)), return_exceptions=True
    )
    assert sum(isinstance(answer, Worker) for answer in answers) == 1
    assert sum(isinstance(answer, AccessDenied) for answer in answers) == 19
    assert await store.worker_token(A) in {digest(f"mine-{number}") for number in range(20)}


async def test_those_who_join_together_are_judged_each_in_its_own_right(store: FleetStore) -> None:
    lease, _ = await led_with(store, S.BOOTING)
    for name in ("grid-b", "grid-c"):
        await store.commit(lease, way_to(S.BOOTING, worker(name)))
    told = {name: replace(event(), subject=name, text="joined") for name in ("grid-a", "grid-b", "grid-c", "grid-x")}
    wishes = [
        joining("grid-a", took=boot("grid-a"), told=told["grid-a"]),
        joining("grid-b", key="wrong", took=boot("grid-b"), told=told["grid-b"]),
        joining("grid-x", took=boot("grid-x"), told=told["grid-x"]),
        joining("grid-a", now=NOW + 11, told=told["grid-a"]),  # once more: its answer was lost
        joining("grid-a", mine="a thief's", told=told["grid-a"]),
        joining("grid-c", took=boot("grid-c"), told=told["grid-c"]),
    ]
    outcomes = await store.join(lease, wishes)
    assert [outcome.now if isinstance(outcome, Traded) else type(outcome) for outcome in outcomes] == [
        True,
        AccessDenied,
        AccessDenied,
        False,
        AccessDenied,
        True,
    ]
    first, again = outcomes[0], outcomes[3]
    assert isinstance(first, Traded)
    assert isinstance(again, Traded)
    assert first.worker == again.worker == await store.worker(A)
    states = {each.id: each.state for each in await store.workers()}
    assert states == {"grid-a": S.JOINED, "grid-b": S.BOOTING, "grid-c": S.JOINED}
    assert await store.worker_token(A) == digest("mine")
    assert {each.worker for each in await store.boots(limit=9)} == {"grid-a", "grid-c"}
    assert [each.event.subject for each in await store.events() if each.event.text == "joined"] == ["grid-a", "grid-c"]


async def test_of_a_worker_that_many_machines_claim_at_once_the_first_gets_it(store: FleetStore) -> None:
    lease, _ = await led_with(store, S.BOOTING)
    outcomes = await store.join(lease, [joining(mine=f"mine-{number}") for number in range(3)])
    assert [isinstance(outcome, Traded) for outcome in outcomes] == [True, False, False]
    assert await store.worker_token(A) == digest("mine-0")


@pytest.mark.parametrize(
    ("key", "mine", "now"), [("join", "another", NOW + 10), ("wrong", "mine", NOW + 10), ("wrong", "another", NOW)]
)
async def test_a_spent_token_is_good_for_nothing_else(store: FleetStore, key: str, mine: str, now: float) -> None:
    lease, _ = await led_with(store, S.BOOTING)
    await join(store, lease)
    before = await everything(store)
    with pytest.raises(AccessDenied, match=r"^this join token is not valid$"):
        await join(store, lease, key=key, mine=mine, now=now)
    assert await everything(store) == before


async def test_bad_tokens_are_refused_alike(store: FleetStore) -> None:
    lease, _ = await led_with(store, S.BOOTING)
    before = await everything(store)
    with pytest.raises(AccessDenied) as wrong:
        await join(store, lease, key="wrong")
    with pytest.raises(AccessDenied) as expired:
        await join(store, lease, now=NOW + 600)
    with pytest.raises(AccessDenied) as unknown:
        await join(store, lease, name="grid-b", now=NOW)
    assert str(wrong.value) == str(expired.value) == str(unknown.value)
    assert await everything(store) == before


async def test_a_token_is_good_to_the_last_moment(store: FleetStore) -> None:
    lease, _ = await led_with(store, S.BOOTING)
    assert (await join(store, lease, now=NOW + 599.9)).state is S.JOINED


async def test_a_worker_without_a_token_cannot_join(store: FleetStore) -> None:
    lease = await lead(store)
    await store.commit(lease, [AddWorker(worker()), step(worker(), S.LAUNCHING)])
    with pytest.raises(AccessDenied):
        await join(store, lease)
    with pytest.raises(AccessDenied):
        await join_one(store, lease, Join(A, bytes(32), bytes(32), NOW, {}, JOINED))


@pytest.mark.parametrize("state", sorted(set(WorkerState) - MAY_JOIN - {S.INTENDED}))
async def test_leaving_the_states_that_may_join_revokes_the_token(store: FleetStore, state: WorkerState) -> None:
    lease, stored = await led_with(store, state)
    with pytest.raises(Conflict, match="may not join any more"):
        await join(store, lease)
    with pytest.raises(AccessDenied):
        await join(store, lease, key="wrong")
    assert await store.worker(A) == stored
    assert await store.worker_token(A) is None


async def test_a_new_token_replaces_the_old_one(store: FleetStore) -> None:
    lease, stored = await led_with(store, S.LAUNCHING, key="old")
    await store.commit(lease, [step(stored, S.LAUNCHING, key="new", expires=NOW + 50)])
    with pytest.raises(AccessDenied):
        await join(store, lease, key="old")
    with pytest.raises(AccessDenied):
        await join(store, lease, key="new", now=NOW + 50)
    assert (await join(store, lease, key="new", now=NOW + 49)).state is S.JOINED


async def test_an_update_leaves_the_token_alone(store: FleetStore) -> None:
    lease, stored = await led_with(store, S.LAUNCHING)
    await store.commit(lease, [step(stored, S.LAUNCHING), step(step(stored, S.LAUNCHING).worker, S.BOOTING)])
    assert (await join(store, lease)).state is S.JOINED


@pytest.mark.parametrize("state", sorted(set(WorkerState) - MAY_JOIN - {S.INTENDED}))
async def test_a_token_is_not_given_where_it_is_no_use(store: FleetStore, state: WorkerState) -> None:
    lease, stored = await led_with(store, state)
    with pytest.raises(Conflict, match="may not be given a join token"):
        await store.commit(lease, [step(stored, state, key="late")])


async def test_the_worker_token_ends_with_the_worker(store: FleetStore) -> None:
    lease, _ = await led_with(store, S.BOOTING)
    present = await join(store, lease)
    for state in (S.FAILED, S.TERMINATING, S.GONE):
        assert await store.worker_token(A) == digest("mine")
        change = step(present, state)
        await store.commit(lease, [change])
        present = change.worker
    assert await store.worker_token(A) is None
    assert await store.host(A) is not None
    with pytest.raises(Conflict):
        await join(store, lease)
