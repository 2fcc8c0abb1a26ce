"""Why: a code for machines, a sentence for people."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """Every reason there is. docs/reference/reasons.md explains each; a test keeps the two together."""

    # why more
    DEMAND = "demand"
    BELOW_MINIMUM = "below-minimum"
    BELOW_DESIRED = "below-desired"
    LOAD_HIGH = "load-high"
    SCHEDULED = "scheduled"
    # why not more
    SATISFIED = "satisfied"
    DEBOUNCE = "debounce"
    BELOW_THRESHOLD = "below-threshold"
    LOAD_STEADY = "load-steady"
    COOLDOWN = "cooldown"
    AT_MAXIMUM = "at-maximum"
    AT_QUOTA = "at-quota"
    NO_SHAPE_FITS = "no-shape-fits"
    OTHERS_ONLY = "others-only"
    NOT_TAKEN = "not-taken"
    CLOUD_REFUSING = "cloud-refusing"
    NO_EVIDENCE = "no-evidence"
    IMPLAUSIBLE = "implausible"
    STARTING = "starting"
    HELD = "held"
    # the way up
    LAUNCH_CALLED = "launch-called"
    LAUNCHED = "launched"
    FOUND_BY_TAG = "found-by-tag"
    JOINED = "joined"
    # the way down
    IDLE = "idle"
    LOAD_LOW = "load-low"
    SURPLUS = "surplus"
    OVER_OLD = "over-old"
    YIELDED = "yielded"
    INTERRUPTED = "interrupted"
    SINGLE_USE = "single-use"
    OPERATOR = "operator"
    SELF_DRAINED = "self-drained"
    LOAD_RETURNED = "load-returned"
    DRAINED_EMPTY = "drained-empty"
    WITHDRAWN = "withdrawn"
    CONFIRMED_GONE = "confirmed-gone"
    # why it stays
    BUSY = "busy"
    KEPT_IDLE = "kept-idle"
    AT_MINIMUM = "at-minimum"
    SILENT = "silent"
    NOT_IN_QUEUE = "not-in-queue"
    NOT_IN_CLOUD = "not-in-cloud"
    # what went wrong
    LAUNCH_REFUSED = "launch-refused"
    LAUNCH_LOST = "launch-lost"
    NEVER_JOINED = "never-joined"
    MACHINE_BROKEN = "machine-broken"
    MACHINE_STOPPED = "machine-stopped"
    MACHINE_GONE = "machine-gone"
    DOUBLE = "double"
    STRAY = "stray"
    POLICY_FAILED = "policy-failed"


@dataclass(frozen=True, slots=True)
class Reason:
    """``text`` is one sentence with the figures behind it. It never holds a secret."""

    cause: Cause
    text: str

    def __str__(self) -> str:
        return f"{self.cause}: {self.text}"
