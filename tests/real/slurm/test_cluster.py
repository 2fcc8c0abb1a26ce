"""Real clusters, 22.05 and 24.11: what is read, and faults. Nothing is ever read as idle that may be busy."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from gridtide.clouds.protocol import Level
from gridtide.errors import QueueError
from gridtide.model.demand import Demand, Node, NodeState
from gridtide.model.ids import WorkerId
from gridtide.model.ports import port_of
from gridtide.model.reasons import Cause, Reason
from gridtide.queues.slurm.nodes import kind_of
from gridtide.queues.slurm.queue import SlurmQueue
from gridtide.testing.queues import SHAPE, host, offer, worker
from tests.real.slurm.cluster import Cluster, queue_of, slurm_cluster, until
from tests.real.slurm.tree import RELEASES, slurm_tree

STATIC = "NodeName=Static1 NodeAddr=10.98.200.1 CPUs=4 RealMemory=1000 Feature=ssd State=UNKNOWN"
WHY = Reason(Cause.SURPLUS, "nothing waits for it")


@pytest.fixture(params=RELEASES)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with slurm_cluster(slurm_tree(request.param), more=STATIC, node_timeout=5) as cluster:
        yield cluster


async def start(cluster: Cluster, queue: SlurmQueue, name: str) -> WorkerId:
    orders = await queue.join(worker(name), host(name))
    assert orders.batch is not None
    cluster.start_node(name, orders.batch)
    await until_node(queue, WorkerId(name), NodeState.ACCEPTING)
    return WorkerId(name)


async def node_of(queue: SlurmQueue, name: str) -> Node | None:
    return next((node for node in await queue.nodes() if node.name == name), None)


async def until_node(queue: SlurmQueue, name: str, state: NodeState, running: int | None = None) -> Node:
    for _ in range(300):
        node = await node_of(queue, name)
        if node is not None and node.state is state and running in (None, node.running):
            return node
    raise AssertionError(f"{name} should be {state} with {running} jobs; found {node}")


def waiting(rows: Demand) -> int:
    return sum(row.count for row in rows)


async def test_drain_with_a_running_job_and_taking_it_back(cluster: Cluster) -> None:
    queue = queue_of(cluster)
    name = await start(cluster, queue, "grid-one")
    job = cluster.submit("sleep 600", "-n1", "--mem=100")
    await until_node(queue, name, NodeState.ACCEPTING, 1)
    assert await queue.drain({name: WHY}) == {name: None}
    assert (await until_node(queue, name, NodeState.DRAINING)).running == 1
    assert "gridtide: nothing waits for it" in cluster.room.run("scontrol", "show", "node", name)
    assert await queue.undrain([name]) == {name: None}
    assert (await until_node(queue, name, NodeState.ACCEPTING)).running == 1
    await queue.drain({name: WHY})
    cluster.room.run("scancel", job)
    assert (await until_node(queue, name, NodeState.DRAINED)).running == 0
    assert cluster.nodes[name].processes("slurmstepd") == []


async def test_what_an_operator_drained_stays_drained(cluster: Cluster) -> None:
    queue = queue_of(cluster)
    name = await start(cluster, queue, "grid-one")
    cluster.room.run("scontrol", "update", f"nodename={name}", "state=drain", "reason=disk is noisy")
    await until_node(queue, name, NodeState.DRAINED)
    outcome = (await queue.undrain([name]))[name]
    assert "drained by others (disk is noisy)" in str(outcome)
    assert (await until_node(queue, name, NodeState.DRAINED)).running == 0


async def test_nodes_of_others_are_seen_and_never_touched(cluster: Cluster) -> None:
    queue = queue_of(cluster)
    static = await node_of(queue, "Static1")
    assert static is not None
    assert (static.worker, static.total.cores, static.kind) == (None, 4, kind_of(("all",), frozenset({"ssd"})))
    name = WorkerId("Static1")
    before = cluster.room.run("scontrol", "show", "node", "Static1")
    assert isinstance((await queue.drain({name: WHY}))[name], QueueError)
    assert isinstance((await queue.undrain([name]))[name], QueueError)
    await queue.forget([name])
    assert cluster.room.run("scontrol", "show", "node", "Static1") == before
    cluster.submit("sleep 1", "-C", "ssd", "--mem=900")
    (row,) = await queue.demand([offer(SHAPE)])
    assert row.node_kinds == frozenset({kind_of(("all",), frozenset({"ssd"}))})
    assert (row.runs_on, "no group has the features ssd" in row.label) == (frozenset(), True)


async def test_an_empty_cluster_takes_jobs_in_once_demand_was_asked_for(cluster: Cluster) -> None:
    queue = queue_of(cluster)
    assert await queue.demand([offer(SHAPE)]) == ()
    assert [node.name for node in await queue.nodes()] == ["Static1"], "what only stands for machines is no node"
    cluster.submit("sleep 1", "-C", "conform", "-c2", "--mem=3G", "--array=1-1000%700")
    (row,) = await queue.demand([offer(SHAPE)])
    assert (row.count, row.need.cores, row.need.memory) == (700, 2, 3072)
    assert row.runs_on == {offer(SHAPE).key}
    await start(cluster, queue, "conform-one")
    await until_node(queue, "conform-one", NodeState.ACCEPTING, 1)
    assert waiting(await queue.demand([offer(SHAPE)])) == 699


async def test_slurmctld_is_restarted(cluster: Cluster) -> None:
    queue = queue_of(cluster)
    name = await start(cluster, queue, "grid-one")
    cluster.submit("sleep 600", "-n1", "--mem=100")
    await until_node(queue, name, NodeState.ACCEPTING, 1)
    await queue.drain({name: WHY})
    steps = cluster.nodes[name].processes("slurmstepd")
    # Not killed: what happened in its last seconds would be lost (docs/explanation/slurm-queue.md), jobs included.
    cluster.room.kill("slurmctld", signal.SIGTERM)
    # 22.05 answers with an empty list of nodes, no exit status, and an error beside them.
    answers = await asyncio.gather(queue.nodes(), queue.demand([]), return_exceptions=True)
    assert [type(each) for each in answers] == [QueueError] * 2
    cluster.start_controller()
    for _ in range(12):  # whatever it says while it finds its way back
        node = await node_of(queue, name)
        assert node is not None
        assert node.running == 1
        assert node.state in (NodeState.DRAINING, NodeState.UNAVAILABLE)
    assert (await until_node(queue, name, NodeState.DRAINING)).running == 1
    assert cluster.nodes[name].processes("slurmstepd") == steps, "the job runs on"


async def test_munge_is_stopped(cluster: Cluster) -> None:
    queue = queue_of(cluster, timeout=3.0)
    name = await start(cluster, queue, "grid-one")
    cluster.room.kill("munged")
    # Slurm's commands try again and again. All three at once: each costs the whole time.
    nodes, demand, drained = await asyncio.gather(
        queue.nodes(), queue.demand([]), queue.drain({name: WHY}), return_exceptions=True
    )
    assert [type(each) for each in (nodes, demand, drained)] == [QueueError] * 3, "nothing is read as idle, or as none"
    (finding,) = await queue.check()
    assert finding.level is Level.ERROR
    cluster.start_munge()
    await until_node(queue, name, NodeState.ACCEPTING)


async def test_slurmd_is_killed_while_its_job_runs(cluster: Cluster) -> None:
    queue = queue_of(cluster)
    name = await start(cluster, queue, "grid-one")
    cluster.submit("sleep 600", "-n1", "--mem=100")
    await until_node(queue, name, NodeState.ACCEPTING, 1)
    cluster.nodes[name].kill("slurmd")
    for _ in range(400):
        node = await node_of(queue, name)
        assert node is not None
        assert node.state is NodeState.UNAVAILABLE or node.running == 1, "never idle, never drained"
        if node.state is NodeState.UNAVAILABLE:
            break
    assert node is not None
    assert node.state is NodeState.UNAVAILABLE
    assert cluster.nodes[name].processes("slurmstepd"), "the job runs on"


async def test_a_machine_is_gone(cluster: Cluster) -> None:
    queue = queue_of(cluster)
    name = await start(cluster, queue, "grid-one")
    cluster.submit("sleep 600", "-n1", "--mem=100")
    await until_node(queue, name, NodeState.ACCEPTING, 1)
    cluster.end_node(name)
    await queue.forget([name])
    assert await node_of(queue, name) is None
    (row,) = await queue.demand([offer(SHAPE)])
    assert row.count == 1, "its job waits again, and counts although it may not start for two minutes"


async def test_a_busy_process_stands_for_a_job(cluster: Cluster) -> None:
    queue = queue_of(cluster)
    orders = await queue.join(worker("grid-one"), host("grid-one"))
    assert orders.batch is not None
    name = await start(cluster, queue, "grid-one")
    room = cluster.nodes[name]
    assert not any(room.processes(busy) for busy in orders.batch.busy)
    cluster.submit("sleep 600", "-n1", "--mem=100")
    await until_node(queue, name, NodeState.ACCEPTING, 1)
    until(lambda: any(room.processes(busy) for busy in orders.batch.busy if orders.batch))
    room.run(*orders.batch.drain)
    assert (await until_node(queue, name, NodeState.DRAINING)).running == 1
    room.run(*orders.batch.resume)
    await until_node(queue, name, NodeState.ACCEPTING, 1)


async def test_the_configuration_is_looked_over(cluster: Cluster) -> None:
    findings = await queue_of(cluster).check()
    assert [finding.level for finding in findings] == [Level.OK]
    text = (cluster.room.root / "etc/slurm/slurm.conf").read_text()
    for line in ("MaxNodeCount=500", "SlurmctldParameters=enable_configless"):
        text = text.replace(line, "")
    cluster.room.write("/etc/slurm/slurm.conf", text.replace("ReturnToService=2", "ReturnToService=0"))
    cluster.room.kill("slurmctld")
    cluster.start_controller()
    findings = await queue_of(cluster).check()
    assert {finding.remedy for finding in findings} >= {
        "slurm.conf: SlurmctldParameters=enable_configless",
        "slurm.conf: ReturnToService=2",
    }


async def test_workers_that_share_an_address_have_ports_of_their_own() -> None:
    with slurm_cluster(slurm_tree("24.11"), shared=True) as cluster:
        queue = queue_of(cluster)
        names = [await start(cluster, queue, name) for name in ("grid-one", "grid-two")]
        done = [cluster.submit("srun true", "-n1", "-w", name, "-o", f"/tmp/{name}") for name in names]
        until(lambda: not cluster.room.run("squeue", "-h"), why="the jobs do not end")
        for job in done:
            assert "JobState=COMPLETED" in cluster.room.run("scontrol", "show", "job", job)
        said = cluster.room.run("scontrol", "show", "node", names[0])
        assert f"Port={port_of(names[0])}" in said
        assert "NodeAddr=127.0.0.1" in said
