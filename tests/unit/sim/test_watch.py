"""Every rule that a simulation watches is noticed when it is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gridtide.clouds.fake import SMALL, CloudFault
from gridtide.clouds.protocol import LaunchRequest
from gridtide.model.ids import CloudName, Generation, GroupName, MachineId, WorkerId
from gridtide.model.machines import Quota
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import CloudRules
from gridtide.model.workers import Worker, WorkerState
from gridtide.sim.cloud import CloudModel, SimulatedCloud
from gridtide.sim.setting import standard_setting
from gridtide.sim.watch import ORPHAN_AFTER, Rule, Watch
from gridtide.store.ports import AddWorker, UpdateWorker
from gridtide.testing.clocks import ManualClock

GROUP, CLOUD = GroupName("grid"), CloudName("cloud")


class Bench:
    def __init__(self, *, maximum: int = 2, quota: Quota | None = None) -> None:
        rules = standard_setting().rules
        self.clock = ManualClock()
        self.cloud = SimulatedCloud(CLOUD, self.clock, 0, CloudModel((SMALL,)), settle=0.0)
        group = replace(rules.groups[GROUP], maximum=maximum)
        rules = replace(rules, groups={GROUP: group}, clouds={CLOUD: CloudRules(CLOUD, quota or Quota(), 0.0)})
        self.watch = Watch(rules, [self.cloud], self.clock.now)
        self.watch.attach()

    async def launch(self, *names: str) -> list[MachineId]:
        requests = [LaunchRequest(WorkerId(name), GROUP, SMALL.name, None, None, b"") for name in names]
        made = await self.cloud.launch(requests)
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
    bench.watch.decided([AddWorker(worker(WorkerState.INTENDED))])
    bench.watch.decided([UpdateWorker(WorkerState.INTENDED, worker(WorkerState.LAUNCHING))])
    await bench.cloud.terminate([first])
    bench.clock.advance(10 * ORPHAN_AFTER)
    bench.watch.look_for_orphans({WorkerId("b"): worker(WorkerState.JOINED)})
    assert bench.broken == set()
    assert bench.watch.decisions == 2


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
    assert Rule.DOUBLE in bench.broken


async def test_a_machine_of_somebody_else() -> None:
    bench = Bench()
    await bench.cloud.terminate([bench.cloud.add_foreign()])
    assert bench.broken == {Rule.FOREIGN}


async def test_an_orphan_is_given_time_to_be_found() -> None:
    bench = Bench()
    await bench.launch("a")
    bench.watch.look_for_orphans({})
    bench.clock.advance(ORPHAN_AFTER)
    bench.watch.look_for_orphans({})
    assert bench.broken == set()
    bench.clock.advance(1.0)
    bench.watch.look_for_orphans({})
    assert bench.broken == {Rule.ORPHAN}


@pytest.mark.parametrize(
    ("decide", "rule"),
    [
        (lambda watch: watch.decided([AddWorker(worker(WorkerState.INTENDED, " "))]), Rule.NO_REASON),
        (
            lambda watch: watch.decided([UpdateWorker(WorkerState.JOINED, worker(WorkerState.BOOTING))]),
            Rule.ILLEGAL,
        ),
    ],
)
def test_decisions(decide: Callable[[Watch], None], rule: Rule) -> None:
    bench = Bench()
    decide(bench.watch)
    assert bench.broken == {rule}
    assert bench.watch.counts == {rule: 1}
