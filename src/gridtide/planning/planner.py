"""From a snapshot to a plan: the rooms of planning, in order."""

from __future__ import annotations

from types import MappingProxyType

from gridtide.model.actions import Action, Launch, Plan, Rollout
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.readings import Reading, Unconfirmed
from gridtide.model.reasons import Reason
from gridtide.model.rules import SiteRules
from gridtide.model.snapshot import Snapshot
from gridtide.planning.evidence import Evidence
from gridtide.planning.explain import obstacle_of, why_group, why_load
from gridtide.planning.fleet import Fleet, actions_of, fleet_of
from gridtide.planning.guards import CONFIRM_AFTER
from gridtide.planning.launching import launch_for, served
from gridtide.planning.lifecycle import Course
from gridtide.planning.limits import Limits
from gridtide.planning.quotas import Quotas
from gridtide.planning.rollout import roll
from gridtide.planning.saving import keep_within
from gridtide.planning.scaling import Outcome, fill_up, serve
from gridtide.planning.steady import Past
from gridtide.planning.strays import strays
from gridtide.planning.trials import timers_of
from gridtide.planning.victims import drain_idle, drain_surplus
from gridtide.planning.yielding import give_way


class Planner:
    """Plans one cycle of a controller after the other. Its plans are those of :func:`plan`, and come sooner: what was
    found out about workers of which nothing has changed is kept (:mod:`gridtide.planning.steady`).

    Within one lead, time and heartbeats only go forward.
    """

    def __init__(self) -> None:
        self._past: Past | None = None

    def plan(self, snapshot: Snapshot, rules: SiteRules) -> Plan:
        """See :func:`plan`."""
        past, self._past = self._past, None  # a fault on the way leaves nothing half done behind
        if past is None or not past.fits(snapshot, rules):
            past = Past(rules, snapshot.started)
        decided = _plan(snapshot, rules, past)
        self._past = past
        return decided


def plan(snapshot: Snapshot, rules: SiteRules) -> Plan:
    """What to do now, and why everything is as it is. Pure: equal input gives an equal plan.

    Actions of one worker come in the order in which they must be done. Those that end workers come before launches.
    """
    return Planner().plan(snapshot, rules)


def _plan(snapshot: Snapshot, rules: SiteRules, past: Past) -> Plan:
    evidence, others = past.look(snapshot, rules)
    courses = {course.worker.id: course for course in others}
    ended, spared = strays(evidence, courses, past.unknown)
    limits = Limits(evidence, past.held(others))
    fleets = _fleets(evidence, courses, past)
    limits.maximum.update((name, fleet.maximum) for name, fleet in fleets.items())
    for fleet in fleets.values():
        drain_surplus(fleet, evidence)
    looks = keep_within(fleets, evidence, limits)
    for fleet in fleets.values():
        fill_up(fleet, evidence, limits)
    outcomes, rollouts, timers = _scale(fleets, evidence, limits)
    timers += looks
    courses = _with_thawed(courses, fleets)
    timers += _timers(evidence, courses, fleets, outcomes, limits)
    why_worker = dict(spared)
    for steady in past.groups.values():
        why_worker |= steady.why
    why_worker |= {worker: course.why for worker, course in courses.items()}
    decided = Plan(
        actions=(*_worker_actions(courses), *ended, *_launches(fleets)),
        why_worker=MappingProxyType(why_worker),
        why_group=MappingProxyType(_why_groups(fleets, outcomes, evidence, limits)),
        why_demand=MappingProxyType(_why_demand(fleets, outcomes, evidence, limits)),
        memory=MappingProxyType({name: fleet.aim.memory for name, fleet in fleets.items()}),
        look_again=min((timer for timer in timers if timer > snapshot.now), default=None),
        rollouts=MappingProxyType(rollouts),
        queue_memory=MappingProxyType({outcome.queue: outcome.memory for outcome in outcomes}),
    )
    past.keep(courses, evidence)
    return decided


def _with_thawed(courses: dict[WorkerId, Course], fleets: dict[GroupName, Fleet]) -> dict[WorkerId, Course]:
    """Those that scaling wanted to decide about as well, all by id."""
    thawed = {course.worker.id: course for fleet in fleets.values() for course in fleet.thawed}
    return dict(sorted({**courses, **thawed}.items())) if thawed else courses


