"""What the evidence of this cycle makes of each worker, whatever is waiting.

One function per state; each takes at most one step and says whether it did, so that a worker may take several in one
cycle. All steps are in :data:`gridtide.model.workers.TRANSITIONS`. What would end a worker that is drained is kept
apart (``revocable``): the load may still want it back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from gridtide.model.actions import Action, Advance, Drain, Terminate, Undrain
from gridtide.model.demand import NodeState
from gridtide.model.machines import Machine, MachineState
from gridtide.model.reasons import Cause, Reason
from gridtide.model.workers import Worker, WorkerState
from gridtide.planning.evidence import REGISTRATION_ALLOWANCE, Evidence, count, seconds
from gridtide.planning.joining import RETURN_ALLOWANCE, join_deadline
from gridtide.planning.sightings import Seen

CALL_ALLOWANCE: Final = 75.0
"""Seconds from the record of a launch in which its call may leave: it begins within 20 s (``control/cloud_hands.py``),
and no driver sends anything later than 55 s after that. Smaller: a worker is given up whose machine is about to appear
(it is then ended as a stray: a boot is wasted, the maximum may be passed, no job is lost)."""

EFFECT_ALLOWANCE: Final = 30.0
"""Seconds in which a queue that took a drain may still list the worker as accepting. Smaller: a slow queue is ordered
again and again. Larger: a worker whose drain was forgotten takes jobs for longer."""

SILENCE: Final = 30.0
"""Seconds of silence that make a cloud's word on a dead machine credible. Smaller than a few heartbeats: one wrong
listing ends a machine that runs. Larger: a dead machine's jobs start again later."""

_DEAD: Final[Mapping[MachineState, Cause]] = MappingProxyType(
    {
        MachineState.BROKEN: Cause.MACHINE_BROKEN,
        MachineState.STOPPED: Cause.MACHINE_STOPPED,
        MachineState.GONE: Cause.MACHINE_GONE,
    }
)

_NO_MACHINE_MADE: Final = frozenset({Cause.LAUNCH_REFUSED, Cause.LAUNCH_LOST})


@dataclass(slots=True)
class Course:
    """A worker on its way through this cycle."""

    worker: Worker
    state: WorkerState
    why: Reason
    listed: list[Machine]
    """Its machines in its cloud, the one that is taken for its own first."""
    seen: Seen | None
    actions: list[Action] = field(default_factory=list)
    revocable: list[Action] = field(default_factory=list)
    """Actions that an undrain replaces."""
    usable: bool = False
    """Joined, and as far as is known able to take jobs."""
    settled: bool = False
    """``why`` is final: nothing that scaling finds out says more."""
    open: bool = False
    """``why`` was left to what scaling finds out."""
    timers: list[float] = field(default_factory=list)
    """When a deadline of its runs out."""

    @property
    def machine(self) -> Machine | None:
        """The listed machine that is taken for its own; a second one never stands in for a known first."""
        if self.listed and self.worker.machine in (None, self.listed[0].id):
            return self.listed[0]
        return None

    @property
    def calm(self) -> bool:
        """Whether what the life-cycle rules said of it holds until something about it changes: it takes jobs, the cloud
        lists its machine, and nothing is due."""
        seen, machine = self.seen, self.machine
        return (
            self.usable
            and self.state is self.worker.state is WorkerState.JOINED
            and not (self.actions or self.revocable or self.timers)
            and seen is not None
            and seen.state is NodeState.ACCEPTING
            and len(seen.nodes) == 1
            and machine is not None
            and machine.state not in _DEAD
            and not machine.notice
            and len(self.listed) == 1
        )

    @property
    def steady(self) -> bool:
        """Whether a calm one runs jobs as well, so that scaling has nothing to say of it either."""
        return not self.open and self.why.cause is Cause.BUSY and self.seen is not None and self.seen.running > 0

    def again(self) -> Course:
        """Itself, as the life-cycle rules left it: for the next cycle, of one that is calm and open."""
        self.why, self.settled = self.worker.reason, False
        return self

    def advance(self, after: WorkerState, reason: Reason, *, revocable: bool = False) -> bool:
        """Take a step. Returns True, so that a rule can say ``return course.advance(...)``."""
        kept = self.revocable if revocable else self.actions
        kept.append(Advance(self.worker.id, self.state, after, reason))
        self.state = after
        self.why = reason
        return True

    def terminate(self, reason: Reason, *, revocable: bool = False) -> bool:
        """Ask for the end of the machine. Nothing follows in this cycle."""
        kept = self.revocable if revocable else self.actions
        kept.append(Terminate(self.worker.id, self.state, reason))
        self.state = WorkerState.TERMINATING
        return self.stay(reason)

    def drain(self, reason: Reason) -> bool:
        """Ask the queue to give it no more jobs. Nothing follows in this cycle."""
        self.actions.append(Drain(self.worker.id, reason))
        self.state = WorkerState.DRAINING
        self.usable = False
        return self.stay(reason)

    def undrain(self, reason: Reason) -> bool:
        """Take the drain back, instead of whatever it was leading to. Nothing follows in this cycle."""
        self.revocable = [Undrain(self.worker.id, reason)]
        self.state = WorkerState.JOINED
        self.usable = True
        return self.stay(reason)

    def stay(self, why: Reason) -> bool:
        """No further step. Returns False, so that a rule can say ``return course.stay(...)``."""
        self.why = why
        self.settled = True
        return False


