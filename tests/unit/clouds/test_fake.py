"""What the fake cloud does in time, its faults and its record."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from gridtide.clouds.fake import LARGE, SMALL, CloudCall, CloudFault, FakeCloud
from gridtide.clouds.protocol import LaunchRequest, Level
from gridtide.errors import (
    CloudError,
    CloudUnavailable,
    ImageNotFound,
    LaunchRejected,
    NoCapacity,
    QuotaExceeded,
    Throttled,
)
from gridtide.model.ids import CloudName, GroupName, MachineId, ShapeName, WorkerId, Zone
from gridtide.model.machines import MachineState, Quota
from gridtide.model.resources import Resources
from gridtide.testing.clocks import ManualClock

A, B = WorkerId("a"), WorkerId("b")
ZONE = Zone("z1")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def cloud(clock: ManualClock) -> FakeCloud:
    return FakeCloud(CloudName("fake"), clock, Random(1), zones=(ZONE,), boot_time=60.0)


def request(
    worker: WorkerId, shape: ShapeName = SMALL.name, zone: Zone | None = None, image: str | None = None
) -> LaunchRequest:
    return LaunchRequest(worker, GroupName("grid"), shape, zone, image, b"{}")


async def launch(cloud: FakeCloud, *workers: WorkerId) -> list[MachineId | CloudError]:
    answers = await cloud.launch([request(worker) for worker in workers])
    return [answers[worker] for worker in workers]


async def made(cloud: FakeCloud, worker: WorkerId) -> MachineId:
    (answer,) = await launch(cloud, worker)
    assert isinstance(answer, str)
    return answer


async def state(cloud: FakeCloud, machine: MachineId) -> MachineState | None:
    return {each.id: each.state for each in await cloud.machines()}.get(machine)


# --- time


async def test_a_machines_life(clock: ManualClock) -> None:
    cloud = FakeCloud(CloudName("f"), clock, Random(1), boot_time=60.0, list_lag=5.0, end_time=20.0, gone_listed=30.0)
    assert cloud.settle == 5.0
    machine = await made(cloud, A)
    seen = []
    for seconds in (0.0, 4.9, 0.1, 54.9, 0.1):
        clock.advance(seconds)
        seen.append(await state(cloud, machine))
    assert seen == [None, None, MachineState.STARTING, MachineState.STARTING, MachineState.RUNNING]
    await cloud.terminate([machine])
    seen = []
    for seconds in (0.0, 19.9, 0.1, 29.9, 0.1):
        clock.advance(seconds)
        seen.append(await state(cloud, machine))
    assert seen == [MachineState.ENDING, MachineState.ENDING, MachineState.GONE, MachineState.GONE, None]


async def test_boot_times_differ_and_repeat_with_the_same_seed(clock: ManualClock) -> None:
    def boots() -> list[float]:
        cloud = FakeCloud(CloudName("f"), clock, Random(3), boot_time=60.0, boot_jitter=30.0)
        asyncio.run(_launch_ten(cloud))
        return [each.boots for each in cloud.alive()]

    first, second = await asyncio.to_thread(boots), await asyncio.to_thread(boots)
    assert first == second
    assert len(set(first)) == 10
    assert all(1060.0 <= at <= 1090.0 for at in first)


async def _launch_ten(cloud: FakeCloud) -> None:
    await launch(cloud, *(WorkerId(f"w{number}") for number in range(10)))


# --- refusals


@pytest.mark.parametrize(
    ("quota", "scope"),
    [(Quota(machines=2), "machines"), (Quota(cores=2), "cores"), (Quota(memory=2 * 2048), "memory")],
)
async def test_the_quota_counts_everybodys_machines_now(clock: ManualClock, quota: Quota, scope: str) -> None:
    cloud = FakeCloud(CloudName("f"), clock, Random(1), quota=quota, end_time=10.0)
    foreign = cloud.add_foreign()
    first, second = await launch(cloud, A, B)
    assert isinstance(first, str)
    assert isinstance(second, QuotaExceeded)
    assert second.scope == scope
    assert await launch(cloud, A) == [first], "repeating makes nothing, so needs no quota"
    await cloud.terminate([first])
    assert isinstance((await launch(cloud, B))[0], QuotaExceeded), "one that is ending still counts"
    clock.advance(10)
    assert isinstance((await launch(cloud, B))[0], str)
    cloud.remove_foreign(foreign)
    assert isinstance((await launch(cloud, A))[0], str)


async def test_what_does_not_exist_is_refused(clock: ManualClock) -> None:
    cloud = FakeCloud(CloudName("f"), clock, Random(1), zones=(ZONE,), images=frozenset({"good"}))
    cloud.sold_out.add((ZONE, LARGE.name))
    answers = await cloud.launch(
        [
            request(A, ShapeName("huge"), image="good"),
            request(B, zone=Zone("nowhere"), image="good"),
            request(WorkerId("c"), image="bad"),
            request(WorkerId("d"), LARGE.name, ZONE, "good"),
            request(WorkerId("e"), LARGE.name, None, "good"),
        ]
    )
    kinds = [LaunchRejected, LaunchRejected, ImageNotFound, NoCapacity, str]
    assert [type(answer) for answer in answers.values()] == kinds
    assert [each.level for each in await cloud.check(["good", "bad"])] == [Level.OK, Level.OK, Level.ERROR]


# --- faults

CALLS: list[tuple[CloudCall, Callable[[FakeCloud], Awaitable[object]]]] = [
    (CloudCall.SHAPES, lambda cloud: cloud.shapes()),
    (CloudCall.MACHINES, lambda cloud: cloud.machines()),
    (CloudCall.LAUNCH, lambda cloud: cloud.launch([request(B)])),
    (CloudCall.TERMINATE, lambda cloud: cloud.terminate([])),
]


@pytest.mark.parametrize(("kind", "call"), CALLS)
async def test_faults_of_any_call(
    cloud: FakeCloud, kind: CloudCall, call: Callable[[FakeCloud], Awaitable[object]]
) -> None:
    cloud.faults.inject(CloudFault.RAISE, call=kind, times=1, error=Throttled("slow down", retry_after=7.0))
    with pytest.raises(Throttled) as caught:
        await call(cloud)
    assert caught.value.retry_after == 7.0
    cloud.faults.inject(CloudFault.RAISE, call=kind, times=1)
    with pytest.raises(CloudUnavailable, match="503"):
        await call(cloud)
    for fault in (CloudFault.HANG, CloudFault.HANG_AFTER):
        cloud.faults.inject(fault, call=kind, times=1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call(cloud), 0.01)
    cloud.faults.inject(CloudFault.ANSWER_LOST, call=kind, times=1)
    with pytest.raises(CloudUnavailable, match="before the answer"):
        await call(cloud)
    await call(cloud)
    assert cloud.record.calls == {kind: 6}


@pytest.mark.parametrize("fault", [CloudFault.HANG, CloudFault.RAISE])
async def test_a_call_that_fails_before_makes_nothing(cloud: FakeCloud, fault: CloudFault) -> None:
    cloud.faults.inject(fault)
    with pytest.raises((TimeoutError, CloudUnavailable)):
        await asyncio.wait_for(launch(cloud, A), 0.01)
    assert list(cloud.alive()) == []


@pytest.mark.parametrize("fault", [CloudFault.HANG_AFTER, CloudFault.ANSWER_LOST])
async def test_a_call_that_fails_after_has_made_it(cloud: FakeCloud, fault: CloudFault) -> None:
    cloud.faults.inject(fault, times=1)
    with pytest.raises((TimeoutError, CloudUnavailable)):
        await asyncio.wait_for(launch(cloud, A), 0.01)
    (machine,) = cloud.alive()
    assert await launch(cloud, A) == [machine.id]


async def test_one_machine_of_a_call(cloud: FakeCloud) -> None:
    cloud.faults.inject(CloudFault.REFUSE, times=1, error=QuotaExceeded("no more", scope="cores"))
    cloud.faults.inject(CloudFault.ITEM_LOST, times=1)
    refused, lost, well = await launch(cloud, A, B, WorkerId("c"))
    assert isinstance(refused, QuotaExceeded)
    assert isinstance(lost, CloudUnavailable)
    assert isinstance(well, str)
    assert {each.worker for each in cloud.alive()} == {B, "c"}


async def test_listings_that_lie(cloud: FakeCloud) -> None:
    await launch(cloud, A)
    cloud.faults.inject(CloudFault.TRUNCATED, times=1)
    with pytest.raises(CloudUnavailable, match="truncated"):
        await cloud.machines()
    cloud.faults.inject(CloudFault.EMPTY, times=2)
    assert [len(await cloud.machines()) for _ in range(3)] == [0, 0, 1]


async def test_machines_that_never_work(cloud: FakeCloud, clock: ManualClock) -> None:
    cloud.faults.inject(CloudFault.DEAD_ON_ARRIVAL, times=1)
    cloud.faults.inject(CloudFault.BOOT_FAILS, times=1, after=1.0)
    dead = await made(cloud, A)
    clock.advance(1)
    failing = await made(cloud, B)
    assert await state(cloud, failing) is MachineState.STARTING
    clock.advance(60)
    assert (await state(cloud, dead), await state(cloud, failing)) == (MachineState.RUNNING, MachineState.BROKEN)
    assert [each.dead for each in cloud.alive()] == [True, True]


async def test_faults_come_and_go(cloud: FakeCloud, clock: ManualClock) -> None:
    cloud.faults.inject(CloudFault.EMPTY, after=10.0, seconds=5.0)
    cloud.add_foreign()
    seen = []
    for _ in range(4):
        seen.append(len(await cloud.machines()))
        clock.advance(5)
    assert seen == [1, 1, 0, 1]
    cloud.faults.inject(CloudFault.EMPTY, chance=0.5)
    share = sum([len(await cloud.machines()) for _ in range(1000)])
    assert 400 < share < 600
    cloud.faults.clear(CloudFault.EMPTY)
    assert len(await cloud.machines()) == 1


# --- accidents and the record


async def test_accidents_are_told_once_nothing_runs_any_more(cloud: FakeCloud) -> None:
    ended: list[MachineId] = []
    cloud.on_ended.append(lambda machine: ended.append(machine.id))
    ids = [await made(cloud, WorkerId(name)) for name in "abcde"]
    cloud.break_machine(ids[0], "disk failure")
    cloud.stop_machine(ids[1])
    cloud.vanish(ids[2])
    cloud.confuse_machine(ids[3])
    assert ended == ids[:3]
    assert [(each.state, each.message) for each in await cloud.machines()] == [
        (MachineState.BROKEN, "disk failure"),
        (MachineState.STOPPED, "powered off"),
        (MachineState.UNKNOWN, ""),
        (MachineState.STARTING, ""),
    ]
    await cloud.terminate(ids)
    assert sorted(ended) == sorted([*ids, ids[0], ids[1]])
    assert cloud.machine_of(WorkerId("a")) is None


async def test_the_record_sees_what_must_not_happen(cloud: FakeCloud, clock: ManualClock) -> None:
    cloud.jobs_on = lambda worker: ["12.1", "12.2"] if worker == A else []
    one, two = await made(cloud, A), await made(cloud, B)
    foreign = cloud.add_foreign(Resources(8, 1))
    cloud.faults.inject(CloudFault.DOUBLES, times=1)
    double = await made(cloud, B)
    assert double != two
    clock.advance(5)
    await cloud.terminate([one, one, foreign, MachineId("never")])
    record = cloud.record
    assert [(job.at, job.worker, job.job) for job in record.killed_jobs] == [(1005.0, A, "12.1"), (1005.0, A, "12.2")]
    assert record.foreign_ended == [foreign]
    assert record.doubled == [B]
    assert (record.most_alive, record.most_alive_of) == (3, {"grid": 3})
    assert record.made == [(1000.0, A), (1000.0, B), (1000.0, B)]
    assert record.terminated == [(1005.0, A)]


async def test_ending_what_was_broken_already_kills_no_job(cloud: FakeCloud) -> None:
    cloud.jobs_on = lambda _worker: ["12.1"]
    machine = await made(cloud, A)
    cloud.break_machine(machine)
    await cloud.terminate([machine])
    assert cloud.record.killed_jobs == []


def test_time_does_not_run_backwards() -> None:
    with pytest.raises(ValueError, match="backwards"):
        ManualClock().advance(-1)
