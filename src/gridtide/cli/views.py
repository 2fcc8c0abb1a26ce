"""What the CLI reads in the service's answers: only what it shows, checked, so that nonsense is told as such.

Fields that are not named here pass by; ``--json`` shows the service's documents as they came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from gridtide.cli.problems import ServiceFault
from gridtide.model.workers import WorkerState
from gridtide.pilot.protocol import JobState
from gridtide.store.ports import Json


class View(BaseModel):
    """A part of an answer. Further fields are none of the CLI's business."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ReasonView(View):
    """Why, for machines and for people."""

    cause: str
    text: str


class ShapeView(View):
    """A kind of machine."""

    name: str


class WorkerView(View):
    """One worker. ``reason`` is why it entered its state, ``why`` why it stays there."""

    id: str
    group: str
    cloud: str
    shape: ShapeView
    zone: str | None = None
    state: WorkerState
    since: float
    reason: ReasonView | None = None
    why: ReasonView | None = None


class GroupView(View):
    """One group: figures, wishes and the present reason."""

    name: str
    queue: str
    minimum: int
    maximum: int
    desired: int | None = None
    hold: bool = False
    closing: bool = False
    workers: Mapping[str, int]
    waiting: int | None = None
    running: int | None = None
    reason: ReasonView | None = None


class SourceView(View):
    """One source of readings and how good the last one is."""

    source: str
    quality: str
    age: float | None = None
    error: str | None = None


class StuckView(View):
    """Jobs that look alike and that no machine of ours will run as things are."""

    queue: str
    label: str
    count: int
    reason: ReasonView


class SpendingView(View):
    """What a cloud has charged today. ``per_day`` None: it has no budget."""

    cloud: str
    spent: float
    per_day: float | None = None
    kept: float | None = None
    late: int = 0


class StatusView(View):
    """The whole site at a glance."""

    site: str
    groups: tuple[GroupView, ...]
    sources: tuple[SourceView, ...]
    stuck: tuple[StuckView, ...] = ()
    spending: tuple[SpendingView, ...] = ()
    jobs: Mapping[str, int] | None = None
    """By state; None at a site without a queue of its own."""

    @property
    def workers(self) -> Mapping[str, int]:
        """Those of all groups by state."""
        counted: Counter[str] = Counter()
        for row in self.groups:
            counted.update(row.workers)
        return +counted


class ActionView(View):
    """One step that the next cycle would take. Which fields it has depends on ``action``."""

    action: str
    reason: ReasonView
    worker: str | None = None
    group: str | None = None
    cloud: str | None = None
    zone: str | None = None
    machine: str | None = None
    shape: ShapeView | None = None
    count: int | None = None
    before: str | None = None
    after: str | None = None


class DemandView(View):
    """Waiting jobs that look alike, and why they wait."""

    queue: str
    label: str
    reason: ReasonView | None = None


class PlanView(View):
    """All that the next cycle would do, and why each group does no more."""

    actions: tuple[ActionView, ...]
    groups: Mapping[str, ReasonView | None]
    demand: tuple[DemandView, ...] = ()


class SecondsView(View):
    """How long something takes: in the middle, and in 19 of 20 cases at most."""

    median: float
    p95: float


class BootsView(SecondsView):
    """Boots that are known. ``shape`` and ``image`` None: of any."""

    count: int
    since: float
    shape: str | None = None
    image: str | None = None


class EtaView(View):
    """How long a job submitted now would wait. ``seconds`` None: not known, or something is in the way."""

    free: bool
    waiting: int | None = None
    seconds: SecondsView | None = None
    cloud: str | None = None
    shape: str | None = None
    image: str | None = None
    policy_waits: float = 0.0
    boot: BootsView | None = None
    obstacle: ReasonView | None = None


class HistoryView(View):
    """One step of how something came to be as it is."""

    at: float
    text: str


class ExplanationView(View):
    """Why something is as it is."""

    subject: str
    now: str
    because: str
    history: tuple[HistoryView, ...] = ()


