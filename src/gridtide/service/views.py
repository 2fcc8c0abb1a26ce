"""Model values as JSON: pure functions, also for the CLI's tests. Times are seconds since the epoch.

No NaN and no infinity leaves here: what is no finite number is null.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gridtide.control.api import Cycle, Explanation, WorkerCounts
from gridtide.control.evidence import quality, trouble
from gridtide.model.actions import Action, Advance, Drain, Launch, Plan, Terminate, TerminateStray, Undrain
from gridtide.model.boots import Boot
from gridtide.model.demand import Attribute, DemandRow, Node
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.machines import MachineState
from gridtide.model.readings import Reading, last_known
from gridtide.model.reasons import Reason
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import GroupRules, SiteRules, Wishes
from gridtide.model.snapshot import CloudView, Heartbeat, QueueView, Snapshot
from gridtide.model.workers import Worker, WorkerState
from gridtide.pilot.protocol import Assignment, JobRecord, JobState, OutputFile, SubmissionRecord
from gridtide.planning.eta import Eta
from gridtide.service.glance import Glance
from gridtide.store.ports import AccessToken, Json, RecordedEvent

JsonObject = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Source:
    """One reading, for people: who was asked, how good the answer is, how old what is believed is."""

    source: str
    quality: str
    """``fresh``, ``unconfirmed``, ``stale`` or ``missing``."""
    age: float | None
    error: str | None

    def view(self) -> JsonObject:
        """As JSON."""
        return {"source": self.source, "quality": self.quality, "age": self.age, "error": self.error}


def finite(value: float | None) -> float | None:
    """The number, or None when JSON has no name for it."""
    return value if value is not None and math.isfinite(value) else None


def plain(value: Json) -> Json:
    """Any JSON-like value with plain containers and finite numbers."""
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def reason(value: Reason | None) -> Json:
    """Code and sentence."""
    return None if value is None else {"cause": str(value.cause), "text": value.text}


def resources(value: Resources) -> JsonObject:
    """Cores, MiB, MiB, GPUs."""
    return {"cores": value.cores, "memory": value.memory, "disk": value.disk, "gpus": value.gpus}


def shape(value: Shape) -> JsonObject:
    """Name, resources and price per hour."""
    return {"name": value.name, "resources": resources(value.resources), "price": finite(value.price)}


def attributes(value: Mapping[str, Attribute]) -> JsonObject:
    """A host as it described itself."""
    return {name: finite(item) if isinstance(item, float) else item for name, item in value.items()}


# --- the fleet


def boot(value: Boot | None) -> Json:
    """How long it took to join, in phases that add up; null when it has not."""
    if value is None:
        return None
    phases: dict[str, Json] = {phase.value: finite(seconds) for phase, seconds in value.phases.items()}
    return {"seconds": finite(value.seconds), "phases": phases}


def eta(rules: GroupRules, value: Eta) -> JsonObject:
    """How long a job submitted now would wait. ``seconds`` is null where nothing is known, or something is in the way;
    ``boot.shape`` and ``boot.image`` are null where boots of any shape or image had to do."""
    times = None if value.known is None else value.known.times
    seconds: Json = None
    if value.median is not None:
        seconds = {"median": finite(value.median), "p95": finite(value.p95)}
    known: Json = None
    if value.known is not None and times is not None:
        known = {
            "count": times.count,
            "since": finite(times.since),
            "median": finite(times.median),
            "p95": finite(times.p95),
            "shape": value.known.key.shape,
            "image": value.known.key.image,
        }
    return {
        "group": rules.name,
        "free": value.free,
        "waiting": value.waiting,
        "seconds": seconds,
        "cloud": value.cloud,
        "shape": value.shape,
        "image": rules.image,
        "policy_waits": finite(value.patience),
        "boot": known,
        "obstacle": reason(value.obstacle),
    }


def worker(value: Worker, *, now: float, why: Reason | None = None) -> JsonObject:
    """A worker. ``why`` is the last plan's word on why it stays as it is; ``reason`` why it entered its state."""
    return {
        "id": value.id,
        "group": value.group,
        "state": str(value.state),
        "since": finite(value.since),
        "age": finite(max(0.0, now - value.created)),
        "created": finite(value.created),
        "launched": finite(value.launched),
        "joined": finite(value.joined),
        "reason": reason(value.reason),
        "why": reason(why),
        "cloud": value.cloud,
        "zone": value.zone,
        "machine": value.machine,
        "shape": shape(value.shape),
        "image": value.image,
        "queue": value.queue,
        "generation": value.generation,
        "single_use": value.single_use,
        "drain_wanted": value.drain_wanted,
        "force_wanted": value.force_wanted,
    }