def _scale(
    fleets: dict[GroupName, Fleet], evidence: Evidence, limits: Limits
) -> tuple[list[Outcome], dict[GroupName, Rollout], list[float]]:
    """Fit, launch and drain; what became of each queue, the rollouts, and when to look again."""
    every = list(fleets.values())
    queues = sorted({*evidence.snapshot.queues, *(fleet.rules.queue for fleet in every)})
    outcomes = [
        serve(queue, [fleet for fleet in every if fleet.rules.queue == queue], evidence, limits) for queue in queues
    ]
    needed = {worker for outcome in outcomes for worker in outcome.needed}
    quotas = Quotas(served(outcomes, every), needed, evidence, limits)
    launch_for(outcomes, every, quotas, limits)
    by_queue = {outcome.queue: outcome for outcome in outcomes}
    timers = [timer for outcome in outcomes for timer in timers_of(outcome.memory, evidence.now)]
    for fleet in every:
        outcome = by_queue[fleet.rules.queue]
        timers += drain_idle(fleet, evidence, outcome.needed, outcome.unsure, outcome.ready)
    sure = {outcome.queue for outcome in outcomes if outcome.unsure is None}
    quotas.workers_changed()
    timers += give_way(quotas, sure, evidence, limits)
    rollouts: dict[GroupName, Rollout] = {}
    for name, fleet in fleets.items():
        step = roll(fleet, evidence, limits, by_queue[fleet.rules.queue].unsure)
        if step is not None:
            rollouts[name] = step
    return outcomes, rollouts, timers


def _fleets(evidence: Evidence, courses: dict[WorkerId, Course], past: Past) -> dict[GroupName, Fleet]:
    members: dict[GroupName, list[Course]] = {name: [] for name in sorted(evidence.rules.groups)}
    for course in courses.values():
        group = evidence.group(course.worker)
        if group is not None:
            members[group.name].append(course)
    return {
        name: fleet_of(evidence.rules.groups[name], mine, evidence, past.groups[name]) for name, mine in members.items()
    }


def _worker_actions(courses: dict[WorkerId, Course]) -> list[Action]:
    return [action for course in courses.values() for action in actions_of(course)]


def _launches(fleets: dict[GroupName, Fleet]) -> list[Launch]:
    """Launches of the same kind for the same reason joined into one."""
    joined: dict[tuple[object, ...], Launch] = {}
    for fleet in fleets.values():
        for launch in fleet.launches:
            key = (launch.group, launch.cloud, launch.shape, launch.zone, launch.reason)
            before = joined.get(key)
            number = launch.count + (before.count if before is not None else 0)
            joined[key] = Launch(
                launch.group,
                launch.cloud,
                launch.shape,
                launch.zone,
                launch.generation,
                launch.single_use,
                number,
                launch.reason,
            )
    return list(joined.values())


def _why_groups(
    fleets: dict[GroupName, Fleet], outcomes: list[Outcome], evidence: Evidence, limits: Limits
) -> dict[GroupName, Reason]:
    reasons: dict[GroupName, Reason] = {}
    by_queue = {outcome.queue: outcome for outcome in outcomes}
    for name, fleet in fleets.items():
        outcome = by_queue[fleet.rules.queue]
        stuck = [load for load in outcome.loads if load.left and (name in load.barred or name in load.groups)]
        if outcome.unsure is not None:
            obstacles = [outcome.unsure]
        else:
            obstacles = [obstacle_of(load, outcome, [fleet], evidence, limits) for load in stuck]
        reasons[name] = why_group(fleet, obstacles)
    return reasons


def _why_demand(
    fleets: dict[GroupName, Fleet], outcomes: list[Outcome], evidence: Evidence, limits: Limits
) -> dict[tuple[str, str], Reason]:
    reasons: dict[tuple[str, str], Reason] = {}
    for outcome in outcomes:
        mine = [fleet for fleet in fleets.values() if fleet.rules.queue == outcome.queue]
        # Some jobs of a label may have a place and others none: what is said is why these have none.
        for load in sorted(outcome.loads, key=lambda load: load.left > 0):
            reason = why_load(load, outcome, mine, evidence, limits)
            for row in load.rows:
                reasons[(outcome.queue, row.label)] = reason
    return reasons


def _timers(
    evidence: Evidence,
    courses: dict[WorkerId, Course],
    fleets: dict[GroupName, Fleet],
    outcomes: list[Outcome],
    limits: Limits,
) -> list[float]:
    """When something that the plan depends on runs out."""
    timers = [timer for course in courses.values() for timer in course.timers]
    snapshot, rules = evidence.snapshot, evidence.rules
    timers.append(snapshot.started + rules.warmup)
    for queue in snapshot.queues.values():
        timers += _second_look(queue.demand) + _second_look(queue.nodes)
    for cloud in snapshot.clouds.values():
        timers += _second_look(cloud.machines) + _second_look(cloud.shapes)
    left = {key for outcome in outcomes for load in outcome.loads if load.left for key in load.runs_on}
    for fleet in fleets.values():
        if fleet.aim.until is not None:
            timers.append(fleet.aim.until)
        if fleet.aim.look_again is not None:
            timers.append(fleet.aim.look_again)
        deploy_time = fleet.aim.deploy_time
        if deploy_time is not None:
            workers = [course.worker for course in fleet.starting()]
            timers += [(worker.launched or worker.created) + deploy_time for worker in workers]
        short = fleet.active() < fleet.floor
        for offer in fleet.offers:
            if short or offer.key in left:
                timers += limits.retry_times(offer)
    return timers


def _second_look(reading: Reading[object]) -> list[float]:
    return [reading.started + CONFIRM_AFTER] if isinstance(reading, Unconfirmed) else []
