"""The controller's picture of its workers, when a real PostgreSQL ends in the middle of what is told to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from gridtide.control.fleet import Fleet, moved
from gridtide.control.lease import LeaseKeeper
from gridtide.errors import StoreUnavailable
from gridtide.model.ids import WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.workers import Worker
from gridtide.store.database import Database
from gridtide.store.opening import open_store
from gridtide.store.ports import Owner, UpdateWorker
from gridtide.store.sql import SqlFleetStore
from tests.real.postgres import PostgresServer, running_postgres
from tests.unit.store.values import NOW, S, digest, way_to, worker


class HandClock:
    """Stands still."""

    def now(self) -> float:
        return NOW


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_postgres() as running:
        yield running


@pytest.fixture
async def opened(server: PostgresServer) -> AsyncIterator[tuple[Database, SqlFleetStore]]:
    database, store = await open_store(server.new_database())
    yield database, store
    await store.close()


async def fleet_of(store: SqlFleetStore, *names: str) -> Fleet:
    """With machines that boot."""
    keeper = LeaseKeeper(store, Owner("host", "boot", 1, 1), lambda _: None, clock=HandClock(), seconds=10.0)
    lease = await keeper.take(lambda _: None)
    for name in names:
        await store.commit(lease, way_to(S.BOOTING, worker(name)))
    fleet = Fleet(store, keeper)
    await fleet.load(NOW)
    return fleet


def crash_at_the_next_commit(
    database: Database, server: PostgresServer, patch: pytest.MonkeyPatch, *, recorded: bool
) -> None:
    """The server's power fails just after it has recorded a commit, or just before; nobody hears of it."""

    def fail(connection: object) -> None:
        driver = connection.driver_connection  # type: ignore[attr-defined]
        if recorded:
            driver.commit()
        patch.undo()
        server.stop()
        driver.close()
        raise psycopg.OperationalError("the connection is lost")

    patch.setattr(database.engine.dialect, "do_commit", fail)


def failed(before: Worker) -> Worker:
    return moved(before, S.FAILED, Reason(Cause.NEVER_JOINED, "late"), NOW)


async def check(fleet: Fleet, store: SqlFleetStore) -> None:
    assert dict(fleet.workers) == {worker.id: worker for worker in await store.workers()}


@pytest.mark.parametrize("recorded", [True, False])
async def test_a_change_that_was_cut_off(
    server: PostgresServer,
    opened: tuple[Database, SqlFleetStore],
    monkeypatch: pytest.MonkeyPatch,
    recorded: bool,
) -> None:
    database, store = opened
    fleet = await fleet_of(store, "grid-a", "grid-b")
    first, second = fleet.workers[WorkerId("grid-a")], fleet.workers[WorkerId("grid-b")]
    crash_at_the_next_commit(database, server, monkeypatch, recorded=recorded)
    with pytest.raises(StoreUnavailable):
        await fleet.change(lambda _: [UpdateWorker(S.BOOTING, failed(first))])
    with pytest.raises(StoreUnavailable):  # it is still away
        await fleet.change(lambda _: [UpdateWorker(S.BOOTING, failed(second))])
    server.start()
    await fleet.change(lambda known: [UpdateWorker(S.BOOTING, failed(known[second.id]))])
    assert fleet.workers[first.id] == (failed(first) if recorded else first)
    await check(fleet, store)


@pytest.mark.parametrize("recorded", [True, False])
async def test_a_join_that_was_cut_off(
    server: PostgresServer,
    opened: tuple[Database, SqlFleetStore],
    monkeypatch: pytest.MonkeyPatch,
    recorded: bool,
) -> None:
    """The machine asks again, and is let in once."""
    database, store = opened
    fleet = await fleet_of(store, "grid-a", "grid-b")

    async def join(name: str) -> Worker:
        ask = {"join_digest": digest("join"), "worker_digest": digest("mine"), "now": NOW + 10}
        return (await fleet.join(WorkerId(name), host={}, report=None, **ask)).worker  # type: ignore[arg-type]

    crash_at_the_next_commit(database, server, monkeypatch, recorded=recorded)
    with pytest.raises(StoreUnavailable):
        await join("grid-a")
    server.start()
    other = fleet.workers[WorkerId("grid-b")]
    await fleet.change(lambda _: [UpdateWorker(S.BOOTING, failed(other))])
    assert fleet.workers[WorkerId("grid-a")].state is (S.JOINED if recorded else S.BOOTING)
    assert (await join("grid-a")).state is S.JOINED
    joined = [each.event for each in await store.events(subject="grid-a") if each.event.text.startswith("joined")]
    assert len(joined) == 1
    await check(fleet, store)
