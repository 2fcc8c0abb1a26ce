"""What every FleetStore does when a machine joins. See contract.py.

A file that imports it defines the fixture ``store``: an empty FleetStore.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gridtide.errors import AccessDenied, Conflict
from gridtide.model.ids import WorkerId
from gridtide.model.workers import MAY_JOIN, Worker, WorkerState
from gridtide.store.ports import (
    AddWorker,
    FleetStore,
)
from tests.unit.store.values import (
    JOINED,
    NOW,
    S,
    digest,
    everything,
    join,
    lead,
    led_with,
    step,
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


async def test_of_many_that_join_at_once_one_does(store: FleetStore) -> None:
    lease, _ = await led_with(store, S.BOOTING)
    answers = await asyncio.gather(
        *(join(store, lease, mine=f"mine-{number}") for number in range(20)), return_exceptions=True
    )
    assert sum(isinstance(answer, Worker) for answer in answers) == 1
    assert sum(isinstance(answer, AccessDenied) for answer in answers) == 19
    assert await store.worker_token(A) in {digest(f"mine-{number}") for number in range(20)}


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
        await store.join(
            lease,
            WorkerId("grid-b"),
            join_digest=digest("join"),
            worker_digest=digest("mine"),
            now=NOW,
            host={},
            reason=JOINED,
        )
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
        await store.join(lease, A, join_digest=bytes(32), worker_digest=bytes(32), now=NOW, host={}, reason=JOINED)


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