def follow(worker: Worker, evidence: Evidence) -> Course:
    """All steps that the evidence justifies for one worker."""
    course = Course(worker, worker.state, worker.reason, evidence.own(worker), evidence.seen.get(worker.id))
    _adopt(course)
    while _STEPS[course.state](course, evidence):
        pass
    course.open = not course.settled
    return course


def _adopt(course: Course) -> None:
    """Note the machine of a worker whose launch answer was never seen."""
    worker, machine = course.worker, course.machine
    if worker.machine is not None or machine is None or course.state is WorkerState.INTENDED:
        return
    after = WorkerState.BOOTING if course.state is WorkerState.LAUNCHING else course.state
    reason = Reason(Cause.FOUND_BY_TAG, f"cloud {worker.cloud} lists machine {machine.id} with its tag")
    course.actions.append(Advance(worker.id, course.state, after, reason, machine.id))
    course.state = after
    course.why = reason


def _held_by_warmup(course: Course, evidence: Evidence) -> bool:
    warming = evidence.warming_of(course.worker)
    if warming is not None:
        course.stay(warming)
    return warming is not None


def _intended(course: Course, evidence: Evidence) -> bool:
    worker = course.worker
    if worker.force_wanted or worker.drain_wanted:
        return course.advance(WorkerState.GONE, Reason(Cause.WITHDRAWN, "an operator does not want it"))
    if _held_by_warmup(course, evidence):
        return False
    closing = evidence.closing(worker)
    if closing is not None:
        return course.advance(WorkerState.GONE, Reason(Cause.WITHDRAWN, closing.text))
    if evidence.wishes(worker.group).hold:
        return course.advance(WorkerState.GONE, Reason(Cause.WITHDRAWN, f"an operator holds group {worker.group}"))
    return course.stay(Reason(Cause.STARTING, "recorded; its cloud is called next"))


def _launching(course: Course, evidence: Evidence) -> bool:
    worker = course.worker
    if _held_by_warmup(course, evidence):
        return False
    called = evidence.since(_launched(worker))
    known_by = called + CALL_ALLOWANCE + evidence.settle(worker.cloud)
    started = evidence.machines_started(worker.cloud)
    if started is not None and started > known_by:
        text = f"cloud {worker.cloud} lists no machine of it {seconds(started - called)} after the launch call"
        return course.advance(WorkerState.FAILED, Reason(Cause.LAUNCH_LOST, text))
    course.timers.append(known_by)
    return course.stay(Reason(Cause.STARTING, f"cloud {worker.cloud} was called {seconds(evidence.now - called)} ago"))


