"""The snapshot, indexed by worker: who is seen where, how fresh that is, and what it may be used for.

Everything that decides whether a reading counts as evidence is asked here, so that no rule has its own idea of it.
"""

from __future__ import annotations

from typing import Final

from gridtide.model.ids import CloudName, GroupName, QueueName, WorkerId
from gridtide.model.machines import Machine, MachineState
from gridtide.model.readings import Fresh, Missing, Reading, Unconfirmed, fresh
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import GroupRules, SiteRules, Wishes
from gridtide.model.snapshot import CloudView, QueueView, Snapshot
from gridtide.model.workers import Worker, WorkerState
from gridtide.planning.sightings import Seen, Sightings

REGISTRATION_ALLOWANCE: Final = 60.0
"""Seconds from joining until a queue lists the worker. Smaller: machines are launched for jobs that a worker which has
just joined would take. Larger: a worker that the queue has lost counts as capacity for longer."""

ENDED: Final = frozenset({MachineState.ENDING, MachineState.STOPPED, MachineState.BROKEN, MachineState.GONE})
"""What a machine cannot come back from by itself."""

_NOT_READ: Final = Missing(error="not read yet", failing_since=0.0)
_NO_QUEUE: Final = QueueView(demand=_NOT_READ, nodes=_NOT_READ)
_NO_CLOUD: Final = CloudView(machines=_NOT_READ, shapes=_NOT_READ)
_NO_WISHES: Final = Wishes()