def heartbeat(value: Heartbeat | None, *, now: float) -> Json:
    """The worker's own last word."""
    if value is None:
        return None
    return {
        "at": finite(value.at),
        "age": finite(max(0.0, now - value.at)),
        "running": value.running,
        "load": finite(value.load),
        "draining": value.draining,
    }


def limits(rules: GroupRules, wishes: Wishes) -> dict[str, int | None]:
    """Minimum, maximum and desired in force: operators' wishes before the site file."""
    return {
        "minimum": rules.minimum if wishes.minimum is None else wishes.minimum,
        "maximum": rules.maximum if wishes.maximum is None else wishes.maximum,
        "desired": wishes.desired,
    }


def group(rules: GroupRules, wishes: Wishes, workers: WorkerCounts, seen: Glance | None) -> JsonObject:
    """A group: limits, what operators asked for, what waits and runs, how many workers are where, and why no more."""
    why = None if seen is None else seen.cycle.plan.why_group.get(rules.name)
    load = None if seen is None else seen.loads.get(rules.name)
    return {
        "name": rules.name,
        "queue": rules.queue,
        "clouds": list(rules.clouds),
        "shapes": list(rules.shapes),
        "generation": rules.generation,
        **limits(rules, wishes),
        "hold": wishes.hold,
        "closing": wishes.closing,
        "file": {"minimum": rules.minimum, "maximum": rules.maximum},
        "share": rules.share,
        "waiting": None if load is None else load.waiting,
        "running": None if load is None else load.running,
        "workers": {
            str(state): workers.get((rules.name, state), 0) for state in WorkerState if state is not WorkerState.GONE
        },
        "reason": reason(why),
    }


def source(name: str, reading: Reading[object], now: float) -> Source:
    """One reading."""
    known = last_known(reading)
    age = None if known is None else finite(max(0.0, now - known.started))
    return Source(name, quality(reading), age, trouble(reading) or None)


def sources(snapshot: Snapshot, now: float) -> list[Source]:
    """Every reading of a cycle: ``queue/NAME/demand``, ``queue/NAME/nodes``, ``cloud/NAME/machines``, ..."""
    found: list[Source] = []
    for queue_name, view in snapshot.queues.items():
        found.append(source(f"queue/{queue_name}/demand", view.demand, now))
        found.append(source(f"queue/{queue_name}/nodes", view.nodes, now))
    for cloud_name, cloud_view in snapshot.clouds.items():
        found.append(source(f"cloud/{cloud_name}/machines", cloud_view.machines, now))
        found.append(source(f"cloud/{cloud_name}/shapes", cloud_view.shapes, now))
    return found


def waiting(view: QueueView) -> int | None:
    """Waiting jobs as last believed; None when they were never read."""
    known = last_known(view.demand)
    return None if known is None else sum(row.count for row in known.value)


def demand_row(value: DemandRow, why: Reason | None) -> JsonObject:
    """Waiting jobs of one look."""
    return {
        "label": value.label,
        "count": value.count,
        "need": resources(value.need),
        "oldest_since": finite(value.oldest_since),
        "walltime": finite(value.walltime),
        "runs_on": [{"group": name, "shape": item} for name, item in sorted(value.runs_on)],
        "reason": reason(why),
    }


def node(value: Node) -> JsonObject:
    """A machine as its queue sees it."""
    return {
        "name": value.name,
        "worker": value.worker,
        "state": str(value.state),
        "total": resources(value.total),
        "free": resources(value.free),
        "running": value.running,
        "idle_since": finite(value.idle_since),
    }


