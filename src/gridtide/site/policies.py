"""``policy = { type = ... }`` of a group."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import Annotated, ClassVar, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError

from gridtide.model.rules import (
    FixedPolicy,
    LoadPolicy,
    PerJobPolicy,
    Policy,
    QueuePolicy,
    SchedulePolicy,
    TidePolicy,
    Window,
)
from gridtide.site.base import Count, PositiveCount, SiteModel, Typed, written
from gridtide.site.registry import TypeTable
from gridtide.site.units import Duration, Period, wrong


class PolicySettings(Typed, ABC):
    """How many workers a group should have. Packages derive their own: docs/how-to/write-a-policy.md shows how."""

    noun: ClassVar[str] = "policy"

    @abstractmethod
    def policy(self) -> Policy:
        """The planner's view of it. Of a package from elsewhere: a :class:`gridtide.planning.policies.PlugInPolicy`."""


class QueuePolicySettings(PolicySettings):
    """Follow the queue: as many machines as the waiting jobs fill."""

    type: Literal["queue"] = Field(description="Follow the queue.")
    threshold: Count = written(0, description="Start workers only when more than this many jobs wait.")
    waiting_time: Duration = written(
        "0 s", description="... and have done so without a break for this long. Restarting begins again."
    )
    jobs_per_worker: PositiveCount | None = written(
        None, description="Jobs that one worker serves. Left out: computed from the jobs' needs and the shapes."
    )
    idle_for: Duration = written("5 min", description="A worker without a job for so long is drained.")
    deploy_time: Period | None = written(
        None,
        description="A worker that was requested longer ago and has not joined no longer counts against the waiting "
        "jobs (it still counts against the maximum). Left out: it counts until its join deadline.",
    )

    def policy(self) -> Policy:
        """With the same parameters."""
        return QueuePolicy(self.threshold, self.waiting_time, self.jobs_per_worker, self.idle_for, self.deploy_time)


class ElastiqPolicySettings(QueuePolicySettings):
    """The queue policy with the defaults of elastiq, for sites that come from there (seeds-digest section 5)."""

    type: Literal["elastiq"] = Field(description="Follow the queue as elastiq does.")  # type: ignore[assignment]
    threshold: Count = written(10, description="elastiq's waiting_jobs_threshold.")
    waiting_time: Duration = written("100 s", description="elastiq's waiting_jobs_time_s.")
    jobs_per_worker: PositiveCount | None = written(4, description="elastiq's n_jobs_per_vm.")
    idle_for: Duration = written("1 h", description="elastiq's idle_for_time_s.")
    deploy_time: Period | None = written("10 min", description="elastiq's estimated_vm_deploy_time_s.")


class TidePolicySettings(PolicySettings):
    """Follow the queue with small machines, a little ahead of it."""

    type: Literal["tide"] = Field(description="Follow the queue with small machines, a little ahead of it.")
    idle_for: Period = written(
        "30 min",
        description="A worker without a job for so long is drained; sooner, after the idle time that was learned to be "
        "worth while, when more cores are free than the load is likely to want again.",
    )
    ahead: Annotated[float, Field(ge=0.0, le=1.0)] = written(
        0.05,
        description="At most this part of the cores that jobs use is kept free, and launched if need be, for jobs to "
        "come. 0: none.",
    )
    spread: PositiveCount = written(
        10,
        description="No machine has more than one of so many parts of the cores that are launched at a time, where "
        "smaller ones will do. 1: as large as jobs fill.",
    )
    wait_worth: Annotated[float, Field(ge=0.0, le=1000.0)] = written(
        8.0,
        description="Seconds of an idle core that a second of a waiting one is worth. Less: cheaper, and jobs wait for "
        "boots more often.",
    )

    def policy(self) -> Policy:
        """With the same parameters."""
        return TidePolicy(self.idle_for, self.ahead, self.spread, self.wait_worth)


class PerJobPolicySettings(PolicySettings):
    """One single-use worker for each waiting job, as AliEC2 does (seeds-digest section 1)."""

    type: Literal["per_job"] = Field(description="One single-use worker for each waiting job.")
    idle_for: Duration = written(
        "5 min",
        description="A worker that got no job for so long is drained: its job was cancelled or ran elsewhere.",
    )

    def policy(self) -> Policy:
        """With the same parameters."""
        return PerJobPolicy(self.idle_for)


class FixedPolicySettings(PolicySettings):
    """A constant number of workers, whatever waits."""

    type: Literal["fixed"] = Field(description="A constant number of workers.")
    count: Count = Field(description="How many. From the group's minimum to its maximum.")

    def policy(self) -> Policy:
        """With the same count."""
        return FixedPolicy(self.count)


Part = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
"""A part of a whole, from 0 to 1."""


