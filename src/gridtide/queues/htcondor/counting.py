"""How many jobs of each kind are idle in one schedd, at a cost that its users do not feel.

The schedd groups its jobs itself, in a process that it forks for the question. Naming the requirements of each group
makes it print an expression for each job, which takes about 15 microseconds; grouping by two numbers takes 3. So a
short queue is always asked in full. Of a long one only the kinds are counted each time; what the requirements within a
kind are is asked in the background now and then, and the counts are shared out in the proportions found. A kind not
seen before is described by the cluster that its first job belongs to until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gridtide.clock import Clock
from gridtide.queues.htcondor.asking import Asker, Json
from gridtide.queues.htcondor.errors import PoolIncomplete, PoolUnreachable

LONG: Final = 10_000
"""Idle jobs from which a queue is long. More: a full question takes longer than a tenth of a second or two."""

MOST: Final = 5_000
"""Groups in one answer. More would need much memory here; the question is then put more coarsely."""

SHARE: Final = 0.05
"""Of the time that a schedd may spend on our regular questions: the next one waits until this share is kept."""

SHARE_IN_FULL: Final = 0.02
"""The same for full questions to long queues."""

# Each attribute more costs the schedd a microsecond for each job, so that a kind has two.
_KINDS: Final = ("RequestCpus", "RequestMemory")
_CORES: Final = ("RequestCpus",)
_DETAILS: Final = ("RequestGPUs", "JobUniverse", "RequestDisk", "Requirements", "AllowedJobDuration")
# Clusters whose submission time is remembered; beyond it all are asked for anew.
_MOST_CLUSTERS: Final = 50_000

Expressions = dict[str, str]


@dataclass(frozen=True, slots=True)
class Group:
    """Idle jobs that look alike."""

    job: Expressions
    """What they have in common: ClassAd expressions by name."""
    count: int
    since: float
    """When the first of them was submitted."""


@dataclass(frozen=True, slots=True)
class _Row:
    job: Expressions
    count: int
    cluster: int


class IdleJobs:
    """Of one schedd. ``names`` are attributes that the workers' START wants to see besides the usual ones."""

    def __init__(self, asker: Asker, clock: Clock, name: str) -> None:
        self.name = name
        self._asker, self._clock = asker, clock
        self._answer: tuple[Group, ...] = ()
        self._next = float("-inf")
        self._clusters: dict[int, tuple[float, Expressions]] = {}
        self._full: dict[tuple[str | None, ...], list[_Row]] = {}
        self._next_full = float("-inf")
        self._background: asyncio.Task[None] | None = None

    async def count(self, address: str, expected: int, deadline: float, names: Sequence[str] = ()) -> tuple[Group, ...]:
        """All idle jobs. ``expected`` is the collector's older word on how many. QueueError that names the schedd."""
        began = self._clock.now()
        if began < self._next:
            return self._answer
        full = tuple(dict.fromkeys((*_KINDS, *_DETAILS, *names)))
        try:
            rows = await self._rows(address, expected, full, deadline)
            answer = await self._groups(address, rows, full, deadline)
        except PoolUnreachable as error:
            raise PoolUnreachable(f"{self.name}: {error.what}", where=error.where) from None
        except PoolIncomplete as error:
            raise PoolIncomplete(f"{self.name}: {error.what}", where=error.where) from None
        now = self._clock.now()
        self._answer, self._next = answer, began + (now - began) / SHARE
        # After the regular question, not beside it: both would take longer.
        long = sum(row.count for row in rows) >= LONG
        if long and now >= self._next_full and (self._background is None or self._background.done()):
            self._background = asyncio.create_task(self._ask_in_full(address, full, 10 * deadline))
        return answer

    async def close(self) -> None:
        """Abandon what goes on in the background."""
        if self._background is not None:
            self._background.cancel()
            await asyncio.gather(self._background, return_exceptions=True)

    async def _rows(self, address: str, expected: int, full: Sequence[str], deadline: float) -> list[_Row]:
        if expected < LONG:
            rows = await self._ask(address, full, deadline)
            if len(rows) < MOST:
                return rows
        for projection in (_KINDS, _CORES):
            rows = await self._ask(address, projection, deadline)
            if len(rows) < MOST:
                return [part for row in rows for part in self._shared_out(row)]
        raise PoolIncomplete(f"has more than {MOST} kinds of idle jobs by cores alone")

    async def _ask(self, address: str, projection: Sequence[str], deadline: float) -> list[_Row]:
        said = await self._asker.call("idle", deadline, schedd=address, projection=list(projection), most=MOST)
        return [_row(item) for item in said]

    async def _ask_in_full(self, address: str, full: Sequence[str], deadline: float) -> None:
        began = self._clock.now()
        try:
            rows = await self._ask(address, full, deadline)
        except (PoolUnreachable, PoolIncomplete):
            rows = []  # the regular question meets the same trouble, and tells of it
        found: dict[tuple[str | None, ...], list[_Row]] = {}
        for row in rows if len(rows) < MOST else ():
            found.setdefault(_kind(row.job), []).append(row)
        self._full = found
        self._next_full = began + max((self._clock.now() - began) / SHARE_IN_FULL, 10.0)

    def _shared_out(self, row: _Row) -> list[_Row]:
        """The row in the proportions of the last full answer; as it is when that did not have its kind."""
        known = self._full.get(_kind(row.job), [])
        before = sum(each.count for each in known)
        if not before:
            return [row]
        parts, left = [], row.count
        for number, each in enumerate(known):
            share = left if number == len(known) - 1 else min(left, round(row.count * each.count / before))
            left -= share
            if share:
                parts.append(_Row(each.job, share, each.cluster))
        return parts

    async def _groups(
        self, address: str, rows: Sequence[_Row], full: Sequence[str], deadline: float
    ) -> tuple[Group, ...]:
        wanted = {row.cluster for row in rows}
        missing = sorted(wanted - self._clusters.keys())
        if len(self._clusters) > _MOST_CLUSTERS:
            self._clusters = {number: self._clusters[number] for number in wanted & self._clusters.keys()}
        if missing:
            said = await self._asker.call("clusters", deadline, schedd=address, numbers=missing, projection=list(full))
            for item in said:
                number, since, job = _cluster(item)
                self._clusters[number] = (since, job)
        now = self._clock.now()
        groups = []
        for row in rows:
            # A cluster whose last job ended between the two questions is not there any more.
            since, job = self._clusters.get(row.cluster, (now, {}))
            groups.append(Group(row.job if "Requirements" in row.job else {**job, **row.job}, row.count, since))
        return tuple(groups)


def _kind(job: Expressions) -> tuple[str | None, ...]:
    return tuple(job.get(name) for name in _KINDS)


def _row(item: Json) -> _Row:
    if (
        not isinstance(item, dict)
        or not isinstance(item["job"], dict)
        or not isinstance(item["count"], int)
        or not isinstance(item["cluster"], int)
    ):
        raise PoolIncomplete("a group of jobs without count or first job")
    return _Row({name: str(text) for name, text in item["job"].items()}, item["count"], item["cluster"])


def _cluster(item: Json) -> tuple[int, float, Expressions]:
    if (
        not isinstance(item, dict)
        or not isinstance(item["job"], dict)
        or not isinstance(item["since"], int)
        or not isinstance(item["cluster"], int)
    ):
        raise PoolIncomplete("a cluster without number or time")
    return item["cluster"], float(item["since"]), {name: str(text) for name, text in item["job"].items()}
