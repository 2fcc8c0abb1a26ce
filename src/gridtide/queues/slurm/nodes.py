"""Nodes as ``sinfo --json`` (22.05) or ``scontrol show nodes --json`` tells them, and what their states mean to us."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from gridtide.model.demand import Node, NodeState
from gridtide.model.ids import WorkerId
from gridtide.model.resources import Resources
from gridtide.queues.slurm.values import Record, Surprising, name, names, number, text, whole, words

TEMPLATE: Final = "TEMPLATE-"
"""Names of nodes that only stand for machines that could be made. No worker's id has a capital letter."""

_WORKER: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class Meaning(Enum):
    """What one word of a node's state says. The strongest word decides; they are in that order."""

    AWAY = "nothing is known, or it is not up: no evidence of anything"
    CLOSED = "takes no new job"
    SPOKEN_FOR = "up, but what is free is promised to somebody: neither room for jobs nor idle"
    BUSY = "runs something"
    OPEN = "takes jobs"
    PLAIN = "says nothing about that"


WORDS: Final[Mapping[str, Meaning]] = MappingProxyType(
    {
        # states
        "IDLE": Meaning.OPEN,
        "MIXED": Meaning.BUSY,
        "ALLOCATED": Meaning.BUSY,
        "DOWN": Meaning.AWAY,
        "UNKNOWN": Meaning.AWAY,
        "ERROR": Meaning.AWAY,
        "FUTURE": Meaning.AWAY,
        "INVALID": Meaning.AWAY,
        # flags
        "NOT_RESPONDING": Meaning.AWAY,
        "NO_RESPOND": Meaning.AWAY,
        "INVALID_REG": Meaning.AWAY,
        "POWER_UP": Meaning.AWAY,
        "POWERING_UP": Meaning.AWAY,
        "POWER_DOWN": Meaning.AWAY,
        "POWERED_DOWN": Meaning.AWAY,
        "POWERING_DOWN": Meaning.AWAY,
        "REBOOT_ISSUED": Meaning.AWAY,
        "DRAIN": Meaning.CLOSED,
        "DRAINED": Meaning.CLOSED,
        "DRAINING": Meaning.CLOSED,
        "POWER_DRAIN": Meaning.CLOSED,
        "FAIL": Meaning.CLOSED,
        "REBOOT_REQUESTED": Meaning.SPOKEN_FOR,
        "REBOOT": Meaning.SPOKEN_FOR,
        "MAINTENANCE": Meaning.SPOKEN_FOR,
        "MAINT": Meaning.SPOKEN_FOR,
        "RESERVED": Meaning.SPOKEN_FOR,
        "RES": Meaning.SPOKEN_FOR,
        "PLANNED": Meaning.SPOKEN_FOR,
        "BLOCKED": Meaning.SPOKEN_FOR,
        "COMPLETING": Meaning.BUSY,
        "PERFCTRS": Meaning.BUSY,
        "CLOUD": Meaning.PLAIN,
        "DYNAMIC_NORM": Meaning.PLAIN,
        "DYNAMIC_FUTURE": Meaning.PLAIN,
        "REBOOT_CANCELED": Meaning.PLAIN,
        "RESUME": Meaning.PLAIN,
        "UNDRAIN": Meaning.PLAIN,
        "EXTERNAL": Meaning.PLAIN,
    }
)
"""docs/explanation/slurm-queue.md says of each word why. A word that is not here counts as AWAY: never evidence."""

POWER_DOWN: Final = frozenset({"POWER_DOWN", "POWERING_DOWN", "POWERED_DOWN"})
"""What Slurm calls a node that it has suspended."""

BASES: Final = frozenset({"IDLE", "MIXED", "ALLOCATED", "DOWN", "UNKNOWN", "ERROR", "FUTURE", "INVALID"})
"""Each node is in just one of these; one in none of them, or in two, is not understood: AWAY."""


def read_state(said: frozenset[str], running: int) -> tuple[NodeState, bool]:
    """State, and whether what is free is there for jobs. ``running`` are jobs from every witness."""
    meanings = {WORDS.get(word, Meaning.AWAY) for word in said}
    if len(said & BASES) != 1 or Meaning.AWAY in meanings:
        return NodeState.UNAVAILABLE, False
    if Meaning.CLOSED in meanings:
        busy = running > 0 or Meaning.BUSY in meanings
        return (NodeState.DRAINING if busy else NodeState.DRAINED), False
    return NodeState.ACCEPTING, Meaning.SPOKEN_FOR not in meanings


def node_of(
    record: Record, placed: Mapping[str, int], marker: str, lent: Mapping[str, WorkerId] | None = None
) -> Node | None:
    """One node; None for a template. ``placed``: jobs by node, as squeue has them; ``marker``: our nodes' feature.

    ``lent``: with power saving, the workers that stand for nodes of slurm.conf. Such a node is never idle to us: Slurm
    says when it goes.

    Surprising when it is not what any known Slurm writes.
    """
    called = name(record, "name")
    if called.startswith(TEMPLATE):
        return None
    said = words(record, "state", "state_flags")
    features = frozenset(names(record, "features"))
    total = Resources(
        cores=whole(record, "effective_cpus") or _there(record, "cpus"),
        memory=max(0, _there(record, "real_memory") - whole(record, "specialized_memory")),
        gpus=gpus_of(text(record, "gres")),
    )
    taken_cores = whole(record, "alloc_cpus")
    busy = taken_cores > 0 or any(WORDS.get(word) is Meaning.BUSY for word in said)
    running = max(placed.get(called, 0), 1 if busy else 0)
    if lent is not None and "DRAIN" in said:
        said -= POWER_DOWN  # Slurm powers down only what is empty, and a drained node is not woken again
    state, open_to_jobs = read_state(said, running)
    worker = WorkerId(called) if marker in features and _WORKER.fullmatch(called) is not None else None
    if lent is not None:
        worker = lent.get(called)
    free = Resources(
        cores=max(0, total.cores - taken_cores),
        memory=max(0, total.memory - whole(record, "alloc_memory")),
        gpus=max(0, total.gpus - gpus_of(text(record, "gres_used"))),
    )
    last_busy = number(record, "last_busy")
    calm = open_to_jobs or state is NodeState.DRAINED
    return Node(
        name=called,
        worker=worker,
        state=state,
        total=total,
        free=free if open_to_jobs else Resources(),
        running=running,
        idle_since=last_busy if lent is None and last_busy and not running and calm else None,
        kind=None if worker is not None else kind_of(names(record, "partitions"), features),
    )


def _there(record: Record, key: str) -> int:
    if key not in record:
        raise Surprising(f"{key} is missing")
    return whole(record, key)


def gpus_of(gres: str) -> int:
    """``gpu:a100:2(S:0),gpu:1,shard:4`` has three GPUs."""
    count = 0
    for part in re.sub(r"\([^)]*\)", "", gres).split(","):
        fields = part.strip().split(":")
        if fields[0] == "gpu":
            count += int(fields[-1]) if fields[-1].isdigit() else 1
    return count


def kind_of(partitions: tuple[str, ...], features: frozenset[str]) -> str:
    """What requirements see of a node of others: ``PARTITION,...;FEATURE,...``"""
    return f"{','.join(sorted(partitions))};{','.join(sorted(features))}"


def partitions_and_features(kind: str) -> tuple[frozenset[str], frozenset[str]]:
    """The two parts of :func:`kind_of`."""
    partitions, _, features = kind.partition(";")
    return frozenset(partitions.split(",")), frozenset(features.split(","))
