"""Follow the queue: elastiq's rules (seeds-digest section 5), with fitting by shape as the default."""

from __future__ import annotations

from dataclasses import dataclass

from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import QueuePolicy
from gridtide.model.snapshot import GroupMemory
from gridtide.planning.policies.base import Aim, Outlook


@dataclass(frozen=True, slots=True)
class FollowQueue:
    """Workers for the jobs that wait, once enough of them have waited long enough."""

    parameters: QueuePolicy

    def aim(self, outlook: Outlook) -> Aim:
        """Only a fresh reading begins or breaks the waiting."""
        parameters = self.parameters
        since = outlook.memory.waiting_since
        patience: Reason | None = None
        until: float | None = None
        if outlook.waiting is not None:
            if outlook.waiting > parameters.threshold:
                since = outlook.now if since is None else since
            else:
                since = None
                figures = f"{outlook.waiting} waiting, more than {parameters.threshold} start workers"
                patience = Reason(Cause.BELOW_THRESHOLD, figures)
        if since is not None and outlook.now < since + parameters.waiting_time:
            until = since + parameters.waiting_time
            waited = f"waited for {outlook.now - since:.0f} s of {parameters.waiting_time:.0f} s"
            patience = Reason(Cause.DEBOUNCE, waited)
        return Aim(
            memory=GroupMemory(waiting_since=since),
            patience=patience,
            until=until,
            jobs_per_worker=parameters.jobs_per_worker,
            deploy_time=parameters.deploy_time,
            idle_for=parameters.idle_for,
        )
