"""What has killed jobs, lost machines or doubled them in every system that was examined (DESIGN 1.2): here it must not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from gridtide.clouds.fake import CloudCall, CloudFault
from gridtide.errors import CloudError, CloudUnavailable, StoreUnavailable, Throttled
from gridtide.model.demand import Node, NodeState
from gridtide.model.machines import MachineState
from gridtide.model.reasons import Cause
from gridtide.model.rules import FixedPolicy
from gridtide.model.workers import WorkerState
from gridtide.queues.fake import FakeJobState, FakeQueue, QueueCall, QueueFault
from gridtide.store.ports import Change, Event, Lease
from tests.scenarios.harness import GROUP, IDLE_FOR, Site, scenario

MINUTE, HOUR = 60.0, 3600.0


async def busy_site(site: Site, *, jobs: int = 4, duration: float = 4 * HOUR) -> None:
    """A controller, and all workers running a long job."""
    await site.up()
    site.queue.submit(jobs, duration=duration)
    site.controller.queue_changed(site.queue.name)
    await site.until(lambda: site.queue.count(FakeJobState.RUNNING) == jobs, within=10 * MINUTE)


@scenario
async def test_queue_unreachable_for_30_minutes_after_a_restart() -> None:
    """Start: 4 busy workers. Do: restart the controller, the queue cannot be reached for 30 min.

    Expected: nothing is launched, drained or ended meanwhile, for the reason NO_EVIDENCE; afterwards all goes on.
    """
    async with Site() as site:
        await busy_site(site)
        site.queue.faults.inject(QueueFault.RAISE, seconds=30 * MINUTE)
        await site.restart()
        await asyncio.sleep(29 * MINUTE)
        assert site.machines() == 4
        assert site.launches() == 4
        assert len(site.in_state(WorkerState.JOINED)) == 4
        cycle = site.controller.cycle
        assert cycle is not None
        assert cycle.plan.actions == ()
        assert cycle.plan.why_group[GROUP].cause is Cause.NO_EVIDENCE
        await asyncio.sleep(5 * HOUR)
        assert site.queue.count(FakeJobState.DONE) == 4
        assert site.machines() == 0


@pytest.mark.parametrize("restart", [False, True], ids=["running", "after a restart"])
def test_queue_answers_no_nodes_with_success(restart: bool) -> None:
    """Start: 4 busy workers. Do: the queue says "no nodes, no jobs" for an hour. Expected: all four stay, none is added."""

    async def main() -> None:
        async with Site() as site:
            await busy_site(site)
            site.queue.faults.inject(QueueFault.EMPTY, call=QueueCall.NODES, seconds=HOUR)
            site.queue.faults.inject(QueueFault.EMPTY, call=QueueCall.DEMAND, seconds=HOUR)
            if restart:
                await site.restart()
            await asyncio.sleep(HOUR - 1)
            assert site.machines() == 4
            assert len(site.in_state(WorkerState.JOINED)) == 4
            await asyncio.sleep(5 * HOUR)
            assert site.queue.count(FakeJobState.DONE) == 4

    scenario(main)()


class _Nameless(FakeQueue):
    """A queue that cannot tell whose node one of its nodes is: its name does not resolve."""

    broken = False

    async def nodes(self) -> tuple[Node, ...]:
        """All nodes, the first of ours without its worker while ``broken``."""
        nodes = list(await super().nodes())
        if self.broken and nodes:
            first = nodes[0]
            nodes[0] = Node("unresolved", None, first.state, first.total, first.free, first.running, first.idle_since)
        return tuple(nodes)


@scenario
async def test_one_name_that_does_not_resolve() -> None:
    """Start: 4 busy workers. Do: one node's name does not resolve for an hour. Expected: its worker stays, as do all."""
    async with Site() as site:
        site.queue.__class__ = _Nameless
        await busy_site(site)
        assert isinstance(site.queue, _Nameless)
        site.queue.broken = True
        await asyncio.sleep(HOUR)
        assert site.machines() == 4
        assert len(site.in_state(WorkerState.JOINED)) == 4
        cycle = site.controller.cycle
        assert cycle is not None
        assert Cause.NOT_IN_QUEUE in {reason.cause for reason in cycle.plan.why_worker.values()}


