"""Slurm's power saving: Slurm says which of its nodes are to be there, and a worker stands for each of them.

The life of such a worker is that of any other; what differs is who asks for it. It goes by the ordinary drain, so a job
that runs there, for whatever reason, runs to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gridtide.clock import Clock
from gridtide.control.fleet import Fleet
from gridtide.control.operating import drain_changes
from gridtide.errors import Conflict, NotFound
from gridtide.model.actions import Launch
from gridtide.model.ids import GroupName, QueueName, WorkerId
from gridtide.model.reasons import Reason
from gridtide.model.workers import Worker, WorkerState
from gridtide.queues.slurm.lending import Lending
from gridtide.store.ports import AddWorker, Change, Event

_STANDING = frozenset({WorkerState.INTENDED, WorkerState.LAUNCHING, WorkerState.BOOTING, WorkerState.JOINED})


class Launcher(Protocol):
    """What it needs of the controller."""

    @property
    def fleet(self) -> Fleet:
        """The workers."""
        ...

    def resume_launches(self, group: GroupName, number: int) -> tuple[Sequence[Launch], Reason]:
        """How so many may be launched now, and why no more."""
        ...

    def intents_of(self, launch: Launch) -> list[Change]:
        """The records of a launch."""
        ...

    def queue_changed(self, name: QueueName) -> None:
        """Look at the queue again."""
        ...


Lendings = Callable[[GroupName], tuple[QueueName, Lending]]
"""The queue of a group, and which of its nodes are whose. NotFound when there is none with power saving."""


class PowerSaving:
    """Implements the service's PowerSaver."""

    def __init__(self, launcher: Launcher, lendings: Lendings, clock: Clock) -> None:
        self._launcher = launcher
        self._lendings = lendings
        self._clock = clock

    async def resume(self, group: GroupName, nodes: Sequence[str], *, actor: str) -> Mapping[str, WorkerId]:
        """Record a worker for each node that has none. Repeating it is harmless.

        Conflict when a node's last machine still ends, or when there is no room for all: those for which there is room
        are launched nevertheless.
        """
        queue, lending = self._lendings(group)
        refused: list[str] = []

        def decide(workers: Mapping[WorkerId, Worker]) -> list[Change]:
            refused.clear()
            missing = []
            for node in dict.fromkeys(nodes):
                known = workers.get(lending.workers.get(node, WorkerId("")))
                if known is None:
                    missing.append(node)
                elif known.state not in _STANDING or known.drain_wanted:
                    refused.append(f"{node}: its last machine, {known.id}, still ends")
            return self._intents(group, missing, lending, refused, actor) if missing else []

        await self._launcher.fleet.change(decide)
        self._launcher.queue_changed(queue)
        if refused:
            raise Conflict(f"not resumed: {'; '.join(refused)[:500]}", where=f"group {group}")
        return {node: lending.workers[node] for node in nodes}

    def _intents(
        self, group: GroupName, missing: Sequence[str], lending: Lending, refused: list[str], actor: str
    ) -> list[Change]:
        launches, why_not = self._launcher.resume_launches(group, len(missing))
        left = list(missing)
        changes: list[Change] = []
        for launch in launches:
            made = self._launcher.intents_of(launch)
            for change in made:
                if isinstance(change, AddWorker):
                    # Kept before the intent is committed: no machine may join without knowing what it is.
                    lending.lend(left[0], change.worker.id)
                    text = f"asked for by Slurm, as its node {left.pop(0)}"
                    said = Event(self._clock.now(), "spawn", change.worker.id, actor, launch.reason, text, group=group)
                    changes.append(said)
            changes = [*made, *changes]
        if left:
            refused.append(f"{','.join(left)}: {why_not.text}")
        return changes

    async def suspend(self, group: GroupName, nodes: Sequence[str], *, actor: str) -> Mapping[str, WorkerId]:
        """Drain the workers that stand for these nodes. Repeating it is harmless; nodes without one are left out."""
        queue, lending = self._lendings(group)
        now = self._clock.now()
        found: dict[str, WorkerId] = {}

        def decide(workers: Mapping[WorkerId, Worker]) -> Sequence[Change]:
            found.clear()
            for node in dict.fromkeys(nodes):
                worker = lending.workers.get(node)
                if worker is not None and worker in workers:
                    found[node] = worker
            return drain_changes(workers, list(found.values()), False, actor=actor, now=now)

        await self._launcher.fleet.change(decide)
        self._launcher.queue_changed(queue)
        return found


def no_power_saving(group: GroupName) -> NotFound:
    """The error of a group that has none."""
    return NotFound(
        f"there is no group {group[:80]!r} whose queue is a Slurm cluster with power_saving", remedy="see the site file"
    )
