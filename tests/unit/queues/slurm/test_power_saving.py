"""The driver where Slurm itself says which nodes are to be there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gridtide.errors import InvalidRequest
from gridtide.model.demand import NodeState
from gridtide.model.ids import QueueName, WorkerId
from gridtide.queues.slurm.lending import Lending
from gridtide.queues.slurm.queue import SlurmQueue, SlurmSettings
from gridtide.testing.queues import SHAPE, host, offer, worker

from .test_queue import WHY, Cluster, a_row

ONE = WorkerId("grid-one")


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster()
    made.waiting = [a_row()]
    made.node("cloud1", "IDLE", "CLOUD", features="")
    return made


@pytest.fixture
def queue(cluster: Cluster, tmp_path: Path) -> SlurmQueue:
    (tmp_path / "munge.key").write_bytes(b"k" * 128)
    settings = SlurmSettings(("head:6817",), tmp_path / "munge.key", lending=tmp_path / "lent")
    made = SlurmQueue(QueueName("cluster"), settings)
    made._commands = cluster  # type: ignore[assignment]
    assert made.lending is not None
    made.lending.lend("cloud1", ONE)
    return made


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    Lending(tmp_path / "lent").lend("n1", ONE)
    Lending(tmp_path / "lent").lend("n2", WorkerId("grid-two"))
    lending = Lending(tmp_path / "lent")
    assert dict(lending.workers) == {"n1": ONE, "n2": "grid-two"}
    lending.lend("n1", WorkerId("grid-three"))
    lending.take_back(ONE)
    assert dict(Lending(tmp_path / "lent").workers) == {"n1": "grid-three", "n2": "grid-two"}
    lending.take_back(WorkerId("grid-three"))
    assert dict(Lending(tmp_path / "lent").workers) == {"n2": "grid-two"}


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".x", "a b"])
def test_a_name_never_leaves_the_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest):
        Lending(tmp_path / "lent").lend(name, ONE)


async def test_nothing_waits_and_nothing_is_idle(queue: SlurmQueue, cluster: Cluster) -> None:
    assert await queue.demand([offer(SHAPE)]) == ()
    (node,) = await queue.nodes()
    assert (node.worker, node.state, node.idle_since) == (ONE, NodeState.ACCEPTING, None)
    assert cluster.ran == [], "no template is made"


@pytest.mark.parametrize(
    ("state", "meaning"),
    [
        ("IDLE CLOUD POWERING_DOWN", NodeState.UNAVAILABLE),
        ("IDLE CLOUD POWERED_DOWN", NodeState.UNAVAILABLE),
        ("IDLE CLOUD POWERING_UP NOT_RESPONDING", NodeState.UNAVAILABLE),
        ("IDLE CLOUD DRAIN POWERING_UP", NodeState.UNAVAILABLE),
        ("DOWN CLOUD DRAIN POWERED_DOWN", NodeState.UNAVAILABLE),
        ("IDLE CLOUD DRAIN NOT_RESPONDING POWERING_DOWN", NodeState.UNAVAILABLE),
        ("ALLOCATED CLOUD DRAIN POWERING_DOWN", NodeState.DRAINING),
        ("IDLE CLOUD DRAIN POWERING_DOWN", NodeState.DRAINED),
        ("IDLE CLOUD DRAIN POWERED_DOWN", NodeState.DRAINED),
    ],
)
async def test_only_an_idle_node_with_our_drain_is_empty(
    queue: SlurmQueue, cluster: Cluster, state: str, meaning: NodeState
) -> None:
    cluster.node("cloud1", *state.split(), features="")
    (node,) = await queue.nodes()
    assert node.state is meaning
    cluster.placed = {"cloud1": 1}
    (node,) = await queue.nodes()
    assert node.state is not NodeState.DRAINED, "squeue has a job there"


async def test_orders_name_the_node(queue: SlurmQueue, cluster: Cluster) -> None:
    assert await queue.drain({ONE: WHY}) == {ONE: None}
    assert "nodename=cloud1" in cluster.ran[-1]
    orders = await queue.join(replace(worker("one"), id=ONE), host("one"))
    assert orders.batch is not None
    command = orders.batch.services[1].command
    assert command[1:5] == ("-D", "-b", "-N", "cloud1")
    assert "-Z" not in command


async def test_slurm_may_ask_again_once_the_machine_is_gone(queue: SlurmQueue, cluster: Cluster) -> None:
    cluster.node("cloud1", "IDLE", "CLOUD", "DRAIN", "POWERED_DOWN", reason="gridtide: suspended", features="")
    await queue.forget([ONE])
    assert cluster.ran == [("scontrol", "update", "nodename=cloud1", "state=undrain")]
    await queue.forget([ONE])
    assert len(cluster.ran) == 1


async def test_a_machine_that_died_is_powered_down(queue: SlurmQueue, cluster: Cluster) -> None:
    cluster.node("cloud1", "ALLOCATED", "CLOUD", "DRAIN", reason="an operator's", features="")
    await queue.forget([ONE])
    (command,) = cluster.ran
    assert "state=power_down_force" in command
    assert queue.lending is not None
    assert dict(queue.lending.workers) == {}
