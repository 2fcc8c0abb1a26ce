"""A Slurm cluster as a queue. Read through JSON only; workers join as dynamic nodes.

docs/explanation/slurm-queue.md tells what is decided here and why.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from gridtide.clouds.protocol import Finding
from gridtide.errors import QueueError
from gridtide.model.demand import Attribute, Demand, Node, Nodes, Offer
from gridtide.model.ids import QueueName, WorkerId
from gridtide.model.ports import port_of
from gridtide.model.reasons import Reason
from gridtide.model.resources import Resources
from gridtide.model.workers import Worker
from gridtide.queues.protocol import JoinOrders, Outcome
from gridtide.queues.slurm.checking import look_over
from gridtide.queues.slurm.commands import Commands
from gridtide.queues.slurm.fitting import PlannedNode, features_of, row_of, template_name, usable
from gridtide.queues.slurm.jobs import Jobs, from_json
from gridtide.queues.slurm.lending import Lending
from gridtide.queues.slurm.nodes import POWER_DOWN, TEMPLATE, node_of
from gridtide.queues.slurm.orders import NodeOrders, batch_of, node_line
from gridtide.queues.slurm.values import Record, names, text, whole, words

log = structlog.get_logger("gridtide.queues")

SIGN: Final = "gridtide: "
"""So begin the reasons of our own drains. What others have drained is left drained."""

_STANDS_FOR: Final = "gridtide: stands for machines that can be made; jobs never run on it"

_EXPENSIVE: Final = 0.5
"""Seconds. Waiting jobs that took longer to count are not counted anew at once."""
_SHARE: Final = 10.0
"""Such a count is used for so many times as long as it took: at most a tenth of slurmctld's time goes into it."""
_OLDEST: Final = 60.0
"""Seconds after which a new count is begun in any case."""
_TOO_OLD: Final = 600.0
"""Seconds for which the last count may stand in for a new one that is under way. Demand that is minutes old launches
a few machines too many or too late; it ends nothing."""


@dataclass(frozen=True, slots=True)
class SlurmSettings:
    """See ``gridtide.site.slurm`` for their meaning."""

    controllers: tuple[str, ...]
    munge_key: Path
    prefix: tuple[str, ...] = ()
    configuration: Path | None = None
    marker: str = "gridtide"
    reserve: int = 128
    own_ports: bool = False
    loopback: str = ""
    templates: int = 1
    lending: Path | None = None
    """With power saving: where it is kept which worker is which node."""
    timeout: float = 120.0
    memory_limit: int = 4096


@dataclass(slots=True)
class _Counted:
    jobs: Jobs
    finished: float
    cost: float