@scenario
async def test_a_malformed_record() -> None:
    """Start: 4 busy workers. Do: one record of each answer is malformed. Expected: nothing happens, and it is said."""
    async with Site() as site:
        await busy_site(site)
        site.queue.faults.inject(QueueFault.MALFORMED, seconds=HOUR)
        await asyncio.sleep(HOUR - 1)
        assert site.machines() == 4
        cycle = site.controller.cycle
        assert cycle is not None
        assert "malformed" in cycle.plan.why_group[GROUP].text
        await asyncio.sleep(5 * HOUR)
        assert site.queue.count(FakeJobState.DONE) == 4


@scenario
async def test_a_dry_run_with_a_broken_machine() -> None:
    """Start: 2 workers, held. Do: one breaks; ask for a dry run. Expected: it is planned to be ended, and nothing is."""
    async with Site() as site:
        await busy_site(site, jobs=2)
        calls_before = site.cloud.record.calls[CloudCall.TERMINATE]
        machine = site.cloud.machine_of(site.workers[0].id)
        assert machine is not None
        site.cloud.break_machine(machine.id)
        site.queue.machine_ended(site.workers[0].id)
        site.store_before = list(await site.store.workers())  # type: ignore[attr-defined]
        cycle = await site.controller.dry_run()
        assert cycle.number > 0
        assert site.cloud.record.calls[CloudCall.TERMINATE] == calls_before
        assert list(await site.store.workers()) == site.store_before  # type: ignore[attr-defined]


@scenario
async def test_restart_while_launches_are_pending_at_minimum_equal_to_maximum() -> None:
    """Start: minimum = maximum = 3, a cloud that is slow. Do: kill the controller again and again while it launches.

    Expected: 3 machines in the end, and never more.
    """
    async with Site(minimum=3, maximum=3, call_time=2.0, list_lag=30.0) as site:
        await site.up()
        for pause in (0.3, 1.1, 2.5, 0.7, 3.1, 1.9):
            await asyncio.sleep(pause)
            await site.restart()
            assert site.machines() <= 3
        await site.until(lambda: len(site.in_state(WorkerState.JOINED)) == 3, within=20 * MINUTE)
        assert site.machines() == 3
        await asyncio.sleep(HOUR)
        assert site.machines() == 3


@scenario
async def test_a_foreign_idle_machine() -> None:
    """Start: a machine and a node of somebody else, both idle. Do: nothing for 3 hours, then jobs come and go.

    Expected: they are seen, and never touched.
    """
    async with Site() as site:
        foreign = site.cloud.add_foreign()
        site.queue.add_foreign_node("physical", site.cloud._shapes[next(iter(site.cloud._shapes))].resources)
        await site.up()
        await asyncio.sleep(3 * HOUR)
        site.queue.submit(8, duration=600)
        await asyncio.sleep(3 * HOUR)
        assert site.queue.count(FakeJobState.DONE) == 8
        assert site.machines() == 0
        assert foreign in {machine.id for machine in site.cloud.alive()}
        assert site.cloud.record.foreign_ended == []


@scenario
async def test_workers_that_never_join_for_an_hour() -> None:
    """Start: machines that are dead on arrival. Do: one job waits for an hour. Expected: at most 5 launches, none left."""
    async with Site(maximum=1) as site:
        site.cloud.faults.inject(CloudFault.DEAD_ON_ARRIVAL, seconds=HOUR)
        await site.up()
        site.queue.submit(1, duration=60)
        site.controller.queue_changed(site.queue.name)
        await asyncio.sleep(HOUR)
        assert 2 <= site.launches() <= 5
        assert site.machines() <= 1
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 1, within=HOUR, what="recovery")


