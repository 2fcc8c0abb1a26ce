"""What operators' orders change in the records. Pure: the workers as they are, the order, the changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gridtide.control.fleet import event_of, moved
from gridtide.errors import Conflict, InvalidRequest, NotFound, SiteFileError
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import SiteRules, Wishes
from gridtide.model.workers import Worker, WorkerState
from gridtide.store.ports import Change, Event, SetWishes, UpdateWorker

_RECALLABLE = frozenset({WorkerState.INTENDED, WorkerState.LAUNCHING, WorkerState.BOOTING, WorkerState.JOINED})


def wishes_changes(rules: SiteRules, name: GroupName, wishes: Wishes, *, actor: str, now: float) -> Sequence[Change]:
    """NotFound for an unknown group, InvalidRequest for figures that contradict each other."""
    group = rules.groups.get(name)
    if group is None:
        raise NotFound(f"no group is called {name}", remedy=f"there are: {', '.join(sorted(rules.groups))}")
    low = group.minimum if wishes.minimum is None else wishes.minimum
    high = group.maximum if wishes.maximum is None else wishes.maximum
    if low < 0 or low > high:
        raise InvalidRequest(
            f"minimum {low} and maximum {high} contradict each other",
            where=f"group {name}",
            remedy="give both, with 0 <= minimum <= maximum",
        )
    if wishes.desired is not None and not low <= wishes.desired <= high:
        raise InvalidRequest(
            f"desired {wishes.desired} is not between minimum {low} and maximum {high}", where=f"group {name}"
        )
    pinned = _figure(wishes.desired, "auto")
    text = f"minimum {_figure(wishes.minimum)}, maximum {_figure(wishes.maximum)}, desired {pinned}"
    text += ", held" if wishes.hold else ""
    text += ", rollout paused" if wishes.rollout_paused else ""
    return [SetWishes(name, wishes), Event(now, "wishes", name, actor, None, text, group=name)]


def closing_changes(
    rules: SiteRules, wishes: Mapping[GroupName, Wishes], closing: bool, *, actor: str, now: float
) -> Sequence[Change]:
    """Close or open every group whose wishes say otherwise."""
    changes: list[Change] = []
    for name in rules.groups:
        present = wishes.get(name, Wishes())
        if present.closing is not closing:
            changes += [
                SetWishes(name, replace(present, closing=closing)),
                Event(now, "wishes", name, actor, None, "closing" if closing else "open again", group=name),
            ]
    return changes


def drain_changes(
    known: Mapping[WorkerId, Worker], names: Sequence[WorkerId], force: bool, *, actor: str, now: float
) -> Sequence[Change]:
    """Mark workers as to be drained, or to be ended. NotFound, with nothing changed, if one does not exist."""
    changes: list[Change] = []
    for worker in _all_of(known, names):
        wanted = replace(worker, drain_wanted=True, force_wanted=worker.force_wanted or force)
        if wanted == worker:
            continue
        text = "an operator ends it by force" if force else "an operator drains it"
        changes += [
            UpdateWorker(worker.state, wanted),
            Event(now, "drain", worker.id, actor, Reason(Cause.OPERATOR, text), text, group=worker.group),
        ]
    return changes


def undrain_changes(
    known: Mapping[WorkerId, Worker], names: Sequence[WorkerId], *, actor: str, now: float
) -> Sequence[Change]:
    """Take drains back. Conflict, with nothing changed, when one is past recall."""
    changes: list[Change] = []
    reason = Reason(Cause.LOAD_RETURNED, "an operator took the drain back")
    for worker in _all_of(known, names):
        wanted = replace(worker, drain_wanted=False)
        if worker.reason.cause is Cause.BUDGET:
            raise Conflict(
                f"{worker.id} was drained for its cloud's budget", remedy="raise budget.per_day in the site file"
            )
        if worker.state is WorkerState.DRAINING and not worker.force_wanted:
            back = moved(wanted, WorkerState.JOINED, reason, now)
            changes += [UpdateWorker(worker.state, back), event_of(back, actor=actor, now=now)]
        elif worker.state in _RECALLABLE and not worker.force_wanted:
            changes.append(UpdateWorker(worker.state, wanted))
        else:
            raise Conflict(f"{worker.id} is {worker.state} and cannot be taken back", remedy="it is being returned")
    return changes


@dataclass(frozen=True, slots=True)
class Lost:
    """What a site file says no more of workers that exist."""

    where: str
    """The place in the site file."""
    what: str
    fate: str
    """What becomes of them, when a site is started with it."""


def _lost(worker: Worker, rules: SiteRules) -> Lost | None:
    queue, group = rules.queue_of(worker), rules.groups.get(worker.group)
    unnamed = "which the site file does not name"
    if worker.cloud not in rules.clouds:
        return Lost(f"clouds.{worker.cloud}", unnamed, "nobody can end their machines")
    if queue is None:
        return Lost(f"groups.{worker.group}", f"{unnamed}, nor their queue", "nobody can drain them")
    if worker.queue not in (None, queue):
        return Lost(f"queues.{worker.queue}", unnamed, f"their group's queue, {queue}, is taken for it")
    if group is None:
        return Lost(f"groups.{worker.group}", unnamed, "they are drained and returned")
    if group.queue != queue:
        text = f"and work for queue {queue}, which is the group's no more"
        return Lost(f"groups.{worker.group}", text, "they are drained and returned")
    return None


def lost(rules: SiteRules, workers: Iterable[Worker]) -> Mapping[Lost, int]:
    """How many workers there are of clouds, queues or groups that the site file does not name any more, or of groups
    that have another queue now."""
    found = (_lost(worker, rules) for worker in workers)
    return Counter(each for each in found if each is not None)


def check_nothing_lost(before: SiteRules, after: SiteRules, workers: Iterable[Worker]) -> None:
    """SiteFileError when a new site file loses workers that the one before did not."""
    known = lost(before, workers)
    for each, number in lost(after, workers).items():
        if each not in known:
            raise SiteFileError(
                f"{number} worker(s) of {each.where} still exist, {each.what}",
                where=each.where,
                remedy="set the group's maximum to 0, wait until they are gone, then change the file",
            )


def lost_events(rules: SiteRules, workers: Iterable[Worker], *, now: float) -> Sequence[Event]:
    """What to tell of them at a start. It does not fail for it: all other workers need their controller."""
    return [
        Event(
            now,
            "site",
            rules.name,
            "controller",
            None,
            f"{number} worker(s) of {each.where} still exist, {each.what}: {each.fate}",
        )
        for each, number in lost(rules, workers).items()
    ]


def _all_of(known: Mapping[WorkerId, Worker], names: Sequence[WorkerId]) -> list[Worker]:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise NotFound(f"no worker {', '.join(unknown)}", remedy="`gridtide workers` lists them")
    return [known[name] for name in dict.fromkeys(names)]


def _figure(value: int | None, none: str = "as in the site file") -> str:
    return none if value is None else str(value)