def queue(name: str, view: QueueView, plan: Plan, now: float) -> JsonObject:
    """A queue: what waits and what it runs on, as last believed (null when never read)."""
    demand = last_known(view.demand)
    nodes = last_known(view.nodes)
    reasons = {label: why for (queue_name, label), why in plan.why_demand.items() if queue_name == name}
    return {
        "name": name,
        "waiting": waiting(view),
        "demand": None if demand is None else [demand_row(row, reasons.get(row.label)) for row in demand.value],
        "nodes": None if nodes is None else [node(item) for item in nodes.value],
        "sources": [source("demand", view.demand, now).view(), source("nodes", view.nodes, now).view()],
    }


def machine_counts(view: CloudView) -> dict[str, int]:
    """``ours`` and ``foreign`` machines that hold resources; empty when never read."""
    known = last_known(view.machines)
    if known is None:
        return {}
    held = [item for item in known.value if item.state is not MachineState.GONE]
    ours = sum(item.worker is not None for item in held)
    return {"ours": ours, "foreign": len(held) - ours}


def cloud(name: str, view: CloudView, now: float) -> JsonObject:
    """A cloud: its shapes, its machines counted, and which offers it refuses at present."""
    shapes = last_known(view.shapes)
    machines = last_known(view.machines)
    states: Json = None
    if machines is not None:
        states = dict(sorted(Counter(str(item.state) for item in machines.value).items()))
    refused: list[Json] = [
        {
            "zone": zone,
            "shape": shape_name,
            "allowed": health.allowed,
            "until": finite(health.until),
            "error": health.error,
        }
        for (zone, shape_name), health in (view.health or {}).items()
    ]
    return {
        "name": name,
        "zones": list(view.zones),
        "shapes": None if shapes is None else [shape(item) for item in shapes.value],
        "machines": machine_counts(view) or None,
        "states": states,
        "refused": refused,
        "sources": [source("machines", view.machines, now).view(), source("shapes", view.shapes, now).view()],
    }


def status(
    site: str,
    rules: SiteRules,
    workers: WorkerCounts,
    wishes: Mapping[GroupName, Wishes],
    seen: Glance | None,
    jobs: Mapping[JobState, int] | None,
    now: float,
) -> JsonObject:
    """The site at a glance. ``jobs`` and ``cycle`` are null when there is no pilot queue and no cycle yet."""
    cycle = None if seen is None else seen.cycle
    return {
        "site": site,
        "now": finite(now),
        "jobs": None if jobs is None else {str(state): jobs.get(state, 0) for state in JobState},
        "groups": [group(item, wishes.get(name, Wishes()), workers, seen) for name, item in rules.groups.items()],
        "stuck": [] if seen is None else [_stuck(*item) for item in seen.stuck],
        "spending": [] if seen is None else list(seen.spending),
        "sources": [] if cycle is None else [item.view() for item in sources(cycle.snapshot, now)],
        "cycle": None
        if cycle is None
        else {
            "number": cycle.number,
            "seconds": finite(cycle.seconds),
            "age": finite(max(0.0, now - cycle.snapshot.now)),
        },
    }


def _stuck(queue_name: str, row: DemandRow, why: Reason) -> JsonObject:
    return {"queue": queue_name, "label": row.label, "count": row.count, "reason": reason(why)}


def action(value: Action) -> JsonObject:
    """One action of a plan, with its kind and its reason."""
    fields: JsonObject
    match value:
        case Launch():
            fields = {
                "group": value.group,
                "cloud": value.cloud,
                "shape": shape(value.shape),
                "zone": value.zone,
                "generation": value.generation,
                "single_use": value.single_use,
                "count": value.count,
            }
        case Advance():
            fields = {
                "worker": value.worker,
                "before": str(value.before),
                "after": str(value.after),
                "machine": value.machine,
            }
        case Drain() | Undrain():
            fields = {"worker": value.worker}
        case Terminate():
            fields = {"worker": value.worker, "before": str(value.before)}
        case TerminateStray():
            fields = {"cloud": value.cloud, "machine": value.machine, "worker": value.worker}
    return {"action": _ACTION_NAMES[type(value)], **fields, "reason": reason(value.reason)}


