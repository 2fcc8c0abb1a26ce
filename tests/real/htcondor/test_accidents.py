"""Daemons and machines that hang, die and come back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable

import pytest

from gridtide.errors import QueueError
from gridtide.model.demand import NodeState
from gridtide.model.ids import WorkerId
from gridtide.queues.htcondor.errors import PoolRefilling, PoolUnreachable
from gridtide.testing.queues import SHAPE, offer
from tests.real.htcondor.bench import WHY, Site, children_of
from tests.real.htcondor.pool import Pool, queue_of


async def test_one_worker_that_hangs_does_not_keep_others_from_their_orders(pool: Pool, site: Site) -> None:
    names = [WorkerId(f"conform-{number}") for number in range(3)]
    for name in names:
        await site.start(name)
    site.machines[names[0]].capsule.signal("condor_startd", signal.SIGSTOP)
    outcomes = await site.queue.drain(dict.fromkeys(names, WHY))
    assert isinstance(outcomes[names[0]], PoolUnreachable)
    assert [outcomes[name] for name in names[1:]] == [None, None]


async def test_forgotten_workers_are_not_listed_any_more(pool: Pool, site: Site) -> None:
    await site.start("conform-one")
    await site.start("conform-two")
    site.machines["conform-one"].kill()
    assert await site.node("conform-one") is not None
    await site.queue.forget([WorkerId("conform-one")])
    assert await site.node("conform-one") is None
    assert await site.node("conform-two") is not None
    listed = pool.manager.run("condor_status", "-any", "-af", "MyType", "Name", "GridtideWorker", "LastHeardFrom")
    assert "conform-one" not in listed, listed


async def test_a_hung_schedd_fails_demand_by_name_and_nothing_else(pool: Pool, site: Site) -> None:
    await site.start("conform-one")
    one = WorkerId("conform-one")
    await site.rows(offer(SHAPE))
    pool.schedd_signal("second", signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(QueueError, match=r"second@pool\.test"):
            await queue_rows(pool, site)
        assert time.monotonic() - began < 15, "HTCondor alone would wait for 20 s"
        assert await site.node("conform-one") is not None
        assert await site.queue.drain({one: WHY}) == {one: None}
        node = await site.until("conform-one", lambda node: node.state is NodeState.DRAINING)
        await asyncio.sleep(2)
        node = await site.until("conform-one", lambda node: True)
        assert node.state is NodeState.DRAINING  # one witness is missing
    finally:
        pool.schedd_signal("second", signal.SIGCONT)
    await site.until("conform-one", lambda node: node.state is NodeState.DRAINED, 30)


async def until(holds: Callable[[], bool]) -> None:
    """AssertionError when it does not come true."""
    for _ in range(600):
        if holds():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it does not come true")


async def queue_rows(pool: Pool, site: Site, *, deadline: float = 2.0) -> None:
    """Demand, by a driver that has nothing in store."""
    queue = queue_of(pool, site.home / "fresh", deadline=deadline)
    try:
        await queue.demand([offer(SHAPE)])
    finally:
        await queue.close()


async def test_a_call_that_is_cancelled_leaves_nothing_behind(pool: Pool, site: Site) -> None:
    await site.rows()
    pool.schedd_signal("first", signal.SIGSTOP)
    try:
        before = len(children_of(os.getpid()))
        task = asyncio.create_task(queue_rows(pool, site, deadline=60.0))
        await until(lambda: len(children_of(os.getpid())) > before)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: len(children_of(os.getpid())) <= before)
    finally:
        pool.schedd_signal("first", signal.SIGCONT)


async def test_a_collector_that_was_restarted_is_not_believed_before_it_has_filled(pool: Pool, site: Site) -> None:
    await site.start("conform-one")
    await site.start("conform-two")
    # One that stays silent, as all do for a while after a restart of the collector.
    site.machines["conform-two"].capsule.signal("condor_startd", signal.SIGSTOP)
    pool.manager.signal("condor_collector", signal.SIGKILL)
    wrong: set[str] = set()
    for _ in range(60):
        try:
            nodes = await site.queue.nodes()
        except QueueError as error:
            wrong.add(type(error).__name__)
        else:
            break
        await asyncio.sleep(0.2)
    assert wrong >= {PoolRefilling.__name__}
    assert WorkerId("conform-one") in {node.worker for node in nodes}
    site.machines["conform-two"].capsule.signal("condor_startd", signal.SIGCONT)
    await site.until("conform-two", lambda node: True)
