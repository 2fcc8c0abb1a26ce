"""The pilot queue through the queue protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from gridtide.errors import QueueError, StoreUnavailable
from gridtide.model.demand import Demand, Nodes, Offer
from gridtide.model.ids import CloudName, Generation, GroupName, QueueName, ShapeName, WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources, Shape
from gridtide.model.workers import Worker, WorkerState
from gridtide.pilot.queue import PilotQueue
from gridtide.queues.pilot import PilotQueueDriver
from gridtide.queues.protocol import Queue
from tests.unit.pilot.support import ONE_CORE, Site

WHY = Reason(Cause.SURPLUS, "not needed")
WORKER = Worker(
    id=WorkerId("w1"),
    group=GroupName("grid"),
    cloud=CloudName("cloud"),
    shape=Shape(ShapeName("s"), Resources(1, 1024)),
    zone=None,
    generation=Generation("1"),
    single_use=False,
    state=WorkerState.JOINED,
    since=0.0,
    created=0.0,
    reason=WHY,
)


async def test_join_drain_undrain_forget(site: Site) -> None:
    driver: Queue = PilotQueueDriver(QueueName("pool"), site.queue)
    await site.submit()
    orders = await driver.join(WORKER, ONE_CORE)
    assert (orders.kind, dict(orders.settings), dict(orders.secrets)) == ("pilot", {}, {})
    assert await driver.join(WORKER, ONE_CORE) == orders
    assert [node.worker for node in await driver.nodes()] == ["w1"]
    assert (await driver.demand([]))[0].count == 1
    outcomes = await driver.drain({WorkerId("w1"): WHY, WorkerId("w2"): WHY})
    assert outcomes[WorkerId("w1")] is None
    assert "never admitted" in str(outcomes[WorkerId("w2")])
    assert await driver.undrain([WorkerId("w1")]) == {"w1": None}
    await driver.drain({WorkerId("w1"): WHY})
    await site.ask("w1")  # told to stop
    assert "told to stop" in str((await driver.undrain([WorkerId("w1")]))[WorkerId("w1")])
    await driver.forget([WorkerId("w1")])
    await driver.forget([WorkerId("w1")])
    assert await driver.nodes() == ()


async def test_a_single_use_worker_stays_one(site: Site) -> None:
    driver = PilotQueueDriver(QueueName("pool"), site.queue)
    await site.submit('Executable = "/bin/true"; Array = 2;')
    await driver.join(dataclasses.replace(WORKER, single_use=True), ONE_CORE)
    await site.take("w1")
    assert (await site.ask("w1")).assignment is None


async def test_errors_of_the_store_become_the_queues(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_demand(_queue: PilotQueue, _offers: Sequence[Offer]) -> Demand:
        raise StoreUnavailable("the disk is full")

    async def no_nodes(_queue: PilotQueue) -> Nodes:
        raise StoreUnavailable("the disk is full")

    async def no_order(*_arguments: object, **_keywords: object) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(PilotQueue, "demand", no_demand)
    monkeypatch.setattr(PilotQueue, "nodes", no_nodes)
    for name in ("set_draining", "admit", "remove"):
        monkeypatch.setattr(PilotQueue, name, no_order)
    driver = PilotQueueDriver(QueueName("pool"), site.queue)
    for call in (
        driver.demand([]),
        driver.nodes(),
        driver.drain({WorkerId("w1"): WHY}),
        driver.undrain([WorkerId("w1")]),
        driver.join(WORKER, ONE_CORE),
        driver.forget([WorkerId("w1")]),
    ):
        with pytest.raises(QueueError, match="queue pool: the disk is full"):
            await call
