"""How long a job submitted now would wait for its start, as far as that is known. Nothing is decided here."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gridtide.model.boots import BootKey, BootTimes
from gridtide.model.ids import CloudName, GroupName, ShapeName
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import GroupRules, SiteRules
from gridtide.model.snapshot import Snapshot
from gridtide.planning.evidence import Evidence, doubt
from gridtide.planning.fleet import Fleet, fleet_of
from gridtide.planning.lifecycle import follow
from gridtide.planning.limits import Limits, Offering
from gridtide.planning.policies import policy_of
from gridtide.planning.supply import free_now


@dataclass(frozen=True, slots=True)
class Known:
    """Boots that are known, and what they have in common with the next one."""

    key: BootKey
    times: BootTimes


@dataclass(frozen=True, slots=True)
class Eta:
    """For a job that takes one core, of a group."""

    free: bool
    """A worker of the group could take it at once: it has a free core, and no job waits that would come first."""
    waiting: int | None
    """Jobs that wait and could run on the group: they come first. None: not known now."""
    cloud: CloudName | None
    """Where a machine would be launched for it; with an obstacle, the first choice. None: nowhere."""
    shape: ShapeName | None
    known: Known | None
    """Boots like that one's. None: none has joined yet."""
    patience: float
    """Seconds for which the group's policy lets jobs wait before it launches anything."""
    obstacle: Reason | None
    """Why no machine would be launched for it now."""

    @property
    def median(self) -> float | None:
        """Seconds to the start in the middle of all cases; None when that is not known."""
        return self._after(self.known.times.median if self.known is not None else None)

    @property
    def p95(self) -> float | None:
        """Seconds to the start in 19 of 20 cases at most; None when that is not known."""
        return self._after(self.known.times.p95 if self.known is not None else None)

    def _after(self, boot: float | None) -> float | None:
        if self.free:
            return 0.0
        return None if boot is None or self.obstacle is not None else self.patience + boot


def eta_of(snapshot: Snapshot, rules: SiteRules, name: GroupName) -> Eta:
    """Of a group. KeyError for an unknown one."""
    evidence = Evidence(snapshot, rules)
    group = rules.groups[name]
    members = [snapshot.workers[worker] for worker in sorted(snapshot.workers)]
    fleet = fleet_of(group, [follow(worker, evidence) for worker in members if worker.group == name], evidence)
    unsure = _unsure(group, evidence)
    limits = Limits(evidence)
    limits.maximum[name] = fleet.maximum
    offer = next((offer for offer in fleet.offers if limits.room(offer) > 0), None)
    obstacle, patience = _policy_words(fleet)
    obstacle = fleet.halted or unsure or obstacle or (_refusal(fleet, evidence, limits) if offer is None else None)
    first = offer or next(iter(fleet.offers), None)
    return Eta(
        free=unsure is None and fleet.waiting == 0 and _has_room(fleet),
        waiting=fleet.waiting,
        cloud=None if first is None else first.cloud,
        shape=None if first is None else first.shape.name,
        known=None if first is None else _known(first, group, snapshot),
        patience=patience,
        obstacle=obstacle,
    )


def _unsure(group: GroupRules, evidence: Evidence) -> Reason | None:
    view = evidence.queue(group.queue)
    source = f"queue {group.queue}"
    return doubt(f"{source}, demand", view.demand) or doubt(f"{source}, nodes", view.nodes)


def _has_room(fleet: Fleet) -> bool:
    """Whether a core of a worker that takes jobs is free."""
    return any(bin_.free[0] > 0 for bin_ in free_now((), [fleet]))


def _policy_words(fleet: Fleet) -> tuple[Reason | None, float]:
    """Whether the policy would launch for one more job, and after how many seconds."""
    if fleet.pinned is not None:
        return fleet.obstacle, 0.0
    aim = policy_of(fleet.rules.policy).aim(replace(fleet.outlook, waiting=(fleet.waiting or 0) + 1))
    if aim.until is not None:
        return None, max(0.0, aim.until - fleet.outlook.now)
    return aim.patience, 0.0


def _refusal(fleet: Fleet, evidence: Evidence, limits: Limits) -> Reason:
    if fleet.offers:
        return limits.why_not(fleet.offers[0])
    unread = [reason for cloud in fleet.rules.clouds if (reason := evidence.unread(cloud)) is not None]
    return unread[0] if unread else Reason(Cause.NO_SHAPE_FITS, f"group {fleet.rules.name} has nothing to launch")


def _known(offer: Offering, group: GroupRules, snapshot: Snapshot) -> Known | None:
    """Boots of this shape and image, else of this image, else of this cloud."""
    for key in BootKey(offer.cloud, offer.shape.name, group.image).wider():
        times = snapshot.boot_times.get(key)
        if times is not None and times.count:
            return Known(key, times)
    return None
