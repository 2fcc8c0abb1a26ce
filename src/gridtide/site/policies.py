"""``policy = { type = ... }`` of a group."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Final, Literal

from pydantic import Field

from gridtide.model.rules import FixedPolicy, PerJobPolicy, Policy, QueuePolicy
from gridtide.site.base import Count, PositiveCount, Typed, written
from gridtide.site.registry import TypeTable
from gridtide.site.units import Duration, Period


class PolicySettings(Typed, ABC):
    """How many workers a group should have. A package from elsewhere derives its own; see docs/how-to/plug-ins.md."""

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


POLICIES: Final[TypeTable[PolicySettings]] = TypeTable("policy", "gridtide.policy_settings")
POLICIES.register("queue", QueuePolicySettings)
POLICIES.register("elastiq", ElastiqPolicySettings)
POLICIES.register("per_job", PerJobPolicySettings)
POLICIES.register("fixed", FixedPolicySettings)
