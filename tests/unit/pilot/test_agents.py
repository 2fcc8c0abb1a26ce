"""Twenty agents at once, five hundred jobs: each is run to its end exactly once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from gridtide.model.ids import WorkerId
from gridtide.pilot.protocol import JobState, Order
from tests.unit.pilot.support import ONE_CORE, Site

_AGENTS, _JOBS = 20, 500


async def _agent(site: Site, name: str, ends: Counter[str], chance: random.Random) -> None:
    await site.admit(name, ONE_CORE)
    while sum(ends.values()) < _JOBS:
        number = f"{name}-{chance.random()}"
        answer = await site.ask(name, number, wait=0.2)
        if chance.random() < 0.1:  # the answer was lost: ask again
            answer = await site.ask(name, number, wait=0.2)
        assert answer.order is Order.CONTINUE
        if answer.assignment is None:
            continue
        await site.queue.alive(WorkerId(name), [(answer.assignment.job, 1)], draining=False)
        for _ in range(2 if chance.random() < 0.1 else 1):  # and again, now the report's
            assert await site.finish(name, answer.assignment)
        ends[answer.assignment.job] += 1


async def test_many_agents_share_the_jobs(site: Site) -> None:
    ends: Counter[str] = Counter()
    agents = [asyncio.create_task(_agent(site, f"w{number}", ends, random.Random(number))) for number in range(_AGENTS)]
    for _ in range(5):
        await site.submit(f'Executable = "/bin/true"; Array = {_JOBS // 5};')
        await asyncio.sleep(0.05)
    await asyncio.wait_for(asyncio.gather(*agents), 60)
    assert len(ends) == _JOBS
    assert set(ends.values()) == {1}
    assert (await site.queue.counts())[JobState.DONE] == _JOBS
    await site.check_counters()