class SlurmQueue:
    """Implements :class:`~gridtide.queues.protocol.Queue`."""

    def __init__(
        self, name: QueueName, settings: SlurmSettings, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self._monotonic = monotonic
        self._settings = settings
        self._where = f"queue {name}"
        self._commands = Commands(
            self._where, settings.prefix, settings.configuration, settings.timeout, settings.memory_limit
        )
        self.lending = None if settings.lending is None else Lending(settings.lending)
        """None without power saving."""
        self._version: tuple[int, int] | None = None
        self._counted: _Counted | None = None
        self._counting: asyncio.Task[Jobs] | None = None
        self._kinds: frozenset[str] | None = None
        self._templates: dict[str, Record] | None = None

    # --- reading

    async def demand(self, offers: Sequence[Offer]) -> Demand:
        """Jobs that wait for machines; a job of several nodes counts once for each. With power saving Slurm itself asks
        for machines: nothing waits.

        When counting takes long, one count is used for several answers (at most a minute).
        """
        if self.lending is not None:
            return ()
        if self._settings.templates and offers:
            await self._keep_templates(offers)
        planned = [self._planned(offer) for offer in offers]
        jobs = await self._waiting()
        return tuple(row_of(ask, count, since, planned, self._kinds) for ask, (count, since) in jobs.waiting.items())

    async def _waiting(self) -> Jobs:
        known = self._counted
        age = 0.0 if known is None else self._monotonic() - known.finished
        expensive = known is not None and known.cost > _EXPENSIVE
        if known is not None and expensive and age < min(_SHARE * known.cost, _OLDEST):
            return known.jobs
        if self._counting is None or self._counting.done():
            self._counting = asyncio.create_task(self._count(), name=f"count jobs of {self.name}")
            # Its error is told by the call that waits for it; if there is none, by the next one, which counts anew.
            self._counting.add_done_callback(lambda task: task.cancelled() or task.exception())
        if known is not None and expensive and age < _TOO_OLD:
            return known.jobs
        # A count that outlasts the caller's deadline goes on (until its own), and serves the next caller.
        return await asyncio.shield(self._counting)

    async def _count(self) -> Jobs:
        began = self._monotonic()
        jobs = from_json(await self._commands.jobs(waiting=True))
        finished = self._monotonic()
        self._counted = _Counted(jobs, finished, finished - began)
        return jobs

    async def nodes(self) -> Nodes:
        """All nodes but templates. Which jobs are on them is asked of squeue as well, after the nodes' states."""
        records = await self._records()
        placed = from_json(await self._commands.jobs(waiting=False)).placed
        nodes = self._read(records, placed)
        self._kinds = frozenset(node.kind for node in nodes if node.kind is not None)
        return nodes

    async def _records(self) -> list[dict[str, Any]]:
        if self._version is None:
            self._version = await self._commands.version()
        records = await self._commands.nodes(self._version)
        self._templates = {each["name"]: each for each in records if str(each.get("name")).startswith(TEMPLATE)}
        return records

    def _read(self, records: Sequence[Record], placed: Mapping[str, int]) -> Nodes:
        found: list[Node] = []
        lent = None if self.lending is None else self.lending.workers
        for record in records:
            try:
                node = node_of(record, placed, self._settings.marker, lent)
            except ValueError as error:
                raise QueueError(f"node {str(record.get('name'))[:60]}: {error}", where=self._where) from None
            if node is not None:
                found.append(node)
        return tuple(found)

    def _planned(self, offer: Offer) -> PlannedNode:
        template = (self._templates or {}).get(template_name(offer.group, offer.shape.name))
        return PlannedNode(
            offer,
            usable(offer.shape.resources, self._settings.reserve),
            features_of(self._settings.marker, offer.group, offer.attributes),
            frozenset(names(template, "partitions")) if template is not None else None,
        )

    # --- templates

    async def _keep_templates(self, offers: Sequence[Offer]) -> None:
        """Slurm refuses jobs that none of its nodes could ever run; so a drained node stands for each kind of ours."""
        if self._templates is None:
            await self._records()
        known = self._templates or {}
        changed = False
        for offer in offers:
            planned = self._planned(offer)
            for number in range(1, self._settings.templates + 1):
                name = template_name(offer.group, offer.shape.name, number)
                if planned.resources.memory and not _stands_for(known.get(name), planned):
                    await self._make_template(name, planned, replace=name in known)
                    changed = True
        if changed:
            await self._records()

    async def _make_template(self, name: str, planned: PlannedNode, *, replace: bool) -> None:
        try:
            if replace:
                await self._commands.run("scontrol", "delete", f"nodename={name}")
            line = node_line(planned.resources, planned.features, None).split()
            # An address, because slurmctld would ask the DNS for the name, and wait for it.
            await self._commands.run(
                "scontrol", "create", f"nodename={name}", "state=cloud", "nodeaddr=127.0.0.1", *line
            )
            await self._commands.run("scontrol", "update", f"nodename={name}", "state=drain", f"reason={_STANDS_FOR}")
        except QueueError as error:
            # Jobs that need it are refused by Slurm; everything else works, and the next look tries again.
            log.warning("no template", queue=self.name, node=name, error=str(error))

    # --- orders

    async def drain(self, workers: Mapping[WorkerId, Reason]) -> Mapping[WorkerId, Outcome]:
        """State DRAIN, with the reason."""
        known = await self._ours(workers) if workers else {}
        outcomes: dict[WorkerId, Outcome] = {each: self._unknown(each) for each in workers if each not in known}
        by_reason: dict[str, list[WorkerId]] = {}
        for worker in known:
            by_reason.setdefault(_plain(f"{SIGN}{workers[worker].text}"), []).append(worker)
        for words_, some in by_reason.items():
            outcomes |= await self._update(some, "state=drain", f"reason={words_}")
        return outcomes

    async def undrain(self, workers: Sequence[WorkerId]) -> Mapping[WorkerId, Outcome]:
        """Takes our own drains back. What somebody else has drained stays so, and is reported."""
        known = await self._ours(workers) if workers else {}
        outcomes: dict[WorkerId, Outcome] = {each: self._unknown(each) for each in workers if each not in known}
        drained: list[WorkerId] = []
        for worker, record in known.items():
            reason = text(record, "reason")
            outcomes[worker] = None
            if not _draining(record):
                continue
            if reason and not reason.startswith(SIGN):
                what = f"cannot undrain {worker}: it was drained by others ({reason[:80]})"
                outcomes[worker] = QueueError(what, where=self._where, remedy="scontrol update ... state=undrain")
            else:
                drained.append(worker)
        if drained:
            outcomes |= await self._update(drained, "state=undrain")
        return outcomes

    async def _ours(self, workers: Sequence[WorkerId] | Mapping[WorkerId, Reason]) -> dict[WorkerId, Record]:
        """Those that are listed and carry our mark."""
        wanted = {self._name(worker): worker for worker in workers}
        return {
            wanted[record["name"]]: record
            for record in await self._records()
            if record.get("name") in wanted
            and (self.lending is not None or self._settings.marker in names(record, "features"))
        }

    def _name(self, worker: WorkerId) -> str:
        """Of its node."""
        return worker if self.lending is None else self.lending.node(worker) or worker

    async def _update(self, workers: Sequence[WorkerId], *what: str) -> dict[WorkerId, Outcome]:
        """In bulk; one by one when Slurm does not take it as a whole."""
        try:
            await self._commands.run("scontrol", "update", f"nodename={','.join(map(self._name, workers))}", *what)
        except QueueError as error:
            if len(workers) == 1:
                return {workers[0]: error}
            outcomes: dict[WorkerId, Outcome] = {}
            for worker in workers:
                outcomes |= await self._update([worker], *what)
            return outcomes
        return dict.fromkeys(workers)

    def _unknown(self, worker: WorkerId) -> QueueError:
        return QueueError(f"Slurm knows no node {worker} of ours", where=self._where)

    # --- life of a node

    async def join(self, worker: Worker, host: Mapping[str, Attribute]) -> JoinOrders:
        """Orders to start munged and slurmd. QueueError when munge's key cannot be read, or for a single-use worker."""
        if worker.single_use:
            raise QueueError(
                "a node of Slurm takes any number of jobs", where=self._where, remedy="use another policy than per_job"
            )
        try:
            key = self._settings.munge_key.read_bytes()
        except OSError as error:
            raise QueueError(
                f"munge's key cannot be read: {error.strerror}", where=str(self._settings.munge_key)
            ) from None
        size = usable(worker.shape.resources, self._settings.reserve)
        measured = host.get("Memory")
        if isinstance(measured, int) and 0 < measured < size.memory:
            size = Resources(size.cores, measured, 0, size.gpus)
        orders = NodeOrders(
            name=self._name(worker.id),
            resources=size,
            features=features_of(self._settings.marker, worker.group, host),
            controllers=self._settings.controllers,
            munge_key=key,
            port=port_of(worker.id) if self._settings.own_ports else None,
            loopback=self._settings.loopback,
            listed=self.lending is not None,
        )
        return JoinOrders(kind="batch", batch=batch_of(orders))

    async def forget(self, workers: Sequence[WorkerId]) -> None:
        """Their machines are gone: their jobs wait again, and the nodes go. A node that is not dynamic stays, down.

        QueueError when Slurm still holds a job there; to be repeated.
        """
        known = await self._ours(workers) if workers else {}
        if self.lending is not None:
            for worker in workers:
                if worker in known and self.lending.node(worker) is not None:
                    await self._power_down(self._name(worker), known[worker])
                self.lending.take_back(worker)
            return
        if not known:
            return
        await self._commands.run(
            "scontrol", "update", f"nodename={','.join(known)}", "state=down", f"reason={SIGN}its machine is gone"
        )
        dynamic = [
            worker for worker, record in known.items() if "DYNAMIC_NORM" in words(record, "state", "state_flags")
        ]
        for worker in dynamic:
            await self._commands.run("scontrol", "delete", f"nodename={worker}")

    async def _power_down(self, node: str, record: Record) -> None:
        """Its machine is gone: Slurm may ask for another one. Jobs that it still has there wait again."""
        update = ("scontrol", "update", f"nodename={node}")
        if not words(record, "state", "state_flags") & POWER_DOWN:
            await self._commands.run(*update, "state=power_down_force", f"reason={SIGN}its machine is gone")
        if _draining(record) and text(record, "reason").startswith(SIGN):
            await self._commands.run(*update, "state=undrain")

    async def close(self) -> None:
        """End the count that may be under way."""
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)

    async def check(self) -> Sequence[Finding]:
        """What is missing in the cluster's configuration. Never raises."""
        return await look_over(self._commands, self._settings.own_ports, self.lending is not None)


def _draining(record: Record) -> bool:
    return bool(words(record, "state", "state_flags") & {"DRAIN", "DRAINED", "DRAINING"})


def _stands_for(record: Record | None, planned: PlannedNode) -> bool:
    """Whether this template still tells the truth."""
    return (
        record is not None
        and whole(record, "cpus") == planned.resources.cores
        and whole(record, "real_memory") == planned.resources.memory
        and set(names(record, "features")) == set(planned.features)
        and _draining(record)
    )


def _plain(words_: str) -> str:
    """Slurm takes neither quotes nor line ends in a reason."""
    return " ".join(words_.replace('"', "'").split())[:200]
