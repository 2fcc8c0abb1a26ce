"""A driver and its workers, for tests on a pool."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from gridtide.model.demand import DemandRow, Node, Offer
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Shape
from gridtide.testing.queues import SHAPE, host, worker
from tests.real.htcondor.pool import Pool, queue_of
from tests.real.htcondor.worker import WorkerMachine

WHY: Final = Reason(Cause.SURPLUS, "a test asks for it")


class Site:
    """A driver and its workers."""

    def __init__(self, pool: Pool, home: Path) -> None:
        self.pool, self.home = pool, home
        self.queue = queue_of(pool, home / "queue")
        self.machines: dict[str, WorkerMachine] = {}

    async def start(self, name: str, shape: Shape = SHAPE) -> Node:
        """A worker, once it is listed."""
        one = replace(worker(name), shape=shape)
        orders = await self.queue.join(one, host(name))
        self.machines[name] = WorkerMachine(self.pool.tree, self.home / name, name, orders)
        self.machines[name].start()
        return await self.until(name, lambda node: True)

    async def node(self, name: str) -> Node | None:
        return next((node for node in await self.queue.nodes() if node.worker == name), None)

    async def until(self, name: str, condition: Callable[[Node], bool], seconds: float = 20.0) -> Node:
        end = time.monotonic() + seconds
        node = None
        while time.monotonic() < end:
            node = await self.node(name)
            if node is not None and condition(node):
                return node
            await asyncio.sleep(0.2)
        raise AssertionError(f"{name} did not come to that; last: {node}\n{self.machines[name].logs()}")

    async def rows(self, *offers: Offer) -> list[DemandRow]:
        return list(await self.queue.demand(offers))

    async def close(self) -> None:
        for machine in self.machines.values():
            machine.kill()
        self.pool.remove_all_jobs()
        await self.queue.forget([machine.worker_id for machine in self.machines.values()])
        await self.queue.close()
        shutil.rmtree(self.home, ignore_errors=True)


def children_of(process: int) -> list[int]:
    """All processes below this one that ask a pool."""
    found: list[int] = []
    try:
        below = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    except OSError:  # it has just ended
        return []
    for each in below:
        found += [int(each)] if b"gridtide.queues.htcondor.asker" in shown(int(each)) else []
        found += children_of(int(each))
    return found


def shown(process: int) -> bytes:
    """Arguments and environment of a process; nothing when it has just ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes() + Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return b""
