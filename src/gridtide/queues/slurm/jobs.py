"""Jobs as ``squeue --json`` tells them: what waits, counted by what it asks for; and what is where."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

from gridtide.queues.slurm.hostlist import count_tasks, expand
from gridtide.queues.slurm.values import Record, Surprising, name, number, text, whole, words

FINISHED: Final = frozenset(
    {
        "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
        "PREEMPTED", "REVOKED", "TIMEOUT", "UPDATE_DB",
    }
)  # fmt: skip
"""A job in none but these (and PENDING) holds no node. Whatever else it is, COMPLETING and words of later versions
included, it counts as running where it is."""

_HELD: Final = frozenset({"REQUEUE_HOLD", "SPECIAL_EXIT", "REQUEUE_FED", "RESV_DEL_HOLD", "REVOKED"})
"""Flags of pending jobs that nothing but a person's word lets go on."""

NOT_FOR_MACHINES: Final = frozenset(
    {
        "ACCOUNTINGPOLICY", "ACCOUNTNOTALLOWED", "BADCONSTRAINTS", "BEGINTIME", "BURSTBUFFEROPERATION",
        "BURSTBUFFERRESOURCES", "BURSTBUFFERSTAGEIN", "CLEANING", "DEADLINE", "DEPENDENCY", "DEPENDENCYNEVERSATISFIED",
        "FEDJOBLOCK", "FRONTENDDOWN", "INACTIVELIMIT", "INVALIDACCOUNT", "INVALIDQOS", "JOBARRAYTASKLIMIT",
        "JOBHELDADMIN", "JOBHELDUSER", "JOBHOLDMAXREQUEUE", "JOBLAUNCHFAILURE", "LICENSES", "MPIPORTSBUSY",
        "NONZEROEXITCODE", "OUTOFMEMORY", "PARTITIONDOWN", "PARTITIONINACTIVE", "PARTITIONTIMELIMIT", "PROLOG",
        "RAISEDSIGNAL", "RESERVATION", "RESERVATIONDELETED", "RESERVATIONINVALID", "SYSTEMFAILURE", "TIMELIMIT",
    }
)  # fmt: skip
"""Reasons for which more machines would not start a job. docs/explanation/slurm-queue.md says of each why. A reason
that is not here counts as waiting for machines: one that is unknown costs a machine, not a job that never starts."""

REQUEUE_PAUSE: Final = 150.0
"""Seconds. slurmctld lets a job whose node was lost begin again after two minutes (the life of its credential). It
counts at once, so that its machine is replaced in the meantime; jobs that shall begin later do not."""

_LIMITS: Final = ("QOS", "ASSOC", "MAX")
"""So begin the names of the more than 150 reasons that mean a limit of user, account or QOS."""


@dataclass(frozen=True, slots=True, order=True)
class Ask:
    """What jobs that look alike ask for. Amounts are for each node."""

    cores: int
    memory: int
    """MiB."""
    gpus: int
    nodes: int
    partitions: str
    features: str
    exclusive: bool
    minutes: float | None
    obstacle: str
    """What no machine of ours has; empty when there is nothing of the kind."""


@dataclass(slots=True)
class Jobs:
    """Of one ``squeue``."""

    waiting: dict[Ask, tuple[int, float]] = field(default_factory=dict)
    """How many, and since when the oldest."""
    placed: dict[str, int] = field(default_factory=dict)
    """Jobs by node: running, suspended, completing, being configured."""
    _arrays: dict[int, list[tuple[Ask, int, int, float]]] = field(default_factory=dict)
    _active: dict[int, int] = field(default_factory=dict)

    def take(self, record: Record, now: float) -> None:
        """One job. Surprising, or ValueError, for what no known Slurm writes."""
        states = words(record, "job_state")
        if not states:
            raise Surprising("job_state is empty")
        array = whole(record, "array_job_id")
        nodes = text(record, "nodes")
        if nodes and not states <= FINISHED | {"PENDING"}:
            for node in expand(nodes):
                self.placed[node] = self.placed.get(node, 0) + 1
            if array:
                self._active[array] = self._active.get(array, 0) + 1
        if "PENDING" in states and not states & _HELD and _waits(record, now):
            self._add(record, array)

    def _add(self, record: Record, array: int) -> None:
        tasks = text(record, "array_task_string")
        count, limit = count_tasks(tasks) if tasks else (1, None)
        ask = ask_of(record)
        since = number(record, "eligible_time") or number(record, "submit_time") or 0.0
        if limit is None:
            self._count(ask, count, since)
        else:
            self._arrays.setdefault(array, []).append((ask, count, limit, since))

    def _count(self, ask: Ask, count: int, since: float) -> None:
        before, oldest = self.waiting.get(ask, (0, math.inf))
        self.waiting[ask] = (before + count * ask.nodes, min(oldest, since))

    def finish(self) -> None:
        """All jobs were taken: what may run of limited arrays beside what runs of them."""
        for array, parts in self._arrays.items():
            for ask, count, limit, since in parts:
                allowed = max(0, min(count, limit - self._active.get(array, 0)))
                if allowed:
                    self._count(ask, allowed, since)
                self._active[array] = self._active.get(array, 0) + allowed


