"""A cloud's budget of a day: a hard limit, although no running job is ever ended.

Both hold together because the money is kept back beforehand. A machine that takes jobs may be given one at any moment,
and that one may take ``longest_job``: what the machine will have cost by then is kept back, on the days on which it
will be charged. Nothing is launched unless this leaves room. As time goes on, a machine that takes jobs keeps back
more; when that is about to pass the budget, machines are drained, idle ones first: one that drains keeps back what it
did when its drain began, and no more. docs/explanation/planning.md has the proof.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from gridtide.model.costs import DAY, HOUR, Billing, Budget, by_day, charged_since, day_of
from gridtide.model.demand import NodeState
from gridtide.model.ids import CloudName, WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import CloudRules
from gridtide.model.workers import Worker, WorkerState
from gridtide.planning.evidence import Evidence

DRAIN_ALLOWANCE: Final = 120.0
"""Seconds from the decision to drain until the queue starts no more jobs there. While no controller leads nobody
decides, and a worker drains itself when its lease ends: the longer of the two is kept back. Smaller: a slow queue
starts a job whose end is not paid for. Larger: more of each budget is never spent."""

END_ALLOWANCE: Final = 180.0
"""Seconds from the end of a worker's last job until its machine is gone, beside the cloud's settling time. Smaller and
larger: as above."""

LOOK_AHEAD: Final = 600.0
"""Seconds before the budget would be passed at which the first worker is drained. Smaller: all are drained at about the
same time, before what the first ones kept back is free for the others. Larger: more of each budget is never spent."""

WORTHWHILE: Final = 900.0
"""Seconds for which a new machine must be able to take jobs, its boot included. Smaller: machines are launched that are
drained as soon as they have booted. Larger: the last of a day's money starts nothing."""

HOPE: Final = 120.0
"""Seconds for which a worker that was drained while idle is reckoned to be gone soon. Smaller: others are drained in
its place. Larger: a drain that hangs puts theirs off."""

_LEASE: Final = 600.0
"""Of groups that have left the site file: the default of those that are in it."""

_ALMOST: Final = 1e-6
"""Money: sums of fractions are not exact."""

_TAKES_JOBS: Final = frozenset({WorkerState.INTENDED, WorkerState.LAUNCHING, WorkerState.BOOTING, WorkerState.JOINED})
"""States in which a worker takes jobs, or will."""


