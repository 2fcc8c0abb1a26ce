"""An observation with its quality: the type that keeps missing evidence from being read as evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Fresh(Generic[T_co]):
    """A complete answer. ``started`` and ``finished`` are the times of the call.

    Only what was true somewhere between the two is known, so an order given after ``started`` may not show yet.
    """

    value: T_co
    started: float
    finished: float


@dataclass(frozen=True, slots=True)
class Unconfirmed(Generic[T_co]):
    """A complete but implausible answer (a full pool that is suddenly empty): wants a second reading.

    ``last_good`` is what was believed before. Nothing may be started or ended on ``value`` alone.
    """

    value: T_co
    last_good: Fresh[T_co]
    started: float
    finished: float
    doubt: str


@dataclass(frozen=True, slots=True)
class Stale(Generic[T_co]):
    """The source failed or is late since the last good answer, which may have been true then."""

    last_good: Fresh[T_co]
    error: str
    failing_since: float


@dataclass(frozen=True, slots=True)
class Missing:
    """No good answer since this process started. ``error`` is "not read yet" before the first attempt ends."""

    error: str
    failing_since: float


Reading = Fresh[T] | Unconfirmed[T] | Stale[T] | Missing


def fresh(reading: Reading[T]) -> Fresh[T] | None:
    """The reading when it is evidence, else None."""
    return reading if isinstance(reading, Fresh) else None


def last_known(reading: Reading[T]) -> Fresh[T] | None:
    """The newest answer that was believed, of whatever age: for display and for counting, never for ending anything."""
    if isinstance(reading, Fresh):
        return reading
    if isinstance(reading, Unconfirmed | Stale):
        return reading.last_good
    return None
