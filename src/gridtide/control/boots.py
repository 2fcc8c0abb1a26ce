"""Boot times, learned from every join, and from every worker that was given up because it did not join."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gridtide.model.boots import Boot, BootKey, BootTimes, quantile
from gridtide.model.workers import Worker

WINDOW: Final = 200
"""Latest boots of a kind that count. Fewer make the 95th percentile jump; more remember an image of last month."""

LATELY: Final = 5
"""Latest boots, and waits in vain, of which the longest counts. Fewer: one quick machine hides that others have become
slow. More: one machine that hung holds up the deadline for longer."""


@dataclass(slots=True)
class _Kind:
    """Boots that are alike."""

    boots: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    """When they joined, and after how many seconds."""
    waits: deque[float] = field(default_factory=lambda: deque(maxlen=LATELY))
    """Seconds of the latest ones, in vain or not."""

    def times(self) -> BootTimes:
        """What follows from them."""
        longest = max(self.waits, default=0.0)
        if not self.boots:
            return BootTimes(0, None, None, None, longest)
        ordered = sorted(seconds for _, seconds in self.boots)
        return BootTimes(
            count=len(ordered),
            median=quantile(ordered, 0.5),
            p95=quantile(ordered, 0.95),
            since=self.boots[0][0],
            longest_lately=longest,
        )


class BootMemory:
    """The latest boots of each kind, and what follows from them."""

    def __init__(self) -> None:
        self._kinds: dict[BootKey, _Kind] = defaultdict(_Kind)
        self.times: dict[BootKey, BootTimes] = {}
        """By kind, and by what each kind is part of. Always this same object."""

    def load(self, boots: Iterable[Boot]) -> None:
        """Begin anew with these, oldest first."""
        self._kinds.clear()
        self.times.clear()
        for boot in boots:
            for key in boot.key.wider():
                self._add(key, boot)
        for key, kind in self._kinds.items():
            self.times[key] = kind.times()

    def joined(self, boot: Boot) -> None:
        """One more."""
        for key in boot.key.wider():
            self._add(key, boot)
            self.times[key] = self._kinds[key].times()

    def gave_up(self, worker: Worker, waited: float) -> None:
        """A worker of this kind did not join in time: ``waited`` seconds were not enough."""
        for key in key_of(worker).wider():
            self._kinds[key].waits.append(waited)
            self.times[key] = self._kinds[key].times()

    def view(self) -> Mapping[BootKey, BootTimes]:
        """A copy for a snapshot."""
        return dict(self.times)

    def _add(self, key: BootKey, boot: Boot) -> None:
        kind = self._kinds[key]
        kind.boots.append((boot.joined, boot.seconds))
        kind.waits.append(boot.seconds)


def key_of(worker: Worker) -> BootKey:
    """The kind of a worker's boot."""
    return BootKey(worker.cloud, worker.shape.name, worker.image)