def _booting(course: Course, evidence: Evidence) -> bool:
    worker = course.worker
    if worker.force_wanted:
        return course.terminate(Reason(Cause.OPERATOR, "an operator ends it before it joined"))
    if _held_by_warmup(course, evidence):
        return False
    closing = evidence.closing(worker)
    if worker.drain_wanted or closing is not None:
        why = closing.text if closing is not None else "an operator does not want it"
        return course.terminate(Reason(Cause.WITHDRAWN, f"{why}, and it has not joined yet"))
    launched = _launched(worker) if _launched(worker) <= evidence.now else evidence.since(_launched(worker))
    alive = evidence.works(worker.id) or evidence.heard_after(worker.id, launched)
    dead = _dead_machine(course, evidence)
    if dead is not None and alive is None:
        return course.advance(WorkerState.FAILED, dead)
    group = evidence.group(worker)
    deadline = launched + join_deadline(group, worker, evidence.snapshot.boot_times)
    if group is not None and launched < evidence.snapshot.started:
        # It may have been ready while no controller led and nobody could let it in.
        deadline = max(deadline, evidence.snapshot.started + RETURN_ALLOWANCE)
    if evidence.now >= deadline:
        late = f"it has not joined {seconds(evidence.now - launched)} after its launch"
        if alive is None:
            return course.advance(WorkerState.FAILED, Reason(Cause.NEVER_JOINED, late))
        return course.stay(Reason(Cause.BUSY, f"{late}, but {alive}: it is left alone"))
    course.timers.append(deadline)
    age = f"{seconds(evidence.now - launched)} of {seconds(deadline - launched)} to join are over"
    started = evidence.machines_started(worker.cloud)
    if not course.listed and started is not None and started > launched + evidence.settle(worker.cloud):
        return course.stay(Reason(Cause.NOT_IN_CLOUD, f"cloud {worker.cloud} does not list it; {age}"))
    return course.stay(Reason(Cause.STARTING, f"its machine boots; {age}"))


def _joined(course: Course, evidence: Evidence) -> bool:
    worker, seen = course.worker, course.seen
    if worker.force_wanted:
        return course.terminate(Reason(Cause.OPERATOR, "an operator ends it, whatever it runs"))
    course.usable = _usable(course, evidence)
    if _held_by_warmup(course, evidence):
        return False
    if _died(course, evidence):
        return True
    if worker.drain_wanted:
        return course.drain(Reason(Cause.OPERATOR, "an operator drains it"))
    closing = evidence.closing(worker)
    if closing is not None:
        return course.drain(closing)
    machine = course.machine
    if machine is not None and machine.notice and evidence.machines_started(worker.cloud) is not None:
        text = f"cloud {worker.cloud} will take its machine away: {machine.notice}"
        return course.drain(Reason(Cause.INTERRUPTED, text))
    if seen is not None and _on_its_way_out(seen) and evidence.tells_of_drain(worker, seen):
        cause = Cause.SINGLE_USE if worker.single_use else Cause.SELF_DRAINED
        return course.advance(WorkerState.DRAINING, Reason(cause, f"the queue lists it as {seen.state}"))
    _explain_joined(course, evidence)
    return False


def _draining(course: Course, evidence: Evidence) -> bool:
    worker, seen = course.worker, course.seen
    if worker.force_wanted:
        return course.terminate(Reason(Cause.OPERATOR, "an operator ends it, whatever it runs"))
    if _held_by_warmup(course, evidence):
        return False
    tells = worker.state is WorkerState.DRAINING and seen is not None and evidence.tells_of_drain(worker, seen)
    if seen is not None and tells and _drained_and_empty(worker, seen, evidence):
        reason = Reason(Cause.DRAINED_EMPTY, "the queue lists it as drained and attributes no job to it")
        return course.advance(WorkerState.DRAINED, reason, revocable=True)
    if _died(course, evidence):
        return True
    if not course.settled:
        _explain_draining(course)
    if seen is not None and tells and seen.state is NodeState.ACCEPTING:
        _order_again(course, evidence)
    return False


def _order_again(course: Course, evidence: Evidence) -> None:
    """The queue took the drain and lists the worker as accepting: it has forgotten it (a restart), or is slow."""
    forgotten = evidence.snapshot.drain_acknowledged[course.worker.id] + EFFECT_ALLOWANCE
    if evidence.now >= forgotten:
        course.revocable.append(Drain(course.worker.id, course.worker.reason))
    else:
        course.timers.append(forgotten)


def _drained_and_empty(worker: Worker, seen: Seen, evidence: Evidence) -> bool:
    """The queue says so, and the worker itself has not said otherwise since."""
    if seen.started is None or seen.state is not NodeState.DRAINED or seen.running > 0:
        return False
    return evidence.says_busy_after(worker.id, seen.started) is None


