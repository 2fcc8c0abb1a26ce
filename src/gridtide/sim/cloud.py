"""A cloud with the habits of real ones: boot times, rate limits, bills, outages, reclaimed machines.

It is the fake cloud of the scenarios, with its faults and its record, and chance drawn per machine: the same worker
gets the same boot time whatever else is launched beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from gridtide.clock import Clock
from gridtide.clouds.fake import CloudCall, FakeCloud, FakeMachine
from gridtide.clouds.protocol import LaunchRequest
from gridtide.errors import CloudError, CloudUnavailable, NoCapacity, QuotaExceeded, Throttled
from gridtide.model.costs import Billing
from gridtide.model.ids import CloudName, GroupName, MachineId, ShapeName, WorkerId, Zone
from gridtide.model.machines import MachineState, Quota
from gridtide.model.resources import Shape
from gridtide.sim.chance import Chance
from gridtide.sim.gate import reach

PATIENCE: Final = 55.0
"""Seconds after which a call that was held up does not leave any more, as in the drivers (``clouds/repeating.py``).
Without it a process that was frozen makes machines for launches that its successor has given up."""


@dataclass(frozen=True, slots=True)
class BootTime:
    """Seconds from the launch call to the join: lognormal, as measured boot times are (a few late ones, none early)."""

    median: float = 120.0
    sigma: float = 0.25
    """Standard deviation of the logarithm; 0: always the median."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A bucket of tokens: ``burst`` at once, then ``per_second``."""

    per_second: float
    burst: int


