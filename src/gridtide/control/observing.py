"""All sources of a site, and the snapshot they make."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random

from gridtide.clock import Clock
from gridtide.clouds.protocol import Cloud, HasZones
from gridtide.control.assembly import Assembly
from gridtide.control.breaker import Breaker
from gridtide.control.queue_sources import QueueSources
from gridtide.control.sources import Source
from gridtide.model.demand import Attribute, Demand, Nodes, Offer
from gridtide.model.ids import CloudName, QueueName, WorkerId, Zone
from gridtide.model.machines import Machines
from gridtide.model.readings import Fresh, Reading, last_known
from gridtide.model.resources import Shape
from gridtide.model.snapshot import CloudView, QueueView
from gridtide.planning.guards import believe_demand, believe_machines, believe_nodes
from gridtide.queues.protocol import Queue

# At the start, demand waits so long (seconds) for the first answers about shapes; a cloud that hangs longer than this
# is left out of the first look, and looked at again when it answers.
_SHAPES_PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class _CloudSources:
    machines: Source[Machines]
    shapes: Source[tuple[Shape, ...]]


@dataclass(frozen=True, slots=True)
class _Leaving:
    """Workers whose node and machine may vanish."""

    stays: Callable[[WorkerId], bool]

    def __contains__(self, worker: object) -> bool:
        return isinstance(worker, str) and not self.stays(WorkerId(worker))


class Observer:
    """Knows what is read when. ``changed`` is called whenever a reading has changed."""

    def __init__(
        self,
        assembly: Assembly,
        *,
        clock: Clock,
        random: Random,
        changed: Callable[[str], None],
        stays: Callable[[WorkerId], bool],
    ) -> None:
        """``stays`` tells of a worker whether its node and machine should still be there; others may vanish."""
        self._assembly = assembly
        self._leaving = _Leaving(stays)
        self._clock = clock
        self._random = random
        self._changed = changed
        self._queues = {name: self._queue_sources(queue) for name, queue in assembly.queues.items()}
        self._clouds = {name: self._cloud_sources(cloud) for name, cloud in assembly.clouds.items()}
        self._zoned = {name: cloud for name, cloud in assembly.clouds.items() if isinstance(cloud, HasZones)}

    async def observe(self) -> None:
        """Start what is due and give it the cycle's patience: one such time for each read, however many cycles pass.

        Else a cloud that hangs would make every cycle late, and with it what is done on all others.
        """
        for queue in self._queues.values():
            queue.start()
        for cloud in self._clouds.values():
            cloud.machines.start()
            cloud.shapes.start()
        while hopes := self._hopes():
            await asyncio.wait(hopes, timeout=max(hopes.values()), return_when=asyncio.FIRST_COMPLETED)
            for queue in self._queues.values():
                queue.follow()

    def ask_queue(self, name: QueueName) -> None:
        """Something happened to this queue."""
        if name in self._queues:
            self._queues[name].ask()

    def ask_cloud(self, name: CloudName) -> None:
        """Something happened to this cloud's machines."""
        if name in self._clouds:
            self._clouds[name].machines.ask()

    def next_due(self) -> float:
        """When the next read should start."""
        queues = (queue.due() for queue in self._queues.values())
        clouds = (min(cloud.machines.due(), cloud.shapes.due()) for cloud in self._clouds.values())
        return min(*queues, *clouds, float("inf"))

    def queue_views(self, now: float) -> Mapping[QueueName, QueueView]:
        """What is known of each queue."""
        return {name: sources.view(now) for name, sources in self._queues.items()}

    def cloud_views(self, now: float, breakers: Mapping[CloudName, Breaker]) -> Mapping[CloudName, CloudView]:
        """What is known of each cloud."""
        views: dict[CloudName, CloudView] = {}
        for name, sources in self._clouds.items():
            shapes = sources.shapes.reading(now)
            known: Fresh[tuple[Shape, ...]] | None = last_known(shapes)
            zones: tuple[Zone | None, ...] = (zoned.zones() if (zoned := self._zoned.get(name)) else ()) or (None,)
            keys = [(zone, shape.name) for zone in zones for shape in known.value] if known is not None else []
            health = breakers[name].health(keys, now)
            views[name] = CloudView(sources.machines.reading(now), shapes, zones, health)
        return views

    async def stop(self) -> None:
        """Abandon all reads."""
        await asyncio.gather(*(source.stop() for source in self._sources()))

    def adopt(self, before: Observer) -> None:
        """Keep the readings of sources that a changed site file left as they were."""
        for name, queue in self._queues.items():
            if name in before._queues and before._assembly.queues[name] is self._assembly.queues[name]:
                queue.nodes.adopt(before._queues[name].nodes)
        for cloud_name, cloud in self._clouds.items():
            if (
                cloud_name in before._clouds
                and before._assembly.clouds[cloud_name] is self._assembly.clouds[cloud_name]
            ):
                cloud.machines.adopt(before._clouds[cloud_name].machines)
                cloud.shapes.adopt(before._clouds[cloud_name].shapes)

    def _hopes(self) -> dict[asyncio.Task[None], float]:
        """The reads under way that may be waited for, and the seconds for which."""
        patience = self._assembly.timing.patience
        hopes = {source.under_way: source.hope(patience) for source in self._sources()}
        return {task: seconds for task, seconds in hopes.items() if task is not None and seconds > 0.0}

    def _sources(self) -> Iterable[Source[Demand] | Source[Nodes] | Source[Machines] | Source[tuple[Shape, ...]]]:
        for queue in self._queues.values():
            yield queue.demand
            yield queue.nodes
        for cloud in self._clouds.values():
            yield cloud.machines
            yield cloud.shapes

    def _queue_sources(self, queue: Queue) -> QueueSources:
        rhythm = self._assembly.timing.queue
        return QueueSources(
            Source(
                f"{queue.name}: demand",
                lambda: self._read_demand(queue),
                rhythm,
                clock=self._clock,
                random=self._random,
                believe=believe_demand,
                changed=self._changed,
            ),
            Source(
                f"{queue.name}: nodes",
                queue.nodes,
                rhythm,
                clock=self._clock,
                random=self._random,
                believe=self._believe_nodes,
                changed=self._changed,
            ),
            self._clock,
        )

    def _cloud_sources(self, cloud: Cloud) -> _CloudSources:
        return _CloudSources(
            Source(
                f"{cloud.name}: machines",
                cloud.machines,
                self._assembly.timing.cloud,
                clock=self._clock,
                random=self._random,
                believe=self._believe_machines,
                changed=self._changed,
            ),
            Source(
                f"{cloud.name}: shapes",
                cloud.shapes,
                self._assembly.timing.shapes,
                clock=self._clock,
                random=self._random,
                believe=_take,
                changed=self._shapes_changed,
            ),
        )

    def _believe_nodes(self, before: Reading[Nodes], answer: Fresh[Nodes]) -> Reading[Nodes]:
        return believe_nodes(before, answer, self._leaving)

    def _believe_machines(self, before: Reading[Machines], answer: Fresh[Machines]) -> Reading[Machines]:
        return believe_machines(before, answer, self._leaving)

    async def _read_demand(self, queue: Queue) -> Demand:
        """Which jobs our machines could run can only be said once it is known what machines there are."""
        asked = [cloud.shapes for cloud in self._clouds.values() if not cloud.shapes.attempted.is_set()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max((source.hope(_SHAPES_PATIENCE) for source in asked), default=0.0)):
                for source in asked:
                    await source.attempted.wait()
        return await queue.demand(self._offers(queue.name))

    def _shapes_changed(self, name: str) -> None:
        for queue in self._queues.values():
            queue.ask()
        self._changed(name)

    def _offers(self, queue: QueueName) -> list[Offer]:
        """The machines that the queue's groups could launch, from the shapes read last."""
        now = self._clock.now()
        offers: list[Offer] = []
        for group in self._assembly.rules.groups.values():
            if group.queue != queue:
                continue
            seen: set[str] = set()
            attributes: dict[str, Attribute] = {
                **self._assembly.planned_attributes,
                **group.attributes,
                "GridtideGroup": group.name,
            }
            for cloud in group.clouds:
                known = last_known(self._clouds[cloud].shapes.reading(now)) if cloud in self._clouds else None
                for shape in known.value if known is not None else ():
                    if shape.name not in seen and (not group.shapes or shape.name in group.shapes):
                        seen.add(shape.name)
                        offers.append(Offer(group.name, shape, attributes))
        return offers


def _take(_before: Reading[tuple[Shape, ...]], answer: Fresh[tuple[Shape, ...]]) -> Reading[tuple[Shape, ...]]:
    """A list of shapes starts and ends nothing by itself: every complete answer is believed."""
    return answer
