"""Faults reach what they are about and nothing else, and are undone when they are over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from gridtide.clock import LoopClock
from gridtide.clouds.fake import SMALL
from gridtide.clouds.protocol import LaunchRequest
from gridtide.errors import CloudUnavailable, NoCapacity, QuotaExceeded, Throttled
from gridtide.model.ids import CloudName, GroupName, QueueName, WorkerId, Zone
from gridtide.model.machines import MachineState, Quota
from gridtide.sim import virtual_time
from gridtide.sim.batch import Batch
from gridtide.sim.cloud import CloudModel, SimulatedCloud
from gridtide.sim.faults import Fault, FaultName, usual
from gridtide.sim.injector import Injector, Stage
from gridtide.sim.processes import Processes, Wall
from gridtide.sim.queue import SimulatedQueue
from gridtide.sim.setting import standard_setting
from gridtide.sim.store import WatchedStore
from gridtide.sim.watch import Watch
from gridtide.sim.world import SimulatedWorld

NEAR, FAR, GROUP = CloudName("near"), CloudName("far"), GroupName("grid")
A, B = Zone("a"), Zone("b")


def never(*_: object) -> Any:
    raise AssertionError("no controller is needed here")


class Bench:
    """Two clouds without a controller."""

    def __init__(self) -> None:
        self.clock = LoopClock(0.0)
        model = CloudModel((replace(SMALL, price=1.0),), zones=(A, B), quota=Quota(machines=8))
        self.clouds = {name: SimulatedCloud(name, self.clock, 0, model, settle=0.0) for name in (NEAR, FAR)}
        self.queue = SimulatedQueue(QueueName("pool"), self.clock, Random(0), Batch())
        clouds = list(self.clouds.values())
        self.watch = Watch(standard_setting().rules, clouds, self.clock.now)
        self.world = SimulatedWorld(clouds, self.queue, self.clock, heartbeat=60.0, lease=600.0, attributes={})
        self.wall = Wall(0.0)
        processes = Processes(never, WatchedStore(self.watch), self.wall, self.world.connect, rivals=False)
        self.injector = Injector(Stage(clouds, self.queue, self.world, processes, self.wall), self.watch, 0, 1000.0)

    async def launch(self, cloud: CloudName, name: str, zone: Zone | None = None) -> object:
        """What becomes of one launch."""
        request = LaunchRequest(WorkerId(name), GROUP, SMALL.name, zone, None, b"x.y")
        return (await self.clouds[cloud].launch([request]))[WorkerId(name)]


def bench(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    async def main() -> None:
        one = Bench()
        try:
            await test(one)
        finally:
            await one.injector.stop()
            await one.world.close()

    def run() -> None:
        virtual_time.run(main())

    run.__name__ = test.__name__
    return run


@bench
async def test_a_stock_out_of_a_zone_leaves_the_others_and_ends(one: Bench) -> None:
    one.injector.start([Fault(FaultName.STOCK_OUT, at=10.0, lasting=60.0, cloud=NEAR, zone=A)])
    await asyncio.sleep(5.0)
    assert isinstance(await one.launch(NEAR, "early", A), str)
    await asyncio.sleep(10.0)
    assert isinstance(await one.launch(NEAR, "refused", A), NoCapacity)
    assert isinstance(await one.launch(NEAR, "other-zone", B), str)
    assert isinstance(await one.launch(FAR, "other-cloud", A), str)
    await asyncio.sleep(60.0)
    assert isinstance(await one.launch(NEAR, "refused", A), str)
    assert one.injector.strikes == {FaultName.STOCK_OUT: 1}


@bench
async def test_half_a_quota_is_half_of_it_and_comes_back(one: Bench) -> None:
    for number in range(4):
        await one.launch(NEAR, f"w{number}")
    one.injector.start([Fault(FaultName.HALF_QUOTA, at=1.0, lasting=60.0, share=0.5)])
    await asyncio.sleep(2.0)
    assert isinstance(await one.launch(NEAR, "fifth"), QuotaExceeded)
    await asyncio.sleep(60.0)
    assert isinstance(await one.launch(NEAR, "fifth"), str)


@bench
async def test_of_two_faults_of_a_kind_neither_undoes_the_other(one: Bench) -> None:
    cloud = one.clouds[NEAR]
    usual = cloud.offered[SMALL.name].price

    def present() -> tuple[int | None, float, bool]:
        return cloud.quota.machines, cloud.list_lag, cloud.offered[SMALL.name].price == usual

    def two(name: FaultName, first: dict[str, float], second: dict[str, float]) -> list[Fault]:
        return [Fault(name, at=1.0, lasting=60.0, **first), Fault(name, at=31.0, lasting=60.0, **second)]  # type: ignore[arg-type]

    one.injector.start(
        [
            *two(FaultName.HALF_QUOTA, {"share": 0.5}, {"share": 0.25}),
            *two(FaultName.LIST_LAG, {"by": 50.0}, {"by": 20.0}),
            *two(FaultName.PRICE_FLIP, {}, {}),
        ]
    )
    seen = []
    for seconds in (2.0, 30.0, 30.0, 30.0):
        await asyncio.sleep(seconds)
        seen.append(present())
    assert seen == [(4, 50.0, False), (2, 20.0, False), (2, 20.0, False), (8, 0.0, True)]


@bench
async def test_new_machines_are_listed_late_and_only_while_that_goes_on(one: Bench) -> None:
    one.injector.start([Fault(FaultName.LIST_LAG, at=0.0, lasting=100.0, by=50.0)])
    await asyncio.sleep(1.0)
    await one.launch(NEAR, "late")
    await asyncio.sleep(49.0)
    assert await one.clouds[NEAR].machines() == ()
    await asyncio.sleep(2.0)
    assert len(await one.clouds[NEAR].machines()) == 1
    await asyncio.sleep(100.0)
    await one.launch(NEAR, "at once")
    assert len(await one.clouds[NEAR].machines()) == 2


@bench
async def test_a_lost_answer_is_that_of_a_machine_that_was_made(one: Bench) -> None:
    one.injector.start([usual(FaultName.LOST_LAUNCH, at=0.0)])
    await asyncio.sleep(1.0)
    assert isinstance(await one.launch(NEAR, "lost"), CloudUnavailable)
    assert len(list(one.clouds[NEAR].alive())) == 1


@bench
async def test_the_end_of_a_fault_does_not_end_another_one_of_its_name(one: Bench) -> None:
    lost = Fault(FaultName.LOST_LAUNCH, at=0.0, lasting=100.0)
    one.injector.start([lost, replace(lost, lasting=10.0), replace(lost, lasting=10.0, cloud=NEAR)])
    await asyncio.sleep(20.0)
    assert isinstance(await one.launch(NEAR, "lost"), CloudUnavailable)
    await asyncio.sleep(100.0)
    assert isinstance(await one.launch(NEAR, "made"), str)


@bench
async def test_prices_are_doubled_or_halved_and_come_back(one: Bench) -> None:
    one.clouds[NEAR].price({SMALL.name: 3.0})
    one.injector.start([Fault(FaultName.PRICE_FLIP, at=0.0, lasting=60.0, cloud=NEAR)])
    await asyncio.sleep(1.0)
    assert one.clouds[NEAR].offered[SMALL.name].price in (2.0, 0.5)
    await asyncio.sleep(60.0)
    assert one.clouds[NEAR].offered[SMALL.name].price == 1.0


@pytest.mark.parametrize(("share", "least", "most"), [(1.0, 8, 8), (0.5, 1, 7), (0.0, 0, 0)])
def test_a_part_of_the_machines_is_taken_back(share: float, least: int, most: int) -> None:
    async def main(one: Bench) -> None:
        for number in range(8):
            await one.launch(NEAR, f"w{number}")
            await one.launch(FAR, f"v{number}")
        one.injector.start([Fault(FaultName.SPOT_RECLAIM, at=0.0, share=share, cloud=NEAR)])
        await asyncio.sleep(1.0)
        stopped = [each for each in await one.clouds[NEAR].machines() if each.state is MachineState.STOPPED]
        assert least <= len(stopped) <= most
        assert not any(each.state is MachineState.STOPPED for each in await one.clouds[FAR].machines())

    bench(main)()


@bench
async def test_a_throttled_cloud_says_how_long_to_wait(one: Bench) -> None:
    one.injector.start([Fault(FaultName.API_429, at=0.0, lasting=60.0, by=7.0, cloud=NEAR)])
    await asyncio.sleep(1.0)
    with pytest.raises(Throttled) as caught:
        await one.clouds[NEAR].machines()
    assert caught.value.retry_after == 7.0
    assert await one.clouds[FAR].machines() == ()
    await asyncio.sleep(60.0)
    assert await one.clouds[NEAR].machines() == ()


@bench
async def test_the_queue_is_silent_and_then_speaks_again_and_orders_are_taken_all_the_same(one: Bench) -> None:
    one.injector.start([Fault(FaultName.SILENT_QUEUE, at=0.0, lasting=60.0)])
    await asyncio.sleep(1.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5.0):
            await one.queue.nodes()
    assert set(await one.queue.undrain([WorkerId("a")])) == {"a"}
    await asyncio.sleep(60.0)
    assert await one.queue.nodes() == ()


@bench
async def test_the_clock_steps_for_good(one: Bench) -> None:
    one.injector.start([Fault(FaultName.CLOCK_STEP, at=5.0, by=-3600.0)])
    await asyncio.sleep(10.0)
    assert one.wall.now() == -3590.0
    await one.injector.stop()
    assert one.wall.now() == -3590.0


@bench
async def test_again_and_again(one: Bench) -> None:
    one.injector.start([Fault(FaultName.STOCK_OUT, every=100.0, lasting=100.0)])
    await asyncio.sleep(10_000.0)
    assert 30 <= one.injector.strikes[FaultName.STOCK_OUT] <= 70


@bench
async def test_healed_when_it_is_all_over(one: Bench) -> None:
    one.injector.start([Fault(FaultName.STOCK_OUT, every=1.0, lasting=1e9)])
    await asyncio.sleep(100.0)
    assert one.clouds[NEAR].sold_out
    await one.injector.stop()
    assert one.clouds[NEAR].sold_out == set()
    assert one.injector.on == {}


@bench
async def test_a_fault_without_a_time_strikes_somewhere_in_the_workload(one: Bench) -> None:
    one.injector.start([usual(FaultName.STOCK_OUT), usual(FaultName.PRICE_FLIP)])
    await asyncio.sleep(1000.0)
    assert one.injector.strikes == {FaultName.STOCK_OUT: 1, FaultName.PRICE_FLIP: 1}


@bench
async def test_only_what_blinds_the_controller_counts_as_blindness(one: Bench) -> None:
    faults = [
        Fault(FaultName.API_429, at=0.0, lasting=50.0),
        Fault(FaultName.SILENT_QUEUE, at=20.0, lasting=50.0),
        Fault(FaultName.PRICE_FLIP, at=0.0, lasting=500.0),
    ]
    one.injector.start(faults)
    await asyncio.sleep(30.0)
    assert one.injector.blind() == pytest.approx(30.0)
    await asyncio.sleep(100.0)
    assert one.injector.blind() == pytest.approx(70.0)
