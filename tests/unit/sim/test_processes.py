"""Simulated processes: killed at an instant nothing more gets out of them, frozen they go on where they were."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from gridtide.errors import StoreUnavailable
from gridtide.sim import virtual_time
from gridtide.sim.gate import Gate, present, reach
from gridtide.sim.processes import Wall


def on_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        virtual_time.run(test())

    run.__name__ = test.__name__
    return run


class Worker:
    """A process that counts, with an instant before each number."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.counted = 0
        self.cleaned_up = False

    async def count(self) -> None:
        self.gate.enter()
        try:
            while True:
                await reach()
                self.counted += 1
                await asyncio.sleep(1.0)
        finally:
            await reach()
            self.cleaned_up = True


@on_virtual_time
async def test_outside_of_processes_there_are_no_instants() -> None:
    await reach()
    assert present() is None


@on_virtual_time
async def test_a_killed_process_does_nothing_more_not_even_clean_up() -> None:
    worker = Worker()
    task = asyncio.create_task(worker.count())
    await asyncio.sleep(2.5)
    assert worker.counted == 3
    worker.gate.after(1, worker.gate.kill)
    await asyncio.sleep(10.0)
    assert worker.counted == 4  # one more instant passed
    assert not worker.gate.is_open
    task.cancel()
    await asyncio.wait([task], timeout=10.0)
    assert not worker.cleaned_up
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@on_virtual_time
async def test_a_frozen_process_goes_on_where_it_was_whatever_deadline_ran_out_meanwhile() -> None:
    gate, done = Gate(), []

    async def call() -> None:
        gate.enter()
        async with asyncio.timeout(5.0):
            await reach()
            done.append(asyncio.get_running_loop().time())

    gate.shut()
    task = asyncio.create_task(call())
    await asyncio.sleep(60.0)
    assert done == []
    gate.open()
    await asyncio.gather(task, return_exceptions=True)
    assert done == [60.0]


@on_virtual_time
async def test_a_visitor_of_a_process_that_dies_is_told_and_one_of_a_frozen_one_may_give_up() -> None:
    gate = Gate()

    async def visit() -> None:
        with gate.visit():
            await reach()

    gate.shut()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5.0):
            await visit()
    waiting = asyncio.create_task(visit())
    await asyncio.sleep(1.0)
    gate.kill()
    with pytest.raises(StoreUnavailable):
        await waiting
    assert present() is None


@on_virtual_time
async def test_what_a_visit_starts_is_no_visit() -> None:
    """A standby that is started at an instant of a visit is a process of its own."""
    gate, other = Gate(), Gate()
    with gate.visit():
        worker = Worker()
        worker.gate = other
        task = asyncio.create_task(worker.count())
    await asyncio.sleep(0.5)
    other.kill()
    await asyncio.sleep(5.0)
    assert task.cancelled()  # a visitor would have been told


@on_virtual_time
async def test_the_wall_clock_steps_and_the_loop_does_not() -> None:
    wall = Wall(1000.0)
    await asyncio.sleep(5.0)
    assert wall.now() == 1005.0
    wall.offset = -3600.0
    assert wall.now() == -2595.0
    assert asyncio.get_running_loop().time() == 5.0
