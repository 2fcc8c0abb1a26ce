"""The fake queue passes the suite that real drivers must pass, at once and with delay."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from gridtide.model.ids import QueueName
from gridtide.model.workers import Worker
from gridtide.queues.fake import FakeQueue
from gridtide.testing.clocks import ManualClock
from gridtide.testing.queues import SHAPE, QueueBench, QueueConformance


class FakeQueueConformance(QueueConformance):
    drain_delay = 0.0
    kind = FakeQueue

    @asynccontextmanager
    async def bench(self) -> AsyncIterator[QueueBench]:
        clock = ManualClock()
        queue = self.kind(QueueName("pool"), clock, Random(1), drain_delay=self.drain_delay)

        async def start_node(worker: Worker) -> None:
            queue.register(worker.id, SHAPE.resources)

        async def submit(number: int) -> None:
            queue.submit(number, duration=1e9)

        async def take_jobs(_worker: Worker) -> None:
            """The batch system pushes."""

        async def wait(seconds: float) -> None:
            clock.advance(seconds)

        yield QueueBench(queue, start_node, submit, take_jobs, wait)


class TestPromptQueue(FakeQueueConformance):
    pass


class TestSlowQueue(FakeQueueConformance):
    drain_delay = 10.0


class DrainsAtOnce(FakeQueue):
    """Calls a busy node drained: the mistake that kills jobs."""

    def _view(self, node, now):  # type: ignore[no-untyped-def]
        jobs, node.jobs = node.jobs, {}
        try:
            return super()._view(node, now)
        finally:
            node.jobs = jobs


async def test_the_suite_notices_a_queue_that_calls_a_busy_node_empty() -> None:
    class Wrong(FakeQueueConformance):
        kind = DrainsAtOnce

    with pytest.raises(AssertionError, match="the job runs there"):
        await Wrong().test_a_busy_node_is_not_drained_before_its_jobs_end()
