"""An HTCondor pool as a queue. See docs/explanation/htcondor-queue.md for why it is done like this."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from gridtide.clock import Clock
from gridtide.clouds.protocol import Finding, Level
from gridtide.errors import QueueError
from gridtide.model.demand import Attribute, Demand, Nodes, Offer, OfferKey
from gridtide.model.ids import GroupName, QueueName, ShapeName, WorkerId
from gridtide.model.reasons import Reason
from gridtide.model.workers import Worker
from gridtide.queues.htcondor.access import Access, PoolPlace, numeric
from gridtide.queues.htcondor.asking import Asker
from gridtide.queues.htcondor.checking import look_over
from gridtide.queues.htcondor.errors import PoolIncomplete, PoolRefilling
from gridtide.queues.htcondor.fit import machine_names
from gridtide.queues.htcondor.joining import WORKER, JoinSettings, orders
from gridtide.queues.htcondor.judging import Judge
from gridtide.queues.htcondor.ordering import Orders
from gridtide.queues.htcondor.planned import Planned, expression
from gridtide.queues.htcondor.rows import rows
from gridtide.queues.htcondor.schedds import Overview, Schedds
from gridtide.queues.htcondor.slots import (
    ATTRIBUTES,
    Looking,
    Machine,
    Order,
    Slot,
    kind_of,
    kinds,
    looks_drained,
    machines,
    node,
)
from gridtide.queues.htcondor.tokens import read_signing_key
from gridtide.queues.protocol import JoinOrders, Outcome

# After a restart of the collector, a startd finds out in three updates: its connection is closed, its session is not
# known, then it reports anew. Fewer, and nodes that are there are believed to be none.
_REFILL_UPDATES: Final = 3.0
_REFILL_SLACK: Final = 2.0
_BARE_NAME: Final = re.compile(r"(?<![\w.\"])[A-Za-z_]\w*(?!\w*\()")
_WORDS: Final = frozenset({"my", "target", "true", "false", "undefined", "error", "is", "isnt"})
_ENDLESS: Final = dict.fromkeys(("cpus", "memory", "disk", "gpus"), "1000000000")
# Known of each node whatever was asked.
_OF_ANY_NODE: Final = frozenset({"cpus", "memory", "disk", "gpus", "start"})
_FOUND_BY_CONDOR: Final = frozenset(
    ["cpus", "memory", "disk", "gpus", "arch", "opsys", "opsysandver", "kernelversion", "machine", "gridtidegroup"]
)


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What the site file says of a pool."""

    place: PoolPlace
    signing_key: Path
    storage: Path
    schedds: tuple[str, ...] | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=lambda: MappingProxyType({}))
    start: str = "True"
    static_slots: bool = False
    url_transfers: bool = False
    update_interval: float = 60.0
    deadline: float = 8.0
    configuration: tuple[str, ...] = ()


