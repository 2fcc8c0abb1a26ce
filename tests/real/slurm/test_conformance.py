"""A real cluster with real slurmds passes the suite for queue drivers: Slurm 22.05 and 24.11."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gridtide.errors import QueueError
from gridtide.model.demand import NodeState
from gridtide.model.workers import Worker
from gridtide.testing.queues import SHAPE, QueueBench, QueueConformance, host, offer, worker
from tests.real.slurm.cluster import queue_of, slurm_cluster
from tests.real.slurm.tree import slurm_tree


class SlurmConformance(QueueConformance):
    release: str

    @asynccontextmanager
    async def bench(self) -> AsyncIterator[QueueBench]:
        with slurm_cluster(slurm_tree(self.release)) as cluster:
            queue = queue_of(cluster)

            async def start_node(worker: Worker) -> None:
                orders = await queue.join(worker, host(worker.id))
                assert orders.batch is not None
                cluster.start_node(worker.id, orders.batch)

            async def submit(number: int) -> None:
                await queue.demand([offer(SHAPE)])  # Slurm takes jobs in once a node stands for machines to be made
                cluster.submit("sleep 600", "--mem=1024", "-n1", *([f"--array=1-{number}"] if number > 1 else []))

            async def take_jobs(worker: Worker) -> None:
                """slurmctld gives them."""
                bench = QueueBench(queue, start_node, submit, take_jobs)
                for _ in range(60):
                    node = await bench.node(worker)
                    if node is None or node.running or node.state is not NodeState.ACCEPTING:
                        break
                    await bench.wait(0.1)

            yield QueueBench(queue, start_node, submit, take_jobs, patience=3.0)

    async def test_a_single_use_worker_takes_one_job(self) -> None:
        """Slurm cannot promise that: such a worker is not let in."""
        async with self.bench() as bench:
            with pytest.raises(QueueError, match="any number of jobs"):
                await bench.queue.join(worker("conform-one", single_use=True), host("conform-one"))


class TestSlurm2205(SlurmConformance):
    release = "22.05"


class TestSlurm2411(SlurmConformance):
    release = "24.11"
