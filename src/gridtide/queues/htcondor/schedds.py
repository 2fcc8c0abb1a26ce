"""All schedds of a pool: which there are, what waits in them, what runs from them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gridtide.clock import Clock
from gridtide.errors import QueueError
from gridtide.queues.htcondor.asking import Asker, Json
from gridtide.queues.htcondor.counting import SHARE, Group, IdleJobs
from gridtide.queues.htcondor.errors import PoolIncomplete

MEMORY: Final = 3600.0
"""Seconds for which a schedd that the collector lists no more is still asked. Shorter than a collector needs to fill
again, and its jobs would look gone; longer, and a schedd that was taken out of service keeps the site from growing."""

_WITNESS_PATIENCE: Final = 3.0
"""Seconds for a schedd to say what runs. Nodes are listed without its word then, and none is called drained."""

_WITNESS_PAUSE: Final = 10.0
"""Seconds before a schedd that failed as a witness is asked again: a dead one must not slow every list of nodes."""


@dataclass(frozen=True, slots=True)
class Schedd:
    """Where one is."""

    name: str
    address: str
    idle: int
    """What the collector was told last; it lags."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What the collector says first."""

    started: float | None
    """When it was started, by its own clock. None: so lately that it does not list itself yet."""
    schedds: tuple[Schedd, ...]


@dataclass(slots=True)
class _Known:
    schedd: Schedd
    listed: float
    idle: IdleJobs
    running: Mapping[str, int]
    next_running: float = float("-inf")
    failing_until: float = float("-inf")


class Schedds:
    """``names`` are those of the site file; None: all that the collector lists."""

    def __init__(self, asker: Asker, clock: Clock, names: Sequence[str] | None, where: str) -> None:
        self._asker, self._clock, self._where = asker, clock, where
        self._names = None if names is None else tuple(names)
        self._known: dict[str, _Known] = {}

    async def overview(self, deadline: float) -> Overview:
        """Ask the collector, and remember the schedds."""
        names = None if self._names is None else list(self._names)
        said = await self._asker.call("overview", deadline, names=names)
        overview = _overview(said)
        now = self._clock.now()
        for schedd in overview.schedds:
            known = self._known.get(schedd.name)
            if known is None:
                self._known[schedd.name] = _Known(schedd, now, IdleJobs(self._asker, self._clock, schedd.name), {})
            else:
                known.schedd, known.listed = schedd, now
        for name, known in list(self._known.items()):
            if now - known.listed > MEMORY:
                await self._known.pop(name).idle.close()
        missing = sorted(set(self._names or ()) - self._known.keys())
        if missing:
            raise PoolIncomplete(f"the collector does not list the schedd {', '.join(missing)}", where=self._where)
        if not self._known:
            raise PoolIncomplete(
                "the collector lists no schedd",
                where=self._where,
                remedy="was it just started? Else name them: schedds",
            )
        return overview

    async def idle(self, deadline: float, names: Sequence[str]) -> list[Group]:
        """All that waits, after :meth:`overview`. The error of one schedd is the error of all: a part is no answer."""
        said = await asyncio.gather(
            *(
                known.idle.count(known.schedd.address, known.schedd.idle, deadline, names)
                for known in self._known.values()
            ),
            return_exceptions=True,
        )
        groups: list[Group] = []
        for each in said:
            if isinstance(each, BaseException):
                raise each
            groups += each
        return groups

    async def running(self, *, now_please: bool) -> tuple[Mapping[str, int], bool]:
        """Jobs by node name, and whether every schedd has said so in this call.

        Unless ``now_please``, a schedd is left alone until its share of time is kept; then its last word counts.
        """
        fresh = await asyncio.gather(*(self._running(known, now_please) for known in self._known.values()))
        together: Counter[str] = Counter()
        for known in self._known.values():
            together.update(known.running)
        return together, bool(fresh) and all(fresh)

    async def close(self) -> None:
        """Abandon what goes on."""
        for known in self._known.values():
            await known.idle.close()

    async def _running(self, known: _Known, now_please: bool) -> bool:
        began = self._clock.now()
        if began < known.failing_until or (not now_please and began < known.next_running):
            return False
        try:
            (said,) = await self._asker.call("running", _WITNESS_PATIENCE, schedd=known.schedd.address)
            known.running = _counts(said)
        except (QueueError, ValueError):
            known.failing_until = self._clock.now() + _WITNESS_PAUSE
            return False
        known.next_running = began + (self._clock.now() - began) / SHARE
        return True


def _overview(said: Sequence[Json]) -> Overview:
    if len(said) != 1 or not isinstance(said[0], dict) or not isinstance(said[0]["schedds"], list):
        raise PoolIncomplete("the collector's answer has no schedds")
    found = []
    for each in said[0]["schedds"]:
        if not isinstance(each, dict) or not isinstance(each["idle"], int):
            raise PoolIncomplete("the collector's answer has a schedd without a name")
        found.append(Schedd(str(each["name"]), str(each["address"]), each["idle"]))
    started = said[0]["started"]
    return Overview(float(started) if isinstance(started, int | float) else None, tuple(found))


def _counts(said: Json) -> Mapping[str, int]:
    if not isinstance(said, dict):
        raise ValueError("no counts")
    return {host: count for host, count in said.items() if isinstance(count, int)}