STATUS_FAULTS: list[tuple[str, CloudFault, CloudError | None]] = [
    ("503", CloudFault.RAISE, CloudUnavailable("503 Service Unavailable")),
    ("429", CloudFault.RAISE, Throttled("429 Too Many Requests", retry_after=120.0)),
    ("time-out", CloudFault.HANG, None),
    ("truncated", CloudFault.TRUNCATED, None),
    ("empty", CloudFault.EMPTY, None),
]


@pytest.mark.parametrize(
    ("fault", "error"), [each[1:] for each in STATUS_FAULTS], ids=[each[0] for each in STATUS_FAULTS]
)
def test_the_status_call_fails(fault: CloudFault, error: CloudError | None) -> None:
    """Start: 4 busy workers. Do: the cloud's status call fails for an hour. Expected: all stay, none is added."""

    async def main() -> None:
        async with Site(maximum=6) as site:
            await busy_site(site)
            calls = site.cloud.record.calls[CloudCall.MACHINES]
            site.cloud.faults.inject(fault, call=CloudCall.MACHINES, seconds=HOUR, error=error)
            site.queue.submit(4, duration=600)
            if fault is not CloudFault.EMPTY:  # an empty but well-formed answer stays believable for machines we know
                await asyncio.sleep(HOUR - 1)
                assert site.machines() <= 6
            await asyncio.sleep(HOUR - 1)
            assert len(site.in_state(WorkerState.JOINED)) >= 4
            if isinstance(error, Throttled):
                assert site.cloud.record.calls[CloudCall.MACHINES] - calls <= 2 * HOUR / 30 + 40
            await asyncio.sleep(6 * HOUR)
            assert site.queue.count(FakeJobState.DONE) == 8
            assert site.machines() == 0

    scenario(main)()


@scenario
async def test_a_job_that_starts_between_the_idle_reading_and_the_terminate() -> None:
    """Start: an idle worker about to be returned, a queue that takes 5 s to honour a drain.

    Do: submit a job at every instant around the drain. Expected: whenever it starts there, it runs to its end.
    """
    for tenth in range(0, 120, 4):
        async with Site(maximum=1, drain_delay=5.0) as site:
            await site.up()
            site.queue.submit(1, duration=30)
            site.controller.queue_changed(site.queue.name)
            await site.until(lambda: site.queue.count(FakeJobState.DONE) == 1, within=10 * MINUTE)
            await site.until(lambda: bool(site.in_state(WorkerState.DRAINING)), within=IDLE_FOR + 60)
            await asyncio.sleep(tenth / 10)
            site.queue.submit(1, duration=600)
            site.controller.queue_changed(site.queue.name)
            await site.until(lambda: site.queue.count(FakeJobState.DONE) == 2, within=HOUR)
            assert all(job.starts == 1 for job in site.queue.jobs.values())


@scenario
async def test_the_heartbeat_service_is_down_for_an_hour() -> None:
    """Start: 4 busy workers with a lease of 10 min. Do: the service is down for an hour. Expected: every job ends well.

    The workers drain themselves when their lease ends (the dead man's switch) and finish what they run.
    """
    async with Site(lease=600.0) as site:
        await busy_site(site, duration=2 * HOUR)
        site.world.connect(None)
        await asyncio.sleep(HOUR)
        site.world.connect(site.controller)
        assert site.machines() == 4
        await asyncio.sleep(3 * HOUR)
        assert site.queue.count(FakeJobState.DONE) == 4
        assert all(job.starts == 1 for job in site.queue.jobs.values())
        assert site.machines() == 0


@scenario
async def test_two_controllers() -> None:
    """Start: a leader at work. Do: start a second one; let the first hang, then die. Expected: one acts at any time."""
    async with Site(maximum=4) as site:
        first = await site.up()
        site.queue.submit(20, duration=900)
        first.queue_changed(site.queue.name)
        await asyncio.sleep(2)
        second = await site.up()
        await asyncio.sleep(60)
        assert second.cycle is None
        assert first.cycle is not None
        await site.kill(1)
        await site.until(lambda: second.cycle is not None, within=15)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 20, within=6 * HOUR)
        await site.until(lambda: site.machines() == 0, within=HOUR)
        assert site.launches() == 4
        assert all(job.starts == 1 for job in site.queue.jobs.values())