@dataclass(slots=True)
class Account:
    """One cloud with a budget, in one cycle.

    Machines that take jobs are summed up by their prices alone, so that what they keep back at any moment, now or
    later, is told without a second look at each of them.
    """

    cloud: CloudName
    budget: Budget
    billing: Billing
    now: float
    lateness: float
    """Seconds for which a job may still be started after the moment for which money is kept back."""
    ending: float
    """Seconds from the end of the last job to that of the machine."""
    fixed: dict[int, float] = field(default_factory=dict)
    """Day -> what machines that are gone, or leave, are charged at most."""
    relief: dict[int, float] = field(default_factory=dict)
    """Day -> what of it is not going to be charged, if those that leave and run nothing leave at once."""
    rate: float = 0.0
    """Price per second of all machines that take jobs."""
    earlier: float = 0.0
    """What those have been charged today."""
    number: int = 0
    """How many they are."""
    ends: dict[WorkerId, float] = field(default_factory=dict)
    """Of machines that leave: until when they keep back."""
    late: dict[WorkerId, float] = field(default_factory=dict)
    """Workers whose jobs take longer than ``longest_job``, and for how long they have been drained."""
    _rooms: list[tuple[float, float]] | None = None
    """Of each day: what is left, and for how many seconds a new machine would be charged."""

    @property
    def today(self) -> int:
        """The number of the day."""
        return day_of(self.now)

    def copy(self) -> Account:
        """To try something on."""
        return replace(self)

    # --- entering machines

    def enter(self, worker: Worker, evidence: Evidence) -> None:
        """One that is not gone."""
        if not worker.shape.price:
            return
        if worker.state in _TAKES_JOBS:
            self._take_up(worker.shape.price, self.now if worker.launched is None else worker.launched, 1)
        elif (launched := charged_since(worker)) is not None:
            self._enter_leaving(worker, launched, evidence)

    def _take_up(self, price: float, launched: float, number: int) -> None:
        """So many that take jobs more, or, below 0, less."""
        self._rooms = None
        self.number += number
        self.rate += number * price / HOUR
        self.earlier += number * price / HOUR * (self.now - max(min(launched, self.now), self.today * DAY))

    def _enter_leaving(self, worker: Worker, launched: float, evidence: Evidence) -> None:
        end = worker.since + self.ending
        seen = evidence.seen.get(worker.id)
        if worker.state is WorkerState.DRAINING:
            end += self.lateness + self.budget.longest_job
            taken = worker.id in evidence.snapshot.drain_acknowledged
            if seen is not None and seen.state is NodeState.ACCEPTING and not taken:
                end = max(end, self.now + self.budget.longest_job + self.ending)
            longest = self.budget.longest_job + DRAIN_ALLOWANCE
            if seen is not None and seen.running > 0 and self.now > worker.since + longest:
                self.late[worker.id] = self.now - worker.since
        self._leave(worker, launched, max(end, self.now))
        empty = seen is not None and seen.started is not None and seen.running == 0
        if worker.state is WorkerState.DRAINING and empty and self.now < worker.since + HOPE:
            self._hope(worker)

    def _leave(self, worker: Worker, launched: float, end: float) -> None:
        end = max(end, launched + self.billing.minimum) + self.billing.unit
        self.ends[worker.id] = end
        self._charge(self.fixed, worker.shape.price, launched, end)

    def _hope(self, worker: Worker) -> None:
        end = self.ends[worker.id]
        self._charge(self.relief, worker.shape.price, min(self.now + self.ending + self.billing.unit, end), end)

    def _charge(self, days: dict[int, float], price: float, start: float, end: float) -> None:
        for day, seconds in by_day(max(start, self.today * DAY), end):
            days[day] = days.get(day, 0.0) + price * seconds / HOUR

    # --- asking

    def kept_until(self, after: float) -> float:
        """Until when a machine keeps back that takes jobs ``after`` seconds from now."""
        ahead = self.lateness + self.budget.longest_job + self.ending
        return self.now + after + max(ahead, self.billing.minimum) + self.billing.unit

    def totals(self, after: float) -> dict[int, float]:
        """Day -> what may be charged on it, if those that take jobs do so until ``after`` seconds from now."""
        days = dict(self.fixed)
        days[self.today] = days.get(self.today, 0.0) + self.earlier
        for day, seconds in by_day(self.now, self.kept_until(after)):
            days[day] = days.get(day, 0.0) + self.rate * seconds
        return days

    def short(self) -> bool:
        """Whether the budget would be passed soon, if all went on to take jobs."""
        if not self.number:
            return False
        hopeful = {day: total - self.relief.get(day, 0.0) for day, total in self.totals(LOOK_AHEAD).items()}
        return max(hopeful.values()) > self.budget.per_day + _ALMOST

    def room(self, price: float) -> float:
        """How many machines of this price may be launched."""
        if not price:
            return float("inf")
        if self._rooms is None:
            after = LOOK_AHEAD + WORTHWHILE
            days = self.totals(after)
            more = by_day(self.now, self.kept_until(after))
            self._rooms = [(self.budget.per_day - days[day] + _ALMOST, seconds) for day, seconds in more]
        return max(min(left * HOUR / (price * seconds) for left, seconds in self._rooms) // 1, 0.0)

    def next_look(self) -> float:
        """When some may have to be drained, at the earliest, or a new day begins."""
        tomorrow = (self.today + 1) * DAY
        if not self.number:
            return tomorrow
        until = self.kept_until(LOOK_AHEAD)
        day = day_of(until)
        head_room = self.budget.per_day - self.totals(LOOK_AHEAD).get(day, 0.0)
        wait = min(head_room / self.rate, (day + 1) * DAY - until)
        return min(self.now + max(wait, LOOK_AHEAD / 10), tomorrow)

    def words(self, price: float = 0.0) -> str:
        """How it stands on the day with the least room for one more machine of this price, and what that would take."""
        now, then = self.totals(0.0), self.totals(LOOK_AHEAD + WORTHWHILE)
        until = self.kept_until(LOOK_AHEAD + WORTHWHILE)
        more = {day: price * seconds / HOUR for day, seconds in by_day(self.now, until)}
        day = max(more, key=lambda each: (then[each] + more[each], -each))
        have = now.get(day, 0.0)
        figures = f"{have:.2f} of {self.budget.per_day:.2f} of {self._name(day)} budget are spent or kept back"
        takes = f", one more takes up to {then[day] + more[day] - have:.2f}" if price else ""
        return f"cloud {self.cloud}: {figures}{takes}"

    def _name(self, day: int) -> str:
        if day <= self.today + 1:
            return "today's" if day == self.today else "tomorrow's"
        return f"{datetime.fromtimestamp(day * DAY, UTC):%Y-%m-%d}'s"

    # --- deciding

    def take(self, price: float, number: int) -> None:
        """So many are launched."""
        if price:
            self._take_up(price, self.now, number)

    def drained(self, worker: Worker, *, empty: bool) -> None:
        """It takes no more jobs from now on. ``empty``: nor does it run any."""
        launched = self.now if worker.launched is None else worker.launched
        self._take_up(worker.shape.price, launched, -1)
        self._leave(worker, launched, self.kept_until(0.0) - self.billing.unit)
        if empty:
            self._hope(worker)

    def recall(self, worker: Worker) -> bool:
        """Let one that leaves take jobs again. False, and nothing changed, when there is no room for that."""
        end = self.ends.get(worker.id)
        if end is None or worker.launched is None:
            return True
        before = self.fixed, self.rate, self.earlier, self.number
        self.fixed = dict(self.fixed)
        self._charge(self.fixed, -worker.shape.price, worker.launched, end)
        self._take_up(worker.shape.price, worker.launched, 1)
        if max(self.totals(LOOK_AHEAD + WORTHWHILE).values()) <= self.budget.per_day + _ALMOST:
            return True
        self.fixed, self.rate, self.earlier, self.number = before
        return False

    def why_late(self, worker: WorkerId) -> Reason:
        """Of a worker whose jobs take longer than was reckoned with."""
        hours = f"{self.budget.longest_job / HOUR:g} h"
        text = f"it was drained {self.late[worker] / HOUR:.1f} h ago and still runs jobs, for longer than longest_job"
        return Reason(Cause.BUSY, f"{text} of cloud {self.cloud} ({hours}): it is not ended, and charged all the same")


def accounts_of(evidence: Evidence) -> dict[CloudName, Account]:
    """Of all clouds that have a budget."""
    accounts = {
        name: _account(name, rules, rules.budget, evidence)
        for name, rules in sorted(evidence.rules.clouds.items())
        if rules.budget is not None
    }
    if accounts:
        for name in sorted(evidence.snapshot.workers):  # sums of fractions depend on their order
            worker = evidence.snapshot.workers[name]
            if worker.cloud in accounts:
                accounts[worker.cloud].enter(worker, evidence)
    return accounts


def _account(cloud: CloudName, rules: CloudRules, budget: Budget, evidence: Evidence) -> Account:
    leases = [group.lease for group in evidence.rules.groups.values() if cloud in group.clouds]
    account = Account(
        cloud,
        budget,
        rules.billing,
        evidence.now,
        lateness=max(DRAIN_ALLOWANCE, *leases, *([] if leases else [_LEASE])),
        ending=END_ALLOWANCE + rules.settle,
    )
    gone = evidence.snapshot.ended_costs.get(cloud, {})
    account.fixed.update({day: amount for day, amount in gone.items() if day >= account.today})
    return account
