"""Stops asking a cloud for what it keeps refusing: one breaker per (zone, shape), and one for the cloud as a whole.

Closed: launches go through. Open: none until a time that doubles with every failure. Half open: one probe, whose
outcome decides. A refusal is answered by a launch that is accepted; a machine that never joined, or that the cloud gave
up before it could, only by one that joins: a cloud that hands out dead machines with a friendly answer must not look
healthy. A machine that was launched before a refusal and joins after it says nothing about room, nor does one that was
launched before a machine that is dead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gridtide.errors import CloudError, ImageNotFound, LaunchRejected, NoCapacity, QuotaExceeded, Throttled
from gridtide.model.ids import ShapeName, WorkerId, Zone
from gridtide.model.snapshot import OfferHealth

Key = tuple[Zone | None, ShapeName]

# Seconds until the first probe after a refusal: long enough that a sold-out zone is not hammered, short enough that
# a passing one costs a job little. A machine that is broken before it joined is a refusal too, told late: OpenStack
# accepts a launch before it knows of a host with room.
AFTER_REFUSAL = 30.0
# After an outage of the cloud as a whole (no answer, 5xx, throttled, credentials): a probe is cheap.
AFTER_OUTAGE = 2.0
# After a machine that never joined. With the default join deadline this allows at most five launches in an hour;
# less pays for more dead machines, more makes a mended image wait longer.
AFTER_NEVER_JOINED = 300.0
LONGEST = 3600.0
_UNLIMITED = 1_000_000_000


@dataclass(slots=True)
class _Circuit:
    failures: int = 0
    until: float = float("-inf")
    error: str = ""
    wants_join: bool = False
    probe: WorkerId | None = None
    refused_at: float = float("-inf")
    """When the cloud last said no to a launch, unless it has accepted one since."""
    last_join_launched: float = float("-inf")
    """When the latest-launched worker that ever joined was launched."""
    last_dead_launched: float = float("-inf")
    """When the latest-launched of those that did not join was launched."""

    def open(self, now: float, first: float, error: str, at_least: float) -> None:
        wait = min(LONGEST, first * 2.0 ** min(self.failures, 20))
        self.failures += 1
        self.until = max(self.until, now + max(wait, at_least))
        self.error = error
        self.probe = None

    def close(self) -> None:
        self.failures, self.until, self.error, self.wants_join, self.probe = 0, float("-inf"), "", False, None
        self.refused_at = float("-inf")

    def allowed(self, now: float) -> int:
        if self.failures == 0:
            return _UNLIMITED
        return 1 if now >= self.until and self.probe is None else 0


@dataclass(slots=True)
class Breaker:
    """Of one cloud. Times are the controller's clock."""

    _circuits: dict[Key, _Circuit] = field(default_factory=dict)
    _whole: _Circuit = field(default_factory=_Circuit)

    def launching(self, worker: WorkerId, key: Key) -> None:
        """A launch is about to be called: if its circuit is half open, this is the probe."""
        for circuit in (self._circuit(key), self._whole):
            if circuit.failures and circuit.probe is None:
                circuit.probe = worker

    def launched(self, key: Key) -> None:
        """The cloud accepted it."""
        self._whole.close()
        circuit = self._circuit(key)
        if not circuit.wants_join:
            circuit.close()

    def refused(self, key: Key, error: CloudError, now: float) -> None:
        """The cloud said no, or nothing."""
        at_least = (error.retry_after or 0.0) if isinstance(error, Throttled) else 0.0
        # Sold out, over quota: that is about this shape. The rest says something about the cloud as a whole.
        narrow = isinstance(error, NoCapacity | QuotaExceeded | LaunchRejected | ImageNotFound)
        circuit = self._circuit(key) if narrow else self._whole
        circuit.refused_at = now
        if now >= circuit.until:  # the other failures of the same bulk call are one failure
            circuit.open(now, AFTER_REFUSAL if narrow else AFTER_OUTAGE, str(error), at_least)

    def never_joined(self, key: Key, launched: float, now: float, text: str) -> None:
        """A machine was made and did not join in time."""
        self._dead(key, launched, now, AFTER_NEVER_JOINED, text)

    def died(self, key: Key, launched: float, now: float, text: str) -> None:
        """The cloud accepted a launch, and says before the machine joined that nothing came of it."""
        self._dead(key, launched, now, AFTER_REFUSAL, text)

    def _dead(self, key: Key, launched: float, now: float, first: float, text: str) -> None:
        """Counts unless a machine launched later, or with it, did join."""
        circuit = self._circuit(key)
        if circuit.last_join_launched >= launched:
            return
        circuit.last_dead_launched = max(circuit.last_dead_launched, launched)
        if now >= circuit.until:
            circuit.wants_join = True
            circuit.open(now, first, text, 0.0)

    def joined(self, key: Key, launched: float) -> None:
        """A machine joined: the offer works."""
        circuit = self._circuit(key)
        if launched > circuit.refused_at and launched >= circuit.last_dead_launched:
            circuit.close()
        circuit.last_join_launched = max(circuit.last_join_launched, launched)

    def ended(self, worker: WorkerId) -> None:
        """A worker ended without telling anything about its offer: if it was the probe, another may try."""
        for circuit in (self._whole, *self._circuits.values()):
            if circuit.probe == worker:
                circuit.probe = None

    def health(self, keys: Iterable[Key], now: float) -> Mapping[Key, OfferHealth]:
        """Of the given offers, those that are not healthy."""
        health: dict[Key, OfferHealth] = {}
        for key in keys:
            own = self._circuits.get(key, _CLOSED)
            worse = min((own, self._whole), key=lambda circuit: circuit.allowed(now))
            allowed = worse.allowed(now)
            if allowed < _UNLIMITED:
                health[key] = OfferHealth(allowed, worse.until, worse.error)
        return health

    def _circuit(self, key: Key) -> _Circuit:
        return self._circuits.setdefault(key, _Circuit())


_CLOSED = _Circuit()
