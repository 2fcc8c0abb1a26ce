"""Turns a plan's actions into records. Pure: the workers as they are now, the actions, and what to remember of why."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace

from gridtide.control.evidence import of_cloud, of_queue
from gridtide.control.fleet import event_of, moved
from gridtide.model.actions import Action, Advance, Drain, Launch, Terminate, TerminateStray, Undrain
from gridtide.model.ids import CloudName, GroupName, MachineId, QueueName, WorkerId
from gridtide.model.machines import MachineRef
from gridtide.model.reasons import Reason
from gridtide.model.rules import SiteRules
from gridtide.model.snapshot import Snapshot
from gridtide.model.workers import Worker, WorkerState, may
from gridtide.store.ports import AddWorker, Change, Event, Json, UpdateWorker


@dataclass(slots=True)
class Record:
    """What a plan becomes: changes to commit, and the orders that follow once they are committed."""

    changes: list[Change] = field(default_factory=list)
    drain_again: list[WorkerId] = field(default_factory=list)
    """Drains that the queue has forgotten."""
    undrain: list[WorkerId] = field(default_factory=list)
    strays: dict[CloudName, list[MachineId]] = field(default_factory=dict)
    gone: list[Worker] = field(default_factory=list)
    failed: list[Worker] = field(default_factory=list)


class Recorder:
    """Of one plan. An action whose worker has moved on since the snapshot is dropped: the next cycle sees it anew."""

    def __init__(
        self,
        snapshot: Snapshot,
        rules: SiteRules,
        workers: Mapping[WorkerId, Worker],
        *,
        now: float,
        new_id: Callable[[GroupName], WorkerId],
        known_strays: Container[MachineRef],
    ) -> None:
        """``known_strays``: those whose end is on record already."""
        self._snapshot = snapshot
        self._rules = rules
        self._workers = workers
        self._moved: dict[WorkerId, Worker] = {}
        """Those of them that this record changes, as they will be."""
        self._now = now
        self._new_id = new_id
        self._known_strays = known_strays
        self._told: dict[tuple[QueueName | None, CloudName], Mapping[str, Json]] = {}
        self.record = Record()

    def take(self, action: Action) -> None:
        """Add one action."""
        match action:
            case Launch():
                self._launch(action)
            case Advance(worker, before, after, reason, machine):
                self._move(worker, before, after, reason, machine)
            case Drain(worker, reason):
                if not self._move(worker, WorkerState.JOINED, WorkerState.DRAINING, reason):
                    self.record.drain_again.append(worker)
            case Undrain(worker, reason):
                known = self._get(worker)
                state = WorkerState.GONE if known is None else known.state
                if self._move(worker, state, WorkerState.JOINED, reason):
                    self.record.undrain.append(worker)
            case Terminate(worker, before, reason):
                if before is not WorkerState.TERMINATING:  # else it is under way: the hands repeat it by themselves
                    self._move(worker, before, WorkerState.TERMINATING, reason)
            case TerminateStray():
                self._stray(action)

    def _get(self, name: WorkerId) -> Worker | None:
        """None when it is another one than was planned for: between, it may even have been taken back and run a job."""
        worker = self._workers.get(name)
        known = worker is not None and worker == self._snapshot.workers.get(name)
        return self._moved.get(name) or (worker if known else None)

    def _launch(self, action: Launch) -> None:
        rules = self._rules.groups[action.group]
        evidence = self._evidence(rules.queue, action.cloud)
        for _ in range(action.count):
            worker = Worker(
                id=self._new_id(action.group),
                group=action.group,
                cloud=action.cloud,
                shape=action.shape,
                zone=action.zone,
                generation=action.generation,
                single_use=action.single_use,
                state=WorkerState.INTENDED,
                since=self._now,
                created=self._now,
                reason=action.reason,
                image=rules.image,
                queue=rules.queue,
            )
            self._moved[worker.id] = worker
            self.record.changes += [
                AddWorker(worker),
                event_of(worker, actor="controller", now=self._now, evidence=evidence),
            ]

    def _move(
        self,
        name: WorkerId,
        before: WorkerState,
        after: WorkerState,
        reason: Reason,
        machine: MachineId | None = None,
    ) -> bool:
        worker = self._get(name)
        if worker is None or worker.state is not before:
            return False
        if before is after:
            return self._learn(worker, machine)
        if not may(before, after):
            return False
        next_worker = replace(moved(worker, after, reason, self._now), machine=machine or worker.machine)
        self._moved[name] = next_worker
        self.record.changes += [
            UpdateWorker(before, next_worker),
            event_of(
                next_worker,
                actor="controller",
                now=self._now,
                evidence=self._evidence(self._rules.queue_of(worker), worker.cloud),
            ),
        ]
        if after is WorkerState.GONE:
            self.record.gone.append(next_worker)
        if after is WorkerState.FAILED:
            self.record.failed.append(next_worker)
        return True

    def _learn(self, worker: Worker, machine: MachineId | None) -> bool:
        """Its machine, found by its tag after the cloud's answer was missed."""
        if machine is not None:
            self._moved[worker.id] = replace(worker, machine=machine)
            self.record.changes.append(UpdateWorker(worker.state, self._moved[worker.id]))
        return machine is not None

    def _stray(self, action: TerminateStray) -> None:
        self.record.strays.setdefault(action.cloud, []).append(action.machine)
        if MachineRef(action.cloud, action.machine) not in self._known_strays:
            self.record.changes.append(
                Event(
                    at=self._now,
                    kind="stray",
                    subject=action.worker,
                    actor="controller",
                    reason=action.reason,
                    text=f"ending machine {action.machine} of {action.cloud}",
                    evidence=of_cloud(self._snapshot, action.cloud),
                )
            )

    def _evidence(self, queue: QueueName | None, cloud: CloudName) -> Mapping[str, Json]:
        """The same for all workers of a queue in a cloud: it counts what is listed, which may be thousands."""
        known = self._told.get((queue, cloud))
        if known is None:
            said = {} if queue is None else of_queue(self._snapshot, queue)
            known = self._told[(queue, cloud)] = {**said, **of_cloud(self._snapshot, cloud)}
        return known
