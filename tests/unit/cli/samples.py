"""Model values and the documents that the service makes of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from gridtide.control.api import Cycle, Explanation
from gridtide.model.actions import Advance, Launch, Plan, Terminate
from gridtide.model.boots import BootKey, BootTimes
from gridtide.model.demand import DemandRow
from gridtide.model.ids import CloudName, Generation, GroupName, MachineId, QueueName, ShapeName, WorkerId, Zone
from gridtide.model.machines import Quota
from gridtide.model.readings import Fresh, Missing, Stale
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import CloudRules, GroupRules, QueuePolicy, SiteRules, Wishes
from gridtide.model.snapshot import CloudView, QueueView, Snapshot
from gridtide.model.workers import Worker, WorkerState
from gridtide.pilot.protocol import JobId, JobRecord, JobState, OutputFile, SubmissionRecord
from gridtide.planning.eta import Eta, Known
from gridtide.service import views
from gridtide.service.glance import glance
from gridtide.store.ports import AccessToken, Event, Json, RecordedEvent, Role

NOW = 1_700_000_000.0
GRID = GroupName("grid")
POOL = QueueName("pool")
LOCAL = CloudName("local")
SMALL = Shape(ShapeName("small"), Resources(1, 1024, 2048))
BUSY = Reason(Cause.BUSY, "it runs 1 job")
DEMAND = Reason(Cause.DEMAND, "3 jobs wait and 1 worker is coming")


def worker(name: str = "grid-k3v9q2ab", state: WorkerState = WorkerState.JOINED) -> Worker:
    return Worker(
        id=WorkerId(name),
        group=GRID,
        cloud=LOCAL,
        shape=SMALL,
        zone=Zone("a"),
        generation=Generation("g1"),
        single_use=False,
        state=state,
        since=NOW - 200,
        created=NOW - 260,
        reason=Reason(Cause.JOINED, "the machine joined"),
        machine=MachineId("m-1"),
    )


RULES = SiteRules(
    name="torino",
    groups={
        GRID: GroupRules(
            name=GRID,
            queue=POOL,
            clouds=(LOCAL,),
            shapes=(),
            generation=Generation("g1"),
            minimum=0,
            maximum=8,
            policy=QueuePolicy(),
        )
    },
    clouds={LOCAL: CloudRules(LOCAL, Quota(), 0.0)},
    queues=(POOL,),
)

ROW = DemandRow(Resources(1, 1024), 3, NOW - 5, frozenset(), "1 core, 1 GiB memory")

CYCLE = Cycle(
    number=7,
    snapshot=Snapshot(
        now=NOW - 1,
        started=NOW - 900,
        queues={POOL: QueueView(Fresh((ROW,), NOW - 2, NOW - 1), Missing("not read yet", NOW - 900))},
        clouds={
            LOCAL: CloudView(
                Stale(Fresh((), NOW - 70, NOW - 69), "timed out after 20 s", NOW - 60), Fresh((), NOW, NOW)
            )
        },
        workers={},
        heartbeats={},
        wishes={},
        memory={},
    ),
    plan=Plan(
        actions=(
            Launch(GRID, LOCAL, SMALL, Zone("a"), Generation("g1"), False, 2, DEMAND),
            Advance(WorkerId("grid-k3v9q2ab"), WorkerState.DRAINING, WorkerState.DRAINED, BUSY, MachineId("m-1")),
            Terminate(WorkerId("grid-zzzzzzzz"), WorkerState.DRAINED, BUSY),
        ),
        why_group={GRID: DEMAND},
        why_demand={("pool", "1 core, 1 GiB memory"): DEMAND},
    ),
    seconds=0.01,
)

JOBS = {JobState.WAITING: 3, JobState.RUNNING: 1, JobState.DONE: 2}


def status(*workers: Worker, jobs: dict[JobState, int] | None = None) -> Json:
    counts = Counter((one.group, one.state) for one in workers)
    return views.status("torino", RULES, counts, {}, glance(CYCLE, RULES), JOBS if jobs is None else jobs, NOW)


def groups(wishes: Wishes | None = None) -> Json:
    one = {(GRID, WorkerState.JOINED): 1}
    return {"groups": [views.group(RULES.groups[GRID], wishes or Wishes(), one, glance(CYCLE, RULES))]}


def workers(*some: Worker, why: Reason = BUSY) -> Json:
    return {"workers": [views.worker(one, now=NOW, why=why) for one in some], "total": len(some)}


def plan(*, empty: bool = False) -> Json:
    return views.plan(Cycle(8, CYCLE.snapshot, Plan(), 0.0) if empty else CYCLE, NOW)


def explanation() -> Json:
    history = [(NOW - 300, "recorded"), (NOW - 200, "the machine joined")]
    return views.explanation(Explanation("grid-k3v9q2ab", "joined, since 3 min", "it runs 1 job", history))


def eta(**changes: object) -> Json:
    """Of a site that is calm and has seen twelve boots of the kind."""
    key = BootKey(LOCAL, SMALL.name, None)
    times = BootTimes(12, 65.0, 95.5, NOW - 3600, 95.5)
    calm = Eta(False, 0, LOCAL, SMALL.name, Known(key, times), 0.0, None)
    return views.eta(RULES.groups[GRID], replace(calm, **changes))  # type: ignore[arg-type]


def event(number: int = 1, text: str = "launched 2 workers") -> Json:
    happened = Event(NOW - 60, "launch", "grid", "controller", DEMAND, text)
    return views.event(RecordedEvent(number, happened))


def job(name: str = "12.0", state: JobState = JobState.RUNNING, label: str = "spectrum") -> Json:
    return views.job(
        JobRecord(
            id=JobId(name),
            user="rosa",
            state=state,
            name=label,
            need=Resources(1, 1024),
            priority=0,
            submitted=NOW - 100,
            started=NOW - 40,
            ended=None,
            attempt=1,
            worker=WorkerId("grid-k3v9q2ab"),
            exit_code=None,
            reason="runs on grid-k3v9q2ab",
        )
    )


def submission(**counts: int) -> Json:
    return views.submission(
        SubmissionRecord(12, "rosa", "spectrum", NOW, {JobState(name): count for name, count in counts.items()})
    )


def output(name: str, digest: str, size: int) -> Json:
    return views.output(OutputFile(name, size, digest))


def token(identity: str, *, expires: float | None = None, revoked: bool = False) -> Json:
    return views.token(AccessToken(identity, "rosa", Role.SUBMITTER, b"x" * 32, NOW - 3600, expires, revoked))
