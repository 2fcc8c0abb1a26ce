"""A real pool with real startds passes the suite for queue drivers."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from gridtide.model.demand import NodeState
from gridtide.model.ids import WorkerId
from gridtide.model.workers import Worker
from gridtide.testing.queues import QueueBench, QueueConformance, host
from tests.real.htcondor.pool import Pool, queue_of, running_pool, settled
from tests.real.htcondor.worker import WorkerMachine


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with running_pool() as pool:
        yield pool


class TestHTCondorQueue(QueueConformance):
    numbers = itertools.count()

    @pytest.fixture(autouse=True)
    def _pool(self, pool: Pool) -> None:
        self.pool = pool

    @asynccontextmanager
    async def bench(self) -> AsyncIterator[QueueBench]:
        home = self.pool.home / f"bench-{next(self.numbers)}"
        queue = queue_of(self.pool, home / "queue")
        machines: dict[str, WorkerMachine] = {}
        self.machines = machines

        async def start_node(worker: Worker) -> None:
            orders = await queue.join(worker, host(worker.id))
            machines[worker.id] = WorkerMachine(self.pool.tree, home / worker.id, worker.id, orders)
            machines[worker.id].start()

        async def submit(number: int) -> None:
            self.pool.sleep(3600, number, "request_memory = 1024", "job_lease_duration = 20")

        async def take_jobs(worker: Worker) -> None:
            """The negotiator does it. Until a job has begun, its claim counts as room too."""
            bench = QueueBench(queue, start_node, submit, take_jobs)
            for _ in range(60):
                node = await bench.node(worker)
                if node is None or node.state is not NodeState.ACCEPTING:
                    break
                if node.running and node.free.cores == node.total.cores - node.running:
                    break
                await bench.wait(0.2)

        await settled(queue)
        try:
            yield QueueBench(queue, start_node, submit, take_jobs, patience=5.0)
        finally:
            for machine in machines.values():
                machine.kill()
            self.pool.remove_all_jobs()
            await queue.forget([machine.worker_id for machine in machines.values()])
            await queue.close()
            shutil.rmtree(home, ignore_errors=True)

    async def test_forgetting(self) -> None:
        """Its machine is gone: the node goes at once. Its job waits again when its lease is over: HTCondor's business.

        The suite forgets a machine that still lives, which then reports again.
        """
        async with self.bench() as bench:
            one = await bench.start("conform-one")
            self.machines[one.id].kill()
            for _ in range(2):
                await bench.queue.forget([one.id, WorkerId("conform-never")])
            assert await bench.node(one) is None