@dataclass(frozen=True, slots=True)
class Outages:
    """Times in which every call fails."""

    between: float
    """Mean seconds from the end of one to the start of the next; the times are exponential."""
    mean: float
    """Mean seconds that one takes; exponential too."""


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Machines that the cloud takes back (spot, preemptible)."""

    share: float
    """Part of the machines that this happens to, from 0 to 1."""
    after: float
    """Mean seconds from their launch until it happens, exponential."""


@dataclass(frozen=True, slots=True)
class CloudModel:
    """How a simulated cloud behaves."""

    shapes: tuple[Shape, ...]
    boot: BootTime = BootTime()
    billing: Billing = field(default_factory=Billing)
    zones: tuple[Zone, ...] = ()
    quota: Quota = field(default_factory=Quota)
    launches: RateLimit | None = None
    """Machines, not calls."""
    calls: RateLimit | None = None
    outages: Outages | None = None
    reclaim: Reclaim | None = None
    dead_on_arrival: float = 0.0
    """Part of the machines that never do anything, from 0 to 1."""
    list_lag: float = 0.0
    """Seconds before a new machine is listed."""
    end_time: float = 0.0
    """Seconds from the terminate call until the machine is gone; they are charged."""


class _Bucket:
    def __init__(self, limit: RateLimit, now: float) -> None:
        self._limit, self._tokens, self._at = limit, float(limit.burst), now

    def wait(self, now: float) -> float:
        """Take a token: 0, or the seconds until there is one."""
        limit = self._limit
        self._tokens = min(limit.burst, self._tokens + (now - self._at) * limit.per_second)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / limit.per_second


@dataclass(slots=True)
class BilledMachine:
    """One line of the bill."""

    worker: WorkerId
    shape: Shape
    made: float
    ended: float | None = None
    """None while it exists."""


@dataclass(slots=True)
class Bill:
    """What a cloud charges for machines of ours."""

    billing: Billing
    machines: dict[MachineId, BilledMachine] = field(default_factory=dict)

    def seconds(self, machine: BilledMachine, now: float) -> float:
        """What is charged for it up to now."""
        return self.billing.seconds((now if machine.ended is None else machine.ended) - machine.made)


class SimulatedCloud(FakeCloud):
    """See the module and :class:`CloudModel`."""

    def __init__(self, name: CloudName, clock: Clock, seed: int, model: CloudModel, *, settle: float) -> None:
        super().__init__(
            name,
            clock,
            Random(f"{seed}/{name}/faults"),  # noqa: S311  (a simulation, no secret)
            shapes=model.shapes,
            zones=model.zones,
            quota=model.quota,
            list_lag=model.list_lag,
            settle=settle,
            end_time=model.end_time,
        )
        self.model = model
        self.bill = Bill(model.billing)
        self.reclaimed: list[tuple[float, WorkerId]] = []
        self.on_refused: list[Callable[[Zone | None, ShapeName], None]] = []
        """Called when there is no room for a shape in a zone."""
        self.on_throttled: list[Callable[[CloudCall, float], None]] = []
        """Called when a call is refused since there were too many, with the seconds to wait."""
        self.on_called: list[Callable[[CloudCall], None]] = []
        self._seed = seed
        self._launches = None if model.launches is None else _Bucket(model.launches, clock.now())
        self._calls = None if model.calls is None else _Bucket(model.calls, clock.now())
        self._outages = None if model.outages is None else _Schedule(model.outages, Chance(seed, f"{name}/outages"))
        self._born = clock.now()
        self.on_ended.append(self._close_bill)

    # --- the protocol

    async def launch(self, requests: Sequence[LaunchRequest]) -> Mapping[WorkerId, MachineId | CloudError]:
        """One after the other, in the order of their workers: callers may send them in any."""
        return await super().launch(sorted(requests, key=lambda request: request.worker))

    def zones(self) -> tuple[Zone, ...]:
        """In order of preference."""
        return self._zones

    # --- what happens to it

    def price(self, prices: Mapping[ShapeName, float]) -> None:
        """Ask other prices from now on. Machines that exist are charged as before."""
        for name, price in prices.items():
            self._shapes[name] = replace(self._shapes[name], price=price)

    def part_of_quota(self, share: float) -> Quota:
        """A part of its quota; of what is in use where it has none."""
        quota, held = self.model.quota, self._held
        if quota == Quota():
            return Quota(machines=int(held.machines * share))
        parts = (None if most is None else int(most * share) for most in (quota.cores, quota.memory, quota.machines))
        return Quota(*parts)

    # --- looking

    def within_quota(self, shapes: Iterable[Shape]) -> list[Shape]:
        """Those of so many machines, asked for one after the other, that it would make."""
        quota, held = self.quota, self._held
        machines, cores, memory = held.machines, held.cores, held.memory
        made: list[Shape] = []
        for shape in shapes:
            if quota.machines is not None and machines >= quota.machines:
                break
            more = shape.resources
            if quota.cores is not None and cores + more.cores > quota.cores:
                continue
            if quota.memory is not None and memory + more.memory > quota.memory:
                continue
            machines, cores, memory = machines + 1, cores + more.cores, memory + more.memory
            made.append(shape)
        return made

    @property
    def offered(self) -> Mapping[ShapeName, Shape]:
        """What it would sell now, and for how much."""
        return self._shapes

    def reclaim_after(self, worker: WorkerId) -> float | None:
        """Seconds from its launch after which the cloud takes the worker's machine back; None: never."""
        reclaim = self.model.reclaim
        if reclaim is None:
            return None
        chance = Chance(self._seed, f"{self.name}/{worker}/reclaim")
        return chance.exponential(reclaim.after) if chance.happens(reclaim.share) else None

    def take_back(self, machine: MachineId) -> None:
        """The cloud ends a machine of its own accord."""
        worker = self._machines[machine].worker
        if worker is not None:
            self.reclaimed.append((self._clock.now(), worker))
        self.stop_machine(machine, "reclaimed by the cloud")

    def machines_of(self, group: GroupName) -> int:
        """How many machines of the group hold resources."""
        self._purge(self._clock.now())
        return self._held.of_group[group]

    def use(self, limit: Quota) -> list[tuple[str, int, int]]:
        """Of each limit that is set: its noun, the limit, what is used of it."""
        held = self._held
        figures = (
            ("machines", limit.machines, held.machines),
            ("cores", limit.cores, held.cores),
            ("MiB of memory", limit.memory, held.memory),
        )
        return [(noun, most, used) for noun, most, used in figures if most is not None]

    # --- inside

    async def _begin(self, call: CloudCall) -> None:
        for each in self.on_called:
            each(call)
        asked = self._clock.now()
        try:
            await super()._begin(call)
        except Throttled as error:
            self._throttled(call, error)
            raise
        await reach()
        now = self._clock.now()
        if now - asked >= PATIENCE:
            raise CloudUnavailable("held up until it was too late for the call", where=str(self.name))
        if self._outages is not None and self._outages.strikes(now - self._born):
            raise CloudUnavailable("503 Service Unavailable", where=str(self.name))
        if self._calls is not None and (wait := self._calls.wait(now)):
            too_many = Throttled("too many calls", retry_after=wait, where=str(self.name))
            self._throttled(call, too_many)
            raise too_many

    async def _end(self, call: CloudCall) -> None:
        await reach()
        await super()._end(call)

    def _throttled(self, call: CloudCall, error: Throttled) -> None:
        for each in self.on_throttled:
            each(call, error.retry_after or 0.0)

    def _launch_one(self, request: LaunchRequest) -> MachineId:
        if self._launches is not None and (wait := self._launches.wait(self._clock.now())):
            raise Throttled("too many launches", retry_after=wait, where=str(self.name))
        try:
            return super()._launch_one(request)
        except (NoCapacity, QuotaExceeded):
            for each in self.on_refused:
                each(request.zone, request.shape)
            raise

    def _make(self, request: LaunchRequest, shape: Shape, now: float) -> FakeMachine:
        chance = Chance(self._seed, f"{self.name}/{request.worker}/arrival")
        dead = self.model.dead_on_arrival > 0.0 and chance.happens(self.model.dead_on_arrival)
        machine = super()._make(request, shape, now)
        machine.dead = machine.dead or dead
        self.bill.machines[machine.id] = BilledMachine(request.worker, shape, now)
        return machine

    def _boot_seconds(self, request: LaunchRequest) -> float:
        boot = self.model.boot
        return Chance(self._seed, f"{self.name}/{request.worker}/boot").lognormal(boot.median, boot.sigma)

    def _close_bill(self, machine: FakeMachine) -> None:
        if machine.ends is None and machine.forced is MachineState.BROKEN:
            return  # charged until somebody ends it
        billed = self.bill.machines.get(machine.id)
        if billed is not None and billed.ended is None:
            billed.ended = machine.ends if machine.ends is not None else self._clock.now()


class _Schedule:
    """Outages one after the other, made as time goes on."""

    def __init__(self, outages: Outages, chance: Chance) -> None:
        self._draw: Callable[[float], float] = chance.exponential
        self._given = outages
        self._start = self._draw(outages.between)
        self._end = self._start + self._draw(outages.mean)

    def strikes(self, elapsed: float) -> bool:
        """Whether one is on. Times must not run backwards."""
        while elapsed >= self._end:
            self._start = self._end + self._draw(self._given.between)
            self._end = self._start + self._draw(self._given.mean)
        return elapsed >= self._start
