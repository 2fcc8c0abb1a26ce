"""What a policy is asked and what it answers. Policies aim; fitting, limits and guards are the same for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gridtide.model.reasons import Reason
from gridtide.model.resources import Resources
from gridtide.model.snapshot import GroupMemory


class Pulse(NamedTuple):
    """What one worker that could take jobs last said of its load. A tuple, since there may be thousands."""

    cores: int
    at: float | None
    """When it was last heard of; None: never since this controller leads."""
    load: float
    """Part of its cores that is used, as it says: any number, or none."""


def _no_pulses() -> tuple[Pulse, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class Work:
    """What a group's workers do, and what waits for them."""

    jobs: int
    """That run."""
    used: Resources
    """By them."""
    waiting: int
    """Cores that waiting jobs need."""


def _unknown() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a policy may look at."""

    now: float
    waiting: int | None
    """Waiting jobs that the group's offers could run; None when there is no fresh reading of it."""
    memory: GroupMemory
    """What it wanted remembered in the last cycle."""
    workers: int = 0
    """Those that work, could work, or will: joined ones that are not draining, and those on the way."""
    busy: int = 0
    """Those of them that run jobs."""
    minimum: int = 0
    """As operators or the site file want it."""
    maximum: int = 0
    """As operators or the site file want it."""
    pulses: Callable[[], tuple[Pulse, ...]] = _no_pulses
    """Of the joined workers that could take jobs. Called by policies that want it: it walks through all of them."""
    work: Callable[[], Work | None] = _unknown
    """Counted when asked for; None when a reading that it takes is not fresh."""
    boot: float | None = None
    """Seconds that its machines take to boot, the median; None while none has."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """Room for jobs to come."""

    jobs: int
    """How many."""
    each: Resources
    """What each of them needs."""


@dataclass(frozen=True, slots=True)
class Early:
    """Idle workers that are more than the load is likely to want again."""

    after: float
    """Seconds of idleness before which none is drained."""
    beyond: int
    """Cores that may be free or on the way. Idle workers beyond these are drained."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What a policy wants of its group."""

    memory: GroupMemory
    """To be handed back in the next cycle."""
    count: int | None = None
    """A number of workers to have, whatever waits; None: as many as the demand needs."""
    idle_only: bool = False
    """``count`` is reached from above with workers that run nothing; while there is none, all stay."""
    minimum: int | None = None
    """Never fewer workers than this; None: as in the site file. What operators say counts more."""
    maximum: int | None = None
    """Never more; None: as in the site file. Never above it, and what operators say counts more."""
    why: Reason | None = None
    """Why ``count``, ``minimum`` and ``maximum`` are what they are. None: they are the site file's own."""
    patience: Reason | None = None
    """Why demand starts nothing for now; None when it does."""
    until: float | None = None
    """When ``patience`` ends if nothing changes."""
    look_again: float | None = None
    """When the aim may be another one though nothing happens but time."""
    jobs_per_worker: int | None = None
    """How many jobs a new worker is reckoned to take; None: as many as its shape fits."""
    single_use: bool = False
    """New workers take one job each."""
    deploy_time: float | None = None
    """Seconds after which a worker that is starting is not reckoned with any more; None: until it is given up."""
    idle_for: float | None = None
    """Seconds without a job before a worker is drained; None: idle workers are kept."""
    early: Early | None = None
    """Which idle workers need not wait for ``idle_for``; None: all do."""
    ahead: Ahead | None = None
    """What is kept free for jobs to come."""
    spread: int = 1
    """No machine has more than one of so many parts of the cores that are launched, where smaller ones will do."""


class Policy(Protocol):
    """One object for one group. It holds its parameters and nothing that changes."""

    def aim(self, outlook: Outlook) -> Aim:
        """What it wants now. Pure: equal outlooks get equal aims."""
        ...
