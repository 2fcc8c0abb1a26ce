"""Lets faults strike: when they are due, what is behind their names, and how each is undone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Final

from gridtide.clouds.fake import CloudCall, CloudFault
from gridtide.errors import Throttled
from gridtide.model.ids import CloudName
from gridtide.queues.fake import QueueCall, QueueFault
from gridtide.sim.chance import Chance
from gridtide.sim.cloud import SimulatedCloud
from gridtide.sim.faults import Fault, FaultName
from gridtide.sim.processes import Processes, Wall
from gridtide.sim.queue import SimulatedQueue
from gridtide.sim.watch import Watch
from gridtide.sim.world import Partition, SimulatedWorld

_INSTANTS: Final = 12
"""A process is stopped at one of so many of its next instants: more than one cycle of the controller has."""

_CALLS: Final = (CloudCall.SHAPES, CloudCall.MACHINES, CloudCall.LAUNCH, CloudCall.TERMINATE)
_READS: Final = (QueueCall.DEMAND, QueueCall.NODES)

_BLINDING: Final = frozenset(
    {
        FaultName.LIST_LAG,
        FaultName.PARTITION,
        FaultName.CONTROLLER_KILL,
        FaultName.TWO_CONTROLLERS,
        FaultName.API_429,
        FaultName.SILENT_QUEUE,
        FaultName.EMPTY_QUEUE,
    }
)
"""While one of these goes on the controller cannot know what it should act on."""

Undo = Callable[[], None]


def _nothing() -> None:
    """There is nothing to undo."""


@dataclass(slots=True)
class Stage:
    """All that faults can reach."""

    clouds: Sequence[SimulatedCloud]
    queue: SimulatedQueue
    world: SimulatedWorld
    processes: Processes
    wall: Wall
    layers: dict[tuple[CloudName, FaultName], list[Undo]] = field(default_factory=dict)
    """Of the faults of a kind that go on at one cloud, what each of them does."""

    def clouds_of(self, fault: Fault) -> list[SimulatedCloud]:
        """Those that the fault is about."""
        return [cloud for cloud in self.clouds if fault.cloud in (None, cloud.name)]


@dataclass(slots=True)
class Injector:
    """One task per fault. ``span``: seconds of the workload, in which faults without a time strike."""

    stage: Stage
    watch: Watch
    seed: int
    span: float
    strikes: Counter[FaultName] = field(default_factory=Counter)
    on: Counter[FaultName] = field(default_factory=Counter)
    """Those that go on at this moment."""
    _blind: float = 0.0
    _blind_since: float | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _undo: dict[int, Undo] = field(default_factory=dict)

    def start(self, faults: Sequence[Fault]) -> None:
        """From now on."""
        loop = asyncio.get_running_loop()
        for number, fault in enumerate(faults):
            chance = Chance(self.seed, f"fault {number}: {fault.name}")
            self._tasks.append(loop.create_task(self._live(number, fault, chance), name=f"fault {fault.name}"))

    def blind(self) -> float:
        """Seconds, up to now, in which a fault kept the controller from knowing or doing anything."""
        going_on = 0.0 if self._blind_since is None else self.watch.now() - self._blind_since
        return self._blind + going_on

    def check(self) -> None:
        """Raise what ended one of the tasks."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def stop(self) -> None:
        """No more faults, and those that go on are healed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for undo in self._undo.values():
            undo()
        self._undo.clear()
        self.on.clear()
        self._see()
        self._price()

    async def _live(self, number: int, fault: Fault, chance: Chance) -> None:
        if fault.every is None:
            await asyncio.sleep(chance.uniform(0.0, self.span) if fault.at is None else fault.at)
            await self._strike(number, fault, chance, fault.lasting)
            return
        await asyncio.sleep(fault.at or 0.0)
        while True:
            await asyncio.sleep(chance.exponential(fault.every))
            await self._strike(number, fault, chance, chance.uniform(0.0, 2.0 * fault.lasting))

    async def _strike(self, number: int, fault: Fault, chance: Chance, lasting: float) -> None:
        self.strikes[fault.name] += 1
        self.on[fault.name] += 1
        self._undo[number] = _STRIKES[fault.name](self.stage, fault, chance, lasting)
        self._see()
        self.watch.happened(f"fault {fault.name} begins")
        self._price()
        await asyncio.sleep(lasting)
        self._undo.pop(number)()
        self.on[fault.name] -= 1
        self._see()
        self.watch.happened(f"fault {fault.name} is over")
        self._price()

    def _price(self) -> None:
        for cloud in self.stage.clouds:
            self.watch.priced(cloud)

    def _see(self) -> None:
        """Count the time in which one of the blinding faults goes on."""
        now, blind = self.watch.now(), any(self.on[name] for name in _BLINDING)
        if blind and self._blind_since is None:
            self._blind_since = now
        elif not blind and self._blind_since is not None:
            self._blind, self._blind_since = self._blind + now - self._blind_since, None


def _stock_out(stage: Stage, fault: Fault, chance: Chance, _lasting: float) -> Undo:
    undone: list[Undo] = []
    for cloud in stage.clouds_of(fault):
        zones = [fault.zone] if fault.zone is not None else [*cloud.zones(), None]
        shapes = [fault.shape] if fault.shape is not None else list(cloud.offered)
        added = {(zone, shape) for zone in zones for shape in shapes} - cloud.sold_out
        cloud.sold_out |= added
        undone.append(lambda cloud=cloud, added=added: cloud.sold_out.difference_update(added))  # type: ignore[misc]
    return _all(undone)


def _half_quota(stage: Stage, fault: Fault, _chance: Chance, _lasting: float) -> Undo:
    undone: list[Undo] = []
    for cloud in stage.clouds_of(fault):
        part = partial(setattr, cloud, "quota", cloud.part_of_quota(fault.share))
        undone.append(_over(stage, cloud, fault, part, partial(setattr, cloud, "quota", cloud.model.quota)))
    return _all(undone)


def _list_lag(stage: Stage, fault: Fault, _chance: Chance, _lasting: float) -> Undo:
    undone: list[Undo] = []
    for cloud in stage.clouds_of(fault):
        usual = cloud.model.list_lag
        lag = partial(setattr, cloud, "list_lag", max(usual, fault.by))
        undone.append(_over(stage, cloud, fault, lag, partial(setattr, cloud, "list_lag", usual)))
    return _all(undone)


def _over(stage: Stage, cloud: SimulatedCloud, fault: Fault, strike: Undo, heal: Undo) -> Undo:
    """Strike. Several faults of a kind may go on at once: the last of them that is not over counts."""
    going_on = stage.layers.setdefault((cloud.name, fault.name), [])
    going_on.append(strike)
    strike()

    def undo() -> None:
        going_on.remove(strike)
        (going_on[-1] if going_on else heal)()

    return undo


def _lost_launch(stage: Stage, fault: Fault, _chance: Chance, lasting: float) -> Undo:
    return _inject(stage, fault, CloudFault.ITEM_LOST, lasting)


def _dead_on_arrival(stage: Stage, fault: Fault, _chance: Chance, lasting: float) -> Undo:
    return _inject(stage, fault, CloudFault.DEAD_ON_ARRIVAL, lasting)


def _inject(stage: Stage, fault: Fault, what: CloudFault, lasting: float) -> Undo:
    clouds = stage.clouds_of(fault)
    return _all([cloud.faults.inject(what, chance=fault.share, seconds=lasting) for cloud in clouds])


def _api_429(stage: Stage, fault: Fault, _chance: Chance, lasting: float) -> Undo:
    undone: list[Undo] = []
    for cloud in stage.clouds_of(fault):
        error = Throttled("429 Too Many Requests", retry_after=fault.by, where=str(cloud.name))
        undone += [
            cloud.faults.inject(CloudFault.RAISE, call=call, chance=fault.share, seconds=lasting, error=error)
            for call in _CALLS
        ]
    return _all(undone)


def _partition(stage: Stage, fault: Fault, chance: Chance, _lasting: float) -> Undo:
    salt = chance.below(1 << 30)
    partition = Partition(fault.cloud, lambda worker: Chance(salt, worker).happens(fault.share))
    stage.world.part(partition)
    return lambda: stage.world.rejoin(partition)


def _controller_kill(stage: Stage, _fault: Fault, chance: Chance, lasting: float) -> Undo:
    stage.processes.kill(chance.below(_INSTANTS), lasting)
    return _nothing


def _two_controllers(stage: Stage, _fault: Fault, chance: Chance, lasting: float) -> Undo:
    stage.processes.freeze(chance.below(_INSTANTS), lasting)
    return _nothing


def _clock_step(stage: Stage, fault: Fault, chance: Chance, _lasting: float) -> Undo:
    backwards = fault.every is not None and chance.happens(0.5)
    stage.wall.offset += -fault.by if backwards else fault.by
    return _nothing


def _price_flip(stage: Stage, fault: Fault, chance: Chance, _lasting: float) -> Undo:
    undone: list[Undo] = []
    for cloud in stage.clouds_of(fault):
        usual = {shape.name: shape.price for shape in cloud.model.shapes}
        flipped = {name: price * (2.0 if chance.happens(0.5) else 0.5) for name, price in usual.items()}
        undone.append(_over(stage, cloud, fault, partial(cloud.price, flipped), partial(cloud.price, usual)))
    return _all(undone)


def _spot_reclaim(stage: Stage, fault: Fault, chance: Chance, _lasting: float) -> Undo:
    for cloud in stage.clouds_of(fault):
        for machine in cloud.alive():
            if machine.worker is not None and machine.forced is None and chance.happens(fault.share):
                cloud.take_back(machine.id)
    return _nothing


def _silent_queue(stage: Stage, _fault: Fault, _chance: Chance, lasting: float) -> Undo:
    return _all([stage.queue.faults.inject(QueueFault.HANG, call=call, seconds=lasting) for call in _READS])


def _empty_queue(stage: Stage, _fault: Fault, _chance: Chance, lasting: float) -> Undo:
    return stage.queue.faults.inject(QueueFault.EMPTY, seconds=lasting)


def _all(undone: Sequence[Undo]) -> Undo:
    def undo() -> None:
        for each in undone:
            each()

    return undo


_STRIKES: Final[Mapping[FaultName, Callable[[Stage, Fault, Chance, float], Undo]]] = MappingProxyType(
    {
        FaultName.STOCK_OUT: _stock_out,
        FaultName.HALF_QUOTA: _half_quota,
        FaultName.LIST_LAG: _list_lag,
        FaultName.LOST_LAUNCH: _lost_launch,
        FaultName.DEAD_ON_ARRIVAL: _dead_on_arrival,
        FaultName.PARTITION: _partition,
        FaultName.CONTROLLER_KILL: _controller_kill,
        FaultName.TWO_CONTROLLERS: _two_controllers,
        FaultName.CLOCK_STEP: _clock_step,
        FaultName.API_429: _api_429,
        FaultName.PRICE_FLIP: _price_flip,
        FaultName.SPOT_RECLAIM: _spot_reclaim,
        FaultName.SILENT_QUEUE: _silent_queue,
        FaultName.EMPTY_QUEUE: _empty_queue,
    }
)
