"""Values that the store's tests share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256

from gridtide.errors import GridtideError
from gridtide.model.boots import Boot, BootKey, Phase
from gridtide.model.demand import Attribute
from gridtide.model.ids import CloudName, Generation, GroupName, MachineId, QueueName, ShapeName, WorkerId, Zone
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources, Shape
from gridtide.model.workers import Worker, WorkerState
from gridtide.store.ports import AddWorker, Change, Event, FleetStore, Join, JoinToken, Lease, Owner, UpdateWorker

NOW = 1_700_000_000.0
FIRST = Owner("host-a", "boot-1", 100, 5_000_000_000)
SECOND = Owner("host-a", "boot-1", 200, 5_000_000_900)
WANTED = Reason(Cause.DEMAND, "3 jobs wait")
S = WorkerState


def digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()


def worker(name: str = "grid-a", group: str = "grid", *, created: float = NOW) -> Worker:
    """A new intent."""
    return Worker(
        id=WorkerId(name),
        group=GroupName(group),
        cloud=CloudName("private"),
        shape=Shape(ShapeName("m1.large"), Resources(4, 8192, 20_480, 1), 0.25),
        zone=Zone("eu-south-1a"),
        generation=Generation("g1"),
        single_use=False,
        state=S.INTENDED,
        since=created,
        created=created,
        reason=WANTED,
        queue=QueueName("pool"),
    )


def step(before: Worker, state: WorkerState, *, key: str | None = None, expires: float = NOW + 600) -> UpdateWorker:
    """One second later in another state. ``key`` is the secret of a new join token."""
    after = replace(before, state=state, since=before.since + 1, reason=Reason(Cause.LAUNCHED, f"now {state}"))
    if state is S.LAUNCHING:
        after = replace(after, launched=after.since)
    if state is S.BOOTING:
        after = replace(after, machine=MachineId("i-1"))
    return UpdateWorker(before.state, after, None if key is None else JoinToken(digest(key), expires))


def event(text: str = "launched", *, subject: str = "grid-a", kind: str = "launch") -> Event:
    return Event(NOW, kind, subject, "controller", WANTED, text, {"queue": {"age": 0.5}}, GroupName("grid"))


WAY_UP = (S.LAUNCHING, S.BOOTING, S.JOINED, S.DRAINING, S.DRAINED, S.TERMINATING, S.GONE)


def way_to(state: WorkerState, start: Worker, *, key: str = "join") -> list[Change]:
    """The changes that bring a new worker to a state, with a join token on the way."""
    if state is S.INTENDED:
        return [AddWorker(start)]
    way = (S.LAUNCHING, S.FAILED) if state is S.FAILED else WAY_UP[: WAY_UP.index(state) + 1]
    changes: list[Change] = [AddWorker(start)]
    present = start
    for after in way:
        change = step(present, after, key=key if after is S.LAUNCHING else None)
        changes.append(change)
        present = change.worker
    return changes


async def lead(store: FleetStore, owner: Owner = FIRST, *, lives: bool | None = None) -> Lease:
    """Take the lease for a minute."""
    return await store.take_lease(owner, now=NOW, seconds=60.0, owner_lives=lives)


async def led_with(store: FleetStore, state: WorkerState, *, key: str = "join") -> tuple[Lease, Worker]:
    """A lease, and one worker that has come to this state."""
    lease = await lead(store)
    await store.commit(lease, way_to(state, worker(), key=key))
    stored = await store.worker(WorkerId("grid-a"))
    assert stored is not None
    assert stored.state is state
    return lease, stored


async def everything(store: FleetStore) -> tuple[object, ...]:
    """All that can be read, to see that nothing was changed."""
    names = [WorkerId(f"grid-{letter}") for letter in "abcd"]
    return (
        await store.current_lease(),
        list(await store.workers()),
        list(await store.past_workers(group=None, limit=100)),
        dict(await store.wishes()),
        list(await store.events()),
        [await store.worker_token(name) for name in names],
        [await store.host(name) for name in names],
        list(await store.tokens()),
        list(await store.boots(limit=100)),
        list(await store.stays(since=0.0)),
    )


JOINED = Reason(Cause.JOINED, "traded its join token")


def boot(name: str = "grid-a", *, joined: float = NOW + 10, image: str | None = "thin") -> Boot:
    """How long a worker took to join."""
    key = BootKey(CloudName("private"), ShapeName("m1.large"), image)
    return Boot(WorkerId(name), key, joined, 8.5, {Phase.CLOUD: 0.25, Phase.USER_SPACE: 6.0, Phase.JOIN: 2.25})


async def join(
    store: FleetStore,
    lease: Lease,
    *,
    name: str = "grid-a",
    key: str = "join",
    mine: str = "mine",
    now: float = NOW + 10,
    took: Boot | None = None,
) -> Worker:
    """``key`` is the join token's secret, ``mine`` the one that the machine made."""
    return await join_one(store, lease, joining(name, key=key, mine=mine, now=now, took=took))


def joining(
    name: str = "grid-a",
    *,
    key: str = "join",
    mine: str = "mine",
    now: float = NOW + 10,
    took: Boot | None = None,
    told: Event | None = None,
) -> Join:
    """A machine that asks to be let in."""
    host: Mapping[str, Attribute] = {"Cpus": 4, "Arch": "X86_64", "Load": 0.5, "HasDocker": True}
    return Join(WorkerId(name), digest(key), digest(mine), now, host, JOINED, took, told)


async def join_one(store: FleetStore, lease: Lease, wish: Join) -> Worker:
    """Raises what it is refused for."""
    [outcome] = await store.join(lease, [wish])
    if isinstance(outcome, GridtideError):
        raise outcome
    return outcome.worker
