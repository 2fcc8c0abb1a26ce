"""The token bucket by which EC2 limits calls, kept on our side: a call that would be refused is not made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """Calls that may be made at once, and how many more each second. Both above zero."""

    burst: float
    per_second: float


@dataclass(frozen=True, slots=True)
class Rates:
    """Of an account in a region, by kind of call.

    The defaults are what the EC2 developer guide, "Request throttling for the Amazon EC2 API", gives for RunInstances,
    TerminateInstances and for Describe calls with pages. Larger ones than the account's own cost refused calls.
    """

    launch: Rate = Rate(5, 2)
    terminate: Rate = Rate(100, 5)
    read: Rate = Rate(100, 20)


class Bucket:
    """Times are any clock's, as long as it is always the same."""

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._level = rate.burst
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until the next call may be made: 0 when at once."""
        self._fill(now)
        return max(0.0, (1.0 - self._level) / self._rate.per_second)

    def take(self, now: float) -> None:
        """Count a call that is made now, or after :meth:`wait`: then the next one waits longer."""
        self._fill(now)
        self._level -= 1.0

    def empty(self, now: float) -> None:
        """The cloud refused a call: others use the same account, and the bucket holds less than was thought."""
        self._fill(now)
        self._level = min(self._level, 0.0)

    def _fill(self, now: float) -> None:
        self._level = min(self._rate.burst, self._level + max(0.0, now - self._at) * self._rate.per_second)
        self._at = max(self._at, now)