class EventView(View):
    """One line of the audit log."""

    number: int
    at: float
    kind: str
    subject: str
    actor: str
    text: str
    reason: ReasonView | None = None


class JobView(View):
    """One job."""

    id: str
    user: str
    state: JobState
    name: str = ""
    submitted: float
    started: float | None = None
    ended: float | None = None
    attempt: int = 0
    worker: str | None = None
    exit_code: int | None = None
    reason: str = ""


class SubmissionView(View):
    """Jobs that were submitted together."""

    number: int
    user: str
    name: str = ""
    submitted: float
    jobs: Mapping[JobState, int]

    @property
    def total(self) -> int:
        """How many jobs there are."""
        return sum(self.jobs.values())

    @property
    def ended(self) -> int:
        """How many have ended, well or not."""
        return sum(self.jobs.get(state, 0) for state in ENDED)

    @property
    def failed(self) -> int:
        """How many have ended otherwise than well."""
        return self.ended - self.jobs.get(JobState.DONE, 0)


class OutputView(View):
    """A kept result."""

    name: str
    size: int
    digest: str


class TokenView(View):
    """A user's token, without its secret."""

    id: str
    user: str
    role: str
    created: float
    expires: float | None = None
    revoked: bool = False


ENDED: Final = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED})
"""States that a job does not leave."""

V = TypeVar("V")


def status(answer: Json) -> StatusView:
    """Of ``GET /v1/status``."""
    return _read(StatusView, answer)


def workers(answer: Json) -> list[WorkerView]:
    """Of ``GET /v1/workers``."""
    return _read_list(WorkerView, answer, "workers")


def groups(answer: Json) -> list[GroupView]:
    """Of ``GET /v1/groups``."""
    return _read_list(GroupView, answer, "groups")


def plan(answer: Json) -> PlanView:
    """Of ``GET /v1/plan``."""
    return _read(PlanView, answer)


def explanation(answer: Json) -> ExplanationView:
    """Of ``GET /v1/explain/SUBJECT``."""
    return _read(ExplanationView, answer)


def eta(answer: Json) -> EtaView:
    """Of ``GET /v1/groups/NAME/eta``."""
    return _read(EtaView, answer)


def events(answer: Json) -> list[EventView]:
    """Of ``GET /v1/events``."""
    return _read_list(EventView, answer, "events")


def event(line: Json) -> EventView:
    """One line of ``GET /v1/events?follow=1``."""
    return _read(EventView, line)


def jobs(answer: Json) -> list[JobView]:
    """Of ``GET /v1/jobs``."""
    return _read_list(JobView, answer, "jobs")


def job(answer: Json) -> JobView:
    """Of ``GET /v1/jobs/ID``."""
    return _read(JobView, answer)


def submission(answer: Json) -> SubmissionView:
    """Of ``GET /v1/submissions/NUMBER`` and ``POST /v1/submissions``."""
    return _read(SubmissionView, answer)


def outputs(answer: Json) -> list[OutputView]:
    """Of ``GET /v1/jobs/ID/outputs``."""
    return _read_list(OutputView, answer, "outputs")


def tokens(answer: Json) -> list[TokenView]:
    """Of ``GET /v1/tokens``."""
    return _read_list(TokenView, answer, "tokens")


def listed(answer: Json, key: str) -> list[str]:
    """The names in a list of an answer."""
    if not isinstance(answer, Mapping) or key not in answer:
        raise _nonsense(f"it has no {key!r}")
    return _read(list[str], answer[key])


def _read(kind: type[V], answer: Json) -> V:
    try:
        return TypeAdapter(kind).validate_python(answer)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _nonsense(f"{place}: {first['msg']}" if place else first["msg"]) from None


def _read_list(kind: type[V], answer: Json, key: str) -> list[V]:
    if not isinstance(answer, Mapping) or not isinstance(answer.get(key), list):
        raise _nonsense(f"it has no list {key!r}")
    return _read(list[kind], answer[key])  # type: ignore[valid-type]


def _nonsense(what: str) -> ServiceFault:
    return ServiceFault(
        f"the service's answer is not understood: {what}", remedy="are command and service of the same version?"
    )
