"""Heartbeats that are answered without a look: only the same words, and only while nothing has changed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from sqlalchemy import Connection, event

from gridtide.model.ids import WorkerId
from gridtide.model.resources import Resources
from gridtide.pilot.protocol import Assignment, Order
from gridtide.pilot.standing import Said, StandingAnswers
from tests.unit.pilot.support import LEASE, ONE_CORE, Site

W1 = WorkerId("w1")
GOES_ON = (Order.CONTINUE, ())


@dataclass
class Busy:
    """A worker with a job, whose heartbeat has just been answered."""

    site: Site
    job: Assignment

    def heard(self, *, draining: bool = False) -> object:
        return self.site.queue.heard(W1, [(self.job.job, self.job.attempt)], draining=draining)

    async def alive(self, *, draining: bool = False) -> object:
        return await self.site.queue.alive(W1, [(self.job.job, self.job.attempt)], draining=draining)


@pytest.fixture
async def busy(site: Site) -> Busy:
    await site.admit("w1", {**ONE_CORE, "Cpus": 2, "Memory": 2048})
    await site.admit("w2")
    await site.submit('Executable = "/bin/true"; Array = 2;')
    made = Busy(site, await site.take("w1"))
    assert made.heard() is None, "nobody has looked yet"
    assert await made.alive() == GOES_ON
    assert made.heard() == GOES_ON
    return made


async def test_the_same_words_need_no_look(busy: Busy) -> None:
    statements: list[str] = []
    event.listen(busy.site.database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    assert [await busy.alive() for _ in range(3)] == [GOES_ON] * 3
    assert statements == []


async def test_of_a_worker_that_is_new_nothing_has_to_be_looked_up(site: Site) -> None:
    await site.admit("w1")
    assert site.queue.heard(W1, [], draining=False) == GOES_ON
    await site.queue.set_draining([W1], True)
    await site.admit("w1")
    assert site.queue.heard(W1, [], draining=False) is None, "it is known: who can say what it was told"
    assert await site.queue.alive(W1, [], draining=False) == (Order.STOP, ())


async def test_other_words_need_one(busy: Busy) -> None:
    assert busy.site.queue.heard(W1, [], draining=False) is None
    assert busy.site.queue.heard(W1, [(busy.job.job, 2)], draining=False) is None
    assert busy.site.queue.heard(WorkerId("w2"), [(busy.job.job, 1)], draining=False) is None
    assert busy.heard(draining=True) is None


async def test_it_is_a_sign_of_life_like_any_other(busy: Busy) -> None:
    for _ in range(3):
        await busy.site.listen(0.9 * LEASE)
        assert busy.heard() == GOES_ON
        await busy.site.queue.sweep()
    assert await busy.site.state(busy.job.job) == "running"


async def test_a_drain_of_its_own_will_is_never_taken_for_said_twice(busy: Busy) -> None:
    assert await busy.alive(draining=True) == GOES_ON
    assert busy.heard() == GOES_ON
    assert await busy.alive(draining=True) == GOES_ON, "once more for the first time in a row"
    assert await busy.alive(draining=True) == (Order.DRAIN, ())


async def test_one_that_drains_as_it_was_told_needs_no_look_either(busy: Busy) -> None:
    await busy.site.queue.set_draining([W1], True)
    assert await busy.alive() == (Order.DRAIN, ())
    assert await busy.alive(draining=True) == (Order.DRAIN, ())
    assert busy.heard(draining=True) == (Order.DRAIN, ())
    await busy.site.queue.set_draining([W1], False)
    assert busy.heard(draining=True) is None


async def test_what_it_does_not_list_is_looked_for_each_time(busy: Busy) -> None:
    for _ in range(2):
        assert await busy.site.queue.alive(W1, [], draining=False) == GOES_ON
        assert busy.site.queue.heard(W1, [], draining=False) is None
    await busy.site.listen(LEASE + 1)
    await busy.site.queue.alive(W1, [], draining=False)
    await busy.site.queue.sweep()
    assert await busy.site.state(busy.job.job) == "waiting"


async def _cancelled(busy: Busy) -> None:
    await busy.site.queue.cancel(jobs=[busy.job.job], submission=None, user=None)


async def _submission_cancelled(busy: Busy) -> None:
    await busy.site.queue.cancel(jobs=[], submission=1, user=None)


async def _drained(busy: Busy) -> None:
    await busy.site.queue.set_draining([W1], True)


async def _removed(busy: Busy) -> None:
    await busy.site.queue.remove([W1])


async def _finished(busy: Busy) -> None:
    await busy.site.finish("w1", busy.job)


async def _another_job(busy: Busy) -> None:
    await busy.site.take("w1")


async def _left(busy: Busy) -> None:
    await busy.site.queue.left(W1)


async def _silent(busy: Busy) -> None:
    await busy.site.listen(LEASE + 1)
    await busy.site.queue.sweep()


async def _restarted(busy: Busy) -> None:
    busy.site.restart()


async def _another_leads(busy: Busy) -> None:
    busy.site.alone = False


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (_cancelled, (Order.CONTINUE, ("1.0",))),
        (_submission_cancelled, (Order.CONTINUE, ("1.0",))),
        (_drained, (Order.DRAIN, ())),
        (_removed, (Order.DRAIN, ())),
        (_finished, (Order.CONTINUE, ("1.0",))),
        (_another_job, GOES_ON),
        (_left, (Order.DRAIN, ())),
        (_silent, GOES_ON),
        (_restarted, GOES_ON),
        (_another_leads, GOES_ON),
    ],
)
async def test_the_next_heartbeat_hears_of_every_change(
    busy: Busy, change: Callable[[Busy], Awaitable[None]], answer: object
) -> None:
    await change(busy)
    assert busy.heard() is None
    assert await busy.alive() == answer


async def test_what_others_do_changes_nothing(busy: Busy) -> None:
    other = await busy.site.take("w2")
    await busy.site.finish("w2", other)
    await busy.site.submit()
    assert (await busy.site.ask("w1", free=Resources(0))).assignment is None
    assert await busy.site.queue.cancel(jobs=[other.job], submission=None, user=None) == 0, "it has ended"
    assert busy.heard() == GOES_ON


async def test_a_write_whose_caller_has_gone_is_heard_of(busy: Busy) -> None:
    database = busy.site.database
    begun, go = threading.Event(), threading.Event()

    def holds(_connection: Connection) -> None:
        begun.set()
        assert go.wait(10)

    held = asyncio.ensure_future(database.write(holds))
    assert await asyncio.to_thread(begun.wait, 10)
    # The order waits behind the writer; once it is taken in hand, its caller gives up.
    taken, gone = threading.Event(), threading.Event()

    def waits(*_given: object) -> None:
        taken.set()
        assert gone.wait(10)

    event.listen(database.engine, "before_cursor_execute", waits)
    order = asyncio.ensure_future(busy.site.queue.set_draining([W1], True))
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.to_thread(taken.wait, 10)
    order.cancel()
    await asyncio.wait([order])
    gone.set()
    await held
    assert order.cancelled()
    await database.write(lambda _: None)  # the writes before it have ended
    assert busy.heard() is None
    assert await busy.alive() == (Order.DRAIN, ())


async def test_a_look_that_was_overtaken_is_not_believed_again(busy: Busy) -> None:
    reading, go = threading.Event(), threading.Event()

    def slow(*given: object) -> None:
        if str(given[2]).startswith("SELECT") and not reading.is_set():
            reading.set()
            assert go.wait(10)

    await busy.site.queue.set_draining([W1], True)
    event.listen(busy.site.database.engine, "after_cursor_execute", slow)
    look = asyncio.ensure_future(busy.alive(draining=True))
    assert await asyncio.to_thread(reading.wait, 10)
    await busy.site.queue.set_draining([W1], False)
    go.set()
    assert await look == (Order.DRAIN, ()), "what was true when it looked"
    assert busy.heard(draining=True) is None
    assert await busy.alive(draining=True) == GOES_ON


def test_the_younger_of_two_looks_counts() -> None:
    standing = StandingAnswers()
    older, younger = standing.look(W1), standing.look(W1)
    standing.keep(W1, older, Said((), draining=False), (Order.STOP, ()))
    assert standing.to(W1, Said((), draining=False)) is None
    standing.keep(W1, younger, Said((), draining=False), GOES_ON)
    assert standing.to(W1, Said((), draining=False)) == GOES_ON


def test_an_answer_for_once_leaves_what_stood() -> None:
    standing = StandingAnswers()
    standing.keep(W1, standing.look(W1), Said((), draining=False), GOES_ON)
    standing.keep(W1, standing.look(W1), Said((), draining=True), None)
    assert standing.to(W1, Said((), draining=False)) == GOES_ON
    assert standing.to(W1, Said((), draining=True)) is None
