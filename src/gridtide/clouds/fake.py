"""A cloud that is made of nothing, with every fault that real ones have shown. For scenarios and for users' tests.

It follows the clock that it is given and starts no task: what has become of a machine is computed when asked. What
goes on *in* a machine (joining, running jobs) is :class:`gridtide.testing.world.FakeWorld`'s part.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from random import Random

from gridtide.clock import Clock
from gridtide.clouds.protocol import Finding, LaunchRequest, Level
from gridtide.errors import (
    CloudError,
    CloudUnavailable,
    ImageNotFound,
    LaunchRejected,
    NoCapacity,
    QuotaExceeded,
)
from gridtide.model.ids import CloudName, GroupName, MachineId, ShapeName, WorkerId, Zone
from gridtide.model.machines import Machine, Machines, MachineState, Quota
from gridtide.model.resources import Resources, Shape
from gridtide.testing.faults import Faults

SMALL = Shape(ShapeName("small"), Resources(1, 2048, 20480))
LARGE = Shape(ShapeName("large"), Resources(4, 8192, 81920))


class CloudCall(StrEnum):
    """Kinds of calls, for counting and for faults."""

    SHAPES = "shapes"
    MACHINES = "machines"
    LAUNCH = "launch"
    TERMINATE = "terminate"
    CHECK = "check"


class CloudFault(StrEnum):
    """What can go wrong. ``error`` of the injection replaces the usual error."""

    HANG = "hang"
    """The call does nothing and never answers."""
    HANG_AFTER = "hang-after"
    """The call does its work and never answers."""
    RAISE = "raise"
    """The whole call fails before it did anything (CloudUnavailable; give Throttled, AuthenticationFailed ...)."""
    REFUSE = "refuse"
    """One machine is refused (NoCapacity; give QuotaExceeded ...), the others of the call are not."""
    ANSWER_LOST = "answer-lost"
    """The call does its work, then fails as a whole with CloudUnavailable."""
    ITEM_LOST = "item-lost"
    """One machine is made, but CloudUnavailable is said of it."""
    DEAD_ON_ARRIVAL = "dead-on-arrival"
    """The machine is made and runs, but nothing in it ever does anything."""
    BOOT_FAILS = "boot-fails"
    """The machine is made and becomes BROKEN when it should have booted."""
    TRUNCATED = "truncated"
    """The listing arrives in part: the driver notices and raises CloudUnavailable."""
    EMPTY = "empty"
    """The listing is empty, with success."""
    DOUBLES = "doubles"
    """The cloud does not know the idempotency token: each launch makes a machine."""


@dataclass(slots=True)
class FakeMachine:
    """A machine as it really is, whatever is listed. Read it; change it through the cloud."""

    id: MachineId
    worker: WorkerId | None
    group: GroupName | None
    resources: Resources
    zone: Zone | None
    user_data: bytes = field(repr=False)
    made: float
    boots: float
    """When it is RUNNING."""
    dead: bool = False
    """Dead on arrival."""
    forced: MachineState | None = None
    message: str = ""
    ends: float | None = None
    """When its resources are free again; set by terminate."""

    _listed: Machine | None = field(default=None, repr=False, compare=False)

    def as_listed(self, now: float) -> Machine:
        """What a listing says of it: the same object for as long as it says the same."""
        state, known = self.state(now), self._listed
        if known is None or known.state is not state or known.message != self.message:
            known = self._listed = Machine(self.id, self.worker, state, self.resources, self.zone, self.message)
        return known

    def state(self, now: float) -> MachineState:
        """What the cloud says of it at that time."""
        if self.ends is not None:
            return MachineState.ENDING if now < self.ends else MachineState.GONE
        if self.forced is MachineState.BROKEN and now < self.boots:
            return MachineState.STARTING
        if self.forced is not None:
            return self.forced
        return MachineState.STARTING if now < self.boots else MachineState.RUNNING


@dataclass(frozen=True, slots=True)
class KilledJob:
    """A job that ran when its machine was terminated: what must never happen."""

    at: float
    worker: WorkerId
    job: str


@dataclass(slots=True)
class CloudRecord:
    """What was done to the cloud, for a test to judge. Times are the clock's."""

    calls: Counter[CloudCall] = field(default_factory=Counter)
    made: list[tuple[float, WorkerId]] = field(default_factory=list)
    terminated: list[tuple[float, WorkerId]] = field(default_factory=list)
    most_alive: int = 0
    """Most machines of ours that ever held resources at once."""
    most_alive_of: Counter[GroupName] = field(default_factory=Counter)
    """The same by group."""
    doubled: list[WorkerId] = field(default_factory=list)
    """Workers that had two machines at once."""
    killed_jobs: list[KilledJob] = field(default_factory=list)
    foreign_ended: list[MachineId] = field(default_factory=list)
    """Machines without our tag that were terminated."""


