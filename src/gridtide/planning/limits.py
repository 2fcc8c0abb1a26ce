"""What may be launched at most: the group's maximum, the cloud's quota and budget, and what the breaker allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from gridtide.model.actions import Launch
from gridtide.model.costs import Choose, price_per_core
from gridtide.model.demand import OfferKey
from gridtide.model.ids import CloudName, GroupName, Zone
from gridtide.model.machines import MachineState, Quota
from gridtide.model.readings import fresh, last_known
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import GroupRules
from gridtide.model.workers import HOLDS_MACHINE, Worker, WorkerState
from gridtide.planning.budgets import accounts_of
from gridtide.planning.evidence import Evidence, doubt
from gridtide.planning.lifecycle import Course

_NO_QUOTA: Final = Quota()

_BOUNDLESS: Final = 1_000_000_000
"""Stands for "no limit" in sums of small whole numbers; nobody has so many machines."""


@dataclass(frozen=True, slots=True)
class Offering:
    """A shape that a group may launch in a cloud."""

    group: GroupName
    cloud: CloudName
    shape: Shape
    rank: int
    """Position of the cloud in the group; 0 where all its clouds compete."""
    place: int
    """Position of the shape in the group's order, or, where the clouds compete, among all by their price."""

    @property
    def key(self) -> OfferKey:
        """What demand rows refer to."""
        return (self.group, self.shape.name)


def offerings(group: GroupRules, evidence: Evidence) -> list[Offering]:
    """All that the group may launch, in order of preference, as far as its clouds' shapes are known."""
    found: list[Offering] = []
    for rank, cloud in enumerate(group.clouds):
        known = last_known(evidence.cloud(cloud).shapes)
        if known is None:
            continue
        if group.shapes:
            by_name = {shape.name: shape for shape in known.value}
            chosen = [by_name[name] for name in group.shapes if name in by_name]
        else:
            chosen = sorted(known.value, key=_cheapest_first)
        found.extend(Offering(group.name, cloud, shape, rank, place) for place, shape in enumerate(chosen))
    if group.choose is Choose.ORDER:
        return found
    found.sort(key=lambda offer: (price_per_core(offer.shape), offer.rank, offer.place))
    return [Offering(group.name, offer.cloud, offer.shape, 0, place) for place, offer in enumerate(found)]


def _cheapest_first(shape: Shape) -> tuple[float, int, str]:
    """Where the site file names no order: the cheapest core, then the larger machine, then by name."""
    return (price_per_core(shape), -shape.resources.cores, shape.name)


