"""A process that commits in a loop and says each number after its commit has returned; the crash test kills it."""

from __future__ import annotations

import asyncio
import os

from gridtide.model.workers import WorkerState
from gridtide.store.opening import open_store
from gridtide.store.owner import lives, this_process
from gridtide.store.ports import AddWorker, Change
from tests.unit.store.values import NOW, event, step, worker


async def _commit(url: str, report: int, begin: int) -> None:
    _database, store = await open_store(url)
    seen = await store.current_lease()
    lease = await store.take_lease(
        this_process(), now=NOW, seconds=1e6, owner_lives=None if seen is None else lives(seen.owner), seen=seen
    )
    number = begin
    while True:
        new = worker(f"grid-{number:07}", created=float(number))
        told: list[Change] = [event(f"{number}.{part}", subject=new.id) for part in range(3)]
        await store.commit(lease, [AddWorker(new), step(new, WorkerState.LAUNCHING, key=new.id), *told])
        os.write(report, b"%d\n" % number)
        number += 1


def run(url: str, report: int, begin: int) -> None:
    """Never returns."""
    asyncio.run(_commit(url, report, begin))
