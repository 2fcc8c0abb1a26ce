"""What must hold at every event of a simulation, whatever policy runs and whatever breaks.

The witness stands where nothing can pass it: between the controller and its store (every decision), and at the clouds
(every machine made or ended).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from gridtide.clouds.fake import FakeMachine
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.rules import SiteRules
from gridtide.model.workers import Worker, may
from gridtide.sim.cloud import SimulatedCloud
from gridtide.store.memory import MemoryFleetStore
from gridtide.store.ports import AddWorker, Change, Event, Lease, UpdateWorker

ORPHAN_AFTER: Final = 900.0
"""Seconds for which a machine may exist that the controller does not know: its stray rules must have found it by then
(listing lag and settling time included)."""

KEPT: Final = 100
"""Violations that are told one by one."""


class Rule(StrEnum):
    """What may never happen."""

    JOB_KILLED = "a running job was ended by us"
    MAXIMUM = "a group had more machines than its maximum"
    QUOTA = "a cloud had more machines than its quota"
    BUDGET = "a cloud charged more on a day than its budget"
    DOUBLE = "a worker had two machines"
    ORPHAN = "a machine of ours that nobody knows"
    FOREIGN = "a machine of somebody else was ended"
    NO_REASON = "a worker changed its state without a reason"
    ILLEGAL = "a worker made a step that is not in the table"


@dataclass(frozen=True, slots=True)
class Violation:
    """One breach."""

    at: float
    rule: Rule
    text: str


@dataclass(slots=True)
class Watch:
    """Collects violations."""

    rules: SiteRules
    clouds: Sequence[SimulatedCloud]
    now: Callable[[], float]
    found: list[Violation] = field(default_factory=list)
    counts: dict[Rule, int] = field(default_factory=dict)
    decisions: int = 0
    """State changes that were looked at."""
    _unknown_since: dict[str, float] = field(default_factory=dict)

    def attach(self) -> None:
        """Begin to watch the clouds."""
        for cloud in self.clouds:
            cloud.on_made.append(lambda machine, cloud=cloud: self._made(cloud, machine))  # type: ignore[misc]
            cloud.on_ended.append(lambda machine, cloud=cloud: self._ended(cloud, machine))  # type: ignore[misc]

    def breach(self, rule: Rule, text: str) -> None:
        """Note it."""
        self.counts[rule] = self.counts.get(rule, 0) + 1
        if len(self.found) < KEPT:
            self.found.append(Violation(self.now(), rule, text))

    def decided(self, changes: Sequence[Change]) -> None:
        """The controller is about to record these."""
        for change in changes:
            if isinstance(change, UpdateWorker):
                if change.before is not change.worker.state and not may(change.before, change.worker.state):
                    self.breach(Rule.ILLEGAL, f"{change.worker.id}: {change.before} to {change.worker.state}")
                self._reason(change.worker)
            elif isinstance(change, AddWorker):
                self._reason(change.worker)

    def look_for_orphans(self, known: Mapping[WorkerId, Worker]) -> None:
        """Compare what exists with what the controller knows."""
        now = self.now()
        seen: dict[str, float] = {}
        for cloud in self.clouds:
            for machine in cloud.alive():
                if machine.worker is None or machine.worker in known:
                    continue
                since = self._unknown_since.get(machine.id, now)
                seen[machine.id] = since
                if now - since > ORPHAN_AFTER:
                    self.breach(Rule.ORPHAN, f"{machine.id} of {machine.worker} since {now - since:.0f} s")
                    seen[machine.id] = now
        self._unknown_since = seen

    def _reason(self, worker: Worker) -> None:
        self.decisions += 1
        if not worker.reason.text.strip():
            self.breach(Rule.NO_REASON, f"{worker.id}: {worker.state}")

    def _made(self, cloud: SimulatedCloud, machine: FakeMachine) -> None:
        if machine.group is None:
            return
        self._maximum(machine.group)
        if cloud.record.doubled and cloud.record.doubled[-1] == machine.worker:
            self.breach(Rule.DOUBLE, f"{machine.worker} on {cloud.name}")
        limit = self.rules.clouds[cloud.name].quota
        for noun, most, used in cloud.use(limit):
            if used > most:
                self.breach(Rule.QUOTA, f"{cloud.name}: {used} of {most} {noun}")

    def _maximum(self, group: GroupName) -> None:
        rules = self.rules.groups.get(group)
        number = sum(cloud.machines_of(group) for cloud in self.clouds)
        if rules is not None and number > rules.maximum:
            self.breach(Rule.MAXIMUM, f"group {group}: {number} of at most {rules.maximum}")

    def _ended(self, cloud: SimulatedCloud, machine: FakeMachine) -> None:
        record = cloud.record
        known = self.counts.get(Rule.FOREIGN, 0)
        if len(record.foreign_ended) > known:
            self.breach(Rule.FOREIGN, str(machine.id))
        if record.killed_jobs and record.killed_jobs[-1].worker == machine.worker:
            killed = [job.job for job in record.killed_jobs if job.worker == machine.worker]
            self.breach(Rule.JOB_KILLED, f"{machine.worker} on {cloud.name}: jobs {', '.join(killed[:5])}")


class WatchedStore(MemoryFleetStore):
    """The store in memory, every change seen by the watch first. Events are looked at and not kept: a month of them
    would fill the memory."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    async def commit(self, lease: Lease, changes: Sequence[Change]) -> None:
        """See FleetStore."""
        self._watch.decided(changes)
        await super().commit(lease, [change for change in changes if not isinstance(change, Event)])
