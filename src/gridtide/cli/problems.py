"""What can go wrong on this side of the wire, beside the errors that the service itself reports."""

from __future__ import annotations

from gridtide.errors import GridtideError


class NoService(GridtideError):
    """Nothing answers at the service's address, or no address is known."""


class ServiceFault(GridtideError):
    """Something answers, but not as the service should: 5xx without an explanation, or nonsense."""


class Busy(GridtideError):
    """The service asks to come back later (429, 503); ``retry_after`` is in seconds."""

    def __init__(self, what: str, *, retry_after: float, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.retry_after = retry_after


class Failed(GridtideError):
    """The command did its work, and the thing that was asked about has failed."""


class TimedOut(GridtideError):
    """The time that the user gave was over before the thing happened. Nothing was ended."""


class WrongUsage(GridtideError):
    """Options that contradict each other, or a local file that is not there."""
