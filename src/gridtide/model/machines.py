"""Machines as their cloud sees them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gridtide.model.ids import CloudName, MachineId, WorkerId, Zone
from gridtide.model.resources import Resources


class MachineState(StrEnum):
    """What the cloud says of a machine; every cloud's own states are mapped onto these."""

    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"
    """Terminate was accepted; it may still hold resources."""
    STOPPED = "stopped"
    """Powered off, by itself or by somebody: nothing runs in it, but it still exists."""
    BROKEN = "broken"
    """The cloud itself reports an error state."""
    GONE = "gone"
    """The cloud still lists it, as ended. Holds no resources."""
    UNKNOWN = "unknown"
    """A state that the driver does not know, or that the cloud calls unknown. Not evidence of anything."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine of the tenant, ours or not."""

    id: MachineId
    worker: WorkerId | None
    """From our tag; None for machines without it or with another site's. Those are counted, never touched."""
    state: MachineState
    resources: Resources
    zone: Zone | None = None
    message: str = ""
    """The cloud's own words on why it is broken or stopped."""
    notice: str = ""
    """The cloud's own words on a machine that it will take away within minutes (a spot machine); otherwise empty."""


Machines = tuple[Machine, ...]


@dataclass(frozen=True, slots=True)
class Quota:
    """Upper limits over all machines of the tenant, foreign ones included. None: no limit."""

    cores: int | None = None
    memory: int | None = None
    machines: int | None = None


@dataclass(frozen=True, slots=True)
class MachineRef:
    """Where a machine is and what it is called there."""

    cloud: CloudName
    machine: MachineId
