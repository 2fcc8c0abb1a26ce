"""Each fault: nothing is broken by it, and something is once the guard against it is taken out of the production code.

So the simulator would notice. A guard is taken out at one place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from gridtide.clock import SystemClock
from gridtide.control.breaker import Breaker
from gridtide.control.cloud_hands import CloudHands
from gridtide.control.fleet import Fleet
from gridtide.control.sources import Source
from gridtide.model.demand import NodeState
from gridtide.model.ids import CloudName, GroupName, MachineId
from gridtide.model.machines import Quota
from gridtide.model.readings import Fresh, last_known
from gridtide.model.rules import CloudRules, GroupRules, PerJobPolicy, Policy, QueuePolicy
from gridtide.model.snapshot import Snapshot
from gridtide.planning import fleet, lifecycle, limits
from gridtide.planning.evidence import Evidence
from gridtide.planning.sightings import Seen, Sightings
from gridtide.sim.cloud import BootTime
from gridtide.sim.faults import Fault, FaultName, usual
from gridtide.sim.run import Run, simulate
from gridtide.sim.setting import Setting, fitted, standard_setting
from gridtide.sim.trace import Reading, Trace, TraceJob, make_trace
from gridtide.sim.watch import Rule

CLOUD, GROUP = CloudName("cloud"), GroupName("grid")
MINUTE, HOUR = 60.0, 3600.0
Patch = pytest.MonkeyPatch


def setting(
    *faults: Fault,
    maximum: int = 2,
    policy: Policy | None = None,
    settle: float = 0.0,
    boot: float = 100.0,
    quota: Quota | None = None,
) -> Setting:
    base = standard_setting(cores=(1,))
    group = replace(base.rules.groups[GROUP], maximum=maximum, policy=policy or QueuePolicy(idle_for=MINUTE))
    limit = quota or Quota()
    rules = replace(base.rules, groups={GROUP: group}, clouds={CLOUD: CloudRules(CLOUD, limit, settle)})
    model = replace(base.clouds[CLOUD], quota=limit, boot=BootTime(boot, 0.0))
    return replace(base, rules=rules, clouds={CLOUD: model}, faults=faults)


def jobs(number: int, *, apart: float, runtime: float) -> Trace:
    """So many, one after the other."""
    made = (TraceJob(each, each * apart, runtime) for each in range(number))
    return make_trace("by hand", made, Reading())


def fault(name: FaultName, *, at: float | None = 0.0, **more: Any) -> Fault:
    return replace(usual(name, at=at), **more)


def run(trace: Trace, on: Setting, seed: int = 0) -> Run:
    return simulate(fitted(trace, on), on, seed=seed)


# --- the guards


def no_breaker(patch: Patch) -> None:
    """A refusal is forgotten at once."""
    patch.setattr(Breaker, "refused", lambda *_: None)


def no_health(patch: Patch) -> None:
    """The planner is not told what a cloud refuses."""
    patch.setattr(Breaker, "health", lambda *_: {})


def no_settling(patch: Patch) -> None:
    """A listing is taken for complete at once."""
    patch.setattr(Evidence, "settle", lambda *_: 0.0)


def lost_is_refused(patch: Patch) -> None:
    """A launch whose answer is lost counts as one that made nothing."""
    patch.setattr("gridtide.control.cloud_hands._may_have_launched", lambda _: False)


def no_deadline(patch: Patch) -> None:
    """Machines may take for ever to join."""
    patch.setattr(lifecycle, "join_deadline", lambda *_: 1e9)


def silent_is_drained(patch: Patch) -> None:
    """What the queue lists as running nothing is empty, whatever else it says of the node."""
    patch.setattr(lifecycle, "_drained_and_empty", lambda _worker, seen, _evidence: seen.running == 0)


def nothing_read_back(patch: Patch) -> None:
    """A new process begins with what it sees, not with what was recorded."""

    async def load(self: Fleet, now: float) -> None:
        self._led_since = now

    patch.setattr(Fleet, "load", load)


def no_fence(patch: Patch) -> None:
    """The store takes changes from whoever led once."""
    patch.setattr("gridtide.store.memory.fence", lambda *_: None)


def by_the_wall(patch: Patch) -> None:
    """Time is what the wall clock says."""
    patch.setattr(SystemClock, "now", lambda self: self._wall())


def no_patience(patch: Patch) -> None:
    """A source that fails is asked again at once, whatever it said."""
    failed = Source._failed
    patch.setattr(Source, "_failed", lambda self, error, _wait=None: failed(self, error, 0.0))


def remembered_prices(patch: Patch) -> None:
    """What a cloud offers is asked once and kept."""
    known: dict[str, list[limits.Offering]] = {}

    def offerings(group: GroupRules, evidence: Evidence) -> list[limits.Offering]:
        return known.get(group.name) or known.setdefault(group.name, limits.offerings(group, evidence))

    patch.setattr(fleet, "offerings", offerings)


def no_word_on_the_dead(patch: Patch) -> None:
    """What the cloud says of a machine that stopped is not heard."""
    patch.setattr(lifecycle, "_died", lambda *_: False)


def last_answer_for_ever(patch: Patch) -> None:
    """A source that fails goes on saying what it said last."""
    failed = Source._failed

    def answer(self: Source[object], error: str, wait: float | None = None) -> None:
        known = last_known(self._reading)
        if known is None:
            failed(self, error, wait)
        else:
            now = self._clock.now()
            self._answered(Fresh(known.value, now, now))

    patch.setattr(Source, "_failed", answer)


def absent_is_drained(patch: Patch) -> None:
    """A worker that the queue does not list runs nothing."""
    look = Sightings.look

    def with_the_absent(self: Sightings, snapshot: Snapshot) -> None:
        look(self, snapshot)
        listed = {worker: seen for worker, seen in self.seen.items() if seen.nodes}
        for view in snapshot.queues.values():
            if isinstance(view.nodes, Fresh):
                absent = snapshot.workers.keys() - listed.keys()
                drained = {worker: Seen((), NodeState.DRAINED, 0, None, view.nodes.started) for worker in absent}
                self.seen = {**listed, **drained}

    patch.setattr(Sightings, "look", with_the_absent)


# --- the cases


@dataclass(frozen=True)
class Case:
    """A fault at work. ``seed`` is one with which the lack of the guard shows."""

    trace: Trace
    on: Setting
    guard: Callable[[Patch], None]
    rule: Rule
    seed: int = 0


LOST = fault(FaultName.LOST_LAUNCH, lasting=HOUR)
BUSY = jobs(40, apart=150.0, runtime=200.0)
LONG = jobs(2, apart=10.0, runtime=3000.0)
PATIENT: Mapping[str, Any] = {"maximum": 1, "settle": 240.0, "boot": 300.0}

CASES: Mapping[FaultName, Case] = {
    FaultName.STOCK_OUT: Case(
        BUSY, setting(fault(FaultName.STOCK_OUT, lasting=20 * MINUTE)), no_breaker, Rule.HAMMERED
    ),
    FaultName.HALF_QUOTA: Case(
        jobs(40, apart=60.0, runtime=600.0),
        setting(fault(FaultName.HALF_QUOTA), maximum=9, quota=Quota(machines=6)),
        no_health,
        Rule.HAMMERED,
    ),
    FaultName.LIST_LAG: Case(
        LONG, setting(LOST, fault(FaultName.LIST_LAG, by=200.0), **PATIENT), no_settling, Rule.MAXIMUM
    ),
    FaultName.LOST_LAUNCH: Case(LONG, setting(LOST, **PATIENT), lost_is_refused, Rule.MAXIMUM),
    FaultName.DEAD_ON_ARRIVAL: Case(
        jobs(24, apart=900.0, runtime=600.0),
        setting(fault(FaultName.DEAD_ON_ARRIVAL, lasting=2 * MINUTE, share=1.0)),
        no_deadline,
        Rule.LEFT,
    ),
    FaultName.PARTITION: Case(
        LONG,
        setting(fault(FaultName.PARTITION, at=600.0), policy=PerJobPolicy(MINUTE)),
        silent_is_drained,
        Rule.JOB_KILLED,
    ),
    FaultName.CONTROLLER_KILL: Case(
        LONG,
        setting(
            fault(FaultName.LIST_LAG, by=480.0),
            fault(FaultName.CONTROLLER_KILL, at=1.0),
            maximum=1,
            settle=480.0,
            boot=500.0,
        ),
        nothing_read_back,
        Rule.MAXIMUM,
    ),
    FaultName.TWO_CONTROLLERS: Case(
        jobs(400, apart=100.0, runtime=150.0),
        setting(fault(FaultName.TWO_CONTROLLERS, at=0.0, every=20 * MINUTE)),
        no_fence,
        Rule.DEPOSED,
        seed=1,
    ),
    FaultName.CLOCK_STEP: Case(
        LONG,
        setting(LOST, fault(FaultName.LIST_LAG, by=200.0), fault(FaultName.CLOCK_STEP, at=60.0), **PATIENT),
        by_the_wall,
        Rule.MAXIMUM,
    ),
    FaultName.API_429: Case(BUSY, setting(fault(FaultName.API_429, at=10 * MINUTE)), no_patience, Rule.HAMMERED),
    FaultName.PRICE_FLIP: Case(
        jobs(12, apart=600.0, runtime=60.0),
        setting(fault(FaultName.PRICE_FLIP, at=10 * MINUTE)),
        remembered_prices,
        Rule.OLD_PRICE,
    ),
    FaultName.SPOT_RECLAIM: Case(
        jobs(40, apart=600.0, runtime=500.0),
        setting(fault(FaultName.SPOT_RECLAIM, at=30 * MINUTE, share=1.0), maximum=3),
        no_word_on_the_dead,
        Rule.LEFT,
    ),
    FaultName.SILENT_QUEUE: Case(
        jobs(300, apart=290.0, runtime=200.0),
        setting(fault(FaultName.SILENT_QUEUE, every=10 * MINUTE, lasting=5 * MINUTE), maximum=1),
        last_answer_for_ever,
        Rule.JOB_KILLED,
        seed=1,
    ),
    FaultName.EMPTY_QUEUE: Case(
        LONG,
        setting(fault(FaultName.EMPTY_QUEUE, at=600.0, lasting=10 * MINUTE), policy=PerJobPolicy(MINUTE)),
        absent_is_drained,
        Rule.JOB_KILLED,
    ),
}


def test_every_fault_has_a_case() -> None:
    assert list(CASES) == list(FaultName)


@pytest.mark.parametrize("name", CASES)
def test_a_fault_breaks_nothing(name: FaultName) -> None:
    case = CASES[name]
    done = run(case.trace, case.on, case.seed)
    assert [str(each) for each in done.violations] == []
    assert done.strikes[name] > 0
    assert (done.killed, done.never_started, len(done.jobs)) == (0, 0, len(case.trace.jobs))


@pytest.mark.parametrize("name", CASES)
def test_without_its_guard_it_does_and_that_is_noticed(name: FaultName, monkeypatch: Patch) -> None:
    case = CASES[name]
    case.guard(monkeypatch)
    done = run(case.trace, case.on, case.seed)
    assert case.rule in {each.rule for each in done.violations}
    first = next(each for each in done.violations if each.rule is case.rule)
    assert f"seed {case.seed}" in str(first)
    assert f"event {first.number} at second" in str(first)


def test_machines_that_are_asked_to_end_only_once_are_noticed(monkeypatch: Patch) -> None:
    """No other rule sees them: their workers are known, and wait for an end that never comes."""
    asked: set[MachineId] = set()
    terminate = CloudHands.terminate

    def once(self: CloudHands, machines: Sequence[MachineId], listed: float) -> None:
        new = [machine for machine in machines if machine not in asked]
        asked.update(new)
        terminate(self, new, listed)

    on = setting(fault(FaultName.API_429, at=3000.0, lasting=30 * MINUTE))
    assert run(LONG, on).violations == ()
    monkeypatch.setattr(CloudHands, "terminate", once)
    assert {each.rule for each in run(LONG, on).violations} == {Rule.LEFT}


def test_calls_that_leave_a_frozen_process_too_late_are_noticed(monkeypatch: Patch) -> None:
    """Start: a machine for each job, at most one. Do: freeze the controller again and again, and let another take over.

    Expected: as long as calls obey their deadline (``clouds/repeating.py``) no rule is broken; otherwise it is.
    """
    often = fault(FaultName.TWO_CONTROLLERS, every=5 * MINUTE, lasting=5 * MINUTE)
    on = setting(often, maximum=1, policy=PerJobPolicy(MINUTE))
    trace = jobs(200, apart=400.0, runtime=100.0)
    assert run(trace, on).violations == ()
    monkeypatch.setattr("gridtide.sim.cloud.PATIENCE", float("inf"))
    assert Rule.MAXIMUM in {each.rule for each in run(trace, on).violations}


def test_machines_that_are_cut_off_for_longer_than_their_lease_take_no_new_job_and_are_replaced() -> None:
    on = setting(fault(FaultName.PARTITION, at=1000.0, lasting=3000.0), maximum=1)
    group = replace(on.rules.groups[GROUP], lease=600.0)
    done = run(jobs(12, apart=600.0, runtime=500.0), replace(on, rules=replace(on.rules, groups={GROUP: group})))
    assert [str(each) for each in done.violations] == []
    assert (len(done.jobs), done.killed, done.lost) == (12, 0, 0)
    # Nothing starts behind a broken network; the machine drains itself, and another one takes its place.
    assert not any(1000.0 < started < 4000.0 for started in done.jobs.started)
    assert len(done.machines) == 2


def test_a_controller_that_is_frozen_for_less_than_its_lease_goes_on_leading() -> None:
    done = run(BUSY, setting(fault(FaultName.TWO_CONTROLLERS, at=1000.0, lasting=20.0)))
    assert [str(each) for each in done.violations] == []
    assert (len(done.jobs), done.never_started) == (len(BUSY.jobs), 0)