def _waits(record: Record, now: float) -> bool:
    """Whether it could start now if there were machines."""
    if record.get("hold") is True or number(record, "priority") == 0:
        return False
    reason = text(record, "state_reason").upper()
    if (number(record, "eligible_time") or 0.0) > now:
        soon = (number(record, "eligible_time") or 0.0) <= now + REQUEUE_PAUSE
        return soon and whole(record, "restart_cnt") > 0 and reason in ("BEGINTIME", "NONE", "")
    return reason not in NOT_FOR_MACHINES and not reason.startswith(_LIMITS)


def ask_of(record: Record) -> Ask:
    """What one job asks for."""
    nodes = max(1, whole(record, "node_count", 1))
    asked = _resources(text(record, "tres_req_str"))
    tasks = max(1, whole(record, "tasks", 1))
    gpus, obstacle = _gres(record, nodes, tasks)
    cores = asked.get("cpu") or whole(record, "cpus", 1)
    minutes = number(record, "time_limit")
    return Ask(
        cores=max(1, -(-cores // nodes), whole(record, "minimum_cpus_per_node")),
        memory=-(-asked.get("mem", 0) // nodes),
        gpus=max(gpus, -(-asked.get("gres/gpu", 0) // nodes)),
        nodes=nodes,
        partitions=name(record, "partition"),
        features=text(record, "features"),
        exclusive=_exclusive(record),
        minutes=None if minutes is None or math.isinf(minutes) else minutes,
        obstacle=obstacle or _obstacle(record),
    )


def _exclusive(record: Record) -> bool:
    """22.05 says "none" where it means that nodes are shared with nobody; so do lists of later versions."""
    return "NONE" in words(record, "shared") if "shared" in record else False


def _obstacle(record: Record) -> str:
    asked = text(record, "required_nodes")
    if asked:
        return f"asks for nodes by name ({asked[:40]})"
    reservation = text(record, "resv_name")
    if reservation:
        return f"asks for reservation {reservation[:40]}"
    if whole(record, "minimum_tmp_disk_per_node"):
        return "asks for temporary disk"
    return ""


_UNITS: Final = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2, "P": 1024**3}


def _resources(listed: str) -> dict[str, int]:
    """``cpu=2,mem=200M,node=1``: numbers; memory in MiB, rounded up (without a unit it is MiB already)."""
    found: dict[str, int] = {}
    for part in listed.split(",") if listed else ():
        key, equals, value = part.partition("=")
        unit = value[-1:].upper() if value[-1:].isalpha() else ""
        try:
            amount = float(value.removesuffix(value[-1:]) if unit else value)
            found[key] = math.ceil(amount * (_UNITS[unit] if unit else 1))
        except (ValueError, KeyError, OverflowError):
            raise Surprising(f"tres_req_str is {listed[:60]!r}") from None
        if not equals or amount < 0:
            raise Surprising(f"tres_req_str is {listed[:60]!r}")
    return found


def _gres(record: Record, nodes: int, tasks: int) -> tuple[int, str]:
    """GPUs for each node; and what else is asked for, which no machine of ours has."""
    most = 0
    for key, share in (("tres_per_node", 1.0), ("tres_per_job", 1 / nodes), ("tres_per_task", tasks / nodes)):
        for part in text(record, key).split(","):
            if not part.startswith("gres"):
                continue
            kind, _, amount = part[5:].replace("=", ":").rpartition(":")
            kind, amount = (kind, amount) if amount.isdigit() else (part[5:], "1")
            if kind.partition(":")[0] != "gpu":
                return 0, f"asks for {part[:40]}"
            if ":" in kind:
                return 0, f"asks for a kind of GPU ({kind.partition(':')[2][:40]})"
            most = max(most, math.ceil(int(amount) * share))
    if text(record, "tres_per_socket"):
        return 0, f"asks for {text(record, 'tres_per_socket')[:40]} per socket"
    return most, ""


Reduced = dict[str, Any]
"""What the reading process hands over, as JSON."""


def to_json(jobs: Jobs) -> Reduced:
    """Fields of :class:`Ask` in their order, then count and oldest."""
    rows = [
        [a.cores, a.memory, a.gpus, a.nodes, a.partitions, a.features, a.exclusive, a.minutes, a.obstacle, count, since]
        for a, (count, since) in sorted(jobs.waiting.items(), key=lambda item: (item[1][1], repr(item[0])))
    ]
    return {"waiting": rows, "placed": jobs.placed}


def from_json(said: Reduced) -> Jobs:
    """The same again. It comes from our own process: KeyError or TypeError would be a defect."""
    return Jobs({Ask(*row[:9]): (row[9], row[10]) for row in said["waiting"]}, dict(said["placed"]))