@dataclass(slots=True)
class _Quota:
    """What is used of a cloud's quota, and by whom."""

    limit: Quota
    used: Resources
    machines: int
    foreign: Resources
    foreign_machines: int
    others: dict[str, int]
    """By unit (cores, memory, machines), what no group of the site file has."""

    def add(self, machine: Resources, number: int) -> None:
        """So many machines more."""
        self.used = self.used.plus(machine.times(number))
        self.machines += number

    def add_foreign(self, machine: Resources, number: int) -> None:
        """Say of so many machines that they are not ours."""
        self.foreign = self.foreign.plus(machine.times(number))
        self.foreign_machines += number

    def add_others(self, machine: Resources, number: int) -> None:
        """Say of so many machines that they are of no group of the site file."""
        self.others["cores"] += machine.cores * number
        self.others["memory"] += machine.memory * number
        self.others["machines"] += number

    def room(self, shape: Resources) -> int:
        """How many machines of the shape fit under all three limits."""
        rooms = [_BOUNDLESS]
        if self.limit.machines is not None:
            rooms.append(self.limit.machines - self.machines)
        if self.limit.cores is not None and shape.cores:
            rooms.append((self.limit.cores - self.used.cores) // shape.cores)
        if self.limit.memory is not None and shape.memory:
            rooms.append((self.limit.memory - self.used.memory) // shape.memory)
        return max(min(rooms), 0)

    def explain(self, shape: Shape) -> str:
        """The limit that is in the way, with its figures."""
        figures = (
            ("machines", self.limit.machines, self.machines, self.foreign_machines, 1),
            ("cores", self.limit.cores, self.used.cores, self.foreign.cores, shape.resources.cores),
            ("MiB of memory", self.limit.memory, self.used.memory, self.foreign.memory, shape.resources.memory),
        )
        return "; ".join(
            f"{used} of {limit} {name} are used ({foreign} by others), {shape.name} needs {need}"
            for name, limit, used, foreign, need in figures
            if limit is not None and used + need > limit
        )


class Limits:
    """Room that is left; it shrinks with everything that is taken. One object for all groups of a cycle."""

    def __init__(self, evidence: Evidence, held: Mapping[GroupName, int] | None = None) -> None:
        """``held``: what :func:`holding` says of all workers, if it is known already."""
        self._evidence = evidence
        self.budgets = accounts_of(evidence)
        self._quotas = {cloud: _measure(evidence, cloud) for cloud in sorted(evidence.snapshot.clouds)}
        self._allowed = _allowed(evidence)
        self.counts: dict[GroupName, int] = dict(holding(evidence.snapshot.workers.values()) if held is None else held)
        self.maximum: dict[GroupName, int] = {
            name: maximum_of(group, evidence) for name, group in evidence.rules.groups.items()
        }
        self._shares: dict[tuple[GroupName, CloudName], str] = {}
        self._refusals: dict[CloudName, Reason | None] = {}

    def room(self, offering: Offering) -> int:
        """How many may be launched now, all in the zone that :meth:`zone` names."""
        if self.refusal(offering) is not None or self.too_dear(offering):
            return 0
        quota = self._quotas[offering.cloud].room(offering.shape.resources)
        zone = self.zone(offering)
        room = min(self.group_room(offering.group), quota, 0 if zone is None else zone[1])
        return int(min(room, self.budget_room(offering))) if room else 0

    def budget_room(self, offering: Offering) -> float:
        """How many the budget of its cloud allows."""
        account = self.budgets.get(offering.cloud)
        return float("inf") if account is None else account.room(offering.shape.price)

    def too_dear(self, offering: Offering) -> bool:
        """Whether a core of it costs more than its group would pay."""
        limit = self._evidence.rules.groups[offering.group].price_limit
        return limit is not None and price_per_core(offering.shape) > limit

    def group_room(self, group: GroupName) -> int:
        """How far the group is below its maximum."""
        return max(self.maximum[group] - self.counts.get(group, 0), 0)

    def zone(self, offering: Offering) -> tuple[Zone | None, int] | None:
        """The first zone in which the breaker allows a launch, and how many; None when there is none."""
        for zone in self._evidence.cloud(offering.cloud).zones:
            allowed = self._allowed.get((offering.cloud, zone, offering.shape.name), _BOUNDLESS)
            if allowed > 0:
                return (zone, allowed)
        return None

    def take(self, offering: Offering, number: int, *, single_use: bool, reason: Reason) -> Launch:
        """Use up room for ``number`` machines and say how they are to be launched."""
        zone = self.zone(offering)
        assert zone is not None, "taken without room"  # noqa: S101
        self.counts[offering.group] = self.counts.get(offering.group, 0) + number
        self._allowed[(offering.cloud, zone[0], offering.shape.name)] = zone[1] - number
        if offering.cloud in self.budgets:
            self.budgets[offering.cloud].take(offering.shape.price, number)
        quota = self._quotas[offering.cloud]
        quota.machines += number
        quota.used = quota.used.plus(offering.shape.resources.times(number))
        generation = self._evidence.rules.groups[offering.group].generation
        return Launch(offering.group, offering.cloud, offering.shape, zone[0], generation, single_use, number, reason)

    def affordable(self, courses: list[Course]) -> list[Course]:
        """Those, in their order, whose drains could all be taken back within the budgets."""
        if not self.budgets:
            return courses
        tried = {name: account.copy() for name, account in self.budgets.items()}
        return [
            each for each in courses if each.worker.cloud not in tried or tried[each.worker.cloud].recall(each.worker)
        ]

    def recall(self, worker: Worker) -> None:
        """Use up the room of an affordable one: its drain is taken back."""
        if worker.cloud in self.budgets:
            self.budgets[worker.cloud].recall(worker)

    def refusal(self, offering: Offering) -> Reason | None:
        """Why nothing of it may be launched whatever the room: its cloud gave no evidence."""
        cloud = offering.cloud
        if cloud not in self._refusals:
            view, source = self._evidence.cloud(cloud), f"cloud {cloud}"
            words = doubt(f"{source}, machines", view.machines) or doubt(f"{source}, shapes", view.shapes)
            self._refusals[cloud] = words
        return self._refusals[cloud]

    def allows(self, offering: Offering) -> bool:
        """Whether it could be launched but for maximum and quota."""
        if self.refusal(offering) is not None or self.too_dear(offering):
            return False
        return self.zone(offering) is not None and self.budget_room(offering) > 0

    def bounded(self, cloud: CloudName) -> bool:
        """Whether the cloud is known and has a quota."""
        return cloud in self._quotas and self._quotas[cloud].limit != _NO_QUOTA

    def capacity(self, cloud: CloudName, unit: str) -> float | None:
        """What the quota leaves to the groups of the site file, in cores, memory or machines. None: no limit."""
        quota = self._quotas[cloud]
        limit: int | None = getattr(quota.limit, unit)
        return None if limit is None else float(max(limit - quota.others[unit], 0))

    def left(self, cloud: CloudName, unit: str) -> float:
        """What is still free of it."""
        quota = self._quotas[cloud]
        limit: int | None = getattr(quota.limit, unit)
        used = quota.machines if unit == "machines" else quota.used.cores if unit == "cores" else quota.used.memory
        return float("inf") if limit is None else float(max(limit - used, 0))

    def note_share(self, group: GroupName, cloud: CloudName, words: str) -> None:
        """The quota is shared out, and this is the group's part of it."""
        self._shares[(group, cloud)] = words

    def why_not(self, offering: Offering) -> Reason:
        """Why there is no room for it."""
        refusal = self.refusal(offering)
        if refusal is not None:
            return refusal
        if self.too_dear(offering):
            return self._price_words(offering)
        group = offering.group
        if self.group_room(group) == 0:
            figures = f"{self.counts.get(group, 0)} of at most {self.maximum[group]} workers exist or start"
            return Reason(Cause.AT_MAXIMUM, f"group {group}: {figures}")
        quota = self._quotas[offering.cloud]
        share = self._shares.get((group, offering.cloud))
        if quota.room(offering.shape.resources) == 0:
            words = f"cloud {offering.cloud}: {quota.explain(offering.shape)}"
            return Reason(Cause.AT_QUOTA, f"{words}; {share}" if share is not None else words)
        if self.zone(offering) is not None and self.budget_room(offering) == 0:
            return Reason(Cause.AT_BUDGET, self.budgets[offering.cloud].words(offering.shape.price))
        if share is not None and self.allows(offering):
            return Reason(Cause.AT_QUOTA, f"{share}, and other groups wait for theirs")
        return self._breaker_words(offering)

    def _price_words(self, offering: Offering) -> Reason:
        limit = self._evidence.rules.groups[offering.group].price_limit
        price = f"{offering.shape.name} costs {price_per_core(offering.shape):g} per core and hour"
        return Reason(Cause.TOO_DEAR, f"cloud {offering.cloud}: {price}, group {offering.group} pays at most {limit:g}")

    def _breaker_words(self, offering: Offering) -> Reason:
        health = self._evidence.cloud(offering.cloud).health or {}
        errors = {
            entry.error: max(entry.until - self._evidence.now, 0.0)
            for (_, shape), entry in health.items()
            if shape == offering.shape.name
        }
        words = "; ".join(f"{error} (tried again in {wait:.0f} s)" for error, wait in sorted(errors.items()))
        text = words or "no more launches are allowed now"
        return Reason(Cause.CLOUD_REFUSING, f"cloud {offering.cloud} refuses {offering.shape.name}: {text}")

    def retry_times(self, offering: Offering) -> list[float]:
        """When the breaker may let it pass again."""
        health = self._evidence.cloud(offering.cloud).health or {}
        return [entry.until for (_, shape), entry in health.items() if shape == offering.shape.name]


def _allowed(evidence: Evidence) -> dict[tuple[CloudName, Zone | None, str], int]:
    """How many launches may be tried where the cloud refuses; offers without an entry are not bounded."""
    allowed = {
        (name, zone, str(shape)): health.allowed
        for name, view in evidence.snapshot.clouds.items()
        for (zone, shape), health in (view.health or {}).items()
    }
    # The breaker hears of a launch when it is called: one that is only intended is on its way there.
    for worker in evidence.snapshot.workers.values() if allowed else ():
        key = (worker.cloud, worker.zone, str(worker.shape.name))
        if worker.state is WorkerState.INTENDED and key in allowed:
            allowed[key] = max(allowed[key] - 1, 0)
    return allowed


def holding(workers: Iterable[Worker]) -> Counter[GroupName]:
    """How many of each group may have a machine."""
    return Counter(worker.group for worker in workers if worker.state in HOLDS_MACHINE)


def maximum_of(group: GroupRules, evidence: Evidence) -> int:
    """The operators' maximum, or the site file's."""
    wished = evidence.wishes(group.name).maximum
    return group.maximum if wished is None else wished


def minimum_of(group: GroupRules, evidence: Evidence) -> int:
    """The operators' minimum, or the site file's; never above the maximum."""
    wished = evidence.wishes(group.name).minimum
    return min(group.minimum if wished is None else wished, maximum_of(group, evidence))


def _measure(evidence: Evidence, cloud: CloudName) -> _Quota:
    """Foreign machines, ours that are listed, and ours that are not listed yet: each counted once."""
    rules = evidence.rules.clouds.get(cloud)
    limit = rules.quota if rules is not None else _NO_QUOTA
    quota = _Quota(limit, Resources(), 0, Resources(), 0, {"cores": 0, "memory": 0, "machines": 0})
    if limit == _NO_QUOTA:
        return quota
    reading = fresh(evidence.cloud(cloud).machines)
    listed = reading.value if reading is not None else ()
    groups, workers = evidence.rules.groups, evidence.snapshot.workers
    present = [machine for machine in listed if machine.state is not MachineState.GONE]
    owners = [None if machine.worker is None else workers.get(machine.worker) for machine in present]
    every = Counter(machine.resources for machine in present)
    foreign = Counter(machine.resources for machine in present if machine.worker is None)
    others = Counter(
        machine.resources
        for machine, owner in zip(present, owners, strict=True)
        if owner is None or owner.group not in groups
    )
    known = {machine.id for machine in listed}
    unlisted = [
        worker
        for worker in workers.values()
        if worker.machine not in known
        and worker.cloud == cloud
        and worker.state in HOLDS_MACHINE
        and not any(entry.cloud == cloud for entry in evidence.machines.get(worker.id, ()))
    ]
    every.update(worker.shape.resources for worker in unlisted)
    others.update(worker.shape.resources for worker in unlisted if worker.group not in groups)
    for resources, number in every.items():
        quota.add(resources, number)
    for resources, number in foreign.items():
        quota.add_foreign(resources, number)
    for resources, number in others.items():
        quota.add_others(resources, number)
    return quota
