"""How long to wait before trying again."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(slots=True)
class Backoff:
    """Exponential, with full jitter in the upper half: clients that failed together do not come back together.

    ``first`` and ``limit`` are seconds. The end of an outage is noticed at most ``limit`` late.
    """

    random: Random
    first: float = 0.5
    limit: float = 30.0
    failures: int = 0

    def failed(self) -> float:
        """Count a failure; the seconds to wait now."""
        self.failures += 1
        # 2.0**64 is far beyond any limit; without the cap a source that is down for weeks would overflow the float.
        ceiling = min(self.limit, self.first * 2.0 ** min(self.failures - 1, 64))
        return ceiling * (0.5 + 0.5 * self.random.random())

    def succeeded(self) -> None:
        """Start from the beginning next time."""
        self.failures = 0
