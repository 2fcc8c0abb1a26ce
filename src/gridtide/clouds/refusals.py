"""What refusals of clouds have in common: kinds that drivers alone tell apart, and how long to leave a server alone."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from gridtide.errors import AuthenticationFailed, CloudUnavailable, LaunchRejected

LONGEST_WAIT: Final = 3600.0
"""Seconds. What asks for more is most likely no number of seconds (the time of day as one, for example), and nothing
would be read, launched or ended there meanwhile. Shorter: a server that means it is asked in vain."""


class MachineNotFound(LaunchRejected):
    """The cloud itself says that there is nothing of this id: for a terminate that is a success."""


class NotAuthorized(AuthenticationFailed):
    """The credentials are good, but may not do this, or not to this machine."""


class Answered(CloudUnavailable):
    """The call is over, and what it did, if anything, shows in the next listing."""


class PlainRefusal(Exception):
    """An HTTP status that is not the cloud's own: from a proxy, a load balancer, or a server in trouble."""

    def __init__(self, status: int, retry_after: str) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.retry_after = retry_after


def wait_of(header: str) -> float | None:
    """A Retry-After header, a number or a date, in seconds. None for nothing, or for nonsense."""
    if header.isascii() and header.isdigit():
        return min(float(header), LONGEST_WAIT)
    try:
        left = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):  # no date, one without a time zone, one beyond all calendars
        return None
    return min(max(0.0, left), LONGEST_WAIT)
