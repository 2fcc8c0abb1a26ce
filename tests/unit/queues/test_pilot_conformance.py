"""The pilot queue, on a real database, passes the suite for queue drivers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gridtide.model.ids import QueueName
from gridtide.model.workers import Worker
from gridtide.queues.pilot import PilotQueueDriver
from gridtide.testing.queues import SHAPE, QueueBench, QueueConformance
from tests.unit.pilot.support import Site


class TestPilotQueue(QueueConformance):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    @asynccontextmanager
    async def bench(self) -> AsyncIterator[QueueBench]:
        site = Site(self.directory)

        async def start_node(worker: Worker) -> None:
            """Its agent asks, in vain."""
            await site.queue.alive(worker.id, [], draining=False)

        async def submit(number: int) -> None:
            await site.submit(f'Executable = "/bin/true"; Cores = 1; Memory = 1024; Array = {number};')

        async def take_jobs(worker: Worker) -> None:
            for _ in range(SHAPE.resources.cores):
                await site.ask(worker.id, free=SHAPE.resources)

        async def wait(seconds: float) -> None:
            site.clock.at += seconds

        yield QueueBench(PilotQueueDriver(QueueName("pool"), site.queue), start_node, submit, take_jobs, wait)
        await site.database.close()