@dataclass(slots=True)
class _Held:
    """What the machines that hold resources take together, so that no launch has to look at all of them."""

    machines: int = 0
    cores: int = 0
    memory: int = 0
    ours: int = 0
    of_group: Counter[GroupName] = field(default_factory=Counter)

    def add(self, machine: FakeMachine, number: int) -> None:
        """One more (1) or one less (-1)."""
        self.machines += number
        self.cores += number * machine.resources.cores
        self.memory += number * machine.resources.memory
        if machine.group is not None:
            self.ours += number
            self.of_group[machine.group] += number


class FakeCloud:
    """See the module. Public attributes may be changed at any time; ``faults`` injects, ``record`` tells.

    ``list_lag``: seconds before a new machine is listed. ``end_time``: seconds that a machine is ENDING.
    ``gone_listed``: seconds for which it is then listed as GONE. ``call_time``: seconds that a call takes.
    """

    def __init__(
        self,
        name: CloudName,
        clock: Clock,
        random: Random,
        *,
        shapes: Sequence[Shape] = (SMALL, LARGE),
        zones: Sequence[Zone] = (),
        quota: Quota | None = None,
        images: frozenset[str] | None = None,
        boot_time: float = 60.0,
        boot_jitter: float = 0.0,
        list_lag: float = 0.0,
        settle: float | None = None,
        end_time: float = 0.0,
        gone_listed: float = 0.0,
        call_time: float = 0.0,
    ) -> None:
        self.name = name
        self.faults: Faults[CloudFault] = Faults(clock, random)
        self.record = CloudRecord()
        self.quota = quota or Quota()
        self.images = images
        self.boot_time = boot_time
        self.boot_jitter = boot_jitter
        self.list_lag = list_lag
        self.settle = list_lag if settle is None else settle
        self.end_time = end_time
        self.gone_listed = gone_listed
        self.call_time = call_time
        self.sold_out: set[tuple[Zone | None, ShapeName]] = set()
        """Launches of these end in NoCapacity."""
        self.jobs_on: Callable[[WorkerId], Sequence[str]] = lambda _worker: ()
        """What runs on a worker now; the witness for ``record.killed_jobs``."""
        self.on_made: list[Callable[[FakeMachine], None]] = []
        self.on_ended: list[Callable[[FakeMachine], None]] = []
        """Called when nothing runs in a machine any more: terminated, stopped, broken, vanished."""
        self._clock = clock
        self._random = random
        self._shapes = {shape.name: shape for shape in shapes}
        self._zones = tuple(zones)
        self._machines: dict[MachineId, FakeMachine] = {}
        self._of_worker: dict[WorkerId, list[FakeMachine]] = {}
        self._held = _Held()
        self._ending: list[tuple[float, MachineId]] = []
        self._gone: list[tuple[float, MachineId]] = []
        """When machines that were terminated free their resources, and when they are listed no more."""
        self._number = count(1)

    # --- the protocol

    async def shapes(self) -> tuple[Shape, ...]:
        """As given."""
        await self._begin(CloudCall.SHAPES)
        await self._end(CloudCall.SHAPES)
        return tuple(self._shapes.values())

    async def machines(self) -> Machines:
        """What the cloud lists, which may lag behind what is."""
        await self._begin(CloudCall.MACHINES)
        if self.faults.strike(CloudFault.TRUNCATED, CloudCall.MACHINES):
            raise CloudUnavailable("the listing is truncated", where=str(self.name))
        now = self._clock.now()
        empty = self.faults.strike(CloudFault.EMPTY, CloudCall.MACHINES) is not None
        self._purge(now)
        listed = tuple(
            each.as_listed(now) for each in self._machines.values() if now >= each.made + self.list_lag and not empty
        )
        await self._end(CloudCall.MACHINES)
        return listed

    async def launch(self, requests: Sequence[LaunchRequest]) -> Mapping[WorkerId, MachineId | CloudError]:
        """Quota and stock are looked at now; one machine after the other."""
        await self._begin(CloudCall.LAUNCH)
        answers: dict[WorkerId, MachineId | CloudError] = {}
        for request in requests:
            try:
                answers[request.worker] = self._launch_one(request)
            except CloudError as error:
                answers[request.worker] = error
        await self._end(CloudCall.LAUNCH)
        return answers

    async def terminate(self, machines: Sequence[MachineId]) -> Mapping[MachineId, CloudError | None]:
        """As a real cloud: it does not ask whose machine it is, nor what runs there. The record does."""
        await self._begin(CloudCall.TERMINATE)
        for machine in machines:
            if machine in self._machines:
                self._terminate_one(self._machines[machine])
        await self._end(CloudCall.TERMINATE)
        return dict.fromkeys(machines)

    async def check(self, images: Sequence[str]) -> tuple[Finding, ...]:
        """One finding per image, and one for being there."""
        self.record.calls[CloudCall.CHECK] += 1
        if strike := self.faults.strike(CloudFault.RAISE, CloudCall.CHECK):
            return (Finding("connection", Level.ERROR, str(strike.error or f"{self.name} does not answer")),)
        findings = [Finding("connection", Level.OK, f"{self.name} answers")]
        for image in images:
            known = self.images is None or image in self.images
            text = f"image {image} {'exists' if known else 'does not exist'}"
            findings.append(Finding(f"image {image}", Level.OK if known else Level.ERROR, text))
        return tuple(findings)

    async def close(self) -> None:
        """Nothing to release."""

    # --- what happens to machines by themselves or by others

    def machine_of(self, worker: WorkerId) -> FakeMachine | None:
        """The worker's machine that still holds resources; the newest if there are several."""
        now = self._clock.now()
        living = [each for each in self._of_worker.get(worker, ()) if _holds(each, now)]
        return living[-1] if living else None

    def alive(self) -> Iterator[FakeMachine]:
        """All machines that hold resources, foreign ones included."""
        now = self._clock.now()
        return (each for each in list(self._machines.values()) if _holds(each, now))

    def break_machine(self, machine: MachineId, message: str = "hardware failure") -> None:
        """The cloud reports it as BROKEN; nothing runs in it."""
        self._force(machine, MachineState.BROKEN, message)

    def stop_machine(self, machine: MachineId, message: str = "powered off") -> None:
        """It powers off; it exists on."""
        self._force(machine, MachineState.STOPPED, message)

    def confuse_machine(self, machine: MachineId) -> None:
        """The cloud says UNKNOWN of it from now on; it runs on all the same."""
        self._machines[machine].forced = MachineState.UNKNOWN

    def vanish(self, machine: MachineId) -> None:
        """It is gone without a trace."""
        gone = self._machines[machine]
        self._strike_off(gone)
        for each in self.on_ended:
            each(gone)

    def add_foreign(self, resources: Resources = SMALL.resources) -> MachineId:
        """Somebody else of the tenant starts a machine."""
        now = self._clock.now()
        machine = self._new_id()
        self._machines[machine] = FakeMachine(machine, None, None, resources, None, b"", now, now)
        self._held.add(self._machines[machine], 1)
        return machine

    def remove_foreign(self, machine: MachineId) -> None:
        """Its owner ends it."""
        self._strike_off(self._machines[machine])

    # --- inside

    async def _begin(self, call: CloudCall) -> None:
        self.record.calls[call] += 1
        if self.call_time:
            await asyncio.sleep(self.call_time)
        if self.faults.strike(CloudFault.HANG, call):
            await _for_ever()
        if strike := self.faults.strike(CloudFault.RAISE, call):
            raise strike.error or CloudUnavailable("503 Service Unavailable", where=str(self.name))

    async def _end(self, call: CloudCall) -> None:
        if self.faults.strike(CloudFault.HANG_AFTER, call):
            await _for_ever()
        if self.faults.strike(CloudFault.ANSWER_LOST, call):
            raise CloudUnavailable("the connection was reset before the answer came", where=str(self.name))

    def _launch_one(self, request: LaunchRequest) -> MachineId:
        now = self._clock.now()
        self._purge(now)
        before = [each for each in self._of_worker.get(request.worker, ()) if _holds(each, now)]
        if before and not self.faults.strike(CloudFault.DOUBLES, CloudCall.LAUNCH):
            return before[0].id
        shape = self._admit(request)
        if strike := self.faults.strike(CloudFault.REFUSE, CloudCall.LAUNCH):
            raise strike.error or NoCapacity(f"no room for {request.shape}", where=str(self.name))
        if before:
            self.record.doubled.append(request.worker)
        machine = self._make(request, shape, now)
        if self.faults.strike(CloudFault.ITEM_LOST, CloudCall.LAUNCH):
            raise CloudUnavailable(f"no answer for {request.worker}", where=str(self.name))
        return machine.id

    def _admit(self, request: LaunchRequest) -> Shape:
        where = str(self.name)
        shape = self._shapes.get(request.shape)
        if shape is None:
            raise LaunchRejected(f"no shape is called {request.shape!r}", where=where)
        if request.zone is not None and request.zone not in self._zones:
            raise LaunchRejected(f"no zone is called {request.zone!r}", where=where)
        if self.images is not None and request.image not in self.images:
            raise ImageNotFound(f"no image is called {request.image!r}", where=where)
        for scope, limit, want in (
            ("machines", self.quota.machines, self._held.machines + 1),
            ("cores", self.quota.cores, self._held.cores + shape.resources.cores),
            ("memory", self.quota.memory, self._held.memory + shape.resources.memory),
        ):
            if limit is not None and want > limit:
                raise QuotaExceeded(f"{want} of {limit} {scope} would be used", scope=scope, where=where)
        if (request.zone, request.shape) in self.sold_out:
            raise NoCapacity(f"{request.shape} is sold out in zone {request.zone}", where=where)
        return shape

    def _make(self, request: LaunchRequest, shape: Shape, now: float) -> FakeMachine:
        machine = FakeMachine(
            self._new_id(),
            request.worker,
            request.group,
            shape.resources,
            request.zone,
            request.user_data,
            made=now,
            boots=now + self._boot_seconds(request),
            dead=self.faults.strike(CloudFault.DEAD_ON_ARRIVAL, CloudCall.LAUNCH) is not None,
        )
        if self.faults.strike(CloudFault.BOOT_FAILS, CloudCall.LAUNCH):
            machine.forced, machine.message, machine.dead = MachineState.BROKEN, "no bootable device", True
        self._machines[machine.id] = machine
        self._of_worker.setdefault(request.worker, []).append(machine)
        self._held.add(machine, 1)
        record, group = self.record, request.group
        record.made.append((now, request.worker))
        record.most_alive = max(record.most_alive, self._held.ours)
        record.most_alive_of[group] = max(record.most_alive_of[group], self._held.of_group[group])
        for each in self.on_made:
            each(machine)
        return machine

    def _boot_seconds(self, request: LaunchRequest) -> float:
        """From the launch to RUNNING."""
        return self.boot_time + (self._random.uniform(0.0, self.boot_jitter) if self.boot_jitter else 0.0)

    def _terminate_one(self, machine: FakeMachine) -> None:
        now = self._clock.now()
        if machine.ends is not None:
            return
        if machine.worker is None:
            self.record.foreign_ended.append(machine.id)
        else:
            self.record.terminated.append((now, machine.worker))
            if machine.forced not in (MachineState.BROKEN, MachineState.STOPPED):
                jobs = self.jobs_on(machine.worker)
                self.record.killed_jobs += [KilledJob(now, machine.worker, job) for job in jobs]
        machine.ends = now + self.end_time
        heapq.heappush(self._ending, (machine.ends, machine.id))
        for each in self.on_ended:
            each(machine)

    def _force(self, machine: MachineId, state: MachineState, message: str) -> None:
        changed = self._machines[machine]
        changed.forced, changed.message, changed.boots = state, message, min(changed.boots, self._clock.now())
        for each in self.on_ended:
            each(changed)

    def _purge(self, now: float) -> None:
        """Free what has ended, and forget machines that are not even listed any more."""
        while self._ending and self._ending[0][0] <= now:
            ends, machine = heapq.heappop(self._ending)
            if machine in self._machines:
                self._held.add(self._machines[machine], -1)
                heapq.heappush(self._gone, (ends + self.gone_listed, machine))
        while self._gone and self._gone[0][0] <= now:
            _, machine = heapq.heappop(self._gone)
            if machine in self._machines:
                self._forget(self._machines.pop(machine))

    def _strike_off(self, machine: FakeMachine) -> None:
        """It is there no more, at once."""
        self._purge(self._clock.now())
        if self._machines.pop(machine.id, None) is None:
            return
        if _holds(machine, self._clock.now()):
            self._held.add(machine, -1)
        self._forget(machine)

    def _forget(self, machine: FakeMachine) -> None:
        if machine.worker is not None:
            others = self._of_worker[machine.worker]
            others.remove(machine)
            if not others:
                del self._of_worker[machine.worker]

    def _new_id(self) -> MachineId:
        return MachineId(f"{self.name}-{next(self._number):04d}")


def _holds(machine: FakeMachine, now: float) -> bool:
    return machine.ends is None or now < machine.ends


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()
