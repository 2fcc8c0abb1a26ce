"""Room that is not taken: jobs wait although machines that seem able to run them are idle.

Whether a job runs on a machine is known from what the machine is planned to be, or from what a queue says of kinds of
nodes. Both may be wrong (a kernel version that no machine has, a node that takes its owner's jobs only). Then the
queue gives the jobs no place, however long they wait and however many machines are launched. So the room is on trial:
when an idle machine was not taken for :data:`PATIENCE` seconds while none of the jobs started, machines of that group
(or the nodes of others) count as unable to run these jobs, for a time that doubles with each failure. Afterwards one
of the jobs is tried again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from gridtide.model.demand import Demand, DemandRow, Node, NodeState
from gridtide.model.ids import GroupName
from gridtide.model.resources import Resources
from gridtide.model.snapshot import QueueMemory, Trial, TrialKey
from gridtide.planning.evidence import Evidence
from gridtide.planning.fleet import Fleet
from gridtide.planning.victims import idle_reading, idle_start

PATIENCE: Final = 180.0
"""Seconds: three of HTCondor's usual negotiation cycles. Smaller: a scheduler that is slow once looks like one that
refuses. Larger: machines that are of no use idle for longer before that is seen."""

FIRST_PAUSE: Final = 600.0
"""Seconds until the first new try. Smaller: more boots in vain. Larger: jobs wait for longer after a false alarm."""

LONGEST_PAUSE: Final = 4 * 3600.0
"""Seconds. Larger: a machine that has been mended (another image, another rule of the queue) is found out later."""


@dataclass(frozen=True, slots=True)
class _Look:
    """Rows of one label together, as one cycle sees them."""

    count: int
    oldest_since: float


@dataclass(frozen=True, slots=True)
class _Room:
    """What one group, or others, have for jobs of one kind."""

    free: bool = False
    ripe: bool = False
    """Some of it has been free for long."""
    running: bool = False
    """Other jobs run there: what starts may have started there."""


@dataclass(slots=True)
class Judged:
    """Demand as it is reckoned with: without the machines that are out for it."""

    rows: list[DemandRow] = field(default_factory=list)
    barred: list[frozenset[GroupName | None]] = field(default_factory=list)
    """Of each row, who is out."""

    def add(self, row: DemandRow, out: frozenset[GroupName | None]) -> None:
        """A row, less those that are out."""
        runs_on = frozenset(key for key in row.runs_on if key[0] not in out) if out else row.runs_on
        kinds = frozenset[str]() if None in out else row.node_kinds
        if row.count:
            self.rows.append(replace(row, runs_on=runs_on, node_kinds=kinds) if out else row)
            self.barred.append(out)


def judge(demand: Demand, trials: Mapping[TrialKey, Trial], now: float) -> Judged:
    """Leave out who is barred. Of jobs whose bar has run out, one is tried there."""
    judged = Judged()
    known: dict[str, dict[GroupName | None, Trial]] = {}
    for (label, who), trial in trials.items():
        if trial.until is not None:
            known.setdefault(label, {})[who] = trial
    tried: set[str] = set()
    for row in demand:
        mine = known.get(row.label)
        if mine is None:
            judged.add(row, frozenset())
            continue
        barred = frozenset(who for who, trial in mine.items() if trial.until is not None and now < trial.until)
        probed = frozenset(who for who in mine if who is not None and who not in barred)
        if probed and row.label not in tried and row.count:
            tried.add(row.label)
            judged.add(replace(row, count=1), barred)
            row = replace(row, count=row.count - 1)
        judged.add(row, barred | probed)
    return judged


def remember(
    demand: Demand, foreign: Iterable[Node], fleets: Iterable[Fleet], memory: QueueMemory, evidence: Evidence
) -> QueueMemory:
    """How the trials go on, after a fresh look at jobs and nodes."""
    looks: dict[str, _Look] = {}
    rows: dict[str, list[DemandRow]] = {}
    for row in demand:
        if row.count:
            rows.setdefault(row.label, []).append(row)
            before = looks.get(row.label, _Look(0, row.oldest_since))
            looks[row.label] = _Look(before.count + row.count, min(before.oldest_since, row.oldest_since))
    labels = sorted({*rows, *(label for label, _ in memory.trials)})
    if not labels:
        return QueueMemory()
    rooms: list[_OfGroup | _OfOthers] = [*(_OfGroup(fleet, evidence) for fleet in fleets), _OfOthers(foreign)]
    found: dict[TrialKey, Trial] = {}
    for label in labels:
        for place in rooms:
            key = (label, place.who)
            room = place.room(rows.get(label, ()))
            trial = _next(memory.trials.get(key), looks.get(label), room, evidence.now)
            if trial is not None:
                found[key] = trial
    return QueueMemory(found)


def keep(memory: QueueMemory, now: float) -> QueueMemory:
    """What stays known without a fresh look: the failures."""
    kept = {key: replace(trial, since=now) for key, trial in memory.trials.items() if trial.until is not None}
    return QueueMemory(kept)


def _next(before: Trial | None, look: _Look | None, room: _Room, now: float) -> Trial | None:
    """One trial after one more look; None when there is nothing to remember."""
    if look is None:  # no such job waits any more
        gone = before is None or before.until is None or now >= before.until or room.running
        return None if gone else before
    anew = Trial(now, look.count, look.oldest_since)
    if before is None:
        return anew if room.free else None
    started = room.running and (look.count < before.count or look.oldest_since > before.oldest_since)
    seen = replace(before, count=look.count, oldest_since=look.oldest_since)
    if before.until is not None and now < before.until:
        return replace(seen, until=now, since=now) if started else replace(seen, since=now)
    if started:  # they run there after all
        return anew if room.free else None
    if not room.free:
        return None if before.until is None else replace(seen, since=now)
    if room.ripe and now >= before.since + PATIENCE:
        pause = min(FIRST_PAUSE * 2.0**before.failures, LONGEST_PAUSE)
        return replace(seen, since=now, failures=before.failures + 1, until=now + pause)
    return seen


def timers_of(memory: QueueMemory, now: float) -> list[float]:
    """When a bar, or else a trial, ends."""
    return [
        trial.until if trial.until is not None and trial.until > now else trial.since + PATIENCE
        for trial in memory.trials.values()
    ]


class _OfGroup:
    """The idle room of a group's workers."""

    def __init__(self, fleet: Fleet, evidence: Evidence) -> None:
        self.who: GroupName | None = fleet.rules.name
        self._idle: dict[tuple[str, Resources], bool] = {}
        self._running: set[str] = set()
        self._running.update(fleet.steady.shapes)
        for course in fleet.usable_lively():
            shape, seen = course.worker.shape.name, course.seen
            if seen is not None and seen.running:
                self._running.add(shape)
            seen = idle_reading(course, evidence)
            if seen is not None:
                ripe = evidence.now >= idle_start(course, seen) + PATIENCE
                for node in seen.nodes:
                    self._idle[(shape, node.free)] = ripe or self._idle.get((shape, node.free), False)

    def room(self, rows: Iterable[DemandRow]) -> _Room:
        """For rows of one label."""
        free = ripe = running = False
        for row in rows:
            shapes = {shape for group, shape in row.runs_on if group == self.who}
            running = running or not shapes.isdisjoint(self._running)
            for (shape, resources), long in self._idle.items():
                if shape in shapes and resources.covers(row.need):
                    free, ripe = True, ripe or long
        return _Room(free, ripe, running or (not rows and bool(self._running)))


