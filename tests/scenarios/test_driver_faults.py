"""Drivers that fail in every way they should not: each fault stays with its own source."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from gridtide.clouds.fake import CloudCall, CloudFault, FakeCloud
from gridtide.clouds.protocol import LaunchRequest
from gridtide.control.breaker import AFTER_REFUSAL
from gridtide.errors import CloudError, GridtideError, NoCapacity, QueueError, StoreUnavailable, Throttled
from gridtide.model.ids import MachineId, ShapeName, WorkerId
from gridtide.model.machines import Quota
from gridtide.model.reasons import Cause
from gridtide.model.resources import Resources, Shape
from gridtide.model.workers import Worker, WorkerState
from gridtide.planning import Planner
from gridtide.queues.fake import FakeJobState, FakeQueue, QueueCall, QueueFault
from gridtide.queues.protocol import Outcome
from gridtide.store.ports import Change, Lease, UpdateWorker
from tests.scenarios.harness import GROUP, QUEUE, SHAPE, Site, scenario
from tests.scenarios.test_fatal_cases import HOUR, MINUTE, busy_site


class _Raising(FakeCloud):
    """A driver with bugs: it raises what is no CloudError, or forgets to answer for a worker."""

    launch_bug = "raises"
    end_bug = "raises"

    async def launch(self, requests: Sequence[LaunchRequest]) -> Mapping[WorkerId, MachineId | CloudError]:
        """Makes the machines, and then fails."""
        made = await super().launch(requests)
        if self.launch_bug == "raises":
            raise ZeroDivisionError("in the driver")
        return {} if self.launch_bug == "forgets" else made

    async def terminate(self, machines: Sequence[MachineId]) -> Mapping[MachineId, CloudError | None]:
        """Fails before it does anything, or ends them and forgets to say so."""
        if self.end_bug == "raises":
            raise ZeroDivisionError("in the driver")
        done = await super().terminate(machines)
        return {} if self.end_bug == "forgets" else done


@pytest.mark.parametrize("bug", ["raises", "forgets"])
def test_a_cloud_driver_with_bugs_loses_and_doubles_nothing(bug: str) -> None:
    async def main() -> None:
        async with Site(maximum=2) as site:
            site.cloud.__class__ = _Raising
            assert isinstance(site.cloud, _Raising)
            site.cloud.launch_bug = site.cloud.end_bug = bug
            await site.up()
            site.queue.submit(4, duration=600)
            site.controller.queue_changed(QUEUE)
            await site.until(lambda: site.queue.count(FakeJobState.DONE) == 4, within=2 * HOUR)
            await asyncio.sleep(20 * MINUTE)
            calls = site.cloud.record.calls[CloudCall.TERMINATE]
            await asyncio.sleep(10 * MINUTE)
            assert site.cloud.record.calls[CloudCall.TERMINATE] - calls <= 60
            site.cloud.launch_bug = site.cloud.end_bug = ""
            await site.until(lambda: site.machines() == 0 and not site.workers, within=HOUR)
            assert site.launches() == 2

    scenario(main)()


@scenario
async def test_terminate_calls_that_fail_or_hang_are_repeated_with_patience() -> None:
    async with Site(maximum=1) as site:
        await busy_site(site, jobs=1, duration=600)
        site.cloud.faults.inject(CloudFault.RAISE, call=CloudCall.TERMINATE, seconds=30 * MINUTE)
        site.cloud.faults.inject(CloudFault.HANG, call=CloudCall.TERMINATE, after=30 * MINUTE, seconds=10 * MINUTE)
        await asyncio.sleep(40 * MINUTE)
        assert 3 <= site.cloud.record.calls[CloudCall.TERMINATE] <= 80
        await site.until(lambda: site.machines() == 0 and not site.workers, within=30 * MINUTE)


@scenario
async def test_a_machine_is_ended_again_only_when_it_is_still_listed() -> None:
    """Start: a machine that was idle. Do: nobody can list machines when its end is asked for; then it takes 10 min.

    Expected: one call until there is a listing, and few of them while it goes on to name the machine.
    """
    async with Site(maximum=1) as site:
        await busy_site(site, jobs=1, duration=600)
        calls = site.cloud.record.calls
        site.cloud.end_time = 40 * MINUTE
        site.cloud.faults.inject(CloudFault.RAISE, call=CloudCall.MACHINES, after=600, seconds=30 * MINUTE)
        await site.until(lambda: calls[CloudCall.TERMINATE] == 1, within=30 * MINUTE)
        for number in range(5):  # whatever else happens
            await asyncio.sleep(2 * MINUTE)
            site.queue.submit(1, duration=1, need=SHAPE.resources.times(99))
            site.controller.queue_changed(QUEUE)
            assert calls[CloudCall.TERMINATE] == 1, number
        await site.until(lambda: site.machines() == 0 and not site.workers, within=HOUR)
        assert 3 <= calls[CloudCall.TERMINATE] <= 30
        site.queue.cancel_waiting()


@scenario
async def test_a_launch_that_is_refused_is_told_and_not_hammered() -> None:
    async with Site(maximum=2) as site:
        site.cloud.faults.inject(CloudFault.REFUSE, seconds=HOUR, error=NoCapacity("sold out", where="cloud"))
        await site.up()
        site.queue.submit(2, duration=60)
        site.controller.queue_changed(QUEUE)
        await asyncio.sleep(50 * MINUTE)
        assert site.launches() == 0
        assert site.cloud.record.calls[CloudCall.LAUNCH] <= 10
        cycle = site.controller.cycle
        assert cycle is not None
        assert "sold out" in cycle.plan.why_group[GROUP].text
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 2, within=2 * HOUR)


@pytest.mark.parametrize("refused_first", [True, False])
def test_a_cloud_that_grants_a_part_of_a_launch_is_not_asked_again_for_the_rest_at_once(refused_first: bool) -> None:
    """Start: 4 jobs. Do: of 4 machines in one call the cloud makes some and has no room for others.

    Expected: no call for more within the breaker's first pause, whichever the answer names first.
    """

    async def main() -> None:
        async with Site() as site:
            if refused_first:
                site.cloud.faults.inject(CloudFault.REFUSE, times=1)
            else:
                site.cloud.quota = Quota(machines=3)
            await site.up()
            site.submit(4, duration=600)
            await site.until(lambda: site.launches() == 3, within=MINUTE)
            await asyncio.sleep(AFTER_REFUSAL - 5)
            assert site.cloud.record.calls[CloudCall.LAUNCH] == 1
            await site.until(lambda: site.cloud.record.calls[CloudCall.LAUNCH] == 2, within=MINUTE)

    scenario(main)()


@scenario
async def test_a_machine_that_joins_after_a_refusal_is_no_sign_of_room() -> None:
    """Start: a machine boots. Do: the cloud is sold out, more jobs come, a launch is refused, and the machine joins.

    Expected: the join does not make the cloud look as if it had room: no call within the breaker's first pause.
    """
    async with Site() as site:
        await site.up()
        site.submit(1, duration=HOUR)
        await site.until(lambda: site.launches() == 1, within=MINUTE)
        await asyncio.sleep(50)
        site.cloud.faults.inject(CloudFault.REFUSE, seconds=HOUR)
        site.submit(1, duration=HOUR)
        await site.until(lambda: len(site.in_state(WorkerState.JOINED)) == 1, within=MINUTE)
        assert site.cloud.record.calls[CloudCall.LAUNCH] == 2
        await asyncio.sleep(AFTER_REFUSAL - 20)
        assert site.cloud.record.calls[CloudCall.LAUNCH] == 2
        await site.until(lambda: site.cloud.record.calls[CloudCall.LAUNCH] == 3, within=MINUTE)


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_cloud_that_breaks_what_it_has_accepted_is_not_hammered(jobs: int) -> None:
    """Start: jobs wait. Do: for 40 min each launch is accepted and its machine is BROKEN 3 s later (no host has room).

    Expected: few machines are tried, ever more rarely; the reason has the cloud's words; all workers are gone again.
    One machine that joins, and the others follow at once.
    """

    async def main() -> None:
        async with Site(boot_time=3.0) as site:
            site.cloud.faults.inject(CloudFault.BOOT_FAILS, seconds=40 * MINUTE)
            await site.up()
            site.submit(jobs, duration=HOUR)
            await asyncio.sleep(10 * MINUTE)
            tried = site.launches()
            assert jobs <= tried <= jobs + 4
            cycle = site.controller.cycle
            assert cycle is not None
            assert cycle.plan.why_group[GROUP].cause is Cause.CLOUD_REFUSING
            assert "no bootable device" in cycle.plan.why_group[GROUP].text
            await asyncio.sleep(30 * MINUTE)
            assert 1 <= site.launches() - tried <= 3
            assert site.machines() == 0
            tried = site.launches()
            await site.until(lambda: site.launches() > tried, within=HOUR)
            assert site.launches() == tried + 1
            await site.until(lambda: len(site.in_state(WorkerState.JOINED)) == 1, within=MINUTE)
            await site.until(lambda: len(site.in_state(WorkerState.JOINED)) == jobs, within=MINUTE)
            assert site.launches() == tried + jobs

    scenario(main)()


@scenario
async def test_a_machine_that_breaks_among_many_that_join_stops_nothing() -> None:
    """Start: 4 jobs. Do: one of 4 machines breaks while they boot. Expected: it is replaced at once when others join."""
    async with Site() as site:
        await site.up()
        site.submit(4, duration=HOUR)
        await site.until(lambda: site.launches() == 4, within=MINUTE)
        await asyncio.sleep(20)
        site.cloud.break_machine(next(site.cloud.alive()).id)
        await site.until(lambda: len(site.in_state(WorkerState.BOOTING)) == 3, within=MINUTE)
        assert site.launches() == 4
        await site.until(lambda: len(site.in_state(WorkerState.JOINED)) == 3, within=MINUTE)
        await site.until(lambda: site.launches() == 5, within=5)
        await site.until(lambda: len(site.in_state(WorkerState.JOINED)) == 4, within=2 * MINUTE)


@scenario
async def test_a_probe_that_waits_for_its_call_is_the_only_one() -> None:
    """Start: a shape was refused, jobs wait for it. Do: 4 launch calls of another shape hang, so that none else is made.

    Expected: however many cycles pass after the pause, one worker waits to be the probe.
    """
    wide = Shape(ShapeName("wide"), Resources(4, 4096, 4096))
    async with Site(maximum=40, more_shapes=[wide], queues=2) as site:
        site._group = replace(site._group, shapes=(SHAPE.name,))
        others = site.add_group("others", shapes=[wide], queue=1)
        site.cloud.sold_out.add((None, SHAPE.name))
        await site.up()
        site.submit(10, duration=HOUR)
        await asyncio.sleep(5)
        assert site.cloud.record.calls[CloudCall.LAUNCH] == 1
        site.cloud.faults.inject(CloudFault.HANG, call=CloudCall.LAUNCH, times=4)
        for _ in range(4):
            site.submit(1, duration=HOUR, queue=1, need=wide.resources)
            await asyncio.sleep(2)
        assert site.cloud.record.calls[CloudCall.LAUNCH] == 5, site.describe()
        await asyncio.sleep(AFTER_REFUSAL)
        for _ in range(8):
            site.controller.wake("again")
            await asyncio.sleep(1)
            assert len([each for each in site.in_state(WorkerState.INTENDED) if each.group != others]) == 1


@scenario
async def test_a_cloud_that_throttles_terminates_is_left_alone_for_as_long_as_it_asks() -> None:
    """Start: 4 workers whose jobs end one after the other. Do: the cloud answers terminates with Retry-After 2 min.

    Expected: that is meant for all machines, not for each of them: one call in 2 min; afterwards all are ended.
    """
    async with Site() as site:
        await site.up()
        for number in range(4):
            site.submit(1, duration=600 + 20 * number)
        error = Throttled("429", retry_after=2 * MINUTE, where="cloud")
        site.cloud.faults.inject(CloudFault.RAISE, call=CloudCall.TERMINATE, seconds=40 * MINUTE, error=error)
        await asyncio.sleep(40 * MINUTE)
        assert 5 <= site.cloud.record.calls[CloudCall.TERMINATE] <= 12
        await site.until(lambda: site.machines() == 0 and not site.workers, within=4 * MINUTE)


@scenario
async def test_a_launch_that_hangs_is_found_by_its_tag() -> None:
    async with Site(maximum=1) as site:
        site.cloud.faults.inject(CloudFault.HANG_AFTER, call=CloudCall.LAUNCH, times=1)
        await site.up()
        site.queue.submit(1, duration=600)
        site.controller.queue_changed(QUEUE)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 1, within=HOUR)
        assert site.launches() == 1


@scenario
async def test_a_context_that_cannot_be_made_refuses_the_launch() -> None:
    async with Site(maximum=1) as site:
        await site.up()
        hands = next(iter(site.controller._cloud_hands.values()))

        def fails(worker: Worker, token: str) -> bytes:
            raise GridtideError("no such variable", where="worker.yaml:3")

        hands.settings = replace(hands.settings, render=fails)
        site.queue.submit(1, duration=60)
        site.controller.queue_changed(QUEUE)
        await asyncio.sleep(5)
        assert site.launches() == 0
        cycle = site.controller.cycle
        assert cycle is not None
        assert "worker.yaml:3" in cycle.plan.why_group[GROUP].text
        events = await site.store.events(kind="worker")
        assert Cause.LAUNCH_REFUSED in {each.event.reason.cause for each in events if each.event.reason is not None}


class _BadQueue(FakeQueue):
    """A driver with bugs: it raises what is no QueueError, or forgets to answer for a worker."""

    bug = ""

    async def drain(self, workers: Mapping[WorkerId, object]) -> Mapping[WorkerId, Outcome]:
        """As told, and then as the bug wants it."""
        if self.bug == "raises":
            raise ZeroDivisionError("in the driver")
        done = await super().drain(workers)  # type: ignore[arg-type]
        return {} if self.bug == "forgets" else done


@pytest.mark.parametrize("bug", ["raises", "forgets"])
def test_a_queue_driver_with_bugs_never_lets_a_worker_be_returned_too_early(bug: str) -> None:
    async def main() -> None:
        async with Site(maximum=1, leave_when_drained=False) as site:
            site.queue.__class__ = _BadQueue
            assert isinstance(site.queue, _BadQueue)
            site.queue.bug = bug
            await busy_site(site, jobs=1, duration=60)
            await asyncio.sleep(HOUR)
            assert len(site.in_state(WorkerState.DRAINING)) == 1
            assert site.machines() == 1
            site.queue.bug = ""
            await site.until(lambda: site.machines() == 0, within=10 * MINUTE)

    scenario(main)()


@pytest.mark.parametrize("fault", [QueueFault.RAISE, QueueFault.HANG, QueueFault.REFUSE, QueueFault.ANSWER_LOST])
def test_orders_to_a_queue_are_repeated_until_it_takes_them(fault: QueueFault) -> None:
    async def main() -> None:
        async with Site(maximum=1, leave_when_drained=False) as site:
            await busy_site(site, jobs=1, duration=60)
            site.queue.faults.inject(fault, call=QueueCall.DRAIN, seconds=HOUR)
            site.queue.faults.inject(fault, call=QueueCall.FORGET, seconds=HOUR)
            await asyncio.sleep(40 * MINUTE)
            assert 2 <= site.queue.calls[QueueCall.DRAIN] <= 200
            assert site.machines() == 1
            await site.until(lambda: site.machines() == 0 and not site.workers, within=HOUR)
            await site.until(lambda: site.queue.calls[QueueCall.FORGET] > 0, within=HOUR)

    scenario(main)()


@scenario
async def test_a_queue_that_does_not_admit_a_worker_is_asked_again() -> None:
    async with Site(maximum=1) as site:
        site.queue.faults.inject(QueueFault.RAISE, call=QueueCall.JOIN, times=2, error=QueueError("busy"))
        await site.up()
        site.queue.submit(1, duration=60)
        site.controller.queue_changed(QUEUE)
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 1, within=HOUR)
        assert site.launches() == 1


@scenario
async def test_a_store_that_is_down_stops_nothing_but_decisions() -> None:
    async with Site(maximum=2) as site:
        await busy_site(site, jobs=1, duration=HOUR)
        honest, honest_renew = site.store.commit, site.store.renew_lease

        async def down(*_: object, **__: object) -> None:
            raise StoreUnavailable("the database does not answer")

        site.store.commit = down  # type: ignore[method-assign]
        site.queue.submit(1, duration=600)
        site.controller.queue_changed(QUEUE)
        site.store.renew_lease = down  # type: ignore[method-assign, assignment]
        await asyncio.sleep(5)
        site.store.renew_lease = honest_renew  # type: ignore[method-assign]
        await asyncio.sleep(25)
        assert site.launches() == 1
        site.store.commit = honest  # type: ignore[method-assign]
        await site.until(lambda: site.launches() == 2, within=MINUTE)


@pytest.mark.parametrize("first", ["renewal", "record"])
def test_a_controller_that_was_stopped_for_longer_than_its_lease_plans_anew(first: str) -> None:
    """Start: a launch has been planned. Do: stop the controller before it is recorded; cancel the job; let it go on.

    Expected: nothing is launched, whether it renews its lease first or records its plan.
    """

    async def main() -> None:
        async with Site(maximum=2) as site:
            await site.up()
            await asyncio.sleep(MINUTE)
            goes_on = {"renewal": asyncio.Event(), "record": asyncio.Event()}
            honest, honest_renew = site.store.commit, site.store.renew_lease
            held = asyncio.Event()

            async def commit(*given: object) -> None:
                held.set()
                await goes_on["record"].wait()
                await honest(*given)  # type: ignore[arg-type]

            async def renew(lease: Lease, *, now: float, seconds: float) -> Lease:
                if held.is_set():
                    await goes_on["renewal"].wait()
                return await honest_renew(lease, now=now, seconds=seconds)

            site.store.commit, site.store.renew_lease = commit, renew  # type: ignore[method-assign, assignment]
            site.queue.submit(1, duration=600)
            site.controller.queue_changed(QUEUE)
            await asyncio.wait_for(held.wait(), MINUTE)
            await asyncio.sleep(20.0)  # longer than its lease, and than a reading is good for
            site.queue.cancel_waiting()
            for which in sorted(goes_on, key=lambda which: which != first):
                goes_on[which].set()
                await asyncio.sleep(0.5)
            await asyncio.sleep(10 * MINUTE)
            assert site.launches() == 0
            site.queue.submit(1, duration=600)
            site.controller.queue_changed(QUEUE)
            await site.until(lambda: site.launches() == 1, within=MINUTE)

    scenario(main)()


@scenario
async def test_a_launch_whose_call_would_come_too_late_is_not_made() -> None:
    """Start: a launch is being recorded. Do: stop the controller for 21 s, less than would cost it the lease.

    Expected: that call is not made, and the cloud is asked for another worker soon.
    """
    async with Site(maximum=2) as site:
        await site.up()
        await asyncio.sleep(MINUTE)
        honest, held_up = site.store.commit, 21.0

        async def commit(lease: Lease, changes: Sequence[Change], *given: object) -> None:
            nonlocal held_up
            await honest(lease, changes, *given)  # type: ignore[arg-type]
            if any(isinstance(each, UpdateWorker) and each.worker.state is WorkerState.LAUNCHING for each in changes):
                await asyncio.sleep(held_up)
                held_up = 0.0

        site.store.commit = commit  # type: ignore[method-assign, assignment]
        site.queue.submit(1, duration=600)
        site.controller.queue_changed(QUEUE)
        await site.until(lambda: held_up == 0.0, within=MINUTE)
        await asyncio.sleep(0.1)
        assert site.launches() == 0
        told = [str(each.event.reason) for each in await site.store.events(limit=9)]
        assert any("not sent: 21 s passed between its record and the call" in text for text in told)
        await site.until(lambda: site.launches() == 1, within=MINUTE)


@scenario
async def test_a_store_that_is_slow_does_not_make_the_loop_rest_for_longer() -> None:
    """The loop rests in proportion to what it did itself: it once rested a minute after 20 s of waiting for a commit."""
    async with Site(maximum=3) as site:
        await busy_site(site, jobs=1, duration=HOUR)
        honest = site.store.commit

        async def slow(*given: object) -> None:
            await asyncio.sleep(20)
            await honest(*given)  # type: ignore[arg-type]

        site.store.commit = slow  # type: ignore[method-assign, assignment]
        site.queue.submit(1, duration=600)
        site.controller.queue_changed(QUEUE)
        # Two commits come before the call: the intent, and that the cloud is asked.
        await site.until(lambda: site.launches() == 2, within=45.0)
        # The next decision waits for those commits that are under way, and for no rest.
        site.queue.submit(1, duration=600)
        site.controller.queue_changed(QUEUE)
        await site.until(lambda: site.launches() == 3, within=105.0)


@scenario
async def test_a_fault_in_planning_is_survived() -> None:
    async with Site(maximum=1) as site:
        await site.up()
        await asyncio.sleep(5)
        honest = Planner.plan
        failed: list[float] = []

        def broken(*_: object) -> object:
            failed.append(site.clock.now())
            raise ZeroDivisionError("in planning")

        Planner.plan = broken  # type: ignore[method-assign,assignment]
        try:
            site.queue.submit(1, duration=60)
            await asyncio.sleep(60)
        finally:
            Planner.plan = honest  # type: ignore[method-assign]
        assert 2 <= len(failed) <= 70
        await site.until(lambda: site.queue.count(FakeJobState.DONE) == 1, within=HOUR)
