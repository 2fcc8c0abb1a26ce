"""Slurm's power saving: who asks for workers, and who lets them go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from gridtide.clock import SystemClock
from gridtide.control.fleet import Fleet
from gridtide.control.powering import PowerSaving
from gridtide.errors import Conflict
from gridtide.model.actions import Launch
from gridtide.model.ids import GroupName, QueueName, WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.workers import Worker, WorkerState
from gridtide.queues.slurm.lending import Lending
from gridtide.store.ports import AddWorker, Change, UpdateWorker
from gridtide.testing.queues import worker

GRID, FULL = GroupName("grid"), Reason(Cause.AT_MAXIMUM, "group grid is at its maximum")


class Launcher:
    """A fleet in memory with room for so many."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.workers: dict[WorkerId, Worker] = {}

    @property
    def fleet(self) -> Fleet:
        return cast(Fleet, self)

    async def change(self, decide: Callable[[Mapping[WorkerId, Worker]], Sequence[Change]]) -> Sequence[Change]:
        changes = decide(self.workers)
        for change in changes:
            if isinstance(change, AddWorker | UpdateWorker):
                self.workers[change.worker.id] = change.worker
        return changes

    def resume_launches(self, group: GroupName, number: int) -> tuple[Sequence[Launch], Reason]:
        like = worker("like")
        made = min(number, self.room - len(self.workers))
        launch = Launch(group, like.cloud, like.shape, None, like.generation, False, made, FULL)
        return [launch] if made else [], FULL

    def intents_of(self, launch: Launch) -> list[Change]:
        first = len(self.workers)
        ids = [WorkerId(f"grid-{first + number}") for number in range(launch.count)]
        return [AddWorker(replace(worker("like"), id=each, state=WorkerState.INTENDED)) for each in ids]

    def queue_changed(self, name: QueueName) -> None:
        assert name == "cluster"


@pytest.fixture
def lending(tmp_path: Path) -> Lending:
    return Lending(tmp_path / "lent")


def powering(launcher: Launcher, lending: Lending) -> PowerSaving:
    return PowerSaving(launcher, lambda _: (QueueName("cluster"), lending), SystemClock())


async def test_a_worker_for_each_node_and_never_two(lending: Lending) -> None:
    launcher = Launcher(9)
    power = powering(launcher, lending)
    first = await power.resume(GRID, ["n1", "n2", "n1"], actor="user:slurm")
    assert first == {"n1": "grid-0", "n2": "grid-1"}
    assert await power.resume(GRID, ["n2", "n3"], actor="user:slurm") == {"n2": "grid-1", "n3": "grid-2"}
    assert len(launcher.workers) == 3


async def test_as_many_as_there_is_room_for(lending: Lending) -> None:
    power = powering(Launcher(1), lending)
    with pytest.raises(Conflict, match="n2,n3: group grid is at its maximum"):
        await power.resume(GRID, ["n1", "n2", "n3"], actor="user:slurm")
    assert dict(lending.workers) == {"n1": "grid-0"}


async def test_suspended_nodes_are_drained_and_wait_for_their_machine_s_end(lending: Lending) -> None:
    launcher = Launcher(9)
    power = powering(launcher, lending)
    await power.resume(GRID, ["n1", "n2"], actor="user:slurm")
    for _ in range(2):
        assert await power.suspend(GRID, ["n1", "n9"], actor="user:slurm") == {"n1": "grid-0"}
    assert [each.drain_wanted for each in launcher.workers.values()] == [True, False]
    assert not any(each.force_wanted for each in launcher.workers.values())
    with pytest.raises(Conflict, match="n1: its last machine, grid-0, still ends"):
        await power.resume(GRID, ["n1", "n2"], actor="user:slurm")
    del launcher.workers[WorkerId("grid-0")]
    launcher.workers[WorkerId("grid-x")] = worker("x")
    assert (await power.resume(GRID, ["n1"], actor="user:slurm"))["n1"] == "grid-2"
