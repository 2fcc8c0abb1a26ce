"""Which shapes are small enough: a machine can be given back when its last job has ended, and that is sooner the fewer
jobs it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Final

from gridtide.model.ids import CloudName, GroupName
from gridtide.planning.fitting import Load
from gridtide.planning.fleet import Fleet
from gridtide.planning.limits import Limits, Offering

WORTH: Final = 1.25
"""How much dearer the core of a smaller machine may be than the cheapest. Replays of grid logs waste a quarter more on
machines of eight cores than on the smallest: beyond that, small ones cost more than they save."""

PLENTY: Final = 4
"""One of so many parts of a number of machines that is limited (a maximum, a quota) may be used for small ones. More of
them would stand in the way of larger ones when load comes that only those can carry."""


def spread_out(
    choices: Sequence[Offering], loads: Iterable[Load], fleets: Mapping[GroupName, Fleet], limits: Limits
) -> list[Offering]:
    """Of the choices those that are small enough for their group, for each load and cloud at least the smallest."""
    open_ = [offer for offer in choices if limits.room(offer) > 0]
    loads = [load for load in loads if load.left]
    allowed: set[tuple[CloudName, GroupName, str]] = set()
    for name, fleet in fleets.items():
        mine = [offer for offer in open_ if offer.group == name]
        if not mine:
            continue
        largest = _largest(fleet, loads)
        for cloud in fleet.rules.clouds:
            here = [offer for offer in mine if offer.cloud == cloud]
            for load in loads:
                fit = [offer for offer in here if offer.key in load.runs_on]
                small = fit if fleet.aim.spread == 1 else _small(fit, largest)
                allowed.update((offer.cloud, offer.group, offer.shape.name) for offer in small)
    return [offer for offer in open_ if (offer.cloud, offer.group, offer.shape.name) in allowed]


def _largest(fleet: Fleet, loads: Iterable[Load]) -> float:
    """Cores of the largest machine that is small enough: a part of what is launched now and boots already."""
    wanted = sum(load.left * load.need[0] for load in loads if fleet.rules.name in load.groups)
    booting = sum(course.worker.shape.resources.cores for course in fleet.starting())
    booting += sum(launch.count * launch.shape.resources.cores for launch in fleet.launches)
    return (wanted + booting) / fleet.aim.spread


def _small(fit: Sequence[Offering], largest: float) -> list[Offering]:
    """Those up to the size; the smallest if none is. Those whose cores are too dear do not count."""
    cheapest = min((_per_core(offer) for offer in fit), default=0.0)
    fair = [offer for offer in fit if _per_core(offer) <= WORTH * cheapest]
    small = [offer for offer in fair if offer.shape.resources.cores <= largest]
    least = min((offer.shape.resources.cores for offer in fair), default=0)
    return small or [offer for offer in fair if offer.shape.resources.cores == least]


def _per_core(offer: Offering) -> float:
    return offer.shape.price / max(offer.shape.resources.cores, 1)


def small_room(cloud: CloudName, fleet: Fleet, limits: Limits) -> int:
    """How many machines may still be launched for being small, before machines are what the group may run out of."""
    if fleet.aim.spread == 1:
        return limits.group_room(fleet.rules.name)
    name = fleet.rules.name
    room = ceil(limits.maximum[name] / PLENTY) - limits.counts.get(name, 0)
    machines = limits.capacity(cloud, "machines") if limits.bounded(cloud) else None
    if machines is not None:
        room = min(room, ceil(limits.left(cloud, "machines") - machines * (PLENTY - 1) / PLENTY))
    return max(room, 0)