class Evidence:
    """Built once in a cycle; read by every rule."""

    def __init__(self, snapshot: Snapshot, rules: SiteRules, sightings: Sightings | None = None) -> None:
        """``sightings`` are those of this snapshot, if they are known already."""
        self.snapshot = snapshot
        self.rules = rules
        self.now = snapshot.now
        if sightings is None:
            sightings = Sightings()
            sightings.look(snapshot)
        self.seen = sightings.seen
        self.foreign_nodes = sightings.foreign_nodes
        self.machines = sightings.machines
        self.untagged = sightings.untagged
        self._warming: dict[tuple[GroupName | None, CloudName | None], Reason | None] = {}

    # --- what belongs to what

    def group(self, worker: Worker) -> GroupRules | None:
        """The worker's group; None when the site file has it no more, or has given it another queue."""
        return self.rules.group_of(worker)

    def wishes(self, group: GroupName) -> Wishes:
        """What operators asked of the group."""
        return self.snapshot.wishes.get(group, _NO_WISHES)

    def closing(self, worker: Worker) -> Reason | None:
        """Why the whole group ends, if it does."""
        if worker.group not in self.rules.groups:
            return Reason(Cause.WITHDRAWN, f"group {worker.group} is not in the site file any more")
        if self.group(worker) is None:
            now = self.rules.groups[worker.group].queue
            return Reason(Cause.WITHDRAWN, f"it works for queue {worker.queue}, and group {worker.group} for {now} now")
        if self.wishes(worker.group).closing:
            return Reason(Cause.OPERATOR, f"an operator closes group {worker.group}")
        return None

    def queue(self, name: QueueName) -> QueueView:
        """What is known of the queue; nothing, when it is not in the snapshot."""
        return self.snapshot.queues.get(name, _NO_QUEUE)

    def cloud(self, name: CloudName) -> CloudView:
        """What is known of the cloud; nothing, when it is not in the snapshot."""
        return self.snapshot.clouds.get(name, _NO_CLOUD)

    def settle(self, cloud: CloudName) -> float:
        """Seconds for which the cloud's listing may lag."""
        known = self.rules.clouds.get(cloud)
        return known.settle if known is not None else 0.0

    def since(self, recorded: float) -> float:
        """A recorded moment by the clock of this process.

        What an earlier process recorded happened before this one led, whatever its clock said: between the two the
        wall clock may have been set, forwards or backwards. Nothing may be concluded from its age but that.
        """
        started = self.snapshot.started
        return recorded if started <= recorded <= self.now else started

    # --- how good the evidence is

    def machines_started(self, cloud: CloudName) -> float | None:
        """When the fresh listing of the cloud began; None when there is no fresh one."""
        reading = fresh(self.cloud(cloud).machines)
        return reading.started if reading is not None else None

    def queue_nodes_started(self, queue: QueueName) -> float | None:
        """When the fresh list of the queue's nodes began; None when there is no fresh one."""
        reading = fresh(self.queue(queue).nodes)
        return reading.started if reading is not None else None

    def nodes_started(self, worker: Worker) -> float | None:
        """When the fresh list of nodes that would show the worker began; None when it is not fresh.

        When the site file names neither its queue nor its group any more, all queues must be fresh.
        """
        queue = self.rules.queue_of(worker)
        queues = [queue] if queue is not None else sorted(self.snapshot.queues)
        started = [self.queue_nodes_started(queue) for queue in queues]
        known = [moment for moment in started if moment is not None]
        return min(known) if known and len(known) == len(started) else None

    def tells_of_drain(self, worker: Worker, seen: Seen) -> bool:
        """Whether what the queue says of the worker's draining is newer than our own last order about it.

        Before the queue has answered that order, and in a reading begun before the answer, an older order may still
        show, or still be on its way.
        """
        if seen.started is None:
            return False
        if worker.state is WorkerState.DRAINING:
            answered = self.snapshot.drain_acknowledged.get(worker.id)
            return answered is not None and seen.started >= answered
        if worker.reason.cause is Cause.LOAD_RETURNED:
            answered = self.snapshot.undrain_answered.get(worker.id)
            return answered is not None and seen.started >= answered
        return seen.started > self.since(worker.since)

    def own(self, worker: Worker) -> list[Machine]:
        """Machines of its cloud that carry the worker's id: its own first, then by id; those that still live first."""
        listed = self.machines.get(worker.id)
        if listed is None:
            return []
        if len(listed) == 1:
            return [listed[0].machine] if listed[0].cloud == worker.cloud else []
        own = [entry.machine for entry in listed if entry.cloud == worker.cloud]
        return sorted(own, key=lambda machine: (machine.id != worker.machine, machine.state in ENDED, machine.id))

    def works(self, worker: WorkerId) -> str | None:
        """The newest sign, of whatever age, that jobs run on it. It can forbid, never authorise."""
        seen = self.seen.get(worker)
        if seen is not None and seen.running > 0:
            return f"the queue attributes {count(seen.running, 'running job')} to it"
        return None

    def heard_after(self, worker: WorkerId, moment: float) -> str | None:
        """Whether the worker itself was heard of after ``moment``."""
        heartbeat = self.snapshot.heartbeats.get(worker)
        if heartbeat is not None and heartbeat.at > moment:
            return f"it was heard of {seconds(self.now - heartbeat.at)} ago"
        return None

    def heard(self, worker: Worker) -> float:
        """When the worker was heard of last; when it joined, or this controller began to lead, if that was later."""
        least = max(self.snapshot.started, worker.joined or worker.since)
        heartbeat = self.snapshot.heartbeats.get(worker.id)
        return heartbeat.at if heartbeat is not None and heartbeat.at > least else least

    def says_busy_after(self, worker: WorkerId, moment: float) -> str | None:
        """Whether the worker itself said after ``moment`` that it runs jobs."""
        heartbeat = self.snapshot.heartbeats.get(worker)
        if heartbeat is not None and heartbeat.at > moment and heartbeat.running > 0:
            return f"it said {seconds(self.now - heartbeat.at)} ago that it runs {count(heartbeat.running, 'job')}"
        return None

    # --- warm-up

    def warming_of(self, worker: Worker) -> Reason | None:
        """Why the worker is left alone: a source has not answered since the start."""
        return self.warming(worker.group if self.group(worker) is not None else None, worker.cloud)

    def warming(self, group: GroupName | None, cloud: CloudName | None = None) -> Reason | None:
        """Why the group, or its workers in this cloud, are left alone: a source has not answered since the start.

        Without a group: those of no group, for which all queues are waited for.
        """
        key = (group, cloud)
        if key not in self._warming:
            self._warming[key] = self._find_warming(group, cloud)
        return self._warming[key]

    def _find_warming(self, group: GroupName | None, cloud: CloudName | None) -> Reason | None:
        rules = None if group is None else self.rules.groups.get(group)
        queues = [rules.queue] if rules is not None else sorted(self.snapshot.queues)
        for queue in queues:
            view = self.queue(queue)
            for what, reading in (("demand", view.demand), ("nodes", view.nodes)):
                if isinstance(reading, Missing):
                    return Reason(Cause.NO_EVIDENCE, f"queue {queue}: no answer on {what} yet ({reading.error})")
        clouds = [] if cloud is None else [cloud]
        if rules is not None and self.now < self.snapshot.started + self.rules.warmup:
            clouds += rules.clouds
        for name in clouds:
            missing = self.unread(name)
            if missing is not None:
                return missing
        return None

    def unread(self, cloud: CloudName) -> Reason | None:
        """NO_EVIDENCE when the cloud has not answered once since the start."""
        view = self.cloud(cloud)
        for what, reading in (("machines", view.machines), ("shapes", view.shapes)):
            if isinstance(reading, Missing):
                return Reason(Cause.NO_EVIDENCE, f"cloud {cloud}: no answer on {what} yet ({reading.error})")
        return None


def doubt(source: str, reading: Reading[object]) -> Reason | None:
    """Why nothing may be started or ended on this reading; None when it is fresh."""
    if isinstance(reading, Fresh):
        return None
    if isinstance(reading, Unconfirmed):
        return Reason(Cause.IMPLAUSIBLE, f"{source}: {reading.doubt}; a second reading is awaited")
    return Reason(Cause.NO_EVIDENCE, f"{source}: {reading.error}")


def count(number: int, noun: str) -> str:
    """``1 job``, ``2 jobs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def seconds(duration: float) -> str:
    """``40 s``."""
    return f"{max(duration, 0.0):.0f} s"