class _OfOthers:
    """The free room of nodes that are not ours. How long it has been free is not known of a node that runs jobs."""

    who: GroupName | None = None

    def __init__(self, nodes: Iterable[Node]) -> None:
        free: dict[str | None, set[Resources]] = {}
        self._running: set[str | None] = set()
        for node in nodes:
            if node.running:
                self._running.add(node.kind)
            if node.state is NodeState.ACCEPTING:
                free.setdefault(node.kind, set()).add(node.free)
        self._free = {kind: _largest(resources) for kind, resources in free.items()}

    def room(self, rows: Iterable[DemandRow]) -> _Room:
        """For rows of one label."""
        free = running = False
        for row in rows:
            kinds = self._free.keys() if row.node_kinds is None else self._free.keys() & row.node_kinds
            free = free or any(resources.covers(row.need) for kind in kinds for resources in self._free[kind])
            running = running or bool(self._running if row.node_kinds is None else self._running & row.node_kinds)
        return _Room(free, free, running or (not rows and bool(self._running)))


def _largest(rooms: Iterable[Resources]) -> list[Resources]:
    """Those that no other one covers."""
    kept: list[Resources] = []
    for room in sorted(rooms, reverse=True):
        if not any(other.covers(room) for other in kept):
            kept.append(room)
    return kept
