"""What Gridtide asks of a cloud: six methods.

A driver answers completely or raises a :class:`~gridtide.errors.CloudError` of the fitting kind, and nothing else
leaves it.
Deadlines, retries, backoff and breaker are the controller's: a driver tries once. Bulk calls report per item. It knows
neither the controller nor a queue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from gridtide.errors import CloudError
from gridtide.model.ids import CloudName, GroupName, MachineId, ShapeName, WorkerId, Zone
from gridtide.model.machines import Machines
from gridtide.model.resources import Shape


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """One machine to be made. ``worker`` is the idempotency token, the tag and the host name."""

    worker: WorkerId
    group: GroupName
    shape: ShapeName
    zone: Zone | None
    image: str | None
    user_data: bytes = field(repr=False)
    """Holds the join token: never logged, never in an argument list."""


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``gridtide check``: what was looked at, how it is, what to do."""

    subject: str
    level: Level
    text: str
    remedy: str = ""


@runtime_checkable
class Cloud(Protocol):
    """A provider of machines."""

    name: CloudName
    settle: float
    """Seconds for which a machine that was made may be missing from :meth:`machines` (0: listings never lag)."""

    async def shapes(self) -> tuple[Shape, ...]:
        """What can be launched here."""
        ...

    async def machines(self) -> Machines:
        """All machines of the tenant. Ours by their tag (site and worker), the others with ``worker=None``."""
        ...

    async def launch(self, requests: Sequence[LaunchRequest]) -> Mapping[WorkerId, MachineId | CloudError]:
        """Make machines. A worker that already has one gets that one: no call can double a machine.

        CloudUnavailable for a worker means that it is *not known* whether a machine was made; every other error
        means that none was.
        """
        ...

    async def terminate(self, machines: Sequence[MachineId]) -> Mapping[MachineId, CloudError | None]:
        """End machines and all that was made for them. One that does not exist is a success (None)."""
        ...

    async def check(self, images: Sequence[str]) -> tuple[Finding, ...]:
        """Look at credentials, reachability and these images without changing anything. Never raises."""
        ...

    async def close(self) -> None:
        """Release connections. Machines live on."""
        ...


@runtime_checkable
class HasZones(Protocol):
    """A cloud whose machines are made in one of several places, each of which may be sold out by itself."""

    def zones(self) -> tuple[Zone, ...]:
        """In order of preference; empty: the cloud chooses."""
        ...


@runtime_checkable
class HasConsole(Protocol):
    """A cloud that can show what a machine printed."""

    async def console(self, machine: MachineId, *, most: int) -> bytes | None:
        """The last ``most`` bytes at most, of a machine that ended too as long as they are kept. None: nothing known.

        Raises CloudError.
        """
        ...
