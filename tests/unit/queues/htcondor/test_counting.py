"""How often and how finely a schedd is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gridtide.queues.htcondor.counting import LONG, MOST, SHARE, IdleJobs
from gridtide.queues.htcondor.errors import PoolIncomplete, PoolUnreachable
from gridtide.testing.clocks import ManualClock


class Asked:
    """Stands for the asking process: answers from a table of (cores, requirements, count), at a cost."""

    def __init__(self, clock: ManualClock, *jobs: tuple[int, str, int], cost: float = 0.0) -> None:
        self.clock, self.jobs, self.cost = clock, jobs, cost
        self.questions: list[tuple[str, ...]] = []
        self.fails: Exception | None = None
        self.rows: Callable[[bool], Sequence[Any]] = self._rows

    async def call(self, name: str, _deadline: float, /, **arguments: Any) -> list[Any]:
        await asyncio.sleep(0)
        self.clock.advance(self.cost)
        if self.fails is not None:
            raise self.fails
        if name == "clusters":
            self.questions.append(("clusters", *map(str, arguments["numbers"])))
            return [
                {
                    "cluster": number,
                    "since": 100 + number,
                    "job": {"Requirements": self.jobs[number][1], "Owner": '"a"'},
                }
                for number in arguments["numbers"]
            ]
        self.questions.append(tuple(arguments["projection"]))
        return list(self.rows("Requirements" in arguments["projection"]))

    def _rows(self, full: bool) -> list[Any]:
        found: dict[tuple[str, ...], Any] = {}
        for number, (cores, requirements, count) in enumerate(self.jobs):
            if not count:
                continue
            job = {"RequestCpus": str(cores), **({"Requirements": requirements} if full else {})}
            row = found.setdefault(tuple(job.values()), {"job": job, "count": 0, "cluster": number})
            row["count"] += count
        return list(found.values())

    @property
    def in_full(self) -> int:
        return sum("Requirements" in question for question in self.questions)


def idle_jobs(asked: Asked) -> IdleJobs:
    return IdleJobs(asked, asked.clock, "first")  # type: ignore[arg-type]


async def found(idle: IdleJobs, expected: int) -> list[tuple[str, str, int]]:
    groups = await idle.count("<1>", expected, 8.0)
    return sorted((each.job["RequestCpus"], each.job["Requirements"], each.count) for each in groups)


async def test_a_short_queue_is_asked_in_full_each_time() -> None:
    asked = Asked(ManualClock(), (1, "a", 5), (1, "b", 3), (2, "a", 1))
    idle = idle_jobs(asked)
    for _ in range(3):
        assert await found(idle, 9) == [("1", "a", 5), ("1", "b", 3), ("2", "a", 1)]
    assert asked.in_full == 3
    (first, *_) = await idle.count("<1>", 9, 8.0)
    assert first.since == 100.0


async def test_the_next_question_waits_until_the_share_of_time_is_kept() -> None:
    asked = Asked(clock := ManualClock(), (1, "a", 5), cost=0.2)
    idle = idle_jobs(asked)
    await idle.count("<1>", 5, 8.0)
    number = len(asked.questions)
    clock.advance(0.4 / SHARE - 0.4 - 0.1)  # both questions took 0.2 s
    await idle.count("<1>", 5, 8.0)
    assert len(asked.questions) == number
    clock.advance(0.2)
    await idle.count("<1>", 5, 8.0)
    assert len(asked.questions) > number


async def test_a_long_queue_is_counted_by_kind_and_shared_out_by_the_last_full_answer() -> None:
    asked = Asked(clock := ManualClock(), (1, "a", 3 * LONG), (1, "b", LONG), (2, "a", 10))
    idle = idle_jobs(asked)
    # At first the requirements of a kind are those of its first job's cluster.
    assert await found(idle, 4 * LONG) == [("1", "a", 4 * LONG), ("2", "a", 10)]
    await asyncio.sleep(0.01)
    assert asked.in_full == 1
    assert await found(idle, 4 * LONG) == [("1", "a", 3 * LONG), ("1", "b", LONG), ("2", "a", 10)]
    asked.jobs = ((1, "a", 1 * LONG), (1, "b", LONG), (2, "a", 0), (3, "c", 7))
    assert await found(idle, 4 * LONG) == [("1", "a", 3 * LONG // 2), ("1", "b", LONG // 2), ("3", "c", 7)]
    assert asked.in_full == 1
    clock.advance(10.0)
    await found(idle, 4 * LONG)
    await asyncio.sleep(0.01)
    assert await found(idle, 4 * LONG) == [("1", "a", LONG), ("1", "b", LONG), ("3", "c", 7)]
    await idle.close()


async def test_submission_times_are_asked_once_for_each_cluster() -> None:
    asked = Asked(ManualClock(), (1, "a", 5), (2, "a", 5))
    idle = idle_jobs(asked)
    for _ in range(3):
        await idle.count("<1>", 10, 8.0)
    assert [question for question in asked.questions if question[0] == "clusters"] == [("clusters", "0", "1")]


async def test_an_answer_that_may_be_cut_off_is_asked_more_coarsely_or_refused() -> None:
    asked = Asked(ManualClock(), (1, "a", 5))
    many = [{"job": {"RequestCpus": str(each), "Requirements": "a"}, "count": 1, "cluster": 0} for each in range(MOST)]
    asked.rows = lambda full: many if full or "RequestMemory" in asked.questions[-1] else asked._rows(full)
    idle = idle_jobs(asked)
    assert await found(idle, 5) == [("1", "a", 5)]
    await idle.close()
    asked.rows = lambda _full: many
    idle = idle_jobs(asked)
    with pytest.raises(PoolIncomplete, match="first: has more than"):
        await idle.count("<1>", 5, 8.0)
    await idle.close()


async def test_a_silent_schedd_is_named_and_nothing_is_remembered_of_it() -> None:
    asked = Asked(ManualClock(), (1, "a", 5))
    idle = idle_jobs(asked)
    await idle.count("<1>", 5, 8.0)
    asked.fails = PoolUnreachable("no answer within 8 s", where="queue pool")
    asked.clock.advance(1.0)
    with pytest.raises(PoolUnreachable, match="first: no answer"):
        await idle.count("<1>", 5, 8.0)


@pytest.mark.parametrize(
    "item", [{"job": {}, "count": None, "cluster": 1}, {"job": {}, "count": 1, "cluster": None}, 7]
)
async def test_half_an_answer_is_an_error(item: Any) -> None:
    asked = Asked(ManualClock())
    asked.rows = lambda _full: [item]
    with pytest.raises(PoolIncomplete):
        await idle_jobs(asked).count("<1>", 5, 8.0)