def _explain_draining(course: Course) -> None:
    seen, why = course.seen, course.why
    if seen is None:
        course.stay(Reason(Cause.NOT_IN_QUEUE, "it drains, and no queue lists it: that is no sign of its end"))
    elif seen.running > 0:
        course.stay(Reason(Cause.BUSY, f"it drains ({why.text}) and still runs {count(seen.running, 'job')}"))
    else:
        course.stay(Reason(why.cause, f"{why.text}; a reading that lists it as drained and empty is awaited"))


def _drained(course: Course, evidence: Evidence) -> bool:
    worker, seen = course.worker, course.seen
    if worker.force_wanted:
        return course.terminate(Reason(Cause.OPERATOR, "an operator ends it"))
    if worker.state is not WorkerState.DRAINED:
        return course.terminate(course.why, revocable=True)
    if _held_by_warmup(course, evidence):
        return False
    started = evidence.nodes_started(worker) if seen is None else seen.started
    if started is None or started < evidence.since(worker.since):
        return course.stay(Reason(Cause.NO_EVIDENCE, "it was drained; a new reading of its queue is awaited"))
    busy = evidence.works(worker.id) or evidence.says_busy_after(worker.id, started)
    if seen is not None and seen.state is NodeState.ACCEPTING:
        return course.undrain(Reason(Cause.LOAD_RETURNED, "its queue has forgotten the drain and may give it jobs"))
    if busy is not None:
        return course.stay(Reason(Cause.BUSY, f"it was drained, but {busy}"))
    if seen is not None and seen.state is not NodeState.DRAINED and _dead_machine(course, evidence) is None:
        return course.stay(Reason(Cause.NOT_IN_QUEUE, f"it was drained, but the queue lists it as {seen.state}"))
    return course.terminate(Reason(Cause.DRAINED_EMPTY, "it is drained and runs no job"), revocable=True)


def _failed(course: Course, evidence: Evidence) -> bool:
    worker = course.worker
    if not worker.force_wanted and _held_by_warmup(course, evidence):
        return False
    cause = course.why.cause if course.why.cause is not Cause.FOUND_BY_TAG else worker.reason.cause
    may_exist = worker.machine is not None or bool(course.listed)
    if not may_exist and (worker.launched is None or cause in _NO_MACHINE_MADE):
        return course.advance(WorkerState.GONE, Reason(cause, "no machine was made for it"))
    if worker.state is WorkerState.FAILED and not worker.force_wanted:
        alive = evidence.works(worker.id)
        if alive is not None:
            return course.stay(Reason(Cause.BUSY, f"it was given up ({worker.reason.text}), but {alive}"))
    reason = worker.reason if worker.state is WorkerState.FAILED else course.why
    return course.terminate(reason)


def _terminating(course: Course, evidence: Evidence) -> bool:
    worker = course.worker
    started = evidence.machines_started(worker.cloud)
    since = evidence.since(worker.since)
    settled = since + evidence.settle(worker.cloud)
    unlisted = not course.listed and (worker.cloud, worker.machine) not in evidence.untagged
    if started is not None:
        if course.listed and all(machine.state is MachineState.GONE for machine in course.listed):
            if started > since:
                reason = Reason(Cause.CONFIRMED_GONE, f"cloud {worker.cloud} lists its machine as gone")
                return course.advance(WorkerState.GONE, reason)
        elif unlisted and started > settled:
            reason = Reason(Cause.CONFIRMED_GONE, f"cloud {worker.cloud} does not list its machine any more")
            return course.advance(WorkerState.GONE, reason)
    course.timers.append(settled)
    return course.terminate(worker.reason)


def _gone(course: Course, evidence: Evidence) -> bool:
    course.timers.append(evidence.now + 1.0)  # what it held is free for others as soon as this is recorded
    return course.stay(course.why)


def _launched(worker: Worker) -> float:
    return worker.launched if worker.launched is not None else worker.created


def _on_its_way_out(seen: Seen) -> bool:
    return seen.state in (NodeState.DRAINING, NodeState.DRAINED)


def _dead_machine(course: Course, evidence: Evidence) -> Reason | None:
    """The cloud's own word, in a fresh reading, that the machine can run nothing."""
    machine = course.machine
    if machine is None or machine.state not in _DEAD or evidence.machines_started(course.worker.cloud) is None:
        return None
    words = f": {machine.message}" if machine.message else ""
    return Reason(_DEAD[machine.state], f"cloud {course.worker.cloud} lists machine as {machine.state}{words}")


