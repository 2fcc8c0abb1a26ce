"""The pilot queue's workers: admission, drain, and how the controller sees them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, bindparam, delete, func, insert, select, update

from gridtide.model.demand import Attribute, Node, Nodes, NodeState
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.resources import Resources
from gridtide.pilot.matching import digest_of, host_resources
from gridtide.pilot.scheduling import at_most, worker_rows
from gridtide.pilot.tables import attempts, classes, jobs, workers

# One statement, so that workers and jobs are of one moment on any database and isolation level.
_NODES: Final = (
    select(
        workers.c.id,
        workers.c.cores,
        workers.c.memory,
        workers.c.disk,
        workers.c.gpus,
        workers.c.draining,
        workers.c.idle_since,
        func.count(attempts.c.job).label("running"),
        func.coalesce(func.sum(classes.c.cores), 0).label("used_cores"),
        func.coalesce(func.sum(classes.c.memory), 0).label("used_memory"),
        func.coalesce(func.sum(classes.c.disk), 0).label("used_disk"),
        func.coalesce(func.sum(classes.c.gpus), 0).label("used_gpus"),
    )
    .select_from(workers)
    .outerjoin(attempts, and_(attempts.c.worker == workers.c.id, attempts.c.ended.is_(None)))
    .outerjoin(jobs, jobs.c.id == attempts.c.job)
    .outerjoin(classes, classes.c.id == jobs.c.class_id)
    .group_by(workers.c.id)
)
_SOME: Final = _NODES.where(workers.c.id.in_(bindparam("names", expanding=True)))


Wanted = frozenset[WorkerId] | None
"""Workers whose rows are to be read; None: all."""

_WHOLE: Final = 60.0
"""Seconds after which all rows are read again, whatever is known to have changed. A process that led before may have
had a write on its way; larger values let what it wrote be seen later, and only that: whoever is drained is read anew
after it."""
_FEW: Final = 1000
"""With more rows than this to be read it costs less to read them all. SQLite takes 32 766 names in one statement."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All admitted workers, as the tables had them at some time, whether in contact or not."""

    nodes: Nodes = ()
    """By name."""
    busy: Set[WorkerId] = frozenset()
    """Those that run jobs."""
    known: Mapping[WorkerId, tuple[tuple[object, ...], Node]] = field(default_factory=lambda: MappingProxyType({}))
    """The row of each, and what was made of it."""


class NodeBook:
    """What was read last, and how much of it may have changed since.

    On a large site most workers are as they were a few seconds ago. Whoever writes says whose rows that may change, and
    only those are read; a worker that has not changed is the same :class:`Node` as before. To read ten thousand rows
    and make nodes of them takes long, and whatever else the process does waits meanwhile.
    """

    def __init__(self) -> None:
        self.listing = Listing()
        self._changed: set[WorkerId] = set()
        self._writing: Counter[WorkerId] = Counter()
        """How many writes are under way. One that is cancelled before it begins stays: a row more to be read."""
        self._whole: float | None = None
        """When all were read; None: they have to be."""

    def begun(self, workers: Iterable[WorkerId]) -> None:
        """A write that may concern these is under way: until its end is told, their rows are read with every look."""
        self._writing.update(workers)

    def ended(self, workers: Iterable[WorkerId], changed: Iterable[WorkerId]) -> None:
        """It has ended, and may have changed those of ``changed``."""
        self._changed.update(changed)
        for worker in workers:
            self._writing[worker] -= 1
            if self._writing[worker] <= 0:
                del self._writing[worker]

    def wanted(self, now: float, *, alone: bool) -> Wanted:
        """What has to be read; :meth:`failed` when that did not work. ``alone``: nobody else can have written."""
        changed, self._changed = self._changed | self._writing.keys(), set()
        if alone and self._whole is not None and self._whole <= now < self._whole + _WHOLE and len(changed) <= _FEW:
            return frozenset(changed)
        self._whole = now if alone else None
        return None

    def failed(self) -> None:
        """It could not be read: who knows what it was."""
        self._whole = None


