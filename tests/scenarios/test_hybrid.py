"""Pools that hold nodes which are not ours: they are seen, never touched, and their free room counts first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from gridtide.model.demand import Attribute, Demand, Offer
from gridtide.model.ids import WorkerId
from gridtide.model.reasons import Cause
from gridtide.model.resources import Resources
from gridtide.model.workers import WorkerState
from gridtide.queues.fake import FakeJobState, QueueCall, QueueFault
from tests.scenarios.harness import GROUP, IDLE_FOR, Site, scenario

MINUTE, HOUR = 60.0, 3600.0
ONE = Resources(1, 1024, 1024)
FARM: dict[str, Attribute] = {"Farm": True}


def farm(site: Site, slots: int, attributes: dict[str, Attribute] | None = None) -> list[str]:
    """Nodes of somebody else, of one slot each."""
    names = [f"farm{number:02}" for number in range(slots)]
    for name in names:
        site.queue.add_foreign_node(name, ONE, FARM if attributes is None else attributes)
    return names


@pytest.mark.parametrize(("jobs", "launched"), [(15, 0), (20, 0), (21, 1), (30, 10)])
def test_free_slots_of_others_count_before_a_machine_is_launched(jobs: int, launched: int) -> None:
    """Start: a farm of 20 free slots. Do: submit jobs. Expected: machines for those only that have no slot there."""

    async def main() -> None:
        async with Site(maximum=40) as site:
            await site.up()
            farm(site, 20)
            await asyncio.sleep(MINUTE)
            site.submit(jobs, duration=HOUR)
            await asyncio.sleep(5 * MINUTE)
            assert site.launches() == launched
            assert site.queue.count(FakeJobState.RUNNING) == jobs
            await site.until(lambda: site.queue.count(FakeJobState.DONE) == jobs, within=3 * HOUR)
            await site.until(lambda: not site.workers, within=IDLE_FOR + 5 * MINUTE)
            assert site.launches() == launched

    scenario(main)()


@pytest.mark.parametrize("nodes_take", [0.1, 0.3, 0.8])
@pytest.mark.parametrize("demand_takes", [0.1, 0.3, 0.8])
def test_jobs_that_start_while_the_queue_is_being_read_are_not_launched_for(
    nodes_take: float, demand_takes: float
) -> None:
    """Start: a farm of 2 free slots, whose queue lets a job wait for some seconds and takes its time to answer.

    Do: submit 2 jobs, again and again, at every moment of the queue's readings. Expected: no machine at all, though
    one reading says that they wait and another that the slots are taken.
    """

    async def main() -> None:
        async with Site(maximum=40) as site:
            site.queue.call_times |= {QueueCall.NODES: nodes_take, QueueCall.DEMAND: demand_takes}
            site.queue.negotiation_delay = 8.0
            await site.up()
            farm(site, 2)
            await asyncio.sleep(MINUTE)
            for _ in range(300):
                site.submit(2, duration=10.0)
                await asyncio.sleep(30.37)  # no multiple of the time between readings
            assert site.launches() == 0

    scenario(main)()


@pytest.mark.parametrize("state", ["draining", "unavailable"])
def test_nodes_of_others_that_take_no_job_do_not_count(state: str) -> None:
    """Start: a farm of 20 slots of which 15 drain, or are down. Do: submit 15 jobs. Expected: 10 machines."""

    async def main() -> None:
        async with Site(maximum=40) as site:
            await site.up()
            for name in farm(site, 20)[:15]:
                if state == "draining":
                    site.queue.self_drain(WorkerId(name))
                else:
                    site.queue.cut_off(WorkerId(name))
            await asyncio.sleep(6 * MINUTE)
            site.submit(15, duration=HOUR)
            await asyncio.sleep(5 * MINUTE)
            assert site.launches() == 10
            assert site.queue.count(FakeJobState.RUNNING) == 15

    scenario(main)()


@scenario
async def test_nodes_of_others_that_cannot_run_the_jobs_do_not_count() -> None:
    """Start: a farm of 20 free slots. Do: submit 15 jobs that none of its nodes satisfies. Expected: 15 machines."""
    async with Site(maximum=40) as site:
        await site.up()
        farm(site, 20)
        site.submit(15, duration=HOUR, requirement=lambda machine: not machine.get("Farm"), label="not on the farm")
        await asyncio.sleep(5 * MINUTE)
        assert site.launches() == 15
        assert site.queue.count(FakeJobState.RUNNING) == 15


@scenario
async def test_jobs_that_only_the_farm_runs_wait_for_it() -> None:
    """Start: a full farm. Do: submit jobs that only its nodes run. Expected: no machine, and it is said why."""
    async with Site(maximum=40) as site:
        await site.up()
        farm(site, 2)
        site.submit(2, duration=HOUR)
        await asyncio.sleep(MINUTE)
        site.submit(3, duration=60.0, requirement=lambda machine: bool(machine.get("Farm")), label="on the farm")
        await asyncio.sleep(MINUTE)
        assert site.launches() == 0
        why = site.why_demand("on the farm")
        assert why.cause is Cause.OTHERS_ONLY
        assert "2 of them" in why.text
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 5, within=2 * HOUR)


@scenario
async def test_room_of_others_that_is_not_taken_is_no_room() -> None:
    """Start: a farm whose nodes have room, but take no job. Do: submit 3 jobs. Expected: 3 machines after 3 minutes."""
    async with Site(maximum=40) as site:
        await site.up()
        farm(site, 5)
        told = site.queue.demand

        async def demand(offers: Sequence[Offer]) -> Demand:
            """The queue makes no difference between nodes, although there is one."""
            return tuple(replace(row, node_kinds=None) for row in await told(offers))

        site.queue.demand = demand  # type: ignore[method-assign]
        site.submit(3, duration=HOUR, requirement=lambda machine: not machine.get("Farm"), label="shy")
        await asyncio.sleep(2.5 * MINUTE)
        assert site.launches() == 0
        await asyncio.sleep(2.5 * MINUTE)
        assert site.launches() == 3
        assert site.queue.count(FakeJobState.RUNNING) == 3


@scenario
async def test_an_idle_worker_stays_while_jobs_wait_that_only_ours_run() -> None:
    """Start: an idle worker, a farm with free slots, a scheduler that is slow. Do: submit a job for ours alone.

    Expected: the worker is not drained although its time is over and slots are free elsewhere.
    """
    async with Site(maximum=1) as site:
        await site.up()
        site.submit(1, duration=30.0)
        await site.until(lambda: bool(site.in_state(WorkerState.JOINED)), within=5 * MINUTE)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 1, within=5 * MINUTE)
        farm(site, 5)
        await asyncio.sleep(IDLE_FOR - 60)
        ours = site.in_state(WorkerState.JOINED)[0].id
        started = site.queue._fill
        site.queue._fill = lambda node, at: None  # type: ignore[method-assign]
        site.submit(1, duration=30.0, requirement=lambda machine: not machine.get("Farm"), label="ours alone")
        await asyncio.sleep(150.0)
        assert [worker.id for worker in site.in_state(WorkerState.JOINED)] == [ours]
        site.queue._fill = started  # type: ignore[method-assign]
        site.submit(1, duration=30.0)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 3, within=5 * MINUTE)
        assert site.launches() == 1


@scenario
async def test_nothing_is_launched_while_the_nodes_of_a_hybrid_pool_are_not_known() -> None:
    """Start: a farm of 20 free slots. Do: its list cannot be read; submit 15 jobs. Expected: nothing is launched."""
    async with Site(maximum=40) as site:
        await site.up()
        farm(site, 20)
        await asyncio.sleep(MINUTE)
        site.queue.faults.inject(QueueFault.RAISE, call=QueueCall.NODES, seconds=20 * MINUTE)
        await asyncio.sleep(MINUTE)
        site.submit(15, duration=HOUR)
        await asyncio.sleep(15 * MINUTE)
        assert site.launches() == 0
        cycle = site.controller.cycle
        assert cycle is not None
        assert cycle.plan.why_group[GROUP].cause is Cause.NO_EVIDENCE
