"""What must hold at every event of a simulation, whatever policy runs and whatever breaks.

The witness stands where nothing can pass it: between the controller and its store (every decision), and at the clouds
(every call, every machine made or ended). What it knows of workers is what was recorded, not what a controller says.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import Final

from gridtide.clouds.fake import CloudCall, FakeMachine
from gridtide.model.ids import CloudName, GroupName, ShapeName, WorkerId, Zone
from gridtide.model.machines import MachineState
from gridtide.model.rules import SiteRules
from gridtide.model.workers import Worker, WorkerState, may
from gridtide.sim.cloud import SimulatedCloud
from gridtide.sim.gate import Gate, present
from gridtide.store.ports import AddWorker, Change, UpdateWorker

ORPHAN_AFTER: Final = 900.0
"""Seconds for which a machine may exist that no record speaks of: the controller's stray rules must have found it by
then (listing lag and settling time included). A time in which sources are broken is added."""

LEFT_AFTER: Final = 4 * 3600.0
"""Seconds for which a machine may exist that is of no use: it never joined, stopped, or was given up. The longest
deadline to join is an hour, and an hour's step of the clock may double it."""

ASK_AGAIN: Final = 25.0
"""Seconds for which a cloud must not be asked for what it had no room for: a little less than the breaker's first
pause."""

_SAME_MOMENT: Final = 1.0
"""Seconds. Calls that were under way when another one was refused are no repetition."""

_OF_NO_USE: Final = (MachineState.STOPPED, MachineState.BROKEN)
_GIVEN_UP: Final = (WorkerState.FAILED, WorkerState.TERMINATING)

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
    LEFT = "a machine that was of no use was kept"
    FOREIGN = "a machine of somebody else was ended"
    NO_REASON = "a worker changed its state without a reason"
    ILLEGAL = "a worker made a step that is not in the table"
    DEPOSED = "a controller that does not lead any more changed a record"
    HAMMERED = "a cloud was asked again for what it had just refused"
    OLD_PRICE = "a worker was launched for a price of the past"


@dataclass(frozen=True, slots=True)
class Violation:
    """One breach, and where to look: what happened at that moment, as the how-manieth event."""

    at: float
    rule: Rule
    text: str
    number: int = 0
    event: str = ""
    seed: int = 0

    def __str__(self) -> str:
        what = f": {self.event}" if self.event else ""
        return f"{self.rule}: {self.text} (event {self.number} at second {self.at:.0f}{what}; seed {self.seed})"


Check = Callable[["Watch"], None]
"""Looks at everything after an event, and reports with :meth:`Watch.breach`."""


