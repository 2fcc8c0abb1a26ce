"""Every rule that a simulation watches is noticed when it is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gridtide.clouds.fake import SMALL, CloudFault
from gridtide.clouds.protocol import LaunchRequest
from gridtide.errors import Throttled
from gridtide.model.ids import CloudName, Generation, GroupName, MachineId, WorkerId
from gridtide.model.machines import Quota
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import CloudRules
from gridtide.model.workers import Worker, WorkerState
from gridtide.sim.cloud import CloudModel, SimulatedCloud
from gridtide.sim.setting import standard_setting
from gridtide.sim.watch import ASK_AGAIN, LEFT_AFTER, ORPHAN_AFTER, Rule, Watch
from gridtide.store.ports import AddWorker, UpdateWorker
from gridtide.testing.clocks import ManualClock

GROUP, CLOUD, OTHER = GroupName("grid"), CloudName("cloud"), CloudName("other")


class Bench:
    def __init__(self, *, maximum: int = 2, quota: Quota | None = None) -> None:
        rules = standard_setting().rules
        self.clock = ManualClock()
        self.cloud, self.other = (
            SimulatedCloud(name, self.clock, 0, CloudModel((SMALL,)), settle=0.0) for name in (CLOUD, OTHER)
        )
        group = replace(rules.groups[GROUP], maximum=maximum)
        rules = replace(
            rules,
            groups={GROUP: group},
            clouds={name: CloudRules(name, quota or Quota(), 0.0) for name in (CLOUD, OTHER)},
        )
        self.watch = Watch(rules, [self.cloud, self.other], self.clock.now)
        self.watch.attach()

    async def launch(self, *names: str, cloud: SimulatedCloud | None = None) -> list[MachineId]:
        requests = [LaunchRequest(WorkerId(name), GROUP, SMALL.name, None, None, b"") for name in names]
        made = await (cloud or self.cloud).launch(requests)
        return [machine for machine in made.values() if isinstance(machine, str)]

    @property
    def broken(self) -> set[Rule]:
        return {each.rule for each in self.watch.found}


def worker(state: WorkerState, text: str = "because") -> Worker:
    reason = Reason(Cause.DEMAND, text)
    return Worker(WorkerId("a"), GROUP, CLOUD, SMALL, None, Generation("1"), False, state, 0.0, 0.0, reason)


async def test_nothing_is_broken_by_what_is_right() -> None:
    bench = Bench()
    first, _ = await bench.launch("a", "b")
    bench.watch.recorded([AddWorker(worker(WorkerState.INTENDED))])
    bench.watch.recorded([UpdateWorker(WorkerState.INTENDED, worker(WorkerState.LAUNCHING))])
    bench.watch.joined(replace(worker(WorkerState.JOINED), id=WorkerId("b")))
    await bench.cloud.terminate([first])
    bench.clock.advance(10 * ORPHAN_AFTER)
    bench.watch.happened("time passes")
    assert bench.broken == set()
    assert bench.watch.decisions == 3
    assert bench.watch.events == 7


async def test_a_job_that_is_killed() -> None:
    bench = Bench()
    bench.cloud.jobs_on = lambda _: ["17"]
    machines = await bench.launch("a")
    await bench.cloud.terminate(machines)
    assert bench.broken == {Rule.JOB_KILLED}
    assert "jobs 17" in bench.watch.found[0].text


async def test_more_machines_than_the_maximum() -> None:
    bench = Bench()
    await bench.launch("a", "b", "c")
    assert bench.broken == {Rule.MAXIMUM}


async def test_more_machines_than_the_quota() -> None:
    bench = Bench(quota=Quota(cores=1))
    await bench.launch("a", "b")
    assert bench.broken == {Rule.QUOTA}


async def test_two_machines_of_one_worker() -> None:
    bench = Bench()
    bench.cloud.faults.inject(CloudFault.DOUBLES)
    await bench.launch("a")
    await bench.launch("a")
    assert bench.broken == {Rule.DOUBLE}


async def test_two_machines_of_one_worker_in_two_clouds() -> None:
    bench = Bench()
    first = await bench.launch("a")
    await bench.cloud.terminate(first)
    await bench.launch("a")
    assert bench.broken == set()
    await bench.launch("a", cloud=bench.other)
    assert bench.broken == {Rule.DOUBLE}


async def test_a_machine_of_somebody_else() -> None:
    bench = Bench()
    await bench.cloud.terminate([bench.cloud.add_foreign()])
    await bench.other.terminate([bench.other.add_foreign()])
    assert bench.watch.counts == {Rule.FOREIGN: 2}


async def test_an_orphan_is_given_time_to_be_found() -> None:
    bench = Bench()
    await bench.launch("a")
    bench.clock.advance(ORPHAN_AFTER - 1.0)
    bench.watch.happened("time passes")
    assert bench.broken == set()
    bench.clock.advance(1.0)
    bench.watch.happened("time passes")
    assert bench.broken == {Rule.ORPHAN}


async def test_an_orphan_is_one_from_the_moment_that_its_worker_is_recorded_as_gone() -> None:
    bench = Bench()
    bench.watch.recorded([AddWorker(worker(WorkerState.INTENDED))])
    await bench.launch("a")
    bench.clock.advance(2 * ORPHAN_AFTER)
    bench.watch.recorded([UpdateWorker(WorkerState.TERMINATING, worker(WorkerState.GONE))])
    assert bench.broken == set()
    bench.clock.advance(ORPHAN_AFTER)
    bench.watch.happened("time passes")
    assert bench.broken == {Rule.ORPHAN}


async def test_what_depends_on_sources_takes_as_much_longer_as_they_were_broken() -> None:
    bench = Bench()
    blind = [0.0]
    bench.watch.blind = lambda: blind[0]
    await bench.launch("a")
    blind[0] = 300.0
    bench.clock.advance(ORPHAN_AFTER + 299.0)
    bench.watch.happened("time passes")
    bench.watch.happened("time passes")
    assert bench.broken == set()
    bench.clock.advance(301.0)
    bench.watch.happened("time passes")
    assert bench.broken == {Rule.ORPHAN}


@pytest.mark.parametrize("state", [WorkerState.LAUNCHING, WorkerState.BOOTING, WorkerState.JOINED])
async def test_a_machine_that_never_joins_is_not_kept_for_ever(state: WorkerState) -> None:
    bench = Bench()
    await bench.launch("a")
    bench.watch.recorded([UpdateWorker(state, worker(state))])
    bench.clock.advance(LEFT_AFTER)
    bench.watch.happened("time passes")
    assert bench.broken == (set() if state is WorkerState.JOINED else {Rule.LEFT})


async def test_nor_is_one_that_stopped_from_the_moment_it_did() -> None:
    bench = Bench()
    (machine,) = await bench.launch("a")
    bench.watch.recorded([UpdateWorker(WorkerState.JOINED, worker(WorkerState.JOINED))])
    bench.clock.advance(LEFT_AFTER - 1.0)
    bench.cloud.stop_machine(machine)
    bench.clock.advance(LEFT_AFTER - 1.0)
    bench.watch.happened("time passes")
    assert bench.broken == set()
    bench.clock.advance(1.0)
    bench.watch.happened("time passes")
    assert bench.broken == {Rule.LEFT}


@pytest.mark.parametrize("state", [WorkerState.FAILED, WorkerState.TERMINATING])
async def test_nor_is_one_that_was_given_up_whose_end_nobody_brings_about(state: WorkerState) -> None:
    bench = Bench()
    machines = await bench.launch("a")
    bench.watch.recorded([UpdateWorker(WorkerState.JOINED, worker(WorkerState.JOINED))])
    bench.clock.advance(2 * LEFT_AFTER)
    bench.watch.recorded([UpdateWorker(WorkerState.JOINED, worker(state))])
    bench.clock.advance(LEFT_AFTER - 1.0)
    bench.watch.recorded([UpdateWorker(state, worker(state))])
    assert bench.broken == set()
    bench.clock.advance(1.0)
    bench.watch.happened("time passes")
    assert bench.broken == {Rule.LEFT}
    await bench.cloud.terminate(machines)
    bench.clock.advance(LEFT_AFTER)
    bench.watch.happened("time passes")
    assert bench.watch.counts == {Rule.LEFT: 1}


@pytest.mark.parametrize(("pause", "broken"), [(0.5, False), (10.0, True), (ASK_AGAIN, False)])
async def test_a_cloud_without_room_is_not_asked_again_at_once(pause: float, broken: bool) -> None:
    bench = Bench()
    bench.cloud.sold_out = {(None, SMALL.name)}
    await bench.launch("a")
    bench.clock.advance(pause)
    await bench.launch("b")
    assert bench.broken == ({Rule.HAMMERED} if broken else set())


@pytest.mark.parametrize(("pause", "broken"), [(0.5, False), (10.0, True), (30.0, False)])
async def test_a_cloud_that_throttles_is_left_alone_as_long_as_it_asks(pause: float, broken: bool) -> None:
    bench = Bench()
    bench.cloud.faults.inject(CloudFault.RAISE, times=1, error=Throttled("429", retry_after=30.0))
    with pytest.raises(Throttled):
        await bench.cloud.machines()
    bench.clock.advance(pause)
    await bench.cloud.shapes()
    assert bench.broken == set()
    await bench.cloud.machines()
    assert bench.broken == ({Rule.HAMMERED} if broken else set())


@pytest.mark.parametrize(("age", "broken"), [(60.0, False), (60.5, True)])
def test_a_price_of_the_past(age: float, broken: bool) -> None:
    bench = Bench()
    bench.watch.price_age = 60.0
    bench.cloud.price({SMALL.name: 5.0})
    bench.watch.priced(bench.cloud)
    bench.clock.advance(age)
    bench.watch.priced(bench.cloud)
    bench.watch.recorded([AddWorker(worker(WorkerState.INTENDED))])
    assert bench.broken == ({Rule.OLD_PRICE} if broken else set())


def test_a_controller_that_does_not_lead_any_more() -> None:
    bench = Bench()
    bench.watch.recorded([UpdateWorker(WorkerState.JOINED, worker(WorkerState.JOINED))], deposed=True)
    assert bench.broken == {Rule.DEPOSED}


def test_further_checks_are_asked_after_every_event_and_a_breach_says_where_to_look() -> None:
    bench = Bench()
    bench.watch.seed = 7
    bench.watch.checks.append(lambda watch: watch.breach(Rule.QUOTA, "too dear"))
    bench.clock.advance(12.0)
    bench.watch.happened("the first")
    (found,) = bench.watch.found
    assert f"{Rule.QUOTA}: too dear (event 1 at second" in str(found)
    assert str(found).endswith(": the first; seed 7)")


@pytest.mark.parametrize(
    ("decide", "rule"),
    [
        (lambda watch: watch.recorded([AddWorker(worker(WorkerState.INTENDED, " "))]), Rule.NO_REASON),
        (
            lambda watch: watch.recorded([UpdateWorker(WorkerState.JOINED, worker(WorkerState.BOOTING))]),
            Rule.ILLEGAL,
        ),
    ],
)
def test_decisions(decide: Callable[[Watch], None], rule: Rule) -> None:
    bench = Bench()
    decide(bench.watch)
    assert bench.broken == {rule}
    assert bench.watch.counts == {rule: 1}
