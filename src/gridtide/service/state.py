"""What every handler shares, kept on the app."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from starlette.requests import Request

from gridtide.clock import Clock
from gridtide.control.api import SiteControl
from gridtide.errors import NotFound
from gridtide.model.ids import GroupName, WorkerId
from gridtide.pilot.protocol import Pilot
from gridtide.service.access import CallingWorker, Gate, Joining, User
from gridtide.service.glance import Glance, glance
from gridtide.service.metrics import Metrics
from gridtide.service.settings import ServiceSettings


class Spawner(Protocol):
    """What AliEC2's three routes need of the controller."""

    async def spawn(self, script: bytes, *, actor: str) -> WorkerId:
        """Record the intent of a single-use worker with this user-data. Conflict at the limit of workers."""
        ...

    async def alive(self, worker: WorkerId) -> None:
        """Note a sign of life. NotFound for a worker that is not one of these, or is gone."""
        ...

    async def done(self, worker: WorkerId) -> None:
        """Its job agent has ended: the machine may go. NotFound as above; repeating it is harmless."""
        ...


class PowerSaver(Protocol):
    """What Slurm's power saving needs of the controller."""

    async def resume(self, group: GroupName, nodes: Sequence[str], *, actor: str) -> Mapping[str, WorkerId]:
        """Workers for these nodes. NotFound for a group without power saving; Conflict when not all can be had."""
        ...

    async def suspend(self, group: GroupName, nodes: Sequence[str], *, actor: str) -> Mapping[str, WorkerId]:
        """Drain the workers that stand for these nodes; nodes without one are left out. NotFound as above."""
        ...


@dataclass(slots=True)
class Service:
    """The service's parts. Everything lasting lives behind ``control`` and ``pilot``."""

    control: SiteControl
    pilot: Pilot | None
    settings: ServiceSettings
    clock: Clock
    gate: Gate
    metrics: Metrics
    spawner: Spawner | None
    power: PowerSaver | None
    wishes: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held between reading and writing a group's wishes, so that two operators do not undo each other."""
    following: int = 0
    """Log and event streams open now."""
    stopping: bool = False
    """Followed streams end when this is set."""
    polls: set[asyncio.Future[None]] = field(default_factory=set)
    """One per long poll that waits; cancelling it ends the poll with 503."""
    last_glance: Glance | None = None
    """See :meth:`glance`."""

    def stop(self) -> None:
        """End what would else hold the server for as long as its clients like."""
        self.stopping = True
        for poll in list(self.polls):
            poll.cancel()

    def glance(self) -> Glance | None:
        """What is counted of the last cycle; None before the first one has ended."""
        cycle, rules = self.control.cycle, self.control.rules
        if cycle is None:
            return None
        last = self.last_glance
        if last is None or last.cycle is not cycle or last.rules is not rules:
            last = self.last_glance = glance(cycle, rules)
        return last

    @property
    def queue(self) -> Pilot:
        """The pilot queue. NotFound at a site that has none."""
        if self.pilot is None:
            raise NotFound("this site has no pilot queue", remedy="submit to its batch system instead")
        return self.pilot


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    return cast(Service, request.app.state.service)


def user_of(request: Request) -> User:
    """The caller, on a route for users."""
    return cast(User, request.state.caller)


def worker_of(request: Request) -> WorkerId:
    """The calling worker, on a route for workers."""
    return cast(CallingWorker, request.state.caller).worker


def joining_of(request: Request) -> Joining:
    """The machine that wants to join."""
    return cast(Joining, request.state.caller)
