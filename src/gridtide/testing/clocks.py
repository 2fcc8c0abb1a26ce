"""A clock that moves only when told."""

from __future__ import annotations


class ManualClock:
    """Stands still until :meth:`advance` is called."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now

    def now(self) -> float:
        """The present time."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass. ValueError for going back."""
        if seconds < 0:
            raise ValueError(f"time does not run backwards: {seconds}")
        self._now += seconds