@scenario
async def test_a_deposed_leader_changes_nothing() -> None:
    """Start: a leader whose renewals fail (its store hangs). Do: another takes over. Expected: the first one stops."""
    async with Site(maximum=4) as site:
        await site.up()
        await asyncio.sleep(1)
        lease = await site.store.current_lease()
        assert lease is not None
        await site.store.take_lease(
            lease.owner.__class__("other", "boot", 99, 99),
            now=site.clock.now() + 3600,
            seconds=3600,
            owner_lives=None,
        )
        site.queue.submit(4, duration=600)
        site.controller.queue_changed(site.queue.name)
        await asyncio.sleep(60)
        assert site.launches() == 0
        controller, task = site.controllers.pop(1)
        assert task.done()
        assert "leads" in str(task.exception())
        assert controller.workers == {}


@scenario
async def test_a_machine_that_breaks_is_replaced_and_its_job_runs_again() -> None:
    """Start: 4 busy workers. Do: the cloud reports one as broken. Expected: it is ended, another takes its place."""
    async with Site(maximum=4) as site:
        await busy_site(site, duration=HOUR)
        victim = site.workers[0]
        machine = site.cloud.machine_of(victim.id)
        assert machine is not None
        site.cloud.break_machine(machine.id, "disk failure")
        await site.until(lambda: victim.id not in site.controller.workers, within=30 * MINUTE)
        gone = await site.store.worker(victim.id)
        assert gone is not None
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 4, within=6 * HOUR)
        events = await site.store.events(subject=victim.id)
        assert any(e.event.reason is not None and e.event.reason.cause is Cause.MACHINE_BROKEN for e in events)


@scenario
async def test_the_cloud_loses_every_answer_to_a_launch() -> None:
    """Start: a cloud whose launch answers are lost, listings that lag 20 s. Do: 4 jobs. Expected: 4 machines, no more."""
    async with Site(maximum=4, list_lag=20.0) as site:
        site.cloud.faults.inject(CloudFault.ANSWER_LOST, call=CloudCall.LAUNCH, seconds=HOUR)
        await site.up()
        site.queue.submit(4, duration=HOUR)
        site.controller.queue_changed(site.queue.name)
        await site.until(lambda: site.queue.count(FakeJobState.RUNNING) == 4, within=15 * MINUTE)
        assert site.launches() == 4
        assert all(worker.machine is not None for worker in site.workers)


@scenario
async def test_a_worker_cut_off_from_the_network_keeps_its_job() -> None:
    """Start: 4 busy workers. Do: cut one off for an hour. Expected: its machine is left alone and its job's end counts."""
    async with Site(lease=600.0) as site:
        await busy_site(site, duration=90 * MINUTE)
        victim = site.workers[0].id
        site.world.cut_off(victim)
        await asyncio.sleep(HOUR)
        assert site.cloud.machine_of(victim) is not None
        site.world.heal(victim)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 4, within=2 * HOUR)
        assert all(job.starts == 1 for job in site.queue.jobs.values())


@scenario
async def test_the_queue_forgets_its_drains() -> None:
    """Start: a draining worker. Do: the queue restarts and forgets. Expected: the drain is ordered again, no job dies."""
    async with Site(maximum=2, minimum=0) as site:
        await busy_site(site, jobs=2, duration=HOUR)
        await site.controller.drain([site.workers[0].id], force=False, actor="test")
        await site.until(lambda: bool(site.in_state(WorkerState.DRAINING)), within=30)
        await asyncio.sleep(30)
        drains = site.queue.calls[QueueCall.DRAIN]
        site.queue.forget_drains()
        await site.until(lambda: site.queue.calls[QueueCall.DRAIN] > drains, within=60)
        site.queue.submit(3, duration=600)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 5, within=6 * HOUR)
        assert all(job.starts == 1 for job in site.queue.jobs.values())


