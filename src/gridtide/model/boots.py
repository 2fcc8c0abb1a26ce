"""How long machines take from their launch call to their join, and where the seconds go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite

from gridtide.model.ids import CloudName, ShapeName, WorkerId


class Phase(StrEnum):
    """A part of a boot. The phases of one boot follow each other and add up to all of it.

    Where a machine does not tell a point, the phase that ends there is part of the next one.
    """

    CLOUD = "cloud"
    """From the launch call to the cloud's answer, or to the kernel's first instruction when that came first."""
    FIRMWARE = "firmware"
    """To the kernel's first instruction: placing the machine, starting the hypervisor, firmware, boot loader."""
    KERNEL = "kernel"
    """To the first program of user space."""
    USER_SPACE = "user space"
    """To the context, found and read."""
    CONTEXT = "context"
    """Files and scripts of the context, to the start of the agent."""
    JOIN = "join"
    """To the join. Where the machine does not tell more: all that follows the cloud's answer."""


@dataclass(frozen=True, slots=True)
class BootKey:
    """Boots that are alike. ``shape`` None: of any shape; ``image`` None as well: of anything in this cloud.

    With a shape, ``image`` None says that the machines have none (clouds without images).
    """

    cloud: CloudName
    shape: ShapeName | None
    image: str | None

    def wider(self) -> tuple[BootKey, ...]:
        """Itself, then what it is part of, the nearest first."""
        every = (self, BootKey(self.cloud, None, self.image), BootKey(self.cloud, None, None))
        return tuple(dict.fromkeys(every))


@dataclass(frozen=True, slots=True)
class BootReport:
    """A machine's own word: seconds since its kernel began (CLOCK_BOOTTIME) at each point. None: it does not say."""

    user_space: float | None = None
    context: float | None = None
    agent: float | None = None
    now: float | None = None

    def sound(self, total: float) -> bool:
        """Whether it can be true of a boot that took ``total`` seconds. Without ``now`` it says nothing."""
        told = [point for point in (self.user_space, self.context, self.agent, self.now) if point is not None]
        points = [0.0, *told, total]
        return self.now is not None and all(isfinite(point) for point in points) and points == sorted(points)


@dataclass(frozen=True, slots=True)
class Boot:
    """One worker's."""

    worker: WorkerId
    key: BootKey
    joined: float
    """When, in seconds since the epoch."""
    seconds: float
    """From the launch call to the join."""
    phases: Mapping[Phase, float]


@dataclass(frozen=True, slots=True)
class BootTimes:
    """What is known of boots that are alike, in seconds."""

    count: int
    """Workers that joined."""
    median: float | None
    """Of those that joined, None while none has; like the next two."""
    p95: float | None
    since: float | None
    """When the first one that counts joined."""
    longest_lately: float
    """The longest wait of the latest few, those included that were given up because they did not join: what does not
    join is in no other figure, and an image that has just become slower shows here first."""


def phases_of(launched: float, answered: float | None, joined: float, report: BootReport | None) -> dict[Phase, float]:
    """The seconds of each phase. They add up to ``joined - launched``.

    ``answered``: when the cloud answered the launch call, None when the join came first. A report that cannot be true
    is not believed, no part of it: machines' clocks may be wrong, and a machine may lie.
    """
    total = max(0.0, joined - launched)
    cloud = 0.0 if answered is None else min(max(0.0, answered - launched), total)
    if report is None or report.now is None or not report.sound(total):
        return {Phase.CLOUD: cloud, Phase.JOIN: total - cloud}
    before_kernel = total - report.now
    cloud = min(cloud, before_kernel)
    phases = {Phase.CLOUD: cloud, Phase.FIRMWARE: before_kernel - cloud}
    ends = {
        Phase.KERNEL: report.user_space,
        Phase.USER_SPACE: report.context,
        Phase.CONTEXT: report.agent,
        Phase.JOIN: report.now,
    }
    before = 0.0
    for phase, end in ends.items():
        if end is not None:
            phases[phase] = end - before
            before = end
    return phases


def quantile(ordered: Sequence[float], part: float) -> float:
    """Of values in ascending order, with linear interpolation between neighbours.

    Definition 7 of Hyndman and Fan, "Sample Quantiles in Statistical Packages" (1996): what most packages give.
    ValueError without values.
    """
    if not ordered:
        raise ValueError("there are no values")
    place = part * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