_ACTION_NAMES: dict[type[Action], str] = {
    Launch: "launch",
    Advance: "advance",
    Drain: "drain",
    Undrain: "undrain",
    Terminate: "terminate",
    TerminateStray: "terminate-stray",
}


def plan(cycle: Cycle, now: float) -> JsonObject:
    """A dry run: every action, and why everything else stays as it is."""
    why_worker: Mapping[WorkerId, Reason] = cycle.plan.why_worker
    return {
        "now": finite(cycle.snapshot.now),
        "actions": [action(item) for item in cycle.plan.actions],
        "groups": {name: reason(why) for name, why in cycle.plan.why_group.items()},
        "workers": {name: reason(why) for name, why in why_worker.items()},
        "demand": [
            {"queue": queue_name, "label": label, "reason": reason(why)}
            for (queue_name, label), why in cycle.plan.why_demand.items()
        ],
        "look_again": finite(cycle.plan.look_again),
        "sources": [item.view() for item in sources(cycle.snapshot, now)],
    }


def explanation(value: Explanation) -> JsonObject:
    """Why something is as it is."""
    return {
        "subject": value.subject,
        "now": value.now,
        "because": value.because,
        "history": [{"at": finite(at), "text": text} for at, text in value.history],
    }


def event(value: RecordedEvent) -> JsonObject:
    """One line of the audit log."""
    return {
        "number": value.number,
        "at": finite(value.event.at),
        "kind": value.event.kind,
        "subject": value.event.subject,
        "actor": value.event.actor,
        "group": value.event.group,
        "reason": reason(value.event.reason),
        "text": value.event.text,
        "evidence": plain(value.event.evidence),
    }


def token(value: AccessToken) -> JsonObject:
    """A token without anything that could be used in its place."""
    return {
        "id": value.id,
        "user": value.user,
        "role": str(value.role),
        "created": finite(value.created),
        "expires": finite(value.expires),
        "revoked": value.revoked,
    }


# --- jobs


def job(value: JobRecord) -> JsonObject:
    """A job for people."""
    return {
        "id": value.id,
        "user": value.user,
        "state": str(value.state),
        "name": value.name,
        "need": resources(value.need),
        "priority": value.priority,
        "submitted": finite(value.submitted),
        "started": finite(value.started),
        "ended": finite(value.ended),
        "attempt": value.attempt,
        "worker": value.worker,
        "exit_code": value.exit_code,
        "reason": value.reason,
        "cpu_seconds": finite(value.cpu_seconds),
        "peak_memory": value.peak_memory,
    }


def job_explanation(value: JobRecord) -> Explanation:
    """Why a job is as it is, from its record."""
    history = [(value.submitted, f"submitted by {value.user}")]
    if value.started is not None:
        history.append((value.started, f"attempt {value.attempt} began on {value.worker or 'a worker'}"))
    if value.ended is not None:
        history.append((value.ended, f"ended: {value.state}"))
    return Explanation(subject=value.id, now=str(value.state), because=value.reason, history=history)


def submission(value: SubmissionRecord) -> JsonObject:
    """A submission with its jobs counted by state."""
    return {
        "number": value.number,
        "user": value.user,
        "name": value.name,
        "submitted": finite(value.submitted),
        "jobs": {str(state): value.counts.get(state, 0) for state in JobState},
    }


def output(value: OutputFile) -> JsonObject:
    """A kept result."""
    return {"name": value.name, "size": value.size, "digest": value.digest}


def assignment(value: Assignment | None) -> Json:
    """A job for an agent (docs/worker-protocol.md)."""
    if value is None:
        return None
    return {
        "job": value.job,
        "attempt": value.attempt,
        "executable": value.executable,
        "arguments": list(value.arguments),
        "environment": dict(value.environment),
        "inputs": [
            {"name": item.name, "digest": item.digest, "size": item.size, "executable": item.executable}
            for item in value.inputs
        ],
        "outputs": list(value.outputs),
        "cores": value.cores,
        "memory": value.memory,
        "walltime": value.walltime,
    }