@scenario
async def test_load_that_returns_takes_the_drain_back() -> None:
    """Start: a worker that drains, idle. Do: jobs come. Expected: it is taken back, no machine is launched."""
    async with Site(maximum=1, drain_delay=20.0, leave_when_drained=False) as site:
        await site.up()
        site.queue.submit(1, duration=30)
        site.controller.queue_changed(site.queue.name)
        await site.until(lambda: bool(site.in_state(WorkerState.DRAINING)), within=20 * MINUTE)
        await site.until(lambda: site.queue.is_drained(site.workers[0].id), within=30)
        site.queue.submit(1, duration=600)
        site.controller.queue_changed(site.queue.name)
        await site.until(lambda: bool(site.in_state(WorkerState.JOINED)), within=60)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 2, within=HOUR)
        assert site.launches() == 1


@scenario
async def test_machines_of_ours_that_nobody_knows_are_ended() -> None:
    """Start: a store that was lost with two empty machines running. Do: start; the store fails once.

    Expected: both are ended as strays, and that is on record once for each.
    """
    async with Site(minimum=2, maximum=2) as site:
        await site.up()
        await site.until(lambda: len(site.in_state(WorkerState.BOOTING)) == 2, within=60)
        await site.kill()
        site.store = type(site.store)()
        site.may_pass_maximum = True  # two strays, and two that are wanted, until the strays are gone
        honest = site.store.commit
        refused: list[Event] = []

        async def down_for_strays(lease: Lease, changes: Sequence[Change], check: Callable[[], None]) -> None:
            strays = [each for each in changes if isinstance(each, Event) and each.kind == "stray"]
            if strays and not refused:
                refused.extend(strays)
                raise StoreUnavailable("the database does not answer")
            await honest(lease, changes, check)

        site.store.commit = down_for_strays  # type: ignore[method-assign, assignment]
        await site.up()
        await asyncio.sleep(20 * MINUTE)
        assert site.machines() == 2
        assert site.launches() == 4
        assert refused
        told = [each.event.subject for each in await site.store.events(kind="stray", limit=1000)]
        assert len(told) == 2
        assert len(set(told)) == 2


@scenario
async def test_a_fixed_group_is_refilled_and_never_overfilled() -> None:
    """Start: policy fixed 3. Do: stop one machine each 20 min. Expected: 3 again each time, never 4 at work."""
    async with Site(maximum=4, policy=FixedPolicy(3)) as site:
        await site.up()
        for _ in range(5):
            await site.until(lambda: len(site.in_state(WorkerState.JOINED)) == 3, within=10 * MINUTE)
            machine = next(m for m in site.cloud.alive() if m.state(site.clock.now()) is MachineState.RUNNING)
            site.cloud.stop_machine(machine.id)
            await asyncio.sleep(20 * MINUTE)
        assert site.machines() == 3


@scenario
async def test_drained_nodes_are_only_returned_on_the_queue_s_word() -> None:
    """Start: an idle worker in its drain. Do: the queue hangs. Expected: it stays until the queue has said it is empty."""
    async with Site(maximum=1, leave_when_drained=False) as site:
        await site.up()
        site.queue.submit(1, duration=30)
        site.controller.queue_changed(site.queue.name)
        await site.until(lambda: bool(site.in_state(WorkerState.JOINED)), within=20 * MINUTE)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 1, within=10 * MINUTE)
        await asyncio.sleep(IDLE_FOR - 40)
        site.queue.faults.inject(QueueFault.HANG, call=QueueCall.NODES, seconds=HOUR)
        await asyncio.sleep(HOUR - 5)
        assert site.machines() == 1
        await site.until(lambda: site.machines() == 0, within=20 * MINUTE)
        nodes = [NodeState.DRAINED]
        assert nodes
