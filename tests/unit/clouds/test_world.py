"""Machines of the fake world do what an agent does, on virtual time."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import wraps
from random import Random
from typing import Any

import pytest

from gridtide.clock import LoopClock
from gridtide.clouds.fake import SMALL, CloudFault, FakeCloud
from gridtide.clouds.protocol import LaunchRequest
from gridtide.control.api import AliveAnswer, JoinAnswer
from gridtide.errors import AccessDenied, StoreUnavailable
from gridtide.model.demand import Attribute, NodeState
from gridtide.model.ids import CloudName, GroupName, MachineId, QueueName, WorkerId
from gridtide.model.machines import MachineState
from gridtide.model.reasons import Cause, Reason
from gridtide.model.workers import Worker
from gridtide.pilot.protocol import Order
from gridtide.queues.fake import FakeJobState, FakeQueue
from gridtide.sim import virtual_time
from gridtide.testing.queues import worker as make_worker
from gridtide.testing.world import FakeWorld

A, B = WorkerId("a"), WorkerId("b")
WHY = Reason(Cause.SURPLUS, "test")


class Service:
    """Stands for the controller."""

    def __init__(self, queue: FakeQueue) -> None:
        self.queue = queue
        self.order = Order.CONTINUE
        self.joins: list[tuple[float, WorkerId, str]] = []
        self.beats: list[tuple[float, WorkerId, int, bool]] = []
        self.goodbyes: list[WorkerId] = []
        self.failing: Exception | None = None
        self.clock = LoopClock(0.0)

    async def join(
        self, worker: WorkerId, join_secret: str, worker_secret: str, host: Mapping[str, Attribute]
    ) -> JoinAnswer:
        self.joins.append((self.clock.now(), worker, join_secret))
        if self.failing is not None:
            raise self.failing
        assert len(worker_secret) == 32
        assert (host["Cpus"], host["GridtideGroup"]) == (1, "grid")
        made: Worker = make_worker(worker)
        return JoinAnswer(made, lease=120.0, heartbeat=10.0, orders=await self.queue.join(made, host))

    def alive(self, worker: WorkerId, *, load: float, running: int, draining: bool) -> AliveAnswer:
        self.beats.append((self.clock.now(), worker, running, draining))
        return AliveAnswer(self.order, lease=120.0, heartbeat=10.0)

    async def done(self, worker: WorkerId, text: str) -> None:
        assert text
        self.goodbyes.append(worker)


class Stage:
    """A cloud, a queue, a world and a service."""

    def __init__(self, *, leave_when_drained: bool = True) -> None:
        clock, random = LoopClock(0.0), Random(1)
        self.clock = clock
        self.cloud = FakeCloud(CloudName("fake"), clock, random, boot_time=60.0)
        self.queue = FakeQueue(QueueName("pool"), clock, random)
        self.world = FakeWorld([self.cloud], [self.queue], clock, random, leave_when_drained=leave_when_drained)
        self.service = Service(self.queue)
        self.world.connect(self.service)

    async def launch(self, *workers: WorkerId) -> list[MachineId]:
        answers = await self.cloud.launch([self.request(worker) for worker in workers])
        assert all(isinstance(answer, str) for answer in answers.values())
        return [each.id for each in self.cloud.alive()]

    def request(self, worker: WorkerId) -> LaunchRequest:
        context = (
            f'{{"worker": "{worker}", "join_token": "gtj_{worker}.se.cret", "attributes": {{"GridtideGroup": "grid"}}}}'
        )
        return LaunchRequest(worker, GroupName("grid"), SMALL.name, None, None, context.encode())

    async def state(self) -> MachineState | None:
        machines = await self.cloud.machines()
        return machines[0].state if machines else None


def on_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(**arguments: object) -> None:
        virtual_time.run(test(**arguments))

    return run


@on_virtual_time
async def test_a_machine_boots_joins_works_drains_and_shuts_down() -> None:
    stage = Stage()
    async with stage.world:
        stage.queue.submit(1, duration=95.0)
        await stage.launch(A)
        await asyncio.sleep(59)
        assert stage.service.joins == []
        await asyncio.sleep(2)
        assert stage.service.joins == [(60.0, A, "se.cret")]
        assert stage.queue.running_on(A) == stage.cloud.jobs_on(A) != []
        await stage.queue.drain({A: WHY})
        await asyncio.sleep(90)
        assert stage.service.beats[:2] == [(70.0, A, 1, True), (80.0, A, 1, True)]
        assert await stage.state() is MachineState.RUNNING, "it lets its job run to the end"
        await asyncio.sleep(20)
        assert await stage.state() is MachineState.STOPPED
        assert await stage.queue.nodes() == ()
    assert stage.service.goodbyes == [A]
    assert stage.world.left == [(160.0, A)]
    assert stage.queue.count(FakeJobState.DONE) == 1


@on_virtual_time
async def test_it_waits_for_the_order_when_it_shall() -> None:
    stage = Stage(leave_when_drained=False)
    async with stage.world:
        await stage.launch(A)
        await asyncio.sleep(61)
        await stage.queue.drain({A: WHY})
        await asyncio.sleep(600)
        assert await stage.state() is MachineState.RUNNING
        stage.service.order = Order.STOP
        await asyncio.sleep(11)
        assert await stage.state() is MachineState.STOPPED


@on_virtual_time
async def test_a_terminated_machine_does_nothing_any_more() -> None:
    stage = Stage()
    async with stage.world:
        stage.queue.submit(1, duration=1000.0)
        (machine,) = await stage.launch(A)
        await asyncio.sleep(61)
        await stage.cloud.terminate([machine])
        beats = len(stage.service.beats)
        await asyncio.sleep(400)
        assert len(stage.service.beats) == beats
        (node,) = await stage.queue.nodes()
        assert node.state is NodeState.UNAVAILABLE
    assert len(stage.cloud.record.killed_jobs) == 1
    assert len(stage.queue.lost_runs) == 1


@on_virtual_time
async def test_a_service_that_is_down_is_asked_again() -> None:
    stage = Stage()
    async with stage.world:
        stage.world.connect(None)
        await stage.launch(A)
        await asyncio.sleep(100)
        stage.service.failing = StoreUnavailable("locked")
        stage.world.connect(stage.service)
        await asyncio.sleep(100)
        stage.service.failing = None
        await asyncio.sleep(100)
        assert [node.worker for node in await stage.queue.nodes()] == [A]
    assert [at for at, _, _ in stage.service.joins] == [135.0, 195.0, 255.0]


@on_virtual_time
async def test_a_machine_whose_join_is_refused_stops() -> None:
    stage = Stage()
    async with stage.world:
        stage.service.failing = AccessDenied("the token is spent")
        await stage.launch(A)
        await asyncio.sleep(61)
        assert await stage.state() is MachineState.STOPPED
    assert stage.world.refused == [(60.0, A, "the token is spent")]


@on_virtual_time
async def test_the_dead_do_not_join() -> None:
    stage = Stage()
    async with stage.world:
        stage.cloud.faults.inject(CloudFault.DEAD_ON_ARRIVAL)
        await stage.launch(A)
        await asyncio.sleep(3600)
        assert await stage.state() is MachineState.RUNNING
    assert stage.service.joins == []


@on_virtual_time
async def test_silence_longer_than_the_lease_drains_but_ends_no_job() -> None:
    stage = Stage()
    async with stage.world:
        stage.queue.submit(5, duration=500.0)
        await stage.launch(A)
        await asyncio.sleep(61)
        stage.world.connect(None)
        await asyncio.sleep(115)
        assert not stage.queue.is_draining(A)
        await asyncio.sleep(30)
        assert stage.queue.is_draining(A)
        await asyncio.sleep(500)
        assert await stage.state() is MachineState.STOPPED
    assert stage.queue.count(FakeJobState.DONE) == 1
    assert stage.queue.lost_runs == []


@on_virtual_time
async def test_a_partition() -> None:
    stage = Stage()
    async with stage.world:
        stage.queue.submit(2, duration=1000.0)
        await stage.launch(A, B)
        await asyncio.sleep(61)
        stage.world.cut_off(A)
        beats = len(stage.service.beats)
        await asyncio.sleep(1500)
        assert {worker for _, worker, _, _ in stage.service.beats[beats:]} == {B}
        states = {node.worker: node.state for node in await stage.queue.nodes()}
        assert states == {A: NodeState.UNAVAILABLE, B: NodeState.ACCEPTING}
        assert len(stage.cloud.jobs_on(A)) == 1, "its result is there and nowhere else"
        stage.world.heal(A)
        assert stage.queue.count(FakeJobState.DONE) == 2
        await asyncio.sleep(11)
        assert A in {worker for _, worker, _, _ in stage.service.beats[-2:]} | {each for _, each in stage.world.left}
    assert stage.queue.lost_runs == []


@on_virtual_time
async def test_bugs_come_to_light_at_the_end() -> None:
    stage = Stage()
    stage.service.failing = KeyError("a bug of the controller")
    await stage.launch(A)
    await asyncio.sleep(61)
    with pytest.raises(KeyError, match="a bug"):
        await stage.world.close()


@on_virtual_time
async def test_five_hours_of_twenty_machines_are_the_same_each_time() -> None:
    ends = []
    for _ in range(2):
        stage = Stage()
        stage.cloud.boot_jitter = 30.0
        began = stage.clock.now()
        async with stage.world:
            await stage.launch(*(WorkerId(f"w{number}") for number in range(20)))
            stage.queue.submit(200, duration=900.0)
            await asyncio.sleep(5 * 3600)
            assert stage.queue.count(FakeJobState.DONE) == 200
        ends.append([round((job.ended or 0.0) - began, 6) for job in stage.queue.jobs.values()])
    assert ends[0] == ends[1]