def read(connection: Connection, wanted: Wanted, before: Listing) -> Listing:
    """The listing that follows on ``before``."""
    if wanted is None:
        rows, gone = connection.execute(_NODES).all(), set(before.known)
    else:
        rows, gone = connection.execute(_SOME, {"names": sorted(wanted)}).all(), set(wanted & before.known.keys())
    known, busy = dict(before.known), set(before.busy - gone)
    for row in rows:
        worker, values = WorkerId(row.id), tuple(row)
        entry = known.get(worker)
        if entry is None or entry[0] != values:
            entry = known[worker] = (values, _node(row))
        if entry[1].running:
            busy.add(worker)
        gone.discard(worker)
    for worker in gone:
        del known[worker]
    return Listing(tuple(known[worker][1] for worker in sorted(known)), busy, known)


def _node(row: Row[Any]) -> Node:
    total = Resources(row.cores, row.memory, row.disk, row.gpus)
    used = Resources(int(row.used_cores), int(row.used_memory), int(row.used_disk), int(row.used_gpus))
    state = NodeState.ACCEPTING
    if row.draining:
        state = NodeState.DRAINING if row.running else NodeState.DRAINED
    return Node(
        name=row.id,
        worker=WorkerId(row.id),
        state=state,
        total=total,
        free=total.minus(at_most(used, total)),
        running=row.running,
        idle_since=None if row.running else row.idle_since,
    )


def unavailable(node: Node) -> Node:
    """The same node out of contact: not evidence of anything else."""
    return replace(node, state=NodeState.UNAVAILABLE)


_DESCRIPTION: Final = ("group_name", "host", "host_digest", "cores", "memory", "disk", "gpus", "single_use", "contact")
_DESCRIBE: Final = (
    update(workers)
    .where(workers.c.id == bindparam("name"))
    .values({column: bindparam(f"new_{column}") for column in _DESCRIPTION})
)


def admit(
    connection: Connection,
    worker: WorkerId,
    group: GroupName,
    host: Mapping[str, Attribute],
    *,
    single_use: bool,
    now: float,
) -> bool:
    """Make the worker known. Repeated, it only describes its machine anew: what it runs and its drain stay.

    Whether it was not known before.
    """
    total = host_resources(host)
    described = {
        "group_name": group,
        "host": dict(host),
        "host_digest": digest_of(host),
        "cores": total.cores,
        "memory": total.memory,
        "disk": total.disk,
        "gpus": total.gpus,
        "single_use": single_use,
        "contact": now,
    }
    anew = {"name": worker, **{f"new_{column}": value for column, value in described.items()}}
    if connection.execute(_DESCRIBE, anew).rowcount:
        return False
    begun = {"id": worker, "draining": False, "final": False, "idle_since": now}
    connection.execute(insert(workers), {**described, **begun})
    return True


def set_draining(connection: Connection, names: Sequence[WorkerId], draining: bool) -> list[WorkerId]:
    """Returns those that took it: the known ones, and of those to be taken back the ones that may be."""
    known = worker_rows(connection, names)
    taken = [name for name in names if name in known and (draining or not known[name].final)]
    changed = [name for name in taken if known[name].draining is not draining]
    if changed:
        connection.execute(update(workers).where(workers.c.id.in_(changed)).values(draining=draining))
    return taken


def set_final(connection: Connection, name: WorkerId) -> None:
    """It drains of its own will: nobody can take that back."""
    connection.execute(update(workers).where(workers.c.id == name).values(draining=True, final=True))


def forget(connection: Connection, names: Sequence[WorkerId]) -> None:
    """Their machines are gone. What they ran must have been given up before."""
    connection.execute(delete(workers).where(workers.c.id.in_(names)))


_CONTACT: Final = update(workers).where(workers.c.id == bindparam("name")).values(contact=bindparam("new_contact"))


def keep_contacts(connection: Connection, contacts: Mapping[WorkerId, float]) -> None:
    """Times of last contact, in bulk."""
    connection.execute(_CONTACT, [{"name": name, "new_contact": at} for name, at in sorted(contacts.items())])