class HTCondorQueue:
    """Implements :class:`~gridtide.queues.protocol.Queue`. Raises QueueError alone. :meth:`close` it at the end."""

    def __init__(self, name: QueueName, settings: PoolSettings, clock: Clock) -> None:
        self.name = name
        self._settings, self._clock = settings, clock
        where = f"queue {name}"
        self._where = where
        self._key = read_signing_key(settings.signing_key)
        self._access = Access(settings.storage, settings.place, self._key, clock)
        self.configuration = self._access.configuration
        """HTCondor's configuration with our rights, for a person who wants to look (``CONDOR_CONFIG``)."""
        self._asker = Asker(self._access.configuration, where)
        self._schedds = Schedds(self._asker, clock, settings.schedds, where)
        self._judge = Judge(self._asker)
        self._orders = Orders(self._asker, self._access, where)
        self._planned = Planned(settings.attributes, settings.start, settings.url_transfers)
        self._ordered: dict[WorkerId, Order] = {}
        self._last_number = 0
        self._seen: frozenset[WorkerId] | None = None
        self._busy: Mapping[str, float] = {}
        """When each node was last seen running something."""
        self._names: frozenset[str] = frozenset()
        self._kind_names: frozenset[str] = frozenset()
        self._kinds: Mapping[str, Mapping[str, str]] | None = None

    # --- looking

    async def demand(self, offers: Sequence[Offer]) -> Demand:
        """All idle jobs of all schedds. One schedd that does not answer makes it fail."""
        self._access.prepare()
        await self._schedds.overview(self._settings.deadline)
        groups = await self._schedds.idle(self._settings.deadline, _names_in(self._settings.start))
        wanted = [frozenset(machine_names(group.job)) for group in groups]
        self._names = frozenset[str]().union(*wanted)
        kinds_now, told = self._kinds, self._kind_names
        others = None if kinds_now is None else {kind: {**look, **_ENDLESS} for kind, look in kinds_now.items()}
        ads = [self._planned.ad(offer) for offer in offers]
        judged = await self._judge.judge([group.job for group in groups], ads, others, self._settings.deadline)
        # Nodes of others that were looked at for other attributes than these jobs ask for: resources alone decide.
        blind = [
            each if names <= told else replace(each, others=None) for each, names in zip(judged, wanted, strict=True)
        ]
        return rows(list(zip(groups, blind, strict=True)), offers)

    async def nodes(self) -> Nodes:
        """All startds, ours and others."""
        self._access.prepare()
        names = self._names
        overview, said = await asyncio.gather(
            self._schedds.overview(self._settings.deadline),
            self._asker.call("slots", self._settings.deadline, projection=sorted({*ATTRIBUTES, *names})),
        )
        slots: list[Slot] = []
        for portion in said:
            if not isinstance(portion, list):
                raise PoolIncomplete("the collector's answer has no slots", where=self._where)
            slots += [slot for slot in portion if isinstance(slot, dict)]
        found = machines(slots)
        self._check_refilled(overview, found)
        await self._learn(found)
        running, witnessed = await self._schedds.running(now_please=any(looks_drained(each) for each in found))
        looks = kinds(found, sorted(names))
        self._kinds, self._kind_names = looks, names | _OF_ANY_NODE
        now = self._clock.now()
        looking = Looking(now, self._settings.update_interval, dict(self._ordered), running, witnessed, self._busy)
        self._seen = frozenset(each.worker for each in found if each.worker is not None)
        nodes = tuple(
            node(each, looking, kind_of(each, sorted(names)) if looks and each.worker is None and each.base else None)
            for each in found
        )
        self._busy = {
            each.name: now if each.running else self._busy[each.name]
            for each in nodes
            if each.running or each.name in self._busy
        }
        return nodes

    def _check_refilled(self, overview: Overview, found: Sequence[Machine]) -> None:
        """A collector that was just started lists what has reported since: a part, that must not look like all."""
        age = 0.0 if overview.started is None else self._clock.now() - overview.started
        missing = _REFILL_UPDATES * self._settings.update_interval + _REFILL_SLACK - age
        if missing < 0:
            return
        listed = {each.worker for each in found}
        if self._seen is None or self._seen - listed:
            raise PoolRefilling(
                f"the collector was started {max(age, 0.0):.0f} s ago and has not heard of all nodes yet",
                ask_again=min(missing + 0.1, self._settings.update_interval),
                where=self._where,
            )

    async def _learn(self, found: Sequence[Machine]) -> None:
        """Look closely at one machine of each kind of ours, when a newer one is there."""
        wanted: dict[str, tuple[OfferKey, float]] = {}
        newest: dict[OfferKey, float] = {}
        for each in found:
            for slot in each.base[:1] if each.worker is not None else ():
                key = (GroupName(str(slot.get("GridtideGroup"))), ShapeName(str(slot.get("GridtideShape"))))
                started = slot.get("DaemonStartTime")
                if not isinstance(started, int) or started <= max(self._planned.learned(key), newest.get(key, 0.0)):
                    continue
                newest[key] = started
                wanted = {name: about for name, about in wanted.items() if about[0] != key}
                wanted[str(slot["Name"])] = (key, float(started))
        if not wanted:
            return
        for item in await self._asker.call("machines", self._settings.deadline, names=list(wanted)):
            if isinstance(item, dict) and isinstance(item["machine"], dict):
                key, started = wanted[str(item["name"])]
                self._planned.learn(key, started, {name: str(text) for name, text in item["machine"].items()})

    # --- orders

    async def drain(self, workers: Mapping[WorkerId, Reason]) -> Mapping[WorkerId, Outcome]:
        """Their startds take no job from now on; what runs, runs to its end."""
        self._access.prepare()
        number = self._next_number()
        # Recorded first: a drain that is under way must not be confirmed by what an older one left behind.
        self._ordered.update(dict.fromkeys(workers, Order(number, drain=True)))
        return await self._orders.give(tuple(workers), number, self._settings.deadline)

    async def undrain(self, workers: Sequence[WorkerId]) -> Mapping[WorkerId, Outcome]:
        """Their startds take jobs again."""
        self._access.prepare()
        outcomes = await self._orders.give(workers, 0, self._settings.deadline)
        order = Order(self._next_number(), drain=False)
        self._ordered.update({worker: order for worker, outcome in outcomes.items() if outcome is None})
        return outcomes

    def _next_number(self) -> int:
        """Larger than any before, also than those of an earlier process: milliseconds since the epoch."""
        self._last_number = max(self._last_number + 1, int(self._clock.now() * 1000))
        return self._last_number

    async def join(self, worker: Worker, host: Mapping[str, Attribute]) -> JoinOrders:
        """Files and services that make the machine an execution point. The pool hears of it from the machine itself."""
        settings = self._settings
        join = JoinSettings(
            collector=await asyncio.to_thread(numeric, settings.place.collector),
            trust_domain=settings.place.trust_domain,
            static_slots=settings.static_slots,
            start=settings.start,
            url_transfers=settings.url_transfers,
            update_interval=max(1, round(settings.update_interval)),
            configuration=settings.configuration,
        )
        said = {name: expression(value) for name, value in {**_given(host), **settings.attributes}.items()}
        return orders(worker, said, join, self._key, self._clock.now())

    async def forget(self, workers: Sequence[WorkerId]) -> None:
        """Take their ads away, so that nothing is matched to them any more."""
        if not workers:
            return
        self._access.prepare()
        await self._asker.call("forget", self._settings.deadline, attribute=WORKER, workers=list(workers))
        for worker in workers:
            self._ordered.pop(worker, None)
        if self._seen is not None:
            self._seen -= frozenset(workers)

    async def check(self) -> Sequence[Finding]:
        """Whether the pool lets us and our workers in, and what in it could end a running job."""
        try:
            self._access.prepare()
            overview = await self._schedds.overview(self._settings.deadline)
        except QueueError as error:
            return [Finding(self._where, Level.ERROR, error.what, error.remedy or "do collector and schedds run?")]
        names = [schedd.name for schedd in overview.schedds]
        return await look_over(self._asker, self._where, self._settings.deadline, names)

    async def close(self) -> None:
        """End the asking process."""
        await self._schedds.close()
        await self._asker.close()


def _given(host: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """What the site file wants the machine to say. What HTCondor finds out by itself is left to it."""
    return {name: value for name, value in host.items() if name.lower() not in _FOUND_BY_CONDOR}


def _names_in(expression_text: str) -> list[str]:
    """Attributes of jobs that an expression may refer to."""
    return sorted({name for name in _BARE_NAME.findall(expression_text) if name.lower() not in _WORDS})
