"""What operators order, and what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gridtide.clouds.fake import CloudFault
from gridtide.control.assembly import Assembly
from gridtide.control.spawning import Spawning
from gridtide.errors import AccessDenied, Conflict, InvalidRequest, NotFound, SiteFileError
from gridtide.model.actions import Launch, Plan
from gridtide.model.ids import GroupName, QueueName, WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import Wishes
from gridtide.model.workers import WorkerState
from gridtide.pilot.protocol import Order
from gridtide.queues.aliec2 import SpawnedQueue
from gridtide.queues.fake import FakeJobState, QueueFault
from gridtide.sim import virtual_time
from tests.scenarios.harness import GROUP, QUEUE, SHAPE, Site, scenario
from tests.scenarios.test_fatal_cases import HOUR, MINUTE, busy_site


@scenario
async def test_desired_pins_the_number_whatever_waits() -> None:
    async with Site(maximum=4) as site:
        await site.up()
        await site.controller.set_wishes(GROUP, Wishes(desired=3), actor="user:op")
        await site.until(lambda: len(site.in_state(WorkerState.JOINED)) == 3, within=10 * MINUTE)
        await site.controller.set_wishes(GROUP, Wishes(desired=1), actor="user:op")
        await site.until(lambda: site.machines() == 1, within=20 * MINUTE)
        await site.controller.set_wishes(GROUP, Wishes(), actor="user:op")
        await site.until(lambda: site.machines() == 0, within=20 * MINUTE)
        events = await site.store.events(subject=GROUP, kind="wishes")
        assert [each.event.actor for each in events] == ["user:op"] * 3
        assert "desired 3" in events[0].event.text


@scenario
async def test_a_lower_maximum_drains_busy_workers_and_ends_no_job() -> None:
    async with Site(maximum=4) as site:
        await busy_site(site, duration=HOUR)
        await site.controller.set_wishes(GROUP, Wishes(maximum=1), actor="user:op")
        await site.until(lambda: len(site.in_state(WorkerState.DRAINING)) == 3, within=MINUTE)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 4, within=3 * HOUR)
        await site.until(lambda: site.machines() <= 1, within=HOUR)


async def hold(site: Site, held: bool) -> None:
    await site.controller.set_wishes(GROUP, Wishes(hold=held), actor="user:op")


async def hold_while_the_store_is_slow(site: Site, held: bool) -> None:
    """The plan is ready before the order is recorded, and waits behind it."""
    honest = site.store.commit

    async def slow(*given: object) -> None:
        await asyncio.sleep(10.0)
        await honest(*given)  # type: ignore[arg-type]

    site.store.commit = slow  # type: ignore[method-assign, assignment]
    await hold(site, held)
    site.store.commit = honest  # type: ignore[method-assign]


async def close(site: Site, closed: bool) -> None:
    """In the site file."""
    now = site.assembly()
    group = replace(now.rules.groups[GROUP], maximum=0 if closed else 3)
    site.controller._reread = lambda: (replace(now, rules=replace(now.rules, groups={GROUP: group})), "maximum")
    await site.controller.reload()


@pytest.mark.parametrize("order", [hold, hold_while_the_store_is_slow, close])
def test_what_was_planned_before_an_order_is_not_done_after_it(
    order: Callable[[Site, bool], Awaitable[None]],
) -> None:
    """Start: a plan for three jobs is being worked out. Do: hold the group. Expected: no launch, then or later."""

    async def main() -> None:
        planned = asyncio.Event()

        async def slowly(work: Callable[[], Plan]) -> Plan:
            decided = work()
            if any(isinstance(action, Launch) for action in decided.actions):
                planned.set()
            await asyncio.sleep(5.0)
            return decided

        async with Site() as site:
            site.think = slowly
            await site.up()
            site.queue.submit(3, duration=60)
            await planned.wait()
            await order(site, True)
            await asyncio.sleep(HOUR)
            assert site.launches() == 0
            await order(site, False)
            await site.until(lambda: site.queue.count(FakeJobState.DONE) == 3, within=20 * MINUTE)

    virtual_time.run(main())


@scenario
async def test_a_held_group_is_left_as_it_is() -> None:
    async with Site() as site:
        await site.up()
        await site.controller.set_wishes(GROUP, Wishes(hold=True), actor="user:op")
        site.queue.submit(3, duration=60)
        await asyncio.sleep(HOUR)
        assert site.launches() == 0
        cycle = site.controller.cycle
        assert cycle is not None
        assert cycle.plan.why_group[GROUP].cause is Cause.HELD
        assert "held" in (await site.controller.explain(GROUP)).now


@scenario
async def test_figures_that_contradict_each_other_change_nothing() -> None:
    async with Site(maximum=4) as site:
        await site.up()
        for wrong in (Wishes(minimum=5), Wishes(minimum=3, maximum=2), Wishes(desired=9), Wishes(minimum=-1)):
            with pytest.raises(InvalidRequest):
                await site.controller.set_wishes(GROUP, wrong, actor="user:op")
        with pytest.raises(NotFound, match="grid"):
            await site.controller.set_wishes(GroupName("gird"), Wishes(), actor="user:op")
        assert await site.store.wishes() == {}


@scenario
async def test_an_operators_drain_is_not_taken_back_by_load_but_by_the_operator() -> None:
    async with Site(maximum=1) as site:
        await busy_site(site, jobs=1, duration=HOUR)
        worker = site.workers[0].id
        await site.controller.drain([worker], force=False, actor="user:op")
        site.queue.submit(5, duration=60)
        site.controller.queue_changed(QUEUE)
        await site.until(lambda: bool(site.in_state(WorkerState.DRAINING)), within=MINUTE)
        await asyncio.sleep(10 * MINUTE)
        assert len(site.in_state(WorkerState.DRAINING)) == 1
        await site.controller.undrain([worker], actor="user:op")
        await asyncio.sleep(MINUTE)
        assert len(site.in_state(WorkerState.JOINED)) == 1
        assert not site.queue.is_draining(worker)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 6, within=3 * HOUR)
        assert site.launches() == 1


@scenario
async def test_orders_for_workers_that_do_not_exist_or_are_past_recall() -> None:
    async with Site(maximum=1) as site:
        await busy_site(site, jobs=1, duration=HOUR)
        worker = site.workers[0].id
        with pytest.raises(NotFound):
            await site.controller.drain([worker, WorkerId("nobody")], force=False, actor="user:op")
        assert not site.workers[0].drain_wanted
        with pytest.raises(NotFound):
            await site.controller.undrain([WorkerId("nobody")], actor="user:op")
        with pytest.raises(NotFound):
            await site.controller.explain("nobody")
        with pytest.raises(NotFound):
            site.controller.alive(WorkerId("nobody"), load=0, running=0, draining=False)


@scenario
async def test_force_ends_a_worker_with_its_job_and_only_force_does() -> None:
    async with Site(maximum=1) as site:
        await busy_site(site, jobs=1, duration=HOUR)
        worker = site.workers[0].id
        await site.controller.drain([worker], force=True, actor="user:op")
        await site.controller.drain([worker], force=True, actor="user:op")
        await site.until(lambda: worker not in site.controller.workers, within=5 * MINUTE)
        assert [each.worker for each in site.cloud.record.killed_jobs] == [worker]
        site.cloud.record.killed_jobs.clear()  # by order
        told = await site.controller.explain(worker)
        assert "gone" in told.now
        assert any("force" in text for _, text in told.history)
        with pytest.raises(NotFound):
            await site.controller.undrain([worker], actor="user:op")


@scenario
async def test_closing_returns_everything_and_opening_starts_again() -> None:
    async with Site(maximum=4) as site:
        await busy_site(site, jobs=2, duration=HOUR)
        site.queue.submit(2, duration=600)
        await site.controller.close_site(actor="user:op")
        await site.until(lambda: site.machines() == 0 and not site.workers, within=3 * HOUR)
        assert all(job.starts <= 1 for job in site.queue.jobs.values())
        launched = site.launches()
        site.queue.submit(2, duration=600)
        await asyncio.sleep(10 * MINUTE)
        assert site.launches() == launched
        await site.controller.open_site(actor="controller")
        await site.until(lambda: site.queue.count(FakeJobState.WAITING) == 0, within=HOUR)


@scenario
async def test_what_a_worker_is_told_follows_its_state() -> None:
    async with Site(maximum=1) as site:
        await busy_site(site, jobs=1, duration=HOUR)
        worker = site.workers[0].id
        answer = site.controller.alive(worker, load=0.5, running=1, draining=False)
        assert (answer.order, answer.lease) == (Order.CONTINUE, 600.0)
        await site.controller.drain([worker], force=False, actor="user:op")
        await site.until(lambda: bool(site.in_state(WorkerState.DRAINING)), within=MINUTE)
        assert site.controller.alive(worker, load=0.5, running=1, draining=False).order is Order.DRAIN
        with pytest.raises(AccessDenied):
            await site.controller.check_worker(worker, "not its secret, but long enough to be one")
        with pytest.raises(AccessDenied):
            await site.controller.check_worker(WorkerId("nobody"), "")


@scenario
async def test_explanations_name_the_cause_and_the_history() -> None:
    async with Site(maximum=2) as site:
        await busy_site(site, jobs=2, duration=HOUR)
        site.queue.submit(3, duration=600)
        site.controller.queue_changed(QUEUE)
        await asyncio.sleep(2)
        group = await site.controller.explain(GROUP)
        assert "2 workers, minimum 0, maximum 2" in group.now
        assert "at-maximum" in group.because
        worker = await site.controller.explain(site.workers[0].id)
        assert "busy" in worker.because
        assert [text.split(" ")[0] for _, text in worker.history] == ["intended", "launching", "booting", "joined"]


@scenario
async def test_a_new_site_file_is_taken_over_and_one_that_loses_workers_is_not() -> None:
    async with Site(maximum=2) as site:
        await busy_site(site, jobs=2, duration=HOUR)
        before = site.assembly()
        larger = replace(before.rules.groups[GROUP], maximum=3)
        site.maximum = 3
        site.controller._reread = lambda: (
            replace(before, rules=replace(before.rules, groups={GROUP: larger})),
            "maximum: 2 -> 3",
        )
        assert await site.controller.reload() == "maximum: 2 -> 3"
        site.queue.submit(1, duration=60)
        site.controller.queue_changed(QUEUE)
        await site.until(lambda: site.machines() == 3, within=MINUTE)
        rules = before.rules
        moved = replace(rules.groups[GROUP], queue=QueueName("other"))
        for lost in (
            replace(rules, clouds={}),
            replace(rules, groups={}),
            replace(rules, groups={GROUP: moved}, queues=(QUEUE, moved.queue)),
            replace(rules, groups={GROUP: moved}, queues=(moved.queue,)),
        ):
            site.controller._reread = lambda lost=lost: (replace(before, rules=lost), "less")
            with pytest.raises(SiteFileError, match="still exist"):
                await site.controller.reload()
        site.controller._reread = None
        with pytest.raises(Conflict):
            await site.controller.reload()
        assert site.controller.rules.groups[GROUP].maximum == 3


@scenario
async def test_a_machine_of_a_cloud_that_has_left_the_site_file_is_let_in_and_not_ended() -> None:
    """Start: a machine boots. Do: the controller is started anew with a site file without its cloud, and it joins.

    Expected: it runs its job. Nobody ends it, since nothing is known of its cloud any more, and that is said.
    """
    async with Site(maximum=1, clouds=2) as site:
        site.clouds[0].sold_out.add((None, SHAPE.name))
        await site.up()
        site.submit(1, duration=60)
        await site.until(lambda: site.launches() == 1, within=MINUTE)
        await site.kill()
        left = site.clouds.pop()
        site._group = replace(site._group, clouds=(site.cloud.name,))
        await site.up()
        assert [recorded.event.text for recorded in await site.store.events(kind="site")] == [
            f"1 worker(s) of clouds.{left.name} still exist, which the site file does not name: "
            "nobody can end their machines"
        ]
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 1, within=10 * MINUTE)
        await asyncio.sleep(HOUR)
        (worker,) = site.workers
        assert worker.cloud == left.name
        assert left.record.terminated == []
        cycle = site.controller.cycle
        assert cycle is not None
        assert cycle.plan.why_worker[worker.id].cause is Cause.NO_EVIDENCE


@scenario
async def test_workers_of_a_group_that_has_left_the_site_file_are_drained() -> None:
    """Start: a worker runs a job. Do: the controller is started anew, and its group has another name. The file changes.

    Expected: that is said; the job ends by itself, and no other comes to the worker; its machine is returned.
    """
    async with Site(maximum=2) as site:
        await busy_site(site, jobs=1, duration=600)
        (old,) = site.workers
        await site.kill()
        before = site.assembly

        def renamed() -> Assembly:
            whole = before()
            groups = {GroupName("other"): replace(whole.rules.groups[GROUP], name=GroupName("other"))}
            return replace(whole, rules=replace(whole.rules, groups=groups))

        site.assembly = renamed  # type: ignore[method-assign]
        await site.up()
        said = [recorded.event.text for recorded in await site.store.events(kind="site")]
        assert said == [
            f"1 worker(s) of groups.{GROUP} still exist, which the site file does not name: they are drained and returned"
        ]
        site.controller._reread = lambda: (renamed(), "the same groups")
        assert await site.controller.reload() == "the same groups"  # what was lost before is no reason to refuse it
        site.queue.submit(1, duration=60)
        await site.until(lambda: old.id not in site.controller.workers, within=30 * MINUTE)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 2, within=30 * MINUTE)
        assert site.launches() == 2


@scenario
async def test_workers_of_a_queue_that_is_their_groups_no_more_are_drained_by_it() -> None:
    """Start: a worker runs a job of one queue, another machine boots. Do: the controller is started anew, and their
    group has another queue, where a job waits.

    Expected: that is said; no job of either queue waits for a worker that cannot take it; the first worker's job ends by
    itself, both are drained by their own queue and returned, and the job of the other queue gets a machine of its own.
    """
    async with Site(maximum=3, queues=2) as site:
        await busy_site(site, jobs=1, duration=600)
        (old,) = site.workers
        assert old.queue == QUEUE
        site.submit(1, duration=60)
        await site.until(lambda: site.launches() == 2, within=MINUTE)
        await site.kill()
        other = site.queues[1].name
        site._group = replace(site._group, queue=other)
        await site.up()
        said = [recorded.event.text for recorded in await site.store.events(kind="site")]
        assert said == [
            f"2 worker(s) of groups.{GROUP} still exist, and work for queue {QUEUE}, which is the group's no more: "
            "they are drained and returned"
        ]
        site.submit(1, queue=1, duration=60)
        await site.until(lambda: site.queues[1].count(FakeJobState.DONE) == 1, within=10 * MINUTE)
        assert old.id in site.controller.workers  # its job still runs
        await site.until(lambda: old.id not in site.controller.workers, within=30 * MINUTE)
        assert site.queues[0].count(FakeJobState.DONE) >= 1
        assert site.queues[0].count(FakeJobState.RUNNING) == 0
        await site.until(lambda: site.machines() == 0, within=HOUR)
        assert site.launches() == 3


@scenario
async def test_what_was_intended_for_another_queue_is_not_launched() -> None:
    """Start: a worker is recorded and its cloud not called yet. Do: the controller is started anew, and its group has
    another queue; the one before cannot be reached.

    Expected: nothing is launched for it, and it is withdrawn when that queue answers.
    """
    async with Site(maximum=2, queues=2) as site:
        await site.up()
        launch = Launch(GROUP, site.cloud.name, SHAPE, None, site.generation, False, 1, Reason(Cause.DEMAND, "a job"))
        await asyncio.sleep(5)
        await site.controller.fleet.change(lambda _: site.controller.intents_of(launch))
        await site.kill()
        site._group = replace(site._group, queue=site.queues[1].name)
        site.queue.faults.inject(QueueFault.RAISE, seconds=30 * MINUTE)
        await site.up()
        await asyncio.sleep(20 * MINUTE)
        assert [worker.state for worker in site.workers] == [WorkerState.INTENDED]
        await site.until(lambda: not site.workers, within=30 * MINUTE)
        assert site.launches() == 0


@scenario
async def test_a_queue_under_another_name_keeps_its_workers() -> None:
    """Start: a worker runs a job. Do: the controller is started anew, and the queue has another name in the site file.

    Expected: that is said; the worker takes the next job, and is drained and returned when there is none.
    """
    async with Site(maximum=2) as site:
        await busy_site(site, jobs=1, duration=600)
        await site.kill()
        site.queue.name = QueueName("renamed")
        site.world._queues["renamed"] = site.queue
        site._group = replace(site._group, queue=site.queue.name)
        await site.up()
        said = [recorded.event.text for recorded in await site.store.events(kind="site")]
        assert said == [
            f"1 worker(s) of queues.{QUEUE} still exist, which the site file does not name: "
            "their group's queue, renamed, is taken for it"
        ]
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 1, within=30 * MINUTE)
        site.submit(1, duration=60)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 2, within=10 * MINUTE)
        await site.until(lambda: site.machines() == 0, within=30 * MINUTE)
        assert site.launches() == 1


def test_spawned_workers_live_and_end_by_their_own_word(tmp_path: Path) -> None:
    async def main() -> None:
        async with Site(maximum=2) as site:
            queue = SpawnedQueue(QUEUE, tmp_path / "spawned")
            site.queue = queue  # type: ignore[assignment]
            site.cloud.faults.inject(CloudFault.DEAD_ON_ARRIVAL)  # no agent in it: the script is played below
            await site.up()
            await asyncio.sleep(1)
            spawning = Spawning(site.controller, queue, GROUP, site.clock)
            worker = await spawning.spawn(b"#!/bin/sh\n", actor="user:ce")
            assert queue.script(worker) == b"#!/bin/sh\n"
            await site.until(lambda: bool(site.in_state(WorkerState.BOOTING)), within=MINUTE)
            await spawning.alive(worker)
            assert site.workers[0].state is WorkerState.JOINED
            second = await spawning.spawn(b"#!/bin/sh\n", actor="user:ce")
            with pytest.raises(Conflict, match="2 of at most 2"):
                await spawning.spawn(b"#!/bin/sh\n", actor="user:ce")
            await asyncio.sleep(5 * MINUTE)  # silence is no reason to end one that lives
            assert site.controller.workers[worker].state is WorkerState.JOINED
            await spawning.done(worker)
            await spawning.done(second)
            await site.until(lambda: site.machines() == 0 and not site.workers, within=10 * MINUTE)
            await site.until(lambda: not list((tmp_path / "spawned").iterdir()), within=MINUTE)
            with pytest.raises(NotFound):
                await spawning.alive(worker)
            with pytest.raises(NotFound):
                queue.mark(worker, "alive")
            await site.controller.set_wishes(GROUP, Wishes(hold=True), actor="user:op")
            with pytest.raises(Conflict, match="holds"):
                await spawning.spawn(b"#!/bin/sh\n", actor="user:ce")

    scenario(main)()
