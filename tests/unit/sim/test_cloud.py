"""The simulated cloud keeps the protocol that real drivers keep, and has the habits that it is given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from gridtide.clouds.fake import LARGE, SMALL
from gridtide.clouds.protocol import LaunchRequest
from gridtide.errors import CloudUnavailable, QuotaExceeded, Throttled
from gridtide.model.costs import Billing
from gridtide.model.ids import CloudName, GroupName, MachineId, WorkerId
from gridtide.model.machines import MachineState, Quota
from gridtide.sim.cloud import BootTime, CloudModel, Outages, RateLimit, Reclaim, SimulatedCloud
from gridtide.testing.clocks import ManualClock
from gridtide.testing.clouds import CloudBench, CloudConformance
from tests.unit.clouds.fake_boundary import FakeBoundary

MODEL = CloudModel((SMALL, LARGE))


def make(model: CloudModel = MODEL, seed: int = 1) -> tuple[SimulatedCloud, ManualClock]:
    clock = ManualClock()
    return SimulatedCloud(CloudName("cloud"), clock, seed, model, settle=0.0), clock


def request(worker: str) -> LaunchRequest:
    return LaunchRequest(WorkerId(worker), GroupName("grid"), SMALL.name, None, None, b"")


class SimulatedConformance(CloudConformance):
    model = MODEL
    driver = SimulatedCloud

    @asynccontextmanager
    async def bench(self) -> AsyncIterator[CloudBench]:
        clock = ManualClock()
        cloud = SimulatedCloud(CloudName("cloud"), clock, 1, self.model, settle=self.model.list_lag)

        async def wait(seconds: float) -> None:
            clock.advance(seconds)

        async def add_foreign() -> MachineId:
            return cloud.add_foreign()

        async def break_machine(machine: MachineId) -> None:
            cloud.break_machine(machine)

        faults = FakeBoundary(cloud, cloud.list_lag)
        yield CloudBench(cloud, lambda: cloud, add_foreign, break_machine, wait=wait, faults=faults, give_up=0.02)


class TestPlainCloud(SimulatedConformance):
    title = "simulated"


class TestSlowCloud(SimulatedConformance):
    title = "simulated, slow"
    model = replace(MODEL, list_lag=20.0, end_time=15.0, boot=BootTime(60.0, 0.5))


async def boot_of(workers: list[str], asked: str, seed: int = 1) -> float:
    cloud, clock = make(seed=seed)
    await cloud.launch([request(worker) for worker in workers])
    machine = cloud.machine_of(WorkerId(asked))
    assert machine is not None
    return machine.boots - clock.now()


async def test_a_boot_time_is_the_workers_own_whatever_else_is_launched() -> None:
    alone = await boot_of(["b"], "b")
    assert alone == await boot_of(["c", "b", "a"], "b") == await boot_of(["a", "b"], "b")
    assert alone != await boot_of(["a"], "a")
    assert alone != await boot_of(["b"], "b", seed=2)


async def test_boot_times_have_their_median() -> None:
    cloud, clock = make(replace(MODEL, boot=BootTime(120.0, 0.25)))
    await cloud.launch([request(f"w{number}") for number in range(2001)])
    boots = sorted(machine.boots - clock.now() for machine in cloud.alive())
    assert boots[1000] == pytest.approx(120.0, rel=0.03)
    assert boots[100] == pytest.approx(120.0 * 2.718281828 ** (-1.645 * 0.25), rel=0.05)
    still, at = make(replace(MODEL, boot=BootTime(60.0, 0.0)))
    await still.launch([request("a")])
    assert next(still.alive()).boots == at.now() + 60.0


@pytest.mark.parametrize(
    ("lived", "unit", "minimum", "charged"),
    [
        (30.0, 1.0, 60.0, 60.0),
        (61.0, 1.0, 60.0, 61.0),
        (61.2, 1.0, 60.0, 62.0),
        (61.0, 3600.0, 60.0, 3600.0),
        (3600.0, 3600.0, 0.0, 3600.0),
        (3600.1, 3600.0, 0.0, 7200.0),
        (0.0, 1.0, 0.0, 0.0),
    ],
)
def test_what_is_charged(lived: float, unit: float, minimum: float, charged: float) -> None:
    assert Billing(unit, minimum).seconds(lived) == charged


async def test_the_bill_runs_from_the_launch_to_the_end() -> None:
    cloud, clock = make(replace(MODEL, end_time=10.0))
    made = await cloud.launch([request("a"), request("b"), request("c")])
    clock.advance(100.0)
    await cloud.terminate([made[WorkerId("a")]])  # type: ignore[list-item]
    cloud.take_back(made[WorkerId("b")])  # type: ignore[arg-type]
    cloud.break_machine(made[WorkerId("c")])  # type: ignore[arg-type]
    clock.advance(200.0)
    charged = {each.worker: cloud.bill.seconds(each, clock.now()) for each in cloud.bill.machines.values()}
    assert charged == {"a": 110.0, "b": 100.0, "c": 300.0}, "a broken machine is charged until somebody ends it"
    assert [worker for _, worker in cloud.reclaimed] == ["b"]
    states = {machine.worker: machine.state for machine in await cloud.machines()}
    assert states == {"b": MachineState.STOPPED, "c": MachineState.BROKEN}


async def test_launches_above_the_rate_are_throttled_with_the_time_to_wait() -> None:
    cloud, clock = make(replace(MODEL, launches=RateLimit(0.5, 2)))
    answers = await cloud.launch([request(name) for name in "abc"])
    refused = answers[WorkerId("c")]
    assert isinstance(refused, Throttled)
    assert refused.retry_after == 2.0
    clock.advance(2.0)
    assert isinstance((await cloud.launch([request("c")]))[WorkerId("c")], str)


async def test_calls_above_the_rate_are_throttled() -> None:
    cloud, clock = make(replace(MODEL, calls=RateLimit(1.0, 1)))
    await cloud.machines()
    with pytest.raises(Throttled):
        await cloud.machines()
    clock.advance(1.0)
    await cloud.machines()


async def test_outages_come_and_go() -> None:
    cloud, clock = make(replace(MODEL, outages=Outages(between=1000.0, mean=100.0)))
    failed = []
    for _ in range(20_000):
        clock.advance(10.0)
        try:
            await cloud.machines()
        except CloudUnavailable:
            failed.append(clock.now())
    assert len(failed) / 20_000 == pytest.approx(100.0 / 1100.0, rel=0.25)


async def test_quota_is_kept_over_many_launches_and_ends() -> None:
    cloud, clock = make(replace(MODEL, quota=Quota(machines=2), end_time=5.0))
    first = await cloud.launch([request("a"), request("b"), request("c")])
    assert isinstance(first[WorkerId("c")], QuotaExceeded)
    await cloud.terminate([first[WorkerId("a")]])  # type: ignore[list-item]
    assert isinstance((await cloud.launch([request("c")]))[WorkerId("c")], QuotaExceeded), "it still holds its place"
    clock.advance(5.0)
    assert isinstance((await cloud.launch([request("c")]))[WorkerId("c")], str)
    assert cloud.machines_of(GroupName("grid")) == 2
    assert cloud.use(Quota(cores=8, machines=2)) == [("machines", 2, 2), ("cores", 8, 2)]


async def test_what_is_within_the_quota_is_what_it_would_make() -> None:
    for quota in (Quota(), Quota(machines=3), Quota(cores=7), Quota(memory=5000), Quota(cores=5, machines=3)):
        cloud, _ = make(replace(MODEL, quota=quota))
        await cloud.launch([request("first")])
        shapes = [LARGE, SMALL, LARGE, SMALL, LARGE]
        asked = [replace(request(f"w{number}"), shape=shape.name) for number, shape in enumerate(shapes)]
        told = cloud.within_quota(shapes)
        answers = await cloud.launch(asked)
        made = [shape for one, shape in zip(asked, shapes, strict=True) if isinstance(answers[one.worker], str)]
        assert told == made
        assert quota == Quota() or len(made) < len(shapes)


def test_a_share_of_the_machines_is_taken_back() -> None:
    cloud, _ = make(replace(MODEL, reclaim=Reclaim(0.3, 1000.0)))
    after = [cloud.reclaim_after(WorkerId(f"w{number}")) for number in range(3000)]
    taken = [seconds for seconds in after if seconds is not None]
    assert len(taken) / 3000 == pytest.approx(0.3, abs=0.04)
    assert sum(taken) / len(taken) == pytest.approx(1000.0, rel=0.15)
    assert after == [cloud.reclaim_after(WorkerId(f"w{number}")) for number in range(3000)]
    assert make()[0].reclaim_after(WorkerId("a")) is None


async def test_some_machines_are_dead_on_arrival() -> None:
    cloud, _ = make(replace(MODEL, dead_on_arrival=0.1))
    await cloud.launch([request(f"w{number}") for number in range(1000)])
    assert 60 < sum(machine.dead for machine in cloud.alive()) < 140
