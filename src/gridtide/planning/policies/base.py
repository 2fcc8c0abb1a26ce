"""What a policy is asked and what it answers. Policies aim; fitting, limits and guards are the same for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gridtide.model.reasons import Reason
from gridtide.model.snapshot import GroupMemory


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a policy may look at."""

    now: float
    waiting: int | None
    """Waiting jobs that the group's offers could run; None when there is no fresh reading of it."""
    memory: GroupMemory
    """What it wanted remembered in the last cycle."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What a policy wants of its group."""

    memory: GroupMemory
    """To be handed back in the next cycle."""
    count: int | None = None
    """A number of workers to have, whatever waits; None: as many as the demand needs."""
    patience: Reason | None = None
    """Why demand starts nothing for now; None when it does."""
    until: float | None = None
    """When ``patience`` ends if nothing changes."""
    jobs_per_worker: int | None = None
    """How many jobs a new worker is reckoned to take; None: as many as its shape fits."""
    single_use: bool = False
    """New workers take one job each."""
    deploy_time: float | None = None
    """Seconds after which a worker that is starting is not reckoned with any more; None: until it is given up."""
    idle_for: float | None = None
    """Seconds without a job before a worker is drained; None: idle workers are kept."""


class Policy(Protocol):
    """One object for one group. It holds its parameters and nothing that changes."""

    def aim(self, outlook: Outlook) -> Aim:
        """What it wants now. Pure: equal outlooks get equal aims."""
        ...