def _died(course: Course, evidence: Evidence) -> bool:
    """Fail a worker whose machine is dead, says its cloud, unless it was heard of lately. True: all is said."""
    dead = _dead_machine(course, evidence)
    if dead is None:
        return False
    alive = _contradiction(course, dead, evidence)
    if alive is None:
        return course.advance(WorkerState.FAILED, dead)
    course.stay(Reason(dead.cause, f"{dead.text}; but {alive}: it is left alone"))
    return False


def _contradiction(course: Course, dead: Reason, evidence: Evidence) -> str | None:
    """Why a cloud that calls a machine dead is not believed.

    What a queue attributes to a dead machine says nothing (it learns of the death late); what the worker itself said
    does. A machine in an error state may run on behind it, so there both together count for as long as the lease.
    """
    worker = course.worker
    group = evidence.rules.groups.get(worker.group)
    silence = SILENCE
    if dead.cause is Cause.MACHINE_BROKEN and group is not None and evidence.works(worker.id) is not None:
        silence = max(silence, group.lease)
    heartbeat = evidence.snapshot.heartbeats.get(worker.id)
    quiet_since = max(evidence.snapshot.started, heartbeat.at if heartbeat is not None else 0.0)
    if evidence.now >= quiet_since + silence:
        return None
    course.timers.append(quiet_since + silence)
    return f"it has been silent for no more than {seconds(evidence.now - quiet_since)} of {seconds(silence)}"


def _usable(course: Course, evidence: Evidence) -> bool:
    """Whether a joined worker counts as capacity."""
    worker, seen = course.worker, course.seen
    if seen is not None:
        return seen.state is NodeState.ACCEPTING or not evidence.tells_of_drain(worker, seen)
    started = evidence.nodes_started(worker)
    listed_by = (worker.joined if worker.joined is not None else worker.since) + REGISTRATION_ALLOWANCE
    if evidence.now <= listed_by:
        course.timers.append(listed_by)
        return True
    return started is None


def _explain_joined(course: Course, evidence: Evidence) -> None:
    """Why it stays, unless that is already said or depends on what waits."""
    worker, seen = course.worker, course.seen
    if course.settled:
        return
    started = evidence.machines_started(worker.cloud)
    if not course.listed and started is not None and started > _launched(worker) + evidence.settle(worker.cloud):
        course.stay(Reason(Cause.NOT_IN_CLOUD, f"cloud {worker.cloud} does not list its machine: no sign of its end"))
    elif seen is None:
        fresh = evidence.nodes_started(worker) is not None
        text = "its queue does not list it" if fresh else "no list of its queue's nodes shows it"
        course.stay(Reason(Cause.NOT_IN_QUEUE, f"{text}: no sign of its end"))
    elif seen.state is not NodeState.ACCEPTING:
        course.stay(Reason(Cause.NOT_IN_QUEUE, f"its queue lists it as {seen.state}"))
    else:
        _explain_listed(course, seen, evidence)


def _explain_listed(course: Course, seen: Seen, evidence: Evidence) -> None:
    worker = course.worker
    group = evidence.rules.groups.get(worker.group)
    silence = evidence.now - evidence.heard(worker)
    if group is not None and silence > group.lease:
        course.stay(Reason(Cause.SILENT, f"not heard of for {seconds(silence)}; its queue lists it: it is left alone"))
    elif seen.running > 0:
        course.stay(_busy(seen.running))


@lru_cache(maxsize=1024)
def _busy(running: int) -> Reason:
    """One value for all workers that run as many: thousands of equal sentences cost time."""
    return Reason(Cause.BUSY, f"it runs {count(running, 'job')}")


_STEPS: Final[Mapping[WorkerState, Callable[[Course, Evidence], bool]]] = MappingProxyType(
    {
        WorkerState.INTENDED: _intended,
        WorkerState.LAUNCHING: _launching,
        WorkerState.BOOTING: _booting,
        WorkerState.JOINED: _joined,
        WorkerState.DRAINING: _draining,
        WorkerState.DRAINED: _drained,
        WorkerState.FAILED: _failed,
        WorkerState.TERMINATING: _terminating,
        WorkerState.GONE: _gone,
    }
)