class LoadPolicySettings(PolicySettings):
    """Follow the mean load of the workers, with alarms as in a template of Heat (seeds-digest section 2)."""

    type: Literal["load"] = Field(description="Follow the mean load of the workers.")
    high: Part = written(0.5, description="Above this mean load, as part of the cores, workers are added ...")
    high_for: Duration = written("60 s", description="... once it has been above it for so long without a break.")
    low: Part = written(0.1, description="Below this mean load idle workers are given back ...")
    low_for: Duration = written("60 s", description="... once it has been below it for so long without a break.")
    cooldown: Duration = written("60 s", description="After a change nothing else is changed for so long.")
    add: PositiveCount = written(1, description="Workers that one alarm adds.")
    remove: PositiveCount = written(1, description="Workers that one alarm gives back, if so many run nothing.")
    heard_within: Period = written(
        "1 min",
        description="A worker that has not reported for so long counts as fully loaded before others are given back, "
        "and does not count before others are added.",
    )

    def policy(self) -> Policy:
        """With the same parameters."""
        return LoadPolicy(
            self.high, self.high_for, self.low, self.low_for, self.cooldown, self.add, self.remove, self.heard_within
        )


def _cron(text: str) -> str:
    example = 'minute, hour, day, month, day of the week, for example "0 8 * * mon-fri"'
    if len(text.split()) != 5:
        raise wrong(f"{text[:60]!r} has not the five fields of cron", example)
    try:
        found = next(CronSim(text, datetime(2000, 1, 1, tzinfo=UTC)), None)
    except CronSimError as error:
        raise wrong(f"{text[:60]!r} cannot be read: {str(error).lower()}", example) from None
    if found is None:
        raise wrong(f"{text[:60]!r} never comes", example)
    return " ".join(text.split())


def _zone(name: str) -> str:
    if name == "UTC":  # needs no table of time zones
        return name
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise wrong(f"{name[:60]!r} is no time zone of this host", 'for example "Europe/Rome", or "UTC"') from None
    return name


class WindowSettings(SiteModel):
    """One of the ``windows`` of a schedule."""

    begins: Annotated[str, Field(max_length=200), AfterValidator(_cron)] = Field(
        description="When it begins, as cron has it: minute, hour, day, month, day of the week."
    )
    lasts: Period = Field(description="How long it is open. Clocks that are put forward or back do not change it.")
    minimum: Count | None = written(None, description="Never fewer workers than this meanwhile.")
    maximum: Count | None = written(None, description="Never more, meanwhile. At most the group's own maximum.")
    desired: Count | None = written(None, description="Exactly so many meanwhile, whatever waits.")
    warm: Count | None = written(None, description="So many more than run jobs are kept ready meanwhile.")

    def window(self) -> Window:
        """With the same figures."""
        return Window(self.begins, self.lasts, self.minimum, self.maximum, self.desired, self.warm)


def _policy(value: object, information: ValidationInfo) -> object:
    if isinstance(value, PolicySettings):
        return value
    if not isinstance(value, dict):
        raise wrong("must be a table", 'for example { type = "queue", idle_for = "5 min" }')
    try:
        model = POLICIES.model(value["type"])
    except KeyError:
        raise _at_type(wrong("this key is missing", POLICIES.missing()), value) from None
    except PydanticCustomError as error:
        raise _at_type(error, value["type"]) from None
    return model.model_validate(value, context=information.context)


def _at_type(error: PydanticCustomError, value: object) -> ValidationError:
    """The same error, but about the key ``type`` of the table."""
    return ValidationError.from_exception_data("policy", [{"type": error, "loc": ("type",), "input": value}])


AnyPolicy = Annotated[PolicySettings, BeforeValidator(_policy)]
"""A table whose ``type`` is in :data:`POLICIES`."""


class SchedulePolicySettings(PolicySettings):
    """Another policy whose minimum, maximum or number of workers changes with the hour."""

    type: Literal["schedule"] = Field(description="Other figures at other hours.")
    windows: tuple[WindowSettings, ...] = written(
        (), description="When other figures hold. Of several that are open the one written last counts, key by key."
    )
    zone: Annotated[str, Field(max_length=100), AfterValidator(_zone)] = written(
        "UTC", description="The time zone in which windows begin."
    )
    follow: AnyPolicy = written(
        {"type": "queue"}, description="The policy that is followed within these figures; any but `schedule`."
    )
    warm: Count = written(0, description="So many more than run jobs are kept ready, outside of windows that say more.")

    def policy(self) -> Policy:
        """With the same figures."""
        windows = tuple(window.window() for window in self.windows)
        return SchedulePolicy(windows, self.zone, self.follow.policy(), self.warm)


POLICIES: Final[TypeTable[PolicySettings]] = TypeTable("policy", "gridtide.policy_settings")
POLICIES.register("queue", QueuePolicySettings)
POLICIES.register("elastiq", ElastiqPolicySettings)
POLICIES.register("per_job", PerJobPolicySettings)
POLICIES.register("fixed", FixedPolicySettings)
POLICIES.register("load", LoadPolicySettings)
POLICIES.register("schedule", SchedulePolicySettings)
POLICIES.register("tide", TidePolicySettings)