@dataclass(slots=True)
class Watch:
    """Collects violations. ``checks`` are further rules, asked after every event."""

    rules: SiteRules
    clouds: Sequence[SimulatedCloud]
    now: Callable[[], float]
    seed: int = 0
    price_age: float = float("inf")
    """Seconds for which a price may be remembered."""
    blind: Callable[[], float] = lambda: 0.0
    """Seconds, up to now, in which sources were broken: what depends on them may take so much longer."""
    checks: list[Check] = field(default_factory=list)
    found: list[Violation] = field(default_factory=list)
    counts: dict[Rule, int] = field(default_factory=dict)
    events: int = 0
    """What was looked at: commits, machines made or ended, calls refused, faults."""
    decisions: int = 0
    """State changes that were looked at."""
    known: dict[WorkerId, WorkerState] = field(default_factory=dict)
    """All workers that are recorded and not GONE."""
    _records: bool = True
    _event: str = ""
    _machines: dict[WorkerId, list[tuple[SimulatedCloud, FakeMachine]]] = field(default_factory=dict)
    _due: list[tuple[float, int, Rule, SimulatedCloud, FakeMachine, bool, float]] = field(default_factory=list)
    """Machines to look at again: when, number, why, where, which, whether it was useless already, and for how long
    sources had been broken by then."""
    _number: count[int] = field(default_factory=count)
    _asked: dict[tuple[Gate | None, CloudName, Zone | None, ShapeName], float] = field(default_factory=dict)
    _quiet: dict[tuple[Gate | None, CloudName, CloudCall], tuple[float, float]] = field(default_factory=dict)
    _prices: dict[tuple[CloudName, ShapeName], tuple[float, float]] = field(default_factory=dict)

    def attach(self, *, records: bool = True) -> None:
        """Begin to watch the clouds.

        ``records``: whether workers are recorded in a store that is watched as well. Models of other autoscalers have
        none, and ask as often as they like: of them only what becomes of machines and jobs is looked at.
        """
        self._records = records
        for cloud in self.clouds:
            cloud.on_made.append(lambda machine, cloud=cloud: self._made(cloud, machine))  # type: ignore[misc]
            cloud.on_ended.append(lambda machine, cloud=cloud: self._ended(cloud, machine))  # type: ignore[misc]
            if not records:
                continue
            cloud.on_refused.append(lambda zone, shape, cloud=cloud: self._refused(cloud, zone, shape))  # type: ignore[misc]
            cloud.on_throttled.append(lambda call, wait, cloud=cloud: self._throttled(cloud, call, wait))  # type: ignore[misc]
            cloud.on_called.append(lambda call, cloud=cloud: self._called(cloud, call))  # type: ignore[misc]
            self.priced(cloud)

    def breach(self, rule: Rule, text: str) -> None:
        """Note it."""
        self.counts[rule] = self.counts.get(rule, 0) + 1
        if len(self.found) < KEPT:
            self.found.append(Violation(self.now(), rule, text, self.events, self._event, self.seed))

    def happened(self, what: str) -> None:
        """An event: everything that is due is looked at."""
        self.events += 1
        self._event = what
        while self._due and self._due[0][0] <= self.now():
            self._look(*heapq.heappop(self._due)[2:])
        for check in self.checks:
            check(self)

    def priced(self, cloud: SimulatedCloud) -> None:
        """The cloud's prices are as they are from now on."""
        for name, shape in cloud.offered.items():
            if self._prices.get((cloud.name, name), (None, 0.0))[0] != shape.price:
                self._prices[(cloud.name, name)] = (shape.price, self.now())

    # --- decisions

    def recorded(self, changes: Sequence[Change], *, deposed: bool = False) -> None:
        """The store has taken these."""
        workers = [change for change in changes if isinstance(change, AddWorker | UpdateWorker)]
        if deposed:
            self.breach(Rule.DEPOSED, ", ".join(change.worker.id for change in workers) or "no worker")
        for change in workers:
            worker = change.worker
            if isinstance(change, AddWorker):
                self._price(worker)
            elif change.before is not worker.state and not may(change.before, worker.state):
                self.breach(Rule.ILLEGAL, f"{worker.id}: {change.before} to {worker.state}")
            self._note(worker)
        if workers:
            last = workers[-1].worker
            more = f" and {len(workers) - 1} more" if len(workers) > 1 else ""
            self.happened(f"{last.id} is recorded as {last.state}{more}")

    def joined(self, worker: Worker) -> None:
        """The store has let its machine in."""
        self._note(worker)
        self.happened(f"{worker.id} has joined")

    def _note(self, worker: Worker) -> None:
        self.decisions += 1
        if not worker.reason.text.strip():
            self.breach(Rule.NO_REASON, f"{worker.id}: {worker.state}")
        before = self.known.pop(worker.id, None)
        if worker.state is not WorkerState.GONE:
            self.known[worker.id] = worker.state
            if worker.state in _GIVEN_UP and before is not worker.state:
                self._again(Rule.LEFT, worker.id)
        elif before is not None:
            self._again(Rule.ORPHAN, worker.id)

    def _price(self, worker: Worker) -> None:
        price, since = self._prices.get((worker.cloud, worker.shape.name), (worker.shape.price, self.now()))
        if worker.shape.price != price and self.now() - since > self.price_age:
            self.breach(
                Rule.OLD_PRICE,
                f"{worker.id} on {worker.cloud}: {worker.shape.price:g} for {worker.shape.name}, which costs {price:g} "
                f"since {self.now() - since:.0f} s",
            )

    # --- machines

    def _made(self, cloud: SimulatedCloud, machine: FakeMachine) -> None:
        if machine.group is None or machine.worker is None:
            return
        own = self._machines.setdefault(machine.worker, [])
        own.append((cloud, machine))
        self._look_later(Rule.LEFT, cloud, machine)
        if machine.worker not in self.known:
            self._look_later(Rule.ORPHAN, cloud, machine)
        self.happened(f"{cloud.name} made {machine.id} for {machine.worker}")
        self._maximum(machine.group)
        if len(own) > 1:
            self.breach(Rule.DOUBLE, f"{machine.worker} on {', '.join(where.name for where, _ in own)}")
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
        self.happened(f"{cloud.name}: {machine.id} of {machine.worker} ends")
        if machine.worker is None:
            if machine.ends is not None:
                self.breach(Rule.FOREIGN, f"{machine.id} on {cloud.name}")
            return
        record = cloud.record
        if record.killed_jobs and record.killed_jobs[-1].worker == machine.worker:
            killed = [job.job for job in record.killed_jobs if job.worker == machine.worker]
            self.breach(Rule.JOB_KILLED, f"{machine.worker} on {cloud.name}: jobs {', '.join(killed[:5])}")
        if machine.ends is None:
            self._look_later(Rule.LEFT, cloud, machine, useless=machine.forced in _OF_NO_USE)
            return
        others = [each for each in self._machines.get(machine.worker, ()) if each[1] is not machine]
        if others:
            self._machines[machine.worker] = others
        else:
            self._machines.pop(machine.worker, None)

    def _again(self, rule: Rule, worker: WorkerId) -> None:
        """Look later at all machines that a worker still has now that it should have none."""
        for cloud, machine in self._machines.get(worker, ()):
            self._look_later(rule, cloud, machine, useless=True)

    def _look_later(self, rule: Rule, cloud: SimulatedCloud, machine: FakeMachine, *, useless: bool = False) -> None:
        if self._records:
            after = ORPHAN_AFTER if rule is Rule.ORPHAN else LEFT_AFTER
            self._push(self.now() + after, rule, cloud, machine, useless)

    def _push(self, at: float, rule: Rule, cloud: SimulatedCloud, machine: FakeMachine, useless: bool) -> None:
        heapq.heappush(self._due, (at, next(self._number), rule, cloud, machine, useless, self.blind()))

    def _look(self, rule: Rule, cloud: SimulatedCloud, machine: FakeMachine, useless: bool, blind: float) -> None:
        if machine.ends is not None or machine.worker is None or cloud.machine_of(machine.worker) is None:
            return
        late = self.blind() - blind
        if late > 0.0:  # the whole time again, without what was broken
            self._push(self.now() + late, rule, cloud, machine, useless)
            return
        state = self.known.get(machine.worker)
        if rule is Rule.ORPHAN and state is None:
            self.breach(rule, f"{machine.id} of {machine.worker} for {ORPHAN_AFTER:.0f} s")
        elif rule is Rule.LEFT and (useless or state in (WorkerState.LAUNCHING, WorkerState.BOOTING)):
            self.breach(rule, f"{machine.id} of {machine.worker}, which is {state or 'not known'}")

    # --- calls

    def _refused(self, cloud: SimulatedCloud, zone: Zone | None, shape: ShapeName) -> None:
        key = (present(), cloud.name, zone, shape)
        before = self._asked.get(key)
        since = float("inf") if before is None else self.now() - before
        if since > _SAME_MOMENT:
            self._asked[key] = self.now()
            self.happened(f"{cloud.name} refuses {shape}")
        if _SAME_MOMENT < since < ASK_AGAIN:
            where = "" if zone is None else f" in {zone}"
            self.breach(Rule.HAMMERED, f"{cloud.name}: {shape}{where}, refused {since:.0f} s ago")

    def _throttled(self, cloud: SimulatedCloud, call: CloudCall, wait: float) -> None:
        self._quiet[(present(), cloud.name, call)] = (self.now(), self.now() + wait)
        self.happened(f"{cloud.name} throttles {call}")

    def _called(self, cloud: SimulatedCloud, call: CloudCall) -> None:
        told, until = self._quiet.get((present(), cloud.name, call), (0.0, 0.0))
        if told + _SAME_MOMENT < self.now() < until - _SAME_MOMENT:
            self.breach(Rule.HAMMERED, f"{cloud.name}: {call}, {until - self.now():.0f} s before it may be called")
