"""The driver, with commands that answer from memory: templates, pacing, orders, join."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gridtide.errors import QueueError
from gridtide.model.demand import NodeState
from gridtide.model.ids import QueueName, WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.queues.slurm.queue import SlurmQueue, SlurmSettings
from gridtide.testing.queues import SHAPE, host, offer, worker

WHY = Reason(Cause.SURPLUS, 'not "needed"\nnow')
ONE, TWO = WorkerId("grid-one"), WorkerId("grid-two")


class Cluster:
    """Stands for the commands."""

    def __init__(self) -> None:
        self.waiting: list[list[Any]] = []
        self.placed: dict[str, int] = {}
        self.records: dict[str, dict[str, Any]] = {}
        self.ran: list[tuple[str, ...]] = []
        self.counts = 0
        self.refuse: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()

    def node(self, name: str, *state: str, reason: str = "", features: str = "gridtide,grid") -> None:
        self.records[name] = {
            "name": name, "state": list(state or ("IDLE", "DYNAMIC_NORM")), "features": features, "cpus": 2,
            "real_memory": 4096, "alloc_cpus": 0, "last_busy": 5, "partitions": ["all"], "reason": reason,
        }  # fmt: skip

    async def version(self) -> tuple[int, int]:
        return 24, 11

    async def jobs(self, *, waiting: bool) -> dict[str, Any]:
        self.counts += waiting
        if waiting:
            await self.gate.wait()
        return {"waiting": self.waiting if waiting else [], "placed": self.placed}

    async def nodes(self, version: tuple[int, int]) -> list[dict[str, Any]]:
        return list(self.records.values())

    async def run(self, *command: str) -> str:
        self.ran.append(command)
        names = [word.removeprefix("nodename=").split(",") for word in command if word.startswith("nodename=")]
        for name in names[0] if names else ():
            if name in self.refuse:
                raise QueueError(f"scontrol: {name} is busy", where="queue cluster")
        if command[:2] == ("scontrol", "create"):
            values = dict(word.split("=", 1) for word in command[2:])
            self.node(values["nodename"], "IDLE", "CLOUD", "DRAIN", features=values["Feature"])
            self.records[values["nodename"]] |= {"cpus": int(values["CPUs"]), "real_memory": int(values["RealMemory"])}
        if command[:2] == ("scontrol", "delete"):
            del self.records[names[0][0]]
        return ""


def a_row(count: int = 3, cores: int = 1) -> list[Any]:
    return [cores, 1024, 0, 1, "all", "", False, None, "", count, 50.0]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def queue(cluster: Cluster, tmp_path: Path) -> SlurmQueue:
    (tmp_path / "munge.key").write_bytes(b"k" * 128)
    made = SlurmQueue(QueueName("cluster"), SlurmSettings(("head:6817",), tmp_path / "munge.key", reserve=96))
    made._commands = cluster  # type: ignore[assignment]
    return made


async def test_a_template_for_each_offer_is_made_once(queue: SlurmQueue, cluster: Cluster) -> None:
    for _ in range(3):
        await queue.demand([offer(SHAPE)])
        await queue.nodes()
    created = [command for command in cluster.ran if command[1] == "create"]
    assert created == [
        ("scontrol", "create", "nodename=TEMPLATE-conform-conform-1", "state=cloud", "nodeaddr=127.0.0.1", "CPUs=2",
         "RealMemory=4000", "Feature=gridtide,conform"),
    ]  # fmt: skip
    assert await queue.nodes() == (), "it is no node"


async def test_a_template_that_tells_the_truth_no_more_is_made_anew(queue: SlurmQueue, cluster: Cluster) -> None:
    await queue.demand([offer(SHAPE)])
    for change in ({"cpus": 8}, {"real_memory": 5}, {"features": "gridtide"}, {"state": ["IDLE", "CLOUD"]}):
        cluster.records["TEMPLATE-conform-conform-1"].update(change)
        cluster.ran.clear()
        await queue.nodes()
        await queue.demand([offer(SHAPE)])
        assert [command[1] for command in cluster.ran] == ["delete", "create", "update"]


async def test_what_slurm_refuses_to_make_hides_no_demand(queue: SlurmQueue, cluster: Cluster) -> None:
    cluster.refuse.add("TEMPLATE-conform-conform-1")
    cluster.waiting = [a_row()]
    (row,) = await queue.demand([offer(SHAPE)])
    assert (row.count, row.runs_on) == (3, frozenset({offer(SHAPE).key}))


async def test_an_expensive_count_serves_for_a_while(
    queue: SlurmQueue, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(queue, "_monotonic", lambda: now[0])
    cluster.waiting = [a_row()]

    async def slowly(*, waiting: bool) -> dict[str, Any]:
        cluster.counts += 1
        await cluster.gate.wait()
        now[0] += 2.0
        return {"waiting": cluster.waiting, "placed": {}}

    cluster.jobs = slowly  # type: ignore[method-assign]
    assert [row.count for row in await queue.demand([])] == [3]
    cluster.waiting = [a_row(9)]
    now[0] += 19.0
    assert [row.count for row in await queue.demand([])] == [3], "ten times as long as it took"
    assert cluster.counts == 1
    now[0] += 2.0
    cluster.gate.clear()
    assert [row.count for row in await queue.demand([])] == [3], "the old one stands in while a new one is made"
    await asyncio.sleep(0)
    assert cluster.counts == 2
    cluster.gate.set()
    await asyncio.sleep(0.01)
    assert [row.count for row in await queue.demand([])] == [9]
    now[0] += 700.0
    cluster.gate.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await queue.demand([])  # too old to stand in
    cluster.gate.set()
    await asyncio.sleep(0.01)
    assert cluster.counts == 3, "what was begun goes on when nobody waits"
    assert [row.count for row in await queue.demand([])] == [9]


async def test_cheap_counts_are_always_new(queue: SlurmQueue, cluster: Cluster) -> None:
    for count in (1, 2, 3):
        cluster.waiting = [a_row(count)]
        assert [row.count for row in await queue.demand([])] == [count]


async def test_drains_with_one_reason_are_one_call(queue: SlurmQueue, cluster: Cluster) -> None:
    for name in (ONE, TWO):
        cluster.node(name)
    never = WorkerId("grid-never")
    outcomes = await queue.drain({ONE: WHY, TWO: WHY, never: WHY})
    assert cluster.ran == [
        ("scontrol", "update", "nodename=grid-one,grid-two", "state=drain", "reason=gridtide: not 'needed' now")
    ]
    assert (outcomes[ONE], outcomes[TWO]) == (None, None)
    assert isinstance(outcomes[never], QueueError)


async def test_one_that_slurm_refuses_does_not_hold_the_others(queue: SlurmQueue, cluster: Cluster) -> None:
    for name in (ONE, TWO):
        cluster.node(name)
    cluster.refuse.add(ONE)
    outcomes = await queue.drain({ONE: WHY, TWO: WHY})
    assert isinstance(outcomes[ONE], QueueError)
    assert outcomes[TWO] is None


@pytest.mark.parametrize("features", ["grid", "", "gridtide-two"])
async def test_nodes_without_our_mark_are_not_touched(queue: SlurmQueue, cluster: Cluster, features: str) -> None:
    cluster.node(ONE, features=features)
    assert isinstance((await queue.drain({ONE: WHY}))[ONE], QueueError)
    assert isinstance((await queue.undrain([ONE]))[ONE], QueueError)
    await queue.forget([ONE])
    assert cluster.ran == []


async def test_only_our_own_drains_are_taken_back(queue: SlurmQueue, cluster: Cluster) -> None:
    cluster.node(ONE, "IDLE", "DRAIN", "DYNAMIC_NORM", reason="gridtide: surplus")
    cluster.node(TWO, "IDLE", "DRAIN", "DYNAMIC_NORM", reason="disk is noisy")
    cluster.node("grid-free")
    cluster.node("grid-down", "DOWN", "DYNAMIC_NORM")
    outcomes = await queue.undrain([ONE, TWO, WorkerId("grid-free"), WorkerId("grid-down")])
    assert cluster.ran == [("scontrol", "update", "nodename=grid-one", "state=undrain")]
    assert {name for name, outcome in outcomes.items() if outcome is not None} == {TWO}


async def test_forgetting_puts_jobs_back_and_deletes_what_is_dynamic(queue: SlurmQueue, cluster: Cluster) -> None:
    cluster.node(ONE, "ALLOCATED", "DYNAMIC_NORM")
    cluster.node(TWO, "IDLE", "CLOUD")
    await queue.forget([ONE, TWO, WorkerId("grid-never")])
    assert cluster.ran == [
        ("scontrol", "update", "nodename=grid-one,grid-two", "state=down", "reason=gridtide: its machine is gone"),
        ("scontrol", "delete", "nodename=grid-one"),
    ]


async def test_a_node_that_is_not_understood_is_an_error(queue: SlurmQueue, cluster: Cluster) -> None:
    cluster.node(ONE)
    cluster.records[ONE]["cpus"] = "many"
    with pytest.raises(QueueError, match="node grid-one: cpus is 'many'"):
        await queue.nodes()


async def test_squeue_is_a_second_witness(queue: SlurmQueue, cluster: Cluster) -> None:
    cluster.node(ONE, "IDLE", "DRAIN")
    cluster.placed = {ONE: 1}
    (node,) = await queue.nodes()
    assert (node.state, node.running) == (NodeState.DRAINING, 1)


async def test_a_worker_gets_no_more_memory_than_its_machine_has(queue: SlurmQueue) -> None:
    for memory, expected in ((8000, 4000), (3500, 3500), ("much", 4000), (0, 4000)):
        orders = await queue.join(worker("grid-one"), {**host("grid-one"), "Memory": memory, "Features": "ssd"})
        assert orders.kind == "batch"
        assert orders.batch is not None
        assert orders.batch.services[1].command[-1] == f"CPUs=2 RealMemory={expected} Feature=gridtide,conform,ssd"


async def test_without_munges_key_nobody_joins(queue: SlurmQueue, tmp_path: Path) -> None:
    (tmp_path / "munge.key").unlink()
    with pytest.raises(QueueError, match=r"munge\.key: munge's key cannot be read: No such file"):
        await queue.join(worker("grid-one"), host("grid-one"))


async def test_a_single_use_worker_is_not_let_in(queue: SlurmQueue) -> None:
    with pytest.raises(QueueError, match="any number of jobs"):
        await queue.join(worker("grid-one", single_use=True), host("grid-one"))


async def test_closing_ends_the_count_under_way(queue: SlurmQueue, cluster: Cluster) -> None:
    cluster.gate.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await queue.demand([])
    counting = queue._counting
    assert counting is not None
    assert not counting.done()
    await queue.close()
    assert counting.cancelled()
